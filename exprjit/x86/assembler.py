"""From lines of instructions and labels to code: every branch the shortest that reaches.

The encoder turns one instruction into bytes; here they are put one behind the other, and
branches are given their distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from .encoder import Choice, Operands
from .instructions import INSTRUCTIONS, Instruction


class Label:
    """A place in the code, known by identity; `name` is for listings."""

    __slots__ = ("name",)

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Label({self.name!r})"


# (instruction, operands, tag); a label is placed by (label, (), None).
Line = tuple[Instruction | Label, Operands, object]


def line(key: str, *operands: object) -> Line:
    """A line of code: the instruction `key` of the table with its operands."""
    return INSTRUCTIONS[key], operands, None


def place(label: Label) -> Line:
    """The line that gives a label its place."""
    return label, (), None


class Encoded:
    """Machine code and where each line of it came from.

    `code` is the bytes, `labels` maps every label to its offset, `lines` lists (offset, size,
    instruction, operands, tag) without the labels; the latter two are computed when asked for.
    """

    __slots__ = ("code", "_pieces", "_source")

    def __init__(self, source: Sequence[Line], pieces: list[bytes]) -> None:
        self._source = source
        self._pieces = pieces  # one per line, empty for labels
        self.code = b"".join(pieces)

    def followed_by(self, other: Encoded) -> Encoded:
        """This code with `other` behind it; no branch goes from one to the other."""
        return Encoded([*self._source, *other._source], [*self._pieces, *other._pieces])

    @property
    def lines(self) -> list[tuple[int, int, Instruction, Operands, object]]:
        return [
            (offset, len(piece), item, operands, tag)
            for offset, piece, (item, operands, tag) in self._located()
            if not isinstance(item, Label)
        ]

    @property
    def labels(self) -> dict[Label, int]:
        located = self._located()
        return {item: offset for offset, _, (item, _, _) in located if isinstance(item, Label)}

    def _located(self) -> Iterator[tuple[int, bytes, Line]]:
        offsets = accumulate(map(len, self._pieces), initial=0)
        return zip(offsets, self._pieces, self._source, strict=False)


class Branch(NamedTuple):
    """A branch to a label while sizes are being chosen."""

    line: int
    target: Label
    short: Choice
    long: Choice  # the same as `short` where there is one size only


def encode(lines: Iterable[Line]) -> Encoded:
    """Encode `lines`; every branch takes the shortest form that reaches its label.

    Raises ValueError for an operand that cannot be encoded and for a label that is placed twice or
    branched to but not placed.
    """
    source = list(lines)
    pieces: list[bytes] = []
    branches: list[Branch] = []
    places: dict[Label, tuple[int, int]] = {}  # label -> lines and branches before it
    for item, operands, _ in source:
        if isinstance(item, Label):
            if item in places:
                raise ValueError(f"{item} is placed twice")
            places[item] = len(pieces), len(branches)
            pieces.append(b"")
        elif item.branches:
            found = item.table[operands[:-1]]
            branches.append(Branch(len(pieces), operands[-1], found[0], found[-1]))
            pieces.append(b"")
        else:
            pieces.append(item.emit(operands))
    if branches:
        _resolve(pieces, branches, places)
    return Encoded(source, pieces)


def _resolve(
    pieces: list[bytes], branches: list[Branch], places: Mapping[Label, tuple[int, int]]
) -> None:
    """Put the branches' bytes in their pieces, which are still empty."""
    offsets = list(accumulate(map(len, pieces), initial=0))
    gaps = []  # bytes from branch to label, not counting branches
    targets = []  # branches before the label
    for branch in branches:
        if branch.target not in places:
            raise ValueError(f"{branch.target} is branched to but not placed")
        line, before = places[branch.target]
        gaps.append(offsets[line] - offsets[branch.line])
        targets.append(before)
    chosen = _size_branches(branches, gaps, targets)
    starts = list(accumulate((len(c.head) + c.size for c in chosen), initial=0))
    for place, (branch, choice) in enumerate(zip(branches, chosen, strict=True)):
        distance = gaps[place] + starts[targets[place]] - starts[place + 1]
        pieces[branch.line] = choice.head + distance.to_bytes(choice.size, "little", signed=True)


# Rounds of growth after which the remaining short branches all become long. Compiled formulas
# settle in a few; this bounds the work for code made so that each branch pushes just one other.
_ROUNDS = 64


def _size_branches(
    branches: Sequence[Branch], gaps: Sequence[int], targets: Sequence[int]
) -> list[Choice]:
    """Choose short or long for every branch: start short, grow what does not reach, repeat.

    Growing only ever moves labels apart, so a branch once too short stays so and the first state
    in which all reach is the smallest. `gaps` and `targets` are those of `_resolve`.
    """
    chosen = [branch.short for branch in branches]
    sizes = [len(choice.head) + choice.size for choice in chosen]
    open_ = [place for place, branch in enumerate(branches) if branch.short is not branch.long]
    for round_ in range(_ROUNDS + 1):
        starts = list(accumulate(sizes, initial=0))
        reach = {
            place
            for place in open_
            if chosen[place].low
            <= gaps[place] + starts[targets[place]] - starts[place + 1]
            <= chosen[place].high
        }
        if len(reach) == len(open_):
            break
        for place in open_:
            if place not in reach or round_ == _ROUNDS:
                choice = chosen[place] = branches[place].long
                sizes[place] = len(choice.head) + choice.size
        open_ = [place for place in open_ if place in reach]
    return chosen

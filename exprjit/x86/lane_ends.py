"""What an instruction set has to say about both ends of a formula over many rows.

Between them is what Lanes makes of the formula; lane_bodies.py puts the three together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from .assembler import Label, Line
from .lane_alloc import Storage
from .lane_code import Op, op
from .lanes import Isa
from .registers import R8, R9, R10, R11, R14, RAX, RCX, Mem
from .rows import Plan

#: The registers with the addresses of results and columns, as far as these go.
OUT: Final = R14
POINTERS: Final = (R8, R9, R10)
#: Registers for anything, and one that keeps what it has between blocks. (What is computed lane by
#: lane uses rax, rcx, rdx, rsi, rdi and r13.)
TEMPORARY: Final = RAX
SPARE: Final = RCX
KEPT: Final = R11


class Needs(NamedTuple):
    """What ends may ask for: fresh registers, and registers of invariants."""

    new: Callable[[], int]
    invariant: Callable[..., int]
    accumulators: list[int]


#: How many registers a vector of rows adds to.
ACCUMULATORS: Final = {"count": 1, "sum": 2, "min": 1, "max": 1, "argmin": 2, "argmax": 2}


def joined(key: str, values: list[int], s: Needs, code: list[Op]) -> int:
    """All of the values in one, in pairs and pairs of those."""
    while len(values) > 1:
        both = s.new()
        code.append(op(key, both, values[0], values[1]))
        values = [*values[2:], both]
    return values[0]


def taken(
    logic: tuple[str, str, str],
    masks: list[list[int]],
    holds: tuple[bool, ...],
    s: Needs,
    code: list[Op],
) -> tuple[int, bool]:
    """A mask that tells whether a row takes an arm, and if it is set where it does.

    Else it is set where no row does; arguments are as of `Ends.skip`.  logic: the keys of and, or,
    and of that which takes one mask out of another.
    """
    both, either, without = logic
    found = []
    for of_vector in masks:
        pairs = list(zip(of_vector, holds, strict=True))
        must = [mask for mask, set_ in pairs if set_]
        must_not = [mask for mask, set_ in pairs if not set_]
        mask = joined(either, must_not, s, code) if must_not else None
        if must:
            mask, others = joined(both, must, s, code), mask
            if others is not None:
                all_, mask = mask, s.new()
                code.append(op(without, mask, others, all_))
        assert mask is not None
        found.append(mask)
    return joined(either if any(holds) else both, found, s, code), any(holds)


class Ends(Protocol):
    """What an instruction set does at both ends of a formula (avx512_ends.py, avx2_ends.py)."""

    isa: Isa
    storage: Storage
    #: Whether the rows behind the last whole vector are done by one with a mask, except in kernels
    #: that write for rows that there are not.
    masks_tail: bool

    def accumulators(self, plan: Plan, turns: int) -> int:
        """How many registers keep what a kernel has found so far."""

    def load(self, kind: str, to: int, home: Mem, live: bool) -> list[Op]:
        """Load a vector of a column, widened; `live`: only of the rows that there are."""

    def check_range(self, values: list[int], bits: int, s: Needs, away: Label) -> list[Op]:
        """Leave unless all values are small."""

    def check(
        self, bails: list[int], signs: list[int], s: Needs, live: bool, away: Label
    ) -> list[Op]:
        """Leave if a row may fail."""

    def skip(
        self, masks: list[list[int]], holds: tuple[bool, ...], s: Needs, end: Label
    ) -> list[Op]:
        """Go to `end` if in no row all masks, given by vector, are as `holds` says."""

    def end(self, plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
        """What becomes of the results of a block."""

    def home(self, form: tuple[Any, ...], scalar: Mem | None, register: int) -> list[Line]:
        """Put an invariant into a register."""

    def tail(self) -> list[Line]:
        """Make the mask of the rows that are left, fewer than lanes perhaps."""

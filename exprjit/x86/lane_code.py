"""What lane code consists of: instructions over virtual registers, branches around arms, copies.

The registers are virtual vector and mask registers, each written once. Code runs straight on, but
for branches that leave it and those around an arm: there all values of the arm but its last are
used in it only, and that one is looked at only in rows that take the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from .assembler import Label
from .by_lane import ByLane
from .instructions import INSTRUCTIONS, Instruction
from .vectors import VECTORS

#: Virtual registers are numbered from here; what is below is a physical one.
FIRST_LANE: Final = 32
#: From here on they are what is the same for all rows.
SHARED: Final = 1 << 20


class Here:
    """A place in lane code that is branched to from before it.

    Nothing is alive there, or it ends an arm: then it stands behind what a `Skip` branches around.
    """

    __slots__ = ("ends_arm", "label")

    key = "here"
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def __init__(self, label: Label, ends_arm: bool = False) -> None:
        self.label = label
        self.ends_arm = ends_arm


class Skip:
    """A branch to the end of an arm that no row takes.

    Its operands are the masks of the choices that lead there, the innermost first.  holds: for
    each, whether rows take the arm where it is set.
    """

    __slots__ = ("holds", "kinds", "label", "roles")

    key = "skip"

    def __init__(self, label: Label, holds: tuple[bool, ...], kind: str) -> None:
        self.label = label
        self.holds = holds
        self.kinds = tuple(kind for _ in holds)
        self.roles = tuple("r" for _ in holds)


class Arm:
    """Where an arm begins, behind the branch around it."""

    __slots__ = ()

    key = "arm"
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class Op(NamedTuple):
    """An instruction over virtual vector and mask registers, written once each.

    operands: in Intel order; memory is addressed by physical registers.  tied: for the operand
    with the role "rw", which is written here, the register that is read.
    """

    instruction: Instruction | Here | Skip | Arm | ByLane
    operands: tuple[Any, ...]
    tied: int | None
    tag: object


def op(key: str, *operands: Any, tied: int | None = None, tag: object = None) -> Op:
    """An instruction of either table by its key."""
    return Op(INSTRUCTIONS.get(key) or VECTORS[key], operands, tied, tag)


def written(op: Op) -> int | None:
    """The virtual register that an instruction writes, if it does."""
    for kind, role, operand in operands(op):
        if role in ("w", "rw") and kind in "xk":
            return operand  # type: ignore[no-any-return]
    return None


def operands(op: Op) -> list[tuple[str, str, Any]]:
    """The operands of an instruction, each with its kind and its role."""
    instruction = op.instruction
    return list(zip(instruction.kinds, instruction.roles, op.operands, strict=True))


def read(op: Op) -> list[int]:
    """The virtual registers that an instruction reads."""
    found = [] if op.tied is None else [op.tied]
    for kind, role, operand in operands(op):
        if role == "r" and kind in "xkz" and operand >= FIRST_LANE:
            found.append(operand)
    return found


# Unrolling. ----------------------------------------------------------------------------------


class Copies:
    """The registers of code that is repeated for several vectors of rows.

    Those from `SHARED` on are the same for all.  times: how many vectors.  count: how many
    registers there are so far.  skip: the code for a branch around an arm, for the
    masks by vector, what `Skip` has about them, and where to go.
    """

    def __init__(
        self,
        times: int,
        count: int,
        skip: Callable[[list[list[int]], tuple[bool, ...], Label], list[Op]],
    ) -> None:
        self.times = times
        self.skip = skip
        self._count = count
        self._names: list[dict[int, int]] = [{} for _ in range(times)]

    def new(self) -> int:
        """A fresh register."""
        self._count += 1
        return self._count - 1

    def of(self, register: int, turn: int) -> int:
        """What a register is for a vector."""
        if register < FIRST_LANE or register >= SHARED:
            return register
        name = self._names[turn].get(register)
        if name is None:
            name = self._names[turn][register] = self.new()
        return name

    def repeated(self, code: list[Op]) -> list[Op]:
        """The code, each instruction for all vectors before the next."""
        found: list[Op] = []
        labels: dict[Label, Label] = {}
        for item in code:
            instruction = item.instruction
            if isinstance(instruction, Here | Skip):
                label = labels.setdefault(instruction.label, Label("behind the arm"))
                if isinstance(instruction, Here):
                    found.append(Op(Here(label, instruction.ends_arm), (), None, None))
                else:
                    turns = range(self.times)
                    masks = [[self.of(mask, turn) for mask in item.operands] for turn in turns]
                    found += self.skip(masks, instruction.holds, label)
                    found.append(Op(Arm(), (), None, None))
                continue
            parts = operands(item)
            for turn in range(self.times):
                renamed = tuple(self.of(o, turn) if kind in "xkz" else o for kind, _, o in parts)
                tied = None if item.tied is None else self.of(item.tied, turn)
                found.append(item._replace(operands=renamed, tied=tied))
        return found


def pressure(code: list[Op], alive: Iterable[int] = (), kinds: str = "x") -> int:
    """How many registers are alive at once at most, vectors or masks; `alive` are at the end."""
    live = set(alive)
    most = len(live)
    for item in reversed(code):
        to = written(item)
        if to is not None:
            live.discard(to)
        reads = operands(item)
        live.update(
            o for kind, role, o in reads if kind in kinds and role == "r" and o >= FIRST_LANE
        )
        if item.tied is not None and "x" in kinds:
            live.add(item.tied)
        most = max(most, len(live))
    return most

"""Code over virtual registers: what selection makes and the register allocator takes.

A block is straight-line but for what is branched around: other branches only leave it (to a
bail label), and what loops is a macro, one instruction to the allocator and a few to the
encoder.  Values are in SSA form: each virtual register is written once, so one that is spilled is
stored once, where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .assembler import Label, Line
from .instructions import Instruction
from .registers import NAMES_64, Mem

#: Virtual registers are numbered from here; what is below is a physical one.
FIRST_VIRTUAL: Final = 16


class Macro:
    """A short sequence that the allocator sees as one instruction.

    kinds, roles, reads, writes: as of `Instruction`; flags are always clobbered.  Operands
    are never in a register that is among reads or writes.
    expand: physical operands -> (lines in place, lines out of the way), with `tag` None.
    """

    __slots__ = ("expand", "key", "kinds", "reads", "roles", "writes")

    def __init__(
        self,
        key: str,
        expand: Callable[..., tuple[list[Line], list[Line]]],
        roles: tuple[str, ...] = (),
        reads: tuple[int, ...] = (),
        writes: tuple[int, ...] = (),
    ) -> None:
        self.key = key
        self.expand = expand
        self.kinds = tuple("r" for _ in roles)
        self.roles = roles
        self.reads = reads
        self.writes = writes

    def __repr__(self) -> str:
        return f"<{self.key}>"


class Fork:
    """A branch around what follows, up to `join`, unless a condition holds.

    Its operand is the condition code; the flags are there.
    """

    __slots__ = ("join",)

    key = "fork"
    kinds = ("c",)
    roles = ("i",)
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()

    def __init__(self, join: Join) -> None:
        self.join = join

    def __repr__(self) -> str:
        return "<fork>"


class Join:
    """Where both ways meet again.

    Operands: the value here, that of the way through, and that of the way around, which is there
    before the fork. Forks and joins nest.
    """

    __slots__ = ("label",)

    key = "join"
    kinds = ("r", "r", "r")
    roles = ("w", "r", "r")
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.label = Label("join")

    def __repr__(self) -> str:
        return "<join>"


class Virtual(NamedTuple):
    """An instruction over virtual registers.

    operands: in Intel order, as for the encoder.  tied: for the operand with the role "rw",
    which is written here, the register that is read.  reads, writes: one register for each
    of the instruction's fixed ones; None in writes for what is only clobbered.
    flags: whether the flags it leaves are used, so that it cannot be replaced by `lea`.
    tag: the source range it belongs to.
    """

    instruction: Instruction | Macro | Fork | Join
    operands: tuple[Any, ...]
    tied: int | None
    reads: tuple[int, ...]
    writes: tuple[int | None, ...]
    flags: bool
    tag: object


def registers_read(virtual: Virtual) -> list[int]:
    """The virtual registers that an instruction reads."""
    instruction, operands, tied, reads, _, _, _ = virtual
    values = list(reads)
    if tied is not None:
        values.append(tied)
    for kind, role, operand in zip(instruction.kinds, instruction.roles, operands, strict=True):
        if kind == "m":
            if operand.base is not None and operand.base >= FIRST_VIRTUAL:
                values.append(operand.base)
            if operand.index is not None and operand.index >= FIRST_VIRTUAL:
                values.append(operand.index)
        elif kind == "r" and role == "r":
            values.append(operand)
    return values


class Block(NamedTuple):
    """A formula's code, its parameters by position, and the label it leaves by when it bails.

    bails: whether it can bail; calls: whether it calls functions.
    """

    code: list[Virtual]
    params: dict[int, int]
    bail: Label
    bails: bool
    calls: bool


def _register(number: int) -> str:
    return NAMES_64[number] if number < FIRST_VIRTUAL else f"v{number - FIRST_VIRTUAL}"


def _memory(mem: Mem) -> str:
    parts = [] if mem.base is None else [_register(mem.base)]
    if mem.index is not None:
        parts.append(f"{_register(mem.index)}*{mem.scale}")
    if mem.disp or not parts:
        parts.append(str(mem.disp))
    return "[" + " + ".join(parts) + "]"


def dump(block: Block) -> str:
    """The block as text: a line per instruction, ``written <- read`` for what is implicit."""
    lines = [f"param {position} -> {_register(v)}" for position, v in block.params.items()]
    for instruction, operands, tied, reads, writes, _, _ in block.code:
        shown = []
        for kind, operand in zip(instruction.kinds, operands, strict=True):
            if kind == "r":
                shown.append(_register(operand))
            elif kind == "m":
                shown.append(_memory(operand))
            else:
                shown.append("bail" if isinstance(operand, Label) else str(operand))
        line = f"{instruction.key} {', '.join(shown)}".rstrip()
        if tied is not None:
            line += f" (from {_register(tied)})"
        fixed = [
            f"{NAMES_64[f]} <- {_register(v)}"
            for f, v in zip(instruction.reads, reads, strict=True)
        ]
        fixed += [
            f"{_register(v)} <- {NAMES_64[f]}"
            for f, v in zip(instruction.writes, writes, strict=True)
            if v is not None
        ]
        lines.append(line + (f" {{{', '.join(fixed)}}}" if fixed else ""))
    return "\n".join(lines)

"""What the register allocator knows of a block's values before it gives registers to them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from .block import FIRST_VIRTUAL, Block, Join, Virtual, registers_read
from .instructions import INSTRUCTIONS
from .registers import (
    CALLEE_SAVED,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    Mem,
)

#: What may be given out: first those whose names are short in the encoding, last those that have
#: to be saved for the caller. The result goes to rax, so that is not given away early.
ORDER: Final = (
    RCX, RDX, RSI, RDI, RAX, R8, R9, R10, R11, RBX, RBP, R12, R13, R14, R15,
)  # fmt: skip

_NUMBER: Final = INSTRUCTIONS["mov_ri"]


class Arrival(NamedTuple):
    """Where a parameter is when the block begins: a register, a place in memory, or both."""

    register: int | None
    home: Mem | None


class Liveness:
    """Where values are made and used, and which registers would suit them.

    uses: for every value the positions where it is made and used, ascending; parameters are made at
    -1.  reads: what each instruction reads.  constants: the numbers of values that are made again
    instead of kept.  hints: registers that it would be good to have a value in.
    """

    def __init__(self, code: Sequence[Virtual], arrivals: dict[int, Arrival]) -> None:
        self.uses: dict[int, list[int]] = {v: [-1] for v in arrivals}
        self.reads = [registers_read(virtual) for virtual in code]
        self.constants: dict[int, int] = {}
        self.hints: dict[int, int] = {
            v: a.register for v, a in arrivals.items() if a.register is not None
        }
        #: By register: where in the code instructions insist on it, ascending, and the parameter
        #: that arrives there, with its last use.
        self._insisted: list[list[int]] = [[] for _ in range(FIRST_VIRTUAL)]
        self._arriving: list[tuple[int, int]] = [(-1, -1)] * FIRST_VIRTUAL
        #: Of what is made in place of a value that dies there, and so on: the first such value.
        self._origin: dict[int, int] = {}
        for position, virtual in enumerate(code):
            self._scan(position, virtual)
        for position, virtual in enumerate(code):
            self._follow(position, virtual)
        for value, arrival in arrivals.items():
            if arrival.register is not None:
                self._arriving[arrival.register] = value, self.uses[value][-1]

    def _scan(self, position: int, virtual: Virtual) -> None:
        instruction, operands, _, _, writes, _, _ = virtual
        uses = self.uses
        for value in self.reads[position]:
            uses[value].append(position)
        for role, operand in zip(instruction.roles, operands, strict=True):
            if role in ("w", "rw") and type(operand) is int:
                uses[operand] = [position]
        for fixed, written in zip(instruction.writes, writes, strict=True):
            if written is not None:
                uses[written] = [position]
                self.hints[written] = fixed
        for fixed in {*instruction.reads, *instruction.writes}:
            self._insisted[fixed].append(position)
        if instruction is _NUMBER:
            self.constants[operands[0]] = operands[1]

    def _follow(self, position: int, virtual: Virtual) -> None:
        """What is made in place of a value that dies there had best be where that was."""
        instruction, operands, tied, *_ = virtual
        hints = self.hints
        if tied is not None and self.uses[tied][-1] == position:
            made = operands[instruction.roles.index("rw")]
            self._origin[made] = self._origin.get(tied, tied)
            if tied in hints:
                hints.setdefault(made, hints[tied])
        elif isinstance(instruction, Join) and operands[1] in hints:
            hints.setdefault(operands[0], hints[operands[1]])

    def is_wanted(self, register: int, value: int, position: int) -> bool:
        """Whether something else will have to be in the register while `value` is alive.

        That is a parameter that arrives there, or what an instruction before `position` insists on.
        """
        origin = self._origin.get(value, value)
        made = self.uses[origin][0]
        parameter, last_use = self._arriving[register]
        if last_use > made and parameter not in (value, origin):
            return True
        insisted = self._insisted[register]
        first = bisect_right(insisted, made)
        return first < len(insisted) and insisted[first] < position


def preferred(block: Block) -> list[int]:
    """The order in which to give registers out: those last that instructions insist on."""
    insisted: set[int] = set()
    for instruction, *_ in block.code[:-1]:
        insisted.update(instruction.reads, instruction.writes)
    return sorted(ORDER, key=lambda r: (r in CALLEE_SAVED, r in insisted))

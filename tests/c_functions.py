"""C functions to call from formulas: made of machine code, so that tests need no compiler.

Each writes down that it was called, and with what; it spoils every register and all memory
that a C function may spoil, and looks whether the stack is aligned as it must be.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from exprjit.runtime import memory
from exprjit.x86.assembler import Line, encode, line
from exprjit.x86.registers import ARGUMENTS, R10, R11, RAX, RCX, RSP, Mem

#: What is left where a function may leave anything.
GARBAGE = 0x5A5A_A5A5_DEAD_BEEF

RED_ZONE = 128


class Recorder:
    """C functions that write into one record, in the order of their calls."""

    def __init__(self, most: int = 10_000) -> None:
        # The next free word, whether a stack was misaligned, then the record.
        self._words = (ctypes.c_int64 * most)()
        self._owners: list[memory.Code] = []
        self.clear()

    def clear(self) -> None:
        self._words[0], self._words[1] = 2, 0

    def taken(self) -> list[int]:
        """What was written since the last time: for each call its number and its arguments."""
        assert self._words[1] == 0, "the stack was not aligned where a function was called"
        calls = list(self._words[2 : self._words[0]])
        self.clear()
        return calls

    def function(
        self, number: int, argtypes: Sequence[Any] = (ctypes.c_long,), restype: Any = ctypes.c_long
    ) -> Any:
        """``number + 3 * first argument`` (all 64 bits of it, whatever the type)."""
        code = encode(list(self._lines(number, len(argtypes)))).code
        self._owners.append(memory.install(code))
        function = ctypes.CFUNCTYPE(restype, *argtypes)(self._owners[-1].address)
        assert function.argtypes == tuple(argtypes)
        return function

    def _lines(self, number: int, count: int) -> list[Line]:
        lines = [
            line("endbr64"),
            line("mov_ri", R10, ctypes.addressof(self._words)),
            # The return address is on the stack.
            line("lea_rm", R11, Mem(RSP, disp=8)),
            line("and_ri", R11, 15),
            line("or_mr", Mem(R10, disp=8), R11),
            line("mov_rm", R11, Mem(R10)),
        ]
        lines.append(line("mov_ri", RAX, number))
        for source in (RAX, *ARGUMENTS[:count]):
            lines += [line("mov_mr", Mem(R10, R11, 8), source), line("inc_r", R11)]
        lines.append(line("mov_mr", Mem(R10), R11))
        if count:
            first = ARGUMENTS[0]
            lines.append(line("lea_rm", first, Mem(first, first, 2)))
            lines.append(line("add_rr", RAX, first))
        lines.append(line("mov_ri", RCX, GARBAGE))
        lines += [
            line("mov_mr", Mem(RSP, disp=-offset), RCX) for offset in range(8, RED_ZONE + 1, 8)
        ]
        lines += [line("mov_rr", register, RCX) for register in (*ARGUMENTS, R10, R11)]
        return [*lines, line("ret")]

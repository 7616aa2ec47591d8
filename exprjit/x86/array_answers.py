"""The answer of a call over arrays: what a kernel has found, in its state and in its lanes.

The state is where rsp points to (rows.py); behind it the words of the lanes follow. Of kernels that
find two things in each lane, the words for the first come before those for the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ..ir.rowwise import NEUTRAL
from .assembler import Label, Line, line, place
from .kernels import WORD, number
from .registers import CC, R8, R9, RAX, RCX, RDI, RDX, RSP, Mem
from .rows import State


class Found(NamedTuple):
    """Where that is.

    first: the first word of the lanes.  lanes: how many they are.  filtered: whether there may be
    no row that counts.  unusual: where to go if the answer is none of 64 bits, or not here.
    """

    first: int
    lanes: int
    filtered: bool
    unusual: Label

    @property
    def half(self) -> int:
        return self.lanes // 2


def _word(index: int, counter: int | None = None) -> Mem:
    """A word of the state; with a counter that which is so many behind the one before."""
    if counter is None:
        return Mem(RSP, disp=WORD * index)
    return Mem(RSP, counter, WORD, WORD * (index - 1))


def _each(count: int, lines: list[Line]) -> Iterator[Line]:
    """The lines for rcx = count down to 1."""
    if count:
        again = Label("lane")
        yield line("mov_ri", RCX, count)
        yield place(again)
        yield from lines
        yield line("dec_r", RCX)
        yield line("jcc_j", CC["ne"], again)


def _total(start: int, count: int) -> Iterator[Line]:
    """rdi = the sum of words."""
    yield line("xor32_rr", RDI, RDI)
    yield from _each(count, [line("add_rm", RDI, _word(start, RCX))])


def _count(found: Found) -> Iterator[Line]:
    yield from _total(found.first, found.lanes)
    yield line("add_rm", RDI, _word(State.BEST))


def _sum(found: Found) -> Iterator[Line]:
    """The lanes have the sums of lower halves, and then those of upper ones.

    Of so few rows as a call is for, these are longs. They are added in 128 bits to what is in the
    state.
    """
    low, high = _word(State.BEST), _word(State.BEST + 1)
    for start, shift, sign in ((found.first, 0, 63), (found.first + found.half, 32, 32)):
        yield from _total(start, found.half)
        yield line("mov_rr", RAX, RDI)
        yield line("sar_ri", RAX, sign)
        yield line("shl_ri", RDI, shift)
        yield line("add_mr", low, RDI)
        yield line("adc_mr", high, RAX)
    yield line("mov_rm", RDI, low)
    yield line("mov_rr", RAX, RDI)
    yield line("sar_ri", RAX, 63)
    yield line("cmp_rm", RAX, high)
    yield line("jcc_j", CC["ne"], found.unusual)


def _best(better: str, neutral: int) -> Callable[[Found], Iterator[Line]]:
    def answer(found: Found) -> Iterator[Line]:
        yield line("mov_rm", RDI, _word(State.BEST))
        take = [
            line("mov_rm", RAX, _word(found.first, RCX)),
            line("cmp_rr", RAX, RDI),
            line("cmovcc_rr", CC[better], RDI, RAX),
        ]
        yield from _each(found.lanes, take)
        if found.filtered:
            yield number(RAX, neutral)
            yield line("cmp_rr", RDI, RAX)
            yield line("jcc_j", CC["e"], found.unusual)

    return answer


def _best_row(better: str) -> Callable[[Found], Iterator[Line]]:
    """The first row with the best value, which is in rdx; if one was better than none.

    Rows are compared as unsigned numbers: so -1, which stands for none, comes after all others.
    """

    def answer(found: Found) -> Iterator[Line]:
        take, next_ = Label("take"), Label("next")
        yield line("mov_rm", RDX, _word(State.BEST))
        yield line("mov_rm", RDI, _word(State.ROW))
        choose = [
            line("mov_rm", R8, _word(found.first, RCX)),
            line("mov_rm", R9, _word(found.first + found.half, RCX)),
            line("cmp_rr", R8, RDX),
            line("jcc_j", CC[better], take),
            line("jcc_j", CC["ne"], next_),
            line("cmp_rr", R9, RDI),
            line("jcc_j", CC["ae"], next_),
            place(take),
            line("mov_rr", RDX, R8),
            line("mov_rr", RDI, R9),
            place(next_),
        ]
        yield from _each(found.half, choose)
        yield line("cmp_ri", RDI, -1)
        yield line("jcc_j", CC["e"], found.unusual)

    return answer


#: By kernel: what leaves the answer in rdi.
ANSWERS: Final[dict[str, Callable[[Found], Iterator[Line]]]] = {
    "count": _count,
    "sum": _sum,
    "min": _best("l", NEUTRAL["min"]),
    "max": _best("g", NEUTRAL["max"]),
    "argmin": _best_row("l"),
    "argmax": _best_row("g"),
}

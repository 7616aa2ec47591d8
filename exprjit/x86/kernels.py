"""How values enter code and leave it: the functions for C.

A kernel is a prologue, a formula's block and an epilogue.  The block is the same for all;
what differs is where parameters arrive, what becomes of the result, and what happens when
the code bails.  (What Python calls directly is in vectorcall.py.)

What an address in the stack is relative to is known only when the block is allocated and its
spill slots are counted; until then it stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ..ir.graph import Graph
from .assembler import Encoded, Line, encode, line, place
from .block import Block, Macro, Virtual
from .instructions import INSTRUCTIONS
from .macros import Log
from .regalloc import Allocation, Arrival, allocate
from .registers import ARGUMENTS, RAX, RDI, RSP, Mem
from .scalar import SCALAR
from .select import Selector, select

#: The largest frame that code may ask for, in bytes: what a thread with a small stack can
#: spare.  It is reached by formulas with thousands of values alive at once.
MAX_FRAME: Final = 1 << 16

WORD: Final = 8
#: What the stack pointer is a multiple of where a function is called (System V, 3.2.2).
STACK_ALIGNMENT: Final = 16
_PAGE: Final = 4096


class FrameTooLarge(Exception):
    """The code would need more stack than `MAX_FRAME`."""


class Code(NamedTuple):
    """A kernel: its bytes with the lines they come from, and the block they were made of.

    entry: the offset in the bytes at which it is called.  log: how many results of C functions
    it may write down.  lanes: how many words it adds to that are behind the columns (rows.py).
    """

    encoded: Encoded
    block: Block
    entry: int = 0
    log: int = 0
    lanes: int = 0


def number(register: int, value: int) -> Line:
    return line("xor32_rr", register, register) if value == 0 else line("mov_ri", register, value)


def result_in(register: int) -> Callable[[Selector, int], None]:
    """The end of a block that leaves its result in a register."""
    result = Macro("result", lambda: ([], []), reads=(register,))
    return lambda s, value: s.emit(result, reads=(value,))


def frame(size: int, saved: Sequence[int]) -> tuple[list[Line], list[Line]]:
    """What makes and what undoes a frame of `size` bytes that keeps the registers `saved`."""
    enter = [line("push_r", register) for register in saved]
    leave = [line("pop_r", register) for register in reversed(saved)]
    below, above = stack_room(size)
    return enter + below, above + leave


def stack_room(size: int) -> tuple[list[Line], list[Line]]:
    """What moves the stack pointer down by `size` bytes, and what moves it up again.

    Every page is touched on the way, so that a stack that is too small is noticed at the
    page that guards it, and nothing beyond it is overwritten.
    """
    if size > MAX_FRAME:
        raise FrameTooLarge(f"the formula needs {size:,} bytes of stack; at most {MAX_FRAME:,}")
    down = []
    for _ in range(size // _PAGE):
        down += [line("sub_ri", RSP, _PAGE), line("mov_mr", Mem(RSP), RAX)]
    if size % _PAGE:
        down.append(line("sub_ri", RSP, size % _PAGE))
    return down, [line("add_ri", RSP, size)] if size else []


#: A base of addresses in the stack whose distance from rsp is known only when the spill slots
#: have been counted: the caller's frame.
_CALLER: Final = -1


def placed(lines: list[Line], distances: dict[int, int]) -> list[Line]:
    """`lines` with the bases that are in `distances` put so far above rsp."""

    def put(operand: Any) -> Any:
        if type(operand) is Mem and operand.base in distances:
            return operand._replace(base=RSP, disp=operand.disp + distances[operand.base])
        return operand

    return [(item, tuple(map(put, operands)), tag) for item, operands, tag in lines]


# C functions. --------------------------------------------------------------------------------


def _arrivals(block: Block, first: int) -> dict[int, Arrival]:
    """Where System V passes the parameters if `first` arguments come before them.

    Those on the stack are given as offsets from where the caller's frame begins.
    """
    arrivals = {}
    for position, value in block.params.items():
        place = position + first
        if place < len(ARGUMENTS):
            arrivals[value] = Arrival(ARGUMENTS[place], None)
        else:
            arrivals[value] = Arrival(None, Mem(_CALLER, disp=WORD * (place - len(ARGUMENTS))))
    return arrivals


def _body(
    block: Block, allocation: Allocation, first: int
) -> tuple[list[Line], list[Line], list[Line]]:
    """The frame's beginning, the block's lines in it, and the frame's end, for C functions."""
    size = WORD * allocation.slots
    above = WORD * len(allocation.saved) + WORD
    if block.calls:
        size += -(size + above) % STACK_ALIGNMENT
    enter, leave = frame(size, allocation.saved)
    body = allocation.lines
    if any(position + first >= len(ARGUMENTS) for position in block.params):
        body = placed(body, {_CALLER: size + above})
    return enter, body, leave


def function(graph: Graph, features: frozenset[str], order: Sequence[int] | None = None) -> Code:
    """``long f(long, ...)`` for a graph without bail conditions."""
    assert not graph.bails, "a formula that can fail has no plain C function"
    block = select(graph, SCALAR, features, result_in(RAX))
    allocation = allocate(block, _arrivals(block, 0), Mem(RSP), order)
    enter, body, leave = _body(block, allocation, 0)
    lines = [line("endbr64"), *enter, *body, *leave, line("ret"), *allocation.cold]
    return Code(encode(lines), block)


def ref_function(
    graph: Graph, features: frozenset[str], order: Sequence[int] | None = None
) -> Code:
    """``int f(const long *, ...)``: the sign of a graph without bail conditions, for sorting."""
    graph.result = graph.make("sign", graph.result)
    pointers: dict[int, int] = {}

    def result(s: Selector, value: int) -> None:
        pointers.update((position, s.new()) for position in range(len(graph.params)))
        result_in(RAX)(s, value)

    assert not graph.bails, "a formula that can fail has no plain C function"
    block = select(graph, SCALAR, features, result)
    arriving = block._replace(params={place: pointers[place] for place in block.params})
    loading = _loading(block, {place: Mem(pointer) for place, pointer in pointers.items()})
    allocation = allocate(loading, _arrivals(arriving, 0), Mem(RSP), order)
    enter, body, leave = _body(arriving, allocation, 0)
    lines = [line("endbr64"), *enter, *body, *leave, line("ret"), *allocation.cold]
    return Code(encode(lines), loading)


def _loading(block: Block, homes: dict[int, Mem]) -> Block:
    """A block that loads its parameters from where they are."""
    load = INSTRUCTIONS["mov_rm"]
    loads = [
        Virtual(load, (value, homes[position]), None, (), (), False, None)
        for position, value in block.params.items()
    ]
    return block._replace(code=loads + block.code, params={})


def checked_function(
    graph: Graph, features: frozenset[str], order: Sequence[int] | None = None
) -> Code:
    """``int f(long *result, long, ...)``: 0 with the result stored, or 1 and nothing stored."""
    pointers: list[int] = []

    def store(s: Selector, value: int) -> None:
        pointers.append(s.new())
        s.emit("mov_mr", Mem(pointers[0]), value)

    block = select(graph, SCALAR, features, store)
    arrivals = {pointers[0]: Arrival(RDI, None), **_arrivals(block, 1)}
    return _answering(block, arrivals, order)


# Where things are in the buffer of `buffer_function`, in words: the result, how many results
# of C functions were logged, the values; what was logged follows the values.
RESULT: Final = 0
LOGGED: Final = 1
VALUES: Final = 2


def buffer_function(
    graph: Graph, features: frozenset[str], order: Sequence[int] | None = None
) -> Code:
    """``int f(long *buffer)``, which finds all its values in the buffer, and leaves all there."""
    pointers: list[int] = []
    first = VALUES + len(graph.params)

    def store(s: Selector, value: int) -> None:
        pointers.append(s.new())
        s.log, s.logged = Log(pointers[0], WORD * LOGGED, WORD * first), frozenset(graph.effects)
        s.emit("mov_mr", Mem(pointers[0], disp=WORD * RESULT), value)

    block = select(graph, SCALAR, features, store)
    homes = {place: Mem(pointers[0], disp=WORD * (VALUES + place)) for place in block.params}
    code = _answering(_loading(block, homes), {pointers[0]: Arrival(RDI, None)}, order)
    return code._replace(log=len(graph.effects))


def _answering(block: Block, arrivals: dict[int, Arrival], order: Sequence[int] | None) -> Code:
    """A function that gives 0, or 1 where the block bails."""
    allocation = allocate(block, arrivals, Mem(RSP), order)
    enter, body, leave = _body(block, allocation, 1)
    lines = [line("endbr64"), *enter, *body, number(RAX, 0), *leave, line("ret")]
    if block.bails:
        lines += [place(block.bail), number(RAX, 1), *leave, line("ret")]
    return Code(encode(lines + allocation.cold), block)

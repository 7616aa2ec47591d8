"""How values enter code and leave it: the C function, the checked C function, the Python call.

A kernel is a prologue, a formula's block and an epilogue.  The block is the same for all;
what differs is where parameters arrive, what becomes of the result, and what happens when
the code bails.  What an address in the stack is relative to is known only when the block is
allocated and its spill slots are counted; until then it stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ..ir.graph import Graph
from .assembler import Encoded, Label, Line, encode, line, place
from .block import Block, Macro
from .regalloc import ORDER, Allocation, Arrival, allocate
from .registers import ARGUMENTS, CC, RAX, RCX, RDI, RDX, RSI, RSP, Mem
from .scalar import SCALAR
from .select import Selector, select

#: The largest frame that code may ask for, in bytes: what a thread with a small stack can
#: spare.  It is reached by formulas with thousands of values alive at once.
MAX_FRAME: Final = 1 << 16

_WORD: Final = 8
_PAGE: Final = 4096


class FrameTooLarge(Exception):
    """The code would need more stack than `MAX_FRAME`."""


class CallTargets(NamedTuple):
    """What code for Python calls refers to (runtime/pycall.py says what the last three do).

    Addresses, but for type_offset: where in an object the pointer to its type is.
    """

    type_offset: int
    PyLong_Type: int
    PyLong_AsLong: int
    PyLong_FromLong: int
    PyErr_Occurred: int
    slow: int
    bail: int
    failed: int


class Code(NamedTuple):
    """A kernel: its bytes with the lines they come from, and the block they were made of.

    entry: the offset in the bytes at which it is called.
    """

    encoded: Encoded
    block: Block
    entry: int = 0


def _number(register: int, value: int) -> Line:
    return line("xor32_rr", register, register) if value == 0 else line("mov_ri", register, value)


def _result_in(register: int) -> Callable[[Selector, int], None]:
    """The end of a block that leaves its result in a register."""
    result = Macro("result", lambda: ([], []), reads=(register,))
    return lambda s, value: s.emit(result, reads=(value,))


def _frame(size: int, saved: Sequence[int]) -> tuple[list[Line], list[Line]]:
    """What makes and what undoes a frame of `size` bytes that keeps the registers `saved`."""
    enter = [line("push_r", register) for register in saved]
    leave = [line("pop_r", register) for register in reversed(saved)]
    below, above = _room(size)
    return enter + below, above + leave


def _room(size: int) -> tuple[list[Line], list[Line]]:
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


# Bases of addresses in the stack whose distance from rsp is known only when the spill slots
# have been counted: the caller's frame, the values that a Python call unboxed, the slots.
_CALLER: Final = -1
_VALUES: Final = -2
_SPILLS: Final = -3


def _placed(lines: list[Line], distances: dict[int, int]) -> list[Line]:
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
            arrivals[value] = Arrival(None, Mem(_CALLER, disp=_WORD * (place - len(ARGUMENTS))))
    return arrivals


def _body(
    block: Block, allocation: Allocation, first: int
) -> tuple[list[Line], list[Line], list[Line]]:
    """The frame's beginning, the block's lines in it, and the frame's end, for C functions."""
    size = _WORD * allocation.slots
    enter, leave = _frame(size, allocation.saved)
    body = allocation.lines
    if any(position + first >= len(ARGUMENTS) for position in block.params):
        body = _placed(body, {_CALLER: size + _WORD * len(allocation.saved) + _WORD})
    return enter, body, leave


def function(graph: Graph, features: frozenset[str], order: Sequence[int] = ORDER) -> Code:
    """``long f(long, ...)`` for a graph without bail conditions."""
    assert not graph.bails, "a formula that can fail has no plain C function"
    block = select(graph, SCALAR, features, _result_in(RAX))
    allocation = allocate(block, _arrivals(block, 0), Mem(RSP), order)
    enter, body, leave = _body(block, allocation, 0)
    lines = [line("endbr64"), *enter, *body, *leave, line("ret"), *allocation.cold]
    return Code(encode(lines), block)


def checked_function(graph: Graph, features: frozenset[str], order: Sequence[int] = ORDER) -> Code:
    """``int f(long *result, long, ...)``: 0 with the result stored, or 1 and nothing stored."""
    pointers: list[int] = []

    def store(s: Selector, value: int) -> None:
        pointers.append(s.new())
        s.emit("mov_mr", Mem(pointers[0]), value)

    block = select(graph, SCALAR, features, store)
    arrivals = {pointers[0]: Arrival(RDI, None), **_arrivals(block, 1)}
    allocation = allocate(block, arrivals, Mem(RSP), order)
    enter, body, leave = _body(block, allocation, 1)
    lines = [line("endbr64"), *enter, *body, _number(RAX, 0), *leave, line("ret")]
    if block.bails:
        lines += [place(block.bail), _number(RAX, 1), *leave, line("ret")]
    return Code(encode(lines + allocation.cold), block)


# The Python call. ----------------------------------------------------------------------------


def python_call(
    graph: Graph,
    features: frozenset[str],
    targets: CallTargets,
    order: Sequence[int] = ORDER,
) -> Code:
    """``PyObject *f(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)``.

    The vectorcall protocol (PEP 590).  Arguments are unboxed into the frame in order; what
    is not exactly the expected number of objects of type int is handed to `targets.slow` as
    it came, so that no code of the user's runs here.  A formula that bails gives the unboxed
    values to `targets.bail`.
    """
    count = len(graph.params)
    block = select(graph, SCALAR, features, _result_in(RDI))
    keep = block.bails or count > 1
    arrivals = {}
    for position, value in block.params.items():
        home = _value(position)._replace(base=_VALUES) if keep else None
        arrivals[value] = Arrival(RAX if position == count - 1 else None, home)
    allocation = allocate(block, arrivals, Mem(_SPILLS), order)
    before = _unbox(count, keep, allocation.saved, targets)
    spills = _WORD * (allocation.slots + allocation.slots % 2)
    room, back = _room(spills)
    lines = _placed(allocation.lines, {_VALUES: spills, _SPILLS: 0})
    lines += [_number(RAX, targets.PyLong_FromLong), *back, *before.leave, line("jmp_r", RAX)]
    if block.bails:
        lines += [
            place(block.bail),
            *back,
            line("mov_rm", RDI, _callable(count)),
            line("mov_rr", RSI, RSP),
            _number(RDX, count),
            _number(RAX, targets.bail),
            line("call_r", RAX),
            *before.leave,
            line("ret"),
        ]
    encoded = before.encoded.followed_by(encode(room + lines + allocation.cold))
    return Code(encoded, block, before.entry)


# The frame of a Python call: the unboxed values and what the call was given; below them,
# once the arguments are unboxed and no other code will run, spill slots.


def _value(position: int) -> Mem:
    return Mem(RSP, disp=_WORD * position)


def _callable(count: int) -> Mem:
    return Mem(RSP, disp=_WORD * count)


def _args(count: int) -> Mem:
    return Mem(RSP, disp=_WORD * (count + 1))


class _Unboxing(NamedTuple):
    """Code that runs on into a block.

    entry: where in it the call enters.  leave: what undoes its frame.
    """

    encoded: Encoded
    entry: int
    leave: list[Line]


@lru_cache(maxsize=256)
def _unbox(count: int, keep: bool, saved: tuple[int, ...], targets: CallTargets) -> _Unboxing:
    """The part of a Python call that comes before the block.

    It makes the frame and unboxes every argument into it, the last one also into rax; `keep`
    is whether values are needed in the frame at all.  It is the same for every formula with
    as many parameters, so it is made once.  What is seldom run stands in front of the entry.
    """
    size = _WORD * (count + 2)
    # The stack is aligned to 16 where functions are called: 8 are the return address.
    if (size + _WORD * len(saved) + _WORD) % 16:
        size += _WORD
    enter, leave = _frame(size, saved)
    slow, failed, unusual = Label("slow"), Label("failed"), Label("unusual")
    seldom: list[Line] = []
    often: list[Line] = [
        line("mov_mr", _callable(count), RDI),
        line("mov_mr", _args(count), RSI),
    ]
    for position in range(count):
        suspicious, sound = Label("minus one"), Label()
        if position:
            often.append(line("mov_rm", RSI, _args(count)))
        often += [
            line("mov_rm", RDI, Mem(RSI, disp=_WORD * position)),
            _number(RAX, targets.PyLong_Type),
            line("cmp_mr", Mem(RDI, disp=targets.type_offset), RAX),
            line("jcc_j", CC["ne"], unusual),
            _number(RAX, targets.PyLong_AsLong),
            line("call_r", RAX),
            line("cmp_ri", RAX, -1),
            line("jcc_j", CC["e"], suspicious),
            place(sound),
        ]
        if keep:
            often.append(line("mov_mr", _value(position), RAX))
        # -1 is an error only if there is an exception.
        seldom += [
            place(suspicious),
            _number(RAX, targets.PyErr_Occurred),
            line("call_r", RAX),
            line("test_rr", RAX, RAX),
            line("mov_ri", RAX, -1),
            line("jcc_j", CC["e"], sound),
        ]
        if position < count - 1:
            seldom.append(line("jmp_j", failed))
    if count:
        for label, target in ((failed, targets.failed), (unusual, targets.slow)):
            seldom += [
                place(label),
                line("mov_rm", RDI, _callable(count)),
                line("mov_rm", RSI, _args(count)),
                *leave,
                # The number of arguments is known, and that there are no keywords.
                _number(RDX, count),
                _number(RCX, 0),
                _number(RAX, target),
                line("jmp_r", RAX),
            ]
    seldom += [place(slow), _number(RAX, targets.slow), line("jmp_r", RAX)]
    entry = Label("entry")
    check = [
        line("endbr64"),
        line("test_rr", RCX, RCX),
        line("jcc_j", CC["ne"], slow),
        # The topmost bit of nargsf is a flag: doubling drops it.
        line("lea_rm", RAX, Mem(RDX, RDX)),
        line("cmp_ri", RAX, 2 * count),
        line("jcc_j", CC["ne"], slow),
    ]
    lines = [place(entry), *check, *enter, *often]
    # Padding moves the entry, and may lengthen a branch that just reached: try again.
    padding: list[Line] = []
    while True:
        encoded = encode([*seldom, *padding, *lines])
        offset = encoded.labels[entry]
        if offset % _ALIGNMENT == 0:
            return _Unboxing(encoded, offset, leave)
        padding.extend([line("int3")] * (-offset % _ALIGNMENT))


#: Entries start where the processor fetches.
_ALIGNMENT: Final = 16

"""The Python call: a formula's block between unboxing and boxing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ..ir.graph import Graph
from .assembler import Encoded, Label, Line, encode, line, place
from .kernels import STACK_ALIGNMENT, WORD, Code, frame, number, placed, result_in, stack_room
from .macros import Log
from .regalloc import Arrival, allocate
from .registers import CC, RAX, RCX, RDI, RDX, RSI, RSP, Mem
from .scalar import SCALAR
from .select import Selector, select

# Bases of addresses in the stack whose distance from rsp is known only when the spill slots
# have been counted: the values that were unboxed, the slots.
_VALUES: Final = -1
_SPILLS: Final = -2


class CallTargets(NamedTuple):
    """What code for Python calls refers to (runtime/pycall.py says what the last four do).

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
    arrays: int


def python_call(
    graph: Graph,
    features: frozenset[str],
    targets: CallTargets,
    order: Sequence[int] | None = None,
) -> Code:
    """``PyObject *f(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)``.

    The vectorcall protocol (PEP 590).  Arguments are unboxed into the frame in order; what
    is not exactly the expected number of objects of type int is handed to `targets.slow` or
    `targets.arrays` as it came, so that no code of the user's runs here.  A formula that bails
    gives the unboxed values to `targets.bail`.
    """
    count = len(graph.params)
    logged = graph.replayed()
    room = len(logged)
    layout = _Layout(count, room)

    def result(s: Selector, value: int) -> None:
        if logged:
            s.log = Log(_VALUES, layout.logged.disp, layout.value(count).disp)
            s.logged = frozenset(logged)
        result_in(RDI)(s, value)

    block = select(graph, SCALAR, features, result)
    keep = block.bails or count > 1
    arrivals = {}
    for position, value in block.params.items():
        home = layout.value(position)._replace(base=_VALUES) if keep else None
        arrivals[value] = Arrival(RAX if position == count - 1 else None, home)
    allocation = allocate(block, arrivals, Mem(_SPILLS), order)
    before = _unbox(layout, keep, allocation.saved, targets)
    spills = WORD * (allocation.slots + allocation.slots % 2)
    down, up = stack_room(spills)
    lines = placed(allocation.lines, {_VALUES: spills, _SPILLS: 0})
    lines += [number(RAX, targets.PyLong_FromLong), *up, *before.leave, line("jmp_r", RAX)]
    if block.bails:
        lines += [
            place(block.bail),
            *up,
            line("mov_rm", RDI, layout.callable),
            line("mov_rr", RSI, RSP),
            number(RDX, count),
            *([line("add_rm", RDX, layout.logged)] if room else []),
            number(RAX, targets.bail),
            line("call_r", RAX),
            *before.leave,
            line("ret"),
        ]
    encoded = before.encoded.followed_by(encode(down + lines + allocation.cold))
    return Code(encoded, block, before.entry, room)


class _Layout(NamedTuple):
    """The frame of a Python call, from the stack pointer upwards.

    The unboxed values; the results of C functions that were written down, if any are; what the
    call was given; how many results there are.  Below it, once the arguments are unboxed, are
    the spill slots.
    """

    values: int
    results: int

    def value(self, position: int) -> Mem:
        return Mem(RSP, disp=WORD * position)

    @property
    def callable(self) -> Mem:
        return self.value(self.values + self.results)

    @property
    def args(self) -> Mem:
        return self.value(self.values + self.results + 1)

    @property
    def logged(self) -> Mem:
        return self.value(self.values + self.results + 2)

    @property
    def size(self) -> int:
        return WORD * (self.values + self.results + (3 if self.results else 2))


class _Unboxing(NamedTuple):
    """Code that runs on into a block.

    entry: where in it the call enters.  leave: what undoes its frame.
    """

    encoded: Encoded
    entry: int
    leave: list[Line]


@lru_cache(maxsize=256)
def _unbox(layout: _Layout, keep: bool, saved: tuple[int, ...], targets: CallTargets) -> _Unboxing:
    """The part of a Python call that comes before the block.

    It makes the frame and unboxes every argument into it, the last one also into rax; `keep`
    is whether values are needed in the frame at all.  It is the same for every formula with
    as many parameters, so it is made once.  What is seldom run stands in front of the entry.
    """
    count, size = layout.values, layout.size
    # What is pushed before it: the return address and the registers.
    size += -(size + WORD * len(saved) + WORD) % STACK_ALIGNMENT
    enter, leave = frame(size, saved)
    slow, failed, unusual = Label("slow"), Label("failed"), Label("unusual")
    seldom: list[Line] = []
    often: list[Line] = [
        line("mov_mr", layout.callable, RDI),
        line("mov_mr", layout.args, RSI),
    ]
    if layout.results:
        often.append(line("mov_mi", layout.logged, 0))
    for position in range(count):
        suspicious, sound = Label("minus one"), Label()
        if position:
            often.append(line("mov_rm", RSI, layout.args))
        often += [
            line("mov_rm", RDI, Mem(RSI, disp=WORD * position)),
            number(RAX, targets.PyLong_Type),
            line("cmp_mr", Mem(RDI, disp=targets.type_offset), RAX),
            line("jcc_j", CC["ne"], unusual),
            number(RAX, targets.PyLong_AsLong),
            line("call_r", RAX),
            line("cmp_ri", RAX, -1),
            line("jcc_j", CC["e"], suspicious),
            place(sound),
        ]
        if keep:
            often.append(line("mov_mr", layout.value(position), RAX))
        # -1 is an error only if there is an exception.
        seldom += [
            place(suspicious),
            number(RAX, targets.PyErr_Occurred),
            line("call_r", RAX),
            line("test_rr", RAX, RAX),
            line("mov_ri", RAX, -1),
            line("jcc_j", CC["e"], sound),
        ]
        if position < count - 1:
            seldom.append(line("jmp_j", failed))
    if count:
        for label, target in ((failed, targets.failed), (unusual, targets.arrays)):
            seldom += [
                place(label),
                line("mov_rm", RDI, layout.callable),
                line("mov_rm", RSI, layout.args),
                *leave,
                # The number of arguments is known, and that there are no keywords.
                number(RDX, count),
                number(RCX, 0),
                number(RAX, target),
                line("jmp_r", RAX),
            ]
    seldom += [place(slow), number(RAX, targets.slow), line("jmp_r", RAX)]
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

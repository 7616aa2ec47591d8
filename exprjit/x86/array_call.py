"""The Python call over plain arrays: what a kernel of rows needs between Python and its loop.

``PyObject *f(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)``, the
vectorcall protocol (PEP 590). The arguments are one for each column, then the array for the results
if the kernel has any. All arrays are exactly of NumPy's type, of the dtypes that the code was made
for, of one shape, and lie in memory as C has them; scalar columns are exact ints. What is not so is
handed to `targets.slow` as it came, and so is a call in which a row fails, or whose sum is no long:
nothing has happened then but to the results, of which nobody else knows yet.

The answer is the count, the sum, the least or greatest value or its row; of `first` the row or
None, or a truth value; for results how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

from ..ir.rowwise import NEUTRAL
from .array_answers import ANSWERS, Found
from .array_fields import ArrayFields
from .assembler import Encoded, Label, Line, encode, line, place
from .kernels import STACK_ALIGNMENT, WORD, number
from .registers import (
    CALLEE_SAVED,
    CC,
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
    RSP,
    Mem,
)
from .rows import INDICES_ROOM, SCALAR_COLUMN, Plan, State, before_rows, state_words

#: From so many rows on Python's lock is given up meanwhile.
_UNLOCKED: Final = 1 << 11


#: Of `flags`: NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE.
_C_CONTIGUOUS: Final = 0x1
_WRITEABLE: Final = 0x400


class ArrayTargets(NamedTuple):
    """What such code refers to.

    fields: of arrays.  type_offset: where in an object the pointer to its type is.  most_rows: with
    more of them a call is not for this code.  The others are addresses, of which runtime/pycall.py
    says what `slow` and `failed` do.
    """

    fields: ArrayFields
    type_offset: int
    most_rows: int
    ndarray: int
    PyLong_Type: int
    none: int
    true: int
    false: int
    PyLong_AsLong: int
    PyLong_FromLong: int
    PyErr_Occurred: int
    PyEval_SaveThread: int
    PyEval_RestoreThread: int
    Py_IncRef: int
    slow: int
    failed: int


class Called(NamedTuple):
    """The kernel that a call runs.

    address, lanes: of its code.  plan: what that is for.  dtypes: the addresses of the dtypes, by
    column and of the results if there are some; of scalar columns 0.  filtered: whether there may
    be rows that do not count.  found, missing: the truth values that `first` gives, None for the
    row and for None.
    """

    address: int
    lanes: int
    plan: Plan
    dtypes: tuple[int, ...]
    filtered: bool = False
    found: bool | None = None
    missing: bool | None = None


#: By kernel that has results and not one for each row: how many rows are added to those there are,
#: and by how many bits the sum is shifted, for how many items there have to be.
_ROOM: Final = {"indices": (INDICES_ROOM, 0), "bitmap": (63, 6)}
#: The kernels that have one for each row.
_ONE_EACH: Final = ("map", "mask")

# What is in registers: the callable and the arguments; the first array; how many rows there are,
# and where the kernel has ended; what PyEval_SaveThread gave. The state is where rsp points to.
_CALLABLE: Final = RBP
_ARGS: Final = RBX
_FIRST: Final = R12
_ROWS: Final = R13
_ENDED: Final = R15
_THREAD: Final = R14


def has_results(kernel: str) -> bool:
    """Whether the last argument of a call is an array for results."""
    return kernel in _ROOM or kernel in _ONE_EACH


def array_call(called: Called, targets: ArrayTargets) -> Encoded:
    """The code, which is entered at its beginning."""
    return encode(list(_ArrayCall(called, targets).lines()))


class _ArrayCall:
    """The code in the making."""

    def __init__(self, called: Called, targets: ArrayTargets) -> None:
        self.called = called
        self.targets = targets
        self.fields = targets.fields
        plan = called.plan
        self.lanes = state_words(len(plan.columns))
        words = self.lanes + called.lanes
        size = WORD * words
        self.size = size + -(size + WORD * len(CALLEE_SAVED) + WORD) % STACK_ALIGNMENT
        self.slow, self.unusual, self.failed = Label("slow"), Label("unusual"), Label("failed")
        self.ended, self.leave = Label("ended"), Label("leave")
        #: What is seldom run, behind the rest.
        self.seldom: list[Line] = []

    def call(self, name: str) -> list[Line]:
        return [number(RAX, getattr(self.targets, name)), line("call_r", RAX)]

    def lines(self) -> Iterator[Line]:
        plan, dtypes = self.called.plan, self.called.dtypes
        yield from self.enter()
        yield from self.state()
        arrays = 0
        for position, kind in enumerate(plan.columns):
            if kind == SCALAR_COLUMN:
                yield from self.scalar(position)
                continue
            yield from self.array(position, dtypes[position], first=not arrays)
            if not arrays:
                yield from self.rows()
            arrays += 1
            yield line("mov_rm", RAX, Mem(RDI, disp=self.fields.data))
            yield line("mov_mr", self.word(State.COLUMNS + position), RAX)
        if has_results(plan.kernel):
            yield from self.results(len(plan.columns), dtypes[-1])
        yield from self.run()
        yield from self.answer()
        yield from self.ends()

    def word(self, index: int) -> Mem:
        return Mem(RSP, disp=WORD * index)

    def argument(self, position: int) -> Line:
        return line("mov_rm", RDI, Mem(_ARGS, disp=WORD * position))

    # Before the kernel. ----------------------------------------------------------------------

    def enter(self) -> Iterator[Line]:
        yield line("endbr64")
        yield line("test_rr", RCX, RCX)
        yield line("jcc_j", CC["ne"], self.slow)
        # The topmost bit of nargsf is a flag: doubling drops it.
        yield line("lea_rm", RAX, Mem(RDX, RDX))
        yield line("cmp_ri", RAX, 2 * len(self.called.dtypes))
        yield line("jcc_j", CC["ne"], self.slow)
        yield from (line("push_r", register) for register in CALLEE_SAVED)
        yield line("sub_ri", RSP, self.size)
        yield line("mov_rr", _CALLABLE, RDI)
        yield line("mov_rr", _ARGS, RSI)

    def state(self) -> Iterator[Line]:
        """The state before the first row, but for the columns."""
        kernel = self.called.plan.kernel
        yield number(RAX, NEUTRAL.get(kernel, 0))
        yield line("mov_mr", self.word(State.BEST), RAX)
        yield line("mov_mi", self.word(State.ROW), -1)
        for index in (State.OUT, State.FOUND, State.BEST + 1, State.LOGGED):
            yield line("mov_mi", self.word(index), 0)
        start = self.lanes
        for value, words in groupby(before_rows(kernel, self.called.lanes)):
            count = len(list(words))
            yield number(RAX, value)
            yield from self.fill(start, count)
            start += count

    def fill(self, start: int, count: int) -> Iterator[Line]:
        """Put rax into words of the state."""
        again = Label("lane")
        yield line("mov_ri", RCX, count)
        yield place(again)
        yield line("mov_mr", Mem(RSP, RCX, WORD, WORD * (start - 1)), RAX)
        yield line("dec_r", RCX)
        yield line("jcc_j", CC["ne"], again)

    def scalar(self, position: int) -> Iterator[Line]:
        suspicious, sound = Label("minus one"), Label("sound")
        yield self.argument(position)
        yield number(RAX, self.targets.PyLong_Type)
        yield line("cmp_mr", Mem(RDI, disp=self.targets.type_offset), RAX)
        yield line("jcc_j", CC["ne"], self.unusual)
        yield from self.call("PyLong_AsLong")
        yield line("cmp_ri", RAX, -1)
        yield line("jcc_j", CC["e"], suspicious)
        yield place(sound)
        yield line("mov_mr", self.word(State.COLUMNS + position), RAX)
        # -1 is an error only if there is an exception.
        self.seldom += [
            place(suspicious),
            *self.call("PyErr_Occurred"),
            line("test_rr", RAX, RAX),
            line("mov_ri", RAX, -1),
            line("jcc_j", CC["e"], sound),
            line("jmp_j", self.failed),
        ]

    def array(self, position: int, dtype: int, first: bool, shaped: bool = True) -> Iterator[Line]:
        """rdi = the argument, if that is a plain array; `shaped`: of the shape of the first."""
        fields = self.fields
        yield self.argument(position)
        yield number(RAX, self.targets.ndarray)
        yield line("cmp_mr", Mem(RDI, disp=self.targets.type_offset), RAX)
        yield line("jcc_j", CC["ne"], self.unusual)
        yield number(RAX, dtype)
        yield line("cmp_mr", Mem(RDI, disp=fields.descr), RAX)
        yield line("jcc_j", CC["ne"], self.unusual)
        yield line("test8_mi", Mem(RDI, disp=fields.flags), _C_CONTIGUOUS)
        yield line("jcc_j", CC["e"], self.unusual)
        if first:
            yield line("mov_rr", _FIRST, RDI)
        elif shaped:
            yield from self.same_shape()

    def same_shape(self) -> Iterator[Line]:
        again = Label("dimension")
        nd, dimensions = self.fields.nd, self.fields.dimensions
        yield line("mov32_rm", RCX, Mem(_FIRST, disp=nd))
        yield line("cmp32_mr", Mem(RDI, disp=nd), RCX)
        yield line("jcc_j", CC["ne"], self.unusual)
        yield line("mov_rm", RDX, Mem(_FIRST, disp=dimensions))
        yield line("mov_rm", RSI, Mem(RDI, disp=dimensions))
        yield place(again)
        yield line("mov_rm", RAX, Mem(RDX, RCX, WORD, -WORD))
        yield line("cmp_mr", Mem(RSI, RCX, WORD, -WORD), RAX)
        yield line("jcc_j", CC["ne"], self.unusual)
        yield line("dec_r", RCX)
        yield line("jcc_j", CC["ne"], again)

    def rows(self) -> Iterator[Line]:
        """How many rows there are: at least one, in one dimension or more."""
        again = Label("dimension")
        yield line("mov32_rm", RCX, Mem(RDI, disp=self.fields.nd))
        yield line("mov_rm", RDX, Mem(RDI, disp=self.fields.dimensions))
        yield line("test_rr", RCX, RCX)
        yield line("jcc_j", CC["e"], self.unusual)
        yield line("mov_ri", _ROWS, 1)
        yield place(again)
        yield line("imul_rm", _ROWS, Mem(RDX, RCX, WORD, -WORD))
        yield line("dec_r", RCX)
        yield line("jcc_j", CC["ne"], again)
        # As an unsigned number one less is great where there are none.
        yield line("lea_rm", RAX, Mem(_ROWS, disp=-1))
        yield line("cmp_ri", RAX, self.targets.most_rows)
        yield line("jcc_j", CC["ae"], self.unusual)

    def results(self, position: int, dtype: int) -> Iterator[Line]:
        kernel = self.called.plan.kernel
        yield from self.array(position, dtype, first=False, shaped=kernel in _ONE_EACH)
        yield line("test32_mi", Mem(RDI, disp=self.fields.flags), _WRITEABLE)
        yield line("jcc_j", CC["e"], self.unusual)
        if kernel in _ROOM:
            more, shift = _ROOM[kernel]
            yield line("cmp32_mi", Mem(RDI, disp=self.fields.nd), 1)
            yield line("jcc_j", CC["ne"], self.unusual)
            yield line("lea_rm", RAX, Mem(_ROWS, disp=more))
            if shift:
                yield line("shr_ri", RAX, shift)
            yield line("mov_rm", RDX, Mem(RDI, disp=self.fields.dimensions))
            yield line("cmp_rm", RAX, Mem(RDX))
            yield line("jcc_j", CC["g"], self.unusual)
        yield line("mov_rm", RAX, Mem(RDI, disp=self.fields.data))
        yield line("mov_mr", self.word(State.OUT), RAX)

    # The kernel, and what comes of it. -------------------------------------------------------

    def run(self) -> Iterator[Line]:
        """Call the kernel; to `ended` if that is not behind the last row."""
        locked, again = Label("locked"), Label("again")
        yield line("xor32_rr", _THREAD, _THREAD)
        yield line("cmp_ri", _ROWS, _UNLOCKED)
        yield line("jcc_j", CC["l"], locked)
        yield from self.call("PyEval_SaveThread")
        yield line("mov_rr", _THREAD, RAX)
        yield place(locked)
        yield line("mov_rr", RDI, RSP)
        yield number(RSI, 0)
        yield line("mov_rr", RDX, _ROWS)
        yield number(RAX, self.called.address)
        yield line("call_r", RAX)
        yield line("mov_rr", _ENDED, RAX)
        yield line("test_rr", _THREAD, _THREAD)
        yield line("jcc_j", CC["e"], again)
        yield line("mov_rr", RDI, _THREAD)
        yield from self.call("PyEval_RestoreThread")
        yield place(again)
        yield line("cmp_rr", _ENDED, _ROWS)
        yield line("jcc_j", CC["l"], self.ended)

    def answer(self) -> Iterator[Line]:
        """The answer where no row has failed."""
        kernel = self.called.plan.kernel
        if kernel == "first":
            yield from self.constant(self.called.missing)
            return
        if kernel in ANSWERS:
            found = Found(self.lanes, self.called.lanes, self.called.filtered, self.unusual)
            yield from ANSWERS[kernel](found)
        elif kernel == "indices":
            yield line("mov_rm", RDI, self.word(State.FOUND))
        else:
            yield line("mov_rr", RDI, _ROWS)
        yield from self.integer()

    def integer(self) -> Iterator[Line]:
        """Leave with the int in rdi."""
        yield from self.call("PyLong_FromLong")
        yield line("jmp_j", self.leave)

    def constant(self, value: bool | None) -> Iterator[Line]:
        """Leave with a truth value, or None."""
        targets = self.targets
        address = {None: targets.none, True: targets.true, False: targets.false}[value]
        yield number(RDI, address)
        yield line("mov_rr", _ENDED, RDI)
        yield from self.call("Py_IncRef")
        yield line("mov_rr", RAX, _ENDED)
        yield line("jmp_j", self.leave)

    # The ends. -------------------------------------------------------------------------------

    def ends(self) -> Iterator[Line]:
        restore = [
            line("add_ri", RSP, self.size),
            *(line("pop_r", register) for register in reversed(CALLEE_SAVED)),
        ]
        yield place(self.leave)
        yield from restore
        yield line("ret")
        yield place(self.ended)
        if self.called.plan.kernel == "first":
            yield line("cmp_mi", self.word(State.FOUND), 0)
            yield line("jcc_j", CC["e"], self.unusual)
            if self.called.found is None:
                yield line("mov_rr", RDI, _ENDED)
                yield from self.integer()
            else:
                yield from self.constant(self.called.found)
        for label, target in ((self.unusual, "slow"), (self.failed, "failed")):
            yield place(label)
            yield line("mov_rr", RDI, _CALLABLE)
            yield line("mov_rr", RSI, _ARGS)
            yield from restore
            # The number of arguments is known, and that there are no keywords.
            yield number(RDX, len(self.called.dtypes))
            yield number(RCX, 0)
            yield number(RAX, getattr(self.targets, target))
            yield line("jmp_r", RAX)
        yield place(self.slow)
        yield number(RAX, self.targets.slow)
        yield line("jmp_r", RAX)
        yield from self.seldom

"""The loop that NumPy calls for a ufunc: it hands rows to kernels, and failures to Python.

    void loop(char **args, npy_intp const *dims, npy_intp const *steps, void *data)

There is one for all formulas; what differs between them is in `data`, see `Data`. Operands whose
items lie one behind the other go to the kernel that f.map() runs for such columns, and so do single
values, of which as many copies are made as the rows that are done at a time. All others go to a
kernel that takes rows one by one, from wherever they are (rows.py); so do operands that overlap
the results, for there a row may need the result of the one before, as in accumulate().

NumPy calls it with Python's lock or without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .assembler import Encoded, Label, Line, encode, line, place
from .kernels import MAX_FRAME, STACK_ALIGNMENT, WORD, FrameTooLarge
from .registers import (
    CC,
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
    RSP,
    Mem,
)
from .rows import State, state_words

#: How many copies are made of a single value: a page of them.
COPIES: Final = 512
#: How many operands may be such values; with more of them the rows are done one by one.
MOST_SINGLE: Final = 4
_PAGE: Final = WORD * COPIES
_ROOM: Final = MAX_FRAME - MOST_SINGLE * _PAGE


class Data:
    """What the loop's `data` holds, in words behind what the stub `bail` knows of an object.

    DENSE, BY_STEPS: the addresses of the kernels, for items one behind the other and for any.
    COUNT: how many parameters there are.  FRAME: how many bytes the state takes.  STEPS: where in
    the state the steps are, in bytes.  LOCKS: whether to take Python's lock.
    """

    DENSE: Final = 0
    BY_STEPS: Final = 1
    COUNT: Final = 2
    FRAME: Final = 3
    STEPS: Final = 4
    LOCKS: Final = 5


class LoopTargets(NamedTuple):
    """What the loop refers to: addresses, and how far from `data` the words of `Data` begin.

    bail: calls the object that `data` has for it, with values; runtime/pycall.py says how.
    """

    words: int
    bail: int
    PyGILState_Ensure: int
    PyGILState_Release: int
    PyErr_Occurred: int
    PyLong_AsLong: int
    Py_DecRef: int


def data_words(
    dense: int, by_steps: int, count: int, log: int, lanes: int, locks: bool
) -> list[int]:
    """The words of `Data`.

    dense, by_steps: addresses.  log, lanes: how many words the kernels need behind the columns.
    Raises FrameTooLarge.
    """
    steps = state_words(count, log)
    words = max(steps + count + 1, state_words(count, log + lanes))
    frame = -(-WORD * words // STACK_ALIGNMENT) * STACK_ALIGNMENT
    if frame > _ROOM:
        raise FrameTooLarge(f"the loop needs {frame:,} bytes of stack; at most {_ROOM:,}")
    return [dense, by_steps, count, frame, WORD * steps, int(locks)]


# What is in registers: `data`, the state, how many rows there are and are done at a time, the row.
_DATA: Final = RBX
_STATE: Final = R12
_COUNT: Final = R13
_ROWS: Final = R14
_ROW: Final = R15
_SAVED: Final = (_DATA, _STATE, _COUNT, _ROWS, _ROW)

# And in the frame: what NumPy gave, what PyGILState_Ensure did, the kernel, where it is to stop.
_ARGS, _STEPS, _OUTER, _INNER, _KERNEL, _STOP = (
    Mem(RBP, disp=-WORD * (len(_SAVED) + number)) for number in range(1, 7)
)
# With the return address, rbp and the saved registers a multiple of the stack's alignment.
_LOCALS: Final = WORD * 7


def _column(register: int) -> Mem:
    """The word of the state for the column that a register has the number of."""
    return Mem(_STATE, register, WORD, WORD * State.COLUMNS)


def _word(index: int) -> Mem:
    return Mem(_STATE, disp=WORD * index)


class _Loop:
    """The code in the making."""

    def __init__(self, targets: LoopTargets) -> None:
        self.targets = targets
        self.start, self.done, self.leave = Label("start"), Label("done"), Label("leave")
        self.unlock, self.others, self.chosen = Label("unlock"), Label("others"), Label("chosen")
        self.failed = Label("failed")

    def data(self, word: int) -> Mem:
        return Mem(_DATA, disp=self.targets.words + WORD * word)

    def call(self, name: str) -> list[Line]:
        return [line("mov_ri", RAX, getattr(self.targets, name)), line("call_r", RAX)]

    def lines(self) -> Iterator[Line]:
        yield from self.enter()
        yield place(self.start)
        yield from self.choose()
        yield from self.by_steps()
        yield place(self.chosen)
        yield from self.run()
        yield place(self.failed)
        yield from self.ask()
        yield place(self.done)
        yield line("cmp_mi", self.data(Data.LOCKS), 0)
        yield line("jcc_j", CC["e"], self.leave)
        yield place(self.unlock)
        yield line("mov_rm", RDI, _OUTER)
        yield from self.call("PyGILState_Release")
        yield place(self.leave)
        yield line("lea_rm", RSP, Mem(RBP, disp=-WORD * len(_SAVED)))
        yield from (line("pop_r", register) for register in (*reversed(_SAVED), RBP))
        yield line("ret")

    def enter(self) -> Iterator[Line]:
        """The frame; and if it is wanted, Python's lock. Nothing is done if there is an error."""
        pages, last = Label("page"), Label("last page")
        yield line("endbr64")
        yield line("push_r", RBP)
        yield line("mov_rr", RBP, RSP)
        yield from (line("push_r", register) for register in _SAVED)
        yield line("sub_ri", RSP, _LOCALS)
        yield line("mov_mr", _ARGS, RDI)
        yield line("mov_mr", _STEPS, RDX)
        yield line("mov_rr", _DATA, RCX)
        yield line("mov_rm", _COUNT, Mem(RSI))
        yield line("xor32_rr", _ROW, _ROW)
        yield line("test_rr", _COUNT, _COUNT)
        yield line("jcc_j", CC["le"], self.leave)
        # Every page is touched on the way, as in `stack_room`.
        yield line("mov_rm", RAX, self.data(Data.FRAME))
        yield place(pages)
        yield line("cmp_ri", RAX, _PAGE)
        yield line("jcc_j", CC["be"], last)
        yield line("sub_ri", RSP, _PAGE)
        yield line("mov_mr", Mem(RSP), RAX)
        yield line("sub_ri", RAX, _PAGE)
        yield line("jmp_j", pages)
        yield place(last)
        yield line("sub_rr", RSP, RAX)
        yield line("mov_rr", _STATE, RSP)
        yield line("cmp_mi", self.data(Data.LOCKS), 0)
        yield line("jcc_j", CC["e"], self.start)
        yield from self.call("PyGILState_Ensure")
        yield line("mov_mr", _OUTER, RAX)
        yield from self.call("PyErr_Occurred")
        yield line("test_rr", RAX, RAX)
        yield line("jcc_j", CC["ne"], self.unlock)

    def operands(self) -> Iterator[Line]:
        """rcx = how many inputs, r10 = their addresses, r11 = the steps, rdx = 0 as a counter."""
        yield line("mov_rm", RCX, self.data(Data.COUNT))
        yield line("mov_rm", R10, _ARGS)
        yield line("mov_rm", R11, _STEPS)
        yield line("xor32_rr", RDX, RDX)

    def choose(self) -> Iterator[Line]:
        """Fill in the state, and go to `chosen` with rax = DENSE, or to `others`.

        r8: the results; r9: how many bytes they take; rdi: how many columns are single values.
        """
        column, far, next_ = Label("column"), Label("far"), Label("next")
        yield line("mov_rr", RSP, _STATE)
        yield line("mov_rr", _ROWS, _COUNT)
        yield from self.operands()
        yield line("mov_rm", R8, Mem(R10, RCX, 8))
        yield line("mov_mr", _word(State.OUT), R8)
        for word in range(State.OUT + 1, State.COLUMNS):
            yield line("mov_mi", _word(word), 0)
        yield line("cmp_mi", Mem(R11, RCX, 8), WORD)
        yield line("jcc_j", CC["ne"], self.others)
        yield line("mov_rr", R9, _COUNT)
        yield line("shl_ri", R9, 3)
        yield line("xor32_rr", RDI, RDI)
        yield place(column)
        yield line("mov_rm", RSI, Mem(R10, RDX, 8))
        yield line("mov_mr", _column(RDX), RSI)
        yield line("mov_rm", RAX, Mem(R11, RDX, 8))
        yield line("sub_rr", RSI, R8)
        yield line("cmp_ri", RAX, WORD)
        yield line("jcc_j", CC["ne"], far)
        # A column that lies just where the results do is no harm. Others overlap if their distance
        # is less than their size or the results' in the other direction: one unsigned comparison.
        yield line("test_rr", RSI, RSI)
        yield line("jcc_j", CC["e"], next_)
        yield line("lea_rm", RSI, Mem(RSI, R9, 1, -1))
        yield line("lea_rm", RAX, Mem(R9, R9, 1, -1))
        yield line("cmp_rr", RSI, RAX)
        yield line("jcc_j", CC["b"], self.others)
        yield place(next_)
        yield line("inc_r", RDX)
        yield line("cmp_rr", RDX, RCX)
        yield line("jcc_j", CC["l"], column)
        yield line("mov_rm", RAX, self.data(Data.DENSE))
        yield line("jmp_j", self.chosen)
        yield place(far)
        yield line("test_rr", RAX, RAX)
        yield line("jcc_j", CC["ne"], self.others)
        yield from self.copy()
        yield line("jmp_j", next_)

    def copy(self) -> Iterator[Line]:
        """Make a column of copies; rsi: how far behind the results the value is."""
        few, fill = Label("few"), Label("fill")
        yield line("add_ri", RSI, WORD - 1)
        yield line("lea_rm", RAX, Mem(R9, disp=WORD - 1))
        yield line("cmp_rr", RSI, RAX)
        yield line("jcc_j", CC["b"], self.others)
        yield line("inc_r", RDI)
        yield line("cmp_ri", RDI, MOST_SINGLE)
        yield line("jcc_j", CC["g"], self.others)
        yield line("mov_ri", _ROWS, COPIES)
        yield line("sub_ri", RSP, _PAGE)
        # The copies belong to the rows from this one on.
        yield line("mov_rr", RAX, _ROW)
        yield line("neg_r", RAX)
        yield line("lea_rm", RAX, Mem(RSP, RAX, 8))
        yield line("mov_mr", _column(RDX), RAX)
        yield line("mov_rm", RSI, Mem(R10, RDX, 8))
        yield line("mov_rm", RSI, Mem(RSI))
        yield line("mov_rr", RAX, _COUNT)
        yield line("sub_rr", RAX, _ROW)
        yield line("cmp_rr", RAX, _ROWS)
        yield line("jcc_j", CC["le"], few)
        yield line("mov_rr", RAX, _ROWS)
        yield place(few)
        yield place(fill)
        yield line("mov_mr", Mem(RSP, RAX, 8, -WORD), RSI)
        yield line("dec_r", RAX)
        yield line("jcc_j", CC["ne"], fill)

    def by_steps(self) -> Iterator[Line]:
        """Fill in the state with addresses and steps; rax = BY_STEPS."""
        copy = Label("step")
        yield place(self.others)
        yield line("mov_rr", _ROWS, _COUNT)
        yield line("mov_rm", RAX, self.data(Data.BY_STEPS))
        yield line("mov_rm", R9, self.data(Data.STEPS))
        yield line("add_rr", R9, _STATE)
        yield line("xor32_rr", RDX, RDX)
        yield place(copy)
        yield line("mov_rm", RSI, Mem(R10, RDX, 8))
        yield line("mov_mr", _column(RDX), RSI)
        yield line("mov_rm", RSI, Mem(R11, RDX, 8))
        yield line("mov_mr", Mem(R9, RDX, 8), RSI)
        yield line("inc_r", RDX)
        yield line("cmp_rr", RDX, RCX)
        yield line("jcc_j", CC["l"], copy)
        yield line("mov_rm", RSI, Mem(R11, RCX, 8))
        yield line("mov_mr", Mem(R9, RCX, 8), RSI)

    def run(self) -> Iterator[Line]:
        """Call the kernel in rax for so many rows at a time; to `done`, or on to `failed`."""
        again, single, others = Label("again"), Label("single value"), Label("other column")
        yield line("mov_mr", _KERNEL, RAX)
        yield place(again)
        yield line("lea_rm", RDX, Mem(_ROW, _ROWS))
        yield line("cmp_rr", RDX, _COUNT)
        yield line("cmovcc_rr", CC["g"], RDX, _COUNT)
        yield line("mov_mr", _STOP, RDX)
        yield line("mov_rr", RDI, _STATE)
        yield line("mov_rr", RSI, _ROW)
        yield line("call_m", _KERNEL)
        yield line("mov_rr", _ROW, RAX)
        yield line("cmp_rm", RAX, _STOP)
        yield line("jcc_j", CC["l"], self.failed)
        yield line("cmp_rr", RAX, _COUNT)
        yield line("jcc_j", CC["ge"], self.done)
        # The same copies belong to the next rows.
        yield from self.operands()
        yield place(single)
        yield line("cmp_mi", Mem(R11, RDX, 8), 0)
        yield line("jcc_j", CC["ne"], others)
        yield line("sub_mi", _column(RDX), _PAGE)
        yield place(others)
        yield line("inc_r", RDX)
        yield line("cmp_rr", RDX, RCX)
        yield line("jcc_j", CC["l"], single)
        yield line("jmp_j", again)

    def ask(self) -> Iterator[Line]:
        """Let Python answer the row, and go on behind it unless there is an exception.

        The values take the place of the columns, in front of what C functions have returned.
        """
        value, stop = Label("value"), Label("stop")
        yield from self.call("PyGILState_Ensure")
        yield line("mov_mr", _INNER, RAX)
        yield from self.call("PyErr_Occurred")
        yield line("test_rr", RAX, RAX)
        yield line("jcc_j", CC["ne"], stop)
        yield from self.operands()
        yield place(value)
        yield from self.item(RDX)
        yield line("mov_rm", RSI, Mem(RSI))
        yield line("mov_mr", _column(RDX), RSI)
        yield line("inc_r", RDX)
        yield line("cmp_rr", RDX, RCX)
        yield line("jcc_j", CC["l"], value)
        yield line("mov_rr", RDI, _DATA)
        yield line("lea_rm", RSI, _word(State.COLUMNS))
        yield line("add_rm", RDX, _word(State.LOGGED))
        yield from self.call("bail")
        yield line("test_rr", RAX, RAX)
        yield line("jcc_j", CC["e"], stop)
        yield from self.take()
        yield from self.call("PyErr_Occurred")
        yield line("test_rr", RAX, RAX)
        yield line("jcc_j", CC["ne"], stop)
        yield line("mov_rm", RDI, _INNER)
        yield from self.call("PyGILState_Release")
        yield line("inc_r", _ROW)
        yield line("cmp_rr", _ROW, _COUNT)
        yield line("jcc_j", CC["l"], self.start)
        yield line("jmp_j", self.done)
        yield place(stop)
        yield line("mov_rm", RDI, _INNER)
        yield from self.call("PyGILState_Release")

    def take(self) -> Iterator[Line]:
        """Store the answer in rax. There should have been an error, but it is as good."""
        yield line("mov_mr", _STOP, RAX)  # whose place is free by now
        yield line("mov_rr", RDI, RAX)
        yield from self.call("PyLong_AsLong")
        yield from self.operands()
        yield from self.item(RCX)
        yield line("mov_mr", Mem(RSI), RAX)
        yield line("mov_rm", RDI, _STOP)
        yield from self.call("Py_DecRef")

    def item(self, operand: int) -> Iterator[Line]:
        """rsi = where the row's item is of the operand with the number in a register."""
        yield line("mov_rm", RSI, Mem(R11, operand, 8))
        yield line("imul_rr", RSI, _ROW)
        yield line("add_rm", RSI, Mem(R10, operand, 8))


def ufunc_loop(targets: LoopTargets) -> Encoded:
    """The loop, which is entered at its beginning."""
    return encode(_Loop(targets).lines())

"""The rows of arrays, one at a time: a formula's block between loads and whatever becomes of it.

A kernel is ``long kernel(long *state, long start, long stop)``. It takes the rows from start up to
stop and gives the row where it ended: stop, or the row that the interpreter has to answer, or of
`first` the row that was found. Nothing of that row has been stored or counted, so the caller can go
on with the next one.

What the kernel works on is in the state, one word each: see `State`.

The items of a column lie one behind the other. Only the kernel of `rows_by_steps` takes them from
wherever they are, which is what a ufunc's loop needs (ufunc_loop.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..ir.graph import Graph
from ..ir.rowwise import NEUTRAL
from .assembler import Label, encode, line, place
from .block import Block, Virtual
from .instructions import INSTRUCTIONS
from .kernels import STACK_ALIGNMENT, WORD, Code, frame
from .liveness import preferred
from .macros import Log
from .regalloc import allocate
from .registers import ARGUMENTS, CALLEE_SAVED, CC, R12, RAX, RBP, RBX, RSP, Mem
from .scalar import SCALAR
from .select import Selector, select


class State:
    """Where things are in a kernel's state, in words.

    OUT: the address of what belongs to row 0.  FOUND: how many rows `indices` has written; whether
    the row that `first` ended at is one that it looked for.  BEST: the sum so far, its lower half
    first; the count; the least or greatest value so far.  ROW: the row of that.  LOGGED: how
    many results of C functions the row has written down.  COLUMNS: by parameter the address of what
    belongs to row 0, or the value itself of a scalar; those results follow.
    """

    OUT: Final = 0
    FOUND: Final = 1
    BEST: Final = 2
    ROW: Final = 4
    LOGGED: Final = 5
    COLUMNS: Final = 6


def state_words(columns: int, behind: int = 0) -> int:
    """How many words a state has; `behind`: how many the kernel needs behind the columns."""
    return State.COLUMNS + columns + behind


def before_rows(kernel: str, lanes: int) -> list[int]:
    """What so many words of lanes hold before the first row: no best value, and its row, or 0."""
    best = NEUTRAL.get(kernel, 0)
    if not kernel.startswith("arg"):
        return [best] * lanes
    return [best] * (lanes // 2) + [-1] * (lanes // 2)


class ItemType(NamedTuple):
    """An integer type of an array's items: its size in bytes, its range, how it is loaded."""

    size: int
    low: int
    high: int
    load: str


def _integer(bits: int, signed: bool, load: str) -> ItemType:
    high = (1 << bits - signed) - 1
    return ItemType(bits // 8, -high - 1 if signed else 0, high, load)


#: The types that columns and results may have, by NumPy's names.
ITEM_TYPES: Final = {
    "int8": _integer(8, True, "movsx8_rm"),
    "int16": _integer(16, True, "movsx16_rm"),
    "int32": _integer(32, True, "movsxd_rm"),
    "int64": _integer(64, True, "mov_rm"),
    "uint8": _integer(8, False, "movzx8_rm"),
    "uint16": _integer(16, False, "movzx16_rm"),
    "uint32": _integer(32, False, "mov32_rm"),
    "bool": _integer(8, False, "movzx8_rm"),
}
#: What stands for the type of a parameter that has the same value in all rows.
SCALAR_COLUMN: Final = "scalar"

_STORES: Final = {1: "mov8_mr", 2: "mov16_mr", 4: "mov32_mr", 8: "mov_mr"}


class Plan(NamedTuple):
    """What a kernel is for.

    kernel: a key of `KERNELS`.  columns: by parameter a key of ITEM_TYPES, or SCALAR_COLUMN.
    out: the type of the results of `map`.  streams: whether results go around the cache, because
    they would not fit there.
    """

    kernel: str
    columns: tuple[str, ...]
    out: str = "int64"
    streams: bool = False


#: How many more rows than there are `indices` needs room for.
INDICES_ROOM: Final = 8

#: The registers that hold the state, the row and where to stop.
STATE: Final = RBX
ROW: Final = RBP
STOP: Final = R12
RESERVED: Final = (STATE, ROW, STOP)


def word(index: int) -> Mem:
    """The place of a word of the state."""
    return Mem(STATE, disp=WORD * index)


# What becomes of a row's value. --------------------------------------------------------------

End = Callable[[Selector, int], None]


def _map(plan: Plan) -> End:
    size = ITEM_TYPES[plan.out].size

    def end(s: Selector, value: int) -> None:
        out = s.new()
        s.emit("mov_rm", out, word(State.OUT))
        s.emit(_STORES[size], Mem(out, ROW, size), value)

    return end


def _map_by_steps(plan: Plan, steps: int) -> End:
    """The same, where the last of the steps, which begin at that word, is that of the results."""

    def end(s: Selector, value: int) -> None:
        row, distance, out = s.new(), s.new(), s.new()
        s.emit("lea_rm", row, Mem(ROW))
        s.emit("imul_rm", distance, word(steps + len(plan.columns)), tied=row)
        s.emit("add_rm", out, word(State.OUT), tied=distance)
        s.emit(_STORES[ITEM_TYPES[plan.out].size], Mem(out), value)

    return end


def _mask(s: Selector, value: int) -> None:
    out = s.new()
    s.emit("mov_rm", out, word(State.OUT))
    s.emit("mov8_mr", Mem(out, ROW), value)


def _bitmap(s: Selector, value: int) -> None:
    """The bits of other rows in the same byte stay as they are, so the caller has cleared it."""
    row, byte, shifted, out = s.new(), s.new(), s.new(), s.new()
    s.emit("lea_rm", row, Mem(ROW))
    s.emit("shr_ri", byte, 3, tied=row)
    count = s.new()
    s.emit("and32_ri", count, 7, tied=row)
    s.emit("shl_rc", shifted, tied=value, reads=(count,))
    s.emit("mov_rm", out, word(State.OUT))
    old, new = s.new(), s.new()
    s.emit("movzx8_rm", old, Mem(out, byte))
    s.emit("or_rr", new, shifted, tied=old)
    s.emit("mov8_mr", Mem(out, byte), new)


def _indices(s: Selector, value: int) -> None:
    """The row is written in any case, and counted if it is one; there is room for one more."""
    row, out, found = s.new(), s.new(), s.new()
    s.emit("lea_rm", row, Mem(ROW))
    s.emit("mov_rm", out, word(State.OUT))
    s.emit("mov_rm", found, word(State.FOUND))
    s.emit("mov_mr", Mem(out, found, WORD), row)
    s.emit("add_mr", word(State.FOUND), value)


def _count(s: Selector, value: int) -> None:
    s.emit("add_mr", word(State.BEST), value)


def _sum(s: Selector, value: int) -> None:
    sign = s.new()
    s.emit("sar_ri", sign, 63, tied=value)
    s.emit("add_mr", word(State.BEST), value, flags=True)
    s.emit("adc_mr", word(State.BEST + 1), sign)


def _best(less: str, with_row: bool) -> End:
    """The least or the greatest value so far, and where it was first."""

    def end(s: Selector, value: int) -> None:
        old, best = s.new(), s.new()
        s.emit("mov_rm", old, word(State.BEST))
        if with_row:
            here, before, row = s.new(), s.new(), s.new()
            s.emit("lea_rm", here, Mem(ROW))
            s.emit("mov_rm", before, word(State.ROW))
            s.emit("cmp_rr", value, old, flags=True)
            s.emit("cmovcc_rr", CC[less], row, here, tied=before)
            s.emit("cmovcc_rr", CC[less], best, value, tied=old)
            s.emit("mov_mr", word(State.ROW), row)
        else:
            s.emit("cmp_rr", value, old, flags=True)
            s.emit("cmovcc_rr", CC[less], best, value, tied=old)
        s.emit("mov_mr", word(State.BEST), best)

    return end


def _first(s: Selector, value: int) -> None:
    """Leave where the value is 1, having said so."""
    s.emit("mov_mr", word(State.FOUND), value)
    s.emit("test_rr", value, value, flags=True)
    s.emit("jcc_j", CC["ne"], s.leave)


#: What becomes of the values, by the name of the kernel.
KERNELS: Final[dict[str, Callable[[Plan], End]]] = {
    "map": _map,
    "mask": lambda plan: _mask,
    "bitmap": lambda plan: _bitmap,
    "indices": lambda plan: _indices,
    "count": lambda plan: _count,
    "sum": lambda plan: _sum,
    "min": lambda plan: _best("l", False),
    "max": lambda plan: _best("g", False),
    "argmin": lambda plan: _best("l", True),
    "argmax": lambda plan: _best("g", True),
    "first": lambda plan: _first,
}
# The loop. -----------------------------------------------------------------------------------


def row_block(graph: Graph, plan: Plan, features: frozenset[str], by_steps: bool = False) -> Block:
    """The block for the row in `ROW`: loads, formula, and what becomes of the value.

    by_steps: whether items lie as far apart as the state says; see `rows_by_steps`.
    """
    first = State.COLUMNS + len(plan.columns)
    steps = state_words(len(plan.columns), len(graph.effects))
    selectors: list[Selector] = []

    def end(s: Selector, value: int) -> None:
        selectors.append(s)
        if graph.effects:
            s.log = Log(STATE, WORD * State.LOGGED, WORD * first)
            s.logged = frozenset(graph.effects)
        store = _map_by_steps(plan, steps) if by_steps else KERNELS[plan.kernel](plan)
        store(s, value)

    block = select(graph, SCALAR, features, end)
    new = selectors[0].new
    loads = [_virtual("mov_mi", word(State.LOGGED), 0)] if graph.effects else []
    for position, value in block.params.items():
        kind, home = plan.columns[position], word(State.COLUMNS + position)
        if kind == SCALAR_COLUMN:
            loads.append(_virtual("mov_rm", value, home))
            continue
        size, _, _, load = ITEM_TYPES[kind]
        pointer = new()
        if by_steps:
            row, distance = new(), new()
            loads += [
                _virtual("lea_rm", row, Mem(ROW)),
                _virtual("imul_rm", distance, word(steps + position), tied=row),
                _virtual("add_rm", pointer, home, tied=distance),
                _virtual(load, value, Mem(pointer)),
            ]
        else:
            loads += [
                _virtual("mov_rm", pointer, home),
                _virtual(load, value, Mem(pointer, ROW, size)),
            ]
    return block._replace(code=loads + block.code, params={})


def _virtual(key: str, *operands: object, tied: int | None = None) -> Virtual:
    return Virtual(INSTRUCTIONS[key], operands, tied, (), (), False, None)


def rows(
    graph: Graph, plan: Plan, features: frozenset[str], order: Sequence[int] | None = None
) -> Code:
    """The kernel of a plan that takes the rows one by one."""
    return _kernel(row_block(graph, plan, features), len(graph.effects), order)


def rows_by_steps(
    graph: Graph, plan: Plan, features: frozenset[str], order: Sequence[int] | None = None
) -> Code:
    """The kernel of a `map` whose items lie anywhere, and may be the results of rows before.

    Behind the words of `state_words` it needs the steps: how many bytes there are from an item to
    the next, by column, and from result to result.
    """
    block = row_block(graph, plan, features, by_steps=True)
    return _kernel(block, len(graph.effects), order)


def _kernel(block: Block, log: int, order: Sequence[int] | None) -> Code:
    """The loop around the block for a row."""
    usual = preferred(block) if order is None else order
    allowed = [register for register in usual if register not in RESERVED]
    allocation = allocate(block, {}, Mem(RSP), allowed)
    saved = tuple(r for r in CALLEE_SAVED if r in RESERVED or r in allocation.saved)
    size = WORD * allocation.slots
    size += -(size + WORD * len(saved) + WORD) % STACK_ALIGNMENT
    enter, leave = frame(size, saved)
    loop, done = Label("row"), Label("done")
    lines = [
        line("endbr64"),
        *enter,
        *(line("mov_rr", to, argument) for to, argument in zip(RESERVED, ARGUMENTS, strict=False)),
        line("cmp_rr", ROW, STOP),
        line("jcc_j", CC["ge"], done),
        place(loop),
        *allocation.lines,
        line("inc_r", ROW),
        line("cmp_rr", ROW, STOP),
        line("jcc_j", CC["l"], loop),
        place(done),
        place(block.bail),
        line("mov_rr", RAX, ROW),
        *leave,
        line("ret"),
        *allocation.cold,
    ]
    return Code(encode(lines), block, log=log)

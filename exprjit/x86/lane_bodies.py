"""The code for a block of rows: loads, what the formula computes, and what becomes of it.

There are several such bodies for a formula (lane_loop.py). What is the same for all rows has the
same register in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..ir.graph import Graph
from ..ir.magnitudes import Small
from ..ir.rowwise import PREDICATES
from ..ir.schedule import schedule
from .assembler import Label, Line, line
from .lane_code import SHARED, Copies, Op, op, operands
from .lane_ends import OUT, POINTERS, SPARE, Ends, Needs
from .lanes import LaneBlock, Lanes
from .registers import Mem
from .rows import ITEM_TYPES, ROW, SCALAR_COLUMN, Plan, State, word


class Body(NamedTuple):
    """One of the bodies, before it has registers.

    code: for one turn of the loop.  rows: how many that does.
    """

    code: list[Op]
    rows: int


class Exits(NamedTuple):
    """Where a body leaves to: numbers that are not small, rows that may fail."""

    wide: Label
    slow: Label


class Bodies:
    """Makes them."""

    def __init__(self, plan: Plan, ends: Ends, features: frozenset[str]) -> None:
        self.plan = plan
        self.ends = ends
        self.isa = ends.isa
        self.features = features
        self.count = SHARED
        self.forms: dict[tuple[Any, ...], int] = {}
        self.hoisted: list[Op] = []
        self.accumulators: list[int] = []

    def block(self, graph: Graph) -> LaneBlock:
        """The code for one vector; raises NoLanes."""
        schedule(graph)
        scalars = [p for p, kind in enumerate(self.plan.columns) if kind == SCALAR_COLUMN]
        return Lanes(graph, self.isa, scalars, self.features).run(self.plan.kernel in PREDICATES)

    def invariant(self, *form: Any) -> int:
        """The register of an invariant, the same in all bodies."""
        register = self.forms.get(form)
        if register is None:
            register = self.forms[form] = self.count
            self.count += 1
        return register

    def shared(self, block: LaneBlock) -> LaneBlock:
        """The block with its invariants, and what is made of them, named as in all bodies."""
        names = {own: self.invariant(*form) for form, own in block.invariants.items()}
        for item in block.hoisted:
            for kind, role, operand in operands(item):
                if kind == "x" and role in ("w", "rw"):
                    names[operand] = self.count
                    self.count += 1
        self.hoisted += [_renamed(item, names) for item in block.hoisted]

        def named(register: int | None) -> int | None:
            return register if register is None else names.get(register, register)

        return block._replace(
            code=[_renamed(item, names) for item in block.code],
            value=named(block.value),
            mask=named(block.mask),
            bails=[names.get(mask, mask) for mask in block.bails],
            signs=[names.get(sign, sign) for sign in block.signs],
        )

    def body(
        self, block: LaneBlock, turns: int, small: Small | None, live: bool, away: Exits
    ) -> Body:
        """The code for some vectors: loads, checks, the formula, and what becomes of it."""
        ends = self.ends
        copies = Copies(
            turns, block.registers, lambda masks, holds, end: ends.skip(masks, holds, needs, end)
        )
        needs = Needs(copies.new, self.invariant, self.accumulators)
        code: list[Op] = []
        params = dict(block.params)
        for position in () if small is None else small.positions:
            # The formula for small numbers may do without a column whose size decides.
            if self.plan.columns[position] != SCALAR_COLUMN:
                params.setdefault(position, copies.new())
        for position, register in params.items():
            kind = self.plan.columns[position]
            size = ITEM_TYPES[kind].size
            base, before = self._pointer(position)
            code += before
            for turn in range(turns):
                home = Mem(base, ROW, size, turn * self.isa.lanes * size)
                code += ends.load(kind, copies.of(register, turn), home, live)
        if small is not None:
            values = []
            for position in small.positions:
                if position in params:
                    values += [copies.of(params[position], turn) for turn in range(turns)]
                else:
                    values.append(self.invariant("scalar", position))
            code += ends.check_range(values, small.bits, needs, away.wide)
        code += copies.repeated(block.code)
        bails = [copies.of(mask, turn) for mask in block.bails for turn in range(turns)]
        signs = [copies.of(sign, turn) for sign in block.signs for turn in range(turns)]
        result = block.value if block.mask is None else block.mask
        assert result is not None
        results = [copies.of(result, turn) for turn in range(turns)]
        if self.plan.kernel == "first":
            bails += results
        if bails or signs:
            code += ends.check(bails, signs, needs, live, away.slow)
        code += ends.end(self.plan, results, needs, live)
        return Body(code, turns * self.isa.lanes)

    def _pointer(self, position: int) -> tuple[int, list[Op]]:
        """The register with the address of a column, and what puts it there."""
        columns = [p for p, kind in enumerate(self.plan.columns) if kind != SCALAR_COLUMN]
        place = columns.index(position)
        if place < len(POINTERS):
            return POINTERS[place], []
        return SPARE, [op("mov_rm", SPARE, word(State.COLUMNS + position))]

    def pointers(self) -> list[Line]:
        """What loads the addresses that have registers."""
        columns = [p for p, kind in enumerate(self.plan.columns) if kind != SCALAR_COLUMN]
        pairs = zip(POINTERS, columns, strict=False)
        lines = [line("mov_rm", register, word(State.COLUMNS + p)) for register, p in pairs]
        return [*lines, line("mov_rm", OUT, word(State.OUT))]


def _renamed(item: Op, names: Mapping[int, int]) -> Op:
    renamed = tuple(names.get(o, o) if kind in "xkz" else o for kind, _, o in operands(item))
    tied = None if item.tied is None else names.get(item.tied, item.tied)
    return item._replace(operands=renamed, tied=tied)

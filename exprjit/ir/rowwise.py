"""What is computed for each row of an array: the value, perhaps only its truth, perhaps filtered.

A row that the filter drops cannot fail: the formula stands in an arm that is taken only where the
filter is not 0. What such a row gives is chosen so that it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ..language.ast import Program
from ..language.operators import MAX, MIN
from .build import add
from .facts import Facts
from .graph import Graph, Node
from .reductions import FLOORING, reduce
from .rules import BY_MODE

#: Names of parameters that no text can name: the column that says which rows count, the one that
#: says which have values, and the results that are there already.
WHERE: Final = "(where)"
VALID: Final = "(valid)"
OUT: Final = "(out)"

#: What a row gives that does not count, by kernel; of all others 0.
NEUTRAL: Final = {"min": MAX, "argmin": MAX, "max": MIN, "argmax": MIN}

#: The kernels that only want to know whether the value is 0.
PREDICATES: Final = frozenset(("mask", "bitmap", "indices", "count", "first"))


class Rowwise(NamedTuple):
    """What a kernel computes for a row.

    program: the formula.  where: the program of the filter, or whether a column is the filter.
    kernel: what the values are for.  low, high: the range that results have to fit.  keeps: whether
    a row that the filter drops keeps what the column of results has.  equals: `first` looks for
    this value, not for any but 0.  valid: whether a column says which rows have values; of others
    nothing is looked at, and they do not count.  truths: the parameters whose columns are of truth
    values: bytes, of which some libraries let pass others than 0 and 1.
    """

    program: Program
    kernel: str
    where: Program | bool = False
    low: int = MIN
    high: int = MAX
    keeps: bool = False
    equals: int | None = None
    valid: bool = False
    truths: tuple[str, ...] = ()

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the columns in order: the formula's, the filter's, and the unnamed."""
        names = list(self.program.params)
        if isinstance(self.where, Program):
            names += [name for name in self.where.params if name not in names]
        elif self.where:
            names.append(WHERE)
        if self.valid:
            names.append(VALID)
        return (*names, OUT) if self.keeps else tuple(names)


def build_rowwise(
    row: Rowwise,
    overflow: str,
    native: frozenset[str],
    most: int,
    known: Mapping[int, Facts],
    for_lanes: bool = False,
) -> Graph:
    """The graph of what is computed for a row; arguments are as of `build`, `Graph` and `reduce`.

    Raises GraphTooLarge.
    """
    graph = Graph(row.params, native | FLOORING, BY_MODE[overflow], most, known)
    condition: Node | None = None
    counts: Node | None = None
    if row.valid:
        condition = graph.make("ne", graph.param(row.params.index(VALID)), 0)
    if isinstance(row.where, Program):
        counts = graph.make("ne", add(graph, row.where, overflow, condition, row.truths), 0)
    elif row.where:
        counts = graph.make("ne", graph.param(row.params.index(WHERE)), 0)
    if counts is not None:
        condition = counts if condition is None else graph.make("bitand", condition, counts)
    value = add(graph, row.program, overflow, condition, row.truths)
    if row.low > MIN or row.high < MAX:
        _check_range(graph, row, value, condition)
    graph.result = _counted(graph, row, value, condition)
    return reduce(graph, overflow, native, for_lanes)


def _check_range(graph: Graph, row: Rowwise, value: Node, condition: Node | None) -> None:
    make = graph.make
    outside = make("bitor", make("lt", value, row.low), make("gt", value, row.high))
    graph.bail(outside if condition is None else make("bitand", condition, outside))


def _counted(graph: Graph, row: Rowwise, value: Node, condition: Node | None) -> Node:
    """The value as the kernel takes it."""
    make = graph.make
    if row.kernel in PREDICATES:
        truth = make("ne", value, 0) if row.equals is None else make("eq", value, row.equals)
        return truth if condition is None else make("bitand", condition, truth)
    if condition is None:
        return value
    if row.keeps:
        other = graph.param(row.params.index(OUT))
    else:
        other = graph.const(NEUTRAL.get(row.kernel, 0))
    return make("select", condition, value, other)

"""A graph's meaning, by the meanings of the operator table: what graphs are judged by."""

from __future__ import annotations

from collections.abc import Sequence

from exprjit.errors import ExprError
from exprjit.formula import Formula
from exprjit.ir.graph import CONST, PARAM, Graph
from exprjit.language.operators import MAX, MIN, OPERATORS

#: Where meanings change: signs, bounds, shift counts, words, and some numbers of no account.
EDGES = (
    *(0, 1, -1, 2, -2, 3, 7, 10, 63, 64, 65, 127, 128, 255, 2**31 - 1, 2**31, 2**32),
    *(2**62, MAX, MAX - 1, MIN, MIN + 1, 12345678901, -987654321987),
)


def evaluate(graph: Graph, arguments: Sequence[int]) -> int | None:
    """What code for `graph` has to answer: the result, or None where it has to bail."""
    values: dict[int, int] = {}
    for node in graph.live():
        if node.op == CONST:
            value = node.value
        elif node.op == PARAM:
            value = arguments[node.value]
        else:
            value = OPERATORS[node.op](*[values[arg.index] for arg in node.args])
        assert not node.boolean or value in (0, 1), node
        values[node.index] = value
    if any(values[bail.condition.index] for bail in graph.bails):
        return None
    return values[graph.result.index]


def interpreted(formula: Formula, arguments: Sequence[int]) -> int | None:
    """The interpreter's answer, or None where it raises."""
    try:
        return formula.interpret(*arguments)
    except ExprError:
        return None


def cost(graph: Graph) -> int:
    """The sum of the table's costs over the nodes that are needed."""
    return sum(OPERATORS[node.op].cost for node in graph.live() if node.op in OPERATORS)

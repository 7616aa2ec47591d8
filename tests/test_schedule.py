"""The order in which nodes are computed: what it has to keep, and what it is good for."""

from __future__ import annotations

import ctypes

import pytest
from graph_evaluator import evaluate, interpreted
from machine_harness import FEATURES, graph_of

import exprjit
from exprjit.formula import Formula
from exprjit.ir.build import build
from exprjit.ir.graph import Graph
from exprjit.ir.schedule import schedule
from exprjit.tools import generate, samples
from exprjit.x86 import kernels
from exprjit.x86.listing import asm

pytestmark = pytest.mark.slow


def scheduled(source: str, overflow: str = "wrap") -> Graph:
    graph = build(Formula(source, overflow=overflow).program(), overflow)
    schedule(graph)
    return graph


def registers(graph: Graph) -> int:
    """The most values that are held at once."""
    last = {arg: node.index for node in graph.nodes for arg in node.args}
    alive: set[object] = set()
    most = 0
    for node in graph.nodes:
        alive = {value for value in alive if last.get(value, -1) > node.index}
        if node.op not in ("param", "const"):
            alive.add(node)
        most = max(most, len(alive))
    return most


def test_operands_come_first_and_conditions_before_what_they_guard() -> None:
    for seed in range(300):
        below = samples.seeded(seed)
        source = generate.program(below, 40)
        for mode in ("wrap", "raise"):
            formula = Formula(source, overflow=mode)
            graph = build(formula.program(), mode)
            bails = [bail.condition for bail in graph.bails]
            schedule(graph)
            assert [node.index for node in graph.nodes] == list(range(len(graph.nodes)))
            for node in graph.nodes:
                assert all(arg.index < node.index for arg in node.args)
            assert [bail.condition for bail in graph.bails] == bails
            places = [bail.position for bail in graph.bails]
            assert places == sorted(places)
            assert all(bail.condition.index < bail.position for bail in graph.bails)
            for row in samples.rows(below, len(formula.params), 4):
                assert evaluate(graph, row) == interpreted(formula, row)


def test_what_is_used_late_is_computed_late() -> None:
    made = "".join(f"t{n} = (x ^ {n}) * y; " for n in range(30))
    assert registers(scheduled(made + " + ".join(f"t{n}" for n in range(30)))) <= 3


def test_the_operand_that_takes_more_registers_comes_first() -> None:
    balanced = "((a + b) * (c + d) ^ (e + f) * (g + h)) - ((a - b) * (c - d) ^ (e - f) * (g - h))"
    assert registers(scheduled(balanced)) == 4
    assert registers(scheduled(f"((x + 1) ^ ({balanced})) + x")) == 4


def test_the_order_of_the_source_stays_where_conditions_would_make_values_wait() -> None:
    source = " ^ ".join(f"(x + {n}) / (y + {n})" for n in range(50))
    assert registers(scheduled(source, "raise")) < 8


def test_calls_keep_their_order() -> None:
    calls: list[int] = []
    note = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: calls.append(x) or x)
    source = "a = note(x + 5); b = note(x * 2); b / (a - 7) + note(b)"
    f = exprjit.compile(source, externs={"note": note})
    assert f(3) == 6 // (8 - 7) + 6
    assert calls == [8, 6, 6]
    calls.clear()
    with pytest.raises(exprjit.ExprZeroDivisionError):
        f(2)
    assert calls == [7, 4]


def test_a_long_chain_does_not_recurse() -> None:
    graph = scheduled("(" * 3_000 + "x" + " * 3 ^ y)" * 3_000)
    assert len(graph.nodes) > 6_000


def test_code_holds_few_values() -> None:
    made = "".join(f"t{n} = (x ^ {n}) * y; " for n in range(60))
    graph = graph_of(Formula(made + " + ".join(f"t{n}" for n in range(60))))
    code = kernels.function(graph, FEATURES)
    assert not any("rsp" in str(line) for line in asm(code.encoded, ""))

"""Bits moved from place to place: what is joined means the same, and takes fewer shifts."""

from __future__ import annotations

import random

import pytest
from graph_evaluator import EDGES, evaluate

from exprjit.formula import Formula
from exprjit.ir.build import build
from exprjit.ir.graph import Graph
from exprjit.ir.reductions import FLOORING, reduce

pytestmark = pytest.mark.slow


def for_lanes(source: str, overflow: str = "wrap") -> Graph:
    program = Formula(source, ("x", "y"), overflow=overflow).program()
    return reduce(build(program, overflow, FLOORING), overflow, frozenset(), for_lanes=True)


def shifts(graph: Graph) -> int:
    return sum(node.op in ("shl", "shr", "sar") for node in graph.live())


def moves(rng: random.Random, depth: int, made: list[str]) -> str:
    """A random tree of shifts, masks and disjunctions; it may have parts of those in `made`."""
    if depth == 0:
        return rng.choice("xxy")
    if made and rng.random() < 0.2:
        return rng.choice(made)
    below = moves(rng, depth - 1, made)
    kind = rng.randrange(5)
    if kind == 0:
        made.append(f"({below} | {moves(rng, depth - 1, made)})")
    elif kind == 1:
        ones = (1 << rng.randint(1, 33)) - 1 << rng.randint(0, 30)
        made.append(f"({below} & {rng.choice([ones, rng.getrandbits(63)])})")
    else:
        made.append(f"({below} {rng.choice(['<<', '>>', '>>>'])} {rng.randint(0, 63)})")
    return made[-1]


@pytest.mark.parametrize("seed", range(20))
def test_joined_fields_mean_the_same(seed: int) -> None:
    rng = random.Random(seed)
    joined = 0
    for _ in range(100):
        made: list[str] = []
        source = f"{moves(rng, 4, made)} | {moves(rng, 4, made)}"
        program = Formula(source, ("x", "y")).program()
        before, after = build(program, "wrap"), for_lanes(source)
        joined += shifts(after) < shifts(before)
        for x in (*EDGES, rng.getrandbits(63), -rng.getrandbits(63)):
            y = rng.choice(EDGES)
            assert evaluate(after, (x, y)) == evaluate(before, (x, y)), source
    assert joined >= 5


@pytest.mark.parametrize(
    "source",
    [
        "((x >> 8) & 0xff) | ((x >> 8) << 4) | ((y & 0xff) << 8) | ((y & 0xff0000) << 8)",
        "a = x >> 8; ((a << 8) << 24) | (a & 0xffffffffffffff) | (a >>> 56)",
    ],
)
def test_a_shift_that_others_need_signed_stays_so(source: str) -> None:
    program = Formula(source, ("x", "y")).program()
    for x in EDGES:
        for y in (0, -1, 0x123456):
            wanted = evaluate(build(program, "wrap"), (x, y))
            assert evaluate(for_lanes(source), (x, y)) == wanted


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (
            "r = x >> 11 & 31; g = x >> 5 & 63; b = x & 31;"
            " (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | b << 3 | b >> 2",
            5,
        ),
        ("(x & 255) << 8 | (x & 0xff0000) << 8", 1),
        ("(x >> 4 & 15) << 2 | (x >> 8 & 3) << 6", 1),
        ("(x << 8 | y) << 8 | (x >>> 8 & 255)", 3),
    ],
)
def test_each_distance_is_one_shift(source: str, count: int) -> None:
    assert shifts(for_lanes(source)) == count


@pytest.mark.parametrize(
    ("source", "signed"),
    [
        ("(x >> 16 & 255) * 77 + (x >> 8 & 255)", 0),
        ("(x >> 8 & 255) * (x >> 8 & 0xffffff)", 0),
        ("(x >> 8 & 255) * (x >> 8)", 1),
        ("x >> 8", 1),
        ("x >> 8 & -1 << 8", 1),
        ("(x >> 8 & 1 << 55) + y", 0),
        ("(x >> 8 & 1 << 56) + y", 1),
    ],
)
def test_a_shift_whose_signs_are_masked_is_logical(source: str, signed: int) -> None:
    graph = for_lanes(source)
    assert sum(node.op == "sar" for node in graph.live()) == signed
    before = build(Formula(source, ("x", "y")).program(), "wrap")
    for x in EDGES:
        assert evaluate(graph, (x, 3)) == evaluate(before, (x, 3))


def test_checked_shifts_stay() -> None:
    """A shift whose overflow is looked at is needed as it is."""
    graph = for_lanes("(x & 255) << 8 | (x & 0xff0000) << 8", "raise")
    assert evaluate(graph, (0xFF00FF, 0)) == 0xFF00FF00

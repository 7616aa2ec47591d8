"""What is known of results is true, for all operands that what is known of them admits."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from exprjit.formula import Formula
from exprjit.ir.build import build
from exprjit.ir.facts import ANYTHING, CONDITION, LONG, TRANSFERS, Facts, exactly, facts
from exprjit.ir.graph import CONST, PARAM
from exprjit.language.arithmetic import Width
from exprjit.language.operators import OPERATORS
from exprjit.tools import generate, samples

pytestmark = pytest.mark.slow


def admits(w: Width, known: Facts, value: int) -> bool:
    return known.low <= value <= known.high and not (
        value & known.zeros or ~value & w.mask & known.ones
    )


def of_values(w: Width, values: Iterable[int]) -> Facts:
    """All that can be said of numbers in these terms."""
    values = list(values)
    zeros, ones = w.mask, w.mask
    for value in values:
        zeros &= ~value
        ones &= value
    return Facts(min(values), max(values), zeros, ones)


def admitted(w: Width, known: Facts) -> list[int]:
    return [value for value in range(w.min, w.max + 1) if admits(w, known, value)]


def random_facts(w: Width, choose: random.Random) -> Facts:
    """Ranges, bits, both, and the facts of a few numbers."""
    kind = choose.randrange(4)
    if kind == 0:
        return of_values(w, choose.choices(range(w.min, w.max + 1), k=choose.randint(1, 3)))
    if kind == 1:
        low, high = sorted(choose.choices(range(w.min, w.max + 1), k=2))
        return facts(w, low, high)
    value, unknown = choose.randint(0, w.mask), choose.randint(0, w.mask)
    zeros, ones = ~value & ~unknown & w.mask, value & ~unknown
    if kind == 2:
        return facts(w, w.min, w.max, zeros, ones)
    values = [v for v in range(w.min, w.max + 1) if not (v & zeros or ~v & w.mask & ones)]
    first, last = sorted(choose.choices(range(len(values)), k=2))
    return facts(w, values[first], values[last], zeros, ones)


def check(op: str, w: Width, operands: list[Facts]) -> None:
    known = TRANSFERS[op](w, *operands)
    row = OPERATORS[op]
    sets = [admitted(w, operand) for operand in operands]
    if row.arity == 1:
        every = ((value,) for value in sets[0])
    elif row.arity == 2:
        every = ((p, q) for p in sets[0] for q in sets[1])
    else:
        every = ((p, q, r) for p in sets[0] for q in sets[1] for r in sets[2])
    for args in every:
        value = w.wrap(row.meaning(w, *args))
        assert admits(w, known, value), (op, w.bits, operands, args, value, known)


@pytest.mark.parametrize("op", TRANSFERS)
@pytest.mark.parametrize("bits", [4, 8])
def test_results_are_among_what_is_known(op: str, bits: int) -> None:
    w, choose = Width(bits), random.Random(op)
    arity = OPERATORS[op].arity
    for _ in range(
        {1: 400, 2: 400 if bits == 4 else 40, 3: 20}[arity] if arity < 3 or bits == 4 else 0
    ):
        check(op, w, [random_facts(w, choose) for _ in range(arity)])


@pytest.mark.parametrize("op", [op for op in TRANSFERS if OPERATORS[op].arity <= 2])
def test_results_are_among_what_is_known_of_every_range_of_three_bits(op: str) -> None:
    w = Width(4) if op == "bswap" else Width(3)
    ranges = [facts(w, p, q) for p in range(w.min, w.max + 1) for q in range(p, w.max + 1)]
    if OPERATORS[op].arity == 1:
        for operand in ranges:
            check(op, w, [operand])
        return
    for left in ranges:
        for right in ranges:
            check(op, w, [left, right])


def test_ranges_and_bits_say_what_they_can_of_each_other() -> None:
    w = Width(8)
    assert facts(w, 0, 5) == Facts(0, 5, 0xF8, 0)
    assert facts(w, 16, 19) == Facts(16, 19, 0xEC, 0x10)
    assert facts(w, -128, 127, zeros=0xF0, ones=1) == Facts(1, 15, 0xF0, 1)
    assert facts(w, -128, 127, zeros=1) == Facts(-128, 126, 1, 0)
    assert facts(w, -1, -1) == exactly(w, -1)


@pytest.mark.parametrize(
    ("source", "low", "high"),
    [
        ("x & 255", 0, 255),
        ("(y & 15) | 1", 1, 15),
        ("(x & 255) + (y & 15)", 0, 270),
        ("(x & 255) - 256", -256, -1),
        ("(x & 3) * 4 | 1", 1, 13),
        ("x >>> 60", 0, 15),
        ("x >> 60", -8, 7),
        ("x % 10", -9, 9),
        ("x %% 10", 0, 9),
        ("(x & 255) / 16", 0, 15),
        ("udiv(x, 16)", 0, 2**60 - 1),
        ("min(x, 9)", LONG.min, 9),
        ("clamp(x, -3, 9)", -3, 9),
        ("i16(x)", -32768, 32767),
        ("i16(x & 63)", 0, 63),
        ("x > 3 ? 2 : 17", 2, 17),
        ("popcount(x & 7)", 0, 3),
        ("clz(x & 255)", 56, 64),
        ("ctz(x | 8)", 0, 3),
        ("x == y", 0, 1),
    ],
)
def test_what_is_known_of_formulas(source: str, low: int, high: int) -> None:
    popcnt = frozenset(("popcount", "floordiv", "floormod"))
    known = build(Formula(source).program(), "wrap", popcnt).result.facts
    assert (known.low, known.high) == (low, high)


def test_what_is_known_is_true_of_every_node_of_programs() -> None:
    for seed in range(400):
        below = samples.seeded(seed)
        formula = Formula(generate.program(below, 30))
        graph = build(formula.program(), "wrap")
        for row in samples.rows(below, len(formula.params), 6):
            values: list[int] = []
            for node in graph.nodes:
                if node.op is CONST:
                    values.append(node.value)
                elif node.op is PARAM:
                    values.append(row[node.value])
                else:
                    values.append(OPERATORS[node.op](*[values[arg.index] for arg in node.args]))
                assert admits(LONG, node.facts, values[-1]), (seed, node.op, row)


def test_a_transfer_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Right but for the least number, whose absolute value is negative.
    monkeypatch.setitem(TRANSFERS, "abs", lambda w, a: facts(w, 0, w.max))
    with pytest.raises(AssertionError):
        test_results_are_among_what_is_known("abs", 4)


def test_common_facts() -> None:
    assert facts(LONG, LONG.min, LONG.max) == ANYTHING
    assert facts(LONG, 0, 1) == CONDITION

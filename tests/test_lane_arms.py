"""Arms of choices that lanes branch around where no row takes them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from children import needs_code

import exprjit
from exprjit.runtime import cpu
from exprjit.x86.avx2_ends import Avx2Ends
from exprjit.x86.avx512_ends import Avx512Ends
from exprjit.x86.lane_alloc import LaneAllocator
from exprjit.x86.lane_bodies import Bodies
from exprjit.x86.lane_code import Skip

np = pytest.importorskip("numpy")
# What a Python has to do with lanes is in test_arrays.py.
pytestmark = [needs_code, pytest.mark.slow]

LEVELS = [
    level
    for level, needed in (("avx2", cpu.AVX2), ("avx512", cpu.AVX512))
    if needed <= cpu.detected()
]
if not LEVELS:
    pytest.skip("this processor has no lanes", allow_module_level=True)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EXPRJIT_CPU", request.param)
    return str(request.param)


@pytest.fixture
def skips(level: str, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[bool, ...]]]:
    """By block of lane code that is made: what its branches around arms are taken for."""
    noted: list[list[tuple[bool, ...]]] = []
    block = Bodies.block

    def noting(self: Any, graph: Any) -> Any:
        made = block(self, graph)
        branches = [op.instruction for op in made.code if isinstance(op.instruction, Skip)]
        noted.append([branch.holds for branch in branches])
        return made

    monkeypatch.setattr(Bodies, "block", noting)
    return noted


def columns(count: int, rng: random.Random, low: int = -300, high: int = 300) -> list[Any]:
    """Columns with runs of numbers alike, so that some blocks agree and others do not."""
    found = []
    for _ in range(count):
        numbers: list[int] = []
        while len(numbers) < 700:
            length = rng.choice([1, 1, 3, 40, 90])
            if rng.random() < 0.5:
                numbers += [rng.randint(low, high)] * length
            else:
                start = rng.choice([low, 1, high // 2])
                numbers += [rng.randint(start, high) for _ in range(length)]
        found.append(np.array(numbers[:700]))
    return found


def check(source: str, data: list[Any], overflow: str = "wrap") -> None:
    """The kernels give what the interpreter gives row by row, or the same rows fail."""
    f = exprjit.compile(source, [*"xyz"][: len(data)], overflow=overflow)
    wanted: list[int | None] = []
    for row in zip(*(column.tolist() for column in data), strict=True):
        try:
            wanted.append(f.formula.interpret(*row))
        except exprjit.ExprError:
            wanted.append(None)
    found, failed = f.map(*data, errors="mask")
    assert failed.tolist() == [value is None for value in wanted], source
    assert found.tolist() == [value or 0 for value in wanted], source
    good = ~failed
    assert f.sum(*data, where=good) == sum(value or 0 for value in wanted)
    hits = [row for row, value in enumerate(wanted) if value]
    assert f.indices(*data, errors="mask")[0].tolist() == hits
    if good.any():
        assert f.min(*data, where=good) == min(value for value in wanted if value is not None)


DEAR = [
    "x > 0 ? gcd(x, y) : y",
    "x > 0 ? y : gcd(x, y)",
    "x > 0 ? gcd(x, y) : isqrt(y & 1023) ** 3 / (y | 1)",
    "x < 100 ? x / (y | 1) : x < 200 ? (x - y) % (z | 1) : (x * y) // (z * 3 + 1 | 1)",
    "x < 0 ? 0 : y < 0 ? x // (z | 1) : z < 0 ? x / (y + 1) : gcd(x, z) % (y | 7)",
    "x ? y ? z ? x / y : y / z : x / z : 5",
    "y != 0 ? x / y + x % y : x",
    "(x > 0 ? x / (y | 1) : 0) + (x > 0 ? x % (y | 1) : 0)",
    "x > 10 ? x / y : x < -10 ? x % y : x // y + x %% y",
    "x > 50 and y > 50 ? (x ** 5) / (z | 1) : x > 50 ? z % (x - 50) : 1",
    "(x > 0 ? gcd(x, y) : gcd(y, z)) / (z > 0 ? gcd(z, 12) : 7)",
    "d = x / (y | 1); x > 0 ? d + gcd(x, y) : d - gcd(y, z)",
    "x > y ? (z > 0 ? gcd(x, z) : 0) : (z < 0 ? gcd(y, z) : 1)",
    "1 / (x > 0 ? gcd(x, y) - 1 : 1)",
]


@pytest.mark.parametrize("overflow", ["wrap", "raise"])
@pytest.mark.parametrize("source", DEAR)
def test_dear_arms(
    level: str, source: str, overflow: str, skips: list[list[tuple[bool, ...]]]
) -> None:
    rng = random.Random(source)
    names = len(exprjit.compile(source).params)
    for low, high in ((-300, 300), (0, 3), (-(2**62), 2**62)):
        check(source, columns(names, rng, low, high), overflow)
    # (With checks for overflow, more is needed outside of the arms.)
    assert any(skips) or overflow == "raise"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("x > 0 ? x + 1 : x - 1", []),
        ("x > 0 ? x * x * x : x ^ 5", []),
        ("x > 0 ? x / 8 : 5", []),
        ("x > 0 ? x ** 3 : 5", []),
        ("x > 0 ? gcd(x, y) : 5", [(True,)]),
        ("x > 0 ? 5 : gcd(x, y)", [(False,)]),
        ("x > 0 ? gcd(x, y) : y > 0 ? gcd(y, 7) : 3", [(True,), (False,), (True, False)]),
        ("x > 0 ? gcd(x, y) + gcd(y, 9) : gcd(y, 9)", [(True,)]),
        ("gcd(x, y) + (x > 0 ? gcd(x, y) : 5)", []),
    ],
)
def test_which_arms_are_skipped(
    level: str, source: str, wanted: list[tuple[bool, ...]], skips: list[list[tuple[bool, ...]]]
) -> None:
    f = exprjit.compile(source, ["x", "y"])
    f.map(*columns(2, random.Random(1)))
    assert sorted(skips[0]) == sorted(wanted)


def test_an_arm_that_all_or_no_rows_take(level: str) -> None:
    f = exprjit.compile("x > 10 ? gcd(x, y) : y * 3")
    y = np.arange(1, 1001)
    for x in (np.full(1000, 5), np.full(1000, 24), np.where(y == 500, 24, 5), y):
        wanted = [f(int(a), int(b)) for a, b in zip(x, y, strict=True)]
        for length in (1, 7, 8, 31, 32, 33, 500, 501, 1000):
            assert f.map(x[:length], y[:length]).tolist() == wanted[:length]


def expression(rng: random.Random, depth: int) -> str:
    """One with many choices, whose arms are dear, share values, and fail."""
    if depth == 0:
        return rng.choice(["x", "y", "z", "x + 1", str(rng.randint(-3, 300))])

    def part() -> str:
        return f"({expression(rng, rng.randrange(depth))})"

    kind = rng.random()
    if kind < 0.45:
        condition = rng.choice([f"{rng.choice('xyz')} > {rng.randint(-50, 250)}", part()])
        return f"{condition} ? {part()} : {part()}"
    if kind < 0.6:
        return f"gcd({part()}, {part()})"
    if kind < 0.8:
        return (
            f"{part()} {rng.choice(['/', '%', '//', '%%'])} {rng.choice([part(), '7', 'x', 'y'])}"
        )
    return f"{part()} {rng.choice('+-*&^')} {part()}"


@pytest.mark.parametrize("few", [False, True], ids=["all registers", "few registers"])
@pytest.mark.parametrize("seed", range(40))
def test_generated_programs(
    level: str, seed: int, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if few:
        for ends in (Avx512Ends, Avx2Ends):
            isa = ends.isa._replace(vectors=ends.isa.vectors[:9])
            monkeypatch.setattr(ends, "isa", isa._replace(mask_registers=isa.mask_registers[:3]))
        # What was made with all of them is not to be found again.
        exprjit.cache_clear()
    rng = random.Random(seed)
    data = columns(3, rng, *rng.choice([(-300, 300), (0, 5), (-(2**63), 2**63 - 1)]))
    check(expression(rng, 5), data, rng.choice(["wrap", "raise"]))


def test_where_registers_are_few(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves its register in an arm, and is needed behind it, is stored before the arm."""
    stored = []
    store = LaneAllocator._store

    def noting(self: LaneAllocator, value: int, item: Any) -> None:
        stored.append([value in arm.before for arm in self.arms])
        store(self, value, item)

    monkeypatch.setattr(LaneAllocator, "_store", noting)
    terms = " + ".join(f"(x * {n} ^ y >> {n})" for n in range(3, 40))
    kept = "; ".join(f"a{n} = x * {n} + (y >> {n})" for n in range(1, 40))
    sums = " + ".join(f"a{n} * {n}" for n in range(1, 40))
    for arm in (f"gcd({terms}, y)", f"z > 5 ? gcd({terms}, y) : {terms}",
                f"z > 5 ? gcd(z, 77) : gcd({terms}, y ? gcd({terms}, x) : 3)"):  # fmt: skip
        source = f"{kept}; (x > 0 ? {arm} : z) + ({sums}) ** 2"
        check(source, columns(3, random.Random(5)))
    assert [True] in stored
    assert [True, True] in stored


def test_deep_chains(level: str) -> None:
    """Hundreds of arms within each other."""
    source = "0"
    for number in range(300):
        source = f"x < {number} ? gcd(x + {number}, y) : {source}"
    f = exprjit.compile(source)
    x, y = columns(2, random.Random(6), -10, 320)
    wanted = [f.formula.interpret(int(a), int(b)) for a, b in zip(x, y, strict=True)]
    assert f.map(x, y).tolist() == wanted

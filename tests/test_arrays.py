"""Arrays: every kernel and kind of column beside the function called row by row."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from children import Child, needs_code

import exprjit
from exprjit import array_code
from exprjit.runtime import cpu, memory, numpy_fields, sweep
from exprjit.runtime.sweep import PIECE
from exprjit.tools.generate import program
from exprjit.x86.rows import ITEM_TYPES

np = pytest.importorskip("numpy")

MIN, MAX = -(2**63), 2**63 - 1
EDGES = [MIN, MIN + 1, -(2**32), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**31, 2**52, MAX - 1, MAX]

LEVELS = [
    level
    for level, needed in (("scalar", set()), ("avx2", cpu.AVX2), ("avx512", cpu.AVX512))
    if needed <= cpu.detected()
]
#: What a Python has to do with it is the same on all levels.
SOME = [*(pytest.param(name, marks=pytest.mark.slow) for name in LEVELS[:-1]), LEVELS[-1]]
ENGINES = [*SOME, "interpreter"]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Compiles for one of the levels, or for the interpreter."""
    if request.param == "interpreter":
        return lambda source, **more: exprjit.compile(source, backend="interpreter", **more)
    monkeypatch.setenv("EXPRJIT_CPU", request.param)
    return exprjit.compile


def numbers(rng: random.Random, length: int, kind: str = "int64") -> Any:
    """A column with small numbers, great ones and edges."""
    low, high = ITEM_TYPES[kind].low, ITEM_TYPES[kind].high
    if kind == "bool":
        high = 1
    chosen = [
        rng.choice([rng.randint(-9, 9), rng.getrandbits(rng.randint(1, 64)) - 2**63, *EDGES])
        for _ in range(length)
    ]
    return np.array([min(max(value, low), high) for value in chosen], kind)


def by_row(f: Any, columns: list[Any]) -> list[int | type[Exception]]:
    """What calls give, one for each row: a value or the type of the error."""
    found: list[int | type[Exception]] = []
    whole = np.broadcast_arrays(*(np.asarray(column) for column in columns))
    for row in zip(*whole, strict=True):
        try:
            found.append(f(*map(int, row)))
        except exprjit.ExprError as error:
            found.append(type(error))
    return found


def check_all_kernels(
    f: Any, columns: list[Any], where: Any = None, narrow: str | None = None
) -> None:
    """Every kernel over the columns gives what the rows say; rows that fail are masked out.

    where: None, an array, or a text with the same parameters, which may fail.  narrow: the type of
    some results.
    """
    wanted = by_row(f, columns)
    counts = [True] * len(wanted)
    if isinstance(where, str):
        passes = by_row(exprjit.compile(where, f.params, overflow=f.overflow), columns)
        counts = [passed != 0 for passed in passes]
        wanted = [p if isinstance(p, type) else w for p, w in zip(passes, wanted, strict=True)]
    elif where is not None:
        counts = [bool(w) for w in where]
    fails = [isinstance(w, type) and c for w, c in zip(wanted, counts, strict=True)]
    values = [0 if isinstance(w, type) or not c else w for w, c in zip(wanted, counts, strict=True)]
    rows = [row for row, c in enumerate(counts) if c and not fails[row]]
    hits = [row for row in rows if values[row]]
    options = {"where": where, "errors": "mask"}

    def pair(result: Any) -> Any:
        assert list(result[1]) == fails
        return result[0]

    assert list(pair(f.map(*columns, **options))) == values
    if narrow is not None:
        low, high = ITEM_TYPES[narrow].low, ITEM_TYPES[narrow].high
        some, failed = f.map(*columns, dtype=narrow, **options)
        fits = [low <= value <= high for value in values]
        assert list(failed) == [a or not b for a, b in zip(fails, fits, strict=True)]
        assert list(some) == [v if fit else 0 for v, fit in zip(values, fits, strict=True)]
    assert list(pair(f.mask(*columns, **options))) == [row in hits for row in range(len(values))]
    bits = sum(
        int(word) << 64 * place for place, word in enumerate(pair(f.bitmap(*columns, **options)))
    )
    assert bits == sum(1 << row for row in hits)
    assert list(pair(f.indices(*columns, **options))) == hits
    assert pair(f.count(*columns, **options)) == len(hits)
    assert pair(f.sum(*columns, **options)) == sum(values)
    assert f.first(*columns, **options)[0] == min(hits, default=None)
    assert f.any(*columns, **options)[0] == bool(hits)
    assert f.all(*columns, **options)[0] == (len(hits) == len(rows))
    for name, choose in (("min", min), ("max", max)):
        if not rows:
            with pytest.raises(ValueError, match=f"{name}.. of no rows"):
                getattr(f, name)(*columns, **options)
            continue
        best = choose(values[row] for row in rows)
        assert pair(getattr(f, name)(*columns, **options)) == best
        first = min(row for row in rows if values[row] == best)
        assert pair(getattr(f, "arg" + name)(*columns, **options)) == first
    if not any(fails) and where is None:
        # Without options they go another way.
        assert list(f.map(*columns)) == values
        assert list(f.mask(*columns)) == [row in hits for row in range(len(values))]
        assert list(f.indices(*columns)) == hits
        assert np.array_equal(f.bitmap(*columns), f.bitmap(*columns, where=True))
        assert (f.count(*columns), f.sum(*columns)) == (len(hits), sum(values))
        if rows:
            assert (f.min(*columns), f.max(*columns)) == (min(values), max(values))
            assert f.argmin(*columns) == values.index(min(values))
            assert f.argmax(*columns) == values.index(max(values))
        assert f.first(*columns) == min(hits, default=None)
        assert (f.any(*columns), f.all(*columns)) == (bool(hits), len(hits) == len(rows))
    if not any(fails):
        assert list(f.map(*columns, where=where)) == values
        assert f.sum(*columns, where=where) == sum(values)
    else:
        lowest = fails.index(True)
        out = np.full(len(values), 77)
        with pytest.raises(wanted[lowest]) as caught:
            f.map(*columns, out=out, where=where)
        assert caught.value.row == lowest
        before = [v if c else 77 for v, c in zip(values[:lowest], counts, strict=False)]
        assert list(out[:lowest]) == before


# Values. -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("overflow", ["wrap", "raise"])
@pytest.mark.parametrize(
    "source",
    [
        "x + y", "x - y", "x * y", "x & y | x ^ ~y", "-x", "abs(x) - y", "x << y", "x >> y",
        "x >>> (y & 63)", "x >> 5", "x << 7", "x == y", "x < y", "x >= y", "ult(x, y)", "uge(x, y)",
        "x < y ? x : y", "min(x, y)", "max(x, y)", "sign(x)", "popcount(x)", "parity(x)", "clz(x)",
        "ctz(x)", "bswap(x)", "bitreverse(x)", "rotl(x, y)", "rotr(x, 7)", "mulhi(x, y)",
        "umulhi(x, y)", "udiv(x, y)", "umod(x, y)", "udiv(x, 10)", "umod(x, 1000003)", "gcd(x, y)",
        "isqrt(x)", "avg(x, y)", "pdep(x, y)", "pext(x, y)", "pdep(x, 0xff00ff)", "i8(x)", "i16(x)",
        "i32(x)", "u8(x)", "u16(x) + u32(y)", "x / y", "x % y", "x // y", "x %% y", "x / 7",
        "x % 10", "x // 1000", "x %% 60", "x / -3", "x // 8", "x % 16", "x / 1000000007",
        "x % 9223372036854775807", "x // 3000000000 + x %% 3000000000", "x ** 3", "x ** y",
        "y == 0 ? x : x % y", "x > 0 and y > 0 or x == y", "low = min(x, y); x - low",
        "x / (y & 15 | 1)", "5", "x", "x * x * x + 3 * x * x - y",
        "(x * 6364136223846793005) >>> 33",
        "x % 3 == 0 and x % 5 == 0", "x != 0 ? y / x : x", "clamp(x, -9, y)",
    ],
)  # fmt: skip
def test_every_operator(make: Callable[..., Any], source: str, overflow: str) -> None:
    f = make(source, params=("x", "y"), overflow=overflow)
    pairs = list(itertools.product(EDGES, EDGES))
    rng = random.Random(source)
    small = [(rng.randint(-99, 99), rng.randint(1, 99)) for _ in range(150)]
    middle = [(rng.randint(-(2**48), 2**48), rng.randint(-(2**48), 2**48)) for _ in range(100)]
    great = [tuple(numbers(rng, 2)) for _ in range(200)]
    for rows in (small, middle, pairs, great):
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        if make is not exprjit.compile:
            columns = [column[:40] for column in columns]
        check_all_kernels(f, columns)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_generated_programs(make: Callable[..., Any], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        source = program(lambda most: rng.randrange(most))
        overflow = rng.choice(["wrap", "raise"])
        f = make(source, overflow=overflow)
        length = rng.randint(0, 130)
        kinds = [rng.choice(list(ITEM_TYPES)) for _ in f.params]
        columns = [numbers(rng, length, kind) for kind in kinds]
        if not columns:
            continue
        some = [numbers(rng, 1)[0].item() if rng.random() < 0.3 else column for column in columns]
        if any(isinstance(column, np.ndarray) for column in some):
            columns = some
        where = rng.choice([None, np.array([rng.random() < 0.7 for _ in range(length)], bool)])
        check_all_kernels(f, columns, where)


@pytest.mark.parametrize("source", ["x + ((a & b) | c)", "x + ((a & 7) | 3)", "a % b + x", "a"])
def test_what_is_the_same_for_all_rows(make: Callable[..., Any], source: str) -> None:
    f = make(source, params=("x", "a", "b", "c"))
    check_all_kernels(f, [np.arange(-9, 60), -77, 12, 5])


@pytest.mark.parametrize("count", [4, 6, 8, 12, 16, 20])
def test_more_of_that_than_there_are_registers(make: Callable[..., Any], count: int) -> None:
    selected, folded = "x", "x"
    for i in range(count):
        selected = f"(({selected}) > {i * 7919 + 3} ? {i * 13 + 100001} : {i * 17 - 900000}) * 3"
        folded = f"(({folded}) ^ s{i}) + max(s{i}, t{i})"
    check_all_kernels(make(selected), [np.arange(-9, 60)])
    f = make(folded)
    numbers_ = {name: 1000 + 77 * place for place, name in enumerate(f.params)}
    columns = [np.arange(-9, 60) if name == "x" else numbers_[name] for name in f.params]
    check_all_kernels(f, columns)


@needs_code
def test_code_for_a_row_where_a_vector_would_need_too_much_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terms = [f"(x * {2 * i + 1} ^ y * {i + 7})" for i in range(700)]
    source = "; ".join(f"t{i} = {term}" for i, term in enumerate(terms))
    source += "; " + " + ".join(f"t{i}" for i in range(700))
    source += " + " + " * ".join(f"(t{i} | 1)" for i in range(699, -1, -1))
    for level in LEVELS:
        monkeypatch.setenv("EXPRJIT_CPU", level)
        f = exprjit.compile(source)
        x, y = np.arange(20), np.arange(20) * 3
        assert f.map(x, y).tolist() == [f(int(a), int(b)) for a, b in zip(x, y, strict=True)]
        assert all(sweep.address for sweep in f._body.sweeps.values())


@pytest.mark.slow
@pytest.mark.parametrize("length", [*range(0, 35), 63, 64, 65, 127, 128, 129, 130, 1000])
def test_every_length_and_offset(make: Callable[..., Any], length: int) -> None:
    f = make("x * 3 - y")
    g = make("x > y")
    rng = random.Random(length)
    x, y = numbers(rng, length + 8), numbers(rng, length + 8)
    for offset in range(0, 8, 3):
        out = np.full(length + 16, 99)
        piece = out[offset : offset + length]
        columns = [x[offset : offset + length], y[:length]]
        f.map(*columns, out=piece)
        assert list(piece) == by_row(f, columns)
        assert set(out[:offset]) | set(out[offset + length :]) == {99}
        check_all_kernels(g, columns)


def test_results_that_go_around_the_cache(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "last_cache", lambda: 0)
    f = make("x * 3 - 50 / y", params=("x", "y"))
    rng = random.Random(9)
    x, y = numbers(rng, 200), numbers(rng, 200) | 1
    wanted = by_row(f, [x, y])
    for length in (*range(0, 40), 63, 64, 65, 130, 200):
        for offset in range(0, 8, 3):
            out = np.full(length + 16, 99)
            f.map(x[:length], y[:length], out=out[offset : offset + length])
            assert list(out[offset : offset + length]) == wanted[:length]
            assert set(out[:offset]) | set(out[offset + length :]) == {99}
    y[77] = 0
    out = np.zeros(200, "int64")
    with pytest.raises(ZeroDivisionError, match="in row 77"):
        f.map(x, y, out=out)
    assert list(out[:77]) == wanted[:77]


@pytest.mark.parametrize("kind", ["int64", "int32", "uint16", "int8"])
def test_no_narrow_or_unaligned_results_go_around_the_cache(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Such stores need addresses that only longs in their place can reach, and write 64 bits each.
    monkeypatch.setattr(sweep, "last_cache", lambda: 0)
    f = make("x % 100 + 1")
    x = np.arange(200)
    wanted = (x % 100 + 1).tolist()
    for offset in range(9):
        memory = np.full(200 * 8 + 64, 99, "uint8")
        size = 200 * np.dtype(kind).itemsize
        out = memory[offset : offset + size].view(kind)
        f.map(x, out=out)
        assert out.tolist() == wanted
        assert set(memory[:offset]) | set(memory[offset + size :]) == {99}
        out = memoryview(bytearray(size + 8))[offset : offset + size].cast(np.dtype(kind).char)
        if len(out) == 200:
            f.map(array("q", x), out=out)
            assert list(out) == wanted
    assert f.map(x, dtype=kind).tolist() == wanted


def test_results_larger_than_the_cache() -> None:
    f = exprjit.compile("x + 1")
    x = np.zeros(6_000_000, "int64")
    for out in (np.empty(len(x), "int32"), np.empty(8 * len(x) + 8, "uint8")[3:-5].view("int64")):
        assert (f.map(x, out=out) == 1).all()


# Columns. ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ITEM_TYPES)
def test_item_types(make: Callable[..., Any], kind: str) -> None:
    rng = random.Random(kind)
    for source in ("x + y", "x * 3", "x // 7", "x < y", "x % 10 == 3"):
        f = make(source, params=("x", "y"))
        columns = [numbers(rng, 77, kind), numbers(rng, 77)]
        check_all_kernels(f, columns)
        check_all_kernels(f, columns[::-1])


def test_layouts(make: Callable[..., Any]) -> None:
    f = make("x * 2 - y")
    rng = random.Random(1)
    x, y = numbers(rng, 60), numbers(rng, 60)
    wanted = x * 2 - y
    assert (f(x[::2], y[::2]) == wanted[::2]).all()
    assert (f(x[::-1], y[::-1]) == wanted[::-1]).all()
    assert (f(x.astype(">i8"), y) == wanted).all()
    table_x, table_y = x.reshape(6, 10), y.reshape(6, 10)
    assert (f(table_x, table_y) == wanted.reshape(6, 10)).all()
    assert (f(table_x.T, table_y.T) == wanted.reshape(6, 10).T).all()
    assert (f(np.asfortranarray(table_x), table_y) == wanted.reshape(6, 10)).all()
    assert (f(table_x, y[:10]) == table_x * 2 - y[:10]).all()
    assert (f(x[:6, None], y[:10]) == x[:6, None] * 2 - y[:10]).all()
    assert (f(x, 5) == x * 2 - 5).all()
    assert (f(5, y) == 10 - y).all()
    assert (f(x, np.array([5])) == x * 2 - 5).all()
    assert (f(x, np.int8(5)) == x * 2 - 5).all()
    odd = np.zeros(60 * 8 + 1, "uint8")[1:].view("int64")
    odd[:] = x
    assert not odd.flags.aligned
    assert (f(odd, y) == wanted).all()
    frozen = x.copy()
    frozen.flags.writeable = False
    assert (f(frozen, y) == wanted).all()
    empty = f(x[:0], y[:0])
    assert (empty.shape, empty.dtype) == ((0,), np.dtype("int64"))
    assert f(np.zeros((3, 0), "int64"), 1).shape == (3, 0)
    zero_d = f.map(np.array(4), np.array(3))
    assert (zero_d.shape, int(zero_d)) == ((), 5)
    assert f(np.array(4), 3) == 5
    assert f.map(4, 3)[0] == 5


def test_results_may_overlap_operands(make: Callable[..., Any]) -> None:
    f = make("x * 2 + y")
    rng = random.Random(5)
    for length, there, here, step in itertools.product((7, 200), (0, 1, 3, 8), (0, 1, 5), (1, -1)):
        memory = numbers(rng, length + 8)
        x, y = memory[there : there + length], memory[here : here + length][::step]
        wanted = x * 2 + y
        out = memory[:length]
        assert f.map(x, y, out=out) is out
        assert (out == wanted).all()
    narrow = np.arange(64, dtype="int32")
    wanted = narrow[:32] * 2 + 1
    f.map(narrow[:32], 1, out=narrow.view("int64"))
    assert (narrow.view("int64") == wanted).all()


def test_out_and_dtype(make: Callable[..., Any]) -> None:
    f = make("x * 2")
    x = np.arange(100) - 50
    for kind in ITEM_TYPES:
        if kind == "bool":
            continue
        rows = x if ITEM_TYPES[kind].low else x[50:]
        result = f.map(rows, dtype=kind)
        assert (result.dtype.name, list(result)) == (kind, list(rows * 2))
        strided = np.zeros(2 * len(rows), kind)[::2]
        assert f.map(rows, out=strided) is strided
        assert list(strided) == list(rows * 2)
    assert f.map(x, dtype=np.int16).dtype == f.map(x, dtype=np.dtype("int16")).dtype == np.int16
    with pytest.raises(OverflowError, match="result outside int8: 128, in row 64") as caught:
        f.map(np.arange(100), dtype="int8")
    assert caught.value.row == 64
    result, failed = f.map(np.arange(100), dtype="int8", errors="mask")
    assert list(failed) == [row >= 64 for row in range(100)]
    with pytest.raises(OverflowError, match="uint8: -100, in row 0"):
        f.map(x, dtype="uint8")


def test_buffers_need_no_numpy(make: Callable[..., Any]) -> None:
    f = make("x * 2 + y")
    x = array("h", range(-20, 20))
    result = f(x, 1)
    assert isinstance(result, array)
    assert list(result) == [2 * value + 1 for value in x]
    assert list(f(memoryview(x)[::3], 1)) == [2 * value + 1 for value in x[::3]]
    assert list(f((ctypes.c_int32 * 3)(1, -2, 3), 0)) == [2, -4, 6]
    assert list(f.map(b"\1\2", 0)) == [2, 4]
    with mmap.mmap(-1, 8) as memory:
        memory[:] = bytes(range(8))
        assert list(f(memory, 0)) == [0, 2, 4, 6, 8, 10, 12, 14]
    out = array("q", bytes(8 * 40))
    assert f.map(x, 1, out=out) is out
    assert out == result
    assert f.sum(x, 1) == sum(result)
    assert list(make("x > 5").indices(x)) == [row for row, value in enumerate(x) if value > 5]
    assert list(make("x > 5").mask(x)) == [value > 5 for value in x]
    with pytest.raises(ValueError, match="'x' 40, the argument 'y' 3"):
        f(x, array("h", [1, 2, 3]))
    for wrong in (array("d", [1.0]), array("Q", [1])):
        with pytest.raises(TypeError, match="must hold integers of up to 64 bits, not"):
            f(wrong, 1)


def test_columns_by_name(make: Callable[..., Any]) -> None:
    f = make("price * qty")
    table = {"price": np.array([2, 3]), "qty": np.array([10, 20]), "name": "ignored"}
    assert list(f.map(table)) == [20, 60]
    assert f.sum(table, where="qty > 10") == 60
    assert f.sum(table, where="price > 2") == 60
    with pytest.raises(TypeError, match="no column 'qty'"):
        f.map({"price": table["price"]})
    assert list(f.map(qty=table["qty"], price=3)) == [30, 60]
    g = make("out + where", params=("out", "where"))
    assert list(g.map({"out": np.array([1]), "where": np.array([2])})) == [3]
    frame = pytest.importorskip("pandas").DataFrame({"price": [2, 3], "qty": [10, 20]})
    assert list(f.map(frame)) == [20, 60]


def test_what_is_refused(make: Callable[..., Any]) -> None:
    f = make("x + y")
    x = np.arange(3)
    for wrong, words in (
        (x * 1.0, "not floats"),
        (x.astype("uint64"), "unsigned 64-bit"),
        (x.astype("datetime64[s]"), "not dates"),
        (np.array(["a"]), "items of type"),
        (np.array([1, None]), "Python objects"),
        (x * 1j, "complex"),
    ):
        with pytest.raises(TypeError, match=words):
            f(wrong, 1)
    assert list(f(x.astype("uint64").view("int64"), 1)) == [1, 2, 3]
    with pytest.raises(ValueError, match="do not broadcast"):
        f(x, np.arange(4))
    for options, words in (
        ({"out": np.zeros(4, "int64")}, "shape"),
        ({"out": np.zeros(3)}, "floats"),
        ({"out": [1, 2, 3]}, "NumPy array"),
        ({"dtype": "float64"}, "dtype"),
        ({"dtype": "int8", "out": np.zeros(3, "int64")}, "out holds int64"),
        ({"threads": 0}, "threads"),
        ({"errors": "ignore"}, "errors"),
        ({"where": "x +"}, "missing|expected"),
        ({"where": np.ones(2, bool)}, "broadcast"),
    ):
        with pytest.raises(exprjit.ExprError, match=words):
            f.map(x, 1, **options)
    frozen = np.zeros(3, "int64")
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        f.map(x, 1, out=frozen)
    with pytest.raises(TypeError, match=r"f.map\(\) missing 1 required"):
        f.map(x)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'z'"):
        f.count(x, 1, z=3)


# Filters. ----------------------------------------------------------------------------------


def test_where(make: Callable[..., Any]) -> None:
    f = make("x / y")
    x, y = np.arange(50), np.arange(50) % 5
    wanted = [a // b if b else 0 for a, b in zip(x, y, strict=True)]
    for where in ("y", "y != 0", make("y > 0"), y != 0, y.astype("int8"), "x + y > x"):
        assert list(f.map(x, y, where=where)) == wanted
        assert f.sum(x, y, where=where) == sum(wanted)
        assert f.count(x, y, where=where) == sum(value != 0 for value in wanted)
        assert f.min(x, y, where=where) == min(a // b for a, b in zip(x, y, strict=True) if b)
    out = np.full(50, -7)
    f.map(x, y, out=out, where="y")
    assert list(out) == [value if b else -7 for value, b in zip(wanted, y, strict=True)]
    # A filter may have parameters of its own, and it may fail.
    assert f.count(x, y, x % 2, where="y > z") == sum(
        bool(w) and b > a % 2 for a, b, w in zip(x, y, wanted, strict=True)
    )
    with pytest.raises(ZeroDivisionError, match="where x = 0, in row 0"):
        f.map(x, y, where="x / x")
    with pytest.raises(exprjit.ExprNoRowsError, match="of no rows"):
        f.max(x, y, where="0")
    assert f.argmax(np.full(9, MIN), 1, where="x < 0") == 0
    assert f.argmin(np.array([1, MAX, MAX]), 1, where="x > 1") == 1


# Errors. -----------------------------------------------------------------------------------


def test_the_lowest_row_that_fails_is_told(make: Callable[..., Any]) -> None:
    f = make("100 / x")
    for row in (*range(40), 130):
        x = np.ones(131, "int64")
        x[row] = x[130] = 0
        out = np.full(131, -1)
        with pytest.raises(ZeroDivisionError, match=rf"where x = 0, in row {row}\n") as caught:
            f.map(x, out=out)
        assert caught.value.row == row
        assert list(out[:row]) == [100] * row
        for name in ("sum", "count", "max", "indices", "bitmap", "mask", "all"):
            with pytest.raises(ZeroDivisionError) as caught:
                getattr(f, name)(x)
            assert caught.value.row == row
        if row:
            assert f.any(x)
            assert f.first(x) == 0


def test_rows_behind_the_deciding_one_do_not_fail(make: Callable[..., Any]) -> None:
    f = make("10 / x > 4")
    for row, length in itertools.product((0, 3, 17), (20, 100)):
        x = np.full(length, 9)
        x[row] = 2
        x[row + 1] = 0
        assert f.any(x)
        assert f.first(x) == row
        assert not make("10 / x < 4").all(x)


def test_lazy_arms_do_not_fail(make: Callable[..., Any]) -> None:
    rng = random.Random(3)
    for source in (
        "y == 0 ? 0 : x / y", "y and x % y > 2", "y == 0 or x % y == 0", "0 < y < x / y",
        "x > 0 ? isqrt(x) : 0", "y < 0 ? 0 : 2 ** (y & 7)",
        "y > 0 ? (x // y) : (y == 0 ? 1 : x %% y)",
    ):  # fmt: skip
        f = make(source, params=("x", "y"))
        columns = [numbers(rng, 99), np.array([rng.randint(-2, 2) for _ in range(99)])]
        check_all_kernels(f, columns)


# Threads and signals. ----------------------------------------------------------------------

LARGE = 3 * PIECE + 1234


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_threads(threads: int | None) -> None:
    f = exprjit.compile("x * 3 - 1")
    x = np.arange(LARGE) - 500_000
    wanted = x * 3 - 1
    options = {"threads": threads}
    assert (f.map(x, **options) == wanted).all()
    assert f.sum(x, **options) == int(wanted.sum())
    assert (f.min(x, **options), f.argmin(x, **options)) == (int(wanted.min()), 0)
    assert (f.max(x, **options), f.argmax(x, **options)) == (int(wanted.max()), LARGE - 1)
    g = exprjit.compile("x % 3 == 0")
    assert g.count(x, **options) == int((x % 3 == 0).sum())
    assert (g.mask(x, **options) == (x % 3 == 0)).all()
    assert (g.indices(x, **options) == np.nonzero(x % 3 == 0)[0]).all()
    bits = np.unpackbits(g.bitmap(x, **options).view("uint8"), bitorder="little")[:LARGE]
    assert (bits == (x % 3 == 0)).all()
    assert exprjit.compile("x == 200000").first(x, **options) == 700_000
    assert exprjit.compile("x < 200000").all(x[:700_000], **options)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_tell_the_lowest_row(threads: int) -> None:
    f = exprjit.compile("5 / x")
    rng = random.Random(threads)
    for _ in range(10):
        x = np.ones(LARGE, "int64")
        rows = sorted(rng.sample(range(LARGE), 3))
        x[rows] = 0
        out = np.zeros(LARGE, "int64")
        with pytest.raises(ZeroDivisionError) as caught:
            f.map(x, out=out, threads=threads)
        assert caught.value.row == rows[0]
        assert (out[: rows[0]] == 5).all()
        result, failed = f.map(x, threads=threads, errors="mask")
        assert list(np.nonzero(failed)[0]) == rows
        assert (result == 5 * x).all()


def test_other_threads_run_meanwhile() -> None:
    f = exprjit.compile("gcd(x, 982451653) + gcd(x, 961748941) + isqrt(x)")
    x = np.arange(2_000_000)
    turns = []

    def count() -> None:
        while not done.is_set():
            turns.append(time.perf_counter())
            time.sleep(0.001)

    done = threading.Event()
    other = threading.Thread(target=count)
    other.start()
    begin = time.perf_counter()
    f.map(x, threads=1)
    end = time.perf_counter()
    done.set()
    other.join()
    assert sum(begin < turn < end for turn in turns) >= 5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", ["map", "sum", "indices"])
def test_an_interrupt_ends_a_long_call(child: Child, kernel: str, threads: int) -> None:
    answer = child(
        f"""
        import os, signal, threading, time
        import numpy as np
        import exprjit

        # What a shell starts in the background ignores it, and so do its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        f = exprjit.compile("gcd(x, 982451653) + gcd(x, 961748941) + gcd(x, 15487469)")
        x = np.lib.stride_tricks.as_strided(np.arange(1 << 20), (1 << 10, 1 << 20), (0, 8))
        x = x if {kernel!r} == "sum" else np.arange(1 << 24)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.perf_counter()
        try:
            f.{kernel}(x, threads={threads})
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("no interrupt")
        assert f.sum(np.arange(1, 11)) > 0
        print("ended")
        """
    )
    assert answer.split() == ["ended"]


# Guard pages. ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Callable[[int, bool], Any]]:
    """Makes arrays of bytes that end, or begin, at a page that cannot be touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 6 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for place in (0, 3 * page):
        assert libc.mprotect(ctypes.c_void_p(base + place), page, 0) == 0
    whole = np.frombuffer(memory, "uint8")
    free = {False: whole[page : 3 * page], True: whole[4 * page :]}

    def make(size: int, at_start: bool) -> Any:
        return free[True][:size] if at_start else free[False][len(free[False]) - size :]

    # At the end of what is free before the second guard, or at the begin behind it.
    yield make
    for place in (0, 3 * page):
        libc.mprotect(ctypes.c_void_p(base + place), page, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.slow
@pytest.mark.parametrize("at_start", [False, True])
def test_nothing_outside_the_arrays_is_touched(
    make: Callable[..., Any], guarded: Callable[[int, bool], Any], at_start: bool
) -> None:
    rng = random.Random(11)
    f, g = make("x / 7 + y", params=("x", "y")), make("x > y")
    for length in range(1, 70):
        for kind in ("int64", "int32", "int8", "uint16"):
            x = guarded(length * ITEM_TYPES[kind].size, at_start).view(kind)
            x[:] = numbers(rng, length, kind)
            y = np.arange(length)
            wanted = by_row(f, [x, y])
            assert list(f(x, y)) == wanted
            assert f.sum(x, y) == sum(wanted)
            assert list(g.mask(x, y)) == by_row(g, [x, y])
            assert f.max(x, y) == max(wanted)
        out = guarded(length * 8, at_start).view("int64")
        assert list(f.map(y, y, out=out)) == by_row(f, [y, y])
        small = guarded(length, at_start).view("bool")
        assert list(g.mask(y, 5, out=small)) == [value > 5 for value in y]


# Verified functions. -----------------------------------------------------------------------


@pytest.mark.slow
def test_verified_functions_over_arrays() -> None:
    rng = random.Random(2)
    for source in ("x / 7 + y", "x / y", "x > y and x % 3 == 0", "x * x - y"):
        f = exprjit.compile(source, params=("x", "y"), verify=True)
        for length in (0, 1, 31, 100):
            check_all_kernels(f, [numbers(rng, length), numbers(rng, length)])


KERNELS = (
    "map", "mask", "bitmap", "indices", "count", "sum", "max", "argmax", "first",
)  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_verified_function_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """Machine code of another formula, in one row of many."""
    right = exprjit.compile("x % 100 > 50 ? x : 0", verify=True)
    wrong = exprjit.compile("x == 77 ? 1000 : x == 99 ? 0 : x % 100 > 50 ? x : 0")
    x = np.full(120, 99) if kernel == "first" else np.arange(120)
    getattr(right, kernel)(x)
    code = array_code._code
    monkeypatch.setattr(
        array_code,
        "_code",
        lambda task, features: code(task._replace(formula=wrong.formula), features),
    )
    exprjit.cache_clear()
    broken = exprjit.compile("x % 100 > 50 ? x : 0", verify=True)
    with pytest.raises(exprjit.VerificationError, match="the interpreter"):
        getattr(broken, kernel)(x)


# What is as it was. ------------------------------------------------------------------------


def test_functions_with_externs(make: Callable[..., Any]) -> None:
    labs = ctypes.CDLL(None).labs
    labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long
    f = make("labs(x) + labs(y) / x", externs={"labs": labs})
    x, y = np.array([3, -4, 5]), np.array([-9, 8, 1])
    assert list(f(x, y)) == [6, 2, 5]
    with pytest.raises(ZeroDivisionError, match="in row 1"):
        f(np.array([1, 0]), 1)


def test_calls_with_numbers_are_as_before(make: Callable[..., Any]) -> None:
    f = make("x + y")
    assert f(1, 2) == f(1, y=2) == f(np.int64(1), np.int8(2)) == 3
    for wrong in ([1, 2], (1,), "1", b"1", bytearray(b"1"), None, 1.0, {"x": 1}):
        with pytest.raises(TypeError, match="must be an integer, not"):
            f(wrong, 1)


def test_code_for_arrays_lives_as_long_as_the_function() -> None:
    gc.collect()
    before = memory.statistics().used
    functions = [exprjit.compile(f"x * x + {number} / y") for number in range(50)]
    for f in functions:
        f(np.arange(3), 1)
    assert memory.statistics().used > before + 50 * 200
    del f, functions
    exprjit.cache_clear()
    gc.collect()
    memory.collect()
    assert memory.statistics().used <= before


def test_code_for_many_filters_is_not_kept_for_ever() -> None:
    f = exprjit.compile("x")
    rows = np.arange(300)
    for limit in range(200):
        assert f.count(rows, where=f"x > {limit}") == 299 - limit
    assert len(f._body.sweeps) <= 64
    assert len(f._body.filters) <= 64


@pytest.mark.parametrize("known", [True, False], ids=["in the array", "asked for"])
def test_where_the_items_of_an_array_are(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if known:
        assert numpy_fields.array_fields() is not None
    else:
        monkeypatch.setattr(numpy_fields, "_pointer", lambda: None)
    whole = np.arange(60).reshape(3, 4, 5)
    for items in (whole, whole[1:, ::2, ::-1], whole[0, 0, 4:], whole[:0], np.ma.array(whole)):
        assert numpy_fields.address(items) == items.__array_interface__["data"][0]


def test_numbers_that_are_arrays_are_refused_in_words(make: Callable[..., Any]) -> None:
    x, f = np.arange(3), make("x")
    for call in (
        lambda: exprjit.evaluate("x", {"x": x}), lambda: f.bind(x=x),
        lambda: make("x + K", constants={"K": x}), lambda: f(np.ma.masked),
        lambda: f(np.array(1.5)),
    ):  # fmt: skip
        with pytest.raises(exprjit.ExprTypeError, match="must be an integer, not"):
            call()


def test_truth_values_of_numpy_are_numbers(make: Callable[..., Any]) -> None:
    f = make("x + y")
    assert f(np.bool_(True), 5) == f(np.array(True), 5) == f(5, np.arange(3)[:2][1] > 0) == 6
    assert f(np.arange(3), np.bool_(True)).tolist() == [1, 2, 3]
    assert exprjit.evaluate("x", {"x": np.bool_(False)}) == 0


@pytest.mark.parametrize("kernel", ["map", "sum", "count", "indices", "max", "all"])
def test_bytes_of_truth_are_0_or_1(make: Callable[..., Any], kernel: str) -> None:
    """NumPy lets others pass, as in what `frombuffer` gives; they are as good as 1."""
    odd = np.frombuffer(bytes(range(40)) + b"\xff\x80\1\0", dtype=bool)
    truths = np.array([byte != 0 for byte in odd.view("uint8")])
    x = np.arange(odd.size)
    for text in ("b", "b * x", "b == 1", "not b", "b ? x : -x", "b + 2", "10 / b", "b and x > 3"):
        f = make(text, params=["b", "x"])
        wanted = getattr(f, kernel)(truths, x, errors="mask")
        found = getattr(f, kernel)(odd, x, errors="mask")
        for one, other in zip(found, wanted, strict=True):
            assert np.array_equal(one, other)
        if not wanted[1].any():
            assert np.array_equal(getattr(f, kernel)(odd, x), wanted[0])
    f = make("x", params=["x"])
    assert f.sum(x, where=odd) == f.sum(x, where=truths) == x[truths].sum()
    with pytest.raises(ZeroDivisionError, match="where b - 1 = 0, in row 0"):
        make("1 / (b - 1)").map(odd[2:])

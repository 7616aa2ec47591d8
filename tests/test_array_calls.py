"""Calls over plain arrays, which machine code answers by itself: what it answers, and what not."""

from __future__ import annotations

import ctypes
import gc
import itertools
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from children import Child, needs_code

import exprjit
from exprjit import array_run
from exprjit.array_run import METHODS
from exprjit.runtime import array_calls, memory, numpy_fields
from exprjit.runtime.sweep import PIECE
from exprjit.x86.array_call import has_results
from exprjit.x86.rows import INDICES_ROOM, ITEM_TYPES

np = pytest.importorskip("numpy")
pytestmark = needs_code

MIN, MAX = -(2**63), 2**63 - 1
KERNELS = sorted(METHODS)
#: The default of `errors`, but another object: a call with it goes the long way.
RAISE = "".join(["ra", "ise"])


#: What a Python has to do with it is the same on all levels.
LEVELS = [pytest.param(name, marks=pytest.mark.slow) for name in ("scalar", "avx2")]


@pytest.fixture(params=[*LEVELS, "avx512"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EXPRJIT_CPU", request.param)
    try:
        exprjit.compile("x")
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels of the calls that were for array_run.py."""
    noted: list[str] = []
    answer = array_run.answer

    def noting(body: Any, kernel: str, *rest: Any) -> Any:
        noted.append(kernel)
        return answer(body, kernel, *rest)

    monkeypatch.setattr(array_run, "answer", noting)
    return noted


def same(left: Any, right: Any) -> bool:
    """Whether two answers are the same, of the same type."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and left == right


def agrees(f: Any, kernel: str, columns: list[Any]) -> None:
    """The answer, twice, is that which array_run.py gives."""
    wanted, _ = getattr(f, kernel)(*columns, errors="mask")
    for _ in range(2):
        assert same(getattr(f, kernel)(*columns), wanted), (kernel, columns)


def values(rng: Any, kind: str, shape: Any) -> Any:
    low, high = ITEM_TYPES[kind].low, ITEM_TYPES[kind].high
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(low, high, shape, dtype=kind, endpoint=True)


# What it answers. ----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_it_answers(level: str, kernel: str, handed_over: list[str]) -> None:
    rng = np.random.default_rng(7)
    f = exprjit.compile("(x ^ y) % 1000 - 3 * z")
    for length in (1, 7, 64, 130, 5_000):
        columns = [values(rng, "int64", length), values(rng, "int16", length), 5]
        method = getattr(f, kernel)
        answer = method(*columns)
        handed_over.clear()
        assert same(method(*columns), answer)
        assert handed_over == []
        agrees(f, kernel, columns)


@pytest.mark.parametrize("kernel", KERNELS)
def test_types(kernel: str, handed_over: list[str]) -> None:
    """One after the other, so that code for one type is asked about another."""
    rng = np.random.default_rng(8)
    f = exprjit.compile("x * 3 - y")
    for left, right in itertools.product(ITEM_TYPES, ["int64", "uint8"]):
        agrees(f, kernel, [values(rng, left, 100), values(rng, right, 100)])
    handed_over.clear()
    getattr(f, kernel)(values(rng, "int32", 50), values(rng, "uint8", 50))
    assert handed_over == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_shapes(kernel: str, handed_over: list[str]) -> None:
    rng = np.random.default_rng(9)
    f = exprjit.compile("x - y")
    for shape in ((1,), (3, 4), (2, 3, 5), (1,) * 32, (PIECE,), (2, PIECE // 2)):
        x, y = values(rng, "int32", shape), values(rng, "int16", shape)
        agrees(f, kernel, [x, y])
        handed_over.clear()
        result = getattr(f, kernel)(x, y)
        assert handed_over == []
        if kernel in ("map", "mask"):
            assert result.shape == shape


@pytest.mark.parametrize("kernel", ["min", "max", "argmin", "argmax"])
@pytest.mark.parametrize("length", [1, 3, 8, 31, 32, 33, 200])
def test_the_best_wherever_it_is(level: str, kernel: str, length: int) -> None:
    """Also twice, and where all are as good, or as bad as can be."""
    f, best = exprjit.compile("x + 0 * y", ["x", "y"]), getattr(np, kernel)
    extreme = MIN if kernel.endswith("min") else MAX
    for first, second in itertools.product(range(0, length, 5), repeat=2):
        x = np.full(length, 7)
        x[first] = x[second] = extreme
        assert getattr(f, kernel)(x, 1) == best(x)
    for number in (MIN, -1, 0, MAX):
        x = np.full(length, number)
        assert getattr(f, kernel)(x, 1) == best(x)


@pytest.mark.parametrize("number", [MIN, -(2**62), -(2**32) - 1, -1, 0, 1, 2**31, MAX])
@pytest.mark.parametrize("length", [1, 2, 8, 100, 3_000])
def test_sums_are_exact(level: str, number: int, length: int) -> None:
    f = exprjit.compile("x")
    assert f.sum(np.full(length, number)) == number * length
    mixed = np.array([number, -number - 1, number] * length)
    assert f.sum(mixed) == sum(map(int, mixed))


def test_sums_just_within_longs(level: str, handed_over: list[str]) -> None:
    f, half = exprjit.compile("x"), 2**62
    f.sum(np.arange(3))
    for numbers, wanted in (([half, half - 1], True), ([half, half], False),
                            ([-half, -half], True), ([-half, -half - 1], False)):  # fmt: skip
        handed_over.clear()
        assert f.sum(np.array(numbers * 2 + [-n for n in numbers])) == sum(numbers)
        assert (handed_over == []) == wanted


@pytest.mark.parametrize("scalar", [MIN, -1, 0, 5, MAX])
def test_numbers_among_the_columns(scalar: int, handed_over: list[str]) -> None:
    f, x = exprjit.compile("x ^ y"), np.arange(100)
    for columns in ([x, scalar], [scalar, x]):
        for kernel in ("sum", "count", "map"):
            agrees(f, kernel, columns)
    handed_over.clear()
    f.count(scalar, x)
    assert handed_over == []


class Derived(np.ndarray):
    """An array that may do anything."""


def test_generated_arguments(level: str) -> None:
    """Whatever stands among the arguments: the answer, or the error, of the long way."""
    rng = random.Random(11)
    f = exprjit.compile("100 / (x - 3) + y")
    big = np.arange(40)
    choices: list[Any] = [
        big[:7], big[::2][:7], big[6::-1], big[:7].astype("i2"), big[:7].astype(">i8"), big[:3],
        big[:6].reshape(2, 3), big[:0], np.array(9), np.arange(7, dtype="q"), big[:7] + 0.5,
        big[:7].astype("u8"), big[:7].view(Derived), np.ma.array(big[:7]), 5, 3, -1, 2**63, True,
        "a", None, np.int64(4), [1, 2], big[:7].tobytes(), np.arange(7, dtype=np.longlong),
    ]  # fmt: skip

    def outcome(method: Callable[..., Any], columns: list[Any], **options: Any) -> Any:
        try:
            return method(*columns, **options)
        except exprjit.ExprError as error:
            return type(error), error.message, error.row

    filters = [None, None, None, "x > 2", "z", exprjit.compile("y"), "x", *choices]
    for _ in range(2_000):
        kernel, where = rng.choice(KERNELS), rng.choice(filters)
        columns = [rng.choice(choices) for _ in range(rng.choice([2, 2, 2, 2, 1, 3]))]
        method = getattr(f, kernel)
        wanted = outcome(method, columns, where=where, errors=RAISE)
        assert same(outcome(method, columns, where=where), wanted), (kernel, columns, where)


# Filters. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_filters(level: str, kernel: str, handed_over: list[str]) -> None:
    """As text, formula and array; also where no row counts."""
    rng = np.random.default_rng(12)
    f = exprjit.compile("x ^ y")
    method = getattr(f, kernel)
    for length in (1, 40, 3_000):
        x, y, z = (rng.integers(-1000, 1000, length) for _ in "xyz")
        text, more = "x > y or y > 900", "x > z"
        for where, columns in (
            (text, [x, y]), (exprjit.compile(text), [x, y]), (x > y, [x, y]), (x, [x, y]),
            (more, [x, y, z]), (exprjit.compile(more), [x, y, 0]), ("x > 2000", [x, y]),
            (y > 2000, [5, y]),
        ):  # fmt: skip
            try:
                wanted, _ = method(*columns, where=where, errors="mask")
            except exprjit.ExprValueError:
                with pytest.raises(exprjit.ExprValueError, match="of no rows"):
                    method(*columns, where=where)
                continue
            assert same(method(*columns, where=where), wanted)
            handed_over.clear()
            assert same(method(*columns, where=where), wanted)
            assert handed_over == []


@pytest.mark.parametrize("kernel", ["min", "max", "argmin", "argmax"])
def test_the_extreme_among_rows_that_count(level: str, kernel: str) -> None:
    """It looks as if no row counted."""
    f, extreme = exprjit.compile("x"), MAX if kernel.endswith("min") else MIN
    x = np.full(100, extreme)
    for row in (0, 40, 99):
        where = np.arange(100) >= row
        best = getattr(f, kernel)(x, where=where)
        assert best == (row if kernel.startswith("arg") else extreme)


def test_filters_that_fail_and_rows_that_they_drop(level: str) -> None:
    f, x = exprjit.compile("100 / x"), np.array([5, 0, 2, 0, 1])
    for _ in range(3):
        assert f.sum(x, where="x") == 20 + 50 + 100
        with pytest.raises(ZeroDivisionError, match="in row 1"):
            f.sum(x, where="10 / x")
        with pytest.raises(ZeroDivisionError, match="in row 3"):
            f.sum(x, where=np.array([1, 0, 1, 1, 1]))
        with pytest.raises(exprjit.ExprSyntaxError):
            f.sum(x, where="x >")
        with pytest.raises(exprjit.ExprValueError, match="overflow"):
            f.sum(x, where=exprjit.compile("x > 1", overflow="raise"))


def test_formulas_of_filters_that_are_gone() -> None:
    """Another may have its address."""
    f, x = exprjit.compile("x"), np.arange(100)
    for limit in range(50):
        where = exprjit.compile(f"x > {limit}")
        assert f.count(x + 1, where=where) == f.count(x + 1, where=where) == 100 - limit
        del where
        exprjit.cache_clear()
        gc.collect()


# What it does not answer. --------------------------------------------------------------------


def test_rows_that_fail_are_told_as_ever(level: str) -> None:
    f = exprjit.compile("20_000 / x")
    for length in (1, 5, 64, 5_000):
        x = np.arange(1, length + 1)
        for kernel in KERNELS:
            agrees(f, kernel, [x])
        x[length - 1] = 0
        for kernel in KERNELS:
            if kernel in ("any", "first") and length > 1:
                continue  # The first row decides.
            for _ in range(2):
                with pytest.raises(ZeroDivisionError, match=f"x = 0, in row {length - 1:,}"):
                    getattr(f, kernel)(x)


def test_who_has_no_such_calls(monkeypatch: pytest.MonkeyPatch, handed_over: list[str]) -> None:
    x = np.arange(10)
    labs = exprjit.extern(c_labs())
    some = [
        exprjit.compile("x", backend="interpreter"),
        exprjit.compile("x", verify=True),
        exprjit.compile("labs(x)", externs={"labs": labs}),
        exprjit.compile("x + y * 0", ["x", "y", *(f"p{n}" for n in range(15))]),
    ]
    for f in some:
        columns = [x, *[1] * (len(f.params) - 1)]
        for _ in range(3):
            handed_over.clear()
            assert f.sum(*columns) == 45
            assert handed_over == ["sum"]


def c_labs() -> Any:
    labs = ctypes.CDLL(None).labs
    labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long
    return labs


def test_where_the_fields_of_arrays_are_not_known(
    monkeypatch: pytest.MonkeyPatch, handed_over: list[str]
) -> None:
    array_calls._targets.cache_clear()
    monkeypatch.setattr(array_calls, "array_fields", lambda: None)
    try:
        f = exprjit.compile("x + 4711")
        for _ in range(2):
            assert f.sum(np.arange(3)) == 3 * 4711 + 3
        assert handed_over == ["sum", "sum"]
    finally:
        array_calls._targets.cache_clear()


def test_the_fields_of_arrays_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = numpy_fields.array_fields()
    assert fields is not None
    wrong = numpy_fields._fields(object.__basicsize__ + 8)
    monkeypatch.setattr(numpy_fields, "FIELDS", wrong)
    assert numpy_fields.array_fields.__wrapped__() is None


# The object itself. --------------------------------------------------------------------------


def call_of(f: Any, kernel: str, *columns: Any) -> Any:
    """The object that answers for such columns."""
    getattr(f, kernel)(*columns)
    call = f._body.plain[kernel]
    if kernel in ("map", "mask", "bitmap", "indices"):
        call = next(c.cell_contents for c in call.__closure__ if is_call(c.cell_contents))
    assert is_call(call)
    return call


def is_call(value: Any) -> bool:
    return type(value).__name__ == "ArrayCall"


@pytest.mark.parametrize("kernel", ["indices", "bitmap", "map", "mask"])
def test_results_have_to_have_room(kernel: str) -> None:
    assert has_results(kernel)
    f, x = exprjit.compile("x"), np.arange(1, 101)
    call = call_of(f, kernel, x)
    kind, fit = {
        "indices": ("int64", 100 + INDICES_ROOM), "bitmap": ("uint64", 2), "map": ("int64", 100),
        "mask": ("bool", 100),
    }[kernel]  # fmt: skip
    good = np.zeros(fit, kind)
    assert call(x, good) == 100
    fixed = good.copy()
    fixed.flags.writeable = False
    other = {"int64": "int32", "uint64": "int64", "bool": "uint8"}[kind]
    for out in (
        good[:-1], good[:0], fixed, good.astype(other), good[::-1], np.array(0, kind), 5, None,
        good.reshape(1, -1), good.view(np.recarray),
    ):  # fmt: skip
        before = np.array(out)
        assert call(x, out) is NotImplemented
        assert np.array_equal(out, before)
    assert call(x) is call(x, good, good) is call(x, good, out=1) is call() is NotImplemented


def test_it_owns_what_it_needs() -> None:
    """The function may be gone, and its dtypes too."""
    x = np.arange(100)
    call = call_of(exprjit.compile("x * x * 31"), "sum", x)
    exprjit.cache_clear()
    gc.collect()
    memory.collect()
    assert call(x) == sum(n * n * 31 for n in range(100))


def test_references_are_counted() -> None:
    x = np.arange(100)
    for text, kernel in itertools.product(("x - 200", "x >= 0", "x < 0"), KERNELS):
        method = getattr(exprjit.compile(text), kernel)
        method(x)
        objects = [x, x.dtype, None, True, False, NotImplemented]
        before = [sys.getrefcount(one) for one in objects]
        for _ in range(1_000):
            method(x)
            method(x[::2])
        after = [sys.getrefcount(one) for one in objects]
        assert all(abs(a - b) < 500 for a, b in zip(after, before, strict=True)), (text, kernel)


def test_other_threads_run_meanwhile() -> None:
    """Looks several times at the same call, which would be over if it kept Python's lock.

    Another thread calls again and again; however busy the machine is, one of the calls is seen.
    """
    f = exprjit.compile("gcd(x * 7919, 2**62 + y) + isqrt(x) ** 3")
    x = np.arange(PIECE)
    f.sum(x, 1)
    assert f._body.plain["sum"](x, 1) is not NotImplemented
    stop = threading.Event()
    calls = [0]  # how many have begun, and -1 between two

    def compute() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            calls[0] = number
            f.sum(x, 1)
            calls[0] = -1

    other = threading.Thread(target=compute)
    other.start()
    looks, most, before = 0, 0, -1
    end = time.monotonic() + 60
    while most < 4 and time.monotonic() < end:
        # Meanwhile the other thread goes on, to the end of the call if it has the lock.
        time.sleep(0.0005)
        now = calls[0]
        looks = looks + 1 if now == before and now > 0 else 0
        most, before = max(most, looks), now
    stop.set()
    other.join()
    assert most >= 4


def test_a_thread_that_computes_at_the_end_of_the_process(child: Child) -> None:
    answer = child(
        f"""
        import threading, time
        import numpy as np
        import exprjit

        f, x = exprjit.compile("gcd(x, 360360) + x"), np.arange({PIECE})
        f.sum(x)

        def compute():
            while True:
                f.sum(x), f.indices(x), f.count(x)

        for _ in range(3):
            threading.Thread(target=compute, daemon=True).start()
        time.sleep(0.2)
        print("end")
        """
    )
    assert answer == "end\n"


def test_functions_dropped_while_they_compute() -> None:
    """Each thread drops the function that it calls; the call keeps what it runs."""
    x = np.arange(20_000)
    wrong: list[Any] = []

    def compute(seed: int) -> None:
        for turn in range(30):
            number = seed * 1_000 + turn
            total = exprjit.compile(f"x + {number}").sum
            if any(total(x) != x.sum() + number * x.size for _ in range(3)):
                wrong.append(number)
            del total
            exprjit.cache_clear()
            gc.collect(0)

    threads = [threading.Thread(target=compute, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kernel", ["sum", "map", "indices"])
def test_types_that_are_many_objects(kernel: str, handed_over: list[str]) -> None:
    """No code is made for each, and the short way is taken all the same."""
    f, x = exprjit.compile("x * x + y", ["x", "y"]), np.arange(9)
    agrees(f, kernel, [x, 1])
    before = len(f._body.plain)
    handed_over.clear()
    for number in range(100):
        marked = np.dtype("int64", metadata={"number": number})
        for other in (pickle.loads(pickle.dumps(x)), x.view(marked), x.view(np.longlong)):
            assert same(getattr(f, kernel)(other, 1), getattr(f, kernel)(x, 1))
    assert handed_over == []
    # That of another letter is one more.
    assert len(f._body.plain) <= before + 1


def test_code_for_many_filters_and_types_is_not_kept_for_ever() -> None:
    f, x = exprjit.compile("x"), np.arange(300)
    for limit, kind in itertools.product(range(30), ["int64", "int16", "uint32"]):
        assert f.count(x.astype(kind), where=f"x > {limit}") == 299 - limit
    assert len(f._body.plain) <= 65


@pytest.mark.parametrize("kernel", ["indices", "map", "mask", "bitmap"])
def test_no_memory_is_taken_for_rows_that_are_too_many(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, x = exprjit.compile("x"), np.arange(10)
    getattr(f, kernel)(x)
    made = []
    monkeypatch.setattr(np, "empty", made.append)
    monkeypatch.setattr(np, "zeros", made.append)
    assert f._body.plain[kernel](np.broadcast_to(x[:1], PIECE + 1)) is NotImplemented
    assert made == []

"""The formula as a `numpy.ufunc`: what NumPy can do with it, errors, its life, and f(array)."""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import pickle
import random
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from children import Child, policies

import exprjit
from exprjit import compiler, function
from exprjit.body import Body
from exprjit.runtime import cpu, memory, stubs, ufunc
from exprjit.runtime.sweep import PIECE
from exprjit.tools.generate import program
from exprjit.x86 import ufunc_loop
from exprjit.x86.vectorcall import python_call

np = pytest.importorskip("numpy")

MIN, MAX = -(2**63), 2**63 - 1
LEVELS = [
    level
    for level, needed in (("scalar", set()), ("avx2", cpu.AVX2), ("avx512", cpu.AVX512))
    if needed <= cpu.detected()
]
#: A function as the settings of this run allow.
SAMPLE = exprjit.compile("x + 4")
HAVE_CODE = SAMPLE.engine == "jit"
needs_code = pytest.mark.skipif(not HAVE_CODE, reason=f"{SAMPLE.why_not_jit}")
needs_native = pytest.mark.skipif(
    not hasattr(SAMPLE, "arrays"), reason="functions are not called natively"
)
HAVE_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


#: What a Python has to do with it is the same on all levels.
SOME = [*(pytest.param(name, marks=pytest.mark.slow) for name in LEVELS[:-1]), LEVELS[-1]]


@pytest.fixture(params=[*SOME, "interpreter"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Compiles for one of the levels, or for the interpreter, whose ufuncs give objects."""
    if request.param == "interpreter":
        return lambda source, **more: exprjit.compile(source, backend="interpreter", **more)
    monkeypatch.setenv("EXPRJIT_CPU", request.param)
    return exprjit.compile


def is_code(u: Any) -> bool:
    """Whether its results are longs: made by machine code."""
    return "O" not in u.types[0]


def numbers(rng: random.Random, *shape: int) -> Any:
    """Longs of all sizes."""
    count = int(np.prod(shape))
    return np.array([rng.getrandbits(rng.randint(1, 64)) - 2**63 for _ in range(count)]).reshape(
        shape
    )


def wanted(f: Any, *columns: Any) -> Any:
    """What calls give row by row, with the columns broadcast."""
    arrays = np.broadcast_arrays(*columns)
    rows = zip(*(array.ravel().tolist() for array in arrays), strict=True)
    return np.array([f(*row) for row in rows], "int64").reshape(arrays[0].shape)


def check(u: Any, f: Any, *columns: Any, **options: Any) -> None:
    result, expected = u(*columns, **options), wanted(f, *columns)
    assert np.shape(result) == expected.shape
    if is_code(u):
        assert np.asarray(result).dtype == np.int64
    assert (result == expected).all()


# What it is. -------------------------------------------------------------------------------


def test_it_is_a_ufunc(make: Callable[..., Any]) -> None:
    f = make("x * 3 - y", name="scaled")
    u = f.ufunc
    assert type(u) is np.ufunc
    assert (u.nin, u.nout, u.nargs, u.ntypes, u.identity) == (2, 1, 3, 1, None)
    assert u.__name__.startswith("scaled")
    assert f.ufunc is u
    if f.engine == "jit":
        assert u.types == ["ll->l"]
        assert u.__doc__.endswith("x * 3 - y")
        assert u.__name__ == "scaled"
        assert u(5, 1) == 14
        assert type(u(5, 1)) is np.int64


def test_names_of_all_kinds() -> None:
    for name in ("größe", "a\0b", "\ud800", "", "x" * 1000):
        u = exprjit.compile("x + 1", name=name).ufunc
        assert isinstance(u.__name__, str)
        assert u(2) == 3
    u = exprjit.compile("x + 1 # größer").ufunc
    assert is_code(u) == ("größer" in u.__doc__)


def test_how_many_parameters(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="this formula has no parameters"):
        make("1 + 2").ufunc  # noqa: B018
    most = ufunc.most_parameters()
    names = [f"x{number}" for number in range(most + 1)]
    f = make(" + ".join(names[:most]))
    columns = [np.arange(5) + number for number in range(most)]
    check(f.ufunc, f, *columns)
    check(f.ufunc, f, *[column[::-1] for column in columns])
    check(f.ufunc, f, *[column[0] for column in columns[:-1]], columns[-1])
    with pytest.raises(ValueError, match=f"1 to {most} parameters; this formula has {most + 1}"):
        make(" + ".join(names)).ufunc  # noqa: B018


def test_functions_of_every_kind() -> None:
    columns = np.arange(9), np.arange(9)[::-1]
    for options in ({"lazy": True}, {"verify": True}, {"backend": "interpreter"}, {}):
        f = exprjit.compile("x * y - 7", **options)
        check(f.ufunc, f, *columns)
        if HAVE_CODE and "backend" not in options:
            assert is_code(f.ufunc)


@needs_code
def test_without_the_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPRJIT_CALL", "ctypes")
    f = exprjit.compile("x / y")
    check(f.ufunc, f, np.arange(20), np.arange(20) - 30)
    assert is_code(f.ufunc)
    monkeypatch.setenv("EXPRJIT_DISABLE_JIT", "1")
    f = exprjit.compile("x / y")
    check(f.ufunc, f, np.arange(20), np.arange(20) - 30)
    assert not is_code(f.ufunc)


# What NumPy does with it. ------------------------------------------------------------------

SOURCES = ["x + y", "x * 3 - (y >> 2)", "x > y ? x - y : y ^ 5", "y == 0 ? x : x % y", "y", "7"]


@pytest.mark.parametrize("source", SOURCES)
def test_lengths_and_layouts(make: Callable[..., Any], source: str) -> None:
    f = make(source, params=("x", "y"))
    u, rng = f.ufunc, random.Random(source)
    for length in (*range(20), 63, 64, 65, 511, 512, 513, 1025):
        x, y = numbers(rng, 3 * length + 1), numbers(rng, 3 * length + 1)
        whole = slice(0, length)
        steps = [whole, slice(0, 2 * length, 2), slice(length - 1, None, -1), slice(1, None, 3)]
        for left, right in itertools.product(steps, steps if length < 20 else steps[:2]):
            check(u, f, x[left][:length], y[right][:length])
        check(u, f, x[whole], 5)
        check(u, f, -3, y[whole])
        check(u, f, x[whole], np.broadcast_to(y[:1], length))
        check(u, f, x[whole], x[whole])


def test_shapes(make: Callable[..., Any]) -> None:
    f = make("x * 5 - y")
    u, rng = f.ufunc, random.Random(1)
    x, y = numbers(rng, 6, 10), numbers(rng, 6, 10)
    for left, right in [
        (x, y), (x.T, y.T), (x, y.T.reshape(6, 10)), (np.asfortranarray(x), y), (x, y[0]),
        (x, y[:, :1]), (x[:, 0], y[0, :6]), (x[:, :1], y[:1]), (x[::2, ::-3], y[1::2, ::-3]),
        (x[None], y[:, None]), (x[:0], y[:0]), (x[:, :0], 4), (x[2, 3], y), (x[2, 3], y[1, 1]),
        (x.reshape(3, 2, 2, 5)[:, ::-1], y.reshape(3, 2, 2, 5)[..., ::2][..., :1]),
    ]:  # fmt: skip
        check(u, f, left, right)
    # As an operand's strides can be when an axis has one item.
    odd = np.lib.stride_tricks.as_strided(x, (1, 10), (0, 8))
    check(u, f, odd, y[:1])


def test_random_shapes(make: Callable[..., Any]) -> None:
    rng = random.Random(7)
    f = make("(x - y) * z + 3")
    for _ in range(60):
        shape = [rng.randint(1, 7) for _ in range(rng.randint(1, 4))]
        columns = []
        for _ in f.params:
            own = [size if rng.random() < 0.7 else 1 for size in shape]
            own = own[rng.randint(0, len(own) - 1) :] if rng.random() < 0.3 else own
            column = numbers(rng, *[size * 2 for size in own])
            column = column[tuple(slice(None, None, rng.choice([1, 2, -1, -2])) for _ in own)]
            columns.append(column[tuple(slice(0, size) for size in own)])
        check(f.ufunc, f, *columns)


@pytest.mark.parametrize("seed", range(10))
def test_generated_programs(make: Callable[..., Any], seed: int) -> None:
    """Each way to the operands, with the rows that do not fail and with one that does."""
    rng = random.Random(seed)
    for _ in range(6):
        source = program(lambda most: rng.randrange(most))
        f = make(source, overflow=rng.choice(["wrap", "raise"]))
        if not f.params:
            continue
        columns = [numbers(rng, 90) >> rng.choice([0, 32, 58]) for _ in f.params]
        results, failed = f.map(*columns, errors="mask")
        good = [column[~failed] for column in columns]
        for step in (slice(None), slice(None, None, -1), slice(None, None, 3)):
            expected = results[~failed][step]
            assert (f.ufunc(*[column[step] for column in good]) == expected).all()
            assert (f.ufunc(*[column[step].copy() for column in good]) == expected).all()
        if len(good[0]):
            ones = [column[:1] for column in good]
            assert (f.ufunc(*ones[:-1], good[-1][:1].repeat(40)) == results[~failed][0]).all()
        if failed.any():
            for step in (1, -1):
                with pytest.raises(exprjit.ExprError):
                    f.ufunc(*[column[::step] for column in columns])


def test_item_types(make: Callable[..., Any]) -> None:
    f = make("x * 2 + y")
    u = f.ufunc
    x = np.arange(100)
    for kind in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "longlong", ">i8", "<i4"):
        check(u, f, x.astype(kind), x)
        check(u, f, x[::-1].astype(kind), 3)
    odd = np.zeros(801, "uint8")[1:].view("int64")
    odd[:] = x
    check(u, f, odd, odd[::-1])
    if is_code(u):
        check(u, f, x > 50, x)
        for wrong in (x * 1.0, x.astype("uint64"), x.astype("M8[s]"), x.astype("m8[s]"), x * 1j):
            for columns in ((wrong, 1), (1, wrong)):
                with pytest.raises(TypeError, match=r"safe|supported"):
                    u(*columns)
        with pytest.raises(TypeError):
            u(np.array([1, None]), 1)
    with pytest.raises(TypeError):
        u(x * 1.5, 1)
    with pytest.raises((TypeError, ValueError)):
        u(x)


def test_out_and_casting(make: Callable[..., Any]) -> None:
    f = make("x * 2")
    u = f.ufunc
    x = np.arange(50)
    if not is_code(u):
        pytest.skip("its results are objects")
    for out in (np.zeros(50, "int64"), np.zeros(100, "int64")[::2], np.zeros(50, "int64")[::-1]):
        assert u(x, out=out) is out
        assert (out == x * 2).all()
        assert u(x, out) is out
    floats = np.zeros(50)
    u(x, out=floats)
    assert (floats == x * 2).all()
    narrow = np.zeros(50, "int8")
    u(x, out=narrow)
    assert (narrow == x * 2).all()
    with pytest.raises(TypeError, match="rule 'safe'"):
        u(x, out=narrow, casting="safe")
    assert (u(x * 1.0, casting="unsafe", dtype="int64") == x * 2).all()
    assert u(x, dtype="int64").dtype == np.int64
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        u(x, out=frozen)
    wide = np.zeros((3, 50), "int64")
    u(x, out=wide)
    assert (wide == x * 2).all()


def test_where(make: Callable[..., Any]) -> None:
    u = make("100 / x").ufunc
    x = np.arange(60) % 7
    out = np.full(60, -1)
    u(x, where=x != 0, out=out, casting="unsafe")
    assert (out == np.where(x != 0, 100 // np.maximum(x, 1), -1)).all()
    with pytest.raises(ZeroDivisionError):
        u(x, where=x != 1, out=out, casting="unsafe")
    table = np.full((6, 10), -1)
    u(x.reshape(6, 10).T, where=(x != 0).reshape(6, 10).T, out=table.T, casting="unsafe")
    assert (table.ravel() == out).all()


def test_results_may_overlap_operands(make: Callable[..., Any]) -> None:
    u = make("x * 2 + y").ufunc
    rng = random.Random(5)
    places = itertools.product((7, 40, 600), (0, 1, 3, 8), (0, 1, 5), (1, -1))
    for length, there, here, step in places:
        memory = numbers(rng, length + 8)
        x, y = memory[there : there + length], memory[here : here + length][::step]
        expected = x * 2 + y
        out = memory[2 : length + 2]
        u(x, y, out=out, casting="unsafe")
        assert (out == expected).all()
    memory = np.arange(30)
    u(memory[:1], memory[:20], out=memory[:20], casting="unsafe")
    assert list(memory[:20]) == list(range(20))
    u(memory[5], memory[:20], out=memory[:20], casting="unsafe")
    assert list(memory[:20]) == list(range(10, 30))


def test_reductions(make: Callable[..., Any]) -> None:
    rng = random.Random(3)
    x = numbers(rng, 12, 30)
    for source, like in [("x + y", np.add), ("x * y", np.multiply), ("max(x, y)", np.maximum)]:
        u = make(source).ufunc
        for axis in (0, 1, -1):
            assert (u.reduce(x, axis=axis) == like.reduce(x, axis=axis)).all()
            assert (u.accumulate(x, axis=axis) == like.accumulate(x, axis=axis)).all()
            starts = [0, 5, 7, 7, 11, 2]
            assert (u.reduceat(x, starts, axis=axis) == like.reduceat(x, starts, axis=axis)).all()
        assert u.reduce(x[0]) == like.reduce(x[0])
        assert u.reduce(x[0, ::-2]) == like.reduce(x[0, ::-2])
        assert u.reduce(x, keepdims=True).shape == (1, 30)
        assert u.reduce(x[0], initial=5) == like.reduce(x[0], initial=5)
        assert (u.outer(x[0], x[1]) == like.outer(x[0], x[1])).all()
        assert u.outer(x, x[1]).shape == (12, 30, 30)
        for counts in (1, 2, 3, 5, 700):
            ones = np.arange(counts)
            assert u.accumulate(ones).tolist() == like.accumulate(ones).tolist()
            assert u.accumulate(ones[::-1]).tolist() == like.accumulate(ones[::-1]).tolist()
    u = make("x + y").ufunc
    with pytest.raises(ValueError, match="zero-size array"):
        u.reduce(x[0, :0])
    with pytest.raises(ValueError, match="binary"):
        make("x + 1").ufunc.reduce(x)


def test_each_row_comes_after_the_one_before(make: Callable[..., Any]) -> None:
    """A formula that is neither associative nor commutative, in reductions of every length."""
    f = make("(x * 31) ^ (y + 7)")
    rng = random.Random(4)
    for length in (1, 2, 9, 17, 64, 513, 1100):
        column = numbers(rng, length)
        running = list(itertools.accumulate(column.tolist(), f))
        assert f.ufunc.accumulate(column).tolist() == running
        assert f.ufunc.reduce(column) == running[-1]
        backwards = list(itertools.accumulate(column.tolist()[::-1], f))
        assert f.ufunc.accumulate(column[::-1]).tolist() == backwards
        inner = f.ufunc.accumulate(np.stack([column, column[::-1]], 1), axis=0)
        assert inner.T.tolist() == [running, backwards]


def test_at(make: Callable[..., Any]) -> None:
    u = make("x * 2 + y").ufunc
    if not is_code(u):
        pytest.skip("its results are objects")
    x = np.arange(10)
    u.at(x, [1, 3, 3, -1], [100, 200, 300, 5])
    assert x.tolist() == [0, 102, 2, (3 * 2 + 200) * 2 + 300, 4, 5, 6, 7, 8, 23]
    make("-x").ufunc.at(x, [0, 1, 1])
    assert x[1] == 102
    with pytest.raises(ZeroDivisionError, match="y = 0"):
        make("x / y").ufunc.at(x, [1, 2], [1, 0])


def test_no_floating_point_errors_are_told(make: Callable[..., Any]) -> None:
    x = np.arange(-99, 100)
    with np.errstate(all="raise"):
        for source in ("y == 0 ? 0 : x / y", "y and x % y", "x // 7 + y %% 9", "isqrt(abs(x))"):
            f = make(source, params=("x", "y"))
            check(f.ufunc, f, x, x[::-1] % 3)
            check(f.ufunc, f, x * (2**56), x)


# Errors. -----------------------------------------------------------------------------------


def test_a_row_that_fails(make: Callable[..., Any]) -> None:
    f = make("x / y")
    u = f.ufunc
    for length, row in itertools.product((1, 8, 100, 1500), (0, 7, 8, 63, 512, 1111, 1499)):
        if row >= length:
            continue
        y = np.arange(length) + 1
        y[row] = 0
        x = np.arange(length) + 1000
        told = rf"division by zero, where x = {row + 1000} and y = 0\n.*\n.*x / y"
        for step in (1, -1):
            with pytest.raises(exprjit.ExprZeroDivisionError, match=told):
                u(x[::step], y[::step])
            with pytest.raises(exprjit.ExprZeroDivisionError, match=told):
                u(np.repeat(x, 2)[::2], y)
        with pytest.raises(exprjit.ExprZeroDivisionError, match="where x = 3 and y = 0"):
            u(3, y)
        with pytest.raises(exprjit.ExprZeroDivisionError, match="where x = 1000 and y = 0"):
            u(x, 0)
    assert u(7, 2) == 3
    with pytest.raises(ZeroDivisionError, match="where x = 7 and y = 0"):
        u(7, 0)


def test_loops_that_are_called_again_after_an_error(make: Callable[..., Any]) -> None:
    """NumPy does so where it copies to buffers, and for each row of a table."""
    f = make("x / y")
    size = 300 if is_code(f.ufunc) else 5
    x = np.arange(size * size, dtype="int32").reshape(size, size)
    y = np.where(x % 7 == 3, 0, 1)
    failing = re.compile(r"where x = (\d+) and y = 0\n")
    for columns in ((x, y), (x.astype("int64"), y), (x[:, ::2], y[:, ::2]), (x.T[:, ::-1], y.T)):
        with pytest.raises(ZeroDivisionError, match=failing) as caught:
            f.ufunc(*columns)
        match = failing.search(str(caught.value))
        assert match is not None
        assert int(match[1]) in columns[0][columns[1] == 0]
    with pytest.raises(ZeroDivisionError, match="x = 3 and"):
        f.ufunc(x, y)


def test_errors_in_reductions(make: Callable[..., Any]) -> None:
    u = make("x / y").ufunc
    x = np.array([1000, 5, 2, 0, 7])
    for reduction in (u.reduce, u.accumulate):
        with pytest.raises(ZeroDivisionError, match="where x = 100 and y = 0"):
            reduction(x)
    overflow = make("x * y", overflow="raise").ufunc
    with pytest.raises(OverflowError, match="10000000000"):
        overflow.reduce(np.full(5, 10**10))
    with pytest.raises(OverflowError):
        overflow.outer(np.full(50, 2**40), np.full(50, 2**40))
    assert overflow.reduce(np.full(3, 10)) == 1000


def test_what_was_computed_before_an_error(make: Callable[..., Any]) -> None:
    u = make("100 / x").ufunc
    if not is_code(u):
        pytest.skip("its results are objects")
    x = np.array([1, 2, 5, 0, 10])
    out = np.full(5, -1)
    with pytest.raises(ZeroDivisionError):
        u(x, out=out)
    assert out.tolist()[:3] == [100, 50, 20]


@needs_code
def test_an_interrupt_in_the_interpreter() -> None:
    """Whatever comes out of it is the outcome."""

    class Stop(BaseException):
        pass

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_name == "interpret":
            sys.settrace(None)
            raise Stop

    f = exprjit.compile("1 / x + 424242")
    x = np.zeros(1000, "int64")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            f(x)
        f(x + 1)
    before = sys.gettrace()
    for call in (f.ufunc, f):
        sys.settrace(trace)
        try:
            with pytest.raises(Stop):
                call(x)
        finally:
            sys.settrace(before)
    assert f(x + 1)[0] == 424243


@needs_code
def test_an_interpreter_that_answers() -> None:
    """It never should, but an answer is an answer."""
    f = exprjit.compile("x / y")
    f.ufunc  # noqa: B018
    plan = compiled(f)
    answers: list[tuple[int, ...]] = []

    def interpret(*values: int) -> Any:
        answers.append(values)
        return answer

    u = ufunc.compiled_ufunc("f", "", 2, plan, interpret, lambda: (int, ()))
    x = np.arange(2000) + 5
    y = np.where(np.arange(2000) % 100 == 77, 0, 2)
    answer: Any = -4
    expected = np.where(y == 0, -4, x // 2)
    for left, right in ((x, y), (x[::-1], y[::-1])):
        answers.clear()
        assert (u(left, right) == np.where(right == 0, -4, left // 2)).all()
        assert answers == [(value, 0) for value in left[right == 0]]
    answers.clear()
    assert (u(8, y) == np.where(y == 0, -4, 4)).all()
    assert len(answers) == 20
    assert (u(x[:600], 0) == -4).all()
    out = np.zeros(4000, "int64")[::2]
    assert (u(x, y, out=out) == expected).all()
    assert u(1, 0) == -4
    for wrong, kind in (("text", TypeError), (2**64, OverflowError), (None, TypeError)):
        answer = wrong
        with pytest.raises(kind):
            u(x, y)


def compiled(f: Any) -> ufunc.Kernels:
    """The kernels of its ufunc."""
    from exprjit import ufuncs

    return ufuncs._kernels(f._body)


# C functions. ------------------------------------------------------------------------------


def libc(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
    found = ctypes.CDLL(None)[name]
    found.argtypes, found.restype = list(arguments), result
    return found


def test_c_functions_are_called_once_for_each_row_in_order(make: Callable[..., Any]) -> None:
    rand, srand = libc("rand"), libc("srand", ctypes.c_uint)
    f = make("rand() % 1000 + 1000 * x", externs={"rand": rand})
    g = make("rand() % 1000 + rand() % 10 / x", externs={"rand": rand})
    for length in (1, 3, 700, 5000):
        for x in (np.arange(length), np.arange(3 * length)[::-3]):
            srand(length)
            expected = [rand() % 1000 + 1000 * value for value in x.tolist()]
            after = rand()
            srand(length)
            assert f.ufunc(x).tolist() == expected
            assert rand() == after
    x = np.ones(2000, "int64")
    x[700] = 0
    srand(1)
    for _ in range(2 * 701):
        rand()
    after = rand()
    srand(1)
    with pytest.raises(ZeroDivisionError, match="and x = 0"):
        g.ufunc(x)
    assert rand() == after


def test_c_functions_have_the_lock(make: Callable[..., Any]) -> None:
    if not HAVE_LOCK:
        pytest.skip("there is none")
    held = libc("PyGILState_Check")
    f = make("held() * x", externs={"held": held})
    for x in (np.arange(10), np.arange(100_000), np.arange(100_000)[::2]):
        assert (
            f.ufunc(x if f.engine == "jit" else x[:9]) == (x if f.engine == "jit" else x[:9])
        ).all()


@needs_code
def test_many_c_functions_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their results are written down in the frame, which may be large, or too large."""
    monkeypatch.setattr(ufunc_loop, "_ROOM", 8192)
    labs = libc("labs", ctypes.c_long, result=ctypes.c_long)
    for count in (1, 500, 1000, 1100):
        text = " + ".join(f"labs(x - {number})" for number in range(count)) + " + 1 / y"
        f = exprjit.compile(text, externs={"labs": labs}, params=("x", "y"))
        u = f.ufunc
        assert is_code(u) == (count < 1100)
        expected = [sum(abs(x - number) for number in range(count)) + 1 for x in (3, -9)]
        assert u([3, -9], 1).tolist() == expected
        with pytest.raises(ZeroDivisionError, match="y = 0"):
            u([3, -9], 0)


# Threads. ----------------------------------------------------------------------------------


@needs_code
def test_other_threads_run_meanwhile() -> None:
    u = exprjit.compile("gcd(x, 982451653) + gcd(x, 961748941) + isqrt(x)").ufunc
    x = np.arange(1_500_000)
    turns = []

    def count() -> None:
        while not done.is_set():
            turns.append(time.perf_counter())
            time.sleep(0.001)

    done = threading.Event()
    other = threading.Thread(target=count)
    other.start()
    begin = time.perf_counter()
    u(x)
    end = time.perf_counter()
    done.set()
    other.join()
    assert sum(begin < turn < end for turn in turns) >= 5


def test_many_threads_call_one_ufunc(make: Callable[..., Any]) -> None:
    f = make("x / y + 5")
    u = f.ufunc
    size = 20_000 if is_code(u) else 50
    wrong: list[object] = []

    def run(seed: int) -> None:
        rng = random.Random(seed)
        x = np.arange(size) * seed
        for _ in range(30):
            y = np.full(size, rng.randint(1, 9))
            if (u(x, y) != x // y + 5).any() or (f(x, y) != x // y + 5).any():
                wrong.append("value")
            row = rng.randrange(size)
            y[row] = 0
            try:
                u(x, y)
                wrong.append("no error")
            except ZeroDivisionError as error:
                if f"x = {row * seed} and y = 0" not in str(error):
                    wrong.append(str(error))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Life. -------------------------------------------------------------------------------------


@needs_code
@policies
def test_code_lives_as_long_as_the_ufunc(child: Child, policy: str) -> None:
    out = child(
        """
        import ctypes, functools, gc
        import numpy as np
        import exprjit
        from exprjit.runtime import memory

        def used():
            exprjit.cache_clear()
            gc.collect()
            memory.collect()
            return memory.statistics().used

        def churn():
            used()
            for number in range(100):
                assert exprjit.compile(f"x * y - {number}")(6, 7) == 42 - number
            used()

        def fails(u):
            try:
                u(np.arange(9), 0)
            except ZeroDivisionError as error:
                return "y = 0" in str(error)

        def works(u):
            x = np.arange(700)
            for left, right in ((x, 3), (x[::-2], 3), (3, x + 1), (x, x + 1)):
                assert (u(left, right) == left // right).all()
            return fails(u)

        f = exprjit.compile("x / y")
        for _ in range(3):
            f(np.arange(9), 3)
        assert works(f.ufunc) and works(f)
        del f
        base = used()

        # The ufunc outlives the function.
        f = exprjit.compile("x / y + 0")
        u = f.ufunc
        assert f.ufunc is u
        del f
        churn()
        assert works(u) and used() > base
        partial = functools.partial(u, np.arange(9))
        del u
        churn()
        assert list(partial(2)) == [0, 0, 1, 1, 2, 2, 3, 3, 4] and used() > base
        del partial
        assert used() == base

        # The function outlives it, and makes no other.
        f = exprjit.compile("x / y + 0")
        address = id(f.ufunc)
        churn()
        assert id(f.ufunc) == address and works(f.ufunc)
        del f
        assert used() == base

        # Of calls with arrays as well.
        f = exprjit.compile("x / y + 0")
        for _ in range(4):
            assert works(f)
        assert f.arrays is f.ufunc
        churn()
        assert works(f)
        del f
        assert used() == base

        # Cycles through the ufunc are found.
        labs = ctypes.CDLL(None)["labs"]
        labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long
        f = exprjit.compile("labs(x) / y", externs={"labs": labs})
        labs.u, labs.f = f.ufunc, f
        assert works(labs.u)
        del f, labs
        assert used() == base

        # Many of them take no more and no more.
        for number in range(300):
            u = exprjit.compile(f"x / y + {number}").ufunc
            assert u(7, 2) == 3 + number
        del u
        assert used() == base
        print("done")
        """,
        timeout=180,
        EXPRJIT_MEMORY=policy,
    )
    assert out == "done\n"


@needs_code
@pytest.mark.parametrize("has_dict", [True, False])
def test_where_numpy_is_not_as_expected(monkeypatch: pytest.MonkeyPatch, has_dict: bool) -> None:
    """Then the ufunc's own dict has the owner, or both live for ever."""

    class Layout(ctypes.Structure):
        _fields_ = [("obj", ctypes.c_void_p)]

    monkeypatch.setattr(ufunc, "_layout", lambda: Layout)
    f = exprjit.compile(f"x * 5 + {int(has_dict)}")
    if has_dict:
        made = f.ufunc
        if not hasattr(made, "__dict__"):
            pytest.skip("ufuncs have no dict before NumPy 2.2")
        assert len(ufunc._for_ever) == 0
    else:
        monkeypatch.setattr(ufunc, "_for_ever", kept := [])
        monkeypatch.setattr(ufunc, "_dict_of", lambda made: None)
        made = f.ufunc
        assert kept[0][0] is made
        kept.clear()
    del f
    exprjit.cache_clear()
    gc.collect()
    memory.collect()
    if has_dict:
        assert made(np.arange(5)).tolist() == [1, 6, 11, 16, 21]


def test_a_dead_ufunc_is_forgotten() -> None:
    gc.collect()
    before = len(ufunc._owners)
    f = exprjit.compile("x + 54321")
    alive = weakref.ref(ufunc._owners.get(id(f.ufunc)) or f)
    assert len(ufunc._owners) == before + 1
    del f
    exprjit.cache_clear()
    gc.collect()
    assert alive() is None
    assert len(ufunc._owners) == before


# Travels. ----------------------------------------------------------------------------------


def test_pickled_by_source(make: Callable[..., Any]) -> None:
    f = make("x * k - y", constants={"k": 3}, overflow="raise", name="g")
    u = f.ufunc
    if make is exprjit.compile:
        assert pickle.loads(pickle.dumps(u)) is u
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps({"u": [u, u]}, protocol)
        exprjit.cache_clear()
        again = pickle.loads(data)["u"]
        assert again[0] is again[1]
        assert again[0](np.arange(5), 1).tolist() == [-1, 2, 5, 8, 11]
        with pytest.raises(OverflowError):
            again[0](2**62, 1)
        assert is_code(again[0]) == is_code(u)
    assert copy.deepcopy([u])[0](5, 1) == 14


def test_other_ufuncs_are_pickled_as_before() -> None:
    exprjit.compile("x + 1").ufunc  # noqa: B018
    assert pickle.loads(pickle.dumps(np.add)) is np.add
    assert copy.copy(np.multiply) is np.multiply
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(np.frompyfunc(len, 1, 1))


def test_no_pickle_with_c_functions(make: Callable[..., Any]) -> None:
    labs = libc("labs", ctypes.c_long, result=ctypes.c_long)
    u = make("labs(x)", externs={"labs": labs}).ufunc
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(u)


def test_cloudpickle() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    u = exprjit.compile("x + 1").ufunc
    data = cloudpickle.dumps(lambda x: u(x) * 2)
    assert pickle.loads(data)(np.arange(3)).tolist() == [2, 4, 6]


def test_in_another_process() -> None:
    u = exprjit.compile("x / y", name="ratio").ufunc
    program = (
        "import pickle, sys\n"
        "u = pickle.load(sys.stdin.buffer)\n"
        "import numpy as np\n"
        "print(type(u) is np.ufunc, u.__name__, u(np.arange(6), 2).tolist())\n"
        "sys.stdout.flush(); sys.stdout.buffer.write(pickle.dumps(u))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(u),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    text, _, data = done.stdout.partition(b"\n")
    assert text.startswith(b"True ratio")
    assert text.endswith(b"[0, 0, 1, 1, 2, 2]")
    assert pickle.loads(data) is u


def test_worker_processes(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "work.py"
    path.write_text(
        "import multiprocessing, sys\n"
        "import numpy as np\n"
        "import exprjit\n"
        "if __name__ == '__main__':\n"
        "    u = exprjit.compile('x * 2 + 1').ufunc\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        print([part.tolist() for part in pool.map(u, [np.arange(3), np.arange(2)])])\n"
    )
    out = child(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", timeout=120)
    assert out == "[[1, 3, 5], [1, 3]]\n"


# Other libraries. --------------------------------------------------------------------------


def test_pandas(make: Callable[..., Any]) -> None:
    pd = pytest.importorskip("pandas")
    u = make("x * 2 + y").ufunc
    series = pd.Series([1, 2, 3], index=list("abc"), name="n")
    result = u(series, 5)
    assert type(result) is pd.Series
    assert (list(result.index), list(result), result.name) == (["a", "b", "c"], [7, 9, 11], "n")
    other = pd.Series([10, 20, 30], index=list("cab"))
    aligned = u(series, other)
    assert dict(aligned) == {"a": 22, "b": 34, "c": 16}
    frame = pd.DataFrame({"p": [1, 2], "q": [3, 4]})
    assert u(frame, 1).to_dict("list") == {"p": [3, 5], "q": [7, 9]}
    with pytest.raises(ZeroDivisionError, match="x = 0"):
        make("1 / x").ufunc(series - 2)


@needs_code
def test_polars() -> None:
    pl = pytest.importorskip("polars")
    u = exprjit.compile("x * 2").ufunc
    assert u(pl.Series("v", [1, 2, 3])).to_list() == [2, 4, 6]
    frame = pl.DataFrame({"a": [1, 2, 3]})
    assert frame.select(u(pl.col("a")))["a"].to_list() == [2, 4, 6]


def test_dask() -> None:
    da = pytest.importorskip("dask.array")
    u = exprjit.compile("x * 2 + y").ufunc
    x = da.arange(10, chunks=3)
    assert u(x, x).compute().tolist() == (np.arange(10) * 3).tolist()


def test_xarray() -> None:
    xarray = pytest.importorskip("xarray")
    u = exprjit.compile("x * 2").ufunc
    array = xarray.DataArray(np.arange(3), dims="t", coords={"t": [5, 6, 7]})
    assert u(array).coords["t"].values.tolist() == [5, 6, 7]
    assert u(array).values.tolist() == [0, 2, 4]


# f(array). ---------------------------------------------------------------------------------


def swift(f: Any) -> Any:
    """The function, when it answers arrays by itself."""
    columns = [np.arange(1, 5)] * len(f.params)
    f(*columns)
    assert getattr(f, "arrays", None) is None
    f(*columns)
    assert f.arrays is f.ufunc
    return f


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was not answered by the ufunc."""
    calls = []
    answer = Body.map

    def noted(body: Any, columns: Any) -> Any:
        calls.append("map")
        return answer(body, columns)

    monkeypatch.setattr(Body, "map", noted)
    return calls


@pytest.fixture(params=SOME)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EXPRJIT_CPU", request.param)
    return str(request.param)


@needs_native
def test_calls_with_arrays_are_those_of_the_ufunc(level: str, slow_calls: list[str]) -> None:
    f = swift(exprjit.compile("x * 3 - y"))
    slow_calls.clear()
    x, y = np.arange(60), np.arange(60)[::-1]
    for columns in ((x, y), (x, 5), (5, y), (x[::2], y[::2]), (x.reshape(6, 10), y[:10]),
                    (x.astype("int8"), y > 3), (x[:0], y[:0]), (x[:1], y), (x, np.array(4)),
                    (x.astype(">i8"), y)):  # fmt: skip
        result = f(*columns)
        assert type(result) is np.ndarray
        assert result.dtype == np.int64
        assert (result == wanted(f, *columns)).all()
    assert slow_calls == []
    # What it has no answer for, or an answer of another kind.
    assert type(f(np.array(4), 3)) is int
    assert type(f(np.array(4), np.array(3))) is int
    assert f(np.array(4), np.array(3)) == 9
    assert slow_calls == []
    assert f(x=x, y=1).tolist() == (x * 3 - 1).tolist()
    assert f(x, np.int64(1)).tolist() == (x * 3 - 1).tolist()
    assert f(x, True).tolist() == (x * 3 - 1).tolist()
    assert type(f(np.ma.array(x), 1)) is np.ndarray
    assert slow_calls == ["map"] * 4


@needs_native
def test_the_order_of_results_is_that_of_c(slow_calls: list[str]) -> None:
    """Whatever the order of the operands is, and however often that was called."""
    f, g = (swift(exprjit.compile(text)) for text in ("x * 3 - 5", "x - y"))
    x = np.arange(24).reshape(2, 3, 4)
    for array, slow in (
        (x, False), (x[:, ::2], False), (x[..., :2], False), (x[:, :1], False), (x[0, 0], False),
        (x.T, True), (np.asfortranarray(x), True), (x[::-1], True), (x.transpose(0, 2, 1), True),
        (x[0, 0, ::-1], False), (np.broadcast_to(x[0], (5, 3, 4)), True), (x[:, :0], False),
    ):  # fmt: skip
        slow_calls.clear()
        for result in (f(array), f.map(array), g(array, 7), g(array, array)):
            assert result.flags.c_contiguous
        assert f(array).tolist() == (array * 3 - 5).tolist()
        assert not g(array, array).any()
        assert bool(slow_calls) == slow, array.strides


@needs_native
def test_great_arrays_are_for_threads(slow_calls: list[str]) -> None:
    assert stubs.MOST_ITEMS == PIECE
    f = swift(exprjit.compile("x + y + 31"))
    for shape, slow in (
        ((PIECE,), False), ((PIECE + 1,), True), ((2, PIECE // 2), False),
        ((2, PIECE // 2 + 1), True), ((PIECE // 2 + 1, 2), True), ((1, 1, PIECE + 1), True),
    ):  # fmt: skip
        x = np.ones(shape, "int64")
        for columns in ((x, 3), (3, x), (x, np.array(3)), (x, x * 3)):
            slow_calls.clear()
            result = f(*columns)
            assert bool(slow_calls) == slow
            assert result.shape == shape
            assert (result == 35).all()


WRONG = [
    lambda x: (x * 1.0, 1), lambda x: (1, x * 1.5), lambda x: (x, 1.5), lambda x: (x, "1"),
    lambda x: (x.astype("uint64"), 1), lambda x: (x, x.astype("M8[s]")), lambda x: (x, [1, 2, 3]),
    lambda x: (x, None), lambda x: (x, np.arange(4)), lambda x: (x, np.array([1, None, 2])),
    lambda x: (x, 2**63), lambda x: (2**64, x), lambda x: (x, -(2**63) - 1), lambda x: (x, x - 1),
    lambda x: (x[1], x), lambda x: (x[::-1], x[::-1] - 2), lambda x: (x,), lambda x: (x, x, x),
    lambda x: (x, 0), lambda x: (x, (1,)), lambda x: (x, np.zeros(2)), lambda x: (x * 1j, 1),
    lambda x: (np.array(["a"]), 1), lambda x: (x, np.array(1.5)), lambda x: (x, {}),
    lambda x: (x, np.array([2], "uint64")), lambda x: (x, b"123"), lambda x: (x, 10**400),
]  # fmt: skip


@needs_native
def test_errors_are_those_of_map(level: str) -> None:
    f = swift(exprjit.compile("x / y"))
    g = exprjit.compile("x / y", verify=True)
    for wrong in WRONG:
        columns = wrong(np.arange(3) + 1)
        outcomes = []
        for call in (f, g, f):
            try:
                outcomes.append(call(*columns).tolist())
            except Exception as error:
                told = type(error), str(error), getattr(error, "row", None)
                outcomes.append((*told, type(error.__context__)))
        assert outcomes[0] == outcomes[1] == outcomes[2]
    with pytest.raises(ZeroDivisionError, match="where x = 3 and y = 0, in row 3") as caught:
        f(np.arange(9), np.arange(9) - 3)
    assert caught.value.row == 3


@needs_native
def test_calls_with_arrays_equal_map(level: str) -> None:
    rng = random.Random(level)
    kinds = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool", ">i4", ">i8"]
    for source in ("x * y - 3", "(x ^ y) + (x >> 3)", "y == 0 ? x : x // y"):
        f = swift(exprjit.compile(source))
        for _ in range(80):
            shape = [rng.randint(1, 6) for _ in range(rng.randint(1, 3))]
            columns: list[Any] = []
            for _ in f.params:
                own = [size if rng.random() < 0.7 else 1 for size in shape]
                column = numbers(rng, *[2 * size for size in own]).astype(rng.choice(kinds))
                column = column[tuple(slice(None, None, rng.choice([1, 2, -1])) for _ in own)]
                columns.append(column[tuple(slice(0, size) for size in own)])
            if rng.random() < 0.3:
                columns[rng.randrange(2)] = rng.choice([0, 1, -1, MIN, MAX, 12345])
            result, mapped = f(*columns), f.map(*columns)
            assert (result.dtype, result.shape) == (mapped.dtype, mapped.shape)
            assert (result == mapped).all()


@needs_native
def test_who_does_not_answer_arrays_by_himself() -> None:
    labs = libc("labs", ctypes.c_long, result=ctypes.c_long)
    many = " + ".join(f"x{number}" for number in range(ufunc.most_parameters() + 1))
    for f in (
        exprjit.compile("x + 6", lazy=True), exprjit.compile("x + 6", verify=True),
        exprjit.compile("x + 6", backend="interpreter"), exprjit.compile(many),
        exprjit.compile("labs(x)", externs={"labs": labs}),
    ):  # fmt: skip
        columns = [np.arange(5)] * len(f.params)
        for _ in range(4):
            assert len(f(*columns)) == 5
        assert getattr(f, "arrays", None) is None


@needs_native
def test_one_call_with_arrays_compiles_one_kernel() -> None:
    f = exprjit.compile("x + 987")
    f(np.arange(5))
    assert f._body.ufunc is None
    assert f(3) == 990
    assert f.arrays is None


@needs_native
def test_references(level: str) -> None:
    f = swift(exprjit.compile("x / y"))
    x, y, zero = np.arange(5) + 70_000, np.arange(5) + 1, np.zeros((), "int64")
    calls = [(x, y), (x, 3), (x, zero), (zero, y), (x, 2.5), (zero, zero), (zero + 1, zero + 1)]
    for call in calls:
        watched = [*call, f, f.ufunc, np.ndarray]
        for measured in (False, True):
            before = list(map(sys.getrefcount, watched))
            for _ in range(50):
                with suppress(ZeroDivisionError, TypeError):
                    f(*call)
            if measured:
                assert list(map(sys.getrefcount, watched)) == before
    result, like = f(x, y), np.zeros(5, "int64")
    assert sys.getrefcount(result) == sys.getrefcount(like)


@needs_native
def test_the_field_that_comes_later() -> None:
    native = function.native_type()
    assert not isinstance(native, str)
    assert native.later == ("arrays",)
    assert native.offset("arrays") == stubs.ARRAYS
    with pytest.raises(TypeError, match="2 fields, but 3 values"):
        native.new(1, None, None, None)
    f = exprjit.compile("x + 13")
    assert f.arrays is None
    with pytest.raises(AttributeError):
        f.arrays = f.ufunc
    assert f.ufunc not in gc.get_referents(f)
    f(np.arange(3))
    assert f.arrays is f.ufunc
    assert f.ufunc in gc.get_referents(f)


@needs_native
def test_the_way_of_python_3_10(level: str) -> None:
    """Without PyObject_Vectorcall the stub makes a tuple."""
    symbols = {n: a for n, a in stubs.symbols().items() if n != "PyObject_Vectorcall"}
    code, at = stubs.assemble(symbols)
    owner = memory.install(code)
    addresses = {name: owner.address + offset for name, offset in at._asdict().items()}
    f = exprjit.compile("x / y + 3")
    f.ufunc  # noqa: B018
    features = compiler.settings().features
    targets = compiler.targets()._replace(**addresses)
    made = python_call(compiler.to_graph(f.formula, features), features, targets)
    installed = compiler.installed(made)
    native = function.native_type()
    assert not isinstance(native, str)
    body = f._body
    g = native.new(installed.address, body, f.formula.interpret)
    x = np.arange(10)
    assert g(7, 2) == 6
    assert g(x, 1).tolist() == (x + 3).tolist()
    native.set_field(g, "arrays", f.ufunc)
    counts = [sys.getrefcount(value) for value in (x, g, f.ufunc)]
    for _ in range(30):
        assert g(x, 1).tolist() == (x + 3).tolist()
        assert g(7, np.array(2)) == 6
        with pytest.raises(ZeroDivisionError, match="in row 0"):
            g(x, 0)
        with pytest.raises(TypeError, match="not float"):
            g(x, 1.5)
    assert [sys.getrefcount(value) for value in (x, g, f.ufunc)] == counts
    del g


@needs_native
def test_numpy_comes_later(child: Child) -> None:
    """Functions that are older than NumPy's import; and none imports it by itself."""
    out = child(
        """
        import sys
        import exprjit
        f = exprjit.compile("x + 4")
        assert f(2) == 6
        try:
            f("text")
        except TypeError:
            pass
        assert "numpy" not in sys.modules
        import numpy as np
        for _ in range(5):
            assert f(np.arange(3)).tolist() == [4, 5, 6]
        assert f.arrays is f.ufunc
        print("done")
        """
    )
    assert out == "done\n"


def test_without_numpy(child: Child) -> None:
    out = child(
        """
        import sys
        sys.modules["numpy"] = None
        import exprjit
        f = exprjit.compile("x + 4")
        try:
            f.ufunc
        except ModuleNotFoundError as error:
            print(error.name)
        """
    )
    assert out == "numpy\n"


@needs_native
def test_the_end_of_the_interpreter(child: Child) -> None:
    """Functions and ufuncs are alive, and called, when modules are gone."""
    out = child(
        """
        import sys, threading
        import numpy as np
        import exprjit

        class Last:
            def __init__(self, f, u, x):
                self.f, self.u, self.x = f, u, x
            def __del__(self, write=sys.stdout.write):
                try:
                    self.u(self.x, 0)
                except ZeroDivisionError:
                    write("failed ")
                write(f"{self.f(self.x, 1)[2]} {self.u(self.x, 1)[2]}\\n")

        f = exprjit.compile("x / y")
        x = np.arange(5)
        for _ in range(3):
            f(x, 1)
        sys.last = Last(f, f.ufunc, x)
        def forever():
            while True:
                f(x, 1)
        threading.Thread(target=forever, daemon=True).start()
        print("main")
        """
    )
    assert out.splitlines()[0] == "main"
    assert set(out.splitlines()[1:]) <= {"failed 2 2"}


# The loop. ---------------------------------------------------------------------------------


def test_the_frame_of_the_loop() -> None:
    words = ufunc_loop.data_words(16, 32, 3, 5, 0, True)
    assert words[:3] == [16, 32, 3]
    assert words[3] % 16 == 0
    assert words[4] == 8 * ufunc_loop.state_words(3, 5)
    assert words[3] >= words[4] + 8 * 4
    with pytest.raises(ufunc_loop.FrameTooLarge):
        ufunc_loop.data_words(16, 32, 3, 1 << 14, 0, True)


@needs_code
def test_a_small_stack() -> None:
    """Frames of several pages, in threads that have few."""
    labs = libc("labs", ctypes.c_long, result=ctypes.c_long)
    text = " + ".join(f"labs(x - {number})" for number in range(900)) + " + y + z + w + 1 / x"
    u = exprjit.compile(text, externs={"labs": labs}).ufunc
    expected = sum(abs(3 - number) for number in range(900)) + 3
    results: list[object] = []

    def run() -> None:
        results.append(u(np.full(700, 3), 1, 1, 1)[-1])

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert results == [expected]

"""Runs over arrays: threads and interrupts, what is kept meanwhile, and what is refused."""

from __future__ import annotations

import ctypes
import threading
from array import array
from typing import Any

import pytest
from children import Child

import exprjit
from exprjit.runtime import sweep
from exprjit.runtime.sweep import PIECE

np = pytest.importorskip("numpy")

BACKENDS = ["auto", "interpreter"]


# Threads. ------------------------------------------------------------------------------------


def test_a_second_interrupt_leaves_no_thread_at_work(child: Child) -> None:
    answer = child(
        """
        import os, signal, threading, time
        import numpy as np
        import exprjit

        # What a shell starts in the background ignores it, and so do its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        f = exprjit.compile("x * 3 + 1", backend="interpreter")
        out = np.zeros(1 << 20, "int64")
        for delay in (0.5, 0.7, 0.9):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        interrupts = 0
        try:
            try:
                f.map(np.arange(1 << 20), out=out, threads=2)
            finally:
                before = out.copy()
        except KeyboardInterrupt:
            interrupts += 1
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            interrupts += 1
            time.sleep(0.5)
        others = [thread.name for thread in threading.enumerate() if thread.name == "exprjit"]
        print(interrupts > 0, others, (out == before).all())
        """
    )
    assert answer.split("\n")[0] == "True [] True"


def test_no_more_threads_than_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Noted(sweep._Other):
        def start(self) -> None:
            begun.append(self)
            super().start()

    monkeypatch.setattr(sweep, "_Other", Noted)
    x = np.arange(3 * PIECE)
    assert exprjit.compile("x").sum(x, threads=10**6) == x.sum()
    assert len(begun) == 2


def test_where_no_thread_can_be_had_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(sweep._Other):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sweep, "_Other", Refused)
    x = np.arange(3 * PIECE)
    assert exprjit.compile("x").sum(x, threads=3) == x.sum()


def test_at_the_end_of_the_process(child: Child) -> None:
    answer = child(
        f"""
        import atexit
        import numpy as np
        import exprjit

        f, x = exprjit.compile("x"), np.arange({3 * PIECE})
        atexit.register(lambda: print(f.sum(x, threads=3) == x.sum()))
        """
    )
    assert answer == "True\n"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_indices_by_several_threads(threads: int) -> None:
    x = np.random.default_rng(threads).integers(0, 100, 5 * PIECE + 77)
    for text, wanted in (("x < 7", x < 7), ("x >= 0", x >= 0), ("x > 100", x > 100)):
        found = exprjit.compile(text).indices(x, threads=threads)
        assert (found == np.flatnonzero(wanted)).all()
    found, failed = exprjit.compile("10 / (x - 5) > 0").indices(x, threads=threads, errors="mask")
    assert (failed == (x == 5)).all()
    assert (found == np.flatnonzero((x > 5) & (x <= 15))).all()


@pytest.mark.parametrize("kernel", ["count", "sum", "min", "max", "argmin", "argmax", "first"])
@pytest.mark.parametrize("text", ["x + 5", "-x - 5", "x - 500000", "x == 700000", "0", "x * 0 + 3"])
def test_threads_find_together_what_one_does(kernel: str, text: str) -> None:
    f = exprjit.compile(text, ["x"])
    x = np.arange(4 * PIECE + 77)
    alone = getattr(f, kernel)(x, threads=1)
    for threads in (2, 3, 5):
        assert getattr(f, kernel)(x, threads=threads) == alone
    values = f.map(x)
    wanted = {
        "count": np.count_nonzero(values), "sum": values.sum(), "min": values.min(),
        "max": values.max(), "argmin": values.argmin(), "argmax": values.argmax(),
        "first": next(iter(np.flatnonzero(values)), None),
    }  # fmt: skip
    assert alone == wanted[kernel]


# What is kept. -------------------------------------------------------------------------------


def test_an_error_does_not_keep_buffers_from_being_resized() -> None:
    f = exprjit.compile("10 / x")
    columns: list[Any] = [array("q", [1, 0]), bytearray(b"\1\0")]
    kept = []
    for column in columns:
        with pytest.raises(ZeroDivisionError) as caught:
            f.map(column)
        kept.append(caught.value)
        column.append(5)
    assert [error.row for error in kept] == [1, 1]


# C functions. --------------------------------------------------------------------------------


@pytest.fixture
def numbers() -> list[int]:
    return []


def extern(calls: list[int], results: dict[int, list[int]]) -> Any:
    """A C function that notes what it is called with, and gives one result after another."""

    @ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)
    def g(x: int) -> int:
        calls.append(x)
        return results[x].pop(0) if x in results else x

    return g


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_fails_calls_no_c_function_again(backend: str, numbers: list[int]) -> None:
    g = extern(numbers, {3: [0, 7]})
    f = exprjit.compile("10 / g(x) + g(y)", externs={"g": g}, backend=backend)
    with pytest.raises(ZeroDivisionError, match="in row 1"):
        f.map(np.array([2, 3, 4]), np.array([20, 30, 40]))
    assert numbers == [2, 20, 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nor_does_a_filter(backend: str, numbers: list[int]) -> None:
    g = extern(numbers, {30: [5, 0], 31: [0, 5]})
    f = exprjit.compile("10 / g(x)", externs={"g": g}, backend=backend)
    with pytest.raises(ZeroDivisionError, match="in row 2"):
        f.map(np.array([2, 3, 31]), np.array([0, 1, 30]), where="g(w)")
    assert numbers == [0, 1, 3, 30, 31]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", ["min", "max", "argmin", "argmax"])
def test_each_row_calls_once_also_where_the_best_is_the_extreme(
    backend: str, kernel: str, numbers: list[int]
) -> None:
    extreme = 2**63 - 1 if kernel.endswith("min") else -(2**63)
    g = extern(numbers, {0: [extreme, 0], 1: [extreme, 0], 2: [extreme, 0]})
    f = exprjit.compile("g(x)", externs={"g": g}, backend=backend)
    best = getattr(f, kernel)(np.arange(3), where=np.array([False, True, True]))
    assert best == (1 if kernel.startswith("arg") else extreme)
    assert numbers == [1, 2]
    numbers.clear()
    _, failed = exprjit.compile(
        "1 / (x & 1) + g(x)", externs={"g": extern(numbers, {1: [extreme], 3: [extreme]})},
        backend=backend,
    ).argmin(np.arange(4), errors="mask")  # fmt: skip
    assert (numbers, failed.tolist()) == ([1, 3], [True, False, True, False])


@pytest.mark.parametrize("backend", BACKENDS)
def test_c_functions_are_called_by_one_thread_in_order(backend: str) -> None:
    callers, calls = set(), []

    @ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)
    def g(x: int) -> int:
        callers.add(threading.get_ident())
        calls.append(x)
        return x

    rows = np.arange(PIECE + 10)
    f = exprjit.compile("g(x)", externs={"g": g}, backend=backend)
    assert f.sum(rows, threads=2) == rows.sum()
    assert callers == {threading.get_ident()}
    assert calls == rows.tolist()


# Refusals. -----------------------------------------------------------------------------------


def test_masked_items_are_not_taken_for_items() -> None:
    f = exprjit.compile("x + 1")
    whole = np.ma.array([1, 2, 3])
    some = np.ma.array([1, 2, 3], mask=[False, True, False])
    assert f.map(whole).tolist() == [2, 3, 4]
    for call in (lambda: f.map(some), lambda: f.sum(some), lambda: f.map(whole, out=some)):
        with pytest.raises(exprjit.ExprTypeError, match="has masked items"):
            call()
    with pytest.raises(exprjit.ExprTypeError, match="'where' has masked items"):
        f.map(whole, where=np.ma.array([True] * 3, mask=[True, False, False]))


@pytest.mark.skipif(np.__version__.startswith("1."), reason="NumPy 1 has no such arrays")
def test_more_dimensions_than_can_be_walked() -> None:
    f = exprjit.compile("x + 1")
    deep = np.zeros((1,) * 40 + (2,), "int64")
    assert f.map(deep).shape == deep.shape
    with pytest.raises(exprjit.ExprValueError, match="must lie in memory as C has them"):
        f.map(deep[..., ::-1])


def test_shapes_that_are_too_large_together() -> None:
    row = np.broadcast_to(np.int64(1), (1, 1 << 40))
    column = np.broadcast_to(np.int64(1), (1 << 40, 1))
    with pytest.raises(exprjit.ExprValueError, match="too large together"):
        exprjit.compile("x + y").map(row, column)


def test_results_of_other_formats() -> None:
    f = exprjit.compile("10 / x")
    out = (ctypes.c_int64 * 3)()
    assert memoryview(out).format == "<q"
    result, failed = f.map(array("q", [5, 0, 2]), out=memoryview(out), errors="mask")
    assert (list(out), list(failed)) == ([2, 0, 5], [0, 1, 0])
    assert result.obj is out


def test_filters_that_are_no_arrays() -> None:
    f = exprjit.compile("x")
    x = np.arange(4)
    assert f.count(x, where=(x > 9).any()) == 0
    assert f.count(x, where=np.True_) == f.count(x, where=True) == 3
    with pytest.raises(exprjit.ExprTypeError, match=r"where must be a formula, .* not list"):
        f.count(x, where=[True, False, True, True])


@pytest.mark.parametrize("dtype", ["int32", "i4", np.int32, np.dtype("int32"), "<i4"])
def test_types_of_results(dtype: Any) -> None:
    assert exprjit.compile("x").map(np.arange(3), dtype=dtype).dtype == np.int32


def test_the_type_of_longs() -> None:
    assert exprjit.compile("x").map(np.arange(3), dtype=int).dtype == np.int64


@pytest.mark.parametrize("dtype", [">i4", "float64", "uint64", bool, "int33", object(), 7])
def test_types_that_results_cannot_have(dtype: Any) -> None:
    with pytest.raises(exprjit.ExprTypeError, match="dtype must be one of int8, "):
        exprjit.compile("x").map(np.arange(3), dtype=dtype)


def test_a_table_beside_other_columns() -> None:
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    f = exprjit.compile("x + y")
    for table in (pa.table({"x": [1, 2]}), pd.DataFrame({"x": [1, 2]}), {"x": [1, 2]}):
        with pytest.raises(exprjit.ExprTypeError, match="'x' is a table, which can only be"):
            f.map(table, 1)
    frame = pd.DataFrame({"x": [1, 2], "y": [3, 4], "column_names": [5, 6]})
    assert f.map(frame).tolist() == [4, 6]

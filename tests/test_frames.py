"""Columns of pandas, Polars and Arrow: the same answers as row by row, nulls, no copies."""

from __future__ import annotations

import ctypes
import errno
import random
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from children import Child

import exprjit
from exprjit import array_run
from exprjit.runtime import arrow
from exprjit.runtime.sweep import PIECE
from exprjit.x86.rows import ITEM_TYPES, SCALAR_COLUMN

np = pytest.importorskip("numpy")

# This depends on other libraries more than on the version of Python.
pytestmark = pytest.mark.slow

#: What the rows of a column have: a number, or None where there is no value.
Rows = Sequence["int | None"]


def pandas() -> Any:
    return pytest.importorskip("pandas")


def polars() -> Any:
    return pytest.importorskip("polars")


def pyarrow() -> Any:
    return pytest.importorskip("pyarrow")


# Columns of every library. -------------------------------------------------------------------


class Maker(NamedTuple):
    """How a column of a library is made, and what its rows are; nulls: whether it can lack some."""

    make: Callable[[Rows, str], Any]
    rows: Callable[[Any], list[Any]]
    nulls: bool = True


def _pandas_numpy(rows: Rows, kind: str) -> Any:
    return pandas().Series(np.array(rows, kind), index=np.arange(len(rows)) * 10, name="n")


def _pandas_masked(rows: Rows, kind: str) -> Any:
    name = "boolean" if kind == "bool" else kind.replace("i", "I").replace("u", "U")
    return pandas().Series(_typed(rows, kind), dtype=name)


def _pandas_arrow(rows: Rows, kind: str) -> Any:
    pyarrow()
    return pandas().Series(_typed(rows, kind), dtype=f"{kind}[pyarrow]")


def _polars(rows: Rows, kind: str) -> Any:
    pl = polars()
    names = {"bool": "Boolean", "int": "Int", "uint": "UInt"}
    begin = kind.rstrip("0123456789")
    return pl.Series("n", _typed(rows, kind), dtype=getattr(pl, kind.replace(begin, names[begin])))


def _polars_chunked(rows: Rows, kind: str) -> Any:
    half = len(rows) // 3
    column = _polars(rows[:half], kind)
    for part in (rows[half : 2 * half], rows[2 * half :]):
        column.append(_polars(part, kind))
    return column


def _typed(rows: Rows, kind: str) -> list[Any]:
    return [None if row is None else bool(row) if kind == "bool" else row for row in rows]


def _arrow(rows: Rows, kind: str) -> Any:
    pa = pyarrow()
    alias = pa.bool_() if kind == "bool" else pa.from_numpy_dtype(kind)
    return pa.array(_typed(rows, kind), alias)


def _arrow_slice(rows: Rows, kind: str) -> Any:
    """A slice whose validity and truth values begin in the middle of a byte."""
    return _arrow([None, 1, None, *rows, 0, None], kind)[3 : 3 + len(rows)]


def _arrow_chunks(rows: Rows, kind: str) -> Any:
    """Chunks with offsets of their own, some of them empty."""
    pa = pyarrow()
    rng = random.Random(len(rows))
    cuts = sorted(rng.randrange(len(rows) + 1) for _ in range(4))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    return pa.chunked_array([_arrow_slice(part, kind) for part in parts], _arrow([], kind).type)


class OnlyArray:
    """What has Arrow's interface for arrays and nothing else."""

    def __init__(self, column: Any) -> None:
        self.column = column

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self.column.__arrow_c_array__(requested_schema)


class OnlyStream:
    """What has Arrow's interface for streams and nothing else."""

    def __init__(self, column: Any) -> None:
        self.column = column

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self.column.__arrow_c_stream__(requested_schema)


def _nullable(column: Any) -> list[Any]:
    """The rows of a pandas Series."""
    missing = column.isna()
    return [
        None if gone else int(row)
        for row, gone in zip(column.to_list(), missing.to_list(), strict=True)
    ]


def _arrow_rows(column: Any) -> list[Any]:
    return [None if row is None else int(row) for row in column.to_pylist()]


def _polars_rows(column: Any) -> list[Any]:
    return [None if row is None else int(row) for row in column.to_list()]


MAKERS = {
    "pandas": Maker(_pandas_numpy, _nullable, nulls=False),
    "pandas-masked": Maker(_pandas_masked, _nullable),
    "pandas-arrow": Maker(_pandas_arrow, _nullable),
    "polars": Maker(_polars, _polars_rows),
    "polars-chunked": Maker(_polars_chunked, _polars_rows),
    "arrow": Maker(_arrow, _arrow_rows),
    "arrow-slice": Maker(_arrow_slice, _arrow_rows),
    "arrow-chunks": Maker(_arrow_chunks, _arrow_rows),
    "c-array": Maker(lambda rows, kind: OnlyArray(_arrow_slice(rows, kind)), _arrow_rows),
    "c-stream": Maker(lambda rows, kind: OnlyStream(_arrow_chunks(rows, kind)), _arrow_rows),
}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Maker:
    found: Maker = MAKERS[request.param]
    found.make([1], "int64")  # skips where the library is missing
    return found


@pytest.fixture(params=["auto", "interpreter"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return lambda source, **more: exprjit.compile(source, backend=request.param, **more)


def numbers(rng: random.Random, length: int, kind: str, nulls: bool) -> Rows:
    low, high = ITEM_TYPES[kind].low, 1 if kind == "bool" else ITEM_TYPES[kind].high
    return [
        None
        if nulls and rng.random() < 0.2
        else min(max(rng.choice([rng.randint(-3, 3), low, high, rng.getrandbits(30)]), low), high)
        for _ in range(length)
    ]


# Answers. ------------------------------------------------------------------------------------


def check_all_kernels(
    f: Any, columns: Sequence[Any], rows: Sequence[Rows], where: Any = None
) -> None:
    """Every kernel gives what the rows give, one by one; where: a formula of all columns."""
    there = [None not in row for row in zip(*rows, strict=True)]
    values: list[Any] = []
    for row, is_there in zip(zip(*rows, strict=True), there, strict=True):
        if not is_there:
            values.append(None)
            continue
        try:
            counts = where is None or where(*row)
            values.append(f(*row) if counts else "dropped")
        except exprjit.ExprError:
            values.append("fails")
    fails = [value == "fails" for value in values]
    results = [0 if isinstance(value, str) else value for value in values]
    counting = [row for row, value in enumerate(values) if isinstance(value, int)]
    hits = [row for row in counting if values[row]]
    options = {"where": where, "errors": "mask"}

    def given(name: str) -> Any:
        result, failed = getattr(f, name)(*columns, **options)
        assert [bool(row) for row in _rows_of(failed)] == fails
        return result

    assert _rows_of(given("map")) == results
    mask = [None if value is None else row in hits for row, value in enumerate(values)]
    assert _rows_of(given("mask")) == mask
    bits = sum(int(word) << 64 * place for place, word in enumerate(given("bitmap")))
    assert bits == sum(1 << row for row in hits)
    assert list(given("indices")) == hits
    assert given("count") == len(hits)
    assert given("sum") == sum(values[row] for row in counting)
    # Rows behind the deciding one are not looked at.
    assert f.first(*columns, **options)[0] == min(hits, default=None)
    assert f.any(*columns, **options)[0] == bool(hits)
    assert f.all(*columns, **options)[0] == (len(hits) == len(counting))
    for name, choose in (("min", min), ("max", max)):
        if not counting:
            with pytest.raises(ValueError, match="of no rows"):
                given(name)
            continue
        best = choose(values[row] for row in counting)
        assert given(name) == best
        assert given("arg" + name) == min(row for row in counting if values[row] == best)
    if any(fails):
        with pytest.raises(exprjit.ExprError) as caught:
            f.map(*columns, where=where)
        assert caught.value.row == fails.index(True)


def _rows_of(column: Any) -> list[Any]:
    """The rows of a result, whatever it is of."""
    kind = type(column).__module__.split(".")[0]
    rows = {"pandas": _nullable, "polars": _polars_rows, "pyarrow": _arrow_rows}
    return rows.get(kind, list)(column)  # type: ignore[operator]


@pytest.mark.parametrize("kind", ITEM_TYPES)
def test_every_kernel_over_every_type(make: Callable[..., Any], maker: Maker, kind: str) -> None:
    rng = random.Random(kind)
    f = make("100 / x + y", params=("x", "y"))
    where = make("y % x >= 0", params=("x", "y"))
    for length in (5, 70):
        for nulls in (False, True) if maker.nulls else (False,):
            rows = [numbers(rng, length, kind, nulls), numbers(rng, length, "int16", nulls)]
            columns = [maker.make(rows[0], kind), maker.make(rows[1], "int16")]
            check_all_kernels(f, columns, rows)
            check_all_kernels(f, columns, rows, where)


def test_no_rows(maker: Maker) -> None:
    f = exprjit.compile("100 / x")
    for kind in ITEM_TYPES:
        column = maker.make([], kind)
        assert _rows_of(f(column)) == []
        assert _rows_of(f.mask(column)) == []
        assert (f.sum(column), f.count(column), f.first(column)) == (0, 0, None)
        with pytest.raises(ValueError, match="of no rows"):
            f.max(column)


@pytest.mark.parametrize("maker", [n for n, made in MAKERS.items() if made.nulls], indirect=True)
def test_no_values(maker: Maker) -> None:
    f = exprjit.compile("100 / x")
    column = maker.make([None] * 20, "int8")
    assert _rows_of(f(column)) == [None] * 20
    assert (f.sum(column), f.count(column), f.first(column), f.all(column)) == (0, 0, None, True)


def test_columns_of_arrow_that_have_no_type() -> None:
    pa = pyarrow()
    f = exprjit.compile("100 / x")
    for column in (pa.nulls(5), pa.chunked_array([pa.nulls(2), pa.nulls(3)])):
        assert f(column).to_pylist() == [None] * 5
        assert f.count(column) == 0


def test_chunks_that_differ(make: Callable[..., Any]) -> None:
    pa = pyarrow()
    rng = random.Random(5)
    f = make("x * 3 - y / z", params=("x", "y", "z"))
    for _ in range(15):
        length = rng.choice((3, 64, 200))
        kinds = rng.sample([*ITEM_TYPES], 3)
        rows = [numbers(rng, length, kind, rng.random() < 0.7) for kind in kinds]
        columns = []
        for column, kind in zip(rows, kinds, strict=True):
            cuts = sorted(rng.randrange(length + 1) for _ in range(rng.randrange(5)))
            parts = zip([0, *cuts], [*cuts, length], strict=True)
            columns.append(pa.chunked_array([_arrow_slice(column[a:b], kind) for a, b in parts]))
        check_all_kernels(f, columns, rows)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_long_chunks_in_threads(threads: int) -> None:
    pa = pyarrow()
    f = exprjit.compile("x % 3 == y")
    x, y = np.arange(3 * PIECE + 100), np.arange(3 * PIECE + 100) % 2
    valid = x % 5 != 0
    cuts = [0, 13, 2 * PIECE + 7, len(x)]
    chunks = [pa.array(x[a:b], mask=~valid[a:b]) for a, b in pairwise(cuts)]
    column = pa.chunked_array(chunks)
    wanted = (x % 3 == y) & valid
    for _ in range(5):
        bits = np.unpackbits(f.bitmap(column, y, threads=threads).view("uint8"), bitorder="little")
        assert (bits[: len(x)] == wanted).all()
    assert f.count(column, y, threads=threads) == wanted.sum()
    assert (f.indices(column, y, threads=threads) == np.nonzero(wanted)[0]).all()
    result = f.map(column, y, threads=threads)
    assert (np.asarray(result.fill_null(0)) == wanted).all()
    assert result.null_count == (~valid).sum()


# Kinds of results. ---------------------------------------------------------------------------


def test_results_of_pandas() -> None:
    pd = pandas()
    f = exprjit.compile("x * 2 + y")
    x = pd.Series([1, 2, 3], index=["a", "b", "c"], name="x", dtype="int32")
    result = f(x, 1)
    assert type(result) is pd.Series
    assert (str(result.dtype), list(result.index), result.name) == ("int64", ["a", "b", "c"], "x")
    assert list(result) == [3, 5, 7]
    assert f(x, x.rename("y")).name is None
    full, some = x.astype("Int32"), x.where(x > 1).astype("Int32")
    assert str(f(full, 1).dtype) == "int64"
    result = f(some, 1)
    assert (str(result.dtype), result.to_list()) == ("Int64", [pd.NA, 5, 7])
    assert str(f.map(some, 1, dtype="uint8").dtype) == "UInt8"
    assert str(f.mask(x, 1).dtype) == "bool"
    result = f.mask(some, -5)
    assert (str(result.dtype), result.to_list()) == ("boolean", [pd.NA, True, True])
    result, failed = exprjit.compile("1 / (x - 2)").map(some, errors="mask")
    assert (str(result.dtype), result.to_list()) == ("Int64", [pd.NA, 0, 1])
    assert (str(failed.dtype), failed.to_list()) == ("bool", [False, True, False])
    assert list(failed.index) == ["a", "b", "c"]


def test_results_of_polars() -> None:
    pl = polars()
    f = exprjit.compile("x * 2 + y")
    x = pl.Series("x", [1, None, 3])
    result = f(x, pl.Series("y", [1, 1, 1], dtype=pl.Int8))
    assert isinstance(result, pl.Series)
    assert (result.name, result.dtype, result.to_list()) == ("x", pl.Int64, [3, None, 7])
    assert f.map(x, 1, dtype="uint16").dtype == pl.UInt16
    result = f.mask(x, -2)
    assert (result.name, result.dtype, result.to_list()) == ("x", pl.Boolean, [False, None, True])


def test_results_of_arrow() -> None:
    pa = pyarrow()
    f = exprjit.compile("x * 2 + y")
    for x in (pa.array([1, None, 3]), pa.chunked_array([[1], [None, 3]])):
        result = f(x, pa.array([1, 1, 1], pa.uint8()))
        result.validate(full=True)
        assert (result.type, result.null_count) == (pa.int64(), 1)
        assert result.to_pylist() == [3, None, 7]
        assert f.map(x, 1, dtype="int8").type == pa.int8()
        result = f.mask(x, -2)
        result.validate(full=True)
        assert (result.type, result.to_pylist()) == (pa.bool_(), [False, None, True])


def test_the_first_library_decides() -> None:
    pa, pd, pl = pyarrow(), pandas(), polars()
    f = exprjit.compile("x * 2 + y")
    columns = {
        "pyarrow": pa.array([1, None]),
        "pandas": pd.Series([5, 6]),
        "polars": pl.Series([7, None]),
    }
    for first, x in columns.items():
        for y in (*columns.values(), np.array([1, 2]), array("h", [1, 2]), b"ab", 4, np.array([3])):
            result = f(x, y)
            assert type(result).__module__.split(".")[0] == first
            rows = [_rows_of(x), _rows_of(y) if not isinstance(y, int) else [y, y]]
            rows = [column if len(column) == 2 else column * 2 for column in rows]
            assert _rows_of(result) == [
                None if None in row else f(*map(int, row)) for row in zip(*rows, strict=True)
            ]
        result = f(np.array([1, 2]), x)
        assert type(result).__module__.split(".")[0] == first


def test_out_and_dtype() -> None:
    pa = pyarrow()
    f = exprjit.compile("x * 2 + y")
    y = np.array([1, 2, 3])
    for x in (pa.array([1, None, 3]), pa.chunked_array([[1], [None, 3]])):
        for step in (1, 2):
            out = np.full(3 * step, 77, "int16")[::step]
            assert f.map(x, y, out=out) is out
            assert list(out) == [3, 77, 9]
        truths = np.ones(3, bool)
        assert f.mask(x, -2, out=truths) is truths
        assert list(truths) == [False, False, True]
        with pytest.raises(TypeError, match="out must be a NumPy array"):
            f.map(x, 1, out=pa.array([1, 2, 3]))
    with pytest.raises(OverflowError, match="result outside int8: 202, in row 2"):
        f.map(pa.array([1, None, 100]), 2, dtype="int8")


def test_results_may_overlap_operands_in_other_chunks() -> None:
    pa = pyarrow()
    f = exprjit.compile("x * 2 + y")
    x = pa.chunked_array([list(range(10)), list(range(10, 50)), list(range(50, 90))])
    for there, here in ((0, 5), (5, 0), (0, 0)):
        memory = np.arange(100)
        y, out = memory[there : there + 90], memory[here : here + 90]
        wanted = np.arange(90) * 2 + y
        f.map(x, y, out=out)
        assert (out == wanted).all()


# Tables. -------------------------------------------------------------------------------------


def test_tables() -> None:
    f = exprjit.compile("price * qty")
    data = {"price": [2, 3, None], "qty": [10, 20, 30], "name": ["a", "b", "c"]}
    pa, pl, pd = pyarrow(), polars(), pandas()
    table = pa.table(data)
    frame = pd.DataFrame({**data, "price": pd.array(data["price"], "Int64")}, index=[3, 4, 5])
    for rows, kind in (
        (table, pa.Array),
        (table.to_batches()[0], pa.Array),
        (pl.DataFrame(data), pl.Series),
        (frame, pd.Series),
    ):
        result = f.map(rows)
        assert isinstance(result, kind)
        assert _rows_of(result) == [20, 60, None]
        assert f.sum(rows) == 80
        assert f.sum(rows, where="qty > 10") == 60
        with pytest.raises(TypeError, match=r"there is no column 'cost'\n.*'price', 'qty', 'name'"):
            exprjit.compile("cost").map(rows)
    assert list(f.map(frame).index) == [3, 4, 5]
    assert table.append_column("total", f.map(table)).column("total").to_pylist() == [20, 60, None]


def test_tables_are_arguments_of_calls(make: Callable[..., Any]) -> None:
    """As of `map`; alone, they stand for all parameters, be these one or many."""
    pa, pl, pd = pyarrow(), polars(), pandas()
    data = {"x": [1, 2, 3], "y": [10, 20, 30]}
    f, g = make("x + y"), make("y")
    arrays = {name: np.array(column) for name, column in data.items()}
    for table in (pa.table(data), pl.DataFrame(data), pd.DataFrame(data), arrays):
        for _ in range(3):
            assert _rows_of(f(table)) == [11, 22, 33]
            assert _rows_of(g(table)) == [10, 20, 30]
    assert f({"x": 3, "y": 4, "z": 5}) == 7
    assert f({"x": arrays["x"], "y": 4}).tolist() == [5, 6, 7]
    with pytest.raises(TypeError, match="there is no column 'y'"):
        f({"x": 3})
    with pytest.raises(TypeError, match="takes 0 positional arguments but 1 was given"):
        make("5")(arrays)


def test_the_rows_of_a_table_of_which_nothing_is_looked_at() -> None:
    pa, pl, pd = pyarrow(), polars(), pandas()
    data = {"name": ["a", "b", "c"], "x": [1, 2, 3]}
    f = exprjit.compile("7")
    tables = [
        pa.table(data),
        pa.table(data).to_batches()[0],
        pl.DataFrame(data),
        pd.DataFrame(data),
    ]
    for table in (*tables, {"x": np.arange(1, 4), "y": 4}):
        assert (f.count(table), f.sum(table), _rows_of(f.map(table))) == (3, 21, [7, 7, 7])
        assert (f.count(table, where="2 > 1"), f.count(table, where="1 > 2")) == (3, 0)
        assert f.count(table, where="x > 1") == 2
        assert f.count(table, where=np.array([1, 0, 1])) == 2
        assert (f.count(table, where=True), f.count(table, where=np.False_)) == (3, 0)
        with pytest.raises(ValueError, match=r"differ|broadcast"):
            f.count(table, where=np.array([1, 0]))
    for table, kind in zip(tables, (pa.Array, pa.Array, pl.Series, pd.Series), strict=True):
        assert isinstance(f.map(table), kind)
    assert list(f.map(pd.DataFrame(data, index=[5, 6, 7])).index) == [5, 6, 7]
    assert f.map({"x": np.zeros((2, 3))}).shape == (2, 3)
    assert f.count({"x": b"abc", "y": 1}) == 3
    assert f.count(pd.DataFrame({"x": []})) == 0
    assert f.count({"x": 4}) == f.count() == 1
    with pytest.raises(ZeroDivisionError, match="in row 0"):
        f.count(pa.table(data), where="1 / 0")
    assert f.count(pd.DataFrame({"x": []}), where="1 / 0") == 0
    assert exprjit.compile("rows", constants={"rows": 4}).sum(tables[0]) == 12


def test_arrays_of_pandas_without_an_index() -> None:
    pd = pandas()
    f = exprjit.compile("x * 2")
    for kind in ("Int64", "UInt8"):
        column = pd.array([1, None, 3], dtype=kind)
        assert _rows_of(f(column)) == [2, None, 6]
        assert f.sum(column) == 8
    with pytest.raises(TypeError, match="not floats"):
        f(pd.array([1.5, None]))
    g = exprjit.compile("x + y")
    series, array = pd.Series([1, 2], index=[5, 6]), pd.array([10, None], dtype="Int64")
    for columns in ([series, array], [array, series]):
        result = g(*columns)
        assert (_rows_of(result), list(result.index)) == ([11, None], [5, 6])
    with pytest.raises(ValueError, match="differ in how many rows"):
        g(series, pd.array([1, 2, 3]))
    assert f(pd.Categorical([1, 2, 1])).tolist() == [2, 4, 2]


def test_a_frame_whose_columns_are_not_contiguous() -> None:
    pd = pandas()
    frame = pd.DataFrame(np.arange(3000).reshape(1000, 3), columns=["x", "y", "z"], copy=False)
    assert frame["y"].to_numpy().strides != (8,)
    assert list(exprjit.compile("x * z - y").map(frame)) == list(frame.x * frame.z - frame.y)


def test_two_columns_of_one_name() -> None:
    pa, pd = pyarrow(), pandas()
    f = exprjit.compile("x")
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["x", "x", "y"])
    frame = pd.DataFrame([[1, 2, 3]], columns=["x", "x", "y"])
    for rows in (table, frame):
        with pytest.raises(TypeError, match="there are 2 columns 'x'"):
            f.map(rows)
        assert exprjit.compile("y").sum(rows) == 3


def test_lazy_frames_are_refused() -> None:
    pl = polars()
    f = exprjit.compile("x + y")
    lazy = pl.LazyFrame({"x": [1], "y": [2]})
    for arguments in ((lazy,), (1, lazy), (lazy, 1)):
        with pytest.raises(TypeError, match=r"a LazyFrame has no rows yet\n  hint: .*collect"):
            f.map(*arguments)
    with pytest.raises(TypeError, match="LazyFrame"):
        f.count(1, 2, where=lazy)
    assert f.sum(lazy.collect()) == 3


def test_series_with_different_indexes() -> None:
    pd = pandas()
    f = exprjit.compile("x + y")
    x = pd.Series([1, 2], index=["a", "b"])
    with pytest.raises(ValueError, match=r"the Series differ in their indexes\n  hint: align"):
        f(x, pd.Series([1, 2]))
    with pytest.raises(ValueError, match="differ in their indexes"):
        f.count(x, 1, where=pd.Series([True, False]))
    assert f(x, pd.Series([5, 6], index=["a", "b"])).to_list() == [6, 8]
    assert f(x, pd.Series([5, 6]).to_numpy()).to_list() == [6, 8]


# Filters and errors. -------------------------------------------------------------------------


def test_filters_with_nulls() -> None:
    pa, pl, pd = pyarrow(), polars(), pandas()
    f = exprjit.compile("10 / x")
    x = [1, 0, 0, 5, None]
    for column, where in (
        (pa.array(x), pa.array([True, None, False, True, True])),
        (pl.Series(x), pl.Series([True, None, False, True, True])),
        (pd.Series(x, dtype="Int64"), pd.Series([1, None, 0, 7, 1], dtype="Int8")),
    ):
        # Where nobody knows whether a row counts, nobody knows its result.
        assert _rows_of(f.map(column, where=where)) == [10, None, 0, 2, None]
        assert f.sum(column, where=where) == 12
    z = pa.array([1, 1, 0, 1, 1])
    assert f.sum(pa.array([1, None, 0, 5, 2]), z, where="z") == 17
    # A filter is not looked at either where a column that only the formula has lacks a value.
    assert f.sum(pa.array([None, 1]), pa.array([0, 2]), where="6 / z") == 10
    with pytest.raises(ZeroDivisionError, match="where z = 0, in row 1"):
        f.sum(pa.array([None, 1]), pa.array([0, 0]), where="6 / z")


def test_the_lowest_row_that_fails_is_told() -> None:
    pa = pyarrow()
    f = exprjit.compile("100 / x")
    for row in range(12):
        x = [None if place % 4 == 1 else 3 for place in range(12)]
        x[row] = x[11] = 0
        column = pa.chunked_array([x[:3], x[3:8], x[8:]])
        for rows in (column, column.combine_chunks()):
            with pytest.raises(ZeroDivisionError, match=f"in row {row}\n") as caught:
                f.map(rows)
            assert caught.value.row == row
            with pytest.raises(ZeroDivisionError, match=f"in row {row}\n"):
                f.count(rows, where="100 / x")


def test_c_functions_are_not_called_for_rows_without_values() -> None:
    pa = pyarrow()
    labs = ctypes.CDLL(None).labs
    labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long
    f = exprjit.compile("labs(x) / x", externs={"labs": labs})
    assert f(pa.array([-5, None, 5])).to_pylist() == [-1, None, 1]
    assert f.sum(pa.array([-5, None, 5]), where="labs(x) > 0") == 0


def arrow_columns_refused() -> list[tuple[Any, str]]:
    pa = pyarrow()
    return [
        (pa.array([1.5]), r"not floats\n  hint: .*\.cast\("),
        (pa.array([1.5], pa.float32()), "not floats"),
        (pa.array([1], pa.uint64()), r"not unsigned 64-bit numbers\n  hint: .*\.view\("),
        (pa.array(["a"]), "not items of type string"),
        (pa.array(["a"], pa.large_string()), "not items of type string"),
        (pa.array(["a"], pa.string_view()), "not items of type string"),
        (pa.array([b"a"]), "not items of type binary"),
        (pa.array([1], pa.timestamp("s")), "not dates"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "not dates"),
        (pa.array([1], pa.date32()), "not dates"),
        (pa.array([1], pa.time64("us")), "not times"),
        (pa.array([1], pa.duration("s")), "not durations"),
        (pa.array([1], pa.decimal128(5)), "not decimal numbers"),
        (pa.array([1]).dictionary_encode(), r"not dictionary-encoded items\n  hint: .*decode"),
        (pa.chunked_array([["a"]]).dictionary_encode(), "not dictionary-encoded items"),
        (pa.array([[1]]), "not lists"),
        (pa.array([{"a": 1}]), "not items of several fields"),
        (pa.table({"x": [1]}).to_reader(), "not items of several fields"),
    ]


def polars_columns_refused() -> list[tuple[Any, str]]:
    from datetime import date, datetime, timedelta

    pl = polars()
    great = [pl.Series([1], dtype=pl.Int128)] if hasattr(pl, "Int128") else []
    return [
        *((column, "not 128-bit numbers") for column in great),
        (pl.Series([1.5]), r"not floats\n  hint: .*pl\.Int64"),
        (pl.Series([1], dtype=pl.UInt64), r"not unsigned 64-bit numbers\n  hint: .*reinterpret"),
        (pl.Series(["a"]), "not items of type string"),
        (pl.Series([date(2020, 1, 1)]), r"not dates\n  hint: .*to_physical"),
        (pl.Series([datetime(2020, 1, 1)]), "not dates"),
        (pl.Series([timedelta(1)]), "not durations"),
        (pl.Series(["a"], dtype=pl.Categorical), r"not dictionary-encoded items\n  hint: .*codes"),
        (pl.Series([object()], dtype=pl.Object), "not Python objects"),
        (pl.Series([[1]]), "not lists"),
    ]


def pandas_columns_refused() -> list[tuple[Any, str]]:
    pd = pandas()
    pyarrow()
    return [
        (pd.Series([1.5]), r'not floats\n  hint: .*\.astype\("int64"\)'),
        (pd.Series([1, None]), r'not floats\n  hint: .*\.astype\("Int64"\)'),
        (pd.Series([1.5], dtype="Float64"), "not floats"),
        (pd.Series([1.5], dtype="float64[pyarrow]"), "not floats"),
        (pd.Series([1], dtype="uint64"), r"not unsigned 64-bit numbers\n  hint: .*to_numpy"),
        (pd.Series([1], dtype="UInt64"), "not unsigned 64-bit numbers"),
        (pd.Series([1], dtype="uint64[pyarrow]"), "not unsigned 64-bit numbers"),
        (pd.Series(["a"], dtype="string"), "not items of type string"),
        (pd.Series([1, None], dtype=object), "not Python objects"),
        (pd.Series([1], dtype="category"), "not items of type category"),
        (pd.Series([1.5], dtype="Sparse[float]"), "not floats"),
        (pd.to_datetime(pd.Series(["2020-01-01"])), r"not dates\n  hint: .*astype"),
        (pd.to_datetime(pd.Series(["2020-01-01"]), utc=True), "not dates"),
        (pd.to_timedelta(pd.Series([1])), "not durations"),
        (pd.Series(pd.period_range("2020", periods=1, freq="D")), "not items of type period"),
    ]


@pytest.mark.parametrize(
    "cases", [arrow_columns_refused, polars_columns_refused, pandas_columns_refused]
)
def test_other_columns_are_refused(cases: Callable[[], list[tuple[Any, str]]]) -> None:
    f = exprjit.compile("x + y")
    for column, words in cases():
        for arguments in ((column, 1), (1, column), (np.array([1]), column)):
            words_ = f"the argument '[xy]' must hold integers of up to 64 bits, {words}"
            with pytest.raises(TypeError, match=words_):
                f.map(*arguments)


def test_sparse_columns_of_pandas() -> None:
    pd = pandas()
    x = pd.Series([0, 0, 5], dtype="Sparse[int]")
    assert exprjit.compile("x + 1").map(x).to_list() == [1, 1, 6]


def test_columns_of_different_lengths() -> None:
    pa = pyarrow()
    f = exprjit.compile("x + y")
    x = pa.array([1, 2, 3])
    for wrong in (pa.array([1]), pa.array([1, 2]), np.arange(4), pa.chunked_array([[1], [2]])):
        with pytest.raises(ValueError, match="differ in how many rows they have: the argument 'x'"):
            f(x, wrong)
    with pytest.raises(ValueError, match="the argument 'y' must have one dimension beside"):
        f(x, np.ones((3, 1), int))
    for wrong, kinds in ((np.ones(3), "floats"), (np.array([1.5]), "floats")):
        with pytest.raises(TypeError, match=f"'y' must hold .* not {kinds}"):
            f(x, wrong)
    with pytest.raises(TypeError, match="'y' must be an integer, not str"):
        f(x, "1")
    assert f(x, np.array([[7]])).to_pylist() == [8, 9, 10]
    assert f(pa.array([], pa.int8()), np.array([7])).to_pylist() == []
    assert f(pa.array([1]), np.array([7])).to_pylist() == [8]
    with pytest.raises(OverflowError, match="'y' does not fit a 64-bit long"):
        f(x, 2**70)


class Broken:
    """A stream that has an array of four numbers, and then an error of C."""

    def __init__(self, message: bytes | None) -> None:
        self.whole = pyarrow().array([1, 2, 3, 4])
        self.message = message
        self.given = 0

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        stream = arrow._Stream()
        kinds = dict(arrow._Stream._fields_)
        stream.get_schema = kinds["get_schema"](self.get_schema)
        stream.get_next = kinds["get_next"](self.get_next)
        # ctypes has no callbacks that give text.
        last_error = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(self.get_last_error)
        stream.get_last_error = ctypes.cast(last_error, kinds["get_last_error"])
        self.text = ctypes.create_string_buffer(self.message) if self.message else None
        self.stream = stream
        new = ctypes.PYFUNCTYPE(
            ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
        )(("PyCapsule_New", ctypes.pythonapi))
        self.name = b"arrow_array_stream"
        return new(ctypes.addressof(stream), self.name, None)

    def get_last_error(self, stream: int) -> int:
        return ctypes.addressof(self.text) if self.text else 0

    def get_schema(self, stream: int, schema: int) -> int:
        self.whole.type._export_to_c(schema)
        return 0

    def get_next(self, stream: int, array: int) -> int:
        self.given += 1
        if self.given > 1:
            return errno.EIO
        self.whole._export_to_c(array)
        return 0


def test_a_stream_that_breaks_off() -> None:
    f = exprjit.compile("x + 1")
    with pytest.raises(ValueError, match="the argument 'x' cannot be read: the line is dead"):
        f.map(Broken(b"the line is dead"))
    with pytest.raises(ValueError, match="the argument 'x' cannot be read: Input/output error"):
        f.map(Broken(None))


# Memory. -------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kind and address of every column that a kernel is run over, but for filters of nulls."""
    columns: list[tuple[str, int]] = []
    run = array_run.run

    def recording(sweep: Any, given: Any, rows: range, *more: Any) -> Any:
        for kind, address, _ in given[:2]:
            size = 0 if kind == SCALAR_COLUMN else ITEM_TYPES[kind].size
            columns.append((kind, address + rows.start * size))
        return run(sweep, given, rows, *more)

    monkeypatch.setattr(array_run, "run", recording)
    return columns


def address(values: Any) -> int:
    return int(values.__array_interface__["data"][0])


def address_in_arrow(chunk: Any) -> int:
    return int(chunk.buffers()[1].address + chunk.offset * chunk.type.bit_width // 8)


KINDS = [kind for kind in ITEM_TYPES if kind != "bool"]


@pytest.mark.parametrize("kind", KINDS)
def test_arrow_arrays_are_not_copied(kind: str, seen: list[tuple[str, int]]) -> None:
    pa = pyarrow()
    f = exprjit.compile("x + y")
    rows = [1, None, *range(80)]
    whole = _arrow(rows, kind)
    for column in (whole, whole[5:], whole[3:40][4:], OnlyArray(whole[9:])):
        seen.clear()
        f.sum(column, 1)
        wanted = column.column if isinstance(column, OnlyArray) else column
        assert seen == [(kind, address_in_arrow(wanted)), (SCALAR_COLUMN, 1)]
    chunks = pa.chunked_array([whole[:64], whole[1:65], whole[10:11]])
    for column in (chunks, OnlyStream(chunks)):
        seen.clear()
        f.sum(column, 1)
        assert seen[::2] == [(kind, address_in_arrow(chunk)) for chunk in chunks.chunks]


@pytest.mark.parametrize("kind", KINDS)
def test_series_of_polars_are_not_copied(kind: str, seen: list[tuple[str, int]]) -> None:
    f = exprjit.compile("x + y")
    whole = _polars(list(range(100)), kind)
    for column in (whole, whole[20:50]):
        seen.clear()
        f.sum(column, 1)
        assert seen[0] == (kind, address(column.to_numpy(allow_copy=False)))
    pyarrow()
    column = _polars([1, None, *range(80)], kind)[1:]
    seen.clear()
    f.sum(column, 1)
    assert seen[0] == (kind, address_in_arrow(column.to_arrow()))


@pytest.mark.parametrize("kind", [*KINDS, "bool"])
def test_series_of_pandas_are_not_copied(kind: str, seen: list[tuple[str, int]]) -> None:
    f = exprjit.compile("x + y")
    column = _pandas_numpy([1, 0] * 20, kind)
    f.sum(column[3:], 1)
    assert seen[0] == (kind, address(column.to_numpy()[3:]))
    column = _pandas_masked([1, None, 0], kind)
    seen.clear()
    f.sum(column, 1)
    assert seen[0] == (kind, address(column.array._data))
    if kind != "bool":
        column = _pandas_arrow([1, None, 0], kind)
        seen.clear()
        f.sum(column, 1)
        (chunk,) = column.array.__arrow_array__().chunks
        assert seen[0] == (kind, address_in_arrow(chunk))


def test_results_for_arrow_are_not_copied() -> None:
    pa = pyarrow()
    f = exprjit.compile("x + 1")
    before = pa.total_allocated_bytes()
    column = pa.array(np.arange(1 << 20))
    result = f.map(column)
    # What NumPy has allocated, Arrow has not.
    assert pa.total_allocated_bytes() <= before
    assert result[-1].as_py() == 1 << 20
    del column
    assert f.sum(result) == ((1 << 20) + 1) * (1 << 19) + (1 << 20)


def test_what_was_lent_is_given_back() -> None:
    import gc

    pa = pyarrow()
    f = exprjit.compile("x * y")
    gc.collect()
    before = pa.total_allocated_bytes()
    for _ in range(3):
        whole = pa.chunked_array([pa.array([1, None, 3] * 1000) for _ in range(10)])
        for column in (whole, whole.chunk(0), OnlyStream(whole), OnlyArray(whole.chunk(3))):
            for name in ("map", "mask", "sum", "indices"):
                getattr(f, name)(column, column)
            with pytest.raises(ZeroDivisionError):
                exprjit.compile("1 / (x - 3)").map(column)
        for column in (whole.cast("double"), whole.cast("string")):
            with pytest.raises(TypeError):
                f.map(column, 1)
        del whole, column
    gc.collect()
    assert pa.total_allocated_bytes() == before


def test_a_result_lives_longer_than_its_operands() -> None:
    pl = polars()
    f = exprjit.compile("x + 1")
    results = [f(pl.Series(range(start, start + 1000))) for start in range(50)]
    assert [result[999] for result in results] == list(range(1000, 1050))


# Without other libraries. --------------------------------------------------------------------


def test_polars_needs_no_arrow(child: Child) -> None:
    polars()
    answer = child(
        """
        import sys
        sys.modules["pyarrow"] = None
        import polars as pl
        import exprjit

        f = exprjit.compile("100 / x + y")
        frame = pl.DataFrame({"x": [1, None, 3], "y": [True, False, True]})
        print(f.map(frame).to_list(), f.mask(frame).to_list(), f.sum(frame))
        """
    )
    assert answer == "[101, None, 34] [True, None, True] 135\n"


def test_without_numpy_it_is_told_what_is_missing(child: Child) -> None:
    polars()
    answer = child(
        """
        import sys
        sys.modules["numpy"] = None
        import polars as pl
        import exprjit

        try:
            exprjit.compile("x + 1").map(pl.Series([1]))
        except exprjit.ExprTypeError as error:
            print(error)
        """
    )
    assert answer == "such columns need NumPy\n  hint: pip install numpy\n"


def test_without_pyarrow_results_for_others_go_into_an_array(child: Child) -> None:
    polars()
    answer = child(
        """
        import sys
        sys.modules["pyarrow"] = None
        import numpy as np
        import polars as pl
        import exprjit

        class Foreign:
            def __arrow_c_stream__(self, requested_schema=None):
                return pl.Series([1, None, 3]).__arrow_c_stream__()

        f, x = exprjit.compile("x + 1"), Foreign()
        print(f.sum(x), f.map(x, out=np.zeros(3, "int8")))
        try:
            f.map(x)
        except exprjit.ExprTypeError as error:
            print(error.hint)
        """
    )
    assert answer == "6 [2 0 4]\npip install pyarrow, or give an array of NumPy as out=\n"


def test_the_examples_of_the_documentation_do_what_it_says() -> None:
    sybil = pytest.importorskip("sybil")
    from sybil.parsers.markdown import PythonCodeBlockParser

    for library in (pandas, polars, pyarrow):
        library()
    path = Path(__file__).parent.parent / "docs" / "files.md"
    examples = list(sybil.Sybil(parsers=[PythonCodeBlockParser()]).parse(path).examples())
    assert len(examples) > 5
    for example in examples:
        example.evaluate()

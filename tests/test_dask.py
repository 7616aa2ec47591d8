"""Columns of Dask: lazy, by blocks, in other processes."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from children import Child

import exprjit

np = pytest.importorskip("numpy")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")

# This depends on other libraries more than on the version of Python.
pytestmark = pytest.mark.slow


@pytest.fixture
def columns() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.integers(-1000, 1000, 10_007), rng.integers(1, 50, 10_007)


def test_blocks_are_lazy(columns: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = columns
    f = exprjit.compile("x / y + 4")
    lazy = f(da.from_array(x, chunks=1000), da.from_array(y, chunks=1000))
    assert isinstance(lazy, da.Array)
    assert (lazy.dtype, lazy.shape, lazy.numblocks) == (np.dtype("int64"), (10_007,), (11,))
    assert (lazy.compute() == f(x, y)).all()
    failing = f(da.from_array(x, chunks=1000), 0)
    with pytest.raises(ZeroDivisionError, match=r"y = 0, in row (0|\d,000|10,000)\n"):
        failing.compute()


def test_blocks_of_different_sizes_and_shapes(columns: tuple[Any, Any]) -> None:
    x, y = columns
    f = exprjit.compile("x * 3 - y")
    wanted = x * 3 - y
    lazy = f(da.from_array(x, chunks=1000), da.from_array(y, chunks=777))
    assert (lazy.compute() == wanted).all()
    table = x[:10_000].reshape(100, 100)
    lazy = f(da.from_array(table, chunks=30), da.from_array(y[:100], chunks=40))
    assert (lazy.compute() == table * 3 - y[:100]).all()
    narrow = f.map(da.from_array(x % 10, chunks=1000), 1, dtype="int8")
    assert narrow.dtype == np.int8
    assert (narrow.compute() == x % 10 * 3 - 1).all()
    mask = exprjit.compile("x > y").mask(da.from_array(x, chunks=999), y)
    assert mask.dtype == bool
    assert (mask.compute() == (x > y)).all()


def test_one_value_is_a_tree(columns: tuple[Any, Any]) -> None:
    x, y = columns
    f = exprjit.compile("x * y")
    lazy = da.from_array(x, chunks=100), da.from_array(y, chunks=100)
    wanted = x * y
    assert f.sum(*lazy).compute() == int(wanted.sum())
    assert f.min(*lazy).compute() == int(wanted.min())
    assert f.max(*lazy, where="y > 40").compute() == int(wanted[y > 40].max())
    assert f.count(*lazy).compute() == np.count_nonzero(wanted)
    assert f.count(*lazy, where=lazy[0] > 0).compute() == np.count_nonzero(wanted[x > 0])
    assert f.any(*lazy).compute() is True
    assert f.all(*lazy).compute() == bool(wanted.all())
    huge = da.full(1000, 2**62, chunks=100, dtype="int64")
    assert exprjit.compile("x").sum(huge).compute() == 1000 * 2**62
    with pytest.raises(ValueError, match=r"min\(\) of no rows"):
        f.min(*lazy, where="0").compute()
    # Blocks, some of them together, all of them: no step has more than some to do.
    graph = dict(f.sum(*lazy).__dask_graph__())
    assert sum("_join" in str(key) for key in graph) >= 13


def test_data_frames_by_column_name(columns: tuple[Any, Any]) -> None:
    pd = pytest.importorskip("pandas")
    x, y = columns
    frame = pd.DataFrame({"y": y, "x": x, "other": "text"})
    lazy = dd.from_pandas(frame, npartitions=7)
    f = exprjit.compile("x % y")
    wanted = f.map(x, y)
    result = f.map(lazy)
    assert isinstance(result, dd.Series)
    assert (result.compute() == wanted).all()
    assert f.sum(lazy).compute() == int(wanted.sum())
    assert f.count(lazy.x, lazy.y, where="x > 0").compute() == np.count_nonzero(wanted[x > 0])


def test_equal_formulas_have_equal_names(columns: tuple[Any, Any]) -> None:
    x = da.from_array(columns[0], chunks=1000, name="x")
    first = exprjit.compile("x + 4")(x)
    exprjit.cache_clear()
    assert exprjit.compile("x + 4")(x).name == first.name
    assert exprjit.compile("x + 5")(x).name != first.name
    assert exprjit.compile("x + 4", overflow="raise")(x).name != first.name


def test_what_needs_row_numbers_is_refused(columns: tuple[Any, Any]) -> None:
    x = da.from_array(columns[0], chunks=1000)
    f = exprjit.compile("x > 3")
    for kernel in ("indices", "argmin", "argmax", "first", "bitmap"):
        with pytest.raises(TypeError, match="do not know their rows"):
            getattr(f, kernel)(x)
    with pytest.raises(TypeError, match="no out="):
        f.map(x, out=columns[0])
    with pytest.raises(TypeError, match="missing 1 required"):
        exprjit.compile("x + y").map(x)


@pytest.fixture
def series() -> Any:
    """The numbers from 1 to 6 in two parts."""
    pd = pytest.importorskip("pandas")
    return dd.from_pandas(pd.Series(range(1, 7), name="s"), npartitions=2)


def arrays_in_memory() -> list[Any]:
    """The numbers from 0 to 9, as what has rows and is computed already."""
    pd = pytest.importorskip("pandas")
    return [
        np.arange(10),
        pd.Series(range(10)),
        array("h", range(10)),
        memoryview(bytes(range(10))),
        bytes(range(10)),
    ]


@pytest.mark.parametrize("rows", arrays_in_memory(), ids=lambda rows: type(rows).__name__)
def test_what_is_in_memory_is_cut_like_arrays(rows: Any) -> None:
    f = exprjit.compile("x + y")
    lazy = f.map(da.arange(10, chunks=3), rows)
    assert lazy.chunks == ((3, 3, 3, 1),)
    assert lazy.compute().tolist() == list(range(0, 20, 2))
    assert f.sum(da.arange(10, chunks=3), rows, where="y > 4").compute() == 70
    assert f.count(da.arange(10, chunks=3), 1, where=np.arange(10) > 4).compute() == 5


@pytest.mark.parametrize("rows", arrays_in_memory(), ids=lambda rows: type(rows).__name__)
def test_what_is_in_memory_cannot_be_cut_like_data_frames(rows: Any, series: Any) -> None:
    f, g = exprjit.compile("x + y"), exprjit.compile("x")
    # As many rows as each of the parts has, or as there are.
    for some in (rows[:3], rows[:6]):
        for call in (
            lambda some=some: f.map(series, some),
            lambda some=some: f.map(some, series),
            lambda some=some: f.map({"x": series, "y": some}),
            lambda some=some: f.sum(series, some),
            lambda some=some: g.map(series, where=some),
            lambda some=some: g.count(series, where=some),
        ):
            with pytest.raises(exprjit.ExprTypeError, match="cannot be cut like") as caught:
                call()
            assert "from_pandas" in caught.value.hint


def test_numbers_go_with_data_frames(series: Any) -> None:
    f = exprjit.compile("x + y")
    numbers = (2, np.int64(2), np.array(2), series.min() + 1, da.arange(3, chunks=1).max())
    for number in numbers:
        assert f.map(series, number).compute().tolist() == [3, 4, 5, 6, 7, 8]
        assert f.map(number, series).compute().tolist() == [3, 4, 5, 6, 7, 8]
        assert f.sum(series, number).compute() == 33
        assert f.map(da.arange(4, chunks=3), number).compute().tolist() == [2, 3, 4, 5]
        assert f.sum(number, da.arange(4, chunks=3)).compute() == 14
    assert f.map(series.max(), 1).compute() == 7


def test_parts_of_data_frames_belong_together(series: Any) -> None:
    f = exprjit.compile("x + y")
    whole = series.repartition(npartitions=1)
    for call in (f.map, f.sum):
        with pytest.raises(exprjit.ExprValueError, match="cut into parts differently"):
            call(series, whole)
        with pytest.raises(exprjit.ExprTypeError, match="'y' cannot be cut like"):
            call(series, series.to_dask_array())


def test_blocks_of_unknown_sizes(series: Any) -> None:
    f = exprjit.compile("x + y")
    unknown = series.to_dask_array()
    assert f.map(unknown, unknown).compute().tolist() == [2, 4, 6, 8, 10, 12]
    assert f.map(unknown, np.array([1])).compute().tolist() == [2, 3, 4, 5, 6, 7]
    for known in (np.arange(6), da.arange(6, chunks=3), da.arange(6)):
        with pytest.raises(exprjit.ExprValueError, match="unknown sizes"):
            f.sum(unknown, known)


def test_a_series_or_an_index_is_a_column(series: Any) -> None:
    f = exprjit.compile("x + 1")
    for result in (f(series), f.map(series), f.map(x=series), f.map({"x": series})):
        assert isinstance(result, dd.Series)
        computed = result.compute()
        assert computed.tolist() == [2, 3, 4, 5, 6, 7]
        # As of a Series of pandas.
        assert result.name == computed.name == "s"
    assert f.mask(series).compute().all()
    assert f.sum(series).compute() == 27
    assert f(series.index).compute().tolist() == [1, 2, 3, 4, 5, 6]
    assert f.sum(series.index).compute() == 21
    both = exprjit.compile("x - y").map(series, series.index)
    assert both.compute().tolist() == [1] * 6
    # A data frame with a single column still is a table.
    with pytest.raises(exprjit.ExprTypeError, match="no column 'x'"):
        f.map(series.to_frame())
    assert f.sum(series.to_frame("x")).compute() == 27


def test_columns_in_a_dict_are_lazy() -> None:
    x = da.arange(10, chunks=3)
    f = exprjit.compile("x + y")
    lazy = f.map({"x": x, "y": np.arange(10), "other": object()})
    assert isinstance(lazy, da.Array)
    assert lazy.compute().tolist() == list(range(0, 20, 2))
    assert f.sum({"x": x, "y": 1}).compute() == 55
    with pytest.raises(TypeError, match="do not know their rows"):
        f.first({"x": x, "y": 1})
    # What is not looked at does not count.
    assert f.sum({"x": np.arange(10), "y": 1, "other": x}) == 55


def test_min_and_max_pass_over_empty_parts_only(series: Any) -> None:
    f = exprjit.compile("x + y")
    assert f.min(series[series > 5], 1).compute() == 7
    assert f.max(series, 1, where="x < 3").compute() == 3
    with pytest.raises(exprjit.ExprValueError, match=r"max\(\) of no rows"):
        f.max(series[series > 6], 1).compute()
    with pytest.raises(exprjit.ExprValueError, match=r"min\(\) of no rows"):
        f.min(da.zeros(0, dtype="int64"), 1).compute()
    # The second parts have different indexes, so that the rows do not belong together.
    other = series.map_partitions(lambda part: part.reset_index(drop=True))
    for kernel in ("min", "max", "sum", "map"):
        with pytest.raises(exprjit.ExprValueError, match="differ in their indexes"):
            getattr(f, kernel)(series, other).compute()


def test_what_is_wrong_is_told_at_once(series: Any) -> None:
    from dask import bag, delayed

    f, g = exprjit.compile("x"), exprjit.compile("x + y")
    x = da.arange(10, chunks=3)
    for column in (x, series):
        for dtype in ("foo", "bool", "uint64", float, 3):
            with pytest.raises(exprjit.ExprTypeError, match="dtype must be one of"):
                f.map(column, dtype=dtype)
        assert f.map(column, dtype=np.int8).dtype == np.int8
        for threads in (-3, 0, 1.5):
            with pytest.raises(exprjit.ExprValueError, match="threads must be"):
                f.sum(column, threads=threads)
        with pytest.raises(exprjit.ExprValueError, match="errors must be one of"):
            f.map(column, errors="ignore")
        with pytest.raises(exprjit.ExprTypeError, match="integers of up to 64 bits, not floats"):
            g.count(column, column / 2)
        for value in (1.5, None, "text", [1, 2]):
            with pytest.raises(exprjit.ExprTypeError, match="'y' must be an integer, not"):
                g.map(column, value)
        with pytest.raises(exprjit.ExprOverflowError, match="'y' does not fit"):
            g.map(column, 1 << 70)
        for value in (delayed(3), delayed(abs)(3), bag.from_sequence([3])):
            for call in (
                lambda column=column, value=value: g.map(column, value),
                lambda column=column, value=value: g.sum(column, y=value),
                lambda column=column, value=value: g.map({"x": column, "y": value}),
                lambda column=column, value=value: f.map(column, where=value),
                lambda value=value: f.map(value),
            ):
                with pytest.raises(exprjit.ExprTypeError, match="hold, not an object of type"):
                    call()
    with pytest.raises(exprjit.ExprTypeError, match="'y' must be an integer, not float64"):
        g.map(series, series.mean())
    for kernel in ("map", "sum"):
        with pytest.raises(exprjit.ExprValueError, match=r"not broadcast: .* \(10,\).* \(4,\)"):
            getattr(g, kernel)(x, x[:4])
        with pytest.raises(exprjit.ExprValueError, match=r"not broadcast: .*'where'"):
            getattr(f, kernel)(x, where=np.ones(3, bool))


def test_errors_tell_the_row_of_all_rows() -> None:
    numbers = np.arange(7 * 11 * 5).reshape(7, 11, 5)
    lazy = da.from_array(numbers, chunks=(3, 4, 2))
    f = exprjit.compile("1 / (x - y)")
    for row in (0, 5, 123, 200, 384):
        with pytest.raises(ZeroDivisionError, match=rf"y = 0, in row {row}\n") as caught:
            f.map(lazy, row).compute()
        assert caught.value.row == row
        with pytest.raises(ZeroDivisionError, match=rf"y = 0, in row {row}\n") as caught:
            f.sum(lazy, row).compute()
        assert caught.value.row == row
    with pytest.raises(OverflowError, match="result outside int8: 900, in row 9") as failed:
        exprjit.compile("x").map(
            da.arange(10, chunks=9) * 100, where="x > 800", dtype="int8"
        ).compute()
    assert failed.value.row == 9
    # The rows are those of what the columns broadcast to.
    x, y = da.arange(3, chunks=2), da.arange(4, chunks=3)[:, None] * 10
    with pytest.raises(ZeroDivisionError, match="in row 11") as broadcast:
        exprjit.compile("1 / (x + y - 32)").map(x, y).compute()
    assert broadcast.value.row == 11


def test_errors_tell_the_block_where_the_row_is_not_known(series: Any) -> None:
    f = exprjit.compile("1 / (x - 5)")
    for call in (f.map, f.sum, f.min):
        with pytest.raises(ZeroDivisionError, match="in row 1 of partition 1\n") as caught:
            call(series).compute()
        assert caught.value.row is None
        with pytest.raises(ZeroDivisionError, match=r"in row 1 of block \(1,\)\n") as caught:
            call(series.to_dask_array()).compute()
        assert caught.value.row is None


def test_on_a_cluster_of_two_processes(child: Child) -> None:
    pytest.importorskip("distributed")
    answer = child(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        import numpy as np
        import dask.array as da
        import exprjit

        def main():
            from dask.distributed import Client, LocalCluster
            cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                                   dashboard_address=None, silence_logs=50)
            with cluster, Client(cluster) as client:
                x = np.arange(100_000)
                lazy = da.from_array(x, chunks=5_000)
                f = exprjit.compile("x * x % 1000003")
                assert (f(lazy).compute() == f(x)).all()
                assert f.sum(lazy).compute() == int(f(x).sum())
                pids = client.run(os.getpid)
                assert len(set(pids.values())) == 2 and os.getpid() not in pids.values()
            print("done")

        if __name__ == "__main__":
            main()
        """,
        timeout=120,
    )
    assert answer.split()[-1] == "done"


def test_the_rows_of_a_data_frame_of_which_nothing_is_looked_at() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"name": list("abcde")})
    f, blocks = exprjit.compile("7"), dd.from_pandas(frame, npartitions=2)
    assert f.count(blocks).compute() == f.count({"x": da.arange(5, chunks=2)}).compute() == 5
    assert f.map(blocks).compute().tolist() == [7] * 5

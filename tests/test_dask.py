"""Columns of Dask: lazy, by blocks, in other processes."""

from __future__ import annotations

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
    with pytest.raises(ZeroDivisionError, match="y = 0, in row 0"):
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

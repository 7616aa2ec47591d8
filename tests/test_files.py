"""The commands over files: every format in and out, chunks, nulls, errors, pipes, interrupts."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from children import Child

from exprjit.tools import cli, csv_source, job, progress, sinks, sources
from exprjit.tools.files import FORMATS

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

# This depends on other libraries more than on the version of Python.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


class Printed(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Printed]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``run(*argv)`` through `main`, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run_(*argv: object) -> Printed:
        return Printed(cli.main([str(word) for word in argv]), *capsys.readouterr())

    return run_


def process(*argv: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [sys.executable, "-m", "exprjit", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        **more,
    )


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows at a time that small files have many chunks."""
    monkeypatch.setattr(sources, "ROWS", 7)
    monkeypatch.setattr(sinks, "ROWS", 20)
    monkeypatch.setattr(csv_source, "BLOCK", 50)


#: A table with nulls, and with columns that no formula can use.
TABLE = {
    "price": [100, 250, None, 300, 7],
    "qty": [2, 0, 5, 7, None],
    "name": ["a, b", "c", 'd"e', None, "f"],
    "flag": [True, False, True, None, True],
    "ratio": [1.5, 2.0, None, 3.25, 4.0],
}


def write(table: Any, path: str) -> str:
    """Write a table as the ending says; Arrow files in batches of 3 rows."""
    ending = path.rsplit(".", 1)[1]
    if ending in ("parquet", "pq"):
        pq.write_table(table, path, row_group_size=4)
    elif ending == "csv":
        from pyarrow import csv

        csv.write_csv(table, path)
    elif ending == "npy":
        types = [(f.name, f.type.to_pandas_dtype()) for f in table.schema]
        columns = [table[name].to_numpy() for name in table.column_names]
        array = np.array(list(zip(*columns, strict=True)), types)
        np.save(path, array[array.dtype.names[0]] if len(types) == 1 else array)
    else:
        make = pa.ipc.new_stream if ending == "arrows" else pa.ipc.new_file
        with pa.OSFile(path, "wb") as file, make(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path


def read(path: str) -> Any:
    """What a file holds, by what reads it elsewhere."""
    ending = path.rsplit(".", 1)[1]
    if ending == "parquet":
        return pq.read_table(path)
    if ending == "csv":
        from pyarrow import csv

        return csv.read_csv(path)
    if ending == "npy":
        return np.load(path)
    open_ = pa.ipc.open_stream if ending == "arrows" else pa.ipc.open_file
    return open_(pa.memory_map(path)).read_all()


# Every format. -------------------------------------------------------------------------------

ENDINGS = ["csv", "parquet", "pq", "arrow", "feather", "ipc", "arrows"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_commands_over_every_format(run: Run, ending: str) -> None:
    path = write(pa.table(TABLE), f"d.{ending}")
    assert run("map", "price * qty", path) == (0, "200\n0\nNA\n2100\nNA\n", "")
    assert run("count", "price * qty", path) == (0, "2\n", "")
    assert run("count", "flag and price", path) == (0, "2\n", "")
    assert run("count", "price > 7", path, "--where=flag") == (0, "1\n", "")
    status, out, err = run("filter", "price > 100 and qty", path)
    assert (status, err) == (0, "")
    ratio = "3.25"
    assert out == f"price,qty,name,flag,ratio\n300,7,,,{ratio}\n"
    assert run("filter", "qty - 5", path, "--columns=name,qty").out == (
        'name,qty\n"a, b",2\nc,0\n,7\n'
    )
    assert run("map", "qty + 1", path, "--columns=name", "--name=more").out == (
        'name,more\n"a, b",3\nc,1\n"d""e",6\n,8\nf,\n'
    )


def test_arrays(run: Run) -> None:
    np.save("x.npy", np.arange(10, dtype="int16") - 3)
    assert run("count", "x % 7 == 0", "x.npy") == (0, "1\n", "")
    assert run("map", "value * 2", "x.npy").out == "".join(f"{2 * (x - 3)}\n" for x in range(10))
    assert run("filter", "x > 4", "x.npy").out == "x\n5\n6\n"
    assert run("map", "x * k", "x.npy", "k=100", "--where=x > 4").out == "500\n600\n"
    assert run("map", "x", "x.npy", "--append").out.startswith("x,result\n-3,-3\n")
    for kind in ("bool", "uint8", ">i4", "<u2", "int64", "int8", "uint32"):
        np.save("x.npy", np.array([0, 1, 1, 0], kind))
        assert run("map", "x + 1", "x.npy").out == "1\n2\n2\n1\n"
    np.save("x.npy", np.arange(20)[::-1][::3])
    assert run("count", "x > 10", "x.npy").out == "3\n"
    np.save("x.npy", np.arange(0))
    assert run("count", "x > 10", "x.npy").out == "0\n"


def test_arrays_of_fields(run: Run) -> None:
    kind = [("x", ">i4"), ("y", "u1"), ("z", "f8"), ("text", "U3")]
    np.save("s.npy", np.array([(1, 2, 0.5, "a"), (-3, 4, 1.5, "b,c")], kind))
    assert run("map", "x * y", "s.npy").out == "2\n-12\n"
    assert run("filter", "x < 0", "s.npy").out == 'x,y,z,text\n-3,4,1.5,"b,c"\n'
    assert run("filter", "x < 0", "s.npy", "-o", "o.npy", "--columns=z,x").status == 0
    assert np.load("o.npy").tolist() == [(1.5, -3)]
    assert run("count", "1", "s.npy").out == "2\n"


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        (("i4", (2,)), "arrays of shape (2,)"),
        (("i4", (1,)), "arrays of shape (1,)"),
        (("i4", (2, 3)), "arrays of shape (2, 3)"),
        (("f4", (2,)), "arrays of shape (2,)"),
        (("U3", (2,)), "arrays of shape (2,)"),
        ([("a", "i4"), ("b", "i4")], "items of type [('a', '<i4'), ('b', '<i4')]"),
    ],
)
@pytest.mark.parametrize("rows", [0, 4])
def test_fields_that_are_more_than_a_number(run: Run, kind: Any, items: str, rows: int) -> None:
    array = np.zeros(rows, [("x", kind), ("y", "i4")])
    array["y"] = np.arange(rows)
    np.save("d.npy", array)
    for command in ("map", "filter", "count"):
        for argv in ([command, "1 + x", "d.npy"], [command, "y", "d.npy", "--where=1 + x"]):
            assert run(*argv) == (
                1,
                "",
                "exprjit: the column 'x' of d.npy must hold integers of up to 64 bits, "
                f"not {items}\n  line 1, column 5\n    1 + x\n        ^\n",
            )
    # They are read past where they are not used, and cannot be written.
    assert run("map", "y", "d.npy").out == "".join(f"{row}\n" for row in range(rows))
    assert run("count", "y", "d.npy").out == f"{max(rows - 1, 0)}\n"
    assert run("filter", "y > 2", "d.npy", "--columns=y").out == "y\n" + "3\n" * (rows == 4)
    told = f"the column 'x' of d.npy is of type {array.dtype['x']}, which cannot be written"
    for argv in (["filter", "y"], ["map", "y", "--append"], ["map", "y", "--columns=x"]):
        for output in ("-", "o.parquet", "o.npy"):
            status, out, err = run(*argv, "d.npy", "-o", output)
            assert (status, out) == (1, "")
            assert err == f"exprjit: {told}\n  hint: choose others with --columns\n"


def test_truth_values_of_other_bytes_than_0_and_1(run: Run) -> None:
    choice = np.array([0, 1, 2, 128, 255], "uint8")
    bytes_ = np.concatenate([choice, np.random.default_rng(1).choice(choice, 1000)])
    fields = np.zeros(len(bytes_), [("y", "i4"), ("x", bool)])
    fields["x"].view("uint8")[:] = bytes_
    truths = [int(byte != 0) for byte in bytes_.tolist()]
    for array in (bytes_.view(bool), fields):
        np.save("d.npy", array)
        assert Path("d.npy").read_bytes().endswith(array.tobytes())
        assert run("map", "x", "d.npy").out == "".join(f"{truth}\n" for truth in truths)
        assert run("map", "7", "d.npy", "--where=x == 1").out == "7\n" * sum(truths)
        assert run("filter", "x", "d.npy", "--columns=x").out == "x\n" + "true\n" * sum(truths)
        assert run("count", "x == 1", "d.npy").out == f"{sum(truths)}\n"
        assert run("filter", "x or 1", "d.npy", "--columns=x", "-o", "o.npy").status == 0
        assert np.load("o.npy").tobytes() == bytes(truths)


@pytest.mark.parametrize("output", ["csv", "parquet", "arrow", "arrows"])
@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "arrows"])
@pytest.mark.usefixtures("short_chunks")
def test_from_every_format_to_every_other(run: Run, ending: str, output: str) -> None:
    table = pa.concat_tables([pa.table(TABLE)] * 9)
    path = write(table, f"d.{ending}")
    rows = table.to_pylist()
    assert run("filter", "price", path, "-o", f"o.{output}") == (0, "", "")
    wanted = [row for row in rows if row["price"]]
    got = read(f"o.{output}").to_pylist()
    blank = {"name": ""} if "csv" in (ending, output) else {}
    assert [{**row, **_blank(row, blank)} for row in got] == [
        {**row, **_blank(row, blank)} for row in wanted
    ]
    assert run("map", "price * qty", path, "-o", f"o.{output}", "--append").status == 0
    got = read(f"o.{output}")
    assert got.column_names == [*TABLE, "result"]
    assert got["result"].type == pa.int64()
    assert got["result"].to_pylist() == [
        None if None in (row["price"], row["qty"]) else row["price"] * row["qty"] for row in rows
    ]
    assert run("map", "price * qty", path, "-o", f"o.{output}", "--name=n").status == 0
    assert read(f"o.{output}").column_names == ["n"]
    assert read(f"o.{output}")["n"].to_pylist() == got["result"].to_pylist()


def _blank(row: dict[str, Any], blank: dict[str, Any]) -> dict[str, Any]:
    """CSV does not tell empty text from none."""
    return {name: row[name] or value for name, value in blank.items()}


@pytest.mark.usefixtures("short_chunks")
def test_arrays_as_output(run: Run) -> None:
    path = write(pa.table({"x": range(50), "y": [v % 3 for v in range(50)]}), "d.parquet")
    assert run("map", "x / y", path, "-o", "o.npy", "--where=y").status == 0
    wanted = [x // (x % 3) for x in range(50) if x % 3]
    result = np.load("o.npy")
    assert (result.dtype, result.tolist()) == (np.int64, wanted)
    assert run("filter", "x % 10 == 0", path, "-o", "o.npy").status == 0
    assert np.load("o.npy").dtype == [("x", "<i8"), ("y", "<i8")]
    assert np.load("o.npy").tolist() == [(x, x % 3) for x in range(0, 50, 10)]
    assert run("count", "x", "o.npy").out == "4\n"
    assert run("filter", "0", path, "-o", "o.npy", "--columns=x").status == 0
    assert np.load("o.npy").shape == (0,)
    names = pa.table({"x": [1], "größe": [2.5]})
    assert run("filter", "x", write(names, "g.parquet"), "-o", "o.npy").status == 0
    assert np.load("o.npy")["größe"].tolist() == [2.5]


def test_a_name_without_an_ending_keeps_the_format(run: Run) -> None:
    path = write(pa.table(TABLE), "d.parquet")
    assert run("filter", "price", path, "-o", "out").status == 0
    assert pq.read_table("out").num_rows == 4
    assert run("map", "price", path, "-o", "out").status == 2
    os.rename("d.parquet", "data")
    assert run("count", "price", "data").status == 2
    assert run("count", "price", "data", "--format=parquet").out == "4\n"


def test_what_is_known_of_a_table_is_kept(run: Run) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=pd.Index(["a", "b", "c"], name="key"))
    frame.to_parquet("d.parquet")
    assert run("filter", "x > 1", "d.parquet", "-o", "o.parquet").status == 0
    assert pd.read_parquet("o.parquet").index.tolist() == ["b", "c"]
    assert run("map", "x * 2", "d.parquet", "-o", "o.parquet", "--append").status == 0
    assert pd.read_parquet("o.parquet")["result"].to_dict() == {"a": 2, "b": 4, "c": 6}


# Formulas. -----------------------------------------------------------------------------------


def test_options(run: Run) -> None:
    path = write(pa.table({"x": [1, 2**62], "y": [3, 4]}), "d.parquet")
    assert run("map", "x * 2", path).out == f"2\n{-(2**63)}\n"
    status, _, err = run("map", "x * 2", path, "--overflow=raise")
    assert status == 1
    assert "result outside 64 bits, where x = 4611686018427387904, in row 1 of d.parquet" in err
    assert run("map", "x * 2", path, "--overflow=raise", "--where=x < 5").out == "2\n"
    assert run("map", "y", path, "--backend=interpreter").out == "3\n4\n"
    assert run("map", "y", path, "--params=y,x").out == "3\n4\n"
    status, _, err = run("map", "y", path, "--params=y,z")
    assert (status, "has no column 'z'" in err) == (1, True)
    assert run("map", "-y", path, "y=5").out == "-5\n-5\n"
    assert run("map", "-y + k", path, "k=2**10", "--where=y > k - 1021").out == "1020\n"
    assert run("map", "--", "--xy", write(pa.table({"xy": [4]}), "e.csv")).out == "4\n"
    assert run("map", "o", path, "o=1", "-o", "o.npy").status == 0


def test_formulas_without_columns(run: Run) -> None:
    for ending in ("csv", "parquet", "arrow", "npy"):
        path = write(pa.table({"x": [1, 2, 3], "y": [1, 0, 1]}), f"d.{ending}")
        assert run("count", "1", path).out == "3\n"
        assert run("count", "1", path, "--where=0").out == "0\n"
        assert run("count", "5", path, "--where=y").out == "2\n"
        assert run("map", "7", path).out == "7\n7\n7\n"
        assert run("map", "7", path, "--where=k", "k=0").out == ""
        assert run("map", "x", path, "--where=1").out == "1\n2\n3\n"
        assert run("map", "x", path, "--where=0").out == ""
        assert run("filter", "1", path).out == "x,y\n1,1\n2,0\n3,1\n"
        assert run("map", "1 / 0", path).status == 1


def test_rows_that_the_filter_drops_cannot_fail(run: Run) -> None:
    path = write(pa.table({"x": [6, 5, None, 4], "y": [2, 0, 0, None]}), "d.csv")
    assert run("map", "x / y", path, "--where=y").out == "3\n"
    assert run("map", "x", path, "--where=6 / (y + 1)", "--append").out == (
        "x,y,result\n6,2,6\n5,0,5\n,0,\n"
    )
    assert run("count", "x / y", path, "--where=x > 5").out == "1\n"
    assert run("filter", "x / y", path, "--where=x > 5").out == "x,y\n6,2\n"


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
@pytest.mark.usefixtures("short_chunks")
def test_a_filter_cannot_fail_where_the_formula_has_nulls(run: Run, ending: str) -> None:
    # In row 33, which is in a later chunk; in row 34 the filter passes without the formula.
    x = [None if row in (33, 34) else row for row in range(40)]
    y = [0 if row == 33 else 1 for row in range(40)]
    path = write(pa.table({"x": x, "y": y}), f"d.{ending}")
    where = "--where=10 / y"
    assert run("count", "x + 1", path, where) == (0, "38\n", "")
    lines = [f"{x[row]},1\n" for row in range(40) if row not in (33, 34)]
    assert run("filter", "x + 1", path, where) == (0, "x,y\n" + "".join(lines), "")
    rows = ["NA" if row == 34 else str(row) for row in range(40) if row != 33]
    assert run("map", "x", path, where) == (0, "\n".join(rows) + "\n", "")
    assert run("map", "x", path, where, "--append", "-o", "o.parquet") == (0, "", "")
    assert pq.read_table("o.parquet")["x"].to_pylist() == x[:33] + x[34:]
    for row in (3, 35):
        y[row] = 0
        path = write(pa.table({"x": x, "y": y}), f"d.{ending}")
        for command in ("map", "filter", "count"):
            err = run(command, "x", path, where).err
            assert f"division by zero, where y = 0, in row {row} of d.{ending}\n" in err
        y[row] = 1
    path = write(pa.table({"x": pa.array([None, None], pa.int64()), "y": [1, 2]}), f"d.{ending}")
    assert run("count", "x", path, "--where=1 / 0") == (0, "0\n", "")
    assert run("map", "x", path, "--where=1 / 0") == (0, "", "")
    assert "division by zero" in run("map", "y", path, "--where=1 / 0").err


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "npy"])
@pytest.mark.usefixtures("short_chunks")
def test_a_row_that_fails_is_told_by_its_number_in_the_file(run: Run, ending: str) -> None:
    for row in (0, 6, 7, 33):
        x = [1 if place != row else 0 for place in range(40)]
        path = write(pa.table({"x": x, "y": x}), f"d.{ending}")
        for command in ("map", "filter", "count"):
            status, _, err = run(command, "5 / x", path)
            assert status == 1
            assert err.startswith(
                f"exprjit: division by zero, where x = 0, in row {row} of d.{ending}\n"
                "  line 1, column 1\n    5 / x\n    ^~~~~\n"
            )
            assert f"in row {row} of" in run(command, "x", path, "--where=5 / y").err


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
@pytest.mark.usefixtures("short_chunks")
def test_a_row_that_an_array_cannot_hold_is_told_by_its_number_too(run: Run, ending: str) -> None:
    for row in (2, 6, 8, 33):
        x = [None if place == row else 1 for place in range(40)]
        path = write(pa.table({"x": x, "y": [place % 3 for place in range(40)]}), f"d.{ending}")
        for argv, column in (
            (["map", "x"], "result"),
            (["map", "x", f"--where=y == {row % 3}"], "result"),
            (["map", "y", "--append"], "x"),
            (["map", "y", "--append", f"--where=y == {row % 3}"], "x"),
            (["map", "y", "--append", "--where=1"], "x"),
            (["filter", f"y == {row % 3}"], "x"),
            (["filter", "1"], "x"),
        ):
            status, out, err = run(argv[0], argv[1], path, *argv[2:], "-o", "o.npy")
            assert (status, out) == (1, "")
            assert err.startswith(
                "exprjit: a .npy file cannot hold that there is no value in the column "
                f"'{column}', in row {row} of d.{ending}\n"
            )


# Errors. -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["map"], "give a formula and a file: exprjit map 'price * qty' data.csv"),
        (["count", "x"], "give a formula and a file"),
        (["count", "x=1", "d.csv"], "'x=1' is no formula"),
        (["count", "x", "d.csv", "more"], "'more' is not NAME=VALUE"),
        (["count", "x", "d.csv", "z=1"], "'z' is not a parameter of the formula"),
        (["count", "x", "d.txt"], "d.txt: unknown format; known are csv (.csv), parquet (.parquet"),
        (["count", "x", "data"], "npy (.npy)"),
        (["count", "x", "-"], "say what standard input holds: --format=csv|parquet|arrow|npy"),
        (["count", "x", "d.csv", "--format=xls"], "--format is one of csv, parquet, arrow, npy"),
        (["count", "x", "d.csv", "-o", "x.csv"], "there is no option -o, and the formula is"),
        (["map", "x", "d.csv", "-oo.csv"], "'-oo.csv' has to be two words: -o o.csv"),
        (["filter", "x", "d.csv", "-oo.csv"], "'-oo.csv' has to be two words: -o o.csv"),
        (["map", "--xy", "d.csv"], "exprjit map -- '--xy'"),
        (["map", "x", "d.csv", "-o"], "--output needs a value: --output=FILE"),
        (["map", "x", "d.csv", "-o", "x.xls"], "x.xls: unknown format"),
        (["filter", "x", "d.csv", "-o", "x.xls"], "x.xls: unknown format"),
        (["map", "x", "d.csv", "--append", "--columns=x"], "give one of them"),
        (["map", "x", "d.csv", "--columns=x,y,x"], "--columns: 'x' is given twice"),
        (["filter", "x", "d.csv", "--columns=x,x", "-o", "o.npy"], "'x' is given twice"),
    ],
)
def test_a_wrong_command_line_is_explained(run: Run, argv: Sequence[str], words: str) -> None:
    write(pa.table({"x": [1]}), "d.csv")
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("exprjit: ")
    assert words in err
    assert err.endswith(f"\nexprjit {argv[0]} --help explains\n")


def test_files_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    def fails(*argv: object) -> str:
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert err.startswith("exprjit: ")
        assert "Traceback" not in err
        return err

    (tmp_path / "folder.csv").mkdir()
    whole = Path(write(pa.table({"x": range(1000)}), "whole.parquet")).read_bytes()
    arrow = Path(write(pa.table({"x": range(1000)}), "whole.arrow")).read_bytes()
    stream = Path(write(pa.table({"x": range(1000)}), "whole.arrows")).read_bytes()
    npy = Path(write(pa.table({"x": range(1000)}), "whole.npy")).read_bytes()
    for ending in FORMATS:
        assert f"none.{ending}: No such file or directory" in fails("count", "x", f"none.{ending}")
        Path(f"empty.{ending}").write_bytes(b"")
        assert f"empty.{ending}" in fails("count", "x", f"empty.{ending}")
    assert "folder.csv: Is a directory" in fails("count", "x", "folder.csv")
    for name, content in (
        ("d.parquet", b"PAR1 and so on PAR1"),
        ("d.parquet", whole[:-30]),
        ("d.parquet", whole[: len(whole) // 2] + whole[len(whole) // 2 + 9 :]),
        ("d.arrow", b"anything"),
        ("d.arrow", arrow[:-20]),
        ("d.arrow", b"FEA1" + bytes(100)),
        ("d.arrows", stream[: len(stream) // 2]),
        ("d.npy", b"anything"),
        ("d.npy", npy[:-9]),
        ("d.npy", npy[:20]),
    ):
        Path(name).write_bytes(content)
        assert f"exprjit: {name}" in fails("map", "x", name, "-o", "o.csv")
        assert not os.path.exists("o.csv")
    assert "first version of Feather" in _after(fails, "d.feather", b"FEA1" + bytes(100))
    for array, words in (
        (np.zeros((2, 2), int), "d.npy must have one dimension, not 2"),
        (np.array(5), "d.npy must have one dimension, not 0"),
        (np.array([1, None]), "d.npy holds Python objects, which cannot be read"),
    ):
        np.save("d.npy", array)
        assert words in fails("count", "x", "d.npy")
    np.savez("d.npz", np.arange(3))
    assert "is an archive of arrays" in fails("count", "x", "d.npz", "--format=npy")
    np.save("d.npy", np.arange(3))
    err = fails("count", "x + y", "d.npy")
    assert "d.npy is one column, and there are 2 parameters: x, y" in err


def _after(fails: Callable[..., str], name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return fails("count", "x", name)


def npy(header: str | bytes, version: bytes = b"\1\0", size: int | None = None) -> bytes:
    """The begin of a .npy file."""
    text = header if isinstance(header, bytes) else header.encode()
    width = 2 if version == b"\1\0" else 4
    length = (len(text) if size is None else size).to_bytes(width, "little")
    return b"\x93NUMPY" + version + length + text


HEADER = "{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}"
DAMAGED = "has a header that cannot be read"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"x,y\n1,2\n", "is no .npy file\n  hint: say what it is with --format"),
        (b"\x93NUMPX\1\0", "is no .npy file\n  hint: say what it is with --format"),
        (b"\x80\x04K\x05.", "is no .npy file\n  hint: say what it is with --format"),
        (b"PK\3\4 and so on", "is an archive of arrays, not a .npy file"),
        (b"PK\5\6" + bytes(18), "is an archive of arrays, not a .npy file"),
        (npy(HEADER), "is cut off: it has 0 of 3 rows"),
        (npy(HEADER) + bytes(23), "is cut off: it has 2 of 3 rows"),
        (
            npy(HEADER.replace("3", "1234567")) + bytes(8000),
            "is cut off: it has 1,000 of 1,234,567",
        ),
        (npy(HEADER, b"\4\2"), "is of an unknown version of the format, 4.2"),
        (npy(HEADER)[:9], DAMAGED),
        (npy(HEADER)[:40], DAMAGED),
        (npy(HEADER.replace("3", "-3")), DAMAGED),
        (npy(HEADER.replace("3", "3.5")), DAMAGED),
        (npy(HEADER.replace("<i8", "V0")), DAMAGED),
        (npy(HEADER.replace("<i8", "what")), DAMAGED),
        (npy("(" * 9000), DAMAGED),
        (npy("-" * 9000 + "1"), DAMAGED),
        (npy("1" + "+1" * 4500), DAMAGED),
        (npy(b"\xff" + HEADER.encode(), b"\3\0"), DAMAGED),
        (npy(HEADER, b"\2\0", 2**32 - 1), "has a header of 4,294,967,295 bytes, which is too long"),
    ],
)
def test_arrays_that_cannot_be_read(run: Run, content: bytes, words: str) -> None:
    Path("d.npy").write_bytes(content)
    for argv in (["count", "x", "d.npy"], ["map", "x", "d.npy", "--format=npy"]):
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert err.startswith(f"exprjit: d.npy {words}")
        assert err.count("\n") == words.count("\n") + 1


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"])
def test_arrays_of_every_version(run: Run, version: bytes) -> None:
    kinds = [("x", "<i8"), ("größe", "<i8")]
    if version == b"\3\0":
        # Of these there may be many.
        kinds += [(f"\\{'数' * 9}😀{place}", "<i8") for place in range(150)]
    array = np.array([tuple(range(row, row + len(kinds))) for row in range(3)], kinds)
    header = f"{{'descr': {kinds!r}, 'fortran_order': False, 'shape': (3,)}}\n"
    text = header.encode("utf-8" if version == b"\3\0" else "latin-1")
    Path("d.npy").write_bytes(npy(text, version) + array.tobytes())
    assert np.load("d.npy").dtype == array.dtype
    assert run("map", "x * 2", "d.npy").out == "0\n2\n4\n"
    assert run("filter", "x == 1", "d.npy", "-o", "o.npy").status == 0
    assert np.load("o.npy").tolist() == array[1:2].tolist()
    assert np.load("o.npy").dtype == array.dtype


def test_errors_say_where_a_formula_names_the_column(run: Run) -> None:
    for ending in ("csv", "parquet", "arrow"):
        path = write(pa.table({"price": [1], "qty": [2]}), f"d.{ending}")
        assert run("map", "half(v) = v / 2; half(prize)", path) == (
            1,
            "",
            f"exprjit: d.{ending} has no column 'prize' (did you mean price?)\n"
            "  line 1, column 23\n"
            "    half(v) = v / 2; half(prize)\n"
            "                          ^~~~~\n"
            "  hint: it has 'price', 'qty'\n",
        )
        assert "  where_ + 1\n    ^~~~~~\n" in run("map", "qty", path, "--where=where_ + 1").err
        err = run("filter", "qty", path, "--columns=qty,cost").err
        assert "has no column 'cost'\n  hint: it has" in err
        err = run("map", "qty", path, "--append", "--name=price").err
        assert f"d.{ending} has a column 'price' already\n  hint: call the new one" in err
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["x", "x", "y"]), "t.parquet")
    assert "t.parquet has 2 columns 'x'" in run("map", "x", "t.parquet").err
    assert run("map", "y", "t.parquet").out == "1\n"


def test_columns_that_are_called_like_reserved_words(run: Run) -> None:
    path = write(pa.table({"class": [1], "in": [2], "x": [3]}), "d.csv")
    rename = "a column that is called so has to be renamed before a formula can name it\n"
    for argv, word, place, hint in (
        (["map", "1 + class", path], "class", 5, rename),
        (["count", "x", path, "--where=class"], "class", 1, rename),
        (
            ["filter", "in", path],
            "in",
            1,
            f"`==` compares with one value; join several by `or`; {rename}",
        ),
    ):
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert err.startswith(
            f"exprjit: '{word}' is a reserved word, not a name\n  line 1, column {place}\n"
        )
        assert err.endswith(f"\n  hint: {hint}")
    assert "renamed" not in run("map", "x +", path).err
    # It can be written all the same.
    assert run("filter", "x", path).out == "class,in,x\n1,2,3\n"


def test_columns_that_hold_no_integers(run: Run) -> None:
    from decimal import Decimal

    columns = {
        "a": (pa.array([1.5]), "floats"),
        "b": (pa.array(["x"]), "items of type string"),
        "c": (pa.array([1], pa.uint64()), "unsigned 64-bit numbers"),
        "d": (pa.array([Decimal("1.5")]), "decimal numbers"),
        "e": (pa.array([1], pa.timestamp("s")), "dates"),
        "f": (pa.array(["x"]).dictionary_encode(), "dictionary-encoded items"),
        "g": (pa.array([[1]]), "lists"),
    }
    table = pa.table({name: column for name, (column, _) in columns.items()})
    for path in (write(table, "d.arrow"), write(table, "d.parquet")):
        for name, (_, words) in columns.items():
            for rows in (path, write(table[:0], "e.arrow")):
                assert run("count", f"1 + {name}", rows) == (
                    1,
                    "",
                    f"exprjit: the column '{name}' of {rows} must hold integers of up to 64 bits, "
                    f"not {words}\n  line 1, column 5\n    1 + {name}\n        ^\n",
                )
    np.save(
        "d.npy", np.array([(1.5, 1, 1, 2)], [("a", "f4"), ("b", "u8"), ("c", "M8[s]"), ("x", int)])
    )
    for name, words in (("a", "floats"), ("b", "unsigned"), ("c", "dates")):
        err = run("count", name, "d.npy").err
        assert (
            f"the column '{name}' of d.npy must hold integers of up to 64 bits, not {words}" in err
        )
        # What to write in Python does not help here.
        assert "hint" not in err
    np.save("d.npy", np.array([(1j, 1)], [("z", complex), ("x", int)]))
    assert run("count", "x", "d.npy").out == "1\n"
    assert "'z' of d.npy is of type complex128, which cannot be written" in (
        run("filter", "x", "d.npy").err
    )


def test_columns_that_a_format_cannot_hold(run: Run) -> None:
    path = write(pa.table({"x": [1], "text": ["a"], "list": [[1]]}), "d.parquet")
    assert "CSV cannot hold the column 'list', which is of type list<" in (
        run("filter", "x", path).err
    )
    err = run("filter", "x", path, "-o", "o.npy").err
    assert "a .npy file cannot hold the column 'text', which is of type string" in err
    assert "choose others with --columns" in err
    assert run("filter", "x", path, "--columns=x,text").out == "x,text\n1,a\n"
    assert run("filter", "x", path, "-o", "o.arrow").status == 0
    assert read("o.arrow").to_pylist() == [{"x": 1, "text": "a", "list": [1]}]
    path = write(pa.table({"x": [1, None, 3]}), "d.arrow")
    err = run("map", "x", path, "-o", "n.npy").err
    told = "a .npy file cannot hold that there is no value in the column 'result', in row 1 of"
    assert f"{told} d.arrow\n  hint: write Parquet" in err
    assert not os.path.exists("n.npy")
    zone = pa.array([None, 1], pa.timestamp("s", "No/Where"))
    path = write(pa.table({"x": [1, 2], "when": zone}), "d.arrow")
    for output in ("-", "o.csv"):
        status, _, err = run("filter", "x", path, "-o", output)
        words = "exprjit: CSV cannot hold the column 'when', which is of type timestamp[s, "
        assert (status, err.startswith(words)) == (1, True), err
        assert err.endswith("choose others with --columns\n")


#: Types that have views in them, which are not copied with the rows that they are in.
VIEWS = {
    "text": (pa.string_view(), ["a, b", None, "more than twelve bytes"]),
    "bytes": (pa.binary_view(), [b"a", None, b"more than twelve bytes"]),
    "list": (pa.list_(pa.string_view()), [["a", None], None, ["b"]]),
    "large": (pa.large_list(pa.string_view()), [["a", None], None, ["b"]]),
    "fixed": (pa.list_(pa.string_view(), 1), [["a"], None, ["b"]]),
    "struct": (pa.struct({"a": pa.string_view()}), [{"a": "b"}, None, {"a": None}]),
    "map": (pa.map_(pa.string_view(), pa.binary_view()), [[("a", b"b")], None, []]),
}


@pytest.mark.parametrize("ending", ["arrow", "arrows", "parquet"])
@pytest.mark.usefixtures("short_chunks")
def test_views_of_texts(run: Run, ending: str) -> None:
    columns = {name: pa.array(values * 5, kind) for name, (kind, values) in VIEWS.items()}
    if ending == "parquet":
        # Arrow cannot write the others.
        columns = {name: columns[name] for name in ("text", "bytes")}
    else:
        indices = pa.array([0, None, 1] * 5)
        texts = pa.array(["a", "b"], pa.string_view())
        columns["coded"] = pa.DictionaryArray.from_arrays(indices, texts)
    table = pa.table({"x": [0, 1, 2] * 5, **columns})
    path = write(table, f"d.{ending}")
    for output in ("o.arrow", "o.parquet"):
        assert run("filter", "x", path, "-o", output) == (0, "", "")
        wanted = [row for row in table.to_pylist() if row["x"]]
        assert read(output).to_pylist() == wanted
        assert run("map", "x", path, "--append", "--where=x > 1", "-o", output).status == 0
        assert read(output).drop_columns("result").to_pylist() == wanted[1::2]
    assert run("filter", "x > 1", path, "--columns=x,text,bytes") == (
        0,
        "x,text,bytes\n" + "2,more than twelve bytes,more than twelve bytes\n" * 5,
        "",
    )
    if ending != "parquet":
        assert run("map", "x", path, "--columns=coded").out == "coded,result\n" + (
            "a,0\n,1\nb,2\n" * 5
        )


def test_what_polars_writes(run: Run) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": [1, 2, 3], "s": ["a", "b", None]})
    frame.write_ipc("pl.arrow")
    frame.write_parquet("pl.parquet")
    for path in ("pl.arrow", "pl.parquet"):
        assert run("filter", "x > 1", path) == (0, "x,s\n2,b\n3,\n", "")
        assert run("filter", "x > 1", path, "-o", "o.arrow").status == 0
        assert pl.read_ipc(Path("o.arrow").read_bytes()).equals(frame[1:])


def test_columns_of_which_rows_cannot_be_picked(run: Run) -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"])
    path = write(pa.table({"x": [1, 2, 3], "runs": runs}), "d.arrow")
    for command in (["filter", "x > 1"], ["map", "x", "--append", "--where=x > 1"]):
        status, _, err = run(*command, path, "-o", "o.arrow")
        assert status == 1
        assert err.startswith("exprjit: the column 'runs' of d.arrow is of type run_end_encoded<")
        assert "of which Arrow cannot pick rows\n  hint: choose others" in err
        assert not os.path.exists("o.arrow")
    assert run("map", "x", path, "--append", "-o", "o.arrow").status == 0


@pytest.mark.parametrize("ending", FORMATS)
def test_a_name_that_is_no_utf8(run: Run, ending: str) -> None:
    name = os.fsdecode(b"\xff.") + ending
    path = write(pa.table({"x": [1, 2, 3]}), f"d.{ending}")
    assert run("filter", "x > 1", path, "-o", name) == (0, "", "")
    assert run("map", "x", name) == (0, "2\n3\n", "")


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "npy"])
def test_pandas_is_not_imported_by_the_way(child: Child, tmp_path: Path, ending: str) -> None:
    """That takes longer than most files, and loses interrupts."""
    path = write(pa.table({"x": [1, 2, 3]}), str(tmp_path / f"d.{ending}"))
    answer = child(
        f"""
        import sys
        from exprjit.tools import cli

        for argv in (
            ["count", "x", {path!r}],
            ["count", "1", {path!r}],
            ["filter", "x > 1", {path!r}, "-o", {path!r}],
            ["map", "x", {path!r}, "--where=x > 1", "-o", {path!r}, "--append"],
            ["map", "x / 2", {path!r}],
        ):
            print(cli.main(argv))
        print("pandas" in sys.modules)
        """
    )
    assert answer.split() == ["3", "0", "3", "0", "0", "0", "1", "1", "0", "False"]


def test_arrow_and_numpy_may_be_missing(child: Child) -> None:
    for name in ("pyarrow", "numpy"):
        answer = child(
            f"""
            import sys
            sys.modules[{name!r}] = None
            from exprjit.tools import cli

            sys.stderr = sys.stdout
            for command in ("map", "filter", "count"):
                print(cli.main([command, "x", "data.csv"]))
            print(cli.main(["count", "x", "data.txt"]))
            """
        )
        lines = answer.splitlines()
        told = f"exprjit: files need {name}, which cannot be imported: "
        assert [line.startswith(told) for line in lines[0:9:3]] == [True] * 3
        assert lines[1:9:3] == ["  hint: pip install 'exprjit[files]'"] * 3
        assert (lines[2:9:3], lines[-1]) == (["1"] * 3, "2")


# CSV. ----------------------------------------------------------------------------------------


def csv(text: str | bytes, name: str = "d.csv") -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_csv_passes_text_as_it_stands(run: Run) -> None:
    text = (
        "x,when,amount,text\n"
        '1,2020-01-01,1.10,"a ""quoted"", text"\n'
        "2,01/02/03,007,  blanks  \n"
        '3,,1e3,"two\nlines"\n'
    )
    assert run("filter", "x != 2", csv(text)).out == (
        'x,when,amount,text\n1,2020-01-01,1.10,"a ""quoted"", text"\n3,,1e3,"two\nlines"\n'
    )
    assert run("map", "x", csv(text), "--append").out.splitlines()[2] == (
        "2,01/02/03,007,  blanks  ,2"
    )


def test_csv_is_written_in_one_way(run: Run) -> None:
    text = '\ufeff"x",t,u\r\n1,"",NA\r\n\r\n"2","q",a"b\r\n3,"a\r\nb","c,d"'
    assert run("filter", "x", csv(text), "-o", "o.csv") == (0, "", "")
    assert Path("o.csv").read_bytes() == b'x,t,u\n1,,NA\n2,q,"a""b"\n3,"a\r\nb","c,d"\n'


def test_csv_that_is_no_utf8_passes_too(run: Run) -> None:
    path = csv("x,y,text\n1,true,é\n2,false,\n".encode("latin-1") + b'3,true,"a,\xe9"\n')
    assert run("filter", "x and y", path, "-o", "o.csv").status == 0
    assert Path("o.csv").read_bytes() == b'x,y,text\n1,true,\xe9\n3,true,"a,\xe9"\n'
    assert "in UTF-8" in run("count", "x", csv("x,é\n1,2\n".encode("latin-1"))).err


def test_csv_in_its_varieties(run: Run) -> None:
    for text in (
        "x,y\n1,2\n3,4\n",
        "x,y\r\n1,2\r\n3,4\r\n",
        "x,y\n1,2\n3,4",
        "\ufeffx,y\n1,2\n3,4\n",
        '"x","y"\n"1", 2\n\n3 ,4\n\n',
        "y,z,x\n2,,1\n4,a,3\n",
    ):
        assert run("map", "x * 10 + y", csv(text)).out == "12\n34\n"
    assert run("map", "x", csv("x\n")).out == ""
    assert run("map", "x", csv("x\n\n5\n\n")).out == "5\n"
    assert run("filter", "x", csv("x,y\n")).out == "x,y\n"
    assert run("map", "x", csv("x,y\nNA,1\n,2\nnull,3\nNaN,4\n5,5\n")).out == "NA\n" * 4 + "5\n"
    assert run("map", "x + 1", csv("x\ntrue\nFalse\nTRUE\n")).out == "2\n1\n2\n"
    assert run("map", "x + 1", csv("x,y\nNA,1\nfalse,1\n")).out == "NA\n1\n"
    assert run("map", "x", csv("x\n-9223372036854775808\n")).out == f"{-(2**63)}\n"
    assert run("filter", "x", csv("a b,x,\n1,2,3\n")).out == "a b,x,\n1,2,3\n"


def test_values_of_csv_that_are_no_integers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, value, row in (
        ("x\n1\n2\n1.5\n", "1.5", 2),
        ("x,y\n1,2\n9223372036854775808,3\n", "9223372036854775808", 1),
        ("x,y\n" + "1,2\n" * 1_500_000 + "ten,3\n1,2\n", "ten", 1_500_000),
        ("x\n1\ntrue\n", "true", 1),
        ("x\n\n1\n ten \n", "ten", 1),
    ):
        status, _, err = run("count", "1 + x", csv(text))
        assert status == 1
        words = f"the column 'x' of d.csv must hold integers of up to 64 bits, not '{value}', in"
        assert f"{words} row {row:,}\n  line 1, column 5\n" in err.replace("' ten '", "'ten'")
    assert "'x' of d.csv must hold true or false, not '7', in row 1\n" in (
        run("count", "x", csv("x\ntrue\n7\n")).err
    )
    monkeypatch.setattr(csv_source, "BLOCK", 1000)
    late = "x,y\n" + "1,2\n" * 1000 + "1,2.5\n"
    err = run("filter", "x", csv(late), "-o", "o.parquet").err
    assert (
        "the column 'y' of d.csv begins with items of type int64, and has '2.5' in row 1,000\n"
        in err
    )
    assert run("filter", "x > 1", csv(late)) == (0, "x,y\n", "")
    for text, row in (("x,y\n3\n", 0), ("x,y\n1,2\n\n4,5\n3\n", 2), (late + "3\n1,2\n", 1001)):
        err = run("count", "x", csv(text)).err
        assert f"d.csv: CSV parse error in row {row:,}: Expected 2 columns, got 1: 3\n" in err


@pytest.mark.parametrize("block", [50, csv_source.BLOCK])
def test_a_quote_without_an_end(run: Run, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(csv_source, "BLOCK", block)
    rows = "".join(f"{x},b\n" for x in range(2, 1000))
    for head, row in (
        ('1,"oops\n', "row 0"),
        ('"1,a\n', "row 0"),
        ('0,a\n\n1,"oops\n', "row 1"),
        ('0,"a\n, b"\n1,"oops ""quoted""\n', "row 1"),
        ('0,a"b\n' + "1,b\n" * 1500 + '1,"oops\n', "row 1,501"),
        ('\n\n1,"a","\n', "row 0"),
    ):
        for text in (f"x,s\n{head}{rows}", f"x,s\n{head}{rows}".rstrip("\n"), f"x,s\n{head}"):
            for command in (["count", "1"], ["map", "x", "-o", "o.csv"]):
                status, out, err = run(*command, csv(text))
                assert (status, out) == (1, "")
                assert err == f"exprjit: d.csv: a quote that begins in {row} has no end\n"
    err = run("count", "1", csv(f'x,"s\n{rows}')).err
    assert err == "exprjit: d.csv: a quote that begins in the line of names has no end\n"
    # These have one, or are no quotes that begin a field.
    for head in ('1,a"b', '1,"a"', '1,"a""b"', '1,"a"b', "1,'a", '1,a"'):
        assert run("count", "1", csv(f"x,s\n{head}")).out == "1\n"
        assert run("count", "1", csv(f"x,s\n{head}\n{rows}")).out == "999\n"


def test_where_rows_of_csv_end() -> None:
    """Beside a reader that goes from character to character."""
    import random

    def slowly(text: str) -> int:
        end, in_quotes, begins = 0, False, True
        for place, character in enumerate(text):
            if in_quotes:
                # Two quotes are one that does not end them: they are left and entered again.
                in_quotes = character != '"'
                begins = not in_quotes and text[place + 1 : place + 2] == '"'
            elif character == '"' and begins:
                in_quotes, begins = True, False
            else:
                begins = character in ",\r\n"
                if character in "\r\n":
                    end = place + 1
        return end

    rng = random.Random(7)
    pieces = ["a", ",", '"', "\n", '""', ',"x"', "\r\n", ',"q\nr"', '"a""b",', "b", "\r"]
    found = set()
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(14)))
        wanted = slowly(text)
        found.add(wanted)
        got = csv_source.rows_end(text.encode())
        assert got == wanted, text
    assert len(found) > 20
    for text in ('"' + '""a,' * 100_000, 'a,"b""c",' * 30_000, 'a"b,' * 30_000, ',"\n"' * 300_000):
        begin = time.perf_counter()
        assert csv_source.rows_end(text.encode()) == 0
        assert time.perf_counter() - begin < 5


@pytest.mark.usefixtures("short_chunks")
def test_rows_of_csv_over_the_ends_of_blocks(run: Run) -> None:
    lines = ['1,"a, b"', "2,", '3,"two\nlines\r\n, ""and"" more"', "4," + "long" * 40, "", "5,x"]
    text = "x,text\n" + "\n".join(lines * 7) + "\n"
    wanted = "x,text\n" + "\n".join(line for line in lines * 7 if line) + "\n"
    assert run("filter", "x", csv(text)).out == wanted
    assert run("count", "x == 3", csv(text)).out == "7\n"
    # Quotes within a field are characters like others.
    stray = 'x,text\n1,5" pipe\n2,"two\nlines"\n' + "3,y\n" * 40
    out = run("filter", "x < 3", csv(stray)).out
    assert out == 'x,text\n1,"5"" pipe"\n2,"two\nlines"\n'


def test_an_only_column_has_no_empty_lines(run: Run) -> None:
    path = write(pa.table({"x": [1, 2, 3], "text": ["", None, "a"]}), "d.parquet")
    assert run("filter", "x", path, "--columns=text").out == 'text\n""\nNA\na\n'
    path = write(pa.table({"x": [1, None]}), "d.parquet")
    assert run("map", "x", path, "-o", "o.csv").status == 0
    assert Path("o.csv").read_text() == "result\n1\nNA\n"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("short_chunks")
def test_csv_is_quoted_as_the_standard_library_does(run: Run, seed: int) -> None:
    import csv as standard
    import random

    rng = random.Random(seed)
    pieces = ["", ",", '"', "\n", "\r", "a", " ", "é", "1", "'"]
    rows = [
        (place, *("".join(rng.choices(pieces, k=rng.randrange(4))) for _ in range(3)))
        for place in range(60)
    ]
    table = pa.table(dict(zip(["x", "a", "b", "c,d"], zip(*rows, strict=True), strict=True)))
    assert run("filter", "x + 1", write(table, "d.arrow"), "-o", "o.csv").status == 0
    lines = []
    for row in (table.column_names, *rows):
        line = io.StringIO(newline="")
        # Both characters are quoted only if both end lines.
        standard.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    assert Path("o.csv").read_bytes().decode() == "".join(lines)


# Output. -------------------------------------------------------------------------------------


def test_output_is_replaced_only_when_it_is_complete(run: Run, tmp_path: Path) -> None:
    path = write(pa.table({"x": [1, 2, 0]}), "d.parquet")
    for ending in ("csv", "parquet", "arrow", "npy"):
        output = tmp_path / f"o.{ending}"
        output.write_text("before")
        output.chmod(0o604)
        assert run("map", "6 / x", path, "-o", output).status == 1
        assert output.read_text() == "before"
        assert run("map", "6 * x", path, "-o", output).status == 0
        assert output.read_bytes() != b"before"
        assert output.stat().st_mode & 0o777 == 0o604
    assert sorted(os.listdir()) == ["d.parquet", "o.arrow", "o.csv", "o.npy", "o.parquet"]
    old = os.umask(0o027)
    try:
        run("map", "x", path, "-o", "new.csv")
    finally:
        os.umask(old)
    assert os.stat("new.csv").st_mode & 0o777 == 0o640


def test_a_file_may_be_replaced_by_its_own_rows(run: Run) -> None:
    for ending in ("csv", "parquet", "arrow"):
        path = write(pa.table({"x": range(50), "text": ["a"] * 50}), f"d.{ending}")
        assert run("filter", "x % 10 == 0", path, "-o", path).status == 0
        assert read(path)["x"].to_pylist() == [0, 10, 20, 30, 40]


def test_where_output_goes(run: Run, tmp_path: Path) -> None:
    path = write(pa.table({"x": [1, 2]}), "d.parquet")
    (tmp_path / "real.csv").write_text("")
    os.symlink("real.csv", "link.csv")
    assert run("map", "x", path, "-o", "link.csv").status == 0
    assert os.path.islink("link.csv")
    assert Path("real.csv").read_text() == "result\n1\n2\n"
    assert run("map", "x", path, "-o", "-").out == "1\n2\n"
    assert run("filter", "x", path, "-o", "/dev/null").status == 0
    assert not os.path.isfile("/dev/null")
    err = run("map", "x", path, "-o", "none/o.csv").err
    assert err == "exprjit: none/o.csv: No such file or directory\n"
    (tmp_path / "folder.csv").mkdir()
    assert run("map", "x", path, "-o", "folder.csv").err == (
        "exprjit: folder.csv: Is a directory\n"
    )
    os.mkfifo("pipe.npy")
    reader = os.open("pipe.npy", os.O_RDONLY | os.O_NONBLOCK)
    assert "it cannot be a pipe" in run("map", "x", path, "-o", "pipe.npy").err
    os.close(reader)


def test_what_may_not_be_written_is_not_replaced(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(pa.table({"x": [1, 2]}), "d.parquet")
    (tmp_path / "o.csv").write_text("before")
    (tmp_path / "o.csv").chmod(0o444)
    if os.geteuid() == 0:  # Who may write anything.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run("map", "x", path, "-o", "o.csv").err == "exprjit: o.csv: Permission denied\n"
    assert (tmp_path / "o.csv").read_text() == "before"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_output_that_cannot_be_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "d.parquet"
    write(pa.table({"x": range(300_000)}), str(path))
    (tmp_path / f"full.{ending}").symlink_to("/dev/full")
    done = process("map", "x", "d.parquet", "-o", f"full.{ending}", cwd=tmp_path, text=True)
    assert done.returncode == 1
    assert done.stderr == f"exprjit: full.{ending}: No space left on device\n"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "exprjit", "map", "x", str(path)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    told = "exprjit: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_the_first_error_is_told_where_output_cannot_be_written(tmp_path: Path) -> None:
    write(pa.table({"x": [1, 0]}), str(tmp_path / "d.parquet"))
    (tmp_path / "full.csv").symlink_to("/dev/full")
    for output in ("-", "full.csv"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "exprjit", "map", "1 / x", "d.parquet", "-o", output],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert done.stderr.startswith("exprjit: division by zero, where x = 0, in row 1 of d.par")
        assert "No space" not in done.stderr


@pytest.mark.parametrize("output", ["-", "o.csv", "o.parquet"])
def test_errors_of_computing_are_not_blamed_on_the_output(
    run: Run, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    path = write(pa.table({"x": [1, 2]}), "d.parquet")

    def compute(*arguments: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(job.Job, "compute", compute)
    monkeypatch.setattr(cli, "_abandon_output", lambda: None)
    assert run("map", "x", path, "-o", output).err == "exprjit: Cannot allocate memory\n"


# Pipes and processes. ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "arrows", "npy"])
def test_standard_input(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.{ending}"
    write(pa.table({"x": range(1000), "y": [1] * 1000}), str(path))
    format = f"--format={'arrow' if ending == 'arrows' else ending}"
    done = process("filter", "x % 500 == y", "-", format, cwd=tmp_path, input=path.read_bytes())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x,y\n1,1\n501,1\n", b"")
    with path.open("rb") as file:
        done = process("count", "x % 500 == y", "-", format, cwd=tmp_path, stdin=file)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"2\n", b"")
    done = process("count", "z", "-", format, cwd=tmp_path, input=path.read_bytes())
    assert done.returncode == 1
    assert b"exprjit: standard input has no column 'z'" in done.stderr


def test_a_value_on_standard_input_that_is_no_integer(tmp_path: Path) -> None:
    done = process("count", "x", "-", "--format=csv", cwd=tmp_path, input=b"x\n1\nten\n")
    assert done.returncode == 1
    assert (
        b"of standard input must hold integers of up to 64 bits, not 'ten', in row 1\n"
        in done.stderr
    )


def test_an_array_on_standard_input_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    path.write_bytes(npy(HEADER) + bytes(17))
    told = b"exprjit: standard input is cut off: it has 2 of 3 rows\n"
    argv = ("count", "x", "-", "--format=npy")
    assert process(*argv, cwd=tmp_path, input=path.read_bytes()).stderr == told
    with path.open("rb") as file:
        assert process(*argv, cwd=tmp_path, stdin=file).stderr == told


def test_a_pipe_is_not_read_to_its_end_first(tmp_path: Path) -> None:
    """Rows that never end are filtered, until nobody wants more of them."""
    python = f"PYTHONPATH='{ROOT}' '{sys.executable}' -m exprjit"
    rows = f"'{sys.executable}' -c 'print(\"x,y\")\nwhile True: print(\"5,6\\n\" * 50000)'"
    command = f"({rows}) 2>/dev/null | {python} map 'x * y' - --format=csv | head -n 3"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[1]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("30\n30\n30\n141\n", "")


def test_a_file_larger_than_the_memory_that_it_takes(tmp_path: Path) -> None:
    """A row group of 320 MB, and an array of 800 MB that is a hole."""
    rows = 40_000_000
    schema = pa.schema({"x": pa.int64()})
    chunk = pa.record_batch([pa.array(np.full(rows // 40, 7))], schema=schema)
    with pq.ParquetWriter(tmp_path / "d.parquet", schema) as writer:
        table = pa.Table.from_batches([chunk] * 40)
        writer.write_table(table, row_group_size=rows)
    del table
    program = """
import resource, sys
from exprjit.tools import cli
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import numpy, pyarrow.parquet, pyarrow.compute
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
status = cli.main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded
print(status, used)
"""
    for argv in (
        ["count", "x % 8 == 7", "d.parquet"],
        ["map", "x + 1", "d.parquet", "-o", "o.parquet"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *argv],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        status, used = map(int, done.stdout.split()[-2:])
        assert status == 0
        assert used < 120_000, "KiB"
        if argv[0] == "count":
            assert done.stdout.splitlines()[0] == str(rows)
    assert pq.ParquetFile(tmp_path / "o.parquet").metadata.num_rows == rows


def writes_to(process: int, folder: Path) -> bool:
    """Whether a process has a file of a folder open, with a name or without."""
    descriptors = Path(f"/proc/{process}/fd")
    with suppress(FileNotFoundError):
        return any(
            os.readlink(descriptor).startswith(f"{folder}/") for descriptor in descriptors.iterdir()
        )
    return False


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "npy"])
@pytest.mark.parametrize(
    ("signal_", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_signal_leaves_nothing_half_made(
    tmp_path: Path, ending: str, signal_: signal.Signals, code: int
) -> None:
    (tmp_path / f"o.{ending}").write_text("before")
    child = subprocess.Popen(
        [sys.executable, "-m", "exprjit", "map", "x", "-", "--format=csv", "-o", f"o.{ending}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell starts in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdin is not None
    child.stdin.write(b"x\n" + b"5\n" * 3_000_000)
    child.stdin.flush()
    for _ in range(1000):
        if writes_to(child.pid, tmp_path):
            break
        time.sleep(0.01)
    else:
        pytest.fail("no output has been begun")
    time.sleep(0.1)
    child.send_signal(signal_)
    _, err = child.communicate()
    assert (child.returncode, err) == (code, b"")
    assert os.listdir(tmp_path) == [f"o.{ending}"]
    assert (tmp_path / f"o.{ending}").read_text() == "before"


def test_output_without_files_that_have_no_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on file systems that do not have them.
    monkeypatch.setattr(sinks, "_nameless", lambda folder: None)
    (tmp_path / "o.csv").write_text("before")
    text = "x\n" + "1\n" * 300_000 + "a\n"
    (tmp_path / "bad.csv").write_text(text)
    assert run("map", "x", "bad.csv", "-o", "o.csv").status == 1
    assert (tmp_path / "o.csv").read_text() == "before"
    (tmp_path / "good.csv").write_text("x\n1\n")
    assert run("map", "x + 1", "good.csv", "-o", "o.csv").status == 0
    assert (tmp_path / "o.csv").read_text() == "result\n2\n"
    assert sorted(os.listdir(tmp_path)) == ["bad.csv", "good.csv", "o.csv"]


def write_in_groups(path: Path, rows: int) -> None:
    """Write a column x of random numbers, 500,000 at a time."""
    table = pa.table({"x": np.random.default_rng(1).integers(0, 1 << 62, rows)})
    if path.suffix == ".npy":
        np.save(path, table["x"].to_numpy())
    elif path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=500_000)
    else:
        make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=500_000)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows", "npy"])
def test_the_memory_for_a_file_does_not_grow_with_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.{ending}"
    write_in_groups(path, 10_000_000)
    code = f"""
import resource
from exprjit.tools.cli import main
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
with open({str(tmp_path / "small.csv")!r}, "w") as file:
    file.write("x\\n1\\n")
main(["count", "x", file.name])
before = peak()
main(["count", "x > 0", {str(path)!r}])
print(peak() - before)
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    *counts, mebibytes = map(int, child.stdout.split())
    assert counts == [1, 10_000_000]
    # The whole column is 76.
    assert mebibytes < 50


@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows", "npy"])
def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path: Path, ending: str) -> None:
    # Reading memory that is mapped behind the end of a file is the end of the process (SIGBUS).
    path = tmp_path / f"d.{ending}"
    write_in_groups(path, 3_000_000)
    code = f"""
import os, sys
from exprjit.tools.files import opened
from exprjit.errors import ExprValueError
with opened({str(path)!r}, None) as (source, _):
    names = list(source.names or ("x",))
    source.names = names
    source.choose(names, names, False)
    batches = source.batches()
    next(batches)
    os.truncate({str(path)!r}, 6_000_000)
    try:
        for batch in batches:
            pass
    except ExprValueError as error:
        print(error.message.startswith({str(path)!r}))
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (child.returncode, child.stdout) == (0, "True\n"), child.stderr


# Progress. -----------------------------------------------------------------------------------


class Terminal:
    """What is written to a terminal."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream = open(slave, "w")  # noqa: SIM115

    def written(self) -> str:
        """What has been written since the last time."""
        self.stream.write("\0")
        self.stream.flush()
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self.master, 1 << 16)
        return text[:-1].decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command whose standard error is a terminal: the status, and what is written there."""
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "PERIOD", 0)
    terminal = Terminal()

    def run_(*argv: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal.stream)
            return cli.main(argv), terminal.written()

    yield run_
    terminal.close()


@pytest.mark.usefixtures("short_chunks")
def test_progress_is_shown_on_a_terminal_and_goes_away(
    on_terminal: Callable[..., tuple[int, str]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    table = pa.table({"x": range(21), "y": [1] * 20 + [0]})
    for ending, rows in (("parquet", 7), ("npy", 7), ("arrow", 3)):
        path = write(table, str(tmp_path / f"d.{ending}"))
        status, written = on_terminal("count", "x < 5", path)
        assert (status, capsys.readouterr().out) == (0, "5\n")
        shown = written.split("\r")[1:]
        assert [line.endswith("\x1b[K") for line in shown] == [True] * len(shown)
        assert len(shown) >= 4
        assert shown[-1] == "\x1b[K"
        first, last = (line[: -len("\x1b[K")] for line in (shown[0], shown[-2]))
        assert first.endswith(f"%  {rows} rows")
        assert last == f"d.{ending}  [{'#' * 20}] 100%  21 rows"
    # It goes away before an error is told.
    status, written = on_terminal("count", "5 / y", path)
    assert status == 1
    assert "rows\x1b[K\r\x1b[Kexprjit: division by zero" in written


def test_progress_where_nobody_knows_how_much_there_is(
    on_terminal: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    path = write(pa.table({"x": range(10)}), str(tmp_path / "d.arrows"))
    _, written = on_terminal("count", "x", path)
    assert "\rd.arrows  10 rows\x1b[K" in written


def test_a_long_name_does_not_wrap(
    on_terminal: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    path = str(tmp_path / ("long" * 50 + "\n.arrow"))
    write(pa.table({"x": range(10)}), path)
    status, written = on_terminal("count", "x", path)
    assert status == 0
    assert "\n" not in written
    assert max(map(len, written.split("\r"))) < 80


def test_rows_are_not_mixed_with_progress(
    on_terminal: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = write(pa.table({"x": range(10)}), str(tmp_path / "d.arrow"))
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal.stream)
        assert on_terminal("map", "x", path) == (0, "")
        assert terminal.written().split() == [*map(str, range(10))]
        assert "10 rows" in on_terminal("map", "x", path, "-o", str(tmp_path / "o.csv"))[1]
        assert "10 rows" in on_terminal("count", "x", path)[1]
    terminal.close()


def test_progress_is_for_terminals_only(run: Run) -> None:
    path = write(pa.table({"x": range(10)}), "d.csv")
    assert run("count", "x", path) == (0, "9\n", "")


def test_the_examples_of_the_readme(run: Run) -> None:
    import shlex

    lines = [
        line.split("#")[0]
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(tuple(f"    exprjit {name} " for name in ("map", "filter", "count")))
    ]
    assert len(lines) == 3
    table = pa.table({"price": [100, 250], "qty": [2, 0]})
    for name in ("data.csv", "data.parquet"):
        write(table, name)
    np.save("data.npy", np.arange(10))
    for line in lines:
        status, _, err = run(*shlex.split(line)[1:])
        assert (status, err) == (0, ""), line

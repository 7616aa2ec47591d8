"""Every example runs as its reader would run it, and prints what its text promises."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

needs_x86_64_linux = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the bytes are for x86-64 Linux",
)


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an example from elsewhere, with the source tree as the place to import exprjit from."""
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=EXAMPLES.anchor,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def output(name: str, *arguments: str) -> str:
    done = run(name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@needs_x86_64_linux
def test_step_1_runs_from_a_page_that_is_everything() -> None:
    done = run("how_to_jit/1_rwx.py")
    if "this system refuses" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.splitlines() == ["the page is rwxp", "add4(2) = 6"]
    assert done.returncode == 0


@needs_x86_64_linux
def test_step_2_is_never_both() -> None:
    assert output("how_to_jit/2_write_then_execute.py").splitlines() == [
        "while it is written, the page is rw-p",
        "while it runs, the page is r-xp",
        "add4(2) = 6",
    ]


@needs_x86_64_linux
def test_step_3_is_never_writable() -> None:
    done = run("how_to_jit/3_never_writable.py")
    if "needs Linux 6.7" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.splitlines() == [
        "the page is r-xs",
        "add4(2) = 6",
        "mprotect(read+write): Permission denied",
        "write to /proc/self/mem: Input/output error",
        "add4(2) is still 6",
    ]
    assert done.returncode == 0


@needs_x86_64_linux
def test_step_4_dies_and_explains() -> None:
    first, second, *_ = output("how_to_jit/4_malloc_cannot_run.py").splitlines()
    assert first == "memory from malloc is rw-p"
    assert second.startswith("the child died of SIGSEGV")


def test_step_5_compiles_the_formula() -> None:
    first, *rest = output("how_to_jit/5_exprjit.py").splitlines()
    assert first == "f(2) = 6"
    assert rest


def test_every_step_is_in_the_readme() -> None:
    folder = EXAMPLES / "how_to_jit"
    text = (folder / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+\.py)\)", text)) == {path.name for path in folder.glob("*.py")}


def test_a_formula_as_an_sql_function() -> None:
    pytest.importorskip("_sqlite3")
    text = output("sqlite_function.py", "2000")
    assert re.search(r"^the sum is [1-9]\d*$", text, re.MULTILINE)
    assert re.search(r"^raw +\d+ ns per row$", text, re.MULTILINE)
    assert text.count("the arguments must be integers") == 2
    done = run("sqlite_function.py", "2000", "--formula", "a / (b % 5)")
    assert done.returncode == 1
    assert done.stderr == "SQLite: the formula has no answer for these values\n"


def test_bitmap_search_finds_what_numpy_finds() -> None:
    text = output("bitmap_search.py", "5000")
    assert re.search(r"^matches    [1-9]\d* of 5,000 rows, ", text, re.MULTILINE)
    assert re.search(r"^exprjit +[\d.]+ ns per row to count, [\d.]+ to say which$", text, re.M)
    assert re.search(r"^NumPy +[\d.]+ ns per row to count$", text, re.MULTILINE)


def test_bitmap_search_takes_a_predicate() -> None:
    text = output("bitmap_search.py", "1000", "--where", "flags == flags")
    assert "matches    1,000 of 1,000 rows" in text


def test_bitmap_search_shows_where_a_predicate_is_wrong() -> None:
    done = run("bitmap_search.py", "10", "--where", "flags & nothing")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "^" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "argument", "needed"),
    [
        ("sqlite_function.py", "0", "_sqlite3"),
        ("bitmap_search.py", "-3", "numpy"),
        ("dask_columns.py", "--rows=0", "distributed"),
        ("dask_columns.py", "--workers=0", "distributed"),
    ],
)
def test_no_rows_are_refused(name: str, argument: str, needed: str) -> None:
    pytest.importorskip(needed)
    done = run(name, argument)
    assert done.returncode == 2
    assert done.stderr.endswith(": must be 1 or more\n")
    assert "Traceback" not in done.stderr


def test_columns_larger_than_memory_by_several_processes() -> None:
    pytest.importorskip("distributed")
    done = run("dask_columns.py", "--rows", "300000", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^matches    [1-9][\d,]*$", done.stdout, re.MULTILINE)

"""`exprjit.diagnostics()` and `exprjit diagnose`: they tell what calls really get."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import exprjit
from exprjit.runtime import memory
from exprjit.tools import cli

ROOT = Path(__file__).parent.parent

native = pytest.mark.skipif(memory.policy()[0] == "none", reason="no code memory")


def test_what_is_told() -> None:
    told = exprjit.diagnostics()
    assert told.versions["exprjit"] == exprjit.__version__
    assert platform.python_version() in told.versions["python"]
    assert set(told.versions) == {"exprjit", "python", "lark", "system"}
    assert told.engine == exprjit.compile("x * 3").engine
    assert told.memory_policy == memory.policy()[0]
    assert told.settings == {k: v for k, v in os.environ.items() if k.startswith("EXPRJIT_")}
    for line in str(told).splitlines():
        name, _, text = line.partition("  ")
        assert name
        assert text.strip()


@native
@pytest.mark.parametrize(
    ("settings", "engine", "call_path", "policy", "refused"),
    [
        ({}, "jit", "vectorcall", "sealed", {}),
        ({"EXPRJIT_CALL": "vectorcall"}, "jit", "vectorcall", "sealed", {}),
        ({"EXPRJIT_CALL": "ctypes"}, "jit", "ctypes", "sealed", {"vectorcall": "EXPRJIT_CALL="}),
        (
            {"EXPRJIT_MEMORY": "mprotect"},
            "jit",
            "vectorcall",
            "mprotect",
            {"better memory policy": "EXPRJIT_MEMORY=mprotect"},
        ),
        (
            {"EXPRJIT_MEMORY": "none"},
            "interpreter",
            "",
            "none",
            {"machine code": "EXPRJIT_MEMORY=none"},
        ),
        (
            {"EXPRJIT_DISABLE_JIT": "1"},
            "interpreter",
            "",
            "none",
            {"machine code": "EXPRJIT_DISABLE_JIT=1"},
        ),
    ],
)
def test_under_each_setting(
    child: Callable[..., str],
    settings: dict[str, str],
    engine: str,
    call_path: str,
    policy: str,
    refused: dict[str, str],
) -> None:
    plain = child("import exprjit; d = exprjit.diagnostics(); print(d[3:6]); print(d[6])")
    if "sealed" not in plain and policy == "sealed":
        pytest.skip(f"here the policy is another one: {plain}")
    program = """
        import exprjit
        told = exprjit.diagnostics()
        f = exprjit.compile("x + 4")
        assert (f.engine, f(2)) == (told.engine, 6)
        print(told.engine, told.call_path or "-", told.memory_policy)
        for what, reason in told.refused.items():
            print(f"{what}: {reason}")
        print(told)
    """
    first, *rest = child(program, **settings).splitlines()
    assert first == f"{engine} {call_path or '-'} {policy}"
    for (what, reason), line in zip(refused.items(), rest, strict=False):
        assert line.startswith(f"{what}: ")
        assert reason in line
    text = "\n".join(rest[len(refused) :])
    assert text.count("refused: ") == len(refused)
    for name, value in settings.items():
        assert any(line.split() == [name, value] for line in rest)


def test_wrong_settings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPRJIT_CALL", "fast")
    for call in (exprjit.diagnostics, lambda: exprjit.compile("x")):
        with pytest.raises(ValueError, match="EXPRJIT_CALL is 'fast'; it can be"):
            call()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose"]) == 0
    assert capsys.readouterr().out == f"{exprjit.diagnostics()}\n"
    assert cli.main(["diagnose", "x"]) == 2
    assert "'diagnose' takes no arguments" in capsys.readouterr().err


def test_the_command_where_nothing_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exprjit", "diagnose"],
        cwd=ROOT,
        env={**os.environ, "EXPRJIT_MEMORY": "none"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "refused: machine code" in done.stdout


#: What another Python might have otherwise, done to this one; and what notices it.
DIFFERENCES = {
    "a function is not exported": ("stubs.FUNCTIONS.append('PyLong_AsTriple')", "PyLong_AsTriple"),
    "no functions are exported": ("del ctypes.pythonapi", "cannot be reached"),
    "the type is elsewhere in an object": ("pycall.TYPE = 0", "types"),
    "members are read otherwise": ("pycall.T_OBJECT = pycall.T_PYSSIZET", "fields"),
    "members are not seen by the collector": ("pycall.T_OBJECT_EX = pycall.T_OBJECT", "collector"),
    "another implementation": ("sys.implementation.name = 'cpython2'", "CPython"),
}


@native
@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_python_that_is_not_as_expected(child: Callable[..., str], difference: str) -> None:
    """It is noticed before anything relies on it, and machine code is called another way."""
    change, noticed = DIFFERENCES[difference]
    program = f"""
        import ctypes, sys
        import exprjit
        from exprjit.runtime import pycall, stubs
        {change}
        f = exprjit.compile("x / y")
        told = exprjit.diagnostics()
        print(f(7, 2), f(7, y=-2), f.engine, told.engine, told.call_path)
        print(told.refused)
        try:
            f(1, 0)
        except ZeroDivisionError:
            print("error")
    """
    answers, refused, error = child(program).splitlines()
    assert error == "error"
    if "implementation" in difference:
        assert answers == "3 -3 interpreter interpreter "
    else:
        assert answers == "3 -3 jit jit ctypes"
    assert re.search(noticed, refused)

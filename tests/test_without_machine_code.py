"""Where no machine code can run, the interpreter answers, and the function says why.

Each case is a child process that is made to look like such a place before exprjit is imported.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import exprjit

ROOT = Path(__file__).parent.parent

# What backend="jit" raises where there is no machine code.
JIT_UNAVAILABLE = "JitUnavailableError"


class Place(NamedTuple):
    disguise: str  # Python source that runs before exprjit is imported
    reason: str  # a pattern that f.why_not_jit has to match
    memory: str | None = None  # EXPRJIT_MEMORY in its environment


# The standard library and lark are imported under the real names: they ask for the system too, and
# what they would do on another one is not our subject.
PRELUDE = """
import ctypes, fcntl, hashlib, mmap, os, platform, random, shutil, subprocess, sys, tempfile
import lark, lark.lark
"""

PRETEND = """
def pretend(sys_platform, system, machine, *, without):
    sys.platform = sys_platform
    platform.system = lambda: system
    platform.machine = lambda: machine
    platform.uname = lambda: platform.uname_result(system, "host", "", "", machine)
    os.uname = lambda: os.uname_result((system, "host", "", "", machine))
    for module, names in without.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
"""

# Python on these systems has no such names, so code that asks for them at import breaks there.
DARWIN = """
pretend("darwin", "Darwin", "arm64", without={
    os: "memfd_create MFD_CLOEXEC MFD_ALLOW_SEALING sched_getaffinity",
    fcntl: "F_ADD_SEALS F_SEAL_SEAL F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE",
})
"""
WINDOWS = """
pretend("win32", "Windows", "AMD64", without={
    os: "uname memfd_create MFD_CLOEXEC MFD_ALLOW_SEALING sched_getaffinity register_at_fork fork "
        "sysconf getuid geteuid",
    mmap: "PROT_READ PROT_WRITE PROT_EXEC MAP_SHARED MAP_PRIVATE MAP_ANONYMOUS MAP_ANON",
})
sys.modules["fcntl"] = sys.modules["resource"] = None
"""
ARM = 'pretend("linux", "Linux", "aarch64", without={})'

THROUGH_CTYPES = "no-pythonapi"
PLACES = {
    "darwin-arm64": Place(PRELUDE + PRETEND + DARWIN, "darwin|macos|arm64"),
    "win32-AMD64": Place(PRELUDE + PRETEND + WINDOWS, "win32|windows"),
    "linux-aarch64": Place(PRELUDE + PRETEND + ARM, "aarch64"),
    THROUGH_CTYPES: Place("import ctypes\ndel ctypes.pythonapi", "ctypes|pythonapi"),
    "no-ctypes": Place(
        'import sys\nsys.modules["ctypes"] = sys.modules["_ctypes"] = None', "ctypes"
    ),
    "EXPRJIT_MEMORY": Place("", "EXPRJIT_MEMORY", memory="none"),
}

# Prints what it sees as JSON; errors as [name of the type, whether it is the builtin kind, text].
QUESTIONS = """
import json
import exprjit
from exprjit.runtime import memory

def error(call, kind):
    try:
        call()
    except Exception as found:
        return [type(found).__name__, isinstance(found, kind), str(found)]

f = exprjit.compile("x + 4")
inverse = exprjit.compile("1/x")
lazy = exprjit.compile("x + 4", lazy=True)
verified = exprjit.compile("x + 4", verify=True)
print(json.dumps({
    "answer": f(2),
    "by name": f(x=2),
    "long way round": exprjit.compile("sq(v) = v * v; d = x // y; sq(d) ** 3 %% 7")(-9, 2),
    "lazy": [lazy(2), lazy(3), lazy(4), lazy.engine, lazy.why_not_jit],
    "verified": [verified(2), verified.engine, verified.why_not_jit],
    "engine": f.engine,
    "why": f.why_not_jit,
    "is a Function": isinstance(f, exprjit.Function),
    "by zero": error(lambda: inverse(0), ZeroDivisionError),
    "too large": error(lambda: f(2**63), OverflowError),
    "not an integer": error(lambda: f(0.5), TypeError),
    "bad text": error(lambda: exprjit.compile("x +"), exprjit.ExprError),
    "no jit": error(lambda: exprjit.compile("x + 4", backend="jit"), exprjit.ExprError),
    "no lazy jit": error(
        lambda: exprjit.compile("x + 4", backend="jit", lazy=True), exprjit.ExprError
    ),
    "asked for": exprjit.compile("x + 4", backend="interpreter").engine,
    "no asm": error(lambda: f.asm, ValueError),
    "no address": error(lambda: f.checked_address, ValueError),
    "installed": memory.statistics().pages,
}))
"""


@functools.cache
def seen_at(place: str) -> dict[str, Any]:
    disguise, _, memory = PLACES[place]
    env = {name: value for name, value in os.environ.items() if not name.startswith("EXPRJIT_")}
    if memory is not None:
        env["EXPRJIT_MEMORY"] = memory
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", disguise + QUESTIONS],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


everywhere = pytest.mark.parametrize("place", PLACES)
# Without Python's own functions, machine code is called through ctypes.
interpreted = pytest.mark.parametrize(
    "place", [place for place in PLACES if place != THROUGH_CTYPES]
)


@everywhere
def test_the_interpreter_answers(place: str) -> None:
    seen = seen_at(place)
    assert seen["answer"] == 6
    assert seen["by name"] == 6
    assert seen["long way round"] == (-9 // 2) ** 6 % 7
    assert seen["is a Function"]


@interpreted
def test_the_function_says_why(place: str) -> None:
    seen = seen_at(place)
    assert seen["engine"] == "interpreter"
    assert seen["asked for"] == "interpreter"
    assert re.search(PLACES[place].reason, seen["why"], re.IGNORECASE), seen["why"]
    assert seen["no asm"][1:] == [True, f"there is no machine code: {seen['why']}"]
    _, is_a_value_error, text = seen["no address"]
    assert is_a_value_error
    assert re.search(PLACES[place].reason, text, re.IGNORECASE), text


@everywhere
def test_the_errors_are_the_usual_ones(place: str) -> None:
    """Type and text are those that this process gets, with or without machine code."""
    seen = seen_at(place)
    f = exprjit.compile("x + 4")
    inverse = exprjit.compile("1/x")
    usual: list[tuple[str, type[Exception], Any]] = [
        ("by zero", ZeroDivisionError, lambda: inverse(0)),
        ("too large", OverflowError, lambda: f(2**63)),
        ("not an integer", TypeError, lambda: f(0.5)),
        ("bad text", exprjit.ExprError, lambda: exprjit.compile("x +")),
    ]
    for name, kind, call in usual:
        with pytest.raises(kind) as caught:
            call()
        assert seen[name] == [type(caught.value).__name__, True, str(caught.value)]


@interpreted
def test_asking_for_machine_code_is_refused_with_the_reason(place: str) -> None:
    seen = seen_at(place)
    name, _, text = seen["no jit"]
    assert name == JIT_UNAVAILABLE
    assert seen["why"] in text
    assert seen["no lazy jit"] == seen["no jit"]


@interpreted
def test_lazy_and_verified_functions_are_interpreted_too(place: str) -> None:
    """Not even the stubs that all native calls share may be tried out on another processor."""
    seen = seen_at(place)
    assert seen["lazy"] == [6, 7, 8, "interpreter", seen["why"]]
    assert seen["verified"] == [6, "interpreter", seen["why"]]
    assert seen["installed"] == 0


def test_machine_code_is_called_through_ctypes_where_python_cannot_call_it() -> None:
    seen = seen_at(THROUGH_CTYPES)
    assert (seen["engine"], seen["why"]) == ("jit", None)
    assert seen["lazy"] == [6, 7, 8, "jit", None]
    assert seen["verified"] == [6, "jit", None]
    assert seen["no jit"] is seen["no lazy jit"] is seen["no asm"] is seen["no address"] is None


def test_the_refusal_has_a_public_name() -> None:
    assert issubclass(getattr(exprjit, JIT_UNAVAILABLE), Exception)

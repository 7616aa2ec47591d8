"""What every test file shares: a switch that refreshes golden files, a line on the machine."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pythons import DEBUG

import exprjit

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write what came out into the golden files, and pass"
    )


def cpu_level() -> str:
    """The best of scalar, avx2, avx512 that this processor has, as the kernel reports it.

    Read from the kernel and not from exprjit.runtime.cpu, which is under test.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"none ({platform.machine()})"
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    if flags >= {"avx512f", "avx512dq", "avx512bw", "avx512vl"}:
        return "avx512"
    return "avx2" if "avx2" in flags else "scalar"


def pytest_report_header() -> str:
    forced = [
        f"{name}={value}" for name, value in os.environ.items() if name.startswith("EXPRJIT_")
    ]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return ", ".join([f"exprjit: {python}", f"CPU level {cpu_level()}", *sorted(forced)])


#: The tests that ask for many collections.
COLLECTING = {
    "test_array_calls", "test_function", "test_lifetime", "test_memory", "test_pycall",
    "test_threads",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def own_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collections look at what the tests of such a module have made only, and not at pytest itself.

    (Not for all modules: Hypothesis looks for what refers to its objects.)
    """
    if request.module.__name__ not in COLLECTING:
        yield
        return
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def child() -> Callable[..., str]:
    """Runs a program in a new process, where a crash or a hang is only a failed test.

    child(program, input="", timeout=60, **environment) gives what it printed. The EXPRJIT_
    variables it sees are those given, and no others. What it prints to stderr fails the test.
    """

    def run(program: str, input: str = "", timeout: float = 60, **environment: str) -> str:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EXPRJIT_")}
        try:
            done = subprocess.run(
                [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)],
                cwd=ROOT,
                env={**inherited, **environment},
                input=input,
                capture_output=True,
                text=True,
                timeout=timeout * (10 if DEBUG else 1),
            )
        except subprocess.TimeoutExpired as expired:
            pytest.fail(f"the child still ran after {expired.timeout} s")
        if done.returncode or done.stderr:
            said = (done.stderr or done.stdout)[-3000:]
            pytest.fail(f"the child ended with {done.returncode}:\n{said}")
        return done.stdout

    return run


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """Functions that an earlier test compiled are not to be found again."""
    exprjit.cache_clear()

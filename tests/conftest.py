"""What every test file shares: a switch that refreshes golden files, a line on the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest


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

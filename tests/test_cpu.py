"""What the processor can do, and how EXPRJIT_CPU narrows it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from exprjit.runtime import cpu

ZEN4 = (
    "fpu cx8 cmov mmx fxsr sse sse2 syscall pni ssse3 fma sse4_1 sse4_2 movbe popcnt xsave avx "
    "f16c abm bmi1 avx2 bmi2 avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_vbmi2"
)
HASWELL = "fpu cx8 cmov mmx fxsr sse sse2 syscall pni avx abm bmi1 avx2 bmi2 popcnt fma"
CORE2 = "fpu cx8 cmov mmx fxsr sse sse2 syscall pni ssse3"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPRJIT_CPU", raising=False)
    monkeypatch.setattr(cpu, "_detected", None)


def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str) -> None:
    """Pretend to run on a processor of which the kernel says this."""
    text = f"processor\t: 0\nmodel name\t: flags: none\nflags\t\t: {flags}\nbugs\t\t: avx2\n\n"
    (tmp_path / "cpuinfo").write_text(text * 2)
    monkeypatch.setattr(cpu, "_CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setattr(cpu, "_detected", None)


def test_names_are_those_of_the_manual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, ZEN4)
    assert {"lzcnt", "sse3", "popcnt", "bmi1", "bmi2", "avx512vbmi2"} <= cpu.features()
    assert not {"abm", "pni", "avx512_vbmi2"} & cpu.features()
    assert cpu.features() >= cpu.BASELINE


def test_the_kernel_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, HASWELL)
    first = cpu.detected()
    (tmp_path / "cpuinfo").unlink()
    assert cpu.detected() is first


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (ZEN4, "avx512"),
        (ZEN4.replace("avx512vl", ""), "avx2"),
        (HASWELL, "avx2"),
        (CORE2, "scalar"),
    ],
)
def test_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, level: str) -> None:
    processor(monkeypatch, tmp_path, flags)
    assert cpu.level() == level


def test_forced_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, ZEN4)
    scalar = {"popcnt", "lzcnt", "bmi1", "bmi2"}
    for setting, level in (("avx512", "avx512"), ("avx2", "avx2"), ("scalar", "scalar")):
        monkeypatch.setenv("EXPRJIT_CPU", setting)
        assert cpu.level() == level
        assert cpu.features() >= scalar
        assert ("avx2" in cpu.features()) == (level != "scalar")
        assert ("avx512vbmi2" in cpu.features()) == (level == "avx512")
    monkeypatch.setenv("EXPRJIT_CPU", "baseline")
    assert (cpu.level(), cpu.features()) == ("scalar", cpu.BASELINE)
    monkeypatch.setenv("EXPRJIT_CPU", "")
    assert cpu.level() == "avx512"


def test_forced_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, HASWELL)
    monkeypatch.setenv("EXPRJIT_CPU", "avx512")
    missing = "EXPRJIT_CPU is 'avx512'; this processor has no avx512bw, avx512dq, avx512f, avx512vl"
    for use in (cpu.level, cpu.features):
        with pytest.raises(ValueError, match=missing):
            use()
    monkeypatch.setenv("EXPRJIT_CPU", "sse2")
    with pytest.raises(ValueError, match="'sse2'; it can be baseline, scalar, avx2 or avx512"):
        cpu.level()


@pytest.mark.parametrize("text", [None, "", "Processor\t: ARMv8\nFeatures : fp asimd\n"])
def test_where_the_kernel_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(cpu, "_CPUINFO", str(tmp_path / "cpuinfo"))
    assert (cpu.features(), cpu.level()) == (cpu.BASELINE, "scalar")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_this_machine() -> None:
    if os.uname().machine == "x86_64":
        assert cpu.why_no_machine_code() is None
        assert cpu.features() >= {"sse2", "cmov"}
        assert cpu.level() in ("scalar", "avx2", "avx512")


def test_why_no_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"), raising=False)
    assert cpu.why_no_machine_code() is None
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"), raising=False)
    assert cpu.why_no_machine_code() == "machine code is made for x86-64, not for aarch64"
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"), raising=False)
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert "32-bit pointers" in (cpu.why_no_machine_code() or "")
    monkeypatch.setattr(sys, "platform", "win32")
    assert cpu.why_no_machine_code() == "machine code is made for Linux, not for win32"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    assert cpu.why_no_machine_code() == "machine code is made for CPython, not for pypy"

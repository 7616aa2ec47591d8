"""What this processor can do, and whether machine code can run here at all.

`EXPRJIT_CPU` narrows it, so that one machine can test what another would run:

- `baseline`: what every x86-64 processor has, and nothing else;
- `scalar`: no vectors, but the newer scalar instructions that are there (popcnt, lzcnt, BMI);
- `avx2`, `avx512`: vectors up to this level, which must be there.

`EXPRJIT_DISABLE_JIT=1` forbids machine code altogether.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal["scalar", "avx2", "avx512"]

#: The System V ABI's "x86-64" baseline (table 3.1).
BASELINE = frozenset({"cmov", "cx8", "fpu", "fxsr", "mmx", "sse", "sse2", "syscall"})

# What the vector kernels of a level need, all of it.
AVX2 = frozenset({"avx", "avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

#: Features that Linux calls by another name than Intel's manual does.
RENAMED = {"abm": "lzcnt", "pni": "sse3"}

SETTINGS = ("baseline", "scalar", "avx2", "avx512")

_CPUINFO = "/proc/cpuinfo"
_detected: frozenset[str] | None = None


def detected() -> frozenset[str]:
    """The features of this processor that the system supports, as CPUID names them.

    Names are in lower case: "popcnt", "lzcnt", "bmi2", "avx512vl". Read once, from the kernel:
    it leaves out what it does not save for a thread. Where it does not tell, the baseline.
    """
    global _detected
    if _detected is None:
        _detected = _read_features()
    return _detected or BASELINE


def _read_features() -> frozenset[str] | None:
    """What the kernel says now; None if it cannot be asked."""
    try:
        with open(_CPUINFO, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, flags = line.partition(":")
                if name.strip() == "flags":
                    return BASELINE | {_feature(flag) for flag in flags.split()}
    except OSError:
        return None
    return BASELINE


def _feature(flag: str) -> str:
    """Linux's name of a feature as the manual has it: "avx512_vbmi2" -> "avx512vbmi2"."""
    if flag.startswith("avx512_"):
        return "avx512" + flag[len("avx512_") :]
    return RENAMED.get(flag, flag)


def features() -> frozenset[str]:
    """The features that code may use: those detected, less what EXPRJIT_CPU forbids.

    Raises:
        ValueError: EXPRJIT_CPU is none of its values, or asks for what is not there.
    """
    setting = _setting()
    if setting == "baseline":
        return BASELINE
    found = detected()
    if setting == "scalar":
        return frozenset(name for name in found if not _is_vector(name))
    if setting == "avx2":
        return frozenset(name for name in found if not name.startswith("avx512"))
    return found


def _is_vector(name: str) -> bool:
    """Whether the feature is about vectors wider than SSE2's."""
    return name.startswith("avx") or name in ("fma", "fma4", "f16c", "vaes", "vpclmulqdq", "xop")


def level() -> Level:
    """Which lanes the array kernels use: "scalar", "avx2" or "avx512".

    Raises:
        ValueError: EXPRJIT_CPU is none of its values, or asks for what is not there.
    """
    found = features()
    if found >= AVX512:
        return "avx512"
    return "avx2" if found >= AVX2 else "scalar"


def _setting() -> str:
    """EXPRJIT_CPU, checked; "" if it is not set."""
    setting = os.environ.get("EXPRJIT_CPU", "")
    if setting and setting not in SETTINGS:
        known = ", ".join(SETTINGS[:-1])
        raise ValueError(f"EXPRJIT_CPU is {setting!r}; it can be {known} or {SETTINGS[-1]}")
    needed = {"avx2": AVX2, "avx512": AVX512}.get(setting, frozenset())
    missing = sorted(needed - detected())
    if missing:
        raise ValueError(f"EXPRJIT_CPU is {setting!r}; this processor has no {', '.join(missing)}")
    return setting


def disabled() -> bool:
    """Whether EXPRJIT_DISABLE_JIT says that there shall be no machine code."""
    return os.environ.get("EXPRJIT_DISABLE_JIT", "") not in ("", "0")


def why_no_machine_code() -> str | None:
    """Why no machine code of ours can run in this process, or None if it can."""
    if disabled():
        return f"EXPRJIT_DISABLE_JIT={os.environ['EXPRJIT_DISABLE_JIT']}"
    if sys.platform != "linux":
        return f"machine code is made for Linux, not for {sys.platform}"
    if sys.implementation.name != "cpython":
        return f"machine code is made for CPython, not for {sys.implementation.name}"
    machine = os.uname().machine
    if machine not in ("x86_64", "AMD64"):
        return f"machine code is made for x86-64, not for {machine}"
    if sys.maxsize < 2**32:
        return "machine code is made for 64-bit processes; this one has 32-bit pointers"
    return None

"""What exprjit can do in this process, and why not more."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import lark

from . import compiler
from .body import Options
from .formula import Formula
from .function import compiled, native_type
from .runtime import cpu, memory
from .version import __version__

#: How calls get to machine code, by the kernel that they run.
_PATHS = {"call": "vectorcall", "buffer": "ctypes"}


#: The features that make a difference to the code.
_FEATURES = cpu.AVX512 | {"popcnt", "lzcnt", "bmi1", "bmi2"}


class Diagnostics(NamedTuple):
    """What exprjit can do in this process; `str()` of it is a report.

    versions: of exprjit and of what it stands on.  cpu: which lanes arrays use: "scalar",
    "avx2" or "avx512".  features: what code may use of the processor.  engine: what answers
    calls here, "jit" or "interpreter".  call_path: how calls get to machine code:
    "vectorcall", "ctypes", or "" where there is none.  memory_policy: how code memory is made:
    "sealed", "mprotect" or "none".  refused: what is not as good as it could be, and why.
    settings: the environment variables that exprjit read.
    """

    versions: dict[str, str]
    cpu: str
    features: tuple[str, ...]
    engine: str
    call_path: str
    memory_policy: str
    refused: dict[str, str]
    settings: dict[str, str]

    def __str__(self) -> str:
        rows = [
            *self.versions.items(),
            ("cpu", f"{self.cpu} ({' '.join(self.features) or 'baseline'})"),
            ("engine", self.engine),
            ("call path", self.call_path or "none"),
            ("memory policy", self.memory_policy),
            *((f"refused: {what}", reason) for what, reason in self.refused.items()),
            *self.settings.items(),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def diagnostics() -> Diagnostics:
    """Look at what exprjit can do in this process; compiles a formula to find out.

    Raises ExprValueError if an environment variable is set to what it cannot be.
    """
    settings = compiler.settings()
    function, _ = compiled(Formula("x + 4"), Options(), settings)
    assert function(2) == 6
    refused = {}
    path = ""
    if function.why_not_jit is not None:
        refused["machine code"] = function.why_not_jit
        policy = "none"
    else:
        path = _PATHS[function._body.kernel]
        native = native_type()
        if settings.call == "ctypes":
            refused["vectorcall"] = "EXPRJIT_CALL=ctypes"
        elif isinstance(native, str):
            refused["vectorcall"] = native
        policy, reason = memory.policy()
        if reason:
            refused["better memory policy"] = reason
    return Diagnostics(
        versions=_versions(),
        cpu=cpu.level(),
        features=tuple(sorted(settings.features & _FEATURES)),
        engine=function.engine,
        call_path=path,
        memory_policy=policy,
        refused=refused,
        settings={
            name: value for name, value in sorted(os.environ.items()) if name.startswith("EXPRJIT_")
        },
    )


def _versions() -> dict[str, str]:
    import platform

    gil = getattr(sys, "_is_gil_enabled", None)
    threading = "" if gil is None or gil() else ", without the global lock"
    system = platform.uname()
    return {
        "exprjit": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}{threading}",
        "lark": lark.__version__,
        "system": f"{system.system} {system.release} {system.machine}",
    }

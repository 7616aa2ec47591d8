"""gcc as a judge: many formulas in one C file, compiled without optimisation and loaded.

Starting gcc costs some 30 ms, so it is given programs by the hundred.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial

from ..errors import ExprError
from ..language.ast import Program
from ..language.interpreter import fault_error
from ..language.operators import OPERATORS
from .c_rows import ROWS
from .c_source import FAULTS, CFunction, c_function, prelude

FLAGS = ("-O0", "-fwrapv", "-w", "-shared", "-fPIC")

#: Definitions are expanded in C; larger programs than this are left to the other engines.
GREATEST = 5_000


@cache
def why_not() -> str | None:
    """Why gcc cannot judge here, or None if it can."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    if ctypes.sizeof(ctypes.c_long) != 8:
        return "C's long has not 64 bits here"
    return None


class CompileError(Exception):
    """gcc refused our C; the text is what it said."""


def compile_all(programs: Sequence[Program]) -> list[Callable[[tuple[int, ...], str], int] | None]:
    """For each program ``run(arguments, overflow)``, or None for one that is left out.

    `run` gives the value, or raises the ExprError that the interpreter would.
    """
    functions: list[CFunction | None] = []
    for index, program in enumerate(programs):
        try:
            fits = program.size <= GREATEST
            functions.append(c_function(program, f"f{index}") if fits else None)
        except KeyError:
            functions.append(None)
    texts = [function.text for function in functions if function is not None]
    library = _load(prelude({name: OPERATORS[name].arity for name in ROWS}) + "".join(texts))
    runs: list[Callable[[tuple[int, ...], str], int] | None] = []
    for index, (program, function) in enumerate(zip(programs, functions, strict=True)):
        if function is None:
            runs.append(None)
        else:
            runs.append(partial(_run, library, library[f"f{index}"], program, function))
    return runs


def _load(text: str) -> ctypes.CDLL:
    """The library that gcc makes of `text`; it is unloaded when nothing refers to it."""
    with tempfile.TemporaryDirectory(prefix="exprjit-") as folder:
        path = os.path.join(folder, "formulas.so")
        command = ["gcc", *FLAGS, "-x", "c", "-", "-o", path]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(done.stderr)
        library = ctypes.CDLL(path)
    import _ctypes

    weakref.finalize(library, _ctypes.dlclose, library._handle)
    return library


_OUT = ctypes.c_long * 4


def _run(
    library: ctypes.CDLL,
    entry: Callable[..., int],
    program: Program,
    function: CFunction,
    arguments: tuple[int, ...],
    overflow: str,
) -> int:
    out = _OUT()
    given = (ctypes.c_long * len(arguments))(*arguments)
    fault = entry(given, overflow == "raise", out)
    if not fault:
        return out[0]
    raise _error(program, function, FAULTS[fault - 1], list(out), overflow)


def _error(
    program: Program, function: CFunction, name: str, out: list[int], overflow: str
) -> ExprError:
    """The interpreter's words for what C says has failed."""
    node = function.operations[out[0]]
    operands = out[1 : 1 + len(node.operands)]
    for fault in node.operator.faults[overflow]:
        if fault.name == name:
            return fault_error(fault, program.source, node, operands)
    return ExprError(f"{name} of {node.operator.name} with {operands}, which the table has not")

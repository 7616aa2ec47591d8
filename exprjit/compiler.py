"""The list of passes, and why there may be no machine code.

    text -> tree -> graph -> block -> physical registers -> bytes -> installed code

Each arrow is a function in a file of its own; this module calls them in order and knows
nothing of what they do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from .errors import ExprLimitError, ExprValueError
from .formula import Formula
from .ir.graph import Graph, GraphTooLarge
from .ir.reductions import build_reduced
from .runtime import cpu, memory, pages, stubs
from .x86 import kernels, vectorcall
from .x86.scalar import native

Features = frozenset[str]


class Unavailable(Exception):
    """There is no machine code for a formula here; the text is the reason.

    passing: whether there may be some at another time.
    """

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Settings(NamedTuple):
    """What the environment says to a compilation.

    features: the CPU's, as EXPRJIT_CPU leaves them.  call: EXPRJIT_CALL.  disabled: whether
    EXPRJIT_DISABLE_JIT is set.
    """

    features: Features
    call: str
    disabled: bool


@cache
def targets() -> vectorcall.CallTargets:
    """The addresses that code for Python calls refers to.

    Raises PyCallError.
    """
    functions, entries = stubs.symbols(), stubs.stubs()
    return vectorcall.CallTargets(
        type_offset=stubs.TYPE,
        PyLong_Type=id(int),
        PyLong_AsLong=functions["PyLong_AsLong"],
        PyLong_FromLong=functions["PyLong_FromLong"],
        PyErr_Occurred=functions["PyErr_Occurred"],
        slow=entries.slow,
        bail=entries.bail,
        failed=entries.failed,
        arrays=entries.arrays,
    )


#: What EXPRJIT_CALL can be: how machine code is called.
CALLS: Final = ("", "vectorcall", "ctypes")


@cache
def _check_memory_setting() -> None:
    """Raise ValueError if EXPRJIT_MEMORY, which is read once, is none of its values."""
    pages.check_setting(os.environ.get("EXPRJIT_MEMORY", ""))


def settings() -> Settings:
    """What the environment says now.

    Raises ExprValueError if a variable is set to what it cannot be.
    """
    try:
        features = cpu.features()
        _check_memory_setting()
    except ValueError as error:
        raise ExprValueError(str(error)) from None
    call = os.environ.get("EXPRJIT_CALL", "")
    if call not in CALLS:
        raise ExprValueError(f"EXPRJIT_CALL is {call!r}; it can be vectorcall or ctypes")
    return Settings(features, call, cpu.disabled())


def to_graph(formula: Formula, features: Features, fired: list[str] | None = None) -> Graph:
    """The simplified graph of a formula, for a CPU.

    fired: takes the names of the rules that simplify it, in the order of their application.
    Raises Unavailable if the graph is too large.
    """
    most = formula.limits.graph
    try:
        return build_reduced(formula.program(), formula.overflow, native(features), fired, most)
    except GraphTooLarge as error:
        raise Unavailable(str(error)) from None


def python_call(graph: Graph, features: Features) -> kernels.Code:
    """What a Python call runs."""
    return vectorcall.python_call(graph, features, targets())


#: The code that a function can have, by the attribute that gives its address.
KERNELS: Final[dict[str, Callable[[Graph, Features], kernels.Code]]] = {
    "call": python_call,
    "address": kernels.function,
    "checked_address": kernels.checked_function,
    "ref_address": kernels.ref_function,
    "buffer": kernels.buffer_function,
}


def to_code(formula: Formula, kernel: str, features: Features) -> kernels.Code:
    """The machine code of a formula, not yet installed; `kernel` is a key of KERNELS.

    Raises ExprLimitError if it is longer than the formula's limits allow, and Unavailable.
    """
    try:
        code = KERNELS[kernel](to_graph(formula, features), features)
    except kernels.FrameTooLarge as error:
        raise Unavailable(str(error)) from None
    except stubs.PyCallError as error:
        raise Unavailable(str(error), error.passing) from None
    return within_limits(code, formula)


def within_limits(code: kernels.Code, formula: Formula) -> kernels.Code:
    """The code, unless it is longer than the formula's limits allow: then ExprLimitError."""
    size = len(code.encoded.code)
    if size > formula.limits.code:
        raise ExprLimitError(
            f"the machine code has {size:,} bytes; at most {formula.limits.code:,}",
            formula.source,
        )
    return code


def check_available() -> None:
    """Raise Unavailable where machine code of ours cannot run in this process at all."""
    reason = cpu.why_no_machine_code()
    if reason is not None:
        raise Unavailable(reason)


class Installed(NamedTuple):
    """Code in executable memory.

    address: where it is called, for as long as the owner lives.  log: how many results of C
    functions it may log.
    """

    address: int
    owner: memory.Code
    log: int


def install(formula: Formula, kernel: str, features: Features) -> Installed:
    """Install the machine code of a formula; `kernel` is a key of KERNELS.

    Ask `check_available` first.
    Raises ExprLimitError and Unavailable, and ExprValueError if EXPRJIT_MEMORY is set to
    what it cannot be.
    """
    return installed(to_code(formula, kernel, features))


def installed(code: kernels.Code) -> Installed:
    """Put code into executable memory; raises as `install` does."""
    try:
        owner = memory.install(code.encoded.code)
    except memory.CodeMemoryError as error:
        reason = f"no executable memory: {error}"
        raise Unavailable(reason, error.errno in memory.SHORTAGES) from None
    except ValueError as error:
        raise ExprValueError(str(error)) from None
    return Installed(owner.address + code.entry, owner, code.log)

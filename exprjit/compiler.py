"""The list of passes, and why there may be no machine code.

    text -> tree -> graph -> block -> physical registers -> bytes -> installed code

Each arrow is a function in a file of its own; this module calls them in order and knows
nothing of what they do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from .errors import ExprError, ExprLimitError, ExprValueError
from .formula import Formula
from .ir.build import build
from .ir.graph import Graph, GraphTooLarge
from .runtime import cpu, memory, stubs
from .x86 import kernels
from .x86.scalar import native

Features = frozenset[str]


class Unavailable(Exception):
    """There is no machine code for a formula here; the text is the reason."""


@cache
def targets() -> kernels.CallTargets:
    """The addresses that code for Python calls refers to.

    Raises PyCallError.
    """
    functions, entries = stubs.symbols(), stubs.stubs()
    return kernels.CallTargets(
        type_offset=stubs.TYPE,
        PyLong_Type=id(int),
        PyLong_AsLong=functions["PyLong_AsLong"],
        PyLong_FromLong=functions["PyLong_FromLong"],
        PyErr_Occurred=functions["PyErr_Occurred"],
        slow=entries.slow,
        bail=entries.bail,
        failed=entries.failed,
    )


def features() -> Features:
    """The CPU's features as EXPRJIT_CPU leaves them.

    Raises ExprValueError if the variable is set to what it cannot be.
    """
    try:
        return cpu.features()
    except ValueError as error:
        raise ExprValueError(str(error)) from None


def to_graph(formula: Formula, features: Features, fired: list[str] | None = None) -> Graph:
    """The simplified graph of a formula, for a CPU.

    fired: takes the names of the rules that simplify it, in the order of their application.
    Raises Unavailable if the graph is too large.
    """
    most = formula.limits.graph
    try:
        return build(formula.program(), formula.overflow, native(features), fired, most)
    except GraphTooLarge as error:
        raise Unavailable(str(error)) from None


def python_call(graph: Graph, features: Features) -> kernels.Code:
    """What a Python call runs."""
    return kernels.python_call(graph, features, targets())


#: The code that a function can have, by the attribute that gives its address.
KERNELS: Final[dict[str, Callable[[Graph, Features], kernels.Code]]] = {
    "call": python_call,
    "address": kernels.function,
    "checked_address": kernels.checked_function,
}


def to_code(formula: Formula, kernel: str, features: Features) -> kernels.Code:
    """The machine code of a formula, not yet installed; `kernel` is a key of KERNELS.

    Raises ExprLimitError if it is longer than the formula's limits allow, and Unavailable.
    """
    try:
        code = KERNELS[kernel](to_graph(formula, features), features)
    except (kernels.FrameTooLarge, stubs.PyCallError) as error:
        raise Unavailable(str(error)) from None
    size = len(code.encoded.code)
    if size > formula.limits.code:
        raise ExprLimitError(
            f"the machine code has {size:,} bytes; at most {formula.limits.code:,}",
            formula.source,
        )
    return code


def check_available() -> None:
    """Raise Unavailable where machine code of ours cannot run in this process at all."""
    reason = cpu.why_no_machine_code() or _why_no_native_call()
    if reason is not None:
        raise Unavailable(reason)


class Installed(NamedTuple):
    """Code in executable memory.

    address: where it is called, for as long as the owner lives.
    """

    address: int
    owner: memory.Code


def install(formula: Formula, kernel: str, features: Features) -> Installed:
    """Install the machine code of a formula; `kernel` is a key of KERNELS.

    Raises ExprLimitError and Unavailable, and ExprValueError if EXPRJIT_MEMORY is set to
    what it cannot be.
    """
    check_available()
    try:
        code = to_code(formula, kernel, features)
        owner = memory.install(code.encoded.code)
    except memory.CodeMemoryError as error:
        raise Unavailable(f"no executable memory: {error}") from None
    except ExprError:
        raise
    except ValueError as error:
        raise ExprValueError(str(error)) from None
    return Installed(owner.address + code.entry, owner)


def _why_no_native_call() -> str | None:
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    return "machine code is not used where Python runs without its global lock"

"""`compile()`, `evaluate()` and `Function`: what a user holds.

A function with machine code is an instance of a native type whose calls go straight into
that code (runtime/pycall.py); without, of a plain Python class that interprets.  Both have
`Function` for a base, which has everything that is not the call itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ExprTypeError, ExprValueError, JitUnavailableError
from .formula import Formula
from .language.ast import Program
from .language.interpreter import interpret
from .language.operators import OVERFLOW_MODES

BACKENDS = ("auto", "jit", "interpreter")


class Function:
    """A compiled formula: call it with ints, positionally or by name.

    Made by `exprjit.compile`.
    """

    __slots__ = ()

    formula: Formula

    @property
    def source(self) -> str:
        """The text that was compiled."""
        return self.formula.source

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the parameters in order."""
        return self.formula.params

    @property
    def overflow(self) -> str:
        """The overflow mode, "wrap" or "raise"."""
        return self.formula.overflow

    @property
    def ast(self) -> Program:
        """The syntax tree; `str()` of it is its dump."""
        return self.formula.program()

    @property
    def engine(self) -> str:
        """What answers calls: "jit" or "interpreter"."""
        raise AssertionError("only the two subclasses have instances")


class InterpretedFunction(Function):
    """A function that has no machine code, for the reason in `why_not_jit`."""

    __slots__ = ("__weakref__", "formula", "why_not_jit")

    def __init__(self, formula: Formula, why_not_jit: str) -> None:
        self.formula = formula
        self.why_not_jit = why_not_jit

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        return self.formula.call(args, kwargs)

    @property
    def engine(self) -> str:
        return "interpreter"


def compile(
    source: str,
    params: Sequence[str] | None = None,
    *,
    backend: str = "auto",
    overflow: str = "wrap",
    constants: Mapping[str, int] | None = None,
    externs: Mapping[str, Any] | None = None,
    limits: object = None,
    hardening: str = "default",
    verify: bool = False,
    lazy: bool = False,
    name: str | None = None,
) -> Function:
    formula = Formula(source, params, overflow, constants, limits, name)
    return InterpretedFunction(formula, "not yet")


def evaluate(source: str, names: Mapping[str, Any] | None = None, /, **named: Any) -> int:
    """The value of `source` with the given values, once, without compiling."""
    formula = Formula(source)
    values = {} if names is None else {k: names[k] for k in formula.params if k in names}
    values.update(named)
    return formula.call((), values)

"""The ways in which operators fail: a condition, an exception and its words.

A condition is written once, in terms of other rows of the table, and is evaluated both on
ints (the interpreter, which then raises) and on graph nodes (the machine code's bail).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import (
    ExprError,
    ExprOverflowError,
    ExprValueError,
    ExprZeroDivisionError,
)
from .arithmetic import MIN


class Fault:
    """One way to fail.

    condition: ``(make, *operands)``, not 0 where the operator fails.
    error, message, hint: the exception that the interpreter makes.
    """

    __slots__ = ("condition", "error", "hint", "message", "name")

    def __init__(
        self,
        name: str,
        error: type[ExprError],
        message: str,
        condition: Callable[..., Any],
        hint: str | None = None,
    ) -> None:
        self.name = name
        self.error = error
        self.message = message
        self.condition = condition
        self.hint = hint

    def __repr__(self) -> str:
        return f"<fault {self.name}>"


ZERO_DIVISOR = Fault(
    "zero divisor",
    ExprZeroDivisionError,
    "division by zero",
    lambda make, a, b: make("eq", b, 0),
)
NEGATIVE_EXPONENT = Fault(
    "negative exponent",
    ExprValueError,
    "negative exponent",
    lambda make, a, b: make("lt", b, 0),
    "the result would not be an integer; `1 / x ** n` divides, and rounds toward zero",
)
NEGATIVE_ROOT = Fault(
    "negative root",
    ExprValueError,
    "square root of a negative number",
    lambda make, a: make("lt", a, 0),
)
COUNT_RANGE = Fault(
    "count range",
    ExprOverflowError,
    "shift count outside 0..63",
    lambda make, a, n: make("ugt", n, 63),
)


def overflow(condition: Callable[..., Any]) -> Fault:
    """The fault of a result that does not fit."""
    return Fault("overflow", ExprOverflowError, "result outside 64 bits", condition)


def overflow_by(name: str) -> Fault:
    """The overflow that the row called `name` computes from the same two operands."""
    return overflow(lambda make, a, b: make(name, a, b))


OF_MIN = overflow(lambda make, a: make("eq", a, MIN))
OF_MIN_BY_MINUS_ONE = overflow(
    lambda make, a, b: make("bitand", make("eq", a, MIN), make("eq", b, -1))
)
OF_SHIFTED = overflow(lambda make, a, n: make("ne", make("sar", make("shl", a, n), n), a))
OF_GCD = overflow(lambda make, a, b: make("lt", make("gcd", a, b), 0))

"""Python values to 64-bit ints, and a call's arguments to parameters.

What is refused here is refused with the words and the exception that a Python function
with the same parameters would have.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from ..errors import ExprOverflowError, ExprTypeError, quoted
from .operators import LONG, MAX, MIN


def to_long(value: Any, what: str) -> int:
    """`value` as an int of 64 bits; `what` names it in errors.

    Takes ints, bools, also NumPy's, and all that have `__index__`, whose exceptions pass through.
    Raises ExprTypeError for anything else and ExprOverflowError for what does not fit.
    """
    if type(value) is not int:
        value = int(bool(value)) if _is_truth(value) else _int(value, what)
    if not LONG.fits(value):
        bits = value.bit_length()
        shown = str(value) if bits < 200 else f"an int of {bits:,} bits"
        raise ExprOverflowError(f"{what} does not fit a 64-bit long: {shown}")
    return value  # type: ignore[no-any-return]


def _int(value: Any, what: str) -> int:
    """The int that a value is."""
    if hasattr(type(value), "__index__"):
        try:
            return int(index(value))
        except TypeError:
            # All arrays have the method, and refuse with words about subscripts.
            if not hasattr(value, "__array__"):
                raise
    raise ExprTypeError(f"{what} must be an integer, not {type(value).__name__}")


def _is_truth(value: Any) -> bool:
    """Whether a value is one of NumPy's bools, or an array without dimensions of one."""
    loaded = sys.modules.get("numpy")
    if loaded is None or isinstance(value, int):
        return False
    if isinstance(value, loaded.bool_):
        return True
    return isinstance(value, loaded.ndarray) and value.shape == () and value.dtype.kind == "b"


def bind_arguments(
    function: str, params: Sequence[str], positional: Sequence[Any], keywords: Mapping[str, Any]
) -> list[Any]:
    """The values of a call in the order of `params`, as given.

    Raises ExprTypeError for too few, too many, unknown or doubled arguments.
    """
    wanted, given = len(params), len(positional)
    values = dict(zip(params, positional, strict=False))
    for name, value in keywords.items():
        if name in values:
            raise ExprTypeError(f"{function}() got multiple values for argument {quoted(name)}")
        if name not in params:
            raise ExprTypeError(f"{function}() got an unexpected keyword argument {quoted(name)}")
        values[name] = value
    if given > wanted:
        plural = "" if wanted == 1 else "s"
        verb = "was" if given == 1 else "were"
        raise ExprTypeError(
            f"{function}() takes {wanted} positional argument{plural} but {given} {verb} given"
        )
    if len(values) < wanted:
        missing = [quoted(name) for name in params if name not in values]
        plural = "" if len(missing) == 1 else "s"
        raise ExprTypeError(
            f"{function}() missing {len(missing)} required positional argument{plural}: "
            f"{_listed(missing)}"
        )
    return [values[name] for name in params]


def _listed(words: Sequence[str]) -> str:
    """As Python lists names: 'a'; 'a' and 'b'; 'a', 'b', and 'c'."""
    if len(words) <= 2:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def to_longs(params: Sequence[str], values: Sequence[Any]) -> list[int]:
    """The values of a call as 64-bit ints, converted in the order of the parameters.

    Raises what `to_long` raises, naming the parameter.
    """
    return [
        # The words for an error are made only where there may be one.
        value
        if type(value) is int and MIN <= value <= MAX
        else to_long(value, f"the argument {quoted(name)}")
        for name, value in zip(params, values, strict=True)
    ]

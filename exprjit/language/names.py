"""What can be a name, and the options that give names: parameters and constants."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping

from ..errors import ExprTypeError, ExprValueError, quoted, shown
from .arguments import to_long

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: One for all formulas that have none; nobody changes it.
NO_CONSTANTS: dict[str, int] = {}


def check_name(name: object, what: str) -> None:
    """Raise ExprTypeError or ExprValueError unless `name` can be the name of `what`."""
    if not isinstance(name, str):
        raise ExprTypeError(f"{what} has a str for a name, not {shown(name)}")
    if not _IDENTIFIER.match(name):
        raise ExprValueError(f"{shown(name)} cannot be the name of {what}")
    if keyword.iskeyword(name):
        raise ExprValueError(f"{name!r} is a reserved word and cannot be the name of {what}")


def check_params(params: object) -> tuple[str, ...] | None:
    """The option ``params=`` as a tuple of names, or None.

    Raises ExprTypeError or ExprValueError for a bare string, what is not an identifier, a
    reserved word, and a name given twice.
    """
    if params is None:
        return None
    if isinstance(params, (str, bytes)):
        raise ExprTypeError(f"params is a sequence of names, not the string {shown(params)}")
    if not isinstance(params, Iterable):
        raise ExprTypeError(f"params is a sequence of names, not {shown(params)}")
    if isinstance(params, (set, frozenset)):
        raise ExprTypeError("params is a sequence of names: the order in a set is not fixed")
    names: dict[str, None] = {}
    for name in params:
        check_name(name, "a parameter")
        if name in names:
            raise ExprValueError(f"the parameter {quoted(name)} is listed twice")
        names[name] = None
    return tuple(names)


def check_constants(constants: object) -> dict[str, int]:
    """The option ``constants=`` as a dict of 64-bit ints.

    Raises ExprTypeError, ExprValueError or ExprOverflowError.
    """
    if constants is None or constants is NO_CONSTANTS:
        return NO_CONSTANTS
    if not isinstance(constants, Mapping):
        raise ExprTypeError(f"constants is a dict of names and ints, not {shown(constants)}")
    checked = {}
    for name, value in constants.items():
        check_name(name, "a constant")
        checked[name] = to_long(value, f"the constant {quoted(name)}")
    return checked

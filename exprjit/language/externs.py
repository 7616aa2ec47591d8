"""C functions that formulas call: what may be given for one, and how it is called.

An extern is a ctypes function that declares its argument types and its result type, at
most six arguments, all of them integers of 8 to 64 bits.  A formula's longs are cast to
the argument types as C casts, and the result is extended to a long as its type says: both
are done with operators of the table, so that they mean the same on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ..errors import ExprTypeError, ExprValueError, quoted, shown
from .names import check_name
from .operators import FUNCTIONS, OPERATORS

#: What the x86-64 System V ABI passes in registers.
MOST_ARGUMENTS = 6

#: ctypes' flag of functions that are part of Python itself and can raise.
_PYTHON_API = 4


class Extern:
    """A C function with its types, as `extern` makes it.

    address: where it is.  casts: for each argument the name of the operator that casts it, or
    None.  result: likewise for what it returns.  pure: its result depends on nothing but its
    arguments, and it has no effects.  call: calls it with longs and gives the result register.
    owner: the ctypes function, which keeps it loaded.
    """

    __slots__ = ("address", "call", "casts", "owner", "pure", "result")

    def __init__(
        self,
        address: int,
        casts: tuple[str | None, ...],
        result: str | None,
        pure: bool,
        call: Callable[..., int],
        owner: object,
    ) -> None:
        self.address = address
        self.casts = casts
        self.result = result
        self.pure = pure
        self.call = call
        self.owner = owner

    def _key(self) -> tuple[object, ...]:
        return self.address, self.casts, self.result, self.pure

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Extern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        name = getattr(self.owner, "__name__", "function")
        pure = ", pure" if self.pure else ""
        return f"<extern {name} at {self.address:#x}, {len(self.casts)} arguments{pure}>"


#: One for all formulas that have none; nobody changes it.
NO_EXTERNS: dict[str, Extern] = {}


def cast(operator: str | None, value: int) -> int:
    """A long as an operator that `Extern` names casts it."""
    return value if operator is None else OPERATORS[operator](value)


@cache
def _casts() -> dict[object, str | None]:
    """The C types that externs may have, each to the operator that casts a long to it."""
    import ctypes

    narrow = {
        getattr(ctypes, f"c_{sign}int{bits}"): f"{letter}{bits}"
        for bits in (8, 16, 32)
        for sign, letter in (("", "i"), ("u", "u"))
    }
    # On 64-bit Linux c_long, c_longlong, c_size_t and the like are these by other names.
    return {**narrow, ctypes.c_int64: None, ctypes.c_uint64: None}


def extern(function: Any, *, pure: bool = False) -> Extern:
    """A C function for the option ``externs=`` of `compile`.

    function: a ctypes function that declares `argtypes`, at most six, and `restype`, all of
        them integers of 8 to 64 bits.
    pure: its result depends on nothing but its arguments, and it has no effects.  Calls of
        it may then be merged, left out where their result is not used, and repeated.

    Raises ExprTypeError if it is no such function.
    """
    from ctypes import PYFUNCTYPE, c_int64, c_void_p
    from ctypes import cast as pointer_cast

    # The base of all ctypes functions has no public name.
    base: Any = PYFUNCTYPE(None).__mro__[1]
    if not isinstance(function, base):
        raise ExprTypeError(f"an extern is a ctypes function, not {shown(function)}")
    if function.argtypes is None:
        raise ExprTypeError("an extern declares its argument types; this one has no argtypes")
    if len(function.argtypes) > MOST_ARGUMENTS:
        count = len(function.argtypes)
        raise ExprTypeError(f"an extern has at most {MOST_ARGUMENTS} arguments, not {count}")
    if function.errcheck is not None:
        raise ExprTypeError("an extern has no errcheck: machine code cannot call it")
    if getattr(function, "_flags_", 0) & _PYTHON_API:
        raise ExprTypeError("an extern is no function of a PyDLL: those can raise exceptions")
    casts = [_cast_to(one, f"argument {n}") for n, one in enumerate(function.argtypes, 1)]
    result = _cast_to(function.restype, "the result")
    address = pointer_cast(function, c_void_p).value
    if not address:
        raise ExprTypeError("an extern has an address; this one is a null pointer")
    # Registers are passed as machine code passes them.  The interpreter lock is kept, as
    # machine code keeps it.
    call = PYFUNCTYPE(c_int64, *[c_int64] * len(casts))(address)
    return Extern(address, tuple(casts), result, bool(pure), call, function)


def _cast_to(declared: object, what: str) -> str | None:
    try:
        return _casts()[declared]
    except (KeyError, TypeError):
        name = getattr(declared, "__name__", None) or shown(declared)
        raise ExprTypeError(
            f"an extern's arguments and result are integers of 8 to 64 bits; {what} is {name}"
        ) from None


def check_externs(externs: object) -> dict[str, Extern]:
    """The option ``externs=`` as a dict of `Extern`.

    Raises ExprTypeError or ExprValueError.
    """
    if not externs and (externs is None or isinstance(externs, Mapping)):
        return NO_EXTERNS
    if not isinstance(externs, Mapping):
        raise ExprTypeError(f"externs is a dict of names and C functions, not {shown(externs)}")
    checked = {}
    for name, given in externs.items():
        check_name(name, "an extern")
        if name in FUNCTIONS:
            raise ExprValueError(f"{quoted(name)} is a function of the language")
        try:
            checked[name] = given if isinstance(given, Extern) else extern(given)
        except ExprTypeError as error:
            raise ExprTypeError(f"{quoted(name)}: {error.message}") from None
    return checked

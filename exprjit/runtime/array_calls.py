"""Python objects whose call is a kernel over plain arrays; see x86/array_call.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from exprjit.runtime import memory
from exprjit.x86.array_call import ArrayTargets, Called, array_call

from .numpy_fields import array_fields
from .pycall import FIRST_FIELDS, NativeType, PyCallError, native_type
from .stubs import TYPE, stubs, symbols
from .sweep import PIECE


class _ArrayCall:
    """The base of the type."""

    __slots__ = ()


def _declined(*args: object, **keywords: object) -> Any:
    """What answers calls that the code hands over."""
    return NotImplemented


def callable_kernel(called: Called, owners: tuple[object, ...]) -> Callable[..., Any] | None:
    """What calls a kernel, if there can be such an object; it gives NotImplemented at times.

    owners: what has to live as long, such as what keeps the kernel and the dtypes.
    """
    try:
        native, targets = _type(), _targets()
        if targets is None:
            return None
        code = memory.install(array_call(called, targets).code)
    except (PyCallError, memory.CodeMemoryError, ValueError):
        return None
    made: Callable[..., Any] = native.new(code.address, _declined, None, (code, *owners))
    return made


@cache
def _type() -> NativeType:
    return native_type("exprjit.ArrayCall", _ArrayCall, (*FIRST_FIELDS, "owners"), "")


@cache
def _targets() -> ArrayTargets | None:
    """Raises PyCallError."""
    import numpy as np

    fields = array_fields()
    if fields is None:
        return None
    functions, entries = symbols(), stubs()
    # All of these are there as long as the code can be called.
    objects = {"PyLong_Type": int, "none": None, "true": True, "false": False}
    return ArrayTargets(
        fields=fields,
        type_offset=TYPE,
        ndarray=id(np.ndarray),
        most_rows=PIECE,
        **{name: id(value) for name, value in objects.items()},
        **{name: functions[name] for name in ArrayTargets._fields if name in functions},
        slow=entries.slow,
        failed=entries.failed,
    )

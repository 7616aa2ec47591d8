"""Where NumPy's arrays keep what, for code that cannot ask them.

So it is as of NumPy 1.0, and macros of its headers rely on it (`PyArrayObject_fields`). All the
same it is looked at before it is used.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from ..x86.array_fields import ArrayFields


def _fields(start: int) -> ArrayFields:
    """Where they are if the first one is at `start`; each takes eight bytes."""
    data, nd, dimensions, strides, _, descr, flags = (start + 8 * number for number in range(7))
    return ArrayFields(data, nd, dimensions, strides, descr, flags)


#: Where the fields of arrays are, behind what all objects have; if `array_fields` says so.
FIELDS: Final = _fields(object.__basicsize__)


@cache
def array_fields() -> ArrayFields | None:
    """Where the fields of arrays are, or None where that is not known."""
    from ctypes import c_int, c_ssize_t, c_void_p

    import numpy as np

    data, nd, dimensions, strides, descr, flags = FIELDS
    fixed = np.zeros(3, ">i4")
    fixed.flags.writeable = False
    grid = np.zeros((3, 4))
    for array in (grid, grid[::-1, 2:], grid[:, :1], np.zeros(9, "int8")[5:], fixed, np.array(7)):
        where = id(array)
        sizes, steps = (
            (c_ssize_t * array.ndim).from_address(c_void_p.from_address(where + at).value or where)
            for at in (dimensions, strides)
        )
        if not (
            c_void_p.from_address(where + data).value == array.__array_interface__["data"][0]
            and c_int.from_address(where + nd).value == array.ndim
            and (tuple(sizes), tuple(steps)) == (array.shape, array.strides)
            and c_void_p.from_address(where + descr).value == id(array.dtype)
            and c_int.from_address(where + flags).value == array.flags.num
        ):
            return None
    return FIELDS


@cache
def _pointer() -> tuple[Any, type, int] | None:
    """What reads the address of the items, of what type of array, and where; or None."""
    from ctypes import c_void_p

    import numpy as np

    fields = array_fields()
    return None if fields is None else (c_void_p, np.ndarray, fields.data)


def address(array: Any) -> int:
    """Where the first item of an array is."""
    known = _pointer()
    if known is not None and type(array) is known[1]:
        # Three times as fast as to ask.
        return known[0].from_address(id(array) + known[2]).value or 0
    where: int = array.__array_interface__["data"][0]
    return where

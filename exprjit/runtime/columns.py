"""What holds the values of a parameter for many rows: arrays of NumPy, other buffers, numbers.

Columns of other libraries (pandas, Polars, Arrow) become such arrays first, in frames.py.

A column is used where it lies if its items lie one behind the other in the byte order of the
machine; of what does not, a copy is made.  Nothing here imports NumPy: who has an array of
it has imported it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from ..errors import ExprTypeError, ExprValueError, quoted
from ..language.arguments import to_long
from ..x86.rows import ITEM_TYPES, SCALAR_COLUMN


class Column(NamedTuple):
    """The values of a parameter.

    kind: the type of the items, a key of ITEM_TYPES, or SCALAR_COLUMN.  address: of the first item;
    of a scalar its value.  owner: what keeps the items where they are.
    """

    kind: str
    address: int
    owner: object


def scalar(value: int) -> Column:
    return Column(SCALAR_COLUMN, value, None)


def numpy() -> Any:
    """NumPy if something has imported it, else None."""
    return sys.modules.get("numpy")


def are_exact(values: Sequence[Any]) -> bool:
    """Whether some are arrays of NumPy and the others ints, none of a class derived from them.

    Most are, and need not be looked at any closer.
    """
    loaded = numpy()
    if loaded is None:
        return False
    ndarray, found = loaded.ndarray, False
    for value in values:
        kind = type(value)
        if kind is ndarray:
            found = True
        elif kind is not int:
            return False
    return found


def is_columnar(value: object) -> bool:
    """Whether a value stands for many rows: an array with dimensions, or a buffer of numbers."""
    if type(value) is int:
        return False
    if hasattr(value, "__array__"):
        return getattr(value, "ndim", 1) != 0
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        return True
    if isinstance(value, bytes | bytearray | str):
        return False
    return _is_buffer(value)


def is_lazy(value: object) -> bool:
    """Whether a value is a collection of Dask, whose rows are yet to be computed."""
    return hasattr(type(value), "__dask_graph__")


def may_be_framed(value: object) -> bool:
    """Whether a value may be a column of another library: cheap, and seldom wrong (frames.py)."""
    kind = type(value)
    return (
        hasattr(kind, "__arrow_c_array__")
        or hasattr(kind, "__arrow_c_stream__")
        or kind.__module__.startswith("pandas")
    )


def _is_buffer(value: object) -> bool:
    try:
        memoryview(value).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


#: What columns of other types hold, by NumPy's letters for kinds of types.
_REFUSED: Final = {
    "f": "floats",
    "c": "complex numbers",
    "u": "unsigned 64-bit numbers",
    "M": "dates",
    "m": "durations",
    "O": "Python objects",
}
#: What to do about some of them, with NumPy.
_HINTS: Final = {
    "f": 'convert them first, as with .astype("int64")',
    "u": 'to compute modulo 2**64, give .view("int64")',
    "M": 'their numbers are had by .view("int64")',
    "m": 'their numbers are had by .view("int64")',
    "O": 'convert them first, as with .astype("int64")',
}


def refusal(letter: str, items: str, what: str, hints: Mapping[str, str] = _HINTS) -> ExprTypeError:
    """The error for a column, called `what`, that holds something else.

    letter: of NumPy, for the kind of its type, where it is one that has words and hints by it.
    items: what it holds otherwise.
    """
    held = _REFUSED.get(letter, items)
    hint = hints.get(letter)
    return ExprTypeError(f"{what} must hold integers of up to 64 bits, not {held}", hint=hint)


#: The keys of ITEM_TYPES by the dtypes of NumPy that were met: these are few.
_item_types: dict[Any, str] = {}


def item_type(dtype: Any, what: str, hints: Mapping[str, str] = _HINTS) -> str:
    """The key of ITEM_TYPES for a dtype of NumPy, whatever its byte order.

    Raises ExprTypeError, for which `what` and `hints` are.
    """
    name = _item_types.get(dtype)
    if name is None:
        name = dtype.newbyteorder("=").name
        if name in ITEM_TYPES:
            # To look it up is ten times faster than to ask.
            _item_types[dtype] = name
    if name in ITEM_TYPES:
        return name
    raise refusal(dtype.kind, f"items of type {dtype}", what, hints)


def argument(name: str) -> str:
    """How errors call a column."""
    return f"the argument {quoted(name)}"


# Buffers. ----------------------------------------------------------------------------------

#: Letters of the struct module by signedness, as `memoryview.format` has them.
_SIGNED: Final = "bhilqn"
_UNSIGNED: Final = "BHILQN"


class Buffer(NamedTuple):
    """What `buffer` found: the items, and how many they are."""

    kind: str
    items: Any
    length: int


def buffer(value: Any, what: str) -> Buffer:
    """The items of an object that has the buffer protocol, one behind the other.

    Raises ExprTypeError for what are no integers, and ExprValueError for more dimensions than one.
    """
    view = memoryview(value)
    if view.ndim != 1:
        raise ExprValueError(
            f"{what} must have one dimension, not {view.ndim}", hint="use NumPy for others"
        )
    order, letter = view.format[:-1], view.format[-1]
    kind = _kind(letter, view.itemsize)
    if kind is None or order not in ("", "@", "=", "<", ">", "!"):
        kinds = {"f": "floats", "d": "floats", "Q": "unsigned 64-bit numbers"}.get(
            letter, f"items of format {view.format!r}"
        )
        raise ExprTypeError(f"{what} must hold integers of up to 64 bits, not {kinds}")
    swapped = order in (">", "!") and view.itemsize > 1
    if view.c_contiguous and not swapped:
        return Buffer(kind, view, len(view))
    items = array(_ARRAY_CODES[kind])
    items.frombytes(view.tobytes())
    if swapped:
        items.byteswap()
    return Buffer(kind, items, len(items))


def _kind(letter: str, size: int) -> str | None:
    if letter == "?":
        return "bool"
    sign = "int" if letter in _SIGNED else "uint" if letter in _UNSIGNED else None
    return f"{sign}{8 * size}" if sign and f"{sign}{8 * size}" in ITEM_TYPES else None


_ARRAY_CODES: Final = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "bool": "B",
}  # fmt: skip


@cache
def c_types() -> dict[str, Any]:
    """The types of ctypes for the items of columns."""
    import ctypes

    # What is in a column of bools is a byte to the machine code, too.
    names = {kind: "uint8" if kind == "bool" else kind for kind in ITEM_TYPES}
    return {kind: getattr(ctypes, f"c_{name}") for kind, name in names.items()}


class Address:
    """Where the items of a buffer are, for as long as this lives.

    Arrays cannot be resized meanwhile.  Raises BufferError if they cannot be written but have to.
    """

    __slots__ = ("_view", "address", "__weakref__")

    def __init__(self, items: Any, writable: bool = False) -> None:
        from ctypes import addressof, byref, pythonapi

        view = _py_buffer()()
        flags = 1 if writable else 0  # PyBUF_WRITABLE, PyBUF_SIMPLE
        pythonapi.PyObject_GetBuffer(_object(items), byref(view), flags)
        self._view = view
        self.address: int = view.buf or addressof(view)

    def __del__(self) -> None:
        from ctypes import byref, pythonapi

        if hasattr(self, "_view"):
            pythonapi.PyBuffer_Release(byref(self._view))


def _object(value: object) -> Any:
    from ctypes import py_object

    return py_object(value)


def _py_buffer() -> Any:
    """Py_buffer, which is part of the stable ABI as of Python 3.11 and has been so before."""
    global _Py_buffer
    if _Py_buffer is None:
        from ctypes import Structure, c_char_p, c_int, c_ssize_t, c_void_p

        class Py_buffer(Structure):
            _fields_ = [
                ("buf", c_void_p),
                ("obj", c_void_p),
                ("len", c_ssize_t),
                ("itemsize", c_ssize_t),
                ("readonly", c_int),
                ("ndim", c_int),
                ("format", c_char_p),
                ("shape", c_void_p),
                ("strides", c_void_p),
                ("suboffsets", c_void_p),
                ("internal", c_void_p),
            ]

        _Py_buffer = Py_buffer
    return _Py_buffer


_Py_buffer: Any = None


class Part(NamedTuple):
    """Some of the rows: their numbers, their columns, and where the results of row 0 would be."""

    rows: range
    columns: list[Column]
    out: int


class BufferRows:
    """The rows of buffers and numbers.

    kinds: by parameter the type, as in `Column`.  count: how many rows there are.
    Raises ExprTypeError, ExprOverflowError, and ExprValueError if they differ in length.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        self.columns: list[Column] = []
        lengths: dict[str, int] = {}
        for name, value in zip(names, values, strict=True):
            if not (is_columnar(value) or isinstance(value, bytes | bytearray)):
                self.columns.append(scalar(to_long(value, argument(name))))
                continue
            kind, items, lengths[name] = buffer(value, argument(name))
            owner = Address(items)
            self.columns.append(Column(kind, owner.address, owner))
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{argument(name)} {length:,}" for name, length in lengths.items())
            raise ExprValueError(f"the columns differ in how many rows they have: {told}")
        self.count = next(iter(lengths.values()), 1)
        self.kinds = tuple(column.kind for column in self.columns)

    def new(self, kind: str, length: int | None = None) -> Any:
        """An array of zeros, one for a row, or so many."""
        size = self.count if length is None else length
        return array(_ARRAY_CODES[kind], bytes(ITEM_TYPES[kind].size)) * size

    def words(self, length: int) -> Any:
        """An array of so many unsigned words of 64 bits, all 0."""
        return array("Q", [0]) * length

    def check_out(self, out: Any) -> str:
        """The item type of a buffer for results; raises ExprTypeError and ExprValueError."""
        if not is_columnar(out) and not isinstance(out, bytearray):
            raise ExprTypeError(f"out must be an array, not {type(out).__name__}")
        view = memoryview(out)
        if view.readonly:
            raise ExprValueError("out cannot be written to: it is read-only")
        kind, items, length = buffer(out, "out")
        if not isinstance(items, memoryview):
            raise ExprValueError("the items of out must lie one behind the other")
        if length != self.count:
            raise ExprValueError(f"out has {length:,} items; there are {self.count:,} rows")
        return kind

    def parts(self, out: Any) -> Iterator[Part]:
        """The rows in order; `out` is the array of results, one for a row, or None."""
        if out is None:
            yield Part(range(self.count), self.columns, 0)
            return
        target = Address(out, writable=True)
        size = memoryview(out).itemsize
        columns = [self._kept(column, target.address, size) for column in self.columns]
        yield Part(range(self.count), columns, target.address)

    def _kept(self, column: Column, out: int, size: int) -> Column:
        """The column, or a copy of it if writing results would change it in other rows."""
        if column.kind == SCALAR_COLUMN:
            return column
        width = ITEM_TYPES[column.kind].size
        start, end = column.address, column.address + width * self.count
        if end <= out or out + size * self.count <= start or (start == out and width == size):
            return column
        from ctypes import string_at

        owner = Address(string_at(start, end - start))
        return Column(column.kind, owner.address, owner)

    def fill(self, result: Any, rows: Sequence[int], value: int) -> None:
        """Put a number into some rows of an array of results."""
        if rows:
            # (Not every buffer lets its items be set from here.)
            target = Address(result, writable=True)
            kind = buffer(result, "out").kind
            item = c_types()[kind]
            for row in rows:
                item.from_address(target.address + ITEM_TYPES[kind].size * row).value = value

    def count_true(self, truths: Any, start: int, length: int) -> int:
        """How many of some truth values, one for each row, are true."""
        return memoryview(truths)[start : start + length].tobytes().count(1)

    def trimmed(self, result: Any, length: int) -> Any:
        """The first items of an array that `new` made."""
        del result[length:]
        return result

"""Columns over Arrow's C data interface: of pyarrow, of Polars, and of whatever else speaks it.

The interface is two small structures of C and a third one for streams, inside of capsules
(https://arrow.apache.org/docs/format/CDataInterface.html), so nothing of Arrow has to be installed
to read them. Numbers are used where they lie. Truth values are bits there, and are unpacked; so
are the bits that say which rows have a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ctypes import (
    CFUNCTYPE,
    POINTER,
    PYFUNCTYPE,
    Structure,
    addressof,
    c_char_p,
    c_int,
    c_int64,
    c_void_p,
    py_object,
    pythonapi,
)
from typing import Any, Final, NamedTuple

from ..errors import ExprValueError, shortened
from .columns import refusal


class Chunk(NamedTuple):
    """Some of a column's rows: an array of NumPy, and which have a value (None: all of them)."""

    values: Any
    valid: Any = None


_Release = CFUNCTYPE(None, c_void_p)


class _Schema(Structure):
    pass


_Schema._fields_ = [
    ("format", c_char_p),
    ("name", c_char_p),
    ("metadata", c_void_p),
    ("flags", c_int64),
    ("n_children", c_int64),
    ("children", c_void_p),
    ("dictionary", c_void_p),
    ("release", _Release),
    ("private_data", c_void_p),
]


class _Array(Structure):
    _fields_ = [
        ("length", c_int64),
        ("null_count", c_int64),
        ("offset", c_int64),
        ("n_buffers", c_int64),
        ("n_children", c_int64),
        ("buffers", POINTER(c_void_p)),
        ("children", c_void_p),
        ("dictionary", c_void_p),
        ("release", _Release),
        ("private_data", c_void_p),
    ]


class _Stream(Structure):
    _fields_ = [
        ("get_schema", CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("get_next", CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("get_last_error", CFUNCTYPE(c_char_p, c_void_p)),
        ("release", _Release),
        ("private_data", c_void_p),
    ]


#: A prototype of its own: what others declare for the function is theirs.
_pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", pythonapi))


class _Owned:
    """A structure that somebody else fills in, and that is to be given back when this dies."""

    __slots__ = ("address", "structure")

    def __init__(self, kind: Any) -> None:
        self.structure = kind()
        self.address = addressof(self.structure)

    def __del__(self) -> None:
        if self.structure.release:
            self.structure.release(self.address)


class _Memory:
    """Items in memory of another library, as NumPy takes them; it keeps this, and so the owner."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, kind: str, address: int, length: int, owner: object) -> None:
        import numpy as np

        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(kind).str,
            "shape": (length,),
            "data": (address, True),  # to be read only
        }
        self.owner = owner


# Types. --------------------------------------------------------------------------------------

#: The types that can be computed with, by Arrow's names for them: keys of ITEM_TYPES.
_KINDS: Final = {
    "c": "int8", "s": "int16", "i": "int32", "l": "int64",
    "C": "uint8", "S": "uint16", "I": "uint32", "b": "bool",
}  # fmt: skip
#: The type of columns that have no value in any row.
_NULL: Final = "n"
#: What they hold, so to speak.
_AS_NULL: Final = "int8"

#: What others hold, by how their names begin: a letter of NumPy for such, or words.
_OTHERS: Final = (
    (("e", "f", "g"), "f"),
    (("L",), "u"),
    (("ts", "td"), "M"),
    (("tD",), "m"),
    (("tt",), "times"),
    (("ti",), "intervals"),
    (("d:",), "decimal numbers"),
    (("u", "U", "vu"), "items of type string"),
    (("z", "Z", "vz", "w:"), "items of type binary"),
    (("+l", "+L", "+vl", "+vL", "+w"), "lists"),
    (("+s",), "items of several fields"),
    (("+r",), "run-end encoded items"),
    (("+",), "nested items"),
    (("_pli128", "_plu128"), "128-bit numbers"),
)

#: What to do about some of them with pyarrow; see `refusal`.
HINTS: Final = {
    "f": 'convert them first, as with .cast("int64")',
    "u": 'to compute modulo 2**64, give .view("int64")',
    "M": 'their numbers are had by .cast("int64")',
    "m": 'their numbers are had by .cast("int64")',
    "dictionary": "decode them first, as with .dictionary_decode()",
}


def item_kind(capsule: object, what: str, hints: Mapping[str, str] = HINTS) -> str:
    """The key of ITEM_TYPES for the type that a capsule with a schema describes.

    what: how errors call the column.  Raises ExprTypeError for what are no integers; a column that
    has no value anywhere counts as one of the smallest.
    """
    kind = _kind(_Schema.from_address(_pointer(capsule, b"arrow_schema")), what, hints)
    return _AS_NULL if kind == _NULL else kind


def _kind(schema: Any, what: str, hints: Mapping[str, str]) -> str:
    """As `item_kind`, but _NULL for a column that has no value anywhere."""
    name: str = schema.format.decode()
    if schema.dictionary:
        raise refusal("dictionary", "dictionary-encoded items", what, hints)
    kind = name if name == _NULL else _KINDS.get(name)
    if kind is not None:
        return kind
    for beginnings, words in _OTHERS:
        if name.startswith(beginnings):
            raise refusal(words, words, what, hints)
    raise refusal("", f"items of type {shortened(name)!r}", what, hints)


# Columns. ------------------------------------------------------------------------------------


def chunks(value: Any, what: str, hints: Mapping[str, str] = HINTS) -> list[Chunk]:
    """The rows of a value with `__arrow_c_array__` or `__arrow_c_stream__`; one chunk at least.

    Raises ExprTypeError for what are no integers, ExprValueError for a stream that breaks off.
    """
    if hasattr(value, "__arrow_c_array__"):
        schema, capsule = value.__arrow_c_array__()
        kind = _kind(_Schema.from_address(_pointer(schema, b"arrow_schema")), what, hints)
        array = _Array.from_address(_pointer(capsule, b"arrow_array"))
        return [_chunk(array, kind, capsule, what)]
    capsule = value.__arrow_c_stream__()
    address = _pointer(capsule, b"arrow_array_stream")
    stream = _Stream.from_address(address)
    schema = _Owned(_Schema)
    _check(stream.get_schema(address, schema.address), stream, address, what)
    kind = _kind(schema.structure, what, hints)
    found = [_chunk(one.structure, kind, one, what) for one in _arrays(stream, address, what)]
    return [chunk for chunk in found if len(chunk.values)] or [_empty(kind)]


def _arrays(stream: Any, address: int, what: str) -> Iterator[_Owned]:
    while True:
        array = _Owned(_Array)
        _check(stream.get_next(address, array.address), stream, address, what)
        if not array.structure.release:
            return
        yield array


def _check(status: int, stream: Any, address: int, what: str) -> None:
    if status:
        import os

        reason = stream.get_last_error(address)
        told = reason.decode(errors="replace") if reason else os.strerror(status)
        raise ExprValueError(f"{what} cannot be read: {told}")


def _empty(kind: str) -> Chunk:
    import numpy as np

    return Chunk(np.empty(0, _AS_NULL if kind == _NULL else kind))


def _chunk(array: Any, kind: str, owner: object, what: str) -> Chunk:
    """The rows of an array, which lives as long as `owner`."""
    import numpy as np

    length, offset = array.length, array.offset
    if length == 0:
        return _empty(kind)
    if kind == _NULL:
        return Chunk(np.zeros(length, _AS_NULL), np.zeros(length, bool))
    if array.n_buffers != 2 or not array.buffers[1]:
        raise ExprValueError(f"{what} cannot be read: its memory is not as its type says")
    validity, data = array.buffers[0], array.buffers[1]
    if kind == "bool":
        values = _bits(data, offset, length, owner)
    else:
        first = data + offset * np.dtype(kind).itemsize
        values = np.asarray(_Memory(kind, first, length, owner))
    if not validity or array.null_count == 0:
        return Chunk(values)
    valid = _bits(validity, offset, length, owner)
    return Chunk(values, None if valid.all() else valid)


def _bits(address: int, offset: int, length: int, owner: object) -> Any:
    """Bits as an array of bool, which is a copy."""
    import numpy as np

    skipped = offset & 7
    size = (skipped + length + 7) >> 3
    packed = np.asarray(_Memory("uint8", address + (offset >> 3), size, owner))
    unpacked = np.unpackbits(packed, count=skipped + length, bitorder="little")
    return unpacked[skipped:].view(bool)

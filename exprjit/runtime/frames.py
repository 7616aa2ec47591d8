"""Columns of other libraries: pandas, Polars, Arrow; their nulls, and results of their kind.

A library is a row: how its columns are told, become arrays of NumPy without being copied, and are
made of results. A row of the columns that has no value in one of them has no value as a whole.
Nothing here imports a library: who has a column of one has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ..errors import ExprTypeError, ExprValueError
from ..language.arguments import to_long
from .arrow import Chunk, chunks
from .chunked_rows import ChunkedRows
from .columns import argument, is_columnar, item_type, may_be_framed, refusal
from .numpy_rows import NumpyRows


class Library(NamedTuple):
    """What can be done with the columns of a library.

    chunks: the rows of one; the second argument is what errors call it.  Raises ExprTypeError for
    what holds no integers.  wrap: a column of the library like those given (the first of which
    decides) of an array of results, and of which of them there are, None for all.  check: raises
    ExprValueError for columns that do not belong together.
    """

    chunks: Callable[[Any, str], list[Chunk]]
    wrap: Callable[[Sequence[Any], Any, Any], Any]
    check: Callable[[Sequence[Any]], None] = lambda columns: None


# pandas. -------------------------------------------------------------------------------------

_PANDAS_HINTS: Final = {
    "f": 'convert them first, as with .astype("int64"), or .astype("Int64") if some are missing',
    "u": 'to compute modulo 2**64, give .to_numpy().view("int64")',
    "M": 'their numbers are had by .astype("int64")',
    "m": 'their numbers are had by .astype("int64")',
    "O": 'convert them first, as with .astype("int64"), or .astype("Int64") if some are missing',
    "dictionary": "decode them first, as with .dictionary_decode()",
}


def _pandas_chunks(series: Any, what: str) -> list[Chunk]:
    import numpy as np

    dtype, array = series.dtype, series.array
    if isinstance(dtype, np.dtype):
        item_type(dtype, what, _PANDAS_HINTS)
        return [Chunk(series.to_numpy())]
    if hasattr(dtype, "pyarrow_dtype"):
        return chunks(array.__arrow_array__(), what, _PANDAS_HINTS)
    if dtype.kind in "iub" and hasattr(dtype, "subtype"):  # Sparse
        item_type(dtype.subtype, what, _PANDAS_HINTS)
        return [Chunk(np.asarray(series))]
    if not hasattr(dtype, "numpy_dtype"):
        letter = "" if dtype.kind == "O" else dtype.kind
        raise refusal(letter, f"items of type {dtype}", what, _PANDAS_HINTS)
    # Numbers, and beside them which are missing.
    kind = item_type(dtype.numpy_dtype, what, _PANDAS_HINTS)
    missing = getattr(array, "_mask", None)
    values = getattr(array, "_data", None)
    if missing is None or values is None:
        missing, values = series.isna().to_numpy(), series.to_numpy(kind, na_value=0)
    return [Chunk(values, ~missing if missing.any() else None)]


def _pandas_check(columns: Sequence[Any]) -> None:
    first = columns[0].index
    for series in columns[1:]:
        if not (series.index is first or series.index.equals(first)):
            raise ExprValueError(
                "the Series differ in their indexes",
                hint="align them first, or give .to_numpy() to take the rows as they stand",
            )


def _pandas_wrap(columns: Sequence[Any], values: Any, valid: Any) -> Any:
    import pandas as pd

    data = values
    if valid is not None:
        kind = pd.arrays.BooleanArray if values.dtype == bool else pd.arrays.IntegerArray
        data = kind(values, ~valid)
    names = {series.name for series in columns}
    name = columns[0].name if len(names) == 1 else None
    return pd.Series(data, index=columns[0].index, name=name, copy=False)


# Polars. -------------------------------------------------------------------------------------

_POLARS_HINTS: Final = {
    "f": "convert them first, as with .cast(pl.Int64)",
    "u": "to compute modulo 2**64, give .reinterpret(signed=True)",
    "M": "their numbers are had by .to_physical()",
    "m": "their numbers are had by .to_physical()",
    "times": "their numbers are had by .to_physical()",
    "dictionary": "their codes are had by .to_physical()",
}


def _polars_chunks(series: Any, what: str) -> list[Chunk]:
    if str(series.dtype) == "Object":
        raise refusal("O", "", what, {})  # These it cannot hand over.
    return chunks(series, what, _POLARS_HINTS)


def _polars_wrap(columns: Sequence[Any], values: Any, valid: Any) -> Any:
    import polars as pl

    series = pl.Series(columns[0].name, values)
    if valid is None:
        return series
    return pl.select(pl.when(pl.Series(valid)).then(series)).to_series().alias(columns[0].name)


# Arrow. --------------------------------------------------------------------------------------


def _arrow_wrap(columns: Sequence[Any], values: Any, valid: Any) -> Any:
    import numpy as np

    try:
        import pyarrow as pa
    except ImportError:
        raise ExprTypeError(
            "the results are an Arrow array, which needs pyarrow",
            hint="pip install pyarrow, or give an array of NumPy as out=",
        ) from None

    def bits(truths: Any) -> Any:
        return pa.py_buffer(np.packbits(truths, bitorder="little"))

    data = bits(values) if values.dtype == bool else pa.py_buffer(values)
    validity = None if valid is None else bits(valid)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [validity, data])


PANDAS: Final = Library(_pandas_chunks, _pandas_wrap, _pandas_check)
POLARS: Final = Library(_polars_chunks, _polars_wrap)
ARROW: Final = Library(chunks, _arrow_wrap)


def library_of(value: object) -> Library | None:
    """The library that a column is of; None for those of NumPy, numbers and tables."""
    kind = type(value)
    if not may_be_framed(value):
        return None  # Such as a Series of a Polars that does not speak Arrow's interface yet.
    if _is_extension_array(value):
        return PANDAS
    for name, library in (("pandas", PANDAS), ("polars", POLARS)):
        module = sys.modules.get(name)
        if module is not None and isinstance(value, getattr(module, "Series", ())):
            return library
    if hasattr(kind, "__arrow_c_array__") or hasattr(kind, "__arrow_c_stream__"):
        # Tables have the latter too; what else they can be taken for, they are.
        return None if hasattr(kind, "columns") else ARROW
    return None


def _is_extension_array(value: object) -> bool:
    """Whether a value is what is in a Series of pandas, without its index.

    (A categorical one is no column as a Series, and as an array it is one of its items.)
    """
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "Categorical"):
        return False  # It is not there, or just being imported.
    kind = pandas.api.extensions.ExtensionArray
    return isinstance(value, kind) and not isinstance(value, pandas.Categorical)


def _in_series(values: Sequence[Any]) -> list[Any]:
    """The same, with such arrays in Series, whose index is that of the first Series."""
    if not any(map(_is_extension_array, values)):
        return list(values)
    import pandas as pd

    index = next((value.index for value in values if isinstance(value, pd.Series)), None)
    return [
        pd.Series(value, index if index is not None and len(index) == len(value) else None)
        if _is_extension_array(value)
        else value
        for value in values
    ]


# All columns together. -----------------------------------------------------------------------


class Frame:
    """The rows of columns of which at least one is of such a library.

    rows: what the kernels run over; if `valid` is not None, its last column is that: an array that
    says which rows have a value.  Raises ExprTypeError, ExprOverflowError and ExprValueError.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        values = _in_series(values)
        libraries = [library_of(value) for value in values]
        #: The library that results are of, and the columns of it.
        self.library = next(library for library in libraries if library is not None)
        self.columns = [
            value
            for value, library in zip(values, libraries, strict=True)
            if library is self.library
        ]
        found = [
            _chunks(name, value, library)
            for name, value, library in zip(names, values, libraries, strict=True)
        ]
        count = _count(names, found, libraries)
        self.library.check(self.columns)
        self.valid = _valid(found)
        arrays: list[Any] = [_arrays(column, count) for column in found]
        if self.valid is not None:
            names, arrays = (*names, "null"), [*arrays, [self.valid]]
        if any(isinstance(column, list) and len(column) > 1 for column in arrays):
            self.rows: NumpyRows = ChunkedRows(names, arrays, count)
        else:
            whole = [column[0] if isinstance(column, list) else column for column in arrays]
            self.rows = NumpyRows(names, whole)

    def wrap(self, values: Any, nulls: bool = True) -> Any:
        """A column of an array with a result for each row; nulls: where there is no value."""
        return self.library.wrap(self.columns, values, self.valid if nulls else None)


def _chunks(name: str, value: Any, library: Library | None) -> list[Chunk] | int:
    """The chunks of an argument that is a column, or the number that it is."""
    if library is not None:
        return library.chunks(value, argument(name))
    if isinstance(value, bytes | bytearray) or is_columnar(value):
        import numpy as np

        if isinstance(value, bytes | bytearray):
            value = np.frombuffer(value, "uint8")
        array = np.asarray(value)
        item_type(array.dtype, argument(name))
        return [Chunk(array)]
    return to_long(value, argument(name))


def _length(column: list[Chunk]) -> int:
    return sum(chunk.values.size for chunk in column)


def _count(
    names: Sequence[str], columns: Sequence[Any], libraries: Sequence[Library | None]
) -> int:
    """How many rows there are; an array of NumPy with one item is as good as a number.

    Raises ExprValueError if columns differ in that.
    """
    lengths = {}
    for name, column, library in zip(names, columns, libraries, strict=True):
        if not isinstance(column, list):
            continue
        values = column[0].values
        if library is None and values.ndim != 1 and values.size != 1:
            raise ExprValueError(
                f"{argument(name)} must have one dimension beside columns of a table, "
                f"not {values.ndim}"
            )
        if library is not None or values.size != 1:
            lengths[name] = _length(column)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{argument(name)} {length:,}" for name, length in lengths.items())
        raise ExprValueError(f"the columns differ in how many rows they have: {told}")
    return next(iter(lengths.values()))


def _arrays(column: Any, count: int) -> Any:
    """The arrays of a column, or the number that it is in all rows."""
    if not isinstance(column, list):
        return column
    values = column[0].values
    if len(column) == 1 and values.size == 1 and (count != 1 or values.ndim != 1):
        return int(values.item())
    return [chunk.values for chunk in column]


def _valid(columns: Sequence[Any]) -> Any:
    """Which rows have a value in every column: an array of bool, or None for all."""
    import numpy as np

    whole = None
    for column in columns:
        if not isinstance(column, list) or all(chunk.valid is None for chunk in column):
            continue
        parts = [
            np.ones(len(chunk.values), bool) if chunk.valid is None else chunk.valid
            for chunk in column
        ]
        valid = parts[0] if len(parts) == 1 else np.concatenate(parts)
        whole = valid if whole is None else whole & valid
    return whole

"""Rows of columns that lie in memory in several chunks, each column in chunks of its own.

The rows are taken in sections in which every column has one chunk, so nothing is put together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ..x86.rows import ITEM_TYPES, SCALAR_COLUMN
from .columns import Column, Part, argument, item_type
from .numpy_rows import NumpyRows, may_disturb


class _Chunks:
    """The arrays of a column, one behind the other.  starts: the row that each begins with."""

    __slots__ = ("arrays", "starts")

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = arrays
        self.starts = [0, *accumulate(map(len, arrays))]

    def section(self, start: int, stop: int) -> Any:
        """Rows that are in one chunk."""
        chunk = bisect_right(self.starts, start) - 1
        first = self.starts[chunk]
        return self.arrays[chunk][start - first : stop - first]


class ChunkedRows(NumpyRows):
    """The rows of columns in chunks, arrays of one dimension, and numbers.

    columns: by parameter an int, or a list of the column's arrays in order.  count: how many rows
    each has.  Raises ExprTypeError for what holds no integers.
    """

    def __init__(self, names: Sequence[str], columns: Sequence[Any], count: int) -> None:
        import numpy as np

        self.np: Any = np
        self.names = names
        self.values: list[Any] = []
        kinds: list[str] = []
        for name, column in zip(names, columns, strict=True):
            if isinstance(column, list):
                kinds.append(item_type(column[0].dtype, argument(name)))
                self.values.append(_Chunks(column))
            else:
                kinds.append(SCALAR_COLUMN)
                self.values.append(column)
        self.kinds = tuple(kinds)
        self.shape = (count,)
        self.count = count

    def parts(self, out: Any) -> Iterator[Part]:
        """The rows in order; `out` is the array of results, one for a row, or None."""
        values = self.values if out is None else [_undisturbed(v, out) for v in self.values]
        for start, stop in self._sections():
            pieces = [v.section(start, stop) if isinstance(v, _Chunks) else v for v in values]
            rows = NumpyRows(self.names, pieces)
            results = None if out is None else out[start:stop]
            for part in rows.parts(results):
                yield _moved(part, start, 0 if out is None else out.itemsize)

    def _sections(self) -> Iterator[tuple[int, int]]:
        """Where the rows are cut: wherever a chunk ends.

        Of a long section whose begin is not a multiple of 64 the rows up to one are cut off too:
        threads may share a section, and no two of them may write to one word of a bitmap.
        """
        chunked = (value.starts for value in self.values if isinstance(value, _Chunks))
        cuts = sorted({cut for starts in chunked for cut in starts})
        for start, stop in pairwise(cuts):
            even = -(-start // 64) * 64
            if start < even < stop:
                yield start, even
                start = even
            yield start, stop


def _undisturbed(value: Any, out: Any) -> Any:
    """The value, or a copy of it if results that are written would change it in later sections."""
    if not isinstance(value, _Chunks):
        return value
    placed = zip(value.arrays, value.starts, strict=False)
    if not any(may_disturb(out, array, start) for array, start in placed):
        return value
    return _Chunks([array.copy() for array in value.arrays])


def _moved(part: Part, start: int, size: int) -> Part:
    """A part of a section as a part of all rows; `size` is that of a result."""
    rows, columns, out = part
    moved = [
        column
        if column.kind == SCALAR_COLUMN
        else Column(column.kind, column.address - start * _size(column.kind), column.owner)
        for column in columns
    ]
    return Part(range(rows.start + start, rows.stop + start), moved, out - start * size)


def _size(kind: str) -> int:
    return ITEM_TYPES[kind].size

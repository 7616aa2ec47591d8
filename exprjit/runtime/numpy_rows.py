"""Rows of NumPy arrays: what broadcasts to one shape, piece by piece in the order of C.

Arrays of that shape that lie in memory as C has them are used where they are. Everything else
(strides, other byte orders, broadcasting, results that overlap their operands) goes through
`numpy.nditer`, which copies pieces to and from buffers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

from ..errors import ExprTypeError, ExprValueError
from ..language.arguments import to_long
from ..x86.rows import SCALAR_COLUMN
from .columns import Column, Part, argument, is_columnar, item_type, scalar
from .numpy_fields import address

#: How many items `nditer` hands over at a time: 128 KiB of longs, which stay in the cache.
BUFFER = 1 << 14


#: So many items are kept for whatever is in front of them.
_SMALL: Final = 1 << 10

#: So many dimensions `nditer` can do with in every version of NumPy.
_MOST_DIMENSIONS = 32


def _is_array(value: Any) -> bool:
    return not isinstance(value, int)


def check_unmasked(array: Any, what: str) -> None:
    """Raise ExprTypeError for an array of which some items are not to be looked at."""
    masks = sys.modules.get("numpy.ma")
    if masks is not None and isinstance(array, masks.MaskedArray) and masks.is_masked(array):
        raise ExprTypeError(
            f"{what} has masked items",
            hint="give .filled(value) or .compressed(), or .data to take them as they are",
        )


def _is_plain(array: Any, shape: tuple[int, ...]) -> bool:
    return bool(array.shape == shape and array.flags.c_contiguous and array.dtype.isnative)


def may_disturb(out: Any, array: Any, row: int = 0) -> bool:
    """Whether writing results changes operands of other rows, when `array` begins with `row`.

    It does not where each result lies just where its operand does.
    """
    import numpy as np

    if not (out.flags.c_contiguous and array.flags.c_contiguous):
        return bool(np.may_share_memory(out, array))
    here, there = address(out), address(array)
    if here + row * out.itemsize == there and out.itemsize == array.itemsize:
        return False
    return bool(here < there + array.nbytes and there < here + out.nbytes)


class NumpyRows:
    """The rows of arrays of NumPy and numbers, which broadcast to one shape.

    values: by parameter an array, or an int that is the same for all rows.  kinds: by parameter the
    type, as in `Column`.  shape: what they broadcast to.  count: how many rows that is.
    Raises ExprTypeError for what holds no integers, ExprValueError for shapes that do not fit.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        import numpy as np

        self.np: Any = np
        self.values: list[Any] = []
        kinds: list[str] = []
        shapes: list[tuple[int, ...]] = []
        for name, value in zip(names, values, strict=True):
            array = value if type(value) is np.ndarray else self._array(value, argument(name))
            if array is None:
                self.values.append(to_long(value, argument(name)))
                kinds.append(SCALAR_COLUMN)
            else:
                kinds.append(item_type(array.dtype, argument(name)))
                self.values.append(array)
                shapes.append(array.shape)
        self.shape: tuple[int, ...] = shapes[0] if shapes else ()
        if shapes.count(self.shape) < len(shapes):
            self.shape = self._broadcast(names)
            for place, value in enumerate(self.values):
                if _is_array(value) and value.size == 1 and value.shape != self.shape:
                    self.values[place], kinds[place] = int(value.item()), SCALAR_COLUMN
        self.kinds = tuple(kinds)
        self.count = prod(self.shape)

    def _array(self, value: Any, what: str) -> Any:
        """The array that a value is or turns into, or None."""
        np = self.np
        if isinstance(value, bytes | bytearray):
            return np.frombuffer(value, "uint8")
        if is_columnar(value) or isinstance(value, np.ndarray):
            check_unmasked(value, what)
            return np.asarray(value)
        return None

    def _broadcast(self, names: Sequence[str]) -> tuple[int, ...]:
        shapes = {n: v.shape for n, v in zip(names, self.values, strict=True) if _is_array(v)}
        try:
            shape: tuple[int, ...] = self.np.broadcast_shapes(*shapes.values())
        except ValueError as error:
            told = ", ".join(f"{argument(name)} {shape}" for name, shape in shapes.items())
            what = "do not broadcast" if "mismatch" in str(error) else "are too large together"
            raise ExprValueError(f"the shapes {what}: {told}") from None
        return shape

    def new(self, kind: str, length: int | None = None) -> Any:
        """An array, one item for a row or so many; what is in it is anything."""
        return self.np.empty(self.shape if length is None else length, kind)

    def words(self, length: int) -> Any:
        """An array of so many unsigned words of 64 bits, all 0."""
        return self.np.zeros(length, "uint64")

    def check_out(self, out: Any) -> str:
        """The item type of an array for results; raises ExprTypeError and ExprValueError."""
        if not isinstance(out, self.np.ndarray):
            raise ExprTypeError(f"out must be a NumPy array, not {type(out).__name__}")
        check_unmasked(out, "out")
        kind = item_type(out.dtype, "out")
        if out.shape != self.shape:
            raise ExprValueError(f"out has the shape {out.shape}; the results have {self.shape}")
        if not out.flags.writeable:
            raise ExprValueError("out cannot be written to: it is read-only")
        return kind

    def parts(self, out: Any) -> Iterator[Part]:
        """The rows in order; `out` is the array of results, one for a row, or None.

        What a part points to is good until the next one is asked for.
        """
        arrays = [value for value in self.values if _is_array(value)]
        plain = all(_is_plain(array, self.shape) for array in arrays)
        if out is not None and plain:
            disturbed = any(may_disturb(out, array) for array in arrays)
            plain = _is_plain(out, self.shape) and not disturbed
        if plain:
            columns = self._columns(arrays, 0)
            yield Part(range(self.count), columns, 0 if out is None else address(out))
        else:
            yield from self._buffered(arrays, out)

    def _columns(self, arrays: Sequence[Any], row: int) -> list[Column]:
        """The columns when `arrays` begin with the given row."""
        rest = iter(arrays)
        columns = []
        for kind, value in zip(self.kinds, self.values, strict=True):
            if kind == SCALAR_COLUMN:
                columns.append(scalar(value))
            else:
                array = next(rest)
                columns.append(Column(kind, address(array) - row * array.itemsize, array))
        return columns

    def _buffered(self, arrays: list[Any], out: Any) -> Iterator[Part]:
        if len(self.shape) > _MOST_DIMENSIONS:
            raise ExprValueError(
                f"arrays of {len(self.shape)} dimensions must lie in memory as C has them, "
                f"and have one shape",
                hint="numpy.ascontiguousarray makes such a copy",
            )
        operands = arrays if out is None else [*arrays, out]
        flags = [["readonly", "contig", "aligned", "nbo"]] * len(arrays)
        overlap = []
        if out is not None:
            # It is read as well, since rows may be left as they are.
            flags = [*flags, ["readwrite", "contig", "aligned", "nbo", "no_broadcast"]]
            overlap = ["copy_if_overlap"]
        iterator = self.np.nditer(
            operands,
            ["external_loop", "buffered", "zerosize_ok", *overlap],
            flags,
            [array.dtype.newbyteorder("=") for array in operands],
            order="C",
            casting="equiv",
            buffersize=BUFFER,
            itershape=self.shape,
        )
        row = 0
        with iterator:
            for found in iterator:
                pieces = found if isinstance(found, tuple) else (found,)
                count = pieces[0].size
                here = 0 if out is None else address(pieces[-1]) - row * out.itemsize
                yield Part(range(row, row + count), self._columns(pieces, row), here)
                row += count

    def fill(self, result: Any, rows: Sequence[int], value: int) -> None:
        """Put a number into some rows of an array of results."""
        if isinstance(rows, range):
            result[...] = value
        elif rows:
            result.flat[rows] = value

    def count_true(self, truths: Any, start: int, length: int) -> int:
        """How many of some truth values, one for each row, are true."""
        return int(self.np.count_nonzero(truths.reshape(-1)[start : start + length]))

    def trimmed(self, result: Any, length: int) -> Any:
        """The first items of an array that `new` made."""
        return trimmed(result, length)


def trimmed(result: Any, length: int) -> Any:
    """The first items of an array; what is much larger is not kept for them."""
    rest = result.size - length
    return result[:length] if rest <= length or rest <= _SMALL else result[:length].copy()

"""Formulas over columns of Dask: more than one process, or more data than memory.

Nothing is computed here. What gives a value for each row becomes a collection of blocks, what gives
one value a tree of them; Dask runs both, and each block is an ordinary call of the function, which
travels by its source.

Columns are arrays of Dask, whose blocks broadcast and are cut alike, or columns of its data frames,
whose parts do not know how many rows they have. What is asked for is checked at once, as of other
columns: in place of each column by something without rows that has its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from math import isnan
from typing import Any, Final

from .array_request import Request
from .errors import ExprError, ExprNoRowsError, ExprTypeError, ExprValueError
from .runtime.columns import argument, is_columnar, is_lazy

#: The kernels that give a value for each row, with the type of theirs.
_EACH: Final = {"map": "int64", "mask": "bool"}

#: By kernel: how the values of blocks become one.
_JOINED: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "count": sum,
    "sum": sum,
    "min": min,
    "max": max,
    "any": any,
    "all": all,
}

#: How many values are joined at a time.
_BRANCHES: Final = 8


def answer(given: Request, where: Any) -> Any:
    """A lazy collection, or a `dask.delayed.Delayed` of one value; see `ArrayMethods`.

    where: as the caller gave it.  Raises ExprTypeError for what cannot be had of a collection (row
    numbers, and `out`) and for columns that do not go together, and what other columns raise.
    """
    kernel = given.kernel
    if kernel not in _EACH and kernel not in _JOINED:
        raise ExprTypeError(
            f"{kernel}() cannot be had of Dask's collections: blocks do not know their rows",
            hint="compute() the columns, or map over its blocks",
        )
    if given.out is not None or given.errors != "raise":
        raise ExprTypeError('a collection of Dask goes with no out= and with errors="raise" only')
    block = _Block(given, where)
    blocks = _parts if any(map(_is_frame, given.columns)) else _blocks
    collection = blocks(block, given, given.dtype or _EACH.get(kernel, "int64"))
    return collection if kernel in _EACH else _tree(kernel, collection)


class _Block:
    """What is done for a block: a call of the function's method.

    where: the filter's text or function.  filtered: whether the last column is the filter.
    """

    def __init__(self, given: Request, where: Any) -> None:
        body = given.body
        #: What Dask's own names begin with.
        self.__name__ = f"exprjit-{given.kernel}"
        self.function = type(body).restored(body.formula.source, body.keywords())
        self.kernel = given.kernel
        self.filtered = given.where is True
        self.where = None if self.filtered else where
        # Dask has a thread for each block already.
        self.options: dict[str, Any] = {"threads": given.threads or 1}
        if given.dtype is not None:
            self.options["dtype"] = given.dtype

    # Dask tells where the block is to what has parameters of these names.
    def __call__(self, *columns: Any, block_info: Any = None, partition_info: Any = None) -> Any:
        where = self.where
        if self.filtered:
            *columns, where = columns  # type: ignore[assignment]
        method = getattr(self.function, self.kernel)
        try:
            return method(*columns, where=where, **self.options)
        except ExprNoRowsError:
            return None  # There may be some in other blocks.
        except ExprError as error:
            if error.row is None:
                raise
            raise _placed(error, error.row, block_info, partition_info) from None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        from dask.base import normalize_token

        return (
            *self.function.__dask_tokenize__(),
            self.kernel,
            normalize_token(self.where),
            self.filtered,
            sorted(self.options.items()),
        )


def _placed(error: ExprError, row: int, block_info: Any, partition_info: Any) -> ExprError:
    """The error of a row of a block, with its number among all rows, or else with its block."""
    error.row = None
    error.message = error.message.removesuffix(f", in row {row:,}")
    if block_info is None:
        error.message += f", in row {row:,} of partition {partition_info['number']:,}"
        return error
    place = block_info[None]
    if any(map(isnan, place["shape"])):
        error.message += f", in row {row:,} of block {place['chunk-location']}"
        return error
    # Rows are counted in the order of C, in the block as well as in the whole.
    whole, stride = 0, 1
    for (start, stop), length in zip(
        reversed(place["array-location"]), reversed(place["shape"]), strict=True
    ):
        row, here = divmod(row, int(stop - start))
        whole += stride * int(start + here)
        stride *= int(length)
    return error.in_row(whole)


# Arrays. -------------------------------------------------------------------------------------


def _blocks(block: _Block, given: Request, kind: str) -> Any:
    """The array of what `block` gives for the blocks of the columns, when all are cut alike."""
    import dask.array as da
    import numpy as np

    from .runtime.numpy_rows import NumpyRows

    rows = NumpyRows(given.names, [_stand_in(value) for value in given.columns])
    # What is no collection is a number now, or an array of NumPy, which is cut like the others.
    columns = [
        _array(value) if is_lazy(value) else known
        for value, known in zip(given.columns, rows.values, strict=True)
    ]
    axes = [None if isinstance(column, int) else _axes(column.ndim) for column in columns]
    try:
        cut, columns = da.unify_chunks(*chain(*zip(columns, axes, strict=True)))
    except ValueError:
        # The shapes are checked, so that it is this.
        raise ExprValueError(
            "the columns cannot be cut alike: some have blocks of unknown sizes",
            hint="these are had by .compute_chunk_sizes()",
        ) from None
    out = _axes(len(rows.shape))
    chunks, meta = tuple(cut[axis] for axis in out), np.empty((0,) * len(out), kind)
    return da.map_blocks(block, *columns, chunks=chunks, dtype=kind, meta=meta)


def _axes(dimensions: int) -> tuple[int, ...]:
    """Names for the dimensions of an array: those of two are the same counted from the last one."""
    return tuple(reversed(range(dimensions)))


def _array(value: Any) -> Any:
    """The array of Dask that a lazy value is or becomes."""
    import dask.array as da

    if _is_of_frames(value):
        return da.from_delayed(value.to_delayed(), (), dtype=value.dtype)
    return da.asanyarray(value)


# Data frames. --------------------------------------------------------------------------------


def _parts(block: _Block, given: Request, kind: str) -> Any:
    """The collection of what `block` gives for the parts of the columns."""
    import dask.dataframe as dd

    for name, value in zip(given.names, given.columns, strict=True):
        if not _is_frame(value) and (is_columnar(value) or isinstance(value, bytes | bytearray)):
            raise ExprTypeError(
                f"{argument(name)} cannot be cut like the columns of a Dask data frame: "
                f"how many rows their parts have is not known",
                hint="make it a column of that: see from_pandas and from_dask_array",
            )
    counts = {value.npartitions for value in given.columns if _is_frame(value)}
    if len(counts) > 1:
        raise ExprValueError(
            f"the columns are cut into parts differently: {sorted(counts)}",
            hint="see .repartition(), or take the columns of one data frame",
        )
    columns = [
        value.to_delayed().item() if is_lazy(value) and not _is_of_frames(value) else value
        for value in given.columns
    ]
    return dd.map_partitions(
        block,
        *columns,
        meta=_nothing(given, kind),
        # Reductions give numbers; and divisions are no rows to compute something for.
        enforce_metadata=False,
        transform_divisions=False,
    )


def _nothing(given: Request, kind: str) -> Any:
    """What columns without rows would give."""
    from .runtime.frames import Frame, library_of
    from .runtime.numpy_rows import NumpyRows

    columns = [_stand_in(value) for value in given.columns]
    if all(library_of(column) is None for column in columns):
        return NumpyRows(given.names, columns).new(kind)  # Indexes
    frame = Frame(given.names, columns)
    return frame.wrap(frame.rows.new(kind))


def _is_of_frames(value: Any) -> bool:
    """Whether a value is what Dask's data frames are made of, or a number computed of them."""
    return is_lazy(value) and hasattr(type(value), "divisions")


def _is_frame(value: Any) -> bool:
    return _is_of_frames(value) and value.ndim > 0


def _stand_in(value: Any) -> Any:
    """What has the type of a lazy value and, unless it is a column of a data frame, its shape."""
    if not is_lazy(value):
        return value
    if _is_of_frames(value):
        return value._meta
    import numpy as np

    # It takes no room. Sizes that are not known fit all others for now.
    return np.broadcast_to(np.zeros((), value.dtype), [1 if isnan(n) else n for n in value.shape])


# One value of all. ---------------------------------------------------------------------------


def _tree(kernel: str, collection: Any) -> Any:
    """The delayed value of all blocks, joined some at a time."""
    from dask import delayed

    join = delayed(partial(_join, kernel), pure=True)
    blocks = collection.to_delayed()
    # Of an array they are one as well.
    level = list(getattr(blocks, "flat", blocks))
    while len(level) > 1:
        level = [join(level[i : i + _BRANCHES]) for i in range(0, len(level), _BRANCHES)]
    return delayed(partial(_last, kernel), pure=True)(level)


def _join(kernel: str, values: Sequence[Any]) -> Any:
    """One value of several; those of blocks without rows are None."""
    there = [value for value in values if value is not None]
    if not there and kernel in ("min", "max"):
        return None
    return _JOINED[kernel](there)


def _last(kernel: str, values: Sequence[Any]) -> Any:
    value = _join(kernel, values)
    if value is None:
        raise ExprNoRowsError(f"{kernel}() of no rows")
    return value

"""Formulas over columns of Dask: more than one process, or more data than memory.

Nothing is computed here. What gives a value for each row becomes a collection of blocks, what gives
one value a tree of them; Dask runs both, and each block is an ordinary call of the function, which
travels by its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from .array_code import columns_of
from .array_request import filter_of, is_lazy, table_columns
from .errors import ExprTypeError, ExprValueError
from .language.arguments import bind_arguments

if TYPE_CHECKING:
    from .body import Body

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


def answer(
    body: Body,
    kernel: str,
    columns: Sequence[Any],
    named: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """A lazy collection, or a `dask.delayed.Delayed` of one value; see `ArrayMethods`.

    Raises ExprTypeError for what cannot be had of a collection: row numbers, and `out`.
    """
    if kernel not in _EACH and kernel not in _JOINED:
        raise ExprTypeError(
            f"{kernel}() cannot be had of Dask's collections: blocks do not know their rows",
            hint="compute() the columns, or map over its blocks",
        )
    where, errors = options.get("where"), options.get("errors", "raise")
    if options.get("out") is not None or errors != "raise":
        raise ExprTypeError('a collection of Dask goes with no out= and with errors="raise" only')
    filter_ = filter_of(body, where)
    names = columns_of(body.formula, filter_)
    if len(columns) == 1 and not named and hasattr(columns[0], "columns"):
        values = table_columns(columns[0], names)
    else:
        values = bind_arguments(f"{body.formula.name}.{kernel}", names, columns, named)
    text = where if filter_ is not True else None
    if filter_ is True:
        values = [*values, where]
    given = {"threads": 1, **({"dtype": options["dtype"]} if options.get("dtype") else {})}
    block = _Block(body, kernel, text, filter_ is True, given)
    if kernel in _EACH:
        return _blocks(block, values, options.get("dtype") or _EACH[kernel])
    return _tree(kernel, _each_block(block, values))


class _Block:
    """What is done for a block: a call of the function's method.

    where: the filter's text or function.  filtered: whether the last column is the filter.
    """

    def __init__(
        self, body: Body, kernel: str, where: Any, filtered: bool, options: dict[str, Any]
    ) -> None:
        #: What Dask's own names begin with.
        self.__name__ = f"exprjit-{kernel}"
        self.function = type(body).restored(body.formula.source, body.keywords())
        self.kernel = kernel
        self.where = where
        self.filtered = filtered
        self.options = options

    def __call__(self, *columns: Any) -> Any:
        where = self.where
        if self.filtered:
            *columns, where = columns  # type: ignore[assignment]
        method = getattr(self.function, self.kernel)
        try:
            return method(*columns, where=where, **self.options)
        except ExprValueError as error:
            if error.row is None and self.kernel in ("min", "max"):
                return None  # There are no rows in this block.
            raise

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (
            *self.function.__dask_tokenize__(),
            self.kernel,
            str(self.where),
            self.filtered,
            sorted(self.options.items()),
        )


def _blocks(block: _Block, values: Sequence[Any], dtype: Any) -> Any:
    """The collection of what `block` gives for the blocks of the columns."""
    import numpy as np

    kind = np.dtype(dtype)
    if any(hasattr(value, "map_partitions") for value in values):
        import dask.dataframe as dd

        return dd.map_partitions(block, *values, meta=(block.function.__name__, kind))
    from dask.array.core import elemwise

    return elemwise(block, *values, dtype=kind)


def _each_block(block: _Block, values: Sequence[Any]) -> list[Any]:
    """The delayed values of `block` for the blocks of the columns."""
    from dask import delayed

    parts = [value.to_delayed() for value in values if hasattr(value, "map_partitions")]
    if not parts:
        return list(_blocks(block, values, "int64").to_delayed().ravel())
    counts = {len(of) for of in parts}
    if len(counts) > 1 or any(is_lazy(v) and not hasattr(v, "map_partitions") for v in values):
        raise ExprValueError(f"the columns are cut into parts differently: {sorted(counts)}")
    compute = delayed(block, pure=True)
    given = [iter(value.to_delayed()) if is_lazy(value) else repeat(value) for value in values]
    return [compute(*(next(of) for of in given)) for _ in range(counts.pop())]


def _tree(kernel: str, blocks: list[Any]) -> Any:
    """The delayed value of all blocks, joined some at a time."""
    from dask import delayed

    join = delayed(partial(_join, kernel), pure=True)
    level = blocks
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
        raise ExprValueError(f"{kernel}() of no rows")
    return value

"""Tables as the only argument of a call over arrays: dicts and data frames, columns by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ExprTypeError, quoted, shown
from .runtime.columns import is_columnar, is_lazy


def is_table(value: Any) -> bool:
    """Whether a value has columns with names: a dict or a data frame."""
    if isinstance(value, Mapping):
        return True
    # (Of Dask a single column has that attribute, too.)
    named = hasattr(value, "columns") and hasattr(value, "__getitem__")
    return named and getattr(value, "ndim", 2) == 2


def table_columns(table: Any, names: Sequence[str]) -> list[Any]:
    """The columns of a table by name; others are not looked at."""
    if isinstance(table, Mapping):
        there = list(table)
    else:
        # Of Arrow's tables the attribute `columns` is the data themselves.
        arrow = hasattr(type(table), "column_names")
        there = list(table.column_names if arrow else table.columns)
    missing = [quoted(name) for name in names if name not in there]
    if missing:
        known = ", ".join(map(shown, there[:20])) or "none"
        hint = f"there are {known}{', ...' if len(there) > 20 else ''}"
        raise ExprTypeError(f"there is no column {', '.join(missing)}", hint=hint)
    for name in names:
        if there.count(name) > 1:
            raise ExprTypeError(f"there are {there.count(name)} columns {quoted(name)}")
    return [table[name] for name in names]


def any_column(table: Any) -> Any:
    """A column of zeros with as many rows as the table, such as those that it has; or 0.

    For a formula that looks at none of them.
    """
    if isinstance(table, Mapping):
        return next((_zeros_like(column) for column in table.values() if _has_rows(column)), 0)
    if is_lazy(table):
        return table.map_partitions(any_column, meta=(None, "int64"))
    if hasattr(table, "index"):
        import pandas as pd

        return pd.Series(0, index=table.index, dtype="int64")
    import numpy as np

    zeros = np.zeros(len(table), "int8")
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(table, polars.DataFrame):
        return polars.Series(zeros)
    if hasattr(type(table), "__arrow_c_stream__") or hasattr(type(table), "__arrow_c_array__"):
        import pyarrow as pa

        return pa.array(zeros)
    return zeros


def _has_rows(column: Any) -> bool:
    return isinstance(column, bytes | bytearray) or is_columnar(column)


def _zeros_like(column: Any) -> Any:
    if is_lazy(column):
        return column != column
    shape = getattr(column, "shape", None)
    if shape is None or "numpy" not in sys.modules:
        return bytes(len(column))
    import numpy as np

    return np.zeros(shape, "int8")

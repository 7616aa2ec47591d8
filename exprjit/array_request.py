"""What is asked of a formula over arrays: options checked, columns found by position or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .array_code import columns_of
from .array_tables import any_column, is_table, table_columns
from .errors import ExprTypeError, ExprValueError, shown
from .formula import Formula
from .language.arguments import bind_arguments
from .runtime.columns import are_exact, argument, is_columnar, is_lazy, numpy
from .x86.rows import ITEM_TYPES

if TYPE_CHECKING:
    from .body import Body

#: What becomes of rows that fail.
ON_ERRORS: Final = ("raise", "mask")


class Request(NamedTuple):
    """A call, checked as far as it does not need to look at the columns.

    kernel: what is asked for.  columns: as given, by parameter; those of the filter follow.  where:
    its formula, or whether the last column is it.  exact: what `are_exact` says of the columns.
    The others are the options of the methods.
    """

    body: Body
    kernel: str
    names: tuple[str, ...]
    columns: list[Any]
    where: Formula | bool
    exact: bool
    out: Any = None
    dtype: str | None = None
    threads: int | None = None
    errors: str = "raise"


def request(
    body: Body,
    kernel: str,
    columns: Sequence[Any],
    named: Mapping[str, Any],
    *,
    where: Any = None,
    out: Any = None,
    dtype: Any = None,
    threads: int | None = None,
    errors: str = "raise",
) -> Request:
    """Raises ExprTypeError and ExprValueError for options that cannot be."""
    if errors not in ON_ERRORS:
        raise ExprValueError(f"errors must be one of {ON_ERRORS}, not {shown(errors)}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ExprValueError(f"threads must be a number from 1 up, not {shown(threads)}")
    filter_ = filter_of(body, where)
    names = columns_of(body.formula, filter_)
    exact = not named and are_exact(columns)
    if exact and len(columns) == len(names):
        values = list(columns)
    else:
        for value in (*columns, *named.values()):
            _check_computed(value)
        if len(columns) == 1 and not named and is_table(columns[0]):
            values = table_columns(columns[0], names)
            for value in values:
                _check_computed(value)
            if not names:
                body = _with_a_column(body)
                names, values = body.formula.params, [any_column(columns[0])]
        else:
            values = bind_arguments(f"{body.formula.name}.{kernel}", names, columns, named)
            for name, value in zip(names, values, strict=True):
                _check_no_table(value, name)
    if filter_ is True:
        where = _truths(where)
        names, values = (*names, "where"), [*values, where]
        exact = exact and are_exact((where,))
    chosen = None if dtype is None else _item_type(dtype)
    return Request(body, kernel, names, values, filter_, exact, out, chosen, threads, errors)


def _with_a_column(body: Body) -> Body:
    """The body of a formula without parameters, but with one for the rows of a table."""
    formula, name = body.formula, "rows"
    while name in formula.constants or name in formula.externs:
        name += "_"
    made: Any = type(body).restored(formula.source, {**body.keywords(), "params": (name,)})
    other: Body = made._body
    return other


def filter_of(body: Body, where: Any) -> Formula | bool:
    if where is None:
        return False
    if isinstance(where, str):
        return body.filter(where)
    other = getattr(where, "formula", None)
    if isinstance(other, Formula):
        if other.overflow != body.formula.overflow:
            raise ExprValueError(
                f'where has overflow="{other.overflow}", the formula "{body.formula.overflow}"'
            )
        return other
    return True


def _check_computed(value: Any) -> None:
    """Raise ExprTypeError for what is yet to be computed, and is no column until it is."""
    if type(value).__name__ == "LazyFrame":
        raise ExprTypeError("a LazyFrame has no rows yet", hint="compute them first: .collect()")
    # (What is delayed has whatever attribute is asked for.)
    if is_lazy(value) and not isinstance(getattr(value, "ndim", None), int):
        raise ExprTypeError(
            "of Dask only arrays and columns of data frames say before they are computed what they "
            f"hold, not an object of type {type(value).__name__}",
            hint="compute() it first, or tell what it is, as by dask.array.from_delayed",
        )


def _check_no_table(value: Any, name: str) -> None:
    if is_table(value):
        raise ExprTypeError(
            f"{argument(name)} is a table, which can only be given alone",
            hint="give the columns, or all of them in one table",
        )


def _truths(where: Any) -> Any:
    """A filter that is no formula: an array, or one truth value for all rows."""
    _check_computed(where)
    loaded = numpy()
    if loaded is not None and isinstance(where, loaded.bool_):
        return bool(where)
    if isinstance(where, bytes | bytearray) or is_columnar(where) or is_lazy(where):
        return where
    if not hasattr(type(where), "__index__"):
        raise ExprTypeError(
            "where must be a formula, its text, or an array of truth values, "
            f"not {type(where).__name__}"
        )
    return where


def _item_type(dtype: Any) -> str:
    """The name of a type for results, given as NumPy's dtypes are."""
    name, loaded = dtype, numpy()
    if loaded is not None:
        # What it does not know raises whatever it likes.
        with suppress(Exception):
            known = loaded.dtype(dtype)
            name = known.name if known.isnative else None
    if not isinstance(name, str) or name not in ITEM_TYPES or name == "bool":
        kinds = ", ".join(kind for kind in ITEM_TYPES if kind != "bool")
        raise ExprTypeError(f"dtype must be one of {kinds}, not {shown(dtype)}")
    return name

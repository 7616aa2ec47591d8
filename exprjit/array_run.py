"""A request to compute a formula over arrays: checked, run, and answered.

Arrays of NumPy (and what turns into them) give arrays of NumPy and may have any shape; if there are
none, other buffers give `array.array` and have one dimension. NumPy is never imported here
unless an argument is one of its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .array_code import Task, columns_of
from .errors import ExprError, ExprTypeError, ExprValueError, quoted, shown
from .formula import Formula
from .ir.rowwise import NEUTRAL
from .language.arguments import bind_arguments
from .runtime.columns import Address, BufferRows, Column
from .runtime.interpreted import row_values
from .runtime.sweep import Outcome, joined, run
from .x86.rows import INDICES_ROOM, ITEM_TYPES, Plan

if TYPE_CHECKING:
    from .body import Body
    from .runtime.numpy_rows import NumpyRows

#: What becomes of rows that fail.
ON_ERRORS: Final = ("raise", "mask")


class Request(NamedTuple):
    """A call, checked as far as it does not need to look at the columns.

    kernel: what is asked for.  columns: as given, by parameter; those of the filter follow.  where:
    its formula, or whether the last column is it.  The others are the options of the methods.
    """

    body: Body
    kernel: str
    names: tuple[str, ...]
    columns: list[Any]
    where: Formula | bool
    out: Any = None
    dtype: str | None = None
    threads: int | None = None
    errors: str = "raise"
    equals: int | None = None


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
    filter_ = _filter(body, where)
    names = columns_of(body.formula, filter_)
    if len(columns) == 1 and not named and _is_table(columns[0]):
        values = _of_table(columns[0], names)
    else:
        values = bind_arguments(f"{body.formula.name}.{kernel}", names, columns, named)
    if filter_ is True:
        names, values = (*names, "where"), [*values, where]
    chosen = None if dtype is None else _item_type(dtype)
    return Request(body, kernel, names, values, filter_, out, chosen, threads, errors)


def _filter(body: Body, where: Any) -> Formula | bool:
    if where is None:
        return False
    if isinstance(where, str):
        formula = body.formula
        return Formula(
            where,
            None,
            formula.overflow,
            formula.constants,
            formula.limits,
            "where",
            formula.externs,
        )
    other = getattr(where, "formula", None)
    if isinstance(other, Formula):
        if other.overflow != body.formula.overflow:
            raise ExprValueError(
                f'where has overflow="{other.overflow}", the formula "{body.formula.overflow}"'
            )
        return other
    return True


def _is_table(value: Any) -> bool:
    """Whether a value has columns with names: a dict or a data frame."""
    return isinstance(value, Mapping) or (
        hasattr(value, "columns") and hasattr(value, "__getitem__")
    )


def _of_table(table: Any, names: Sequence[str]) -> list[Any]:
    """The columns of a table by name; others are not looked at."""
    missing = [quoted(name) for name in names if name not in _names_of(table)]
    if missing:
        raise ExprTypeError(f"there is no column {', '.join(missing)}")
    return [table[name] for name in names]


def _names_of(table: Any) -> Any:
    if isinstance(table, Mapping):
        return table
    # Those of Arrow's tables are the data themselves.
    return getattr(table, "column_names", table.columns)


def _item_type(dtype: Any) -> str:
    """The name of a type for results, given as NumPy's dtypes are."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None)
    if name is None:
        name = getattr(dtype, "__name__", None)
    if name not in ITEM_TYPES or name == "bool":
        known = ", ".join(kind for kind in ITEM_TYPES if kind != "bool")
        raise ExprTypeError(f"dtype must be one of {known}, not {shown(dtype)}")
    return str(name)


# Running. ------------------------------------------------------------------------------------


def _rows_of(given: Request) -> BufferRows | NumpyRows:
    """The rows; of NumPy's arrays if the columns are some, or turn into some."""
    if any(hasattr(value, "__array__") for value in (*given.columns, given.out)):
        from .runtime.numpy_rows import NumpyRows

        return NumpyRows(given.names, given.columns)
    return BufferRows(given.names, given.columns)


class Run:
    """A request on its way: its rows, and which of them failed."""

    def __init__(self, given: Request) -> None:
        self.given = given
        self.rows = _rows_of(given)
        self.failures: list[int] = []

    def sweep(
        self,
        kernel: str,
        out: Any = None,
        kind: str = "int64",
        keeps: bool = False,
        equals: int | None = None,
    ) -> Outcome:
        """Run a kernel over all rows; `out` is an array for its results, of type `kind`."""
        given = self.given
        kinds = (*self.rows.kinds, kind) if keeps else self.rows.kinds
        task = Task(given.body.formula, given.where, Plan(kernel, kinds, kind), keeps, equals)
        sweep = given.body.sweep(task)
        one_each = kernel in ("map", "mask")
        target = None if out is None or one_each else Address(out, writable=True)
        outcomes: list[Outcome] = []
        for rows, columns, place in self.rows.parts(out if one_each else None):
            if keeps:
                columns = [*columns, Column(kind, place, None)]
            if target is not None:
                place = target.address + 8 * sum(outcome.found for outcome in outcomes)
            failed = self._failed(task, [column.address for column in columns])
            goes_on = given.errors == "mask"
            outcomes.append(run(sweep, columns, rows, place, failed, goes_on, given.threads))
            if kernel == "first" and outcomes[-1].row is not None:
                break
        return joined(kernel, outcomes)

    def _failed(self, task: Task, addresses: list[int]) -> Callable[[int], None]:
        """What is told of the rows that fail, when the columns are at these addresses."""

        def failed(row: int) -> None:
            if self.given.errors == "mask":
                self.failures.append(row)
                return
            try:
                task.interpret(*row_values(task.plan.columns, addresses, row))
            except ExprError as error:
                raise error.in_row(row) from None
            raise AssertionError(f"row {row} has a value; please report this")

        return failed

    def answer(self, result: Any) -> Any:
        """What the caller gets; with errors="mask" also which rows failed."""
        if self.given.errors == "raise":
            return result
        failed = self.rows.new("bool")
        self.rows.fill(failed, range(self.rows.count), 0)
        self.rows.fill(failed, self.failures, 1)
        return result, failed

    # The kernels. ----------------------------------------------------------------------------

    def map(self) -> Any:
        given = self.given
        kind = given.dtype or "int64"
        out = given.out
        if out is not None:
            kind = self.rows.check_out(out)
            if kind != (given.dtype or kind):
                raise ExprTypeError(f"dtype is {given.dtype}, but out holds {kind}")
            if kind == "bool":
                raise ExprTypeError("out must hold integers, not truth values; see mask()")
        result = self.rows.new(kind) if out is None else out
        self.sweep("map", result, kind, keeps=out is not None and given.where is not False)
        self.rows.fill(result, self.failures, 0)
        return self.answer(result)

    def mask(self) -> Any:
        out = self.given.out
        if out is not None and self.rows.check_out(out) not in ("bool", "uint8"):
            raise ExprTypeError("out must hold truth values (bool or uint8)")
        result = self.rows.new("bool") if out is None else out
        self.sweep("mask", result)
        self.rows.fill(result, self.failures, 0)
        return self.answer(result)

    def bitmap(self) -> Any:
        result = self.rows.words(-(-self.rows.count // 64))
        self.sweep("bitmap", result)
        return self.answer(result)

    def indices(self) -> Any:
        # A row is written before it is known whether it counts.
        result = self.rows.new("int64", self.rows.count + INDICES_ROOM)
        found = self.sweep("indices", result).found
        return self.answer(self.rows.trimmed(result, found))

    def total(self) -> Any:
        return self.answer(self.sweep(self.given.kernel).best)

    def best(self) -> Any:
        """The least or greatest value, or its first row."""
        kernel = self.given.kernel
        best, row, _ = self.sweep(kernel)
        neutral = NEUTRAL[kernel]
        if best == neutral:
            # No row has been better than what is before the first one; perhaps one is as good.
            failures, self.failures = self.failures, []
            row = self.sweep("first", equals=neutral).row
            self.failures = failures
            if row is None:
                raise ExprValueError(f"{kernel}() of no rows")
        return self.answer(row if kernel.startswith("arg") else best)

    def first(self) -> Any:
        return self.answer(self.sweep("first").row)

    def any(self) -> Any:
        return self.answer(self.sweep("first").row is not None)

    def all(self) -> Any:
        return self.answer(self.sweep("first", equals=0).row is None)


#: What answers a request, by the name of the method.
METHODS: Final[dict[str, Callable[[Run], Any]]] = {
    "map": Run.map,
    "mask": Run.mask,
    "bitmap": Run.bitmap,
    "indices": Run.indices,
    "count": Run.total,
    "sum": Run.total,
    "min": Run.best,
    "max": Run.best,
    "argmin": Run.best,
    "argmax": Run.best,
    "first": Run.first,
    "any": Run.any,
    "all": Run.all,
}


def answer(
    body: Body, kernel: str, columns: Sequence[Any], named: Mapping[str, Any], options: Any
) -> Any:
    """What the method called `kernel` gives; `options` are its keyword arguments."""
    return METHODS[kernel](Run(request(body, kernel, columns, named, **options)))

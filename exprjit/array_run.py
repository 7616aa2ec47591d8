"""A formula over arrays: a request run, and answered.

Columns of pandas, Polars and Arrow give columns of that library, and may lack values
(runtime/frames.py). Arrays of NumPy (and what turns into them) give arrays of NumPy and may have
any shape; if there are none, other buffers give `array.array` and have one dimension. NumPy is
never imported here unless an argument is one of its arrays, or such a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from .array_code import Task
from .array_request import Request, request
from .errors import ExprError, ExprNoRowsError, ExprTypeError
from .formula import Formula
from .ir.rowwise import NEUTRAL
from .runtime.columns import Address, BufferRows, Column, is_lazy, may_be_framed
from .runtime.interpreted import row_values
from .runtime.sweep import (
    PIECE,
    ROWS_PER_THREAD,
    Outcome,
    joined,
    may_stream,
    run,
)
from .x86.rows import INDICES_ROOM, Plan, State

if TYPE_CHECKING:
    from .body import Body
    from .runtime.frames import Frame
    from .runtime.numpy_rows import NumpyRows


def _frame_of(given: Request) -> Frame | None:
    """The rows, if they are of columns of another library."""
    if not any(map(may_be_framed, given.columns)):
        return None
    from .runtime.frames import Frame, library_of

    if all(library_of(value) is None for value in given.columns):
        return None
    try:
        return Frame(given.names, given.columns)
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ExprTypeError("such columns need NumPy", hint="pip install numpy") from None


def _rows_of(given: Request) -> BufferRows | NumpyRows:
    """The rows; of NumPy's arrays if the columns are some, or turn into some."""
    if given.exact or any(hasattr(value, "__array__") for value in (*given.columns, given.out)):
        return _numpy_rows()(given.names, given.columns)
    return BufferRows(given.names, given.columns)


@cache
def _numpy_rows() -> Callable[..., NumpyRows]:
    from .runtime.numpy_rows import NumpyRows

    return NumpyRows


#: With more rows, which they are is told by way of truth values.
_MANY: Final = ROWS_PER_THREAD


class Run:
    """A request on its way: its rows, and which of them failed."""

    def __init__(self, given: Request) -> None:
        self.given = given
        self.frame = None if given.exact else _frame_of(given)
        self.rows = _rows_of(given) if self.frame is None else self.frame.rows
        #: Whether the last column says which rows have values.
        self.valid = self.frame is not None and self.frame.valid is not None
        self.failures: list[int] = []

    def sweep(
        self,
        kernel: str,
        out: Any = None,
        kind: str = "int64",
        keeps: bool = False,
        equals: int | None = None,
        formula: Formula | None = None,
    ) -> Outcome:
        """Run a kernel over all rows; `out` is an array for its results, of type `kind`.

        formula: instead of that which was asked for, with the same parameters.
        """
        given = self.given
        kinds = (*self.rows.kinds, kind) if keeps else self.rows.kinds
        plan = Plan(kernel, kinds, kind)
        formula = formula or given.body.formula
        task = Task(formula, given.where, plan, keeps, equals, self.valid)
        one_each = kernel in ("map", "mask")
        target = None if out is None or one_each else Address(out, writable=True)
        outcomes: list[Outcome] = []
        for rows, columns, place in self.rows.parts(out if one_each else None):
            if kernel == "map":
                streams = may_stream(kinds, kind, len(rows), place)
                task = task._replace(plan=plan._replace(streams=streams))
            sweep = given.body.sweep(task)
            if keeps:
                columns = [*columns, Column(kind, place, None)]
            if target is not None:
                place = target.address + 8 * sum(outcome.found for outcome in outcomes)
            failed = self._failed(task, [column.address for column in columns])
            goes_on, owner = given.errors == "mask", out if target is None else target
            outcomes.append(run(sweep, columns, rows, place, failed, goes_on, given.threads, owner))
            if kernel == "first" and outcomes[-1].row is not None:
                break
        return joined(kernel, outcomes)

    def _failed(self, task: Task, addresses: list[int]) -> Callable[[int, Any], None]:
        """What is told of the rows that fail, when the columns are at these addresses."""

        def failed(row: int, state: Any) -> None:
            if self.given.errors == "mask":
                self.failures.append(row)
                return
            error = getattr(state, "error", None)
            if error is None:
                first = State.COLUMNS + len(addresses)
                returned = state[first : first + state[State.LOGGED]] if state is not None else ()
                try:
                    task.interpret(row_values(task.plan.columns, addresses, row), returned)
                except ExprError as found:
                    error = found
            if error is None:
                raise AssertionError(f"row {row} has a value; please report this")
            raise error.in_row(row) from None

        return failed

    def answer(self, result: Any) -> Any:
        """What the caller gets; with errors="mask" also which rows failed."""
        if self.given.errors == "raise":
            return result
        failed = self.rows.new("bool")
        self.rows.fill(failed, range(self.rows.count), 0)
        self.rows.fill(failed, self.failures, 1)
        return result, failed if self.frame is None else self.frame.wrap(failed, nulls=False)

    def column(self, result: Any) -> Any:
        """An array of results as a column of the library that the rows are of."""
        return result if self.frame is None else self.frame.wrap(result)

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
        dropping = given.where is not False or self.valid
        self.sweep("map", result, kind, keeps=out is not None and dropping)
        self.rows.fill(result, self.failures, 0)
        return self.answer(self.column(result) if out is None else out)

    def mask(self) -> Any:
        out = self.given.out
        if out is not None and self.rows.check_out(out) not in ("bool", "uint8"):
            raise ExprTypeError("out must hold truth values (bool or uint8)")
        result = self.rows.new("bool") if out is None else out
        self.sweep("mask", result)
        self.rows.fill(result, self.failures, 0)
        return self.answer(self.column(result) if out is None else out)

    def bitmap(self) -> Any:
        result = self.rows.words(-(-self.rows.count // 64))
        self.sweep("bitmap", result)
        return self.answer(result)

    def indices(self) -> Any:
        count = self.rows.count
        if count > _MANY:
            return self.answer(self._many_indices())
        # A row is written before it is known whether it counts.
        result = self.rows.new("int64", count + INDICES_ROOM)
        found = self.sweep("indices", result).found
        return self.answer(self.rows.trimmed(result, found))

    def _many_indices(self) -> Any:
        """The same by way of truth values, so that it is known how many there are, and where.

        Memory that is touched for the first time, as that for as many results as there are rows
        would be, takes longer than to read them twice.
        """
        rows, kind = self.rows, "bool"
        truths = rows.new(kind)
        self.sweep("mask", truths)
        rows.fill(truths, self.failures, 0)
        counts = (rows.count_true(truths, at, PIECE) for at in range(0, rows.count, PIECE))
        *begins, found = accumulate(counts, initial=0)
        result = rows.new("int64", found)
        source, target = Address(truths), Address(result, writable=True)
        sweep = self.given.body.sweep(Task(Formula("x"), False, Plan("indices", (kind,))))
        run(
            sweep,
            [Column(kind, source.address, source)],
            range(rows.count),
            target.address,
            _cannot_fail,
            threads=self.given.threads,
            owner=target,
            begins=begins,
        )
        return result

    def total(self) -> Any:
        return self.answer(self.sweep(self.given.kernel).best)

    def best(self) -> Any:
        """The least or greatest value, or its first row."""
        kernel = self.given.kernel
        best, row, _ = self.sweep(kernel)
        if best == NEUTRAL[kernel]:
            # No row has been better than what is before the first one; all are as good.
            row = self._first_counting()
            if row is None:
                raise ExprNoRowsError(f"{kernel}() of no rows")
        return self.answer(row if kernel.startswith("arg") else best)

    def _first_counting(self) -> int | None:
        """The first row that counts and has not failed, or None; the formula is not asked again."""
        failures, self.failures = set(self.failures), []
        one = Formula("1", self.given.body.formula.params)
        if not failures:
            row = self.sweep("first", formula=one).row
        else:
            rows = self.rows.new("int64", self.rows.count + INDICES_ROOM)
            found = self.sweep("indices", rows, formula=one).found
            row = next((row for row in rows[:found] if row not in failures), None)
        self.failures = sorted(failures)
        return row

    def first(self) -> Any:
        return self.answer(self.sweep("first").row)

    def any(self) -> Any:
        return self.answer(self.sweep("first").row is not None)

    def all(self) -> Any:
        return self.answer(self.sweep("first", equals=0).row is None)


def _cannot_fail(row: int, state: Any) -> None:
    """What is told of rows that fail where none can."""
    raise AssertionError(f"row {row} has failed; please report this")


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
    try:
        given = request(body, kernel, columns, named, **options)
        if not given.exact and any(map(is_lazy, given.columns)):
            from .dask_columns import answer as later

            return later(given, options.get("where"))
        return METHODS[kernel](Run(given))
    except ExprError as error:
        # What its traceback holds would keep buffers from being resized for as long as it lives.
        raise error.with_traceback(None)  # noqa: B904

"""A formula and a filter over the rows of a file, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import ExprError, ExprTypeError
from ..formula import Formula
from ..function import Function
from ..language.ast import Binding, Name
from .progress import Progress
from .sinks import Sink
from .sources import ColumnError, Source


class Job:
    """A formula over a file.

    columns: the names of those that the formula and the filter take.
    """

    def __init__(self, function: Function, where: Function | None, source: Source) -> None:
        self.function = function
        self.where = where
        self.source = source
        filtering = () if where is None else where.params
        self.columns = list(dict.fromkeys((*function.params, *filtering)))
        if source.names is None:
            if len(self.columns) > 1:
                raise ExprTypeError(
                    f"{source.name} is one column, and there are {len(self.columns)} parameters: "
                    f"{', '.join(self.columns)}",
                    hint="give a number for all rows as NAME=VALUE behind the file",
                )
            source.names = self.columns or ["value"]

    def choose(self, kept: Sequence[str], as_text: bool) -> Any:
        """Say which columns are to be in the batches beside those that are used; their schema."""
        wanted = list(dict.fromkeys((*self.columns, *kept)))
        order = list(self.source.names or ())
        # Those that are not there come last: they are about to be refused.
        wanted.sort(key=lambda name: order.index(name) if name in order else len(order))
        with self._placing():
            return self.source.choose(wanted, self.columns, as_text)

    def batches(self, progress: Progress) -> Iterator[tuple[int, Any]]:
        """The number of the first row of each batch, and the batch."""
        first = 0
        with self._placing():
            for batch in self.source.batches():
                yield first, batch
                first += batch.num_rows
                progress.show(first)

    def compute(self, method: str, first: int, batch: Any) -> Any:
        """What a method of the function gives for a batch that begins with row `first`."""
        columns = {name: batch.column(name) for name in self.columns}
        with self._numbering(first):
            return getattr(self.function, method)(columns, where=self._filter(batch))

    def _filter(self, batch: Any) -> Any:
        """The filter; one that says how many rows there are, if nothing else does."""
        if self.columns:
            return self.where
        return _constant(self.where is None or (batch.num_rows > 0 and self.where() != 0), batch)

    def passing(self, batch: Any) -> Any:
        """Which rows of a batch the filter lets pass; `compute` has been over them already."""
        assert self.where is not None
        names = self.where.params
        # Only where the formula has a null the filter may fail still: those rows do not pass.
        if not names:
            truth = False
            with suppress(ExprError):
                truth = batch.num_rows > 0 and self.where() != 0
            return _constant(truth, batch)
        columns = {name: batch.column(name) for name in names}
        passing, _ = self.where.mask(columns, errors="mask")
        return passing

    def write(self, sink: Sink, first: int, batch: Any, passing: Any = None) -> None:
        """Write a batch that begins with row `first`: all rows, or those that pass."""
        picked = batch if passing is None else self._picked(batch, passing)
        with self._numbering(first, passing):
            sink.write(picked)

    @contextmanager
    def _numbering(self, first: int, passing: Any = None) -> Iterator[None]:
        """Give errors in rows of a batch, or in those that pass, the row's number in the file."""
        try:
            yield
        except ExprError as error:
            if error.row is not None:
                error.message = error.message.removesuffix(f", in row {error.row:,}")
                row = error.row if passing is None else _places(passing)[error.row]
                error.in_row(first + row)
                error.message += f" of {self.source.name}"
            raise

    def _picked(self, batch: Any, passing: Any) -> Any:
        """The rows of a batch that pass.  Raises ExprTypeError for what cannot be picked from."""
        import pyarrow

        try:
            return batch.filter(passing)
        except pyarrow.ArrowException:
            for field, column in zip(batch.schema, batch.columns, strict=True):
                try:
                    column.filter(passing)
                except pyarrow.ArrowException:
                    raise ExprTypeError(
                        f"{self.source.column(field.name)} is of type {field.type}, of which Arrow "
                        "cannot pick rows",
                        hint="choose others with --columns",
                    ) from None
            raise

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Say of a column that cannot be used where the formula names it."""
        try:
            yield
        except ColumnError as error:
            for function in (self.function, self.where):
                place = None if function is None else _place(function.formula, error.name)
                if function is not None and place is not None:
                    error.start, error.end = place
                    error.locate(function.source)
                    break
            raise


def _places(passing: Any) -> list[int]:
    """The numbers of the rows of a batch that pass."""
    return [place for place, truth in enumerate(passing.to_pylist()) if truth]


def _constant(truth: bool, batch: Any) -> Any:
    """A truth value for each row of a batch."""
    import pyarrow

    bits = (b"\xff" if truth else b"\0") * (batch.num_rows // 8 + 1)
    buffers = [None, pyarrow.py_buffer(bits)]
    return pyarrow.Array.from_buffers(pyarrow.bool_(), batch.num_rows, buffers)


def _place(formula: Formula, name: str) -> tuple[int, int] | None:
    """Where a formula names a parameter first."""
    program = formula.program()
    if name not in program.params:
        return None
    work = [
        *(row.value if isinstance(row, Binding) else row.body for row in program.statements),
        program.result,
    ]
    places = []
    while work:
        node = work.pop()
        if isinstance(node, Name) and node.name == name and not node.formal:
            places.append((node.start, node.end))
        work += node.parts
    return min(places, default=None)

"""``exprjit map``, ``filter`` and ``count``: a formula over the rows of a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..errors import ExprSyntaxError, ExprValueError, quoted
from ..function import Function
from ..language.operators import OVERFLOW_MODES
from ..language.syntax_errors import reserved_word
from .files import FORMATS, STANDARD, format_of, opened, unknown_format
from .job import Job
from .options import (
    Arguments,
    Option,
    UsageError,
    did_you_mean,
    formula_and_values,
    read_values,
)
from .progress import Progress
from .sinks import CsvSink, Sink, replacing, sink_of
from .sources import naming


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _columns(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--columns: {quoted(name)} is given twice")
    return names


_WHERE: Final = (
    Option("--where", "a formula: only rows for which it is not 0", "FORMULA"),
    Option("--params", "the parameters in order", "NAME,...", read=_names),
    Option(
        "--overflow",
        "results outside 64 bits wrap around, or are errors",
        "MODE",
        choices=OVERFLOW_MODES,
        default="wrap",
    ),
    Option(
        "--backend",
        "what computes; auto takes machine code where it can",
        "B",
        choices=("auto", "jit", "interpreter"),
        default="auto",
    ),
    Option("--format", "what FILE is; else its ending says so", "F", choices=tuple(FORMATS)),
)
_OUTPUT: Final = Option(
    "--output", "write a file: .csv .parquet .arrow .npy (also -o FILE)", "FILE", short="-o"
)
_COLUMNS: Final = "write these columns of FILE"

#: What each command takes.
OPTIONS: Final = {
    "map": (
        _OUTPUT,
        Option("--name", "what the new column is called", "COLUMN", default="result"),
        Option("--append", "write all columns of FILE before the new one"),
        Option("--columns", f"{_COLUMNS} before the new one", "NAME,...", read=_columns),
        *_WHERE,
    ),
    "filter": (
        _OUTPUT,
        Option("--columns", f"{_COLUMNS} only", "NAME,...", read=_columns),
        *_WHERE,
    ),
    "count": _WHERE,
}


# The command line. ---------------------------------------------------------------------------


def _words(command: str, words: Sequence[str]) -> tuple[str, str, dict[str, int]]:
    """The formula, the file, and the values of parameters that are the same for all rows."""
    if len(words) < 2:
        raise UsageError(f"give a formula and a file: exprjit {command} 'price * qty' data.csv")
    formula, texts = formula_and_values([words[0], *words[2:]], OPTIONS[command])
    if formula is None:
        raise UsageError(f"{words[0]!r} is no formula")
    return formula, words[1], read_values(texts)


def _compiled(formula: str, **options: Any) -> Function:
    """What `compile` gives; an error for a reserved word tells what to do if a column has it."""
    from .. import compile

    try:
        return compile(formula, **options)
    except ExprSyntaxError as error:
        word = formula[error.start : error.end]
        if error.message == reserved_word(word, 0, 0).message:
            rename = "a column that is called so has to be renamed before a formula can name it"
            error.hint = f"{error.hint}; {rename}" if error.hint else rename
        raise


def _functions(
    formula: str, values: Mapping[str, int], options: Mapping[str, Any]
) -> tuple[Function, Function | None]:
    """The function and the filter, with the values in them."""
    chosen = {"overflow": options["overflow"], "backend": options["backend"]}
    function = _compiled(formula, params=options["params"], **chosen)
    where = None if options["where"] is None else _compiled(options["where"], **chosen)
    there = (*function.params, *(where.params if where else ()))
    for name in values:
        if name not in there:
            close = did_you_mean(name, there)
            raise UsageError(f"'{name}' is not a parameter of the formula{close}")

    def bound(one: Function) -> Function:
        given = {name: value for name, value in values.items() if name in one.params}
        return one.bind(**given) if given else one

    return bound(function), where and bound(where)


@contextmanager
def _job(command: str, arguments: Arguments) -> Iterator[tuple[Job, str]]:
    """What a command line asks for, and the format of the file."""
    formula, path, values = _words(command, arguments.words)
    function, where = _functions(formula, values, arguments.options)
    with opened(path, arguments.options["format"]) as (source, format):
        yield Job(function, where, source), format


def _output(options: Mapping[str, Any], default: str | None = None) -> tuple[str | None, str]:
    """Where to write to, None for standard output, and in which format.

    default: that of a name without an ending.  Raises UsageError.
    """
    path: str | None = options["output"]
    if path is None or path == STANDARD:
        return None, "csv"
    ending = os.path.splitext(path)[1]
    format = format_of(path) or (None if ending else default)
    if format is None:
        raise unknown_format(path)
    return path, format


@contextmanager
def _writing(path: str | None, format: str, schema: Any, header: bool = True) -> Iterator[Sink]:
    """What results are written to; the file is there when this ends without an error."""
    if path is None:
        name = "standard output"
        file = getattr(sys.stdout, "buffer", None)
        if file is None:
            raise ExprValueError(f"there is no {name}")
        with naming(name):
            sys.stdout.flush()
            sink: Sink = CsvSink(name, file, schema, header)
        yield sink
        sink.close()
        return
    with replacing(path) as file:
        sink = sink_of(format, path, file, schema)
        try:
            yield sink
            sink.close()
        except BaseException:
            sink.abandon()
            raise


def _progress(job: Job, to_output: bool) -> Progress:
    """Nothing is shown between lines that go to the same terminal."""
    mixed = to_output and sys.stdout.isatty()
    return Progress(job.source.name, job.source.share, wanted=not mixed)


# The commands. -------------------------------------------------------------------------------


def map_(arguments: Arguments) -> int:
    """The value of the formula for each row, as a column.

    Raises UsageError and ExprError.
    """
    options = arguments.options
    path, format = _output(options)
    if options["append"] and options["columns"]:
        raise UsageError("--append writes all columns, --columns some: give one of them")
    with _job("map", arguments) as (job, _):
        import pyarrow

        kept = list(job.source.names or ()) if options["append"] else options["columns"] or ()
        if options["name"] in kept:
            raise ExprValueError(
                f"{job.source.name} has a column {quoted(options['name'])} already",
                hint="call the new one something else with --name",
            )
        schema = job.choose(kept, format == "csv")
        fields = [*(schema.field(name) for name in kept), (options["name"], pyarrow.int64())]
        metadata = schema.metadata if options["append"] else None
        made = pyarrow.schema(fields, metadata)
        with (
            _progress(job, path is None) as progress,
            _writing(path, format, made, header=bool(kept) or path is not None) as sink,
        ):
            for first, batch in job.batches(progress):
                results = job.compute("map", first, batch)
                columns = [*(batch.column(name) for name in kept), results]
                rows = pyarrow.record_batch(columns, schema=made)
                passing = None if job.where is None else job.passing(batch)
                job.write(sink, first, rows, passing)
    return 0


def filter_(arguments: Arguments) -> int:
    """The rows for which the formula is not 0.

    Raises UsageError and ExprError.
    """
    options = arguments.options
    with _job("filter", arguments) as (job, input_format):
        import pyarrow

        path, format = _output(options, input_format)
        kept = options["columns"] or list(job.source.names or ())
        schema = job.choose(kept, format == "csv")
        made = schema if kept == schema.names else pyarrow.schema(map(schema.field, kept))
        with (
            _progress(job, path is None) as progress,
            _writing(path, format, made) as sink,
        ):
            for first, batch in job.batches(progress):
                passing = job.compute("mask", first, batch)
                job.write(sink, first, batch.select(kept), passing)
    return 0


def count(arguments: Arguments) -> int:
    """How many rows there are for which the formula is not 0.

    Raises UsageError and ExprError.
    """
    with _job("count", arguments) as (job, _):
        job.choose((), as_text=True)
        with _progress(job, to_output=False) as progress:
            found = sum(
                job.compute("count", first, batch) for first, batch in job.batches(progress)
            )
    print(found)
    return 0


#: What runs each command.
RUN: Final = {"map": map_, "filter": filter_, "count": count}

"""Writing record batches of Arrow: to files that appear when they are complete, or as CSV."""

from __future__ import annotations

import csv
import io
import os
import secrets
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

from ..errors import ExprTypeError, ExprValueError, quoted
from .sources import ROWS, first_line, naming

#: What stands for no value where an empty line would not be seen.
NO_VALUE: Final = b"NA"


@contextmanager
def replacing(path: str) -> Iterator[Any]:
    """A new binary file that takes the place of `path` at the end, unless there is an error.

    What is not a file of its own, as a pipe, is written to as it is. Raises ExprValueError for what
    the system refuses; errors of what is done with the file meanwhile stay as they are.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".exprjit-{secrets.token_hex(8)}.part")
    file: Any = None
    try:
        with naming(path):
            mode = _mode(target)
            is_own = mode is None or stat.S_ISREG(mode)
            if is_own and mode is not None and not os.access(target, os.W_OK):
                raise PermissionError(13, "Permission denied")
            file = _new(temporary) if is_own else open(target, "wb")  # noqa: SIM115
        yield file
        with naming(path):
            file.flush()
            if is_own and not os.path.exists(temporary):
                # A folder for the path, which it does not need, makes it follow the link.
                descriptor = file.fileno()
                os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
            file.close()
            if is_own and mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            if is_own:
                os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        with suppress(OSError):
            # What is left to be written may not be writable: that is the first error again.
            if file is not None:
                file.close()
        raise


def _mode(path: str) -> int | None:
    """What the system says that a file is; None if there is none."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _new(path: str) -> Any:
    """A file that has this name, or that has none yet and is to be linked to it."""
    return _nameless(os.path.dirname(path)) or open(path, "xb+")


def _nameless(folder: str) -> Any:
    """A file that is to be linked into a folder, or None where there are no such files.

    It is gone with the process if that is killed.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    if not os.path.exists(f"/proc/self/fd/{descriptor}"):
        os.close(descriptor)
        return None
    return open(descriptor, "wb+")


class Sink(ABC):
    """What batches of a schema are written to; closing it completes the file, and leaves it open.

    name: what errors call the file.  Making one raises ExprTypeError for a column of a type that it
    cannot hold, and errors of the system and of Arrow as they are; later ones bear the name.
    """

    def __init__(self, name: str, file: Any, schema: Any) -> None:
        self.name = name
        self.file = file
        self.schema = schema

    def write(self, batch: Any) -> None:
        """Take the rows of a batch.

        Raises ExprValueError, in a row of the batch where it is about one.
        """
        with naming(self.name):
            self._write(batch)

    def close(self) -> None:
        """Complete the file."""
        with naming(self.name):
            self._close()
            self.file.flush()

    @abstractmethod
    def _write(self, batch: Any) -> None:
        """What `write` does; errors of the system and of Arrow may come as they are."""

    def _close(self) -> None:  # noqa: B027 - most have nothing left to write.
        """What `close` does, likewise."""

    def abandon(self) -> None:  # noqa: B027
        """Let go of it after an error: nothing more is to be said."""


def _refusal(what: str, field: Any, reason: str = "") -> ExprTypeError:
    kind = f"{field.type}{reason}"
    return ExprTypeError(
        f"{what} cannot hold the column {quoted(field.name)}, which is of type {kind}",
        hint="choose others with --columns",
    )


class CsvSink(Sink):
    """Text; without values nothing is between the commas, and NO_VALUE stands in an only column."""

    def __init__(self, name: str, file: Any, schema: Any, header: bool = True) -> None:
        import pyarrow

        super().__init__(name, file, schema)
        for field in schema:
            try:
                _cells(pyarrow.nulls(0, field.type))
            except pyarrow.ArrowException:
                raise _refusal("CSV", field) from None
        if header:
            names = io.StringIO()
            csv.writer(names, lineterminator="\n").writerow(schema.names)
            file.write(names.getvalue().encode())

    def _write(self, batch: Any) -> None:
        import pyarrow

        if not batch.num_rows:
            return
        if batch.num_columns > 1:
            with suppress(pyarrow.ArrowInvalid):
                self.file.write(_without_quotes(batch))
                return
        self.file.write(_with_quotes(batch))


def _without_quotes(batch: Any) -> bytes:
    """The lines of a batch; raises ArrowInvalid if something has to be quoted."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    text = io.BytesIO()
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
    arrow_csv.write_csv(pyarrow.Table.from_batches([batch]), text, options)
    return text.getvalue()


def _with_quotes(batch: Any) -> memoryview:
    """The lines of a batch, with quotes around what needs them, also if it is no UTF-8."""
    import numpy as np
    import pyarrow
    from pyarrow import compute

    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            columns.append(_cells(column))
        except pyarrow.ArrowException as error:
            # Not all types that have texts have one for each value.
            raise _refusal("CSV", field, f": {first_line(error)}") from None
    if len(columns) == 1:
        # An empty line would not be taken for a row.
        (column,) = columns
        column = compute.if_else(compute.equal(column, _binary(b"")), _binary(b'""'), column)
        columns = [compute.fill_null(column, _binary(NO_VALUE))]
    lines = compute.binary_join_element_wise(
        *columns, _binary(b","), null_handling="replace", null_replacement=b""
    )
    lines = compute.binary_join_element_wise(lines, _binary(b""), _binary(b"\n"))
    # One behind the other in memory, they are the text.
    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, "int64")[[lines.offset, lines.offset + len(lines)]]
    return memoryview(data)[ends[0] : ends[1]]


def _cells(column: Any) -> Any:
    """The texts of a column as bytes.  Raises ArrowException for a type that has none."""
    import pyarrow
    from pyarrow import compute, types

    kind = column.type
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        column = column.cast(pyarrow.large_string())
    column = column.cast(pyarrow.large_binary())
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return column
    quote = _binary(b'"')
    doubled = compute.replace_substring(column, '"', '""')
    quoted = compute.binary_join_element_wise(quote, doubled, quote, _binary(b""))
    return compute.if_else(compute.match_substring_regex(column, '[",\r\n]'), quoted, column)


@cache
def _binary(value: bytes) -> Any:
    """A scalar; `pyarrow.scalar` would import pandas."""
    import pyarrow

    ends = b"".join(end.to_bytes(8, sys.byteorder) for end in (0, len(value)))
    buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(value)]
    return pyarrow.Array.from_buffers(pyarrow.large_binary(), 1, buffers)[0]


class ParquetSink(Sink):
    """Row groups of some chunks each, so that few rows that pass are not a group each."""

    def __init__(self, name: str, file: Any, schema: Any) -> None:
        from pyarrow.parquet import ParquetWriter

        super().__init__(name, file, schema)
        self.writer = ParquetWriter(file, schema)
        self.waiting: list[Any] = []
        self.rows = 0

    def _write(self, batch: Any) -> None:
        self.waiting.append(batch)
        self.rows += batch.num_rows
        if self.rows >= ROWS or len(self.waiting) >= 1000:
            self._write_waiting()

    def _write_waiting(self) -> None:
        import pyarrow

        if self.waiting:
            self.writer.write_table(pyarrow.Table.from_batches(self.waiting))
        self.waiting, self.rows = [], 0

    def _close(self) -> None:
        self._write_waiting()
        self.writer.close()

    def abandon(self) -> None:
        # Else it would complete the file when it dies, and complain that it cannot.
        self.writer.is_open = False


class ArrowSink(Sink):
    """A file of record batches, or a stream of them."""

    def __init__(self, name: str, file: Any, schema: Any, stream: bool = False) -> None:
        from pyarrow import ipc

        super().__init__(name, file, schema)
        self.writer = (ipc.new_stream if stream else ipc.new_file)(file, schema)

    def _write(self, batch: Any) -> None:
        self.writer.write_batch(batch)

    def _close(self) -> None:
        self.writer.close()


class NpySink(Sink):
    """An array of one dimension: of the only column, or with a field for each."""

    def __init__(self, name: str, file: Any, schema: Any) -> None:
        import numpy as np

        super().__init__(name, file, schema)
        if not file.seekable():
            raise ExprValueError("a .npy file begins with how long it is: it cannot be a pipe")
        types = [(field.name, _numpy_type(field)) for field in schema]
        self.dtype = types[0][1] if len(types) == 1 else np.dtype(types)
        self.rows = 0
        self.begin = _npy_header(self.dtype, 0)
        file.write(self.begin)

    def _write(self, batch: Any) -> None:
        import numpy as np

        array = np.empty(batch.num_rows, self.dtype)
        for field, column in zip(self.schema, batch.columns, strict=True):
            if column.null_count:
                raise ExprValueError(
                    "a .npy file cannot hold that there is no value in the column "
                    f"{quoted(field.name)}",
                    hint="write Parquet, Arrow or CSV, or leave such rows out with --where",
                ).in_row(column.is_null().to_pylist().index(True))
            part = array[field.name] if self.dtype.names else array
            part[...] = _as_numpy(column, part.dtype)
        self.rows += len(array)
        self.file.write(array.tobytes())

    def _close(self) -> None:
        self.file.seek(0)
        self.file.write(_npy_header(self.dtype, self.rows, len(self.begin)))


def _as_numpy(column: Any, dtype: Any) -> Any:
    """The items of a column that has a value in each row; `to_numpy` would import pandas."""
    import numpy as np

    data = column.buffers()[1]
    if not len(column):
        return np.empty(0, dtype)
    if dtype.kind == "b":
        end = column.offset + len(column)
        bits = np.unpackbits(np.frombuffer(data, "uint8"), count=end, bitorder="little")
        return bits[column.offset :]
    return np.frombuffer(data, dtype, len(column), column.offset * dtype.itemsize)


#: NumPy's names of Arrow's types, where they differ.
_NUMPY_NAMES: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _numpy_type(field: Any) -> Any:
    import numpy as np
    from pyarrow import types

    kind = field.type
    if not (types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind)):
        raise _refusal("a .npy file", field)
    return np.dtype(_NUMPY_NAMES.get(str(kind), str(kind)))


def _npy_header(dtype: Any, rows: int, size: int | None = None) -> bytes:
    """The begin of a .npy file; `size`: how many bytes, by default with room for any length.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    import numpy as np

    kind = np.lib.format.dtype_to_descr(dtype)
    text = repr({"descr": kind, "fortran_order": False, "shape": (rows,)}).encode()
    plain = text.isascii() and len(text) < 60_000
    magic = b"\x93NUMPY" + (b"\1\0" if plain else b"\3\0")
    width = 2 if plain else 4
    if size is None:
        size = -(-(len(magic) + width + len(text) + 20) // 64) * 64
    length = size - len(magic) - width
    return magic + length.to_bytes(width, "little") + text.ljust(length - 1) + b"\n"


def sink_of(format: str, path: str, file: Any, schema: Any) -> Sink:
    """What writes a format to a file; `path` is its name.  Raises ExprError."""
    with naming(path):
        if format == "arrow" and path.lower().endswith(".arrows"):
            return ArrowSink(path, file, schema, stream=True)
        return SINKS[format](path, file, schema)


#: What writes a format.
SINKS: Final[dict[str, Callable[[str, Any, Any], Sink]]] = {
    "csv": CsvSink,
    "parquet": ParquetSink,
    "arrow": ArrowSink,
    "npy": NpySink,
}

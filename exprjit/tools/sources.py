"""Reading files of columns in chunks, as record batches of Arrow: Parquet, Arrow and .npy.

A source knows the names of a file's columns, is then told which are wanted, and gives their rows in
order, never many at a time. (CSV is in csv_source.py.)
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..errors import ExprError, ExprTypeError, ExprValueError, quoted, shown
from .options import did_you_mean

#: How many rows are read, computed and written at a time.
ROWS: Final = 1 << 17


class ColumnError(ExprTypeError):
    """A column that a formula needs is missing, or does not hold integers.

    name: of the column.
    """

    def __init__(self, message: str, name: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Make errors of the system and of Arrow ExprValueErrors that say which file they are about."""
    from pyarrow import ArrowException

    try:
        yield
    except ArrowException as error:
        raise ExprValueError(f"{name}: {first_line(error)}") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ExprValueError(f"{name}: {error.strerror or first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error says, without all that may follow."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


class Source(ABC):
    """A file that is being read.

    name: what errors call it.  names: of its columns in order; None if it is one column that has
    none.
    """

    names: Sequence[str] | None

    def __init__(self, name: str) -> None:
        self.name = name

    def choose(self, wanted: Sequence[str], integers: Sequence[str], as_text: bool) -> Any:
        """Say which columns to read, and get the schema of the batches.

        integers: those of them that a formula uses.  as_text: whether others are as good as text.
        Raises ColumnError for those that are not there, or not as they should be.
        """
        self._check_names(wanted)
        with naming(self.name):
            return self._choose(wanted, integers, as_text)

    def batches(self) -> Iterator[Any]:
        """The rows in order, as record batches of the columns that were chosen."""
        batches = self._batches()
        while True:
            with naming(self.name):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def share(self) -> float | None:
        """How much of it has been read, from 0 to 1, or None where nobody knows."""
        return None

    @abstractmethod
    def _choose(self, wanted: Sequence[str], integers: Sequence[str], as_text: bool) -> Any:
        """What `choose` gives, for names that are there."""

    @abstractmethod
    def _batches(self) -> Iterator[Any]:
        """What `batches` gives; errors of the system and of Arrow may come as they are."""

    def _check_names(self, wanted: Sequence[str]) -> None:
        there = list(self.names or ())
        for name in wanted:
            if name not in there:
                known = ", ".join(map(shown, there[:20])) + (", ..." if len(there) > 20 else "")
                raise ColumnError(
                    f"{self.name} has no column {quoted(name)}{did_you_mean(name, there)}",
                    name,
                    f"it has {known or 'none'}",
                )
            if there.count(name) > 1:
                many = f"{self.name} has {there.count(name)} columns {quoted(name)}"
                raise ColumnError(many, name)

    def column(self, name: str) -> str:
        """How errors call a column."""
        return f"the column {quoted(name)} of {self.name}"


def selected(schema: Any, names: Sequence[str]) -> Any:
    """A schema of some of the fields; what is known of the whole is kept if all are."""
    import pyarrow

    kept = pyarrow.schema([schema.field(name) for name in names])
    return kept.with_metadata(schema.metadata) if list(names) == schema.names else kept


def pieces(batch: Any) -> Iterator[Any]:
    """The rows of a batch, not too many at a time."""
    for start in range(0, batch.num_rows, ROWS):
        yield batch.slice(start, ROWS)


def _without_views(kind: Any) -> Any:
    """A type with texts one behind the other in place of views of them.

    Arrow cannot pick rows of views, which are what Polars writes.
    """
    import pyarrow
    from pyarrow import types

    def inner(field: Any) -> Any:
        return field.with_type(_without_views(field.type))

    if kind == pyarrow.string_view():
        return pyarrow.large_string()
    if kind == pyarrow.binary_view():
        return pyarrow.large_binary()
    if types.is_dictionary(kind):
        values = _without_views(kind.value_type)
        return pyarrow.dictionary(kind.index_type, values, kind.ordered)
    if types.is_struct(kind):
        return pyarrow.struct([inner(kind.field(place)) for place in range(kind.num_fields)])
    if types.is_list(kind):
        return pyarrow.list_(inner(kind.value_field))
    if types.is_large_list(kind):
        return pyarrow.large_list(inner(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(inner(kind.value_field), kind.list_size)
    if types.is_map(kind):
        items = inner(kind.key_field), inner(kind.item_field)
        return pyarrow.map_(*items, keys_sorted=kind.keys_sorted)
    return kind


class _Typed(Source):
    """A source whose file says what the types are: `schema`."""

    schema: Any

    def _choose(self, wanted: Sequence[str], integers: Sequence[str], as_text: bool) -> Any:
        import pyarrow

        from ..runtime.arrow import item_kind

        self.wanted = list(wanted)
        for name in integers:
            kind = self.schema.field(name).type
            try:
                item_kind(kind.__arrow_c_schema__(), self.column(name), {})
            except ExprTypeError as error:
                raise ColumnError(error.message, name) from None
        chosen = selected(self.schema, wanted)
        fields = [field.with_type(_without_views(field.type)) for field in chosen]
        #: What the batches are made to be.
        self.made = pyarrow.schema(fields, chosen.metadata)
        return self.made

    def _of_schema(self, batch: Any) -> Any:
        """A batch of the columns that are wanted, of the types that were promised."""
        import pyarrow

        if batch.schema.types == self.made.types:
            return batch
        columns = []
        for field, column in zip(self.made, batch.columns, strict=True):
            columns.append(column if column.type == field.type else column.cast(field.type))
        return pyarrow.record_batch(columns, schema=self.made)


class ParquetSource(_Typed):
    """Columns are read apart from each other, and a few pages of each at a time."""

    def __init__(self, name: str, file: Any) -> None:
        from pyarrow.parquet import ParquetFile

        super().__init__(name)
        # Buffered in advance, the whole file would be in memory at the end.
        self.file = ParquetFile(_for_arrow(file), buffer_size=1 << 20, pre_buffer=False)
        self.schema = self.file.schema_arrow
        self.names = self.schema.names
        self.done = 0

    def _batches(self) -> Iterator[Any]:
        for batch in self.file.iter_batches(ROWS, columns=self.wanted):
            self.done += batch.num_rows
            yield self._of_schema(batch.select(self.wanted))

    def share(self) -> float | None:
        total: int = self.file.metadata.num_rows
        return self.done / max(1, total)


def _for_arrow(file: Any) -> Any:
    """What Arrow reads a file from: without Python, if it has a name.

    It is not mapped into memory. If another process made the file shorter meanwhile, that would be
    the end of this one.
    """
    from pyarrow import OSFile

    # As bytes: Arrow takes text for UTF-8, which a name need not be.
    return OSFile(os.fsencode(file.name)) if os.path.isfile(file.name) else file


class ArrowSource(_Typed):
    """A file or a stream of record batches."""

    #: What files begin with, and streams do not; and what files of old begin with.
    MAGIC: Final = b"ARROW1"
    OLD: Final = b"FEA1"

    def __init__(self, name: str, file: Any) -> None:
        from pyarrow import ipc

        super().__init__(name)
        self.done = 0
        #: How many batches there are, if that is known.
        self.total: int | None = None
        begin = file.peek(len(self.MAGIC))
        if begin.startswith(self.OLD):
            raise ExprValueError(
                f"{name} is of the first version of Feather, which cannot be read in parts",
                hint="write it anew, as with pyarrow.feather",
            )
        if not file.seekable():
            self.reader = ipc.open_stream(file)
        elif not begin:
            raise ExprValueError(f"{name} is empty")
        elif begin.startswith(self.MAGIC):
            self.reader = ipc.open_file(_for_arrow(file))
            self.total = self.reader.num_record_batches
        else:
            self.reader = ipc.open_stream(_for_arrow(file))
        self.schema = self.reader.schema
        self.names = self.schema.names

    def _batches(self) -> Iterator[Any]:
        whole = self.reader if self.total is None else map(self.reader.get_batch, range(self.total))
        for batch in whole:
            # What a file says of itself need not be so.
            chosen = batch.select(self.wanted)
            chosen.validate(full=True)
            self.done += 1
            yield from map(self._of_schema, pieces(chosen))

    def share(self) -> float | None:
        return self.done / self.total if self.total else None


class NpySource(Source):
    """An array of one dimension: a column without a name, or a column for each field."""

    #: What files begin with, and what archives of them do.
    MAGIC: Final = b"\x93NUMPY"
    ARCHIVES: Final = (b"PK\3\4", b"PK\5\6")
    #: In bytes. Of more than some 10,000, NumPy says that they may not be safe to look at.
    LONGEST_HEADER: Final = 20_000

    def __init__(self, name: str, file: Any) -> None:
        super().__init__(name)
        self.file = file
        begin = file.read(len(self.MAGIC))
        if not begin:
            raise ExprValueError(f"{name} is empty")
        if begin.startswith(self.ARCHIVES):
            raise ExprValueError(f"{name} is an archive of arrays, not a .npy file")
        if begin != self.MAGIC:
            raise ExprValueError(f"{name} is no .npy file", hint="say what it is with --format")
        shape, self.dtype = self._header()
        if self.dtype.hasobject:
            raise ExprValueError(f"{name} holds Python objects, which cannot be read")
        if len(shape) != 1:
            raise ExprValueError(f"{name} must have one dimension, not {len(shape)}")
        self.names = self.dtype.names
        (self.rows,) = shape
        there = (os.fstat(file.fileno()).st_size - file.tell()) // self.dtype.itemsize
        if there < self.rows:
            raise ExprValueError(f"{name} is cut off: it has {there:,} of {self.rows:,} rows")
        self.done = 0

    def _header(self) -> tuple[tuple[int, ...], Any]:
        """The shape and the type of the items, from what is behind the magic string.

        https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
        """
        version = self.file.read(2)
        if version not in (b"\1\0", b"\2\0", b"\3\0"):
            number = ".".join(map(str, version))
            raise ExprValueError(f"{self.name} is of an unknown version of the format, {number}")
        size = int.from_bytes(self.file.read(2 if version == b"\1\0" else 4), "little")
        if size > self.LONGEST_HEADER:
            raise ExprValueError(f"{self.name} has a header of {size:,} bytes, which is too long")
        encoding = "utf-8" if version == b"\3\0" else "latin-1"
        try:
            shape, dtype = _read_header(self.file.read(size).decode(encoding))
            if min(shape, default=0) < 0 or not dtype.itemsize:
                raise ValueError
        except Exception:  # There is hardly a kind that NumPy does not raise.
            raise ExprValueError(f"{self.name} has a header that cannot be read") from None
        return shape, dtype

    def _type(self, name: str) -> Any:
        """The type of a column, with the shape of what a row has of it: () for a number."""
        return self.dtype[name] if self.dtype.names else self.dtype

    def _choose(self, wanted: Sequence[str], integers: Sequence[str], as_text: bool) -> Any:
        import numpy as np

        from ..runtime.columns import item_type, refusal

        self.wanted = list(wanted)
        for name in integers:
            kind, column = self._type(name), self.column(name)
            try:
                if kind.shape:
                    raise refusal("", f"arrays of shape {kind.shape}", column)
                item_type(kind, column, hints={})
            except ExprTypeError as error:
                raise ColumnError(error.message, name, error.hint) from None
        return self._batch(np.empty(0, self.dtype)).schema

    def _batch(self, array: Any) -> Any:
        import numpy as np
        import pyarrow

        columns = []
        for name in self.wanted:
            part = array[name] if self.dtype.names else array
            try:
                columns.append(_as_arrow(np.ascontiguousarray(part, part.dtype.newbyteorder("="))))
            except (pyarrow.ArrowException, ValueError):
                raise ExprTypeError(
                    f"{self.column(name)} is of type {self._type(name)}, which cannot be written",
                    hint="choose others with --columns",
                ) from None
        if not columns:
            # Batches without columns have rows all the same.
            return pyarrow.record_batch([pyarrow.nulls(len(array))], [""]).select([])
        return pyarrow.record_batch(columns, self.wanted)

    def _batches(self) -> Iterator[Any]:
        import numpy as np

        while self.done < self.rows:
            rows = min(ROWS, self.rows - self.done)
            data = bytearray(rows * self.dtype.itemsize)
            if self.file.readinto(data) < len(data):
                raise ExprValueError(f"{self.name} has become shorter while it was read")
            self.done += rows
            yield self._batch(np.ndarray(rows, self.dtype, data))

    def share(self) -> float | None:
        return self.done / max(1, self.rows)


def _read_header(header: str) -> tuple[tuple[int, ...], Any]:
    """What the header of a .npy file says; NumPy raises what it likes."""
    from inspect import signature

    from numpy.lib import format as npy

    # As the second version, which any can be made: NumPy hides how it reads the third.
    text = header.encode("ascii", "backslashreplace")
    read = npy.read_array_header_2_0
    # Escapes are longer than what they stand for. Old versions of NumPy have no limit.
    more = {"max_header_size": len(text)} if "max_header_size" in signature(read).parameters else {}
    shape, _, dtype = read(io.BytesIO(len(text).to_bytes(4, "little") + text), **more)
    return shape, dtype


def _as_arrow(array: Any) -> Any:
    """An array of NumPy as one of Arrow.

    `pyarrow.array` does the same, but imports pandas first, where that is installed: it takes
    longer than most files do.  It is also what refuses more dimensions than one.
    """
    import numpy as np
    import pyarrow

    if array.dtype.kind not in "iufb" or array.ndim != 1:
        return pyarrow.array(array)
    data = np.packbits(array, bitorder="little") if array.dtype == bool else array
    kind = pyarrow.from_numpy_dtype(array.dtype)
    return pyarrow.Array.from_buffers(kind, len(array), [None, pyarrow.py_buffer(data)])


def check_installed() -> None:
    """Raise ExprError if what reads and writes files is missing."""
    for name in ("numpy", "pyarrow"):
        try:
            __import__(name)
        except ImportError as error:
            raise ExprError(
                f"files need {name}, which cannot be imported: {error}",
                hint="pip install 'exprjit[files]'",
            ) from None

"""Reading CSV: a line of names, then rows; commas, quotes and UTF-8.

Columns that a formula uses are integers, or truth values where they begin so. Others are text as it
stands, or of the types that their first rows look like.

The file is read here and cut where rows end, and Arrow is given a block of whole rows at a time.
(What Arrow reads from a file of Python it reads in threads of its own: an interrupt would have to
wait for them, and so would the end of the process.)
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..errors import ExprValueError, quoted
from .sources import ColumnError, Source, pieces

#: How many bytes are read at a time.
BLOCK: Final = 1 << 22

#: A row. What is in quotes is captured in a look-ahead, so that the search never tries to take less
#: of it: without that it may take for ever.
_FIELD: Final = rb'(?:(?=("[^"]*(?:""[^"]*)*"(?!")))\%d[^,\r\n]*|(?!")[^,\r\n]*)'
_ROW: Final = re.compile(b"".join((_FIELD % 1, b"(?:,", _FIELD % 2, b")*", rb"(?:\r\n?|\n)")))
_NOT_CONVERTED: Final = re.compile(
    r"In CSV column #(\d+): .*CSV conversion error to (\S+): invalid value '(.*)'", re.DOTALL
)
_MISSHAPEN: Final = re.compile(r"CSV parse error: Row #(\d+): (.{1,200})")
_TRUTHS: Final = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))


def rows_end(data: bytes) -> int:
    """Where the last row ends that is there as a whole; 0 if there is none."""
    import numpy as np

    if b'"' not in data:
        return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    characters = np.frombuffer(data, "uint8")
    quotes = np.flatnonzero(characters == ord('"'))
    if not _in_pairs(characters, quotes):
        end = 0
        while row := _ROW.match(data, end):
            end = row.end()
        return end
    # A line break is in quotes if an odd number of them stands before it.
    breaks = np.flatnonzero((characters == ord("\n")) | (characters == ord("\r")))
    ends = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    return int(ends[-1]) + 1 if len(ends) else 0


def _in_pairs(characters: Any, quotes: Any) -> bool:
    """Whether every second quote begins a field, and every other one ends one.

    Two in a row end one and begin another as well, as far as that is concerned.
    """
    import numpy as np

    beside = np.frombuffer(b',\r\n"', "uint8")
    opening, closing = quotes[::2], quotes[1::2]
    before = opening[opening > 0] - 1
    behind = closing[closing < len(characters) - 1] + 1
    return bool(
        np.isin(characters[before], beside).all() and np.isin(characters[behind], beside).all()
    )


class CsvSource(Source):
    """Text with a column for each name in its first line."""

    names: list[str]

    def __init__(self, name: str, file: Any) -> None:
        super().__init__(name)
        self.file = file
        self.names = []
        #: How many rows have been read.
        self.done = 0
        self.size = os.fstat(file.fileno()).st_size if file.seekable() else 0
        self.blocks = self._blocks()
        first = next(self.blocks, b"").removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
        if not first:
            raise ExprValueError(f"{name} is empty")
        header = _ROW.match(first)
        end = header.end() if header else len(first)
        try:
            (self.names,) = csv.reader([first[:end].decode().rstrip("\r\n")], strict=True)
        except (csv.Error, ValueError):
            raise ExprValueError(f"{name} does not begin with names of columns in UTF-8") from None
        self.first = first[end:]
        while not self.first.strip(b"\r\n"):
            block = next(self.blocks, None)
            if block is None:
                break
            self.first = block

    def _blocks(self) -> Iterator[bytes]:
        """The text, in blocks that end where a row does.

        The rows of one must have been counted before the next is asked for.
        """
        rest = b""
        while True:
            data = self.file.read(max(BLOCK, len(rest)))
            if not data:
                break
            rest += data
            end = rows_end(rest)
            if end:
                yield rest[:end]
                rest = rest[end:]
        if rest:
            if not rows_end(rest + b"\n"):
                place = f"row {self.done:,}" if self.names else "the line of names"
                raise ExprValueError(f"{self.name}: a quote that begins in {place} has no end")
            yield rest

    def _choose(self, wanted: Sequence[str], integers: Sequence[str], as_text: bool) -> Any:
        import pyarrow

        self.wanted, self.integers = list(wanted), integers
        # With none at all, all would be read.
        self.read = self.wanted or self.names[:1]
        text = as_text or not self.wanted
        self.kinds = dict.fromkeys(self.read, pyarrow.binary()) if text else {}
        self.kinds |= dict.fromkeys(integers, pyarrow.int64())
        self.kinds |= dict.fromkeys(self._truths(), pyarrow.bool_())
        schema = self._table(self.first).schema
        for field in schema:
            # What has no value at first may have one later.
            kind = pyarrow.string() if field.type == pyarrow.null() else field.type
            self.kinds[field.name] = kind
        return pyarrow.schema([(name, self.kinds[name]) for name in self.wanted])

    def _truths(self) -> list[str]:
        """The integers whose first value is a truth value."""
        from pyarrow.csv import ConvertOptions

        places = {name: self.names.index(name) for name in self.integers}
        nothing = frozenset(ConvertOptions().null_values)
        truths = []
        text = io.StringIO(self.first.decode(errors="replace"), newline="")
        with suppress(csv.Error):  # Whoever reads all of it says what is wrong.
            for row in filter(None, csv.reader(text)):
                for name, place in list(places.items()):
                    value = row[place].strip() if place < len(row) else ""
                    if value not in nothing:
                        del places[name]
                        if value in _TRUTHS:
                            truths.append(name)
                if not places:
                    break
        return truths

    def _table(self, block: bytes) -> Any:
        """The rows of a block as a table of the columns that are read."""
        import pyarrow

        if not block.strip(b"\r\n"):
            fields = [(name, self.kinds.get(name, pyarrow.null())) for name in self.read]
            return pyarrow.schema(fields).empty_table()
        with self._placing(block):
            return _parsed(self.names, block, self.read, self.kinds)

    def _batches(self) -> Iterator[Any]:
        block: bytes | None = self.first
        while block is not None:
            for batch in self._table(block).to_batches():
                yield from pieces(batch.select(self.wanted))
                self.done += batch.num_rows
            block = next(self.blocks, None)

    @contextmanager
    def _placing(self, block: bytes) -> Iterator[None]:
        """Say where a value is that is not of the type of its column."""
        from pyarrow import ArrowInvalid

        try:
            yield
            return
        except ArrowInvalid as error:
            match = _NOT_CONVERTED.search(str(error))
            if match is None:
                raise self._misshapen(block) or error from None
        name, kind, text = self.names[int(match[1])], match[2], match[3]
        row = self.done + self._row_of(block, name, text)
        if name in self.integers:
            kinds = "true or false" if kind == "bool" else "integers of up to 64 bits"
            message = f"{self.column(name)} must hold {kinds}, not {quoted(text)}, in row {row:,}"
            raise ColumnError(message, name)
        raise ExprValueError(
            f"{self.column(name)} begins with items of type {kind}, and has {quoted(text)} "
            f"in row {row:,}",
            hint="write CSV, or leave the column out with --columns",
        )

    def _misshapen(self, block: bytes) -> ExprValueError | None:
        """The error for the first row of a block that is not like the others, if there is one."""
        from pyarrow import ArrowInvalid

        try:
            # Only who reads the rows in turn knows their numbers.
            _parsed(self.names, block, self.read, self.kinds, in_turn=True)
        except ArrowInvalid as error:
            match = _MISSHAPEN.search(str(error))
            if match:
                row = self.done + int(match[1]) - 1
                return ExprValueError(f"{self.name}: CSV parse error in row {row:,}: {match[2]}")
        return None

    def _row_of(self, block: bytes, name: str, text: str) -> int:
        """The row of a block where a column has a value first."""
        import pyarrow

        table = _parsed(self.names, block, [name], {name: pyarrow.binary()})
        values = (value.decode(errors="replace").strip() for value in table[name].to_pylist())
        return next((row for row, value in enumerate(values) if value == text.strip()), 0)

    def share(self) -> float | None:
        return self.file.tell() / self.size if self.size else None


def _parsed(
    names: list[str],
    block: bytes,
    columns: list[str],
    kinds: dict[str, Any],
    in_turn: bool = False,
) -> Any:
    """Some columns of a block; of types that they look like, where none is given.

    in_turn: without threads, so that errors have numbers of rows, which count from 1.
    """
    from pyarrow import BufferReader, allocate_buffer, csv

    # In memory of Arrow's: its threads may let go of it when Python is at its end already, which
    # for memory of Python's is the end of the process.
    memory = allocate_buffer(len(block))
    memoryview(memory).cast("B")[:] = block
    # Columns that are not read may have any names, also the same.
    known = [name if name in columns else f"\0{place}" for place, name in enumerate(names)]
    return csv.read_csv(
        BufferReader(memory),
        read_options=csv.ReadOptions(
            column_names=known, block_size=1 << 20, use_threads=not in_turn
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(include_columns=columns, column_types=kinds),
    )

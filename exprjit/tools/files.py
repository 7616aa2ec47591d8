"""Files of columns: which formats there are, and how a file is opened to be read.

pyarrow is imported when the first one is opened.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

from ..errors import ExprValueError
from .csv_source import CsvSource
from .options import UsageError
from .sources import ArrowSource, NpySource, ParquetSource, Source, check_installed, naming

#: The path that is standard input, or standard output.
STANDARD: Final = "-"


class Format(NamedTuple):
    """A kind of file.

    endings: of the names of such files.  source: reads one; its arguments are what errors call it,
    and the file.  seeks: whether more is needed of that than to be read from front to back.
    """

    name: str
    endings: tuple[str, ...]
    source: Callable[[str, Any], Source]
    seeks: bool = False


FORMATS: Final = {
    row.name: row
    for row in (
        Format("csv", (".csv",), CsvSource),
        Format("parquet", (".parquet", ".pq"), ParquetSource, seeks=True),
        Format("arrow", (".arrow", ".feather", ".ipc", ".arrows"), ArrowSource, seeks=True),
        Format("npy", (".npy",), NpySource, seeks=True),
    )
}


def format_of(path: str) -> str | None:
    """The format that the ending of a file's name stands for, or None."""
    ending = os.path.splitext(path)[1].lower()
    return next((row.name for row in FORMATS.values() if ending in row.endings), None)


def unknown_format(path: str) -> UsageError:
    """The error for a file whose name says nothing."""
    known = ", ".join(f"{row.name} ({' '.join(row.endings)})" for row in FORMATS.values())
    return UsageError(f"{path}: unknown format; known are {known}")


@contextmanager
def opened(path: str, format: str | None) -> Iterator[tuple[Source, str]]:
    """A file, or "-" for standard input, as a source, and its format.

    format: by default that of the name's ending.  Raises UsageError where that says nothing,
    and ExprError for what cannot be read.
    """
    name = "standard input" if path == STANDARD else path
    chosen = format or format_of(path)
    if chosen is None:
        if path == STANDARD:
            formats = "|".join(FORMATS)
            raise UsageError(f"say what standard input holds: --format={formats}")
        raise unknown_format(path)
    check_installed()
    with ExitStack() as stack:
        with naming(name):
            file = stack.enter_context(_binary(path))
            source = FORMATS[chosen].source(name, _usable(file, FORMATS[chosen], stack))
        yield source, chosen


@contextmanager
def _binary(path: str) -> Iterator[Any]:
    if path == STANDARD:
        file = getattr(sys.stdin, "buffer", None)
        if file is None:
            raise ExprValueError("there is no standard input")
        yield file
    else:
        with open(path, "rb") as file:
            yield file


def _usable(file: Any, row: Format, stack: ExitStack) -> Any:
    """The file, or a copy of it on the disk if it is not one that the format can do with."""
    if not row.seeks or stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    if row.name == "arrow":
        # A stream can do with a pipe.
        head = file.read(len(ArrowSource.MAGIC))
        file = io.BufferedReader(_Chained(head, file))
        if head != ArrowSource.MAGIC:
            return file
    copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="exprjit-"))  # noqa: SIM115
    shutil.copyfileobj(file, copy, 1 << 20)
    copy.seek(0)
    return copy


class _Chained(io.RawIOBase):
    """A file that begins with what has been read from it already."""

    def __init__(self, head: bytes, file: Any) -> None:
        self.head = memoryview(head)
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.head[: len(buffer)] or self.file.read(len(buffer))
        self.head = self.head[len(data) :]
        buffer[: len(data)] = data
        return len(data)

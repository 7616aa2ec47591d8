"""How far a command has come, in a line on a terminal that goes away at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from ..errors import printable, shortened

#: Seconds from the begin to the first time that something is shown, and between two times.
PATIENCE: Final = 0.3
PERIOD: Final = 0.1

#: How many characters the bar takes, and a name at most.
_WIDTH: Final = 20
_NAME: Final = 24


class Progress:
    """A context in which `show` may be called; only a terminal on standard error is shown anything.

    name: of the file that is read.  share: how much of it is done, from 0 to 1, if somebody knows.
    """

    def __init__(self, name: str, share: Callable[[], float | None], wanted: bool = True) -> None:
        self.name = shortened(printable(os.path.basename(name)), _NAME)
        self.share = share
        self.stream = sys.stderr if wanted and sys.stderr and sys.stderr.isatty() else None
        self.next = time.monotonic() + PATIENCE
        self.is_shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.stream is not None and self.is_shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def show(self, rows: int) -> None:
        """Say that so many rows are done."""
        if self.stream is None or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + PERIOD
        self.is_shown = True
        # The last column is left free: a terminal may go to the next line after it.
        width = (os.get_terminal_size(self.stream.fileno()).columns or 80) - 1
        self.stream.write(f"\r{self._line(rows)[:width]}\x1b[K")
        self.stream.flush()

    def _line(self, rows: int) -> str:
        share = self.share()
        if share is None:
            return f"{self.name}  {rows:,} rows"
        share = min(share, 1.0)
        done = round(share * _WIDTH)
        bar = "#" * done + "." * (_WIDTH - done)
        return f"{self.name}  [{bar}] {share:4.0%}  {rows:,} rows"

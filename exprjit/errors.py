"""Every error the package makes, each with the place in the source that it is about.

There is one base, `ExprError`, and below it one class per kind.  Each kind is also the
built-in exception that a Python function would have raised, so both ways of catching
work: ``except exprjit.ExprError`` and ``except ZeroDivisionError``.

Positions are offsets into the source text; line and column are computed only when an
error is shown, so that nothing on the fast path has to count lines.
"""

from __future__ import annotations

from collections.abc import Iterable

#: How much of a long source line is shown around the caret, in characters.
WINDOW = 100

#: The longest name that is compared with others.
LONGEST_GUESS = 50


def shown(value: object) -> str:
    """A wrong value as an error names it: its repr if that is short, else what it is.

    Never raises: the repr of a great int does.
    """
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an int of {value.bit_length():,} bits"
    if isinstance(value, str | bytes) and len(value) > 60:
        value = value[:60]
    try:
        text = repr(value)
    except Exception:
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` of which `name` is probably a misspelling, or None.

    Looks at names that are not long, because comparing is quadratic.  Short ones have much in
    common by chance: there it has to be more, or they begin alike and are as long but for a letter.
    """
    # Costs 2 ms to import, and only errors need it.
    from difflib import SequenceMatcher, get_close_matches

    if len(name) > LONGEST_GUESS:
        return None
    some = [other for other in known if len(other) <= LONGEST_GUESS]
    for word in (name, name.lower()):
        for other in get_close_matches(word, some):
            if (
                min(len(word), len(other)) > 4
                or SequenceMatcher(None, other, word).ratio() >= 0.75
                or (word[0] == other[0] and abs(len(word) - len(other)) <= 1)
            ):
                return other
    return None


class ExprError(Exception):
    """The base of all errors that are about a formula.

    Attributes:
        message: what went wrong, one sentence without the place.
        source: the whole source text, or None where the error has no place in a text.
        start, end: the half-open range of offsets in `source` that the error is about.
        hint: what to write instead, or None.
        row: the row of the arrays that it happened in, counted from 0 in the order of C, or None.
    """

    row: int | None = None

    def __init__(
        self,
        message: str,
        source: str | None = None,
        start: int = 0,
        end: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.start = start
        self.end = start if end is None else end
        self.hint = hint

    def locate(self, source: str) -> ExprError:
        """Say which text `start` and `end` are about; gives the error itself."""
        self.source = source
        return self

    def in_row(self, row: int) -> ExprError:
        """Say in which row of arrays it happened; gives the error itself."""
        self.row = row
        self.message += f", in row {row:,}"
        return self

    @property
    def line(self) -> int:
        """The 1-based line of the place."""
        return 1 if self.source is None else self.source.count("\n", 0, self.start) + 1

    @property
    def column(self) -> int:
        """The 1-based column of the place, in characters."""
        return 1 if self.source is None else self.start - self._line()[0] + 1

    def _line(self) -> tuple[int, int]:
        """Where the line of the place begins and ends, without its line break."""
        assert self.source is not None
        first = self.source.rfind("\n", 0, self.start) + 1
        last = self.source.find("\n", first)
        if last < 0:
            last = len(self.source)
        elif last > first and self.source[last - 1] == "\r":
            last = max(last - 1, self.start)
        return first, last

    def _shown(self) -> tuple[str, str, str]:
        """The line before the place, of the place and after it, cropped where it is long."""
        assert self.source is not None
        first, last = self._line()
        left, right = "", ""
        if last - first > WINDOW:
            from_, to = max(first, self.start - WINDOW // 2), last
            to = min(last, from_ + WINDOW)
            left = "..." if from_ > first else ""
            right = "..." if to < last else ""
            first, last = from_, to
        end = max(self.start, min(self.end, last))
        before, inside = self.source[first : self.start], self.source[self.start : end]
        return left + before, inside, self.source[end:last] + right

    def excerpt(self) -> str:
        """The source line and under it a caret, two lines indented by four blanks."""
        before, inside, after = map(printable, self._shown())
        caret = " " * _columns(before) + "^" + "~" * (_columns(inside) - 1)
        return f"    {before}{inside}{after}\n    {caret}"

    def __str__(self) -> str:
        text = self.message
        if self.source is not None:
            text += f"\n  line {self.line}, column {self.column}\n{self.excerpt()}"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,), self.__dict__


def printable(text: str) -> str:
    """`text` with everything that would disturb a terminal's columns written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    shown = []
    for character in text:
        if character == "\t":
            shown.append(" ")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(character.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def quoted(text: str) -> str:
    """`text` in quotes, as messages show a piece of the source: printable and not long."""
    return f"'{printable(shortened(text))}'"


def shortened(text: str, most: int = 40) -> str:
    """`text`, or where it is longer than `most` characters its beginning and its end."""
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"


def _columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    columns = 0
    for character in text:
        if category(character) not in ("Mn", "Me"):
            columns += 2 if east_asian_width(character) in "WF" else 1
    return columns


class ExprSyntaxError(ExprError, SyntaxError):
    """The text is not a program of the language."""

    # What Python's own tools read when they show a SyntaxError.  They are properties, so
    # that they are right whenever the error learns its source.  A long line is cropped:
    # `offset` counts in `text`, where `column` counts in the source.
    @property
    def msg(self) -> str:  # type: ignore[override]
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    @property
    def lineno(self) -> int | None:  # type: ignore[override]
        return None if self.source is None else self.line

    @property
    def end_lineno(self) -> int | None:  # type: ignore[override]
        return self.lineno

    @property
    def offset(self) -> int | None:  # type: ignore[override]
        return None if self.source is None else len(self._shown()[0]) + 1

    @property
    def end_offset(self) -> int | None:  # type: ignore[override]
        if self.source is None:
            return None
        before, inside, _ = self._shown()
        return len(before + inside) + 1

    @property
    def text(self) -> str | None:  # type: ignore[override]
        if self.source is None:
            return None
        return "".join(
            character if character.isprintable() or character == "\t" else "\ufffd"
            for character in "".join(self._shown())
        )


class ExprNameError(ExprError, NameError):
    """A name is unknown, bound twice, a built-in's, or used before it is bound.

    unknown: the name, if it is that of a variable that nobody knows, else None.
    """

    # Not NameError's `name`: Python would tell which of this package's own variables are like it.
    unknown: str | None = None


class ExprTypeError(ExprError, TypeError):
    """Something is not an integer, or there are too few or too many arguments."""


class ExprOverflowError(ExprError, OverflowError):
    """A result, a shift count, a literal or an argument does not fit its 64 bits."""


class ExprZeroDivisionError(ExprError, ZeroDivisionError):
    """A division or remainder by zero."""


class ExprValueError(ExprError, ValueError):
    """An operand is outside what the operator is defined for, or an option is not one."""


class ExprNoRowsError(ExprValueError):
    """The least or greatest value of no rows was asked for."""


class ExprLimitError(ExprError, ValueError):
    """The program is larger than the limits allow; nothing of it was run."""


class JitUnavailableError(ExprError, RuntimeError):
    """``backend="jit"`` was asked for where no machine code can be had; says why."""


class VerificationError(ExprError, AssertionError):
    """With ``verify=True``: machine code and interpreter gave different answers."""

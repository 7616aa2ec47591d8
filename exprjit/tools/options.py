"""Command lines to options and words, by a table, and words to a formula and its values.

Formulas may begin with a minus sign and should not need quoting tricks beyond the shell's,
so this module knows a narrower notion of an option than getopt: ``-h`` and a few letters of
commands, and ``--word`` with at least two letters, alone or followed by ``=``.  All else is a
word: ``-x + 1``, ``--x``, ``-5``.  Behind ``--`` everything is a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ExprError, ExprNameError, closest

_OPTION = re.compile(r"(--[a-z][a-z-]+)(?:=(.*))?\Z", re.DOTALL)

_LETTER = re.compile(r"-[A-Za-z]")

_NAME_AND_VALUE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)(.*)\Z", re.DOTALL)


class UsageError(Exception):
    """The command line cannot be understood; the text says what to write."""


class Option(NamedTuple):
    """A row of an option table.

    name: as written, with its dashes; value: a word for its value in the help, or "" for a
    switch; read: turns the value's text into what is stored, raising ValueError for what
    it cannot take; choices: the only values, if any; default: what is stored when absent; short:
    a dash and a letter that mean the same, its value being the next word.
    """

    name: str
    help: str
    value: str = ""
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    default: Any = None
    short: str = ""

    @property
    def key(self) -> str:
        """The key of its value among the parsed options."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def usage(self) -> str:
        if not self.value:
            return self.name
        return f"{self.name}={'|'.join(self.choices) or self.value}"


HELP = Option("--help", "show this and leave (also -h)", short="-h")


class Arguments(NamedTuple):
    """A command line, taken apart: option values by key, and the words in order."""

    options: dict[str, Any]
    words: list[str]


def parse(argv: Sequence[str], table: Sequence[Option], command: str = "exprjit") -> Arguments:
    """Options may stand anywhere before ``--``; of one given twice the last counts.

    command: what stands before them, for errors.  Raises UsageError.
    """
    known = {option.name: option for option in table}
    short = {option.short: option.name for option in table if option.short}
    options = {option.key: option.default for option in table}
    words: list[str] = []
    waiting = list(reversed(argv))
    while waiting:
        argument = waiting.pop()
        if argument == "--":
            words += reversed(waiting)
            break
        match = _OPTION.match(short.get(argument, argument))
        if match is None:
            words.append(argument)
            continue
        name, text = match.groups()
        option = known.get(name)
        if option is None:
            close = did_you_mean(name, known)
            raise UsageError(
                f"there is no option {name}{close}; a formula that begins so: "
                f"{command} -- '{argument}'"
            )
        if not option.value:
            if text is not None:
                raise UsageError(f"{name} takes no value")
            options[option.key] = True
            continue
        if text is None:
            if not waiting:
                raise UsageError(f"{name} needs a value: {option.usage}")
            text = waiting.pop()
        options[option.key] = _read(option, text)
    return Arguments(options, words)


def _read(option: Option, text: str) -> Any:
    if option.choices and text not in option.choices:
        raise UsageError(f"{option.name} is one of {', '.join(option.choices)}, not {text!r}")
    try:
        return option.read(text)
    except ValueError:
        raise UsageError(f"{option.usage}: {text!r} is not a {option.value.lower()}") from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" where something close to `word` is known, else nothing."""
    close = closest(word, known)
    return "" if close is None else f" (did you mean {close}?)"


def formula_and_values(
    words: Sequence[str], table: Sequence[Option]
) -> tuple[str | None, dict[str, str]]:
    """The formula among the words of a command line, and the texts of the values by name.

    ``name=value`` alone is never a formula (it lacks the final expression), so values may
    also stand before it.  table: of the options, which a word may have been meant for.
    Raises UsageError.
    """
    formula = None
    values: dict[str, str] = {}
    for word in words:
        match = _NAME_AND_VALUE.match(word)
        if match and (formula is not None or ";" not in word):
            name, text = match.groups()
            if name in values:
                raise UsageError(f"'{name}' is given twice: {name}={values[name]} and {word}")
            values[name] = text
        elif formula is None:
            formula = word
        else:
            raise _surplus(word, formula, table)
    return formula, values


def _surplus(word: str, formula: str, table: Sequence[Option]) -> UsageError:
    """The error for a word that is nothing beside a formula."""
    for option in table:
        rest = word.removeprefix(option.short)
        if option.short and option.value and rest != word:
            return UsageError(f"{word!r} has to be two words: {option.short} {rest}")
    what = f"there is no option {word}" if _LETTER.match(word) else f"{word!r} is not NAME=VALUE"
    return UsageError(
        f"{what}, and the formula is {formula!r} already; "
        "a formula with blanks or operators needs quotes: exprjit 'x + 4' x=2"
    )


def read_values(texts: Mapping[str, str]) -> dict[str, int]:
    """The values of constant expressions, by name.

    Raises the ExprError of the first that is wrong; a value outside 64 bits is.
    """
    from ..formula import Formula

    values = {}
    for name, text in texts.items():
        try:
            values[name] = Formula(text, params=(), overflow="raise").interpret()
        except ExprError as error:
            error.message = f"in the value of '{name}': {error.message}"
            if isinstance(error, ExprNameError) and error.unknown is not None:
                error.hint = "a value is a constant expression: literals and operators"
            raise
    return values


def arguments_for(
    params: Sequence[str], values: Mapping[str, int], partial: bool = False
) -> list[int] | None:
    """The values in the order of the parameters; None if `partial` and some are missing.

    Raises UsageError for a name that is no parameter and, unless `partial`, for a missing one.
    """
    for name in values:
        if name not in params:
            known = f"it has {', '.join(params)}" if params else "it has none"
            close = did_you_mean(name, params)
            raise UsageError(f"'{name}' is not a parameter of the formula{close}; {known}")
    missing = [name for name in params if name not in values]
    if not missing:
        return [values[name] for name in params]
    if partial:
        return None
    wanted = " ".join(f"{name}=..." for name in missing)
    raise UsageError(f"no value for {', '.join(missing)}: add {wanted}")


def describe(table: Sequence[Option]) -> str:
    """The table as the lines of a help text."""
    return columns([(option.usage, option.help) for option in table])


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, indented; what is too wide for the left one gets a line of its own."""
    width = min(max(len(left) for left, _ in rows), 30)
    lines = []
    for left, right in rows:
        if len(left) > width:
            lines.append(f"  {left}")
            left = ""
        lines.append(f"  {left:<{width}}  {right}")
    return "\n".join(lines)

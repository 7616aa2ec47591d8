"""The prompt, first form: evaluate lines, keep what they bind and define, go on after errors.

`Session` holds the state and knows no terminal: a line goes in, text comes out.

Bindings are kept as values and given to later lines as constants.  Definitions are kept as
source and stand before every later line that needs them, so they see the bindings of the
moment they are called, as Python's functions do.  Errors are moved back from such a composed
text to the line that they are about: that which was just typed, or that of a definition.
"""

from __future__ import annotations

import contextlib
import keyword
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from .. import compile
from ..errors import ExprError, ExprNameError, ExprSyntaxError, quoted
from ..function import STAGES, Function
from ..language.ast import Binding, Call, Node, Statement
from ..language.limits import DEFAULT
from ..language.operators import OVERFLOW_MODES
from ..language.parser import parse
from ..language.syntax_errors import reserved_word
from .options import columns, did_you_mean

_Result = TypeVar("_Result")

#: Words that people try when they want to leave or to know more.
_HABITS = {"exit": ":quit leaves", "quit": ":quit leaves", "help": ":help explains"}


class Reply(NamedTuple):
    """What a line gave: the value or listing; what it did, in words; the error that ended it."""

    text: str = ""
    notes: tuple[str, ...] = ()
    error: ExprError | None = None

    def __str__(self) -> str:
        parts = [*self.notes, self.text, "" if self.error is None else str(self.error)]
        return "\n".join(part for part in parts if part)


class _Piece(NamedTuple):
    """A line or a part of it: its text, the line, and how much stands before it.

    offset: in characters of the line; before: in lines.
    """

    text: str
    line: str
    offset: int = 0
    before: int = 0

    def part(self, start: int, end: int) -> _Piece:
        return self._replace(text=self.text[start:end], offset=self.offset + start)

    def place(self, error: ExprError, first: int = 0) -> ExprError:
        """Make an error of a text in which this begins at `first` one of the line; gives it."""
        shift = self.before + self.offset - first
        error.locate(self._numbered())
        error.start += shift
        error.end += shift
        return error

    def holds(self, error: ExprError) -> bool:
        """Whether the place of an error that was placed is in here."""
        start = error.start - self.before - self.offset
        return error.source == self._numbered() and 0 <= start < len(self.text)

    def _numbered(self) -> str:
        """The line as an error's source, so that it gives its number."""
        return "\n" * self.before + self.line


class _Kept(NamedTuple):
    """A definition: its source, and the names of the functions that it calls."""

    piece: _Piece
    calls: frozenset[str]


def split(line: str) -> tuple[tuple[Statement, ...], Node | None]:
    """A line's statements and, if it ends with one, its expression.

    The language asks every program for a final expression; a line at the prompt may do
    without.  Raises the ExprError of what cannot be parsed.
    """
    try:
        return parse(line, DEFAULT)
    except ExprSyntaxError as error:
        # With a final expression put behind it, is it a program?  The second ending is for
        # lines that end with a semicolon; it must not become the operand of anything.
        for ending in ("\n;0", "\n0"):
            try:
                statements, result = parse(line + ending, DEFAULT)
            except ExprError:
                continue
            if result.start == len(line + ending) - 1:
                return statements, None
        raise error


def _call_nodes(root: Node) -> Iterator[Call]:
    """All calls below `root` of functions that are not built in, in the order of the text."""
    work = [root]
    while work:
        node = work.pop()
        if isinstance(node, Call):
            yield node
        work.extend(node.parts[::-1])


def _calls(root: Node) -> frozenset[str]:
    """The names of all functions that are called below `root` and are not built in."""
    return frozenset(call.name for call in _call_nodes(root))


def _body(statement: Statement) -> Node:
    return statement.value if isinstance(statement, Binding) else statement.body


class Session:
    """The state of a prompt; `open` turns false when a line asks to leave."""

    def __init__(
        self,
        overflow: str = "wrap",
        backend: str = "interpreter",
        values: Mapping[str, int] | None = None,
    ) -> None:
        self.overflow = overflow
        self.backend = backend
        self.values = dict(values or {})
        #: In an order in which each definition stands behind the ones that it calls.
        self._definitions: dict[str, _Kept] = {}
        self.open = True

    def feed(self, text: str, before: int = 0) -> Reply:
        """Run a line: statements, an expression, or a command that begins with a colon.

        before: how many lines stand before it, where errors are to count them.
        What the statements before a failing one bound stays bound.
        """
        line = _Piece(text, text, before=before)
        if text.lstrip().startswith(":"):
            return self._command(line)
        try:
            statements, result = split(text)
        except ExprError as error:
            return Reply(error=line.place(error))
        notes: list[str] = []
        try:
            for statement in statements:
                notes.append(self._perform(line, statement))
            value = "" if result is None else str(self._value(line, result))
        except ExprError as error:
            return Reply("", tuple(notes), error)
        return Reply(value, tuple(notes))

    def _perform(self, line: _Piece, statement: Statement) -> str:
        """Bind or define; what to say about it."""
        name = statement.name
        if keyword.iskeyword(name):
            end = statement.start + len(name)
            raise line.place(reserved_word(name, statement.start, end))
        if not isinstance(statement, Binding):
            return self._define(line, statement)
        value = self._value(line, statement.value)
        before = f" (was {self.values[name]})" if name in self.values else ""
        self.values[name] = value
        return f"{name} = {value}{before}"

    def _define(self, line: _Piece, statement: Statement) -> str:
        name = statement.name
        new = _Kept(line.part(statement.start, statement.end), _calls(_body(statement)))
        if name in self._needed_names(new.calls - {name}):
            raise self._recursion(line, statement)
        kept = {
            other: new if other == name else self._definitions[other]
            for other in self._order(name, new)
        }
        pieces = [other.piece for other in kept.values()]
        try:
            self._run(pieces, _Piece("0", "0"), lambda function: None)
        except ExprError as error:
            self._hint(error)
            if name in self._definitions and error.source and not new.piece.holds(error):
                error.hint = f"'{name}' stays as it was, because this calls it"
            raise
        verb = "redefined" if name in self._definitions else "defined"
        self._definitions = kept
        return f"{new.piece.text.split('=')[0].strip()} is {verb}"

    def _recursion(self, line: _Piece, statement: Statement) -> ExprError:
        """The error for a new version that calls what calls it.

        The composed text would be refused as well, but for the order of its definitions.
        """
        name = statement.name
        call = next(
            call
            for call in _call_nodes(_body(statement))
            if call.name != name and name in self._needed_names((call.name,))
        )
        message = f"{quoted(name)} would be defined in terms of itself, through {quoted(call.name)}"
        hint = "there is no recursion: every formula ends"
        return line.place(ExprNameError(message, None, call.start, call.name_end, hint))

    def _order(self, name: str, new: _Kept) -> list[str]:
        """The names of all definitions with a new one, or a new version of an old one.

        It takes the old one's place, where those that call it still see it, and takes with it what
        it calls itself and stands behind.
        """
        names = list(self._definitions)
        place = names.index(name) if name in names else len(names)
        needed = self._needed_names(new.calls)
        behind = names[place + 1 :]
        called = [other for other in behind if other in needed]
        return [*names[:place], *called, name, *(other for other in behind if other not in needed)]

    def _value(self, line: _Piece, node: Node) -> int:
        pieces = self._needed(_calls(node))
        tail = line.part(node.start, node.end)
        try:
            value: int = self._run(pieces, tail, lambda function: function())
            return value
        except ExprError as error:
            self._hint(error)
            raise

    def _hint(self, error: ExprError) -> None:
        """What to do about an unknown variable; here nobody knows what `params=` is."""
        name = error.unknown if isinstance(error, ExprNameError) else None
        if name is not None:
            habit = _HABITS.get(name, f"bind it first: {name} = 5")
            close = did_you_mean(name, self.values)
            error.hint = close.strip(" ()") if close else habit

    def _needed_names(self, names: Iterable[str]) -> set[str]:
        """`names`, and those of all functions that they call."""
        needed = set(names)
        # Each one stands behind those that it calls.
        for name in reversed(self._definitions):
            if name in needed:
                needed |= self._definitions[name].calls
        return needed

    def _needed(self, names: Iterable[str]) -> list[_Piece]:
        """The definitions of `names` and of all that they call."""
        needed = self._needed_names(names)
        return [kept.piece for name, kept in self._definitions.items() if name in needed]

    def _run(
        self,
        definitions: Sequence[_Piece],
        tail: _Piece,
        use: Callable[[Function], _Result],
        listing: bool = False,
    ) -> _Result:
        """What `use` makes of the function of the composed text.

        All names have to be bound, except in a listing, where they are parameters.
        """
        pieces = [*(piece._replace(text=piece.text + "\n;") for piece in definitions), tail]
        try:
            return use(
                compile(
                    "".join(piece.text for piece in pieces),
                    params=None if listing else (),
                    constants=None if listing else self.values,
                    overflow=self.overflow,
                    backend="auto" if listing else self.backend,
                )
            )
        except ExprError as error:
            _relocate(error, pieces)
            raise

    # Commands. -----------------------------------------------------------------------------

    def _command(self, line: _Piece) -> Reply:
        start, end = line.text.index(":"), len(line.text.rstrip())
        word, _, rest = line.text[start + 1 : end].partition(" ")
        command = _COMMANDS.get(word)
        if command is None:
            message = f"there is no command :{word}{did_you_mean(word, _COMMANDS)}"
            end = start + 1 + len(word)
            error = ExprSyntaxError(message, None, start, end, ":help lists them")
            return Reply(error=line.place(error))
        try:
            return Reply(command.run(self, line.part(end - len(rest.lstrip()), end)))
        except ExprError as error:
            return Reply(error=error)

    def _help(self, rest: _Piece) -> str:
        rows = [(f":{name} {row.usage}", row.help) for name, row in _COMMANDS.items()]
        lines = [("EXPR", "its value"), ("x = EXPR", "bind a name"), ("f(v) = EXPR", "define")]
        return columns([*lines, *rows])

    def _variables(self, rest: _Piece) -> str:
        lines = [f"{name} = {value}" for name, value in self.values.items()]
        lines += [kept.piece.text for kept in self._definitions.values()]
        return "\n".join(lines) or "nothing is bound"

    def _overflow(self, rest: _Piece) -> str:
        mode = rest.text
        if mode and mode not in OVERFLOW_MODES:
            message = f"overflow is one of {', '.join(OVERFLOW_MODES)}, not {mode!r}"
            raise rest.place(ExprSyntaxError(message, None, 0, len(mode)))
        self.overflow = mode or self.overflow
        return f"overflow is {self.overflow}"

    def _quit(self, rest: _Piece) -> str:
        self.open = False
        return ""

    def _listing(self, stage: str, rest: _Piece) -> str:
        try:
            statements, result = parse(rest.text, DEFAULT)
        except ExprError as error:
            raise rest.place(error) from None
        names = _calls(result).union(*(_calls(_body(statement)) for statement in statements))
        own = {statement.name for statement in statements}
        pieces = self._needed(names - own)
        return self._run(pieces, rest, lambda f: f.dump(stage), listing=True)


#: What the stages are, in words; names in a listing are parameters, bound or not.
_LISTINGS = {
    "ast": "its syntax tree",
    "graph": "its graph, simplified",
    "rules": "the rules that simplified it",
    "block": "its instructions, before they are given registers",
    "asm": "its machine code",
    "hex": "its machine code as bytes",
}


class _Command(NamedTuple):
    usage: str
    help: str
    run: Callable[[Session, _Piece], str]


_COMMANDS: dict[str, _Command] = {
    "help": _Command("", "this", Session._help),
    **{
        stage: _Command(
            "EXPR",
            _LISTINGS.get(stage, f"its {stage}"),
            lambda session, rest, stage=stage: session._listing(stage, rest),  # type: ignore[misc]
        )
        for stage in STAGES
    },
    "vars": _Command("", "what is bound and defined", Session._variables),
    "overflow": _Command("wrap|raise", "what results outside 64 bits do", Session._overflow),
    "quit": _Command("", "leave (also: end of input)", Session._quit),
}


def _relocate(error: ExprError, pieces: Sequence[_Piece]) -> None:
    """Make an error about the composed text one about the piece in which it is."""
    if error.source is None:
        return
    first = 0
    for piece in pieces:
        if error.start < first + len(piece.text) or piece is pieces[-1]:
            piece.place(error, first)
            return
        first += len(piece.text)


# With a terminal, and without. --------------------------------------------------------------


def prompt(session: Session) -> int:
    """Read and answer lines at a terminal until the input ends; gives the exit status."""
    from .. import __version__

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it: editing and history)
    print(f"exprjit {__version__}   :help explains, :quit leaves")
    while session.open:
        try:
            line = input("> ")
            reply = session.feed(line)
        except EOFError:
            print()
            break
        except KeyboardInterrupt:
            # As in Python's prompt: what was typed or was running is dropped.
            print("\ninterrupted")
            continue
        shown = str(reply)
        if shown:
            print(shown)
    return 0


def run_lines(session: Session, lines: Iterable[str]) -> int:
    """Answer line after line, errors on standard error; 1 if there were any, else 0."""
    status = 0
    for before, line in enumerate(lines):
        reply = session.feed(line.rstrip("\n"), before)
        if reply.text:
            print(reply.text)
        error = reply.error
        if error is not None:
            if error.source is not None and error.line != before + 1:
                # It stands in a definition, and this is the line that needs it.
                error.message = f"in line {before + 1}: {error.message}"
            sys.stdout.flush()
            print(f"exprjit: {error}", file=sys.stderr)
            status = 1
        if not session.open:
            break
    return status

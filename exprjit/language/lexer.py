"""Text to tokens, with the limits that are counted before anything is parsed.

The terminals are the grammar's: this module only turns them into one compiled regular
expression, which is several times faster than matching them one by one.  It also finds
what a person should be told about brackets and stray characters, because it is the one
place that sees every character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from lark.lexer import Lexer, PatternStr

from ..errors import ExprLimitError, ExprSyntaxError
from .limits import Limits
from .literals import FLOAT, SCALE


class Token:
    """A piece of the text: its terminal, the text itself, and where it stands."""

    __slots__ = ("end", "start", "text", "type")

    # The parser copies these to its end-of-text token and reads none of them.
    start_pos = line = column = end_line = end_column = end_pos = 0

    def __init__(self, type_: str, text: str, start: int, end: int) -> None:
        self.type = type_
        self.text = text
        self.start = start
        self.end = end


class TokenStream(Lexer):
    """What stands behind the parser's `lexer=`: it is handed a finished list of tokens."""

    #: The interface in which `lex` is given the lexer's state.
    __future_interface__ = 2

    def __init__(self, configuration: Any) -> None:
        self.scanner = Scanner(configuration)

    def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[Any]:
        return iter(lexer_state.text)


class Scanner:
    """The grammar's terminals as one regular expression."""

    def __init__(self, configuration: Any) -> None:
        ignored = set(configuration.ignore)
        self._keywords: dict[str, str] = {}
        patterns: list[str] = []
        # The longest operator wins: `**` before `*`, whatever the order in the grammar.
        for terminal in sorted(configuration.terminals, key=lambda t: -t.pattern.max_width):
            pattern = terminal.pattern
            if isinstance(pattern, PatternStr) and pattern.value.isidentifier():
                # Keywords are looked up after a whole name was read: `iffy` is a name.
                self._keywords[pattern.value] = terminal.name
            elif terminal.name in ignored:
                patterns.append(pattern.to_regexp())
            else:
                patterns.append(f"(?P<{terminal.name}>{pattern.to_regexp()})")
        self._pattern = re.compile("|".join((*patterns, "(?P<STRAY>.)")), re.DOTALL)

    def tokens(self, source: str, limits: Limits) -> list[Token]:
        """All tokens of `source`.

        Raises ExprLimitError for too long a text, too many tokens or too deep brackets,
        ExprSyntaxError for a character or bracket that cannot stand where it stands.
        """
        if len(source) > limits.text:
            raise ExprLimitError(
                f"the text has {len(source):,} characters; at most {limits.text:,} are allowed",
                source,
                limits.text,
                len(source),
            )
        if not source.isascii() or "\0" in source:
            _refuse_characters(source)
        tokens: list[Token] = []
        append = tokens.append
        keywords = self._keywords
        opened: list[Token] = []
        room = limits.tokens
        for match in self._pattern.finditer(source):
            kind = match.lastgroup
            if kind is None:
                continue
            start, end = match.span()
            text = match.group()
            if kind == "NAME":
                kind = keywords.get(text, kind)
            token = Token(kind, text, start, end)
            append(token)
            if kind == "LPAR":
                opened.append(token)
                if len(opened) > limits.depth:
                    raise ExprLimitError(
                        f"brackets are nested more than {limits.depth:,} deep", source, start, end
                    )
            elif kind == "RPAR":
                if not opened:
                    raise ExprSyntaxError("no '(' is open that this ')' closes", source, start, end)
                opened.pop()
            elif kind == "STRAY":
                raise _stray(source, start)
            room -= 1
            if room < 0:
                raise ExprLimitError(
                    f"the text has more than {limits.tokens:,} tokens", source, start, end
                )
        if opened:
            last = opened[-1]
            raise ExprSyntaxError("this '(' is never closed", source, last.start, last.end)
        return tokens


def _refuse_characters(source: str) -> None:
    """Refuse what no text may hold: NUL, lone surrogates and a byte order mark."""
    bad = re.search("[\0\ud800-\udfff\ufeff]", source)
    if bad is None:
        return
    start = bad.start()
    character = bad.group()
    hint = None
    if character == "\0":
        words = "a NUL character"
    elif character == "\ufeff":
        words = "a byte order mark"
        hint = "read the file with encoding='utf-8-sig'"
    else:
        words = f"a lone surrogate (U+{ord(character):04X}), which is not text"
    raise ExprSyntaxError(f"the text has {words}", source, start, start + 1, hint)


#: Characters that people type or paste for ones of the language; normal forms cover others.
_LOOKALIKES = {
    "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "≤": "<=", "≥": ">=", "≠": "!=",  # noqa: RUF001
    "∧": "and", "∨": "or", "¬": "not", "’": "'", "‘": "'", "²": "** 2", "³": "** 3",  # noqa: RUF001
}  # fmt: skip


def _stray(source: str, start: int) -> ExprSyntaxError:
    """The error for a character that begins no token."""
    character = source[start]
    end = start + 1
    hint = None
    if character == "'":
        message = "this character literal is not closed"
        hint = r"a character literal is written 'A'; a quote '\'' and a backslash '\\'"
    elif character == '"':
        message = "text in double quotes is not a value"
        hint = "a character literal has single quotes: 'A' is 65"
    elif character == "." and source[end : end + 1].isdecimal():
        return _float(source, start)
    elif character in "[]{}":
        message = f"unexpected '{character}'"
        hint = "there are only round brackets; a value is one number and has no elements"
    elif "!" <= character <= "~":
        message = f"unexpected '{character}'"
    else:
        control = unicodedata.category(character) == "Cc"
        name = unicodedata.name(character, "control character" if control else "unnamed")
        message = f"U+{ord(character):04X} ({name}) does not belong to the language"
        normal = unicodedata.normalize("NFKC", character)
        if character in _LOOKALIKES:
            hint = f"write `{_LOOKALIKES[character]}`"
        elif character.isspace():
            hint = "blanks are space, tab and newline"
        elif normal.isascii() and normal.isprintable():
            hint = f"write `{normal}`"
        elif character.isalpha():
            hint = "names are made of the letters A to Z, digits and underscores"
    return ExprSyntaxError(message, source, start, end, hint)


def _float(source: str, start: int) -> ExprSyntaxError:
    """The error for a number that begins with its point."""
    match = re.compile("[.][0-9_]*").match(source, start)
    assert match is not None
    return ExprSyntaxError(FLOAT, source, start, match.end(), SCALE)

"""What to tell a person whose text the parser refuses.

The parser knows the token that it could not take and the terminals that it would have
taken.  From these comes one sentence about what was expected and, where the text looks
like a habit from Python or C, a hint.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence

from ..errors import ExprError, ExprSyntaxError, ExprTypeError, quoted, shortened
from .lexer import Token
from .operators import FUNCTIONS, INFIX, Operator

#: The terminals after which an operand is complete.
_OPERAND_ENDS = frozenset({"NUMBER", "CHARACTER", "NAME", "RPAR"})
_OPERAND_BEGINS = frozenset({"NUMBER", "CHARACTER", "NAME", "LPAR"})
_CLOSING = {
    "COLON": "the ':' of the conditional",
    "ELSE": "the 'else' of the conditional",
    "COMMA": "','",
    "RPAR": "')'",
    "$END": "the end",
}

_CONDITIONAL = "a conditional is written `c ? a : b` or `a if c else b`"
_DEFINITION = "a function is defined by `f(v) = v * v;`"
_BINDING = "a name is bound by `d = x - y;`"
_NO_LOOPS = "there are no loops: every formula ends"

#: Words that people write for operators, in the place of an operator.
_WORDS = {
    "xor": "write `^`",
    "mod": "write `%`, or `%%` for a remainder with the sign of the divisor",
    "div": "write `/`, or `//` to round toward minus infinity",
    "shl": "write `<<`",
    "shr": "write `>>`, or `>>>` to shift zeros in",
    "eq": "write `==`",
    "ne": "write `!=`",
    "equals": "write `==`",
    "then": _CONDITIONAL,
}

#: What to write for Python's keywords.
_RESERVED = {
    "True": "write 1",
    "False": "write 0",
    "None": "every value is a number",
    "is": "`==` compares",
    "in": "`==` compares with one value; join several by `or`",
    "lambda": _DEFINITION,
    "def": _DEFINITION,
    "return": "the last expression is the result",
    "elif": _CONDITIONAL,
    "for": _NO_LOOPS,
    "while": _NO_LOOPS,
}

_GLYPHS = frozenset("+-*/%<>=!&|^~?:")
#: Runs of these that are an operator of another language.
_RUNS = {
    "<>": "`!=` means 'differs from'",
    "!==": "`!=` means 'differs from'",
    "=>": "'at least' is written `>=`",
    "=<": "'at most' is written `<=`",
    "===": "`==` compares",
    ":=": _BINDING,
    "->": _DEFINITION,
    "++": "there is no `++`: formulas do not change variables",
    "--": "there is no `--`: formulas do not change variables",
    "?:": "a conditional is written `c ? a : b`",
    "??": "a conditional is written `c ? a : b`",
}


def explain(
    source: str, tokens: Sequence[Token], refused: Token | None, expected: Collection[str]
) -> ExprError:
    """The error for the token `refused`, where one of the terminals `expected` should stand.

    `refused` is None where the text ends too early: the caret is then behind the last token.
    """
    if refused is None:
        index = len(tokens)
        token = Token("$END", "", tokens[-1].end, tokens[-1].end)
        found = "but the text ends"
    else:
        index = next(i for i, other in enumerate(tokens) if other is refused)
        token = refused
        found = f"not {quoted(token.text)}"
    for other in tokens[: index + 1]:
        if other.type == "NAME" and keyword.iskeyword(other.text):
            return reserved_word(other.text, other.start, other.end).locate(source)
    previous = tokens[index - 1] if index else None
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    complete = previous is not None and previous.type in _OPERAND_ENDS
    return ExprSyntaxError(
        f"expected {_expectation(expected, complete)}, {found}",
        source,
        token.start,
        token.end,
        _glyph_hint(source, token, previous, following)
        or (
            _operator_hint(source, token, previous, following, expected)
            if complete and previous
            else _operand_hint(token, previous)
        ),
    )


def reserved_word(name: str, start: int, end: int) -> ExprError:
    """The error for one of Python's keywords in the place of a name."""
    message = f"'{name}' is a reserved word, not a name"
    return ExprSyntaxError(message, None, start, end, _RESERVED.get(name))


def _expectation(expected: Collection[str], complete: bool) -> str:
    """What may stand here, in words; `complete` says that an operand stands before."""
    if complete:
        # Operators are not always in `expected`: the parser may have gone on to look for
        # what ends the expression before it refuses.
        choices = ["an operator"]
        choices += [words for terminal, words in _CLOSING.items() if terminal in expected]
    else:
        choices = ["a number", "a name", "'('"] + ["')'"] * ("RPAR" in expected)
    if len(choices) > 1:
        choices[-2:] = [f"{choices[-2]} or {choices[-1]}"]
    return ", ".join(choices)


def _run(source: str, place: int) -> str:
    """The signs that stand without a blank on both sides of `place`."""
    start = end = place
    while start and source[start - 1] in _GLYPHS:
        start -= 1
    while end < len(source) and source[end] in _GLYPHS:
        end += 1
    return source[start:end]


def _glyph_hint(
    source: str, token: Token, previous: Token | None, following: Token | None
) -> str | None:
    """What to write instead of signs that make no operator together."""
    for place in (token.start, previous.end if previous else 0):
        run = _run(source, place)
        if run in _RUNS:
            return _RUNS[run]
        if run.endswith("=") and run[:-1] in INFIX:
            return f"there is no `{run}`: formulas do not change variables; {_BINDING}"
    for left, right in ((previous, token), (token, following)):
        if left and right and left.end < right.start and left.text + right.text in INFIX:
            return f"`{left.text + right.text}` is written without a blank"
    return None


def _operand_hint(token: Token, previous: Token | None) -> str | None:
    """What habit may be behind `token` in the place of an operand."""
    if token.type in ("AND", "OR"):
        sign = "&" if token.type == "AND" else "|"
        return f"`{token.text}` stands between two conditions; bitwise, write `a {sign} b`"
    if token.type in ("IF", "ELSE", "COLON", "QMARK"):
        return _CONDITIONAL
    if token.type == "RPAR":
        return "the parentheses are empty" if previous and previous.type == "LPAR" else None
    if token.type == "EQUAL":
        return f"`==` compares; {_BINDING}"
    return None


def _operator_hint(
    source: str,
    token: Token,
    previous: Token,
    following: Token | None,
    expected: Collection[str],
) -> str | None:
    """What habit may be behind `token` after a complete operand."""
    if token.type in ("ELSE", "COLON", "IF", "QMARK"):
        return _CONDITIONAL
    if token.type == "EQUAL":
        return f"`==` compares; {_BINDING}"
    if token.type == "COMMA":
        pieces = source[previous.start : following.end if following else token.end].split(",")
        if len(pieces) == 2 and pieces[0].isdecimal() and re.fullmatch("[0-9]{3}", pieces[1]):
            return f"digits are grouped by underscores: `{shortened('_'.join(pieces))}`"
        return "a comma only separates the arguments of a call"
    if token.type == "SEMICOLON":
        return "a ';' ends a statement; the arguments of a call are separated by ','"
    if token.type in ("NOT", "PREFIX"):
        if token.type == "NOT" and following and following.text == "in":
            return _RESERVED["in"]
        return f"`{token.text}` has one operand, after it; 'differs from' is written `!=`"
    if token.type not in _OPERAND_BEGINS:
        return None
    if token.type == "NAME" and token.text.lower() in _WORDS:
        return _WORDS[token.text.lower()]
    if previous.text in FUNCTIONS:
        return f"a call is written `{FUNCTIONS[previous.text].signature}`"
    if "\n" in source[previous.end : token.start]:
        return "statements are separated by `;`"
    if "COMMA" in expected:
        return "arguments are separated by ','; multiplication is written with `*`"
    return "multiplication is written with `*`"


def arity_error(operator: Operator, given: int, start: int, end: int) -> ExprError:
    """The error for a built-in function with too few or too many arguments."""
    least = "at least " if operator.variadic else ""
    plural = "" if operator.arity == 1 else "s"
    return ExprTypeError(
        f"{operator.name}() takes {least}{operator.arity} argument{plural}, not {given}",
        None,
        start,
        end,
        f"write `{operator.signature}`",
    )

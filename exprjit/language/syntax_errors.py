"""What to tell a person whose text the parser refuses.

The parser knows the token that it could not take and the terminals that it would have
taken.  From these comes one sentence about what was expected and, where the text looks
like a habit from Python or C, a hint.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection, Sequence

from ..errors import ExprError, ExprSyntaxError, ExprTypeError
from .lexer import Token
from .operators import Operator

_OPERAND_BEGINS = "NUMBER"
_CLOSING = {
    "COLON": "the ':' of the conditional",
    "ELSE": "the 'else' of the conditional",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}

#: Words that people write for operators, in the place of an operator.
_WORDS = {
    "xor": "^",
    "mod": "%",
    "div": "/",
    "shl": "<<",
    "shr": ">>",
    "eq": "==",
    "is": "==",
    "then": "?",
}
_VALUES = {"True": "1", "False": "0", "None": "0"}

#: Pairs of adjacent tokens that look like one operator of another language.
_PAIRS = {
    "<>": "`!=` means 'differs from'",
    "=>": "'at least' is written `>=`",
    "=<": "'at most' is written `<=`",
    "===": "`==` compares",
    "!==": "`!=` means 'differs from'",
    ":=": "a binding is written `name = value;`",
    "->": "a definition is written `f(x) = ...;`",
    "++": "there is no `++`: formulas do not change variables",
    "--": "there is no `--`: formulas do not change variables",
    "?:": "a conditional is written `c ? a : b`",
    "?.": "a conditional is written `c ? a : b`",
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
        found = "the text ends"
    else:
        index = next(i for i, other in enumerate(tokens) if other is refused)
        token = refused
        found = f"unexpected {_quoted(token.text)}"
    for other in tokens[: index + 1]:
        if other.type == "NAME" and keyword.iskeyword(other.text):
            return reserved_word(other.text, other.start, other.end).locate(source)
    hint = _hint(token, tokens[index - 1] if index else None, expected)
    message = f"{found}: {_expectation(expected)}"
    return ExprSyntaxError(message, source, token.start, token.end, hint)


def _quoted(text: str) -> str:
    return f"'{text}'" if len(text) <= 40 else f"'{text[:37]}...'"


def reserved_word(name: str, start: int, end: int) -> ExprError:
    """The error for one of Python's keywords in the place of a name."""
    value = _VALUES.get(name)
    if value is not None:
        hint: str | None = f"write {value}"
    elif name == "is":
        hint = "`==` compares"
    elif name == "lambda":
        hint = "a function is defined by `f(x) = ...;`"
    else:
        hint = None
    return ExprSyntaxError(f"'{name}' is a reserved word, not a name", None, start, end, hint)


def _expectation(expected: Collection[str]) -> str:
    """What may stand here, in words."""
    if _OPERAND_BEGINS in expected:
        words = "a number, a name or '(' is expected here"
        return words.replace(" or '('", ", '(' or ')'") if "RPAR" in expected else words
    choices = ["an operator"] if "INFIX" in expected else []
    choices += [words for terminal, words in _CLOSING.items() if terminal in expected]
    if len(choices) > 1:
        choices[-2:] = [f"{choices[-2]} or {choices[-1]}"]
    return ", ".join(choices) + " is expected here"


def _hint(token: Token, previous: Token | None, expected: Collection[str]) -> str | None:
    """What habit may be behind the text, or None."""
    pair = _PAIRS.get((previous.text if previous else "") + token.text)
    adjacent = previous is not None and previous.end == token.start
    if pair and adjacent:
        return pair
    if token.type == "$END" and previous is not None and previous.text in ("+", "-"):
        return "an operand is missing after the last operator"
    if token.type == "EQUAL":
        if adjacent and previous is not None and previous.type in ("SIGN", "INFIX", "PREFIX"):
            return "formulas do not change variables; `d = x + 1;` binds a new name"
        return "`==` compares; `name = value;` binds a name, at the start of a statement"
    if token.type in ("AND", "OR") and _OPERAND_BEGINS in expected:
        sign = "&" if token.type == "AND" else "|"
        return f"`{token.text}` stands between two conditions; bitwise, write `a {sign} b`"
    if token.type == "IF" and _OPERAND_BEGINS in expected:
        return "a conditional is written `c ? a : b` or `a if c else b`"
    if token.type == "NAME" and token.text.lower() in _WORDS:
        return f"write `{_WORDS[token.text.lower()]}`"
    if token.type == "COMMA":
        return "a comma only separates the arguments of a call"
    if token.type in ("NUMBER", "NAME", "LPAR", "CHARACTER") and previous is not None:
        if previous.text == ")" or previous.type in ("NUMBER", "NAME", "CHARACTER"):
            return "multiplication is written with `*`" if "INFIX" in expected else None
    return None


def arity_error(operator: Operator, given: int, start: int, end: int) -> ExprError:
    """The error for a built-in function with too few or too many arguments."""
    least = "at least " if operator.variadic else ""
    plural = "" if operator.arity == 1 else "s"
    return ExprTypeError(
        f"{operator.name}() takes {least}{operator.arity} argument{plural}, not {given}",
        None,
        start,
        end,
    )

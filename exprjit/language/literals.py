"""Number and character literals: text to value, or an error that says what is wrong with it."""

from __future__ import annotations

import re

from ..errors import ExprError, ExprOverflowError, ExprSyntaxError

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)\Z")
_BASES = {"x": (16, "hexadecimal"), "o": (8, "octal"), "b": (2, "binary")}
_BASED = re.compile(
    r"0(?:[xX][0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|[oO][0-7]+(?:_[0-7]+)*|[bB][01]+(?:_[01]+)*)\Z"
)
_FLOAT = re.compile(r"[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)\Z")
#: More digits than any literal needs; Python's int() refuses texts of 4,300 and more.
_MOST_DIGITS = 100

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "'": "'"}
_HEX_ESCAPE = re.compile(r"\\x[0-9a-fA-F]{2}\Z")


def number(text: str, start: int, end: int) -> int:
    """The value of a number literal; 2**63 for the decimal that needs a minus before it.

    Hexadecimal, octal and binary literals are bit patterns: 0xffffffffffffffff is -1.
    Raises ExprSyntaxError for what is not a literal, ExprOverflowError for what does not fit.
    """
    if _DECIMAL.match(text):
        digits = text.replace("_", "")
        value = int(digits) if len(digits) <= _MOST_DIGITS else 1 << 64
        if value > 1 << 63:
            raise ExprOverflowError(
                "this number does not fit a 64-bit long",
                None,
                start,
                end,
                "the greatest is 9223372036854775807",
            )
        return value
    if _BASED.match(text):
        base, name = _BASES[text[1].lower()]
        digits = text[2:].replace("_", "").lstrip("0") or "0"
        value = int(digits, base) if len(digits) <= _MOST_DIGITS else 1 << 64
        if value >= 1 << 64:
            raise ExprOverflowError(f"this {name} number has more than 64 bits", None, start, end)
        return value - (1 << 64) if value >= 1 << 63 else value
    raise _malformed(text, start, end)


def _malformed(text: str, start: int, end: int) -> ExprError:
    hint = None
    if _FLOAT.match(text):
        message = "numbers are integers; this is a float"
        whole = text.split(".")[0]
        if re.fullmatch(r"[0-9]+\.0*", text):
            hint = f"write {whole}"
        else:
            hint = "scale it: a formula in cents, or in 1/1000, has integers only"
    elif "_" in text and re.fullmatch("[0-9_]+|0[xX][0-9a-fA-F_]*|0[oO][0-7_]*|0[bB][01_]*", text):
        message = "an underscore in a number stands between two digits"
    elif re.fullmatch("0[0-9]+", text):
        message = "a decimal number does not begin with 0"
        octal = re.fullmatch("0+[0-7]+", text)
        digits = text.lstrip("0")
        hint = f"write {digits or 0}" + (f", or 0o{digits} for octal" if octal and digits else "")
    elif text[:2].lower() in ("0x", "0o", "0b"):
        name = _BASES[text[1].lower()][1]
        if len(text) == 2:
            message = f"a {name} number needs digits after {text}"
        else:
            message = f"this is not a {name} number"
    elif re.fullmatch("[0-9_]+[lLuU]+", text):
        message = "numbers have no suffix here"
        hint = f"write {text.rstrip('lLuU')}: every number is a 64-bit long"
    else:
        message = "this is neither a number nor a name"
        hint = "a name does not begin with a digit"
    return ExprSyntaxError(message, None, start, end, hint)


def character(text: str, start: int, end: int) -> int:
    """The code point of a character literal, quotes included in `text`.

    Raises ExprSyntaxError.
    """
    inside = text[1:-1]
    if len(inside) == 1:
        return ord(inside)
    if len(inside) == 2 and inside[0] == "\\" and inside[1] in _ESCAPES:
        return ord(_ESCAPES[inside[1]])
    if _HEX_ESCAPE.match(inside):
        return int(inside[2:], 16)
    hint = None
    if not inside:
        message = "this character literal is empty"
        hint = r"a quote is written '\''"
    elif inside[0] == "\\":
        message = "unknown escape in a character literal"
        hint = r"the escapes are \n \t \r \0 \\ \' and \xHH"
    else:
        message = "a character literal holds one character"
    raise ExprSyntaxError(message, None, start, end, hint)

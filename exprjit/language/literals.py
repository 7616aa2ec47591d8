"""Number and character literals: text to value, or an error that says what is wrong with it."""

from __future__ import annotations

import re

from ..errors import ExprError, ExprOverflowError, ExprSyntaxError, shortened

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


#: What is said of a float.
FLOAT = "numbers are integers; this is a float"
SCALE = "scale the numbers, as from dollars to cents, and compute with integers"
_NOT_LONG = "this number does not fit a 64-bit long"


def number(text: str, start: int, end: int) -> int:
    """The value of a number literal; 2**63 for the decimal that needs a minus before it.

    Hexadecimal, octal and binary literals are bit patterns: 0xffffffffffffffff is -1.
    Raises ExprSyntaxError for what is not a literal, ExprOverflowError for what does not fit.
    """
    if _DECIMAL.match(text):
        digits = text.replace("_", "")
        value = int(digits) if len(digits) <= _MOST_DIGITS else 1 << 64
        if value > 1 << 63:
            raise too_great(value, start, end)
        return value
    if _BASED.match(text):
        base, name = _BASES[text[1].lower()]
        digits = text[2:].replace("_", "").lstrip("0") or "0"
        value = int(digits, base) if len(digits) <= _MOST_DIGITS else 1 << 64
        if value >= 1 << 64:
            raise ExprOverflowError(f"this {name} number has more than 64 bits", None, start, end)
        return value - (1 << 64) if value >= 1 << 63 else value
    raise _malformed(text, start, end)


def too_great(value: int, start: int, end: int) -> ExprError:
    """The error for a decimal literal that is above the greatest long."""
    hint = "numbers go from -9223372036854775808 to 9223372036854775807"
    if 1 << 63 < value < 1 << 64:
        hint = f"the greatest is 9223372036854775807; as a bit pattern this is {value:#x}"
    return ExprOverflowError(_NOT_LONG, None, start, end, hint)


def _malformed(text: str, start: int, end: int) -> ExprError:
    base = _BASES.get(text[1:2].lower()) if text[0] == "0" else None
    suffix = re.fullmatch("(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)[lLuU]+", text)
    hint = None
    if _FLOAT.match(text):
        message = FLOAT
        hint = f"write {_whole(text)}" if _whole(text) else SCALE
    elif suffix:
        message = "numbers have no suffix"
        hint = f"write {suffix[1]}: every number is a 64-bit long"
    elif re.fullmatch("0(?:_?[0-9])+", text):
        message = "a decimal number does not begin with 0"
        digits = text.lstrip("0_") or "0"
        octal = digits != "0" and not re.search("[89]", digits)
        hint = f"write {shortened(digits)}" + (f", or 0o{shortened(digits)} for octal" * octal)
    elif "_" in text and re.fullmatch("[0-9_]+|0[xX][0-9a-fA-F_]*|0[oO][0-7_]*|0[bB][01_]*", text):
        message = "an underscore in a number stands between two digits"
    elif base and len(text) == 2:
        message = f"{base[1]} digits are missing after {text}"
    elif base:
        allowed = "0123456789abcdef"[: base[0]] + "_"
        wrong = next(digit for digit in text[2:] if digit.lower() not in allowed)
        message = f"'{wrong}' is not a digit of a {base[1]} number".replace("a octal", "an octal")
    else:
        message = "this is neither a number nor a name"
        hint = "a name does not begin with a digit"
    return ExprSyntaxError(message, None, start, end, hint)


def _whole(text: str) -> str | None:
    """The integer that the float literal `text` is, or None where it is none of the language."""
    mantissa, _, exponent = text.lower().replace("_", "").partition("e")
    digits, _, fraction = mantissa.partition(".")
    power = int(exponent or 0) if len(exponent) < 5 else 99
    if len(digits) > 19 or not 0 <= power <= 18 or fraction.strip("0"):
        return None
    value = int(digits) * 10**power
    return str(value) if value < 1 << 63 else None


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
        count = len(inside)
        message = f"a character literal holds one character, not {count}"
        if not inside.isascii():
            message = f"a character literal holds one code point, not {count}"
    raise ExprSyntaxError(message, None, start, end, hint)

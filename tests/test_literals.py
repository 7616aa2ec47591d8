"""Numbers and characters: section 2 of the design, "Literals", case by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import exprjit

MAX = 9223372036854775807
MIN = -9223372036854775808


def value(source: str, **options: str) -> int:
    return exprjit.compile(source, backend="interpreter", **options)()


def refused(source: str) -> exprjit.ExprError:
    with pytest.raises(exprjit.ExprError) as caught:
        value(source)
    assert isinstance(caught.value, exprjit.ExprSyntaxError | exprjit.ExprOverflowError)
    return caught.value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("0", 0),
        ("42", 42),
        ("1_000_000", 1_000_000),
        ("0xff", 255),
        ("0XfF", 255),
        ("0x00_ff", 255),
        ("0b1010", 10),
        ("0B1_0", 2),
        ("0o17", 15),
        ("0O1_7", 15),
        ("9223372036854775807", MAX),
        ("9_223_372_036_854_775_807", MAX),
        ("-9223372036854775808", MIN),
        ("- 9_223_372_036_854_775_808", MIN),
        ("-\n9223372036854775808", MIN),
        ("0 - -9223372036854775808", MIN),
        ("1 * -9223372036854775808 / 2", MIN // 2),
        ("max(-9223372036854775808, -1)", -1),
        ("1 ? -9223372036854775808 : 2", MIN),
        ("(-9223372036854775808) ** 1", MIN),
        ("(-1) ** -(-9223372036854775808 + 9223372036854775807)", -1),
        ("0xffffffffffffffff", -1),
        ("0x8000000000000000", MIN),
        ("0x7fffffffffffffff", MAX),
        ("0x000000000000000000000000000000000000000000000000001", 1),
        ("0o1777777777777777777777", -1),
        ("0b" + "1" * 64, -1),
        ("0b1" + "0" * 63, MIN),
        ("-0xffffffffffffffff", 1),
        ("0xcbf29ce484222325", 0xCBF29CE484222325 - 2**64),
    ],
)
def test_numbers(source: str, expected: int) -> None:
    assert value(source) == expected


@given(st.integers(0, MAX))
def test_decimals_and_bit_patterns(number: int) -> None:
    assert value(str(number)) == number
    assert value(f"{number:_}") == number
    assert value(f"-{number}") == -number
    for text in (f"{number:#x}", f"{number:#X}", f"{number:#o}", f"{number:#b}", f"{number:#_x}"):
        assert value(text) == number
    assert value(f"{2**64 - 1 - number:#x}") == -1 - number


def test_the_minus_of_the_least_number_is_part_of_the_literal() -> None:
    assert value("-9223372036854775808", overflow="raise") == MIN
    assert value("- -9223372036854775808") == MIN
    for source in ("- -9223372036854775808", "-0x8000000000000000", "-(-9223372036854775808)"):
        with pytest.raises(exprjit.ExprOverflowError):
            value(source, overflow="raise")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("9223372036854775808", 0),
        ("+9223372036854775808", 1),
        ("~9223372036854775808", 1),
        ("!9223372036854775808", 1),
        ("not 9223372036854775808", 4),
        ("0 - 9223372036854775808", 4),
        ("-9223372036854775808 ** 1", 1),
        ("-9223372036854775808 ** 0", 1),
        ("-(9223372036854775808)", 2),
        ("2 ** 9223372036854775808", 5),
        ("9223372036854775808 + 1", 0),
        ("1 < 9223372036854775808 < 2", 4),
        ("1 < 2 < 9223372036854775808", 8),
        ("9223372036854775808 < 2 < 3", 0),
        ("9223372036854775808 and 1", 0),
        ("1 or 9223372036854775808", 5),
        ("9223372036854775808 ? 1 : 2", 0),
        ("1 ? 9223372036854775808 : 2", 4),
        ("1 ? 2 : 9223372036854775808", 8),
        ("1 if 9223372036854775808 else 2", 5),
        ("9223372036854775808 if 1 else 2", 0),
        ("1 if 2 else 9223372036854775808", 12),
        ("abs(9223372036854775808)", 4),
        ("max(1, 9223372036854775808)", 7),
        ("d = 9223372036854775808; d", 4),
        ("f(v) = 9223372036854775808; 1", 7),
        ("9223372036854775808; 1", 0),
        ("-9223372036854775809", 1),
        ("18446744073709551616", 0),
        ("1" + "0" * 10_000, 0),
        ("0x1_0000_0000_0000_0000", 0),
        ("0x1" + "0" * 10_000, 0),
        ("0b1" + "0" * 64, 0),
        ("0o2" + "0" * 21, 0),
    ],
)
def test_numbers_that_do_not_fit(source: str, place: int) -> None:
    error = refused(source)
    assert isinstance(error, OverflowError)
    assert error.start == place
    assert len(str(error)) < 500


def test_a_decimal_of_64_bits_is_shown_as_the_bit_pattern_that_it_may_be_meant_for() -> None:
    assert "0xcbf29ce484222325" in (refused("14695981039346656037").hint or "")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("08", "begin with 0"),
        ("00", "begin with 0"),
        ("0777", "0o777"),
        ("0_1", "begin with 0"),
        ("0x_", "underscore"),
        ("0x_1", "underscore"),
        ("0x1_", "underscore"),
        ("1__0", "underscore"),
        ("1_", "underscore"),
        ("0b1__0", "underscore"),
        ("0x", "missing after 0x"),
        ("0b", "missing after 0b"),
        ("0O", "missing after 0O"),
        ("0b12", "'2' is not a digit of a binary number"),
        ("0o18", "'8' is not a digit of an octal number"),
        ("0xfg", "'g' is not a digit of a hexadecimal number"),
        ("1.5", "float"),
        ("1.", "write 1"),
        ("2.00", "write 2"),
        (".5", "float"),
        ("1e3", "write 1000"),
        ("1.5e3", "float"),
        ("1e-3", "float"),
        ("1e300", "float"),
        ("1E99999999999999", "float"),
        ("10L", "write 10:"),
        ("10ull", "write 10:"),
        ("0xffU", "write 0xff:"),
        ("12abc", "neither a number nor a name"),
        ("1x", "neither a number nor a name"),
        ("''", "empty"),
        ("'ab'", "one character, not 2"),
        ("'\\x4'", "unknown escape"),
        ("'\\x411'", "unknown escape"),
        ("'\\q'", "unknown escape"),
        ("'\\N'", "unknown escape"),
        ("'\\", "not closed"),
        ("'\\'", "not closed"),
        ("'a", "not closed"),
        ("'\n'", "not closed"),
        ("'e\u0301'", "one code point, not 2"),
        ('"A"', "single quotes"),
    ],
)
def test_what_is_no_literal(source: str, words: str) -> None:
    error = refused(source)
    assert isinstance(error, SyntaxError)
    assert words in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'A'", 65),
        ("' '", 32),
        ("'\"'", 34),
        (r"'\n'", 10),
        (r"'\t'", 9),
        (r"'\r'", 13),
        (r"'\0'", 0),
        (r"'\\'", 92),
        (r"'\''", 39),
        (r"'\x41'", 65),
        (r"'\xfF'", 255),
        ("'é'", 233),
        ("'漢'", 0x6F22),
        ("'😀'", 0x1F600),
        ("'\t'", 9),
        ("';' + '('", 99),
    ],
)
def test_characters(source: str, expected: int) -> None:
    assert value(source) == expected

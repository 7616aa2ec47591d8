"""Errors: their kinds, their places, what they look like, their hints, and their travels."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import exprjit
from exprjit.errors import closest, printable, quoted, shortened

KINDS: list[tuple[type[exprjit.ExprError], type[Exception]]] = [
    (exprjit.ExprSyntaxError, SyntaxError),
    (exprjit.ExprNameError, NameError),
    (exprjit.ExprTypeError, TypeError),
    (exprjit.ExprOverflowError, OverflowError),
    (exprjit.ExprZeroDivisionError, ZeroDivisionError),
    (exprjit.ExprValueError, ValueError),
    (exprjit.ExprLimitError, ValueError),
    (exprjit.JitUnavailableError, RuntimeError),
    (exprjit.VerificationError, AssertionError),
]


def error_of(source: str, *arguments: int, **options: Any) -> exprjit.ExprError:
    with pytest.raises(exprjit.ExprError) as caught:
        exprjit.compile(source, backend="interpreter", **options)(*arguments)
    return caught.value


# Kinds. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_each_kind_is_also_the_builtin(
    kind: type[exprjit.ExprError], builtin: type[Exception]
) -> None:
    assert issubclass(kind, exprjit.ExprError)
    assert issubclass(kind, builtin)
    with pytest.raises(builtin, match="words"):
        raise kind("words")
    assert str(kind("words")) == "words"


def test_the_base_is_not_one_of_them() -> None:
    assert exprjit.ExprError.__bases__ == (Exception,)


@pytest.mark.parametrize(
    ("source", "arguments", "kind"),
    [
        ("x y", (), SyntaxError),
        ("08", (), SyntaxError),
        ("d = d + 1; d", (), NameError),
        ("abs(x, y)", (), TypeError),
        ("99999999999999999999", (), OverflowError),
        ("1/x", (0,), ZeroDivisionError),
        ("2 ** x", (-1,), ValueError),
        ("isqrt(x)", (-1,), ValueError),
        ("x", (), TypeError),
        ("x", (2**63,), OverflowError),
        ("(" * 30_000, (), ValueError),
    ],
)
def test_what_a_formula_raises(
    source: str, arguments: tuple[int, ...], kind: type[Exception]
) -> None:
    assert isinstance(error_of(source, *arguments), kind)


# Places. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("x y", 1, 3),
        ("\n\n  x y", 3, 5),
        ("x\n+\n* y", 3, 1),
        ("x\r\n+ * y", 2, 3),
        ("\tx y", 1, 4),
        ("'漢' y", 1, 5),
        ("x +", 1, 4),
        ("x +\n\n", 1, 4),
        ("(x +\n y", 1, 1),
        ("x + (\n y\n", 1, 5),
        ("\n", 1, 1),
    ],
)
def test_line_and_column_count_characters_from_1(source: str, line: int, column: int) -> None:
    error = error_of(source)
    assert (error.line, error.column) == (line, column)
    assert f"line {line}, column {column}\n" in str(error)


@pytest.mark.parametrize(
    ("source", "arguments", "shown"),
    [
        ("x y", (), "x y|  ^"),
        ("x + yy zz", (), "x + yy zz|       ^~"),
        ("x +", (), "x +|   ^"),
        ("1 / (x - x)", (3,), "1 / (x - x)|^~~~~~~~~~~"),
        ("d = 1;\nd + (d / x) * 2", (0,), "d + (d / x) * 2|    ^~~~~~~"),
        ("1 /\n x", (0,), "1 /|^~~"),
        ("\tx\ty", (), " x y|   ^"),
        ("x\r\ny", (), "y|^"),
        ("x y\r\n", (), "x y|  ^"),
        ("'漢' y", (), "'漢' y|     ^"),
        ("'é' y", (), "'é' y|    ^"),
        ("'e\u0301' y", (), "'e\u0301' y|    ^"),
        ("x + 漢", (), "x + 漢|    ^~"),
        ("x \0 y", (), r"x \x00 y|  ^~~~"),
        ("x + '\ud800'", (), r"x + '\ud800'|     ^~~~~~"),
        ("x '\x1b[31m'", (), r"x '\x1b[31m'|  ^~~~~~~~~~"),
        ("", (), "|^"),
    ],
)
def test_the_caret_is_under_the_place(source: str, arguments: tuple[int, ...], shown: str) -> None:
    text, caret = shown.split("|")
    assert error_of(source, *arguments).excerpt() == f"    {text}\n    {caret}"


@pytest.mark.parametrize("before", [0, 1, 49, 50, 51, 500, 5000])
@pytest.mark.parametrize("after", [0, 1, 49, 50, 51, 500, 5000])
def test_long_lines_are_cropped_around_the_place(before: int, after: int) -> None:
    error = error_of("x+" * before + "yy ? @" + "+z" * after)
    text, caret = error.excerpt().split("\n")
    assert text[caret.index("^")] == "@"
    assert caret.count("~") == 0
    assert len(text) <= 4 + 3 + 100 + 3
    assert text.startswith("    ...") == (2 * before > 50 and 2 * (before + after) > 94)
    assert text.endswith("...") == (2 * after > 50 and 2 * (before + after) > 94)


def test_a_long_place_is_cropped() -> None:
    error = error_of("x / (" + "y+" * 1000 + "y)", 1, 0)
    text, caret = error.excerpt().split("\n")
    assert caret == "    ^" + "~" * 99
    assert len(text) == 4 + 100 + 3


def test_the_whole_message() -> None:
    assert str(error_of("total = price * count;\ntotal === 0")) == (
        "expected a number, a name or '(', not '='\n"
        "  line 2, column 9\n"
        "    total === 0\n"
        "            ^\n"
        "  hint: `==` compares"
    )
    assert str(error_of("x / (y - 2)", 7, 2)) == (
        "division by zero, where x = 7 and y - 2 = 0\n"
        "  line 1, column 1\n"
        "    x / (y - 2)\n"
        "    ^~~~~~~~~~~"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x +", "expected a number, a name or '(', but the text ends"),
        ("max(* x)", "expected a number, a name, '(' or ')', not '*'"),
        ("x y", "expected an operator or the end, not 'y'"),
        ("x : y", "expected an operator or the end, not ':'"),
        ("x ? y : z : w", "expected an operator or the end, not ':'"),
        ("(x y)", "expected an operator or ')', not 'y'"),
        ("max(x : y)", "expected an operator, ',' or ')', not ':'"),
        ("x ? y ; z", "expected an operator or the ':' of the conditional, not ';'"),
        ("x if y", "expected an operator or the 'else' of the conditional, but the text ends"),
    ],
)
def test_what_is_expected(source: str, message: str) -> None:
    assert error_of(source).message == message


def test_errors_without_a_text_have_no_place() -> None:
    error = error_of("x", 1, 2)
    assert error.source is None
    assert (error.line, error.column) == (1, 1)
    assert str(error) == "f() takes 1 positional argument but 2 were given"


# What is said. ----------------------------------------------------------------------------------

HINTS = [
    # A habit, what the message says, what the hint says.
    ("x = 3", "ends with a binding", "`==` compares"),
    ("x + 1 = 3", "binds a name", "`==` compares"),
    ("(x = 3)", "not '='", "`==` compares"),
    ("= 3", "not '='", "`==` compares"),
    ("max(x = 3, 4)", "not '='", "`==` compares"),
    ("x ? y = 3 : 4", "not '='", "`==` compares"),
    ("x === 3", "not '='", "`==` compares"),
    ("x !== 3", "not '='", "`!=`"),
    ("x = = 3", "not '='", "`==` is written without a blank"),
    ("x < = 3", "not '='", "`<=` is written without a blank"),
    ("x ! = 3", "not '!'", "`!=` is written without a blank"),
    ("x > > 3", "not '>'", "`>>` is written without a blank"),
    ("x * * 3", "not '*'", "`**` is written without a blank"),
    ("x & & y", "not '&'", "`&&` is written without a blank"),
    ("x <> 3", "not '>'", "`!=`"),
    ("x => 3", "not '>'", "`>=`"),
    ("x =< 3", "not '<'", "`<=`"),
    ("x++", "the text ends", "there is no `++`"),
    ("x-- * 2", "not '*'", "there is no `--`"),
    ("x += 1", "not '='", "there is no `+=`"),
    ("x <<= 1", "not '='", "there is no `<<=`"),
    ("x **= 2; x", "not '='", "there is no `**=`"),
    ("x := 3", "not ':'", "`d = x - y;`"),
    ("x -> 3", "not '>'", "`f(v) = v * v;`"),
    ("x ?? 3", "not '?'", "`c ? a : b`"),
    ("x ?: 3", "not ':'", "`c ? a : b`"),
    ("1.5 * x", "float", "scale"),
    (".5 * x", "float", "scale"),
    ("2.0 * x", "float", "write 2"),
    ("1e3 * x", "float", "write 1000"),
    ("x & and y", "not 'and'", "`a & b`"),
    ("x | or y", "not 'or'", "`a | b`"),
    ("and x", "not 'and'", "`a & b`"),
    ("x not y", "not 'not'", "`!=`"),
    ("x not in y", "not 'not'", "`==`"),
    ("x in y", "reserved word", "`==`"),
    ("x is y", "reserved word", "`==`"),
    ("x == not y", "more loosely", "`!x`"),
    ("08", "begin with 0", "write 8"),
    ("010", "begin with 0", "0o10"),
    ("10L", "no suffix", "write 10:"),
    ("0xFFull", "no suffix", "write 0xFF:"),
    ("lambda x: x", "reserved word", "`f(v) = v * v;`"),
    ("def f(x): x", "reserved word", "`f(v) = v * v;`"),
    ("return x", "reserved word", "last expression"),
    ("True", "reserved word", "write 1"),
    ("x == False", "reserved word", "write 0"),
    ("x == None", "reserved word", "number"),
    ("for i in x", "reserved word", "no loops"),
    ("x y", "not 'y'", "`*`"),
    ("3 x", "not 'x'", "`*`"),
    ("(x)(y)", "not '('", "`*`"),
    ("x = 3; x(2)", "unknown function", "`*`"),
    ("x\ny", "not 'y'", "`;`"),
    ("max x y", "not 'x'", "`max(a, b, ...)`"),
    ("max(x y)", "not 'y'", "','"),
    ("max(x; y)", "not ';'", "','"),
    ("x, y", "not ','", "arguments of a call"),
    ("1,000", "not ','", "`1_000`"),
    ("x xor y", "not 'xor'", "`^`"),
    ("x XOR y", "not 'XOR'", "`^`"),
    ("x mod y", "not 'mod'", "`%`"),
    ('"text"', "double quotes", "'A'"),
    ("'text'", "one character, not 4", None),
    ("x[0]", "'['", "round brackets"),
    ("{x}", "'{'", "round brackets"),
    ("if x then y", "not 'if'", "`a if c else b`"),
    ("x then y", "not 'then'", "`a if c else b`"),
    ("x : y", "not ':'", "`c ? a : b`"),
    ("x else y", "not 'else'", "`a if c else b`"),
    ("x ? y", "the ':' of the conditional, but the text ends", None),
    ("x if y", "the 'else' of the conditional, but the text ends", None),
    ("()", "not ')'", "empty"),
    ("(x", "'(' is never closed", None),
    ("x)", "no '(' is open", None),
    ("maxx(a, b)", "unknown function 'maxx'", "did you mean 'max'?"),
    ("Abs(a)", "unknown function 'Abs'", "did you mean 'abs'?"),
    ("square(v) = v * v; sqare(3)", "unknown function 'sqare'", "did you mean 'square'?"),
    ("sqrt(a)", "unknown function 'sqrt'", "did you mean 'isqrt'?"),
    ("mni(a, b)", "unknown function 'mni'", "did you mean 'min'?"),
    ("hypot(a)", "unknown function 'hypot'", "defined before its first use"),
    ("len(a)", "unknown function 'len'", "defined before its first use"),
    ("int(a)", "unknown function 'int'", "defined before its first use"),
    ("clamp(a)", "takes 3 arguments, not 1", "`clamp(x, low, high)`"),
    ("x × y", "MULTIPLICATION SIGN", "write `*`"),  # noqa: RUF001
    ("x − y", "MINUS SIGN", "write `-`"),  # noqa: RUF001
    ("x ≤ y", "U+2264", "write `<=`"),
    ("x²", "SUPERSCRIPT TWO", "write `** 2`"),
    ("x + １", "FULLWIDTH DIGIT ONE", "write `1`"),  # noqa: RUF001
    ("x\xa0+ 1", "NO-BREAK SPACE", "blanks are"),
    ("größe", "U+00F6", "A to Z"),
    ("\ufeffx", "byte order mark", "utf-8-sig"),
]


@pytest.mark.parametrize(("source", "words", "hint"), HINTS)
def test_messages_and_hints(source: str, words: str, hint: str | None) -> None:
    error = error_of(source)
    assert words in error.message
    if hint is None:
        assert error.hint is None
    else:
        assert hint in (error.hint or "")
        assert str(error).endswith(f"\n  hint: {error.hint}")


def test_hints_about_names_look_at_the_parameters() -> None:
    assert error_of("lenght * 2", params=["length"]).hint == "did you mean 'length'?"
    assert error_of("Length * 2", params=["length"]).hint == "did you mean 'length'?"
    assert error_of("RATE * 2", params=[], constants={"RATES": 3}).hint == "did you mean 'RATES'?"
    assert "params=" in (error_of("zebra * 2", params=["length"]).hint or "")


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("prize", ["qty", "price"], "price"),
        ("Qty", ["price", "qty"], "qty"),
        ("mx", ["min", "max"], "max"),
        ("sgn", ["sign"], "sign"),
        ("qyt", ["tqy", "qty"], "qty"),
        ("gg", ["g"], "g"),
        ("mim", ["nim", "min"], "min"),
        ("len", ["ule", "low"], None),
        ("int", ["min"], None),
        ("dist", ["isqrt"], None),
        ("median", ["min"], None),
        ("zebra", ["length"], None),
        ("", ["x"], None),
        ("x", [], None),
        ("x" * 60, ["x" * 60], None),
    ],
)
def test_what_is_close_to_a_name(name: str, known: list[str], found: str | None) -> None:
    assert closest(name, known) == found


def test_a_negative_exponent_says_why() -> None:
    error = error_of("2 ** x", -1)
    assert "integer" in (error.hint or "")


@pytest.mark.parametrize("source", [source for source, _, _ in HINTS])
def test_messages_are_sentences_without_the_place(source: str) -> None:
    error = error_of(source)
    assert not error.message.endswith(".")
    assert "\n" not in error.message
    assert "line " not in error.message
    assert error.message[:1].islower() or error.message[:1] in "'U"


# Travels. ---------------------------------------------------------------------------------------


def attributes(error: exprjit.ExprError) -> tuple[object, ...]:
    return type(error), error.message, error.source, error.start, error.end, error.hint, str(error)


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS] + [exprjit.ExprError])
def test_errors_pickle_and_copy(kind: type[exprjit.ExprError]) -> None:
    error = kind("words", "x + y z", 6, 7, "less")
    error.row = 7  # type: ignore[attr-defined]
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [pickle.loads(pickle.dumps(error, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert attributes(other) == attributes(error)
        assert other.args == error.args == ("words",)
        assert other.row == 7


def test_errors_that_were_raised_pickle() -> None:
    for error in (error_of("x y"), error_of("1/x", 0), error_of("x", 1, 2), error_of("\ud800")):
        assert attributes(pickle.loads(pickle.dumps(error))) == attributes(error)


def test_a_traceback_shows_line_caret_and_hint() -> None:
    lines = "".join(traceback.format_exception(error_of("d = x;\nd ** 2 y"))).splitlines()
    assert lines[-5:] == [
        '  File "<string>", line 2',
        "    d ** 2 y",
        "           ^",
        "exprjit.errors.ExprSyntaxError: expected an operator or the end, not 'y'",
        "  hint: multiplication is written with `*`",
    ]


@pytest.mark.parametrize(
    "source",
    ["", "x\n", "x \ud800 y", "\0", "x\ty y", "\n\n y y", "x+" * 5000 + " *", "x y\r\n", "'漢' y"],
)
def test_a_traceback_of_any_text(source: str) -> None:
    error = error_of(source) if source != "x\n" else error_of("x\n+")
    text = "".join(traceback.format_exception(error))
    assert error.message in text
    assert len(text) < 5000
    text.encode("utf-8")
    assert isinstance(error, SyntaxError)
    assert error.text is not None
    assert error.offset is not None
    assert 1 <= error.offset <= len(error.text) + 1


def test_a_traceback_of_other_errors_shows_the_place() -> None:
    text = "".join(traceback.format_exception(error_of("1 / x", 0)))
    assert "ExprZeroDivisionError: division by zero, where x = 0\n" in text
    assert "    1 / x\n    ^~~~~\n" in text


def test_a_syntax_error_without_a_text_can_be_shown() -> None:
    error = exprjit.ExprSyntaxError("words")
    assert (error.lineno, error.offset, error.end_offset, error.text) == (None, None, None, None)
    assert "ExprSyntaxError: words" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("source", ["x + \\ud800 y", "x y"])
def test_python_itself_prints_them(source: str) -> None:
    """An error that nobody catches is shown by other code than that of `traceback`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import exprjit; exprjit.compile('{source}')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ExprSyntaxError: " in done.stderr
    assert "^" in done.stderr.splitlines()[-2] + done.stderr.splitlines()[-3]


# Text in messages. ------------------------------------------------------------------------------


@given(st.text())
def test_printable_is_printable_and_keeps_what_was(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or shown == ""
    if text.isprintable():
        assert shown == text


def test_pieces_of_source_are_quoted_and_shortened() -> None:
    assert quoted("x") == "'x'"
    assert quoted("\x1b\ud800") == r"'\x1b\ud800'"
    assert shortened("a" * 40) == "a" * 40
    assert shortened("a" * 50 + "b" * 50) == "a" * 17 + " ... " + "b" * 17
    assert len(quoted("x" * 10_000)) < 50

"""The prompt's session: a line in, text out; what it keeps; where errors point."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterator

import pytest

import exprjit
from exprjit.tools.repl import Session, prompt, run_lines


@pytest.fixture
def session() -> Session:
    return Session()


def answers(session: Session, *lines: str) -> list[str]:
    return [str(session.feed(line)) for line in lines]


def excerpt(session: Session, line: str) -> list[str]:
    """Under what the caret of a line's error stands, and the line that it shows."""
    error = session.feed(line).error
    assert error is not None, line
    assert error.source is not None
    shown = error.excerpt().splitlines()
    assert shown[0].strip() == error.source.strip()
    return [error.source[error.start : error.end], error.source]


# Values, bindings, definitions. -----------------------------------------------------------------


def test_an_expression_gives_its_value(session: Session) -> None:
    assert answers(session, "1 + 1", " 2 * 3 ", "4;", "", "   ", "# nothing") == [
        "2", "6", "4", "", "", "",
    ]  # fmt: skip


def test_a_binding_is_kept(session: Session) -> None:
    assert answers(session, "d = 5", "d * d", "x = d + 1; x", "x") == [
        "d = 5", "25", "x = 6\n6", "6",
    ]  # fmt: skip
    assert session.values == {"d": 5, "x": 6}


def test_rebinding_replaces_and_says_so(session: Session) -> None:
    assert answers(session, "x = 3", "x = x + 1", "x") == ["x = 3", "x = 4 (was 3)", "4"]


def test_a_definition_is_kept(session: Session) -> None:
    assert answers(session, "sq(v) = v * v", "sq(3)", "cube(v) = v * sq(v);", "cube(2)") == [
        "sq(v) is defined", "9", "cube(v) is defined", "8",
    ]  # fmt: skip


def test_redefining_holds_for_those_who_call(session: Session) -> None:
    answers(session, "sq(v) = v * v", "cube(v) = v * sq(v)")
    assert answers(session, "sq(v) = v", "cube(3)") == ["sq(v) is redefined", "9"]


def test_a_definition_sees_the_bindings_of_the_moment(session: Session) -> None:
    assert answers(session, "k = 2", "f(v) = v * k", "f(5)", "k = 3", "f(5)")[2::2] == ["10", "15"]


def test_names_of_functions_and_variables_are_apart(session: Session) -> None:
    assert answers(session, "max = 3; max(max, 1)", "sq(v) = v; sq = 5; sq(sq)") == [
        "max = 3\n3", "sq(v) is defined\nsq = 5\n5",
    ]  # fmt: skip


def test_several_statements_on_a_line(session: Session) -> None:
    reply = session.feed("a = 1; b = a + 1; f(v) = v + b; f(a) # and a note")
    assert reply == ("3", ("a = 1", "b = 2", "f(v) is defined"), None)


def test_what_comes_before_an_error_stays(session: Session) -> None:
    reply = session.feed("a = 1; b = 1 / 0; c = 2")
    assert isinstance(reply.error, ZeroDivisionError)
    assert session.values == {"a": 1}
    assert reply.notes == ("a = 1",)


def test_overflow_modes(session: Session) -> None:
    assert answers(session, ":overflow", "2 ** 63", ":overflow raise") == [
        "overflow is wrap", str(-(2**63)), "overflow is raise",
    ]  # fmt: skip
    assert isinstance(session.feed("2 ** 63").error, OverflowError)
    assert "one of wrap, raise" in str(session.feed(":overflow ignore"))
    assert Session("raise").feed("2 ** 63").error is not None


def test_a_session_can_begin_with_values_and_on_any_engine() -> None:
    assert str(Session(values={"x": 7}, backend="auto").feed("x + 1")) == "8"


# Errors. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("1 + 2 / 0", "2 / 0"),
        ("  sq(3) + 1 / zero", "1 / zero"),
        ("a = 1; b = sq(a) / zero; 3", "sq(a) / zero"),
        ("a = 1; a / zero;", "a / zero"),
        ("sq(nobody)", "nobody"),
        ("nobody(1)", "nobody"),
        ("sq(1, 2)", "sq(1, 2)"),
        ("g(v) = v + nobody", "nobody"),
        ("a = 1; class = 5", "class"),
        ("1 + 0x", "0x"),
        ("max(v) = 1", "max(v)"),
        ("g(v, v) = 1", "v"),
        ("1; 2", "1"),
    ],
)
def test_errors_point_into_the_line_that_was_typed(session: Session, line: str, place: str) -> None:
    answers(session, "zero = 0", "sq(v) = v * v", "unused(v) = v / 0")
    assert excerpt(session, line) == [place, line]


def test_errors_in_a_definition_point_into_the_definition(session: Session) -> None:
    line = "one(v) = 1; inverse(v) = one(v) / v; two(v) = 2"
    session.feed(line)
    assert excerpt(session, "  1 + inverse(0)") == ["one(v) / v", line]


def test_unknown_names_are_named_with_a_hint(session: Session) -> None:
    session.feed("price = 5")
    assert "unknown name 'y'" in str(session.feed("1 + y"))
    assert "hint: bind it first: y = 5" in str(session.feed("y"))
    assert "hint: did you mean price?" in str(session.feed("prize"))
    assert "hint: :quit leaves" in str(session.feed("exit"))
    assert "params=" not in str(session.feed("f(v) = v * y"))


def test_other_errors_about_names_are_not_told_to_bind(session: Session) -> None:
    session.feed("sq(v) = v * v")
    for line in ("r(v, v) = 1", "r(v) = r(v - 1)", "nobody(1)", "max(v) = 1"):
        error = session.feed(line).error
        assert isinstance(error, exprjit.ExprError)
        assert "bind it first" not in str(error)


def test_a_redefinition_may_call_what_was_defined_later(session: Session) -> None:
    answers(session, "f(v) = v", "a(v) = f(v) + 1", "h(v) = v * 10", "g(v) = h(v) + 2")
    assert str(session.feed("f(v) = g(v) + h(v)")) == "f(v) is redefined"
    assert answers(session, "f(1)", "a(1)", "g(1)", "h(1)") == ["22", "23", "12", "10"]
    assert str(session.feed("h(v) = v * 100")) == "h(v) is redefined"
    assert answers(session, "f(1)", "a(1)", "g(1)") == ["202", "203", "102"]


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("f(v) = 1 + g(v)", "g", "'f' would be defined in terms of itself, through 'g'\n"),
        ("f(v) = one(v) + h(v)", "h", "'f' would be defined in terms of itself, through 'h'\n"),
        ("one(v) = h(v)", "h", "'one' would be defined in terms of itself, through 'h'\n"),
        ("f(v) = f(v)", "f", "'f' is defined in terms of itself\n"),
    ],
)
def test_a_redefinition_that_would_be_recursion(
    session: Session, line: str, place: str, words: str
) -> None:
    answers(session, "one(v) = v", "f(v) = one(v)", "g(v) = f(v)", "h(v) = g(v)")
    error = session.feed(line).error
    assert isinstance(error, exprjit.ExprNameError)
    assert str(error).startswith(words)
    assert str(error).endswith("\n  hint: there is no recursion: every formula ends")
    assert excerpt(session, line) == [place, line]
    assert str(session.feed("h(5)")) == "5"


def test_a_redefinition_that_breaks_a_caller_is_refused(session: Session) -> None:
    answers(session, "sq(v) = v * v", "cube(v) = v * sq(v)")
    reply = session.feed("sq(a, b) = a * b")
    assert reply.error is not None
    assert reply.error.source == "cube(v) = v * sq(v)"
    assert "'sq' stays as it was" in str(reply)
    assert "stays as it was" not in str(session.feed("sq(v) = v * y"))
    line = "two(v) = v; four(v) = two(two(v)); two(a, b) = a"
    assert "'two' stays as it was" in str(session.feed(line))
    assert str(session.feed("cube(2)")) == "8"
    assert session.feed("sq(v) = cube(v)").error is not None
    assert str(session.feed("cube(2)")) == "8"


@pytest.mark.parametrize("line", ["x +", "(", "d =", "f(v) =", "-", "1 ? 2", "x = ;", "not", "= 3"])
def test_an_unfinished_line_binds_nothing(session: Session, line: str) -> None:
    session.feed("x = 1")
    assert isinstance(session.feed(line).error, SyntaxError)
    assert session.values == {"x": 1}
    assert str(session.feed(":vars")) == "x = 1"


def test_no_line_ends_the_session(session: Session) -> None:
    for line in ["\0", "\udcff", "(" * 50_000, "1+" * 500_000 + "1", "f(v)=v", ":", "::", "é", "'"]:
        str(session.feed(line))
    assert session.open


# Commands. --------------------------------------------------------------------------------------


def test_help_lists_every_command(session: Session) -> None:
    text = str(session.feed(":help"))
    for name in ("help", "ast", "graph", "asm", "vars", "overflow", "quit"):
        assert f":{name}" in text


def test_vars_lists_what_is_kept(session: Session) -> None:
    assert str(session.feed(":vars")) == "nothing is bound"
    answers(session, "x = 3", "sq(v) = v*v")
    assert str(session.feed(":vars")) == "x = 3\nsq(v) = v*v"


def test_quit_leaves(session: Session) -> None:
    assert session.feed(":quit") == ("", (), None)
    assert not session.open


def test_an_unknown_command(session: Session) -> None:
    assert "did you mean graph?" in str(session.feed(":grap x"))


def test_listings_take_names_as_parameters(session: Session) -> None:
    answers(session, "x = 3", "sq(v) = v * v", "other(v) = v")
    expected = exprjit.compile("sq(v) = v * v; sq(x) + y")
    assert str(session.feed(":ast sq(x) + y")) == expected.dump("ast")
    assert str(session.feed(":graph sq(x) + y")) == expected.dump("graph")
    assert str(session.feed(":ast d = x; d")) == exprjit.compile("d = x; d").dump("ast")
    if expected.engine == "jit":
        assert "imul" in str(session.feed(":asm sq(x) + y"))


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (":ast sq(x) + sq(1, 2)", "sq(1, 2)"),
        ("  :graph   x + * y  ", "*"),
        (":overflow  ignore ", "ignore"),
        (" :grap x", ":grap"),
    ],
)
def test_errors_in_a_command_point_into_it(session: Session, line: str, place: str) -> None:
    session.feed("sq(v) = v * v")
    assert excerpt(session, line) == [place, line]


def test_a_listing_of_nothing(session: Session) -> None:
    assert isinstance(session.feed(":ast").error, SyntaxError)


# The loops around it. ---------------------------------------------------------------------------


def test_the_prompt_answers_until_the_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: Iterator[str | BaseException] = iter(
        ["x = 3", "x / 0", KeyboardInterrupt(), "x + 1", EOFError()]
    )

    def read(question: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(builtins, "input", read)
    assert prompt(Session()) == 0
    out = capsys.readouterr().out
    assert exprjit.__version__ in out
    assert "x = 3\ndivision by zero" in out
    assert out.endswith("interrupted\n4\n\n")


def test_the_prompt_ends_with_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([":quit"])
    monkeypatch.setattr(builtins, "input", lambda question: next(typed))
    assert prompt(Session()) == 0


def test_lines_print_values_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lines(Session(), io.StringIO("x = 3\nx\n:quit\n7\n")) == 0
    assert capsys.readouterr() == ("3\n", "")


#: A program of some lines, and what is told of those that are wrong.
LINES = {
    "": "",
    "one(v) = 1; inverse(v) = one(v) / v; two(v) = 2": "",
    "five = 5": "",
    "  inverse(0) + five": "in line 4: division by zero, where one(v) = 1 and v = 0\n"
    "  line 2, column 26\n"
    "    one(v) = 1; inverse(v) = one(v) / v; two(v) = 2\n"
    "                             ^~~~~~~~~~",
    "zero = 0; five / zero": "division by zero, where five = 5 and zero = 0\n"
    "  line 5, column 11\n"
    "    zero = 0; five / zero\n"
    "              ^~~~~~~~~~~",
    " one(a, b) = a": "in line 6: one() takes 2 arguments, not 1\n"
    "  line 2, column 26\n"
    "    one(v) = 1; inverse(v) = one(v) / v; two(v) = 2\n"
    "                             ^~~~~~\n"
    "  hint: 'one' stays as it was, because this calls it",
    " :ast  inverse(1, 2)": "inverse() takes 1 argument, not 2\n"
    "  line 7, column 8\n"
    "     :ast  inverse(1, 2)\n"
    "           ^~~~~~~~~~~~~",
    "five +": "expected a number, a name or '(', but the text ends\n"
    "  line 8, column 7\n"
    "    five +\n"
    "          ^",
}


def test_errors_in_lines_have_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lines(Session(), io.StringIO("\n".join(LINES))) == 1
    told = "".join(f"exprjit: {error}\n" for error in LINES.values() if error)
    assert capsys.readouterr() == ("", told)


def test_a_terminal_gets_the_prompt() -> None:
    pty = pytest.importorskip("pty")
    import os
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "exprjit"], stdin=theirs, stdout=subprocess.PIPE, text=True
    )
    os.close(theirs)
    os.write(ours, b"6 * 7\n:quit\n")
    out, _ = child.communicate(timeout=30)
    os.close(ours)
    assert child.returncode == 0
    assert "42\n" in out

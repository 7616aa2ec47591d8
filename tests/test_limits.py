"""No text is too deep or too long to be parsed or refused, and refusing comes before the work."""

from __future__ import annotations

import random
import sys
import time
from functools import partial
from string import ascii_lowercase
from typing import NoReturn

import pytest
from lark import Lark
from pythons import AT_ONCE

import exprjit
from exprjit.language.ast import Program
from exprjit.language.limits import DEFAULT, UNTRUSTED, Limits, limits_from
from exprjit.language.parser import parse
from exprjit.language.resolve import resolve


def program(source: str, limits: Limits = DEFAULT) -> Program:
    return resolve(source, parse(source, limits), None, {}, {}, limits)


def refused(source: str, limits: Limits = DEFAULT) -> exprjit.ExprLimitError:
    started = time.process_time()
    with pytest.raises(exprjit.ExprLimitError) as caught:
        program(source, limits)
    assert time.process_time() - started < AT_ONCE
    error = caught.value
    assert error.source == source
    assert 0 <= error.start <= error.end <= len(source)
    assert len(str(error)) < 1000
    return error


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    program("x")

    def called(*arguments: object) -> NoReturn:
        raise AssertionError("the parser was called")

    monkeypatch.setattr(Lark, "parse", called)
    # The patch is where the parser looks.
    with pytest.raises(AssertionError, match="the parser was called"):
        program("x")


DEEP = {
    "operators": "x" + "+x" * 100_000,
    "parentheses": "(" * 10_000 + "x" + ")" * 10_000,
    "brackets of calls": "abs(" * 10_000 + "x" + ")" * 10_000,
    "unary minus": "-" * 100_000 + "x",
    "not": "not " * 10_000 + "x",
    "powers": "x" + "**x" * 100_000,
    "comparisons": "x" + "<x" * 10_000,
    "and": "x" + " and x" * 10_000,
    "conditionals to the right": "x?x:" * 10_000 + "x",
    "conditionals in the middle": "x?" * 10_000 + "x" + ":x" * 10_000,
    "if else": "x if x else " * 10_000 + "x",
    "mixed levels": "x" + "|x^x&x<<x+x*x**x" * 2_000,
    "arguments": "max(" + "x," * 10_000 + "x)",
    "statements": "".join(f"d{i}=x;" for i in range(10_000)) + "x",
    "definitions": "".join(f"f{i}(v)=v;" for i in range(10_000)) + "x",
}


@pytest.mark.parametrize("source", DEEP.values(), ids=DEEP.keys())
def test_deep_and_long_texts_parse(source: str) -> None:
    parsed = program(source)
    assert parsed.params == ("x",)
    assert len(str(parsed)) >= len("params x\nx")


@pytest.mark.slow
@pytest.mark.usefixtures("no_parser")
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x" + "+x" * 1_000_000, "400,000 tokens"),
        ("(" * 200_000 + "x" + ")" * 200_000, "20,000 deep"),
        ("(" * 200_000, "20,000 deep"),
        ("max(" * 200_000 + "x" + ")" * 200_000, "20,000 deep"),
        ("-" * 4_000_000, "400,000 tokens"),
        (" " * 40_000_000, "40,000,000 characters"),
        ("x" * 4_000_001, "4,000,001 characters"),
        ("x + ", None),
    ],
    ids=["operators", "parentheses", "open", "calls", "signs", "blanks", "name", "control"],
)
def test_beyond_the_limits_the_text_is_refused_before_it_is_parsed(
    source: str, words: str | None
) -> None:
    if words is None:
        with pytest.raises(AssertionError):
            program(source)
    else:
        assert words in refused(source).message


def test_limits_are_exact() -> None:
    three = DEFAULT._replace(tokens=3)
    assert program("x + 4", three).size == 3
    assert refused("x + 4 +", three).start == 6
    two = DEFAULT._replace(depth=2)
    assert program("((x))", two).size == 1
    assert refused("(((x)))", two).start == 2
    assert program("(x) + (x)", DEFAULT._replace(depth=1)).size == 3
    five = DEFAULT._replace(text=5)
    assert program("x + 4", five).size == 3
    assert refused("x + 4 ", five).start == 5
    nodes = DEFAULT._replace(nodes=3)
    assert program("x + 4", nodes).size == 3
    assert refused("x + -4", nodes).start == 0


def test_nodes_are_counted_with_definitions_expanded() -> None:
    # The body of f has three nodes; a call is one more, and so is each argument.
    assert program("f(v) = v * v; f(x) + f(y)").size == 1 + 2 * (1 + 1 + 3)
    assert program("f(v) = v * v; g(v) = f(v) + f(v); g(x)").size == 1 + 1 + (1 + 2 * (1 + 1 + 3))
    assert program("f(v) = v * v; x").size == 1
    assert program("d = x * x; d + d").size == 6


def doubling(levels: int) -> str:
    lines = ["d1(v) = v + v;"]
    lines += [f"d{i + 1}(v) = d{i}(v) + d{i}(v);" for i in range(1, levels)]
    return "\n".join([*lines, f"d{levels}(x)"])


def test_a_short_text_that_means_2_to_the_64_additions_is_refused_at_once() -> None:
    assert program(doubling(10)).size < 10_000
    error = refused(doubling(64))
    assert error.line == 65
    assert "more than 2**64 nodes" in error.message


def test_sizes_with_more_digits_than_python_prints(request: pytest.FixtureRequest) -> None:
    if hasattr(sys, "set_int_max_str_digits"):
        request.addfinalizer(partial(sys.set_int_max_str_digits, sys.get_int_max_str_digits()))
        sys.set_int_max_str_digits(640)
    assert "more than 2**64 nodes" in refused(doubling(2_500)).message


def test_the_statement_that_goes_too_far_is_the_place() -> None:
    source = doubling(30).replace("d30(x)", "e = d2(x); f = d30(x); 7")
    error = refused(source)
    assert source[error.start : error.end] == "d30(x)"


def test_what_is_defined_and_not_called_costs_nothing() -> None:
    assert program(doubling(64).replace("d64(x)", "x")).size == 1


def test_untrusted_is_strict() -> None:
    assert limits_from("untrusted") is UNTRUSTED
    assert UNTRUSTED.nodes == 20_000
    assert DEFAULT.nodes == 2_000_000
    assert all(strict < default for strict, default in zip(UNTRUSTED, DEFAULT, strict=True))
    source = "x" + "+x" * 10_000
    assert program(source).size == 20_001
    with pytest.raises(exprjit.ExprLimitError):
        exprjit.compile(source, limits="untrusted", backend="interpreter")
    assert exprjit.compile("x + 4", limits="untrusted", backend="interpreter")(2) == 6


def test_limits_are_settable_by_field() -> None:
    assert limits_from(None) is DEFAULT
    assert limits_from({"nodes": 5}) == DEFAULT._replace(nodes=5)
    assert limits_from(exprjit.Limits(depth=5)) == DEFAULT._replace(depth=5)
    with pytest.raises(exprjit.ExprLimitError, match="5 nodes here; at most 4 are allowed"):
        exprjit.compile("x + y + z", limits={"nodes": 4}, backend="interpreter")


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("strict", TypeError, "'strict'"),
        (7, TypeError, "7"),
        ({"node": 7}, ValueError, "no limit is called 'node'; there are text, tokens, depth"),
        ({7: 7}, ValueError, "no limit is called 7"),
        ({"nodes": 0}, ValueError, "the limit 'nodes' must be a positive int, not 0"),
        ({"nodes": -1}, ValueError, "-1"),
        ({"nodes": True}, ValueError, "True"),
        ({"nodes": 1.5}, ValueError, "1.5"),
        ({"nodes": None}, ValueError, "None"),
        (exprjit.Limits(tokens=0), ValueError, "tokens"),
    ],
)
def test_what_is_no_limit(value: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        limits_from(value)
    assert isinstance(caught.value, exprjit.ExprError)
    assert words in str(caught.value)


def test_long_names_are_not_guessed_at() -> None:
    """Comparing takes the square of the length."""
    for length, guessed in ((40, True), (60, False)):
        with pytest.raises(exprjit.ExprNameError) as caught:
            exprjit.compile("x" * length + "y", ["x" * length + "z"], backend="interpreter")
        assert ("did you mean" in (caught.value.hint or "")) == guessed


def test_names_and_guesses_of_any_length_are_cheap() -> None:
    started = time.process_time()
    letters = random.Random(17).choices(ascii_lowercase, k=20_000)
    long = "".join(letters)
    other = "".join(sorted(letters, key=lambda letter: random.Random(letter).random()))
    with pytest.raises(exprjit.ExprNameError) as caught:
        exprjit.compile(f"{long}x + {long}y", params=[f"{long}z", other], backend="interpreter")
    assert len(str(caught.value)) < 1000
    with pytest.raises(exprjit.ExprNameError) as caught:
        exprjit.compile(f"{long}(x)", backend="interpreter")
    assert len(str(caught.value)) < 1000
    many = [f"name{i}" for i in range(100_000)]
    with pytest.raises(exprjit.ExprNameError):
        exprjit.compile("nam", params=many, backend="interpreter")
    assert time.process_time() - started < AT_ONCE

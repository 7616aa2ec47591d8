"""Evaluation: what is evaluated, in which order, how often, and what its errors say."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from pythons import AT_ONCE

import exprjit

MAX = 2**63 - 1
MIN = -(2**63)
ZERO_DIVISION = exprjit.ExprZeroDivisionError


def run(source: str, *arguments: int, overflow: str = "wrap") -> int:
    return exprjit.compile(source, overflow=overflow, backend="interpreter")(*arguments)


def failing(source: str, *arguments: int, overflow: str = "wrap") -> exprjit.ExprError:
    with pytest.raises(exprjit.ExprError) as caught:
        run(source, *arguments, overflow=overflow)
    error = caught.value
    assert error.source == source
    return error


def place(source: str, *arguments: int, overflow: str = "wrap") -> str:
    """The text of the sub-expression that fails, with its parentheses."""
    error = failing(source, *arguments, overflow=overflow)
    return source[error.start : error.end]


# Lazy is what is not taken, and nothing else. ---------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 ? 7 : 1/0", 7),
        ("0 ? 1/0 : 7", 7),
        ("-1 ? 7 : 1/0", 7),
        ("7 if 1 else 1/0", 7),
        ("1/0 if 0 else 7", 7),
        ("1 or 1/0", 1),
        ("5 || 1/0", 1),
        ("0 and 1/0", 0),
        ("0 && 1/0", 0),
        ("0 or 0 or 3 or 1/0", 1),
        ("1 and 2 and 0 and 1/0", 0),
        ("1 or 1/0 and 1/0", 1),
        ("0 and 1/0 or 7", 1),
        ("2 < 1 < 1/0", 0),
        ("1 < 2 < 2 < 1/0", 0),
        ("1 == 2 == 1/0 == 1/0", 0),
        ("0 ? 1/0 : 1 ? 7 : 1/0", 7),
        ("f(v) = 1/v; 0 ? f(0) : 7", 7),
        ("0 ? max(1/0, isqrt(-1)) : 7", 7),
        ("f(c) = c ? 1 : 1/c; f(3)", 1),
    ],
)
def test_an_error_in_the_part_not_taken_does_not_happen(source: str, expected: int) -> None:
    assert run(source) == expected
    assert run(source, overflow="raise") == expected


@pytest.mark.parametrize(
    "source",
    [
        "0 ? 7 : 1/0",
        "1 ? 1/0 : 7",
        "1/0 ? 7 : 7",
        "7 if 1/0 else 7",
        "1/0 if 1 else 7",
        "0 or 1/0",
        "1/0 or 1",
        "1 and 1/0",
        "1/0 and 0",
        "1/0 < 1 < 0",
        "2 < 1/0 < 0",
        "1 < 2 < 1/0",
        "1 < 2 < 3 < 1/0",
        "0 & 1/0",
        "1/0 - 1/0",
        "min(0, 1/0)",
        "max(1, 2, 3, 1/0)",
        "clamp(1, 2, 1/0)",
        "not 1/0",
        "1/0 == 1/0",
        "1/0",
    ],
)
def test_an_error_in_what_is_evaluated_happens(source: str) -> None:
    assert place(source) == "1/0"
    assert isinstance(failing(source), ZeroDivisionError)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("x or 5", 1), ("x and 5", 1), ("x or 0", 1), ("x and 0", 0), ("0 or x", 1), ("1 and x", 1)],
)
def test_and_and_or_give_0_or_1(source: str, expected: int) -> None:
    assert run(source, 7) == expected


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        ("a < b < c", (1, 2, 3), 1),
        ("a < b < c", (1, 3, 2), 0),
        ("a < b < c", (3, 2, 9), 0),
        ("(a < b) < c", (3, 2, 1), 1),
        ("a < b > c", (1, 5, 2), 1),
        ("a == b == c", (0, 0, 0), 1),
        ("(a == b) == c", (0, 0, 0), 0),
        ("a != b != c", (1, 2, 1), 1),
    ],
)
def test_chains(source: str, arguments: tuple[int, ...], expected: int) -> None:
    assert run(source, *arguments) == expected


# Order. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "first"),
    [
        ("(1/0) + isqrt(-1)", "(1/0)"),
        ("isqrt(-1) + 1/0", "isqrt(-1)"),
        ("max(isqrt(-1), 1/0, 2 ** -1)", "isqrt(-1)"),
        ("(2 ** -1) ** (isqrt(-1) ** (1/0))", "(2 ** -1)"),
        ("d = isqrt(-1); 1/0", "isqrt(-1)"),
        ("d = 1/0; e = isqrt(-1); 7", "1/0"),
        ("f(v) = isqrt(-1); f(1/0)", "1/0"),
        ("f(v) = 7; f(1/0)", "1/0"),
        ("f(v, w) = 2 ** -1; f(isqrt(-1), 1/0)", "isqrt(-1)"),
        ("f(v) = 1/v; g(v) = f(v) + isqrt(v); g(-1) + f(0)", "isqrt(v)"),
        ("isqrt(-1) < 1/0 < 2 ** -1", "isqrt(-1)"),
        ("0 < isqrt(-1) < 1/0", "isqrt(-1)"),
        ("isqrt(-1) if 1/0 else 2 ** -1", "1/0"),
        ("1/0 ? isqrt(-1) : 2 ** -1", "1/0"),
        # `/` groups to the left.
        ("1 / 0 / isqrt(-1)", "1 / 0"),
        ("1 / (0 / isqrt(-1))", "isqrt(-1)"),
    ],
)
def test_left_to_right_statements_first_arguments_before_bodies(source: str, first: str) -> None:
    assert place(source) == first


def test_a_binding_that_is_never_used_fails_if_it_fails() -> None:
    assert place("d = 1 / x; x", 0) == "1 / x"
    assert run("d = 1 / x; x", 3) == 3
    assert run("f(v) = 1/0; x", 3) == 3


def test_constant_errors_are_run_time_errors() -> None:
    f = exprjit.compile("1/0", backend="interpreter")
    with pytest.raises(ZeroDivisionError):
        f()
    assert exprjit.compile("x ? 1/0 : 7", backend="interpreter")(0) == 7


def test_the_middle_of_a_chain_is_evaluated_once() -> None:
    """Nested forty deep, evaluating it twice a level would take a million million steps."""
    source = "x"
    for _ in range(40):
        source = f"(0 <= {source} <= 9)"
    started = time.process_time()
    assert run(source, 3) == 1
    assert time.process_time() - started < AT_ONCE


def test_bindings_and_arguments_are_evaluated_once() -> None:
    names = [f"d{i}" for i in range(60)]
    bindings = "".join(f"{b} = {a} + {a};" for a, b in itertools.pairwise(names))
    started = time.process_time()
    assert run(f"d0 = x; {bindings} {names[-1]}", 1) == 2**59
    assert run("f(v) = v + v; " + "f(" * 60 + "x" + ")" * 60, 1) == 2**60
    assert time.process_time() - started < AT_ONCE


# Definitions. -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        ("sq(v) = v * v; sq(sq(x)) - sq(x)", (3,), 72),
        ("f(v) = v + 1; g(v) = f(f(v)) * 2; g(g(x))", (1,), 16),
        ("f(a, b) = a - b; f(f(9, 2), f(3, 1))", (), 5),
        ("f(v) = v; f(f(f(f(1)) + f(2)))", (), 3),
        ("f(v) = v * 10; g(v) = f(v + 1) + v; g(x)", (2,), 32),
        ("d = 5; f(v) = v + d; g(d) = f(d) * d; g(2)", (), 14),
        ("f(v) = v ? v : 9; f(0) + f(3)", (), 12),
        ("f(v) = 1 < v < 5; f(3) + f(7)", (), 1),
        ("f(v) = v and 7; f(3) + f(0)", (), 1),
    ],
)
def test_calls(source: str, arguments: tuple[int, ...], expected: int) -> None:
    assert run(source, *arguments) == expected


# What errors say. -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "arguments", "overflow", "part", "message"),
    [
        ("7 + x / y", (7, 0), "wrap", "x / y", "division by zero, where x = 7 and y = 0"),
        ("x % (y - y)", (7, 3), "wrap", "x % (y - y)",
         "division by zero, where x = 7 and y - y = 0"),
        ("1/0", (), "wrap", "1/0", "division by zero"),
        ("x // (0)", (7,), "wrap", "x // (0)", "division by zero, where x = 7"),
        ("1 %% (x)", (0,), "wrap", "1 %% (x)", "division by zero, where x = 0"),
        ("x ** -1", (3,), "wrap", "x ** -1", "negative exponent, where x = 3"),
        ("x ** (-1)", (3,), "wrap", "x ** (-1)", "negative exponent, where x = 3"),
        ("2 ** -x", (3,), "wrap", "2 ** -x", "negative exponent, where -x = -3"),
        ("isqrt(x - 9)", (3,), "wrap", "isqrt(x - 9)",
         "square root of a negative number, where x - 9 = -6"),
        ("x * x + 1", (2**40,), "raise", "x * x",
         "result outside 64 bits, where x = 1099511627776"),
        ("-x", (MIN,), "raise", "-x", "result outside 64 bits, where x = -9223372036854775808"),
        ("1 << n", (63,), "raise", "1 << n", "result outside 64 bits, where n = 63"),
        ("1 << n", (64,), "raise", "1 << n", "shift count outside 0..63, where n = 64"),
        ("1 / (x == y)", (1, 2), "wrap", "1 / (x == y)", "division by zero, where (x == y) = 0"),
        ("1 / (x ? y : 3)", (1, 0), "wrap", "1 / (x ? y : 3)",
         "division by zero, where (x ? y : 3) = 0"),
        ("1 / (x and y)", (1, 0), "wrap", "1 / (x and y)", "division by zero, where (x and y) = 0"),
        ("1 / abs(x)", (0,), "wrap", "1 / abs(x)", "division by zero, where abs(x) = 0"),
        ("1 / (x\n  # no zero\n  | y)", (0, 0), "wrap", "1 / (x\n  # no zero\n  | y)",
         "division by zero, where x | y = 0"),
        ("f(v) = 1 / v; f(x - 2)", (2,), "wrap", "1 / v", "division by zero, where v = 0"),
        ("f(v) = 1 / v; 1 / f(x)", (2,), "wrap", "1 / f(x)", "division by zero, where f(x) = 0"),
    ],
)  # fmt: skip
def test_the_failing_part_and_the_values_of_its_operands(
    source: str, arguments: tuple[int, ...], overflow: str, part: str, message: str
) -> None:
    error = failing(source, *arguments, overflow=overflow)
    assert source[error.start : error.end] == part
    assert error.message == message


def test_long_operands_are_shortened() -> None:
    source = "1 / (" + " + ".join(f"x{i}" for i in range(100)) + ")"
    error = failing(source, *[0] * 100)
    assert error.message == "division by zero, where x0 + x1 + x2 + x3 ... + x97 + x98 + x99 = 0"
    name = "x" * 10_000
    assert len(failing(f"1 / {name}", 0).message) < 100


def test_a_negative_exponent_has_a_hint() -> None:
    assert "1 / x ** n" in (failing("2 ** x", -1).hint or "")


# Overflow modes. --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "arguments", "wrapped"),
    [
        ("x + y + z", (MAX, 1, -1), MAX),
        ("x * y / y", (MAX, 2), -1),
        ("d = x + 1; x", (MAX,), MAX),
        ("f(v) = v + 1; f(x) < x", (MAX,), 1),
        ("abs(x) < 0", (MIN,), 1),
    ],
)
def test_intermediate_results_wrap_or_raise(
    source: str, arguments: tuple[int, ...], wrapped: int
) -> None:
    assert run(source, *arguments) == wrapped
    assert isinstance(failing(source, *arguments, overflow="raise"), OverflowError)


def test_the_overflow_that_is_not_taken_does_not_happen() -> None:
    assert run("x < 9223372036854775807 ? x + 1 : x", MAX, overflow="raise") == MAX


@pytest.mark.parametrize("overflow", ["wrap", "raise"])
def test_values_at_the_bounds(overflow: str) -> None:
    assert run("x", MIN, overflow=overflow) == MIN
    assert run("x", MAX, overflow=overflow) == MAX
    assert run("x + y", MAX, MIN, overflow=overflow) == -1


@pytest.mark.parametrize("overflow", ["saturate", "", None, 7, "WRAP"])
def test_other_modes_are_refused(overflow: str) -> None:
    with pytest.raises(exprjit.ExprValueError, match="overflow"):
        exprjit.compile("x", overflow=overflow)


# Size. ------------------------------------------------------------------------------------------


def test_two_hundred_parameters() -> None:
    names = [f"p{i}" for i in range(200)]
    source = " + ".join(f"{i} * {name}" for i, name in enumerate(names))
    assert run(source, *range(200)) == sum(i * i for i in range(200))


DEEP: dict[str, tuple[str, Callable[[int], int]]] = {
    "parentheses": ("(" * 10_000 + "x" + ")" * 10_000, lambda x: x),
    "nested sums": ("(x+" * 10_000 + "x" + ")" * 10_000, lambda x: 10_001 * x),
    "a sum": ("x" + "+x" * 100_000, lambda x: 100_001 * x),
    "unary minus": ("-" * 20_001 + "x", lambda x: -x),
    "not": ("!" * 5_000 + "x", lambda x: int(x != 0)),
    "powers": ("x" + "**1" * 5_000, lambda x: x),
    "conditionals": ("0?1:" * 5_000 + "x", lambda x: x),
    "conditions": ("1?" * 5_000 + "x" + ":0" * 5_000, lambda x: x),
    "if else": ("1 if 0 else " * 5_000 + "x", lambda x: x),
    "or": ("0 or " * 5_000 + "x", lambda x: int(x != 0)),
    "a chain": ("x" + "==x" * 5_000, lambda x: 1),
    "arguments": ("max(" + "0," * 5_000 + "x)", lambda x: max(x, 0)),
    "calls": ("f(v)=v+1;" + "f(" * 5_000 + "x" + ")" * 5_000, lambda x: x + 5_000),
    "definitions": (
        "f0(v)=v;" + "".join(f"f{i + 1}(v)=f{i}(v)+1;" for i in range(3_000)) + "f3000(x)",
        lambda x: x + 3_000,
    ),
    "bindings": (
        "d0=x;" + "".join(f"d{i + 1}=d{i}+1;" for i in range(3_000)) + "d3000",
        lambda x: x + 3_000,
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_and_long_formulas_evaluate(name: str) -> None:
    source, expected = DEEP[name]
    f = exprjit.compile(source, backend="interpreter")
    assert f(3) == expected(3)


def test_errors_deep_inside() -> None:
    error = failing("(x+" * 10_000 + "1/y" + ")" * 10_000, 1, 0)
    assert (error.start, error.end) == (30_000, 30_003)
    error = failing("1/" + "(" * 10_000 + "x" + ")" * 10_000, 0)
    assert len(str(error)) < 1000

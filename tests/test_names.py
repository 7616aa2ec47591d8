"""Programs, names and parameters: section 2 of the design, sentence by sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

import exprjit


def compiled(
    source: str,
    params: Sequence[str] | None = None,
    constants: Mapping[str, int] | None = None,
) -> exprjit.Function:
    return exprjit.compile(source, params, constants=constants, backend="interpreter")


def refused(
    kind: type[exprjit.ExprError],
    source: str,
    params: Sequence[str] | None = None,
    constants: Mapping[str, int] | None = None,
) -> exprjit.ExprError:
    with pytest.raises(exprjit.ExprError) as caught:
        compiled(source, params, constants)
    assert type(caught.value) is kind
    return caught.value


def name_error(source: str, place: str, words: str) -> None:
    """`source` is refused for the name at the last place in it where `place` stands."""
    error = refused(exprjit.ExprNameError, source)
    assert source[error.start : error.end] == place
    assert words in error.message


# Programs. ------------------------------------------------------------------------------------


def test_statements_and_a_final_expression() -> None:
    assert compiled("d = x - y; d * d")(7, 4) == 9
    assert compiled("sq(v) = v * v; sq(x) + sq(y)")(3, 4) == 25
    assert compiled("d = x - y; sq(v) = v * v; e = sq(d); e + 1;")(7, 4) == 10


def test_one_semicolon_may_trail() -> None:
    assert compiled("x;")(7) == 7
    refused(exprjit.ExprSyntaxError, "x;;")
    refused(exprjit.ExprSyntaxError, ";x")
    refused(exprjit.ExprSyntaxError, ";")


@pytest.mark.parametrize("source", ["d = 3", "d = 3;", "f(v) = v", "d = 1; f(v) = v;"])
def test_a_program_ends_with_an_expression(source: str) -> None:
    error = refused(exprjit.ExprSyntaxError, source)
    kind = "definition" if "(v)" in source else "binding"
    assert f"ends with a {kind}" in error.message
    assert "`==`" in (error.hint or "")


def test_only_the_last_expression_may_stand_alone() -> None:
    error = refused(exprjit.ExprSyntaxError, "d = 3; x + 1; d")
    assert (error.start, error.end) == (7, 12)
    assert "no effect" in error.message


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("x + 1 = 3; x", "x + 1"),
        ("3 = x; x", "3"),
        ("(d) = 3; d", "(d)"),
        ("(f(v)) = v; f(1)", "(f(v))"),
        ("-x = 3; x", "-x"),
        ("x == 3 = 4; x", "x == 3"),
        ("'a' = 3; x", "'a'"),
        ("x ? y : z = 3; x", "x ? y : z"),
        ("f(3) = 4; f(3)", "3"),
        ("f(v, (w)) = 4; f(3, 4)", "(w)"),
        ("f(v + 1) = 4; f(3)", "v + 1"),
        ("f(g(v)) = 4; f(3)", "g(v)"),
    ],
)
def test_only_a_name_or_a_call_of_bare_names_can_be_bound(source: str, left: str) -> None:
    error = refused(exprjit.ExprSyntaxError, source)
    assert source[error.start : error.end] == left


def test_a_binding_is_no_expression() -> None:
    refused(exprjit.ExprSyntaxError, "d = e = 3; d")
    refused(exprjit.ExprSyntaxError, "(d = 3) + d")
    refused(exprjit.ExprSyntaxError, "max(d = 3, 4)")


# Functions. -----------------------------------------------------------------------------------


def test_there_is_no_recursion() -> None:
    name_error("f(v) = v ? f(v - 1) : 0; f(x)", "f", "in terms of itself")
    name_error("f(v) = g(v); g(v) = f(v); f(x)", "g", "before it is defined")


def test_a_function_is_defined_before_its_use() -> None:
    name_error("d = f(x); f(v) = v; d", "f", "before it is defined")
    name_error("f(x)", "f", "unknown function")


def test_definitions_take_any_number_of_formals() -> None:
    assert compiled("f() = 7; f() * f()")() == 49
    names = [f"v{i}" for i in range(100)]
    source = f"f({', '.join(names)}) = {' + '.join(names)}; f({', '.join(map(str, range(100)))})"
    assert compiled(source)() == sum(range(100))


@pytest.mark.parametrize(
    ("call", "count"), [("f()", 0), ("f(x)", 1), ("f(x, y, z)", 3), ("f(f(x, y))", 1)]
)
def test_a_call_has_as_many_arguments_as_formals(call: str, count: int) -> None:
    error = refused(exprjit.ExprTypeError, f"f(v, w) = v * w; {call}")
    assert error.message == f"f() takes 2 arguments, not {count}"
    assert error.end == len(f"f(v, w) = v * w; {call}")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("abs()", "abs() takes 1 argument, not 0"),
        ("abs(x, y)", "abs() takes 1 argument, not 2"),
        ("min(x)", "min() takes at least 2 arguments, not 1"),
        ("max()", "max() takes at least 2 arguments, not 0"),
        ("clamp(x, y)", "clamp() takes 3 arguments, not 2"),
        ("pdep(x, y, z)", "pdep() takes 2 arguments, not 3"),
    ],
)
def test_a_builtin_has_its_number_of_arguments(call: str, words: str) -> None:
    error = refused(exprjit.ExprTypeError, f"1 + {call}")
    assert error.message == words
    assert (error.start, error.end) == (4, 4 + len(call))


@pytest.mark.parametrize("left", ["max(a, b)", "abs(v)", "abs()", "abs(v, w)", "min(v)"])
def test_a_definition_may_not_take_the_name_of_a_builtin(left: str) -> None:
    error = refused(exprjit.ExprNameError, f"{left} = 7; 7")
    assert error.message == f"'{left.split('(')[0]}' is a built-in function and cannot be defined"


def test_a_function_is_defined_once_and_its_formals_differ() -> None:
    name_error("f(v) = v; f(w) = w; f(x)", "f", "defined twice")
    name_error("f(v, v) = v; f(x, y)", "v", "listed twice")


# Names. ---------------------------------------------------------------------------------------


def test_functions_and_variables_are_two_namespaces() -> None:
    assert compiled("max - min").params == ("max", "min")
    assert compiled("max = 3; max(max, x)")(7) == 7
    assert compiled("f = 3; f(v) = v + f; f(f)")() == 6
    assert compiled("f(f) = f * 2; f(f)")(5) == 10
    assert compiled("abs + abs(abs)")(-3) == 0
    assert compiled("f(v) = v; f(x) + f")(1, 2) == 3


def test_a_name_is_bound_once() -> None:
    name_error("d = x; d = y; d", "d", "bound twice")
    name_error("d = x; f(v) = v; d = y; d", "d", "bound twice")


def test_a_name_may_not_occur_free_before_it_is_bound() -> None:
    name_error("e = d; d = 3; d", "d", "used before")
    name_error("d = d + 1; d", "d", "used before")
    name_error("f(v) = v + d; d = 3; f(x)", "d", "used before")
    assert compiled("f(d) = d; d = 3; f(d)")() == 3


def test_a_definition_sees_earlier_bindings_constants_and_parameters() -> None:
    f = compiled("d = x * 2; f(v) = v + d + K + y; f(100)", None, {"K": 10_000})
    assert f.params == ("x", "y")
    assert f(1, 1000) == 100 + 2 + 10_000 + 1000


def test_formals_shadow_bindings_constants_and_parameters() -> None:
    source = "d = 1; f(d, K, x) = d * 100 + K * 10 + x; f(2, 3, 4) + d + K + x"
    assert compiled(source, None, {"K": 10_000})(100_000) == 234 + 1 + 10_000 + 100_000
    assert compiled("f(v) = v * 2; g(v) = f(v + 1) + v; g(v)")(10) == 32


def test_a_body_means_what_it_meant_where_it_stands() -> None:
    """Names of a body that are not formals are the program's, not those of the caller."""
    assert compiled("f(v) = v + w; g(w) = f(w * 10); g(7)")(1) == 71


@pytest.mark.parametrize("word", ["class", "lambda", "True", "None", "is", "import", "await"])
@pytest.mark.parametrize(
    "source", ["{} + 1", "{} = 3; 1", "{}(v) = v; 1", "f({}) = 1; 1", "{}(x)", "x {}", "{} x"]
)
def test_keywords_of_python_are_reserved(word: str, source: str) -> None:
    text = source.format(word)
    error = refused(exprjit.ExprSyntaxError, text)
    assert text[error.start : error.end] == word
    assert "reserved word" in error.message


def test_names_are_ascii_identifiers() -> None:
    assert compiled("_a1 + B_").params == ("_a1", "B_")
    for source in ("é", "x1é", "µ", "x²", "変数"):
        refused(exprjit.ExprSyntaxError, source)


# The same name twice. -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "params", "constants", "words"),
    [
        ("d = 3; d", ["d"], None, "'d' is already a parameter"),
        ("d = 3; d", None, {"d": 7}, "'d' is already a constant"),
        ("x", ["x"], {"x": 7}, "'x' is both a constant and a parameter"),
        ("x", ["x", "y"], {"y": 7}, "'y' is both a constant and a parameter"),
    ],
)
def test_the_same_name_twice(
    source: str, params: Sequence[str] | None, constants: Mapping[str, int] | None, words: str
) -> None:
    assert words in refused(exprjit.ExprNameError, source, params, constants).message


# Parameters. ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "params"),
    [
        ("y + x * y", ("y", "x")),
        ("c ? a : b", ("c", "a", "b")),
        ("a if c else b", ("a", "c", "b")),
        ("d = z; f(v) = v + y; x + d", ("z", "y", "x")),
        ("f(v) = v + unused; x", ("unused", "x")),
        ("max(b, a) < c < d", ("b", "a", "c", "d")),
        ("7", ()),
        ("d = 7; d", ()),
    ],
)
def test_parameters_are_the_free_names_in_order_of_appearance(
    source: str, params: tuple[str, ...]
) -> None:
    assert compiled(source).params == params


def test_constants_are_no_parameters() -> None:
    f = compiled("x * K + L", None, {"K": 7, "L": -1, "unused": 3})
    assert f.params == ("x",)
    assert f(3) == 20


def test_params_gives_the_order_and_may_list_more() -> None:
    assert compiled("x - y", ["y", "x"])(1, 10) == 9
    f = compiled("x", ("unused", "x"))
    assert f.params == ("unused", "x")
    assert f(1, 2) == 2
    with pytest.raises(TypeError):
        f(2)
    with pytest.raises(TypeError):
        f("1", 2)
    with pytest.raises(OverflowError):
        f(2**63, 2)


def test_params_may_be_any_iterable_with_an_order() -> None:
    assert compiled("x - y", dict.fromkeys("yx")).params == ("y", "x")  # type: ignore[arg-type]
    assert compiled("x - y", iter("yx")).params == ("y", "x")  # type: ignore[arg-type]
    assert compiled("7", []).params == ()


def test_a_free_name_that_params_omits_is_a_placed_error() -> None:
    error = refused(exprjit.ExprNameError, "length +\n lenght", ["length"])
    assert error.line == 2
    assert error.column == 2
    assert error.hint == "did you mean 'length'?"
    refused(exprjit.ExprNameError, "x", [])
    refused(exprjit.ExprNameError, "f(v) = w; 1", ["v"])


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ("xy", TypeError, "'xy'"),
        (b"xy", TypeError, "b'xy'"),
        (7, TypeError, "7"),
        ({"x", "y"}, TypeError, "order"),
        (["x", 7], TypeError, "7"),
        (["x", None], TypeError, "None"),
        (["x", "x"], ValueError, "'x' is listed twice"),
        (["x", "y", "x"], ValueError, "'x' is listed twice"),
        (["x", ""], ValueError, "''"),
        (["x", "2y"], ValueError, "'2y'"),
        (["x", "y z"], ValueError, "'y z'"),
        (["x", "y\n"], ValueError, r"'y\n'"),
        (["x", "é"], ValueError, "'é'"),
        (["x", "if"], ValueError, "'if' is a reserved word"),
    ],
)
def test_params_that_are_refused(params: Sequence[str], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        compiled("x", params)
    assert isinstance(caught.value, exprjit.ExprError)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("constants", "kind", "words"),
    [
        ([("K", 7)], TypeError, "dict"),
        ({"K": 7.0}, TypeError, "the constant 'K' must be an integer, not float"),
        ({"K": "7"}, TypeError, "the constant 'K' must be an integer, not str"),
        ({"K": 2**63}, OverflowError, "9223372036854775808"),
        ({"K": -(2**63) - 1}, OverflowError, "-9223372036854775809"),
        ({7: 7}, TypeError, "7"),
        ({"2K": 7}, ValueError, "'2K'"),
        ({"in": 7}, ValueError, "reserved word"),
    ],
)
def test_constants_that_are_refused(
    constants: Mapping[str, int], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        compiled("x", None, constants)
    assert isinstance(caught.value, exprjit.ExprError)
    assert words in str(caught.value)


def test_constants_are_converted_as_arguments_are() -> None:
    assert compiled("K + 1", None, {"K": True})() == 2
    assert compiled("K", None, {"K": -(2**63)})() == -(2**63)


def test_constants_are_copied() -> None:
    constants = {"K": 7}
    f = compiled("x + K", None, constants)
    constants["K"] = 8
    assert f(1) == 8

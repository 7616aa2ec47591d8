"""Calls: what an argument may be, and errors as those of a Python function."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

import exprjit
from exprjit.language.arguments import bind_arguments, to_long, to_longs


def compiled(source: str, **options: Any) -> exprjit.Function:
    return exprjit.compile(source, backend="interpreter", **options)


def error_of(function: Callable[..., object], *args: Any, **kwargs: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*args, **kwargs)
    return caught.value


# Which argument goes where. ---------------------------------------------------------------------


def f(x: int, y: int, z: int) -> int:
    return x * 100 + y * 10 + z


F = "x * 100 + y * 10 + z"


def g() -> int:
    return 7


def h(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, 2, 3), {}),
        ((1, 2), {"z": 3}),
        ((1,), {"z": 3, "y": 2}),
        ((), {"y": 2, "z": 3, "x": 1}),
    ],
)
def test_positions_and_keywords(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    assert compiled(F)(*args, **kwargs) == f(*args, **kwargs) == 123


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        ((1, 2), {}),
        ((1, 2, 3, 4), {}),
        ((1, 2, 3, 4, 5), {}),
        ((), {"x": 1}),
        ((), {"y": 2, "z": 3}),
        ((1, 2), {"w": 3}),
        ((1, 2, 3), {"w": 3}),
        ((1, 2, 3), {"x": 3}),
        ((1, 2, 3, 4), {"x": 3}),
        ((1, 2, 3, 4), {"w": 3}),
        ((1,), {"x": 3}),
        ((), {"w": 1}),
        ((1, 2, 3), {"overflow": 1}),
    ],
)
def test_wrong_arguments_raise_what_a_python_function_raises(
    args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    expected = error_of(f, *args, **kwargs)
    error = error_of(compiled(F), *args, **kwargs)
    assert type(expected) is TypeError
    assert type(error) is exprjit.ExprTypeError
    assert isinstance(error, TypeError)
    assert same_words(error, expected)


def same_words(error: BaseException, expected: BaseException) -> bool:
    """Whether the messages agree; later versions of Python append a suggestion."""
    plain = re.sub(r"\. Did you mean .*", "", str(expected))
    return str(error) == plain.replace("<lambda>", "f")


@pytest.mark.parametrize(("source", "function"), [("7", g), ("x", h)])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_numbers_agree_with_their_nouns(
    source: str, function: Callable[..., int], count: int
) -> None:
    name = function.__name__
    if count == function.__code__.co_argcount:
        assert compiled(source)(*[7] * count) == function(*[7] * count)
        return
    error = error_of(compiled(source, name=name), *[7] * count)
    assert same_words(error, error_of(function, *[7] * count))


def test_the_function_s_name_is_in_the_message() -> None:
    error = error_of(compiled("x", name="price"))
    assert str(error) == "price() missing 1 required positional argument: 'x'"


@pytest.mark.parametrize("name", ["out", "self", "args", "kwargs", "function", "params", "source"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    function = compiled(f"{name} * 2 + other")
    assert function.params == (name, "other")
    assert function(**{name: 3, "other": 1}) == 7
    assert function(3, other=1) == 7
    with pytest.raises(TypeError, match=f"multiple values for argument '{name}'"):
        function(3, 1, **{name: 3})


def test_two_hundred_arguments_by_name() -> None:
    names = [f"p{i}" for i in range(200)]
    function = compiled(" - ".join(names))
    assert function(**dict.fromkeys(reversed(names), 1)) == -198
    with pytest.raises(TypeError, match="missing 200 required positional arguments: 'p0', 'p1',"):
        function()


# What an argument may be. -----------------------------------------------------------------------


class Index:
    def __init__(self, value: object) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value  # type: ignore[return-value]


class Both(Index):
    """Its `int()` is not what it is as an index."""

    def __int__(self) -> int:
        raise AssertionError


class LongInt(int):
    """A subclass whose own arithmetic must not be used."""

    def __add__(self, other: int) -> NoReturn:
        raise AssertionError

    __radd__ = __mul__ = __rmul__ = __add__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2),
        (True, 1),
        (False, 0),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (Index(7), 7),
        (Index(-(2**63)), -(2**63)),
        (Both(7), 7),
        (LongInt(7), 7),
    ],
)
def test_integers_are_taken(value: Any, expected: int) -> None:
    result = compiled("x + 0")(value)
    assert result == expected
    assert type(result) is int
    assert type(compiled("x")(value)) is int


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (2.0, "float"),
        (2.5, "float"),
        ("2", "str"),
        (b"2", "bytes"),
        (None, "NoneType"),
        ([2], "list"),
        (2j, "complex"),
        (int, "type"),
        (len, "builtin_function_or_method"),
        (object(), "object"),
    ],
)
def test_anything_else_is_a_type_error(value: Any, name: str) -> None:
    error = error_of(compiled("x + y"), 1, value)
    assert type(error) is exprjit.ExprTypeError
    assert str(error) == f"the argument 'y' must be an integer, not {name}"


def test_an_index_on_the_instance_does_not_count() -> None:
    value = type("Fake", (), {})()
    value.__index__ = lambda: 7
    assert isinstance(error_of(compiled("x"), value), TypeError)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 2**64, 10**30, Index(2**100_000), Index(-(2**100_000)), Index(2**63)],
)
def test_more_than_64_bits_is_an_overflow_error(value: Any) -> None:
    for overflow in ("wrap", "raise"):
        error = error_of(compiled("y + x", overflow=overflow), 1, value)
        assert type(error) is exprjit.ExprOverflowError
        assert str(error).startswith("the argument 'x' does not fit a 64-bit long: ")
        assert len(str(error)) < 200


def test_the_value_that_does_not_fit_is_shown() -> None:
    assert str(2**63) in str(error_of(compiled("x"), 2**63))
    assert "100,001 bits" in str(error_of(compiled("x"), 2**100_000))


def test_exceptions_of_index_pass_through() -> None:
    class Unwilling:
        def __index__(self) -> int:
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        compiled("x")(Unwilling())
    with pytest.raises(TypeError):
        compiled("x")(Index("7"))


def test_arguments_are_converted_in_the_order_of_the_parameters() -> None:
    seen = []

    class Loud:
        def __init__(self, name: str) -> None:
            self.name = name

        def __index__(self) -> int:
            seen.append(self.name)
            return 0

    compiled("a + b + c")(c=Loud("c"), a=Loud("a"), b=Loud("b"))
    assert seen == ["a", "b", "c"]
    error = error_of(compiled("a + b"), b="late", a=2.5)
    assert "'a'" in str(error)


def test_counts_are_checked_before_anything_is_converted() -> None:
    class Never:
        def __index__(self) -> int:
            raise AssertionError

    for args in ((Never(),), (Never(), Never(), Never())):
        assert isinstance(error_of(compiled("x + y"), *args), exprjit.ExprTypeError)


def test_everything_is_converted_before_anything_is_computed() -> None:
    assert isinstance(error_of(compiled("1 / x + y"), 0, "y"), TypeError)


def test_a_parameter_that_the_text_does_not_use_is_checked_all_the_same() -> None:
    function = compiled("x", params=["x", "unused"])
    assert function(7, 8) == 7
    assert isinstance(error_of(function, 7, 2.5), TypeError)
    assert isinstance(error_of(function, 7, 2**63), OverflowError)
    assert isinstance(error_of(function, 7), TypeError)


# The functions themselves. ----------------------------------------------------------------------


def test_to_long_names_what_it_refuses() -> None:
    assert to_long(True, "the thing") == 1
    with pytest.raises(TypeError, match="the thing must be an integer, not str"):
        to_long("7", "the thing")
    with pytest.raises(OverflowError, match="the thing does not fit a 64-bit long: 99999"):
        to_long(99999999999999999999, "the thing")


def test_bind_gives_values_as_they_are() -> None:
    value = object()
    assert bind_arguments("f", ("x", "y"), (value,), {"y": None}) == [value, None]
    assert to_longs(("x", "y"), (True, Index(7))) == [1, 7]


# Options of compile() that are not about arguments. ---------------------------------------------


@pytest.mark.parametrize("source", [None, 7, b"x + 4", ["x"], object()])
def test_a_formula_is_a_str(source: Any) -> None:
    error = error_of(compiled, source)
    assert type(error) is exprjit.ExprTypeError
    assert type(source).__name__ in str(error)


def test_a_name_is_a_str() -> None:
    assert type(error_of(compiled, "x", name=7)) is exprjit.ExprTypeError


def test_unknown_options_are_refused_by_python() -> None:
    with pytest.raises(TypeError, match="overflows"):
        compiled("x", overflows="wrap")

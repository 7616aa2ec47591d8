"""`compile`, `evaluate`, `Function`: calls of every kind on every engine; what a function says.

The engines: machine code; the interpreter; machine code whose every call is verified; lazy, which
is the interpreter first and machine code later. A call must not tell them apart.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import inspect
import itertools
import os
import re
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import exprjit
from exprjit import compiler
from exprjit.runtime import memory
from exprjit.x86 import kernels, scalar

MIN, MAX = -(2**63), 2**63 - 1
EDGES = [0, 1, -1, 2, -2, 63, 64, 2**31, -(2**31) - 1, 2**32, MAX, MAX - 1, MIN, MIN + 1]

HAVE_CODE = memory.policy()[0] != "none"
native = pytest.mark.skipif(not HAVE_CODE, reason=f"no code memory: {memory.policy()[1]}")

Make = Callable[..., exprjit.Function]


def interpreted(source: str, *args: Any, **options: Any) -> exprjit.Function:
    return exprjit.compile(source, *args, backend="interpreter", **options)


def warm(source: str, *args: Any, **options: Any) -> exprjit.Function:
    """A lazy function that has been called, and so has its machine code."""
    f = exprjit.compile(source, *args, lazy=True, **options)
    for _ in range(3):
        with pytest.raises(TypeError):
            f(*[None] * (len(f.params) + 1))
    return f


def through_buffer(source: str, *args: Any, **options: Any) -> exprjit.Function:
    """A function whose machine code is called through ctypes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPRJIT_CALL", "ctypes")
        return exprjit.compile(source, *args, **options)


ENGINES: dict[str, Make] = {
    "jit": functools.partial(exprjit.compile, backend="jit"),
    "interpreter": interpreted,
    "verify": functools.partial(exprjit.compile, verify=True),
    "lazy": functools.partial(exprjit.compile, lazy=True),
    "lazy, warm": warm,
    "buffer": through_buffer,
}


@pytest.fixture(params=[pytest.param(e, marks=native if e == "jit" else ()) for e in ENGINES])
def make(request: pytest.FixtureRequest) -> Make:
    """`exprjit.compile`, once for each engine."""
    return ENGINES[request.param]


class Index:
    """Not an int, but converts to one, or raises; counts how often it was asked."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.asked = 0

    def __index__(self) -> Any:
        self.asked += 1
        if isinstance(self.value, BaseException):
            raise self.value
        if callable(self.value):
            return self.value()
        return self.value


class Stop(BaseException):
    """As KeyboardInterrupt, but pytest lets it be."""


# Calls. --------------------------------------------------------------------------------------


def test_ints(make: Make) -> None:
    f = make("x - y")
    for x, y in itertools.product(EDGES, EDGES):
        wanted = (x - y + 2**63) % 2**64 - 2**63
        answer = f(x, y)
        assert (type(answer), answer) == (int, wanted)


def test_bools_and_subclasses_of_int(make: Make) -> None:
    class Number(int):
        def __index__(self) -> int:
            raise AssertionError("an int is its own index")

        def __int__(self) -> int:
            return 99

    f = make("x - 2 * y")
    assert f(True, False) == 1
    assert f(False, y=True) == -2
    assert f(Number(5), y=Number(-1)) == f(Number(5), Number(-1)) == 7
    same = make("x")(True)
    assert (type(same), same) == (int, 1)


def test_index(make: Make) -> None:
    f = make("x / y")
    for _ in range(3):
        x, y = Index(7), Index(-2)
        assert f(x, y) == f(x, y=y) == -3
        assert (x.asked, y.asked) == (2, 2)


def test_index_is_asked_once_when_the_machine_code_hands_over(make: Make) -> None:
    f = make("x / y")
    for _ in range(3):
        x, y = Index(7), Index(0)
        with pytest.raises(ZeroDivisionError, match="x = 7"):
            f(x, y)
        assert (x.asked, y.asked) == (1, 1)


def test_numpy_scalars(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    f = make("x * 2")
    for kind in "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split():
        answer = f(getattr(numpy, kind)(100))
        assert (type(answer), answer) == (int, 200)
    assert f(numpy.array(21)) == 42
    with pytest.raises(OverflowError):
        f(numpy.uint64(2**63))
    for wrong in (numpy.float64(1), numpy.array(1.0)):
        with pytest.raises(TypeError):
            f(wrong)
    assert f(numpy.bool_(True)) == f(numpy.array(True)) == 2


@pytest.mark.parametrize(
    "value", [2**63, MIN - 1, 10**400, pytest.param(-1 << 50_000, id="huge"), Index(2**63)]
)
def test_what_does_not_fit(make: Make, value: Any) -> None:
    f = make("y - x")
    for args, keywords in [((0, value), {}), ((value, 0), {}), ((0,), {"x": value})]:
        name = "y" if args[0] is value else "x"
        with pytest.raises(OverflowError, match=f"the argument '{name}' does not fit") as caught:
            f(*args, **keywords)
        assert isinstance(caught.value, exprjit.ExprOverflowError)


@pytest.mark.parametrize("value", [1.0, "1", b"1", None, [1], 1j, int, Index("1"), Index(1.0)])
def test_what_is_no_integer(make: Make, value: Any) -> None:
    f = make("y - x")
    for args, keywords in [((0, value), {}), ((value, 0), {}), ((0,), {"x": value})]:
        with pytest.raises(TypeError):
            f(*args, **keywords)
    assert f(5, 3) == 2


ERRORS = [TypeError, OverflowError, ValueError, UnicodeError, MemoryError, KeyError, Stop]


@pytest.mark.parametrize("kind", ERRORS)
def test_exceptions_of_index_pass_through(make: Make, kind: type[BaseException]) -> None:
    f = make("x / y")
    for _ in range(3):
        for args in ((Index(kind("mine")), 1), (1, Index(kind("mine"))), (Index(kind()), "a")):
            error = next(arg.value for arg in args if isinstance(arg, Index))
            with pytest.raises(kind) as caught:
                f(*args)
            assert caught.value is error
        with pytest.raises(kind) as caught:
            f(x=1, y=Index(kind("mine")))


def test_the_first_wrong_argument_wins(make: Make) -> None:
    f = make("x / y")
    late = Index(Stop())
    for first in ("a", 2**63, Index(ValueError())):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            f(first, late)
    assert late.asked == 0


def python_function(*params: str) -> Callable[..., Any]:
    """A Python function `f` of these parameters."""
    made: dict[str, Any] = {}
    exec(f"def f({', '.join(params)}): return 0", made)
    function: Callable[..., Any] = made["f"]
    return function


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2, 3), {}),
    ((1, 2, 3, 4), {}),
    (tuple(range(300)), {}),
    ((1,), {"a": 1}),
    ((1, 2, 3), {"a": 1}),
    ((1, 2, 3), {"other": 1}),
    ((1, 2), {"other": 1}),
    ((), {"a": 1, "b": 2}),
    ((), {"other": 1}),
    ((1,), {"b": 2, "c": 3, "other": 4}),
    ((None, "x"), {}),
    ((), {"self": 1}),
    ((1, 2, 3), {"source": 1}),
]


def complaint(function: Callable[..., Any], args: Any, keywords: Any) -> str | None:
    """What Python says of a call, without the suggestion that newer versions make."""
    try:
        function(*args, **keywords)
    except TypeError as error:
        return str(error).partition(". Did you mean")[0]
    return None


@pytest.mark.parametrize("params", [(), ("a",), ("a", "b"), ("a", "b", "c")])
def test_wrong_calls_fail_as_those_of_a_python_function(
    make: Make, params: tuple[str, ...]
) -> None:
    model = python_function(*params)
    f = make("7", params=params)
    for args, keywords in CALLS:
        wanted = complaint(model, args, keywords)
        for _ in range(2):
            if wanted is not None:
                with pytest.raises(exprjit.ExprTypeError) as caught:
                    f(*args, **keywords)
                assert str(caught.value) == wanted


def test_keywords(make: Make) -> None:
    f = make("100 * self + 10 * args + kwargs")
    for _ in range(2):
        assert f(self=1, args=2, kwargs=3) == f(1, kwargs=3, args=2) == f(1, 2, kwargs=3) == 123
        assert f(**{"self": 1, "args": 2, "kwargs": 3}) == 123


def test_no_parameters(make: Make) -> None:
    f = make("6 * 7")
    assert f.params == ()
    assert f() == f(*[]) == f(**{}) == 42
    fails = make("1 / 0")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fails()


def test_the_ways_of_calling(make: Make) -> None:
    f = make("x + 4")
    assert callable(f)
    assert list(map(f, range(3))) == [4, 5, 6]
    assert sorted([3, 1, 2], key=make("-x")) == [3, 2, 1]
    assert functools.partial(f, 2)() == functools.partial(f, x=2)() == 6
    assert functools.reduce(make("x - y"), [10, 3, 2]) == 5
    assert f.__call__(2) == type(f).__call__(f, 2) == f(*(2,)) == 6

    class Owner:
        attribute = f

    assert Owner().attribute(2) == 6  # not bound: a Function is no method

    @functools.wraps(f)
    def wrapped(x: int) -> int:
        return f(x)

    assert (wrapped.__name__, wrapped.__doc__, wrapped(2)) == ("f", f.__doc__, 6)


FAILING = [
    ("x / y", {}, (7, 0)),
    ("1 +\n  2 * (x %% y) + 1 / y", {}, (-5, 0)),
    ("isqrt(x) ** y", {}, (4, -1)),
    ("isqrt(x) ** y", {}, (-4, -1)),
    ("d = x * 2; y + d", {"overflow": "raise"}, (2**62, 0)),
    ("d = x * 2; y + d", {"overflow": "raise"}, (2**61, MAX)),
    ("sq(v) = v ** 2 / v; sq(x) + sq(y)", {}, (3, 0)),
    ("x << y", {"overflow": "raise"}, (1, 64)),
    ("x / -1 - y", {"overflow": "raise"}, (MIN, 0)),
    ("x > 0 ? udiv(x, y) : umod(x, y)", {}, (-3, 0)),
]


@pytest.mark.parametrize(("source", "options", "values"), FAILING)
def test_the_error_is_the_interpreter_s(
    make: Make, source: str, options: dict[str, Any], values: tuple[int, ...]
) -> None:
    def error_of(f: Callable[..., int]) -> exprjit.ExprError:
        with pytest.raises(exprjit.ExprError) as caught:
            f(*values)
        return caught.value

    wanted = error_of(exprjit.compile(source, **options).formula.interpret)
    f = make(source, **options)
    for _ in range(3):
        error = error_of(f)
        assert type(error) is type(wanted)
        assert str(error) == str(wanted)
        assert (error.source, error.start, error.end) == (source, wanted.start, wanted.end)
        assert error.message == wanted.message
        assert error.__context__ is error.__cause__ is None
        assert error.start < error.end


def test_a_call_inside_the_conversion_of_an_argument(make: Make) -> None:
    f = make("x + y / 1")
    depth = 50
    inner: Callable[[], int] = lambda: 1  # noqa: E731
    for _ in range(depth):
        inner = functools.partial(lambda before: f(Index(before), 1), inner)
    assert inner() == 1 + depth


def test_endless_recursion_is_an_error(make: Make) -> None:
    f = make("x / y")
    itself = Index(lambda: f(itself, 1))
    with pytest.raises(RecursionError):
        f(itself, 1)
    by_name = Index(lambda: f(y=1, x=by_name))
    with pytest.raises(RecursionError):
        f(1, y=by_name)
    assert f(7, 2) == 3


def test_a_function_that_is_dropped_during_its_own_call(make: Make) -> None:
    def called(arguments: Callable[[Callable[[], int]], Any]) -> Any:
        names = {"f": make("x / y")}
        alive = weakref.ref(names["f"])

        def drop() -> int:
            names.clear()
            gc.collect()
            for number in range(20):
                exprjit.compile(f"x + {number}")
            memory.collect()
            assert alive() is not None
            return 8

        args, keywords = arguments(drop)
        try:
            return names["f"](*args, **keywords)
        finally:
            assert not names

    for _ in range(2):
        assert called(lambda drop: ((Index(drop), 2), {})) == 4
        assert called(lambda drop: ((16, Index(drop)), {})) == 2
        assert called(lambda drop: ((), {"x": Index(drop), "y": 2})) == 4
        with pytest.raises(ZeroDivisionError):
            called(lambda drop: ((Index(drop), 0), {}))
        with pytest.raises(TypeError):
            called(lambda drop: ((Index(drop), None), {}))


def test_references_are_balanced(make: Make) -> None:
    f = make("x / y")
    values = [10**15, 10**15 + 1, Index(10**15), Index(0), Index(Stop()), object(), 10**30]
    calls = list(itertools.product(values, values))

    def run() -> None:
        for x, y in calls:
            for args, keywords in (((x, y), {}), ((x,), {"y": y}), ((x, y, x), {})):
                try:
                    f(*args, **keywords)
                except (exprjit.ExprError, Stop) as error:
                    error.__traceback__ = error.__context__ = None

    for _ in range(3):
        run()
    gc.collect()
    counts = [sys.getrefcount(value) for value in [f, *values]]
    blocks = sys.getallocatedblocks()
    for _ in range(20):
        run()
    gc.collect()  # an error and its traceback can be a cycle
    assert counts == [sys.getrefcount(value) for value in [f, *values]]
    assert sys.getallocatedblocks() - blocks < 300


# What a function says of itself. ---------------------------------------------------------------


def test_attributes(make: Make) -> None:
    f = make(
        " rate * x + y ",
        overflow="raise",
        constants={"rate": 3},
        params=["y", "x"],
        name="price",
    )
    assert f.source == " rate * x + y "
    assert f.params == ("y", "x")
    assert f.overflow == "raise"
    assert f.constants == {"rate": 3}
    assert f(1, 2) == 7
    assert f.__name__ == "price"
    assert f.__doc__ == "price(y, x) =  rate * x + y \n\nA result outside 64 bits is an error."
    assert str(inspect.signature(f)) == "(y: int, x: int) -> int"
    assert list(inspect.signature(f).bind(1, x=2).arguments) == ["y", "x"]
    assert f.formula.source == f.source
    assert isinstance(f, exprjit.Function)
    assert str(f.ast)
    assert "mul_overflows" in str(f.graph)


def test_constants_are_a_copy(make: Make) -> None:
    given = {"K": 7}
    f = make("x + K", constants=given)
    given["K"] = 1
    f.constants["K"] = 2
    assert f(0) == 7


def test_defaults(make: Make) -> None:
    f = make("x + 4")
    assert (f.__name__, f.__doc__) == ("f", "f(x) = x + 4")
    assert (f.params, f.overflow, f.constants) == (("x",), "wrap", {})


def test_repr(make: Make) -> None:
    f = make("x + 4")
    assert repr(f) == f"<exprjit.Function f(x) 'x + 4', {f.engine}>"
    f = make("a\n/ b", overflow="raise", name="g")
    assert repr(f) == f"<exprjit.Function g(a, b) 'a\\n/ b', overflow='raise', {f.engine}>"
    assert len(repr(make("x + " * 1000 + "1"))) < 120


def test_engine() -> None:
    f = interpreted("x")
    assert (f.engine, f.why_not_jit) == ("interpreter", 'backend="interpreter" was asked for')
    if HAVE_CODE:
        for options in ({}, {"backend": "jit"}, {"verify": True}):
            f = exprjit.compile("x", **options)  # type: ignore[arg-type]
            assert (f.engine, f.why_not_jit) == ("jit", None)


def test_total(make: Make) -> None:
    assert make("x * y + (x ? 1 / 7 : 2)").total
    assert not make("x / y").total
    assert not make("x + y", overflow="raise").total
    assert make("u8(x) / ((y & 3) + 1 != 0 ? 3 : 4)").total in (True, False)


def test_dumps(make: Make) -> None:
    f = make("x + 4")
    assert f.dump() == f.dump("graph") == str(f.graph) == "%0 = add x 4\nreturn %0"
    assert f.dump("ast") == str(f.ast)
    assert "(add x 4)" in f.dump("ast")
    assert f.dump("ast", "graph") == f"{f.dump('ast')}\n{f.dump('graph')}"
    assert "carry-save" in make("(x ^ y) + 2 * (x & y)").dump("rules").split()
    for wrong in ("assembly", "", "GRAPH", None, 3):
        with pytest.raises(ValueError, match="no stage is called"):
            f.dump("graph", wrong)  # type: ignore[arg-type]


def test_without_machine_code_there_is_none_to_show() -> None:
    f = interpreted("x + 4")
    shows: list[Callable[[], Any]] = [lambda: f.asm, lambda: f.code]
    shows += [functools.partial(f.dump, stage) for stage in ("block", "asm", "hex")]
    for show in shows:
        with pytest.raises(ValueError, match="no machine code: backend"):
            show()


@native
def test_assembly() -> None:
    f = exprjit.compile("x / y + 4")
    asm = f.asm
    at = 0
    for line in asm:
        assert line.offset == at
        at += len(line.code)
        assert line.source is None or line.source in f.source
    assert b"".join(line.code for line in asm) == f.code
    assert len(f.code) == at
    assert next(line.text for line in asm if line.label == "entry") == "endbr64"
    text = {line.text: line for line in asm}
    # The address may be short, where Python is not position-independent.
    boxing = [line for name, line in text.items() if name.endswith("ax, PyLong_FromLong")]
    assert [line.source for line in boxing] == [None]
    assert next(line for name, line in text.items() if name.startswith("idiv")).source == "x / y"
    assert any("4" in line.text for line in asm if line.source == "x / y + 4")
    assert str(asm) == f.dump("asm")
    assert bytes.fromhex(f.dump("hex")) == f.code
    assert "; x / y + 4" in str(asm)
    assert f.dump("block").startswith("param 0 -> ")


@native
def test_every_label_that_is_jumped_to_is_shown_once() -> None:
    f = exprjit.compile("gcd(x, y) / z + pow_(x) ** 3 % y".replace("pow_", "isqrt"))
    labels = [line.label for line in f.asm if line.label is not None]
    assert len(labels) == len(set(labels))
    for line in f.asm:
        jump = re.fullmatch(r"j\w+ (?!r\w\w$)(.+)", line.text)
        assert jump is None or jump.group(1) in labels, line


@native
@pytest.mark.parametrize("source", ["x + 4", "x / y", "gcd(x, y) ** z", "1"])
def test_what_is_shown_is_what_runs(source: str) -> None:
    f = exprjit.compile(source)
    code = f._body.code
    assert code is not None
    assert ctypes.string_at(code.owner.address, code.owner.size) == f.code


READ_ONLY = """source params overflow constants formula engine why_not_jit total ast graph asm code
address checked_address dump __signature__ __name__""".split()


def test_nothing_can_be_set(make: Make) -> None:
    f = make("x + 4")
    for name in [*READ_ONLY, "other"]:
        with pytest.raises((AttributeError, TypeError)):
            setattr(f, name, 1)
        with pytest.raises((AttributeError, TypeError)):
            delattr(f, name)
    assert f(2) == 6


def test_the_class() -> None:
    assert exprjit.Function.__name__ == "Function"
    assert inspect.getdoc(exprjit.Function).startswith("A compiled formula")
    for make in ENGINES.values():
        if HAVE_CODE or make is not ENGINES["jit"]:
            kind = type(make("x"))
            assert issubclass(kind, exprjit.Function)
            assert kind.__doc__ == exprjit.Function.__doc__
    inspect.signature(exprjit.Function)
    assert not hasattr(exprjit.Function, "__signature__")


def test_identity(make: Make) -> None:
    f = make("x")
    assert copy.copy(f) is copy.deepcopy(f) is copy.deepcopy([f])[0] is f


# C functions. ----------------------------------------------------------------------------------


def plain(f: exprjit.Function) -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CFUNCTYPE(
        ctypes.c_long, *[ctypes.c_long] * len(f.params)
    )(f.address)
    return function


def checked(f: exprjit.Function) -> Callable[..., int | None]:
    """Gives None where the C function says that a call raises."""
    pointer = ctypes.POINTER(ctypes.c_long)
    function = ctypes.CFUNCTYPE(ctypes.c_int, pointer, *[ctypes.c_long] * len(f.params))(
        f.checked_address
    )

    def call(*values: int) -> int | None:
        result = ctypes.c_long(4242)
        answer = function(ctypes.byref(result), *values)
        assert answer == 0 or (answer == 1 and result.value == 4242)
        return None if answer else result.value

    return call


def wrapped(x: int) -> int:
    return (x + 2**63) % 2**64 - 2**63


@native
@pytest.mark.parametrize("count", range(21))
def test_c_functions_of_many_parameters(count: int) -> None:
    """Each parameter has a weight of its own, so that none can take another's place."""
    params = [f"p{number}" for number in range(count)]
    weights = [2 * number + 3 for number in range(count)]
    total = " + ".join(f"{w} * {p}" for w, p in zip(weights, params, strict=True)) or "5"
    f = exprjit.compile(total, params)
    g = exprjit.compile(f"({total}) / ({params[-1] if params else 3})", params)
    assert (f.total, g.total) == (True, not params)
    f_plain, f_checked, g_checked = plain(f), checked(f), checked(g)
    # Each edge value in each place, and all places at once.
    rows = [tuple(EDGES[(n * 5 + shift) % len(EDGES)] for n in range(count)) for shift in range(14)]
    rows += [tuple(number * 1000 + 7 for number in range(count))]
    for row in rows:
        wanted = wrapped(sum(map(lambda w, x: w * x, weights, row))) if params else 5
        assert f_plain(*row) == f_checked(*row) == f(*row) == wanted
        divisor = row[-1] if params else 3
        if divisor == 0:
            assert g_checked(*row) is None
            with pytest.raises(ZeroDivisionError):
                g(*row)
        else:
            quotient = abs(wanted) // abs(divisor)
            quotient = wrapped(-quotient if (wanted < 0) != (divisor < 0) else quotient)
            assert g_checked(*row) == g(*row) == quotient


@native
@pytest.mark.parametrize("overflow", ["wrap", "raise"])
@pytest.mark.parametrize(
    "source", ["x + y", "x * y", "x / y", "x %% y", "x << y", "x ** y", "gcd(x, y)"]
)
def test_c_functions_over_edge_values(source: str, overflow: str) -> None:
    f = exprjit.compile(source, overflow=overflow)
    check, call = checked(f), plain(f) if f.total else None
    for x, y in itertools.product(EDGES, EDGES):
        try:
            wanted = f.formula.interpret(x, y)
        except exprjit.ExprError:
            assert check(x, y) is None
        else:
            assert check(x, y) == wanted
            assert call is None or call(x, y) == wanted


@native
@pytest.mark.parametrize("make", [ENGINES[name] for name in ENGINES if name != "interpreter"])
def test_addresses(make: Make) -> None:
    f = make("x + 4")
    assert f.address == f.address
    assert f.checked_address == f.checked_address
    assert len({f.address, f.checked_address}) == 2
    assert plain(f)(2) == checked(f)(2) == 6
    assert make("x + 4", name="g").address != f.address


@pytest.mark.parametrize(
    ("source", "options", "piece"),
    [
        ("1 + x / y", {}, "x / y"),
        ("isqrt(x) + 1 / 0", {}, "isqrt(x)"),
        ("y ? 1 / x : 0", {}, "1 / x"),
        ("-x", {"overflow": "raise"}, "-x"),
    ],
)
def test_no_address_of_what_can_fail(
    make: Make, source: str, options: dict[str, Any], piece: str
) -> None:
    f = make(source, **options)
    with pytest.raises(ValueError, match="use checked_address") as caught:
        _ = f.address
    error = caught.value
    assert isinstance(error, exprjit.ExprError)
    assert source[error.start : error.end] == piece


def test_no_address_without_code_memory(child: Callable[..., str]) -> None:
    f = interpreted("x + 4")
    if HAVE_CODE:  # it is the call that is interpreted; C code can be had all the same
        assert plain(f)(2) == checked(f)(2) == 6
    program = """
        import exprjit
        f = exprjit.compile("x + 4")
        for name in ("address", "checked_address"):
            try:
                getattr(f, name)
            except ValueError as error:
                print(error)
    """
    out = child(program, EXPRJIT_MEMORY="none")
    assert out.count("there is no machine code") == 2
    assert out.count("EXPRJIT_MEMORY=none") == 2


@native
def test_an_address_is_good_while_the_function_lives() -> None:
    f = exprjit.compile("x * 3 + 1")
    call, check = plain(f), checked(f)
    for number in range(600):
        assert plain(exprjit.compile(f"x + {number}"))(1) == number + 1
    gc.collect()
    memory.collect()
    assert call(5) == check(5) == 16
    code = [weakref.ref(code.owner) for code in f._body.entries.values()]
    del f
    exprjit.cache_clear()
    gc.collect()
    assert [reference() for reference in code] == [None, None]


# Options. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"backend": "llvm"}, ValueError, "backend must be one of"),
        ({"backend": None}, ValueError, "backend must be one of"),
        ({"overflow": "saturate"}, ValueError, 'overflow must be "wrap" or "raise"'),
        ({"overflow": True}, ValueError, 'overflow must be "wrap" or "raise"'),
        ({"hardening": "full"}, ValueError, "hardening must be"),
        ({"constants": [("K", 1)]}, TypeError, "constants is a dict"),
        ({"constants": {"K": 1.5}}, TypeError, "constant 'K' must be an integer"),
        ({"constants": {"K": 2**63}}, OverflowError, "constant 'K' does not fit"),
        ({"constants": {"if": 1}}, ValueError, "reserved word"),
        ({"constants": {"1x": 1}}, ValueError, "cannot be the name of a constant"),
        ({"constants": {3: 1}}, TypeError, "str for a name"),
        ({"externs": {"g": None}}, TypeError, "'g': an extern is a ctypes function, not None"),
        ({"externs": 5}, TypeError, "externs is a dict of names and C functions, not 5"),
        ({"limits": "generous"}, TypeError, "limits must be"),
        ({"limits": {"nodes": 0}}, ValueError, "'nodes' must be a positive int"),
        ({"limits": {"time": 3}}, ValueError, "no limit is called 'time'"),
        ({"name": 3}, TypeError, "name must be a str"),
        ({"params": "x"}, TypeError, "sequence of names"),
        ({"params": 3}, TypeError, "sequence of names"),
        ({"params": {"x"}}, TypeError, "order in a set"),
        ({"params": ["x", "x"]}, ValueError, "listed twice"),
        ({"params": ["x", "1"]}, ValueError, "cannot be the name of a parameter"),
        ({"params": ["x", "while"]}, ValueError, "reserved word"),
        ({"params": [3]}, TypeError, "str for a name"),
        ({"params": ["y"]}, NameError, "x"),
        ({"params": ["x"], "constants": {"x": 1}}, NameError, "both a constant and a parameter"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    for more in ({}, {"lazy": True}, {"verify": True}):
        with pytest.raises(kind, match=message) as caught:
            exprjit.compile("x + 4", **{**options, **more})
        assert isinstance(caught.value, exprjit.ExprError)


@pytest.mark.parametrize("source", [None, 3, b"x + 4", ["x"]])
def test_a_formula_is_text(source: Any) -> None:
    for call in (exprjit.compile, exprjit.evaluate):
        with pytest.raises(exprjit.ExprTypeError, match="a formula is a str"):
            call(source)


def test_options_after_params_have_to_be_named() -> None:
    with pytest.raises(TypeError):
        exprjit.compile("x", ["x"], "jit")  # type: ignore[misc]
    with pytest.raises(TypeError):
        exprjit.compile("x", speed=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["EXPRJIT_CALL", "EXPRJIT_CPU", "EXPRJIT_MEMORY"])
def test_a_wrong_setting_is_an_error(name: str, child: Callable[..., str]) -> None:
    program = """
        import exprjit
        calls = [exprjit.diagnostics]
        for backend in exprjit.function.BACKENDS:
            calls.append(lambda backend=backend: exprjit.compile("x + 4", backend=backend))
        for call in calls:
            try:
                call()
            except exprjit.ExprValueError as error:
                print(error)
    """
    lines = child(program, **{name: "nonsense"}).splitlines()
    assert [line.startswith(f"{name} is 'nonsense'; it can be ") for line in lines] == [True] * 4


def test_the_code_limit() -> None:
    """Where there is machine code it may have this size; the interpreter has no such limit."""
    limits = {"code": 50}
    assert exprjit.compile("x + 4", backend="interpreter", limits=limits)(2) == 6
    if HAVE_CODE:
        with pytest.raises(exprjit.ExprLimitError, match=r"machine code has .* bytes; at most 50"):
            exprjit.compile("x + 4", limits=limits)
        f = exprjit.compile("x + 4", lazy=True, limits=limits)
        assert [f(2), f(2), f(2), f.engine] == [6, 6, 6, "interpreter"]
        assert "at most 50" in str(f.why_not_jit)


def test_backend_jit_where_there_is_none(child: Callable[..., str]) -> None:
    program = """
        import exprjit
        for options in ({}, {"lazy": True}, {"verify": True}):
            try:
                exprjit.compile("x + 4", backend="jit", **options)
            except exprjit.JitUnavailableError as error:
                print(error)
            f = exprjit.compile("x + 4", **options)
            print(f(2), f(2), f(2), f.engine, f.why_not_jit)
    """
    lines = [
        "there is no machine code: no executable memory: EXPRJIT_MEMORY=none",
        "6 6 6 interpreter no executable memory: EXPRJIT_MEMORY=none",
    ]
    assert child(program, EXPRJIT_MEMORY="none").splitlines() == lines * 3


# evaluate. -------------------------------------------------------------------------------------


def test_evaluate() -> None:
    assert exprjit.evaluate("6 * 7") == 42
    assert exprjit.evaluate("x + y", x=1, y=2) == 3
    assert exprjit.evaluate("x + y", {"x": 1, "y": 2, "unused": "anything"}) == 3
    assert exprjit.evaluate("x + y", {"x": 1}, y=Index(2)) == 3
    assert exprjit.evaluate("source + names", source=1, names=2) == 3
    assert exprjit.evaluate("x", types.MappingProxyType({"x": True})) == 1


def test_evaluate_refuses() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        exprjit.evaluate("x + y", x=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        exprjit.evaluate("x", x=1, z=2)
    with pytest.raises(OverflowError):
        exprjit.evaluate("x", x=2**63)
    with pytest.raises(ZeroDivisionError):
        exprjit.evaluate("1 / x", x=0)
    with pytest.raises(SyntaxError):
        exprjit.evaluate("1 +")


# Lazy and verified functions. --------------------------------------------------------------------


@native
def test_lazy() -> None:
    f = exprjit.compile("x / y", lazy=True)
    same, number, name = f, id(f), weakref.ref(f)
    assert f.engine == "interpreter"
    assert "second call" in str(f.why_not_jit)
    with pytest.raises(ValueError, match="no machine code"):
        _ = f.code
    assert f(7, 2) == 3
    assert f.engine == "interpreter"
    assert f(8, 2) == 4
    assert (f.engine, f.why_not_jit) == ("jit", None)
    assert f(9, 2) == 4
    assert ctypes.string_at(f._body.code.address, 4) == bytes.fromhex("f30f1efa")  # endbr64
    assert (same is f, id(f), name()) == (True, number, f)
    with pytest.raises(ZeroDivisionError):
        f(1, 0)


@native
def test_lazy_functions_that_are_called_by_name_or_fail_are_compiled_too() -> None:
    f = exprjit.compile("x / y", lazy=True)
    with pytest.raises(ZeroDivisionError):
        f(1, 0)
    assert f(x=8, y=2) == 4
    assert f.engine == "jit"


@native
def test_lazy_compilation_within_the_first_call() -> None:
    f = exprjit.compile("x / y", lazy=True)
    assert f(Index(lambda: f(Index(lambda: f(64, 2)), 2)), 2) == 8
    assert f.engine == "jit"


@native
def test_a_lazy_function_that_is_never_called_costs_no_code() -> None:
    exprjit.compile("x", lazy=True)
    memory.collect()
    before = memory.statistics().used
    kept = [exprjit.compile(f"x + {number}", lazy=True) for number in range(100)]
    assert memory.statistics().used == before
    for f in kept:
        f(1)
        f(1)
    assert memory.statistics().used > before


@pytest.fixture
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(*targets: Callable[[], None]) -> None:
    """Run them at once; the first exception of any is raised."""
    errors: list[BaseException] = []

    def run(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@native
@pytest.mark.usefixtures("_quick_switches")
def test_lazy_from_two_threads() -> None:
    for number in range(60):
        f = exprjit.compile(f"x / y + {number}", lazy=True)
        barrier = threading.Barrier(3)

        def call(f: Any = f, number: int = number, barrier: Any = barrier) -> None:
            barrier.wait()
            for x in range(30):
                assert f(x, 1) == f(y=1, x=x) == x + number
                with pytest.raises(ZeroDivisionError):
                    f(x, 0)

        in_threads(call, call, call)
        assert f.engine == "jit"


@native
def test_verify_catches_a_wrong_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(s: Any, node: Any, register: int) -> None:
        scalar.arithmetic(s, "bitor", node, register)

    monkeypatch.setitem(scalar.LOWERINGS, "bitxor", wrong)
    f = exprjit.compile("x ^ y", verify=True)
    assert exprjit.compile("x ^ y")(3, 1) == 3  # nobody looks
    assert f(4, 1) == 5
    with pytest.raises(exprjit.VerificationError) as caught:
        f(3, y=1)
    assert isinstance(caught.value, AssertionError)
    message = str(caught.value)
    assert re.search(r"'x': 3, 'y': 1.* interpreter gives 2 .* machine code 3", message), message


@native
def test_verify_catches_a_missing_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SCALAR", scalar.SCALAR._replace(bail=lambda s, condition: None))
    f = exprjit.compile("x >> n", overflow="raise", verify=True)
    assert f(7, 1) == 3
    with pytest.raises(exprjit.VerificationError, match=r"OverflowError.* machine code 7"):
        f(7, 64)


# Life and death. -------------------------------------------------------------------------------


def test_weak_references(make: Make) -> None:
    f = make("x + 4")
    died: list[Any] = []
    alive = weakref.ref(f, died.append)
    table = weakref.WeakKeyDictionary({f: 1})
    assert alive() is f
    del f
    exprjit.cache_clear()
    assert (alive(), died, len(table)) == (None, [alive], 0)


def test_cycles_are_collected(make: Make) -> None:
    class Name(str):
        function: Any

    alive = []
    for _ in range(50):
        name = Name("f")
        name.function = f = make("x + 4", name=name)
        assert f(1) == 5
        alive.append(weakref.ref(f))
        del f, name
    exprjit.cache_clear()
    gc.collect()
    assert [reference() for reference in alive] == [None] * 50


@native
def test_the_code_goes_with_the_function(make: Make) -> None:
    f = make("x / y + 12345")
    f(2, 1)
    f(2, 1)
    if f._body.code is None:
        return
    code = f._body.code.owner
    address, size = code.address, code.size
    alive = weakref.ref(code)
    del f, code
    exprjit.cache_clear()
    assert alive() is None
    memory.collect()
    assert ctypes.string_at(address, size) == b"\xcc" * size


def resident() -> int:
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


#: `EXPRJIT_CYCLES=1000000 pytest tests/test_function.py -k does_not_grow` is the long way.
CYCLES = [
    pytest.param(2_000, id="2,000"),
    pytest.param(20_000, id="20,000", marks=pytest.mark.slow),
]
if "EXPRJIT_CYCLES" in os.environ:
    CYCLES = [pytest.param(int(os.environ["EXPRJIT_CYCLES"]), id="EXPRJIT_CYCLES")]


@native
@pytest.mark.parametrize("cycles", CYCLES)
def test_compiling_and_dropping_does_not_grow(cycles: int) -> None:
    """All formulas differ; some can fail, some have C code or were lazy, some are in cycles."""

    class Name(str):
        function: Any

    def cycle(number: int) -> None:
        f = exprjit.compile(f"x + {number}")
        assert f(1) == number + 1
        if number % 20 == 0:
            name = Name("f")
            name.function = g = exprjit.compile(f"x / y - {number}", name=name, lazy=True)
            assert g(6, 2) == g(6, 2) == 3 - number
            with pytest.raises(ZeroDivisionError):
                g(6, 0)
            assert f.address != f.checked_address

    def measure() -> tuple[int, int, int]:
        exprjit.cache_clear()
        gc.collect()
        memory.collect()
        return sys.getallocatedblocks(), memory.statistics().pages, resident()

    for number in range(1_500):
        cycle(number)
    blocks, pages, bytes_ = measure()
    for number in range(cycles):
        cycle(number)
        # The queue of the dead is drained on the way; the cache keeps a thousand functions alive.
        assert number % 1_000 or memory.statistics().pages <= pages + 120
    blocks_after, pages_after, bytes_after = measure()
    assert blocks_after - blocks < 2_000
    assert pages_after <= pages + memory.SPARE_PAGES
    assert bytes_after - bytes_ < 3_000_000


@native
@pytest.mark.usefixtures("_quick_switches")
def test_a_function_that_is_dropped_while_another_thread_runs_it(make: Make) -> None:
    for by_name in (False, True):
        entered, go_on = threading.Event(), threading.Event()

        def wait(entered: Any = entered, go_on: Any = go_on) -> int:
            entered.set()
            assert go_on.wait(30)
            return 21

        names = {"f": make("x * y / 1")}
        names["f"](1, 1)
        answers: list[int] = []

        def run(names: Any = names, answers: Any = answers, by_name: bool = by_name) -> None:
            f = names["f"]
            call = functools.partial(f, y=Index(wait)) if by_name else f
            arguments = (2,) if by_name else (2, Index(wait))
            del f
            answers.append(call(*arguments))

        def drop(names: Any = names, entered: Any = entered, go_on: Any = go_on) -> None:
            assert entered.wait(30)
            names.clear()
            gc.collect()
            for number in range(300):
                exprjit.compile(f"x / {number + 2}")
            memory.collect()
            go_on.set()

        in_threads(run, drop)
        assert answers == [42]


@native
@pytest.mark.usefixtures("_quick_switches")
def test_calls_while_others_compile_and_drop() -> None:
    """What is called and what comes and goes share pages, which are replaced all the time."""
    kept = [exprjit.compile(f"x / y * {number}") for number in range(50)]
    stop = threading.Event()
    done = [0, 0]

    def call(seed: int) -> None:
        try:
            while not stop.is_set() or not done[seed]:
                for number, f in enumerate(kept):
                    assert f(seed + 6, 2) == (seed + 6) // 2 * number
                with pytest.raises(ZeroDivisionError):
                    kept[1](1, 0)
                done[seed] += 1
        finally:
            stop.set()

    def churn(seed: int) -> None:
        try:
            batch: list[Any] = []
            for number in range(250):
                batch.append(exprjit.compile(f"x {'+-'[seed]} {number}", lazy=number % 3 == 0))
                assert batch[-1](1) == (1 + number, 1 - number)[seed]
                if len(batch) > 40:
                    del batch[::2]
                if number % 50 == 0:
                    memory.collect()
        finally:
            stop.set()

    in_threads(*[functools.partial(f, s) for f, s in itertools.product((call, churn), (0, 1))])
    assert min(done) > 0


def test_settings_are_read_once_per_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    f = exprjit.compile("popcount(x)")
    monkeypatch.setenv("EXPRJIT_CPU", "baseline")
    g = exprjit.compile("popcount(x)")
    assert str(g.graph).count("\n") > 5
    monkeypatch.delenv("EXPRJIT_CPU")
    assert str(g.graph).count("\n") > 5
    assert "popcount" in str(f.graph) or "popcnt" not in compiler.features()
    assert f(255) == g(255) == 8


def test_functions_are_made_by_compile_only() -> None:
    with pytest.raises(TypeError, match=r"made by exprjit\.compile"):
        exprjit.Function()


def test_a_short_text_cannot_make_a_huge_graph() -> None:
    text = "f0(v) = bitreverse(v ** 3) // v;"
    text += "".join(f"f{n}(v) = v > 1 ? f{n - 1}(v + 1) : f{n - 1}(v - 1);" for n in range(1, 11))
    f = exprjit.compile(text + "f10(x)", overflow="raise", limits="untrusted")
    assert f.engine == "interpreter"
    assert "nodes of the graph" in f.why_not_jit
    assert f(1) == f.formula.interpret(1)
    with pytest.raises(ValueError, match="nodes of the graph"):
        str(f.graph)
    with pytest.raises(exprjit.JitUnavailableError, match="nodes of the graph"):
        exprjit.compile("x * y // z", overflow="raise", limits={"graph": 5}, backend="jit")


HUGE = 10**5000  # its repr raises ValueError


@pytest.mark.parametrize(
    "options",
    [
        {"constants": HUGE},
        {"overflow": HUGE},
        {"limits": HUGE},
        {"limits": {"nodes": -HUGE}},
        {"params": HUGE},
        {"params": [HUGE]},
        {"backend": HUGE},
        {"hardening": HUGE},
        {"externs": HUGE},
        {"externs": []},
    ],
)
def test_wrong_options_are_named_whatever_they_are(options: dict[str, Any]) -> None:
    with pytest.raises(exprjit.ExprError):
        exprjit.compile("x", **options)


def test_the_values_of_evaluate_are_a_mapping() -> None:
    for wrong in (5, [1, 2], "x"):
        with pytest.raises(TypeError, match="a dict by name"):
            exprjit.evaluate("x", wrong)


@native
def test_a_lazy_function_that_must_have_machine_code_says_when_it_cannot() -> None:
    f = exprjit.compile("x + 4", lazy=True, backend="jit", limits={"code": 5})
    assert f(1) == 5
    with pytest.raises(exprjit.JitUnavailableError, match="bytes; at most 5"):
        f(1)


@native
def test_listings_take_time_in_proportion() -> None:
    f = exprjit.compile("x" + "".join(f" ^ (x + {n}) * y" for n in range(3_000)))
    start = time.process_time()
    assert len(f.asm) > 3_000
    assert time.process_time() - start < 20  # it was minutes when each line held its whole span


def test_a_deep_tree_can_be_copied() -> None:
    tree = exprjit.compile("-" * 5_000 + "x").ast
    assert copy.deepcopy(tree) is tree


@pytest.mark.parametrize("backend", ["jit", "interpreter"])
def test_an_index_that_changes_its_mind_is_asked_once(backend: str) -> None:
    if backend == "jit" and not HAVE_CODE:
        pytest.skip("no code memory")

    class Fickle:
        def __init__(self, *answers: int) -> None:
            self.answers = list(answers)

        def __index__(self) -> int:
            return self.answers.pop(0)

    f = exprjit.compile("x + y", backend=backend)
    with pytest.raises(OverflowError, match="'x' does not fit"):
        f(Fickle(2**70, 5), 1)
    fickle = Fickle(5, 6)
    with pytest.raises(TypeError, match="'y' must be an integer"):
        f(fickle, "a")
    assert fickle.answers == [6]


@native
def test_thousands_of_parameters_are_machine_code() -> None:
    names = [f"p{n}" for n in range(4_000)]
    f = exprjit.compile(" + ".join(names), backend="jit")
    assert f(*range(4_000)) == sum(range(4_000))

"""C functions in formulas: their types, and that each is called just when it should be."""

from __future__ import annotations

import ctypes
import gc
import pickle
import random
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from c_functions import Recorder

import exprjit
from exprjit.runtime import memory

pytestmark = pytest.mark.skipif(
    memory.policy()[0] == "none", reason=f"no code memory: {memory.policy()[1]}"
)

MIN, MAX = -(2**63), 2**63 - 1
EDGES = [0, 1, -1, 127, 128, -129, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 + 5, MIN, MAX]

TYPES: dict[Any, tuple[int, bool]] = {
    ctypes.c_int8: (8, True),
    ctypes.c_uint8: (8, False),
    ctypes.c_int16: (16, True),
    ctypes.c_uint16: (16, False),
    ctypes.c_int32: (32, True),
    ctypes.c_uint32: (32, False),
    ctypes.c_int64: (64, True),
    ctypes.c_uint64: (64, False),
}


def wrapped(value: int, bits: int = 64, signed: bool = True) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def through_buffer(*args: Any, **options: Any) -> exprjit.Function:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPRJIT_CALL", "ctypes")
        return exprjit.compile(*args, **options)


def checked(source: str, **options: Any) -> Callable[..., int]:
    """The checked C function; where it gives no answer, ValueError."""
    f = exprjit.compile(source, **options)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_long] * len(f.params))

    def call(*values: int) -> int:
        result = ctypes.c_long()
        if prototype(f.checked_address)(ctypes.addressof(result), *values):
            raise ValueError
        return result.value

    return call


ENGINES: dict[str, Callable[..., exprjit.Function]] = {
    "jit": partial(exprjit.compile, backend="jit"),
    "interpreter": partial(exprjit.compile, backend="interpreter"),
    "verify": partial(exprjit.compile, verify=True),
    "lazy": partial(exprjit.compile, lazy=True),
    "buffer": through_buffer,
}

Make = Callable[..., exprjit.Function]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Make:
    return ENGINES[request.param]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


# Types. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.__name__))
def test_arguments_are_narrowed_as_declared(make: Make, recorder: Recorder, kind: Any) -> None:
    """The whole register has the value, extended as the type's sign says."""
    bits, signed = TYPES[kind]
    f = make("g(x)", externs={"g": recorder.function(7, [kind])})
    for x in EDGES:
        narrow = wrapped(x, bits, signed)
        assert f(x) == wrapped(7 + 3 * narrow)
        assert recorder.taken() == [7, wrapped(narrow)]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.__name__))
def test_results_are_extended_as_declared(make: Make, recorder: Recorder, kind: Any) -> None:
    """What is above the result in its register is nobody's business."""
    bits, signed = TYPES[kind]
    f = make("g(x)", externs={"g": recorder.function(7, restype=kind)})
    for x in EDGES:
        assert f(x) == wrapped(wrapped(7 + 3 * x, bits, signed))


@pytest.mark.parametrize("count", range(7))
def test_up_to_six_arguments(make: Make, recorder: Recorder, count: int) -> None:
    g = recorder.function(1, [ctypes.c_long] * count)
    values = [MIN, 2, -3, 2**40, MAX, 6][:count]
    params = [f"p{n}" for n in range(count)]
    backwards = ", ".join(params[::-1])
    f = make(f"g({', '.join(params)}) - g({backwards})", params, externs={"g": g})
    first, last = (values[0], values[-1]) if count else (0, 0)
    assert f(*values) == wrapped(3 * first - 3 * last)
    assert recorder.taken() == [1, *values, 1, *values[::-1]]


def test_seven_arguments_are_too_many(recorder: Recorder) -> None:
    g = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 7)(1)
    with pytest.raises(TypeError, match="'g': an extern has at most 6 arguments, not 7"):
        exprjit.compile("g(1, 2, 3, 4, 5, 6, 7)", externs={"g": g})


def test_functions_of_the_c_library(make: Make) -> None:
    c = ctypes.CDLL(None)
    c.labs.argtypes, c.labs.restype = [ctypes.c_long], ctypes.c_long
    c.toupper.argtypes, c.toupper.restype = [ctypes.c_int], ctypes.c_int
    f = make("labs(x) + toupper('a')", externs={"labs": c.labs, "toupper": c.toupper})
    assert f(-5) == 5 + ord("A")


def test_wrong_externs() -> None:
    c = ctypes.CDLL(None)
    undeclared, double, pointer = ctypes.CDLL(None).labs, ctypes.CDLL(None).labs, c.strlen
    double.argtypes, double.restype = [ctypes.c_double], ctypes.c_long
    pointer.argtypes, pointer.restype = [ctypes.c_char_p], ctypes.c_long
    nothing, with_check = ctypes.CDLL(None).labs, ctypes.CDLL(None).labs
    nothing.argtypes, nothing.restype = [ctypes.c_long], None
    with_check.argtypes = [ctypes.c_long]
    with_check.errcheck = lambda result, function, arguments: result
    python = ctypes.PyDLL(None).labs
    python.argtypes = [ctypes.c_long]
    null = ctypes.CFUNCTYPE(ctypes.c_long)()
    for given, message in (
        (undeclared, "declares its argument types"),
        (double, "argument 1 is c_double"),
        (pointer, "argument 1 is c_char_p"),
        (nothing, "the result is None"),
        (with_check, "errcheck"),
        (python, "PyDLL"),
        (null, "null pointer"),
        (abs, "is a ctypes function, not <built-in function abs>"),
        (None, "is a ctypes function, not None"),
    ):
        with pytest.raises(exprjit.ExprTypeError, match=f"^'g': an extern.*{message}"):
            exprjit.compile("g(x)", externs={"g": given})
        with pytest.raises(exprjit.ExprTypeError, match=f"^an extern.*{message}"):
            exprjit.extern(given)


# Names. ----------------------------------------------------------------------------------------


def test_names(recorder: Recorder) -> None:
    externs = {"g": recorder.function(1)}
    for source, options, message in (
        ("g + g(x)", {}, "'g' is an extern, not a variable"),
        ("g(x, y)", {}, r"g\(\) takes 1 argument, not 2"),
        ("g()", {}, r"g\(\) takes 1 argument, not 0"),
        ("g = 5; g(g)", {}, "'g' is already an extern"),
        ("g(v) = v; g(5)", {}, "'g' is already an extern"),
        ("f(v) = h(v); f(1)", {}, "unknown function 'h'"),
        ("g(x)", {"constants": {"g": 5}}, "'g' is both an extern and a constant"),
        ("g(x)", {"params": ["g", "x"]}, "'g' is both an extern and a parameter"),
    ):
        with pytest.raises(exprjit.ExprError, match=message):
            exprjit.compile(source, externs=externs, **options)
    with pytest.raises(ValueError, match="'abs' is a function of the language"):
        exprjit.compile("abs(x)", externs={"abs": externs["g"]})
    with pytest.raises(exprjit.ExprNameError, match="unknown function 'gg'") as caught:
        exprjit.compile("gg(x)", externs=externs)
    assert "did you mean 'g'?" in str(caught.value)
    # A formal is another thing than a function of its name.
    assert exprjit.compile("h(g) = g(g); h(2)", externs=externs)() == 7


# Effects: in source order, once, only in the arm that is taken. --------------------------------


@pytest.fixture
def externs(recorder: Recorder) -> dict[str, Any]:
    return {
        "g": recorder.function(1),
        "h": recorder.function(2, [ctypes.c_long] * 2),
        "k": recorder.function(3, []),
    }


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        # In order, and equal calls are two calls.
        ("g(x) + g(x)", [1, 5, 1, 5]),
        ("g(y) - h(g(x), k())", [1, 7, 1, 5, 3, 2, 16, 3]),
        ("k() * 0 + (g(2) & 0)", [3, 1, 2]),
        # A binding is evaluated once, used or not; before what follows.
        ("d = g(x); d + d", [1, 5]),
        ("d = g(x); y", [1, 5]),
        ("d = g(x); e = g(y); e - d", [1, 5, 1, 7]),
        # A definition's body, for each call, after the arguments.
        ("f(v) = g(v) + g(1); f(x) + f(x)", [1, 5, 1, 1] * 2),
        ("f(v) = 5; f(g(x))", [1, 5]),
        ("f(v) = g(v); e(v) = f(v) - f(v); e(k())", [3, 1, 3, 1, 3]),
        # Only the arm that is taken.
        ("x < y ? g(x) : g(y)", [1, 5]),
        ("x > y ? g(x) : g(y)", [1, 7]),
        ("g(2) if x < y else g(3)", [1, 2]),
        ("0 ? g(x) : 3", []),
        ("1 ? 3 : g(x)", []),
        ("(x > y ? g(1) : k()) + (x > 4 ? k() : g(2))", [3, 3]),
        ("x < y ? (x < 0 ? g(1) : g(2)) : g(3)", [1, 2]),
        # What decides is evaluated, and no more.
        ("g(x) and g(y)", [1, 5, 1, 7]),
        ("x > y and g(y)", []),
        ("x < y or g(y)", []),
        ("not x or g(y) and g(x)", [1, 7, 1, 5]),
        ("g(x) < g(y) < g(1) < g(2)", [1, 5, 1, 7, 1, 1]),
        ("x > g(y) > k()", [1, 7]),
        # The condition too.
        ("g(-1) ? 1 : 2", [1, -1]),
        # Results that nobody needs.
        ("0 * g(x)", [1, 5]),
        ("g(x) - g(x)", [1, 5, 1, 5]),
        ("g(x) | -1", [1, 5]),
        ("h(g(x), g(y)) ** 0", [1, 5, 1, 7, 2, 16, 22]),
    ],
)
@pytest.mark.parametrize("overflow", ["wrap", "raise"])
def test_when_they_are_called(
    make: Make,
    recorder: Recorder,
    externs: dict[str, Any],
    source: str,
    calls: list[int],
    overflow: str,
) -> None:
    f = make(source, ["x", "y"], externs=externs, overflow=overflow)
    for _ in range(3):
        f(5, 7)
        assert recorder.taken() == calls


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        # Before the error, but not after it, and not again when the interpreter takes over.
        ("g(x) + 1 / y + g(1)", [1, 5]),
        ("1 / y + g(x)", []),
        ("g(1) / (g(x) * y)", [1, 1, 1, 5]),
        ("(g(x) + x) / y + (g(1) + x) / y", [1, 5]),
        ("d = x / y; g(x)", []),
        ("d = g(x); d / y + g(d)", [1, 5]),
        ("y ? g(1) : g(2) / y", [1, 2]),
        ("g(1) and g(2) / y and g(3)", [1, 1, 1, 2]),
        ("f(v) = g(v) / y; f(1) + f(2)", [1, 1]),
        ("x > 0 ? h(g(x), g(1) % y) : k()", [1, 5, 1, 1]),
        ("(x < 0 ? g(1) : g(2)) + (x > 0 ? g(3) : g(4)) + x / y", [1, 2, 1, 3]),
        ("(y ? k() : y) + (x ? g(2) : k()) + isqrt(-g(3))", [1, 2, 1, 3]),
    ],
)
def test_a_failure_replays(
    make: Make, recorder: Recorder, externs: dict[str, Any], source: str, calls: list[int]
) -> None:
    f = make(source, ["x", "y"], externs=externs)
    for _ in range(3):
        with pytest.raises((ZeroDivisionError, ValueError)):
            f(5, 0)
        assert recorder.taken() == calls


def test_the_error_names_the_values_that_were_returned(make: Make, externs: dict[str, Any]) -> None:
    f = make("g(x) / (y * g(y))", externs=externs)
    with pytest.raises(ZeroDivisionError, match=r"where g\(x\) = 16 and y \* g\(y\) = 0"):
        f(5, 0)


def test_calls_stay_in_order_with_checks_of_overflow(
    make: Make, recorder: Recorder, externs: dict[str, Any]
) -> None:
    """An overflow that is checked by the addition itself may not be checked behind a call."""
    f = make("d = x + y; g(x) + d", externs=externs, overflow="raise")
    assert f(1, 2) == 7
    assert recorder.taken() == [1, 1]
    with pytest.raises(OverflowError):
        f(MAX, 1)
    assert recorder.taken() == []


def test_values_live_across_calls(make: Make, recorder: Recorder) -> None:
    """More of them than there are registers that a call leaves alone."""
    g = recorder.function(1)
    names = [f"x{n}" for n in range(20)]
    terms = " + ".join(f"{n} * ({name} ^ g({n}))" for n, name in enumerate(names, 3))
    bindings = "; ".join(f"d{n} = {name} * {name} - {n}" for n, name in enumerate(names))
    total = " - ".join(f"d{n}" for n in range(20))
    f = make(f"{bindings}; ({terms}) / (x0 - 1) + {total}", names, externs={"g": g})
    values = [n * n + 2 for n in range(20)]
    products = [value * value - n for n, value in enumerate(values)]
    left = sum(n * (value ^ (1 + 3 * n)) for n, value in enumerate(values, 3)) // (values[0] - 1)
    assert f(*values) == left + products[0] - sum(products[1:])
    calls = [number for n in range(3, 23) for number in (1, n)]
    assert recorder.taken() == calls
    with pytest.raises(ZeroDivisionError):
        f(1, *values[1:])
    assert recorder.taken() == calls


def test_a_thousand_calls(make: Make, recorder: Recorder) -> None:
    f = make(" + ".join(["g(x)"] * 1_000) + " + 1 / y", externs={"g": recorder.function(1)})
    assert f(0, 1) == 1_001
    assert len(recorder.taken()) == 2_000
    with pytest.raises(ZeroDivisionError):
        f(0, 0)
    assert len(recorder.taken()) == 2_000


# Random programs: the same calls with the same arguments, and the same answer or error. ---------


class Writer:
    """Random programs that call C functions wherever they can."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = ["x", "y", "z"]
        self.functions = [("g", 1), ("h", 2), ("k", 0), ("i8", 1)]

    def program(self) -> str:
        statements = []
        for name in ("a", "b")[: self.random.randrange(3)]:
            if self.random.random() < 0.5:
                outside, self.names = self.names, ["v", "x"]
                statements.append(f"f{name}(v) = {self.expression(3)}")
                self.names = outside
                self.functions.append((f"f{name}", 1))
            else:
                statements.append(f"{name} = {self.expression(3)}")
                self.names.append(name)
        return "; ".join([*statements, self.expression(self.random.randrange(2, 6))])

    def expression(self, depth: int) -> str:
        pick = self.random.random()
        if depth == 0 or pick < 0.1:
            return self.random.choice([*self.names, "0", "1", "-1", "3", "2**62"])
        a, b, c = (self.expression(depth - 1) for _ in range(3))
        if pick < 0.45:
            name, count = self.random.choice(self.functions)
            return f"{name}({', '.join([a, b, c][:count])})"
        if pick < 0.75:
            operator = self.random.choice("+ - * / // % %% & | ^ << >> == < <= **".split())
            return f"({a} {operator} {b})"
        return self.random.choice(
            [f"({a} ? {b} : {c})", f"({a} and {b})", f"({a} or {b})", f"({a} < {b} <= {c})"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("overflow", ["wrap", "raise"])
@pytest.mark.parametrize("seed", range(4))
def test_random_programs(recorder: Recorder, overflow: str, seed: int) -> None:
    externs = {
        "g": recorder.function(1, [ctypes.c_int32], ctypes.c_int16),
        "h": recorder.function(2, [ctypes.c_long, ctypes.c_uint8]),
        "k": recorder.function(3, [], ctypes.c_int8),
    }
    rows = [(0, 0, 0), (1, 2, 3), (-1, 5, 0), (MAX, 1, -1), (7, MIN, 2)]
    failures = calls = 0
    for number in range(60):
        source = Writer(seed * 1_000 + number).program()

        def outcome(f: Callable[..., int], row: tuple[int, ...]) -> tuple[object, list[int]]:
            try:
                answer: object = f(*row)
            except exprjit.ExprError as error:
                answer = str(error)
            return answer, recorder.taken()

        names = ["x", "y", "z"]
        options: dict[str, Any] = {"params": names, "externs": externs, "overflow": overflow}
        reference = exprjit.compile(source, backend="interpreter", **options)
        others = {name: ENGINES[name](source, **options) for name in ("jit", "verify", "buffer")}
        check = checked(source, **options)
        for row in rows:
            wanted = outcome(reference, row)
            failures += isinstance(wanted[0], str)
            calls += len(wanted[1])
            for name, f in others.items():
                assert outcome(f, row) == wanted, (name, source, row)
            # C calls what there was to call before the failure.
            try:
                answer: object = check(*row)
            except ValueError:
                answer = wanted[0] if isinstance(wanted[0], str) else None
            assert (answer, recorder.taken()) == wanted, ("checked", source, row)
    assert failures > 20
    assert calls > 500


# Pure functions. -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("g(x) + g(x) * g(x)", 1),
        ("0 * g(x)", 0),
        ("d = g(x); y", 0),
        ("f(v) = g(v); f(x) + f(x)", 1),
        ("g(x) + (y ? g(x) : 1)", 1),
        # Where it is not taken it is not called all the same.
        ("y > 100 ? g(x) : g(y)", 1),
    ],
)
def test_pure_functions_may_be_called_less(recorder: Recorder, source: str, calls: int) -> None:
    g = recorder.function(1)
    pure = exprjit.compile(source, ["x", "y"], externs={"g": exprjit.extern(g, pure=True)})
    plain = exprjit.compile(source, ["x", "y"], externs={"g": g}, backend="interpreter")
    assert pure.engine == "jit"
    wanted = plain(5, 7)
    at_most = len(recorder.taken())
    assert pure(5, 7) == wanted
    taken = len(recorder.taken())
    assert taken == 2 * calls <= at_most


def test_pure_functions_are_called_again_by_the_interpreter(recorder: Recorder) -> None:
    g = exprjit.extern(recorder.function(1), pure=True)
    h = recorder.function(2)
    f = exprjit.compile("h(g(x)) + h(y) / y", externs={"g": g, "h": h})
    with pytest.raises(ZeroDivisionError):
        f(5, 0)
    # The first by the machine code, then only the pure one once more.
    assert recorder.taken() == [1, 5, 2, 16, 2, 0, 1, 5]


# As values. ------------------------------------------------------------------------------------


def test_functions_with_externs_as_values(recorder: Recorder) -> None:
    g = recorder.function(1)
    f = exprjit.compile("g(x)", externs={"g": g})
    assert exprjit.compile("g(x)", externs={"g": g}) is f
    assert exprjit.compile("g(x)", externs={"g": exprjit.extern(g)}) is f
    assert exprjit.compile("g(x)", externs={"g": exprjit.extern(g, pure=True)}) != f
    assert exprjit.compile("g(x)", externs={"g": recorder.function(2)}) != f
    assert exprjit.compile("g(x)", externs=f.externs) is f
    for what in (f, f.formula):
        with pytest.raises(TypeError, match=r"calls C functions \('g'\) cannot be pickled"):
            pickle.dumps(what)
    assert f.bind(x=2)() == 7
    assert "call g x" in f.dump("graph")
    assert "g" in f.dump("asm")


def test_the_function_keeps_its_externs_alive(make: Make, recorder: Recorder) -> None:
    g = recorder.function(1)
    alive = weakref.ref(g)
    f = make("g(x)", externs={"g": g})
    del g
    gc.collect()
    assert alive() is not None
    assert f(1) == 4
    del f
    exprjit.cache_clear()
    gc.collect()
    assert alive() is None


def test_python_functions_behind_c_functions(child: Callable[..., str]) -> None:
    """They may call and compile functions themselves, this one too, and drop it."""
    out = child(
        """
        import ctypes, gc, exprjit
        prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)
        depth = []

        def down(x):
            global f
            depth.append(x)
            exprjit.compile(f"x + {x}")
            if x == 0:
                f = None
                exprjit.cache_clear()
                gc.collect()
                return 100
            return f(x - 1)

        externs = {"g": prototype(down)}
        f = exprjit.compile("g(x) + x / y", ["x"], constants={"y": 1}, externs=externs)
        print(f.engine, f(50), depth == list(range(50, -1, -1)))
        """
    )
    assert out == f"jit {100 + sum(range(51))} True\n"

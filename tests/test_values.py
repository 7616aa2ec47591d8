"""Functions as values: compared, hashed, cached, copied, pickled, partly applied."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import exprjit
from exprjit import function
from exprjit.cache import Cache
from exprjit.runtime import memory

#: Each differs from all others in source or options.
DIFFERENT: list[tuple[str, dict[str, Any]]] = [
    ("x + 4", {}),
    ("x + y", {}),
    ("x + y", {"params": ["y", "x"]}),
    ("x + y", {"params": ["x", "y", "z"]}),
    ("x + y", {"overflow": "raise"}),
    ("x + y", {"constants": {"y": 4}}),
    ("x + y", {"constants": {"y": 5}}),
    ("x + y", {"constants": {"y": 4, "z": 1}}),
    ("x + y", {"name": "g"}),
    ("x + y", {"limits": "untrusted"}),
    ("x + y", {"limits": {"nodes": 100}}),
    ("x + y", {"backend": "interpreter"}),
    ("x + y", {"verify": True}),
    ("x + y", {"lazy": True}),
]

each = pytest.mark.parametrize(
    ("source", "options"), DIFFERENT, ids=lambda part: repr(part) if part else ""
)


@each
def test_equal_source_and_options_are_equal(source: str, options: dict[str, Any]) -> None:
    f = exprjit.compile(source, **options)
    exprjit.cache_clear()
    g = exprjit.compile(source, **options)
    assert f is not g
    assert f == g
    assert (f != g) is False
    assert hash(f) == hash(g)
    assert f.formula == g.formula
    assert hash(f.formula) == hash(g.formula)
    assert {f: 1}[g] == 1
    assert f != source
    assert f.formula != source


def test_others_are_not_equal() -> None:
    functions = [exprjit.compile(source, **options) for source, options in DIFFERENT]
    for f, g in itertools.combinations(functions, 2):
        assert f != g
    assert len(set(functions)) == len(functions)


def test_the_order_of_constants_makes_no_difference() -> None:
    f = exprjit.compile("a - b", constants={"a": 1, "b": 2})
    assert exprjit.compile("a - b", constants={"b": 2, "a": 1}) is f


# The cache. ------------------------------------------------------------------------------------


@each
def test_the_same_again_is_the_same_function(source: str, options: dict[str, Any]) -> None:
    f = exprjit.compile(source, **options)
    before = exprjit.cache_info()
    assert exprjit.compile(source, **options) is f
    hits, misses, _, size = exprjit.cache_info()
    assert (hits, misses, size) == (before.hits + 1, before.misses, before.currsize)


def test_a_second_compile_parses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    f = exprjit.compile("x + 4")
    monkeypatch.setattr(function, "Formula", None)
    assert exprjit.compile("x + 4") is f


def test_wrong_options_are_wrong_the_second_time_too() -> None:
    """Though 1.0 == 1 == True, and though tuple("xy") is what params=("x", "y") is kept under."""
    exprjit.compile("x + K", constants={"K": 1})
    exprjit.compile("x - y", params=("x", "y"))
    for source, options in (
        ("x + K", {"constants": {"K": 1.0}}),
        ("x - y", {"params": "xy"}),
        ("x - y", {"params": {"x", "y"}}),
        (["x - y"], {}),
        ("x - y", {"name": ["f"]}),
        ("x - y", {"limits": {"nodes": 2e6}}),
    ):
        with pytest.raises(exprjit.ExprError):
            exprjit.compile(source, **options)  # type: ignore[arg-type]
    assert exprjit.compile("x + K", constants={"K": True}) is exprjit.compile(
        "x + K", constants={"K": 1}
    )


def test_settings_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    f = exprjit.compile("x + 4")
    monkeypatch.setenv("EXPRJIT_CPU", "baseline")
    g = exprjit.compile("x + 4")
    monkeypatch.setenv("EXPRJIT_CALL", "ctypes")
    h = exprjit.compile("x + 4")
    monkeypatch.setenv("EXPRJIT_DISABLE_JIT", "1")
    interpreted = exprjit.compile("x + 4")
    assert len({id(one) for one in (f, g, h, interpreted)}) == 4
    assert f == g == h == interpreted
    assert interpreted.why_not_jit == "EXPRJIT_DISABLE_JIT=1"
    monkeypatch.delenv("EXPRJIT_DISABLE_JIT")
    assert exprjit.compile("x + 4") is h


@pytest.mark.skipif(memory.policy()[0] == "none", reason="no code memory")
def test_what_failed_for_a_shortage_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exprjit.compile("x")  # the native type, which is made once
    monkeypatch.setattr(memory._allocator, "_most", 0)
    big = "x + " * 3_000 + "x * x"
    f = exprjit.compile(big)
    assert "ENOMEM" in str(f.why_not_jit)
    monkeypatch.undo()
    assert exprjit.compile(big).engine == "jit"


def test_the_cache_is_bounded() -> None:
    size = exprjit.cache_info().maxsize
    functions = [weakref.ref(exprjit.compile(f"x + {n}", backend="interpreter")) for n in range(3)]
    kept = functions[1]()
    for n in range(3, size + 1):
        exprjit.compile(f"x + {n}", backend="interpreter")
        exprjit.compile("x + 2", backend="interpreter")
    gc.collect()
    # The first is the one that was not used for longest.
    assert [reference() is None for reference in functions] == [True, False, False]
    assert exprjit.cache_info().currsize == size
    exprjit.compile("y", backend="interpreter")
    del kept
    gc.collect()
    assert functions[1]() is None
    assert functions[2]() is not None
    exprjit.cache_clear()
    gc.collect()
    assert functions[2]() is None
    assert exprjit.cache_info() == (0, 0, size, 0)


def test_the_cache_is_bounded_in_weight_too() -> None:
    cache: Cache[str] = Cache(maxsize=100, most=10)
    for key, weight in (("a", 4), ("b", 5), ("c", 3), ("heavy", 11)):
        assert cache.add(key, key.upper(), weight) == key.upper()
    assert [cache.get(key) for key in ("a", "b", "c", "heavy")] == [None, "B", "C", None]
    assert cache.add("b", "another", 1) == "B"
    assert cache.info() == (2, 2, 100, 2)
    cache.add("d", "D", 10)
    assert cache.info().currsize == 1


def test_a_fork_while_another_thread_is_at_the_cache(child: Callable[..., str]) -> None:
    """Nobody gives its lock back in the child."""
    program = """
        import os, threading, warnings
        import exprjit
        from exprjit import function
        from exprjit.runtime.turn import Claim

        warnings.simplefilter("ignore", DeprecationWarning)
        f = exprjit.compile("x + 4")
        taken, done = threading.Event(), threading.Event()

        def hold():
            claim = Claim(function._cache._turn)
            claim.take()
            taken.set()
            done.wait()
            claim.give_back()

        threading.Thread(target=hold).start()
        taken.wait()
        if not os.fork():
            g = exprjit.compile("x + 4")
            os._exit(g(2) + (exprjit.compile("x + 4") is g) + f(1) - 5)
        done.set()
        print(os.waitstatus_to_exitcode(os.wait()[1]), exprjit.compile("x + 4") is f)
    """
    assert child(program, timeout=20) == "7 True\n"


def test_threads_that_compile_the_same_get_the_same() -> None:
    for n in range(20):
        barrier = threading.Barrier(4)
        found = []

        def work(n: int = n, barrier: threading.Barrier = barrier, found: Any = found) -> None:
            barrier.wait()
            found.append(exprjit.compile(f"x * {n} + y"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(f) for f in found}) == 1


# Copies. ---------------------------------------------------------------------------------------


@each
def test_pickled_by_source_and_options(source: str, options: dict[str, Any]) -> None:
    f = exprjit.compile(source, **options)
    arguments = range(3, 3 + len(f.params))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for what in (f, f.formula):
            text = pickle.dumps(what, protocol)
            assert source.encode() in text
            assert len(text) < 300
            assert pickle.loads(text) == what
            exprjit.cache_clear()
            again = pickle.loads(text)
            assert again == what
            assert again is not what
    g = pickle.loads(pickle.dumps(f))
    assert g(*arguments) == f(*arguments)
    assert (g.params, g.__name__, g.formula.limits) == (f.params, f.__name__, f.formula.limits)
    assert copy.copy(f) is copy.deepcopy(f) is f
    assert copy.copy(f.formula) is copy.deepcopy(f.formula) is f.formula


def test_a_pickled_function_in_a_new_process(child: Callable[..., str]) -> None:
    f = exprjit.compile("x / y + K", constants={"K": 4}, overflow="raise", name="g")
    program = f"""
        import pickle
        f = pickle.loads({pickle.dumps(f)!r})
        print(f(7, y=2), f)
        try:
            f(7, 0)
        except ZeroDivisionError as error:
            print(str(error).splitlines()[0])
    """
    seven, zero = child(program).splitlines()
    assert seven == f"7 {f!r}"
    assert zero == "division by zero, where x = 7 and y = 0"


def test_a_deep_formula_is_pickled_too() -> None:
    f = exprjit.compile("(" * 5_000 + "x" + " + 1)" * 5_000)
    _ = f.ast
    for what in (f, f.formula):
        assert pickle.loads(pickle.dumps(what)) == what


def test_cloudpickle(child: Callable[..., str]) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    f = exprjit.compile("x + 4")
    text = cloudpickle.dumps(lambda x: 2 * f(x))
    assert child(f"import pickle; print(pickle.loads({text!r})(3))") == "14\n"


# Partial application. --------------------------------------------------------------------------


def test_bind() -> None:
    f = exprjit.compile("x * y + z % y")
    g = f.bind(y=3)
    assert g.params == ("x", "z")
    assert g.constants == {"y": 3}
    assert g(5, 7) == g(x=5, z=7) == f(5, 3, 7) == 16
    # It is compiled for that value: nothing can fail any more.
    assert (f.total, g.total) == (False, True)
    assert f.bind() == f
    assert f.bind(z=1, x=True).params == ("y",)
    assert g.bind(x=5).bind(z=7)() == 16
    assert f.bind(y=3) is g
    with pytest.raises(ZeroDivisionError):
        f.bind(y=0)(1, 2)


def test_bind_keeps_the_options() -> None:
    f = exprjit.compile(
        "x + y + K",
        ["unused", "y", "x"],
        overflow="raise",
        constants={"K": 2**62},
        limits={"nodes": 77},
        name="total",
        verify=True,
    )
    g = f.bind(y=1)
    assert g.params == ("unused", "x")
    assert (g.overflow, g.constants, g.formula.limits.nodes, g.__name__) == (
        "raise",
        {"K": 2**62, "y": 1},
        77,
        "total",
    )
    assert type(g) is type(f)
    with pytest.raises(OverflowError):
        g(0, 2**62)
    assert f.bind(unused=1).params == ("y", "x")


def test_bind_and_its_errors() -> None:
    f = exprjit.compile("x + self", name="total")
    assert f.bind(self=4)(2) == 6
    for values, kind, message in (
        ({"z": 1}, TypeError, r"total.bind\(\) got an unexpected keyword argument 'z'"),
        ({"x": 2**63}, OverflowError, "the argument 'x' does not fit a 64-bit long"),
        ({"x": 0.5}, TypeError, "the argument 'x' must be an integer, not float"),
    ):
        with pytest.raises(kind, match=message) as caught:
            f.bind(**values)  # type: ignore[arg-type]
        assert isinstance(caught.value, exprjit.ExprError)
    with pytest.raises(TypeError):
        f.bind(3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        f.bind(x=1).bind(x=2)

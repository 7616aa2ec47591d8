"""Natively called objects: calls of every kind, reference counts, the collector, what is refused.

The entries here are written by hand: `x + 4`, and `x - y` that bails where x == y.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import inspect
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pythons import DEBUG

from exprjit.runtime import memory, pycall
from exprjit.runtime import stubs as stubs_module
from exprjit.runtime.pycall import NativeType, PyCallError, Stubs, native_type, symbols
from exprjit.runtime.stubs import assemble, call
from exprjit.x86.assembler import Label, Line, encode, line, place
from exprjit.x86.registers import CC_E, CC_NE, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Mem

pytestmark = pytest.mark.skipif(
    memory.policy()[0] == "none", reason=f"no code memory: {memory.policy()[1]}"
)

MIN, MAX = -(2**63), 2**63 - 1


class Base:
    """What natively called objects of these tests can do besides."""

    __slots__ = ()

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(lambda x: None)

    @property
    def twice(self) -> Any:
        return self.note * 2  # type: ignore[attr-defined]

    def method(self, other: int) -> int:
        return self(1) + other  # type: ignore[operator, no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return revive, (self.note,)  # type: ignore[attr-defined]


@functools.cache
def made() -> NativeType:
    return native_type("tests.Native", Base, ("slow", "bail", "code", "note"), "Adds.")


# The entries.


def entry(stubs: Stubs, count: int) -> bytes:
    """`x + 4` (count 1), or `x - y` that bails where x == y (count 2)."""
    c = symbols()
    slow, failed, bail, out = map(Label, "slow failed bail out".split())
    lines: list[Line] = [
        line("endbr64"),
        line("test_rr", RCX, RCX),
        line("jcc_j", CC_NE, slow),
        line("mov_rr", RAX, RDX),
        line("btr_ri", RAX, 63),
        line("cmp_ri", RAX, count),
        line("jcc_j", CC_NE, slow),
        # [rsp]: values; [rsp + 16]: rbx; then nargsf, args, callable.
        line("push_r", RDI),
        line("push_r", RSI),
        line("push_r", RDX),
        line("push_r", RBX),
        line("sub_ri", RSP, 24),
        line("mov_rr", RBX, RSI),
    ]
    for number in range(count):
        plain = Label("plain")
        lines += [
            line("mov_rm", RDI, Mem(RBX, disp=8 * number)),
            *call(c["PyLong_AsLong"]),
            line("mov_mr", Mem(RSP, disp=8 * number), RAX),
            line("cmp_ri", RAX, -1),
            line("jcc_j", CC_NE, plain),
            *call(c["PyErr_Occurred"]),
            line("test_rr", RAX, RAX),
            line("jcc_j", CC_NE, failed),
            place(plain),
        ]
    lines.append(line("mov_rm", RDI, Mem(RSP)))
    if count == 1:
        lines.append(line("add_ri", RDI, 4))
    else:
        lines += [line("sub_rm", RDI, Mem(RSP, disp=8)), line("jcc_j", CC_E, bail)]
    restore = [line("add_ri", RSP, 24), line("pop_r", RBX)]
    arguments = [line("pop_r", RDX), line("pop_r", RSI), line("pop_r", RDI)]
    lines += [
        *restore,
        line("add_ri", RSP, 24),
        line("mov_ri", RAX, c["PyLong_FromLong"]),
        line("jmp_r", RAX),
        place(failed),
        *restore,
        *arguments,
        line("xor32_rr", RCX, RCX),
        line("mov_ri", RAX, stubs.failed),
        line("jmp_r", RAX),
        place(slow),
        line("mov_ri", RAX, stubs.slow),
        line("jmp_r", RAX),
        place(bail),
        line("mov_rm", RDI, Mem(RSP, disp=48)),
        line("mov_rr", RSI, RSP),
        line("mov_ri", RDX, count),
        *call(stubs.bail),
        place(out),
        *restore,
        line("add_ri", RSP, 24),
        line("ret"),
    ]
    return encode(lines).code


@functools.cache
def stubs_by_tuple() -> tuple[memory.Code, Stubs]:
    """The stubs as Python 3.10 needs them."""
    code, at = assemble({n: a for n, a in symbols().items() if n != "PyObject_Vectorcall"})
    owner = memory.install(code)
    return owner, Stubs(*(owner.address + offset for offset in at))


KINDS = ["vectorcall", "tuple"]


@pytest.fixture(params=KINDS)
def stubs(request: pytest.FixtureRequest) -> Stubs:
    return pycall.stubs() if request.param == "vectorcall" else stubs_by_tuple()[1]


def slow(*args: Any, **keywords: Any) -> Any:
    """A fallback that shows what it got."""
    return "slow", args, keywords


def bail(*values: Any) -> Any:
    return "bail", values


def function(
    stubs: Stubs,
    count: int = 1,
    slow: Callable[..., Any] = slow,
    bail: Callable[..., Any] = bail,
    note: Any = None,
) -> Any:
    code = memory.install(entry(stubs, count))
    return made().new(code.address, slow, bail, code, note)


def revive(note: Any) -> Any:
    return function(pycall.stubs(), note=note)


class Index:
    """Not an int, but converts to one, or raises."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        if callable(self.value):
            return self.value()
        return self.value


class Stop(BaseException):
    """As KeyboardInterrupt, but pytest lets it be."""


# Calls.


@pytest.mark.parametrize("x", [0, 1, -1, -5, -4, True, 2**31, 2**62, MIN, MAX - 4, Index(38)])
def test_fast(stubs: Stubs, x: Any) -> None:
    answer = function(stubs)(x)
    assert type(answer) is int
    assert answer == x.__index__() + 4


def test_wrapping(stubs: Stubs) -> None:
    assert function(stubs)(MAX) == MIN + 3


@pytest.mark.parametrize(
    ("args", "keywords"),
    [
        ((), {}),
        ((1, 2), {}),
        ((), {"x": 1}),
        ((1,), {"x": 2}),
        ((1, 2, 3), {"x": 1, "y": 2, "zzz": None}),
        (tuple(range(300)), {f"k{number}": number for number in range(50)}),
        ((2**63,), {}),
        ((MIN - 1,), {}),
        ((10**400,), {}),
        ((2.0,), {}),
        (("2",), {}),
        ((None,), {}),
        (([],), {}),
        ((Index(2**64),), {}),
        ((Index("no int"),), {}),
        ((Index(TypeError("mine")),), {}),
        ((Index(OverflowError("mine")),), {}),
        ((Index(UnicodeError("mine")),), None),
        ((Index(Stop()),), None),
        ((Index(ZeroDivisionError()),), None),
        ((Index(MemoryError()),), None),
    ],
)
def test_slow(stubs: Stubs, args: tuple[Any, ...], keywords: dict[str, Any] | None) -> None:
    f = function(stubs)
    if keywords is None:
        with pytest.raises(type(args[0].value)) as caught:
            f(*args)
        assert caught.value is args[0].value
    else:
        assert f(*args, **keywords) == ("slow", args, keywords)
    assert f(1) == 5


def test_the_fallback_raises(stubs: Stubs) -> None:
    def slow(*args: Any, **keywords: Any) -> Any:
        raise Stop(args, keywords)

    f = function(stubs, slow=slow)
    with pytest.raises(Stop) as caught:
        f("a", b="c")
    assert caught.value.args == (("a",), {"b": "c"})
    # The first exception was cleared, not chained.
    assert caught.value.__context__ is None


def test_a_field_that_cannot_be_called(stubs: Stubs) -> None:
    f = function(stubs, 2, slow=3, bail=4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'int' object is not callable"):
        f()
    with pytest.raises(TypeError, match="'int' object is not callable"):
        f(1, 1)


def test_methods_as_fallbacks(stubs: Stubs) -> None:
    """A bound method borrows the place before the arguments, where the caller allows it."""

    class Owner:
        def slow(self, *args: Any, **keywords: Any) -> Any:
            return self, args, keywords

    owner = Owner()
    f = function(stubs, slow=owner.slow)
    assert f(1, 2, a=3) == (owner, (1, 2), {"a": 3})
    assert list(map(f, "a")) == [(owner, ("a",), {})]
    assert function(stubs, slow="{} {a}".format)("b", a="c") == "b c"


@pytest.mark.parametrize("pair", [(1, 1), (-1, -1), (MIN, MIN), (MAX, MAX), (Index(7), True)])
def test_bail(stubs: Stubs, pair: tuple[Any, Any]) -> None:
    f = function(stubs, 2)
    x, y = (value.__index__() for value in pair)
    if x == y:
        assert f(*pair) == ("bail", (x, y))
    else:
        assert f(*pair) == x - y
    assert f(3, 5) == -2
    assert f(5) == ("slow", (5,), {})


def test_bail_raises(stubs: Stubs) -> None:
    def bail(*values: int) -> Any:
        raise ZeroDivisionError(values)

    f = function(stubs, 2, bail=bail)
    with pytest.raises(ZeroDivisionError) as caught:
        f(1, 1)
    assert caught.value.args == ((1, 1),)


def test_the_second_argument_fails(stubs: Stubs) -> None:
    f = function(stubs, 2)
    assert f(1, "a") == ("slow", (1, "a"), {})
    with pytest.raises(Stop):
        f(1, Index(Stop()))


def test_a_call_within_a_conversion(stubs: Stubs) -> None:
    f = function(stubs)
    assert f(Index(lambda: f(Index(lambda: f(1))))) == 13


def test_endless_recursion_is_an_error(stubs: Stubs) -> None:
    f = function(stubs, slow=lambda *args: f(*args))
    with pytest.raises(RecursionError):
        f("a")
    g = function(stubs)
    itself = Index(lambda: g(itself))
    with pytest.raises(RecursionError):
        g(itself)
    h = function(stubs, 2, bail=lambda x, y: h(x, y))
    with pytest.raises(RecursionError):
        h(1, 1)


def test_the_last_name_is_dropped_during_the_call(stubs: Stubs) -> None:
    names = {"f": function(stubs)}

    def drop() -> int:
        names.clear()
        gc.collect()
        memory.collect()
        return 1

    assert names["f"](Index(drop)) == 5
    names = {"f": function(stubs, slow=lambda *args: drop())}
    assert names["f"](1, 2) == 1
    names = {"f": function(stubs, 2, bail=lambda *args: drop())}
    assert names["f"](1, 1) == 1


def test_the_ways_of_calling(stubs: Stubs) -> None:
    f = function(stubs)
    assert callable(f)
    assert list(map(f, range(3))) == [4, 5, 6]
    assert sorted([3, 1, 2], key=f) == [1, 2, 3]
    assert functools.partial(f, 2)() == 6
    assert functools.partial(f, b=2)(1) == ("slow", (1,), {"b": 2})
    assert functools.reduce(function(stubs, 2), [10, 3, 2]) == 5
    assert f(*[2]) == f.__call__(2) == type(f).__call__(f, 2) == 6
    assert f(**{"a": 1}) == ("slow", (), {"a": 1})
    assert f.method(10) == 15
    assert max([1, 5, 3], key=f) == 5

    class Owner:
        attribute = f

    assert Owner().attribute(2) == 6

    @functools.wraps(f)
    def wrapped(x: int) -> Any:
        return f(x)

    assert wrapped.__wrapped__ is f  # type: ignore[attr-defined]


def test_calls_from_many_threads(stubs: Stubs) -> None:
    f = function(stubs, 2)
    wrong: list[Any] = []

    def run(seed: int) -> None:
        for number in range(3000):
            if f(number, seed) != (number - seed or ("bail", (seed, seed))):
                wrong.append(number)
            if f(number) != ("slow", (number,), {}):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# References and memory.


def raising(*args: Any, **keywords: Any) -> Any:
    raise ValueError


ARGUMENTS: list[tuple[int, tuple[Any, ...], dict[str, Any]]] = [
    (1, (12345,), {}),
    (1, (Index(12345),), {}),
    (1, (object(),), {}),
    (1, (10**30,), {}),
    (1, (object(), object()), {}),
    (1, (object(), [1]), {"a": object(), "b": [2]}),
    (1, (Index(Stop()),), {}),
    (1, (Index(functools.partial(int, [])),), {}),  # a new TypeError each time
    (2, (12345, 12345), {}),
    (2, (12345, Index(12345)), {}),
]


@pytest.mark.parametrize("fallback", [slow, raising])
@pytest.mark.parametrize("case", ARGUMENTS)
def test_reference_counts(
    stubs: Stubs, case: tuple[int, tuple[Any, ...], dict[str, Any]], fallback: Any
) -> None:
    count, args, keywords = case
    f = function(stubs, count, slow=fallback, bail=fallback)
    watched = [f, fallback, *args, *keywords, *keywords.values()]

    def run(times: int) -> None:
        for _ in range(times):
            try:
                f(*args, **keywords)
            except (ValueError, Stop, TypeError) as error:
                error.__traceback__ = None

    run(100)
    before = [sys.getrefcount(value) for value in watched], sys.getallocatedblocks()
    run(3_000)
    after = [sys.getrefcount(value) for value in watched], sys.getallocatedblocks()
    assert before[0] == after[0]
    assert after[1] - before[1] < 500


def test_a_hundred_thousand_calls_take_no_memory(stubs: Stubs) -> None:
    f, g = function(stubs), function(stubs, 2)
    name = Index(5)
    counts = [sys.getrefcount(value) for value in (f, g, slow, bail, name, None)]
    tracemalloc.start()
    try:
        for number in range(100_000):
            f(number)
            if number % 10 == 0:
                f(name)
                f(number, b=name)
                g(number, number)
            if number == 1000:
                start = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - start < 20_000
    finally:
        tracemalloc.stop()
    after = [sys.getrefcount(value) for value in (f, g, slow, bail, name, None)]
    assert all(abs(a - b) < 20 for a, b in zip(counts, after, strict=True))


def resident() -> int:
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_making_and_dropping_does_not_grow() -> None:
    native = made()
    owner = memory.install(entry(pycall.stubs(), 1))
    values = [slow, bail, owner, ["note"]]
    counts = [sys.getrefcount(value) for value in [*values, native.type]]
    for _ in range(5_000):
        weakref.ref(native.new(owner.address, *values))
    blocks, bytes_ = sys.getallocatedblocks(), resident()
    for _ in range(200_000):
        native.new(owner.address, *values)
    assert sys.getallocatedblocks() - blocks < 500
    assert resident() - bytes_ < 2_000_000
    assert counts == [sys.getrefcount(value) for value in [*values, native.type]]


def test_what_the_collector_sees() -> None:
    note = ["note"]
    f = function(pycall.stubs(), note=note)
    assert gc.is_tracked(f)
    assert sorted(map(id, gc.get_referents(f))) == sorted(
        map(id, [slow, bail, f.code, note, type(f)])
    )
    assert any(f is referrer for referrer in gc.get_referrers(note))


@pytest.mark.parametrize("field", ["slow", "bail", "note"])
def test_cycles_are_collected(field: str) -> None:
    gc.collect()
    queued = memory.statistics().queued
    alive = []
    for _ in range(100):
        cell: list[Any] = []
        f = function(pycall.stubs(), **{field: cell})  # type: ignore[arg-type]
        cell.append(f)
        alive.append(weakref.ref(f))
        del f, cell
    gc.collect()
    assert [reference() for reference in alive] == [None] * 100
    assert memory.statistics().queued >= min(queued + 100, 100)


def test_an_instance_in_a_dying_cycle_is_whole_to_the_end() -> None:
    """A finaliser in the same cycle calls it, and brings it back to life."""
    seen: list[Any] = []

    class Last:
        def __init__(self) -> None:
            self.f = function(pycall.stubs(), slow=self.slow)

        def slow(self, *args: Any) -> Any:
            return args

        def __del__(self) -> None:
            memory.collect()
            seen.extend([self.f(2), self.f("a"), self.f])

    Last()
    gc.collect()
    f = seen.pop()
    assert seen == [6, ("a",)]
    memory.collect()
    assert (f(3), f("b")) == (7, ("b",))
    alive = weakref.ref(f)
    del f
    gc.collect()
    assert alive() is None


def test_weak_references() -> None:
    f = function(pycall.stubs())
    died: list[Any] = []
    alive = weakref.ref(f, died.append)
    table = weakref.WeakKeyDictionary({f: 1})
    assert alive() is f
    del f
    assert alive() is None
    assert died == [alive]
    assert len(table) == 0


def test_the_code_dies_with_its_owner() -> None:
    memory.collect()
    f = function(pycall.stubs())
    address, size = f.code.address, f.code.size
    assert ctypes.string_at(address, 4) == b"\xf3\x0f\x1e\xfa"
    keep = function(pycall.stubs())
    del f
    assert memory.collect() == 1
    assert ctypes.string_at(address, size) == b"\xcc" * size
    assert keep(1) == 5


def test_a_long_chain_dies_without_recursion() -> None:
    native, chain = made(), None
    for _ in range(100_000):
        chain = native.new(1, None, None, None, chain)
    del chain


# What the type is.


def test_fields() -> None:
    note = ["note"]
    native = made()
    f = function(pycall.stubs(), note=note)
    assert (f.slow, f.bail, f.note, f.twice) == (slow, bail, note, ["note", "note"])
    assert native.fields == ("slow", "bail", "code", "note")
    for number, field in enumerate(native.fields):
        assert native.offset(field) == object.__basicsize__ + 16 + 8 * number
        at = ctypes.c_void_p.from_address(id(f) + native.offset(field)).value
        assert at == id(getattr(f, field))
        with pytest.raises((AttributeError, TypeError)):
            setattr(f, field, 1)
        with pytest.raises((AttributeError, TypeError)):
            delattr(f, field)
    with pytest.raises(TypeError, match="4 fields, but 2 values"):
        native.new(1, slow, bail)


def test_nothing_else_can_be_set() -> None:
    f = function(pycall.stubs())
    assert not hasattr(f, "__dict__")
    with pytest.raises(AttributeError):
        f.other = 1
    with pytest.raises(TypeError):
        f.__class__ = Base
    hidden = [name for name in dir(f) if name not in dir(Base)]
    assert sorted(hidden) == ["__call__", "bail", "code", "note", "slow"]


def test_python_can_neither_make_nor_subclass_it() -> None:
    kind = made().type
    for make in (kind, lambda: kind.__new__(kind), lambda: object.__new__(kind)):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(TypeError, match=r"cannot create 'tests\.Native' instances"):
        kind()
    with pytest.raises(TypeError, match="is not an acceptable base type"):
        type("Sub", (kind,), {})


def test_what_the_base_gives() -> None:
    f = function(pycall.stubs(), note="abc")
    assert isinstance(f, Base)
    assert (type(f).__name__, type(f).__module__, type(f).__doc__) == ("Native", "tests", "Adds.")
    assert str(inspect.signature(f)) == "(x)"
    assert isinstance(f, Callable)
    assert copy.copy(f).note == pickle.loads(pickle.dumps(f)).note == "abc"
    assert copy.deepcopy(f)(1) == 5
    assert hash(f) == hash(f)
    assert f in {f}
    assert repr(f).startswith("<tests.Native object at 0x")
    assert sys.getsizeof(f) < 100


class Dict:
    pass


class Calls:
    __slots__ = ()

    def __call__(self) -> None: ...


class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    __slots__ = ()


@pytest.mark.parametrize(
    ("base", "fields", "reason"),
    [
        (Dict, ("slow", "bail"), "Dict and its bases need __slots__"),
        (int, ("slow", "bail"), "int and its bases need __slots__"),
        (WithMeta, ("slow", "bail"), "WithMeta and its bases need __slots__ = \\(\\) and no meta"),
        (Calls, ("slow", "bail"), "Calls has a __call__"),
        (Base, ("bail", "slow"), "fields must be different and begin with"),
        (Base, ("slow", "bail", "a", "a"), "fields must be different and begin with"),
    ],
)
def test_what_a_type_cannot_be_made_of(base: type, fields: tuple[str, ...], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        native_type("tests.Other", base, fields, "")


# What is missing or otherwise than expected.


@pytest.fixture
def _afresh() -> Iterator[None]:
    symbols.cache_clear()
    yield
    symbols.cache_clear()


@pytest.mark.usefixtures("_afresh")
def test_missing_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stubs_module, "FUNCTIONS", ["PyLong_AsLong", "PyLong_AsLongLongLong"])
    with pytest.raises(PyCallError, match="does not export PyLong_AsLongLongLong"):
        symbols()
    monkeypatch.delattr(ctypes, "pythonapi")
    with pytest.raises(PyCallError, match="Python's C functions cannot be reached"):
        symbols()


def test_symbols() -> None:
    assert ("PyObject_Vectorcall" in symbols()) or sys.version_info < (3, 11)
    assert all(address > 0 for address in symbols().values())


def test_other_types_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pycall, "T_OBJECT", pycall.T_PYSSIZET)
    with pytest.raises(PyCallError, match="instances are not as expected: fields"):
        native_type("tests.Other", Base, ("slow", "bail"), "")


def test_without_code_memory() -> None:
    program = (
        "from exprjit.runtime import pycall\n"
        "class Base: __slots__ = ()\n"
        "try: pycall.native_type('a.B', Base, ('slow', 'bail'), '')\n"
        "except pycall.PyCallError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "EXPRJIT_MEMORY": "none"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "EXPRJIT_MEMORY=none\n"


@pytest.mark.skipif(DEBUG, reason="a debug build ends the process where there is no exception")
@pytest.mark.parametrize("name", ["PyTuple_New", "PyDict_New", "PyDict_SetItem", "PyLong_FromLong"])
def test_out_of_memory_in_a_stub(name: str) -> None:
    """The C function is replaced by one of ours: NULL or -1, with no exception set."""
    c = dict(symbols())
    c.pop("PyObject_Vectorcall", None)
    # or rax, -1; ret (PyDict_SetItem) and xor eax, eax; ret
    failing = memory.install(b"\x83\xc8\xff\xc3" if name == "PyDict_SetItem" else b"\x31\xc0\xc3")
    code, at = assemble({**c, name: failing.address})
    owner = memory.install(code)
    f = function(Stubs(*(owner.address + offset for offset in at)), 2)
    values = object(), object()
    counts = [sys.getrefcount(value) for value in (f, *values)]
    attempt = functools.partial(f, values[0], b=values[1])
    if name == "PyLong_FromLong":
        attempt = functools.partial(f, 10**6, 10**6)
    for _ in range(100):
        # Neither an answer nor an exception: Python says so, in a SystemError.
        with pytest.raises(SystemError, match="without setting an exception"):
            attempt()
    del attempt
    assert counts == [sys.getrefcount(value) for value in (f, *values)]
    if name == "PyLong_FromLong":
        assert f(1) == ("slow", (1,), {})

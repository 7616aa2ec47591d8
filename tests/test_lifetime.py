"""Machine code lives exactly as long as something can call it, and costs little while it does.

Whatever is broken here kills the process, so nearly all of it runs in children. PYTHONDEVMODE is
`-X dev`: warnings are shown, and what was freed is overwritten before anybody else gets it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import PRELUDE, Child, needs_code, policies

pytestmark = needs_code

PROGRAM = (
    PRELUDE
    + """
def churn(count=150):
    "Compile and drop: what is dead is erased, and its room is used again."
    forget()
    for number in range(count):
        assert exprjit.compile(f"x * y - {number}")(6, 7) == 42 - number
    forget()

PLAIN = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)

KINDS = {
    "eager": lambda text, **options: exprjit.compile(text, **options),
    "lazy": lambda text, **options: exprjit.compile(text, lazy=True, **options),
    "verified": lambda text, **options: exprjit.compile(text, verify=True, **options),
}
# Of each kind one that calls by name and that fails: what they need at the first time stays.
for make in KINDS.values():
    f = make("x / y")
    assert f(x=7, y=2) == f(7, y=2) == f(7, 2) == 3 and fails(f, 1, 0)
    assert make("x + y").address and f.checked_address
del f
base = used()
"""
)


@pytest.fixture
def run(child: Child) -> Callable[..., None]:
    """Runs a body after the prelude in a child; it must end with "done"."""

    def run_body(body: str, **environment: str) -> None:
        out = child(PROGRAM + body + "\nprint('done')", timeout=180, **environment)
        assert out == "done\n", out

    return run_body


# As long as something can call it. ---------------------------------------------------------------


@policies
def test_code_lives_as_long_as_anything_that_can_call_it(run: Any, policy: str) -> None:
    """And not a moment longer: then as much is used as before."""
    run(
        """
class Owner:
    pass

def suspended(f):
    while True:
        yield f(7, 2)

def closure(f):
    return lambda: f(7, 2)

def default(f):
    def function(x, y=2, f=f):
        return f(x, y)
    return functools.partial(function, 7)

def attribute(f):
    owner = Owner()
    owner.f = f
    owner.owner = owner  # only the collector finds it
    return lambda: owner.f(7, 2)

def of_a_class(f):
    "The class is in a cycle, as all classes are."
    return functools.partial(type("Class", (), {"f": f})().f, 7, 2)

def finalizer(f):
    owner = Owner()
    made = weakref.finalize(owner, f, 7, 2)
    return lambda: (owner, made.peek()[1](7, 2))[1]

def pointer(f):
    result = ctypes.c_long()
    function = CHECKED(f.checked_address)
    return lambda: (f, function(result, 7, 2), result.value)[2]

def extern(f):
    "A formula that calls another: the ctypes function keeps that one."
    g = exprjit.compile("x * 100 + y")
    function = PLAIN(g.address)
    function.owner = g
    text = f.source.replace("x / y", "call(x / y, 0) / 100")
    return functools.partial(exprjit.compile(text, externs={"call": function}), 7, 2)

def local(f):
    here = threading.local()
    here.f = f
    return lambda: here.f(7, 2)

def own_cycle(f):
    "Through the function itself: the list is reached from its name."
    class Name(str):
        pass
    name = Name("own")
    made = exprjit.compile(f.source, name=name)
    name.owner = made
    return functools.partial(made, 7, 2)

HOLDERS = {
    "function": lambda f: functools.partial(f, 7, 2),
    "method": lambda f: functools.partial(f.__call__, 7, 2),
    "bound": lambda f: functools.partial(types.MethodType(f, 7), 2),
    "map": lambda f: functools.partial(next, map(f, iter([7] * 9), iter([2] * 9))),
    "generator": lambda f: functools.partial(next, suspended(f)),
    **{g.__name__: g for g in (closure, default, attribute, of_a_class, finalizer, pointer, extern,
                               local, own_cycle)},
}
number = 1000
for kind, make in KINDS.items():
    for name, hold in HOLDERS.items():
        number += 1
        f = make(f"x / y + {number}")
        call = hold(f)
        call(), call()
        del f
        assert used() > base, (kind, name)
        churn(30)
        assert call() == 3 + number, (kind, name)
        del call
        assert used() == base, (kind, name, used() - base)
""",
        EXPRJIT_MEMORY=policy,
    )


@policies
def test_code_lives_while_its_failure_is_explained(run: Any, policy: str) -> None:
    """Machine code has called the interpreter and will go on when that returns."""
    run(
        """
for kind, make in KINDS.items():
    names = {"f": make("x / y + 77777")}
    names["f"](1, 1), names["f"](1, 1)
    alive = weakref.ref(names["f"])
    entered, go_on, outcome = threading.Event(), threading.Event(), []

    def stop(frame, event, argument):
        "The first function of Python that runs in the call waits."
        sys.settrace(None)
        entered.set()
        assert go_on.wait(60)

    def call():
        sys.settrace(stop)
        outcome.append(fails(names["f"], 1, 0))

    thread = threading.Thread(target=call)
    thread.start()
    assert entered.wait(60)
    names.clear()
    churn()
    assert alive() is not None
    go_on.set()
    thread.join()
    assert outcome == [True], kind
    assert used() == base and alive() is None, kind
""",
        EXPRJIT_MEMORY=policy,
    )


@policies
def test_a_collection_in_the_middle_of_a_call_drops_the_last_name(run: Any, policy: str) -> None:
    run(
        """
class Dropper:
    "Garbage that, when it is found, drops the functions' last names."
    def __init__(self):
        self.me = self
    def __del__(self):
        gc.disable()
        names.clear()
        churn(40)
        dropped.append(1)

dropped = []
for kind, make in KINDS.items():
    for way in range(4):
        names = {"f": make(f"x / y + {way + 55555}")}
        names["f"](1, 1), names["f"](1, 1)
        collect = Index(lambda: gc.collect() and 2)
        Dropper()
        if way == 0:
            assert names["f"](6, collect) == 3 + 55555 + way
        elif way == 1:
            assert names["f"](x=6, y=collect) == 3 + 55555 + way
        elif way == 2:
            assert fails(names["f"], collect, 0)
        else:
            # Wherever the collector thinks fit: in the stub, in the interpreter.
            before = gc.get_threshold()
            gc.enable()
            gc.set_threshold(1)
            failed = fails(names["f"], 6, 0)
            gc.set_threshold(*before)
            gc.collect()
            assert failed
        gc.enable()
        assert not names
    assert used() == base, kind
assert len(dropped) == 12
""",
        EXPRJIT_MEMORY=policy,
    )


@policies
def test_a_function_that_comes_back_to_life_is_whole(run: Any, policy: str) -> None:
    """A finaliser in the same garbage calls it and keeps it, after its code was finalised."""
    run(
        """
class Last:
    def __init__(self, f):
        self.f, self.me = f, self
    def __del__(self):
        churn(40)
        assert self.f(6, 2) == 3 + 4242 and fails(self.f, 1, 0)
        saved.append(self if len(saved) % 2 else self.f)

saved, unraisable = [], []
sys.unraisablehook = unraisable.append
for kind, make in KINDS.items():
    for _ in range(4):
        f = make("x / y + 4242")
        f(1, 1), f(1, 1), f.checked_address
        Last(f)
        del f
        churn(40)
    assert len(saved) == 4 and not unraisable, (kind, unraisable)
    for thing in saved:
        f = thing if isinstance(thing, exprjit.Function) else thing.f
        result = ctypes.c_long()
        assert f(8, y=2) == 4 + 4242 and fails(f, 1, 0)
        assert CHECKED(f.checked_address)(result, 10, 2) == 0 and result.value == 5 + 4242
    assert used() > base
    del f, thing
    saved.clear()
    assert used() == base, kind
""",
        EXPRJIT_MEMORY=policy,
    )


def test_functions_as_callbacks_of_what_dies(run: Any) -> None:
    """As a weak reference's callback and as a finaliser: called by the collector, and dropped."""
    run(
        """
class Object:
    pass

class Reference(weakref.ref):
    "Converts to an int, so a formula can be its callback."
    asked = 0
    def __index__(self):
        Reference.asked += 1
        churn(20)
        return 7

for kind, make in KINDS.items():
    for cycle in (False, True):
        Reference.asked = 0
        thing = Object()
        thing.me = thing if cycle else None
        reference = Reference(thing, make("x + 99999"))
        finalizer = weakref.finalize(thing, make("x / y - 88888"), Index(lambda: churn(20) or 6), 2)
        del thing
        gc.collect()
        assert reference() is None and not finalizer.alive
        assert Reference.asked == 1, kind
        del reference, finalizer
        assert used() == base, kind
""",
    )


def test_garbage_with_functions_is_garbage(run: Any) -> None:
    """Cycles as programs make them: errors with their frames, closures, C functions."""
    run(
        """
libc = ctypes.CDLL(None)

def by_traceback(number):
    f = exprjit.compile(f"x / y + {number}")
    try:
        f(1, 0)
    except ZeroDivisionError as error:
        kept = error  # which has a traceback, which has this frame
    return f

def by_closure(number):
    f = exprjit.compile(f"x / y + {number}")
    def call():
        return f(4, 2), call
    return f

def by_extern(number):
    labs = libc["labs"]
    labs.argtypes, labs.restype = [ctypes.c_long], ctypes.c_long
    f = labs.owner = exprjit.compile(f"labs(x) / y + {number}", externs={"labs": labs})
    assert f(-6, 2) == 3 + number
    return f

def by_argument(number):
    class Argument:
        def __index__(self):
            return self.value
    argument = Argument()
    argument.value = 6
    f = exprjit.compile(f"x / y + {number}", lazy=number % 2 == 0)
    argument.call = functools.partial(f, argument, 2)
    assert argument.call() == argument.call() == 3 + number
    return f

for make in (by_traceback, by_closure, by_extern, by_argument):
    alive = [weakref.ref(make(number)) for number in range(1000, 1020)]
    exprjit.cache_clear()
    assert any(reference() for reference in alive), make
    gc.collect()
    assert not any(reference() for reference in alive), make
    assert used() == base, (make, used() - base)
""",
    )


@policies
def test_collections_everywhere_while_functions_come_and_go(run: Any, policy: str) -> None:
    """The collector runs as often as it can, and the finalisers use exprjit themselves."""
    run(
        """
class Garbage:
    finalised = 0
    def __init__(self, f, right):
        self.f, self.right, self.me = f, right, self
    def __del__(self):
        Garbage.finalised += 1
        assert self.f(6, 2) == self.right and fails(self.f, 6, 0)
        g = exprjit.compile(f"x * y + {Garbage.finalised % 50}")
        assert g(2, 3) == 6 + Garbage.finalised % 50
        if Garbage.finalised % 10 == 0:
            memory.collect()
        if Garbage.finalised % 25 == 0:
            exprjit.cache_clear()

unraisable = []
sys.unraisablehook = unraisable.append
before = gc.get_threshold()
gc.set_threshold(1, 1, 1)
kept = []
for number in range(250):
    f = exprjit.compile(f"x / y + {number}", lazy=number % 3 == 0)
    assert f(6, 2) == f(6, y=2) == 3 + number and fails(f, 6, 0)
    Garbage(f, 3 + number)
    kept.append(f)
    del kept[:-20:2]
gc.set_threshold(*before)
gc.collect()
assert not unraisable, unraisable[0]
assert Garbage.finalised == 250
for f in kept:
    assert f(8, 2) == 4 + int(f.source[8:])
del kept, f
assert used() == base
""",
        EXPRJIT_MEMORY=policy,
    )


def test_a_finaliser_may_empty_the_cache_while_it_is_used(run: Any) -> None:
    """Before every instruction of a look-up that finds something, and of one that does not."""
    run(
        """
from exprjit import cache

def traced(event):
    "Compile, and call event(n) before the n-th instruction of the cache; how many there were."
    count = 0
    def trace(frame, kind, argument):
        nonlocal count
        if frame.f_code.co_filename != cache.__file__:
            return None
        frame.f_trace_opcodes = True
        if kind == "opcode":
            count += 1
            event(count)
        return trace
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when the tracer is set
    sys.settrace(trace)
    try:
        f = exprjit.compile("x + 31")
    finally:
        sys.settrace(None)
    assert f(1) == 32
    return count

def empty():
    exprjit.cache_clear()

def fill():
    for number in range(3):
        assert exprjit.compile(f"x * {number}")(2) == 2 * number

for known in (True, False):
    for interfere in (empty, fill):
        target = 0
        while True:
            target += 1
            exprjit.cache_clear()
            if known:
                exprjit.compile("x + 31")
            def event(number):
                if number == target:
                    sys.settrace(None)
                    interfere()
            if traced(event) < target:
                break
        assert target > 20
assert exprjit.compile("x + 31") is exprjit.compile("x + 31")
assert used() == base
assert exprjit.cache_info().currsize == 0
""",
    )


# When the interpreter ends. ----------------------------------------------------------------------

AT_THE_END = """
import atexit, builtins, codecs
f, g = exprjit.compile("x / y"), exprjit.compile("x + 4")
lazy, verified = exprjit.compile("x * y", lazy=True), exprjit.compile("x - y", verify=True)
pointer = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(g.address)

class Last:
    "Uses what there is whenever it is finalised."
    def __init__(self):
        self.kept = f, g, lazy, verified, pointer
    def __call__(self, *args):
        return None
    def __del__(self, write=os.write, IndexLike=Index):
        f, g, lazy, verified, pointer = self.kept
        good = f(9, 3) == 3 and g(-5) == -1 and pointer(4) == 8
        # The interpreter and the compiler may be gone, but nothing worse must happen.
        for use in (lambda: f(1, 0), lambda: g(1, 2), lambda: g(IndexLike(3)), lambda: g(x=5),
                    lambda: lazy(2, 3), lambda: lazy(2, 3), lambda: verified(2, 3),
                    lambda: g.checked_address, lambda: repr(g), lambda: exprjit.compile("x")):
            try:
                use()
            except Exception:
                pass
        write(1, b"." if good else b"wrong")

class Cycle:
    last = Last()
Cycle.me = Cycle

sys.kept = Last()
builtins.kept = Last()
os.kept = Last()
gc.callbacks.append(Last())
codecs.register(Last())
threading.current_thread().kept = Last()
here = threading.local()
here.kept = Last()
atexit.register(Last())
atexit.register(lambda: f(4, 2) + g(1))
atexit.register(exprjit.compile, "x + 123")
finalizer = weakref.finalize(f, g, 1)
def generator():
    last = Last()
    yield last
suspended = generator()
next(suspended)
"""


def test_functions_are_alive_at_the_end(child: Child) -> None:
    out = child(PROGRAM + AT_THE_END, PYTHONDEVMODE="1")
    # Some are never finalised: Python leaves them, as the codecs' search functions.
    assert set(out) == {"."}
    assert len(out) >= 4


def test_daemon_threads_are_in_machine_code_at_the_end(child: Child) -> None:
    """Python ends such a thread where it asks for the lock: beneath our frames too."""
    program = """
f, g = exprjit.compile("x / y"), exprjit.compile("x + y")
pointer, checked = PLAIN(g.address), CHECKED(f.checked_address)

def fast():
    while True:
        g(1, 2)

def failing():
    while True:
        fails(f, 1, 0)

def slow():
    def inner():
        return f(Index(4), 2)
    while True:
        f(Index(inner), y=1)

def compiling():
    number = 0
    while True:
        number += 1
        exprjit.compile(f"x ^ {number}")(1)
        if number % 50 == 0:
            forget()

def c_code():
    result = ctypes.c_long()
    while True:
        assert pointer(1, 2) == 3 and not checked(result, 6, 2)

def waiting():
    f(Index(threading.Event().wait), 1)

sys.setswitchinterval(1e-6)
for target in (fast, failing, failing, slow, slow, compiling, compiling, c_code, waiting):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.1)
"""
    for _ in range(2):
        assert child(PROGRAM + program, PYTHONDEVMODE="1") == ""


@pytest.mark.parametrize(
    "end",
    [
        "f(Index(sys.exit), 1)",
        "f(1, y=Index(sys.exit))",
        "threading.Thread(target=lambda: (time.sleep(0.05), f(1, 1))).start()",
        "os._exit(f(0, 1))",
        "atexit.register(lambda: fails(f, 1, 0)); f(Index(lambda: g.send(None)), 1)",
        "pid = os.fork(); sys.exit(f(0, 1) if not pid else os.waitpid(pid, 0)[1])",
    ],
)
def test_the_end_comes_in_the_middle_of_a_call(child: Child, end: str) -> None:
    program = f"""
import atexit
f = exprjit.compile("x / y")
def generator():
    yield 1
    yield f(Index(sys.exit), 2)
g = generator()
next(g)
Cycle = type("Cycle", (), {{"f": f}})
{end}
"""
    assert child(PROGRAM + program, PYTHONDEVMODE="1") == ""


# What they cost. ---------------------------------------------------------------------------------

#: `EXPRJIT_LIVE=100000 pytest tests/test_lifetime.py -k at_most` is the long way.
LIVE = [pytest.param(5_000, id="5,000", marks=pytest.mark.slow)]
if "EXPRJIT_LIVE" in os.environ:
    LIVE = [pytest.param(int(os.environ["EXPRJIT_LIVE"]), id="EXPRJIT_LIVE")]

COUNTING = """
import json, tracemalloc

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def mappings():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)

def state():
    forget()
    return resident(), mappings(), memory.statistics().pages

def text(number):
    return f"x * {number} + 6 / y" if number % 2 else f"x * {number} + y"

for number in range(300):
    exprjit.compile(f"x * y + {number}")
kept = [None] * COUNT
before = state()
for number in range(COUNT):
    kept[number] = exprjit.compile(text(number))
for number, f in enumerate(kept):
    # Pages of code are resident when they have been run; a call that fails asks the interpreter.
    assert f(2, 3) == 2 * number + (2 if number % 2 else 3)
    assert not number % 2 or fails(f, 1, 0)
after = state()
figures = dict(zip(["resident", "mappings", "pages"], [b - a for a, b in zip(before, after)]))
figures["engines"] = len({f.engine for f in kept})
figures["code"] = sum(len(f.code) for f in kept[::100]) // len(kept[::100])
figures["left"] = used() - base
del kept, f
figures["left"] = used() - base

some = [None] * 200
tracemalloc.start(1)
start = tracemalloc.get_traced_memory()[0]
for number in range(200):
    some[number] = exprjit.compile(text(number))
forget()
figures["traced"] = (tracemalloc.get_traced_memory()[0] - start) // 200
print(json.dumps(figures))
"""

#: What the kernel needs for a page with a memory file of its own, beside the page: measured.
KERNEL = 1_400


@pytest.mark.parametrize("count", LIVE)
def test_live_functions_take_at_most_two_kib_each(child: Child, count: int) -> None:
    """Of resident memory with the code in it, and of the kernel's for pages of code. Every other
    one can fail, and did."""
    figures = json.loads(child(PROGRAM + COUNTING.replace("COUNT", str(count)), timeout=1_800))
    each = (figures["resident"] + figures["pages"] * KERNEL) / count
    print(f"{each:.0f} bytes each: {figures}")
    assert figures["engines"] == 1
    assert each <= 2_048, figures
    assert figures["traced"] <= 1_280, figures
    assert figures["left"] == 0
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    assert figures["mappings"] * 100_000 / count < most / 2, figures


@policies
def test_at_the_limit_of_mappings_functions_are_interpreted(run: Any, policy: str) -> None:
    """And have machine code again as soon as there is room, the same formula too."""
    run(
        """
memory._allocator._most = memory.statistics().pages + 2
functions = []
while not functions or functions[-1].engine == "jit":
    assert len(functions) < 1000
    functions.append(exprjit.compile(f"x * y / z + {len(functions)}"))
last = functions.pop()
reason = f"no executable memory: there are {memory._allocator._most} mappings of code (ENOMEM)"
assert last.why_not_jit == reason, last.why_not_jit
assert last(6, 7, 2) == 21 + len(functions) and fails(last, 1, 1, 0)
assert exprjit.compile("x", lazy=True)(3) == 3
lazy = exprjit.compile("x * y * z / 3 % 5", lazy=True)
assert [lazy(6, 7, 2) for _ in range(4)] == [3] * 4
assert (lazy.engine, lazy.why_not_jit) == ("interpreter", reason)
try:
    exprjit.compile("x * y / z - 1", backend="jit")
except exprjit.JitUnavailableError as error:
    assert reason in str(error)
else:
    raise AssertionError("no error")
try:
    functions[0].checked_address
except ValueError as error:
    assert reason in str(error)
else:
    # There was room for something as small as that.
    pass
for number, f in enumerate(functions):
    assert (f.engine, f(6, 7, 2)) == ("jit", 21 + number)

# That there was no room is not kept, though the formula is.
exprjit.cache_clear()
last = exprjit.compile(last.source)
assert last.why_not_jit == reason
del functions[::2], f
memory.collect()
again = exprjit.compile(last.source)
assert again.engine == "jit" and last.engine == "interpreter"
assert again(6, 7, 2) == last(6, 7, 2) and again is exprjit.compile(last.source)
assert exprjit.compile("x * y / z - 1", backend="jit")(6, 7, 2) == 20
for n, f in enumerate(functions):
    assert f(6, 7, 2) == 21 + 2 * n + 1
del functions, f, last, lazy, again
assert used() == base
""",
        EXPRJIT_MEMORY=policy,
    )


@policies
def test_dead_code_can_be_erased_at_once(run: Any, policy: str) -> None:
    run(
        """
exprjit.collect()
f = exprjit.compile("x * 12345 + 678")
before = memory.statistics().used
exprjit.cache_clear()
del f
gc.collect()
assert exprjit.collect() >= 1
assert memory.statistics().used < before
assert exprjit.collect() == 0
""",
        EXPRJIT_MEMORY=policy,
    )

"""Sub-interpreters: machine code and right answers there too, or a reason; never a crash.

Each test is a child process, whose main interpreter makes others: "legacy" ones share its lock,
"isolated" ones have, from Python 3.12 on, a lock of their own and run in parallel. They share what
is static in Python, so the code knows `int` and the exceptions by their addresses there as well;
everything of exprjit's own, pages of code included, each interpreter has for itself.

No test forks while there is a sub-interpreter, nor leaves one to the end of the process: CPython
3.10 to 3.13 may hang or abort then, without exprjit.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import pytest

import exprjit

Child = Callable[..., str]

pytestmark = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))),
    reason="this Python has no sub-interpreters",
)

KINDS = ["legacy", "isolated"]
kinds = pytest.mark.parametrize("kind", KINDS)

#: Why functions are interpreted in this process, or None.
REASON = exprjit.compile("x + 4").why_not_jit


def reason_in(kind: str) -> str | None:
    """Why they are in a sub-interpreter: a part of the reason, or None."""
    if REASON is None and kind == "isolated" and sys.version_info[:2] == (3, 12):
        return "_ctypes does not support loading in subinterpreters"
    return REASON


PRELUDE = """
import os, sys, threading
try:
    import _interpreters as interpreters
except ImportError:  # before 3.13
    import _xxsubinterpreters as interpreters

def create(kind):
    if interpreters.__name__ == "_interpreters":
        return interpreters.create(kind)
    return interpreters.create(isolated=kind == "isolated")

def run(interpreter, program):
    "An exception of the program's is one here."
    # The path of the main interpreter was made from how it was started.
    program = f"import sys; sys.path[:] = {sys.path}\\n" + program
    failure = interpreters.run_string(interpreter, program)
    if failure is not None:  # before 3.13 it is raised
        raise RuntimeError(failure.formatted)

def once(kind, program):
    interpreter = create(kind)
    try:
        run(interpreter, program)
    finally:
        interpreters.destroy(interpreter)

# What an interpreter does: calls of every kind, each to be answered in its own way.
WORK = '''
import exprjit

def outcome(call):
    try:
        return call()
    except (ZeroDivisionError, OverflowError, TypeError) as error:
        return type(error).__name__

class Five:
    def __index__(self):
        return 5

def check(f, number):
    for x in (0, -1, 7, True, 2**62, -2**63):
        assert f(x, 1) == (x + number + 2**63) % 2**64 - 2**63, x
    assert f(y=2, x=Five()) == 2 + number
    assert outcome(lambda: f(1, 0)) == "ExprZeroDivisionError"
    assert outcome(lambda: f(2**64, 1)) == "ExprOverflowError"
    assert outcome(lambda: f(1, "a")) == outcome(lambda: f(1)) == "ExprTypeError"

def functions(numbers):
    made = {n: exprjit.compile(f"x / y + {n}", lazy=n % 5 == 1, verify=n % 7 == 2) for n in numbers}
    for number, f in made.items():
        check(f, number)
    return made

kept = functions(range(12))
engine, reason = kept[0].engine, kept[0].why_not_jit
'''

# Functions that outlive the modules they need, by name, in cycles, and called by finalisers.
LITTER = '''
class Caller:
    def __init__(self, *held):
        self.held = held
    def __del__(self, check=check):
        check(self.held[0], self.held[1])

cell = []
cell += [Caller(kept[0], 0, cell), Caller(kept[3], 3), cell]
looped = Caller(kept[4], 4)
looped.me = looped
sys.kept, sys.caller = kept, Caller(kept[5], 5)
assert kept[2] is sys.kept[2]
'''
"""


def run(child: Child, program: str, **environment: str) -> None:
    out = child(PRELUDE + program + "\nprint('done')", **environment)
    assert out == "done\n", out


@kinds
def test_machine_code_and_right_answers(child: Child, kind: str) -> None:
    """The main interpreter's functions work before, meanwhile and afterwards."""
    reason = reason_in(kind)
    run(
        child,
        f"""
exec(WORK)
one, other = create({kind!r}), create({kind!r})
expected = "engine = {"interpreter" if reason else "jit"!r}; reason = {reason!r}"
tell = '''
assert engine == expected["engine"], (engine, reason)
assert reason is None if expected["reason"] is None else expected["reason"] in reason, reason
'''
for interpreter in (one, other):
    run(interpreter, WORK + "expected = {{}}; exec(" + repr(expected) + ", expected)" + tell)
    [check(f, number) for number, f in kept.items()]
new = functions(range(50, 100))
run(one, "[check(f, number) for number, f in kept.items()]; del kept; functions(range(150))")
interpreters.destroy(one)
new |= functions(range(100, 250))
run(other, "[check(f, number) for number, f in kept.items()]; functions(range(150))")
interpreters.destroy(other)
for made in (kept, new, functions(range(250, 300))):
    [check(f, number) for number, f in made.items()]
""",
    )


@kinds
@pytest.mark.parametrize("policy", ["sealed", "mprotect"])
def test_destroyed_with_functions_alive(child: Child, kind: str, policy: str) -> None:
    run(
        child,
        f"""
exec(WORK)
for _ in range(3):
    once({kind!r}, WORK + LITTER)
    [check(f, number) for number, f in kept.items()]
""",
        EXPRJIT_MEMORY=policy,
    )


@kinds
def test_the_first_import_is_in_a_sub_interpreter(child: Child, kind: str) -> None:
    """What extension modules keep for the process must not be bound to one that goes away."""
    if kind == "isolated" and sys.version_info[:2] == (3, 12):
        pytest.skip("CPython 3.12 does not survive that: `import hashlib` there is enough")
    run(
        child,
        f"""
once({kind!r}, WORK + LITTER)
exec(WORK)
assert engine == {"interpreter" if REASON else "jit"!r}, reason
once({kind!r}, WORK + LITTER)
[check(f, number) for number, f in kept.items()]
""",
    )


@kinds
def test_in_parallel(child: Child, kind: str) -> None:
    """Each thread has an interpreter of its own, and the main one is at work too."""
    run(
        child,
        f"""
exec(WORK)
failures = []
def loop():
    try:
        for _ in range(2):
            once({kind!r}, WORK + LITTER + "functions(range(50))")
    except BaseException as error:
        failures.append(error)

threads = [threading.Thread(target=loop) for _ in range(2)]
for thread in threads:
    thread.start()
for turn in range(1, 50):
    if any(thread.is_alive() for thread in threads):
        functions(range(20 * turn, 20 * turn + 20))
for thread in threads:
    thread.join()
for failure in failures:
    raise failure
[check(f, number) for number, f in kept.items()]
""",
    )


@pytest.mark.skipif(REASON is not None, reason=f"interpreted: {REASON}")
@kinds
def test_a_c_function_of_another_interpreter(child: Child, kind: str) -> None:
    """A number is all that crosses over; the code is the process's."""
    if reason_in(kind) is not None:
        pytest.skip("no ctypes there")
    run(
        child,
        f"""
import exprjit
f = exprjit.compile("x * 3 - y")
once({kind!r}, f'''
import ctypes
call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)({{f.address}})
assert call(5, 1) == 14
''')
assert f(5, 1) == 14
""",
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_a_function_is_sent_as_its_source(child: Child) -> None:
    run(
        child,
        """
from concurrent import interpreters as public
import exprjit
f = exprjit.compile("x / y + 4", name="g")
queue, other = public.create_queue(), public.create()
queue.put(f)
other.exec(f"import sys; sys.path[:] = {sys.path}")
other.prepare_main(queue=queue)
other.exec("f = queue.get(); assert f(9, 3) == 7; assert f(y=3, x=9) == 7")
other.exec(f"assert repr(f) == {repr(f)!r}, f")
other.exec("queue.put(f)")
assert queue.get() == f
other.close()
assert f(9, 3) == 7
""",
    )


def test_a_function_that_outlives_the_modules(child: Child) -> None:
    """The type's name in Python's messages is still its name; freed memory would be overwritten."""
    out = child(
        """
import os, sys
import exprjit

class Asker:
    def __init__(self, f):
        self.f = f
    def __del__(self, write=os.write, len=len, str=str, TypeError=TypeError):
        assert self.f(2, 1) == 6
        try:
            len(self.f)
        except TypeError as error:
            write(1, str(error).encode() + b"\\n")

sys.modules["kept until the end"] = Asker(exprjit.compile("x / y + 4"))
sys.asker = Asker(exprjit.compile("x / y + 4"))
""",
        PYTHONMALLOC="debug",
    )
    name = "InterpretedFunction" if REASON else "exprjit.Function"
    # Where Python counts references lazily it may forget one of the two.
    assert set(out.splitlines()) == {f"object of type '{name}' has no len()"}

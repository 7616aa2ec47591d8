"""Signals at any moment: Ctrl-C in a compilation, and handlers that compile, call and drop.

Python runs a signal handler in the main thread, between two of its instructions: when a call is
over, when a function is entered, when a loop turns. Whether it raises there or comes back to us, no
function may answer wrongly, nothing may be half made, and nothing may wait for itself for ever.
Each test is a child process, in which a hang is a failed test.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="needs Linux on x86-64",
)

policies = pytest.mark.parametrize("policy", ["sealed", "mprotect"])

PRELUDE = """
import collections, dis, gc, os, random, signal, sys, threading, time
import exprjit
from exprjit.runtime import memory

# What a shell starts in the background ignores it, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

if memory.policy()[0] == "none":
    print("skip:", memory.policy()[1])
    sys.exit()

def same(got, wanted):
    assert got == wanted, f"{got} and not {wanted}"

def files():
    "How many files are open."
    return len(os.listdir("/proc/self/fd"))

# An exception in a finaliser goes nowhere: Python tells of it and goes on. What was to be freed
# there is lost, which is allowed; that a signal arrives there is rare.
ignored = []
sys.unraisablehook = lambda event: ignored.append(event.exc_type.__name__)

def text(number):
    return f"x ^ ({number} * y) + 3 / z"

def right(number, f):
    "f is the function of text(number), and answers and fails as it should."
    same(f(5, 7, 2), 5 ^ (number * 7) + 1)
    same(f.engine, "jit")
    try:
        f(5, 7, 0)
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError(f)

def well(pages=100):
    "All is as if there had been no signal, but for lost room."
    assert gc.isenabled()
    assert set(ignored) <= {"KeyboardInterrupt"}, ignored
    fresh = {number: exprjit.compile(text(number)) for number in range(-60, 0)}
    for number, f in fresh.items():
        right(number, f)
        same(f.formula.interpret(5, 7, 2), f(5, 7, 2))
    same(memory.policy()[0], os.environ["EXPRJIT_MEMORY"])
    fresh.clear()
    f = None
    exprjit.cache_clear()
    gc.collect()
    memory.collect()
    statistics = memory.statistics()
    same(statistics.queued, 0)
    assert statistics.pages < pages, statistics
    same(statistics.used + statistics.free, statistics.pages * 4096)
"""

# Ctrl-C at a random moment of some work, once.
INTERRUPTED = """
armed = False

def interrupt(number, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)

def repeat(work, soon, late):
    global armed
    armed = True
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(soon, late))
    while armed:
        work()

def interrupted(work, soon, late):
    "Do the work again and again until there is a signal. Whether it was an exception."
    try:
        repeat(work, soon, late)
    except KeyboardInterrupt:
        return True
    return False  # a finaliser had it
"""

# A handler at every place where Python would run one, without waiting for luck: a tracer that
# looks at the instruction before.
EVERYWHERE = """
FOLDER = os.path.dirname(exprjit.__file__)
# Not the passes, which have no state: they would be many places, and all the same.
PLACES = {os.path.join(FOLDER, name) for name in os.listdir(FOLDER)} | {
    os.path.join(FOLDER, "runtime", name) for name in os.listdir(os.path.join(FOLDER, "runtime"))}

def everywhere(work, event):
    "Do the work; call event(n) at the n-th place. How many there were."
    count = 0
    last = {}

    def trace(frame, kind, argument):
        nonlocal count
        code = frame.f_code
        if code.co_filename not in PLACES or code.co_name == "__del__":
            return None
        frame.f_trace_opcodes = True
        if kind == "call":
            last[id(frame)] = "CALL"
        if kind == "opcode":
            before = last[id(frame)]
            last[id(frame)] = dis.opname[code.co_code[frame.f_lasti]]
            if before.startswith("CALL"):
                count += 1
                event(count)
        return trace

    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when the tracer is set
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count
"""


@pytest.fixture
def run(child: Callable[..., str]) -> Callable[..., None]:
    """Runs a body after the preludes in a child under a policy."""

    def run_body(*parts: str, policy: str = "sealed") -> None:
        program = PRELUDE + "".join(map(textwrap.dedent, parts)) + "\nprint('done')"
        out = child(program, EXPRJIT_MEMORY=policy)
        if out.startswith("skip:"):
            pytest.skip(out)
        assert out == "done\n"

    return run_body


# Ctrl-C. -----------------------------------------------------------------------------------------


def test_ctrl_c_in_a_long_compilation(run: Callable[..., None]) -> None:
    run("""
    right(1, exprjit.compile(text(1)))
    before = memory.statistics()
    sent = []

    def press():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    long = "x" + "".join(f" + (x ^ {n}) * y" for n in range(17_000))
    keys = threading.Timer(0.15, press)
    try:
        keys.start()
        f = exprjit.compile(long)
    except KeyboardInterrupt:
        f = None
        took = time.perf_counter() - sent[0]
    else:
        keys.join()  # the signal comes here, where nobody expects it
    assert f is None, "the compilation ended before the signal"
    assert took < 20, took
    keys.join()
    same(memory.statistics(), before)
    well(10)
    """)


def test_ctrl_c_in_every_pass(run: Callable[..., None]) -> None:
    """Spread over the whole of a compilation, from the first token to the installed code."""
    run("""
    source = "; ".join(f"t{n} = (t{n - 1} ^ {n}) / (y | {n})" for n in range(1, 300))
    source = f"t0 = x; {source}; t299 + max(x, y)"
    for _ in range(2):  # the first one takes longer
        exprjit.cache_clear()
        start = time.process_time()
        f = exprjit.compile(source)
        whole = time.process_time() - start
    wanted = f.formula.interpret(2**60, 3)
    same((f(2**60, 3), f.engine), (wanted, "jit"))
    opened, interrupted = files(), 0
    passes = collections.Counter()

    def interrupt(number, frame):
        passes[os.path.basename(frame.f_code.co_filename)] += 1
        raise KeyboardInterrupt

    # Of the processor's time, which does not depend on what else is running.
    signal.signal(signal.SIGPROF, interrupt)
    for step in range(200):
        if interrupted > 12 and len(passes) > 3:
            break
        exprjit.cache_clear()
        try:
            signal.setitimer(signal.ITIMER_PROF, whole * (step % 20 + 0.5) / 20)
            f = exprjit.compile(source)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            # What takes longer at one time may be quicker at another.
            same((f(2**60, 3), f.engine), (wanted, "jit"))
    else:
        raise AssertionError((interrupted, passes))
    exprjit.cache_clear()
    same(exprjit.compile(source)(2**60, 3), wanted)
    same(files(), opened)
    f = None
    well(20)
    """)


@policies
def test_hundreds_of_ctrl_cs_while_compiling_and_dropping(
    policy: str, run: Callable[..., None]
) -> None:
    run(
        INTERRUPTED,
        """
        def compile_and_drop():
            global number
            number += 1
            kept[number] = exprjit.compile(text(number))
            if number % 3:
                del kept[rng.choice(list(kept))]
            if number % 4 == 0:
                exprjit.cache_clear()
            if number % 11 == 0:
                memory.collect()

        rng = random.Random(2)
        right(0, exprjit.compile(text(0)))
        opened, kept, number, interrupts = files(), {}, 0, 0
        while interrupts < 500:
            interrupts += interrupted(compile_and_drop, 2e-5, 1e-3)
            if interrupts % 50 == 0:
                for n, f in kept.items():
                    right(n, f)
                kept.clear()
        assert len(ignored) < 50, ignored
        same(files(), opened)
        well()
        """,
        policy=policy,
    )


@policies
def test_ctrl_c_everywhere_in_a_compilation(policy: str, run: Callable[..., None]) -> None:
    """Around the passes: the cache, the books of the pages, the system calls, the new object."""
    run(
        EVERYWHERE,
        """
        def interrupt(number):
            if number == target:
                raise KeyboardInterrupt

        right(0, exprjit.compile(text(0)))
        opened, kept = files(), {}
        target, last = 0, 1
        while target < last:
            target += 1
            try:
                last = everywhere(lambda: exprjit.compile(text(target)), interrupt)
            except KeyboardInterrupt:
                last = target + 1
            # The tracer raises behind the call, where Python raises in it, within the `try`.
            memory._allocator._turn.__init__()
            same(files(), opened)
            # Both the text that was interrupted and another are compiled as ever.
            kept[target] = exprjit.compile(text(target))
            kept[-target] = exprjit.compile(text(-target))
            right(target, kept[target])
            if target % 3:
                del kept[random.choice(list(kept))]
                exprjit.cache_clear()
            if target % 20 == 0:
                memory.collect()
        assert target > 60, target
        for number, f in kept.items():
            right(number, f)
        kept.clear()
        f = None
        same(ignored, [])
        well()
        """,
        policy=policy,
    )


def test_ctrl_c_everywhere_in_the_cache(run: Callable[..., None]) -> None:
    """Its contents may be lost, but it still keeps what comes, and still forgets it."""
    run(
        EVERYWHERE,
        """
        def interrupt(number):
            if number == target:
                raise KeyboardInterrupt

        PLACES = {os.path.join(FOLDER, "cache.py")}
        broken = []
        for work in (lambda: exprjit.compile(text(1)), exprjit.cache_clear):
            for known in (True, False):
                target, last = 0, 1
                while target < last:
                    target += 1
                    exprjit.cache_clear()
                    if known:
                        exprjit.compile(text(1))
                    try:
                        last = everywhere(work, interrupt)
                    except KeyboardInterrupt:
                        last = target + 1
                    keeps = exprjit.compile(text(1)) is exprjit.compile(text(1))
                    exprjit.cache_clear()
                    if not keeps or exprjit.cache_info().currsize:
                        broken.append((known, target))
                assert target > 2, target
        same(broken, [])
        well()
        """,
    )


def test_ctrl_c_everywhere_in_the_first_compilation(run: Callable[..., None]) -> None:
    """The first makes more: the choice of the policy, the stubs, the type of all functions."""
    run(
        EVERYWHERE,
        """
        exprjit.evaluate("1 + 1")  # the parser is another matter
        def interrupt(number):
            if number == target:
                raise KeyboardInterrupt

        def attempt():
            try:
                everywhere(lambda: exprjit.compile(text(1)), interrupt)
            except KeyboardInterrupt:
                pass
            else:
                return 7
            memory._allocator._turn.__init__()
            same(files(), opened)
            for number in (1, 2):
                right(number, exprjit.compile(text(number)))
            lazy = exprjit.compile(text(3), lazy=True)
            same([lazy(5, 7, 2), lazy(5, 7, 2)], [5 ^ 22, 5 ^ 22])
            right(3, lazy)
            assert type(lazy) is type(exprjit.compile(text(1)))
            same(exprjit.compile(text(4), verify=True)(5, 7, 2), 5 ^ 29)
            memory.collect()
            same((files(), ignored), (opened, []))
            return 0

        same(memory.statistics().pages, 0)
        opened, target, seen = files(), 1, []
        while 7 not in seen:
            children = []
            for _ in range(2):
                child = os.fork()
                if not child:
                    status = 1
                    try:
                        status = attempt()
                    except BaseException as error:
                        print(f"at place {target}: {error!r}", file=sys.stderr)
                        raise
                    finally:
                        os._exit(status)
                children.append(child)
                target += 23
            seen += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert set(seen) == {0, 7} and len(seen) > 15, seen
        """,
    )


# Handlers that come back to us. ------------------------------------------------------------------

BUSY = """
handled = 0

def compile_call_and_drop(*_):
    "Another program at work within ours."
    global handled
    handled += 1
    number = 1_000 + handled
    f = exprjit.compile(text(number))
    right(number, f)
    lazy = exprjit.compile(text(number + 100_000), lazy=True)
    for _ in range(3):
        same(lazy(5, 7, 2), 5 ^ ((number + 100_000) * 7) + 1)
    if handled % 3 == 0:
        kept[number] = f
        if len(kept) > 30:
            kept.clear()
    if handled % 7 == 0:
        exprjit.cache_clear()
    if handled % 5 == 0:
        memory.collect()
        memory.statistics()

kept = {}
"""


@policies
def test_a_handler_that_compiles_calls_and_drops(policy: str, run: Callable[..., None]) -> None:
    run(
        BUSY,
        """
        def again(*_):
            compile_call_and_drop()
            if not over:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-5, 1e-3))

        rng, over = random.Random(4), False
        signal.signal(signal.SIGALRM, again)
        ours, number = {}, 0
        again()
        while handled < 200:
            number += 1
            ours[number] = exprjit.compile(text(number))
            same(ours[number](5, 7, 2), 5 ^ (number * 7) + 1)
            if number % 3:
                del ours[next(iter(ours))]
            if len(ours) > 100:
                ours.clear()
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        for functions in (kept, ours):
            for number, f in functions.items():
                right(number, f)
            functions.clear()
        f = None
        same(ignored, [])
        well()
        """,
        policy=policy,
    )


@policies
def test_a_handler_that_collects(policy: str, run: Callable[..., None]) -> None:
    run(
        """
        handled = erased = 0

        def collect(*_):
            global handled, erased
            handled += 1
            erased += memory.collect()
            assert memory.statistics().pages < 60
            if not over:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 5e-4))

        rng, over = random.Random(5), False
        signal.signal(signal.SIGALRM, collect)
        ours, number = {}, 0
        collect()
        while handled < 500 or erased < 100:
            number += 1
            ours[number] = exprjit.compile(text(number))
            if number % 2:
                exprjit.cache_clear()
                del ours[next(iter(ours))]
            if number % 100 == 0:
                for n, f in ours.items():
                    right(n, f)
                ours.clear()
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, f in ours.items():
            right(number, f)
        ours.clear()
        f = None
        same(ignored, [])
        well()
        """,
        policy=policy,
    )


def test_a_handler_everywhere_in_a_compilation(run: Callable[..., None]) -> None:
    run(
        EVERYWHERE,
        BUSY,
        """
        def work():
            compiled.append(exprjit.compile(text(number)))

        compiled, places = [], 0
        for number in range(3):
            # Found in the cache, and not found.
            for _ in range(2):
                places += everywhere(work, compile_call_and_drop)
                right(number, compiled.pop())
        assert places > 300, places
        for number, f in kept.items():
            right(number, f)
        kept.clear()
        f = None
        same(ignored, [])
        well()
        """,
    )


def test_a_handler_that_empties_the_cache(run: Callable[..., None]) -> None:
    """While the same function is looked up in it, or kept."""
    run(
        EVERYWHERE,
        """
        def work():
            compiled.append(exprjit.compile(text(1)))

        def event(number):
            if number == target:
                exprjit.cache_clear()

        compiled = []
        for known in (True, False):
            target, last = 0, 1
            while target < last:
                target += 1 if known else 5
                exprjit.cache_clear()
                if known:
                    work()
                last = everywhere(work, event)
                for f in compiled:
                    right(1, f)
                compiled.clear()
                assert exprjit.cache_info().currsize <= 1
            assert last > (10 if known else 60), last
        f = None
        well()
        """,
    )


def test_a_handler_everywhere_in_the_first_compilation(run: Callable[..., None]) -> None:
    """Whoever is first, the functions of both are whole."""
    run(
        EVERYWHERE,
        """
        exprjit.evaluate("1 + 1")

        def event(number):
            if number == target:
                inner.append(exprjit.compile(text(1), lazy=True))
                inner.append(exprjit.compile(text(2)))
                inner.append(exprjit.compile(text(3), verify=True))

        def attempt():
            outer = []
            everywhere(lambda: outer.append(exprjit.compile(text(4), lazy=lazy)), event)
            if not inner:
                return 7
            functions = {1: inner[0], 2: inner[1], 3: inner[2], 4: outer[0]}
            functions[5] = exprjit.compile(text(5), lazy=True)
            for number, f in functions.items():
                same([f(5, 7, 2), f(x=5, y=7, z=2)], [5 ^ (number * 7) + 1] * 2)
                right(number, f)
            same(ignored, [])
            return 0

        opened, seen = files(), []
        for lazy in (False, True):
            target = 1
            while 7 not in seen:
                children = []
                for _ in range(2):
                    inner, child = [], os.fork()
                    if not child:
                        status = 1
                        try:
                            status = attempt()
                        except BaseException as error:
                            print(f"at place {target}: {error!r}", file=sys.stderr)
                            raise
                        finally:
                            os._exit(status)
                    children.append(child)
                    target += 37
                seen += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            assert set(seen) == {0, 7} and len(seen) > 8, seen
            seen.clear()
        """,
    )


# Calls. ------------------------------------------------------------------------------------------


def test_ctrl_c_in_calls(run: Callable[..., None]) -> None:
    """In machine code no handler runs; it does as soon as Python is back, also in `__index__`."""
    run(
        INTERRUPTED,
        """
        class Index:
            def __index__(self):
                return 5

        class Zero:
            def __index__(self):
                return 0

        def call():
            for answer in (f(5, 7, 2), f(Index(), 7, 2), f(z=2, y=7, x=Index()), f(5, 7, z=2)):
                same(answer, 5 ^ 64)
            try:
                f(5, 7, Zero())
            except ZeroDivisionError:
                pass

        rng = random.Random(3)
        f = exprjit.compile(text(9))
        call()
        references = sys.getrefcount(f)
        interrupts = 0
        while interrupts < 300:
            interrupts += interrupted(call, 2e-5, 3e-4)
        same(ignored, [])
        same(sys.getrefcount(f), references)
        right(9, f)
        well(10)
        """,
    )


def test_ctrl_c_in_the_call_that_compiles(run: Callable[..., None]) -> None:
    """A lazy function that is interrupted there, anywhere, is compiled by a later call."""
    run(
        EVERYWHERE,
        """
        def interrupt(number):
            if number == target:
                raise KeyboardInterrupt

        native = exprjit.compile(text(0))
        opened, target, last, left = files(), 0, 1, []
        while target < last:
            target += 1
            f = exprjit.compile(text(target), lazy=True)
            same(f(5, 7, 2), 5 ^ (target * 7) + 1)
            try:
                last = everywhere(lambda: f(5, 7, 2), interrupt)
            except KeyboardInterrupt:
                last = target + 1
            memory._allocator._turn.__init__()
            for _ in range(3):
                same(f(5, 7, 2), 5 ^ (target * 7) + 1)
            if f.engine != "jit" or f.why_not_jit is not None:
                left.append((target, f.why_not_jit))
        assert target > 60, target
        same((left, files(), ignored), ([], opened, []))
        f = None
        well()
        """,
    )

"""Many threads at once: compiling, calling, dropping and collecting on the same pages.

What could kill the process, or hang, runs in children. `stress.py` does the same for as long as is
wanted; here it runs for some seconds, and is made to fail.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from children import PRELUDE, Child, needs_code, policies
from pythons import HAVE_LOCK, forks_among_threads

import exprjit

pytestmark = needs_code

ROOT = Path(__file__).parent.parent
STRESS = ROOT / "tests" / "stress.py"


PROGRAM = (
    PRELUDE
    + """
def in_threads(*targets):
    "Run them all at once; no exception of any is lost."
    failures = []
    barrier = threading.Barrier(len(targets))
    def run(target):
        try:
            barrier.wait()
            target()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure
"""
)


def run(child: Child, body: str, **environment: str) -> None:
    out = child(PROGRAM + body + "\nprint('done')", timeout=180, **environment)
    assert out == "done\n", out


# Compiling, calling, dropping, collecting. -------------------------------------------------------


@policies
@pytest.mark.parametrize("interval", ["1e-6", "5e-3"])
def test_threads_share_pages_while_functions_come_and_go(
    child: Child, policy: str, interval: str
) -> None:
    run(
        child,
        f"interval = {interval}\n"
        """
CHECKED = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_long), ctypes.c_long, ctypes.c_long)
for options in ({}, {"lazy": True}, {"verify": True}):
    f = exprjit.compile("x / y", **options)
    assert f(2, 1) == f(2, 1) == f(x=2, y=1) == 2 and fails(f, 1, 0) and f.checked_address
del f
base = used()
shared = {}

def work(seed):
    "Makes functions that others use too, uses theirs, and takes any away."
    result = ctypes.c_long()
    for turn in range(45):
        number = seed * 1000 + turn
        options = {"lazy": turn % 5 == 1, "verify": turn % 9 == 2}
        shared[number] = exprjit.compile(f"x / y + {number}", **options)
        for other in list(shared)[-12:]:
            f = shared.get(other)
            if f is not None:
                assert f(8, 2) == 4 + other and f(y=-1, x=turn) == other - turn
                assert f(Index(lambda: turn), 1) == other + turn
                assert fails(f, turn, 0)
        if turn % 3 == 0 and f is not None:
            assert not CHECKED(f.checked_address)(result, 9, 3) and result.value == 3 + other
        if len(shared) > 40:
            for other in list(shared)[:10]:
                shared.pop(other, None)
        if turn % 10 == seed % 10:
            memory.collect()
        if turn % 20 == seed % 20:
            gc.collect()
            exprjit.cache_clear()

sys.setswitchinterval(interval)
in_threads(*(functools.partial(work, seed) for seed in range(6)))
sys.setswitchinterval(5e-3)
for number, f in shared.items():
    assert f(8, 2) == 4 + number and fails(f, 1, 0)
del f
shared.clear()
assert used() == base
assert memory.statistics().pages <= 2 + memory.SPARE_PAGES
""",
        EXPRJIT_MEMORY=policy,
    )


def test_the_same_formula_from_many_threads_is_one_function(child: Child) -> None:
    """Each of them compiles it; all get the one that is kept, and the others' code goes."""
    run(
        child,
        """
exprjit.compile("x / y")(1, 1)
base = used()
sys.setswitchinterval(1e-6)
for options in ({}, {"lazy": True}, {"overflow": "raise"}):
    for number in range(25):
        found = []
        def compile_and_call():
            f = exprjit.compile(f"x / y * {number}", **options)
            for x in range(5):
                assert f(x, 1) == x * number and fails(f, x, 0)
            found.append(f)
        in_threads(*[compile_and_call] * 4)
        assert len(set(map(id, found))) == 1 and found[0].engine == "jit"
        del found[:]
assert used() == base
""",
    )


def test_a_small_cache_in_many_threads(child: Child) -> None:
    """What is dropped from it while others look it up is compiled again, and answers rightly."""
    run(
        child,
        """
import random
exprjit.compile("x")(1)
base = used()
most = exprjit.cache_info().maxsize
assert most >= 100
long = "0" * 50_000

def work(seed):
    rng = random.Random(seed)
    for turn in range(250):
        number = rng.randrange(12)
        # A few heavy ones are all that the cache can hold.
        f = exprjit.compile(f"x + {number} # {long}" if turn % 8 == 0 else f"x + {number}")
        assert f(1) == 1 + number
        assert exprjit.cache_info().currsize <= most
        if rng.random() < 0.02:
            exprjit.cache_clear()

sys.setswitchinterval(1e-5)
in_threads(*(functools.partial(work, seed) for seed in range(4)))
for number in range(most + 50):
    exprjit.compile(f"x - {number}")
assert exprjit.cache_info().currsize == most
assert used() == base
assert exprjit.cache_info().currsize == 0
""",
    )


def test_the_first_functions_of_a_process_are_made_at_once(child: Child) -> None:
    """Several threads find that there is no type yet, no stub, no parser, and make their own."""
    run(
        child,
        """
from exprjit.runtime import pycall, stubs

def slowly(function):
    def slow(*args):
        time.sleep(0.05)
        made = function(*args)
        time.sleep(0.05)
        return made
    return slow

pycall.native_type = slowly(pycall.native_type)
stubs.assemble = slowly(stubs.assemble)
made = []

def work(seed):
    functions = [
        exprjit.compile(f"x / y + {number}", lazy=number % 2 == 0)
        for number in (seed, seed + 10, 99, 100)
    ]
    for f in functions:
        for x in range(4):
            assert f(x, 1) == f(y=1, x=x) == x + int(f.source[8:]) and fails(f, 1, 0)
    made.append(functions)

in_threads(*(functools.partial(work, seed) for seed in range(4)))
assert len({f for functions in made for f in functions}) == 10
assert {f.engine for functions in made for f in functions} == {"jit"}
for functions in made:
    assert functions[2:] == made[0][2:]
    assert [f(8, 2) for f in functions[2:]] == [103, 104]
""",
    )


# Nothing is locked while code runs. --------------------------------------------------------------


@policies
def test_others_work_while_a_call_waits(child: Child, policy: str) -> None:
    """In the slow path, and where the interpreter was called by machine code."""
    run(
        child,
        """
f = exprjit.compile("x / y + 12345")
outcomes = []

def conversion(waiting):
    outcomes.append(f(Index(lambda: waiting() or 6), 2))

def conversion_by_name(waiting):
    outcomes.append(f(6, y=Index(lambda: waiting() or 2)))

def failure(waiting):
    def stop(frame, event, argument):
        sys.settrace(None)
        waiting()
    sys.settrace(stop)
    outcomes.append(fails(f, 1, 0))

def others(home):
    "All that anybody does elsewhere, on the page that the waiting thread will return to."
    functions = [exprjit.compile(f"x * y + {number}") for number in range(120)]
    assert [g(2, 3) for g in functions] == list(range(6, 126))
    assert functions[0].asm and str(functions[0].graph)
    del functions[::2]
    exprjit.cache_clear()
    gc.collect()
    assert memory.collect() >= 40
    assert memory.statistics().queued == 0
    assert f(8, 2) == 4 + 12345 and fails(f, 1, 0)
    pid = os.fork()
    if not pid:
        os._exit(f(8, 2) - 12345 + exprjit.compile("x")(1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5

for way in (conversion, conversion_by_name, failure):
    entered, go_on = threading.Event(), threading.Event()
    def waiting():
        entered.set()
        assert go_on.wait(50)
    thread = threading.Thread(target=way, args=(waiting,))
    thread.start()
    assert entered.wait(50)
    # In a third thread, as a lock that this one had would let it in again.
    in_threads(functools.partial(others, f._body.code.address & -4096))
    assert thread.is_alive()
    go_on.set()
    thread.join()
assert outcomes == [3 + 12345, 3 + 12345, True]
""",
        EXPRJIT_MEMORY=policy,
        PYTHONWARNINGS="ignore::DeprecationWarning",  # 3.12 warns of forks beside threads
    )


@policies
def test_pages_are_replaced_beneath_code_that_runs(child: Child, policy: str) -> None:
    """C code calls a formula all the time, without the interpreter lock, as the page changes."""
    run(
        child,
        """
lfind = ctypes.CDLL(None).lfind
f = exprjit.compile("x | y | 1")
address = f.address
stop, rounds = [], []

def spin():
    # It compares elements of a byte until the answer is 0; they are never looked at.
    place, count = ctypes.c_long(), ctypes.c_size_t(2_000_000)
    here = ctypes.byref(place), ctypes.byref(place), ctypes.byref(count)
    while not stop:
        found = lfind(*here, ctypes.c_size_t(1), ctypes.c_void_p(address))
        rounds.append(found)

threads = [threading.Thread(target=spin, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
kept, homes, number = [], set(), 0
while number < 400 or len(rounds) < 10:
    g = exprjit.compile(f"x + {number}")
    assert g(1) == 1 + number
    kept.append(g)
    homes.add(g._body.code.address & -4096)
    if number % 40 == 39:
        del kept[::2]
        exprjit.cache_clear()
        memory.collect()
    number += 1
stop.append(True)
for thread in threads:
    thread.join()
assert address & -4096 in homes
assert set(rounds) == {0}
""",
        EXPRJIT_MEMORY=policy,
    )


@pytest.mark.parametrize("books", ["memory._allocator", "function._cache"])
def test_a_finaliser_waits_for_whoever_waits_for_us(child: Child, books: str) -> None:
    """One thread is at the books when garbage is collected, whose finaliser takes a lock of the
    user's; another thread has that lock, and compiles, collects, clears and forks."""
    run(
        child,
        f"""
from exprjit import function
from exprjit.runtime.turn import Claim
books, FORKS = {books}, {HAVE_LOCK}
"""
        """
def compiled(number):
    f = exprjit.compile(f"x / y + {number}")
    assert f(4, 2) == 2 + number and f.engine == "jit"
    return f

theirs = threading.Lock()
real = Claim.take
base = compiled(0) and used()

class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        within.set()
        held.wait()
        with theirs:
            pass

def take(claim):
    "The first to come to the books finds garbage there."
    if claim._turn is not books._turn:
        return real(claim)
    Claim.take = real
    assert real(claim)
    Garbage()
    gc.collect()
    return True

def forked():
    pid = os.fork()
    if not pid:
        compiled(3), compiled(4)
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)

works = [lambda: compiled(1), memory.collect, memory.statistics, exprjit.cache_clear]
for work in works + [forked] * FORKS:
    within, held = threading.Event(), threading.Event()
    Claim.take = take

    def other():
        within.wait()
        with theirs:
            held.set()
            work()

    in_threads(lambda: compiled(2), other)
    # Everything is as ever: the next function shares a page, and nothing is lost.
    pages = memory.statistics().pages
    kept = compiled(5)
    assert memory.statistics().pages == pages
    assert compiled(5) is kept
    del kept
    assert used() == base, used()
""",
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )


def test_executors() -> None:
    f = exprjit.compile("x / y", name="divided")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(f, range(500), [3] * 500)) == [x // 3 for x in range(500)]
        future = pool.submit(f, 1, 0)
        with pytest.raises(ZeroDivisionError, match="x = 1"):
            future.result()
        assert pool.submit(f, 1, y=1).result() == 1


# The stress run. ---------------------------------------------------------------------------------


#: The settings are those of exprjit itself, whatever surrounds the tests.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("EXPRJIT_")}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(STRESS.parent)])


def test_some_seconds_of_stress() -> None:
    done = subprocess.run(
        [sys.executable, str(STRESS), "--seconds=4", "--seed=1"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    counts = r"stress: \d+ s, [\d,]+ calls, [\d,]+ compiles, [\d,]+ forks"
    assert re.fullmatch(counts + ": no fault, no wrong answer, memory flat", last), said


FAULTS = {
    "a wrong answer": (
        """
from exprjit.x86 import scalar
scalar.LOWERINGS["bitxor"] = lambda s, *rest: scalar.arithmetic(s, "bitor", *rest)
""",
        "WrongAnswer: ",
        ": FAULTS OR WRONG ANSWERS, memory flat",
    ),
    "a leak": (
        """
kept, compile = [], exprjit.compile
def leaking(*args, **options):
    kept.append(compile(*args, **options))
    return kept[-1]
exprjit.compile = leaking
""",
        "bytes of code are never freed",
        ": no fault, no wrong answer, MEMORY NOT FLAT",
    ),
    "open files": (
        """
files = [open("/dev/null") for _ in range(2)]
def leaking(self, step=stress.Worker.step):
    files.append(open("/dev/null"))
    step(self)
stress.Worker.step = leaking
""",
        "file descriptors are open, and ",
        ": no fault, no wrong answer, MEMORY NOT FLAT",
    ),
    "a dead child": (
        """
parent = os.getpid()
def dying(self, run=stress.Worker.run):
    if os.getpid() != parent:
        os.kill(os.getpid(), 11)
    run(self)
stress.Worker.run = dying
""",
        "stress: a child SIGSEGV",
        ": FAULTS OR WRONG ANSWERS, memory flat",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[forks_among_threads] if "child" in fault else [])
        for fault in FAULTS
    ],
)
def test_stress_finds(fault: str) -> None:
    plant, reason, verdict = FAULTS[fault]
    program = f"""
import os, sys
import exprjit, stress
stress.WARM_UP, stress.SHARED = 60, 50
{plant}
sys.exit(stress.main(["--seconds=1", "--threads=2", "--seed=1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert reason in done.stdout
    assert done.stdout.splitlines()[-1].endswith(verdict), done.stdout


@pytest.mark.slow
def test_stress_that_is_interrupted_reports() -> None:
    started: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, str(STRESS), "--seconds=600", "--seed=1"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("stress: --seconds=600 ")
        time.sleep(2)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=100)
    assert (started.returncode, err) == (130, "")
    assert out.splitlines()[-1].endswith(": no fault, no wrong answer, interrupted"), out

"""Processes: forked, started afresh, and given functions to call.

A forked child has its parent's pages of code and its parent's books; what either of them does from
then on is its own affair. Other processes are given source and options, and compile again.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from children import POLICIES, PRELUDE, Child, needs_code, policies
from pythons import forks_among_threads

pytestmark = needs_code

PROGRAM = (
    PRELUDE
    + """
def forked(child):
    "Run a function in a forked child; its process id."
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        child()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)

def wait(*pids):
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def make(numbers, **options):
    return {number: exprjit.compile(f"x / y + {number}", **options) for number in numbers}

def right(functions):
    for number, f in functions.items():
        assert f(8, 2) == f(y=2, x=8) == 4 + number and fails(f, 1, 0), f
        assert f.engine == "jit", f

right(make([0]))
assert exprjit.compile("x / y").checked_address
base = used()
"""
)

#: 3.12 warns of forks beside threads, which is what these are about.
QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


def run(child: Child, body: str, **environment: str) -> None:
    out = child(PROGRAM + body + "\nprint('done')", timeout=180, **environment)
    assert out == "done\n", out


# Fork. -------------------------------------------------------------------------------------------


@forks_among_threads
@policies
def test_hundreds_of_forks_while_threads_compile(child: Child, policy: str) -> None:
    """Whatever the other threads are at, the locks that they hold included."""
    run(
        child,
        f"forks = {150 if policy == POLICIES[0] else 50}\n"
        """
kept = make(range(1, 40))
# What a thread is about to drop when another one forks is never dropped in the child.
exprjit.cache_clear()
stop = threading.Event()

def churn(seed):
    number = 0
    while not stop.is_set():
        number += 1
        f = exprjit.compile(f"x * {number} - {seed}")
        assert f(2) == 2 * number - seed
        if number % 50 == seed:
            exprjit.cache_clear()
            gc.collect()
            memory.collect()

def work():
    right({number: kept[number] for number in list(kept)[::9]})
    for number in list(kept)[::2]:
        del kept[number]
    exprjit.cache_clear()
    assert memory.collect() >= 10
    new = make(range(1000, 1004), lazy=seed % 2 == 0)
    for f in new.values():
        f(1, 1), f(1, 1)
    right(new)
    right({number: kept[number] for number in list(kept)[::9]})
    # The child's own threads meet no lock that is held for ever.
    second = threading.Thread(target=lambda: kept[38].checked_address, daemon=True)
    second.start()
    second.join(20)
    assert not second.is_alive()
    new.clear()

sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=churn, args=(seed,), daemon=True) for seed in range(3)]
for thread in threads:
    thread.start()
children = []
for seed in range(forks):
    children.append(forked(work))
    if len(children) > 2:
        wait(children.pop(0))
wait(*children)
stop.set()
for thread in threads:
    thread.join()
right(kept)
kept.clear()
assert used() == base
""",
        EXPRJIT_MEMORY=policy,
        **QUIET,
    )


@forks_among_threads
def test_forks_while_another_thread_compiles_for_the_first_time(child: Child) -> None:
    """Which imports, and makes the parser, the stubs and the type."""
    program = """
import faulthandler, os, sys, threading
sys.setswitchinterval(1e-6)
import exprjit

first = threading.Thread(target=exprjit.compile, args=("x + 4",))
first.start()
children = []
while first.is_alive():
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(20, exit=True)
        os._exit(exprjit.compile("x + 5")(1) - 6)
    children.append(pid)
print({os.waitpid(pid, 0)[1] for pid in children} <= {0})
"""
    assert child(program, **QUIET) == "True\n"


@forks_among_threads
def test_forks_while_another_thread_is_within_an_installation(child: Child) -> None:
    """It has the allocator's lock, and sleeps: the fork waits for it, and the child has peace."""
    run(
        child,
        """
real, *others = memory._allocator._choice
within = threading.Event()

class Slow:
    name, map, unmap = real.name, real.map, real.unmap
    def replace(self, *arguments):
        within.set()
        time.sleep(0.01)
        real.replace(*arguments)

memory._allocator._choice = (Slow(), *others)
kept = make([1])
stop = threading.Event()

def churn():
    number = 0
    while not stop.is_set():
        number += 1
        assert exprjit.compile(f"x + {number}")(1) == 1 + number

def work():
    memory._allocator._choice = (real, *others)
    assert not memory._allocator._turn.owner
    new = make([2, 3])
    right({**kept, **new})
    new.clear()
    kept.clear()
    # The books are in order. What the other thread was about to make is never freed here.
    assert 0 <= used() - base <= 1000

thread = threading.Thread(target=churn, daemon=True)
thread.start()
for _ in range(20):
    within.clear()
    assert within.wait(50)
    wait(forked(work))
stop.set()
thread.join()
memory._allocator._choice = (real, *others)
right(kept)
kept.clear()
assert used() == base
""",
        **QUIET,
    )


@policies
def test_neither_process_changes_the_others_code(child: Child, policy: str) -> None:
    """Byte by byte, in both directions, and in a child of the child."""
    run(
        child,
        """
kept = make(range(1, 60))
large = exprjit.compile(" + ".join(f"(x ^ {n}) * (y - {n})" for n in range(250)))
answer = large(3, 4)
homes = sorted({f._body.code.address & -4096 for f in kept.values()})
assert len(homes) > 2

def image():
    return [ctypes.string_at(home, 4096) for home in homes]

def replaced(before):
    return sum(a != b for a, b in zip(before, image()))

def change(number):
    "Free and install, so that all pages are replaced."
    for key in list(kept)[number % 2 :: 2]:
        del kept[key]
    exprjit.cache_clear()
    memory.collect()
    kept.update(make(range(number, number + 40)))
    right(kept)

def exchange(number, child_of_child):
    "Fork; first the child changes its pages, then the parent."
    at_work = [os.pipe() for _ in range(2)]
    before = image()
    def child():
        global large
        change(number)
        assert replaced(before) == len(homes)
        code = large._body.code.address
        del large
        exprjit.cache_clear()
        memory.collect()
        mine = image()
        os.write(at_work[0][1], b"x")
        assert os.read(at_work[1][0], 1) == b"x"
        # The parent has changed its own by now.
        assert image() == mine
        right(kept)
        if child_of_child:
            large = exprjit.compile("x - y")
            exchange(number + 5000, False)
            assert image() == mine
    pid = forked(child)
    if os.read(at_work[0][0], 1) != b"x":
        wait(pid)
    assert image() == before
    right(kept)
    if child_of_child:
        assert large(3, 4) == answer
        change(number + 500)
        assert replaced(before) == len(homes)
    os.write(at_work[1][1], b"x")
    wait(pid)
    right(kept)
    for pipe in at_work:
        os.close(pipe[0]), os.close(pipe[1])

exchange(1000, True)
assert large(3, 4) == answer
""".replace("        code = large._body.code.address\n", ""),
        EXPRJIT_MEMORY=policy,
        **QUIET,
    )


def test_a_fork_in_the_middle_of_a_call(child: Child) -> None:
    """While an argument is converted, and while a failure is explained: both processes go on."""
    run(
        child,
        """
def fork():
    global pid
    pid = os.fork()
    return 2

def end():
    "The parent goes on, and waits; the child has done what it should."
    if pid:
        wait(pid)
    else:
        os._exit(0)

def stop(frame, event, argument):
    sys.settrace(None)
    fork()

names = make([1])
for way in range(3):
    names = make([way + 1], lazy=way == 2)
    right(names)
    if way == 0:
        answer = names[way + 1](6, Index(fork))
    elif way == 1:
        answer = names[way + 1](x=6, y=Index(fork))
    else:
        sys.settrace(stop)
        answer = 4 + way + fails(names[way + 1], 1, 0) - 1
    assert answer == 4 + way
    right(names)
    names.clear()
    assert used() == base
    right(make(range(30)))
    end()
""",
    )


def test_a_forked_child_ends_like_any_process(child: Child) -> None:
    """With all its finalisers and atexit, in the child of a child too."""
    program = """
import atexit
kept = make(range(1, 20))
cycle = [exprjit.compile("x + 1")]
cycle.append(cycle)
atexit.register(lambda: right(kept))
for number in range(2):
    pid = os.fork()
    if pid:
        wait(pid)
        break
    kept.update(make(range(100, 120)))
    del kept[number + 1]
    used()
print("well")
sys.stdout.flush()
"""
    assert child(PROGRAM + program, PYTHONDEVMODE="1") == "well\n" * 3


def test_a_fork_that_python_is_not_told_of(child: Child) -> None:
    """As web servers that embed Python fork: no hook of ours runs."""
    run(
        child,
        """
fork = ctypes.PyDLL(None).fork
kept = make(range(1, 20))
for number in range(5):
    pid = fork()
    if not pid:
        try:
            right(kept)
            kept.pop(1)
            used()
            right(make(range(100, 110)))
            right(kept)
            os._exit(0)
        finally:
            os._exit(1)
    wait(pid)
    right(make(range(200 + number, 205 + number)))
right(kept)
kept.clear()
assert used() == base
""",
    )


# Workers. ----------------------------------------------------------------------------------------

WORKERS = """
import concurrent.futures, multiprocessing
context = multiprocessing.get_context(METHOD)

def main():
    eager = exprjit.compile("x / y + 77", name="eager")
    lazy = exprjit.compile("(x ^ y) * k", ["x", "y"], constants={"k": 3}, lazy=True)
    strict = exprjit.compile("x * y", overflow="raise", limits="untrusted")
    verified = exprjit.compile("x - y", verify=True)
    interpreted = exprjit.compile("x + y", backend="interpreter")
    functions = [eager, lazy, strict, verified, interpreted]
    rows = [(x, y) for x in range(-5, 5) for y in (1, 2, -3)]

    def check(starmap, apply):
        for f in functions:
            assert starmap(f, rows) == [f(*row) for row in rows], f
        assert apply(operator.attrgetter("engine"), eager) == "jit"
        assert apply(operator.attrgetter("name"), eager.formula) == "eager"
        assert apply(os.getpid) != os.getpid()
        # Back again: equal, and from the cache.
        for f in functions:
            back = apply(pickle.loads, pickle.dumps(f))
            assert back == f and hash(back) == hash(f), f
            assert (back.source, back.params, back.overflow) == (f.source, f.params, f.overflow)
        try:
            apply(eager, 1, 0)
        except exprjit.ExprError as error:
            assert isinstance(error, ZeroDivisionError)
            assert "x = 1 and y = 0" in str(error) and "x / y + 77" in str(error)
        else:
            raise AssertionError("no error")
        try:
            apply(strict, 2**40, y=2**40)
        except OverflowError:
            pass
        else:
            raise AssertionError("no error")

    with context.Pool(2) as pool:
        check(
            lambda f, rows: pool.starmap(f, rows, chunksize=7),
            lambda f, *args, **named: pool.apply(f, args, named),
        )
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        check(
            lambda f, rows: list(pool.map(f, *zip(*rows), chunksize=7)),
            lambda f, *args, **named: pool.submit(f, *args, **named).result(),
        )
    process = context.Process(target=eager, args=(1, 1))
    process.start()
    process.join()
    assert process.exitcode == 0
    right({77: eager})

main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_are_given_functions(child: Child, method: str) -> None:
    run(child, WORKERS.replace("METHOD", repr(method)), **QUIET)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(child: Child, backend: str) -> None:
    pytest.importorskip("joblib")
    run(
        child,
        f"backend = {backend!r}\n"
        """
import joblib
f = exprjit.compile("x / y + 5")
lazy = exprjit.compile("x ^ y", lazy=True)
with joblib.parallel_config(backend=backend, n_jobs=2):
    parallel = joblib.Parallel()
    functions = [f, lazy]
    if backend == "loky":
        functions.append(lambda x, y: f(x, y) - lazy(x, y))  # by cloudpickle
    for function in functions:
        rows = [(x, y) for x in range(30) for y in (1, 2)]
        tasks = [joblib.delayed(function)(*row) for row in rows]
        assert parallel(tasks) == [function(*row) for row in rows]
    assert set(parallel([joblib.delayed(getattr)(f, "engine")] * 4)) == {"jit"}
    # From 3.14 on, loky hangs after an error, whatever the function (joblib 1.6).
    if backend != "loky" or sys.version_info < (3, 14):
        try:
            parallel([joblib.delayed(f)(1, y) for y in (1, 0)])
        except ZeroDivisionError as error:
            assert "x = 1 and y = 0" in str(error)
        else:
            raise AssertionError("no error")
if backend == "loky":
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown(wait=True)
""",
        **QUIET,
    )


def test_cloudpickle(child: Child) -> None:
    """Functions within closures, classes and containers, read by another process."""
    cloudpickle: Any = pytest.importorskip("cloudpickle")
    del cloudpickle
    out = child(
        PRELUDE
        + """
import cloudpickle
f, g = exprjit.compile("x / y + 5"), exprjit.compile("x * 3", lazy=True)

class Model:
    score = f
    def __init__(self):
        self.table = {f: "f", g: "g"}
    def __call__(self, x, y):
        return f(x, y) + self.table_of(g)(x)
    def table_of(self, function):
        return next(key for key in self.table if key == function)

print(cloudpickle.dumps((Model(), lambda x: f(x, 1), [f, f])).hex())
"""
    )
    program = f"""
import pickle
model, function, (first, second) = pickle.loads(bytes.fromhex({out.strip()!r}))
assert model(8, 2) == 9 + 24 and function(3) == 8
assert first is second and first.engine == "jit" and model.score == first
print("done")
"""
    assert child(program) == "done\n"


def test_a_fresh_process_reads_a_pickle(child: Child) -> None:
    """With every protocol, and without having imported anything of ours."""
    out = child(
        PRELUDE
        + """
f = exprjit.compile("x / y + k", ["y", "x"], constants={"k": 5}, overflow="raise", name="g")
print([pickle.dumps([f, f], protocol).hex() for protocol in range(pickle.HIGHEST_PROTOCOL + 1)])
"""
    )
    program = f"""
import pickle
for text in {out.strip()}:
    f, g = pickle.loads(bytes.fromhex(text))
    assert f is g and f.params == ("y", "x") and f.__name__ == "g" and f.engine == "jit"
    assert f(2, 8) == f(x=8, y=2) == 9
    try:
        f(0, 1)
    except ZeroDivisionError as error:
        assert "x = 1 and y = 0" in str(error)
print("done")
"""
    assert child(program) == "done\n"


@pytest.mark.skipif(os.cpu_count() == 1, reason="one processor")
def test_processes_share_nothing_but_pages(child: Child) -> None:
    """Parent and children call and replace at the same time, on different processors."""
    run(
        child,
        """
kept = make(range(1, 30))

def work():
    for number in range(1, 30):
        kept[number] = make([number + 5000]).popitem()[1]
        assert kept[number](8, 2) == 5004 + number
        if number < 29:
            assert kept[number + 1](8, 2) == 5 + number
        if number % 10 == 0:
            exprjit.cache_clear()
            memory.collect()

children = [forked(work) for _ in range(4)]
work()
wait(*children)
right({5000 + number: f for number, f in kept.items()})
""",
    )

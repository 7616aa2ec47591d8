"""Threads and forked children that compile, call, drop and collect for as long as is asked.

    python tests/stress.py --seconds=600

Every answer is compared with arithmetic on Python ints that is written down here and shares
nothing with exprjit. The exit status is 1 after a wrong answer, an exception that nobody expected,
a child that died, a thread that hangs, or memory that is not flat. Memory is judged on samples
taken all along, by the thirds of the run:

- the resident size of the last third goes beyond that of the middle one by at most 5 % or 2 MiB;
- so does the number of code pages, by at most a quarter and 16 pages;
- when all functions are dropped, code memory holds as many bytes as before the first, and as many
  file descriptors are open.

Ctrl-C ends the run early with the same report, and status 130 if nothing was wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import functools
import gc
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    import exprjit
except ImportError:  # not installed: what is beside this folder
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import exprjit

from exprjit.runtime import memory

#: So many functions are alive and shared by all threads.
SHARED = 300
#: So many are compiled before the clock starts, which fills the cache too.
WARM_UP = 1_500
#: A thread that does nothing for so many seconds hangs.
PATIENCE = 60
#: Seconds between samples of memory, at each of which there may be a fork.
TICK = 0.1
#: Without its global lock, Python hangs in children that were forked among threads.
FORKS: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
#: How long a child works, in seconds.
CHILD = 0.1

# What is right. ----------------------------------------------------------------------------------


def wrap(value: int) -> int:
    """The signed 64-bit number that `value` is modulo 2**64."""
    return (value + 2**63) % 2**64 - 2**63


def exact(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError
    return value


def truncated(a: int, b: int) -> int:
    """The quotient rounded toward zero."""
    return -(-a // b) if (a < 0) != (b < 0) else a // b


def mixed(k: int, x: int, y: int) -> int:
    a = (x ^ k) % 2**64
    return wrap((a ^ a >> 33) * (y | 1))


def guarded(k: int, x: int, y: int) -> int:
    return wrap(truncated(x, y)) if y != 0 else k


def chosen(k: int, x: int, y: int) -> int:
    return wrap(x - k) if x < y else wrap(y**3)


def shifted(k: int, x: int, y: int) -> int:
    n = y % 64
    return wrap((x << n) ^ (x % 2**64 >> n) ^ k)


def exact_product(k: int, x: int, y: int) -> int:
    return exact(exact(x * y) - k)


def long_sum(terms: int, k: int, x: int, y: int) -> int:
    return wrap(sum((x ^ k + n) * (y - n) for n in range(terms)))


def long_text(terms: int, k: int) -> str:
    return " + ".join(f"(x ^ {k + n}) * (y - {n})" for n in range(terms))


Meaning = Callable[[int, int, int], int]

#: A text for a number k, its value for k, x and y, and options. An OverflowError of a value stands
#: for that of the call.
KINDS: list[tuple[Callable[[int], str], Meaning, dict[str, Any]]] = [
    (lambda k: f"x + {k} - y", lambda k, x, y: wrap(x + k - y), {}),
    (lambda k: f"x * {k} + y", lambda k, x, y: wrap(x * k + y), {}),
    (lambda k: f"{k} + x / y", lambda k, x, y: wrap(truncated(x, y) + k), {}),
    (lambda k: f"x // y + y %% {k}", lambda k, x, y: wrap(x // y + y % k), {}),
    (lambda k: f"a = x ^ {k}; (a ^ a >>> 33) * (y | 1)", mixed, {}),
    (lambda k: f"y != 0 ? x / y : {k}", guarded, {}),
    (lambda k: f"x < y ? x - {k} : y ** 3", chosen, {}),
    (lambda k: f"(x << y) ^ (x >>> y) ^ {k}", shifted, {}),
    (lambda k: f"top(v) = max(v, {k}); top(x) ^ top(y)", lambda k, x, y: max(x, k) ^ max(y, k), {}),
    (lambda k: f"x * y - {k}", exact_product, {"overflow": "raise"}),
    (lambda k: f"x + y + {k}", lambda k, x, y: exact(exact(x + y) + k), {"overflow": "raise"}),
    (functools.partial(long_text, 40), functools.partial(long_sum, 40), {}),
    # Larger than a page, so with a mapping of its own; rare, since compiling it takes long.
    (functools.partial(long_text, 350), functools.partial(long_sum, 350), {}),
]

EDGES = (0, 1, -1, 2, 3, 63, 64, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)

Outcome = int | type[BaseException]


class Entry(NamedTuple):
    """A function, and what says what it has to answer for two ints."""

    function: exprjit.Function
    meaning: Callable[[int, int], int]
    source: str

    def right(self, x: int, y: int) -> Outcome:
        try:
            return self.meaning(x, y)
        except (ZeroDivisionError, OverflowError) as error:
            return type(error)


class WrongAnswer(Exception):
    """A function answered what it must not."""


# Ways to call. -----------------------------------------------------------------------------------

Call = Callable[[exprjit.Function, int, int], int]

PLAIN = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
CHECKED = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64, ctypes.c_int64
)


class Fails(Exception):
    """The C function says that a call would raise."""


def by_pointer(f: exprjit.Function, x: int, y: int) -> int:
    """Through C, without the interpreter lock."""
    result = ctypes.c_int64()
    if CHECKED(f.checked_address)(ctypes.byref(result), x, y):
        raise Fails
    return result.value


def pickled(f: exprjit.Function, x: int, y: int) -> int:
    return int(pickle.loads(pickle.dumps(f))(x, y))


def by_plain_pointer(f: exprjit.Function, x: int, y: int) -> int:
    return int(PLAIN(f.address)(x, y)) if f.total else f(x, y)


class Busy:
    """An argument whose conversion compiles, drops and collects while the call goes on."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        inner = exprjit.compile(f"x + {self.value & 0xFF}", ["x"])
        assert inner(1) == 1 + (self.value & 0xFF)
        memory.collect()
        if self.value % 16 == 0:
            gc.collect(0)
        return self.value


CALLS: list[Call] = [
    lambda f, x, y: f(x, y),
    lambda f, x, y: f(x, y),
    lambda f, x, y: f(x, y=y),
    lambda f, x, y: f(y=y, x=x),
    lambda f, x, y: f.__call__(x, y),
    lambda f, x, y: functools.partial(f, x)(y),
    lambda f, x, y: next(map(f, [x], [y])),
    lambda f, x, y: f(Busy(x), y),
    lambda f, x, y: f(x, Busy(y)),
]
RARE_CALLS: list[Call] = [by_pointer, by_plain_pointer, pickled]


# What a thread does. -----------------------------------------------------------------------------


class Worker:
    """One thread's part: steps chosen at random until it is told to stop."""

    def __init__(self, seed: str, shared: list[Entry], stop: threading.Event) -> None:
        self.rng = random.Random(seed)
        self.shared = shared
        self.stop = stop
        self.counts: Counter[str] = Counter()
        self.failure: str | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.step()
        except BaseException:
            self.failure = traceback.format_exc()
            self.stop.set()

    def step(self) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.70:
            entry = rng.choice(self.shared)
            for _ in range(10):
                self.call(entry)
        elif choice < 0.90:
            entry = self.shared[rng.randrange(len(self.shared))] = self.compile()
            self.call(entry)
            self.counts["frees"] += 1
        elif choice < 0.96:
            # Another function of the same text: from the cache if it is there.
            old = rng.choice(self.shared)
            f = exprjit.compile(old.source, ["x", "y"], overflow=old.function.overflow)
            self.counts["compiles"] += 1
            self.call(old._replace(function=f))
        elif choice < 0.98:
            self.leave_garbage()
            self.counts["frees"] += 1
        elif choice < 0.985:
            gc.collect()
            self.counts["collections"] += 1
        elif choice < 0.986:
            exprjit.cache_clear()
        else:
            memory.collect()
            assert memory.statistics().used >= 0

    def compile(self) -> Entry:
        rng = self.rng
        rare = rng.random() < 0.004
        text, meaning, options = KINDS[-1] if rare else rng.choice(KINDS[:-1])
        k = rng.choice((rng.randrange(1, 100), rng.randrange(1, 2**40)))
        source = text(k)
        ways: dict[str, Any] = {"lazy": rng.random() < 0.2, "verify": rng.random() < 0.03}
        f = exprjit.compile(source, ["x", "y"], **options, **ways)
        self.counts["compiles"] += 1
        return Entry(f, functools.partial(meaning, k), source)

    def call(self, entry: Entry) -> None:
        rng = self.rng
        x, y = self.number(), self.number()
        way = rng.choice(RARE_CALLS if rng.random() < 0.02 else CALLS)
        right = entry.right(x, y)
        got: Outcome
        try:
            got = way(entry.function, x, y)
        except (ZeroDivisionError, OverflowError) as error:
            got = next(
                kind for kind in (ZeroDivisionError, OverflowError) if isinstance(error, kind)
            )
        except Fails:
            got = right if isinstance(right, type) else Fails
        self.counts["calls"] += 1
        if got != right:
            raise WrongAnswer(f"{entry.function!r} gives {got} for {x}, {y} and not {right}")

    def number(self) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            return rng.randrange(-8, 8)
        if kind < 0.6:
            return rng.choice(EDGES)
        return rng.getrandbits(64) - 2**63 >> rng.randrange(64)

    def leave_garbage(self) -> None:
        """A function in a cycle of which a finaliser calls it once more."""
        garbage = Garbage(self.compile(), self)
        garbage.cycle = garbage


class Garbage:
    """Only the collector finds it; then it uses its function, and may come back to life."""

    cycle: Any = None
    kept: list[Garbage] = []  # noqa: RUF012

    def __init__(self, entry: Entry, worker: Worker) -> None:
        self.entry = entry
        self.worker = worker

    def __del__(self) -> None:
        # A finaliser's exception goes nowhere, so it is left where the thread finds it.
        try:
            self.worker.call(self.entry)
            exprjit.compile(f"x - {id(self) % 97}", ["x"])(1)
        except BaseException:
            self.worker.failure = traceback.format_exc()
            self.worker.stop.set()
        if id(self) % 3 == 0:
            self.kept.append(self)
            del self.kept[:-10]


# Processes. --------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Resident memory in bytes, code pages included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fork(seed: str, shared: list[Entry]) -> int:
    """A child that does what the threads do, for a short while; its process id."""
    with warnings.catch_warnings():
        # That a process with threads forks is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # if anything hangs
        stop = threading.Event()
        workers = [Worker(f"{seed} {number}", shared, stop) for number in range(2)]
        timer = threading.Timer(CHILD, stop.set)
        second = threading.Thread(target=workers[1].run)
        timer.start()
        second.start()
        workers[0].run()
        second.join()
        timer.cancel()
        timer.join()
        shared.clear()
        exprjit.cache_clear()
        gc.collect()
        memory.collect()
        failures = [worker.failure for worker in workers if worker.failure]
        os.write(2, "".join(failures).encode())
        status = 1 if failures else 0
    finally:
        os._exit(status)
    raise AssertionError


class Children:
    """Those that are still at work, and the fates of the others that were bad."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.forks = 0
        self.bad: list[str] = []

    def reap(self, wait: bool = False) -> None:
        for child in list(self.alive):
            done, status = os.waitpid(child, 0 if wait else os.WNOHANG)
            if done:
                self.alive.remove(child)
                if code := os.waitstatus_to_exitcode(status):
                    ended = f"exited with {code}" if code > 0 else signal.Signals(-code).name
                    self.bad.append(f"a child {ended}")


# The run. ----------------------------------------------------------------------------------------


class Sample(NamedTuple):
    resident: int
    pages: int
    descriptors: int

    @classmethod
    def take(cls) -> Sample:
        return cls(resident(), memory.statistics().pages, descriptors())

    def __str__(self) -> str:
        return (
            f"{self.resident / 2**20:7.1f} MiB resident, {self.pages:4} code pages, "
            f"{self.descriptors} file descriptors"
        )


def not_flat(samples: Sequence[Sample]) -> list[str]:
    """What has grown from the middle third to the last one, as sentences."""
    third = len(samples) // 3
    if not third:
        return []
    middle, last = samples[third : 2 * third], samples[2 * third :]
    found = []
    before, after = (max(sample.resident for sample in part) for part in (middle, last))
    if after - before > max(before // 20, 2 * 2**20):
        found.append(f"resident memory grew from {before:,} to {after:,} bytes")
    before, after = (max(sample.pages for sample in part) for part in (middle, last))
    if after > before * 5 // 4 + 16:
        found.append(f"code memory grew from {before} to {after} pages")
    return found


def forget() -> None:
    """Drop all that may be dropped."""
    gc.collect()
    # Finalisers may have brought some back to life, and have compiled.
    Garbage.kept.clear()
    gc.collect()
    exprjit.cache_clear()
    gc.collect()
    memory.collect()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long (600)")
    parser.add_argument("--threads", type=int, default=4, help="how many threads (4)")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="by default random")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    faulthandler.enable()
    print(f"stress: --seconds={options.seconds:g} --threads={options.threads} ", end="")
    print(f"--seed={options.seed}, code memory {memory.policy()[0]}", flush=True)

    stop = threading.Event()
    interrupts: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        interrupts.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # a second one is meant seriously

    previous = [signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)]

    # What is made at the first need, as the stubs, is not what may not stay behind.
    exprjit.compile("x / y", ["x", "y"], lazy=True)(x=2, y=1)
    by_pointer(exprjit.compile("x + y", ["x", "y"]), 1, Busy(2).value)
    exprjit.compile("x", ["x"])(x=1)
    forget()
    used, open_files = memory.statistics().used, descriptors()

    shared: list[Entry] = []
    filler = Worker(f"{options.seed} fill", shared, stop)
    for _ in range(WARM_UP):
        if not stop.is_set():
            shared.append(filler.compile())
            del shared[:-SHARED]
    workers = [
        Worker(f"{options.seed} {number}", shared, stop) for number in range(options.threads)
    ]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    begin = time.monotonic()
    for thread in threads:
        thread.start()

    rng = random.Random(f"{options.seed} main")
    children = Children()
    samples: list[Sample] = []
    failures: list[str] = []
    progress = [(0, begin)] * len(workers)
    interval = sys.getswitchinterval()
    while not stop.wait(TICK) and not children.bad:
        now = time.monotonic()
        if now - begin > options.seconds / 10:
            samples.append(Sample.take())
        if now - begin > options.seconds:
            break
        if FORKS and len(children.alive) < 2:
            children.alive.add(fork(f"{options.seed} child {children.forks}", shared))
            children.forks += 1
        children.reap()
        sys.setswitchinterval(rng.choice((1e-6, 1e-5, 1e-4, 5e-3)))
        for number, worker in enumerate(workers):
            done, since = progress[number]
            if worker.counts["calls"] != done:
                progress[number] = worker.counts["calls"], now
            elif now - since > PATIENCE:
                print(f"stress: a thread hangs since {PATIENCE} s", flush=True)
                faulthandler.dump_traceback()
                os._exit(1)
    took = time.monotonic() - begin
    stop.set()
    sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()
    children.reap(wait=True)

    failures += [worker.failure for worker in workers if worker.failure]
    failures += children.bad
    counts = sum((worker.counts for worker in [filler, *workers]), Counter())
    del filler, workers, threads
    shared.clear()
    forget()
    end = Sample.take()
    growth = [] if interrupts else not_flat(samples)
    if memory.statistics().used != used:
        growth.append(f"{memory.statistics().used - used:,} bytes of code are never freed")
    if end.descriptors != open_files:
        growth.append(f"{end.descriptors} file descriptors are open, and {open_files} were")

    for name in ("compiles", "calls", "frees", "collections"):
        print(f"{name:12} {counts[name]:14,}")
    print(f"{'forks':12} {children.forks:14,}")
    if samples:
        for name, sample in zip(
            ("after warm-up", "middle", "end"),
            (samples[0], samples[len(samples) // 2], samples[-1]),
            strict=True,
        ):
            print(f"{name:14}{sample}")
    print(f"{'all dropped':14}{end}")
    for failure in failures + growth:
        print(f"stress: {failure}")
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
        signal.signal(number, handler)

    verdict = ", ".join(
        [
            "FAULTS OR WRONG ANSWERS" if failures else "no fault, no wrong answer",
            "MEMORY NOT FLAT" if growth else "memory flat" if not interrupts else "interrupted",
        ]
    )
    print(
        f"stress: {took:.0f} s, {counts['calls']:,} calls, {counts['compiles']:,} compiles, "
        f"{children.forks:,} forks: {verdict}",
        flush=True,
    )
    return 1 if failures or growth else 130 if interrupts else 0


if __name__ == "__main__":
    sys.exit(main())

"""Generated programs by the million: worker processes, a progress line, and a post-mortem.

The engines run in child processes, so that code which kills or hangs its process is a finding
like any other: a worker writes down which program it is about to run.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

from ..language.operators import OVERFLOW_MODES
from .check import Report, check_generated, choose, generated

#: A worker that runs one batch for longer than this is taken to hang.
PATIENCE = 120.0

#: Seconds between two lines of progress where standard error is not a terminal.
LOG_EVERY = 60.0

#: What a worker writes down: the program's index, programs done, evaluations done.
_INDEX, _PROGRAMS, _EVALUATIONS = range(3)


class Plan(NamedTuple):
    """What to check: see `check_generated`.  Of `seconds` and `programs` one is given."""

    seed: int = 1
    seconds: float | None = None
    programs: int | None = None
    size: int = 24
    engines: Sequence[str] | None = None
    modes: Sequence[str] = OVERFLOW_MODES
    jobs: int = 1


class Death(NamedTuple):
    """A worker that ended without a report, and the program that it was running."""

    how: str
    source: str

    def __str__(self) -> str:
        return f"a worker {self.how} while it ran this program:\n{self.source}"


class Outcome(NamedTuple):
    """All workers' reports in one, what went wrong with workers, whether Ctrl-C ended it."""

    report: Report
    deaths: tuple[Death, ...]
    interrupted: bool = False


def work(plan: Plan, first: int, written: Any, results: Any) -> None:
    """A worker: every `plan.jobs`-th program from `first`; sends its report or its error."""
    # Ctrl-C goes to all processes of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def progress(index: int, programs: int, evaluations: int) -> None:
        written[:] = (index, programs, evaluations)

    indices = (
        count(first, plan.jobs) if plan.programs is None else range(first, plan.programs, plan.jobs)
    )
    report = check_generated(
        plan.seed,
        indices,
        seconds=plan.seconds,
        size=plan.size,
        engines=choose(plan.engines),
        modes=plan.modes,
        progress=progress,
    )
    results.send(report)
    results.close()


class _Worker:
    """A child process as its parent sees it."""

    def __init__(self, context: Any, plan: Plan, first: int) -> None:
        self.plan = plan
        self.written = context.RawArray("q", 3)
        self.written[_INDEX] = first
        self.results, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(plan, first, self.written, theirs))
        self.process.start()
        # So that the pipe ends when the child does.
        theirs.close()
        self.report: Report | None = None
        self.death: Death | None = None
        self.last_seen = (tuple(self.written), time.monotonic())

    @property
    def running(self) -> bool:
        return self.report is None and self.death is None

    def look(self) -> None:
        """Notice a report, an end without one, and standstill."""
        now = time.monotonic()
        if self.results.poll():
            try:
                self.report = self.results.recv()
            except EOFError:
                self.process.join()
                code = self.process.exitcode
                how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with status {code}"
                self.died(how)
        elif tuple(self.written) != self.last_seen[0]:
            self.last_seen = (tuple(self.written), now)
        elif now - self.last_seen[1] > PATIENCE:
            self.process.kill()
            self.died(f"made no progress for {PATIENCE:.0f} seconds")

    def died(self, how: str) -> None:
        source = generated(self.plan.seed, self.written[_INDEX], self.plan.size)
        self.death = Death(f"{how} (program {self.written[_INDEX]})", source)

    def stop(self) -> None:
        if self.running:
            self.process.terminate()
        self.process.join()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(plan: Plan) -> Outcome:
    """Check by `plan.jobs` workers until the plan is done or something is found."""
    from multiprocessing import get_context

    engines = tuple(choose(plan.engines))
    # Not fork: a worker starts clean, and it is what all systems have.
    context = get_context("spawn")
    workers: list[_Worker] = []
    show = _Progress()
    interrupted = False
    try:
        workers.extend(_Worker(context, plan, first) for first in range(plan.jobs))
        while any(worker.running for worker in workers):
            _wait(workers)
            for worker in workers:
                if worker.running:
                    worker.look()
            show(workers)
            if any(w.death or (w.report and w.report.difference) for w in workers):
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        show.end()
        for worker in workers:
            worker.stop()
    deaths = tuple(worker.death for worker in workers if worker.death)
    return Outcome(_together(engines, workers), deaths, interrupted)


def _wait(workers: Sequence[_Worker]) -> None:
    from multiprocessing.connection import wait

    wait([worker.results for worker in workers if worker.running], timeout=0.25)


def _together(engines: tuple[str, ...], workers: Sequence[_Worker]) -> Report:
    """One report of all; a worker that sent none counts with what it had written down."""
    programs = evaluations = 0
    difference = None
    for worker in workers:
        if worker.report is None:
            programs += worker.written[_PROGRAMS]
            evaluations += worker.written[_EVALUATIONS]
        else:
            programs += worker.report.programs
            evaluations += worker.report.evaluations
            difference = difference or worker.report.difference
    return Report(programs, evaluations, engines, difference)


class _Progress:
    """How far the work is: one line that a terminal keeps renewing, a line a minute in a log."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.due = self.started + (0 if self.terminal else LOG_EVERY)

    def __call__(self, workers: Sequence[_Worker]) -> None:
        now = time.monotonic()
        if now < self.due:
            return
        programs = sum(worker.written[_PROGRAMS] for worker in workers)
        text = f"{programs:,} programs, {programs / max(now - self.started, 0.001):,.0f}/s"
        sys.stderr.write(f"\r{text} " if self.terminal else f"{text}\n")
        sys.stderr.flush()
        self.due = now + (0 if self.terminal else LOG_EVERY)

    def end(self) -> None:
        if self.terminal:
            # Back to the start of the line, and nothing on it.
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

"""``exprjit check``: the cross-checker on the command line."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..language.operators import OVERFLOW_MODES
from .options import Option, UsageError, arguments_for

OPTIONS = (
    Option("--generate", "check generated programs instead of a formula"),
    Option("--seconds", "how long to generate (default 10)", "NUMBER", read=float),
    Option("--count", "how many programs, or tuples of arguments for a formula", "NUMBER", int),
    Option("--seed", "what random choices begin with (default 1)", "NUMBER", int, default=1),
    Option("--size", "the size of generated programs (default 24)", "NUMBER", int, default=24),
    Option("--jobs", "how many processes generate (default 1)", "NUMBER", int, default=1),
    Option("--engines", "compare these only", "NAME,...", lambda text: tuple(text.split(","))),
    Option("--overflow", "in this mode only", "MODE", choices=OVERFLOW_MODES),
)


#: Bounds of options, against slips: a job is a process, and programs have limits.
_MOST = {"count": 10**12, "size": 10_000, "jobs": 256, "seconds": 10**9}


def run(formula: str | None, values: Mapping[str, int], options: Mapping[str, Any]) -> int:
    """The command: 0 if all engines agree, 1 if they do not.

    Raises UsageError, and the ExprError of a formula that is wrong.
    """
    for name in ("count", "size", "jobs", "seconds"):
        if options[name] is not None and not 0 < options[name] <= _MOST[name]:
            raise UsageError(f"--{name} is a number from 1 to {_MOST[name]:,}")
    if options["generate"]:
        if formula is not None or values:
            raise UsageError("--generate makes its own formulas and values")
        return _generate(options)
    if formula is None:
        raise UsageError("give a formula, or --generate")
    return _formula(formula, values, options)


def _formula(formula: str, values: Mapping[str, int], options: Mapping[str, Any]) -> int:
    from .. import compile
    from .check import check

    params = compile(formula, backend="interpreter").params
    rows = None
    if values:
        row = arguments_for(params, values)
        assert row is not None
        rows = [tuple(row)]
    report = check(
        formula,
        arguments=rows,
        seed=options["seed"],
        count=options["count"] or 2_000,
        engines=options["engines"],
        modes=_modes(options),
    )
    if report.difference is not None:
        print(report.difference)
    print(report)
    return 0 if report.difference is None else 1


def _generate(options: Mapping[str, Any]) -> int:
    from . import campaign

    seconds, programs = options["seconds"], options["count"]
    if seconds is None and programs is None:
        seconds = 10.0
    plan = campaign.Plan(
        options["seed"],
        seconds,
        programs,
        options["size"],
        options["engines"],
        _modes(options),
        options["jobs"],
    )
    started = time.monotonic()
    with _termination_as_interrupt():
        outcome = campaign.run(plan)
    passed = time.monotonic() - started
    for death in outcome.deaths:
        print(death)
    report = outcome.report
    if report.difference is not None:
        print(report.difference)
    rate = report.programs / passed
    print(f"{report}; seed {plan.seed}, {passed:.1f} s, {rate:,.0f} programs/s")
    if outcome.deaths or report.difference is not None:
        return 1
    return 130 if outcome.interrupted else 0


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """So that a run that is told to end says how far it came.

    A shell's background jobs ignore Ctrl-C's signal; SIGTERM is how to end them.
    """
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # Not in the main thread, which alone takes signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _modes(options: Mapping[str, Any]) -> tuple[str, ...]:
    return (options["overflow"],) if options["overflow"] else OVERFLOW_MODES

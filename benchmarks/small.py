"""What a call with small arrays costs: f(a) and other methods beside the same of NumPy's.

Rounds of the contenders are interleaved, so that a change in the machine's speed meets all of them;
the ratio is the median of the ratios within the rounds. The printed nanoseconds are medians per
call, with the loop around it.

    python benchmarks/small.py
"""

from __future__ import annotations

import argparse
import platform
import sys
import timeit
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import exprjit

SIZES = (1, 16, 1_000)


class Case(NamedTuple):
    """A formula, the call, and the expression of NumPy that gives the same."""

    source: str
    call: str
    numpy: str


CASES = (
    Case("x + 4", "f(a)", "a + 4"),
    Case("x + y", "f(a, b)", "a + b"),
    Case("x + y", "f(a, 4)", "a + 4"),
    Case("x * x * x + 3 * x", "f(a)", "a * a * a + 3 * a"),
    Case("x > y ? x - y : y - x", "f(a, b)", "np.where(a > b, a - b, b - a)"),
    Case("10 < x and x < 100", "f(a)", "(10 < a) & (a < 100)"),
    Case("x // y", "f(a, b)", "a // b"),
    Case("x %% 1000", "f(a)", "a % 1000"),
    Case("x > 4", "f.mask(a)", "a > 4"),
    Case("x > 4", "f.count(a)", "np.count_nonzero(a > 4)"),
    Case("x > 4", "f.indices(a)", "(a > 4).nonzero()[0]"),
    Case("x + 4", "f.sum(a)", "(a + 4).sum()"),
    Case("x + 4", "f.max(a)", "(a + 4).max()"),
)


class Outcome(NamedTuple):
    """Nanoseconds per call, ours and NumPy's, and their ratio."""

    ours: float
    numpy: float
    ratio: float


def measure(case: Case, size: int, rounds: int, calls: int) -> Outcome:
    f = exprjit.compile(case.source)
    names: dict[str, Any] = {"f": f, "np": np, "a": np.arange(size), "b": np.arange(size) % 7 + 1}
    texts = case.call, case.numpy
    timers = [timeit.Timer(text, globals=names) for text in texts]
    for _ in range(3):  # The first calls compile.
        assert np.array_equal(eval(texts[0], names), eval(texts[1], names))
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for timer, found in zip(timers, times, strict=True):
            found.append(timer.timeit(calls) / calls * 1e9)
    ratio = median(ours / other for ours, other in zip(*times, strict=True))
    return Outcome(median(times[0]), median(times[1]), ratio)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Time calls with small arrays.")
    parser.add_argument("--rounds", type=int, default=31, help="how often each (%(default)s)")
    parser.add_argument("--calls", type=int, default=5_000, help="per round (%(default)s)")
    options = parser.parse_args(argv)

    print(
        f"CPython {platform.python_version()}, NumPy {np.__version__}, {options.rounds} rounds of "
        f"{options.calls:,} calls; medians in ns"
    )
    print(f"{'formula':24}{'call':14}{'items':>7}{'exprjit':>10}{'NumPy':>10}{'x NumPy':>10}")
    for case in CASES:
        for size in SIZES:
            found = measure(case, size, options.rounds, options.calls)
            print(
                f"{case.source:24}{case.call:14}{size:7,}{found.ours:10.0f}"
                f"{found.numpy:10.0f}{found.ratio:10.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

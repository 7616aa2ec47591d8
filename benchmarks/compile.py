"""What it costs to compile a formula never seen before and call it once, beside numexpr.

Every formula has a number that no formula before it had, so no cache of either side can help.
Rounds are interleaved; the figures are medians, the ratio is the median of the rounds' ratios.

    python benchmarks/compile.py
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import exprjit


def long_sum(operators: int, number: int) -> str:
    """A sum with about that many operators, whose terms all differ: nothing folds or is shared."""
    terms = (operators + 1) // 3
    return " + ".join(f"(x ^ {number + i}) * {2 * i + 3}" for i in range(terms))


class Case(NamedTuple):
    name: str
    operators: int
    text: Callable[[int], str]  # the formula with the given number in it
    share: float = 1.0  # of the rounds: fewer where one takes long
    # numexpr has 256 registers, of which each constant takes one, so long formulas do not fit.
    fits_numexpr: bool = True


def sixteen(number: int) -> str:
    return (
        "(x ^ 21) * 3 + (x & 255) * 5 - (x | 64) * 7 + (x << 3) - (x >> 2)"
        f" + (x ^ {number}) - (x & 1023)"
    )


CASES = [
    Case("x + N", 1, lambda number: f"x + {number}"),
    Case("a cubic", 6, lambda number: f"((5 * x + 3) * x - 7) * x + {number}"),
    Case("16 operators", 16, sixteen),
    Case("1,000 operators", 1_000, partial(long_sum, 1_000), 0.1, False),
    Case("10,000 operators", 10_000, partial(long_sum, 10_000), 0.02, False),
    Case("100,000 operators", 100_000, partial(long_sum, 100_000), 0.01, False),
]

NUMBERS = itertools.count(1_000_003)


def by_exprjit(text: str) -> Any:
    return exprjit.compile(text)(2)


def load_numexpr() -> Callable[[str], Any] | None:
    try:
        import numexpr
    except ImportError:
        return None

    def by_numexpr(text: str) -> Any:
        return numexpr.evaluate(text, local_dict={"x": 2}, global_dict={})

    return by_numexpr


def microseconds(call: Callable[[str], Any], text: str) -> float:
    start = time.perf_counter()
    call(text)
    return (time.perf_counter() - start) * 1e6


def measure(case: Case, rounds: int, by_numexpr: Callable[[str], Any] | None) -> str:
    """The case's line of the table."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(microseconds(by_exprjit, case.text(next(NUMBERS))))
        if by_numexpr is not None and case.fits_numexpr:
            theirs.append(microseconds(by_numexpr, case.text(next(NUMBERS))))
    line = f"{case.name:20}{median(ours):14,.1f}{median(ours) / case.operators:14.2f}"
    if not theirs:
        return f"{line}{'-':>14}{'-':>12}"
    ratio = median(our / their for our, their in zip(ours, theirs, strict=True))
    return f"{line}{median(theirs):14,.1f}{ratio:12.2f}"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Time compiling formulas never seen before.")
    parser.add_argument("--rounds", type=int, default=300, help="per small formula (%(default)s)")
    parser.add_argument("--largest", type=int, default=100_000, help="operators (%(default)s)")
    options = parser.parse_args(argv)

    by_numexpr = load_numexpr()
    for _ in range(3):  # imports, grammar tables and probes happen once, and not here
        by_exprjit(f"x + {next(NUMBERS)}")
        if by_numexpr is not None:
            by_numexpr(f"x + {next(NUMBERS)}")

    engine = exprjit.compile("x + 4").engine
    beside = "numexpr is not installed" if by_numexpr is None else "beside numexpr"
    print(f"CPython {platform.python_version()}, exprjit as {engine}, {beside}")
    print(f"{'':20}{'exprjit us':>14}{'us/operator':>14}{'numexpr us':>14}{'x numexpr':>12}")
    for case in CASES:
        if case.operators <= options.largest:
            rounds = max(3, int(options.rounds * case.share))
            print(measure(case, rounds, by_numexpr), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

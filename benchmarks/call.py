"""What one call costs: f(2) on `x + 4`, beside a lambda, a builtin and a C function through ctypes.

Rounds of the contenders are interleaved, so that a change in the machine's speed meets all of them;
the ratio is the median of the ratios within the rounds. The printed nanoseconds are per call, with
the loop around it (a tenth of a loop's turn).

    python benchmarks/call.py
"""

from __future__ import annotations

import argparse
import ctypes
import operator
import platform
import sys
import timeit
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import exprjit

UNROLLED = 10


def through_ctypes() -> Callable[[int], int]:
    """labs from the C library: what a call costs does not depend on what a cheap function does."""
    labs = ctypes.CDLL(None).labs
    labs.argtypes = [ctypes.c_long]
    labs.restype = ctypes.c_long
    return labs


def timer(function: Callable[[int], Any]) -> timeit.Timer:
    """A timer with code of its own, which the interpreter specialises for this callable alone."""
    calls = "; ".join(["f(2)"] * UNROLLED)
    return timeit.Timer(calls, setup="f = function", globals={"function": function})


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Time one call of x + 4, each way.")
    parser.add_argument("--rounds", type=int, default=31, help="how often each (%(default)s)")
    parser.add_argument("--calls", type=int, default=200_000, help="per round (%(default)s)")
    options = parser.parse_args(argv)

    f = exprjit.compile("x + 4")
    contenders: dict[str, Callable[[int], Any]] = {
        "lambda x: x + 4": lambda x: x + 4,
        f"exprjit ({f.engine})": f,
        "operator.neg (METH_O)": operator.neg,
        "labs through ctypes": through_ctypes(),
    }
    assert f(2) == 6

    timers = {name: timer(function) for name, function in contenders.items()}
    turns = max(options.calls // UNROLLED, 1)
    rounds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(options.rounds):
        for name, one in timers.items():
            rounds[name].append(one.timeit(turns) / (turns * UNROLLED) * 1e9)

    print(
        f"CPython {platform.python_version()}, {options.rounds} rounds of {options.calls:,} calls"
    )
    print(f"{'':24}{'best ns':>10}{'median ns':>11}{'x lambda':>10}")
    yardstick = rounds["lambda x: x + 4"]
    for name, times in rounds.items():
        ratio = median(time / base for time, base in zip(times, yardstick, strict=True))
        print(f"{name:24}{min(times):10.1f}{median(times):11.1f}{ratio:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

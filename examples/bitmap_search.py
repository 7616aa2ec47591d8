"""Search 100 million packed flag words with a predicate that is typed at run time.

This is why one wants a JIT: the rows are many, and the question is not known before it is asked.
Each row packs 64 yes/no facts about a customer into one word: the low bits are properties (has an
account, is in the EU, takes the newsletter, ...), the high 32 say which products were bought.

The words are searched in one pass, by all processors, beside what NumPy and numexpr take for the
same question (numexpr cannot count bits, so it gets that part done by NumPy before). The table
takes 800 MB; NumPy's temporaries as much again, which is why it is asked in slices.

    python examples/bitmap_search.py
    python examples/bitmap_search.py 1000000 --where "popcount(flags & 0xffff) > 10 or flags < 0"
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import exprjit

HAS_ACCOUNT = 1 << 0
IN_THE_EU = 1 << 1
NEWSLETTER = 1 << 2

MASK = HAS_ACCOUNT | IN_THE_EU | NEWSLETTER
WANT = HAS_ACCOUNT | NEWSLETTER  # with an account and the newsletter, outside the EU

WHERE = "(flags & mask) == want and popcount(flags >>> 32) > 16"

#: How many rows NumPy and numexpr are given at a time, so that their temporaries are not too many.
SLICE = 1 << 22

Words = Any


def by_numpy(flags: Words) -> int:
    """WHERE by hand. NumPy has no >>>: unsigned words are shifted without the sign."""
    bought = np.bitwise_count(flags.view("uint64") >> np.uint64(32))
    return int(np.count_nonzero(((flags & MASK) == WANT) & (bought > 16)))


def by_numexpr(flags: Words) -> int:
    """WHERE as numexpr can have it: the bits are counted before."""
    import numexpr

    bought = np.bitwise_count(flags.view("uint64") >> np.uint64(32))
    where = f"((flags & {MASK}) == {WANT}) & (bought > 16)"
    return int(np.count_nonzero(numexpr.evaluate(where, {"flags": flags, "bought": bought})))


def in_slices(count: Callable[[Words], int]) -> Callable[[Words], int]:
    """The same count, asked for slice by slice."""

    def counted(flags: Words) -> int:
        starts = range(0, len(flags), SLICE)
        return sum(count(flags[start : start + SLICE]) for start in starts)

    return counted


def timed(search: Callable[[Words], Any], flags: Words) -> tuple[Any, float]:
    """What a search finds, and the nanoseconds per row that it takes: the best of three."""
    best, found = float("inf"), None
    for _ in range(3):
        start = time.perf_counter()
        found = search(flags)
        best = min(best, time.perf_counter() - start)
    return found, best / len(flags) * 1e9


def rivals() -> dict[str, Callable[[Words], int]]:
    """Those that are installed, if NumPy counts bits: it does so from 2.0 on."""
    if not hasattr(np, "bitwise_count"):
        return {}
    found = {"NumPy": in_slices(by_numpy)}
    try:
        import numexpr
    except ImportError:
        return found
    return {**found, f"numexpr {numexpr.__version__}": in_slices(by_numexpr)}


def positive(text: str) -> int:
    """How many, on the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Count the flag words that match a predicate.")
    parser.add_argument(
        "rows", type=positive, nargs="?", default=100_000_000, help="how many (%(default)s)"
    )
    parser.add_argument("--where", default=WHERE, help="over flags, mask and want (%(default)s)")
    options = parser.parse_args(argv)

    start = time.perf_counter()
    try:
        predicate = exprjit.compile(
            options.where, params=["flags"], constants={"mask": MASK, "want": WANT}
        )
        predicate.count(np.zeros(1, "int64"))
    except exprjit.ExprError as error:
        print(error, file=sys.stderr)
        return 1
    compiled = time.perf_counter() - start

    flags = np.frombuffer(np.random.default_rng(1).bytes(8 * options.rows), "int64")
    count, per_row = timed(predicate.count, flags)
    found, to_find = timed(predicate.indices, flags)
    print(f"predicate  {options.where}")
    print(f"compiled   in {compiled * 1e3:.2f} ms, runs as {predicate.engine}")
    print(f"matches    {count:,} of {len(flags):,} rows, the first of them {found[:3].tolist()}")
    print(f"exprjit    {per_row:7.3f} ns per row to count, {to_find:.3f} to say which")
    if options.where != WHERE:
        return 0
    for name, search in rivals().items():
        other, other_per_row = timed(search, flags)
        if other != count:
            print(f"but {name} finds {other:,} matches", file=sys.stderr)
            return 1
        print(f"{name:10} {other_per_row:7.3f} ns per row to count")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

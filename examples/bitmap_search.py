"""Search a table of packed flag words with a predicate that is typed at run time.

This is why one wants a JIT: the rows are many, and the question is not known before it is asked.
Each row packs 64 yes/no facts about a customer into one word: the low bits are properties (has an
account, is in the EU, takes the newsletter, ...), the high 32 say which products were bought.

    python examples/bitmap_search.py
    python examples/bitmap_search.py 100000 --where "popcount(flags & 0xffff) > 10 or flags < 0"
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from array import array
from collections.abc import Callable, Sequence

import exprjit

HAS_ACCOUNT = 1 << 0
IN_THE_EU = 1 << 1
NEWSLETTER = 1 << 2

MASK = HAS_ACCOUNT | IN_THE_EU | NEWSLETTER
WANT = HAS_ACCOUNT | NEWSLETTER  # with an account and the newsletter, outside the EU

WHERE = "(flags & mask) == want and popcount(flags >>> 32) > 16"


def in_python(flags: int) -> bool:
    """WHERE by hand. Python has no >>>: the sign would come along, so it is masked off first."""
    return (flags & MASK) == WANT and ((flags & 0xFFFF_FFFF_FFFF_FFFF) >> 32).bit_count() > 16


def random_rows(count: int) -> array[int]:
    rows = array("q")
    rows.frombytes(random.Random(1).randbytes(8 * count))
    return rows


def count_matches(matches: Callable[[int], int], rows: Sequence[int]) -> tuple[int, float]:
    """How many rows match, and the nanoseconds per row that it took to find out."""
    start = time.perf_counter()
    count = sum(1 for flags in rows if matches(flags))
    return count, (time.perf_counter() - start) / max(len(rows), 1) * 1e9


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Count the flag words that match a predicate.")
    parser.add_argument(
        "rows", type=int, nargs="?", default=1_000_000, help="how many (%(default)s)"
    )
    parser.add_argument("--where", default=WHERE, help="over flags, mask and want (%(default)s)")
    options = parser.parse_args(argv)

    start = time.perf_counter()
    try:
        predicate = exprjit.compile(
            options.where, params=["flags"], constants={"mask": MASK, "want": WANT}
        )
    except exprjit.ExprError as error:
        print(error, file=sys.stderr)
        return 1
    compiled = time.perf_counter() - start

    rows = random_rows(options.rows)
    count, per_row = count_matches(predicate, rows)
    print(f"predicate  {options.where}")
    print(f"compiled   in {compiled * 1e3:.2f} ms, runs as {predicate.engine}")
    print(f"matches    {count:,} of {len(rows):,} rows")
    print(f"exprjit    {per_row:7.1f} ns per row")

    if options.where == WHERE:
        python_count, python_per_row = count_matches(in_python, rows)
        if python_count != count:
            print(f"but Python finds {python_count:,} matches", file=sys.stderr)
            return 1
        print(f"Python     {python_per_row:7.1f} ns per row")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

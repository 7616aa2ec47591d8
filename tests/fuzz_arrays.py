"""Generated programs over generated arrays, on every level of the processor, for as long as asked.

    python tests/fuzz_arrays.py --seconds=600 --seed=1

Each program runs with every kernel over columns of random types, lengths and layouts, perhaps with
a filter, beside the function called row by row. It stops at the first difference.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from typing import Any

import numpy as np
from test_arrays import LEVELS, check_all_kernels, numbers

import exprjit
from exprjit.tools.generate import program
from exprjit.x86.rows import ITEM_TYPES


def column(rng: random.Random, length: int) -> Any:
    """A number, or a column of a random type: in any place, with a stride, or reversed."""
    if rng.random() < 0.15:
        return numbers(rng, 1)[0].item()
    values = numbers(rng, length, rng.choice(["int64", *ITEM_TYPES]))
    if values.dtype == np.int64 and rng.random() < 0.5:
        # Small enough for what is made for small numbers, and sometimes not quite.
        values %= 1 << rng.choice([4, 16, 20, 31, 32, 49, 52])
    if rng.random() < 0.2:
        spread = np.zeros(2 * length, values.dtype)
        spread[::2] = values
        return spread[::2]
    if rng.random() < 0.1:
        return values[::-1]
    start = rng.randint(0, 7)
    return np.concatenate([np.zeros(start, values.dtype), values])[start:]


def filter_of(rng: random.Random, params: tuple[str, ...]) -> str | None:
    """The text of a filter with some of these parameters, which may fail; None if none is found."""
    for _ in range(10):
        source = program(lambda most: rng.randrange(most), 8)
        if set(exprjit.compile(source).params) <= set(params):
            return source
    return None


def round_(rng: random.Random) -> None:
    """One program on every level."""
    source = program(lambda most: rng.randrange(most), rng.choice([6, 12, 24, 40]))
    overflow = rng.choice(["wrap", "raise"])
    length = rng.choice([rng.randint(0, 130), rng.randint(0, 20), rng.randint(130, 400)])
    params = exprjit.compile(source, overflow=overflow).params
    if not params:
        return
    columns = [column(rng, length) for _ in params]
    if all(isinstance(one, int) for one in columns):
        columns[rng.randrange(len(columns))] = numbers(rng, length)
    where: Any = None
    if rng.random() < 0.3:
        where = np.array([rng.random() < 0.7 for _ in range(length)], bool)
    elif rng.random() < 0.2:
        where = filter_of(rng, params)
    narrow = rng.choice([None, None, *(kind for kind in ITEM_TYPES if kind != "bool")])
    for level in LEVELS:
        os.environ["EXPRJIT_CPU"] = level
        try:
            check_all_kernels(exprjit.compile(source, overflow=overflow), columns, where, narrow)
        except BaseException:
            print(f"level {level}, overflow {overflow}, columns {columns}, where {where}, {narrow}")
            print(source)
            raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    count = 0
    while time.monotonic() < end:
        round_(random.Random(f"{options.seed} {count}"))
        count += 1
    print(f"{count:,} programs on {', '.join(LEVELS)}, all kernels: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())

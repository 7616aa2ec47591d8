"""Columns larger than memory, by several processes, with a progress bar.

Two columns lie in files that are mapped into memory (they are sparse, so that they take no room on
the disk where nothing was written). Dask cuts them into blocks; each worker process is sent the
formula as text, compiles it once, and computes its blocks; the counts come back as a tree.

    python examples/dask_columns.py
    python examples/dask_columns.py --rows 2000000 --workers 2 --formula "price * qty > 1000"
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster, progress

import exprjit

FORMULA = "price * qty - (qty >= 10 ? price * qty / 20 : 0) > 5000"

#: Rows of a block: 64 MiB of a column.
BLOCK = 1 << 23


def more_than_memory() -> int:
    """So many rows that two columns of them do not fit into memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16 * 5 // 4


class ColumnFile:
    """A file of int64 words: what Dask needs of an array. Workers map it themselves."""

    dtype = np.dtype("int64")
    ndim = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape = (path.stat().st_size // self.dtype.itemsize,)

    def __getitem__(self, rows: Any) -> Any:
        return np.memmap(self.path, self.dtype, "r")[rows]


def column(path: Path, rows: int, high: int, seed: int) -> Any:
    """A column in a file, with random numbers in the first block and zeros behind."""
    words = np.random.default_rng(seed).integers(1, high, min(rows, BLOCK))
    with path.open("wb") as file:
        file.write(words.astype(ColumnFile.dtype).tobytes())
        file.truncate(rows * ColumnFile.dtype.itemsize)
    source = ColumnFile(path)
    return da.from_array(source, chunks=BLOCK, name=path.name, asarray=False, inline_array=True)


def positive(text: str) -> int:
    """How many, on the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Count the rows that match, out of memory.")
    parser.add_argument("--rows", type=positive, default=more_than_memory(), help="(%(default)s)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--formula", default=FORMULA, help="over price and qty (%(default)s)")
    options = parser.parse_args(argv)
    try:
        matches = exprjit.compile(options.formula, ["price", "qty"])
    except exprjit.ExprError as error:
        print(error, file=sys.stderr)
        return 1
    cluster = LocalCluster(
        n_workers=options.workers, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with tempfile.TemporaryDirectory() as folder, cluster, Client(cluster) as client:
        price = column(Path(folder, "price"), options.rows, 1000, 1)
        qty = column(Path(folder, "qty"), options.rows, 20, 2)
        print(f"columns    2 x {options.rows:,} rows, {16 * options.rows / 2**30:,.1f} GiB")
        start = time.perf_counter()
        running = client.compute(matches.count(price, qty))
        if sys.stdout.isatty():
            progress(running)
            print()
        count = running.result()
        seconds = time.perf_counter() - start
    print(f"matches    {count:,}")
    print(f"took       {seconds:.1f} s, {seconds / options.rows * 1e9:.2f} ns per row")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

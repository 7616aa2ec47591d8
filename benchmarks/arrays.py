"""Formulas over arrays beside the loops of gcc and clang, and beside numba, numexpr and NumPy.

Each formula of corpus.py runs over columns of int64 that stay in the cache (32,768 rows), in one
thread. Ours and the loops that gcc and clang make of the corpus' C have the same signature and are
called in the same way through ctypes, so the call is in all three figures (0.4 us; numba's own
costs 0.2); "call" is the method, f.map(..., out=out). numba has the loop that a user would write,
numexpr one expression, NumPy expressions with their temporaries. All must give the same answers
before anything is timed; what gives others (these three round down where the formula rounds toward
zero) or cannot be written is left out, and said so. All are interleaved; a figure is the best of
the rounds, in nanoseconds per row, and a ratio how many times faster exprjit is. Counts, sums,
indices and the like of two predicates come last.

    python benchmarks/arrays.py
    python benchmarks/arrays.py --only 'division|calendar' --data full --beside gcc,clang
    python benchmarks/arrays.py --offsets     # with the arrays at all places in a cache line
    python benchmarks/arrays.py --memory      # 4 million rows, beside memcpy; by one thread and all
    python benchmarks/arrays.py --overflow    # what overflow="raise" costs where nothing overflows
    EXPRJIT_CPU=avx2 python benchmarks/arrays.py --beside gcc,clang     # with AVX2 for all of them
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from statistics import fmean, geometric_mean
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from compilers import (
    C_COMPILERS,
    NUMPY_KERNELS,
    Contender,
    LeftOut,
    Untranslatable,
    by_library,
    by_numpy,
    c_loop,
    divides,
    flags,
    installed,
    is_predicate,
    load,
    loops,
    machine,
    say_left_out,
)
from corpus import CASES, FULL, Case

import exprjit
from exprjit.array_code import Task
from exprjit.runtime.columns import Column
from exprjit.runtime.sweep import PIECE, Outcome, Sweep, cores, may_stream, new_state, run
from exprjit.x86.rows import INDICES_ROOM, Plan, State

LIBRARIES = ("numba", "numexpr", "numpy")
#: Rows: a cache of 1 MiB holds up to three arrays of so many longs; one of 32 MiB none.
IN_CACHE, IN_MEMORY = 1 << 15, 1 << 22
#: What one measurement is to take at least, in seconds.
SAMPLE = 1e-3
SMALL = 10**6 - 1
#: Places of longs in a cache line; columns and results of a formula.
PLACES, MOST_ARRAYS = 8, 7
#: Formulas whose divisor is a column, which keeps its range: it is not 0, and quotients are long.
BY_COLUMN = ("x / y", "x / y or 0")

TERMS = "x > 500000 and y < 300000 and (x & 7) != (y & 7)"
PREDICATES = (
    Case("", "one term", "x > 500000", "return x > 500000;", {"x": FULL}),
    Case("", "terms", TERMS, f"return {TERMS.replace('and', '&&')};", {"x": FULL, "y": FULL}),
)


class Setting(NamedTuple):
    """How to measure.  libraries: the loops, by compiler.  beside: the others."""

    rows: int
    data: str
    threads: int
    rounds: int
    libraries: dict[str, ctypes.CDLL]
    beside: tuple[str, ...] = ()


class Rows(NamedTuple):
    """Columns, and where results go."""

    columns: list[Any]
    out: Any


class Result(NamedTuple):
    """A line of a table: nanoseconds per row by contender.

    worst: the worst ratio to the better compiler at any place of the arrays.
    """

    name: str
    kinds: list[str]
    columns: int
    times: dict[str, float]
    worst: float = 0

    def ratio(self, *names: str) -> float | None:
        """How many times faster ours is than the best of these; None if none was there."""
        others = [self.times[name] for name in names if name in self.times]
        return min(others) / self.times["exprjit"] if others else None


#: Where the arrays of a formula lie in a cache line, results first; None where NumPy puts them.
Layout = Sequence[int | None]
#: Makes what is compared of what a loop has found.
Answer = Callable[[Outcome], Any]

# Data. ---------------------------------------------------------------------------------------


def array(rows: int, place: int | None) -> Any:
    """Memory for longs, as NumPy gives it or at a place in a cache line."""
    if place is None:
        return np.empty(rows, np.int64)
    room = np.empty(rows + 2 * PLACES, np.int64)
    start = (place - room.ctypes.data // 8) % PLACES
    return room[start : start + rows]


def rows_of(case: Case, setting: Setting, layout: Layout) -> Rows:
    """The same values each time."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    given = iter(layout)
    out = array(setting.rows + INDICES_ROOM, next(given))
    columns = []
    for low, high in case.ranges.values():
        if setting.data == "small":
            low, high = max(low, -SMALL), min(high, SMALL)
        elif case.name not in BY_COLUMN:
            low, high = FULL
        column = array(setting.rows, next(given))
        column[:] = rng.integers(low, high, setting.rows, np.int64, endpoint=True)
        columns.append(column)
    return Rows(columns, out)


def without_hits(given: Rows, holds: Any) -> Rows:
    """Rows like these of which none is a hit: the last column is changed in those that were."""
    *others, last = given.columns
    return Rows([*others, np.where(holds, np.int64(SMALL if others else 0), last)], given.out)


# Contenders. ---------------------------------------------------------------------------------


def fails(row: int) -> None:
    raise SystemExit(f"row {row} fails")


def our_sweep(f: Any, kernel: str, given: Rows, where: Any = False) -> Sweep:
    """The kernel that the method runs."""
    if f.why_not_jit:
        raise SystemExit(f"there is no machine code: {f.why_not_jit}")
    plan = Plan(kernel, ("int64",) * len(given.columns))
    if kernel == "map":
        rows, out = len(given.columns[0]), given.out.ctypes.data
        plan = plan._replace(streams=may_stream(plan.columns, plan.out, rows, out))
    sweep: Sweep = f._body.sweep(Task(f.formula, where, plan))
    return sweep


def swept(sweep: Sweep, given: Rows, setting: Setting, answer: Answer) -> Contender:
    """A loop in machine code."""
    columns = [Column("int64", column.ctypes.data, column) for column in given.columns]
    out, rows = given.out.ctypes.data, setting.rows
    over_all = partial(run, sweep, columns, range(rows), out, fails, False, setting.threads)
    state = new_state(sweep, columns, out)

    def found_again() -> None:
        state[State.FOUND] = 0
        sweep.kernel(state, 0, rows)

    def checked() -> Any:
        given.out.fill(0 if sweep.name == "bitmap" else -77)
        return answer(over_all())

    call: Callable[[], Any] = over_all
    if sweep.name == "indices":
        call = found_again
    elif setting.threads == 1:
        call = partial(sweep.kernel, state, 0, rows)
    return Contender(call, checked)


def our_map(f: Any, given: Rows, setting: Setting) -> Contender:
    ours = our_sweep(f, "map", given)
    return swept(ours, given, setting, lambda outcome: given.out.copy())


def loops_of(
    sweep: Sweep, case: Case, kernel: str, given: Rows, setting: Setting, answer: Answer
) -> dict[str, Contender]:
    """Our loop, and those of C compilers, which are run in the same way."""
    found = {"exprjit": swept(sweep, given, setting, answer)}
    for name, library in setting.libraries.items():
        theirs = sweep._replace(kernel=c_loop(library, case, kernel))
        found[name] = swept(theirs, given, setting, answer)
    return found


def mappers(case: Case, given: Rows, setting: Setting, left_out: LeftOut) -> dict[str, Contender]:
    """Who maps a formula."""
    f = exprjit.compile(case.source, list(case.ranges))
    columns, results, threads = given.columns, given.out[: setting.rows], setting.threads
    ours = our_sweep(f, "map", given)
    found = loops_of(ours, case, "map", given, setting, lambda outcome: results.copy())
    mapped = partial(f.map, *columns, out=results, threads=threads)
    found["call"] = Contender(mapped, lambda: mapped().copy())
    for name in setting.beside:
        if name == "numpy" and threads > 1:
            continue  # It has no threads.
        try:
            found[name] = by_library(name, f.formula.program(), columns, results, threads)
        except Untranslatable as reason:
            left_out[name][case.name] = f"no {reason}"
    return agreeing(case.name, found, left_out)


def reducers(
    case: Case, kernel: str, given: Rows, setting: Setting, left_out: LeftOut
) -> dict[str, Contender]:
    """Who answers another question of a predicate; sum and min are of x where it holds."""
    f = predicate = exprjit.compile(case.source, list(case.ranges))
    mask = by_numpy(predicate.formula.program(), truth=True)
    if kernel == "any":
        given = without_hits(given, mask(*given.columns))
    columns = given.columns
    # So few rows as are done at once are done by one thread without saying so.
    options: dict[str, Any] = {"threads": setting.threads} if setting.rows > PIECE else {}
    method = "sum" if kernel == "sum64" else kernel
    if method in ("sum", "min"):
        f, options["where"] = exprjit.compile("x"), predicate
    where = predicate.formula if "where" in options else False
    answers: dict[str, Answer] = {
        "indices": lambda outcome: given.out[: outcome.found].copy(),
        "mask": lambda outcome: given.out.view(np.bool_)[: setting.rows].copy(),
        "bitmap": lambda outcome: given.out[: setting.rows // 64].view(np.uint64).copy(),
        "any": lambda outcome: outcome.row is not None,
    }
    answer = answers.get(kernel, lambda outcome: outcome.best)
    ours = our_sweep(f, "first" if kernel == "any" else method, given, where)
    found = loops_of(ours, case, kernel, given, setting, answer)
    call = partial(getattr(f, method), *columns, **options)
    found["call"] = Contender(call, call)
    if "numpy" in setting.beside and setting.threads == 1:

        def asked() -> Any:
            return NUMPY_KERNELS[kernel](mask(*columns), columns[0])

        found["numpy"] = Contender(asked, asked)
    return agreeing(f"{kernel}: {case.source}", found, left_out)


def agreeing(what: str, found: dict[str, Contender], left_out: LeftOut) -> dict[str, Contender]:
    """Those that give the answer that exprjit gives.  That a C compiler does not is the end."""
    expected = found["exprjit"].answer()
    good = {}
    for name, one in found.items():
        try:
            same = np.array_equal(one.answer(), expected)
        except Exception as error:  # Whatever a library does not bear.
            if name not in LIBRARIES:
                raise
            left_out[name][what] = f"{type(error).__name__}: {error}".partition("\n")[0]
            continue
        if same:
            good[name] = one
        elif name in LIBRARIES:
            left_out[name][what] = "another answer"
        else:
            where = np.flatnonzero(np.not_equal(one.answer(), expected))
            raise SystemExit(f"{what}: {name} and exprjit differ in rows {where}")
    return good


# Timing. -------------------------------------------------------------------------------------


def timed(call: Callable[[], Any], times: int) -> float:
    if times > 1:
        call()  # What ran before has filled the cache with its own.
    start = perf_counter()
    for _ in repeat(None, times):
        call()
    return (perf_counter() - start) / times


def best(found: dict[str, Contender], setting: Setting) -> dict[str, float]:
    """The least nanoseconds per row of each, in rounds whose order is shuffled.

    What ran before matters, above all from memory: it may have left much to be written back.
    """
    rng = random.Random(0)
    times = {name: max(1, int(SAMPLE / timed(one.call, 2))) for name, one in found.items()}
    least = dict.fromkeys(found, float("inf"))
    for _ in range(setting.rounds):
        for name in rng.sample(list(found), len(found)):
            least[name] = min(least[name], timed(found[name].call, times[name]))
    return {name: 1e9 * took / setting.rows for name, took in least.items()}


def copier(given: Rows, setting: Setting, pool: ThreadPoolExecutor) -> Contender:
    """memmove from the first column to the results, in as many parts as there are threads."""
    source, target = given.columns[0].ctypes.data, given.out.ctypes.data
    size = 8 * setting.rows // setting.threads

    def part(number: int) -> None:
        ctypes.memmove(target + number * size, source + number * size, size)

    def in_threads() -> None:
        list(pool.map(part, range(setting.threads)))

    call = in_threads if setting.threads > 1 else partial(part, 0)
    return Contender(call, call)


def measure_map(
    case: Case, setting: Setting, left_out: LeftOut, layouts: Sequence[Layout], copies: bool
) -> Result:
    """A formula: with each layout of its arrays, and the means of that."""
    program = exprjit.compile(case.source).formula.program()
    kinds = ["divide" if divides(program) else "others"] + ["predicates"] * is_predicate(program)
    results = []
    with ThreadPoolExecutor(setting.threads) as pool:
        for layout in layouts:
            given = rows_of(case, setting, layout)
            found = mappers(case, given, setting, left_out)
            if copies:
                found["copy"] = copier(given, setting, pool)
            results.append(Result(case.name, kinds, len(case.ranges), best(found, setting)))
    times = {name: fmean(result.times[name] for result in results) for name in found}
    worst = [ratio for result in results if (ratio := result.ratio(*C_COMPILERS)) is not None]
    return results[0]._replace(times=times, worst=min(worst, default=0))


# Tables. -------------------------------------------------------------------------------------


def head(what: str, names: Sequence[str], more: Sequence[str]) -> None:
    print(f"\n{what:32}" + "".join(f"{name:>9}" for name in (*names, *more)), flush=True)


def cell(value: float | None, digits: int = 2) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.{digits}f}"


def line(result: Result, names: Sequence[str], more: Iterable[float | None]) -> None:
    text = f"  {result.name[:29]:30}" + "".join(cell(result.times.get(name), 3) for name in names)
    print(text + "".join(map(cell, more)), flush=True)


def summary(results: Sequence[Result], names: Sequence[str]) -> None:
    """Geometric means of how many times faster ours is, by kind; and where it is slower."""
    head("times faster, geometric means", ["better C", *names], ["of"])
    for kind in ("all", "divide", "others", "predicates"):
        chosen = [result for result in results if kind in ("all", *result.kinds)]
        cells = ""
        for others in [C_COMPILERS, *((name,) for name in names)]:
            found = [ratio for one in chosen if (ratio := one.ratio(*others)) is not None]
            cells += cell(geometric_mean(found) if found else None)
        print(f"  {kind:30}{cells}{len(chosen):9}")
    below = [(ratio, one.name) for one in results if (ratio := one.ratio(*C_COMPILERS) or 1) < 0.9]
    listed = "; ".join(f"{name} {ratio:.2f}" for ratio, name in sorted(below))
    print(f"below 0.9 of the better compiler ({len(below)}): {listed or 'none'}")


def maps(cases: Sequence[Case], setting: Setting, options: argparse.Namespace) -> None:
    """The table of formulas."""
    layouts: Sequence[Layout] = [[None] * MOST_ARRAYS]
    names = ["exprjit", "call", *setting.libraries, *setting.beside]
    more = [f"x {name}" for name in setting.libraries]
    if options.offsets:
        steps = ((place, apart) for apart in (0, 3) for place in range(PLACES))
        layouts = [[(p + k * d) % PLACES for k in range(MOST_ARRAYS)] for p, d in steps]
        more.append("worst")
    if options.memory:
        names.append("copy")
        more += ["GB/s", "% copy"]
    head(f"ns per row, {setting.threads} thread{'s' * (setting.threads > 1)}", names, more)
    results, shares, left_out = [], [], LeftOut(dict)
    for case in cases:
        result = measure_map(case, setting, left_out, layouts, options.memory)
        results.append(result)
        cells = [result.ratio(name) for name in setting.libraries]
        cells += [result.worst] * options.offsets
        if options.memory:
            # What is read and written; a copy does both once.
            speed = 8 * (result.columns + 1) / result.times["exprjit"]
            shares.append(speed * result.times["copy"] / 16)
            cells += [speed, 100 * shares[-1]]
        line(result, names, cells)
    summary(results, [*setting.libraries, *setting.beside])
    if options.memory:
        print(f"of what a copy moves: {geometric_mean(shares):.0%}, at least {min(shares):.0%}")
    say_left_out(left_out)


def kernels(wanted: re.Pattern[str], setting: Setting) -> None:
    """The table of what is asked of predicates."""
    names = ["exprjit", "call", *setting.libraries, *["numpy"] * ("numpy" in setting.beside)]
    left_out = LeftOut(dict)
    for case in PREDICATES:
        asked = [kernel for kernel in NUMPY_KERNELS if wanted.search(f"kernel: {kernel}")]
        if asked:
            print(f"\n{case.source}", end="")
            head("ns per row", names, [f"x {name}" for name in names[2:]])
        given = rows_of(case, setting, [None] * MOST_ARRAYS)
        for kernel in asked:
            if kernel == "sum64" and setting.data == "full":  # It overflows.
                continue
            found = reducers(case, kernel, given, setting, left_out)
            result = Result(kernel, [], len(case.ranges), best(found, setting))
            line(result, names, [result.ratio(name) for name in names[2:]])
    say_left_out(left_out)


def checks(cases: Sequence[Case], setting: Setting) -> None:
    """The table of overflow="raise" beside "wrap"."""
    head("ns per row", ["raise", "wrap"], ["ratio"])
    costs = []
    for case in cases:
        given = rows_of(case, setting, [None] * MOST_ARRAYS)
        found = {}
        for mode in ("raise", "wrap"):
            f = exprjit.compile(case.source, list(case.ranges), overflow=mode)
            found[mode] = our_map(f, given, setting)
        if found["raise"].call() == setting.rows:  # No row fails.
            if not np.array_equal(found["raise"].answer(), found["wrap"].answer()):
                raise SystemExit(f"{case.name}: raise and wrap differ")
            times = best(found, setting)
            costs.append(times["raise"] / times["wrap"])
            line(Result(case.name, [], 0, times), list(found), [costs[-1]])
    if costs:
        print(f"geometric mean of {len(costs)}: {geometric_mean(costs):.2f}; most {max(costs):.2f}")


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    everyone = ",".join(C_COMPILERS + LIBRARIES)
    parser = argparse.ArgumentParser(description="Time formulas over arrays beside others.")
    parser.add_argument("--rounds", type=int, help="of which the best counts (21; from memory 15)")
    parser.add_argument("--only", default="", help="a regex for the kinds and names of formulas")
    parser.add_argument(
        "--data", choices=("small", "full"), default="small", help="below 10**6 (or all of 64 bits)"
    )
    parser.add_argument("--beside", default=everyone, help=f"who is timed as well ({everyone})")
    parser.add_argument("--rows", type=int, help="how many (32768; from memory 4194304)")
    parser.add_argument("--offsets", action="store_true", help="arrays at all places in a line")
    parser.add_argument("--memory", action="store_true", help="rows that no cache holds")
    parser.add_argument("--threads", type=int, default=cores(), help="besides 1, from memory (all)")
    parser.add_argument("--overflow", action="store_true", help="overflow='raise' beside 'wrap'")
    options = parser.parse_args(argv)
    options.rows = options.rows or (IN_MEMORY if options.memory else IN_CACHE)
    options.rounds = options.rounds or (15 if options.memory else 21)
    options.rows -= options.rows % 64  # Whole words of bitmaps.
    return options


def main(argv: Sequence[str]) -> int:
    options = parsed(argv)
    wanted = re.compile(options.only)
    cases = [case for case in CASES if wanted.search(f"{case.kind}: {case.name}")]
    beside = options.beside.split(",")
    if options.offsets or options.overflow:
        beside = [] if options.overflow else [name for name in beside if name in C_COMPILERS]
    libraries = installed(name for name in LIBRARIES if name in beside)
    compilers = installed(name for name in C_COMPILERS if name in beside)
    print(machine(dict.fromkeys(["numpy", *libraries, *compilers])))
    print(f"{options.rows:,} rows, {options.data} data, best of {options.rounds}")
    gc.disable()
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        maps_ = [(case, ("map",)) for case in cases]
        text = loops([*maps_, *((case, tuple(NUMPY_KERNELS)) for case in PREDICATES)])
        loaded = {name: load(name, flags(), text, folder) for name in compilers}
        setting = Setting(options.rows, options.data, 1, options.rounds, loaded, tuple(libraries))
        if options.overflow:
            checks(cases, setting)
            return 0
        for threads in sorted({1, options.threads} if options.memory else {1}):
            setting = setting._replace(threads=threads)
            if cases:
                maps(cases, setting, options)
            if not options.offsets:
                kernels(wanted, setting)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The machine code of formulas beside what gcc and clang make of the same in C.

Each formula of corpus.py is compiled by exprjit, by gcc -O2 and, where it is installed, by clang
-O2, and called through a C function pointer: in a loop over arguments that do not depend on each
other (throughput), and in one where each call's first argument depends on the last answer
(latency). The loops of all compilers are interleaved; a figure is the best of the rounds, in
nanoseconds per call, the call included.

    python benchmarks/scalar.py
    python benchmarks/scalar.py --only division --asm

What checks for overflow cost, over the formulas that do not overflow for their arguments:

    python benchmarks/scalar.py --overflow

Whether the code is as good for formulas of 1,000 and 10,000 operators:

    python benchmarks/scalar.py --large
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from pathlib import Path
from typing import NamedTuple

from compilers import PRELUDE, build, c_compilers, c_text, version
from corpus import CASES, LARGE, Case

import exprjit
from exprjit import compiler

ALL = (*CASES, *LARGE)
#: With -fcf-protection each function begins with endbr64, as ours do.
FLAGS = "-O2 -march=native -fwrapv -fcf-protection=branch -w -shared -fPIC".split()
#: So many sets of random arguments, which the loops go through again and again: too many for a
#: processor to learn by heart which way a branch goes for each of them. (Of 512 it does, and code
#: that branches looks twice as fast as it is where the arguments are not known before.)
ROWS = 1 << 16
#: What a loop is to take, in nanoseconds.
LOOP = 1e6
MOST_PARAMETERS = 6

CLOCK = """
#include <time.h>
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}
static volatile long nothing;
"""

# f is called with N arguments; `answer` is its answer, whichever way it gives that.
LOOPS = """
double throughput_NAME(TYPE, const long *r, long rows, long loops) {
    double start = now();
    for (; loops; loops--)
        for (long i = 0; i < rows; i++) {
            long answer, first = r[i * N];
            CALL;
            __asm__ volatile("" :: "r"(answer));
        }
    return now() - start;
}
double latency_NAME(TYPE, const long *r, long rows, long loops) {
    double start = now();
    long answer = 0, mask = nothing;
    for (; loops; loops--)
        for (long i = 0; i < rows; i++) {
            long first = r[i * N] ^ answer & mask;
            CALL;
        }
    __asm__ volatile("" :: "r"(answer));
    return now() - start;
}
void answers_NAME(TYPE, const long *r, long rows, long *answers) {
    for (long i = 0; i < rows; i++) {
        long answer, first = r[i * N];
        CALL;
        answers[i] = answer;
    }
}
"""


def loops() -> str:
    """The loops for functions of each number of parameters, plain and checked."""
    text = CLOCK
    for count in range(1, MOST_PARAMETERS + 1):
        given = ", ".join(["first", *(f"r[i * {count} + {k}]" for k in range(1, count))])
        longs = ", ".join(["long"] * count)
        for name, kind, call in (
            (f"plain{count}", f"long (*f)({longs})", f"answer = f({given})"),
            (f"checked{count}", f"int (*f)(long *, {longs})", f"f(&answer, {given})"),
        ):
            part = LOOPS.replace("NAME", name).replace("TYPE", kind).replace("CALL", call)
            text += part.replace("N)", f"{count})").replace("* N]", f"* {count}]")
    return text


class Code(NamedTuple):
    """A compiled case: where it is, its bytes, and what keeps it there."""

    address: int
    code: bytes
    owner: object


def by_exprjit(case: Case) -> Code:
    f = exprjit.compile(case.source, list(case.ranges), backend="jit")
    kernel = "checked_address" if "FAIL_IF" in case.c else "address"
    code = compiler.to_code(f.formula, kernel, compiler.settings().features)
    return Code(getattr(f, kernel), code.encoded.code, f)


def checking(overflow: str) -> Callable[[Case], Code]:
    """Compiles for an overflow mode, as a function that can fail."""

    def compiled(case: Case) -> Code:
        f = exprjit.compile(case.source, list(case.ranges), overflow=overflow, backend="jit")
        code = compiler.to_code(f.formula, "checked_address", compiler.settings().features)
        return Code(f.checked_address, code.encoded.code, f)

    return compiled


def c_compiler(command: str, folder: Path) -> Callable[[Case], Code]:
    """The whole corpus compiled by gcc or clang."""
    path = folder / f"{command}.so"
    text = PRELUDE + "".join(c_text(case, f"f{number}") for number, case in enumerate(ALL))
    build(command, FLAGS, text, path)
    library = ctypes.CDLL(str(path))
    listed = subprocess.run(["nm", "-S", path], capture_output=True, text=True, check=True).stdout
    sizes = {
        line.split()[3]: int(line.split()[1], 16)
        for line in listed.splitlines()
        if len(line.split()) == 4
    }

    def compiled(case: Case) -> Code:
        name = f"f{ALL.index(case)}"
        address = ctypes.cast(library[name], ctypes.c_void_p).value or 0
        code = ctypes.string_at(address, sizes[name])
        return Code(address, code, library)

    return compiled


def instructions(code: bytes) -> list[str]:
    """The instructions of a function, without what fills up behind it."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = [f"{one.mnemonic} {one.op_str}" for one in engine.disasm(code, 0)]
    return [text for text in found if not text.startswith(("nop", "endbr64", "int3"))]


class Measured(NamedTuple):
    """One case by one compiler: best nanoseconds per call, instructions and bytes."""

    throughput: float
    latency: float
    instructions: int
    size: int


def arguments(case: Case) -> list[int]:
    """The arguments of all rows, one behind the other; the same each time."""
    rng = random.Random(case.name)
    return [rng.randint(*span) for _ in range(ROWS) for span in case.ranges.values()]


def overflows(case: Case) -> bool:
    """Whether the formula overflows for some row."""
    f = exprjit.compile(case.source, list(case.ranges), overflow="raise")
    values = iter(arguments(case))
    try:
        for row in zip(*[values] * len(case.ranges), strict=True):
            f(*row)
    except exprjit.ExprOverflowError:
        return True
    return False


def measure(
    case: Case,
    codes: dict[str, Code],
    libraries: dict[str, ctypes.CDLL],
    rounds: int,
    checked: bool,
) -> dict[str, Measured]:
    """Time a case by all compilers in turn, after a look at whether they agree."""
    ours = next(iter(codes))
    rows = arguments(case)
    given = (ctypes.c_long * len(rows))(*rows)
    kind = f"{'checked' if checked else 'plain'}{len(case.ranges)}"
    answers = {}
    for name, code in codes.items():
        out = (ctypes.c_long * ROWS)()
        answer = libraries[name][f"answers_{kind}"]
        answer(ctypes.c_void_p(code.address), given, ctypes.c_long(ROWS), out)
        answers[name] = list(out)
    for name, found in answers.items():
        if found != answers[ours]:
            row = next(i for i in range(ROWS) if found[i] != answers[ours][i])
            raise SystemExit(f"{case.name}: {name} and {ours} differ in row {row}")
    best: dict[str, list[float]] = {name: [float("inf")] * 2 for name in codes}

    def run(name: str, way: int, loops: int) -> float:
        timer = libraries[name][f"{('throughput', 'latency')[way]}_{kind}"]
        timer.restype = ctypes.c_double
        address = ctypes.c_void_p(codes[name].address)
        return float(timer(address, given, ctypes.c_long(ROWS), ctypes.c_long(loops)))

    loops = [max(1, int(LOOP / max(run(ours, way, 4) / 4, 1))) for way in (0, 1)]
    for _ in range(rounds):
        for way in (0, 1):
            for name in codes:
                took = run(name, way, loops[way]) / loops[way] / ROWS
                best[name][way] = min(best[name][way], took)
    return {
        name: Measured(*best[name], len(instructions(code.code)), len(code.code))
        for name, code in codes.items()
    }


def mean(values: Iterable[float]) -> float:
    """The geometric mean."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs))


Results = list[tuple[Case, dict[str, Measured]]]


def report(results: Results, names: Sequence[str]) -> None:
    """The table: ours in figures, the ratios of ours to each other compiler's."""
    first, *others = names
    head = f"{'':28}{'ns':>7}{'chain':>7}{'ins':>5}{'bytes':>6}"
    print(
        head
        + "".join(
            f"   {other + ':':7}{'ns':>6}{'chain':>6}{'ins':>6}{'bytes':>6}" for other in others
        )
    )
    kind = ""
    for case, found in results:
        if case.kind != kind:
            kind = case.kind
            print(kind)
        ours = found[first]
        line = f"  {case.name:26}{ours.throughput:7.2f}{ours.latency:7.2f}"
        line += f"{ours.instructions:5}{ours.size:6}"
        for other in others:
            ratios = [a / b for a, b in zip(ours, found[other], strict=True)]
            line += f"{'':10}" + "".join(f"{ratio:6.2f}" for ratio in ratios)
        print(line)
    for other in others:
        means = [mean(found[first][k] / found[other][k] for _, found in results) for k in range(4)]
        worst = max(
            (found[first][k] / found[other][k], case.name)
            for case, found in results
            for k in range(2)
        )
        print(
            f"geometric means, {first} / {other}: throughput {means[0]:.3f}, latency "
            f"{means[1]:.3f}, instructions {means[2]:.3f}, bytes {means[3]:.3f}; "
            f"slowest {worst[0]:.2f} ({worst[1]})"
        )


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Time machine code beside that of C compilers.")
    parser.add_argument("--rounds", type=int, default=9, help="of which the best counts (9)")
    parser.add_argument("--only", default="", help="cases whose kind or name contains this")
    parser.add_argument(
        "--overflow", action="store_true", help="compare overflow='raise' with 'wrap' instead"
    )
    parser.add_argument("--large", action="store_true", help="formulas of up to 10,000 operators")
    parser.add_argument("--asm", action="store_true", help="print the instructions of each")
    options = parser.parse_args(argv)
    found = c_compilers()
    if not found:
        print("gcc is not installed", file=sys.stderr)
        return 1
    cases = LARGE if options.large else CASES
    cases = [case for case in cases if options.only in case.kind or options.only in case.name]
    if options.overflow:
        cases = [case for case in cases if not overflows(case)]
    with tempfile.TemporaryDirectory() as folder:
        # Loops of its own for each: the processor predicts an indirect call by its place, and best
        # if it always goes to the same function.
        libraries = {}
        names = ("raise", "wrap") if options.overflow else ("exprjit", *found)
        for name in names:
            path = Path(folder, f"loops-{name}.so")
            build(found[0], FLAGS, loops(), path)
            libraries[name] = ctypes.CDLL(str(path))
        if options.overflow:
            compilers = {mode: checking(mode) for mode in names}
        else:
            compilers = {"exprjit": by_exprjit}
            compilers |= {name: c_compiler(name, Path(folder)) for name in found}
        versions = [version(name) for name in found]
        print(f"{platform.processor() or platform.machine()}; {'; '.join(versions)}")
        results: Results = []
        for case in cases:
            codes = {name: compile_(case) for name, compile_ in compilers.items()}
            checked = options.overflow or "FAIL_IF" in case.c
            results.append((case, measure(case, codes, libraries, options.rounds, checked)))
            if options.asm:
                for name, code in codes.items():
                    print(f"{case.name}, {name}:")
                    print("".join(f"    {text}\n" for text in instructions(code.code)))
    report(results, list(compilers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

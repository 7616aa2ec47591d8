"""What exprjit is put beside: the formulas of corpus.py by other compilers.

gcc and clang get the corpus' own C, for arrays in loops.  For NumPy, numexpr and numba the formulas
are translated into the Python that a user would write.  Their ``//`` and ``%`` round down, as
exprjit's ``//`` and ``%%``; what rounds toward zero is written with them all the same, since where
no operand is negative they give the same: whoever uses a translation has to compare the answers.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import CDLL, c_void_p, cast
from functools import cache, partial, reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from corpus import Case

from exprjit.language.ast import (
    Apply,
    Binding,
    Call,
    Chain,
    Conditional,
    Literal,
    Logical,
    Name,
    Node,
    Program,
)
from exprjit.language.operators import BOOLEANS
from exprjit.runtime.sweep import Sweep, cores, prototype, run
from exprjit.x86.rows import State

# C. ------------------------------------------------------------------------------------------

PRELUDE = "typedef unsigned long ulong;\n#define FAIL_IF(condition) if (condition) return 1\n"


def c_text(case: Case, name: str) -> str:
    """A case as a C function, of the checked kind if it can fail."""
    params = ", ".join(f"long {param}" for param in case.ranges)
    if "FAIL_IF" not in case.c:
        return f"long {name}({params}) {{ {case.c} }}\n"
    head, _, value = case.c.rpartition("return ")
    body = f"{head}*result = {value} return 0;"
    return f"int {name}(long *result, {params}) {{ {body} }}\n"


C_COMPILERS = ("gcc", "clang")


def c_compilers() -> list[str]:
    """Those that are installed."""
    return [name for name in C_COMPILERS if shutil.which(name)]


def installed(names: Iterable[str]) -> list[str]:
    """The compilers and libraries that are there; says of the others that they are not."""
    found = []
    for name in names:
        if name in c_compilers() or (name not in C_COMPILERS and find_spec(name)):
            found.append(name)
        else:
            print(f"left out, as it is not installed: {name}")
    return found


def machine(names: Iterable[str]) -> str:
    """What runs, and the versions of compilers and libraries."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (named := re.search(r"model name\s*: (.*)", info.read_text())):
        cpu = named[1]
    parts = [f"{cpu}, {cores()} cores", f"CPython {platform.python_version()}"]
    for name in names:
        is_c = name in C_COMPILERS
        parts.append(version(name) if is_c else f"{name} {import_module(name).__version__}")
    return "; ".join(parts)


def build(command: str, flags: Sequence[str], text: str, path: Path) -> None:
    """Make a shared library of a C text."""
    subprocess.run([command, *flags, "-x", "c", "-", "-o", path], input=text, text=True, check=True)


def flags() -> list[str]:
    """Those of a C compiler, for what the processor has, or for AVX2 where EXPRJIT_CPU wants it."""
    march = "x86-64-v3" if os.environ.get("EXPRJIT_CPU") == "avx2" else "native"
    return f"-O3 -march={march} -fwrapv -w -shared -fPIC".split()


def load(command: str, flags: Sequence[str], text: str, folder: str) -> CDLL:
    """A shared library of a C text, loaded."""
    path = Path(folder, f"{command}.so")
    build(command, flags, text, path)
    return CDLL(str(path))


@cache
def version(command: str) -> str:
    """What a C compiler says of itself."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0]


# Loops in C. ---------------------------------------------------------------------------------

#: By the name of the kernel.  ROW is a formula's value in row i; `s` is the state, as exprjit's
#: kernels have it.  Its sum is exact; `sum64` is one that is not, as most would write it.
LOOPS = {
    "map": "for (long i = start; i < stop; i++) out[i] = ROW;",
    "checked": "for (long i = start; i < stop; i++) if (CHECKED) return i;",
    "count": "long n = 0; for (long i = start; i < stop; i++) n += ROW; s[BEST] += n;",
    "sum": "__int128 n = ((__int128)s[BEST + 1] << 64) + (ulong)s[BEST];"
    " for (long i = start; i < stop; i++) n += ROW ? c0[i] : 0;"
    " s[BEST] = n; s[BEST + 1] = n >> 64;",
    "sum64": "long n = s[BEST]; for (long i = start; i < stop; i++) n += ROW ? c0[i] : 0;"
    " s[BEST] = n; s[BEST + 1] = n >> 63;",
    "min": "long n = s[BEST]; for (long i = start; i < stop; i++) {"
    " long v = ROW ? c0[i] : 0x7fffffffffffffff; n = v < n ? v : n; } s[BEST] = n;",
    "indices": "long n = s[FOUND];"
    " for (long i = start; i < stop; i++) { out[n] = i; n += ROW; } s[FOUND] = n;",
    "mask": "_Bool *restrict m = (void *)out; for (long i = start; i < stop; i++) m[i] = ROW;",
    "bitmap": "for (long k = start; k < stop; k += 64) { ulong w = 0;"
    " for (long i = k; i < k + 64; i++) w |= (ulong)ROW << (i - k); out[k / 64] = w; }",
    "any": "for (long i = start; i < stop; i++) if (ROW) { s[FOUND] = 1; return i; }",
}


def symbol(case: Case, kernel: str) -> str:
    """The name of a loop."""
    return f"{kernel}_{zlib.crc32(case.name.encode()):08x}"


def loops(wanted: Iterable[tuple[Case, Sequence[str]]]) -> str:
    """The C of kernels of cases, all with the signature of exprjit's kernels."""
    places = ("OUT", "FOUND", "BEST", "COLUMNS")
    text = PRELUDE + "".join(f"#define {name} {getattr(State, name)}\n" for name in places)
    for case, kernels in wanted:
        row = symbol(case, "row")
        text += "static inline " + c_text(case, row)
        text += "".join(_loop(case, kernel, row) for kernel in kernels)
    return text


def c_loop(library: CDLL, case: Case, kernel: str) -> Any:
    """A loop, to be called as exprjit's are."""
    return prototype(False)(cast(library[symbol(case, kernel)], c_void_p).value)


def _loop(case: Case, kernel: str, row: str) -> str:
    """A loop over the rows, and around it what takes its arrays from the state."""
    columns = range(len(case.ranges))
    cells = ", ".join(f"c{k}[i]" for k in columns)
    arrays = "".join(f", const long *restrict c{k}" for k in columns)
    given = "".join(f", (const long *)s[COLUMNS + {k}]" for k in columns)
    body = LOOPS["checked" if kernel == "map" and "FAIL_IF" in case.c else kernel]
    body = body.replace("ROW", f"{row}({cells})").replace("CHECKED", f"{row}(&out[i], {cells})")
    head, name = "long *restrict s, long start, long stop", symbol(case, kernel)
    # Compilers make most of `restrict` where it stands at a parameter.
    return (
        f"static __attribute__((noinline)) long loop_{name}({head}, long *restrict out{arrays})"
        f" {{ {body} return stop; }}\n"
        f"long {name}({head}) {{ return loop_{name}(s, start, stop, (long *)s[OUT]{given}); }}\n"
    )


# What a formula is like. ---------------------------------------------------------------------

_DIVISIONS = frozenset("div rem floordiv floormod udiv umod".split())


def nodes(program: Program) -> Iterator[Node]:
    """All expressions of a program."""
    rest = [program.result]
    for statement in program.statements:
        rest.append(statement.value if isinstance(statement, Binding) else statement.body)
    while rest:
        yield (node := rest.pop())
        rest += node.parts


def divides(program: Program) -> bool:
    """Whether it divides by anything but powers of two."""
    for node in nodes(program):
        if isinstance(node, Apply) and node.operator.name in _DIVISIONS:
            by = node.operands[1]
            if not isinstance(by, Literal) or by.value <= 0 or by.value & by.value - 1:
                return True
    return False


def is_predicate(program: Program) -> bool:
    """Whether the value is always 0 or 1 by the form of the formula."""
    result = program.result
    known = isinstance(result, Apply | Logical) and result.operator.name in BOOLEANS
    return known or isinstance(result, Chain)


# NumPy, numexpr, numba. ----------------------------------------------------------------------


class Untranslatable(Exception):
    """A formula uses an operator that the other language does not have."""


class Text(NamedTuple):
    """An expression, and whether it is a truth value rather than an integer."""

    text: str
    truth: bool = False


class Dialect(NamedTuple):
    """How expressions are written for a library.

    operators: what puts operands together, by the operator's name.  integer: the same for a truth
    value that is to be 0 or 1.  inlines: whether there is nothing but one expression.
    """

    operators: Mapping[str, Callable[..., str]]
    integer: Callable[..., str]
    inlines: bool = False


_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMMON = {
    **{name: f"({{}} {token} {{}})".format for name, token in _COMPARISONS.items()},
    **{
        name: f"({{}} {token} {{}})".format
        for name, token in {
            "add": "+", "sub": "-", "mul": "*", "shl": "<<", "sar": ">>",
            "bitand": "&", "bitor": "|", "bitxor": "^",
            "div": "//", "rem": "%", "floordiv": "//", "floormod": "%",
        }.items()
    },
    "neg": "(-{})".format,
    "pos": "{}".format,
    "bitnot": "(~{})".format,
}  # fmt: skip
#: Truth values of arrays.
_ELEMENTWISE = {"and": "({} & {})".format, "or": "({} | {})".format, "not": "(~{})".format}

NUMPY = Dialect(
    {
        **_COMMON,
        **_ELEMENTWISE,
        "select": "where({}, {}, {})".format,
        "min": "minimum({}, {})".format,
        "max": "maximum({}, {})".format,
        "clamp": "minimum(maximum({}, {}), {})".format,
        "abs": "abs({})".format,
        "shr": "shr({}, {})".format,
        "rotl": "(({0} << {1}) | shr({0}, 64 - {1}))".format,
        "popcount": "popcount({})".format,
        "udiv": "udiv({}, {})".format,
        "umod": "umod({}, {})".format,
    },
    integer="({}).astype(int64)".format,
)

NUMBA = Dialect(
    {
        **_COMMON,
        "and": "({} and {})".format,
        "or": "({} or {})".format,
        "not": "(not {})".format,
        "select": "({1} if {0} else {2})".format,
        "min": "min({}, {})".format,
        "max": "max({}, {})".format,
        "clamp": "min(max({}, {}), {})".format,
        "abs": "abs({})".format,
        "shr": "int64(uint64({}) >> uint64({}))".format,
        "rotl": "(({0} << {1}) | int64(uint64({0}) >> uint64(64 - {1})))".format,
        "udiv": "int64(uint64({}) // uint64({}))".format,
        "umod": "int64(uint64({}) % uint64({}))".format,
    },
    integer="int64({})".format,
)


#: In characters: for what is much longer (and says the same thing often) numexpr takes gigabytes.
LONGEST = 2000


def _masked_shift(value: str, count: str) -> str:
    """A logical shift for want of one, and of unsigned numbers."""
    if not count.isdigit() or count == "0":
        raise Untranslatable("shr by a variable")
    return f"(({value} >> {count}) & {(1 << 64 - int(count)) - 1})"


NUMEXPR = Dialect(
    {
        **_COMMON,
        **_ELEMENTWISE,
        "select": "where({}, {}, {})".format,
        "min": "where({0} < {1}, {0}, {1})".format,
        "max": "where({0} > {1}, {0}, {1})".format,
        "clamp": "where({0} < {1}, {1}, where({0} > {2}, {2}, {0}))".format,
        "shr": _masked_shift,
        "rotl": lambda x, n: f"(({x} << {n}) | {_masked_shift(x, str(64 - int(n)))})",
    },
    # Its literals are 32-bit integers where they can be, and so would be the result.
    integer="where({}, one, zero)".format,
    inlines=True,
)


class _Writer:
    """Writes a program in a dialect: the lines before the result, and the result."""

    def __init__(self, dialect: Dialect, program: Program, truth: bool = False) -> None:
        self.dialect = dialect
        self.lines: list[str] = []
        names = {name: Text(name) for name in program.params}
        for statement in program.statements:
            if isinstance(statement, Binding):
                value = self.write(statement.value, names)
                if not dialect.inlines:
                    self.lines.append(f"{statement.name} = {value.text}")
                    value = value._replace(text=statement.name)
                names[statement.name] = value
        write = self.condition if truth else self.integer
        self.result = write(program.result, names)

    def apply(self, name: str, *operands: str) -> str:
        if name not in self.dialect.operators:
            raise Untranslatable(name)
        return self.dialect.operators[name](*operands)

    def integer(self, node: Node, names: Mapping[str, Text]) -> str:
        text, truth = self.write(node, names)
        return self.dialect.integer(text) if truth else text

    def condition(self, node: Node, names: Mapping[str, Text]) -> str:
        text, truth = self.write(node, names)
        return text if truth else self.apply("ne", text, "0")

    def write(self, node: Node, names: Mapping[str, Text]) -> Text:
        if isinstance(node, Literal):
            return Text(str(node.value) if node.value >= 0 else f"({node.value})")
        if isinstance(node, Name):
            return names[node.name]
        if isinstance(node, Call):
            given = [self.write(argument, names) for argument in node.arguments]
            formals = [formal.name for formal in node.definition.formals]
            inner = {**names, **dict(zip(formals, given, strict=True))}
            return self.write(node.definition.body, inner)
        if isinstance(node, Conditional):
            arms = [self.integer(arm, names) for arm in (node.then, node.otherwise)]
            return Text(self.apply("select", self.condition(node.condition, names), *arms))
        if isinstance(node, Logical):
            both = [self.condition(part, names) for part in node.parts]
            return Text(self.apply(node.operator.name, *both), True)
        if isinstance(node, Chain):
            values = [self.integer(operand, names) for operand in node.operands]
            links = zip(node.operators, values, values[1:], strict=False)
            tests = [self.apply(row.name, a, b) for row, a, b in links]
            return Text(reduce(lambda a, b: self.apply("and", a, b), tests), True)
        assert isinstance(node, Apply)
        return self.operator(node, names)

    def operator(self, node: Apply, names: Mapping[str, Text]) -> Text:
        name = node.operator.name
        if name == "not":
            return Text(self.apply(name, self.condition(node.operands[0], names)), True)
        values = [self.integer(operand, names) for operand in node.operands]
        if node.operator.variadic:
            return Text(reduce(lambda a, b: self.apply(name, a, b), values))
        return Text(self.apply(name, *values), name in _COMPARISONS)


def _function(
    dialect: Dialect, program: Program, names: Mapping[str, Any], truth: bool = False
) -> Any:
    """A program as a Python function over `names`; `truth` wants no number for a truth value."""
    written = _Writer(dialect, program, truth)
    lines = [*written.lines, f"return {written.result}"]
    text = f"def row({', '.join(program.params)}):\n" + "".join(f"    {line}\n" for line in lines)
    space = dict(names)
    exec(text, space)
    return space["row"]


def by_numpy(program: Program, truth: bool = False) -> Any:
    """What gives the results for columns, or the mask; raises Untranslatable."""
    import numpy as np

    def unsigned(x: Any) -> Any:
        return np.asarray(x).view(np.uint64)

    names = {
        **{name: getattr(np, name) for name in "where minimum maximum abs int64".split()},
        "shr": lambda x, n: (unsigned(x) >> np.uint64(n)).view(np.int64),
        "udiv": lambda x, y: (unsigned(x) // np.uint64(y)).view(np.int64),
        "umod": lambda x, y: (unsigned(x) % np.uint64(y)).view(np.int64),
        "popcount": lambda x: np.bitwise_count(unsigned(x)).astype(np.int64),
    }
    return _function(NUMPY, program, names, truth)


def by_numexpr(program: Program, threads: int) -> Callable[..., Any]:
    """The same, but the first argument takes the results."""
    numexpr = import_module("numexpr")
    int64 = import_module("numpy").int64
    text = _Writer(NUMEXPR, program).result
    if len(text) > LONGEST:
        raise Untranslatable("expression that is not too long")
    numexpr.set_num_threads(threads)

    def evaluate(out: Any, *columns: Any) -> Any:
        names = dict(zip(program.params, columns, strict=True))
        return numexpr.evaluate(text, {**names, "one": int64(1), "zero": int64(0)}, out=out)

    return evaluate


def by_numba(program: Program) -> Any:
    """As `by_numexpr`: a loop that lets other threads run."""
    numba = import_module("numba")
    space = {"int64": numba.int64, "uint64": numba.uint64}
    space["row"] = numba.njit(_function(NUMBA, program, space))
    names = [f"c{k}" for k in range(len(program.params))]
    cells = ", ".join(f"{name}[i]" for name in names)
    head = f"def loop(out, {', '.join(names)}):\n    for i in range(out.size):\n"
    exec(f"{head}        out[i] = row({cells})\n", space)
    return numba.njit(nogil=True)(space["loop"])


class Contender(NamedTuple):
    """Who is timed: `call` goes once over all rows, `answer` gives what is compared."""

    call: Callable[[], Any]
    answer: Callable[[], Any]


def by_library(
    name: str, program: Program, columns: Sequence[Any], out: Any, threads: int
) -> Contender:
    """A map by NumPy, numexpr or numba; raises Untranslatable."""
    if name == "numpy":
        expression = partial(by_numpy(program), *columns)
        return Contender(expression, expression)
    if name == "numexpr":
        call = partial(by_numexpr(program, threads), out, *columns)
        return Contender(call, lambda: call().copy())
    loop = by_numba(program)

    def piece(state: Any, start: int, stop: int) -> int:
        loop(out[start:stop], *[column[start:stop] for column in columns])
        return stop

    call = partial(loop, out, *columns)
    if threads > 1:
        # Its loop is for one thread: they share the rows as exprjit's do.
        sweep = Sweep(piece, None, "map")
        call = partial(run, sweep, [], range(out.size), 0, failed=print, threads=threads)

    def answer() -> Any:
        call()
        return out.copy()

    return Contender(call, answer)


#: By contender and formula, why it is not in the figures.
LeftOut = defaultdict[str, dict[str, str]]


def say_left_out(left_out: LeftOut) -> None:
    for name, reasons in left_out.items():
        print(f"left out, {name} ({len(reasons)}):")
        for reason in dict.fromkeys(reasons.values()):
            print(f"  {reason}: {'; '.join(what for what in reasons if reasons[what] == reason)}")


#: What else is asked of rows x for which a mask m holds; "sum64" wants a sum modulo 2**64.
NUMPY_KERNELS: dict[str, Callable[[Any, Any], Any]] = {
    "count": lambda m, x: import_module("numpy").count_nonzero(m),
    "sum": lambda m, x: x[m].sum(),
    "sum64": lambda m, x: x[m].sum(),
    "min": lambda m, x: x[m].min(),
    "indices": lambda m, x: m.nonzero()[0],
    "mask": lambda m, x: m,
    "bitmap": lambda m, x: import_module("numpy").packbits(m, bitorder="little").view("uint64"),
    "any": lambda m, x: m.any(),
}

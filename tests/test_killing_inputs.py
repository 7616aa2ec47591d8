"""Inputs that kill calculators, compilers and processes: each has a right answer or a right error.

Each test is a child process with a time limit and faulthandler, so that a crash or a hang is a
failed test with a message. Values are what Python's own integers give.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pythons import AT_ONCE

PRELUDE = (
    f"AT_ONCE = {AT_ONCE}"
    + """
import ctypes, itertools, sys, time
import exprjit

MIN, MAX = -(2**63), 2**63 - 1
MODES = ("wrap", "raise")

def wrap(value):
    return (value + 2**63) % 2**64 - 2**63

def outcome(call, *args):
    "The answer, or the name of the builtin exception."
    try:
        return call(*args)
    except exprjit.ExprError as error:
        assert str(error)
        kinds = (ZeroDivisionError, OverflowError, ValueError, TypeError, SyntaxError, NameError)
        return next(kind.__name__ for kind in kinds if isinstance(error, kind))

def checked(f, *args):
    "What the C function answers; None where it says that a call raises."
    kinds = [ctypes.c_long] * len(args)
    c = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_long), *kinds)(f.checked_address)
    result = ctypes.c_long()
    return None if c(ctypes.byref(result), *args) else result.value

def expect(source, wanted, *rows, **options):
    "Every engine gives `wanted` (a value, an exception's name, or a function) for each row."
    slow = exprjit.compile(source, backend="interpreter", **options)
    fast = exprjit.compile(source, **options)
    both = exprjit.compile(source, verify=True, **options) if len(source) < 5_000 else fast
    for row in rows or [()]:
        right = wanted(*row) if callable(wanted) else wanted
        for f in (slow, fast, both):
            got = outcome(f, *row)
            assert got == right, (source[:100], options, row, got, right, f.engine)
        if both is not fast and fast.engine == "jit" and all(MIN <= v <= MAX for v in row):
            got = checked(fast, *row)
            assert got == (None if isinstance(right, str) else right), (source[:100], row, got)
    return fast

def refused(source, kind, **options):
    "Compiling raises at once, with a place in the text."
    start = time.perf_counter()
    try:
        exprjit.compile(source, **options)
    except exprjit.ExprError as error:
        assert isinstance(error, kind), (source[:100], type(error))
        assert time.perf_counter() - start < AT_ONCE, source[:100]
        assert "line " in str(error) and len(str(error)) < 2000, str(error)[:3000]
    else:
        raise AssertionError(source[:100])

def seconds(name, call):
    start = time.perf_counter()
    answer = call()
    print(f"{name}: {time.perf_counter() - start:.1f} s")
    return answer
"""
)


@pytest.fixture
def run(child: Callable[..., str]) -> Callable[..., None]:
    """Runs PRELUDE and a body in a child; what it prints is in the report of a failure."""
    import textwrap

    def run_body(body: str, timeout: float = 60) -> None:
        out = child(f"{PRELUDE}\n{textwrap.dedent(body)}\nprint('done')", timeout=timeout)
        print(out)
        assert out.endswith("done\n")

    return run_body


both_modes = pytest.mark.parametrize(
    "mode", ["wrap", pytest.param("raise", marks=pytest.mark.slow)]
)


def test_the_least_number_by_minus_one(run: Callable[..., None]) -> None:
    run("""
    rows = [(MIN, -1), (MIN, 1), (MAX, -1), (MIN, MIN), (-1, MIN), (-1, -1), (0, -1)]
    trunc = lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    means = {"/": trunc, "//": lambda x, y: x // y, "%": lambda x, y: x - y * trunc(x, y),
             "%%": lambda x, y: x % y}
    for op, mean in means.items():
        for mode in MODES:
            def wanted(x, y):
                value = mean(x, y)
                return "OverflowError" if mode == "raise" and value == 2**63 else wrap(value)
            expect(f"x {op} y", wanted, *rows, overflow=mode, params=("x", "y"))
            expect(f"x {op} -1", lambda x: wanted(x, -1), (MIN,), (MAX,), (0,), overflow=mode)
            expect(f"{MIN} {op} y", lambda y: wanted(MIN, y), (-1,), (1,), (MIN,), overflow=mode)
            expect(f"{MIN} {op} -1", lambda: wanted(MIN, -1), overflow=mode)
            expect(f"c ? x {op} y : 7", lambda c, x, y: wanted(x, y) if c else 7,
                   *[(c, *row) for c in (0, 1) for row in rows], overflow=mode)
            expect(f"(x {op} y) == (x {op} y)", lambda x, y: wanted(x, y) if
                   isinstance(wanted(x, y), str) else 1, *rows, overflow=mode)
    both = lambda x, y: wrap(trunc(x, y) * 3 + x - y * trunc(x, y))
    expect("x / y * 3 + x % y", both, *rows)
    expect("udiv(x, y) + umod(x, y)", lambda x, y: wrap(sum(divmod(x % 2**64, y % 2**64))), *rows)
    for mode in MODES:
        fails = mode == "raise"
        expect("-x", "OverflowError" if fails else MIN, (MIN,), overflow=mode)
        expect("abs(x)", "OverflowError" if fails else MIN, (MIN,), overflow=mode)
        expect("x * -1", "OverflowError" if fails else MIN, (MIN,), overflow=mode)
        expect("gcd(x, y)", "OverflowError" if fails else MIN, (MIN, 0), (MIN, MIN), overflow=mode)
        expect("avg(x, y)", -1, (MIN, MAX), overflow=mode)
        expect("x - y", "OverflowError" if fails else MIN, (0, MIN), overflow=mode)
    """)


def test_division_by_zero(run: Callable[..., None]) -> None:
    run("""
    edges = [0, 1, -1, 2**32, MIN, MAX]
    texts = ["x / y", "x % y", "x // y", "x %% y", "udiv(x, y)", "umod(x, y)", "x / (y & 0)",
             "x / (y - y)", "x / y + x % y", "x %% y - x // y", "0 * (x / y)", "y ? 1 : x / y",
             "y or x / y", "d = x / y; 5"]
    for mode, text in itertools.product(MODES, texts):
        expect(text, "ZeroDivisionError", *[(x, 0) for x in edges],
               overflow=mode, params=("x", "y"))
        for zero in ("0", "0x0", "(1 - 1)", "(5 & 2)"):
            expect(text.replace("y", zero), "ZeroDivisionError", *[(x,) for x in edges],
                   overflow=mode, params=("x",))
    expect("0 / 0", "ZeroDivisionError")
    expect("y and x / y", lambda x, y: 0, *[(x, 0) for x in edges], params=("x", "y"))
    expect("y == 0 or x % y", 1, *[(x, 0) for x in edges], params=("x", "y"))
    expect("0 < y < x / y", 0, *[(x, 0) for x in edges], params=("x", "y"))
    expect("x / y if y else -1", -1, *[(x, 0) for x in edges])
    expect("gcd(0, 0) + x ** 0", 1, (0,))
    """)


def test_counts_of_shifts(run: Callable[..., None]) -> None:
    run("""
    counts = [0, 1, 31, 32, 62, 63, 64, 65, 127, 128, -1, -63, -64, 2**32, 2**62, MIN, MAX]
    values = [0, 1, -1, 5, MIN, MAX, MIN + 1]
    means = {"<<": lambda x, n: x << n, ">>": lambda x, n: x >> n,
             ">>>": lambda x, n: x % 2**64 >> n}
    for op, mean in means.items():
        wrapped = lambda x, n: wrap(mean(x, n % 64))
        def raising(x, n):
            if not 0 <= n <= 63:
                return "OverflowError"
            value = mean(x, n)
            # `>>>` gives a bit pattern: only `<<` can lose something.
            return "OverflowError" if op == "<<" and not MIN <= value <= MAX else wrap(value)
        rows = list(itertools.product(values, counts))
        expect(f"x {op} n", wrapped, *rows)
        expect(f"x {op} n", raising, *rows, overflow="raise")
        for n in counts:
            literal = f"({n})"
            expect(f"x {op} {literal}", lambda x: wrapped(x, n), *[(x,) for x in values])
            expect(f"x {op} {literal}", lambda x: raising(x, n), *[(x,) for x in values],
                   overflow="raise")
    def rotl(x, n):
        n, x = n % 64, x % 2**64
        return wrap(x << n | x >> 64 - n)
    for mode in MODES:
        expect("rotl(x, n)", rotl, *rows, overflow=mode)
        expect("rotr(x, n)", lambda x, n: rotl(x, -n), *rows, overflow=mode)
    """)


def test_numbers_beyond_the_ends(run: Callable[..., None]) -> None:
    run("""
    for mode in MODES:
        for text in ("9223372036854775808", "1 - 9223372036854775808", "18446744073709551616",
                     "0x1_0000_0000_0000_0000", "-9223372036854775809", "9" * 100_000,
                     "0x" + "f" * 100_000, "-9223372036854775808 ** 2", "(9223372036854775808)",
                     "- (9223372036854775808)", "1e5", "1.5", "0b" + "1" * 65):
            refused(text, (SyntaxError, OverflowError), overflow=mode)
            refused(f"x + {text}", (SyntaxError, OverflowError), overflow=mode)
        expect("-9223372036854775808", MIN, overflow=mode)
        expect("x - -9223372036854775808", MIN + 2**63 + 1, (1 + MIN,), overflow=mode)
        expect("0xffffffffffffffff", -1, overflow=mode)
        expect("0x8000000000000000", MIN, overflow=mode)
        expect("0b" + "1" * 64, -1, overflow=mode)
        expect("9223372036854775807 + x", "OverflowError" if mode == "raise" else MIN, (1,),
               overflow=mode)
        for value in (2**63, MIN - 1, 2**64, -2**64, 10**400, 1 << 100_000, -1 << 1_000_000):
            expect("x + y", "OverflowError", (value, 0), (0, value), overflow=mode)
    """)


def test_powers_and_roots(run: Callable[..., None]) -> None:
    run("""
    bases = [0, 1, -1, 2, -2, 3, 10, 2**31, 2**32, 3037000499, 3037000500, MIN, MAX]
    exponents = [0, 1, 2, 3, 62, 63, 64, 65, 2**31, 2**62, MAX]
    def power(x, n, mode):
        if n < 0:
            return "ValueError"
        if mode == "wrap":
            return wrap(pow(x, n, 2**64))
        if abs(x) > 1 and n > 63:
            return "OverflowError"
        value = x ** (n if abs(x) > 1 else (n > 0) * (2 - n % 2))
        return value if MIN <= value <= MAX else "OverflowError"
    rows = list(itertools.product(bases, [*exponents, -1, -64, MIN]))
    for mode in MODES:
        expect("x ** n", lambda x, n: power(x, n, mode), *rows, overflow=mode)
        for n in exponents:
            expect(f"x ** {n}", lambda x: power(x, n, mode), *[(x,) for x in bases], overflow=mode)
        expect("x ** -1", "ValueError", (1,), (0,), overflow=mode)
        expect("isqrt(x)", "ValueError", (-1,), (MIN,), overflow=mode)
        expect("isqrt(x)", 3037000499, (MAX,), (3037000499**2,), overflow=mode)
        expect("isqrt(x)", 3037000498, (3037000499**2 - 1,), overflow=mode)
        # The longest way to a greatest common divisor: neighbours in Fibonacci's row.
        expect("gcd(a, b)", 1, (7540113804746346429, 4660046610375530309), overflow=mode)
    """)


@both_modes
def test_deep_nesting(mode: str, run: Callable[..., None]) -> None:
    run(f"mode = {mode!r}" + DEEP)


DEEP = """
many = 10_000
expect("(" * many + "x" + ")" * many + " + 1", 4, (3,), overflow=mode)
expect("-" * (2 * many) + "x", 3, (3,), overflow=mode)
expect("~" * (2 * many) + "x", 3, (3,), overflow=mode)
expect("not " * (2 * many) + "x", 1, (3,), overflow=mode)
expect("abs(" * many + "x" + ")" * many, 3, (-3,), overflow=mode)
expect("(1 + " * many + "x" + ")" * many, many + 3, (3,), overflow=mode)
expect("x / (1 + " * 501 + "1" + ")" * 501, 2, (4,), overflow=mode)
expect("x ** " * 2_000 + "1", 1, (1,), overflow=mode)
expect("x == 0 ? 1 : " * 2_000 + "7", 7, (3,), overflow=mode)
expect("1 if x == 0 else " * 2_000 + "7", 7, (3,), overflow=mode)
expect("x > 0 ? " * 1_000 + "9 / x" + " : 7" * 1_000, 3, (3,), overflow=mode)
expect("y / x" + " if x else 7" * 1_000, 7, (3, 0), overflow=mode)
expect(" and ".join(["x"] * 2_000), 1, (3,), overflow=mode)
expect(" < ".join(f"x + {n}" for n in range(2_000)), 1, (3,), overflow=mode)
steps = ";".join(f"f{n}(v) = f{n - 1}(v) + 1" for n in range(1, 3_000))
expect(f"f0(v) = v; {steps}; f2999(x)", 3_002, (3,), overflow=mode)
steps = ";".join(f"t{n} = t{n - 1} + 1" for n in range(1, 3_000))
expect(f"t0 = x; {steps}; t2999", 3_002, (3,), overflow=mode)
for text in ("(" * many, "x" + ")" * many, "-" * many, "1 +" * many, "f(" * many, "?" * many,
             "x ? " * many, "[" * many, "((" * many + "x" + ")" * many):
    refused(text, exprjit.ExprError, overflow=mode)
for text in ("(" * 100_000 + "x" + ")" * 100_000, "-" * 1_000_000 + "x", "x" + " + x" * 1_000_000,
             "abs(" * 100_000 + "x" + ")" * 100_000):
    refused(text, exprjit.ExprLimitError, overflow=mode)
"""


@pytest.mark.slow
@both_modes
def test_a_hundred_thousand_operators(mode: str, run: Callable[..., None]) -> None:
    """Some 40 microseconds each on a quiet machine, to machine code."""
    run(
        f"""
    many = 100_000
    f = seconds("compile", lambda: exprjit.compile("x" + " + x" * many, overflow={mode!r}))
    assert f(3) == 3 * (many + 1)
    assert outcome(f, 2**62) == ("OverflowError" if {mode!r} == "raise" else 2**62)
    print(f.engine, f.why_not_jit)
    assert f.why_not_jit is None or "code" in f.why_not_jit or "EXPRJIT" in f.why_not_jit
    """,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["-", "*", "^ y +", "/", "%", "//", "<<", "** 2 -"])
def test_thousands_of_operators(operator: str, run: Callable[..., None]) -> None:
    run(f"""
    text = "x" + " {operator} y" * 4_000
    for mode in MODES:
        f = seconds(mode, lambda: exprjit.compile(text, ("x", "y"), overflow=mode))
        for row in [(3, 1), (MIN, 1), (5, 0), (MAX, -1), (0, 64), (1, 3)]:
            assert outcome(f, *row) == outcome(f.formula.interpret, *row), row
    """)


@pytest.mark.slow
def test_doubling_definitions(run: Callable[..., None]) -> None:
    """A short text can mean 2**64 additions; it is measured before it is expanded."""
    run("""
    def doubling(times, first="v + v", step="{f}(v) + {f}(v)"):
        steps = ";".join(f"f{n}(v) = " + step.format(f=f"f{n - 1}") for n in range(1, times))
        return f"f0(v) = {first}; {steps}; f{times - 1}(x)"
    for mode in MODES:
        expect(doubling(12), 3 << 12, (3,), overflow=mode)
        expect(doubling(10, step="{f}({f}(v))"), wrap(3 << 512), (3,)) if mode == "wrap" else None
        expect(doubling(12, "6 / v", "{f}(v) | {f}(v)"), "ZeroDivisionError", (0,), overflow=mode)
        expect(doubling(12, "6 / v", "{f}(v) | {f}(v)"), 2, (3,), overflow=mode)
        expect(doubling(10, "v + 1", "v > 7 ? {f}(v) : {f}(v + 1)"), 9, (3,), overflow=mode)
        for times in (22, 64, 65, 200, 5_000):
            for text in (doubling(times), doubling(times, step="{f}({f}(v))"),
                         doubling(times, "1 / v"), doubling(times, step="v ? {f}(v) : -{f}(v)")):
                refused(text, exprjit.ExprLimitError, overflow=mode)
        refused(doubling(16), exprjit.ExprLimitError, overflow=mode, limits="untrusted")
        # Bindings share; they do not double.
        steps = ";".join(f"t{n} = t{n - 1} ^ t{n - 1} >> 1" for n in range(1, 2_000))
        f = exprjit.compile(f"t0 = x; {steps}; t1999", overflow=mode)
        assert f(3) == f.formula.interpret(3)
    """)


@pytest.mark.slow
def test_many_parameters(run: Callable[..., None]) -> None:
    run("""
    for count in (200, 1_000, 3_000):
        names = [f"p{n}" for n in range(count)]
        total = lambda *values: wrap(sum((n + 3) * value for n, value in enumerate(values)))
        text = " + ".join(f"{n + 3} * {name}" for n, name in enumerate(names))
        rows = [tuple(range(count)), tuple(-7 * n for n in range(count)), (MIN,) * count]
        slow = exprjit.compile(text, names, backend="interpreter")
        fast = exprjit.compile(text, names)
        print(count, fast.engine, fast.why_not_jit)
        assert fast.engine == "jit" or count > 200 or "EXPRJIT" in fast.why_not_jit
        for row in rows:
            assert fast(*row) == slow(*row) == fast(**dict(zip(names, row))) == total(*row)
            if count == 200 and fast.engine == "jit":
                assert checked(fast, *row) == total(*row)
        raising = exprjit.compile(text, names, overflow="raise")
        assert raising(*rows[0]) == total(*rows[0])
        assert outcome(raising, *rows[2]) == "OverflowError"
        for wrong in (rows[0][1:], (*rows[0], 1), (*rows[0][1:], 2**63), (*rows[0][1:], None)):
            assert outcome(fast, *wrong) == outcome(slow, *wrong)
    """)


@pytest.mark.slow
@both_modes
def test_many_values_alive_at_once(mode: str, run: Callable[..., None]) -> None:
    """Where the stack frame would be too large the interpreter answers, and says so."""
    run(f"mode = {mode!r}" + MANY_VALUES)


MANY_VALUES = """
for count in (20, 200, 10_000):
    steps = "; ".join(f"t{n} = (x ^ {2 * n + 3}) - {n} * y" for n in range(count))
    total = " + ".join(f"(t{n} ^ t{count - 1 - n})" for n in range(count))
    f = exprjit.compile(f"{steps}; {total}", overflow=mode)
    print(count, mode, f.engine, f.why_not_jit)
    for x, y in [(12345, 678), (-1, 0), (MIN // 2, 1)]:
        t = [(x ^ 2 * n + 3) - n * y for n in range(count)]
        value = sum(a ^ b for a, b in zip(t, reversed(t)))
        fits = MIN <= value <= MAX or mode == "wrap"
        got = outcome(f, x, y)
        assert got == (wrap(value) if fits else "OverflowError"), (count, mode, x, y, got)
    if f.engine != "jit":
        assert count > 200 or "EXPRJIT" in f.why_not_jit
        assert "bytes of stack; at most" in f.why_not_jit or "EXPRJIT" in f.why_not_jit
"""


@pytest.mark.parametrize("count", [5, 100, 480, 5_000])
def test_endless_recursion_with_large_frames(count: int, run: Callable[..., None]) -> None:
    """A thousand frames, which Python allows, must fit the stack whatever the formula."""
    run(f"""
    steps = "; ".join(f"t{{n}} = (x ^ {{2 * n + 3}}) - {{n}} * y" for n in range({count}))
    total = " + ".join(f"(t{{n}} ^ t{{{count} - 1 - n}})" for n in range({count}))
    names = [f"p{{n}}" for n in range({count})]
    alive, wide = exprjit.compile(f"{{steps}}; {{total}}"), exprjit.compile(" + ".join(names))
    class Endless:
        def __init__(self, f):
            self.f = f
        def __index__(self):
            return self.f(self, *[1] * (len(self.f.params) - 1))
    for f in (alive, wide):
        try:
            f(Endless(f), *[1] * (len(f.params) - 1))
        except RecursionError:
            continue
        raise AssertionError("RecursionError expected")
    """)


@pytest.mark.slow
def test_very_long_sums(run: Callable[..., None]) -> None:
    run("""
    for mode in MODES:
        names = [f"p{n}" for n in range(50)]
        text = " + ".join(names * 60)
        def wanted(*row):
            value = 60 * sum(row)
            return wrap(value) if mode == "wrap" or abs(value) < 2**63 else "OverflowError"
        expect(text, wanted, tuple(range(50)), (0,) * 50, (2**55,) * 50, overflow=mode)
        constants = "+".join(str(n) for n in range(20_000))
        expect(constants, sum(range(20_000)), overflow=mode)
        expect("x" + "+1-1" * 3_000, lambda x: x if mode == "wrap" or x < MAX else "OverflowError",
               (5,), (MAX,), (MIN,), overflow=mode)
        expect("max(" + ", ".join(f"x + {n}" for n in range(2_000)) + ")", 2_002, (3,),
               overflow=mode)
        text = " + ".join(f"{n} / x" for n in range(1, 1_500))
        expect(text, lambda x: sum(range(1, 1_500)) * x if x else "ZeroDivisionError",
               (0,), (1,), (-1,), overflow=mode)
    """)


def test_texts_that_are_no_programs(run: Callable[..., None]) -> None:
    run(r"""
    import random
    rng = random.Random(5)
    for text in ("", " ", ";", "\0", "\ufeffx", "x\0", "\ud800", "x + \udfff", "\u0434",
                 "x \u00d7 2",
                 "#", "'", "'" * 10_000, "\\", "\r", "`", "'\n", "x" * 5_000_000,
                 "1" * 5_000_000):
        refused(text, exprjit.ExprError)
    alphabet = list("xy01'(),;?:<>=!&|^~+-*/%#\n ") + ["if ", "else ", " or ", "min(", "f(x) = "]
    for _ in range(2_000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(1, 40)))
        try:
            f = exprjit.compile(text)
        except exprjit.ExprError as error:
            assert str(error)
            continue
        row = [rng.choice([0, 1, -1, MIN, MAX]) for _ in f.params]
        assert outcome(f, *row) == outcome(f.formula.interpret, *row), text
    """)

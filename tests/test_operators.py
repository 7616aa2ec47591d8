"""The operator table: its meanings against others written differently, and its own columns."""

from __future__ import annotations

import copy
import ctypes
import itertools
import math
import pickle
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest

import exprjit
from exprjit.language.operators import (
    BOOLEANS,
    FUNCTIONS,
    INFIX,
    LONG,
    MAX,
    MIN,
    OPERATORS,
    OVERFLOW_MODES,
    PREFIX,
    Operator,
    Width,
    make_int,
)

_RANDOM = random.Random(17)
EDGES = [
    *(0, 1, -1, 2, -2, 3, 7, 10, 63, 64, 65, 127, 128, 255),
    *(2**31 - 1, 2**31, 2**32, 2**62, MAX, MAX - 1, MIN, MIN + 1),
    *(_RANDOM.randrange(MIN, MAX + 1) for _ in range(6)),
    *(_RANDOM.randrange(-(10**6), 10**6) for _ in range(3)),
]
ROWS = list(OPERATORS.values())
BYTE = Width(8)
BYTES = range(-128, 128)


def edges(row: Operator) -> Iterator[tuple[int, ...]]:
    """Operands for `row`: every combination of edge values."""
    return itertools.product(EDGES, repeat=row.arity)


def rows_with(column: str) -> Any:
    # By identity: 0 is a value and no lack of one.
    rows = [row for row in ROWS if not any(getattr(row, column) is no for no in (None, False))]
    assert rows
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


# The same meanings, written in another way. -----------------------------------------------------


def signed(value: int) -> int:
    return ctypes.c_int64(value).value


def unsigned(value: int) -> int:
    return ctypes.c_uint64(value).value


def bits(value: int) -> str:
    """The 64 binary digits, the highest first."""
    return format(unsigned(value), "064b")


def of_bits(digits: str) -> int:
    return signed(int(digits, 2))


def bitwise(table: str) -> Callable[[int, int], int]:
    """The operation with the results `table` for 00, 01, 10, 11."""
    return lambda a, b: of_bits(
        "".join(table[int(x + y, 2)] for x, y in zip(bits(a), bits(b), strict=True))
    )


def truncated(a: int, b: int) -> int:
    return math.trunc(Fraction(a, b))


def floored(a: int, b: int) -> int:
    return math.floor(Fraction(a, b))


def power(a: int, n: int) -> int:
    result = 1
    for digit in format(n, "b"):
        result = signed(result * result)
        if digit == "1":
            result = signed(result * a)
    return result


def rotated(x: int, n: int) -> int:
    digits = bits(x)
    for _ in range(n % 64):
        digits = digits[1:] + digits[0]
    return of_bits(digits)


def product_bytes(a: int, b: int, is_signed: bool) -> bytes:
    return (a * b).to_bytes(16, "big", signed=is_signed)


def root(x: int) -> int:
    with localcontext() as context:
        context.prec = 60
        return math.floor(Decimal(x).sqrt())


def euclid(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return abs(a)


def deposited(x: int, mask: int) -> int:
    source = iter(reversed(bits(x)))
    return of_bits("".join(next(source) if m == "1" else "0" for m in reversed(bits(mask)))[::-1])


def extracted(x: int, mask: int) -> int:
    taken = (b for b, m in zip(bits(x), bits(mask), strict=True) if m == "1")
    return of_bits("0" + "".join(taken)[-64:])


def leading_zeros(digits: str) -> int:
    return len(digits) - len(digits.lstrip("0"))


def big_endian(x: int) -> bytes:
    """Bytes that compare as the operand does when it is read as unsigned."""
    return struct.pack(">q", x)


REFERENCE: dict[str, Callable[..., int | bool]] = {
    "select": lambda c, a, b: [a, b][not c],
    "or": lambda a, b: bool(a) | bool(b),
    "and": lambda a, b: bool(a) & bool(b),
    "not": lambda a: not a,
    "eq": lambda a, b: not a - b,
    "ne": lambda a, b: bool(a - b),
    "lt": lambda a, b: sorted([a, b]) == [a, b] and bool(a - b),
    "le": lambda a, b: sorted([a, b]) == [a, b],
    "gt": lambda a, b: sorted([a, b]) != [a, b],
    "ge": lambda a, b: sorted([a, b]) == [b, a],
    "bitor": bitwise("0111"),
    "bitxor": bitwise("0110"),
    "bitand": bitwise("0001"),
    "shl": lambda a, n: of_bits((bits(a) + "0" * 64)[n % 64 : n % 64 + 64]),
    "sar": lambda a, n: of_bits((bits(a)[0] * (n % 64) + bits(a))[:64]),
    "shr": lambda a, n: of_bits(("0" * (n % 64) + bits(a))[:64]),
    "add": lambda a, b: signed(a + b),
    "sub": lambda a, b: signed(a - b),
    "mul": lambda a, b: signed(a * b),
    "div": lambda a, b: signed(truncated(a, b)),
    "rem": lambda a, b: a - truncated(a, b) * b,
    "floordiv": lambda a, b: signed(floored(a, b)),
    "floormod": lambda a, b: a - floored(a, b) * b,
    "neg": lambda a: signed(0 - a),
    "pos": lambda a: a,
    "bitnot": lambda a: -1 - a,
    "pow": power,
    "abs": lambda x: signed(max(x, -x)),
    "sign": lambda x: int(math.copysign(1, x)) if x else 0,
    "min": lambda a, b: sorted([a, b])[0],
    "max": lambda a, b: sorted([a, b])[1],
    "clamp": lambda x, low, high: sorted([sorted([x, low])[1], high])[0],
    "popcount": lambda x: bits(x).count("1"),
    "parity": lambda x: bits(x).count("1") % 2,
    "clz": lambda x: leading_zeros(bits(x)),
    "ctz": lambda x: leading_zeros(bits(x)[::-1]),
    "bswap": lambda x: struct.unpack("<q", struct.pack(">q", x))[0],
    "bitreverse": lambda x: of_bits(bits(x)[::-1]),
    "rotl": rotated,
    "rotr": lambda x, n: rotated(x, 64 - n % 64),
    "mulhi": lambda a, b: struct.unpack(">qq", product_bytes(a, b, True))[0],
    "umulhi": lambda a, b: struct.unpack(
        ">qq", product_bytes(unsigned(a), unsigned(b), False)
    )[0],
    "udiv": lambda a, b: signed(floored(unsigned(a), unsigned(b))),
    "umod": lambda a, b: signed(unsigned(a) - floored(unsigned(a), unsigned(b)) * unsigned(b)),
    "ult": lambda a, b: big_endian(a) < big_endian(b),
    "ule": lambda a, b: big_endian(a) <= big_endian(b),
    "ugt": lambda a, b: big_endian(a) > big_endian(b),
    "uge": lambda a, b: big_endian(a) >= big_endian(b),
    "gcd": lambda a, b: signed(euclid(a, b)),
    "isqrt": root,
    "avg": lambda a, b: floored(a + b, 2),
    "pdep": deposited,
    "pext": extracted,
    "i8": lambda x: ctypes.c_int8(x).value,
    "i16": lambda x: ctypes.c_int16(x).value,
    "i32": lambda x: ctypes.c_int32(x).value,
    "u8": lambda x: ctypes.c_uint8(x).value,
    "u16": lambda x: ctypes.c_uint16(x).value,
    "u32": lambda x: ctypes.c_uint32(x).value,
    "add_overflows": lambda a, b: signed(a + b) != a + b,
    "sub_overflows": lambda a, b: signed(a - b) != a - b,
    "mul_overflows": lambda a, b: signed(a * b) != a * b,
    "pow_overflows": lambda a, n: abs(a) > 1 and (unsigned(n) > 99 or signed(a**n) != a**n),
}  # fmt: skip


def failing(row: Operator, operands: tuple[int, ...]) -> bool:
    """Whether `row` fails in both modes, so that its value is nobody's business."""
    return any(fault.condition(make_int, *operands) for fault in row.faults["wrap"])


def test_every_row_has_another_definition_here() -> None:
    """A row that is new may go without, but these may not go missing."""
    assert set(OPERATORS) >= set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_meaning_is_the_reference_s(name: str) -> None:
    row, reference = OPERATORS[name], REFERENCE[name]
    for operands in edges(row):
        if not failing(row, operands):
            assert row(*operands) == reference(*operands), operands


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_results_are_longs_whether_the_operator_fails_or_not(row: Operator) -> None:
    for operands in edges(row):
        assert MIN <= row(*operands) <= MAX
        assert type(row(*operands)) is int


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_meanings_are_total_at_8_bits(row: Operator) -> None:
    some = (-128, -127, -3, -1, 0, 1, 2, 7, 8, 9, 127)
    for operands in itertools.product(some, repeat=row.arity):
        assert -128 <= BYTE.wrap(row.meaning(BYTE, *operands)) <= 127


# The columns. -----------------------------------------------------------------------------------


def byte(row: Operator, *operands: int) -> int:
    return BYTE.wrap(row.meaning(BYTE, *operands))


def constant(value: int) -> int:
    """A constant of the table at 8 bits: the bounds are those of the width."""
    return {MIN: -128, MAX: 127}.get(value, value)


def pairs() -> Iterable[tuple[int, int]]:
    return itertools.product(BYTES, repeat=2)


@rows_with("commutative")
def test_commutative(row: Operator) -> None:
    assert all(byte(row, a, b) == byte(row, b, a) for a, b in pairs() if a < b)
    assert all(row(a, b) == row(b, a) for a, b in edges(row))


@rows_with("associative")
def test_associative(row: Operator) -> None:
    width = Width(4)
    table = {
        (a, b): width.wrap(row.meaning(width, a, b))
        for a, b in itertools.product(range(-8, 8), repeat=2)
    }
    for a, b, c in itertools.product(range(-8, 8), repeat=3):
        assert table[table[a, b], c] == table[a, table[b, c]]


def test_commutative_rows_are_marked() -> None:
    """A mark that is left out costs speed, and nothing else notices."""
    for row in ROWS:
        # The lazy ones commute in their values, not in what they evaluate.
        if row.arity == 2 and row.fixity != "lazy":
            some = itertools.product((-128, -77, -2, -1, 0, 1, 3, 64, 127), repeat=2)
            commutes = all(byte(row, a, b) == byte(row, b, a) for a, b in some)
            assert commutes == row.commutative, row


@rows_with("identity")
def test_identity(row: Operator) -> None:
    assert row.identity is not None
    assert all(byte(row, a, constant(row.identity)) == a for a in BYTES)
    assert all(row(a, row.identity) == a for a in EDGES)


@rows_with("absorber")
def test_absorber(row: Operator) -> None:
    assert row.absorber is not None
    z = row.absorber
    assert all(byte(row, a, constant(z)) == constant(z) for a in BYTES)
    assert all(row(a, z) == z for a in EDGES)


@rows_with("same")
def test_same(row: Operator) -> None:
    for a in BYTES:
        assert byte(row, a, a) == (a if row.same == "x" else row.same)
    for a in EDGES:
        assert row(a, a) == (a if row.same == "x" else row.same)


@rows_with("negation")
def test_negation(row: Operator) -> None:
    assert row.negation is not None
    other = OPERATORS[row.negation]
    assert other.negation == row.name
    assert all(byte(row, a, b) == 1 - byte(other, a, b) for a, b in pairs())


@rows_with("swapped")
def test_swapped(row: Operator) -> None:
    assert row.swapped is not None
    other = OPERATORS[row.swapped]
    assert other.swapped == row.name
    assert all(byte(row, a, b) == byte(other, b, a) for a, b in pairs())


@rows_with("expansion")
def test_an_expansion_means_what_the_row_means(row: Operator) -> None:
    assert row.expansion is not None
    used = set()

    def make(name: str, *operands: int) -> int:
        assert all(MIN <= operand <= MAX for operand in operands)
        used.add(name)
        return make_int(name, *operands)

    for operands in edges(row):
        if not failing(row, operands):
            assert row.expansion(make, *operands) == row(*operands), operands
    assert row.name not in used


def test_expansions_end() -> None:
    def depth(name: str) -> int:
        row = OPERATORS[name]
        used: set[str] = set()

        def make(inner: str, *operands: int) -> int:
            used.add(inner)
            return make_int(inner, *operands)

        if row.expansion is not None:
            row.expansion(make, *[1] * row.arity)
        return 1 + max(map(depth, used), default=0)

    assert all(depth(name) < 5 for name in OPERATORS)


def test_booleans_are_exactly_the_rows_that_give_0_or_1() -> None:
    for row in ROWS:
        if row.fixity == "conditional":
            continue
        only = all(row(*operands) in (0, 1) for operands in edges(row))
        assert only == (row.name in BOOLEANS), row


def test_spellings_are_unique_and_looked_up() -> None:
    assert {token: row.name for token, row in INFIX.items()} == {
        token: row.name for row in ROWS if row.fixity in ("infix", "lazy") for token in row.tokens
    }
    assert sum(len(row.tokens) for row in ROWS if row.fixity in ("infix", "lazy")) == len(INFIX)
    assert {token: (row.name, binds) for token, (row, binds) in PREFIX.items()} == {
        **{"-": ("neg", 12), "+": ("pos", 12), "~": ("bitnot", 12), "!": ("not", 12)},
        "not": ("not", 4),
    }
    assert " ".join(FUNCTIONS) == (
        "abs sign min max clamp popcount parity clz ctz bswap bitreverse rotl rotr mulhi umulhi "
        "udiv umod ult ule ugt uge gcd isqrt avg pdep pext i8 i16 i32 u8 u16 u32"
    )


def test_rows_say_what_they_need_to() -> None:
    for row in ROWS:
        assert row.doc, row
        assert not row.doc.endswith("."), row
        assert row.cost >= 0, row
        assert set(row.faults) == set(OVERFLOW_MODES) == {"wrap", "raise"}
        assert row.faults["raise"][: len(row.faults["wrap"])] == row.faults["wrap"]
        assert row.variadic == (row.name in ("min", "max"))
        assert row.arity == (2 if row.variadic or row.fixity in ("infix", "lazy") else row.arity)


def test_rows_are_themselves_after_a_journey() -> None:
    for row in ROWS:
        assert pickle.loads(pickle.dumps(row)) is row
        assert copy.deepcopy(row) is row
        assert repr(row) == f"<operator {row.name}>"


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("add", "a + b"),
        ("not", "not a"),
        ("neg", "-a"),
        ("and", "a and b"),
        ("select", "c ? a : b"),
        ("clamp", "clamp(x, low, high)"),
        ("min", "min(a, b, ...)"),
        ("u8", "u8(x)"),
        ("pdep", "pdep(x, mask)"),
    ],
)
def test_signatures(name: str, signature: str) -> None:
    assert OPERATORS[name].signature == signature


# Failing: the design's table of cases, row by row. ----------------------------------------------

#: What the mathematical result is where it may not fit.
EXACT: dict[str, Callable[..., int]] = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: truncated(x, y) if y else 0,
    "x // y": lambda x, y: floored(x, y) if y else 0,
    "gcd(x, y)": lambda x, y: euclid(x, y),
    "-x": lambda x: -x,
    "abs(x)": lambda x: abs(x),
    "x << y": lambda x, y: x * 2 ** (y % 64),
}


@pytest.mark.parametrize("source", EXACT)
def test_a_result_outside_64_bits_wraps_or_raises(source: str) -> None:
    wraps = exprjit.compile(source, backend="interpreter")
    raises = exprjit.compile(source, overflow="raise", backend="interpreter")
    for operands in itertools.product(EDGES, repeat=len(wraps.params)):
        if operands[1:] == (0,) and "/" in source:
            continue
        exact = EXACT[source](*operands)
        assert wraps(*operands) == signed(exact)
        if signed(exact) == exact and ("<<" not in source or 0 <= operands[1] <= 63):
            assert raises(*operands) == exact
        else:
            with pytest.raises(exprjit.ExprOverflowError):
                raises(*operands)


def test_powers_wrap_or_raise() -> None:
    wraps = exprjit.compile("x ** n", backend="interpreter")
    raises = exprjit.compile("x ** n", overflow="raise", backend="interpreter")
    for x, n in itertools.product(EDGES, EDGES):
        if n < 0:
            for f in (wraps, raises):
                with pytest.raises(exprjit.ExprValueError, match="negative exponent"):
                    f(x, n)
            continue
        assert wraps(x, n) == power(x, n)
        if abs(x) <= 1 or (n < 99 and signed(x**n) == x**n):
            assert raises(x, n) == power(x, n)
        else:
            with pytest.raises(exprjit.ExprOverflowError):
                raises(x, n)
    assert raises(-2, 63) == MIN
    assert raises(0, 0) == wraps(0, 0) == 1


def outcome(source: str, overflow: str, *arguments: int) -> object:
    """The value, or the class of the error."""
    try:
        return exprjit.compile(source, overflow=overflow, backend="interpreter")(*arguments)
    except exprjit.ExprError as error:
        return type(error)


CASES = [
    # source, arguments, wrap, raise
    ("x + y", (MAX, 1), MIN, exprjit.ExprOverflowError),
    ("x - y", (MIN, 1), MAX, exprjit.ExprOverflowError),
    ("x * y", (2**62, 2), MIN, exprjit.ExprOverflowError),
    ("x ** y", (2, 63), MIN, exprjit.ExprOverflowError),
    ("x ** y", (2, 2**40), 0, exprjit.ExprOverflowError),
    ("x ** y", (-1, MAX), -1, -1),
    ("x << y", (1, 63), MIN, exprjit.ExprOverflowError),
    ("x << y", (-1, 63), MIN, MIN),
    ("abs(x)", (MIN,), MIN, exprjit.ExprOverflowError),
    ("gcd(x, y)", (MIN, MIN), MIN, exprjit.ExprOverflowError),
    ("gcd(x, y)", (MIN, 0), MIN, exprjit.ExprOverflowError),
    ("gcd(x, y)", (MIN, 6), 2, 2),
    ("-x", (MIN,), MIN, exprjit.ExprOverflowError),
    ("x / y", (MIN, -1), MIN, exprjit.ExprOverflowError),
    ("x // y", (MIN, -1), MIN, exprjit.ExprOverflowError),
    ("x % y", (MIN, -1), 0, 0),
    ("x %% y", (MIN, -1), 0, 0),
    *(
        (source, (x, 0), exprjit.ExprZeroDivisionError, exprjit.ExprZeroDivisionError)
        for source in ("x / y", "x // y", "x % y", "x %% y", "udiv(x, y)", "umod(x, y)")
        for x in (0, 7, MIN)
    ),
    ("x << n", (1, 64), 1, exprjit.ExprOverflowError),
    ("x << n", (0, 64), 0, exprjit.ExprOverflowError),
    ("x << n", (1, -1), MIN, exprjit.ExprOverflowError),
    ("x >> n", (-8, 65), -4, exprjit.ExprOverflowError),
    ("x >> n", (-8, -1), -1, exprjit.ExprOverflowError),
    ("x >>> n", (-1, 127), 1, exprjit.ExprOverflowError),
    ("x >>> n", (-1, MIN), -1, exprjit.ExprOverflowError),
    ("rotl(x, n)", (1, 65), 2, 2),
    ("rotr(x, n)", (2, -63), 1, 1),
    ("x ** n", (1, -1), exprjit.ExprValueError, exprjit.ExprValueError),
    ("x ** n", (0, MIN), exprjit.ExprValueError, exprjit.ExprValueError),
    ("isqrt(x)", (-1,), exprjit.ExprValueError, exprjit.ExprValueError),
    ("isqrt(x)", (MIN,), exprjit.ExprValueError, exprjit.ExprValueError),
    ("avg(x, y)", (MAX, MAX), MAX, MAX),
    ("clz(x)", (0,), 64, 64),
    ("ctz(x)", (0,), 64, 64),
    ("clamp(x, y, z)", (5, 9, 1), 1, 1),
    ("x or 5", (7,), 1, 1),
    ("x and 5", (7,), 1, 1),
    ("-7 / 2", (), -3, -3),
    ("-7 % 2", (), -1, -1),
    ("-7 // 2", (), -4, -4),
    ("-7 %% 2", (), 1, 1),
    ("7 %% -2", (), -1, -1),
    ("i8(x)", (255,), -1, -1),
    ("u8(x)", (-1,), 255, 255),
    ("min(x, y, z)", (3, 1, 2), 1, 1),
    ("max(x, y, z)", (3, 9, 2), 9, 9),
]  # fmt: skip


@pytest.mark.parametrize(("source", "arguments", "wrap", "raised"), CASES)
def test_the_table_of_cases(
    source: str, arguments: tuple[int, ...], wrap: object, raised: object
) -> None:
    assert outcome(source, "wrap", *arguments) == wrap
    assert outcome(source, "raise", *arguments) == raised


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_only_the_rows_of_that_table_fail(row: Operator) -> None:
    always = "div rem floordiv floormod udiv umod pow isqrt".split()
    raising = "add sub mul div floordiv neg shl sar shr abs gcd pow".split()
    assert bool(row.faults["wrap"]) == (row.name in always)
    assert (row.faults["raise"] != row.faults["wrap"]) == (row.name in raising)


def test_widths() -> None:
    assert (LONG.bits, LONG.min, LONG.max, LONG.mask) == (64, MIN, MAX, 2**64 - 1)
    assert all(LONG.wrap(value) == signed(value) for a in EDGES for value in (a, a + MAX, a * a))
    assert [BYTE.wrap(value) for value in (127, 128, 255, 256, -129)] == [127, -128, -1, 0, 127]
    assert [BYTE.fits(value) for value in (-129, -128, 127, 128)] == [False, True, True, False]

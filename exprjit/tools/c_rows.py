"""What each row of the operator table means, in C.

Written from the language's definition and not from the table's meanings or expansions: these
rows are a judge of those.  They are for a compiler with 64-bit `long`, wrapping arithmetic
(-fwrapv), arithmetic `>>` of signed numbers and the builtins of gcc and clang.
"""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """A fault: the name of its row in the table, whether only "raise" has it, its condition."""

    fault: str
    raising: bool
    condition: str


class CRow(NamedTuple):
    """An operator as the body of a C function of the longs a, b, c that returns a long."""

    body: str
    checks: tuple[Check, ...] = ()


def _row(value: str, *checks: Check) -> CRow:
    return CRow(f"return {value};", checks)


def _overflow(condition: str) -> Check:
    return Check("overflow", True, condition)


_ZERO = Check("zero divisor", False, "b == 0")
_MIN_BY_MINUS_ONE = _overflow("a == LONG_MIN && b == -1")
_MIN = _overflow("a == LONG_MIN")
_COUNT = Check("count range", True, "b < 0 || b > 63")

#: What the rows call.
HELPERS = """\
#include <limits.h>
typedef unsigned long ulong;

static ulong greatest_divisor(long a, long b) {
    ulong x = a < 0 ? -(ulong)a : a, y = b < 0 ? -(ulong)b : b;
    while (y) {
        ulong remainder = x % y;
        x = y;
        y = remainder;
    }
    return x;
}

static int power_overflows(long a, long n) {
    if (a >= -1 && a <= 1) return 0;
    long product = 1;
    while (n--)
        if (__builtin_mul_overflow(product, a, &product)) return 1;
    return 0;
}
"""

#: By the names of the table; `and`, `or` and `select` are not functions but `if`s.
ROWS: dict[str, CRow] = {
    "not": _row("!a"),
    "eq": _row("a == b"),
    "ne": _row("a != b"),
    "lt": _row("a < b"),
    "le": _row("a <= b"),
    "gt": _row("a > b"),
    "ge": _row("a >= b"),
    "bitor": _row("a | b"),
    "bitxor": _row("a ^ b"),
    "bitand": _row("a & b"),
    "shl": _row(
        "(ulong)a << (b & 63)", _COUNT, _overflow("(__int128)a << b != (long)((ulong)a << b)")
    ),
    "sar": _row("a >> (b & 63)", _COUNT),
    "shr": _row("(ulong)a >> (b & 63)", _COUNT),
    "add": _row("a + b", _overflow("__builtin_add_overflow(a, b, &(long){0})")),
    "sub": _row("a - b", _overflow("__builtin_sub_overflow(a, b, &(long){0})")),
    "mul": _row("a * b", _overflow("__builtin_mul_overflow(a, b, &(long){0})")),
    "div": _row("b == -1 ? -a : a / b", _ZERO, _MIN_BY_MINUS_ONE),
    "rem": _row("b == -1 ? 0 : a % b", _ZERO),
    "floordiv": CRow(
        "if (b == -1) return -a;"
        " long q = a / b;"
        " return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;",
        (_ZERO, _MIN_BY_MINUS_ONE),
    ),
    "floormod": CRow(
        "if (b == -1) return 0; long r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
        (_ZERO,),
    ),
    "neg": _row("-a", _MIN),
    "pos": _row("a"),
    "bitnot": _row("~a"),
    "pow": CRow(
        "ulong r = 1, x = a, n = b; for (; n; n >>= 1, x *= x) if (n & 1) r *= x; return r;",
        (Check("negative exponent", False, "b < 0"), _overflow("power_overflows(a, b)")),
    ),
    "abs": _row("a < 0 ? -a : a", _MIN),
    "sign": _row("a < 0 ? -1 : a > 0"),
    "min": _row("b < a ? b : a"),
    "max": _row("b > a ? b : a"),
    "clamp": CRow("if (a < b) a = b; return a > c ? c : a;"),
    "popcount": CRow("long n = 0; for (ulong x = a; x; x >>= 1) n += x & 1; return n;"),
    "parity": CRow("long n = 0; for (ulong x = a; x; x >>= 1) n ^= x & 1; return n;"),
    "clz": CRow("long n = 64; for (ulong x = a; x; x >>= 1) n--; return n;"),
    "ctz": CRow("long n = 0; while (n < 64 && !((ulong)a >> n & 1)) n++; return n;"),
    "bswap": _row("__builtin_bswap64(a)"),
    "bitreverse": CRow(
        "ulong r = 0; for (int i = 0; i < 64; i++) r |= ((ulong)a >> i & 1) << (63 - i); return r;"
    ),
    "rotl": _row("(ulong)a << (b & 63) | (ulong)a >> (-b & 63)"),
    "rotr": _row("(ulong)a >> (b & 63) | (ulong)a << (-b & 63)"),
    "mulhi": _row("(__int128)a * b >> 64"),
    "umulhi": _row("(unsigned __int128)(ulong)a * (ulong)b >> 64"),
    "udiv": _row("(ulong)a / (ulong)b", _ZERO),
    "umod": _row("(ulong)a % (ulong)b", _ZERO),
    "ult": _row("(ulong)a < (ulong)b"),
    "ule": _row("(ulong)a <= (ulong)b"),
    "ugt": _row("(ulong)a > (ulong)b"),
    "uge": _row("(ulong)a >= (ulong)b"),
    "gcd": _row("greatest_divisor(a, b)", _overflow("greatest_divisor(a, b) > LONG_MAX")),
    "isqrt": CRow(
        "ulong r = 0;"
        " for (ulong bit = 1UL << 31; bit; bit >>= 1)"
        " if ((r | bit) * (r | bit) <= (ulong)a) r |= bit;"
        " return r;",
        (Check("negative root", False, "a < 0"),),
    ),
    "avg": _row("(__int128)a + b >> 1"),
    "pdep": CRow(
        "ulong r = 0;"
        " for (int i = 0; i < 64; i++) if (b >> i & 1) r |= (a & 1UL) << i, a >>= 1;"
        " return r;"
    ),
    "pext": CRow(
        "ulong r = 0;"
        " for (int i = 0, k = 0; i < 64; i++) if (b >> i & 1) r |= (a >> i & 1UL) << k++;"
        " return r;"
    ),
    "i8": _row("(signed char)a"),
    "i16": _row("(short)a"),
    "i32": _row("(int)a"),
    "u8": _row("(unsigned char)a"),
    "u16": _row("(unsigned short)a"),
    "u32": _row("(unsigned int)a"),
}

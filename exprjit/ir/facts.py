"""What is known of a value before it is computed: a signed range, and bits.

Each operator has a function from what is known of its operands to what is known of its result. What
it gives holds for every operand that the facts admit, so a comparison that can only be 1 is 1, and
a mask that only takes away zeros is not needed.

The width comes first, as in the operator table, so that all of this is proved at small widths.

Sources: Harishankar Vishwanathan and others, Sound, Precise, and Fast Abstract Interpretation with
Tristate Numbers (2022), for sums of known bits; Hacker's Delight, chapter 4, for ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from ..language.arithmetic import LONG, Width, truncating_quotient
from ..language.operators import BOOLEANS, OPERATORS


class Facts(NamedTuple):
    """low, high: the least and the greatest value, signed. zeros, ones: the bits known to be so."""

    low: int
    high: int
    zeros: int
    ones: int


#: Nothing is known of a long, or that it is a condition.
ANYTHING: Final = Facts(LONG.min, LONG.max, 0, 0)
CONDITION: Final = Facts(0, 1, LONG.mask ^ 1, 0)

#: What is known of a result, from the width and what is known of the operands.
Transfer = Callable[..., Facts]


def exactly(w: Width, value: int) -> Facts:
    return Facts(value, value, ~value & w.mask, value & w.mask)


def facts(w: Width, low: int, high: int, zeros: int = 0, ones: int = 0) -> Facts:
    """The facts that follow from a range, which may be too wide for the width, and from bits."""
    sign = w.max + 1
    # The least and the greatest number with these bits.
    least, greatest = ones, w.mask & ~zeros
    if ones & sign:
        least, greatest = least - (sign << 1), greatest - (sign << 1)
    elif not zeros & sign:
        least, greatest = (least | sign) - (sign << 1), greatest & ~sign
    low, high = max(low, least), min(high, greatest)
    # What all numbers between them have in common: the bits above the first difference.
    if (low < 0) == (high < 0):
        common = w.mask & -1 << (low ^ high).bit_length()
        zeros |= ~low & common
        ones |= low & common
    return Facts(low, high, zeros, ones)


def both(a: Facts, b: Facts) -> Facts:
    """What follows from two facts about the same long."""
    if a == b:
        return a
    return facts(LONG, max(a.low, b.low), min(a.high, b.high), a.zeros | b.zeros, a.ones | b.ones)


def _anything(w: Width) -> Facts:
    return ANYTHING if w is LONG else Facts(w.min, w.max, 0, 0)


def _bits(w: Width, zeros: int, ones: int) -> Facts:
    return facts(w, w.min, w.max, zeros, ones)


def _range(w: Width, low: int, high: int) -> Facts:
    """A range of what is computed without wrapping; nothing is known if it may wrap."""
    if low < w.min or high > w.max:
        return _anything(w)
    return facts(w, low, high)


def _hull(w: Width, values: list[int]) -> Facts:
    return _range(w, min(values), max(values))


def unsigned(w: Width, a: Facts) -> tuple[int, int]:
    """The range of a value read as unsigned."""
    if (a.low < 0) == (a.high < 0):
        return a.low & w.mask, a.high & w.mask
    return a.ones, w.mask & ~a.zeros


def _corners(a: Facts, b: Facts, compute: Callable[[int, int], int]) -> list[int]:
    return [compute(p, q) for p in a[:2] for q in b[:2]]


def _trailing(mask: int) -> int:
    """How many of the lowest bits are ones."""
    return (~mask & mask + 1).bit_length() - 1


# Bits. -------------------------------------------------------------------------------------


def _bitand(w: Width, a: Facts, b: Facts) -> Facts:
    high = min([known.high for known in (a, b) if known.low >= 0], default=w.max)
    return facts(w, w.min, high, a.zeros | b.zeros, a.ones & b.ones)


def _bitor(w: Width, a: Facts, b: Facts) -> Facts:
    low = max(a.low, b.low) if a.low >= 0 and b.low >= 0 else min(a.low, b.low)
    return facts(w, low, w.max, a.zeros & b.zeros, a.ones | b.ones)


def _bitxor(w: Width, a: Facts, b: Facts) -> Facts:
    return _bits(w, a.zeros & b.zeros | a.ones & b.ones, a.zeros & b.ones | a.ones & b.zeros)


def _bitnot(w: Width, a: Facts) -> Facts:
    return Facts(~a.high, ~a.low, a.ones, a.zeros)


def _shl(w: Width, a: Facts, b: Facts) -> Facts:
    if b.low != b.high:
        return _bits(w, (1 << _trailing(a.zeros)) - 1, 0)
    count = b.low % w.bits
    zeros = (a.zeros << count | (1 << count) - 1) & w.mask
    low, high = a.low << count, a.high << count
    if low < w.min or high > w.max:
        low, high = w.min, w.max
    return facts(w, low, high, zeros, a.ones << count & w.mask)


def _sar(w: Width, a: Facts, b: Facts) -> Facts:
    if b.low != b.high:
        return facts(w, min(a.low, 0), max(a.high, -1))
    count = b.low % w.bits
    zeros, ones = w.wrap(a.zeros) >> count & w.mask, w.wrap(a.ones) >> count & w.mask
    return facts(w, a.low >> count, a.high >> count, zeros, ones)


def _shr(w: Width, a: Facts, b: Facts) -> Facts:
    if b.low != b.high:
        return facts(w, 0, a.high) if a.low >= 0 else _anything(w)
    count = b.low % w.bits
    if not count:
        return a
    low, high = unsigned(w, a)
    zeros = a.zeros >> count | w.mask & ~(w.mask >> count)
    return facts(w, low >> count, high >> count, zeros, a.ones >> count)


def _permuted(op: str, w: Width, a: Facts, count: Facts | None = None) -> Facts:
    """What only moves bits moves what is known of them, too."""
    if count is not None and count.low != count.high:
        return _anything(w)
    meaning, counts = OPERATORS[op].meaning, () if count is None else (count.low,)
    return _bits(w, meaning(w, a.zeros, *counts) & w.mask, meaning(w, a.ones, *counts) & w.mask)


def _popcount(w: Width, a: Facts) -> Facts:
    return facts(w, a.ones.bit_count(), w.bits - a.zeros.bit_count())


def _clz(w: Width, a: Facts) -> Facts:
    low, high = unsigned(w, a)
    return facts(w, w.bits - high.bit_length(), w.bits - low.bit_length())


def _ctz(w: Width, a: Facts) -> Facts:
    most = _trailing(w.mask & ~a.ones) if a.ones else w.bits
    return facts(w, min(_trailing(a.zeros), w.bits), most)


def _pdep(w: Width, a: Facts, mask: Facts) -> Facts:
    return _bits(w, mask.zeros, 0)


def _pext(w: Width, a: Facts, mask: Facts) -> Facts:
    most = (1 << w.bits - mask.zeros.bit_count()) - 1
    return facts(w, 0, most) if most <= w.max else _anything(w)


def _narrowed(bits: int, w: Width, a: Facts) -> Facts:
    narrow = Width(min(bits, w.bits))
    if narrow.fits(a.low) and narrow.fits(a.high):
        return a
    low = narrow.mask >> 1
    return facts(w, narrow.min, narrow.max, a.zeros & low, a.ones & low)


# Arithmetic. -------------------------------------------------------------------------------


def _add(w: Width, a: Facts, b: Facts) -> Facts:
    if a is ANYTHING or b is ANYTHING:
        return ANYTHING
    # Sums where every unknown bit is 0, and where it is 1: where they differ a carry is unknown.
    least, most = a.ones + b.ones, (w.mask & ~a.zeros) + (w.mask & ~b.zeros)
    unknown = least ^ most | w.mask & ~(a.zeros | a.ones) | w.mask & ~(b.zeros | b.ones)
    return _sum(w, a.low + b.low, a.high + b.high, least, unknown)


def _sub(w: Width, a: Facts, b: Facts) -> Facts:
    if a is ANYTHING or b is ANYTHING:
        return ANYTHING
    least, most = a.ones - (w.mask & ~b.zeros), (w.mask & ~a.zeros) - b.ones
    unknown = least ^ most | w.mask & ~(a.zeros | a.ones) | w.mask & ~(b.zeros | b.ones)
    return _sum(w, a.low - b.high, a.high - b.low, least, unknown)


def _sum(w: Width, low: int, high: int, value: int, unknown: int) -> Facts:
    if low < w.min or high > w.max:
        low, high = w.min, w.max
    return facts(w, low, high, ~value & ~unknown & w.mask, value & ~unknown & w.mask)


def _neg(w: Width, a: Facts) -> Facts:
    return _sub(w, exactly(w, 0), a)


def _mul(w: Width, a: Facts, b: Facts) -> Facts:
    trailing = _trailing(a.zeros) + _trailing(b.zeros)
    zeros = (1 << min(trailing, w.bits)) - 1
    if a is ANYTHING and not zeros:
        return ANYTHING
    corners = _corners(a, b, lambda p, q: p * q)
    low, high = min(corners), max(corners)
    if low < w.min or high > w.max:
        low, high = w.min, w.max
    return facts(w, low, high, zeros)


def _mulhi(w: Width, a: Facts, b: Facts) -> Facts:
    return _hull(w, _corners(a, b, lambda p, q: p * q >> w.bits))


def _umulhi(w: Width, a: Facts, b: Facts) -> Facts:
    (low, high), (other_low, other_high) = unsigned(w, a), unsigned(w, b)
    return _range(w, low * other_low >> w.bits, high * other_high >> w.bits)


def _size(a: Facts) -> int:
    return max(-a.low, a.high)


def _abs(w: Width, a: Facts) -> Facts:
    if a.low >= 0:
        return a
    return _range(w, max(0, -a.high), _size(a))


def _min(w: Width, a: Facts, b: Facts) -> Facts:
    low, high = min(a.low, b.low), min(a.high, b.high)
    return facts(w, low, high, a.zeros & b.zeros, a.ones & b.ones)


def _max(w: Width, a: Facts, b: Facts) -> Facts:
    low, high = max(a.low, b.low), max(a.high, b.high)
    return facts(w, low, high, a.zeros & b.zeros, a.ones & b.ones)


def _quotient(divide: Callable[[int, int], int], w: Width, a: Facts, b: Facts) -> Facts:
    """A quotient, which is 0 for a divisor of 0."""
    if b.low < 0:
        return _range(w, -_size(a), _size(a))
    values = _corners(a, b._replace(low=max(b.low, 1), high=max(b.high, 1)), divide)
    return _hull(w, [*values, 0] if b.low == 0 else values)


def _rem(w: Width, a: Facts, b: Facts) -> Facts:
    most = max(_size(b) - 1, 0)
    return facts(w, max(min(a.low, 0), -most), min(max(a.high, 0), most))


def _floormod(w: Width, a: Facts, b: Facts) -> Facts:
    low, high = min(b.low + 1, 0), max(b.high - 1, 0)
    return facts(w, low, min(high, a.high) if a.low >= 0 <= b.low else high)


def _udiv(w: Width, a: Facts, b: Facts) -> Facts:
    (low, high), (least, most) = unsigned(w, a), unsigned(w, b)
    return _range(w, low // most if least else 0, high // max(least, 1))


def _umod(w: Width, a: Facts, b: Facts) -> Facts:
    high, most = unsigned(w, a)[1], unsigned(w, b)[1]
    return _range(w, 0, min(high, max(most - 1, 0)))


def _gcd(w: Width, a: Facts, b: Facts) -> Facts:
    return _range(w, 0, max(_size(a), _size(b)))


def _isqrt(w: Width, a: Facts) -> Facts:
    return facts(w, math.isqrt(a.low), math.isqrt(a.high)) if a.low >= 0 else _anything(w)


# Conditions. -------------------------------------------------------------------------------


def _condition(w: Width, never: bool, always: bool) -> Facts:
    if never or always:
        return exactly(w, int(always))
    return CONDITION if w is LONG else Facts(0, 1, w.mask ^ 1, 0)


def _differ(a: Facts, b: Facts) -> bool:
    return a.low > b.high or b.low > a.high or bool(a.zeros & b.ones or a.ones & b.zeros)


def _eq(w: Width, a: Facts, b: Facts) -> Facts:
    return _condition(w, _differ(a, b), a.low == a.high == b.low == b.high)


def _ne(w: Width, a: Facts, b: Facts) -> Facts:
    return _condition(w, a.low == a.high == b.low == b.high, _differ(a, b))


def _lt(w: Width, a: Facts, b: Facts) -> Facts:
    return _condition(w, a.low >= b.high, a.high < b.low)


def _le(w: Width, a: Facts, b: Facts) -> Facts:
    return _condition(w, a.low > b.high, a.high <= b.low)


def _gt(w: Width, a: Facts, b: Facts) -> Facts:
    return _lt(w, b, a)


def _ge(w: Width, a: Facts, b: Facts) -> Facts:
    return _le(w, b, a)


def _as_unsigned(compare: Transfer) -> Transfer:
    def transfer(w: Width, a: Facts, b: Facts) -> Facts:
        ranges = [Facts(*unsigned(w, operand), 0, 0) for operand in (a, b)]
        return compare(w, *ranges)

    return transfer


def _overflows(compute: Callable[[int, int], int]) -> Transfer:
    def transfer(w: Width, a: Facts, b: Facts) -> Facts:
        values = _corners(a, b, compute)
        low, high = min(values), max(values)
        return _condition(w, w.min <= low and high <= w.max, low > w.max or high < w.min)

    return transfer


def _select(w: Width, condition: Facts, a: Facts, b: Facts) -> Facts:
    if condition.low > 0 or condition.high < 0 or condition.ones:
        return a
    if condition.low == condition.high:
        return b
    return Facts(min(a.low, b.low), max(a.high, b.high), a.zeros & b.zeros, a.ones & b.ones)


#: By operator; nothing is known of what the others give.
TRANSFERS: Final[dict[str, Transfer]] = {
    name: lambda w, *operands: _condition(w, False, False) for name in sorted(BOOLEANS)
} | {
    "bitand": _bitand,
    "bitor": _bitor,
    "bitxor": _bitxor,
    "bitnot": _bitnot,
    "shl": _shl,
    "sar": _sar,
    "shr": _shr,
    "rotl": partial(_permuted, "rotl"),
    "rotr": partial(_permuted, "rotr"),
    "bswap": partial(_permuted, "bswap"),
    "popcount": _popcount,
    "clz": _clz,
    "ctz": _ctz,
    "pdep": _pdep,
    "pext": _pext,
    "i8": partial(_narrowed, 8),
    "i16": partial(_narrowed, 16),
    "i32": partial(_narrowed, 32),
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "mulhi": _mulhi,
    "umulhi": _umulhi,
    "abs": _abs,
    "min": _min,
    "max": _max,
    "div": partial(_quotient, truncating_quotient),
    "floordiv": partial(_quotient, lambda p, q: p // q),
    "rem": _rem,
    "floormod": _floormod,
    "udiv": _udiv,
    "umod": _umod,
    "gcd": _gcd,
    "isqrt": _isqrt,
    "eq": _eq,
    "ne": _ne,
    "lt": _lt,
    "le": _le,
    "gt": _gt,
    "ge": _ge,
    "ult": _as_unsigned(_lt),
    "ule": _as_unsigned(_le),
    "ugt": _as_unsigned(_gt),
    "uge": _as_unsigned(_ge),
    "add_overflows": _overflows(lambda p, q: p + q),
    "sub_overflows": _overflows(lambda p, q: p - q),
    "mul_overflows": _overflows(lambda p, q: p * q),
    "select": _select,
}

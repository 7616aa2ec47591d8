"""Quotients, remainders and roots in lanes of AVX2.

Small numbers go by way of doubles: to turn a long of up to 51 bits into one, it is added to the
bits of 1.5 * 2**52, and that is subtracted as a double. By constants, numbers of any size are
multiplied by a reciprocal, of which only the upper half is kept. What else there is has to be
done row by row.

The caller's rounding mode is put aside meanwhile (lane_loop.py).

Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication (1994).
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CONST, Node
from ..ir.reciprocals import natural_magic, natural_shift
from ..language.operators import LONG
from .avx2_products import KEYS, multiply
from .lane_arithmetic import QUOTIENTS, by_lane, double, fits, quotient_to_come, upper_half
from .lanes import Lanes, Lowering

#: Below this magnitude all of it is exact.
LIMIT: Final = 1 << 49

#: The bits of 1.5 * 2**52 as a double, to whose last bits a long can be added.
_MAGIC: Final = 0x4338000000000000
_TOWARD_ZERO: Final = 11
_DOWN: Final = 9


def _to_double(s: Lanes, value: int) -> int:
    moved, result = s.new(), s.new()
    magic = s.constant(_MAGIC)
    s.emit("vpaddq256_xxx", moved, value, magic)
    s.emit("vsubpd256_xxx", result, moved, magic)
    return result


def _from_double(s: Lanes, value: int, register: int) -> None:
    """Of a double that is a whole number."""
    moved = s.new()
    magic = s.constant(_MAGIC)
    s.emit("vaddpd256_xxx", moved, value, magic)
    s.emit("vpsubq256_xxx", register, moved, magic)


# By constants. -------------------------------------------------------------------------------


def _quotient_by_constant(s: Lanes, op: str, dividend: Node, c: int, register: int) -> None:
    x = s.value(dividend)
    if fits(dividend, LIMIT):
        _narrow_by_constant(s, op, x, c, register)
        return
    # Of the magnitude, or for flooring of ~x where x is negative.
    negative, inverted, quotient = s.new(), s.new(), s.new()
    s.emit("vpcmpgtq256_xxx", negative, s.constant(0), x)
    s.emit("vpxor256_xxx", inverted, x, negative)
    magnitude = inverted
    if op == "div":
        magnitude = s.new()
        s.emit("vpsubq256_xxx", magnitude, inverted, negative)
    _divide_natural(s, magnitude, c, quotient)
    if op == "floordiv":
        s.emit("vpxor256_xxx", register, quotient, negative)
    else:
        back = s.new()
        s.emit("vpxor256_xxx", back, quotient, negative)
        s.emit("vpsubq256_xxx", register, back, negative)


def _divide_natural(s: Lanes, x: int, c: int, register: int) -> None:
    """The quotient of numbers up to 2**63, the magnitude of the least long, by a constant."""
    magic, shift = natural_magic(LONG, c), natural_shift(LONG, c)
    product = s.new()
    upper_half(KEYS, s, x, s.constant(magic), product)
    s.emit("vpsrlq256_xxi", register, product, shift)


def _narrow_by_constant(s: Lanes, op: str, x: int, c: int, register: int) -> None:
    reciprocal = 1.0 / c
    dividend, ratio, whole = _to_double(s, x), s.new(), s.new()
    if op == "div":
        up = s.constant(double(reciprocal * (1 + 2.0**-52)))
        s.emit("vmulpd256_xxx", ratio, dividend, up)
        s.emit("vroundpd256_xxi", whole, ratio, _TOWARD_ZERO)
    else:
        half, factor = s.constant(double(reciprocal * 0.5)), s.constant(double(reciprocal))
        s.emit("vfmadd213pd256_xxx", ratio, factor, half, tied=dividend)
        s.emit("vroundpd256_xxi", whole, ratio, _DOWN)
    _from_double(s, whole, register)


def _remainder(s: Lanes, x: int, quotient: int, divisor: int, register: int) -> None:
    multiple = s.new()
    multiply(s, quotient, divisor, multiple)
    s.emit("vpsubq256_xxx", register, x, multiple)


def _by_constant(s: Lanes, node: Node, register: int) -> None:
    dividend, divisor = node.args
    if node.op not in QUOTIENTS:
        _quotient_by_constant(s, node.op, dividend, divisor.value, register)
        return
    quotient = quotient_to_come(s, node)
    if quotient is None:
        quotient = s.new()
        _quotient_by_constant(s, QUOTIENTS[node.op], dividend, divisor.value, quotient)
    _remainder(s, s.value(dividend), quotient, s.constant(divisor.value), register)


# By variables. -------------------------------------------------------------------------------


def is_narrow(node: Node) -> bool:
    """Whether one division of doubles is exact."""
    signed = node.op in ("div", "rem")
    return all(fits(arg, LIMIT) and (signed or arg.facts.low >= 0) for arg in node.args)


def _by_variable(s: Lanes, node: Node, register: int) -> None:
    if not is_narrow(node):
        by_lane(s, node, register)
        return
    x, y = map(s.value, node.args)
    if node.op not in QUOTIENTS:
        _divide(s, x, y, register)
        return
    quotient = quotient_to_come(s, node)
    if quotient is None:
        quotient = s.new()
        _divide(s, x, y, quotient)
    # What is left of a division by 0 is 0.
    rest, is_zero = s.new(), s.new()
    _remainder(s, x, quotient, y, rest)
    s.emit("vpcmpeqq256_xxx", is_zero, y, s.constant(0))
    s.emit("vpandn256_xxx", register, is_zero, rest)


def _divide(s: Lanes, x: int, y: int, register: int) -> None:
    """By 0 it is 0: such lanes are divided by 1, and what that gives is dropped."""
    is_zero, safe = s.new(), s.new()
    s.emit("vpcmpeqq256_xxx", is_zero, y, s.constant(0))
    s.emit("vpsubq256_xxx", safe, y, is_zero)
    a, b = _to_double(s, x), _to_double(s, safe)
    ratio, whole, quotient = s.new(), s.new(), s.new()
    s.emit("vdivpd256_xxx", ratio, a, b)
    s.emit("vroundpd256_xxi", whole, ratio, _TOWARD_ZERO)
    _from_double(s, whole, quotient)
    s.emit("vpandn256_xxx", register, is_zero, quotient)


def _is_ordinary(divisor: Node) -> bool:
    return divisor.op is CONST and divisor.value > 2


def _division(s: Lanes, node: Node, register: int) -> None:
    if _is_ordinary(node.args[1]) and node.op not in ("udiv", "umod"):
        _by_constant(s, node, register)
    else:
        _by_variable(s, node, register)


#: 2.0**84, to whose last bits the upper half of a long can be added, and 2.0**52 for the lower.
_TWO_84: Final = 0x4530000000000000
_TWO_52: Final = 0x4330000000000000


def _natural_to_double(s: Lanes, value: int) -> int:
    """The double next to a number that is not negative: its halves as doubles, and their sum."""
    upper, lower, high, low, result = (s.new() for _ in range(5))
    shifted, kept = s.new(), s.new()
    two_84, two_52 = s.constant(_TWO_84), s.constant(_TWO_52)
    s.emit("vpsrlq256_xxi", shifted, value, 32)
    s.emit("vpor256_xxx", upper, shifted, two_84)
    s.emit("vsubpd256_xxx", high, upper, two_84)
    s.emit("vpand256_xxx", kept, value, s.constant(0xFFFFFFFF))
    s.emit("vpor256_xxx", lower, kept, two_52)
    s.emit("vsubpd256_xxx", low, lower, two_52)
    s.emit("vaddpd256_xxx", result, high, low)
    return result


def _isqrt(s: Lanes, node: Node, register: int) -> None:
    """The root in doubles is one off at most; of negative numbers it is the least number."""
    x = s.value(node.args[0])
    small = fits(node.args[0], LIMIT) and node.args[0].facts.low >= 0
    root, whole, r = s.new(), s.new(), s.new()
    s.emit("vsqrtpd256_xx", root, _to_double(s, x) if small else _natural_to_double(s, x))
    s.emit("vroundpd256_xxi", whole, root, _TOWARD_ZERO)
    if small:
        _from_double(s, whole, register)
        return
    _from_double(s, whole, r)
    # Squares are compared as unsigned numbers.
    least = s.constant(LONG.min)
    above, less, next_, below, fixed, negative = (s.new() for _ in range(6))
    moved = s.new()
    s.emit("vpxor256_xxx", moved, x, least)
    s.emit("vpcmpgtq256_xxx", above, _moved_square(s, r, least), moved)
    s.emit("vpaddq256_xxx", less, r, above)
    s.emit("vpsubq256_xxx", next_, less, s.constant(-1))
    s.emit("vpcmpgtq256_xxx", below, _moved_square(s, next_, least), moved)
    s.emit("vblendvpd256_xxxx", fixed, next_, less, below)
    s.emit("vpcmpgtq256_xxx", negative, s.constant(0), x)
    s.emit("vblendvpd256_xxxx", register, fixed, least, negative)


def _moved_square(s: Lanes, root: int, least: int) -> int:
    square, moved = s.new(), s.new()
    s.emit("vpmuludq256_xxx", square, root, root)
    s.emit("vpxor256_xxx", moved, square, least)
    return moved


VALUES: dict[str, Lowering] = {
    **dict.fromkeys(("div", "rem", "floordiv", "floormod", "udiv", "umod"), _division),
    "isqrt": _isqrt,
}


def is_wide(node: Node) -> bool:
    """Whether a node is cheaper, or possible at all, if its operands are known to be small."""
    if node.op in ("div", "rem", "floordiv", "floormod") and _is_ordinary(node.args[1]):
        return not fits(node.args[0], LIMIT)
    if node.op in ("div", "rem", "udiv", "umod"):
        return not is_narrow(node)
    return node.op == "isqrt" and not fits(node.args[0], LIMIT)

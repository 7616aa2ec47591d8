"""Integers of a fixed width, and those meanings of operators that do not fit a line of the table.

Every function is total: what it gives where the operator would fail is what the machine
code computes there (see rows.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


class Width:
    """A size of integer: the bounds and the two readings of a bit pattern."""

    __slots__ = ("bits", "mask", "max", "min")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.mask = (1 << bits) - 1
        self.max = (1 << bits - 1) - 1
        self.min = -1 << bits - 1

    def wrap(self, value: int) -> int:
        """The signed number that `value` is modulo 2**bits."""
        return (value - self.min & self.mask) + self.min

    def fits(self, value: int) -> bool:
        return self.min <= value <= self.max


#: The width of the language.  The name is C's.
LONG: Final = Width(64)
MIN: Final = LONG.min
MAX: Final = LONG.max


def truncating_quotient(a: int, b: int) -> int:
    if b == 0:
        return 0
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def power(w: Width, a: int, n: int) -> int:
    """Modulo 2**bits; a negative exponent counts as the unsigned number it is."""
    return pow(a, n & w.mask, 1 << w.bits)


def power_overflows(w: Width, a: int, n: int) -> int:
    n &= w.mask
    if -1 <= a <= 1:
        return 0
    return int(n >= w.bits or not w.fits(a**n))


def deposit(w: Width, x: int, mask: int) -> int:
    result, mask = 0, mask & w.mask
    while mask:
        lowest = mask & -mask
        if x & 1:
            result |= lowest
        x >>= 1
        mask ^= lowest
    return result


def extract(w: Width, x: int, mask: int) -> int:
    result, place, mask = 0, 1, mask & w.mask
    while mask:
        lowest = mask & -mask
        if x & lowest:
            result |= place
        place <<= 1
        mask ^= lowest
    return result


def swap_bytes(w: Width, x: int) -> int:
    size = w.bits // 8
    return int.from_bytes((x & w.mask).to_bytes(size, "little"), "big") if size else x


def reverse_bits(w: Width, x: int) -> int:
    return int(format(x & w.mask, f"0{w.bits}b")[::-1], 2)


def rotate_left(w: Width, x: int, n: int) -> int:
    n %= w.bits
    x &= w.mask
    return x << n | x >> w.bits - n


def narrow(bits: int) -> Callable[[Width, int], int]:
    def meaning(w: Width, x: int) -> int:
        return Width(min(bits, w.bits)).wrap(x)

    return meaning

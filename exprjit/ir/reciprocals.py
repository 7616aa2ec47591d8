"""Numbers by which to multiply instead of dividing by a constant.

Sources: Henry S. Warren, Hacker's Delight, chapter 10; Granlund and Montgomery, Division by
Invariant Integers using Multiplication (1994).

All are functions of the width and the divisor d, so that what is made of them is proved at small
widths. What is called magic is 2**(bits + shift) / d, rounded up.
"""

from __future__ import annotations

from ..language.operators import Width


def _signed(w: Width, d: int) -> tuple[int, int]:
    """Magic and shift for dividends of either sign and d >= 2, the least shift that will do."""
    # The greatest dividend with the greatest remainder.
    most = w.max - (w.max + 1) % d
    power = w.bits
    while (1 << power) <= most * (d - (1 << power) % d):
        power += 1
    return ((1 << power) + d - (1 << power) % d) // d, power - w.bits


def signed_magic(w: Width, d: int) -> int:
    """What the upper half of the product of is taken; negative where it has all the bits."""
    return _signed(w, d)[0] if d >= 2 else 0


def signed_shift(w: Width, d: int) -> int:
    """By how much that is shifted then."""
    return _signed(w, d)[1] if d >= 2 else 0


def natural_magic(w: Width, d: int) -> int:
    """The same for dividends of `bits` - 1 bits and d >= 2, read as unsigned."""
    return -(-(1 << w.bits + natural_shift(w, d)) // d) if d >= 2 else 0


def natural_shift(w: Width, d: int) -> int:
    return max(d - 1, 1).bit_length() - 1


def _unsigned(w: Width, d: int, bits: int) -> tuple[int, int]:
    """Magic and shift for dividends of so many bits."""
    shift = 0
    while -(1 << w.bits + shift) % d > 1 << w.bits + shift - bits:
        shift += 1
    return -(-(1 << w.bits + shift) // d), shift


def unsigned_magic(w: Width, d: int) -> int:
    """The same for all unsigned dividends; what is above the bits is cut off."""
    d &= w.mask
    return _unsigned(w, d, w.bits)[0] if d else 0


def unsigned_shift(w: Width, d: int) -> int:
    d &= w.mask
    return _unsigned(w, d, w.bits)[1] if d else 0


def unsigned_fits(w: Width, d: int) -> int:
    """1 if the magic for all unsigned dividends has no more than the bits."""
    d &= w.mask
    return int(d > 1 and _unsigned(w, d, w.bits)[0] <= w.mask)


def halved_magic(w: Width, d: int) -> int:
    """The same for dividends and an even divisor both shifted right until it is odd."""
    return _halved(w, d)[0]


def halved_shift(w: Width, d: int) -> int:
    return _halved(w, d)[1]


def _halved(w: Width, d: int) -> tuple[int, int]:
    d &= w.mask
    if not d:
        return 0, 0
    zeros = (d & -d).bit_length() - 1
    return _unsigned(w, d >> zeros, w.bits - zeros)


def half_bits(w: Width) -> int:
    """How many bits a dividend may have for a quotient that is in the lower half of a product."""
    return w.bits // 2 - 1


def short_bits(w: Width) -> int:
    """The same for a magic number that is an immediate of an instruction, too."""
    return w.bits * 3 // 8 - 1


def _natural(w: Width, d: int, bits: int) -> tuple[int, int]:
    power = bits + max(d - 1, 1).bit_length()
    return -(-(1 << power) // d), power % w.bits


def half_magic(w: Width, d: int) -> int:
    """What to multiply a dividend of `half_bits` by, for d >= 2 of no more than those."""
    return _natural(w, d, half_bits(w))[0] if d >= 2 else 0


def half_shift(w: Width, d: int) -> int:
    """By how much the product is shifted right then."""
    return _natural(w, d, half_bits(w))[1] if d >= 2 else 0


def short_magic(w: Width, d: int) -> int:
    """The same for `short_bits`."""
    return _natural(w, d, short_bits(w))[0] if d >= 2 else 0


def short_shift(w: Width, d: int) -> int:
    return _natural(w, d, short_bits(w))[1] if d >= 2 else 0


def inverse(w: Width, d: int) -> int:
    """What times the odd part of d is 1."""
    d &= w.mask
    return pow(d // (d & -d), -1, w.mask + 1) if d else 0


def multiples(w: Width, d: int) -> int:
    """How many multiples of d >= 2 there are below and above 0, 0 itself not counted."""
    return -w.min // d + w.max // d if d >= 2 else 0


def multiples_below(w: Width, d: int) -> int:
    """The number of the multiples of d >= 2 below 0, times the power of two in d."""
    return (-w.min // d) * (d & -d) if d >= 2 else 0


def unsigned_multiples(w: Width, d: int) -> int:
    """How many multiples of d there are among unsigned numbers, 0 itself not counted."""
    return w.mask // (d & w.mask) if d & w.mask else 0

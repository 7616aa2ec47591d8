"""Operators in terms of cheaper ones, where that takes more than a line of the table.

Sources: Hacker's Delight, sections 5-1 (population count) and 7-1 (reversing bits).
"""

from __future__ import annotations

from typing import Any

from .rows import Make


def _swap_neighbours(make: Make, x: Any, distance: int, mask: int) -> Any:
    low = make("bitand", make("shr", x, distance), mask)
    high = make("shl", make("bitand", x, mask), distance)
    return make("bitor", low, high)


def bitreverse(make: Make, x: Any) -> Any:
    x = _swap_neighbours(make, x, 1, 0x5555555555555555)
    x = _swap_neighbours(make, x, 2, 0x3333333333333333)
    x = _swap_neighbours(make, x, 4, 0x0F0F0F0F0F0F0F0F)
    return make("bswap", x)


def popcount(make: Make, x: Any) -> Any:
    twos = make("sub", x, make("bitand", make("shr", x, 1), 0x5555555555555555))
    fours = make(
        "add",
        make("bitand", twos, 0x3333333333333333),
        make("bitand", make("shr", twos, 2), 0x3333333333333333),
    )
    bytes_ = make("bitand", make("add", fours, make("shr", fours, 4)), 0x0F0F0F0F0F0F0F0F)
    return make("shr", make("mul", bytes_, 0x0101010101010101), 56)


def sign(make: Make, x: Any) -> Any:
    return make("bitor", make("sar", x, 63), make("shr", make("neg", x), 63))


def average(make: Make, a: Any, b: Any) -> Any:
    return make("add", make("bitand", a, b), make("sar", make("bitxor", a, b), 1))


def _adjusts(make: Make, remainder: Any, b: Any) -> Any:
    """Whether truncation and flooring differ: the remainder is not 0 and b's sign is not its."""
    wrong_sign = make("lt", make("bitxor", remainder, b), 0)
    return make("bitand", make("ne", remainder, 0), wrong_sign)


def floordiv(make: Make, a: Any, b: Any) -> Any:
    return make("sub", make("div", a, b), _adjusts(make, make("rem", a, b), b))


def floormod(make: Make, a: Any, b: Any) -> Any:
    remainder = make("rem", a, b)
    return make("add", remainder, make("select", _adjusts(make, remainder, b), b, 0))

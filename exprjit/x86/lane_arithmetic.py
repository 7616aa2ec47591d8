"""What is the same in all instruction sets of vectors, but for the names of instructions.

Sources: Hacker's Delight, 8-2 (upper half of a product).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from ..ir.graph import CONST, Node
from .bit_runs import bit_runs
from .lanes import Lanes, Lowering


class Keys(NamedTuple):
    """The keys of the instructions that all of them have."""

    add: str
    bitand: str
    bitor: str
    left: str
    right: str
    half_product: str
    move: str


#: The quotients that remainders are made of.
QUOTIENTS: Final = {"rem": "div", "floormod": "floordiv", "umod": "udiv"}


def quotient_to_come(s: Lanes, node: Node) -> int | None:
    """The register of the quotient for a remainder, where the formula has it before."""
    same = s.find(QUOTIENTS[node.op], *node.args)
    return None if same is None or same in s.done else s.value(same)


def fits(node: Node, limit: int) -> bool:
    """Whether a value's magnitude is known to be below a limit."""
    return -limit < node.facts.low and node.facts.high < limit


def double(number: float) -> int:
    """The bits of a double."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def simple(key: str) -> Lowering:
    """An instruction that does just that."""

    def lower(s: Lanes, node: Node, register: int) -> None:
        s.emit(key, register, *map(s.value, node.args))

    return lower


def by_lane(s: Lanes, node: Node, register: int) -> None:
    """There are no instructions for this."""
    s.emit_by_lane(node.op, register, *map(s.value, node.args))


def upper_half(keys: Keys, s: Lanes, x: int, y: int, register: int) -> None:
    """The upper 64 bits of unsigned products, of four products of halves."""
    low = s.constant(0xFFFFFFFF)
    x1, y1, ll, hl, lh, hh, l1, t, t0, w, t1, w1, h = (s.new() for _ in range(13))
    s.emit(keys.right, x1, x, 32)
    s.emit(keys.right, y1, y, 32)
    s.emit(keys.half_product, ll, x, y)
    s.emit(keys.half_product, hl, x1, y)
    s.emit(keys.half_product, lh, x, y1)
    s.emit(keys.half_product, hh, x1, y1)
    s.emit(keys.right, l1, ll, 32)
    s.emit(keys.add, t, hl, l1)
    s.emit(keys.bitand, t0, t, low)
    s.emit(keys.add, w, lh, t0)
    s.emit(keys.right, t1, t, 32)
    s.emit(keys.add, h, hh, t1)
    s.emit(keys.right, w1, w, 32)
    s.emit(keys.add, register, h, w1)


def moved_bits(keys: Keys, extract: bool) -> Lowering:
    """pext and pdep by a constant mask: each run of ones is shifted to its place."""

    def lower(s: Lanes, node: Node, register: int) -> None:
        source, mask = node.args
        if mask.op is not CONST:
            by_lane(s, node, register)
            return
        value, parts = s.value(source), []
        for place, length, below in bit_runs(mask.value):
            ones = (1 << length) - 1
            shifted, part = s.new(), s.new()
            s.emit(keys.right if extract else keys.left, shifted, value, place - below)
            s.emit(keys.bitand, part, shifted, s.constant(ones << (below if extract else place)))
            parts.append(part)
        joined = parts[0] if parts else s.constant(0)
        for part in parts[1:]:
            both = s.new()
            s.emit(keys.bitor, both, joined, part)
            joined = both
        s.emit(keys.move, register, joined)

    return lower


def constant_power(keys: Keys, multiply: Callable[[Lanes, int, int, int], None]) -> Lowering:
    """Powers by a constant, of squares; `multiply` makes a register of the product of two."""

    def lower(s: Lanes, node: Node, register: int) -> None:
        base, exponent = node.args
        if exponent.op is not CONST or exponent.value < 1:
            by_lane(s, node, register)
            return
        power, result, count = s.value(base), None, exponent.value
        while True:
            if count & 1:
                if result is None:
                    result = power
                else:
                    product = s.new()
                    multiply(s, result, power, product)
                    result = product
            count >>= 1
            if not count:
                break
            square = s.new()
            multiply(s, power, power, square)
            power = square
        assert result is not None
        s.emit(keys.move, register, result)

    return lower

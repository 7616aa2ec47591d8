"""Products and arithmetic shifts in lanes of AVX2, which has those of halves only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..ir.graph import CONST, Node
from ..language.operators import LONG
from .lane_arithmetic import Keys, constant_power, upper_half
from .lane_code import Op, op
from .lanes import Lanes, Lowering

KEYS: Final = Keys(
    add="vpaddq256_xxx",
    bitand="vpand256_xxx",
    bitor="vpor256_xxx",
    left="vpsllq256_xxi",
    right="vpsrlq256_xxi",
    half_product="vpmuludq256_xxx",
    move="vmovdqa256_xx",
)


def shift_right(value: int, count: int, register: int, new: Callable[[], int]) -> list[Op]:
    """The arithmetic shift by a constant: halves are shifted as halves, and joined."""
    if count == 0:
        return [op("vmovdqa256_xx", register, value)]
    shifted, lower = new(), new()
    if count < 32:
        return [
            op("vpsrad256_xxi", shifted, value, count),
            op("vpsrlq256_xxi", lower, value, count),
            op("vpblendd256_xxxi", register, lower, shifted, _UPPER),
        ]
    signs = new()
    return [
        op("vpsrad256_xxi", signs, value, 31),
        op("vpsrad256_xxi", shifted, value, count - 32),
        op("vpsrlq256_xxi", lower, shifted, 32),
        op("vpblendd256_xxxi", register, lower, signs, _UPPER),
    ]


#: The upper halves of all lanes.
_UPPER: Final = 0xAA


def sign(s: Lanes, value: int) -> int:
    """A register of all ones in lanes that are negative."""
    negative = s.new()
    s.emit("vpcmpgtq256_xxx", negative, s.constant(0), value)
    return negative


def _is_natural_half(node: Node) -> bool:
    return node.facts.low >= 0 and node.facts.high < 1 << 32


def _is_half(node: Node) -> bool:
    return node.facts.low >= -(1 << 31) and node.facts.high < 1 << 31


def multiply(s: Lanes, x: int, y: int, register: int) -> None:
    """The lower half of products, of three products of halves."""
    x1, y1, a, b, cross, moved, low = (s.new() for _ in range(7))
    s.emit("vpsrlq256_xxi", x1, x, 32)
    s.emit("vpmuludq256_xxx", a, x1, y)
    if x == y:
        s.emit("vpsllq256_xxi", moved, a, 33)
    else:
        s.emit("vpsrlq256_xxi", y1, y, 32)
        s.emit("vpmuludq256_xxx", b, x, y1)
        s.emit("vpaddq256_xxx", cross, a, b)
        s.emit("vpsllq256_xxi", moved, cross, 32)
    s.emit("vpmuludq256_xxx", low, x, y)
    s.emit("vpaddq256_xxx", register, low, moved)


def _multiply_by_half(s: Lanes, x: int, half: int, register: int) -> None:
    """Two products are enough if the upper half of one factor is 0."""
    x1, a, moved, low = (s.new() for _ in range(4))
    s.emit("vpsrlq256_xxi", x1, x, 32)
    s.emit("vpmuludq256_xxx", a, x1, half)
    s.emit("vpsllq256_xxi", moved, a, 32)
    s.emit("vpmuludq256_xxx", low, x, half)
    s.emit("vpaddq256_xxx", register, low, moved)


def _mul(s: Lanes, node: Node, register: int) -> None:
    left, right = node.args
    if right.op is CONST and (right.value & LONG.mask).bit_count() == 1:
        count = (right.value & LONG.mask).bit_length() - 1
        s.emit("vpsllq256_xxi", register, s.value(left), count)
    elif all(map(_is_half, node.args)):
        s.emit("vpmuldq256_xxx", register, s.value(left), s.value(right))
    elif all(map(_is_natural_half, node.args)):
        s.emit("vpmuludq256_xxx", register, s.value(left), s.value(right))
    elif _is_natural_half(right):
        _multiply_by_half(s, s.value(left), s.value(right), register)
    elif _is_natural_half(left):
        _multiply_by_half(s, s.value(right), s.value(left), register)
    else:
        multiply(s, s.value(left), s.value(right), register)


def _umulhi(s: Lanes, node: Node, register: int) -> None:
    left, right = node.args
    upper_half(KEYS, s, s.value(left), s.value(right), register)


def _mulhi(s: Lanes, node: Node, register: int) -> None:
    x, y = map(s.value, node.args)
    unsigned, less, a, b = (s.new() for _ in range(4))
    upper_half(KEYS, s, x, y, unsigned)
    s.emit("vpand256_xxx", a, sign(s, x), y)
    s.emit("vpsubq256_xxx", less, unsigned, a)
    s.emit("vpand256_xxx", b, sign(s, y), x)
    s.emit("vpsubq256_xxx", register, less, b)


def is_wide(node: Node) -> bool:
    """Whether a product of small numbers would take fewer instructions."""
    if node.op != "mul" or node.args[1].op is CONST:
        return False
    return not (all(map(_is_half, node.args)) or any(map(_is_natural_half, node.args)))


VALUES: dict[str, Lowering] = {
    "mul": _mul,
    "umulhi": _umulhi,
    "mulhi": _mulhi,
    "pow": constant_power(KEYS, multiply),
}

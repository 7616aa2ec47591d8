"""Lanes of AVX2: four longs in a ymm register, conditions as lanes of all ones or all zeros.

There are no multiplications, arithmetic shifts, minima or counts of bits of 64-bit lanes; they are
made of what there is.

Sources: Hacker's Delight, 5-1 (counting bits), 5-3 (leading zeros by way of floating point).
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CONST, Node
from ..language.operators import LONG
from .avx2_division import VALUES as DIVISION
from .avx2_division import is_wide as is_wide_division
from .avx2_products import KEYS, shift_right, sign
from .avx2_products import VALUES as PRODUCTS
from .avx2_products import is_wide as is_wide_product
from .lane_arithmetic import by_lane, moved_bits, simple
from .lanes import Isa, Lanes, Lowering

VALUES: dict[str, Lowering] = {}
MASKS: dict[str, Lowering] = {}
SIGNS: dict[str, Lowering] = {}


VALUES.update(
    add=simple("vpaddq256_xxx"),
    sub=simple("vpsubq256_xxx"),
    bitor=simple("vpor256_xxx"),
    bitxor=simple("vpxor256_xxx"),
)

# Masks. --------------------------------------------------------------------------------------


def from_mask(s: Lanes, mask: int, register: int) -> None:
    s.emit("vpsrlq256_xxi", register, mask, 63)


def to_mask(s: Lanes, value: int, mask: int) -> None:
    zero = s.new()
    s.emit("vpcmpeqq256_xxx", zero, value, s.constant(0))
    _invert(s, zero, mask)


def _invert(s: Lanes, value: int, register: int) -> None:
    s.emit("vpxor256_xxx", register, value, s.constant(-1))


def _greater(s: Lanes, left: int, right: int, mask: int, negated: bool = False) -> None:
    """left > right, or the opposite."""
    if not negated:
        s.emit("vpcmpgtq256_xxx", mask, left, right)
        return
    opposite = s.new()
    s.emit("vpcmpgtq256_xxx", opposite, left, right)
    _invert(s, opposite, mask)


def _equal(s: Lanes, node: Node, mask: int) -> None:
    left, right = node.args
    zero = right.op is CONST and right.value == 0
    if zero and left.boolean and (left in s.masks or left.op in MASKS) and left not in s.values:
        if node.op == "eq":
            _invert(s, s.mask(left), mask)
        else:
            s.emit("vmovdqa256_xx", mask, s.mask(left))
        return
    same = mask if node.op == "eq" else s.new()
    s.emit("vpcmpeqq256_xxx", same, s.value(left), s.value(right))
    if node.op == "ne":
        _invert(s, same, mask)


def _compare(s: Lanes, node: Node, mask: int) -> None:
    """There is only "greater"; what includes equality is that of a constant one further."""
    left, right = node.args
    op = node.op
    if right.op is CONST and op == "ge" and right.value > LONG.min:
        _greater(s, s.value(left), s.constant(right.value - 1), mask)
    elif right.op is CONST and op == "le" and right.value < LONG.max:
        _greater(s, s.constant(right.value + 1), s.value(left), mask)
    elif op in ("gt", "le"):
        _greater(s, s.value(left), s.value(right), mask, op == "le")
    else:
        _greater(s, s.value(right), s.value(left), mask, op == "ge")


def _compare_unsigned(s: Lanes, node: Node, mask: int) -> None:
    """With the sign bits inverted, unsigned numbers are in the order of signed ones."""
    left, right = node.args
    op = node.op
    if right.op is CONST and op == "uge" and right.value != 0:
        _greater(s, _inverted(s, left), s.constant(right.value - 1 ^ LONG.min), mask)
    elif right.op is CONST and op == "ule" and right.value != -1:
        _greater(s, s.constant(right.value + 1 ^ LONG.min), _inverted(s, left), mask)
    elif op in ("ugt", "ule"):
        _greater(s, _inverted(s, left), _inverted(s, right), mask, op == "ule")
    else:
        _greater(s, _inverted(s, right), _inverted(s, left), mask, op == "uge")


def _inverted(s: Lanes, node: Node) -> int:
    """The value with its sign bit inverted, which is to add the least number."""
    if node.op is CONST:
        return s.constant(node.value ^ LONG.min)
    register, value, added = s.new(), node, 0
    if node.op == "add" and node.args[1].op is CONST:
        value, added = node.args[0], node.args[1].value
    s.emit("vpaddq256_xxx", register, s.value(value), s.constant(added ^ LONG.min))
    return register


def _of_masks(key: str) -> Lowering:
    def lower(s: Lanes, node: Node, mask: int) -> None:
        s.emit(key, mask, *map(s.mask, node.args))

    return lower


MASKS.update(dict.fromkeys(("eq", "ne"), _equal))
MASKS.update(dict.fromkeys(("lt", "le", "gt", "ge"), _compare))
MASKS.update(dict.fromkeys(("ult", "ule", "ugt", "uge"), _compare_unsigned))
MASKS.update(
    bitand=_of_masks("vpand256_xxx"),
    bitor=_of_masks("vpor256_xxx"),
    bitxor=_of_masks("vpxor256_xxx"),
)


def _select(s: Lanes, node: Node, register: int) -> None:
    condition, then, otherwise = node.args
    mask = s.mask(condition)
    if otherwise.op is CONST and otherwise.value == 0:
        s.emit("vpand256_xxx", register, mask, s.value(then))
    elif then.op is CONST and then.value == 0:
        s.emit("vpandn256_xxx", register, mask, s.value(otherwise))
    else:
        s.emit("vblendvpd256_xxxx", register, s.value(otherwise), s.value(then), mask)
    s.skip(mask, then, otherwise)


def _smaller(s: Lanes, node: Node, register: int) -> None:
    left, right = map(s.value, node.args)
    greater = s.new()
    s.emit("vpcmpgtq256_xxx", greater, left, right)
    pair = (left, right) if node.op == "min" else (right, left)
    s.emit("vblendvpd256_xxxx", register, *pair, greater)


VALUES.update(select=_select, min=_smaller, max=_smaller)

# Bits. ---------------------------------------------------------------------------------------


def _bitand(s: Lanes, node: Node, register: int) -> None:
    for inner, other in (node.args, node.args[::-1]):
        if inner.op == "bitnot" and s.is_used_once(inner):
            s.emit("vpandn256_xxx", register, s.value(inner.args[0]), s.value(other))
            return
    s.emit("vpand256_xxx", register, *map(s.value, node.args))


def _bitnot(s: Lanes, node: Node, register: int) -> None:
    _invert(s, s.value(node.args[0]), register)


def _neg(s: Lanes, node: Node, register: int) -> None:
    s.emit("vpsubq256_xxx", register, s.constant(0), s.value(node.args[0]))


def _abs(s: Lanes, node: Node, register: int) -> None:
    value = s.value(node.args[0])
    negative, inverted = sign(s, value), s.new()
    s.emit("vpxor256_xxx", inverted, value, negative)
    s.emit("vpsubq256_xxx", register, inverted, negative)


def _shift_right(s: Lanes, value: int, count: int, register: int) -> None:
    for item in shift_right(value, count, register, s.new):
        s.emit(item.instruction.key, *item.operands)


def _shift(op: str) -> Lowering:
    def lower(s: Lanes, node: Node, register: int) -> None:
        source, count = node.args
        value = s.value(source)
        if count.op is CONST:
            number = count.value & 63
            if op == "shl" and number == 1:
                s.emit("vpaddq256_xxx", register, value, value)
            elif op == "sar":
                _shift_right(s, value, number, register)
            else:
                s.emit(KEYS.left if op == "shl" else KEYS.right, register, value, number)
            return
        counts = _counts(s, count)
        if op != "sar":
            key = "vpsllvq256_xxx" if op == "shl" else "vpsrlvq256_xxx"
            s.emit(key, register, value, counts)
            return
        # Zeros that come in from above become ones for negative numbers.
        negative, inverted, shifted = sign(s, value), s.new(), s.new()
        s.emit("vpxor256_xxx", inverted, value, negative)
        s.emit("vpsrlvq256_xxx", shifted, inverted, counts)
        s.emit("vpxor256_xxx", register, shifted, negative)

    return lower


def _counts(s: Lanes, count: Node) -> int:
    """The register of shift counts, modulo 64: of greater ones the processor makes 0."""
    counts = s.value(count)
    if 0 <= count.facts.low <= count.facts.high <= 63:
        return counts
    reduced = s.new()
    s.emit("vpand256_xxx", reduced, counts, s.constant(63))
    return reduced


def _rotate(s: Lanes, node: Node, register: int) -> None:
    source, count = node.args
    value, upper, lower = s.value(source), s.new(), s.new()
    if count.op is CONST:
        number = (count.value if node.op == "rotl" else -count.value) & 63
        s.emit("vpsllq256_xxi", upper, value, number)
        s.emit("vpsrlq256_xxi", lower, value, 64 - number)
    else:
        counts, rest = _counts(s, count), s.new()
        # A shift by 64 gives 0, which is right for a count of 0.
        s.emit("vpsubq256_xxx", rest, s.constant(64), counts)
        left, right = (counts, rest) if node.op == "rotl" else (rest, counts)
        s.emit("vpsllvq256_xxx", upper, value, left)
        s.emit("vpsrlvq256_xxx", lower, value, right)
    s.emit("vpor256_xxx", register, upper, lower)


def _narrow(bits: int) -> Lowering:
    def lower(s: Lanes, node: Node, register: int) -> None:
        shifted = s.new()
        s.emit("vpsllq256_xxi", shifted, s.value(node.args[0]), 64 - bits)
        _shift_right(s, shifted, 64 - bits, register)

    return lower


#: How many bits are set in each number of four bits.
_COUNTS: Final = 0x0302020102010100, 0x0403030203020201
_NIBBLES: Final = 0x0F0F0F0F0F0F0F0F


def _halves_of_bytes(s: Lanes, value: int) -> tuple[int, int]:
    """The lower and the upper four bits of each byte."""
    low, moved, high = s.new(), s.new(), s.new()
    mask = s.constant(_NIBBLES)
    s.emit("vpand256_xxx", low, value, mask)
    s.emit("vpsrlq256_xxi", moved, value, 4)
    s.emit("vpand256_xxx", high, moved, mask)
    return low, high


def _count_bits(s: Lanes, value: int, register: int) -> None:
    low, high = _halves_of_bytes(s, value)
    table = s.invariant("pair", *_COUNTS)
    a, b, both = s.new(), s.new(), s.new()
    s.emit("vpshufb256_xxx", a, table, low)
    s.emit("vpshufb256_xxx", b, table, high)
    s.emit("vpaddb256_xxx", both, a, b)
    s.emit("vpsadbw256_xxx", register, both, s.constant(0))


def _popcount(s: Lanes, node: Node, register: int) -> None:
    _count_bits(s, s.value(node.args[0]), register)


def _ctz(s: Lanes, node: Node, register: int) -> None:
    """How many bits are set in ~x & (x - 1)."""
    source = s.value(node.args[0])
    less, below = s.new(), s.new()
    s.emit("vpaddq256_xxx", less, source, s.constant(-1))
    s.emit("vpandn256_xxx", below, source, less)
    _count_bits(s, below, register)


#: 2.0**52, whose last bits are those of a number below that.
_TWO_52: Final = 0x4330000000000000


def _clz(s: Lanes, node: Node, register: int) -> None:
    """From the exponent of the upper half as a double, or if it is 0 of the lower one."""
    value, zero = s.value(node.args[0]), s.constant(0)
    upper, is_small, half, near, exact, exponent = (s.new() for _ in range(6))
    base, count, is_zero = s.new(), s.new(), s.new()
    s.emit("vpsrlq256_xxi", upper, value, 32)
    s.emit("vpcmpeqq256_xxx", is_small, upper, zero)
    s.emit("vblendvpd256_xxxx", half, upper, value, is_small)
    two_52 = s.constant(_TWO_52)
    s.emit("vpor256_xxx", near, half, two_52)
    s.emit("vsubpd256_xxx", exact, near, two_52)
    s.emit("vpsrlq256_xxi", exponent, exact, 52)
    offsets = s.constant(1023 + 31), s.constant(1023 + 63)
    s.emit("vblendvpd256_xxxx", base, *offsets, is_small)
    s.emit("vpsubq256_xxx", count, base, exponent)
    s.emit("vpcmpeqq256_xxx", is_zero, value, zero)
    s.emit("vblendvpd256_xxxx", register, count, s.constant(64), is_zero)


#: Where the bytes of two longs come from when each is reversed.
_REVERSED: Final = 0x0001020304050607, 0x08090A0B0C0D0E0F
#: The numbers of four bits with their bits reversed.
_MIRRORED: Final = 0x0E060A020C040800, 0x0F070B030D050901


def _bswap(s: Lanes, node: Node, register: int) -> None:
    s.emit("vpshufb256_xxx", register, s.value(node.args[0]), s.invariant("pair", *_REVERSED))


def _bitreverse(s: Lanes, node: Node, register: int) -> None:
    swapped = s.new()
    _bswap(s, node, swapped)
    low, high = _halves_of_bytes(s, swapped)
    table = s.invariant("pair", *_MIRRORED)
    a, b, moved = s.new(), s.new(), s.new()
    s.emit("vpshufb256_xxx", a, table, low)
    s.emit("vpshufb256_xxx", b, table, high)
    s.emit("vpsllq256_xxi", moved, a, 4)
    s.emit("vpor256_xxx", register, moved, b)


VALUES.update(
    bitand=_bitand,
    bitnot=_bitnot,
    neg=_neg,
    abs=_abs,
    shl=_shift("shl"),
    shr=_shift("shr"),
    sar=_shift("sar"),
    rotl=_rotate,
    rotr=_rotate,
    i8=_narrow(8),
    i16=_narrow(16),
    i32=_narrow(32),
    popcount=_popcount,
    ctz=_ctz,
    clz=_clz,
    bswap=_bswap,
    bitreverse=_bitreverse,
    pext=moved_bits(KEYS, True),
    pdep=moved_bits(KEYS, False),
)

# Overflow. -----------------------------------------------------------------------------------


def _add_overflows(s: Lanes, node: Node, register: int) -> None:
    """The sign is set where both operands have the same one and the sum another."""
    _differ(s, node, "add", "vpaddq256_xxx", register)


def _sub_overflows(s: Lanes, node: Node, register: int) -> None:
    _differ(s, node, "sub", "vpsubq256_xxx", register)


def _differ(s: Lanes, node: Node, op: str, key: str, register: int) -> None:
    x, y = map(s.value, node.args)
    same = s.find(op, *node.args)
    if same is not None and same not in s.done:
        result = s.value(same)
    else:
        result = s.new()
        s.emit(key, result, x, y)
    a, b = s.new(), s.new()
    s.emit("vpxor256_xxx", a, x, result)
    s.emit("vpxor256_xxx", b, y if op == "add" else x, result if op == "add" else y)
    s.emit("vpand256_xxx", register, a, b)


def _as_mask(lower: Lowering) -> Lowering:
    def masked(s: Lanes, node: Node, mask: int) -> None:
        signs = s.new()
        lower(s, node, signs)
        s.emit("vpcmpgtq256_xxx", mask, s.constant(0), signs)

    return masked


SIGNS.update(add_overflows=_add_overflows, sub_overflows=_sub_overflows)
MASKS.update(
    add_overflows=_as_mask(_add_overflows),
    sub_overflows=_as_mask(_sub_overflows),
)
VALUES.update(PRODUCTS)
VALUES.update(DIVISION, gcd=by_lane, pow_overflows=by_lane, mul_overflows=by_lane)


def is_wide(node: Node) -> bool:
    """Whether a node is cheaper, or not needed at all, if its operands are known to be small."""
    return node.op.endswith("_overflows") or is_wide_division(node) or is_wide_product(node)


AVX2: Final = Isa(
    lanes=4,
    values=VALUES,
    masks=MASKS,
    from_mask=from_mask,
    to_mask=to_mask,
    signs=SIGNS,
    vectors=tuple(range(16)),
    mask_registers=(),
    wide=is_wide,
    polish=lambda code, kept, ones: code,
)

NATIVE: Final = frozenset(("popcount", "bitreverse"))

"""Lanes of AVX-512: eight longs in a zmm register, conditions in mask registers.

Divisions are made in doubles, which have 53 bits: exactly where the operands are small, else with a
step that mends the estimate. The sequences were compared with scalar division, next to multiples
too; they use the forms of instructions that neither trap nor obey the caller's rounding mode.

Sources: Hacker's Delight, 8-2 (upper half of a product) and 5-4 (trailing zeros).
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CONST, Node
from ..language.operators import LONG, OPERATORS
from .avx512_division import CONSTANT_LIMIT, is_narrow
from .avx512_division import VALUES as DIVISION
from .avx512_logic import join_logic
from .lane_arithmetic import (
    Keys,
    by_lane,
    constant_power,
    double,
    fits,
    moved_bits,
    simple,
    upper_half,
)
from .lanes import Form, Isa, Lanes, Lowering

KEYS: Final = Keys(
    add="vpaddq512_xxx",
    bitand="vpandq512_xxx",
    bitor="vporq512_xxx",
    left="vpsllq512_xxi",
    right="vpsrlq512_xxi",
    half_product="vpmuludq512_xxx",
    move="vmovdqa64z_xx",
)

VALUES: dict[str, Lowering] = {}
MASKS: dict[str, Lowering] = {}
SIGNS: dict[str, Lowering] = {}


VALUES.update(
    add=simple("vpaddq512_xxx"),
    sub=simple("vpsubq512_xxx"),
    bitxor=simple("vpxorq512_xxx"),
    bitor=simple("vporq512_xxx"),
    min=simple("vpminsq512_xxx"),
    max=simple("vpmaxsq512_xxx"),
    abs=simple("vpabsq512_xx"),
    clz=simple("vplzcntq512_xx"),
    popcount=simple("vpopcntq512_xx"),
)

# Masks. --------------------------------------------------------------------------------------

#: The predicates of comparisons, signed and unsigned.
_SIGNED: Final = {"eq": 0, "lt": 1, "le": 2, "ne": 4, "ge": 5, "gt": 6}
_UNSIGNED: Final = {"ult": 1, "ule": 2, "uge": 5, "ugt": 6}


def from_mask(s: Lanes, mask: int, register: int) -> None:
    s.emit("vmovdqa64z_xzx", register, mask, s.constant(1))


def to_mask(s: Lanes, value: int, mask: int) -> None:
    s.emit("vptestmq512_kxx", mask, value, value)


def _compare(s: Lanes, node: Node | Form, mask: int, within: int | None = None) -> None:
    """A comparison; `within` is a mask outside of which the answer is no."""
    left, right = node.args
    letters, masks = ("k", (mask,)) if within is None else ("kk", (mask, within))
    zero = right.op is CONST and right.value == 0
    if zero and node.op in ("eq", "ne") and not _is_masked(s, left):
        test = "vptestnmq" if node.op == "eq" else "vptestmq"
        pair = (left, left)
        if left.op == "bitand" and s.is_used_once(left):
            pair = left.args  # type: ignore[assignment]
        s.emit(f"{test}512_{letters}xx", *masks, *map(s.value, pair))
    elif zero and node.op == "eq" and within is None:
        s.emit("knotb_kk", mask, s.mask(left))
    elif zero and node.op == "lt" and within is None:
        s.emit("vpmovq2m512_kx", mask, s.value(left))
    elif node.op in _SIGNED:
        values = map(s.value, node.args)
        s.emit(f"vpcmpq512_{letters}xxi", *masks, *values, _SIGNED[node.op])
    else:
        values = map(s.value, node.args)
        s.emit(f"vpcmpuq512_{letters}xxi", *masks, *values, _UNSIGNED[node.op])


def _is_masked(s: Lanes, node: Node) -> bool:
    """Whether a boolean is there as a mask, so that its negation is one of that."""
    return node.boolean and (node in s.masks or node.op in MASKS) and node not in s.values


MASKS.update(dict.fromkeys((*_SIGNED, *_UNSIGNED), _compare))


def _and_masks(s: Lanes, node: Node, mask: int) -> None:
    """The second comparison is made only where the first one holds, for nothing."""
    left, right = node.args
    for first, second in ((left, right), (right, left)):
        if _is_comparison(second) and s.is_used_once(second):
            zero = second.args[1].op is CONST and second.args[1].value == 0
            if zero and second.op == "eq" and _is_masked(s, second.args[0]):
                s.emit("kandnb_kkk", mask, s.mask(second.args[0]), s.mask(first))
            else:
                _compare(s, second, mask, s.mask(first))
            return
    s.emit("kandb_kkk", mask, s.mask(left), s.mask(right))


def _of_masks(key: str) -> Lowering:
    def lower(s: Lanes, node: Node, mask: int) -> None:
        s.emit(key, mask, *map(s.mask, node.args))

    return lower


def _or_masks(s: Lanes, node: Node, mask: int) -> None:
    """Not one of them: each opposite is looked for only where those before hold, for nothing."""
    terms = _terms(s, node)
    comparisons = [term for term in terms if _is_comparison(term) and s.is_used_once(term)]
    if len(comparisons) < 2:
        s.emit("korb_kkk", mask, *map(s.mask, node.args))
        return
    none: int | None = None
    for term in (*(t for t in terms if t not in comparisons), *comparisons):
        so_far, none = none, s.new()
        if term in comparisons:
            opposite = OPERATORS[term.op].negation
            assert opposite is not None
            _compare(s, Form(opposite, term.args), none, so_far)
        elif so_far is None:
            s.emit("knotb_kk", none, s.mask(term))
        else:
            s.emit("kandnb_kkk", none, s.mask(term), so_far)
    assert none is not None
    s.emit("knotb_kk", mask, none)


def _terms(s: Lanes, node: Node) -> list[Node]:
    """What a disjunction consists of, where its parts are needed for nothing else."""
    found: list[Node] = []
    work = [*node.args]
    while work:
        item = work.pop(0)
        if item.op == "bitor" and s.is_used_once(item) and all(a.boolean for a in item.args):
            work = [*item.args, *work]
        else:
            found.append(item)
    return found


def _is_comparison(node: Node) -> bool:
    return node.op in _SIGNED or node.op in _UNSIGNED


MASKS.update(bitand=_and_masks, bitor=_or_masks, bitxor=_of_masks("kxorb_kkk"))


def _select(s: Lanes, node: Node, register: int) -> None:
    condition, then, otherwise = node.args
    if otherwise.op is CONST and otherwise.value == 0:
        s.emit("vmovdqa64z_xzx", register, s.mask(condition), s.value(then))
    elif then.op is CONST and then.value == 0:
        inverse = s.new()
        s.emit("knotb_kk", inverse, s.mask(condition))
        s.emit("vmovdqa64z_xzx", register, inverse, s.value(otherwise))
    else:
        mask = s.mask(condition)
        s.emit("vpblendmq512_xkxx", register, mask, s.value(otherwise), s.value(then))
    s.skip(s.mask(condition), then, otherwise)


VALUES["select"] = _select

# Bits. ---------------------------------------------------------------------------------------


def _bitand(s: Lanes, node: Node, register: int) -> None:
    for inner, other in (node.args, node.args[::-1]):
        if inner.op == "bitnot" and s.is_used_once(inner):
            s.emit("vpandnq512_xxx", register, s.value(inner.args[0]), s.value(other))
            return
    s.emit("vpandq512_xxx", register, *map(s.value, node.args))


def _bitnot(s: Lanes, node: Node, register: int) -> None:
    s.emit("vpxorq512_xxx", register, s.value(node.args[0]), s.constant(-1))


def _neg(s: Lanes, node: Node, register: int) -> None:
    s.emit("vpsubq512_xxx", register, s.constant(0), s.value(node.args[0]))


def _shift(all_lanes: str, each_lane: str, rotates: bool = False) -> Lowering:
    def lower(s: Lanes, node: Node, register: int) -> None:
        source, count = node.args
        if node.op == "shl" and count.op is CONST and count.value & 63 == 1:
            # Sums are made twice as fast as shifts.
            s.emit("vpaddq512_xxx", register, s.value(source), s.value(source))
            return
        if count.op is CONST:
            s.emit(f"{all_lanes}512_xxi", register, s.value(source), count.value & 63)
            return
        counts = s.value(count)
        if not rotates and not 0 <= count.facts.low <= count.facts.high <= 63:
            # Of greater counts the processor makes 0.
            reduced = s.new()
            s.emit("vpandq512_xxx", reduced, counts, s.constant(63))
            counts = reduced
        s.emit(f"{each_lane}512_xxx", register, s.value(source), counts)

    return lower


def _ctz(s: Lanes, node: Node, register: int) -> None:
    """How many lower bits are ones in ~x & (x - 1)."""
    source = s.value(node.args[0])
    less, below, leading = s.new(), s.new(), s.new()
    s.emit("vpaddq512_xxx", less, source, s.constant(-1))
    s.emit("vpandnq512_xxx", below, source, less)
    s.emit("vplzcntq512_xx", leading, below)
    s.emit("vpsubq512_xxx", register, s.constant(64), leading)


#: Where the bytes of two longs come from when each is reversed.
_REVERSED: Final = 0x0001020304050607, 0x08090A0B0C0D0E0F


def _bswap(s: Lanes, node: Node, register: int) -> None:
    s.emit("vpshufb512_xxx", register, s.value(node.args[0]), s.invariant("pair", *_REVERSED))


def _bitreverse(s: Lanes, node: Node, register: int) -> None:
    swapped = s.new()
    _bswap(s, node, swapped)
    # The matrix that takes each bit of a byte to the other end.
    matrix = s.constant(0x8040201008040201)
    s.emit("vgf2p8affineqb512_xxxi", register, swapped, matrix, 0)


def _narrow(bits: int) -> Lowering:
    def lower(s: Lanes, node: Node, register: int) -> None:
        shifted = s.new()
        s.emit("vpsllq512_xxi", shifted, s.value(node.args[0]), 64 - bits)
        s.emit("vpsraq512_xxi", register, shifted, 64 - bits)

    return lower


VALUES.update(
    bitand=_bitand,
    bitnot=_bitnot,
    neg=_neg,
    shl=_shift("vpsllq", "vpsllvq"),
    shr=_shift("vpsrlq", "vpsrlvq"),
    sar=_shift("vpsraq", "vpsravq"),
    rotl=_shift("vprolq", "vprolvq", rotates=True),
    rotr=_shift("vprorq", "vprorvq", rotates=True),
    ctz=_ctz,
    bswap=_bswap,
    bitreverse=_bitreverse,
    i8=_narrow(8),
    i16=_narrow(16),
    i32=_narrow(32),
    pext=moved_bits(KEYS, True),
    pdep=moved_bits(KEYS, False),
)

# Products. -----------------------------------------------------------------------------------


def _mul(s: Lanes, node: Node, register: int) -> None:
    left, right = node.args
    if right.op is CONST and (right.value & LONG.mask).bit_count() == 1:
        count = (right.value & LONG.mask).bit_length() - 1
        s.emit("vpsllq512_xxi", register, s.value(left), count)
    else:
        s.emit("vpmullq512_xxx", register, s.value(left), s.value(right))


def _umulhi(s: Lanes, node: Node, register: int) -> None:
    left, right = node.args
    upper_half(KEYS, s, s.value(left), s.value(right), register)


def _signed_upper_half(s: Lanes, x: int, y: int, register: int) -> None:
    unsigned, less, kx, ky = s.new(), s.new(), s.new(), s.new()
    upper_half(KEYS, s, x, y, unsigned)
    s.emit("vpmovq2m512_kx", kx, x)
    s.emit("vpmovq2m512_kx", ky, y)
    s.emit("vpsubq512_xkxx", less, kx, unsigned, y, tied=unsigned)
    s.emit("vpsubq512_xkxx", register, ky, less, x, tied=less)


def _mulhi(s: Lanes, node: Node, register: int) -> None:
    left, right = node.args
    _signed_upper_half(s, s.value(left), s.value(right), register)


def _multiply(s: Lanes, left: int, right: int, register: int) -> None:
    s.emit("vpmullq512_xxx", register, left, right)


VALUES.update(mul=_mul, umulhi=_umulhi, mulhi=_mulhi, pow=constant_power(KEYS, _multiply))

# Overflow. -----------------------------------------------------------------------------------


def _add_overflows(s: Lanes, node: Node, register: int) -> None:
    """The sign is set where both operands have the same one and the sum another."""
    x, y = map(s.value, node.args)
    total = _result(s, "add", "vpaddq512_xxx", node)
    s.emit("vpternlogq512_xxxi", register, y, total, 0x42, tied=x)


def _sub_overflows(s: Lanes, node: Node, register: int) -> None:
    x, y = map(s.value, node.args)
    difference = _result(s, "sub", "vpsubq512_xxx", node)
    s.emit("vpternlogq512_xxxi", register, y, difference, 0x18, tied=x)


def _result(s: Lanes, op: str, key: str, node: Node) -> int:
    """What the operation gives that may overflow; it is made anyway in most cases."""
    same = s.find(op, *node.args)
    if same is not None and same not in s.done:
        return s.value(same)
    register = s.new()
    s.emit(key, register, *map(s.value, node.args))
    return register


def _as_mask(lower: Lowering) -> Lowering:
    def masked(s: Lanes, node: Node, mask: int) -> None:
        sign = s.new()
        lower(s, node, sign)
        s.emit("vpmovq2m512_kx", mask, sign)

    return masked


def _mul_overflows(s: Lanes, node: Node, mask: int) -> None:
    """Whether the product is great, in doubles: a bit too often, so that it is never missed."""
    x, y = map(s.value, node.args)
    a, b, product, size = s.new(), s.new(), s.new(), s.new()
    s.emit("vcvtqq2pd512rn_xx", a, x)
    s.emit("vcvtqq2pd512rn_xx", b, y)
    s.emit("vmulpd512rn_xxx", product, a, b)
    s.emit("vpandq512_xxx", size, product, s.constant(LONG.max))
    limit = s.constant(double(2.0**63 * (1 - 2.0**-49)))
    # Doubles that are not negative are in order as numbers.
    s.emit("vpcmpq512_kxxi", mask, size, limit, _SIGNED["ge"])


SIGNS.update(add_overflows=_add_overflows, sub_overflows=_sub_overflows)
MASKS.update(
    add_overflows=_as_mask(_add_overflows),
    sub_overflows=_as_mask(_sub_overflows),
    mul_overflows=_mul_overflows,
)
VALUES.update(DIVISION, gcd=by_lane, pow_overflows=by_lane)


def is_wide(node: Node) -> bool:
    """Whether a node is cheaper, or not needed at all, if its operands are known to be small."""
    if node.op.endswith("_overflows"):
        return True
    if node.op in ("div", "rem", "floordiv", "floormod", "udiv", "umod"):
        if node.args[1].op is CONST:
            return not fits(node.args[0], CONSTANT_LIMIT)
        return not is_narrow(node)
    return False


AVX512: Final = Isa(
    lanes=8,
    values=VALUES,
    masks=MASKS,
    from_mask=from_mask,
    to_mask=to_mask,
    signs=SIGNS,
    vectors=tuple(range(32)),
    mask_registers=tuple(range(1, 7)),
    wide=is_wide,
    polish=join_logic,
)


def native(features: frozenset[str]) -> frozenset[str]:
    """The operators that have an expansion but are cheaper as they are in lanes."""
    found = set()
    if "avx512vpopcntdq" in features:
        found.add("popcount")
    if "gfni" in features:
        found.add("bitreverse")
    return frozenset(found)

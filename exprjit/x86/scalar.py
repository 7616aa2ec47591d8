"""The scalar domain: one long in a general register.

A lowering emits the instructions that leave a node in a register, folding what it can of
its operands: immediates, shifts into `lea`, complements into `andn`, comparisons into the
branch, `setcc` or `cmov` that uses them.
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CONST, Node
from ..language.operators import LONG, OPERATORS
from .arithmetic import LOWERINGS as ARITHMETIC
from .arithmetic import TWO_ADDRESS, add, arithmetic, immediate, lower, size
from .arms import branch
from .fixed import LOWERINGS as FIXED
from .macros import ZERO
from .registers import CC
from .select import Domain, Lowering, Selector

#: The condition codes of comparisons after `cmp a, b`.
_CONDITIONS: Final = {
    "eq": CC["e"],
    "ne": CC["ne"],
    "lt": CC["l"],
    "le": CC["le"],
    "gt": CC["g"],
    "ge": CC["ge"],
    "ult": CC["b"],
    "ule": CC["be"],
    "ugt": CC["a"],
    "uge": CC["ae"],
}
#: What remains of a signed comparison with 0 after `test a, a`, which clears overflow.
_AGAINST_ZERO: Final = {**_CONDITIONS, "lt": CC["s"], "ge": CC["ns"]}
_UNSIGNED: Final = frozenset(("ult", "ule", "ugt", "uge"))
_SIGNED: Final = frozenset(("lt", "le", "gt", "ge"))

LOWERINGS: dict[str, Lowering] = {}
#: What is different for booleans of which only the low byte is asked for.
BYTES: dict[str, Lowering] = {}


def constant(s: Selector, value: int, register: int) -> None:
    # Not `xor register, register` for 0: it may come to stand between a comparison and the
    # instruction that uses its flags.
    s.emit("mov_ri", register, value)


# Conditions. -------------------------------------------------------------------------------


def flags(s: Selector, node: Node) -> int:
    """Emit what sets the flags by `node`; the condition code that says that it is not 0."""
    if node.op in _CONDITIONS:
        return _compare(s, node)
    if node.op.endswith("_overflows") and node.op != "pow_overflows":
        arithmetic(s, node.op.removesuffix("_overflows"), node, s.new(), flags=True)
        return CC["o"]
    if node.op == "bitand" and not s.wanted(node):
        left, right = node.args
        _test(s, left, right)
    else:
        _test(s, node, node)
    return CC["ne"]


def _compare(s: Selector, node: Node) -> int:
    left, right = node.args
    if right.op is CONST and right.value == 0 and node.op not in _UNSIGNED:
        both = left.args if left.op == "bitand" and not s.wanted(left) else (left, left)
        _test(s, both[0], both[1], signed=node.op not in ("eq", "ne"))
        return _AGAINST_ZERO[node.op]
    part = size(left, right)
    if node.op in _SIGNED and max(left.facts.high, right.facts.high) > 0x7FFF_FFFF:
        part = ""
    number = lower(right) if part else immediate(right)
    if number is not None:
        s.emit(f"cmp{part}_ri", s.register(left), number, flags=True)
    else:
        s.emit(f"cmp{part}_rr", s.register(left), s.register(right), flags=True)
    return _CONDITIONS[node.op]


def _test(s: Selector, left: Node, right: Node, /, signed: bool = False) -> None:
    """Set the flags by the bits that two values have in common; signed: the sign matters, too."""
    if left.boolean and right.boolean:
        s.emit("test8_rr", s.byte(left), s.byte(right), flags=True)
        return
    if "bmi1" in s.features and not s.wanted(right) and _is_one_less(right, left):
        s.emit("blsr_rr", s.new(), s.register(left), flags=True)
        return
    part = "" if signed else size(left) or size(right)
    number = lower(right) if part else immediate(right)
    if number is None:
        s.emit(f"test{part}_rr", s.register(left), s.register(right), flags=True)
    elif part and 0 <= number <= 0xFF:
        s.emit("test8_ri", s.register(left), number, flags=True)
    else:
        s.emit(f"test{part}_ri", s.register(left), number, flags=True)


def bail(s: Selector, condition: Node) -> None:
    if condition.op is CONST:
        s.emit("jmp_j", s.leave)
    else:
        s.emit("jcc_j", flags(s, condition), s.leave)


def truth(s: Selector, node: Node, register: int) -> None:
    """A condition as 0 or 1."""
    if node.op in ("lt", "ge") and node.args[1].op is CONST and node.args[1].value == 0:
        source = s.register(node.args[0])
        if node.op == "ge":
            inverted = s.new()
            s.emit("not_r", inverted, tied=source)
            source = inverted
        s.emit("shr_ri", register, 63, tied=source)
    elif _is_not(node):
        s.emit("xor_ri", register, 1, tied=s.register(node.args[0]))
    else:
        zero = s.new()
        s.emit(ZERO, zero)
        s.emit("setccz_r", flags(s, node), register, tied=zero)


def _is_not(node: Node) -> bool:
    """Whether a condition is the negation of a boolean."""
    return node.op == "eq" and node.args[0].boolean and immediate(node.args[1]) == 0


def truth_byte(s: Selector, node: Node, register: int) -> None:
    """A condition as a byte that is 0 or 1."""
    if _is_not(node):
        s.emit("xor32_ri", register, 1, tied=s.byte(node.args[0]))
    elif node.op in ("lt", "ge") and immediate(node.args[1]) == 0:
        truth(s, node, register)
    else:
        s.emit("setcc_r", flags(s, node), register)


_TRUTHS: Final = (*_CONDITIONS, "add_overflows", "sub_overflows", "mul_overflows")
LOWERINGS.update(dict.fromkeys(_TRUTHS, truth))
BYTES.update(dict.fromkeys(_TRUTHS, truth_byte))


def _select(s: Selector, node: Node, register: int) -> None:
    condition, then, otherwise = node.args

    def test() -> int:
        return flags(s, condition)

    if branch(s, node, register, condition, True, then, otherwise, test):
        return
    if branch(s, node, register, condition, False, otherwise, then, test):
        return
    cc = test()
    s.emit("cmovcc_rr", cc, register, s.register(then), tied=s.register(otherwise))


def _smaller(s: Selector, node: Node, register: int) -> None:
    left, right = map(s.register, node.args)
    s.emit("cmp_rr", left, right, flags=True)
    cc = CC["g"] if node.op == "min" else CC["l"]
    s.emit("cmovcc_rr", cc, register, right, tied=left)


def _abs(s: Selector, node: Node, register: int) -> None:
    source = s.register(node.args[0])
    negated = s.new()
    s.emit("neg_r", negated, tied=source, flags=True)
    # The negation is negative where the operand was positive, or MIN.
    s.emit("cmovcc_rr", CC["s"], register, source, tied=negated)


LOWERINGS.update(select=_select, min=_smaller, max=_smaller, abs=_abs)

# Arithmetic. -------------------------------------------------------------------------------


def _one_operand(mnemonic: str) -> Lowering:
    def lower(s: Selector, node: Node, register: int) -> None:
        s.emit(mnemonic, register, tied=s.register(node.args[0]))

    return lower


def _moved(mnemonic: str) -> Lowering:
    def lower(s: Selector, node: Node, register: int) -> None:
        s.emit(mnemonic, register, s.register(node.args[0]))

    return lower


LOWERINGS.update(
    neg=_one_operand("neg_r"),
    bitnot=_one_operand("not_r"),
    bswap=_one_operand("bswap_r"),
    i8=_moved("movsx8_rr"),
    i16=_moved("movsx16_rr"),
    i32=_moved("movsxd_rr"),
    popcount=_moved("popcnt_rr"),
)

# Bits. -------------------------------------------------------------------------------------

_MASKS: Final = {0xFF: "movzx8_rr", 0xFFFF: "movzx16_rr", 0xFFFF_FFFF: "mov32_rr"}


def _short_cut(s: Selector, node: Node, register: int) -> bool:
    """Leave the right side of a conjunction or disjunction out where the left one decides."""
    left, right = node.args
    if not (left.boolean and right.boolean):
        return False
    conjunction = node.op == "bitand"
    around = int(not conjunction)
    return branch(s, node, register, left, conjunction, right, around, lambda: flags(s, left))


def _terms(s: Selector, node: Node) -> list[Node]:
    """The first of up to four booleans that a chain of one operator combines, and the others.

    The first may itself be such a chain.  What is combined apart from it does not wait for it.
    """
    terms: list[Node] = []
    while True:
        first, last = node.args
        terms.append(last)
        inner = first.op == node.op and all(arg.boolean for arg in first.args)
        if len(terms) == 3 or not inner or not s.is_used_once(first):
            return [first, *reversed(terms)]
        if s.arms.find(first.args[1], [], s.asked) is not None:
            return [first, *reversed(terms)]
        node = first


def _combined(s: Selector, op: str, terms: list[Node]) -> int:
    """The register whose low byte holds the combination of some booleans."""
    so_far = s.byte(terms[0])
    for term in terms[1:]:
        register = s.new()
        s.emit(f"{TWO_ADDRESS[op]}32_rr", register, s.byte(term), tied=so_far)
        so_far = register
    return so_far


def _bitwise_byte(s: Selector, node: Node, register: int) -> None:
    left, right = node.args
    if not (left.boolean and right.boolean):
        LOWERINGS[node.op](s, node, register)
        return
    if node.op != "bitxor" and _short_cut(s, node, register):
        return
    first, *others = _terms(s, node)
    other = _combined(s, node.op, others)
    s.emit(f"{TWO_ADDRESS[node.op]}32_rr", register, other, tied=s.byte(first))


def _of_bytes(s: Selector, node: Node, register: int) -> bool:
    """Combine booleans of which no more than needed is more than a byte."""
    left, right = node.args
    if not (left.boolean and right.boolean):
        return False
    if node.op != "bitxor" and _short_cut(s, node, register):
        return True
    first, *others = _terms(s, node)
    if node.op == "bitand":
        # Where one is 0 above its byte, the conjunction is.
        if len(others) == 1 and not _is_whole(s, first):
            first, others = others[0], [first]
        s.emit("and32_rr", register, _combined(s, node.op, others), tied=s.register(first))
        return True
    if len(others) == 1 and all(_is_whole(s, arg) for arg in node.args):
        return False
    byte = s.new()
    other = _combined(s, node.op, others)
    s.emit(f"{TWO_ADDRESS[node.op]}32_rr", byte, other, tied=s.byte(first))
    s.emit("movzx8_rr", register, byte)
    return True


def _is_whole(s: Selector, node: Node) -> bool:
    """Whether a boolean costs nothing more if it has to be 0 above its byte."""
    return s.wanted(node) or node.op not in ("bitor", "bitxor")


BYTES.update(dict.fromkeys(("bitand", "bitor", "bitxor"), _bitwise_byte))


def _bitand(s: Selector, node: Node, register: int) -> None:
    if _of_bytes(s, node, register):
        return
    left, right = node.args
    if right.op is CONST and right.value in _MASKS:
        s.emit(_MASKS[right.value], register, s.register(left))
        return
    if "bmi1" in s.features:
        for inner, other in ((left, right), (right, left)):
            if s.wanted(inner):
                continue
            if inner.op == "bitnot":
                s.emit("andn_rrr", register, s.register(inner.args[0]), s.register(other))
                return
            if inner.op == "neg" and inner.args[0] is other:
                s.emit("blsi_rr", register, s.register(other))
                return
            if _is_one_less(inner, other):
                s.emit("blsr_rr", register, s.register(other))
                return
    if "bmi2" in s.features:
        for inner, other in ((left, right), (right, left)):
            count = None if s.wanted(inner) else _low_ones(inner)
            if count is not None:
                _clear_above(s, s.register(other), count, register)
                return
    arithmetic(s, "bitand", node, register)


def _low_ones(node: Node) -> Node | None:
    """How many of the lowest bits are ones, modulo 64, if `node` is such a mask."""
    if node.op != "add" or immediate(node.args[1]) != -1 or node.args[0].op != "shl":
        return None
    one, count = node.args[0].args
    return count if count.op is not CONST and immediate(one) == 1 else None


def _clear_above(s: Selector, source: int, count: Node, register: int) -> None:
    """register = the lowest bits of source, as many as `count` says modulo 64."""
    index = s.register(count)
    if count.facts.low < 0 or count.facts.high > 63:
        index = s.new()
        s.emit("and32_ri", index, 63, tied=s.register(count))
    s.emit("bzhi_rrr", register, source, index)


def _is_one_less(node: Node, other: Node) -> bool:
    """Whether `node` is `other` - 1."""
    return node.op == "add" and node.args[0] is other and immediate(node.args[1]) == -1


def _bitxor(s: Selector, node: Node, register: int) -> None:
    if _of_bytes(s, node, register):
        return
    if "bmi1" in s.features:
        for inner, other in (node.args, node.args[::-1]):
            if not s.wanted(inner) and _is_one_less(inner, other):
                s.emit("blsmsk_rr", register, s.register(other))
                return
    arithmetic(s, "bitxor", node, register)


def _bitor(s: Selector, node: Node, register: int) -> None:
    if _of_bytes(s, node, register):
        return
    left, right = (arg.facts.zeros for arg in node.args)
    if left | right == LONG.mask:
        # No bit is set in both, so it is a sum, and there are more ways to make that.
        add(s, node, register)
    else:
        arithmetic(s, "bitor", node, register)


def _shift(mnemonic: str, bmi2: str | None) -> Lowering:
    def lower(s: Selector, node: Node, register: int) -> None:
        source, count = node.args
        if count.op is CONST:
            number = count.value & 63
            if mnemonic == "rol" and "bmi2" in s.features and s.wanted(source):
                s.emit("rorx_rri", register, s.register(source), -number & 63)
                return
            # Not `sar`: it would take bit 31 for the sign.
            part = size(node, source) if mnemonic in ("shl", "shr") and number < 32 else ""
            s.emit(f"{mnemonic}{part}_ri", register, number, tied=s.register(source))
        elif bmi2 is not None and "bmi2" in s.features:
            s.emit(bmi2, register, s.register(source), s.register(count))
        else:
            s.emit(mnemonic + "_rc", register, tied=s.register(source), reads=(s.register(count),))

    return lower


def _clz(s: Selector, node: Node, register: int) -> None:
    source = s.register(node.args[0])
    if "lzcnt" in s.features:
        s.emit("lzcnt_rr", register, source)
        return
    # bsr leaves its destination alone where the source is 0: 127 ^ 63 is 64.
    default, highest = s.new(), s.new()
    s.emit("mov_ri", default, 127)
    s.emit("bsr_rr", highest, source, tied=default)
    s.emit("xor_ri", register, 63, tied=highest)


def _ctz(s: Selector, node: Node, register: int) -> None:
    source = s.register(node.args[0])
    if "bmi1" in s.features:
        s.emit("tzcnt_rr", register, source)
        return
    default = s.new()
    s.emit("mov_ri", default, 64)
    s.emit("bsf_rr", register, source, tied=default)


LOWERINGS.update(
    bitand=_bitand,
    bitor=_bitor,
    bitxor=_bitxor,
    shl=_shift("shl", "shlx_rrr"),
    sar=_shift("sar", "sarx_rrr"),
    shr=_shift("shr", "shrx_rrr"),
    rotl=_shift("rol", None),
    rotr=_shift("ror", None),
    clz=_clz,
    ctz=_ctz,
)

LOWERINGS.update(ARITHMETIC)
LOWERINGS.update(FIXED)

assert all(row.expansion or name in LOWERINGS for name, row in OPERATORS.items())

SCALAR: Final = Domain(LOWERINGS, LOWERINGS | BYTES, bail, constant)


def native(features: frozenset[str]) -> frozenset[str]:
    """The operators that have an expansion but are one instruction on this CPU."""
    return frozenset(("popcount",)) if "popcnt" in features else frozenset()

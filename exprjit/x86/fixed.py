"""Lowerings to instructions whose registers are fixed: wide products, quotients, macros, calls.

One instruction may compute two nodes: both halves of a product, or a quotient with its remainder.
It is emitted where the first of the two stands.
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CALL, CALL_IF, CONST, Node
from ..language.operators import LONG
from . import macros
from .block import FIRST_VIRTUAL, Macro
from .registers import RAX
from .select import Lowering, Selector

# Products. ---------------------------------------------------------------------------------

HIGH_HALVES: Final = {"mulhi": "imul_r", "umulhi": "mul_r"}


def left_to(s: Selector, partner: Node | None, node: Node, register: int) -> bool:
    """Leave `node` to the instruction of `partner`, if that stands before and has no other yet."""
    if partner is None or partner.index > node.index or partner in s.partners:
        return False
    if partner in s.made:
        return False  # It is made in an arm, behind this.
    s.register(partner)
    s.partners[partner] = node.op, register
    return True


def multiply(s: Selector, op: str, node: Node, low: int | None, high: int) -> None:
    """Both halves of a product; `op` is that of the upper one."""
    left, right = map(s.register, node.args)
    if node.args[1].op is CONST:
        left, right = right, left  # A constant is made where it is wanted.
    s.emit(HIGH_HALVES[op], right, reads=(left,), writes=(low, high))


def _high_half(s: Selector, node: Node, register: int) -> None:
    low = s.find("mul", *node.args)
    if low in s.trapping or not left_to(s, low, node, register):
        _, partner = s.partners.get(node, ("mul", None))
        multiply(s, node.op, node, partner, register)


# Quotients. --------------------------------------------------------------------------------


def _never_zero(s: Selector, node: Node, divisor: Node) -> bool:
    """Whether the block was left before `node` if `divisor` is 0, which it may never be."""
    known = divisor.facts
    if known.low > 0 or known.high < 0 or known.ones:
        return True
    if (divisor, 0) in s.never:
        return True
    check = s.graph.find("eq", divisor, s.graph.const(0))
    if check is None:
        return False
    if check.op is CONST:
        return check.value == 0
    return s.checked.get(check, node.index + 1) <= node.index


def _cannot_overflow(s: Selector, dividend: Node, divisor: Node) -> bool:
    """Whether this is never the least number divided by -1."""
    known = divisor.facts
    minus_one = known.low <= -1 <= known.high and not known.zeros
    return dividend.facts.low > LONG.min or not minus_one or (divisor, -1) in s.never


#: By whether the divisor is never 0, and whether the quotient always fits.
_SIGNED: Final = {
    (False, False): macros.IDIV,
    (False, True): macros.IDIV_NOT_MINUS_ONE,
    (True, False): macros.IDIV_NONZERO,
    (True, True): macros.IDIV_SAFE,
}
_PARTNERS: Final = {"div": "rem", "rem": "div", "udiv": "umod", "umod": "udiv"}


def _divide(s: Selector, node: Node, register: int) -> None:
    left, right = node.args
    if left_to(s, s.find(_PARTNERS[node.op], left, right), node, register):
        return
    nonzero = _never_zero(s, node, right)
    if node.op in ("div", "rem"):
        macro = _SIGNED[nonzero, _cannot_overflow(s, left, right)]
    elif nonzero:
        halves = (
            left.facts.low >= 0 <= right.facts.low
            and (left.facts.high | right.facts.high) >> 32 == 0
        )
        macro = macros.DIV32_SAFE if halves else macros.DIV_SAFE
    else:
        macro = macros.DIV
    _, other = s.partners.get(node, ("", None))
    both = register, other
    writes = both if node.op in ("div", "udiv") else both[::-1]
    s.emit(macro, s.register(right), reads=(s.register(left),), writes=writes)


# Macros. -----------------------------------------------------------------------------------


def _fixed(macro: Macro) -> Lowering:
    def lower(s: Selector, node: Node, register: int) -> None:
        reads = tuple(map(s.register, node.args))
        writes = tuple(register if fixed == RAX else None for fixed in macro.writes)
        s.emit(macro, reads=reads, writes=writes)

    return lower


def _three_operand(mnemonic: str, fallback: Macro) -> Lowering:
    otherwise = _fixed(fallback)

    def lower(s: Selector, node: Node, register: int) -> None:
        if "bmi2" in s.features:
            s.emit(mnemonic, register, s.register(node.args[0]), s.register(node.args[1]))
        else:
            otherwise(s, node, register)

    return lower


LOWERINGS: dict[str, Lowering] = {
    "mulhi": _high_half,
    "umulhi": _high_half,
    "div": _divide,
    "rem": _divide,
    "udiv": _divide,
    "umod": _divide,
    "pow": _fixed(macros.POW),
    "pow_overflows": _fixed(macros.POW_OVERFLOWS),
    "gcd": _fixed(macros.GCD),
    "isqrt": _fixed(macros.ISQRT),
    "pdep": _three_operand("pdep_rrr", macros.PDEP),
    "pext": _three_operand("pext_rrr", macros.PEXT),
}

# C functions. ------------------------------------------------------------------------------


def _call(s: Selector, node: Node, register: int) -> None:
    _, extern = s.graph.externs[node.value]
    log = s.log if node in s.logged else None
    macro = macros.call(extern.address, len(extern.casts), node.op is CALL_IF, log)
    operands = () if log is None or log.base < FIRST_VIRTUAL else (log.base,)
    writes = (register, *[None] * (len(macro.writes) - 1))
    s.emit(macro, *operands, reads=tuple(map(s.register, node.args)), writes=writes)


LOWERINGS.update({CALL: _call, CALL_IF: _call})

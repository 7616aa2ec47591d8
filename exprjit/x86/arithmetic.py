"""Sums, differences and products in the scalar domain, and what instructions can hold.

Additions are made in addresses where that saves an instruction; so are small multiples.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..ir.graph import CONST, Node
from .fixed import HIGH_HALVES, left_to, multiply
from .registers import CC, Mem
from .select import Lowering, Selector


def immediate(node: Node) -> int | None:
    """The node's number if it is a constant that an instruction can hold (32 bits, signed)."""
    if node.op is CONST and -0x8000_0000 <= node.value <= 0x7FFF_FFFF:
        return node.value
    return None


def size(*nodes: Node) -> str:
    """The part of an instruction's name that says how much of these values it has to work on.

    Where the upper half is 0 the lower one is enough, which saves a byte: instructions on 32 bits
    leave the upper half 0.
    """
    for node in nodes:
        if node.facts.low < 0 or node.facts.high > 0xFFFF_FFFF:
            return ""
    return "32"


def lower(node: Node) -> int | None:
    """The lower half of a constant, as an immediate of an instruction on 32 bits."""
    if node.op is CONST:
        return (node.value + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000
    return None


TWO_ADDRESS: Final = {
    "add": "add",
    "sub": "sub",
    "bitand": "and",
    "bitor": "or",
    "bitxor": "xor",
    "mul": "imul",
}


def arithmetic(s: Selector, op: str, node: Node, register: int, flags: bool = False) -> None:
    """`register` = the operands of `node` combined by `op`."""
    left, right = node.args
    # The flags of an addition are about all of it.
    part = "" if flags else size(node)
    number = lower(right) if part else immediate(right)
    mnemonic = TWO_ADDRESS[op] + part
    if number is None:
        second = s.register(right)
        s.emit(mnemonic + "_rr", register, second, tied=s.register(left), flags=flags)
    elif op == "mul":
        s.emit(mnemonic + "_rri", register, s.register(left), number, flags=flags)
    else:
        s.emit(mnemonic + "_ri", register, number, tied=s.register(left), flags=flags)


def _checked(s: Selector, node: Node, register: int) -> bool:
    """Emit arithmetic whose overflow leaves the block, if `node` is such."""
    if node not in s.trapping:
        return False
    arithmetic(s, node.op, node, register, flags=True)
    s.tag = s.trapping[node]
    s.emit("jcc_j", CC["o"], s.leave)
    return True


def _scaled(s: Selector, node: Node) -> tuple[Node, int] | None:
    """The operand and the scale if `node` is a shift that an address can do for nothing."""
    if node.op == "shl" and not s.wanted(node):
        count = node.args[1]
        if count.op is CONST and 1 <= count.value <= 3:
            return node.args[0], 1 << count.value
    return None


def _address(s: Selector, node: Node) -> Mem | None:
    """A sum of two registers, or a small multiple of one, as an address to which more is added."""
    if node.op not in ("add", "mul") or node in s.trapping:
        return None
    left, right = node.args
    if node.op == "mul":
        if immediate(right) not in (3, 5, 9):
            return None
        source = s.register(left)
        return Mem(source, source, right.value - 1)
    if right.op is not CONST:
        scaled = _scaled(s, right)
        if scaled is None:
            return Mem(s.register(left), s.register(right), 1)
        return Mem(s.register(left), s.register(scaled[0]), scaled[1])
    return None


def add(s: Selector, node: Node, register: int) -> None:
    if _checked(s, node, register):
        return
    left, right = node.args
    for base, other in ((left, right), (right, left)):
        scaled = _scaled(s, other)
        if scaled is None:
            continue
        index, scale = scaled
        offset = immediate(base)
        if offset is not None:
            address = Mem(None, s.register(index), scale, offset)
        elif base.op is CONST:
            continue
        else:
            address = Mem(s.register(base), s.register(index), scale)
        s.emit(f"lea{size(node)}_rm", register, address)
        return
    offset = immediate(right)
    if offset is not None and not s.wanted(left):
        inner = _address(s, left)
        if inner is not None:
            s.emit(f"lea{size(node)}_rm", register, inner._replace(disp=offset))
            return
    if offset is not None:
        # As short as an addition, and the operand may live on.
        s.emit(f"lea{size(node)}_rm", register, Mem(s.register(left), disp=offset))
        return
    arithmetic(s, "add", node, register)


def _sub(s: Selector, node: Node, register: int) -> None:
    if not _checked(s, node, register):
        arithmetic(s, "sub", node, register)


class _Sum(NamedTuple):
    """base + scaled * scale, where 1 is x, 0 the sum before, and None nothing."""

    base: int | None
    scaled: int
    scale: int


def _sums() -> dict[int, tuple[_Sum, ...]]:
    """The factors that are one or two additions in addresses, which are faster than a product."""
    single = [(_Sum(1, 1, scale), 1 + scale) for scale in (2, 4, 8)]
    found: dict[int, tuple[_Sum, ...]] = {factor: (first,) for first, factor in single}
    for first, factor in single:
        for scale in (1, 2, 4, 8):
            for base, more in ((0, factor), (1, 1), (None, 0)):
                found.setdefault(more + factor * scale, (first, _Sum(base, 0, scale)))
        for scale in (2, 4, 8):
            found.setdefault(factor + scale, (first, _Sum(0, 1, scale)))
    return found


_SUMS: Final = _sums()


def _by_sums(s: Selector, factor: int, source: int, register: int, part: str) -> None:
    """register = source * factor."""
    so_far, sums = source, _SUMS[factor]
    for place, (base, scaled, scale) in enumerate(sums):
        result = register if place == len(sums) - 1 else s.new()
        if base is None:
            s.emit(f"shl{part}_ri", result, scale.bit_length() - 1, tied=so_far)
        else:
            address = Mem((so_far, source)[base], (so_far, source)[scaled], scale)
            s.emit(f"lea{part}_rm", result, address)
        so_far = result


def _mul(s: Selector, node: Node, register: int) -> None:
    if _checked(s, node, register):
        return
    if node in s.partners:
        op, high = s.partners[node]
        multiply(s, op, node, register, high)
        return
    factor = immediate(node.args[1])
    if factor is not None and factor > 0 and factor & factor - 1 == 0:
        count = factor.bit_length() - 1
        s.emit("shl_ri", register, count, tied=s.register(node.args[0]))
    elif factor in _SUMS:
        _by_sums(s, factor, s.register(node.args[0]), register, size(node))
    elif not any(left_to(s, s.find(op, *node.args), node, register) for op in HIGH_HALVES):
        arithmetic(s, "mul", node, register)


LOWERINGS: Final[dict[str, Lowering]] = {"add": add, "sub": _sub, "mul": _mul}

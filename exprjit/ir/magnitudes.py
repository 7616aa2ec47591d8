"""Whether it pays to look at the numbers before computing with them, and how small they should be.

Division, overflow checks and on some processors multiplication are cheap if the numbers are known
to be small. So a block of rows can be looked at first: if all columns that matter are below some
power of two, code is run that was made for such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ..language.operators import LONG
from .facts import TRANSFERS, Facts, facts
from .graph import PARAM, Graph, Node

#: The magnitudes that code may be made for, as powers of two.
_MAGNITUDES: Final = (52, 49, 47, 44, 40, 36, 31, 28, 24, 20, 16)

#: Whether a node is computed dearly because its operands may be great.
IsWide = Callable[[Node], bool]


def _sources(node: Node) -> set[Node]:
    """The parameters that a node depends on."""
    found, work = set(), [node]
    seen = set()
    while work:
        item = work.pop()
        if item in seen:
            continue
        seen.add(item)
        if item.op is PARAM:
            found.add(item)
        work.extend(item.args)
    return found


def _dear(graph: Graph, is_wide: IsWide, small: frozenset[int], bits: int) -> int:
    """How many nodes are dear if the parameters at these positions are below 2**bits."""
    limit = facts(LONG, -(1 << bits), (1 << bits) - 1)
    count = 0
    kept = {node: node.facts for node in graph.nodes}
    for node in graph.nodes:
        if node.op is PARAM and node.value in small:
            node.facts = limit
        elif node.op in TRANSFERS and node.args:
            known = TRANSFERS[node.op](LONG, *[arg.facts for arg in node.args])
            if known.low > node.facts.low or known.high < node.facts.high:
                node.facts = known
        if is_wide(node) and not (node.op.endswith("_overflows") and node.facts.high == 0):
            count += 1
    for node, known in kept.items():
        node.facts = known
    return count


class Small(NamedTuple):
    """For which columns it pays to be small, and how small."""

    positions: tuple[int, ...]
    bits: int

    @property
    def known(self) -> dict[int, Facts]:
        limit = facts(LONG, -(1 << self.bits), (1 << self.bits) - 1)
        return dict.fromkeys(self.positions, limit)


def worth_checking(graph: Graph, is_wide: IsWide) -> Small | None:
    """What to look at before the main body, or None if nothing would be cheaper."""
    wide = [node for node in graph.nodes if is_wide(node)]
    if not wide:
        return None
    positions = frozenset(
        param.value
        for node in wide
        for param in _sources(node)
        if param.facts.high > LONG.max >> 1 or param.facts.low < LONG.min >> 1
    )
    if not positions:
        return None
    counts = {bits: _dear(graph, is_wide, positions, bits) for bits in _MAGNITUDES}
    least = min(counts.values())
    if least >= len(wide):
        return None
    return Small(tuple(sorted(positions)), max(b for b, count in counts.items() if count == least))

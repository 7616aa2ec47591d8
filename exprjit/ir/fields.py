"""Bits moved from place to place: trees of shifts, masks and disjunctions as a list of fields.

A field is some bits of a value, shifted by a distance. Fields with the same distance are one shift,
whatever the source wrote: packing and unpacking of records comes out with a shift for each distance
and a mask for each shift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from ..language.operators import LONG
from .graph import CONST, Graph, Node

#: How many nodes and fields a tree may have: more are seldom one idea.
_MOST = 48


class Field(NamedTuple):
    """The bits `mask` of a source that was shifted left by `distance`, which may be negative."""

    source: Node
    distance: int
    mask: int


def _everything(node: Node) -> list[Field]:
    return [Field(node, 0, LONG.mask & ~node.facts.zeros)]


def _count(node: Node) -> int:
    return node.args[1].value & 63


def _moves(node: Node) -> bool:
    """Whether a node shifts or masks by a constant, or joins."""
    if node.op == "bitor":
        return True
    if node.op not in ("shl", "shr", "sar", "bitand"):
        return False
    return node.args[1].op is CONST


def _tree(root: Node, uses: dict[Node, int]) -> set[Node]:
    """The nodes that are needed for `root` only and do nothing but move bits."""
    inside = {root}
    work = [root]
    while work and len(inside) <= _MOST:
        for arg in work.pop().args:
            if arg not in inside and _moves(arg):
                inside.add(arg)
                work.append(arg)
    while True:
        counts = Counter(arg for node in inside for arg in set(node.args))
        outside = [n for n in inside if n is not root and counts[n] != uses.get(n, 0)]
        if not outside:
            return inside
        inside.difference_update(outside)


def _of(node: Node, known: dict[Node, list[Field]]) -> list[Field]:
    fields = known.get(node)
    return _everything(node) if fields is None else fields


def _combined(node: Node, known: dict[Node, list[Field]]) -> list[Field] | None:
    """The fields of a node of the tree; None if it is no such thing after all."""
    parts = _of(node.args[0], known)
    if node.op == "bitor":
        joined: dict[tuple[Node, int], int] = {}
        for source, distance, mask in (*parts, *_of(node.args[1], known)):
            joined[source, distance] = joined.get((source, distance), 0) | mask
        return [Field(*key, mask) for key, mask in joined.items()]
    if node.op == "bitand":
        kept = node.args[1].value & LONG.mask
        return [part._replace(mask=part.mask & kept) for part in parts if part.mask & kept]
    count = _count(node)
    if node.op == "shl":
        moved = [Field(s, d + count, m << count & LONG.mask) for s, d, m in parts]
    else:
        if node.op == "sar" and any(part.mask >> 63 for part in parts):
            return None
        moved = [Field(s, d - count, m >> count) for s, d, m in parts]
    return [part for part in moved if part.mask]


def _natural(field: Field) -> int:
    """The bits that there are after the shift alone."""
    everything = LONG.mask & ~field.source.facts.zeros
    if field.distance >= 0:
        return everything << field.distance & LONG.mask
    return everything >> -field.distance


def unsigned_shifts(users: Collection[Node]) -> set[Node]:
    """The arithmetic shifts that are as good as logical ones: masks drop all copies of the sign.

    users: all that use them.
    """
    found = {node for node in users if node.op == "sar" and node.args[1].op is CONST}
    for user in users:
        for node in found.intersection(user.args):
            masks = user.op == "bitand" and user.args[1].op is CONST
            kept = user.args[1].value & LONG.mask if masks else LONG.mask
            if kept >> 64 - _count(node):
                found.discard(node)
    return found


def join_fields(root: Node, uses: dict[Node, int]) -> list[Field] | None:
    """The fields of a disjunction, if they take fewer shifts than it does; else None.

    uses: how often each node is an operand, or needed otherwise.
    """
    inside = _tree(root, uses)
    if len(inside) > _MOST:
        return None
    unsigned = unsigned_shifts(inside)
    known: dict[Node, list[Field]] = {}
    for node in sorted(inside, key=lambda n: n.index):
        if node in unsigned:
            parts = _of(node.args[0], known)
            count = _count(node)
            known[node] = [Field(s, d - count, m >> count) for s, d, m in parts if m >> count]
            continue
        found = _combined(node, known)
        if found is None:
            found = _everything(node)
        known[node] = found
    fields = known[root]
    shifts = sum(node.op in ("shl", "shr", "sar") for node in inside)
    needed = sum(field.distance != 0 for field in fields)
    if not fields or len(fields) > _MOST or needed >= shifts or len(fields) > len(inside):
        return None
    if any(field.source in inside for field in fields):
        return None
    return fields


def uses_of(graph: Graph) -> dict[Node, int]:
    """How often each node is an operand, or needed otherwise."""
    uses = Counter(arg for node in graph.live() for arg in set(node.args))
    uses.update([graph.result, *(bail.condition for bail in graph.bails), *graph.effects])
    return uses


def field_node(graph: Graph, field: Field, source: Node) -> Node:
    """The node of a field in a graph where its source is `source`."""
    distance = field.distance
    shifted = source
    if distance:
        shifted = graph.make("shl" if distance > 0 else "shr", source, abs(distance))
    if field.mask == _natural(field):
        return shifted
    return graph.make("bitand", shifted, LONG.wrap(field.mask))

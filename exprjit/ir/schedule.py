"""The order in which a graph's nodes are computed: what is needed soon, soon; and few at a time.

What has to happen in order are bail conditions and calls that may have effects. Before each of
them, and before the result, comes just what it needs and what is not there yet; of an operator's
operands the one that takes more registers comes first, so that fewer are held meanwhile.

Source: Sethi and Ullman, The Generation of Optimal Code for Arithmetic Expressions (1970).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from .graph import CONST, PARAM, Bail, Graph, Node


class _Order(NamedTuple):
    """Nodes in order, and for each bail condition how many of them stand before it."""

    nodes: list[Node]
    places: list[int]


def schedule(graph: Graph) -> None:
    """Put the nodes of `graph` that are needed in order, and its bail conditions among them.

    That is the order of the source where fewer values are alive at once so: bail conditions keep
    theirs, and where there are many of them what is computed late waits for all of them.
    """
    live = graph.live()
    source = _by_source(graph, live)
    chosen = _by_need(graph, live)
    if _pressure(graph, source) <= _pressure(graph, chosen):
        chosen = source
    for index, node in enumerate(chosen.nodes):
        node.index = index
    graph.nodes[:] = chosen.nodes
    graph.bails[:] = [
        Bail(bail.condition, place, bail.span)
        for bail, place in zip(graph.bails, chosen.places, strict=True)
    ]


def _by_source(graph: Graph, live: list[Node]) -> _Order:
    return _Order(live, [bisect_left(live, bail.position, key=_index) for bail in graph.bails])


def _index(node: Node) -> int:
    return node.index


def _by_need(graph: Graph, live: list[Node]) -> _Order:
    needs = _registers(live)
    order: list[Node] = []
    done: set[Node] = set()
    places: list[int] = []
    for root in _roots(graph):
        if isinstance(root, Bail):
            _visit(root.condition, needs, done, order)
            places.append(len(order))
        else:
            _visit(root, needs, done, order)
    return _Order(order, places)


def _pressure(graph: Graph, order: _Order) -> int:
    """The most values that are alive at once, parameters from the beginning."""
    last: dict[Node, int] = {}
    for index, node in enumerate(order.nodes):
        for arg in node.args:
            last[arg] = index
    for bail, place in zip(graph.bails, order.places, strict=True):
        last[bail.condition] = max(place, last.get(bail.condition, 0))
    ends = [0] * (len(order.nodes) + 1)
    for node, index in last.items():
        if node.op is not CONST:
            ends[index] += 1
    alive = most = sum(node.op is PARAM for node in order.nodes)
    for index, node in enumerate(order.nodes):
        alive += (node.op is not PARAM and node.op is not CONST and node in last) - ends[index]
        most = max(most, alive)
    return most


def _roots(graph: Graph) -> list[Bail | Node]:
    """What has to be in this order: bail conditions and effects, and then the result."""
    roots: list[Bail | Node] = []
    effects = iter(graph.effects)
    effect = next(effects, None)
    for bail in graph.bails:
        while effect is not None and effect.index < bail.position:
            roots.append(effect)
            effect = next(effects, None)
        roots.append(bail)
    while effect is not None:
        roots.append(effect)
        effect = next(effects, None)
    roots.append(graph.result)
    return roots


def _registers(nodes: list[Node]) -> dict[Node, int]:
    """How many registers each node takes if nothing is shared."""
    needs: dict[Node, int] = {}
    for node in nodes:
        need = 0 if node.op in (CONST, PARAM) else 1
        operands = sorted([needs[arg] for arg in node.args], reverse=True)
        for held, operand in enumerate(operands):
            need = max(need, operand + held)
        needs[node] = need
    return needs


def _visit(root: Node, needs: dict[Node, int], done: set[Node], order: list[Node]) -> None:
    """Append to `order` what `root` needs and itself."""
    work = [root]
    while work:
        node = work[-1]
        if node in done:
            work.pop()
            continue
        missing = [arg for arg in node.args if arg not in done]
        if missing:
            # The last one on the list comes first; where it is the same, the order of the source.
            missing.sort(key=lambda arg: (needs[arg], -arg.index))
            work += missing
        else:
            work.pop()
            done.add(node)
            order.append(node)

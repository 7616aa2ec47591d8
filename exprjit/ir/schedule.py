"""The order in which a graph's nodes are computed: what is needed soon, soon; and few at a time.

What has to happen in order are bail conditions and calls that may have effects. Before each of
them, and before the result, comes just what it needs and what is not there yet; of an operator's
operands the one that takes more registers comes first, so that fewer are held meanwhile.

Source: Sethi and Ullman, The Generation of Optimal Code for Arithmetic Expressions (1970).
"""

from __future__ import annotations

from .graph import CONST, PARAM, Bail, Graph, Node


def schedule(graph: Graph) -> None:
    """Put the nodes of `graph` that are needed in order, and its bail conditions among them."""
    live = graph.live()
    needs = _registers(live)
    order: list[Node] = []
    done: set[Node] = set()
    bails: list[Bail] = []
    for root in _roots(graph):
        node = root.condition if isinstance(root, Bail) else root
        _visit(node, needs, done, order)
        if isinstance(root, Bail):
            bails.append(Bail(node, len(order), root.span))
    for index, node in enumerate(order):
        node.index = index
    graph.nodes[:] = order
    graph.bails[:] = bails


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

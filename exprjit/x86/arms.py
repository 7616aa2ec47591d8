"""Branching around what only one arm of a choice needs, where that is dear.

A branch costs little where it is predicted and some twenty cycles where it is not, so only what
takes longer than that is branched around; the rest is computed and not used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from ..ir.graph import CALL, CALL_IF, CONST, PARAM, Bail, Graph, Node
from ..language.operators import BOOLEANS, OPERATORS
from .block import Fork, Join
from .registers import negate

if TYPE_CHECKING:
    from .select import Selector

#: What makes an arm dear, by the costs of the operator table: a division is.
DEAR: Final = 20
#: What a check costs that is made although its arm is not taken: its guard has to be made, too.
_CHECK: Final = 4
#: No more nodes than these are looked at for one arm, so that time stays proportional to size.
_MOST: Final = 200


def table_cost(node: Node) -> int:
    """What the operator table says of a node."""
    row = OPERATORS.get(node.op)
    return 0 if row is None else row.cost


class Arms:
    """Finds what only one arm needs, in a graph whose live nodes are `nodes`."""

    def __init__(
        self, graph: Graph, nodes: Iterable[Node], cost: Callable[[Node], int] = table_cost
    ) -> None:
        self.cost = cost
        self.uses: dict[Node, int] = {}
        total = _CHECK * len(graph.bails)
        for node in nodes:
            total += cost(node)
            for arg in node.args:
                self.uses[arg] = self.uses.get(arg, 0) + 1
        for root in (graph.result, *(bail.condition for bail in graph.bails), *graph.effects):
            self.uses[root] = self.uses.get(root, 0) + 1
        #: Whether anything can be dear.
        self.possible = total >= DEAR

    def find(
        self, root: Node, checks: list[Node], asked: Callable[[Node], bool]
    ) -> list[Node] | None:
        """The nodes, last first, that are only needed for `root` and `checks`; None if not dear.

        checks: bail conditions that are of interest only in the arm.  asked: whether somebody
        else has asked for a node already.
        """
        if not self.possible or self.uses[root] != 1:
            return None
        inside = dict.fromkeys((root, *checks), 1)
        queue = [(-node.index, node) for node in inside]
        queue.sort()
        found: list[Node] = []
        cost = _CHECK * len(checks)
        while queue and len(found) < _MOST:
            _, node = heappop(queue)
            is_movable = node.op not in (PARAM, CALL, CALL_IF)
            if inside[node] != self.uses[node] or not is_movable or asked(node):
                continue
            found.append(node)
            cost += self.cost(node)
            for arg in node.args:
                seen = inside.get(arg, 0)
                inside[arg] = seen + 1
                if not seen:
                    heappush(queue, (-arg.index, arg))
        return found if cost >= DEAR and root in found else None


def branch(
    s: Selector,
    choice: Node,
    register: int,
    condition: Node,
    holds: bool,
    value: Node,
    around: Node | int,
    test: Callable[[], int],
) -> bool:
    """Make `register` from `value` only where the truth of `condition` is `holds`.

    Elsewhere it is `around`.  All this is for the node `choice`.  test: emits what sets the flags,
    and gives the condition code that says that `condition` is not 0.  False if it is not worth a
    branch; then nothing is emitted.
    """
    guard = _guard(s, condition, holds)
    bails = _bails(s, guard, choice)
    nodes = s.arms.find(value, [bail.condition for bail, _ in bails], s.asked)
    if nodes is None:
        return False
    join = Join()
    other: int | None = None
    if isinstance(around, Node) and s.arms.find(around, [], s.asked) is None:
        other = s.register(around)
    later = s.new() if other is None else other
    s.emit(join, register, s.register(value), later)
    s.close()
    before = {left: s.checked.get(left) for _, left in bails}
    checks = _claim(s, bails, frozenset(nodes))
    outer = s.never
    s.never = _excluded(condition, holds) | (outer if len(outer) < _MOST else set())
    s.guards.append(guard)

    def end() -> None:
        for check, position in before.items():
            s.checked.pop(check, None)
            if position is not None and check not in s.claimed_conditions:
                s.checked[check] = position
        s.guards.pop()
        s.never = outer
        s.tag = choice.span
        if not isinstance(around, Node):
            s.emit("mov_ri", later, around)
        code = test()
        s.emit(Fork(join), code if holds else negate(code))
        s.close()
        # The other arm is dear, too: it comes before, behind a branch of its own.
        if (
            other is None
            and isinstance(around, Node)
            and not branch(s, choice, later, condition, not holds, around, 0, test)
        ):
            s.emit("mov_rr", later, s.register(around))
            s.close()

    s.walk(iter(nodes), checks, end)
    return True


def _excluded(condition: Node, holds: bool) -> set[tuple[Node, int]]:
    """What values cannot be, of the numbers that divisions ask for, where a condition is such."""
    found: set[tuple[Node, int]] = set()
    conditions = [condition]
    while conditions and len(found) < _MOST:
        node = conditions.pop()
        if holds:
            found.add((node, 0))
        if node.boolean and node.op == ("bitand" if holds else "bitor"):
            conditions += [arg for arg in node.args if arg.boolean]
        elif node.op in BOOLEANS and len(node.args) == 2 and node.args[1].op is CONST:
            value, constant = node.args
            compare = OPERATORS[node.op]
            found.update(
                (value, number)
                for number in (0, -1)
                if bool(compare(number, constant.value)) != holds
            )
    return found


def _guard(s: Selector, condition: Node, holds: bool) -> Node | None:
    """The node that says in bail conditions that the arm is taken, if there is one."""
    if holds and condition.boolean:
        truth: Node | None = condition
    else:
        truth = s.graph.find("ne" if holds else "eq", condition, s.graph.const(0))
    if truth is None or not s.guards:
        return truth
    outer = s.guards[-1]
    if outer is None:
        return None
    return s.graph.find("bitand", outer, truth) or s.graph.find("bitand", truth, outer)


def guarded(bails: list[Bail]) -> dict[Node, list[Bail]]:
    """Bail conditions by each guard that they may be under, in the order of the source."""
    found: dict[Node, list[Bail]] = {}
    for bail in sorted((bail for bail in bails if bail.span is not None), key=_start):
        if bail.condition.op == "bitand":
            for guard in bail.condition.args:
                found.setdefault(guard, []).append(bail)
    return found


def _start(bail: Bail) -> int:
    return 0 if bail.span is None else bail.span[0]


def _bails(s: Selector, guard: Node | None, choice: Node) -> list[tuple[Bail, Node]]:
    """The bail conditions that can wait for the arm, and what of them is to be checked there.

    They are those of the source that the choice comes from: others under the same guard belong to
    other arms.
    """
    if guard is None or choice.span is None:
        return []
    start, end = choice.span
    under = s.guarded.get(guard, [])
    found = []
    for bail in under[bisect_left(under, start, key=_start) : bisect_left(under, end, key=_start)]:
        assert bail.span is not None
        if bail.span[1] > end or bail in s.claimed or bail.position > choice.index:
            continue
        if not s.effect_between(bail.position, choice.index):
            left, right = bail.condition.args
            found.append((bail, right if left is guard else left))
    return found


def _claim(s: Selector, bails: list[tuple[Bail, Node]], nodes: frozenset[Node]) -> list[Bail]:
    """Take bail conditions into an arm of these nodes; gives those that need a check there."""
    checks = []
    for bail, condition in bails:
        s.claimed.add(bail)
        # What the walk comes to from here on stands before the arm, and so before the check. (The
        # condition may be that of a divisor elsewhere, which is a conjunction by itself.)
        s.claimed_conditions.add(bail.condition)
        s.checked.pop(bail.condition, None)
        inner = Bail(condition, bail.position, bail.span)
        if not s.rides(inner, nodes):
            checks.append(inner)
            s.checked[condition] = min(bail.position, s.checked.get(condition, bail.position))
    checks.sort(key=lambda check: check.position)
    return checks

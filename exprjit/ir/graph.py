"""The graph: what a formula computes, as pure and total nodes, each made once.

`make` is the only way to a node.  It folds constants and what can have but one value (facts.py),
puts constants on the right, applies the algebra (of the operator table first, then of rules.py) and
finds the node if it already exists, so a graph is simplified as it is built and common
sub-expressions are one node.

Calls of C functions are nodes too; those that may have effects stay in source order, one node
a call, whether or not their results are used.

What can fail is beside the values: a list of bail conditions in source order.  Where one is
not 0, the machine code gives up and the interpreter makes the error.  A condition is left
out only if it is proved to be 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ..language.externs import Extern
from ..language.operators import LONG, OPERATORS, Operator
from .byteswaps import Origin, byte_swap, joined_origin
from .facts import ANYTHING, TRANSFERS, Facts, exactly
from .patterns import Rules

CONST: Final = "const"
PARAM: Final = "param"
#: A call of a C function, and one that happens only where the first operand, a boolean, is 1.
CALL: Final = "call"
CALL_IF: Final = "call_if"

NOTHING_KNOWN: Final[Mapping[int, Facts]] = MappingProxyType({})

#: An operator's name and its operands: a node that is yet to be found or made.
Form = tuple[Any, ...]


class Node:
    """A value: an operator of the table applied to nodes, a constant, a parameter or a call.

    op: the operator's name, or CONST, PARAM, CALL or CALL_IF.  args: the operands.  value: a
    constant's number, a parameter's position, or which of the graph's externs is called.
    index: position in the graph; operands come first.  facts: what is known of the value.
    span: the source range that the node came from.
    """

    __slots__ = ("args", "facts", "index", "op", "span", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Node, ...],
        value: int,
        index: int,
        facts: Facts,
        span: tuple[int, int] | None,
    ) -> None:
        self.op = op
        self.args = args
        self.value = value
        self.index = index
        self.facts = facts
        self.span = span

    @property
    def boolean(self) -> bool:
        """Whether the value is known to be 0 or 1."""
        return self.facts.low >= 0 and self.facts.high <= 1

    def __repr__(self) -> str:
        if self.op is CONST:
            return str(self.value)
        return f"%{self.index}"


class GraphTooLarge(Exception):
    """A formula needs more nodes than the graph may have."""


class Bail:
    """A condition under which the interpreter has to answer.

    position: the condition stands before the nodes from this index on.
    """

    __slots__ = ("condition", "position", "span")

    def __init__(self, condition: Node, position: int, span: tuple[int, int] | None) -> None:
        self.condition = condition
        self.position = position
        self.span = span


class Graph:
    """The nodes of one formula, its bail conditions and its result.

    params: the parameters' names.  native: names of the operators that stay as they are
    although the table could expand them, because the machine has an instruction.
    rules: the algebra to apply.  most: how many nodes there may be.  fired: where it is a
    list, it collects the names of the rules that are applied.  known: what is known of
    parameters, by position.
    """

    __slots__ = (
        "_bailing",
        "_made",
        "bails",
        "effects",
        "externs",
        "fired",
        "known",
        "most",
        "native",
        "nodes",
        "origins",
        "params",
        "result",
        "rules",
        "span",
    )

    result: Node

    def __init__(
        self,
        params: tuple[str, ...],
        native: frozenset[str],
        rules: Rules,
        most: int = 1 << 62,
        known: Mapping[int, Facts] = NOTHING_KNOWN,
    ) -> None:
        self.params = params
        self.known = known
        self.most = most
        self.native = native
        self.rules = rules
        self.nodes: list[Node] = []
        self.bails: list[Bail] = []
        #: The C functions that are called, by name, and the calls that may have effects, in order.
        self.externs: list[tuple[str, Extern]] = []
        self.effects: list[Node] = []
        self.fired: list[str] | None = None
        #: The source range that nodes being made belong to.
        self.span: tuple[int, int] | None = None
        #: Of disjunctions of bytes: which bytes of what they are (byteswaps.py).
        self.origins: dict[Node, Origin] = {}
        self._made: dict[Form, Node] = {}
        self._bailing: set[Node] = set()

    def _new(self, op: str, args: tuple[Node, ...], value: int, facts: Facts = ANYTHING) -> Node:
        index = len(self.nodes)
        if index >= self.most:
            # Fault conditions and expansions make several nodes of one of the syntax tree.
            raise GraphTooLarge(f"the formula needs more than {self.most:,} nodes of the graph")
        node = Node(op, args, value, index, facts, self.span)
        self.nodes.append(node)
        return node

    def const(self, value: int) -> Node:
        """The node of a 64-bit constant."""
        key = (CONST, value)
        node = self._made.get(key)
        if node is None:
            node = self._made[key] = self._new(CONST, (), value, exactly(LONG, value))
        return node

    def param(self, position: int) -> Node:
        """The node of the parameter at `position`."""
        key = (PARAM, position)
        node = self._made.get(key)
        if node is None:
            known = self.known.get(position, ANYTHING)
            if known.low == known.high:
                node = self.const(known.low)
            else:
                node = self._new(PARAM, (), position, known)
            self._made[key] = node
        return node

    def call(self, name: str, extern: Extern, args: tuple[Node, ...], guard: Node | None) -> Node:
        """The call of a C function with these arguments, where `guard` is 1; else it is 0.

        Its value is all of the result register.
        """
        if guard is not None and guard.op is CONST:
            if guard.value == 0:
                return guard
            guard = None
        form: Form = (CALL, extern, *args)
        node = self._made.get(form) if extern.pure else None
        if node is None and guard is not None:
            form = (CALL_IF, extern, guard, *args)
            node = self._made.get(form) if extern.pure else None
            args = guard, *args
        if node is None:
            called = name, extern
            if called not in self.externs:
                self.externs.append(called)
            node = self._new(form[0], args, self.externs.index(called))
            if extern.pure:
                self._made[form] = node
            else:
                self.effects.append(node)
        return node

    def find(self, op: str, *args: Node) -> Node | None:
        """The node that `make` gave for these operands, if it was asked."""
        return self._made.get((op, *args))

    def make(self, op: str, *operands: Node | int) -> Node:
        """The node for operator `op` of the table; ints are constants."""
        made = self._made
        form: Form = (op, *operands)
        node = made.get(form)
        if node is None:
            if int in map(type, operands):
                form = (op, *[self.const(arg) if type(arg) is int else arg for arg in operands])
                node = made.get(form)
            # Iterative, since a rule may lead to another along a whole chain of nodes.
            forms = []
            while node is None:
                forms.append(form)
                simpler = self._simplified(*form)
                if isinstance(simpler, tuple):
                    form = simpler
                    node = made.get(form)
                else:
                    node = simpler
            for form in forms:
                made[form] = node
        return node

    def _simplified(self, op: str, *args: Node) -> Node | Form:
        """A new node for ``op(args)``, or what to use instead."""
        row = OPERATORS[op]
        for arg in args:
            if arg.op is not CONST:
                break
        else:
            return self.const(row(*[arg.value for arg in args]))
        if len(args) == 2:
            left, right = args
            # Constants on the right, else the older node on the left: one order, one node.
            if left.op is CONST or (right.op is not CONST and left.index > right.index):
                if row.commutative:
                    return op, right, left
                if row.swapped:
                    return row.swapped, right, left
            known = self._by_columns(row, left, right)
            if known is not None:
                return known
        transfer = TRANSFERS.get(op)
        facts = ANYTHING if transfer is None else transfer(LONG, *[arg.facts for arg in args])
        if facts.low == facts.high:
            return self.const(facts.low)
        found = self.rules.rewrite(self, op, args)
        if found is not None:
            return found
        origin = joined_origin(self, *args) if op == "bitor" else None
        swapped = None if origin is None else byte_swap(self, origin)
        if swapped is not None:
            return swapped
        if row.expansion is not None and op not in self.native:
            return row.expansion(self.make, *args)  # type: ignore[no-any-return]
        node = self._new(op, args, 0, facts)
        if origin is not None:
            self.origins[node] = origin
        return node

    def _by_columns(self, row: Operator, left: Node, right: Node) -> Node | None:
        """What the table's algebra says: identity, absorber, equal operands."""
        if right.op is CONST:
            if right.value == row.identity:
                return left
            if right.value == row.absorber:
                return right
        elif left is right and row.same is not None:
            return left if row.same == "x" else self.const(int(row.same))
        return None

    def bail(self, condition: Node) -> None:
        """Add a bail condition after the ones there are."""
        if condition.op is CONST and condition.value == 0:
            return
        if condition not in self._bailing:
            self._bailing.add(condition)
            self.bails.append(Bail(condition, len(self.nodes), self.span))

    def replayed(self) -> list[Node]:
        """The calls whose results the interpreter needs if the code bails."""
        if not self.effects or not self.bails:
            return []
        last = self.bails[-1].position
        return [node for node in self.effects if node.index < last]

    def live(self) -> list[Node]:
        """The nodes that the result, bail conditions and effects need, operands first."""
        needed = bytearray(len(self.nodes))
        for root in (self.result, *(bail.condition for bail in self.bails), *self.effects):
            needed[root.index] = 1
        for node in reversed(self.nodes):
            if needed[node.index]:
                for arg in node.args:
                    needed[arg.index] = 1
        return [node for node in self.nodes if needed[node.index]]

    def __str__(self) -> str:
        return dump(self)


def dump(graph: Graph) -> str:
    """The graph as text: a line per live node and bail condition, in order."""
    names: dict[Node, str] = {}
    lines: list[str] = []
    bails = deque(graph.bails)
    count = 0

    def flush(index: int) -> None:
        while bails and bails[0].position <= index:
            lines.append(f"bail {names[bails.popleft().condition]}")

    for node in graph.live():
        flush(node.index)
        if node.op is CONST:
            names[node] = str(node.value)
        elif node.op is PARAM:
            names[node] = graph.params[node.value]
        else:
            names[node] = f"%{count}"
            count += 1
            words = [node.op, *(names[arg] for arg in node.args)]
            if node.op in (CALL, CALL_IF):
                words.insert(1, graph.externs[node.value][0])
            lines.append(f"{names[node]} = {' '.join(words)}")
    flush(len(graph.nodes))
    lines.append(f"return {names[graph.result]}")
    return "\n".join(lines)

"""Syntax tree to graph: one walk in the order of evaluation.

Definitions are expanded where they are called.  Lazy forms become pure choices between
both sides, and their laziness lives in the bail conditions: a condition that stands in an
arm holds only where the arm's guard does.  The walk is iterative, like the interpreter's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..language.ast import (
    Apply,
    Binding,
    Call,
    Chain,
    Conditional,
    Literal,
    Logical,
    Name,
    Program,
)
from ..language.ast import Node as Tree
from ..language.externs import Extern
from .graph import CONST, Graph, Node
from .rules import BY_MODE


def build(
    program: Program,
    overflow: str,
    native: frozenset[str] = frozenset(),
    fired: list[str] | None = None,
    most: int = 1 << 62,
) -> Graph:
    """The graph of `program` under an overflow mode ("wrap" or "raise").

    native: operators to keep although the table has an expansion for them.  fired: takes
    the names of the rules that are applied.  most: how many nodes the graph may have.
    Raises GraphTooLarge.
    """
    graph = Graph(program.params, native, BY_MODE[overflow], most)
    graph.fired = fired
    graph.result = add(graph, program, overflow)
    return graph


def add(
    graph: Graph,
    program: Program,
    overflow: str,
    guard: Node | None = None,
    truths: Collection[str] = (),
) -> Node:
    """Add `program`, whose parameters are among the graph's, and give its value.

    guard: a boolean without which nothing in it fails.  truths: the parameters that are 1 to the
    program whenever they are not 0.
    """
    builder = _Builder(program, graph, overflow)
    builder.guard = guard
    for name in truths:
        if name in builder.variables:
            builder.variables[name] = builder.truth(builder.variables[name])
    for statement in program.statements:
        if isinstance(statement, Binding):
            builder.variables[statement.name] = builder.run(statement.value)
    return builder.run(program.result)


class _Task:
    """What is left to do for a tree node when the nodes it waits for are on the stack."""

    __slots__ = ("guard", "node", "state")

    def __init__(self, node: Any, guard: Node | None = None, state: Any = None) -> None:
        self.node = node
        self.guard = guard
        self.state = state


class _Operands(_Task):
    """Apply a strict operator."""


class _Enter(_Task):
    """Expand a definition, or call a C function: the arguments are there."""


class _Leave(_Task):
    """Leave a definition's body; `state` is the key under which its value is remembered."""


class _Arms(_Task):
    """Go on with the arms of a conditional: the condition is there."""


class _Arm(_Task):
    """Set the guard (`state`) for the arm that comes next."""


class _Merge(_Task):
    """Choose between the arms; `state` is the condition, `guard` what to return to."""


class _Right(_Task):
    """Go on with the right side of `and` or `or`."""


class _Join(_Task):
    """Combine both sides of `and` or `or`."""


class _Link(_Task):
    """Make a comparison of a chain; `state` is its index and the value so far."""


class _Builder:
    def __init__(self, program: Program, graph: Graph, overflow: str) -> None:
        self.graph = graph
        self.overflow = overflow
        self.variables = {name: graph.const(v) for name, v in program.constants.items()}
        positions = {name: position for position, name in enumerate(graph.params)}
        for name in program.params:
            self.variables[name] = graph.param(positions[name])
        self.values: list[Node] = []
        self.work: list[Any] = []
        self.frames: list[dict[str, Node]] = []
        #: What must hold for the code being built to be reached; None for always.
        self.guard: Node | None = None
        #: Values of expanded calls by (definition, guard, arguments): the same call under the
        #: same guard has the same value, and cannot fail if it did not fail before.
        self.expanded: dict[tuple[Any, ...], Node] = {}

    def run(self, root: Tree) -> Node:
        work = self.work
        work.append(root)
        while work:
            task = work.pop()
            _STEPS[type(task)](self, task)
        return self.values.pop()

    def truth(self, node: Node) -> Node:
        return self.graph.make("ne", node, 0)

    def both(self, guard: Node | None, condition: Node) -> Node | None:
        """The guard for what is reached under `guard` and only if `condition`, which is boolean."""
        if guard is None:
            return None if condition.op is CONST and condition.value else condition
        return self.graph.make("bitand", guard, condition)

    def literal(self, node: Literal) -> None:
        self.values.append(self.graph.const(node.value))

    def name(self, node: Name) -> None:
        scope = self.frames[-1] if node.formal else self.variables
        self.values.append(scope[node.name])

    def apply(self, node: Apply) -> None:
        self.work.append(_Operands(node))
        self.work.extend(node.operands[::-1])

    def operands(self, task: _Operands) -> None:
        node: Apply = task.node
        operator, graph, values = node.operator, self.graph, self.values
        count = len(node.operands)
        args = values[-count:]
        del values[-count:]
        graph.span = node.start, node.end
        for fault in operator.faults[self.overflow]:
            condition = fault.condition(graph.make, *args)
            if self.guard is not None:
                condition = graph.make("bitand", self.guard, condition)
            graph.bail(condition)
        if operator.variadic:
            # In pairs, and pairs of those: the way from each operand is short.
            while len(args) > 2:
                args.append(graph.make(operator.name, args.pop(0), args.pop(0)))
        values.append(graph.make(operator.name, *args))

    def call(self, node: Call) -> None:
        self.work.append(_Enter(node))
        self.work.extend(node.arguments[::-1])

    def enter(self, task: _Enter) -> None:
        call: Call = task.node
        first = len(self.values) - len(call.arguments)
        args = tuple(self.values[first:])
        del self.values[first:]
        if call.extern is not None:
            self.values.append(self.called(call, call.extern, args))
            return
        definition = call.definition
        key = (definition, self.guard, *args)
        known = None if definition.effects else self.expanded.get(key)
        if known is not None:
            self.values.append(known)
            return
        formals = [formal.name for formal in definition.formals]
        self.frames.append(dict(zip(formals, args, strict=True)))
        self.work += (_Leave(task.node, None, key), definition.body)

    def leave(self, task: _Leave) -> None:
        self.frames.pop()
        self.expanded[task.state] = self.values[-1]

    def called(self, node: Call, extern: Extern, args: tuple[Node, ...]) -> Node:
        """Call a C function, its arguments cast to its types and its result to a long."""
        graph = self.graph
        graph.span = node.start, node.end
        cast = [
            value if name is None else graph.make(name, value)
            for name, value in zip(extern.casts, args, strict=True)
        ]
        result = graph.call(node.name, extern, tuple(cast), self.guard)
        return result if extern.result is None else graph.make(extern.result, result)

    def conditional(self, node: Conditional) -> None:
        self.work += (_Arms(node), node.condition)

    def arms(self, task: _Arms) -> None:
        node: Conditional = task.node
        condition = self.values.pop()
        if condition.op is CONST:
            self.work.append(node.then if condition.value else node.otherwise)
            return
        outer = self.guard
        graph = self.graph
        graph.span = node.condition.start, node.condition.end
        then = self.both(outer, self.truth(condition))
        otherwise = self.both(outer, graph.make("eq", condition, 0))
        self.work += (
            _Merge(node, outer, condition),
            node.otherwise,
            _Arm(node, None, otherwise),
            node.then,
            _Arm(node, None, then),
        )

    def arm(self, task: _Arm) -> None:
        self.guard = task.state

    def merge(self, task: _Merge) -> None:
        self.guard = task.guard
        otherwise, then = self.values.pop(), self.values.pop()
        self.graph.span = task.node.start, task.node.end
        self.values.append(self.graph.make("select", task.state, then, otherwise))

    def logical(self, node: Logical) -> None:
        self.work += (_Right(node), node.left)

    def right(self, task: _Right) -> None:
        node: Logical = task.node
        graph = self.graph
        graph.span = node.left.start, node.left.end
        left = self.truth(self.values.pop())
        decides = node.operator.name == "or"
        if left.op is CONST and bool(left.value) == decides:
            self.values.append(left)
            return
        outer = self.guard
        self.guard = self.both(outer, graph.make("eq", left, 0) if decides else left)
        self.work += (_Join(node, outer, left), node.right)

    def join(self, task: _Join) -> None:
        node: Logical = task.node
        self.guard = task.guard
        self.graph.span = node.start, node.end
        right = self.values.pop()
        self.values.append(self.graph.make(node.operator.name, task.state, right))

    def chain(self, node: Chain) -> None:
        self.work += (_Link(node, self.guard, (0, None)), node.operands[1], node.operands[0])

    def link(self, task: _Link) -> None:
        node: Chain = task.node
        index, so_far = task.state
        graph = self.graph
        right, left = self.values.pop(), self.values.pop()
        graph.span = node.operands[index].start, node.operands[index + 1].end
        holds = graph.make(node.operators[index].name, left, right)
        so_far = holds if so_far is None else graph.make("bitand", so_far, holds)
        decided = so_far.op is CONST and so_far.value == 0
        if decided or index + 1 == len(node.operators):
            self.guard = task.guard
            self.values.append(so_far)
            return
        self.guard = self.both(task.guard, so_far)
        self.values.append(right)
        self.work += (_Link(node, task.guard, (index + 1, so_far)), node.operands[index + 2])


_STEPS: dict[type, Callable[[_Builder, Any], None]] = {
    Literal: _Builder.literal,
    Name: _Builder.name,
    Apply: _Builder.apply,
    Call: _Builder.call,
    Conditional: _Builder.conditional,
    Logical: _Builder.logical,
    Chain: _Builder.chain,
    _Operands: _Builder.operands,
    _Enter: _Builder.enter,
    _Leave: _Builder.leave,
    _Arms: _Builder.arms,
    _Arm: _Builder.arm,
    _Merge: _Builder.merge,
    _Right: _Builder.right,
    _Join: _Builder.join,
    _Link: _Builder.link,
}

"""The reference: a walk over the syntax tree that computes on Python ints.

What this module answers is what every other engine has to answer, and every run-time
error that a user sees is made here: machine code that meets a failure only says so, and
the interpreter, given the same arguments, says where and why.

The walk is iterative.  Work is a stack of tasks: a node is a task ("push this node's
value"), and where a node has to wait for its operands it leaves a task of its own below
theirs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ExprError, printable, shortened
from .ast import (
    Apply,
    Binding,
    Call,
    Chain,
    Conditional,
    Literal,
    Logical,
    Name,
    Node,
    Program,
)
from .externs import Extern, cast
from .operators import LONG, OPERATORS, Fault, make_int

_COMPARISON = OPERATORS["eq"].precedence


class _Task:
    """What is left to do for a node once the values it waits for are on the stack."""

    __slots__ = ("node", "step")

    def __init__(self, node: Node, step: int = 0) -> None:
        self.node = node
        self.step = step


class _Finish(_Task):
    """Apply a strict operator, or enter a definition, now that the operands are there."""


class _Choose(_Task):
    """Go on with one arm of a conditional, or with the right side of `and` and `or`."""


class _Truth(_Task):
    """Turn the last value into 0 or 1."""


class _Compare(_Task):
    """Compare the last two values of a chain; `step` is the operator's index."""


class _Return(_Task):
    """Leave a definition's body."""


def interpret(
    program: Program,
    arguments: Sequence[int],
    overflow: str = "wrap",
    returned: Sequence[int] = (),
) -> int:
    """The value of `program` for `arguments`, one 64-bit int per parameter, in order.

    returned: what the first calls of externs that are not pure have returned already, in the
    order of the calls; these are not called again.  (A deque loses what was used.)
    Raises the ExprError of the first operation that fails, with the span of the
    sub-expression and the values of its operands.
    """
    variables = dict(program.constants)
    variables.update(zip(program.params, arguments, strict=True))
    machine = _Machine(program.source, variables, overflow, returned)
    for statement in program.statements:
        if isinstance(statement, Binding):
            variables[statement.name] = machine.run(statement.value)
    return machine.run(program.result)


class _Machine:
    def __init__(
        self,
        source: str,
        variables: dict[str, int],
        overflow: str,
        returned: Sequence[int],
    ) -> None:
        self.source = source
        self.variables = variables
        self.overflow = overflow
        #: What is still to be used instead of calling externs, in order.
        self.returned = returned if isinstance(returned, deque) else deque(returned)
        self.values: list[int] = []
        self.work: list[Node | _Task] = []
        #: The formals of the definitions being run, innermost last.
        self.frames: list[dict[str, int]] = []

    def run(self, root: Node) -> int:
        work = self.work
        work.append(root)
        while work:
            task = work.pop()
            _STEPS[type(task)](self, task)
        return self.values.pop()

    # Each step takes the task that it is keyed by in _STEPS. ------------------------------

    def literal(self, node: Literal) -> None:
        self.values.append(node.value)

    def name(self, node: Name) -> None:
        scope = self.frames[-1] if node.formal else self.variables
        self.values.append(scope[node.name])

    def apply(self, node: Apply) -> None:
        self.work.append(_Finish(node))
        self.work.extend(node.operands[::-1])

    def call(self, node: Call) -> None:
        self.work.append(_Finish(node))
        self.work.extend(node.arguments[::-1])

    def conditional(self, node: Conditional) -> None:
        self.work += (_Choose(node), node.condition)

    def logical(self, node: Logical) -> None:
        self.work += (_Choose(node), node.left)

    def chain(self, node: Chain) -> None:
        self.work += (_Compare(node), node.operands[1], node.operands[0])

    def finish(self, task: _Finish) -> None:
        node = task.node
        values = self.values
        first = len(values) - len(node.parts)
        operands = values[first:]
        del values[first:]
        if type(node) is Apply:
            values.append(self._applied(node, operands))
            return
        assert type(node) is Call
        if node.extern is not None:
            values.append(self._called(node.extern, operands))
        else:
            names = [formal.name for formal in node.definition.formals]
            self.frames.append(dict(zip(names, operands, strict=True)))
            self.work += (_Return(node), node.definition.body)

    def choose(self, task: _Choose) -> None:
        node = task.node
        taken = self.values.pop() != 0
        if type(node) is Conditional:
            self.work.append(node.then if taken else node.otherwise)
        else:
            assert type(node) is Logical
            if taken == (node.operator.name == "or"):
                self.values.append(int(taken))
            else:
                self.work += (_Truth(node), node.right)

    def truth(self, task: _Truth) -> None:
        self.values[-1] = int(self.values[-1] != 0)

    def compare(self, task: _Compare) -> None:
        node, step = task.node, task.step
        assert type(node) is Chain
        right = self.values.pop()
        left = self.values.pop()
        if not node.operators[step](left, right):
            self.values.append(0)
        elif step + 1 == len(node.operators):
            self.values.append(1)
        else:
            self.values.append(right)
            self.work += (_Compare(node, step + 1), node.operands[step + 2])

    def leave(self, task: _Return) -> None:
        self.frames.pop()

    def _applied(self, node: Apply, operands: list[int]) -> int:
        operator = node.operator
        if not operator.variadic:
            for fault in operator.faults[self.overflow]:
                if fault.condition(make_int, *operands):
                    raise fault_error(fault, self.source, node, operands)
            return LONG.wrap(operator.meaning(LONG, *operands))
        result = operands[0]
        for operand in operands[1:]:
            result = operator(result, operand)
        return result

    def _called(self, extern: Extern, operands: list[int]) -> int:
        if self.returned and not extern.pure:
            result = self.returned.popleft()
        else:
            result = extern.call(*map(cast, extern.casts, operands))
        return cast(extern.result, result)


def fault_error(fault: Fault, source: str, node: Apply, operands: Sequence[int]) -> ExprError:
    """The error for `fault` at `node`, with the values of operands that are not plain numbers."""
    values = []
    for part, value in zip(node.operands, operands, strict=True):
        text = _operand_text(source, part)
        if type(part) is not Literal and text != str(value):
            values.append(f"{text} = {value}")
    message = fault.message
    if values:
        message += ", where " + " and ".join(dict.fromkeys(values))
    return fault.error(message, source, node.start, node.end, fault.hint)


_COMMENT = re.compile(r"('(?:[^'\\\n]|\\.)*')|#[^\n]*")


def _operand_text(source: str, node: Node) -> str:
    """The text of an operand as the left side of an equation."""
    if type(node) is Name:
        return shortened(node.name)
    text = source[node.start : node.end]
    if "#" in text:
        text = _COMMENT.sub(r"\1", text)
    text = " ".join(text.split())
    if _is_parenthesised(text):
        text = text[1:-1].strip()
    text = printable(shortened(text))
    if type(node) is Call or (type(node) is Apply and node.operator.precedence > _COMPARISON):
        return text
    return f"({text})"


def _is_parenthesised(text: str) -> bool:
    """Whether the first character of `text` is the bracket that the last one closes."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth <= 0:
            return character == ")" and place == len(text) - 1
    return False


_STEPS: dict[type, Callable[[_Machine, Any], None]] = {
    Literal: _Machine.literal,
    Name: _Machine.name,
    Apply: _Machine.apply,
    Call: _Machine.call,
    Conditional: _Machine.conditional,
    Logical: _Machine.logical,
    Chain: _Machine.chain,
    _Finish: _Machine.finish,
    _Choose: _Machine.choose,
    _Truth: _Machine.truth,
    _Compare: _Machine.compare,
    _Return: _Machine.leave,
}

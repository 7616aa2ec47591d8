"""The syntax tree: what the parser makes and the interpreter walks.

Nodes know their place in the source (`start`, `end`, half-open offsets, brackets included).
Trees may be 100,000 levels deep, so nothing here, and nothing that walks them, recurses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .externs import Extern
    from .operators import Operator


class Node:
    """The base of all expressions."""

    __slots__ = ("end", "start")

    start: int
    end: int

    @property
    def parts(self) -> tuple[Node, ...]:
        """The sub-expressions in the order in which they stand in the text."""
        return ()


class Literal(Node):
    """A number; `value` may be 2**63 until the parser has seen the minus before it."""

    __slots__ = ("value",)

    def __init__(self, value: int, start: int, end: int) -> None:
        self.value = value
        self.start = start
        self.end = end


class Name(Node):
    """A parameter, constant or binding; a formal of the definition where `formal` is set."""

    __slots__ = ("formal", "name")

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name = name
        self.formal = False
        self.start = start
        self.end = end


class Apply(Node):
    """A strict operator or built-in function with its operands."""

    __slots__ = ("operands", "operator")

    def __init__(
        self, operator: Operator, operands: tuple[Node, ...], start: int, end: int
    ) -> None:
        self.operator = operator
        self.operands = operands
        self.start = start
        self.end = end

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands


class Logical(Node):
    """``and`` or ``or``: the right operand is evaluated only if the left does not decide."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, operator: Operator, left: Node, right: Node) -> None:
        self.operator = operator
        self.left = left
        self.right = right
        self.start = left.start
        self.end = right.end

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.left, self.right


class Chain(Node):
    """``a < b <= c``: each operand is evaluated once, and only if all before it compared true."""

    __slots__ = ("operands", "operators")

    def __init__(self, operators: tuple[Operator, ...], operands: tuple[Node, ...]) -> None:
        self.operators = operators
        self.operands = operands
        self.start = operands[0].start
        self.end = operands[-1].end

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands


class Conditional(Node):
    """``condition ? then : otherwise``, or ``then if condition else otherwise``."""

    __slots__ = ("condition", "otherwise", "then")

    def __init__(self, condition: Node, then: Node, otherwise: Node, start: int, end: int) -> None:
        self.condition = condition
        self.then = then
        self.otherwise = otherwise
        self.start = start
        self.end = end

    @property
    def parts(self) -> tuple[Node, ...]:
        if self.condition.start <= self.then.start:
            return self.condition, self.then, self.otherwise
        return self.then, self.condition, self.otherwise


class Call(Node):
    """A call by name; `definition` or `extern` is set when the name is resolved."""

    __slots__ = ("arguments", "definition", "extern", "name", "name_end")

    definition: Definition
    extern: Extern | None

    def __init__(
        self, name: str, arguments: tuple[Node, ...], start: int, name_end: int, end: int
    ) -> None:
        self.name = name
        self.extern = None
        self.arguments = arguments
        self.start = start
        self.name_end = name_end
        self.end = end

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.arguments


class Binding:
    """The statement ``name = value``."""

    __slots__ = ("end", "name", "start", "value")

    def __init__(self, name: str, value: Node, start: int, end: int) -> None:
        self.name = name
        self.value = value
        self.start = start
        self.end = end


class Definition:
    """The statement ``name(formals) = body``.

    size: counts nodes with all calls expanded; effects: whether it calls an extern that may
    have effects, by itself or by other definitions.  Both are set when names are resolved.
    """

    __slots__ = ("body", "effects", "end", "formals", "name", "size", "start")

    def __init__(
        self, name: str, formals: tuple[Name, ...], body: Node, start: int, end: int
    ) -> None:
        self.name = name
        self.formals = formals
        self.body = body
        self.size = 0
        self.effects = False
        self.start = start
        self.end = end


Statement = Binding | Definition


class Program(NamedTuple):
    """A whole text, names resolved.

    source: the text; statements: in order; result: the final expression; params: the names
    of the parameters in order; constants: the values of the named constants; size: how
    many nodes there are when every definition is expanded.
    """

    source: str
    statements: tuple[Statement, ...]
    result: Node
    params: tuple[str, ...]
    constants: dict[str, int]
    size: int

    def __str__(self) -> str:
        return dump(self)

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, memo: object) -> Program:
        # It is never changed, and may be too deep for a copy that recurses.
        return self


def dump(program: Program) -> str:
    """The tree as text: one S-expression a statement, operators by their table names."""
    lines = ["params " + " ".join(program.params)] if program.params else ["params"]
    for statement in program.statements:
        if isinstance(statement, Binding):
            lines.append(f"{statement.name} = {_expression(statement.value)}")
        else:
            formals = ", ".join(formal.name for formal in statement.formals)
            lines.append(f"{statement.name}({formals}) = {_expression(statement.body)}")
    lines.append(_expression(program.result))
    return "\n".join(lines)


def _expression(root: Node) -> str:
    pieces: list[str] = []
    work: list[Node | str] = [root]
    while work:
        item = work.pop()
        if isinstance(item, str):
            pieces.append(item)
        elif isinstance(item, Literal):
            pieces.append(str(item.value))
        elif isinstance(item, Name):
            pieces.append(item.name)
        else:
            head, operands = _head(item)
            work.append(")")
            for operand in reversed(operands):
                work += (operand, " ")
            work.append("(" + head)
    return "".join(pieces)


def _head(node: Node) -> tuple[str, tuple[Node, ...]]:
    """The word that a node's S-expression begins with, and its operands in order."""
    if isinstance(node, Apply):
        return node.operator.name, node.operands
    if isinstance(node, Logical):
        return node.operator.name, node.parts
    if isinstance(node, Chain):
        return "chain:" + ",".join(row.name for row in node.operators), node.operands
    if isinstance(node, Conditional):
        return "select", (node.condition, node.then, node.otherwise)
    assert isinstance(node, Call)
    return node.name, node.arguments

"""Text to syntax tree.

Lark's LALR parser drives the callbacks of `_Builder`, which make nodes as it reduces; an
operation arrives as one flat list of operands and operator tokens, and `_fold` gives it
its shape by the precedence column of the operator table.  Names are still unresolved in
the tree that comes out (resolve.py).
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple, NoReturn, cast

from lark import Lark, UnexpectedToken

from ..errors import ExprError, ExprNameError, ExprSyntaxError
from . import literals
from .ast import (
    Apply,
    Binding,
    Call,
    Chain,
    Conditional,
    Definition,
    Literal,
    Logical,
    Name,
    Node,
    Statement,
)
from .lexer import Scanner, Token, TokenStream
from .limits import Limits
from .operators import FUNCTIONS, INFIX, OPERATORS, PREFIX, Operator
from .syntax_errors import explain

_COMPARISON = OPERATORS["lt"].precedence
_NOT = OPERATORS["not"].precedence
_NEG = OPERATORS["neg"]
#: The decimal literal that is in range only behind a minus sign.
_TOO_GREAT = 1 << 63


class Parsed(NamedTuple):
    """A text's statements and final expression, names unresolved."""

    statements: tuple[Statement, ...]
    result: Node


def parse(source: str, limits: Limits) -> Parsed:
    """The syntax tree of `source`.

    Raises ExprSyntaxError, ExprOverflowError (a literal), ExprNameError (the definition of
    a built-in) and ExprLimitError, each with its place.
    """
    lark, scanner = _parser()
    tokens = scanner.tokens(source, limits)
    if not tokens:
        raise ExprSyntaxError("the text holds no expression", source)
    try:
        return cast(Parsed, lark.parse(cast(str, tokens)))
    except UnexpectedToken as error:
        refused = error.token if isinstance(error.token, Token) else None
        raise explain(source, tokens, refused, error.accepts) from None
    except ExprError as error:
        # The callbacks know offsets, not the source.
        raise error.locate(source) from None


def grammar_path() -> str:
    """Where the grammar is: in the installed package, or beside it in a source tree."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "grammar", "expr.lark")
    if os.path.exists(installed):
        return installed
    return os.path.join(os.path.dirname(package), "grammar", "expr.lark")


_made: tuple[Lark, Scanner] | None = None


def _parser() -> tuple[Lark, Scanner]:
    """The parser and its scanner, made at the first call."""
    global _made
    if _made is None:
        with open(grammar_path(), encoding="utf-8") as file:
            lark = Lark(
                file.read(),
                parser="lalr",
                lexer=TokenStream,
                transformer=cast(Any, _Builder()),
                maybe_placeholders=False,
            )
        _made = lark, lark.parser.lexer.scanner
    return _made


class _Builder:
    """A method per rule or alias of the grammar; each is given the rule's children.

    There is no state: one builder serves all threads.
    """

    def start(self, children: list[list[Any]]) -> Parsed:
        *statements, result = children[0]
        for statement in statements:
            if isinstance(statement, Node):
                raise ExprSyntaxError(
                    "this statement has no effect",
                    None,
                    statement.start,
                    statement.end,
                    "only the last expression is the result; others are bound: `d = x - y;`",
                )
        if not isinstance(result, Node):
            kind = "binding" if isinstance(result, Binding) else "definition"
            raise ExprSyntaxError(
                f"the program ends with a {kind} and not with an expression",
                None,
                result.start,
                result.end,
                "`==` compares; after a binding comes `;` and an expression, the result",
            )
        return Parsed(tuple(statements), result)

    def first_statement(self, children: list[Any]) -> list[Any]:
        return children

    def next_statement(self, children: list[Any]) -> list[Any]:
        statements, statement = children
        statements.append(statement)
        return cast(list[Any], statements)

    def outcome(self, children: list[Node]) -> Node:
        return _checked(children[0])

    def statement(self, children: list[Node]) -> Statement:
        left, right = children
        value = _checked(right)
        start, end = left.start, right.end
        if _is_bare(left):
            assert type(left) is Name
            return Binding(left.name, value, start, end)
        name = None
        if type(left) is Call and left.name_end - start == len(left.name):
            name = left.name
            if name not in FUNCTIONS:
                return Definition(name, _formals(left.arguments), value, start, end)
        elif type(left) is Apply and left.operator.fixity == "function":
            name = left.operator.name
        if name is not None:
            raise ExprNameError(
                f"'{name}' is a built-in function and cannot be defined", None, start, left.end
            )
        raise ExprSyntaxError(
            "'=' binds a name, and this is not one",
            None,
            start,
            left.end,
            "`==` compares; `d = x - y;` binds a name and `f(v) = v * v;` defines a function",
        )

    def nothing(self, children: list[Any]) -> list[Node | Token]:
        return []

    def append(self, children: list[Any]) -> list[Node | Token]:
        items, item = children
        items.append(item)
        return cast("list[Node | Token]", items)

    def fold(self, children: list[list[Node | Token]]) -> Node:
        return _fold(children[0])

    def conditional(self, children: list[Any]) -> Node:
        condition, then, otherwise = _fold(children[0]), children[1], children[2]
        nodes = _checked(condition), _checked(then), _checked(otherwise)
        return Conditional(*nodes, condition.start, otherwise.end)

    def conditional_if(self, children: list[Any]) -> Node:
        then, condition, otherwise = _fold(children[0]), children[1], children[2]
        nodes = _checked(condition), _checked(then), _checked(otherwise)
        return Conditional(*nodes, then.start, otherwise.end)

    def number(self, children: list[Token]) -> Node:
        token = children[0]
        start, end = token.start, token.end
        return Literal(literals.number(token.text, start, end), start, end)

    def character(self, children: list[Token]) -> Node:
        token = children[0]
        start, end = token.start, token.end
        return Literal(literals.character(token.text, start, end), start, end)

    def name(self, children: list[Token]) -> Node:
        token = children[0]
        return Name(token.text, token.start, token.end)

    def call_of_nothing(self, children: list[Token]) -> Node:
        return _call(children[0], (), children[-1].end)

    def call(self, children: list[Any]) -> Node:
        name, _, arguments, close = children
        return _call(name, tuple(map(_checked, arguments)), close.end)

    def first_argument(self, children: list[Node]) -> list[Node]:
        return children

    def next_argument(self, children: list[Any]) -> list[Node]:
        arguments, argument = children
        arguments.append(argument)
        return cast(list[Node], arguments)

    def parentheses(self, children: list[Any]) -> Node:
        opening, node, closing = children
        _checked(node)
        node.start, node.end = opening.start, closing.end
        return cast(Node, node)


def _checked(node: Node) -> Node:
    """`node`, which is not the operand of a minus sign."""
    if type(node) is Literal and node.value == _TOO_GREAT:
        raise literals.too_great(node.value, node.start, node.end)
    return node


def _is_bare(node: Node) -> bool:
    """Whether `node` is a name without parentheses."""
    return type(node) is Name and node.end - node.start == len(node.name)


def _formals(arguments: tuple[Node, ...]) -> tuple[Name, ...]:
    for node in arguments:
        if not _is_bare(node):
            message = "a function is defined over names, and this is not one"
            raise ExprSyntaxError(message, None, node.start, node.end)
    return cast("tuple[Name, ...]", arguments)


def _call(name: Token, arguments: tuple[Node, ...], end: int) -> Node:
    operator = FUNCTIONS.get(name.text)
    if operator is not None:
        given = len(arguments)
        if given == operator.arity or (operator.variadic and given > operator.arity):
            return Apply(operator, arguments, name.start, end)
    # A wrong count is refused when names are resolved: this may yet be a definition.
    return Call(name.text, arguments, name.start, name.end, end)


class _Waiting(NamedTuple):
    """An operator whose right operand is not complete."""

    precedence: int
    operator: Operator
    prefix: bool
    start: int


def _fold(items: list[Node | Token]) -> Node:
    """The tree of a flat list of operands and operators: operator precedence (Floyd 1963)."""
    if len(items) == 1:
        return cast(Node, items[0])
    operands: list[Node] = []
    waiting: list[_Waiting] = []
    operand_due = True
    for item in items:
        if not isinstance(item, Token):
            operands.append(item)
            operand_due = False
        elif operand_due:
            operator, precedence = PREFIX[item.text]
            if precedence == _NOT and waiting and waiting[-1].precedence > _NOT:
                _refuse_loose_not(item)
            waiting.append(_Waiting(precedence, operator, True, item.start))
        else:
            operator = INFIX[item.text]
            precedence = operator.precedence
            # Comparisons in a row wait for one another: together they are a chain.
            right = operator.right_associative or precedence == _COMPARISON
            while waiting and (
                waiting[-1].precedence > precedence
                or (waiting[-1].precedence == precedence and not right)
            ):
                _reduce(operands, waiting)
            waiting.append(_Waiting(precedence, operator, False, item.start))
            operand_due = True
    while waiting:
        _reduce(operands, waiting)
    return operands[0]


def _refuse_loose_not(token: Token) -> NoReturn:
    """`not` cannot be the operand of a tighter operator; the tight prefixes can, as in 2 ** -x."""
    raise ExprSyntaxError(
        "'not' binds more loosely than the operator before it",
        None,
        token.start,
        token.end,
        "write `!x`, which binds tightly, or `(not x)`",
    )


def _reduce(operands: list[Node], waiting: list[_Waiting]) -> None:
    """Apply the last waiting operator to the last operands."""
    precedence, operator, prefix, start = waiting.pop()
    right = operands.pop()
    if prefix:
        if operator is _NEG and type(right) is Literal and right.value == _TOO_GREAT:
            operands.append(Literal(-_TOO_GREAT, start, right.end))
        else:
            operands.append(Apply(operator, (_checked(right),), start, right.end))
    elif precedence == _COMPARISON:
        operators, compared = [operator], [_checked(right)]
        while waiting and waiting[-1].precedence == _COMPARISON:
            operators.append(waiting.pop().operator)
            compared.append(_checked(operands.pop()))
        compared.append(_checked(operands.pop()))
        operands.append(_comparison(tuple(operators[::-1]), tuple(compared[::-1])))
    else:
        left = _checked(operands.pop())
        if operator.fixity == "lazy":
            operands.append(Logical(operator, left, _checked(right)))
        else:
            both = left, _checked(right)
            operands.append(Apply(operator, both, left.start, right.end))


def _comparison(operators: tuple[Operator, ...], operands: tuple[Node, ...]) -> Node:
    if len(operators) == 1:
        return Apply(operators[0], operands, operands[0].start, operands[1].end)
    return Chain(operators, operands)

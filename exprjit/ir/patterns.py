"""Rules as data, and how the graph finds the one that applies.

A pattern is an expression over pattern variables, written with Python's operators.  A rule
says that two of them are equal.  For speed a left side is compiled, when its operator is
first met, to steps over a flat list of nodes: the operands first, then the operands of each
node that has to have a certain operator, in the order of the steps.  Constants are computed
as plain ints, so that trying a rule leaves nothing behind in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from ..language.operators import LONG, OPERATORS, Width
from .facts import TRANSFERS, Facts, exactly

if TYPE_CHECKING:
    from .graph import Form, Graph, Node


class Pattern:
    """A side of a rule: an operator applied to patterns, a variable, or a literal.

    op: the operator's name; "any", "boolean", "constant" for variables; "literal".
    name: a variable's.  value: a literal's number, which may depend on the width.
    meaning: the operator's, where it is none of the table, but a function of constants.
    """

    __slots__ = ("args", "meaning", "name", "op", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Pattern, ...] = (),
        name: str = "",
        value: Callable[[Width], int] | None = None,
        meaning: Callable[..., int] | None = None,
    ) -> None:
        self.op = op
        self.args = args
        self.name = name
        self.value = value
        self.meaning = meaning

    def __add__(self, other: Any) -> Pattern:
        return apply("add", self, other)

    def __sub__(self, other: Any) -> Pattern:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Pattern:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Pattern:
        return apply("mul", self, other)

    def __and__(self, other: Any) -> Pattern:
        return apply("bitand", self, other)

    def __or__(self, other: Any) -> Pattern:
        return apply("bitor", self, other)

    def __xor__(self, other: Any) -> Pattern:
        return apply("bitxor", self, other)

    def __lshift__(self, other: Any) -> Pattern:
        return apply("shl", self, other)

    def __neg__(self) -> Pattern:
        return apply("neg", self)

    def __invert__(self) -> Pattern:
        return apply("bitnot", self)

    def variables(self) -> Iterator[Pattern]:
        """The variables of the pattern, left to right, with repetitions."""
        if self.name:
            yield self
        for arg in self.args:
            yield from arg.variables()

    @property
    def known(self) -> bool:
        """Whether the value is known when the constants are."""
        return all(variable.op == "constant" for variable in self.variables())

    def __str__(self) -> str:
        if self.name:
            return self.name
        if self.value is not None:
            number = self.value(LONG)
            return {LONG.min: "MIN", LONG.max: "MAX"}.get(number, str(number))
        return f"{self.op}({', '.join(map(str, self.args))})"


def by_width(value: Callable[[Width], int]) -> Pattern:
    """The pattern of a number that depends on the width."""
    return Pattern("literal", value=value)


def literal(value: int) -> Pattern:
    """The pattern of a number."""
    return by_width(lambda width: width.wrap(value))


def pattern(value: Any) -> Pattern:
    """`value` itself if it is a pattern, else the literal of that number."""
    return value if isinstance(value, Pattern) else literal(value)


def apply(op: str, *operands: Any) -> Pattern:
    """The pattern of operator `op`; ints are literals."""
    return Pattern(op, tuple(map(pattern, operands)))


def function(name: str) -> Callable[..., Pattern]:
    """What makes patterns of the operator called `name`."""
    return lambda *operands: apply(name, *operands)


def computed(meaning: Callable[..., int]) -> Callable[..., Pattern]:
    """What makes patterns of a function of the width and of constants."""
    name = meaning.__name__
    return lambda *operands: Pattern(name, tuple(map(pattern, operands)), meaning=meaning)


def meaning(side: Pattern) -> Callable[..., int]:
    """What a pattern's operator computes from numbers, the width first, before wrapping."""
    return OPERATORS[side.op].meaning if side.meaning is None else side.meaning


MIN: Final = by_width(lambda width: width.min)
MAX: Final = by_width(lambda width: width.max)
BITS: Final = by_width(lambda width: width.bits)
#: The greatest shift count, which is also the mask that takes counts modulo the width.
COUNT: Final = by_width(lambda width: width.bits - 1)


class Rule:
    """``left == right`` wherever `when` is not 0.

    A condition on values that are not constant holds where it follows from what is known of them.

    wrap_only: not used under overflow="raise", where it is true but makes the code dearer
    (the values it avoids are computed for the overflow checks anyway).
    native: an operator that the machine must have, because the table's expansion of it is
    what stands on the left.
    """

    __slots__ = ("left", "name", "native", "right", "when", "wrap_only")

    def __init__(
        self,
        name: str,
        left: Pattern,
        right: Pattern,
        when: Pattern | None,
        wrap_only: bool,
        native: str | None = None,
    ) -> None:
        self.name = name
        self.left = left
        self.native = native
        self.right = right
        self.when = when
        self.wrap_only = wrap_only

    def __str__(self) -> str:
        condition = "" if self.when is None else f" if {self.when}"
        return f"{self.name}: {self.left} = {self.right}{condition}"


class RuleList(list[Rule]):
    """Rules under headings.

    sections: for each heading its title, and how many rules there are before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[tuple[str, int]] = []

    def section(self, title: str) -> None:
        """What the rules from here on are about."""
        self.sections.append((title, len(self)))

    def rule(
        self,
        name: str,
        left: Pattern,
        right: Any,
        when: Pattern | None = None,
        wrap_only: bool = False,
        native: str | None = None,
    ) -> None:
        """Add a rule (see `Rule`) to the list; `right` may be a number."""
        self.append(Rule(name, left, pattern(right), when, wrap_only, native))


def orders(left: Pattern) -> Iterator[Pattern]:
    """`left` with the operands of commutative operators in every order that a graph can have."""
    if not left.args:
        yield left
        return
    for args in product(*map(orders, left.args)):
        yield Pattern(left.op, args)
        # The graph has constants on the right; an order that looks the same finds the same.
        if (
            OPERATORS[left.op].commutative
            and args[1].op not in ("constant", "literal")
            and str(args[0]) != str(args[1])
        ):
            yield Pattern(left.op, args[::-1])


# Compiling. --------------------------------------------------------------------------------

#: Whether the nodes so far have the form of a left side; may add to them.
Step = Callable[[list["Node"]], bool]


def _same(first: int, second: int) -> Step:
    return lambda nodes: nodes[first] is nodes[second]


def _constant(place: int) -> Step:
    return lambda nodes: nodes[place].op == "const"


def _boolean(place: int) -> Step:
    return lambda nodes: nodes[place].boolean


def _literal(place: int, number: int) -> Step:
    return lambda nodes: nodes[place].value == number and nodes[place].op == "const"


def _operator(place: int, op: str) -> Step:
    def step(nodes: list[Node]) -> bool:
        node = nodes[place]
        if node.op != op:
            return False
        nodes += node.args
        return True

    return step


def _steps(left: Pattern, places: dict[str, int]) -> list[Step]:
    """What has to hold for operands to match those of `left`; `places` takes the variables'."""
    steps: list[Step] = []
    parts = list(left.args)
    for place, part in enumerate(parts):
        if part.name in places:
            steps.append(_same(places[part.name], place))
        elif part.name:
            places[part.name] = place
            if part.op == "boolean":
                steps.append(_boolean(place))
            elif part.op == "constant" and place >= len(left.args):
                steps.append(_constant(place))
        elif part.value is not None:
            steps.append(_literal(place, part.value(LONG)))
        else:
            steps.append(_operator(place, part.op))
            parts += part.args
    return steps


def _number(side: Pattern, places: dict[str, int]) -> Callable[[list[Node]], int]:
    """What computes a pattern of constants."""
    if side.name:
        place = places[side.name]
        return lambda nodes: nodes[place].value
    if side.value is not None:
        number = side.value(LONG)
        return lambda nodes: number
    compute = meaning(side)
    parts = [_number(arg, places) for arg in side.args]
    return lambda nodes: LONG.wrap(compute(LONG, *[part(nodes) for part in parts]))


def _facts(side: Pattern, places: dict[str, int]) -> Callable[[list[Node]], Facts]:
    """What gives what is known of a pattern's value."""
    if side.known:
        number = _number(side, places)
        return lambda nodes: exactly(LONG, number(nodes))
    if side.name:
        place = places[side.name]
        return lambda nodes: nodes[place].facts
    transfer = TRANSFERS[side.op]
    parts = [_facts(arg, places) for arg in side.args]
    return lambda nodes: transfer(LONG, *[part(nodes) for part in parts])


def _conjuncts(condition: Pattern | None) -> list[Pattern]:
    """The conditions that all have to hold for `condition`, those on constants first."""
    if condition is None:
        return []
    parts, found = [condition], []
    while parts:
        part = parts.pop()
        if part.op == "bitand":
            parts += part.args[::-1]
        else:
            found.append(part)
    return sorted(found, key=lambda part: not part.known)


def _test(condition: Pattern, places: dict[str, int]) -> Callable[[list[Node]], bool]:
    """Whether a condition, which is 0 or 1, is known to hold."""
    if condition.known:
        number = _number(condition, places)
        return lambda nodes: number(nodes) != 0
    facts = _facts(condition, places)
    return lambda nodes: facts(nodes).low == 1


def _node(side: Pattern, places: dict[str, int]) -> Callable[[Graph, list[Node]], Node]:
    """What makes the node of a pattern."""
    if side.known:
        number = _number(side, places)
        return lambda graph, nodes: graph.const(number(nodes))
    if side.name:
        place = places[side.name]
        return lambda graph, nodes: nodes[place]
    form = _form(side, places)
    return lambda graph, nodes: graph.make(*form(graph, nodes))


def _form(side: Pattern, places: dict[str, int]) -> Callable[[Graph, list[Node]], Form]:
    """What makes the operator and the operands of a pattern."""
    op = side.op
    parts = [_node(arg, places) for arg in side.args]
    return lambda graph, nodes: (op, *[part(graph, nodes) for part in parts])


class _Candidate:
    """A rule with its left side in one order, compiled.

    args: the operands to match; tests: the conditions; result: what makes the right side.
    """

    __slots__ = ("args", "name", "native", "result", "steps", "tests")

    def __init__(self, rule: Rule, left: Pattern) -> None:
        places: dict[str, int] = {}
        right = rule.right
        self.name = rule.name
        self.native = rule.native
        self.args = left.args
        self.steps = _steps(left, places)
        self.tests = [_test(condition, places) for condition in _conjuncts(rule.when)]
        self.result = (_form if right.args and not right.known else _node)(right, places)

    def may_match(self, args: tuple[Node, ...]) -> bool:
        """Whether operands with the operators of these may match."""
        if not all(map(_may_match, self.args, args)):
            return False
        pairs = zip(self.args, args, strict=True)
        named = {(part.name, arg.op) for part, arg in pairs if part.name}
        return len(named) == len(dict(named))


def _may_match(part: Pattern, node: Node) -> bool:
    if part.op in ("any", "boolean"):
        return True
    if part.op in ("constant", "literal"):
        return node.op == "const"
    return part.op == node.op


class Rules:
    """The rules ready to be tried, for one overflow mode."""

    def __init__(self, rules: Iterable[Rule], overflow: str) -> None:
        self._by_op: dict[str, list[Rule]] = {}
        for rule in rules:
            if overflow == "wrap" or not rule.wrap_only:
                self._by_op.setdefault(rule.left.op, []).append(rule)
        self._compiled: dict[str, list[_Candidate]] = {}
        self._by_key: dict[tuple[str, ...], list[_Candidate]] = {}

    def rewrite(self, graph: Graph, op: str, args: tuple[Node, ...]) -> Node | Form | None:
        """What the first rule that matches makes of ``op(args)``, or None."""
        key = (op, *[arg.op for arg in args])
        candidates = self._by_key.get(key)
        if candidates is None:
            candidates = self._by_key[key] = self._candidates(op, args)
        for candidate in candidates:
            nodes = list(args)
            for step in candidate.steps:
                if not step(nodes):
                    break
            else:
                for test in candidate.tests:
                    if not test(nodes):
                        break
                else:
                    if candidate.native is not None and candidate.native not in graph.native:
                        continue
                    if graph.fired is not None:
                        graph.fired.append(candidate.name)
                    return candidate.result(graph, nodes)
        return None

    def _candidates(self, op: str, args: tuple[Node, ...]) -> list[_Candidate]:
        """The candidates whose left side can match nodes with these operators."""
        compiled = self._compiled.get(op)
        if compiled is None:
            compiled = self._compiled[op] = [
                _Candidate(rule, left)
                for rule in self._by_op.get(op, ())
                for left in orders(rule.left)
            ]
        return [candidate for candidate in compiled if candidate.may_match(args)]

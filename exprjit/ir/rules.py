"""The algebra beyond the table's columns: rules, each a name and a line of maths.

A rule is data: a left side, a right side and perhaps a condition, all three written as
expressions over pattern variables.  `x y z` stand for any value, `b e` for a value that is
0 or 1, `c d` for constants.  The graph tries a rule where the operators of its two topmost
levels match; the condition and the constants of the right side are computed by folding.
Being data, every rule is proved by the tests, exhaustively at small widths and on edge
values at 64 bits, with the meanings of the operator table.

Rules are about values only: nodes are total, and what can fail stands in bail conditions,
which no rule removes.  A right side is never dearer than its left side and always nearer
to a fixed order of forms, so rewriting ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from ..language.operators import OPERATORS, Width

if TYPE_CHECKING:
    from .graph import Graph, Node


class Pattern:
    """A side of a rule: an operator applied to patterns, a variable, or a constant.

    op: the operator's name; "any", "boolean", "constant" for variables; "literal".
    """

    __slots__ = ("args", "name", "op", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Pattern, ...] = (),
        name: str = "",
        value: Callable[[Width], int] | None = None,
    ) -> None:
        self.op = op
        self.args = args
        self.name = name
        self.value = value

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

    def __str__(self) -> str:
        if self.name:
            return self.name
        if self.value is not None:
            value = self.value(Width(64))
            return {Width(64).min: "MIN", Width(64).max: "MAX"}.get(value, str(value))
        return f"{self.op}({', '.join(map(str, self.args))})"


def apply(op: str, *operands: Any) -> Pattern:
    """The pattern of operator `op`; ints are literals."""
    return Pattern(op, tuple(a if isinstance(a, Pattern) else literal(a) for a in operands))


def literal(value: int) -> Pattern:
    return Pattern("literal", value=lambda width: width.wrap(value))


def _function(name: str) -> Callable[..., Pattern]:
    return lambda *operands: apply(name, *operands)


class Rule:
    """``left == right`` wherever `when` is not 0.

    wrap_only: not used under overflow="raise", where it is true but makes the code dearer
    (the values it avoids are computed for the overflow checks anyway).
    """

    __slots__ = ("left", "name", "right", "when", "wrap_only")

    def __init__(
        self, name: str, left: Pattern, right: Pattern, when: Pattern | None, wrap_only: bool
    ) -> None:
        self.name = name
        self.left = left
        self.right = right
        self.when = when
        self.wrap_only = wrap_only

    def __str__(self) -> str:
        condition = "" if self.when is None else f" if {self.when}"
        return f"{self.name}: {self.left} = {self.right}{condition}"


RULES: list[Rule] = []


def rule(
    name: str, left: Pattern, right: Any, when: Pattern | None = None, wrap_only: bool = False
) -> None:
    """Add a rule to the list."""
    side = right if isinstance(right, Pattern) else literal(right)
    RULES.append(Rule(name, left, side, when, wrap_only))


x, y, z = (Pattern("any", name=_name) for _name in "xyz")
b, e = (Pattern("boolean", name=_name) for _name in "be")
c, d = (Pattern("constant", name=_name) for _name in "cd")
MIN: Final = Pattern("literal", value=lambda width: width.min)
MAX: Final = Pattern("literal", value=lambda width: width.max)
BITS: Final = Pattern("literal", value=lambda width: width.bits)
COUNT: Final = Pattern("literal", value=lambda width: width.bits - 1)

sar, shr, select, eq, ne, lt, le, gt, ge, ult, uge, ugt, ule = map(
    _function, "sar shr select eq ne lt le gt ge ult uge ugt ule".split()
)
power_of_two = eq(_function("popcount")(c), 1)
exponent = _function("ctz")(c)

# Sums. -------------------------------------------------------------------------------------
rule("sub-constant", x - c, x + -c)
rule("sub-from-zero", literal(0) - x, -x)
rule("sub-from-minus-one", literal(-1) - x, ~x)
rule("add-negated", x + -y, x - y)
rule("sub-negated", x - -y, x + y)
rule("add-then-sub", (x + y) - y, x)
rule("sub-then-add", (x - y) + y, x)
rule("sub-sum-from-part", x - (x + y), -y)
rule("sub-difference", x - (x - y), y)
rule("add-complement", x + ~x, -1)
rule("add-twice", x + x, x << 1, wrap_only=True)
rule("carry-save", (x ^ y) + ((x & y) << 1), x + y)
rule("or-plus-and", (x | y) + (x & y), x + y)
rule("xor-plus-and", (x ^ y) + (x & y), x | y)
rule("or-minus-and", (x | y) - (x & y), x ^ y)
rule("or-minus-xor", (x | y) - (x ^ y), x & y)
rule("add-constants", (x + c) + d, x + (c + d), wrap_only=True)
rule("sub-from-constants", c - (x + d), (c - d) - x, wrap_only=True)
rule("add-to-sub-from", (c - x) + d, (c + d) - x, wrap_only=True)

# Negation and complement. ------------------------------------------------------------------
rule("neg-neg", -(-x), x)
rule("neg-difference", -(x - y), y - x)
rule("neg-complement", -(~x), x + 1)
rule("complement-complement", ~~x, x)
rule("complement-neg", ~(-x), x + -1)
rule("complement-plus-one", ~x + 1, -x)

# Products. ---------------------------------------------------------------------------------
rule("mul-minus-one", x * -1, -x)
rule("mul-power-of-two", x * c, x << exponent, power_of_two, wrap_only=True)
rule("mul-constants", (x * c) * d, x * (c * d), wrap_only=True)
rule("mul-shifted", (x << c) * d, x * (d << c), wrap_only=True)
rule("mul-negated", -x * c, x * -c, wrap_only=True)
rule("square", _function("pow")(x, 2), x * x)
rule("pow-zero", _function("pow")(x, 0), 1)

# Quotients; the divisor's bail condition stands elsewhere. ----------------------------------
for _name in ("div", "floordiv"):
    rule(f"{_name}-minus-one", apply(_name, x, -1), -x)
for _name in ("rem", "floormod"):
    rule(f"{_name}-one", apply(_name, x, 1), 0)
    rule(f"{_name}-minus-one", apply(_name, x, -1), 0)
rule("umod-power-of-two", apply("umod", x, c), x & (c + -1), power_of_two)
rule("udiv-power-of-two", apply("udiv", x, c), shr(x, exponent), power_of_two)
rule(
    "floordiv-power-of-two",
    apply("floordiv", x, c),
    sar(x, exponent),
    power_of_two & gt(c, 0),
)
rule(
    "floormod-power-of-two",
    apply("floormod", x, c),
    x & (c + -1),
    power_of_two & gt(c, 0),
)

# Shifts. -----------------------------------------------------------------------------------
for _name in ("shl", "sar", "shr", "rotl", "rotr"):
    rule(f"{_name}-count", apply(_name, x, c), apply(_name, x, c & COUNT), ugt(c, COUNT))
    rule(f"{_name}-masked-count", apply(_name, x, y & COUNT), apply(_name, x, y))
for _name in ("shl", "shr"):
    rule(f"{_name}-twice", apply(_name, apply(_name, x, c), d), apply(_name, x, c + d),
         ult(c, BITS) & ult(d, BITS) & ult(c + d, BITS))  # fmt: skip
rule("sar-twice", sar(sar(x, c), d), sar(x, c + d), ult(c, BITS) & ult(d, BITS) & ult(c + d, BITS))
rule("rotl-twice", apply("rotl", apply("rotl", x, c), d), apply("rotl", x, c + d))
rule("rotr-constant", apply("rotr", x, c), apply("rotl", x, BITS - c))
# The mask has to be one that fits an instruction: up to half of the bits.
rule("shl-shr", shr(x << c, c), x & shr(-1, c), uge(c + c, BITS) & ult(c, BITS))
rule("sign-of-complement", shr(~x, COUNT), ge(x, 0))
rule("sign-bit", shr(x, COUNT), lt(x, 0))

# Bits. -------------------------------------------------------------------------------------
for _name in ("bitand", "bitor", "bitxor"):
    rule(
        f"{_name}-constants",
        apply(_name, apply(_name, x, c), d),
        apply(_name, x, apply(_name, c, d)),
    )
rule("and-complement", x & ~x, 0)
rule("or-complement", x | ~x, -1)
rule("xor-complement", x ^ ~x, -1)
rule("xor-minus-one", x ^ -1, ~x)
rule("xor-complements", ~x ^ ~y, x ^ y)
rule("xor-twice", (x ^ y) ^ y, x)
rule("and-or", (x | y) & x, x)
rule("or-and", (x & y) | x, x)
rule("and-twice", (x & y) & x, x & y)
rule("or-twice", (x | y) | x, x | y)
rule("and-one-of-boolean", b & 1, b)
rule("xor-one-of-boolean", b ^ 1, eq(b, 0))
rule("bswap-twice", apply("bswap", apply("bswap", x)), x)
rule("abs-abs", apply("abs", apply("abs", x)), apply("abs", x))
rule("abs-neg", apply("abs", -x), apply("abs", x))
for _name, _narrower in (("i8", "i8"), ("i16", "i8"), ("i16", "i16"), ("i32", "i8"),
                         ("i32", "i16"), ("i32", "i32")):  # fmt: skip
    rule(f"{_name}-of-{_narrower}", apply(_name, apply(_narrower, x)), apply(_narrower, x))

# Comparisons. ------------------------------------------------------------------------------
for _name in "eq ne lt le gt ge ult ule ugt uge".split():
    _negation = OPERATORS[_name].negation
    assert _negation is not None
    rule(f"not-{_name}", eq(apply(_name, x, y), 0), apply(_negation, x, y))
    if _name < _negation:
        rule(f"{_name}-and-{_negation}", apply(_name, x, y) & apply(_negation, x, y), 0)
        rule(f"{_name}-or-{_negation}", apply(_name, x, y) | apply(_negation, x, y), 1)
    rule(
        f"guarded-{_name}-and-{_negation}",
        (b & apply(_name, x, y)) & apply(_negation, x, y),
        0,
    )
for _name in ("eq", "ne"):
    rule(f"{_name}-difference", apply(_name, x - y, 0), apply(_name, x, y))
    rule(f"{_name}-xor", apply(_name, x ^ y, 0), apply(_name, x, y))
    rule(f"{_name}-neg", apply(_name, -x, c), apply(_name, x, -c))
    rule(f"{_name}-complement", apply(_name, ~x, c), apply(_name, x, ~c))
    rule(f"{_name}-sum", apply(_name, x + c, d), apply(_name, x, d - c), wrap_only=True)
rule("ne-zero-of-boolean", ne(b, 0), b)
rule("eq-one-of-boolean", eq(b, 1), b)
rule("ne-one-of-boolean", ne(b, 1), eq(b, 0))
rule("not-not", eq(eq(x, 0), 0), ne(x, 0))
rule("lt-least", lt(x, MIN), 0)
rule("ge-least", ge(x, MIN), 1)
rule("gt-greatest", gt(x, MAX), 0)
rule("le-greatest", le(x, MAX), 1)
rule("ult-zero", ult(x, 0), 0)
rule("uge-zero", uge(x, 0), 1)
rule("ugt-zero", ugt(x, 0), ne(x, 0))
rule("ule-zero", ule(x, 0), eq(x, 0))
rule("ult-one", ult(x, 1), eq(x, 0))
rule("uge-one", uge(x, 1), ne(x, 0))

# Choices. ----------------------------------------------------------------------------------
rule("select-same", select(x, y, y), y)
rule("select-on-zero", select(eq(x, 0), y, z), select(x, z, y))
rule("select-on-not-zero", select(ne(x, 0), y, z), select(x, y, z))
rule("select-truth-of-boolean", select(b, 1, 0), b)
rule("select-truth", select(x, 1, 0), ne(x, 0))
rule("select-falsehood", select(x, 0, 1), eq(x, 0))
rule("select-min", select(lt(x, y), x, y), apply("min", x, y))
rule("select-min-le", select(le(x, y), x, y), apply("min", x, y))
rule("select-max", select(gt(x, y), x, y), apply("max", x, y))
rule("select-max-ge", select(ge(x, y), x, y), apply("max", x, y))
rule("select-abs", select(lt(x, 0), -x, x), apply("abs", x))
rule("select-abs-ge", select(ge(x, 0), x, -x), apply("abs", x))
rule("min-max", apply("min", apply("max", x, y), x), x)
rule("max-min", apply("max", apply("min", x, y), x), x)

# Overflow. ---------------------------------------------------------------------------------
rule("add-overflows-zero", apply("add_overflows", x, 0), 0)
rule("sub-overflows-zero", apply("sub_overflows", x, 0), 0)
rule(
    "sub-overflows-constant",
    apply("sub_overflows", x, c),
    apply("add_overflows", x, -c),
    ne(c, MIN),
)
rule("sub-overflows-same", apply("sub_overflows", x, x), 0)
rule("mul-overflows-zero", apply("mul_overflows", x, 0), 0)
rule("mul-overflows-one", apply("mul_overflows", x, 1), 0)
rule("mul-overflows-minus-one", apply("mul_overflows", x, -1), eq(x, MIN))
rule("pow-overflows-zero", apply("pow_overflows", x, 0), 0)
rule("pow-overflows-one", apply("pow_overflows", x, 1), 0)
rule("pow-overflows-two", apply("pow_overflows", x, 2), apply("mul_overflows", x, x))


# Matching. ---------------------------------------------------------------------------------


def orders(pattern: Pattern) -> Iterator[Pattern]:
    """`pattern` with the operands of commutative operators in every order."""
    if not pattern.args:
        yield pattern
        return
    for args in product(*map(orders, pattern.args)):
        yield Pattern(pattern.op, args)
        if OPERATORS[pattern.op].commutative and str(args[0]) != str(args[1]):
            yield Pattern(pattern.op, args[::-1])


class Rules:
    """The rules ready to be tried, for one overflow mode."""

    def __init__(self, rules: Iterable[Rule], overflow: str) -> None:
        self._by_op: dict[str, list[tuple[Pattern, Rule]]] = {}
        for rule_ in rules:
            if rule_.wrap_only and overflow != "wrap":
                continue
            for left in orders(rule_.left):
                self._by_op.setdefault(left.op, []).append((left, rule_))
        self._by_key: dict[tuple[str, ...], list[tuple[Pattern, Rule]]] = {}

    def rewrite(self, graph: Graph, op: str, args: tuple[Node, ...]) -> Node | None:
        """What the first rule that matches makes of ``op(args)``, or None."""
        key = (op, *[arg.op for arg in args])
        candidates = self._by_key.get(key)
        if candidates is None:
            candidates = self._by_key[key] = self._candidates(op, args)
        for left, rule_ in candidates:
            bound: dict[str, Node] = {}
            for pattern, arg in zip(left.args, args):  # noqa: B905  # equal by construction
                if not _matches(pattern, arg, bound):
                    break
            else:
                if rule_.when is not None:
                    holds = _substitute(graph, rule_.when, bound)
                    if holds.op != "const" or not holds.value:
                        continue
                if graph.fired is not None:
                    graph.fired.append(rule_.name)
                return _substitute(graph, rule_.right, bound)
        return None

    def _candidates(self, op: str, args: tuple[Node, ...]) -> list[tuple[Pattern, Rule]]:
        """The rules whose left side can match nodes with these operators."""
        return [
            (left, rule_)
            for left, rule_ in self._by_op.get(op, ())
            if all(map(_may_match, left.args, args))
        ]


def _may_match(pattern: Pattern, node: Node) -> bool:
    if pattern.op in ("any", "boolean"):
        return True
    if pattern.op in ("constant", "literal"):
        return node.op == "const"
    return pattern.op == node.op


_LONG: Final = Width(64)


def _matches(pattern: Pattern, node: Node, bound: dict[str, Node]) -> bool:
    """Whether `node` has the form of `pattern`; `bound` takes what the variables stand for."""
    if pattern.name:
        known = bound.get(pattern.name)
        if known is not None:
            return known is node
        if pattern.op == "constant" and node.op != "const":
            return False
        if pattern.op == "boolean" and not node.boolean:
            return False
        bound[pattern.name] = node
        return True
    if pattern.value is not None:
        return node.op == "const" and node.value == pattern.value(_LONG)
    if pattern.op != node.op:
        return False
    for part, arg in zip(pattern.args, node.args):  # noqa: B905  # equal by construction
        if not _matches(part, arg, bound):
            return False
    return True


def _substitute(graph: Graph, pattern: Pattern, bound: dict[str, Node]) -> Node:
    if pattern.name:
        return bound[pattern.name]
    if pattern.value is not None:
        return graph.const(pattern.value(_LONG))
    return graph.make(pattern.op, *[_substitute(graph, arg, bound) for arg in pattern.args])


BY_MODE: Final = {mode: Rules(RULES, mode) for mode in ("wrap", "raise")}

"""Strength reduction: rules for the machine, used when the graph is otherwise finished.

Divisions by constants stay as they are until then, so that the algebra of rules.py knows them;
then they become multiplications and shifts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from ..language.arithmetic import Width
from ..language.ast import Program
from ..language.operators import OPERATORS
from . import reciprocals
from .build import build
from .facts import both
from .fields import Field, field_node, join_fields, unsigned_shifts, uses_of
from .graph import CALL, CALL_IF, CONST, PARAM, Graph, Node
from .patterns import BITS, COUNT, MIN, Pattern, RuleList, Rules, by_width, computed, function
from .rules import (
    RULES,
    c,
    div,
    eq,
    exponent,
    floordiv,
    floormod,
    gt,
    le,
    lt,
    natural,
    ne,
    popcount,
    power_of_two,
    rem,
    sar,
    select,
    shr,
    udiv,
    uge,
    umod,
    x,
)

REDUCTIONS: Final = RuleList()
rule, section = REDUCTIONS.rule, REDUCTIONS.section

mulhi, umulhi = map(function, ("mulhi", "umulhi"))

signed_magic = computed(reciprocals.signed_magic)(c)
signed_shift = computed(reciprocals.signed_shift)(c)
natural_magic = computed(reciprocals.natural_magic)(c)
natural_shift = computed(reciprocals.natural_shift)(c)
unsigned_magic = computed(reciprocals.unsigned_magic)(c)
unsigned_shift = computed(reciprocals.unsigned_shift)(c)
unsigned_fits = computed(reciprocals.unsigned_fits)(c)
halved_magic = computed(reciprocals.halved_magic)(c)
halved_shift = computed(reciprocals.halved_shift)(c)


def _greatest_of(bits: Callable[[Width], int]) -> Pattern:
    """The greatest natural number of so many bits."""
    return by_width(lambda w: (1 << bits(w)) - 1)


ordinary = gt(c, 2) & ne(popcount(c), 1)
sign = sar(x, COUNT)

section("Quotients toward zero")
rule("div-by-least", div(x, c), eq(x, MIN), eq(c, MIN))
rule("div-by-negative", div(x, c), -div(x, -c), lt(c, 0) & ne(c, MIN))
rule("div-by-two", div(x, c), sar(x + shr(x, COUNT), 1), eq(c, 2))
rule(
    "div-by-power-of-two",
    div(x, c),
    sar(select(lt(x, 0), x + (c + -1), x), exponent),
    power_of_two & gt(c, 2),
)
rule(
    "div-by-magic",
    div(x, c),
    sar(mulhi(x, signed_magic), signed_shift) - sign,
    ordinary & gt(signed_magic, 0),
)
rule(
    "div-by-large-magic",
    div(x, c),
    sar(mulhi(x, signed_magic) + x, signed_shift) - sign,
    ordinary & lt(signed_magic, 0),
)
rule("rem-by-least", rem(x, c), select(eq(x, MIN), 0, x), eq(c, MIN))
rule("rem-by-negative", rem(x, c), rem(x, -c), lt(c, 0) & ne(c, MIN))
_bias = shr(sign, BITS - exponent)
rule(
    "rem-by-power-of-two",
    rem(x, c),
    ((x + _bias) & (c + -1)) - _bias,
    power_of_two & gt(c, 1),
)
rule("rem-by-magic", rem(x, c), x - div(x, c) * c, ordinary)

# Of x or, if that is negative, of ~x, and then ~ again.
section("Quotients toward minus infinity")
rule(
    "floordiv-by-magic",
    floordiv(x, c),
    shr(umulhi(x ^ sign, natural_magic), natural_shift) ^ sign,
    ordinary,
)
rule("floormod-by-magic", floormod(x, c), x - floordiv(x, c) * c, ordinary)

section("Unsigned quotients")
rule("udiv-by-large", udiv(x, c), uge(x, c), lt(c, 0))
for _name, _bits, _magic, _shift in (
    ("short", reciprocals.short_bits, reciprocals.short_magic, reciprocals.short_shift),
    ("half", reciprocals.half_bits, reciprocals.half_magic, reciprocals.half_shift),
):
    _most = _greatest_of(_bits)
    rule(
        f"udiv-of-{_name}",
        udiv(x, c),
        shr(x * computed(_magic)(c), computed(_shift)(c)),
        ordinary & le(c, _most) & natural & le(x, _most),
    )
rule(
    "udiv-of-natural",
    udiv(x, c),
    shr(umulhi(x, natural_magic), natural_shift),
    ordinary & natural,
)
rule(
    "udiv-by-magic",
    udiv(x, c),
    shr(umulhi(x, unsigned_magic), unsigned_shift),
    ordinary & unsigned_fits,
)
rule(
    "udiv-by-even",
    udiv(x, c),
    shr(umulhi(shr(x, exponent), halved_magic), halved_shift),
    ordinary & eq(c & 1, 0),
)
_high = umulhi(x, unsigned_magic)
rule(
    "udiv-by-large-magic",
    udiv(x, c),
    shr(shr(x - _high, 1) + _high, unsigned_shift + -1),
    ordinary & eq(unsigned_fits, 0),
)
rule("umod-by-large", umod(x, c), select(uge(x, c), x - c, x), lt(c, 0))
rule("umod-by-magic", umod(x, c), x - udiv(x, c) * c, ordinary)

BY_MODE: Final = {mode: Rules([*REDUCTIONS, *RULES], mode) for mode in ("wrap", "raise")}

#: The rules that vectors have something better than, in doubles.
_MULTIPLYING: Final = (
    "div-by-magic",
    "div-by-large-magic",
    "rem-by-magic",
    "floordiv-by-magic",
    "floormod-by-magic",
)
_FOR_LANES: Final = [rule for rule in REDUCTIONS if rule.name not in _MULTIPLYING]
BY_MODE_FOR_LANES: Final = {mode: Rules([*_FOR_LANES, *RULES], mode) for mode in ("wrap", "raise")}

#: What is not expanded before, for there are rules for it.
FLOORING: Final = frozenset(("floordiv", "floormod"))
_REDUCED: Final = FLOORING | {"div", "rem", "udiv", "umod"}


def _is_reduced(node: Node) -> bool:
    return node.op in _REDUCED and (node.args[1].op is CONST or node.op in FLOORING)


def _joined(graph: Graph, fields: list[Field], made: dict[Node, Node]) -> Node:
    """The disjunction of fields, whose sources have these nodes."""
    nodes = [field_node(graph, field, made[field.source]) for field in fields]
    joined = nodes[0]
    for node in nodes[1:]:
        joined = graph.make("bitor", joined, node)
    return joined


def _is_ordinary(divisor: Node) -> bool:
    return divisor.op is CONST and divisor.value > 2


def build_reduced(
    program: Program,
    overflow: str,
    native: frozenset[str] = frozenset(),
    fired: list[str] | None = None,
    most: int = 1 << 62,
) -> Graph:
    """The graph that code is made of: `build` with the same arguments, and then `reduce`."""
    graph = build(program, overflow, native | FLOORING, fired, most)
    return reduce(graph, overflow, native)


def _unsigned_shifts(graph: Graph) -> Collection[Node]:
    """The arithmetic shifts that may be logical, which vectors have more often."""
    others = {graph.result, *graph.effects, *(bail.condition for bail in graph.bails)}
    return unsigned_shifts(graph.live()) - others


def reduce(graph: Graph, overflow: str, native: frozenset[str], for_lanes: bool = False) -> Graph:
    """The graph with cheaper operators where there are such, and all expansions made.

    native: operators to keep although the table has an expansion for them.  for_lanes: quotients
    by constants stay what they are.  Raises GraphTooLarge.
    """
    if not any(map(_is_reduced, graph.nodes)) and not for_lanes:
        return graph
    uses = uses_of(graph) if for_lanes else {}
    unsigned = _unsigned_shifts(graph) if for_lanes else frozenset()
    rules = (BY_MODE_FOR_LANES if for_lanes else BY_MODE)[overflow]
    kept = native | FLOORING if for_lanes else native
    new = Graph(graph.params, kept, rules, graph.most, graph.known)
    new.fired = graph.fired
    made: dict[Node, Node] = {}
    bails = deque(graph.bails)

    def bail_before(index: int) -> None:
        while bails and bails[0].position <= index:
            bail = bails.popleft()
            new.span = bail.span
            new.bail(made[bail.condition])

    for node in graph.live():
        bail_before(node.index)
        new.span = node.span
        args = tuple(made[arg] for arg in node.args)
        if node.op is CONST:
            made[node] = new.const(node.value)
        elif node.op is PARAM:
            made[node] = new.param(node.value)
        elif node.op is CALL:
            made[node] = new.call(*graph.externs[node.value], args, None)
        elif node.op is CALL_IF:
            made[node] = new.call(*graph.externs[node.value], args[1:], args[0])
        else:
            fields = join_fields(node, uses) if for_lanes and node.op == "bitor" else None
            if fields is not None:
                made[node] = _joined(new, fields, made)
            elif for_lanes and node.op in FLOORING and not _is_ordinary(args[1]):
                expansion = OPERATORS[node.op].expansion
                assert expansion is not None
                made[node] = expansion(new.make, *args)
            elif node in unsigned:
                # (What is known of it as a number no longer holds.)
                made[node] = new.make("shr", *args)
                continue
            else:
                made[node] = new.make(node.op, *args)
            # What was known of a quotient cannot be seen in the multiplication.
            made[node].facts = both(made[node].facts, node.facts)
    bail_before(len(graph.nodes))
    new.span = graph.span
    new.result = made[graph.result]
    return new

"""The algebra: every rule is proved, fires, never makes code dearer, and rewriting ends.

A proof is by exhaustion at small widths: 8 bits where a rule has up to two free values, 5
where it has three (4 where counts have to wrap with the width), constants being values like
others and boolean variables 0 or 1.  Sides are computed over all values at once, through
tables made from the meanings of the operator table at that width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
from graph_evaluator import EDGES, cost, evaluate, interpreted

from exprjit.formula import Formula
from exprjit.ir import patterns, reciprocals
from exprjit.ir.build import build
from exprjit.ir.graph import Graph, Node
from exprjit.ir.patterns import Pattern, Rule, Rules, apply, function, orders, pattern
from exprjit.ir.reductions import REDUCTIONS, build_reduced
from exprjit.ir.rules import BY_MODE, RULES, b, c, d, x, y, z
from exprjit.language.operators import LONG, MAX, MIN, OPERATORS, Width
from exprjit.tools import generate, samples

# None of this depends on the version of Python.
pytestmark = pytest.mark.slow

MODES = ("wrap", "raise")
#: In the order in which they are tried when the graph is reduced.
ALL = [*REDUCTIONS, *RULES]
every_rule = pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)

#: Operators that mean the same at every width below theirs: small widths prove little.
FIXED_WIDTH = {"i8", "i16", "i32", "bswap"}
ROTATES = {"rotl", "rotr"}


def parts(side: Pattern) -> Iterator[Pattern]:
    yield side
    for arg in side.args:
        yield from parts(arg)


def operators(rule: Rule) -> set[str]:
    sides = [rule.left, rule.right, *([rule.when] if rule.when else [])]
    return {part.op for side in sides for part in parts(side)}


def variables(rule: Rule) -> list[Pattern]:
    """The distinct variables of the left side, in order."""
    return list({variable.name: variable for variable in rule.left.variables()}.values())


# Proofs. -----------------------------------------------------------------------------------


@cache
def table(op: str, bits: int) -> np.ndarray:
    """The meaning of an operator of one or two operands, indexed by operands less the least."""
    width, row = Width(bits), OPERATORS[op]
    every = range(width.min, width.max + 1)
    values = [width.wrap(row.meaning(width, *args)) for args in product(every, repeat=row.arity)]
    return np.array(values, np.int64).reshape((len(every),) * row.arity)


def ternary(op: str, width: Width, operands: list[np.ndarray]) -> np.ndarray:
    """The meaning of an operator of three operands, computed once for each of their triples."""
    shape = np.broadcast_shapes(*[operand.shape for operand in operands])
    stacked = np.stack([np.broadcast_to(operand, shape).ravel() for operand in operands])
    keys = ((stacked[0] << 16 | stacked[1] & 0xFF) << 16) | stacked[2] & 0xFF
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    meaning = OPERATORS[op].meaning
    values = [width.wrap(meaning(width, *map(int, triple))) for triple in stacked[:, first].T]
    return np.array(values, np.int64)[back].reshape(shape)


def side_values(side: Pattern, width: Width, bound: dict[str, np.ndarray]) -> np.ndarray:
    if side.name:
        return bound[side.name]
    if side.value is not None:
        return np.array(side.value(width), np.int64)
    operands = [side_values(arg, width, bound) for arg in side.args]
    if side.meaning is not None or (len(operands) < 3 and width.bits * len(operands) > 16):
        meaning = patterns.meaning(side)
        compute = np.frompyfunc(lambda *args: width.wrap(meaning(width, *args)), len(operands), 1)
        return compute(*[operand.astype(object) for operand in operands]).astype(np.int64)
    if len(operands) == 3:
        return ternary(side.op, width, operands)
    return table(side.op, width.bits)[tuple(operand - width.min for operand in operands)]


def counterexample(rule: Rule, bits: int) -> dict[str, int] | None:
    """Values at this width for which the rule is wrong, or None if it is proved.

    A rule whose condition never holds is an error.
    """
    width = Width(bits)
    free = variables(rule)
    bound = {}
    for axis, variable in enumerate(free):
        values = [0, 1] if variable.op == "boolean" else range(width.min, width.max + 1)
        shape = [1] * len(free)
        shape[axis] = -1
        bound[variable.name] = np.array(values, np.int64).reshape(shape)
    wrong = side_values(rule.left, width, bound) != side_values(rule.right, width, bound)
    if rule.when is not None:
        holds = side_values(rule.when, width, bound) != 0
        assert holds.any(), f"{rule.name} holds nowhere at {bits} bits"
        wrong = wrong & holds
    full = np.broadcast_to(wrong, np.broadcast_shapes(*[v.shape for v in bound.values()]))
    if not full.any():
        return None
    place = np.unravel_index(full.argmax(), full.shape)
    return {
        variable.name: int(bound[variable.name].ravel()[place[axis]])
        for axis, variable in enumerate(free)
    }


def proof_width(rule: Rule) -> int:
    values = sum(variable.op != "boolean" for variable in variables(rule))
    if values <= 2:
        return 8
    # The sum of two counts wraps as the count does only where the width is a power of two.
    return 5 if values == 3 and not operators(rule) & ROTATES else 4


@every_rule
def test_a_rule_is_true_for_all_small_values(rule: Rule) -> None:
    assert counterexample(rule, proof_width(rule)) is None


def of_three_values(rule: Rule) -> bool:
    return sum(variable.op != "boolean" for variable in variables(rule)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [rule for rule in ALL if of_three_values(rule) and "select" not in operators(rule)],
    ids=lambda rule: rule.name,
)
def test_a_rule_of_three_values_is_true_at_eight_bits(rule: Rule) -> None:
    """2**24 cases, a plane at a time, each with the first variable a literal."""
    first = variables(rule)[0]
    for number in range(-128, 128):
        fixed = Rule(rule.name, *[fix(side, first.name, number) for side in sides(rule)], False)
        if rule.when is None or side_somewhere(fixed.when, 8):
            assert counterexample(fixed, 8) is None


def sides(rule: Rule) -> tuple[Pattern, Pattern, Pattern | None]:
    return rule.left, rule.right, rule.when


def fix(side: Pattern | None, name: str, number: int) -> Pattern | None:
    """`side` with a number in place of a variable."""
    if side is None or side.value is not None:
        return side
    if side.name:
        return patterns.literal(number) if side.name == name else side
    args = tuple(fix(arg, name, number) for arg in side.args)
    return Pattern(side.op, args, meaning=side.meaning)


def side_somewhere(side: Pattern, bits: int) -> bool:
    width = Width(bits)
    every = range(width.min, width.max + 1)
    names = sorted({variable.name for variable in side.variables()})
    bound = dict(zip(names, np.meshgrid(*[np.array(every)] * len(names)), strict=True))
    return bool(side_values(side, width, bound).any())


def value(side: Pattern, bound: dict[str, int]) -> int:
    """A side's value at 64 bits."""
    if side.name:
        return bound[side.name]
    if side.value is not None:
        return side.value(LONG)
    return LONG.wrap(patterns.meaning(side)(LONG, *[value(arg, bound) for arg in side.args]))


def check_longs(rule: Rule, bound: dict[str, int]) -> bool:
    """Check the rule for 64-bit values; whether its condition holds for them."""
    if rule.when is not None and not value(rule.when, bound):
        return False
    assert value(rule.left, bound) == value(rule.right, bound), bound
    return True


@every_rule
def test_a_rule_is_true_for_edge_values_at_64_bits(rule: Rule) -> None:
    free = variables(rule)
    edges = EDGES[:: 1 if len(free) < 3 else 2 if len(free) < 5 else 3]
    choices = [(0, 1) if variable.op == "boolean" else edges for variable in free]
    names = [variable.name for variable in free]
    held = [check_longs(rule, dict(zip(names, row, strict=True))) for row in product(*choices)]
    assert any(held)


@every_rule
def test_a_rule_is_true_for_random_values_at_64_bits(rule: Rule) -> None:
    below = samples.seeded(rule.name)
    often = 2_000 if operators(rule) & FIXED_WIDTH else 100
    for _ in range(often):
        bound = {
            variable.name: below(2) if variable.op == "boolean" else samples.magnitude(below)
            for variable in variables(rule)
        }
        check_longs(rule, bound)


@pytest.mark.parametrize(
    "rule",
    [rule for rule in ALL if operators(rule) & FIXED_WIDTH],
    ids=lambda rule: rule.name,
)
def test_a_rule_about_bytes_is_true_for_all_values_of_two_bytes(rule: Rule) -> None:
    assert [variable.name for variable in variables(rule)] == ["x"]
    assert counterexample(rule, 16) is None


ctz, div, gt, lt, neg, popcount, shr, udiv = map(
    function, "ctz div gt lt neg popcount shr udiv".split()
)


@pytest.mark.parametrize(
    ("left", "right", "when"),
    [
        (x - (x + y), y, None),
        ((x << c) << d, x << (c + d), None),
        (lt(x, y) & lt(y, z), lt(x, z), None),
        (b & x, b, None),
        # Wrong for the least number alone.
        (gt(neg(x), 0), lt(x, 0), None),
        (apply("sub_overflows", x, c), apply("add_overflows", x, neg(c)), None),
        # Wrong for zero alone, where what divides is 0.
        (div(x, x), pattern(1), None),
        # Right but for 0, which the condition lets through.
        (udiv(x, c), shr(x, ctz(c)), lt(popcount(c), 2)),
    ],
    ids=str,
)
def test_a_proof_finds_what_is_wrong(left: Pattern, right: Pattern, when: Pattern | None) -> None:
    rule = Rule("wrong", left, right, when, False)
    found = counterexample(rule, proof_width(rule))
    assert found is not None
    width = Width(proof_width(rule))

    def at(side: Pattern) -> int:
        bound = {name: np.array(number) for name, number in found.items()}
        return int(side_values(side, width, bound))

    assert at(left) != at(right)
    assert when is None or at(when)


@pytest.mark.parametrize("kind", ["half", "short"])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_dividends_of_few_bits_are_divided_by_all_divisors(kind: str, bits: int) -> None:
    """More than the widths of the other proofs have room for."""
    width = Width(bits)
    size, magic, shift = (
        getattr(reciprocals, f"{kind}_{part}") for part in ("bits", "magic", "shift")
    )
    dividends = np.arange(1 << size(width))
    assert len(dividends) > 2
    for divisor in range(2, len(dividends)):
        products = dividends * magic(width, divisor)
        assert products.max() <= width.mask
        assert (products >> shift(width, divisor) == dividends // divisor).all(), divisor


def test_a_proof_needs_a_condition_that_holds_somewhere() -> None:
    with pytest.raises(AssertionError, match="holds nowhere"):
        counterexample(Rule("never", x + c, x, lt(c, patterns.MIN), False), 8)


def test_tables_are_the_meanings() -> None:
    for op in ("sub", "sar", "mulhi", "popcount"):
        made = table(op, 5)
        for args in product((-16, -1, 0, 7, 15), repeat=made.ndim):
            place = tuple(arg + 16 for arg in args)
            assert made[place] == Width(5).wrap(OPERATORS[op].meaning(Width(5), *args))
    triples = [np.array(column) for column in zip((0, 5, 6), (-3, 1, 2), (9, -9, 9), strict=True)]
    assert ternary("select", Width(5), triples).tolist() == [6, 1, -9]


# Firing. -----------------------------------------------------------------------------------

#: Numbers to stand for constants, tried in this order.
NUMBERS = (5, 3, 8, 7, 14, -3, 1, 2, 0, -1, 40, 63, 70, MIN, MAX)
NAMES = {"x": "x", "y": "y", "z": "z", "b": "(p < q)"}


def text(side: Pattern, names: dict[str, str]) -> str:
    """`side` as a formula; the overflow of arithmetic is that arithmetic under "raise"."""
    if side.name:
        return names[side.name]
    if side.value is not None:
        return f"({side.value(LONG)})"
    args = [text(arg, names) for arg in side.args]
    row = OPERATORS[side.op.removesuffix("_overflows")]
    if row.fixity == "function":
        return f"{row.name}({', '.join(args)})"
    if row.fixity == "conditional":
        return "({} ? {} : {})".format(*args)
    if row.fixity == "prefix":
        return f"({row.spelling} {args[0]})"
    return f"({args[0]} {row.spelling} {args[1]})"


def modes(rule: Rule) -> tuple[str, ...]:
    """The overflow modes in which a formula can need the rule."""
    if rule.wrap_only:
        return ("wrap",)
    internal = any(OPERATORS[op].fixity == "internal" for op in operators(rule) & {*OPERATORS})
    return ("raise",) if internal else MODES


#: What something is known of, to stand for values that a condition is about: how it is spelled,
#: a number that it can be, and its node by that of the parameter.
NARROW = {
    "x": (
        ("(x & 127)", 5, lambda make, x: make("bitand", x, 127)),
        ("(x & 0xffffff)", 65536, lambda make, x: make("bitand", x, 0xFFFFFF)),
        ("(x >>> 1)", MAX, lambda make, x: make("shr", x, 1)),
        ("((x & 3) + 8)", 9, lambda make, x: make("add", make("bitand", x, 3), 8)),
        ("((x & 3) - 8)", -7, lambda make, x: make("sub", make("bitand", x, 3), 8)),
    ),
    "y": (
        ("(y & 15 | 1)", 3, lambda make, y: make("bitor", make("bitand", y, 15), 1)),
        ("(y & 3)", 2, lambda make, y: make("bitand", y, 3)),
        ("(y & 3 | 256)", 257, lambda make, y: make("bitor", make("bitand", y, 3), 256)),
    ),
}


def constants(rule: Rule) -> list[str]:
    return [variable.name for variable in variables(rule) if variable.op == "constant"]


def conditional(rule: Rule) -> list[str]:
    """The names of the values that the condition is about."""
    found = [] if rule.when is None else rule.when.variables()
    return sorted({variable.name for variable in found if variable.op != "constant"})


def bindings(rule: Rule) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """What variables of the condition are spelled as, and numbers for which it holds."""
    names, narrow = constants(rule), conditional(rule)
    for choice in product(*[NARROW[name] for name in narrow]):
        spelled = {name: entry[0] for name, entry in zip(narrow, choice, strict=True)}
        at = {name: entry[1] for name, entry in zip(narrow, choice, strict=True)}
        for numbers in product(NUMBERS, repeat=len(names)):
            bound = at | dict(zip(names, numbers, strict=True))
            if rule.when is None or value(rule.when, bound):
                yield spelled, bound


def examples(rule: Rule) -> Iterator[str]:
    """Formulas of the form of the rule's left side, for constants that it is made for."""
    for spelled, bound in bindings(rule):
        numbers = {name: f"({bound[name]})" for name in constants(rule)}
        yield text(rule.left, NAMES | spelled | numbers)


#: What the machines have that tests of rules are about.
NATIVE = frozenset(("popcount",))


def fired(source: str, mode: str) -> list[str]:
    """The names of the rules that building `source` applies, in order."""
    names: list[str] = []
    build_reduced(Formula(source).program(), mode, NATIVE, fired=names)
    return names


def firing(rule: Rule, mode: str) -> str | None:
    """A formula that needs the rule."""
    return next((source for source in examples(rule) if rule.name in fired(source, mode)), None)


@every_rule
def test_a_rule_fires(rule: Rule) -> None:
    for mode in modes(rule):
        assert firing(rule, mode) is not None, f"another rule always comes first under {mode}"


def test_a_rule_that_cannot_fire_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = Rule("hidden", x + neg(y), x - y, None, False)
    monkeypatch.setitem(BY_MODE, "wrap", Rules([*RULES, hidden], "wrap"))
    assert firing(hidden, "wrap") is None
    monkeypatch.setitem(BY_MODE, "wrap", Rules([hidden, *RULES], "wrap"))
    assert firing(hidden, "wrap") == "(x + (- y))"


def test_rules_have_different_names() -> None:
    assert len({rule.name for rule in ALL}) == len(ALL)


def test_a_rule_for_wrapping_is_not_used_under_raise() -> None:
    assert "add-twice" in fired("x + x", "wrap")
    assert fired("x + x", "raise") == []


def test_the_order_of_commutative_operands_does_not_matter() -> None:
    for source in ("(x + y) - y", "(x + y) - x", "x - (y - -x) + y", "(y & x) | x", "x | (x & y)"):
        graph = build(Formula(source, ["x", "y"]).program(), "wrap")
        assert all(node.op in ("const", "param") for node in graph.live()), source


def test_orders_are_those_that_a_graph_can_have() -> None:
    assert [str(order) for order in orders((x & y) + 1)] == [
        "add(bitand(x, y), 1)",
        "add(bitand(y, x), 1)",
    ]
    assert [str(order) for order in orders(c - x)] == ["sub(c, x)"]


def test_a_rule_is_shown_as_an_equation() -> None:
    shown = {rule.name: str(rule) for rule in RULES}
    assert shown["add-then-sub"] == "add-then-sub: sub(add(x, y), y) = x"
    assert shown["abs-of-natural"] == "abs-of-natural: abs(x) = x if ge(x, 0)"
    assert shown["mul-overflows-minus-one"] == (
        "mul-overflows-minus-one: mul_overflows(x, -1) = eq(x, MIN)"
    )
    assert shown["mul-power-of-two"] == (
        "mul-power-of-two: mul(x, c) = shl(x, ctz(c)) if eq(popcount(c), 1)"
    )


# Cost. -------------------------------------------------------------------------------------


@pytest.fixture
def without_rules(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Graph]:
    """Builds a formula with no rules but the table's columns."""

    def built(source: str, mode: str) -> Graph:
        with monkeypatch.context() as patch:
            patch.setitem(BY_MODE, mode, Rules([], mode))
            return build(Formula(source).program(), mode)

    return built


@every_rule
def test_a_rule_does_not_make_code_dearer(
    rule: Rule, without_rules: Callable[[str, str], Graph]
) -> None:
    for mode in modes(rule):
        source = firing(rule, mode)
        before = without_rules(source, mode)
        after = build_reduced(Formula(source).program(), mode, NATIVE)
        assert cost(after) <= cost(before), f"{source}\n{before}\n--\n{after}"


# Ending. -----------------------------------------------------------------------------------


class Counter(list):
    """A list of names that ends the test where rules go round."""

    def append(self, name: str) -> None:
        super().append(name)
        assert len(self) < 400, f"rewriting does not end: {self[-8:]}"


#: By rule: numbers for its constants, and how the values of its condition are spelled.
SAMPLES: dict[str, dict[str, int]] = {}
SPELLED: dict[str, dict[str, str]] = {}
for _rule in ALL:
    SPELLED[_rule.name], _bound = next(bindings(_rule))
    SAMPLES[_rule.name] = {name: _bound[name] for name in constants(_rule)}


def made(graph: Graph, side: Pattern, bound: dict[str, Node]) -> Node:
    """The node of a pattern."""
    if side.name:
        return bound[side.name]
    if side.value is not None:
        return graph.const(side.value(LONG))
    return graph.make(side.op, *[made(graph, arg, bound) for arg in side.args])


def leaves(graph: Graph, rule: Rule) -> dict[str, Node]:
    """Parameters, what something is known of, a comparison and constants for a rule's variables."""
    bound = {name: graph.param(place) for place, name in enumerate("xyz")}
    bound["b"] = graph.make("lt", graph.param(3), graph.param(4))
    for name, number in SAMPLES[rule.name].items():
        bound[name] = graph.const(number)
    for name, source in SPELLED[rule.name].items():
        spelled = {entry[0]: entry[2] for entry in NARROW[name]}
        bound[name] = spelled[source](graph.make, bound[name])
    return bound


@pytest.mark.parametrize("mode", MODES)
def test_no_pair_of_rules_goes_round(mode: str) -> None:
    """Every left side with every other one in place of each of its variables."""
    rules = Rules(ALL, mode)
    for outer in ALL:
        graph = Graph(tuple("xyzpq"), NATIVE, rules)
        for inner in ALL:
            inside = made(graph, inner.left, leaves(graph, inner))
            for variable in variables(outer):
                if variable.name in SPELLED[outer.name]:
                    continue
                if variable.op == "any" or (variable.op == "boolean" and inside.boolean):
                    graph.fired = Counter()
                    bound = leaves(graph, outer) | {variable.name: inside}
                    made(graph, outer.left, bound)
                    assert len(graph.fired) <= 12, (outer.name, inner.name, graph.fired)


@pytest.mark.parametrize("mode", MODES)
def test_rewriting_ends_on_nests_of_left_sides(mode: str) -> None:
    rules = Rules(ALL, mode)
    choose = random.Random(1)

    def nest(graph: Graph, depth: int) -> tuple[Node, int]:
        """A random nest of left sides and how many operators it is written with."""
        if depth == 0 or choose.random() < 0.2:
            if choose.random() < 0.3:
                return graph.const(choose.choice(NUMBERS)), 1
            return graph.param(choose.randrange(3)), 1
        rule = choose.choice(ALL)
        bound, size = leaves(graph, rule), sum(1 for _ in parts(rule.left))
        for variable in variables(rule):
            if variable.op == "any" and variable.name not in SPELLED[rule.name]:
                bound[variable.name], inner = nest(graph, depth - 1)
                size += inner * str(rule.left).count(variable.name)
        return made(graph, rule.left, bound), size

    for _ in range(1_500):
        graph = Graph(tuple("xyzpq"), NATIVE, rules)
        graph.fired = Counter()
        _, size = nest(graph, 4)
        # Expansions make at most some twenty nodes of one.
        assert len(graph.nodes) <= 24 * size + 10


def test_rules_that_go_round_are_noticed() -> None:
    there = Rule("there", x - y, x + neg(y), None, False)
    back = Rule("back", x + neg(y), x - y, None, False)
    graph = Graph(("x", "y"), frozenset(), Rules([there, back], "wrap"))
    graph.fired = Counter()
    with pytest.raises(AssertionError, match="does not end"):
        graph.make("sub", graph.param(0), graph.param(1))


def test_a_rule_that_runs_along_a_chain_does_not_recurse() -> None:
    # x == 7 - 2 after 5,000 steps: each undoes one complement and one sum.
    source = "(" * 5_000 + "x" + " ^ -1) + 2" * 5_000 + " == 7"
    graph = build(Formula(source).program(), "wrap")
    assert graph.result.op == "eq"
    assert graph.result.args[0].op == "param"
    assert evaluate(graph, [7]) == 1


# Failures. ---------------------------------------------------------------------------------


def compare_with_interpreter(
    seed: int, size: int, without_rules: Callable[[str, str], Graph]
) -> tuple[int, int]:
    """Compare a generated program's graphs with the interpreter; cases, and those that fail."""
    below = samples.seeded(seed)
    source = generate.program(below, size)
    cases = failing = 0
    for mode in MODES:
        formula = Formula(source, overflow=mode)
        graph = build_reduced(formula.program(), mode)
        plain = without_rules(source, mode)
        for row in samples.rows(below, len(formula.params), 6):
            expected = interpreted(formula, row)
            assert evaluate(graph, row) == expected, (source, mode, row)
            assert evaluate(plain, row) == expected, (source, mode, row)
            cases += 1
            failing += expected is None
    return cases, failing


def check_programs(seeds: range, size: int, without_rules: Callable[[str, str], Graph]) -> None:
    counts = [compare_with_interpreter(seed, size, without_rules) for seed in seeds]
    cases, failing = map(sum, zip(*counts, strict=True))
    assert 0.05 < failing / cases < 0.95, "hardly any program fails, or hardly any does not"


def test_a_graph_bails_where_the_interpreter_raises(
    without_rules: Callable[[str, str], Graph],
) -> None:
    check_programs(range(700), 24, without_rules)
    check_programs(range(700, 800), 80, without_rules)


@pytest.mark.slow
def test_many_graphs_bail_where_the_interpreter_raises(
    without_rules: Callable[[str, str], Graph],
) -> None:
    check_programs(range(10_000, 12_500), 24, without_rules)


@every_rule
def test_a_rule_keeps_failures_in_every_place(
    rule: Rule, without_rules: Callable[[str, str], Graph]
) -> None:
    """The left side with quotients in place of its variables, alone and in an arm."""
    names = {"x": "(x / y)", "y": "(y % (x - 1))", "z": "(9 // z)", "b": "(x / p < q)"}
    for name, source in SPELLED[rule.name].items():
        names[name] = source.replace(name, names[name])
    spelled = {name: f"({number})" for name, number in SAMPLES[rule.name].items()}
    inner = text(rule.left, names | spelled)
    for source in (inner, f"p > 0 ? {inner} : q"):
        for mode in MODES:
            formula = Formula(source, overflow=mode)
            graph = build_reduced(formula.program(), mode)
            plain = without_rules(source, mode)
            below = samples.seeded(source)
            for row in [samples.random_row(below, len(formula.params)) for _ in range(12)]:
                expected = interpreted(formula, row)
                assert evaluate(graph, row) == expected
                assert evaluate(plain, row) == expected

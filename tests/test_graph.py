"""The graph: every value once, in one order, simplified as it grows; what can fail beside it."""

from __future__ import annotations

import pytest
from graph_evaluator import EDGES, evaluate, interpreted

from exprjit.formula import Formula
from exprjit.ir.build import build
from exprjit.ir.graph import Graph
from exprjit.ir.patterns import Rules
from exprjit.ir.rules import BY_MODE, RULES
from exprjit.language.operators import MAX, MIN, OPERATORS


def graph_of(source: str, mode: str = "wrap", native: frozenset[str] = frozenset()) -> Graph:
    return build(Formula(source, overflow=mode).program(), mode, native)


def new_graph(*params: str, native: frozenset[str] = frozenset()) -> Graph:
    return Graph(params, native, Rules(RULES, "wrap"))


def shown(source: str, mode: str = "wrap") -> str:
    return str(graph_of(source, mode))


# Nodes. ------------------------------------------------------------------------------------


def test_a_value_is_one_node() -> None:
    graph = new_graph("x", "y")
    x, y = graph.param(0), graph.param(1)
    assert graph.param(0) is x
    assert graph.const(5) is graph.const(5)
    assert graph.make("pdep", x, y) is graph.make("pdep", x, y)
    assert graph.make("pdep", x, y) is not graph.make("pdep", y, x)
    assert graph.make("shl", x, 3) is graph.make("shl", x, graph.const(3))


def test_common_sub_expressions_are_one_node() -> None:
    assert shown("(x ^ y) * (x ^ y) + (y ^ x)") == (
        "%0 = bitxor x y\n%1 = mul %0 %0\n%2 = add %0 %1\nreturn %2"
    )


@pytest.mark.parametrize(
    "name", [name for name, row in OPERATORS.items() if row.commutative and row.arity == 2]
)
def test_a_commutative_operator_has_one_order(name: str) -> None:
    graph = new_graph("x", "y", native=frozenset(OPERATORS))
    x, y = graph.param(0), graph.param(1)
    node = graph.make(name, y, x)
    assert node is graph.make(name, x, y)
    assert node.args == (x, y)
    assert graph.make(name, 77, x).args == (x, graph.const(77))


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.swapped])
def test_a_comparison_has_one_direction(name: str) -> None:
    graph = new_graph("x", "y")
    x, y = graph.param(0), graph.param(1)
    swapped = OPERATORS[name].swapped
    assert graph.make(name, y, x) is graph.make(swapped, x, y)
    assert graph.make(name, 77, x) is graph.make(swapped, x, 77)
    assert graph.make(name, 77, x).args[1].value == 77


def test_nodes_of_constants_are_constants() -> None:
    graph = new_graph()
    for name, row in OPERATORS.items():
        for left in (0, 1, -1, 7, MAX, MIN):
            args = (left, 3, -2)[: row.arity]
            node = graph.make(name, *args)
            assert (node.op, node.value) == ("const", row(*args)), (name, args)


def test_the_columns_of_the_table_are_used() -> None:
    graph = new_graph("x")
    x = graph.param(0)
    for name, row in OPERATORS.items():
        if row.arity != 2:
            continue
        if row.identity is not None:
            assert graph.make(name, x, row.identity) is x, name
        if row.absorber is not None:
            assert graph.make(name, x, row.absorber) is graph.const(row.absorber), name
        if row.same is not None:
            expected = x if row.same == "x" else graph.const(row.same)
            assert graph.make(name, x, x) is expected, name


@pytest.mark.parametrize(
    "name", [name for name, row in OPERATORS.items() if row.arity == 2 and row.fixity != "lazy"]
)
def test_a_column_is_true(name: str) -> None:
    """The algebra of the table against its meanings."""
    row = OPERATORS[name]
    for a in EDGES:
        if row.identity is not None:
            assert row(a, row.identity) == a
        if row.absorber is not None:
            assert row(a, row.absorber) == row.absorber
        if row.same is not None:
            assert row(a, a) == (a if row.same == "x" else row.same)
        for b in EDGES:
            if row.commutative:
                assert row(a, b) == row(b, a)
            if row.negation is not None:
                assert row(a, b) == 1 - OPERATORS[row.negation](a, b)
            if row.swapped is not None:
                assert row(a, b) == OPERATORS[row.swapped](b, a)
            if row.associative:
                for c in EDGES[::5]:
                    assert row(row(a, b), c) == row(a, row(b, c))


def test_an_operator_is_expanded_where_the_machine_has_no_instruction() -> None:
    assert str(graph_of("popcount(x)", native=frozenset(["popcount"]))) == (
        "%0 = popcount x\nreturn %0"
    )
    assert "popcount" not in shown("popcount(x)")
    for source in ("popcount(x)", "bitreverse(x)", "sign(x)", "avg(x, 7)", "x // 7", "x %% -7"):
        formula = Formula(source)
        expanded, kept = graph_of(source), graph_of(source, native=frozenset(OPERATORS))
        for value in EDGES:
            expected = formula.interpret(value)
            assert evaluate(expanded, (value,)) == evaluate(kept, (value,)) == expected


def test_what_is_0_or_1_is_known() -> None:
    graph = new_graph("x", "y")
    x, y = graph.param(0), graph.param(1)
    less, some = graph.make("lt", x, y), graph.make("bitand", x, 3)
    assert less.boolean
    assert not x.boolean
    assert not some.boolean
    assert graph.make("bitand", some, 1).boolean
    assert graph.make("shr", x, 63).boolean
    for name in ("bitand", "bitor", "bitxor"):
        assert graph.make(name, less, graph.make("eq", x, 7)).boolean
        assert graph.make(name, less, y).boolean == (name == "bitand")
    assert graph.make("select", x, less, 0).boolean
    assert not graph.make("select", x, less, 2).boolean
    assert graph.make("add_overflows", x, y).boolean
    assert graph.const(1).boolean
    assert not graph.const(2).boolean


def test_find_gives_what_make_gave() -> None:
    graph = new_graph("x", "y")
    x, y = graph.param(0), graph.param(1)
    assert graph.find("sub", x, y) is None
    made = graph.make("sub", x, y)
    assert graph.find("sub", x, y) is made
    # Also where the rules made something else of it.
    negated = graph.make("neg", y)
    assert graph.make("add", x, negated) is graph.find("add", x, negated) is made


def test_operands_come_first() -> None:
    graph = graph_of("a = x / y; a > 3 ? gcd(a, x) : bitreverse(y) ** 3", "raise")
    for index, node in enumerate(graph.nodes):
        assert node.index == index
        assert all(arg.index < index for arg in node.args)
    for bail in graph.bails:
        assert bail.condition.index < bail.position


def test_what_nobody_needs_is_not_live() -> None:
    graph = graph_of("a = x ^ 5; b = x / y; a * 0 + z")
    assert [node.op for node in graph.live() if node.args] == ["eq"]
    assert len(graph.nodes) > len(graph.live())


# Spans and text. ---------------------------------------------------------------------------


def test_a_node_knows_the_text_it_came_from() -> None:
    source = "(x ^ 5) / y + (x < 3 ? z : gcd(x, y))"
    graph = graph_of(source)
    spans = {node.op: source[slice(*node.span)] for node in graph.live() if node.args and node.span}
    assert spans == {
        "bitxor": "(x ^ 5)",
        "eq": "(x ^ 5) / y",
        "div": "(x ^ 5) / y",
        "lt": "x < 3",
        "gcd": "gcd(x, y)",
        "select": "(x < 3 ? z : gcd(x, y))",
        "add": source,
    }
    (bail,) = graph.bails
    assert source[slice(*bail.span)] == "(x ^ 5) / y"


def test_the_first_text_of_a_value_is_its_span() -> None:
    source = "x * y + y * x"
    graph = graph_of(source)
    (product,) = [node for node in graph.live() if node.op == "mul"]
    assert source[slice(*product.span)] == "x * y"


def test_a_graph_is_shown_a_line_a_node() -> None:
    assert shown("7") == "return 7"
    assert shown("x") == "return x"
    assert shown("x / y + 4") == (
        "%0 = eq y 0\n"
        "bail %0\n"
        "%1 = div x y\n"
        "%2 = add %1 4\n"
        "return %2"
    )  # fmt: skip
    assert shown("x / 0") == "bail 1\n%0 = div x 0\nreturn %0"
    assert repr(graph_of("x + 4").result).startswith("%")
    assert repr(graph_of("4").result) == "4"


# Failures. ---------------------------------------------------------------------------------


def test_failures_are_kept_in_source_order() -> None:
    assert shown("isqrt(x) / y ** z") == (
        "%0 = lt x 0\n"
        "bail %0\n"
        "%1 = isqrt x\n"
        "%2 = lt z 0\n"
        "bail %2\n"
        "%3 = pow y z\n"
        "%4 = eq %3 0\n"
        "bail %4\n"
        "%5 = div %1 %3\n"
        "return %5"
    )


def test_a_failure_is_checked_once() -> None:
    assert shown("x / y + x % y + y / y").count("bail") == 1


def test_a_failure_that_cannot_be_is_not_checked() -> None:
    for source in ("x / 3", "x ** 3", "x / (y | 1)", "isqrt(x >>> 1)", "isqrt(x & 255)", "x / 'a'"):
        assert "bail" not in shown(source), source
    for source in ("x << (y & 31) >> 2", "x >> 63", "x - 0", "1 << 62"):
        raising = shown(source, "raise")
        assert "ugt" not in raising, source
    assert "bail" not in shown("x >>> (y & 63)", "raise")
    assert "bail" in shown("x >>> (y & 64)", "raise")


@pytest.mark.parametrize(
    "source",
    [
        "0 * (1 / y)",
        "(1 / y) - (1 / y)",
        "(x / y) & 0",
        "d = x / y; 3",
        "f(a) = a / y; f(x) * 0",
        "x / y < 0 and 0",
        "x % y % 1",
        "x ? 1 / y : 1 / y",
    ],
)
def test_no_rule_drops_a_failure(source: str) -> None:
    for mode in ("wrap", "raise"):
        graph = build(Formula(source, ["x", "y"]).program(), mode)
        assert evaluate(graph, (5, 0)) is None
        assert evaluate(graph, (5, 3)) is not None


def test_overflow_is_a_failure_under_raise() -> None:
    assert graph_of("x * y + 1").bails == []
    assert shown("x * y + 1", "raise") == (
        "%0 = mul_overflows x y\n"
        "bail %0\n"
        "%1 = mul x y\n"
        "%2 = add_overflows %1 1\n"
        "bail %2\n"
        "%3 = add %1 1\n"
        "return %3"
    )


def test_the_arm_that_is_not_taken_does_not_fail() -> None:
    for source, fails in [
        ("x ? 1 / y : z", "x and not y"),
        ("x ? z : 1 / y", "not x and not y"),
        ("1 / y if x else z", "x and not y"),
        ("x and 1 / y", "x and not y"),
        ("x or 1 / y", "not x and not y"),
        ("x < z < 1 / y", "x < z and not y"),
        ("x < z < 3 < 1 / y", "x < z and z < 3 and not y"),
        ("1 / y < x < z", "not y"),
        ("x ? (z ? 1 / y : 5) : 7", "x and z and not y"),
        ("(x and z) ? 1 / y : 7", "x and z and not y"),
        ("x and (z or 1 / y)", "x and not z and not y"),
        ("f(v) = v / y; x ? f(3) : f(4)", "not y"),
        ("f(v) = v ? 1 / y : 2; f(x) + f(z)", "(x or z) and not y"),
    ]:
        formula = Formula(source, ["x", "y", "z"])
        condition = Formula(fails, ["x", "y", "z"])
        graph = build(formula.program(), "wrap")
        for x in (0, 1, 5):
            for y in (0, 1):
                for z in (0, 2, 9):
                    expected = None if condition.interpret(x, y, z) else formula.interpret(x, y, z)
                    assert evaluate(graph, (x, y, z)) == expected, (source, x, y, z)


def test_an_arm_that_is_never_taken_is_not_there() -> None:
    assert shown("1 ? x : 1 / 0") == "return x"
    assert shown("0 and 1 / 0") == "return 0"
    assert shown("7 or 1 / 0") == "return 1"
    assert shown("3 < 2 < 1 / 0") == "return 0"
    assert shown("x < 3 ? (x >= 3 ? 1 / y : 2) : 4", "raise").count("bail") == 0


def test_a_guard_inside_its_own_arm_is_the_same_guard() -> None:
    graph = graph_of("x ? (x ? 1 / y : 2) : 3")
    assert len(graph.bails) == 1
    for x in (0, 4):
        for y in (0, 4):
            assert (evaluate(graph, (x, y)) is None) == (x != 0 and y == 0)


# Definitions. ------------------------------------------------------------------------------


def test_a_call_is_expanded_once_for_the_same_arguments() -> None:
    graph = graph_of("f(a, b) = a / b; f(x, y) + f(x, y) * f(x, y)")
    assert [node.op for node in graph.live() if node.args] == ["eq", "div", "mul", "add"]


def test_a_call_in_two_arms_fails_in_either() -> None:
    graph = graph_of("f(v) = v / y; x > 0 ? f(z) : x < -5 ? f(z) : 0")
    formula = Formula("f(v) = v / y; x > 0 ? f(z) : x < -5 ? f(z) : 0")
    for x in (-9, -1, 0, 3):
        for y in (0, 2):
            row = {"x": x, "y": y, "z": 40}
            arguments = [row[name] for name in formula.params]
            assert evaluate(graph, arguments) == interpreted(formula, arguments)


def test_doubling_definitions_are_no_work() -> None:
    # 2**64 additions, if each call were expanded.
    source = "f0(v) = v + v\n" + "".join(
        f"; f{n}(v) = f{n - 1}(v) + f{n - 1}(v)\n" for n in range(1, 16)
    )
    graph = graph_of(f"{source}; f15(x)")
    assert evaluate(graph, (3,)) == 3 << 16
    assert len(graph.nodes) < 200


# Size and depth. ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "x" + " * x + y" * 50_000,
        " + ".join(f"x * {number}" for number in range(3, 50_003)),
    ],
    ids=["polynomial", "sum"],
)
def test_a_hundred_thousand_operators_are_built(source: str) -> None:
    graph = graph_of(source)
    assert len(graph.live()) >= 50_000
    assert str(graph).count("\n") >= 50_000
    formula = Formula(source)
    arguments = (3, 5)[: len(formula.params)]
    assert evaluate(graph, arguments) == formula.interpret(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "(" * 9_000 + "x" + " * 3 ^ y)" * 9_000,
        "y ^ 3 * (" * 9_000 + "x" + ")" * 9_000,
        "x ? y : " * 9_000 + "1",
        "x and " * 9_000 + "y",
        "x < (" * 9_000 + "y" + ")" * 9_000,
        "(" * 2_000 + "x" + " / y)" * 2_000,
        "-(~(" * 4_000 + "x" + "))" * 4_000,
        "abs(" * 9_000 + "x" + ")" * 9_000,
    ],
    ids=lambda source: source[:16],
)
@pytest.mark.parametrize("mode", ["wrap", "raise"])
def test_deep_programs_are_built_without_recursion(source: str, mode: str) -> None:
    formula = Formula(source, ["x", "y"], overflow=mode)
    graph = build(formula.program(), mode)
    assert evaluate(graph, (3, 5)) == interpreted(formula, (3, 5))
    assert evaluate(graph, (0, 0)) == interpreted(formula, (0, 0))


def test_the_rules_of_both_modes_are_there() -> None:
    assert set(BY_MODE) == {"wrap", "raise"}


# Bytes in reverse order. -----------------------------------------------------------------------

SWAPS = {
    "(x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8 | x >> 24 & 255": 32,
    "(x & 0xff) << 24 | (x & 0xff00) << 8 | x >> 8 & 0xff00 | x >> 24 & 0xff": 32,
    "x >>> 24 & 255 | (x >>> 16 & 255) << 8 | ((x >>> 8 & 255) << 16 | (x & 255) << 24)": 32,
    "(x & 255) << 8 | x >> 8 & 255": 48,
    " | ".join(f"(x >>> {8 * n} & 255) << {56 - 8 * n}" for n in range(8)): 0,
    "x >>> 56 | (x & 255) << 56 | x >>> 40 & 0xff00 | (x & 0xff00) << 40 | x >>> 24 & 0xff0000"
    " | (x & 0xff0000) << 24 | x >>> 8 & 0xff000000 | (x & 0xff000000) << 8": 0,
}


@pytest.mark.parametrize("source", SWAPS)
def test_bytes_in_reverse_order_are_one_instruction(source: str) -> None:
    graph = graph_of(source)
    used = [node.op for node in graph.live() if node.op not in ("param", "const")]
    assert used == (["bswap", "shr"] if SWAPS[source] else ["bswap"])
    formula = Formula(source)
    for value in (*EDGES, 0x0123456789ABCDEF):
        assert evaluate(graph, (value,)) == formula.interpret(value)


@pytest.mark.parametrize(
    "source",
    [
        "(x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8 | x >> 24",
        "(x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 127) << 8 | x >> 24 & 255",
        "(x & 255) << 24 | (x >> 8 & 255) << 16 | (y >> 16 & 255) << 8 | x >> 24 & 255",
        "(x & 255) << 25 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8 | x >> 24 & 255",
        "(x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8",
        "(x & 255) << 8 | x >> 8",
    ],
)
def test_other_bytes_are_left_as_they_are(source: str) -> None:
    formula = Formula(source)
    graph = graph_of(source)
    assert "bswap" not in [node.op for node in graph.live()]
    for value in (*EDGES, 0x0123456789ABCDEF, 0xFEDCBA9876543210 - 2**64):
        row = (value,) * len(formula.params)
        assert evaluate(graph, row) == formula.interpret(*row)

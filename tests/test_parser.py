"""Precedence, associativity and shape: section 2 of the design, written down again by hand."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import exprjit
from exprjit.language.limits import DEFAULT
from exprjit.language.parser import parse
from exprjit.language.resolve import resolve

#: The numbered table of the design: how tightly each infix operator binds, and its name.
INFIX = {
    **{"or": (2, "or"), "||": (2, "or")},
    **{"and": (3, "and"), "&&": (3, "and")},
    **{"==": (5, "eq"), "!=": (5, "ne"), "<": (5, "lt")},
    **{"<=": (5, "le"), ">": (5, "gt"), ">=": (5, "ge")},
    **{"|": (6, "bitor"), "^": (7, "bitxor"), "&": (8, "bitand")},
    **{"<<": (9, "shl"), ">>": (9, "sar"), ">>>": (9, "shr")},
    **{"+": (10, "add"), "-": (10, "sub")},
    **{"*": (11, "mul"), "/": (11, "div"), "%": (11, "rem")},
    **{"//": (11, "floordiv"), "%%": (11, "floormod")},
    "**": (13, "pow"),
}
PREFIX = {"-": "neg", "+": "pos", "~": "bitnot", "!": "not"}
TIGHT, LOOSE = 12, 4


def tree(source: str) -> str:
    """The S-expression of the result."""
    return str(resolve(source, parse(source, DEFAULT), None, {}, {}, DEFAULT)).splitlines()[-1]


def refused(source: str) -> exprjit.ExprError:
    with pytest.raises(exprjit.ExprSyntaxError) as caught:
        tree(source)
    return caught.value


def expected_pair(first: str, second: str) -> str:
    """The shape of ``a first b second c``."""
    (level1, name1), (level2, name2) = INFIX[first], INFIX[second]
    if level1 == level2 == 5:
        return f"(chain:{name1},{name2} a b c)"
    if level1 > level2 or (level1 == level2 and level1 != 13):
        return f"({name2} ({name1} a b) c)"
    return f"({name1} a ({name2} b c))"


@pytest.mark.parametrize("first", INFIX)
def test_every_pair_of_infix_operators(first: str) -> None:
    for second in INFIX:
        source = f"a {first} b {second} c"
        assert tree(source) == expected_pair(first, second), source


@pytest.mark.parametrize("prefix", PREFIX)
def test_a_tight_prefix_before_every_infix_operator(prefix: str) -> None:
    name = PREFIX[prefix]
    for token, (level, infix) in INFIX.items():
        tighter = level > TIGHT
        expected = f"({name} ({infix} a b))" if tighter else f"({infix} ({name} a) b)"
        assert tree(f"{prefix} a {token} b") == expected


@pytest.mark.parametrize("prefix", PREFIX)
def test_a_tight_prefix_after_every_infix_operator(prefix: str) -> None:
    name = PREFIX[prefix]
    for token, (_, infix) in INFIX.items():
        assert tree(f"a {token} {prefix} b") == f"({infix} a ({name} b))"
        assert tree(f"a {token} {prefix} b ** c") == f"({infix} a ({name} (pow b c)))"


@pytest.mark.parametrize("token", INFIX)
def test_not_binds_loosely(token: str) -> None:
    level, infix = INFIX[token]
    expected = f"(not ({infix} a b))" if level > LOOSE else f"({infix} (not a) b)"
    assert tree(f"not a {token} b") == expected
    if level > LOOSE:
        assert "not" in refused(f"a {token} not b").message
        assert tree(f"a {token} (not b)") == f"({infix} a (not b))"
    else:
        assert tree(f"a {token} not b") == f"({infix} a (not b))"


def test_not_after_a_prefix() -> None:
    assert tree("not not a") == "(not (not a))"
    assert tree("not -a") == "(not (neg a))"
    for prefix in PREFIX:
        error = refused(f"{prefix} not a")
        assert (error.start, error.end) == (2, 5)
        assert "!x" in (error.hint or "")


def test_prefixes_stack() -> None:
    for prefixes in itertools.product(PREFIX, repeat=3):
        expected = "a"
        for prefix in reversed(prefixes):
            expected = f"({PREFIX[prefix]} {expected})"
        assert tree(" ".join(prefixes) + " a") == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("-a ** b", "(neg (pow a b))"),
        ("a ** -b ** c", "(pow a (neg (pow b c)))"),
        ("a ** -b * c", "(mul (pow a (neg b)) c)"),
        ("2 ** 3 ** 2", "(pow 2 (pow 3 2))"),
        ("-2 ** 2", "(neg (pow 2 2))"),
        ("(-2) ** 2", "(pow (neg 2) 2)"),
        ("!a == b", "(eq (not a) b)"),
        ("not a == b", "(not (eq a b))"),
        ("a & b == c", "(eq (bitand a b) c)"),
        ("a - b - c - d", "(sub (sub (sub a b) c) d)"),
        ("a - (b - c)", "(sub a (sub b c))"),
    ],
)
def test_cases_that_surprise(source: str, expected: str) -> None:
    assert tree(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a ? b : c", "(select a b c)"),
        ("b if a else c", "(select a b c)"),
        ("a ? b : c ? d : e", "(select a b (select c d e))"),
        ("a ? b ? c : d : e", "(select a (select b c d) e)"),
        ("b if a else d if c else e", "(select a b (select c d e))"),
        ("a ? b : d if c else e", "(select a b (select c d e))"),
        ("b if a else c ? d : e", "(select a b (select c d e))"),
        ("a ? c if b else d : e", "(select a (select b c d) e)"),
        ("b if c ? d : e else f", "(select (select c d e) b f)"),
        ("b if (d if c else e) else f", "(select (select c d e) b f)"),
        ("(a ? b : c) ? d : e", "(select (select a b c) d e)"),
        ("a or b ? c : d", "(select (or a b) c d)"),
        ("a ? b : c or d", "(select a b (or c d))"),
        ("a or b if c or d else e or f", "(select (or c d) (or a b) (or e f))"),
        ("not a ? b : c", "(select (not a) b c)"),
        ("a + (b ? c : d)", "(add a (select b c d))"),
        ("max(a ? b : c, d if e else f)", "(max (select a b c) (select e d f))"),
    ],
)
def test_conditionals_bind_loosest_and_to_the_right_in_both_spellings(
    source: str, expected: str
) -> None:
    assert tree(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b < c", "(chain:lt,lt a b c)"),
        ("a < b == c >= d != e", "(chain:lt,eq,ge,ne a b c d e)"),
        ("(a < b) < c", "(lt (lt a b) c)"),
        ("a < (b < c)", "(lt a (lt b c))"),
        ("(a < b < c) < d", "(lt (chain:lt,lt a b c) d)"),
        ("a < b + 1 <= c | d", "(chain:lt,le a (add b 1) (bitor c d))"),
        ("a < b and b < c", "(and (lt a b) (lt b c))"),
        ("not a < b < c", "(not (chain:lt,lt a b c))"),
    ],
)
def test_comparisons_chain_unless_parentheses_part_them(source: str, expected: str) -> None:
    assert tree(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("abs(a)", "(abs a)"),
        ("min(a, b, c, d)", "(min a b c d)"),
        ("clamp(a + 1, -b, (c))", "(clamp (add a 1) (neg b) c)"),
        ("-abs(a) ** abs(b)", "(neg (pow (abs a) (abs b)))"),
        ("f(v) = v; f(f(a)) * f(1)", "(mul (f (f a)) (f 1))"),
        ("f() = 7; f() + f()", "(add (f) (f))"),
        ("((a))", "a"),
        ("max - min", "(sub max min)"),
        ("max(max, min)", "(max max min)"),
        ("max (a, b)", "(max a b)"),
    ],
)
def test_calls_and_parentheses(source: str, expected: str) -> None:
    assert tree(source) == expected


# Python's own parser as a judge: what both languages can say has the same shape in both. -----

_PYTHON = {
    ast.Or: "or", ast.And: "and", ast.Not: "not", ast.USub: "neg", ast.UAdd: "pos",
    ast.Invert: "bitnot", ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le",
    ast.Gt: "gt", ast.GtE: "ge", ast.BitOr: "bitor", ast.BitXor: "bitxor", ast.BitAnd: "bitand",
    ast.LShift: "shl", ast.RShift: "sar", ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul",
    ast.Div: "div", ast.Mod: "rem", ast.FloorDiv: "floordiv", ast.Pow: "pow",
}  # fmt: skip


def python_tree(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.UnaryOp):
        return f"({_PYTHON[type(node.op)]} {python_tree(node.operand)})"
    if isinstance(node, ast.BinOp):
        left, right = python_tree(node.left), python_tree(node.right)
        return f"({_PYTHON[type(node.op)]} {left} {right})"
    if isinstance(node, ast.BoolOp):
        # Python's is flat, ours nests to the left; both evaluate in the same order.
        shape, *rest = map(python_tree, node.values)
        for value in rest:
            shape = f"({_PYTHON[type(node.op)]} {shape} {value})"
        return shape
    if isinstance(node, ast.Compare):
        names = ",".join(_PYTHON[type(op)] for op in node.ops)
        head = names if len(node.ops) == 1 else f"chain:{names}"
        return f"({head} {' '.join(map(python_tree, (node.left, *node.comparators)))})"
    assert isinstance(node, ast.IfExp)
    return f"(select {' '.join(map(python_tree, (node.test, node.body, node.orelse)))})"


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    infix = st.sampled_from("or and == != < <= > >= | ^ & << >> + - * / % // **".split())
    return st.one_of(
        st.builds("{} {} {}".format, inner, infix, inner),
        st.builds("{} {}".format, st.sampled_from(["not", "-", "+", "~"]), inner),
        st.builds("({})".format, inner),
        # Python wants parentheses around a conditional that is a condition; here it may go without.
        st.builds("{} if ({}) else {}".format, inner, inner, inner),
    )


@settings(max_examples=200, deadline=None)
@example("a == not b")
@example("a if b else c or d < e < f")
@given(st.recursive(st.sampled_from("abcd"), _combine, max_leaves=12))
def test_the_shape_is_python_s(source: str) -> None:
    try:
        expected = python_tree(ast.parse(source, mode="eval").body)
    except SyntaxError:
        refused(source)
    else:
        assert tree(source) == expected


# Text that is no program. -------------------------------------------------------------------


def _is_placed(source: str) -> None:
    """`source` parses, or is refused with an error that can be shown."""
    error = None
    try:
        tree(source)
    except exprjit.ExprError as caught:
        error = caught
    if error is not None:
        assert error.source == source
        assert 0 <= error.start <= error.end <= len(source)
        assert error.message.isprintable()
        assert error.excerpt().count("^") >= 1
        str(error).encode("utf-8")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_parses_or_is_refused_with_its_place(source: str) -> None:
    _is_placed(source)


TOKENS = [
    *INFIX, *PREFIX, "not", "if", "else", "?", ":", "(", ")", ",", ";", "=", "a", "b", "f(", "max",
    "f(v)=v;", "7", "9223372036854775808", "0x1F", "08", "1.5", "'a'", "'", '"', "\n", "# ",
    "lambda", "\0", "\ud800", "é", "漢", "\xa0", "[", ".", "d =", "0b", "'\\", "True", "abs(a)",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12), st.sampled_from(["", " "]))
def test_token_soup_parses_or_is_refused_with_its_place(tokens: list[str], blank: str) -> None:
    _is_placed(blank.join(tokens))


@pytest.mark.parametrize(
    ("source", "place", "words"),
    [
        ("a + \0", 4, "NUL"),
        ("\ufeffa", 0, "byte order mark"),
        ("a \ud800", 2, "lone surrogate"),
        ("a # \udfff", 4, "lone surrogate"),
        ("a + é", 4, "U+00E9"),
        ("a + naïve", 6, "U+00EF"),
        ("переменная", 0, "U+043F"),
        ("a\xa0+ 1", 1, "NO-BREAK SPACE"),
        ("a\u3000+ 1", 1, "IDEOGRAPHIC SPACE"),
        ("a\u2028+ 1", 1, "LINE SEPARATOR"),
        ("a\x85+ 1", 1, "control character"),
        ("a ＋ 1", 2, "FULLWIDTH PLUS SIGN"),  # noqa: RUF001
        ("a + １", 4, "FULLWIDTH DIGIT ONE"),  # noqa: RUF001
        ("a + ٣", 4, "ARABIC-INDIC DIGIT THREE"),
        ("a + 😀", 4, "GRINNING FACE"),
        ("a × b", 2, "MULTIPLICATION SIGN"),  # noqa: RUF001
        ("a + \x1b[0m", 4, "control character"),
        ("a $ b", 2, "'$'"),
        ("\\", 0, "'\\'"),
    ],
)
def test_characters_outside_the_language(source: str, place: int, words: str) -> None:
    error = refused(source)
    assert error.start == place
    assert words in error.message
    str(error).encode("utf-8")


@pytest.mark.parametrize("source", ["", " ", "\n\n", "# only a comment", "\t# a\n# b\n"])
def test_a_text_without_an_expression(source: str) -> None:
    assert "no expression" in refused(source).message


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("a +", 3),
        ("a + # comment\n", 3),
        ("a ? b", 5),
        ("b if a", 6),
        ("(a + b", 0),
        ("max(a, (b + c)", 3),
        ("((a)", 0),
        ("a + b)", 5),
        ("a b", 2),
        ("* a", 0),
        ("max(a,)", 6),
        ("()", 1),
        ("a, b", 1),
        ("a ? : b", 4),
        ("a = b = c; a", 6),
    ],
)
def test_missing_input_is_reported_behind_the_last_token_and_brackets_at_the_bracket(
    source: str, place: int
) -> None:
    assert refused(source).start == place


def _spans(source: str, seen: Callable[[str], None]) -> None:
    work = [parse(source, DEFAULT).result]
    while work:
        node = work.pop()
        seen(source[node.start : node.end])
        work += node.parts


def test_every_node_knows_its_text() -> None:
    texts: list[str] = []
    _spans("-(a + b)*max( c,d ) < 'x' < 7 ? (p) : not q or r", texts.append)
    assert sorted(texts) == sorted(
        [
            "-(a + b)*max( c,d ) < 'x' < 7 ? (p) : not q or r",
            "-(a + b)*max( c,d ) < 'x' < 7",
            "-(a + b)*max( c,d )",
            "-(a + b)",
            "(a + b)",
            "a",
            "b",
            "max( c,d )",
            "c",
            "d",
            "'x'",
            "7",
            "(p)",
            "not q or r",
            "not q",
            "q",
            "r",
        ]
    )

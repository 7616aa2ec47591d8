"""The grammar has no conflicts, and its terminals cut the text as the language says."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from lark import Lark
from lark.exceptions import GrammarError

import exprjit
from exprjit.language.limits import DEFAULT
from exprjit.language.operators import INFIX, PREFIX
from exprjit.language.parser import grammar_path, parse
from exprjit.language.resolve import resolve

GRAMMAR = Path(grammar_path()).read_text()


def tree(source: str) -> str:
    """The S-expression of the result."""
    return str(resolve(source, parse(source, DEFAULT), None, {}, {}, DEFAULT)).splitlines()[-1]


def conflicts(grammar: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Lark says about conflicts: most go to its debug log only, some are raised."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="lark"):
        try:
            Lark(grammar, parser="lalr", lexer="basic", debug=True)
        except GrammarError as error:
            return [str(error)]
    return [record.getMessage() for record in caplog.records if "onflict" in record.getMessage()]


def changed(old: str, new: str) -> str:
    assert GRAMMAR.count(old) == 1
    return GRAMMAR.replace(old, new)


def test_the_grammar_has_no_conflict(caplog: pytest.LogCaptureFixture) -> None:
    assert conflicts(GRAMMAR, caplog) == []


def test_the_check_sees_a_conflict_that_lark_resolves_silently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dangling = changed("-> conditional_if\n", '-> conditional_if\n| operation "if" expression\n')
    (message, *_) = conflicts(dangling, caplog)
    assert "Shift/Reduce" in message


def test_the_check_sees_a_conflict_that_lark_raises(caplog: pytest.LogCaptureFixture) -> None:
    twice = changed(
        "    | NAME                          -> name", "| NAME -> name\n| NAME -> again"
    )
    assert conflicts(twice, caplog) != []


def test_the_obvious_form_of_a_definition_conflicts(caplog: pytest.LogCaptureFixture) -> None:
    """The left side of a statement is an expression for this reason."""
    obvious = changed(
        '| expression "=" expression\n',
        '| NAME LPAR names RPAR "=" expression\nnames: NAME | names "," NAME\n',
    )
    assert conflicts(obvious, caplog) != []


def test_the_grammar_and_the_table_have_the_same_operators() -> None:
    terminals = re.findall(r"^(?:SIGN|PREFIX|INFIX|NOT|AND|OR):.*(?:\n +\|.*)*", GRAMMAR, re.M)
    assert len(terminals) == 6
    assert set(re.findall(r'"([^"]+)"', " ".join(terminals))) == {*INFIX, *PREFIX}


@pytest.mark.parametrize("token", INFIX)
def test_every_infix_operator_is_one_token_without_blanks(token: str) -> None:
    blank = " " if token.isalpha() else ""
    assert tree(f"a{blank}{token}{blank}b") == f"({INFIX[token].name} a b)"


@pytest.mark.parametrize("token", PREFIX)
def test_every_prefix_operator_is_one_token_without_blanks(token: str) -> None:
    blank = " " if token.isalpha() else ""
    assert tree(f"{token}{blank}a") == f"({PREFIX[token][0].name} a)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a**b", "(pow a b)"),
        ("a***b", None),
        ("a* *b", None),
        ("a//b", "(floordiv a b)"),
        ("a/ /b", None),
        ("a%%b", "(floormod a b)"),
        ("a%%%b", None),
        ("a>>>b", "(shr a b)"),
        ("a>>b", "(sar a b)"),
        ("a>=b", "(ge a b)"),
        ("a> =b", None),
        ("a>>=b", None),
        ("a<<-b", "(shl a (neg b))"),
        ("a<-b", "(lt a (neg b))"),
        ("a||b", "(or a b)"),
        ("a|b", "(bitor a b)"),
        ("a&&b", "(and a b)"),
        ("a&b", "(bitand a b)"),
        ("a&~b", "(bitand a (bitnot b))"),
        ("a!=b", "(ne a b)"),
        ("a!=!b", "(ne a (not b))"),
        ("!!a", "(not (not a))"),
        ("a--b", "(sub a (neg b))"),
        ("a- -b", "(sub a (neg b))"),
        ("a+++b", "(add a (pos (pos b)))"),
        ("a**-b", "(pow a (neg b))"),
    ],
)
def test_the_longest_operator_wins(source: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(exprjit.ExprSyntaxError):
            tree(source)
    else:
        assert tree(source) == expected


@pytest.mark.parametrize(
    "name",
    "iffy if_ _if If elsewhere android and1 orange nothing not_ xor notx _ __ a1 A".split(),
)
def test_a_name_may_begin_with_or_resemble_a_keyword(name: str) -> None:
    assert tree(name) == name
    assert tree(f"{name} + 1") == f"(add {name} 1)"


def test_keywords_need_no_blanks_where_signs_end_them() -> None:
    assert tree("(a)if(b)else(c)") == "(select b a c)"
    assert tree("(a)and(b)or not(c)") == "(or (and a b) (not c))"


@pytest.mark.parametrize("source", ["x + if", "if", "x + and", "not", "else + 1", "or"])
def test_an_operator_word_is_no_name(source: str) -> None:
    with pytest.raises(exprjit.ExprSyntaxError):
        tree(source)


@pytest.mark.parametrize("word", ["if", "else", "and", "or", "not", "lambda", "None"])
def test_a_parameter_cannot_have_a_keyword_for_a_name(word: str) -> None:
    with pytest.raises(exprjit.ExprSyntaxError):
        exprjit.compile(f"x + {word}")
    with pytest.raises(exprjit.ExprValueError, match="reserved word"):
        exprjit.compile("x", ["x", word])


@pytest.mark.parametrize("word", ["match", "case", "type", "print", "self", "int"])
def test_other_words_of_python_are_free(word: str) -> None:
    assert tree(f"{word} * 2") == f"(mul {word} 2)"


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\r\n", "\r", "\f", "\v", "# said\n", "\n\n"])
def test_blanks_newlines_and_comments_separate_and_mean_nothing_else(blank: str) -> None:
    assert tree(f"{blank}a{blank}if{blank}b{blank}else{blank}-{blank}c{blank}") == (
        "(select b a (neg c))"
    )


def test_a_comment_ends_with_its_line() -> None:
    assert tree("a # + b\n + c") == "(add a c)"
    assert tree("a + b # no newline after this") == "(add a b)"
    assert tree("a # ' \" ( [ é 漢 ;") == "a"


def test_a_hash_in_a_character_literal_is_no_comment() -> None:
    assert tree("'#' + 1") == "(add 35 1)"


def test_a_statement_may_run_over_lines_and_a_line_may_hold_statements() -> None:
    source = "d =\n x\n -\n y; e = d * d\n; e"
    program = resolve(source, parse(source, DEFAULT), None, {}, {}, DEFAULT)
    assert str(program).splitlines() == ["params x y", "d = (sub x y)", "e = (mul d d)", "e"]

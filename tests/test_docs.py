"""What the documentation shows is what happens: examples are run, tables are made again."""

from __future__ import annotations

import re
from contextlib import suppress
from doctest import ELLIPSIS
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from exprjit import compile, compiler
from exprjit.errors import ExprError
from exprjit.formula import Formula
from exprjit.ir.patterns import Pattern
from exprjit.ir.reductions import REDUCTIONS
from exprjit.ir.rules import RULES
from exprjit.language.operators import LONG, MAX, MIN, OPERATORS
from exprjit.tools import rule_table
from exprjit.tools.operator_table import as_markdown
from exprjit.x86.listing import asm

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("page", "count"), [("README.md", 10), ("docs/arrays.md", 1)])
def test_the_examples_do_what_is_said_of_them(page: str, count: int) -> None:
    # One test a page, since each example goes on where the one before it ended.
    sybil = Sybil(parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)])
    examples = list(sybil.parse(ROOT / page).examples())
    assert len(examples) > count
    for example in examples:
        example.evaluate()


def test_the_operator_table_of_the_language_is_the_table() -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    begin = text.index("-->\n") + len("-->\n")
    end = text.index("\n<!-- end -->")
    assert text[begin : end + 1] == as_markdown()


def test_the_rules_of_the_optimiser_are_the_rules(request: pytest.FixtureRequest) -> None:
    path = ROOT / "docs" / "optimiser.md"
    text = path.read_text(encoding="utf-8")
    begin = text.index("-->\n", text.index("<!-- rules:")) + len("-->\n")
    end = text.index("<!-- end -->")
    expected = "\n" + rule_table.as_markdown() + "\n"
    if request.config.getoption("--bless"):
        path.write_text(text[:begin] + expected + text[end:], encoding="utf-8")
        return
    assert text[begin:end] == expected, "see the difference, then `pytest --bless`"
    assert all(f"| {rule.name} |" in text for rule in [*RULES, *REDUCTIONS])


def test_a_rule_is_written_as_a_formula_that_means_it() -> None:
    compared = 0
    for rule in [*RULES, *REDUCTIONS]:
        for side in (rule.left, rule.right, rule.when):
            if side is None or not is_language(side):
                continue
            source = rule_table.formula(side).replace("MIN", hex(MIN)).replace("MAX", hex(MAX))
            f = Formula(source, list("xyzbcdef"))
            for numbers in ((7, -3, 12, 1, 5, 40, 3, 2), (-9, 4, 0, 0, -64, 3, 2, 1)):
                bound = dict(zip("xyzbcdef", numbers, strict=True))
                with suppress(ExprError):
                    assert f.interpret(*numbers) == of_pattern(side, bound), source
                    compared += 1
    assert compared > 500


def is_language(side: Pattern) -> bool:
    """Whether a pattern has only operators that a text can name."""
    if side.args and (side.meaning is not None or OPERATORS[side.op].fixity == "internal"):
        return False
    return all(map(is_language, side.args))


def of_pattern(side: Pattern, bound: dict[str, int]) -> int:
    if side.name:
        return bound[side.name]
    if side.value is not None:
        return side.value(LONG)
    return OPERATORS[side.op](*[of_pattern(arg, bound) for arg in side.args])


@pytest.fixture
def internals() -> str:
    return (ROOT / "docs" / "internals.md").read_text(encoding="utf-8")


def indented(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


@pytest.mark.parametrize("stage", ["ast", "graph", "block"])
def test_the_internals_show_every_stage_as_it_is(internals: str, stage: str) -> None:
    f = compile("x / y + 4", backend="jit")
    assert indented(f.dump(stage)) in internals


def test_the_internals_show_the_machine_code_as_it_is(internals: str) -> None:
    f = compile("x / y + 4")
    code = compiler.to_code(f.formula, "checked_address", frozenset())
    assert indented(str(asm(code.encoded, f.source))) in internals


@pytest.mark.parametrize(("page", "count"), [("runtime", 30), ("arrays", 10)])
def test_the_promises_name_tests_that_exist(page: str, count: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > count
    for name in re.findall(r"`(\w+::\w+)`", "\n".join(rows)):
        file, test = name.split("::")
        assert f"\ndef {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), name


def test_the_changelog_names_the_version() -> None:
    import exprjit

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{exprjit.__version__}]" in text or "[Unreleased]" in text

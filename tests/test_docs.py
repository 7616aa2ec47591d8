"""What the documentation shows is what happens: examples are run, tables are made again."""

from __future__ import annotations

import re
from doctest import ELLIPSIS
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from exprjit import compile, compiler
from exprjit.tools.operator_table import as_markdown
from exprjit.x86.listing import asm

ROOT = Path(__file__).parent.parent


def test_the_examples_of_the_readme_do_what_it_says() -> None:
    # One test, since each example goes on where the one before it ended.
    sybil = Sybil(parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)])
    examples = list(sybil.parse(ROOT / "README.md").examples())
    assert len(examples) > 10
    for example in examples:
        example.evaluate()


def test_the_operator_table_of_the_language_is_the_table() -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    begin = text.index("-->\n") + len("-->\n")
    end = text.index("\n<!-- end -->")
    assert text[begin : end + 1] == as_markdown()


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


def test_the_promises_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > 30
    for name in re.findall(r"`(\w+::\w+)`", "\n".join(rows)):
        file, test = name.split("::")
        assert f"\ndef {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), name


def test_the_changelog_names_the_version() -> None:
    import exprjit

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{exprjit.__version__}]" in text or "[Unreleased]" in text

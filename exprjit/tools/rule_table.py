"""The optimiser's rules for readers, written as formulas are: markdown for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir import reductions, rules
from ..ir.patterns import BITS, COUNT, MAX, MIN, Pattern, Rule
from ..language.operators import LONG, OPERATORS

_NAMED = {id(MIN): "MIN", id(MAX): "MAX", id(BITS): "64", id(COUNT): "63"}
#: What binds more tightly than every operator.
_ATOM = 100


def formula(side: Pattern) -> str:
    """A pattern in the language's own notation; functions of constants are called by name."""
    return _written(side)[0]


def _written(side: Pattern) -> tuple[str, int]:
    """The text and how tightly its outermost operator binds."""
    if side.name:
        return side.name, _ATOM
    if side.value is not None:
        return _NAMED.get(id(side)) or _number(side.value(LONG)), _ATOM
    row = OPERATORS.get(side.op) if side.meaning is None else None
    if row is None or row.fixity in ("function", "internal"):
        return f"{side.op}({', '.join(map(formula, side.args))})", _ATOM
    precedence = row.precedence
    if row.fixity == "prefix":
        return row.spelling + _operand(side.args[0], precedence), precedence
    if row.fixity == "conditional":
        condition, then, otherwise = side.args
        middle = _operand(condition, precedence + 1)
        return f"{middle} ? {formula(then)} : {_operand(otherwise, precedence)}", precedence
    left, right = side.args
    # Comparisons would chain.
    first = _operand(left, precedence + bool(row.negation))
    text = f"{first} {row.spelling} {_operand(right, precedence + 1)}"
    return text, precedence


def _operand(side: Pattern, least: int) -> str:
    text, precedence = _written(side)
    return text if precedence >= least else f"({text})"


def _number(value: int) -> str:
    if value in (LONG.min, LONG.max):
        return "MIN" if value < 0 else "MAX"
    return str(value) if abs(value) < 10_000 else f"0x{value & LONG.mask:x}"


def _table(found: Sequence[Rule]) -> Iterator[str]:
    yield "| rule | this | becomes | where |"
    yield "|---|---|---|---|"
    for rule in found:
        where = [] if rule.when is None else [f"`{formula(rule.when)}`"]
        where += ["wrapping only"] if rule.wrap_only else []
        where += [f"there is an instruction `{rule.native}`"] if rule.native else []
        cells = (rule.name, f"`{formula(rule.left)}`", f"`{formula(rule.right)}`", ", ".join(where))
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells).rstrip() + " |"


def as_markdown() -> str:
    """All rules under their headings: those for every graph, and those for the machine."""
    lines: list[str] = []
    for found in (rules.RULES, reductions.REDUCTIONS):
        ends = [start for _, start in found.sections[1:]] + [len(found)]
        for (title, start), end in zip(found.sections, ends, strict=True):
            lines += [f"### {title}", "", *_table(found[start:end]), ""]
    return "\n".join(lines)

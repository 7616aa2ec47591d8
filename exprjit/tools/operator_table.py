"""The operator table for readers: as text, and as markdown for the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..language.operators import OPERATORS, PREFIX, Operator


class Entry(NamedTuple):
    """A row for readers: precedence, how it is written, what it means, how it can fail."""

    precedence: int
    spellings: tuple[str, ...]
    meaning: str
    faults: str


def entries() -> Iterator[Entry]:
    """The rows that a text can name, in the order of the table, loosest first."""
    for row in OPERATORS.values():
        if row.fixity != "internal":
            yield Entry(row.precedence, _spellings(row), row.doc, _faults(row))


def _spellings(row: Operator) -> tuple[str, ...]:
    """How a row is written, its operands called as in its meaning."""
    # The first argument of a meaning is the width.
    operands = row.meaning.__code__.co_varnames[1 : row.arity + 1]
    if row.fixity == "conditional":
        c, a, b = operands
        return f"{c} ? {a} : {b}", f"{a} if {c} else {b}"
    if row.fixity in ("infix", "lazy"):
        return tuple(f"{operands[0]} {token} {operands[1]}" for token in row.tokens)
    if row.fixity == "prefix":
        # Some have a second spelling that binds differently: `not` and `!`.
        tokens = [token for token, (other, _) in PREFIX.items() if other is row]
        a = operands[0]
        return tuple(f"{token} {a}" if token.isalpha() else f"{token}{a}" for token in tokens)
    more = ", ..." if row.variadic else ""
    return (f"{row.name}({', '.join(operands)}{more})",)


def _faults(row: Operator) -> str:
    """Every fault once, with the overflow mode in which it is one unless that is all."""
    always, raising = row.faults["wrap"], row.faults["raise"]
    words = [fault.message for fault in always]
    words += [f"{fault.message} (raise)" for fault in raising if fault not in always]
    return ", ".join(words)


def as_text() -> str:
    """Columns for a terminal."""
    rows = [("written", "meaning")]
    for entry in entries():
        rows.append(("  ".join(entry.spellings), entry.meaning))
        if entry.faults:
            rows.append(("", f"fails: {entry.faults}"))
    width = max(len(left) for left, _ in rows)
    return "".join(f"{left:<{width}}  {right}".rstrip() + "\n" for left, right in rows)


def as_markdown() -> str:
    """The table of the documentation; precedence 1 binds loosest."""
    lines = ["| binds | written | meaning | fails |", "|---|---|---|---|"]
    for precedence, spellings, meaning, faults in entries():
        written = ", ".join(f"`{spelling}`" for spelling in spellings)
        cells = (str(precedence), written, meaning, faults)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"

"""Machine code as people read it: offset, bytes, instruction, and the source it came from."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from .x86.assembler import Encoded
from .x86.listing import text


class AsmLine(NamedTuple):
    """One instruction.

    offset: from the start of the code, in bytes.  code: its bytes.  text: Intel syntax.
    source: the piece of the formula that it computes, or None for what belongs to the call.
    label: what stands before it, or None.
    """

    offset: int
    code: bytes
    text: str
    source: str | None
    label: str | None


class Asm(tuple[AsmLine, ...]):
    """The instructions of a function in order; `str()` of it is the listing."""

    __slots__ = ()

    def __str__(self) -> str:
        lines = []
        for line in self:
            if line.label is not None:
                lines.append(f"{line.label}:")
            row = f"{line.offset:6x}  {line.code.hex(' '):<30}  {line.text}"
            if line.source is not None:
                row = f"{row:<72}  ; {line.source}"
            lines.append(row)
        return "\n".join(lines)


def asm(encoded: Encoded, source: str, symbols: dict[int, str]) -> Asm:
    """The listing of `encoded`; addresses that are in `symbols` are shown by name."""
    placed = _places(encoded)
    names = {label: placed[offset] for label, offset in encoded.labels.items()}
    lines = []
    for offset, size, instruction, operands, tag in encoded.lines:
        shown = text(instruction, operands, names)
        if instruction.key == "mov_ri" and operands[1] in symbols:
            shown = f"{shown.partition(',')[0]}, {symbols[operands[1]]}"
        lines.append(
            AsmLine(
                offset,
                encoded.code[offset : offset + size],
                shown,
                _piece(source, tag),
                placed.get(offset),
            )
        )
    return Asm(lines)


def _places(encoded: Encoded) -> dict[int, str]:
    """A name for each place that has a label; none is given twice."""
    placed: dict[int, str] = {}
    given: Counter[str] = Counter()
    # A label's own name comes before a number.
    for label, offset in sorted(encoded.labels.items(), key=lambda item: not item[0].name):
        if offset in placed:
            continue
        name = label.name or "L"
        given[name] += 1
        number = f" {given[name]}" if given[name] > 1 else ""
        placed[offset] = f"{name}{number}" if label.name else f"L{given[name]}"
    return placed


def _piece(source: str, span: object) -> str | None:
    """The source text of a span on one line, shortened."""
    if not isinstance(span, tuple):
        return None
    piece = " ".join(source[span[0] : span[1]].split())
    return piece if len(piece) <= 40 else piece[:37] + "..."

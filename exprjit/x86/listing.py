"""Machine code as text: Intel syntax that GNU as reads back under `.intel_syntax noprefix`.

A listing has a line per instruction: offset, bytes, the instruction, and the piece of the
formula that it computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .registers import CONDITION_NAMES, FIXED, NAMES_MASK, Mem, name

if TYPE_CHECKING:
    from .assembler import Encoded, Label
    from .instructions import Instruction

_POINTERS = {
    "m": "",  # lea computes an address and reads nothing
    "m8": "byte ptr ",
    "m16": "word ptr ",
    "m32": "dword ptr ",
    "m64": "qword ptr ",
    "m128": "xmmword ptr ",
    "m256": "ymmword ptr ",
    "m512": "zmmword ptr ",
}
_SIZES = {"xmm": 128, "ymm": 256, "zmm": 512}


def text(
    instruction: Instruction,
    operands: tuple[Any, ...],
    label_names: Mapping[Label, str] | None = None,
) -> str:
    """The instruction in Intel syntax, with the register sizes of the encoding it gets.

    A label is written as `label_names` says, else by its own name, else as "?". Raises ValueError
    where an operand cannot be encoded.
    """
    encoding = instruction.select(operands)
    mnemonic = encoding.mnemonic
    words: list[str] = []
    for kind, operand in zip(encoding.kinds, operands, strict=True):
        if kind == "cc":
            mnemonic = mnemonic.replace("<cc>", CONDITION_NAMES[operand])
        elif kind[0] == "{":  # a write mask belongs to the destination
            words[-1] += kind.replace("k1", NAMES_MASK[operand])
        else:
            words.append(_operand(kind, operand, label_names or {}))
    return f"{mnemonic} {', '.join(words)}{encoding.suffix}".rstrip()


def _operand(kind: str, operand: Any, label_names: Mapping[Label, str]) -> str:
    if kind[:3] in _SIZES:
        register = name(operand, _SIZES[kind[:3]])
        return f"{register}, {kind[3:]}" if kind[3:] else register  # {rn-sae} comes behind it
    if kind == "k":
        return str(NAMES_MASK[operand])
    if kind in FIXED:
        return kind
    if kind.startswith("rel"):
        if isinstance(operand, int):  # a distance from the end of the branch
            return f"{operand:+d}"
        return str(label_names.get(operand) or operand.name or "?")
    if kind.startswith("r"):
        return name(operand, int(kind[1:]))
    if kind.endswith("bcst"):
        element = kind.removesuffix("bcst")  # the rows with broadcasts are 512 bits wide
        return f"{_POINTERS[element]}{address(operand)}{{1to{512 // int(element[1:])}}}"
    if kind.startswith("m"):
        return _POINTERS[kind] + address(operand)
    return str(operand)


def address(mem: Mem) -> str:
    """[base+index*scale+disp], leaving out what is not there."""
    parts = [] if mem.base is None else [name(mem.base)]
    if mem.index is not None:
        parts.append(f"{name(mem.index)}*{mem.scale}")
    if not parts:
        return f"ds:[{mem.disp}]"  # without the segment a bare number could read as immediate
    return f"[{'+'.join(parts)}{f'{mem.disp:+d}' if mem.disp else ''}]"


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


def asm(encoded: Encoded, source: str = "", symbols: Mapping[int, str] | None = None) -> Asm:
    """The listing of `encoded`.

    source: the text that tags are spans of.  symbols: names for addresses.
    """
    placed = _places(encoded)
    names = {label: placed[offset] for label, offset in encoded.labels.items()}
    lines = []
    for offset, size, instruction, operands, tag in encoded.lines:
        shown = text(instruction, operands, names)
        if symbols and instruction.key == "mov_ri" and operands[1] in symbols:
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
    # The span may be the whole text, and every instruction has one.
    piece = " ".join(source[span[0] : min(span[1], span[0] + 400)].split())
    return piece if len(piece) <= 40 else piece[:37] + "..."

"""Instructions as text: Intel syntax that GNU as reads back under `.intel_syntax noprefix`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .registers import CONDITION_NAMES, FIXED, Mem, name

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
}


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
    words = []
    for kind, operand in zip(encoding.kinds, operands, strict=True):
        if kind == "cc":
            mnemonic = mnemonic.replace("<cc>", CONDITION_NAMES[operand])
        else:
            words.append(_operand(kind, operand, label_names or {}))
    return f"{mnemonic} {', '.join(words)}{encoding.suffix}".rstrip()


def _operand(kind: str, operand: Any, label_names: Mapping[Label, str]) -> str:
    if kind == "xmm":
        return name(operand, 128)
    if kind in FIXED:
        return kind
    if kind.startswith("rel"):
        if isinstance(operand, int):  # a distance from the end of the branch
            return f"{operand:+d}"
        return str(label_names.get(operand) or operand.name or "?")
    if kind.startswith("r"):
        return name(operand, int(kind[1:]))
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


def listing(encoded: Encoded) -> str:
    """One line per instruction: offset, bytes, Intel text; labels stand on lines of their own."""
    labels = encoded.labels
    names = {label: label.name or f"L{number}" for number, label in enumerate(labels)}
    placed: dict[int, list[str]] = {}
    for label, offset in labels.items():
        placed.setdefault(offset, []).append(f"{names[label]}:")
    out: list[str] = []
    for offset, size, instruction, operands, _ in encoded.lines:
        out += placed.pop(offset, ())
        code = encoded.code[offset : offset + size].hex(" ")
        out.append(f"{offset:6x}  {code:<30}  {text(instruction, operands, names)}")
    out += (line for lines in placed.values() for line in lines)
    return "\n".join(out)

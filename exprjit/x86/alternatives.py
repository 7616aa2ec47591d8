"""Other instructions that do the same, for where one saves the register allocator a move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .instructions import INSTRUCTIONS, Instruction
from .registers import Mem, negate

LEA: Final = INSTRUCTIONS["lea_rm"]
LEA32: Final = INSTRUCTIONS["lea32_rm"]

_COMMUTATIVE: Final = frozenset(
    INSTRUCTIONS[f"{name}{size}_rr"]
    for name in ("add", "and", "or", "xor", "imul")
    for size in ("", "32")
)
_CHOICE: Final = INSTRUCTIONS["cmovcc_rr"]

#: By instructions that read a register as their last operand: those that read memory instead.
FROM_MEMORY: Final = {
    instruction: INSTRUCTIONS[f"{key[:-1]}m"]
    for key, instruction in INSTRUCTIONS.items()
    if key.endswith("_rr") and instruction.roles[-1] == "r" and f"{key[:-1]}m" in INSTRUCTIONS
}


def can_swap(instruction: Any) -> bool:
    """Whether a two-address instruction may overwrite its second operand instead of its first."""
    return instruction in _COMMUTATIVE or instruction is _CHOICE


def swapped_condition(instruction: Any, condition: Any) -> Any:
    """The first operand when the other two are swapped: a choice is then the other way round."""
    return negate(condition) if instruction is _CHOICE else condition


def as_lea(instruction: Any, operands: Sequence[Any]) -> Instruction | None:
    """The `lea` that does a two-address instruction without overwriting a source, or None."""
    name, _, kinds = instruction.key.partition("_")
    if name.removesuffix("32") == "add" and kinds in ("rr", "ri"):
        return LEA if name == "add" else LEA32
    if name.removesuffix("32") == "shl" and kinds == "ri" and 1 <= operands[1] <= 3:
        return LEA if name == "shl" else LEA32
    return None


def lea_operands(key: str, physical: Sequence[Any]) -> tuple[int, Mem]:
    """The operands of the `lea` for `key`; the last of `physical` is the tied source."""
    to, second, source = physical
    if key.endswith("_rr"):
        return to, Mem(source, second)
    if key.startswith("add"):
        return to, Mem(source, disp=second)
    if second == 1:
        return to, Mem(source, source)
    return to, Mem(None, source, 1 << second)

"""Flags that are there already are not computed again.

A `test` of a register with itself tells whether it is 0 or negative. The instruction before, if it
made that register, mostly says so itself.
"""

from __future__ import annotations

from typing import Final

from .block import Virtual
from .instructions import INSTRUCTIONS
from .macros import ZERO
from .registers import CC

#: Instructions that leave ZF and SF as their result has it.
_TELLING: Final = frozenset(
    INSTRUCTIONS[key]
    for key in (
        *(f"{name}{size}_{kinds}" for name in ("add", "sub", "and", "or", "xor")
          for size in ("", "32") for kinds in ("rr", "ri")),
        "neg_r", "andn_rrr", "blsi_rr", "blsr_rr", "blsmsk_rr",
    )
)  # fmt: skip
_TESTS: Final = frozenset((INSTRUCTIONS["test_rr"], INSTRUCTIONS["test32_rr"]))
_NUMBER: Final = INSTRUCTIONS["mov_ri"]
_ZERO_ONLY: Final = frozenset((CC["e"], CC["ne"]))
_SIGN: Final = frozenset((CC["s"], CC["ns"]))


def reuse_flags(code: list[Virtual]) -> list[Virtual]:
    """The code of a block without the tests that say what the instruction before says."""
    kept: list[Virtual] = []
    for place, virtual in enumerate(code):
        if virtual.instruction in _TESTS and virtual.operands[0] == virtual.operands[1]:
            maker = _maker(kept, virtual.operands[0])
            if maker is not None and _says_enough(kept[maker], code[place + 1]):
                # What stands between does not need the flags, but may destroy them.
                kept.append(kept.pop(maker)._replace(flags=True))
                continue
        kept.append(virtual)
    return kept


def _maker(code: list[Virtual], register: int) -> int | None:
    """Where the register is made, if nothing but numbers is made behind that."""
    for place in range(len(code) - 1, -1, -1):
        virtual = code[place]
        if virtual.instruction in _TELLING and virtual.operands[0] == register:
            return place
        if virtual.instruction not in (_NUMBER, ZERO):
            return None
    return None


def _says_enough(maker: Virtual, user: Virtual) -> bool:
    """Whether the flags of an instruction will do for the condition that comes next."""
    if "c" not in user.instruction.kinds:
        return False
    condition = user.operands[user.instruction.kinds.index("c")]
    if "32" in maker.instruction.key:
        return condition in _ZERO_ONLY
    return condition in _ZERO_ONLY or condition in _SIGN

"""What an instruction's operands are made of: registers, memory operands, condition codes.

A register is a plain int, its number in the manual's encoding. General, vector and mask registers
all count from 0; the operand's position in an instruction tells which class is meant.
"""

from __future__ import annotations

from typing import NamedTuple

# General registers, numbered as ModRM and REX number them.
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

XMM0, XMM1, XMM2, XMM3, XMM4, XMM5, XMM6, XMM7 = range(8)
XMM8, XMM9, XMM10, XMM11, XMM12, XMM13, XMM14, XMM15 = range(8, 16)

# System V AMD64 ABI, 3.2.1 and 3.2.3. rsp belongs to neither set: nobody allocates it.
CALLER_SAVED = (RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11)
CALLEE_SAVED = (RBX, RBP, R12, R13, R14, R15)
ARGUMENTS = (RDI, RSI, RDX, RCX, R8, R9)

_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_NEW = tuple(f"r{number}" for number in range(8, 16))

NAMES_64 = tuple("r" + stem for stem in _LEGACY) + _NEW
NAMES_32 = tuple("e" + stem for stem in _LEGACY) + tuple(stem + "d" for stem in _NEW)
NAMES_16 = _LEGACY + tuple(stem + "w" for stem in _NEW)
# spl, bpl, sil and dil exist only with a REX prefix; without one 4..7 mean ah, ch, dh and bh.
NAMES_8 = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil") + tuple(s + "b" for s in _NEW)
# Only EVEX reaches the vector registers from 16 on.
NAMES_XMM = tuple(f"xmm{number}" for number in range(32))
NAMES_YMM = tuple(f"ymm{number}" for number in range(32))
NAMES_ZMM = tuple(f"zmm{number}" for number in range(32))
NAMES_MASK = tuple(f"k{number}" for number in range(8))

_GENERAL = {64: NAMES_64, 32: NAMES_32, 16: NAMES_16, 8: NAMES_8}
_NAMES = {**_GENERAL, 128: NAMES_XMM, 256: NAMES_YMM, 512: NAMES_ZMM}

# Every name of a general register to its number: {"rax": 0, "eax": 0, "ax": 0, "al": 0, ...}.
NUMBERS = {text: number for names in _GENERAL.values() for number, text in enumerate(names)}

# Operands that in the manual mean one register and no other, with its number and their size in
# bits. ("r8" is not among them: in the manual it is any register of 8 bits.)
FIXED = {"rax": (RAX, 64), "eax": (RAX, 32), "al": (RAX, 8), "cl": (RCX, 8)}


def name(reg: int, size: int = 64) -> str:
    """The name of register `reg` seen `size` bits wide: general up to 64, vector from 128 on."""
    return _NAMES[size][reg]


class Mem(NamedTuple):
    """The memory operand [base + index * scale + disp].

    `base` and `index` are general registers or None (rsp cannot be an index), `scale` is 1, 2, 4
    or 8, `disp` a signed 32-bit displacement. How many bytes are accessed is the instruction's.
    """

    base: int | None
    index: int | None = None  # type: ignore[assignment]  # hides tuple.index, which is not used
    scale: int = 1
    disp: int = 0


# Condition codes in the manual's order (volume 1, appendix B): the low bit negates.
CONDITION_NAMES = tuple("o no b ae e ne be a s ns p np l ge le g".split())
CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A = range(8)
CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G = range(8, 16)
CC = {text: number for number, text in enumerate(CONDITION_NAMES)}

_SWAPPED = {
    CC_E: CC_E,
    CC_NE: CC_NE,
    CC_B: CC_A,
    CC_A: CC_B,
    CC_AE: CC_BE,
    CC_BE: CC_AE,
    CC_L: CC_G,
    CC_G: CC_L,
    CC_GE: CC_LE,
    CC_LE: CC_GE,
}


def negate(cc: int) -> int:
    """The condition that holds exactly where condition `cc` (0..15) does not."""
    return cc ^ 1


def swap(cc: int) -> int:
    """The condition to test after `cmp b, a` where `cc` was meant for `cmp a, b`.

    Raises ValueError for the conditions on one flag that have no such counterpart (o, s, p and
    their negations): the flags of b - a do not determine those of a - b.
    """
    if cc not in _SWAPPED:
        raise ValueError(f"condition {CONDITION_NAMES[cc]} has no counterpart for swapped operands")
    return _SWAPPED[cc]

"""From one instruction to bytes: prefixes, opcode, ModRM, displacement, immediate.

What the manual (volume 2, chapter 2) calls prefix, opcode, ModRM, SIB, displacement and immediate
is split in two here. All bytes before the displacement depend on registers and a few shapes only:
that *head* is computed once from the row's text and kept in a table. Encoding an instruction is
then one look-up, plus the displacement, plus the immediate.

No instruction has code of its own; what is special about it stands in its row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .registers import FIXED, RBP, RSP, Mem

if TYPE_CHECKING:
    pass

# One value per explicit operand in Intel order: int (register, immediate, condition), Mem or Label.
# Any, because the row decides at run time which of them an operand must be.
Operands = tuple[Any, ...]

# A Mem without its displacement, which is replaced by the number of bytes it takes: 0, 1 or 4.
Shape = tuple["int | None", "int | None", int, int]


class Encoding(NamedTuple):
    """One row of the manual, with each `r/m` operand settled to be either r or m."""

    mnemonic: str  # "add", "set<cc>"
    opcode: str  # the manual's opcode column, "REX.W 83 /0 ib"
    kinds: tuple[str, ...]  # per explicit operand: r64 xmm m64 m64bcst {k1} imm8 1 rel8 cc rax ...
    fields: tuple[str, ...]  # where each goes: reg rm vvvv is4 mask plus cc imm fixed
    suffix: str  # operands that are written but not encoded: ", cl"


class Opcode(NamedTuple):
    """What the manual's opcode column says, without the operands."""

    prefix: bytes  # mandatory 66, F2, F3 of a legacy opcode
    code: bytes  # escape and opcode bytes; after VEX the opcode byte alone
    w: int  # the W of REX, VEX or EVEX
    digit: int  # the /0../7 in ModRM.reg, 0 without one
    modrm: bool
    vex: tuple[int, int, int] | None  # opcode map, L, pp
    evex: bool  # `vex` is said in the longer prefix
    element: int  # bytes of one, where EVEX's tuple type is "Tuple1 Scalar"; else 0


_PREFIXES = ("66", "F2", "F3")
_VEX_PP = {"66": 1, "F3": 2, "F2": 3}
_VEX_MAP = {"0F": 1, "0F38": 2, "0F3A": 3}
_VEX_L = {"LZ": 0, "L0": 0, "LIG": 0, "128": 0, "256": 1, "L1": 1, "512": 2}
_IGNORED = ("ib", "id", "io", "cb", "cd", "/is4")


@cache
def parse_opcode(text: str) -> Opcode:
    """Read the manual's opcode column, such as "REX.W 81 /0 id" or "VEX.LZ.66.0F38.W1 F7 /r"."""
    prefix, code, w, digit, modrm, element = b"", b"", 0, 0, False, 0
    vex: tuple[int, int, int] | None = None
    for token in text.split():
        if token in _IGNORED:
            continue
        if token == "REX.W":
            w = 1
        elif token.startswith(("VEX.", "EVEX.")):
            vex, w = _parse_vex(token.split(".")[1:])
        elif token in _PREFIXES and not code and vex is None:
            prefix = bytes.fromhex(token)
        elif token.startswith("T1S"):
            element = int(token[3:]) // 8
        elif token.startswith("/"):
            modrm = True
            digit = 0 if token == "/r" else int(token[1:])
        else:
            code += bytes.fromhex(token.partition("+")[0])
    return Opcode(prefix, code, w, digit, modrm, vex, text.startswith("EVEX."), element)


def _parse_vex(parts: list[str]) -> tuple[tuple[int, int, int], int]:
    """["LZ", "66", "0F38", "W1"] -> ((opcode map, L, pp), W)."""
    length, *pp, opcode_map, w = parts
    vex = _VEX_MAP[opcode_map], _VEX_L[length], _VEX_PP[pp[0]] if pp else 0
    return vex, int(w == "W1")


# The head: prefixes, opcode, ModRM, SIB.


def head(encoding: Encoding, operands: Operands) -> bytes:
    """All bytes before displacement and immediate; a memory operand is given as its Shape."""
    opcode = parse_opcode(encoding.opcode)
    fields = dict(zip(encoding.fields, operands, strict=False))  # an immediate is not given
    reg = fields.get("reg", opcode.digit)
    plus = fields.get("plus", 0)
    x, b, tail = _modrm(reg & 7, fields["rm"]) if opcode.modrm else (0, plus >> 3, b"")
    code = opcode.code[:-1] + bytes([opcode.code[-1] + (plus & 7) + fields.get("cc", 0)])
    if opcode.vex:
        if opcode.evex:
            return _evex(opcode, encoding.kinds, reg >> 3, x, b, fields) + code + tail
        return _vex(opcode, reg >> 3, x, b, fields.get("vvvv", 0)) + code + tail
    rex = opcode.w << 3 | reg >> 3 << 2 | x << 1 | b
    if rex or _needs_rex(encoding.kinds, operands):
        return opcode.prefix + bytes([0x40 | rex]) + code + tail
    return opcode.prefix + code + tail


def _needs_rex(kinds: tuple[str, ...], operands: Operands) -> bool:
    """Whether one of spl, bpl, sil, dil is named, which without REX would be ah, ch, dh, bh."""
    pairs = zip(kinds, operands, strict=False)
    return any(kind == "r8" and 4 <= value <= 7 for kind, value in pairs)


def _vex(opcode: Opcode, r: int, x: int, b: int, vvvv: int) -> bytes:
    """The two-byte VEX prefix where it can say everything, else the three-byte one."""
    assert opcode.vex is not None
    opcode_map, length, pp = opcode.vex
    last = (vvvv ^ 15) << 3 | length << 2 | pp
    if opcode_map == 1 and not (opcode.w or x or b):
        return bytes([0xC5, (r ^ 1) << 7 | last])
    return bytes([0xC4, (r << 2 | x << 1 | b) << 5 ^ 0xE0 | opcode_map, opcode.w << 7 | last])


# What stands in the two bits of the vector length where a row between registers has a rounding of
# its own or, with {sae} alone, only no exceptions.
_ROUNDING = {"{rn-sae}": 0, "{rd-sae}": 1, "{ru-sae}": 2, "{rz-sae}": 3, "{sae}": 0}


def _evex(
    opcode: Opcode, kinds: tuple[str, ...], r: int, x: int, b: int, fields: dict[str, Any]
) -> bytes:
    """The EVEX prefix; `r` and `b` have two bits each where they belong to a vector register."""
    assert opcode.vex is not None
    opcode_map, length, pp = opcode.vex
    flag, zeroing = 0, "{k1}{z}" in kinds
    for kind in kinds:
        if kind.endswith("bcst"):
            flag = 1
        elif kind.endswith("sae}"):
            flag, length = 1, _ROUNDING[kind[3:]]
    x |= b >> 1  # the index of a memory operand, else bit 4 of the register in ModRM.rm
    vvvv = fields.get("vvvv", 0) ^ 31
    first = (r & 1) << 7 | x << 6 | (b & 1) << 5 | (r >> 1) << 4
    last = zeroing << 7 | length << 5 | flag << 4 | vvvv >> 4 << 3 | fields.get("mask", 0)
    return bytes([0x62, first ^ 0xF0 | opcode_map, opcode.w << 7 | (vvvv & 15) << 3 | 4 | pp, last])


def _modrm(reg: int, rm: int | Shape) -> tuple[int, int, bytes]:
    """ModRM and SIB for the three bits `reg`; the X and B bits that the prefix must carry."""
    if isinstance(rm, int):
        return 0, rm >> 3, bytes([0xC0 | reg << 3 | rm & 7])
    base, index, scale, width = rm
    x = 0 if index is None else index >> 3
    sib_index = RSP if index is None else index & 7
    sib_high = (scale.bit_length() - 1) << 6 | sib_index << 3
    if base is None:
        # mod 00 with base 101 in the SIB: no base and always four bytes of displacement.
        return x, 0, bytes([reg << 3 | 4, sib_high | 5]) + bytes(4 - width)
    b, low = base >> 3, base & 7
    # mod 00 with rbp or r13 would mean "no base": they take a displacement of one zero byte.
    zero = b"\0" if width == 0 and low == RBP else b""
    mod = {0: 0x40 if zero else 0x00, 1: 0x40, 4: 0x80}[width]
    if index is None and low != RSP:
        return x, b, bytes([mod | reg << 3 | low]) + zero
    return x, b, bytes([mod | reg << 3 | 4, sib_high | low]) + zero


def shape(mem: Mem) -> tuple[Shape, bytes]:
    """Split a memory operand into what the head needs and the bytes of its displacement."""
    base, index, scale, disp = mem
    if not disp:
        return (base, index, scale, 0), b""
    if -128 <= disp <= 127 and base is not None:
        return (base, index, scale, 1), (disp & 0xFF).to_bytes(1, "little")
    if -0x8000_0000 <= disp <= 0x7FFF_FFFF:
        return (base, index, scale, 4), (disp & 0xFFFF_FFFF).to_bytes(4, "little")
    raise ValueError(f"displacement {disp} does not fit 32 bits")


Splitter = Callable[[Mem], tuple[Shape, bytes]]


def splitter(text: str, kind: str) -> Splitter:
    """`shape` for a memory operand of `kind`: after EVEX a displacement of one byte counts units.

    The unit ("N" of the manual's disp8*N) is what the instruction reads or writes at once: the
    whole operand, or one element where that is broadcast or where the mask says how many.
    """
    opcode = parse_opcode(text)
    if not opcode.evex:
        return shape
    unit = opcode.element or kind_size(kind) // 8

    def split(mem: Mem) -> tuple[Shape, bytes]:
        base, index, scale, disp = mem
        units, rest = divmod(disp, unit)
        if disp and not rest and -128 <= units <= 127 and base is not None:
            return (base, index, scale, 1), (units & 0xFF).to_bytes(1, "little")
        if disp and -128 <= disp <= 127:
            return (base, index, scale, 4), (disp & 0xFFFF_FFFF).to_bytes(4, "little")
        return shape(mem)

    return split


# The choices: a key has several rows where immediates (or branches) come in several widths.


class Choice(NamedTuple):
    """One way to encode: for immediates low..high, `head` and `size` bytes of immediate & mask."""

    low: int
    high: int
    mask: int
    size: int
    head: bytes
    encoding: Encoding


Choices = tuple[Choice, ...]


def choices(key: str, encodings: tuple[Encoding, ...], operands: Operands) -> Choices:
    """The encodings that `operands` (no immediate, memory as Shape) allow, in the rows' order.

    Raises ValueError naming the operand that is no register, condition or address.
    """
    _check(key, encodings[-1], operands)
    if "imm" not in encodings[0].fields:
        return (Choice(0, 0, 0, 0, head(encodings[0], operands), encodings[0]),)
    # An operation with an immediate as wide as itself takes it as a number or as a bit pattern:
    # `mov rax, 2**64 - 1` is `mov rax, -1`. Others see it sign-extended and take numbers only.
    patterns = any(encoding.kinds[-1] == f"imm{width(encoding)}" for encoding in encodings)
    found: list[Choice] = []
    for encoding in encodings:
        if _admits(encoding, operands):
            before = head(encoding, operands)
            ranges = _ranges(encoding.kinds[-1], width(encoding) if patterns else 0)
            found += (Choice(*limits, before, encoding) for limits in ranges)
    return tuple(found)


def width(encoding: Encoding) -> int:
    """The size in bits of the operation: that of its first sized operand, or 64."""
    return next(filter(None, map(kind_size, encoding.kinds)), 64)


@cache
def kind_size(kind: str) -> int:
    """The size in bits of a general register or memory operand, 0 for other kinds.

    For a broadcast that is the element in memory.
    """
    if kind in FIXED:
        return FIXED[kind][1]
    digits = kind[1:].removesuffix("bcst")
    return int(digits) if kind[0] in "rm" and digits.isdigit() else 0


def _admits(encoding: Encoding, operands: Operands) -> bool:
    """Whether the operands that a short form fixes (`add rax, imm32`) are the ones given."""
    if "fixed" not in encoding.fields:
        return True
    pairs = zip(encoding.kinds, encoding.fields, operands, strict=False)
    return all(FIXED[kind][0] == value for kind, field, value in pairs if field == "fixed")


@cache
def _ranges(kind: str, width: int) -> tuple[tuple[int, int, int, int], ...]:
    """(low, high, mask, bytes) for each range of values that an immediate of `kind` takes.

    `width` is the size of the operation if bit patterns of that size are welcome, else 0.
    """
    if kind == "1":
        return ((1, 1, 0, 0),)
    bits = int(kind.lstrip("uimrel"))
    half, mask, size = 1 << bits - 1, (1 << bits) - 1, bits // 8
    if kind.startswith("u"):
        return ((0, mask, mask, size),)
    signed = (-half, half - 1, mask, size)
    return (signed, ((1 << width) - half, (1 << width) - 1, mask, size)) if width else (signed,)


def _check(key: str, encoding: Encoding, operands: Operands) -> None:
    """Raise ValueError unless each operand (but for an immediate) is what its kind says."""
    kinds = encoding.kinds[:-1] if "imm" in encoding.fields else encoding.kinds
    if len(kinds) != len(operands):
        raise ValueError(f"{key} takes {len(encoding.kinds)} operands")
    for place, (kind, value) in enumerate(zip(kinds, operands, strict=True), 1):
        if kind[0] == "m":
            base, index, scale, _ = value
            valid = base in _BASES and index in _INDICES and scale in (1, 2, 4, 8)
        elif kind[0] in "xyzk{":
            valid = isinstance(value, int) and value in _numbers(kind, encoding.opcode)
        else:
            valid = isinstance(value, int) and 0 <= value <= 15
        if not valid:
            raise ValueError(f"{key}: operand {place} ({kind}) cannot be {value!r}")


@cache
def _numbers(kind: str, opcode: str) -> range:
    """The numbers of the vector or mask registers that an operand of `kind` can be."""
    if kind[0] == "{":  # as a write mask, k0 would mean "no mask"
        return range(1, 8)
    if kind == "k":
        return range(8)
    return range(32 if parse_opcode(opcode).evex else 16)


_BASES = (None, *range(16))
_INDICES = tuple(reg for reg in _BASES if reg != RSP)  # SIB index 100 means "no index"

# The functions that encode, one per key.

Value = TypeVar("Value")

# How many different operands a table remembers. Real code uses a few dozen; the bound is for the
# adversary, since tables live as long as the process.
_REMEMBERED = 1024


class Memo(dict[Operands, Value]):
    """A bounded table of `compute`: looking up what is not there computes and keeps it."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[Operands], Value]) -> None:
        self.compute = compute

    def __missing__(self, operands: Operands) -> Value:
        value = self.compute(operands)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[operands] = value
        return value


def emitter(
    key: str, encodings: tuple[Encoding, ...], table: Memo[Choices]
) -> Callable[[Operands], bytes]:
    """The function that encodes one instruction: operands in Intel order in, bytes out.

    It raises ValueError where an operand cannot be encoded. A branch takes the distance from its
    end as an int (`encode` resolves labels). `table` is a memo of `choices`.
    """
    encoding = encodings[0]
    memory = [place for place, kind in enumerate(encoding.kinds) if kind[0] == "m"]
    split = splitter(encoding.opcode, encoding.kinds[memory[0]]) if memory else shape
    if "imm" in encoding.fields:
        if memory:
            return _immediate_memory(key, table, memory[0], split)
        return _immediate(key, table)
    heads = Memo(lambda operands: choices(key, encodings, operands)[0].head)
    emit = _memory(heads, memory[0], split) if memory else heads.__getitem__
    return _fourth_register(emit) if "is4" in encoding.fields else emit


def _immediate(key: str, table: Memo[Choices]) -> Callable[[Operands], bytes]:
    def emit(operands: Operands) -> bytes:
        value: int = operands[-1]
        for low, high, mask, size, before, _ in table[operands[:-1]]:
            if low <= value <= high:
                return before + (value & mask).to_bytes(size, "little")
        raise misfit(key, operands)

    return emit


def _fourth_register(before: Callable[[Operands], bytes]) -> Callable[[Operands], bytes]:
    """The manual's "/is4": a register in the upper half of a byte where immediates stand."""

    def emit(operands: Operands) -> bytes:
        return before(operands) + bytes((operands[-1] << 4,))

    return emit


def _memory(heads: Memo[bytes], at: int, split: Splitter) -> Callable[[Operands], bytes]:
    def emit(operands: Operands) -> bytes:
        shaped, displacement = split(operands[at])
        return heads[(*operands[:at], shaped, *operands[at + 1 :])] + displacement

    return emit


def _immediate_memory(
    key: str, table: Memo[Choices], at: int, split: Splitter
) -> Callable[[Operands], bytes]:
    def emit(operands: Operands) -> bytes:
        value: int = operands[-1]
        shaped, displacement = split(operands[at])
        rest = (*operands[:at], shaped, *operands[at + 1 : -1])
        for low, high, mask, size, before, _ in table[rest]:
            if low <= value <= high:
                return before + displacement + (value & mask).to_bytes(size, "little")
        raise misfit(key, operands)

    return emit


def misfit(key: str, operands: Operands) -> ValueError:
    """The error for an immediate that no row of `key` can hold."""
    return ValueError(f"{key}: operand {len(operands)} (immediate) {operands[-1]} does not fit")

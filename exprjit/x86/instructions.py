"""The instructions the compiler may use: rows that read like the Intel manual.

A row gives the manual's instruction and opcode columns (volume 2), then what a register allocator
must know: the role of each operand, registers and flags read and written beside them, and the CPU
feature that must be present. Everything else derives from the rows: `INSTRUCTIONS` maps a key to
an `Instruction`, with its encoder, its text and its constraints.

A key is the name, "_" and one letter per operand: r general register, x vector register, k mask
register, z mask register that zeroes, m memory, b memory that is broadcast, i immediate, j branch
target, c the register cl. `add_rr add_rm add_mr add_ri add_mi shl_rc vpaddq512_xkxb`.
- The name is the mnemonic, followed by the size in bits of its last sized operand unless that is
  64: add32_rr, mov8_mr, and where source and destination differ the source: movzx8_rr, movsx16_rm.
  With ymm or zmm registers it is the size of the widest: vpaddq256_xxx, vpmovqd512_xx.
- A write mask is an operand, the second: k keeps the lanes that it leaves out, z zeroes them.
- Condition codes are the first operand and have no letter: setcc_r, cmovcc_rr, jcc_j.
- cl is no operand for the encoder; it shows in `reads`.
- Where several rows give one key, an immediate takes the first row that it fits, so the shortest
  stands first; otherwise the first row wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from .encoder import Encoding, Memo, Operands, choices, emitter, kind_size, misfit, shape
from .registers import CC as CC
from .registers import FIXED, NUMBERS
from .registers import Mem as Mem
from .registers import negate as negate
from .registers import swap as swap


class Row(NamedTuple):
    """One line of the manual, and the machine's constraints.

    `form` and `opcode` are the manual's columns, with three additions: `uimm` is an immediate that
    is zero-extended or a count, "<cc>" with "+cc" stands for the sixteen conditions, and "T1S64" in
    the opcode is EVEX's tuple type where memory is used by the element, of so many bits.
    `roles` has a word for each operand in `form`: r read, w written, rw both, i constant, c the
    register cl. The role of a memory operand is that of the memory; its registers are read.
    A write mask has none: it is read, and where it merges, a destination in vector registers is
    read too. The word k says that the mask chooses between the sources instead.
    `reads`, `writes` are registers beside the operands (not rsp, which nobody allocates); `flags`
    is r, w or rw, where w includes "undefined"; `feature` is as CPUID names it, None for what
    every x86-64 has; `name` replaces the derived name in the key.
    """

    form: str
    opcode: str
    roles: str = ""
    reads: str = ""
    writes: str = ""
    flags: str = ""
    feature: str | None = None
    name: str = ""


row = Row


def arithmetic(mnemonic: str, number: int, role: str, flags: str) -> list[Row]:
    """Group 1 of the opcode map: add or adc sbb and sub xor cmp are `number` 0..7."""
    base = 8 * number
    return [
        row(f"{mnemonic} r/m64, r64", f"REX.W {base + 1:02X} /r", f"{role} r", flags=flags),
        row(f"{mnemonic} r64, r/m64", f"REX.W {base + 3:02X} /r", f"{role} r", flags=flags),
        row(f"{mnemonic} r/m64, imm8", f"REX.W 83 /{number} ib", f"{role} i", flags=flags),
        row(f"{mnemonic} rax, imm32", f"REX.W {base + 5:02X} id", f"{role} i", flags=flags),
        row(f"{mnemonic} r/m64, imm32", f"REX.W 81 /{number} id", f"{role} i", flags=flags),
        row(f"{mnemonic} r/m32, r32", f"{base + 1:02X} /r", f"{role} r", flags=flags),
        row(f"{mnemonic} r32, r/m32", f"{base + 3:02X} /r", f"{role} r", flags=flags),
        row(f"{mnemonic} r/m32, imm8", f"83 /{number} ib", f"{role} i", flags=flags),
        row(f"{mnemonic} eax, imm32", f"{base + 5:02X} id", f"{role} i", flags=flags),
        row(f"{mnemonic} r/m32, imm32", f"81 /{number} id", f"{role} i", flags=flags),
    ]


def shift(mnemonic: str, digit: int) -> list[Row]:
    """Group 2 of the opcode map; a count of 1 is one byte shorter."""
    return [
        row(f"{mnemonic} r/m64, 1", f"REX.W D1 /{digit}", "rw i", flags="w"),
        row(f"{mnemonic} r/m64, uimm8", f"REX.W C1 /{digit} ib", "rw i", flags="w"),
        row(f"{mnemonic} r/m64, cl", f"REX.W D3 /{digit}", "rw c", flags="w"),
        row(f"{mnemonic} r/m32, 1", f"D1 /{digit}", "rw i", flags="w"),
        row(f"{mnemonic} r/m32, uimm8", f"C1 /{digit} ib", "rw i", flags="w"),
    ]


def bit_test(mnemonic: str, digit: int, role: str) -> list[Row]:
    """Group 8 of the opcode map: bit number modulo 64, except that `m64, r64` reaches further."""
    opcode = f"{0x83 + 8 * digit:02X}"
    return [
        row(f"{mnemonic} r/m64, uimm8", f"REX.W 0F BA /{digit} ib", f"{role} i", flags="w"),
        row(f"{mnemonic} r/m64, r64", f"REX.W 0F {opcode} /r", f"{role} r", flags="w"),
    ]


# fmt: off
ROWS = [
    # Moves. The first mov_ri zero-extends: writing a 32-bit register clears the upper half.
    row("mov r/m64, r64",    "REX.W 89 /r",    "w r"),
    row("mov r64, r/m64",    "REX.W 8B /r",    "w r"),
    row("mov r32, uimm32",   "B8+r id",        "w i", name="mov"),
    row("mov r/m64, imm32",  "REX.W C7 /0 id", "w i"),
    row("mov r64, imm64",    "REX.W B8+r io",  "w i"),
    row("mov r/m32, r32",    "89 /r",          "w r"),
    row("mov r32, r/m32",    "8B /r",          "w r"),
    row("mov r32, imm32",    "B8+r id",        "w i"),
    row("mov m32, imm32",    "C7 /0 id",       "w i"),
    row("mov m16, r16",      "66 89 /r",       "w r"),
    row("mov m8, r8",        "88 /r",          "w r"),
    row("movzx r32, r/m8",   "0F B6 /r",       "w r"),
    row("movzx r32, r/m16",  "0F B7 /r",       "w r"),
    row("movsx r64, r/m8",   "REX.W 0F BE /r", "w r"),
    row("movsx r64, r/m16",  "REX.W 0F BF /r", "w r"),
    row("movsxd r64, r/m32", "REX.W 63 /r",    "w r", name="movsxd"),
    row("lea r64, m",        "REX.W 8D /r",    "w r"),
    row("lea r32, m",        "8D /r",          "w r"),
    row("xchg r/m64, r64",   "REX.W 87 /r",    "rw rw"),
    row("push r64",          "50+r",           "r"),
    row("push r/m64",        "FF /6",          "r"),
    row("push imm8",         "6A ib",          "i"),
    row("push imm32",        "68 id",          "i"),
    row("pop r64",           "58+r",           "w"),
    row("pop r/m64",         "8F /0",          "w"),

    # Arithmetic and logic.
    *arithmetic("add", 0, "rw", "w"),
    *arithmetic("or",  1, "rw", "w"),
    *arithmetic("adc", 2, "rw", "rw"),
    *arithmetic("sbb", 3, "rw", "rw"),
    *arithmetic("and", 4, "rw", "w"),
    *arithmetic("sub", 5, "rw", "w"),
    *arithmetic("xor", 6, "rw", "w"),
    *arithmetic("cmp", 7, "r",  "w"),
    # Tests are an `and` that keeps only the flags.
    row("test r/m64, r64",   "REX.W 85 /r",    "r r", flags="w"),
    row("test rax, imm32",   "REX.W A9 id",    "r i", flags="w"),
    row("test r/m64, imm32", "REX.W F7 /0 id", "r i", flags="w"),
    row("test r/m32, r32",   "85 /r",          "r r", flags="w"),
    row("test eax, imm32",   "A9 id",          "r i", flags="w"),
    row("test r/m32, imm32", "F7 /0 id",       "r i", flags="w"),
    row("test r/m8, r8",     "84 /r",          "r r", flags="w"),
    row("test al, imm8",     "A8 ib",          "r i", flags="w"),
    row("test r/m8, imm8",   "F6 /0 ib",       "r i", flags="w"),
    # inc and dec leave the carry flag alone.
    row("inc r/m64", "REX.W FF /0", "rw", flags="w"),
    row("dec r/m64", "REX.W FF /1", "rw", flags="w"),
    row("not r/m64", "REX.W F7 /2", "rw"),
    row("neg r/m64", "REX.W F7 /3", "rw", flags="w"),
    # rdx:rax = rax * operand; rax and rdx = rdx:rax divided by operand.
    row("mul r/m64",  "REX.W F7 /4", "r", reads="rax", writes="rax rdx", flags="w"),
    row("imul r/m64", "REX.W F7 /5", "r", reads="rax", writes="rax rdx", flags="w"),
    row("div r/m64",  "REX.W F7 /6", "r", reads="rax rdx", writes="rax rdx", flags="w"),
    row("idiv r/m64", "REX.W F7 /7", "r", reads="rax rdx", writes="rax rdx", flags="w"),
    row("div r/m32",  "F7 /6",       "r", reads="rax rdx", writes="rax rdx", flags="w"),
    row("cqo",        "REX.W 99",    "", reads="rax", writes="rdx"),
    # Multiplication without the upper half.
    row("imul r64, r/m64",        "REX.W 0F AF /r", "rw r", flags="w"),
    row("imul r64, r/m64, imm8",  "REX.W 6B /r ib", "w r i", flags="w"),
    row("imul r64, r/m64, imm32", "REX.W 69 /r id", "w r i", flags="w"),
    row("imul r32, r/m32",        "0F AF /r",       "rw r", flags="w"),
    row("imul r32, r/m32, imm8",  "6B /r ib",       "w r i", flags="w"),
    row("imul r32, r/m32, imm32", "69 /r id",       "w r i", flags="w"),

    # Shifts and bits. A count of 0 leaves the flags alone.
    *shift("rol", 0),
    *shift("ror", 1),
    *shift("shl", 4),
    *shift("shr", 5),
    *shift("sar", 7),
    row("shld r/m64, r64, uimm8", "REX.W 0F A4 /r ib", "rw r i", flags="w"),
    row("shrd r/m64, r64, uimm8", "REX.W 0F AC /r ib", "rw r i", flags="w"),
    *bit_test("bt",  4, "r"),
    *bit_test("bts", 5, "rw"),
    *bit_test("btr", 6, "rw"),
    *bit_test("btc", 7, "rw"),
    # A source of 0 leaves the destination of bsf and bsr as it was, so it counts as read.
    row("bsf r64, r/m64",    "REX.W 0F BC /r",    "rw r", flags="w"),
    row("bsr r64, r/m64",    "REX.W 0F BD /r",    "rw r", flags="w"),
    row("popcnt r64, r/m64", "F3 REX.W 0F B8 /r", "w r", flags="w", feature="popcnt"),
    row("tzcnt r64, r/m64",  "F3 REX.W 0F BC /r", "w r", flags="w", feature="bmi1"),
    row("lzcnt r64, r/m64",  "F3 REX.W 0F BD /r", "w r", flags="w", feature="lzcnt"),
    row("bswap r64",         "REX.W 0F C8+r",     "rw"),
    row("bswap r32",         "0F C8+r",           "rw"),

    # BMI1 and BMI2. shlx and its kin take any count register and leave the flags alone.
    row("andn r64, r64, r/m64",   "VEX.LZ.0F38.W1 F2 /r",    "w r r", flags="w", feature="bmi1"),
    row("bextr r64, r/m64, r64",  "VEX.LZ.0F38.W1 F7 /r",    "w r r", flags="w", feature="bmi1"),
    row("blsr r64, r/m64",        "VEX.LZ.0F38.W1 F3 /1",    "w r", flags="w", feature="bmi1"),
    row("blsmsk r64, r/m64",      "VEX.LZ.0F38.W1 F3 /2",    "w r", flags="w", feature="bmi1"),
    row("blsi r64, r/m64",        "VEX.LZ.0F38.W1 F3 /3",    "w r", flags="w", feature="bmi1"),
    row("bzhi r64, r/m64, r64",   "VEX.LZ.0F38.W1 F5 /r",    "w r r", flags="w", feature="bmi2"),
    row("pdep r64, r64, r/m64",   "VEX.LZ.F2.0F38.W1 F5 /r", "w r r", feature="bmi2"),
    row("pext r64, r64, r/m64",   "VEX.LZ.F3.0F38.W1 F5 /r", "w r r", feature="bmi2"),
    row("mulx r64, r64, r/m64",   "VEX.LZ.F2.0F38.W1 F6 /r", "w w r", reads="rdx", feature="bmi2"),
    row("rorx r64, r/m64, uimm8", "VEX.LZ.F2.0F3A.W1 F0 /r ib", "w r i", feature="bmi2"),
    row("shlx r64, r/m64, r64",   "VEX.LZ.66.0F38.W1 F7 /r", "w r r", feature="bmi2"),
    row("shrx r64, r/m64, r64",   "VEX.LZ.F2.0F38.W1 F7 /r", "w r r", feature="bmi2"),
    row("sarx r64, r/m64, r64",   "VEX.LZ.F3.0F38.W1 F7 /r", "w r r", feature="bmi2"),

    # Conditions. set<cc> gives 8 bits and keeps the other 56: setcc leaves them undefined for the
    # allocator, setccz is set<cc> into a register that was zeroed before.
    row("set<cc> r/m8",        "0F 90+cc /0",       "w", flags="r", name="setcc"),
    row("set<cc> r/m8",        "0F 90+cc /0",       "rw", flags="r", name="setccz"),
    row("cmov<cc> r64, r/m64", "REX.W 0F 40+cc /r", "rw r", flags="r"),

    # Control. What a call clobbers is its ABI's business, not the row's.
    row("j<cc> rel8",  "70+cc cb",    "i", flags="r"),
    row("j<cc> rel32", "0F 80+cc cd", "i", flags="r"),
    row("jmp rel8",    "EB cb",       "i"),
    row("jmp rel32",   "E9 cd",       "i"),
    row("jmp r/m64",   "FF /4",       "r"),
    row("call rel32",  "E8 cd",       "i"),
    row("call r/m64",  "FF /2",       "r"),
    row("ret", "C3"),
    row("endbr64", "F3 0F 1E FA"),
    row("int3", "CC"),
    row("ud2", "0F 0B"),
    row("nop", "90"),
    row("sfence", "0F AE F8", feature="sse"),

    # Floating point, for isqrt and for dividing. Upper parts of a destination are undefined.
    row("cvtsi2sd xmm, r/m64",       "F2 REX.W 0F 2A /r",       "w r", feature="sse2"),
    row("cvttsd2si r64, xmm/m64",    "F2 REX.W 0F 2C /r",       "w r", feature="sse2"),
    row("sqrtsd xmm, xmm/m64",       "F2 0F 51 /r",             "w r", feature="sse2"),
    row("pxor xmm, xmm/m128",        "66 0F EF /r",             "rw r", feature="sse2"),
    row("movq xmm, xmm/m64",         "F3 0F 7E /r",             "w r", feature="sse2"),
    row("movq xmm/m64, xmm",         "66 0F D6 /r",             "w r", feature="sse2"),
    row("movq xmm, r/m64",           "66 REX.W 0F 6E /r",       "w r", feature="sse2"),
    row("movq r/m64, xmm",           "66 REX.W 0F 7E /r",       "w r", feature="sse2"),
    row("vsqrtsd xmm, xmm, xmm/m64", "VEX.LIG.F2.0F.WIG 51 /r", "w r r", feature="avx"),
    row("vcvtsi2sd xmm, xmm, r/m64", "VEX.LIG.F2.0F.W1 2A /r",  "w r r", feature="avx"),
    row("stmxcsr m32",               "0F AE /3",                "w", feature="sse", name="stmxcsr"),
    row("ldmxcsr m32",               "0F AE /2",                "r", feature="sse", name="ldmxcsr"),
]
# fmt: on


class Instruction:
    """What one key of `INSTRUCTIONS` means. Not to be changed.

    `mnemonic` is the manual's ("set<cc>" for setcc_r); `kinds` has a letter per operand as in the
    key, with c for a leading condition code; `roles` (r, w, rw, i), `reads`, `writes` (register
    numbers), `reads_flags`, `writes_flags` and `feature` are the row's columns; `branches` tells
    that the last operand is a Label; `encodings` are the candidate rows, shortest first, and
    `table` what `encoder.choices` makes of them. `emit(operands)` gives the bytes.
    """

    __slots__ = (
        "key",
        "mnemonic",
        "kinds",
        "roles",
        "reads",
        "writes",
        "reads_flags",
        "writes_flags",
        "feature",
        "branches",
        "encodings",
        "table",
        "emit",
    )

    def __init__(self, key: str, source: Row, encodings: tuple[Encoding, ...]) -> None:
        first = encodings[0]
        counted = ("rcx",) if first.suffix else ()
        self.key = key
        self.mnemonic = first.mnemonic
        self.kinds = tuple(map(_letter, first.kinds))
        self.roles = _roles(source.roles, first.kinds)
        self.reads = tuple(NUMBERS[register] for register in (*source.reads.split(), *counted))
        self.writes = tuple(NUMBERS[register] for register in source.writes.split())
        self.reads_flags = "r" in source.flags
        self.writes_flags = "w" in source.flags
        self.feature = source.feature
        self.branches = self.kinds[-1:] == ("j",)
        self.encodings = encodings
        self.table = Memo(lambda operands: choices(key, encodings, operands))
        self.emit = emitter(key, encodings, self.table)

    def __repr__(self) -> str:
        return f"<{self.key}>"

    def select(self, operands: Operands) -> Encoding:
        """The row that `emit` uses for `operands` (for a branch to a label, the shortest)."""
        pairs = zip(self.kinds, operands, strict=True)
        shaped = tuple(shape(value)[0] if kind in "mb" else value for kind, value in pairs)
        if self.kinds[-1:] not in (("i",), ("j",)):
            return self.table[shaped][0].encoding
        value = operands[-1]
        for choice in self.table[shaped[:-1]]:
            if not isinstance(value, int) or choice.low <= value <= choice.high:
                return choice.encoding
        raise misfit(self.key, operands)


# From the rows to the table.


@cache
def _letter(kind: str) -> str:
    """The letter of an operand kind: "r64" -> r, "ymm" -> x, "imm8" -> i, "rel8" -> j, cc -> c."""
    if kind.startswith("rel"):
        return "j"
    if kind.startswith(("imm", "uimm", "1")):
        return "i"
    if kind in FIXED:
        return "c" if kind == "cl" else "r"
    if kind[0] == "{":
        return "z" if kind == _ZEROING else "k"
    if kind.endswith("bcst"):
        return "b"
    return "x" if kind[0] in "yz" else kind[0]


_ZEROING = "{k1}{z}"


@cache
def _kinds(operand: str) -> list[str]:
    """The kinds that an operand of the manual can be: "r/m64" -> r64 m64, "xmm/m64" -> xmm m64.

    A write mask can be left out, and one that zeroes can also merge.
    """
    if operand[0] == "{":
        return ["", "{k1}", operand] if operand == _ZEROING else ["", operand]
    register, *memory = operand.split("/")
    return ["r" + memory[0][1:] if register == "r" else register, *memory]


@cache
def _roles(words: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The role of each operand: the row's words, and those of a condition and a write mask."""
    roles = [word for word in words.split() if word not in ("c", "k")]
    if kinds[:1] == ("cc",):
        roles.insert(0, "i")
    if kinds[1:] and kinds[1][0] == "{":
        # What the mask leaves out is kept by a vector register. A mask register gets zeros, and
        # memory is not written there.
        if kinds[1] != _ZEROING and _letter(kinds[0]) == "x" and "k" not in words:
            roles[0] = "rw"
        roles.insert(1, "r")
    return tuple(roles)


@cache
def _field(operand: str) -> str:
    """Where an operand goes by itself: all but registers, for which it is ""."""
    letter = _letter(operand)
    if operand in FIXED:
        return "fixed"
    if operand[0] == "{":
        return "mask"
    if letter == "m" or "/" in operand:
        return "rm"
    return {"c": "cc", "i": "imm", "j": "imm"}.get(letter, "")


@cache
def _fields(operands: tuple[str, ...], opcode: str) -> tuple[str, ...]:
    """Where the encoding holds each operand: volume 2's "operand encoding" column, derived.

    An r/m operand goes to ModRM.rm, as does the last register where nothing else is there;
    immediates go to the end, conditions and "+r" registers to the opcode. The registers left are
    ModRM.reg, VEX.vvvv and "/is4", but vvvv and reg behind a destination in memory; with "/digit"
    there is no reg.
    """
    fields = [_field(operand) for operand in operands]
    registers = [place for place, field in enumerate(fields) if not field]
    if "rm" not in fields and "/" in opcode:
        fields[registers.pop()] = "rm"
    free = ["reg", "vvvv", "is4"] if "/r" in opcode else ["vvvv"] if "/" in opcode else ["plus"]
    if fields[:1] == ["rm"] and len(registers) == 2:
        free = ["vvvv", "reg"]
    for place, field in zip(registers, free, strict=False):
        fields[place] = field
    return tuple(fields)


def parts(form: str) -> tuple[str, list[str]]:
    """The mnemonic and the operands, of which a write mask is one."""
    mnemonic, _, rest = form.partition(" ")
    return mnemonic, rest.replace(" {", ", {").split(", ") if rest else []


def key_name(source: Row, mnemonic: str, operands: list[str]) -> str:
    """The first part of the key: the mnemonic, with the operation's size if that is not 64."""
    if source.name:
        return source.name
    for vector, size in (("zmm", 512), ("ymm", 256)):
        if vector in source.form:
            return f"{mnemonic}{size}"
    sizes = [kind_size(_kinds(operand)[0]) for operand in operands]
    size = next(filter(None, reversed(sizes)), 64)
    return mnemonic.replace("<", "").replace(">", "") + ("" if size == 64 else str(size))


def _expand(source: Row) -> Iterator[tuple[str, Encoding]]:
    """The keys that a row gives, each with its encoding: one for each choice of kinds."""
    mnemonic, written = parts(source.form)
    operands = [operand for operand in written if operand != "cl"]
    suffix = "" if len(operands) == len(written) else ", cl"
    name = key_name(source, mnemonic, operands)
    conditions = ["cc"] if "<cc>" in mnemonic else []
    fields = _fields((*conditions, *operands), source.opcode)
    for kinds in product(*map(_kinds, operands)):
        places = fields
        if "" in kinds:  # without a write mask
            kinds, places = (kinds[0], *kinds[2:]), (fields[0], *fields[2:])
        elif _ZEROING in kinds and kinds[0][0] == "m":  # memory keeps what is masked
            continue
        letters = "".join(map(_letter, kinds)) + ("c" if suffix else "")
        encoding = Encoding(mnemonic, source.opcode, (*conditions, *kinds), places, suffix)
        yield f"{name}_{letters}" if letters else name, encoding


def table(rows: list[Row]) -> dict[str, Instruction]:
    """Gather the encodings of each key; its constraints are those of its first row."""
    gathered: dict[str, tuple[Row, list[Encoding]]] = {}
    for source in rows:
        for key, encoding in _expand(source):
            _, encodings = gathered.setdefault(key, (source, []))
            if not encodings or "imm" in encoding.fields:
                encodings.append(encoding)
    return {
        key: Instruction(key, source, tuple(encodings))
        for key, (source, encodings) in gathered.items()
    }


INSTRUCTIONS = table(ROWS)

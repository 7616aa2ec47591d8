"""The encoder, judged by GNU as and by a second decoder over corner operands of every row.

The columns that the register allocator trusts (roles, registers and flags beside the operands, CPU
features) are judged by iced-x86's account of what each instruction reads and writes.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from exprjit.x86.assembler import Label, encode
from exprjit.x86.encoder import Encoding, parse_opcode
from exprjit.x86.instructions import INSTRUCTIONS, ROWS, Instruction, Row
from exprjit.x86.listing import asm, text
from exprjit.x86.registers import (
    ARGUMENTS,
    CALLEE_SAVED,
    CALLER_SAVED,
    CC,
    CONDITION_NAMES,
    FIXED,
    NAMES_MASK,
    R8,
    R12,
    R13,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RSI,
    RSP,
    Mem,
    name,
    negate,
    swap,
)
from exprjit.x86.vectors import ROWS as VECTOR_ROWS
from exprjit.x86.vectors import VECTORS, Vectors

# None of this depends on the version of Python.
pytestmark = pytest.mark.slow

Case = tuple[Instruction, tuple[Any, ...]]

# The tables with the rows that they are made of.
TABLES: dict[str, tuple[Mapping[str, Instruction], list[Row]]] = {
    "scalar": (INSTRUCTIONS, ROWS),
    "vector": (VECTORS, VECTOR_ROWS),
}
both = pytest.mark.parametrize("table", TABLES)

POWERS = (0, 7, 8, 31, 32, 63, 64)
IMMEDIATES = sorted(
    {sign * 2**power + step for power in POWERS for step in (-1, 0, 1) for sign in (1, -1)}
    | {2**width - 2**power + step for width in (32, 64) for power in (7, 31) for step in (-1, 0)}
    | {3, 42, 255, 1000}
)
DISPLACEMENTS = (0, 1, 127, 128, -128, -129, 2**31 - 1, -(2**31))
MEMORY = [
    *(Mem(base) for base in range(16)),
    *(Mem(base, None, 1, d) for base in (RAX, RSP, RBP, R12, R13) for d in DISPLACEMENTS),
    *(Mem(RBX, index, 4, 8) for index in range(16) if index != RSP),
    *(
        Mem(base, index, scale, disp)
        for base in (None, RAX, RSP, RBP, R12, R13)
        for index in (None, RCX, RBP, R12, R13)
        for scale in (1, 2, 4, 8)
        for disp in (0, 1, 1000)
        if index is not None or scale == 1
    ),
]

# Where EVEX counts displacements in units of 4 to 64 bytes: both sides of what one byte can say.
UNITS = (4, 8, 16, 32, 64)
COUNTED = sorted(
    {unit * count + step for unit in UNITS for count in (1, 127, 128) for step in (-1, 0, 1)}
    | {-unit * count + step for unit in UNITS for count in (1, 128, 129) for step in (-1, 0, 1)}
)
VECTOR_MEMORY = [
    *MEMORY,
    *(Mem(R13, None, 1, d) for d in COUNTED),
    *(Mem(None, R12, 8, d) for d in COUNTED),
]


def accepted(key: str) -> tuple[int, int]:
    """The immediates that a key must take, stated here independently of the rows."""
    if key == "mov_ri":
        return -(2**63), 2**64 - 1
    if key in VECTORS:
        return 0, 255
    if key.startswith(("rol", "ror", "sh", "sar", "bt")):
        return 0, 255
    if "8_" in key:
        return -(2**7), 2**8 - 1
    if "32_" in key:
        return -(2**31), 2**32 - 1
    return -(2**31), 2**31 - 1


def corners(instruction: Instruction) -> list[tuple[Any, ...]]:
    """Operand tuples in which every operand runs through its corners, the others standing still."""
    if instruction.key in VECTORS:
        return vector_corners(instruction)
    low, high = accepted(instruction.key)
    ranges: dict[str, list[Any]] = {
        "c": list(range(16)),
        "r": list(range(16)),
        "x": list(range(16)),
        "m": MEMORY,
        "i": [value for value in IMMEDIATES if low <= value <= high],
    }
    others: dict[str, list[Any]] = {
        "c": [CC["e"]],
        "r": [RAX, RSI, R8, R13],
        "x": [1, 9],
        "m": [Mem(RBX), Mem(R12, R13, 8, -5)],
        "i": [1, 100] + [value for value in (1000,) if value <= high],
    }
    found: dict[tuple[Any, ...], None] = {}
    for place, kind in enumerate(instruction.kinds):
        for value in ranges[kind]:
            rounds = max(len(others[other]) for other in instruction.kinds)
            for turn in range(rounds):
                found[around(instruction, others, turn, place, value)] = None
    return list(found) or [()]


def around(
    instruction: Instruction, others: dict[str, list[Any]], turn: int, place: int, value: Any
) -> tuple[Any, ...]:
    """Operands with `value` at `place` and the `turn`th of the `others` elsewhere."""
    operands = [
        others[kind][(turn + position) % len(others[kind])]
        for position, kind in enumerate(instruction.kinds)
    ]
    operands[place] = value
    return tuple(operands)


def vector_corners(instruction: Instruction) -> list[tuple[Any, ...]]:
    """The same for a vector instruction; the others take turns, as there are many more keys."""
    first = instruction.encodings[0]
    evex = first.opcode.startswith("EVEX")
    ranges: dict[str, list[Any]] = {
        "r": list(range(16)),
        "x": list(range(32 if evex else 16)),
        "k": list(range(8)),
        "z": list(range(1, 8)),
        "m": VECTOR_MEMORY,
        "b": VECTOR_MEMORY,
        "i": [value for value in IMMEDIATES if 0 <= value <= 255],
    }
    others: dict[str, list[Any]] = {
        "r": [RAX, RSI, R8, R13],
        "x": [1, 9, 17, 30] if evex else [1, 9],
        "k": [1, 6, 3],
        "z": [1, 6, 3],
        "m": [Mem(RBX), Mem(R12, R13, 8, -5)],
        "b": [Mem(RBX), Mem(R12, R13, 8, -5)],
        "i": [1, 100, 255],
    }
    found: dict[tuple[Any, ...], None] = {}
    for place, kind in enumerate(instruction.kinds):
        values = ranges[kind]
        if first.kinds[place] == "{k1}":
            values = ranges["z"]  # k0 is no write mask
        for turn, value in enumerate(values):
            found[around(instruction, others, turn, place, value)] = None
    return list(found) or [()]


@cache
def cases(table: str) -> list[Case]:
    """Every instruction except branches to labels, with its corner operands."""
    return [
        (instruction, operands)
        for instruction in TABLES[table][0].values()
        if not instruction.branches
        for operands in corners(instruction)
    ]


@both
def test_the_cases_reach_every_row(table: str) -> None:
    instructions, rows = TABLES[table]
    used = {instruction.select(operands) for instruction, operands in cases(table)}
    known = {e for i in instructions.values() if not i.branches for e in i.encodings}
    assert used == known
    written = {
        (encoding.mnemonic, encoding.opcode)
        for i in instructions.values()
        for encoding in i.encodings
    }
    assert written == {(row.form.partition(" ")[0], row.opcode) for row in rows}


# Judge one: GNU as.

# Keys for which as prefers another encoding of the same instruction, with the reason. There both
# are decoded and compared, operands in either order.
AS_DIFFERS = {
    "scalar": {"xchg_rr": "as has one-byte forms for an exchange with rax"},
    "vector": dict.fromkeys(
        ["vmovdqu256_xx", "vmovdqa256_xx", "vmovdqu128_xx", "vmovq_xx"],
        "as reads registers from 8 on by the store's opcode, which is a byte shorter",
    ),
}

SLOT = 16  # no instruction is longer than 15 bytes
needs_as = pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("objcopy")), reason="GNU binutils is not installed"
)


def assemble(source: str, folder: Path) -> bytes:
    """The bytes that GNU as makes of `source` in Intel syntax."""
    (folder / "code.s").write_text(f".intel_syntax noprefix\n{source}\n")
    for command in ("as --64 -o code.o code.s", "objcopy -O binary -j .text code.o code.bin"):
        done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
    return (folder / "code.bin").read_bytes()


@needs_as
@both
def test_gnu_as_makes_the_same_bytes(tmp_path: Path, table: str) -> None:
    lines = [f".balign {SLOT}, 0xcc\n{text(i, operands)}" for i, operands in cases(table)]
    theirs = assemble("\n".join(lines) + f"\n.balign {SLOT}, 0xcc", tmp_path)
    assert len(theirs) == SLOT * len(lines)
    wrong, differing = [], set()
    for place, (instruction, operands) in enumerate(cases(table)):
        ours = instruction.emit(operands)
        slot = theirs[SLOT * place : SLOT * (place + 1)]
        if slot == ours.ljust(SLOT, b"\xcc"):
            continue
        differing.add(instruction.key)
        if instruction.key not in AS_DIFFERS[table] or meaning(slot) != meaning(ours):
            wrong.append(f"{text(instruction, operands)}: {ours.hex(' ')}, as: {slot.hex(' ')}")
    assert not wrong, "\n".join(wrong[:50])
    assert differing == set(AS_DIFFERS[table])


def meaning(code: bytes) -> tuple[str, list[str]]:
    """The first instruction of `code` decoded: mnemonic and sorted operands."""
    iced = pytest.importorskip("iced_x86")
    mnemonic, _, rest = str(iced.Decoder(64, code).decode()).partition(" ")
    # 90 is at once nop and the exchange of rax with itself.
    return ("xchg", ["rax", "rax"]) if mnemonic == "nop" else (mnemonic, sorted(rest.split(",")))


@needs_as
def test_gnu_as_picks_the_same_branch_sizes(tmp_path: Path) -> None:
    lines, source = random_program(random.Random(2), 3000)
    assert encode(lines).code == assemble("\n".join(source), tmp_path)


def random_program(rng: random.Random, length: int) -> tuple[list[Any], list[str]]:
    """Branches near and far in both directions between fillers: lines, and the same for as."""
    labels = [Label(f"label{number}") for number in range(length // 4)]
    places = sorted(rng.randrange(length) for _ in labels)
    lines: list[Any] = []
    source = []
    placed = 0
    for position in range(length):
        while placed < len(labels) and places[placed] <= position:
            lines.append((labels[placed], (), None))
            source.append(f"{labels[placed].name}:")
            placed += 1
        near = labels[min(len(labels) - 1, max(0, placed + rng.randrange(-9, 9)))]
        far = rng.choice(labels)
        instruction, operands = rng.choice(
            [
                (INSTRUCTIONS["jcc_j"], (rng.randrange(16), near)),
                (INSTRUCTIONS["jmp_j"], (near,)),
                (INSTRUCTIONS["jmp_j"], (rng.choice([near] * 9 + [far]),)),
                (INSTRUCTIONS["call_j"], (far,)),
                (INSTRUCTIONS["mov_ri"], (rng.randrange(16), rng.choice([5, -5, 2**40]))),
                (INSTRUCTIONS["nop"], ()),
            ]
        )
        lines.append((instruction, operands, position))
        source.append(text(instruction, operands))
    lines += [(label, (), None) for label in labels[placed:]]
    return lines, source + [f"{label.name}:" for label in labels[placed:]]


# Judge two: iced-x86, a decoder of another house.


def names_of(enumeration: Any) -> dict[int, str]:
    """The numbers of one of iced's enumerations with their names in small letters."""
    return {number: key.lower() for key, number in vars(enumeration).items() if key.isupper()}


class Iced:
    """iced-x86 and its enumerations by name."""

    def __init__(self) -> None:
        self.module: Any = pytest.importorskip("iced_x86")
        self.mnemonics = names_of(self.module.Mnemonic)
        self.kinds = names_of(self.module.OpKind)
        self.accesses = names_of(self.module.OpAccess)
        features = names_of(self.module.CpuidFeature).items()
        self.features = {key: text.replace("avx512_", "avx512") for key, text in features}
        self.roundings = names_of(self.module.RoundingControl)
        # GNU's r8b is iced's r8l.
        registers = names_of(self.module.Register).items()
        self.registers = {key: re.sub(r"^(r\d+)l$", r"\1b", text) for key, text in registers}
        self.info = self.module.InstructionInfoFactory().info

    def decode(self, code: bytes) -> Any:
        return self.module.Decoder(64, code).decode()

    def operand(self, seen: Any, place: int) -> object:
        """Operand `place` of a decoded instruction as the encoder writes it, registers by name."""
        kind = self.kinds[seen.op_kind(place)]
        if kind == "register":
            return self.registers[seen.op_register(place)]
        if kind == "memory":
            base = self.registers[seen.memory_base]
            index = self.registers[seen.memory_index]
            size = self.module.MemorySizeExt.size(seen.memory_size)
            return base, index, seen.memory_index_scale, seen.memory_displacement, size
        bits = int(re.findall(r"\d+", kind.removesuffix("_2nd"))[-1])
        return seen.immediate(place) % 2**bits, bits

    def context(self, seen: Any) -> tuple[str, bool, bool, str, bool]:
        """What EVEX says beside the operands: mask, zeroing, broadcast, rounding, exceptions."""
        return (
            self.registers[seen.op_mask],
            seen.zeroing_masking,
            seen.is_broadcast,
            self.roundings[seen.rounding_control],
            seen.suppress_all_exceptions,
        )

    def role(self, access: int) -> str:
        """An access as a role; what is written on a condition is otherwise kept, hence read."""
        known = {"read": "r", "write": "w", "no_mem_access": "r"}
        return known.get(self.accesses[access], "rw")


@pytest.fixture(scope="module")
def iced() -> Iced:
    return Iced()


@both
def test_iced_decodes_what_was_meant(iced: Iced, table: str) -> None:
    for instruction, operands in cases(table):
        code, words = instruction.emit(operands), text(instruction, operands)
        seen = iced.decode(code)
        assert (seen.len, iced.mnemonics[seen.mnemonic]) == (len(code), words.split()[0]), words
        encoding = instruction.select(operands)
        meant = [
            (kind, value)
            for kind, value in zip(encoding.kinds, operands, strict=True)
            if kind != "cc" and kind[0] != "{"
        ]
        meant += [("cl", RCX)] if encoding.suffix else []
        theirs = [iced.operand(seen, place) for place in range(seen.op_count)]
        ours = [as_iced_has_it(*pair, found) for pair, found in zip(meant, theirs, strict=True)]
        # An exchange has no order, and iced puts the operand in ModRM.reg first.
        if instruction.mnemonic == "xchg":
            ours, theirs = sorted(ours, key=str), sorted(theirs, key=str)
        assert ours == theirs, words
        assert context(encoding.kinds, operands) == iced.context(seen), words


# iced's names of the static roundings.
ROUNDINGS = {
    "{rn-sae}": "round_to_nearest",
    "{rd-sae}": "round_down",
    "{ru-sae}": "round_up",
    "{rz-sae}": "round_toward_zero",
}


def context(kinds: tuple[str, ...], operands: tuple[Any, ...]) -> object:
    """What `Iced.context` should give."""
    masks = [
        (NAMES_MASK[operand], "{z}" in kind)
        for kind, operand in zip(kinds, operands, strict=True)
        if kind[0] == "{"
    ]
    mask, zeroing = masks[0] if masks else ("none", False)
    broadcast = any(kind.endswith("bcst") for kind in kinds)
    (rounding,) = {kind[3:] for kind in kinds if kind.endswith("sae}")} or {""}
    return mask, zeroing, broadcast, ROUNDINGS.get(rounding, "none"), rounding == "{sae}"


def as_iced_has_it(kind: str, value: Any, found: Any) -> object:
    """What `Iced.operand` should give; only an immediate's width is taken from what it `found`."""
    if kind[0] in "xyz":
        return name(value, {"x": 128, "y": 256, "z": 512}[kind[0]])
    if kind == "k":
        return NAMES_MASK[value]
    if kind in FIXED:
        return name(*FIXED[kind])
    if kind[0] == "r":
        return name(value, int(kind[1:]))
    if kind[0] == "m":
        base, index, scale, disp = value
        names = ["none" if part is None else name(part) for part in (base, index)]
        return *names, scale, disp % 2**64, int(kind[1:].removesuffix("bcst") or 0) // 8
    return value % 2 ** found[1], found[1]


# The columns that the register allocator trusts.

# Keys whose roles say something else than iced does, with the reason.
ROLES_DIFFER = {
    "setccz_r": "the register was zeroed before, and its upper 56 bits are kept",
    "setccz_m": "is of the same row",
    "sqrtsd_xx": "the upper half is kept, and nobody reads it",
    "sqrtsd_xm": "the upper half is kept, and nobody reads it",
    "cvtsi2sd_xr": "the upper half is kept, and nobody reads it",
    "cvtsi2sd_xm": "the upper half is kept, and nobody reads it",
    # The manual's operand table, capstone and the processor all say read.
    "pdep_rrr": "iced 1.21 has the second operand read and written",
    "pdep_rrm": "iced 1.21 has the second operand read and written",
    "pext_rrr": "iced 1.21 has the second operand read and written",
    "pext_rrm": "iced 1.21 has the second operand read and written",
}
VECTOR_ROLES_DIFFER = {
    "vzeroupper": "the lower halves are kept, and nobody reads the upper ones afterwards",
    **dict.fromkeys(
        (key for key in VECTORS if key.endswith("_mkx")),
        "memory that the mask leaves out is not written; iced has it read, as in a register",
    ),
}
DIFFERENT_ROLES = {"scalar": set(ROLES_DIFFER), "vector": set(VECTOR_ROLES_DIFFER)}
# What every x86-64 has, or in the case of CET may lack: endbr64 is a nop there.
BASELINE = {"intel8086", "intel186", "intel286", "intel386", "intel486", "x64", "cmov", "cet_ibt"}


@cache
def column_cases(table: str) -> dict[tuple[str, Encoding], Case]:
    """A case for every encoding, its registers distinct from one another and from fixed ones."""
    found: dict[tuple[str, Encoding], Case] = {}
    for instruction in TABLES[table][0].values():
        for first in (R8, RAX):
            for immediate in (3, 1, 1000, -5, 2**40):
                pools: dict[str, list[Any]] = {
                    "r": [first, 9, 10, 11],
                    "x": [1, 2, 3, 4],
                    "c": [CC["l"]],
                    "k": [1, 2, 3],
                    "z": [4],
                    "m": [Mem(RBX, R12, 2, 4)],
                    "b": [Mem(RBX, R12, 2, 4)],
                    "i": [immediate],
                    "j": [immediate],
                }
                operands = tuple(pools[kind].pop(0) for kind in instruction.kinds)
                with suppress(ValueError):
                    instruction.emit(operands)
                    chosen = instruction.key, instruction.select(operands)
                    found.setdefault(chosen, (instruction, operands))
    return found


@both
def test_every_encoding_has_a_column_case(table: str) -> None:
    assert set(column_cases(table)) == {
        (key, encoding)
        for key, instruction in TABLES[table][0].items()
        for encoding in instruction.encodings
    }


@both
def test_iced_agrees_about_registers(iced: Iced, table: str) -> None:
    wrong, differing = [], set()
    for instruction, operands in column_cases(table).values():
        info = iced.info(iced.decode(instruction.emit(operands)))
        ours = used_by_columns(instruction, operands)
        theirs = used_by_iced(iced, info)
        # Conditions and write masks are no operands for iced.
        pairs = zip(instruction.encodings[0].kinds, instruction.roles, strict=True)
        operands_of_iced = [pair for pair in pairs if pair[0] != "cc" and pair[0][0] != "{"]
        for place, (kind, role) in enumerate(operands_of_iced):
            if kind[0] == "m":
                ours |= {("memory", access) for access in role}
                theirs |= {("memory", access) for access in iced.role(info.op_access(place))}
        if ours != theirs:
            differing.add(instruction.key)
            if instruction.key not in DIFFERENT_ROLES[table]:
                wrong.append(f"{text(instruction, operands)}: only one of us has {ours ^ theirs}")
    assert not wrong, "\n".join(wrong)
    assert differing == DIFFERENT_ROLES[table]


def used_by_columns(instruction: Instruction, operands: tuple[Any, ...]) -> set[tuple[str, str]]:
    """{(register, "r" or "w")} from the roles and the columns for fixed registers."""
    used = {(name(register), "r") for register in instruction.reads}
    used |= {(name(register), "w") for register in instruction.writes}
    for kind, role, operand in zip(instruction.kinds, instruction.roles, operands, strict=True):
        if kind in "rx":
            used |= {(name(operand, 128 if kind == "x" else 64), access) for access in role}
        elif kind in "kz":
            used |= {(NAMES_MASK[operand], access) for access in role}
        elif kind in "mb":
            used |= {(name(operand.base), "r"), (name(operand.index), "r")}
        else:
            assert role == "i"
    return used


def used_by_iced(iced: Iced, info: Any) -> set[tuple[str, str]]:
    used = set()
    for entry in info.used_registers():
        full = iced.registers[iced.module.RegisterExt.full_register(entry.register)]
        # rsp moves with push, pop, call and ret: nobody allocates it and no column names it.
        if full != "rsp":
            used |= {(full.replace("zmm", "xmm"), role) for role in iced.role(entry.access)}
    return used


@both
def test_iced_agrees_about_flags_and_features(iced: Iced, table: str) -> None:
    for instruction, operands in column_cases(table).values():
        seen = iced.decode(instruction.emit(operands))
        ours = (instruction.reads_flags, instruction.writes_flags)
        assert ours == (bool(seen.rflags_read), bool(seen.rflags_modified)), instruction
        features = {iced.features[number] for number in seen.cpuid_features()} - BASELINE
        if len(features) > 1:
            features -= {"avx512f", "avx512vl"}  # come with every other feature for that size
        assert features == ({instruction.feature} if instruction.feature else set()), instruction


# Operands that cannot be encoded.


@both
def test_immediates_are_taken_exactly_where_they_fit(table: str) -> None:
    for key, instruction in TABLES[table][0].items():
        if instruction.kinds[-1:] != ("i",):
            continue
        low, high = accepted(key)
        given = {"r": RBX, "m": Mem(RBX), "b": Mem(RBX)}
        leading = tuple(given.get(kind, RCX) for kind in instruction.kinds[:-1])
        for value in IMMEDIATES:
            if low <= value <= high:
                instruction.emit((*leading, value))
            else:
                with pytest.raises(ValueError, match=f"operand {len(leading) + 1} .*{value}"):
                    instruction.emit((*leading, value))


@pytest.mark.parametrize(
    ("key", "operands", "message"),
    [
        ("add_rr", (0, 16), "operand 2"),
        ("add_rr", (-1, 0), "operand 1"),
        ("add_rr", (None, 0), "operand 1"),
        ("add_rr", (0,), "2 operands"),
        ("add_ri", (0, 1, 2), "2 operands"),
        ("add_rm", (0, Mem(RAX, RSP)), "operand 2"),
        ("add_rm", (0, Mem(RAX, RCX, 3)), "operand 2"),
        ("add_rm", (0, Mem(16)), "operand 2"),
        ("add_rm", (0, Mem(RAX, None, 1, 2**31)), "displacement"),
        ("add_mi", (Mem(RAX, None, 1, -(2**31) - 1), 1), "displacement"),
        ("setcc_r", (16, 0), "operand 1"),
        ("vpaddq256_xxx", (0, 0, 16), "operand 3"),
        ("vpaddq256_xxm", (0, 16, Mem(RAX)), "operand 2"),
        ("vpblendvb256_xxxx", (0, 0, 0, 16), "operand 4"),
        ("vpblendvb256_xxmx", (0, 0, Mem(RAX), -1), "operand 4"),
        ("vpaddq512_xxx", (32, 0, 0), "operand 1"),
        ("vpaddq512_xxx", (0, None, 0), "operand 2"),
        ("vpaddq512_xkxx", (0, 0, 0, 0), r"operand 2 .* cannot be 0"),
        ("vpaddq512_xzxx", (0, 8, 0, 0), "operand 2"),
        ("vpaddq512_xzxb", (0, 0, 0, Mem(RAX)), r"operand 2 .* cannot be 0"),
        ("vpaddq512_xxb", (0, 0, Mem(RAX, RSP)), "operand 3"),
        ("vpaddq512_xxb", (0, 0, Mem(RAX, None, 1, 2**31)), "displacement"),
        ("vaddpd512rn_xxx", (0, 0, 32), "operand 3"),
        ("vpcmpq512_kxxi", (8, 0, 0, 0), "operand 1"),
        ("vpcmpq512_kkxxi", (0, 0, 0, 0, 0), r"operand 2 .* cannot be 0"),
        ("vmovdqu64z_mkx", (Mem(RAX), 0, 0), r"operand 2 .* cannot be 0"),
        ("vpbroadcastq512_xr", (0, 16), "operand 2"),
        ("kandb_kkk", (0, 0, 8), "operand 3"),
    ],
)
def test_what_cannot_be_encoded(key: str, operands: tuple[Any, ...], message: str) -> None:
    instruction = INSTRUCTIONS.get(key) or VECTORS[key]
    with pytest.raises(ValueError, match=message):
        instruction.emit(operands)


def test_remembering_is_bounded() -> None:
    emit: Any = INSTRUCTIONS["mulx_rrr"].emit
    triples = list(product(range(16), repeat=3))
    first = [emit(triple) for triple in triples]
    assert len(set(first)) == len(triples) > len(emit.__self__)
    assert [emit(triple) for triple in triples] == first


# Branches and labels.

NOP = (INSTRUCTIONS["nop"], (), None)
JMP, JCC, CALL = INSTRUCTIONS["jmp_j"], INSTRUCTIONS["jcc_j"], INSTRUCTIONS["call_j"]


def sizes(lines: list[Any]) -> list[int]:
    """Sizes of the branches in the encoded lines, after checking where each of them goes."""
    encoded = encode(lines)
    labels = encoded.labels
    found = []
    for offset, size, instruction, operands, _ in encoded.lines:
        if instruction.branches:
            width = 1 if size == 2 else 4
            distance = encoded.code[offset + size - width : offset + size]
            target = offset + size + int.from_bytes(distance, "little", signed=True)
            assert target == labels[operands[-1]]
            found.append(size)
    return found


@pytest.mark.parametrize(
    ("branch", "short", "long"), [((JMP, ()), 2, 5), ((JCC, (CC["ne"],)), 2, 6), ((CALL, ()), 5, 5)]
)
def test_short_reach(branch: tuple[Instruction, tuple[int, ...]], short: int, long: int) -> None:
    instruction, leading = branch
    label = Label()
    line = (instruction, (*leading, label), None)
    place = (label, (), None)
    assert sizes([line, *[NOP] * 127, place]) == [short]
    assert sizes([line, *[NOP] * 128, place]) == [long]
    assert sizes([place, *[NOP] * 126, line]) == [short]
    assert sizes([place, *[NOP] * 127, line]) == [long]
    assert sizes([place, line]) == [short]


def chain(length: int, last: int) -> list[Any]:
    """Jumps that each span the next and just reach; the last one spans `last` bytes."""
    labels = [Label(f"chain{number}") for number in range(length)]
    lines: list[Any] = []
    for number, label in enumerate(labels):
        lines.append((JMP, (label,), None))
        if number:
            lines += [NOP] * 25 + [(labels[number - 1], (), None)] + [NOP] * 75
        else:
            lines += [NOP] * 100
    return [*lines, *[NOP] * (last - 100), (labels[-1], (), None)]


@pytest.mark.parametrize("length", [2, 3, 40, 500])
def test_branches_that_grow_one_another(length: int) -> None:
    assert sizes(chain(length, 127)) == [2] * length
    assert sizes(chain(length, 128)) == [5] * length


def test_many_branches_to_one_far_label() -> None:
    far = Label()
    lines = [(JCC, (CC["e"], far), None)] * 100_000
    found = sizes([*lines, (far, (), None)])
    # The last 64 branches of two bytes are 126 bytes long behind the first of them.
    assert (found.count(6), found.count(2)) == (100_000 - 64, 64)
    assert found == sorted(found, reverse=True)


def test_labels_must_be_placed_once() -> None:
    label = Label("exit")
    with pytest.raises(ValueError, match=r"Label.'exit'. is branched to but not placed"):
        encode([(JMP, (label,), None)])
    with pytest.raises(ValueError, match=r"Label.'exit'. is placed twice"):
        encode([(label, (), None), (label, (), None)])
    assert encode([(label, (), None)]).labels == {label: 0}
    assert encode([]).code == b""


def test_lines_and_listing() -> None:
    top, end = Label("top"), Label()
    tag = object()
    encoded = encode(
        [
            (top, (), None),
            (INSTRUCTIONS["add_ri"], (RSP, 8), tag),
            (JCC, (CC["g"], end), None),
            (JMP, (top,), None),
            (end, (), None),
            (INSTRUCTIONS["mov_rm"], (RDI, Mem(None, RSI, 8, -16)), None),
            (INSTRUCTIONS["ret"], (), None),
        ]
    )
    assert encoded.lines[0] == (0, 4, INSTRUCTIONS["add_ri"], (RSP, 8), tag)
    assert str(asm(encoded)).splitlines() == [
        "top:",
        "     0  48 83 c4 08                     add rsp, 8",
        "     4  7f 02                           jg L1",
        "     6  eb f8                           jmp top",
        "L1:",
        "     8  48 8b 3c f5 f0 ff ff ff         mov rdi, qword ptr [rsi*8-16]",
        "    10  c3                              ret",
    ]


# Registers, conditions and the opcode column.


def test_the_abi_names_every_register_once() -> None:
    assert sorted((*CALLER_SAVED, *CALLEE_SAVED, RSP)) == list(range(16))
    assert set(ARGUMENTS) < set(CALLER_SAVED)


def holds(condition: str, a: int, b: int) -> bool:
    """Whether a condition holds after `cmp a, b` on 4-bit numbers, from the manual's flags."""
    signed = [value - 16 if value > 7 else value for value in (a, b)]
    carry, zero, sign = a < b, a == b, (a - b) % 16 > 7
    overflow = not -8 <= signed[0] - signed[1] <= 7
    flags = {"o": overflow, "b": carry, "e": zero, "be": carry or zero, "s": sign}
    flags |= {"p": ((a - b) % 16).bit_count() % 2 == 0}
    flags |= {"l": sign != overflow, "le": zero or sign != overflow}
    opposites = {
        "no": "o",
        "ae": "b",
        "ne": "e",
        "a": "be",
        "ns": "s",
        "np": "p",
        "ge": "l",
        "g": "le",
    }
    return not flags[opposites[condition]] if condition in opposites else flags[condition]


def test_conditions_negate_and_swap() -> None:
    pairs = [(a, b) for a in range(16) for b in range(16)]
    for cc, condition in enumerate(CONDITION_NAMES):
        other = CONDITION_NAMES[negate(cc)]
        assert all(holds(condition, a, b) != holds(other, a, b) for a, b in pairs)
        if condition in ("o", "no", "s", "ns", "p", "np"):
            with pytest.raises(ValueError, match=condition):
                swap(cc)
        else:
            swapped = CONDITION_NAMES[swap(cc)]
            assert all(holds(condition, a, b) == holds(swapped, b, a) for a, b in pairs)


def test_vex_is_two_bytes_where_that_says_all() -> None:
    emit = INSTRUCTIONS["vsqrtsd_xxx"].emit
    assert emit((9, 10, 1)).hex(" ") == "c5 2b 51 c9"
    assert emit((1, 2, 9)).hex(" ") == "c4 c1 6b 51 c9"


def test_evex_counts_displacements_in_units() -> None:
    load, broadcast = VECTORS["vpaddq512_xxm"].emit, VECTORS["vpaddq512_xxb"].emit
    assert load((1, 2, Mem(RBX, None, 1, 64 * 127))).hex(" ") == "62 f1 ed 48 d4 4b 7f"
    assert load((1, 2, Mem(RBX, None, 1, 8))).hex(" ") == "62 f1 ed 48 d4 8b 08 00 00 00"
    assert broadcast((1, 2, Mem(RBX, None, 1, 8))).hex(" ") == "62 f1 ed 58 d4 4b 01"


def test_text_of_vector_instructions() -> None:
    written = {
        "vpaddq zmm1{k1}{z}, zmm2, qword ptr [rbx]{1to8}": ("vpaddq512_xzxb", 1, 1, 2, Mem(RBX)),
        "vaddpd zmm1, zmm2, zmm3, {rn-sae}": ("vaddpd512rn_xxx", 1, 2, 3),
        "vcvttpd2qq zmm1, zmm2, {sae}": ("vcvttpd2qq512sae_xx", 1, 2),
        "vcmppd k2{k3}, zmm1, zmm2, {sae}, 5": ("vcmppd512sae_kkxxi", 2, 3, 1, 2, 5),
        "vmovdqu64 zmmword ptr [rbx]{k1}, zmm2": ("vmovdqu64z_mkx", Mem(RBX), 1, 2),
        "vmovdqu ymm1, ymmword ptr [rbx+8]": ("vmovdqu256_xm", 1, Mem(RBX, None, 1, 8)),
        "kmovw k1, edx": ("kmovw_kr", 1, 2),
    }
    for line, (key, *operands) in written.items():
        assert text(VECTORS[key], tuple(operands)) == line


def test_keys_are_made_as_documented() -> None:
    keys = """add_rr add_rm add_mr add_ri add_mi add32_ri mov_ri mov32_rr mov8_mr mov16_mr
        movzx8_rr movzx16_rm movsx8_rr movsxd_rr test8_ri shl_rc shld_rri lea_rm lea32_rm imul_rmi
        setcc_r cmovcc_rm jcc_j jmp_j jmp_m call_r push_i cqo mulx_rrm shlx_rmr
        cvtsi2sd_xr cvttsd2si_rx sqrtsd_xx pxor_xm movq_xr movq_rx stmxcsr_m"""
    assert set(keys.split()) <= set(INSTRUCTIONS)
    keys = """vpaddq256_xxx vpaddq256_xxm vpaddq512_xxx vpaddq512_xxm vpaddq512_xxb vpaddq512_xkxx
        vpaddq512_xzxx vpaddq512_xkxm vpaddq512_xkxb vpcmpq512_kxxi vpcmpq512_kkxxi vmovdqu64z_xm
        vmovdqu64z_mx vmovdqu64z_mkx vmovdqu64z_xzm vmovdqu64z_xx vmovdqu64z_xkx vaddpd512rn_xxx
        vcvttpd2qq512sae_xx vmovdqu128_xm vmovq_xr vmovq_rx vmovd_xr vpmovqd512_xx vpsllq256_xxx
        vpermq256_xxi vextracti128_xxi vpmovmskb256_rx kmovb_kr kmovq_rk vzeroupper"""
    assert set(keys.split()) <= set(VECTORS)


@both
def test_instructions_fit_their_keys(table: str) -> None:
    instructions = TABLES[table][0]
    assert all(key == instruction.key for key, instruction in instructions.items())
    assert all(len(i.roles) == len(i.kinds) for i in instructions.values())
    assert not INSTRUCTIONS.keys() & VECTORS.keys()


def test_vectors_are_made_when_asked_for() -> None:
    vectors = Vectors(VECTOR_ROWS)
    one = vectors["vpaddq512_xkxx"]
    with pytest.raises(KeyError, match="vpaddq512_rr"):
        vectors["vpaddq512_rr"]
    assert "vpaddq512_xxb" in vectors
    assert "add_rr" not in vectors
    assert set(vectors) == set(VECTORS)
    assert len(vectors) == len(VECTORS)
    assert vectors["vpaddq512_xkxx"] is one


@both
def test_immediate_sizes_in_both_columns_agree(table: str) -> None:
    sizes = {"ib": "8", "cb": "8", "id": "32", "cd": "32", "io": "64"}
    for row in TABLES[table][1]:
        size = sizes.get(row.opcode.split()[-1], "")
        kind = row.form.split()[-1] if " " in row.form else ""
        assert (kind.lstrip("uimrel") if kind.startswith(("imm", "uimm", "rel")) else "") == size
        parse_opcode(row.opcode)

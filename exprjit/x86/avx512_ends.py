"""Both ends of a formula in lanes of AVX-512: loads, checks, and what becomes of the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .assembler import Label, Line, line
from .avx512 import AVX512
from .lane_alloc import ZMM
from .lane_code import Here, Op, op
from .lane_ends import ACCUMULATORS, KEPT, OUT, SPARE, TEMPORARY, Needs, joined, taken
from .registers import CC, RAX, RCX, Mem
from .rows import ROW, STOP, Plan
from .vectors import VECTORS

#: The mask of the rows that there are.
LIVE: Final = 7

_LOADS: Final = {
    "int64": "vmovdqu64z", "int32": "vpmovsxdq512", "int16": "vpmovsxwq512",
    "int8": "vpmovsxbq512", "uint32": "vpmovzxdq512", "uint16": "vpmovzxwq512",
    "uint8": "vpmovzxbq512", "bool": "vpmovzxbq512",
}  # fmt: skip
#: By the bytes of an item: the keys of stores, and how many bytes there are between vectors.
_STORES: Final = {
    "int64": ("vmovdqu64z", 8), "int32": ("vpmovqd512", 4), "uint32": ("vpmovqd512", 4),
    "int16": ("vpmovqw512", 2), "uint16": ("vpmovqw512", 2), "int8": ("vpmovqb512", 1),
    "uint8": ("vpmovqb512", 1),
}  # fmt: skip


class Avx512Ends:
    """See `lane_ends.Ends`."""

    isa = AVX512
    storage = ZMM
    masks_tail = True

    def __init__(self, features: frozenset[str]) -> None:
        #: Whether bytes can be compressed.
        self.compresses_bytes = "avx512vbmi2" in features

    def accumulators(self, plan: Plan, turns: int) -> int:
        return ACCUMULATORS.get(plan.kernel, 0) * turns

    def load(self, kind: str, to: int, home: Mem, live: bool) -> list[Op]:
        key = _LOADS[kind]
        return [op(f"{key}_xzm", to, LIVE, home) if live else op(f"{key}_xm", to, home)]

    def check_range(self, values: list[int], bits: int, s: Needs, away: Label) -> list[Op]:
        """Numbers from -2**b up to 2**b have no other bits than these when 2**b is added."""
        code: list[Op] = []
        above = s.invariant("const", 1 << bits)
        seen: int | None = None
        for value in values:
            moved = s.new()
            code.append(op("vpaddq512_xxx", moved, value, above))
            if seen is not None:
                both = s.new()
                code.append(op("vporq512_xxx", both, seen, moved))
                moved = both
            seen = moved
        assert seen is not None
        mask = s.new()
        others = s.invariant("const", -(2 << bits) & (1 << 64) - 1)
        code.append(op("vptestmq512_kxx", mask, seen, others))
        return [*code, *self._leave(mask, away)]

    def _leave(self, mask: int, away: Label) -> list[Op]:
        return [op("kortestb_kk", mask, mask), op("jcc_j", CC["ne"], away)]

    def check(
        self, bails: list[int], signs: list[int], s: Needs, live: bool, away: Label
    ) -> list[Op]:
        code: list[Op] = []
        if signs:
            sign = joined("vporq512_xxx", signs, s, code)
            bails = [*bails, s.new()]
            code.append(op("vpmovq2m512_kx", bails[-1], sign))
        mask = joined("korb_kkk", bails, s, code)
        if live:
            alive = s.new()
            code.append(op("kandb_kkk", alive, mask, LIVE))
            mask = alive
        return [*code, *self._leave(mask, away)]

    def skip(
        self, masks: list[list[int]], holds: tuple[bool, ...], s: Needs, end: Label
    ) -> list[Op]:
        code: list[Op] = []
        mask, is_set = taken(("kandb_kkk", "korb_kkk", "kandnb_kkk"), masks, holds, s, code)
        # The carry says that all bits are set.
        condition = CC["e"] if is_set else CC["b"]
        return [*code, op("kortestb_kk", mask, mask), op("jcc_j", condition, end)]

    def end(self, plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
        if plan.kernel == "indices" and len(results) > 1 and self.compresses_bytes:
            return _indices_of_block(results, s)
        return _ENDS[plan.kernel](plan, results, s, live)

    def home(self, form: tuple[Any, ...], scalar: Mem | None, register: int) -> list[Line]:
        if form[0] == "scalar":
            assert scalar is not None
            return [(VECTORS["vpbroadcastq512_xm"], (register, scalar), None)]
        if form[0] == "iota":
            return [
                line("mov_ri", RAX, 0x0706050403020100 + form[1] * 0x0101010101010101),
                (VECTORS["vmovq_xr"], (_LOW, RAX), None),
                (VECTORS["vpmovzxbq512_xx"], (register, _LOW), None),
            ]
        if form[0] == "bytes":
            return _bytes_in_order(register)
        lines = [
            line("mov_ri", RAX, form[1]),
            (VECTORS["vpbroadcastq512_xr"], (register, RAX), None),
        ]
        if form[0] == "pair":
            lines += [
                line("mov_ri", RAX, 0xAA),
                (VECTORS["kmovb_kr"], (LIVE, RAX), None),
                line("mov_ri", RAX, form[2]),
                (VECTORS["vpbroadcastq512_xkr"], (register, LIVE, RAX), None),
            ]
        return lines

    def tail(self) -> list[Line]:
        return [
            line("mov_rr", RAX, STOP),
            line("sub_rr", RAX, ROW),
            line("mov_ri", RCX, 0xFF),
            line("bzhi_rrr", RCX, RCX, RAX),
            (VECTORS["kmovb_kr"], (LIVE, RCX), None),
        ]


#: Registers that hold nothing while the invariants are made, but perhaps the one being made.
_LOW: Final = 0
_SECOND: Final = 1


def _bytes_in_order(register: int) -> list[Line]:
    """Bytes with their own numbers.

    8 times the number of each lane, then that in each of its bytes, then 0 to 7 more.
    """
    other = _SECOND if register == _LOW else _LOW
    lines = [
        line("mov_ri", RAX, 0x3830282018100800),
        (VECTORS["vmovq_xr"], (other, RAX), None),
        (VECTORS["vpmovzxbq512_xx"], (register, other), None),
    ]
    for key, number in (("vpmullq", 0x0101010101010101), ("vpaddq", 0x0706050403020100)):
        lines += [
            line("mov_ri", RAX, number),
            (VECTORS["vpbroadcastq512_xr"], (other, RAX), None),
            (VECTORS[f"{key}512_xxx"], (register, register, other), None),
        ]
    return lines


# What becomes of results. --------------------------------------------------------------------


def _map(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    key, size = _STORES[plan.out]
    code = []
    for turn, value in enumerate(results):
        home = Mem(OUT, ROW, size, turn * 8 * size)
        if live:
            code.append(op(f"{key}_mkx", home, LIVE, value))
        else:
            code.append(op("vmovntdq512_mx" if plan.streams else f"{key}_mx", home, value))
    return code


def _alive(mask: int, s: Needs, live: bool, code: list[Op]) -> int:
    """The part of a mask that is about rows that there are."""
    if not live:
        return mask
    alive = s.new()
    code.append(op("kandb_kkk", alive, mask, LIVE))
    return alive


def _count(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    code: list[Op] = []
    less = s.invariant("const", (1 << 64) - 1)
    for turn, mask in enumerate(results):
        counted, total = _alive(mask, s, live, code), s.accumulators[turn]
        code.append(op("vpsubq512_xkxx", total, counted, total, less))
    return code


def _sum(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    """The lower halves, which are not negative, and the upper ones are added apart."""
    low = s.invariant("const", 0xFFFFFFFF)
    code: list[Op] = []
    half = len(s.accumulators) // 2
    for turn, value in enumerate(results):
        lower, upper = s.new(), s.new()
        code += [op("vpandq512_xxx", lower, value, low), op("vpsraq512_xxi", upper, value, 32)]
        for part, total in ((lower, s.accumulators[turn]), (upper, s.accumulators[half + turn])):
            if live:
                code.append(op("vpaddq512_xkxx", total, LIVE, total, part))
            else:
                code.append(op("vpaddq512_xxx", total, total, part))
    return code


def _best(key: str) -> Any:
    def end(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
        code = []
        for turn, value in enumerate(results):
            best = s.accumulators[turn]
            if live:
                code.append(op(f"{key}512_xkxx", best, LIVE, best, value))
            else:
                code.append(op(f"{key}512_xxx", best, best, value))
        return code

    return end


def _row_numbers(turns: int, s: Needs, code: list[Op]) -> list[int]:
    """The numbers of the rows, a register for each vector."""
    first, found = s.new(), []
    code.append(op("vpbroadcastq512_xr", first, ROW))
    for turn in range(turns):
        found.append(s.new())
        code.append(op("vpaddq512_xxx", found[-1], first, s.invariant("iota", 8 * turn)))
    return found


def _arg_best(predicate: int) -> Any:
    def end(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
        code: list[Op] = []
        half = len(s.accumulators) // 2
        numbers = _row_numbers(len(results), s, code)
        for turn, value in enumerate(results):
            best, row = s.accumulators[turn], s.accumulators[half + turn]
            better = s.new()
            if live:
                code.append(op("vpcmpq512_kkxxi", better, LIVE, value, best, predicate))
            else:
                code.append(op("vpcmpq512_kxxi", better, value, best, predicate))
            code += [
                op("vmovdqa64z_xkx", best, better, value),
                op("vmovdqa64z_xkx", row, better, numbers[turn]),
            ]
        return code

    return end


def _mask(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    """Each bit of a mask to a byte."""
    code: list[Op] = []
    for turn, mask in enumerate(results):
        code += [
            op("kmovb_rk", TEMPORARY, mask),
            op("pdep_rrr", TEMPORARY, TEMPORARY, KEPT),
            op("mov_mr", Mem(OUT, ROW, 1, 8 * turn), TEMPORARY),
        ]
    return code


def _bitmap(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    code = [op("mov_rr", SPARE, ROW), op("shr_ri", SPARE, 3)]
    for turn, mask in enumerate(results):
        code.append(op("kmovb_mk", Mem(OUT, SPARE, 1, turn), mask))
    return code


def _indices(plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
    """Where no row counts, nothing is written; else whole vectors, of which the next goes on."""
    none = Label("none")
    code: list[Op] = []
    any_ = joined("korb_kkk", results, s, code)
    code += [op("kortestb_kk", any_, any_), op("jcc_j", CC["e"], none)]
    numbers = _row_numbers(len(results), s, code)
    for mask, rows in zip(results, numbers, strict=True):
        chosen = s.new()
        code += [
            op("vpcompressq512_xzx", chosen, mask, rows),
            op("vmovdqu64z_mx", Mem(OUT, KEPT, 8), chosen),
            op("kmovb_rk", TEMPORARY, mask),
            op("popcnt_rr", TEMPORARY, TEMPORARY),
            op("add_rr", KEPT, TEMPORARY),
        ]
    return [*code, Op(Here(none), (), None, None)]


def _indices_of_block(results: list[int], s: Needs) -> list[Op]:
    """The numbers within the block are compressed as bytes, all at once, and then widened.

    Whole vectors are written, though no more of them than the block has. All but the first are left
    out where they have nothing, and so is the last: each is the case nearly always or nearly never.
    """
    none = Label("none")
    code: list[Op] = []
    unpack = ["kunpckbw_kkk", "kunpckwd_kkk"]
    parts = results
    while len(parts) > 1:
        key, pairs = unpack.pop(0), zip(parts[1::2], parts[::2], strict=True)
        parts = []
        for upper, lower in pairs:
            parts.append(s.new())
            code.append(op(key, parts[-1], upper, lower))
    (mask,) = parts
    chosen, first = s.new(), s.new()
    code += [
        op("kmovq_rk", TEMPORARY, mask),
        op("popcnt_rr", TEMPORARY, TEMPORARY),
        op("jcc_j", CC["e"], none),
        op("vpcompressb256_xzx", chosen, mask, s.invariant("bytes")),
        op("vpbroadcastq512_xr", first, ROW),
    ]
    for turn in range(len(results)):
        part, wide, rows = chosen, s.new(), s.new()
        if turn in (1, 3):
            code += [op("cmp_ri", TEMPORARY, 8 * turn), op("jcc_j", CC["le"], none)]
        if turn:
            part = s.new()
            code.append(op("valignq512_xxxi", part, chosen, chosen, turn))
        code += [
            op("vpmovzxbq512_xx", wide, part),
            op("vpaddq512_xxx", rows, wide, first),
            op("vmovdqu64z_mx", Mem(OUT, KEPT, 8, 64 * turn), rows),
        ]
    return [*code, Op(Here(none), (), None, None), op("add_rr", KEPT, TEMPORARY)]


_ENDS: Final[dict[str, Callable[[Plan, list[int], Needs, bool], list[Op]]]] = {
    "map": _map,
    "mask": _mask,
    "bitmap": _bitmap,
    "indices": _indices,
    "count": _count,
    "sum": _sum,
    "min": _best("vpminsq"),
    "max": _best("vpmaxsq"),
    "argmin": _arg_best(1),
    "argmax": _arg_best(6),
    "first": lambda plan, results, s, live: [],
}

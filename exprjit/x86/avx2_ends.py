"""Both ends of a formula in lanes of AVX2: loads, checks, and what becomes of the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .assembler import Label, Line, line
from .avx2 import AVX2
from .avx2_products import shift_right
from .lane_alloc import YMM
from .lane_code import Here, Op, op
from .lane_ends import ACCUMULATORS, KEPT, OUT, SPARE, TEMPORARY, Needs, joined, taken
from .lanes import NoLanes
from .registers import CC, RAX, Mem
from .rows import ROW, Plan
from .vectors import VECTORS

_LOADS: Final = {
    "int64": "vmovdqu256", "int32": "vpmovsxdq256", "int16": "vpmovsxwq256",
    "int8": "vpmovsxbq256", "uint32": "vpmovzxdq256", "uint16": "vpmovzxwq256",
    "uint8": "vpmovzxbq256", "bool": "vpmovzxbq256",
}  # fmt: skip

#: A register that holds nothing while the invariants are made.
_LOW: Final = 0


class Avx2Ends:
    """See `lane_ends.Ends`."""

    isa = AVX2
    storage = YMM
    masks_tail = False

    def accumulators(self, plan: Plan, turns: int) -> int:
        return ACCUMULATORS.get(plan.kernel, 0) * turns

    def load(self, kind: str, to: int, home: Mem, live: bool) -> list[Op]:
        return [op(f"{_LOADS[kind]}_xm", to, home)]

    def check_range(self, values: list[int], bits: int, s: Needs, away: Label) -> list[Op]:
        code: list[Op] = []
        above = s.invariant("const", 1 << bits)
        moved = [s.new() for _ in values]
        code += [op("vpaddq256_xxx", m, v, above) for m, v in zip(moved, values, strict=True)]
        seen = joined("vpor256_xxx", moved, s, code)
        others = s.invariant("const", -(2 << bits) & (1 << 64) - 1)
        return [*code, op("vptest256_xx", seen, others), op("jcc_j", CC["ne"], away)]

    def check(
        self, bails: list[int], signs: list[int], s: Needs, live: bool, away: Label
    ) -> list[Op]:
        """Masks have all bits set, so the signs are enough of both."""
        code: list[Op] = []
        seen = joined("vpor256_xxx", [*bails, *signs], s, code)
        return [
            *code,
            op("vmovmskpd256_rx", TEMPORARY, seen),
            op("test32_rr", TEMPORARY, TEMPORARY),
            op("jcc_j", CC["ne"], away),
        ]

    def skip(
        self, masks: list[list[int]], holds: tuple[bool, ...], s: Needs, end: Label
    ) -> list[Op]:
        code: list[Op] = []
        logic = ("vpand256_xxx", "vpor256_xxx", "vpandn256_xxx")
        mask, is_set = taken(logic, masks, holds, s, code)
        return [
            *code,
            op("vmovmskpd256_rx", TEMPORARY, mask),
            op("cmp32_ri", TEMPORARY, 0 if is_set else 0b1111),
            op("jcc_j", CC["e"], end),
        ]

    def end(self, plan: Plan, results: list[int], s: Needs, live: bool) -> list[Op]:
        return _ENDS[plan.kernel](plan, results, s)

    def home(self, form: tuple[Any, ...], scalar: Mem | None, register: int) -> list[Line]:
        if form[0] == "scalar":
            assert scalar is not None
            return [(VECTORS["vpbroadcastq256_xm"], (register, scalar), None)]
        if form[0] == "iota":
            return [
                line("mov_ri", RAX, 0x03020100 + form[1] * 0x01010101),
                (VECTORS["vmovq_xr"], (_LOW, RAX), None),
                (VECTORS["vpmovzxbq256_xx"], (register, _LOW), None),
            ]
        lines = [line("mov_ri", RAX, form[1]), (VECTORS["vmovq_xr"], (_LOW, RAX), None)]
        if form[0] == "pair":
            lines += [
                line("mov_ri", RAX, form[2]),
                (VECTORS["vpinsrq_xxri"], (_LOW, _LOW, RAX, 1), None),
                (VECTORS["vinserti128_xxxi"], (register, _LOW, _LOW, 1), None),
            ]
        else:
            lines.append((VECTORS["vpbroadcastq256_xx"], (register, _LOW), None))
        return lines

    def tail(self) -> list[Line]:
        raise AssertionError("there are no masks")


# What becomes of results. --------------------------------------------------------------------

#: Which halves of longs are kept, and which bytes of them; the rest is 0.
_LOWER_HALVES: Final = 0 | 2 << 32, 4 | 6 << 32
_LOWER_WORDS: Final = 0x8080808009080100, 0x8080808080808080
_LOWER_BYTES: Final = 0x8080808080800800, 0x8080808080808080
#: The first half long of each half of a register, one behind the other.
_FIRST_OF_HALVES: Final = 0 | 4 << 32, 1 | 1 << 32


def _map(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    code: list[Op] = []
    for turn, value in enumerate(results):
        if plan.out == "int64":
            key = "vmovntdq256_mx" if plan.streams else "vmovdqu256_mx"
            code.append(op(key, Mem(OUT, ROW, 8, 32 * turn), value))
            continue
        size = 4 if plan.out.endswith("32") else 2 if plan.out.endswith("16") else 1
        _store_narrow(value, size, Mem(OUT, ROW, size, 4 * size * turn), s, code)
    return code


def _store_narrow(value: int, size: int, home: Mem, s: Needs, code: list[Op]) -> None:
    """Store the lower bytes of four longs."""
    if size == 4:
        halves = s.new()
        order = s.invariant("pair", *_LOWER_HALVES)
        code += [op("vpermd256_xxx", halves, order, value), op("vmovdqu128_mx", home, halves)]
        return
    parts, joined = s.new(), s.new()
    pattern = s.invariant("pair", *(_LOWER_WORDS if size == 2 else _LOWER_BYTES))
    code += [
        op("vpshufb256_xxx", parts, value, pattern),
        op("vpermd256_xxx", joined, s.invariant("pair", *_FIRST_OF_HALVES), parts),
    ]
    if size == 2:
        code.append(op("vmovq_mx", home, joined))
        return
    code += [
        # Two bytes each in the lower and in the upper half.
        op("vmovq_rx", TEMPORARY, joined),
        op("mov16_mr", home, TEMPORARY),
        op("shr_ri", TEMPORARY, 32),
        op("mov16_mr", home._replace(disp=home.disp + 2), TEMPORARY),
    ]


def _count(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    pairs = zip(s.accumulators, results, strict=False)
    return [op("vpsubq256_xxx", total, total, mask) for total, mask in pairs]


def _sum(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    """The lower halves, which are not negative, and the upper ones are added apart."""
    low = s.invariant("const", 0xFFFFFFFF)
    code: list[Op] = []
    half = len(s.accumulators) // 2
    for turn, value in enumerate(results):
        lower, upper = s.new(), s.new()
        code.append(op("vpand256_xxx", lower, value, low))
        code += shift_right(value, 32, upper, s.new)
        for part, total in ((lower, s.accumulators[turn]), (upper, s.accumulators[half + turn])):
            code.append(op("vpaddq256_xxx", total, total, part))
    return code


def _best(least: bool) -> Callable[[Plan, list[int], Needs], list[Op]]:
    def end(plan: Plan, results: list[int], s: Needs) -> list[Op]:
        code = []
        for best, value in zip(s.accumulators, results, strict=False):
            better = s.new()
            pair = (best, value) if least else (value, best)
            code += [
                op("vpcmpgtq256_xxx", better, *pair),
                op("vblendvpd256_xxxx", best, best, value, better),
            ]
        return code

    return end


def _row_numbers(turns: int, s: Needs, code: list[Op]) -> list[int]:
    """The numbers of the rows, a register for each vector."""
    first, all_, found = s.new(), s.new(), []
    code += [op("vmovq_xr", first, ROW), op("vpbroadcastq256_xx", all_, first)]
    for turn in range(turns):
        found.append(s.new())
        code.append(op("vpaddq256_xxx", found[-1], all_, s.invariant("iota", 4 * turn)))
    return found


def _arg_best(least: bool) -> Callable[[Plan, list[int], Needs], list[Op]]:
    def end(plan: Plan, results: list[int], s: Needs) -> list[Op]:
        code: list[Op] = []
        half = len(s.accumulators) // 2
        numbers = _row_numbers(len(results), s, code)
        for turn, value in enumerate(results):
            best, row = s.accumulators[turn], s.accumulators[half + turn]
            better = s.new()
            pair = (best, value) if least else (value, best)
            code.append(op("vpcmpgtq256_xxx", better, *pair))
            code += [
                op("vblendvpd256_xxxx", best, best, value, better),
                op("vblendvpd256_xxxx", row, row, numbers[turn], better),
            ]
        return code

    return end


def _mask(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    """Each bit of a mask to a byte."""
    code: list[Op] = []
    for turn, mask in enumerate(results):
        code += [
            op("vmovmskpd256_rx", TEMPORARY, mask),
            op("pdep_rrr", TEMPORARY, TEMPORARY, KEPT),
            op("mov32_mr", Mem(OUT, ROW, 1, 4 * turn), TEMPORARY),
        ]
    return code


def _gathered(results: list[int], code: list[Op]) -> None:
    """The signs of all results as bits of a general register."""
    code.append(op("vmovmskpd256_rx", SPARE, results[0]))
    for turn, mask in enumerate(results[1:], 1):
        code += [
            op("vmovmskpd256_rx", TEMPORARY, mask),
            op("shl_ri", TEMPORARY, 4 * turn),
            op("or_rr", SPARE, TEMPORARY),
        ]


def _bitmap(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    if len(results) == 1:
        raise NoLanes("half a byte")
    code: list[Op] = []
    _gathered(results, code)
    store = "mov16_mr" if len(results) == 4 else "mov8_mr"
    return [
        *code,
        op("mov_rr", TEMPORARY, ROW),
        op("shr_ri", TEMPORARY, 3),
        op(store, Mem(OUT, TEMPORARY), SPARE),
    ]


def _indices(plan: Plan, results: list[int], s: Needs) -> list[Op]:
    """One row after the other, of those that count."""
    again, none = Label("next"), Label("none")
    code: list[Op] = []
    _gathered(results, code)
    return [
        *code,
        op("test32_rr", SPARE, SPARE),
        op("jcc_j", CC["e"], none),
        Op(Here(again), (), None, None),
        op("tzcnt_rr", TEMPORARY, SPARE),
        op("add_rr", TEMPORARY, ROW),
        op("mov_mr", Mem(OUT, KEPT, 8), TEMPORARY),
        op("inc_r", KEPT),
        op("blsr_rr", SPARE, SPARE),
        op("jcc_j", CC["ne"], again),
        Op(Here(none), (), None, None),
    ]


_ENDS: Final[dict[str, Callable[[Plan, list[int], Needs], list[Op]]]] = {
    "map": _map,
    "mask": _mask,
    "bitmap": _bitmap,
    "indices": _indices,
    "count": _count,
    "sum": _sum,
    "min": _best(True),
    "max": _best(False),
    "argmin": _arg_best(True),
    "argmax": _arg_best(False),
    "first": lambda plan, results, s: [],
}

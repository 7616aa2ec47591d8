"""A kernel that is compared with the interpreter, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exprjit.x86.rows import INDICES_ROOM, ITEM_TYPES, Plan, State

from .sweep import Kernel, Sweep, outcome


def verified_kernel(
    plan: Plan, sweep: Sweep, interpreted: Kernel, differ: Callable[[str], Exception]
) -> Kernel:
    """The kernel of `sweep` with the interpreter beside it.

    differ: the error for what is different.  The interpreter comes first, since results may be
    where operands are.
    """

    def kernel(state: Any, start: int, stop: int) -> int:
        other = type(state)(*state)
        room, base = _scratch(plan, state, start, stop)
        other[State.OUT] = base
        ended = interpreted(other, start, stop)
        row = sweep.kernel(state, start, stop)
        if row != ended:
            raise differ(f"ends at row {ended:,}, the machine code at row {row:,}")
        found = row if plan.kernel == "first" and state[State.FOUND] else None
        if plan.kernel == "first" and state[State.FOUND] != other[State.FOUND]:
            raise differ(f"does not end at row {row:,} for the same reason")
        wanted, got = outcome(sweep, other, found), outcome(sweep, state, found)
        if wanted != got:
            raise differ(f"gives {wanted} for rows {start:,} to {row:,}, the machine code {got}")
        _compare(plan, state, other, room, (start, row), differ)
        return row

    return kernel


def _item(plan: Plan) -> int:
    """How many bytes there are from a result to the next, 0 for kernels without."""
    if plan.kernel == "map":
        return ITEM_TYPES[plan.out].size
    return {"mask": 1, "indices": 8}.get(plan.kernel, 0)


def _scratch(plan: Plan, state: Any, start: int, stop: int) -> tuple[Any, int]:
    """Room for the interpreter's results, and where those of row 0 would be."""
    from ctypes import addressof, c_char, memmove

    rows, size = stop - start, _item(plan)
    if plan.kernel == "bitmap":
        # Bits are added to what is there.
        first, last = start >> 3, (stop + 7) >> 3
        room = (c_char * max(1, last - first))()
        memmove(room, state[State.OUT] + first, last - first)
        return room, addressof(room) - first
    room = (c_char * (size * (rows + INDICES_ROOM) + 1))()
    before = state[State.FOUND] if plan.kernel == "indices" else start
    return room, addressof(room) - size * before


def _compare(
    plan: Plan,
    state: Any,
    other: Any,
    room: Any,
    rows: tuple[int, int],
    differ: Callable[[str], Exception],
) -> None:
    from ctypes import addressof, string_at

    start, row = rows
    size = _item(plan)
    if plan.kernel == "bitmap":
        first, last = start >> 3, (row + 7) >> 3
    elif plan.kernel == "indices":
        first = (addressof(room) - other[State.OUT]) // 8
        last = state[State.FOUND]
    else:
        first, last = start, row
    size = size or (1 if plan.kernel == "bitmap" else 0)
    length = size * (last - first)
    got = string_at(state[State.OUT] + size * first, length) if length > 0 else b""
    wanted = room.raw[: len(got)]
    if got != wanted:
        place = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
        raise differ(f"gives other results from item {first + place // size:,} on")

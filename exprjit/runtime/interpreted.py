"""What stands in for a kernel where there is no machine code: the interpreter, row by row.

It works on the same state (x86/rows.py), so nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ExprError
from ..x86.rows import ITEM_TYPES, SCALAR_COLUMN, Plan, State
from .columns import c_types

#: What a row's formula gives for the values of its columns; raises an ExprError.
Interpret = Callable[[Sequence[int]], int]


def read(kind: str, address: int, row: int) -> int:
    """The value of a column in a row; `address` is that of row 0, or the value of a scalar."""
    if kind == SCALAR_COLUMN:
        return address
    found: int = c_types()[kind].from_address(address + row * ITEM_TYPES[kind].size).value
    # A byte of truth may be another than 0 and 1.
    return int(found != 0) if kind == "bool" else found


def row_values(kinds: Sequence[str], addresses: Sequence[int], row: int) -> list[int]:
    """The values of all columns in a row."""
    return [read(kind, address, row) for kind, address in zip(kinds, addresses, strict=True)]


def interpreted_kernel(plan: Plan, interpret: Interpret) -> Callable[[Any, int, int], int]:
    """A kernel that interprets."""
    end = _ENDS[plan.kernel]
    columns = slice(State.COLUMNS, State.COLUMNS + len(plan.columns))

    def kernel(state: Any, start: int, stop: int) -> int:
        for row in range(start, stop):
            try:
                value = interpret(row_values(plan.columns, state[columns], row))
            except ExprError as error:
                # Asked again, C functions would be called again. (Its traceback holds the columns.)
                state.error = error.with_traceback(None)
                return row
            if end(state, plan, row, value):
                return row
        return stop

    return kernel


def _write(state: Any, kind: str, row: int, value: int) -> None:
    c_types()[kind].from_address(state[State.OUT] + row * ITEM_TYPES[kind].size).value = value


def _map(state: Any, plan: Plan, row: int, value: int) -> None:
    _write(state, plan.out, row, value)


def _mask(state: Any, plan: Plan, row: int, value: int) -> None:
    _write(state, "bool", row, value)


def _bitmap(state: Any, plan: Plan, row: int, value: int) -> None:
    byte = c_types()["uint8"].from_address(state[State.OUT] + (row >> 3))
    byte.value |= value << (row & 7)


def _indices(state: Any, plan: Plan, row: int, value: int) -> None:
    if value:
        _write(state, "int64", state[State.FOUND], row)
        state[State.FOUND] += 1


def _count(state: Any, plan: Plan, row: int, value: int) -> None:
    state[State.BEST] += value


def _sum(state: Any, plan: Plan, row: int, value: int) -> None:
    total = (state[State.BEST + 1] << 64) + (state[State.BEST] & (1 << 64) - 1) + value
    state[State.BEST], state[State.BEST + 1] = total, total >> 64


def _least(state: Any, plan: Plan, row: int, value: int) -> None:
    if value < state[State.BEST]:
        state[State.BEST], state[State.ROW] = value, row


def _greatest(state: Any, plan: Plan, row: int, value: int) -> None:
    if value > state[State.BEST]:
        state[State.BEST], state[State.ROW] = value, row


def _first(state: Any, plan: Plan, row: int, value: int) -> bool:
    state[State.FOUND] = value
    return value != 0


_ENDS: dict[str, Callable[[Any, Plan, int, int], bool | None]] = {
    "map": _map,
    "mask": _mask,
    "bitmap": _bitmap,
    "indices": _indices,
    "count": _count,
    "sum": _sum,
    "min": _least,
    "max": _greatest,
    "argmin": _least,
    "argmax": _greatest,
    "first": _first,
}

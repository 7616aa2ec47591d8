"""The calls over arrays that are made most: of plain arrays, without options.

Plain are arrays of NumPy of one shape that lie in memory as C has them, in the byte order of the
machine; ints may stand among them. What runs for their types is found once. All else is for
array_run.py, which gives the same: other columns and options, no rows, rows that are many enough to
be done in pieces, and rows that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .array_code import Task
from .language.operators import MAX, MIN
from .runtime.columns import Column, item_type, numpy
from .runtime.numpy_rows import address, trimmed
from .runtime.sweep import PIECE, Sweep, new_state, outcome
from .x86.rows import INDICES_ROOM, SCALAR_COLUMN, Plan, State

if TYPE_CHECKING:
    from .body import Body

#: The options that are none.
_DEFAULTS: Final = {
    "where": None, "out": None, "dtype": None, "threads": None, "errors": "raise",
}  # fmt: skip


def answer(
    body: Body, kernel: str, columns: Sequence[Any], named: Any, options: Mapping[str, Any]
) -> Any:
    """What the method called `kernel` gives, or NotImplemented."""
    loaded, give = numpy(), _ANSWERS.get(kernel)
    if loaded is None or give is None or named:
        return NotImplemented
    for name, value in options.items():
        if value is not _DEFAULTS[name]:
            return NotImplemented
    shape: tuple[int, ...] | None = None
    key: list[Any] = [kernel]
    found: list[Column] = []
    for column in columns:
        kind = type(column)
        if kind is loaded.ndarray and column.flags.c_contiguous:
            if shape is None:
                shape, count = column.shape, column.size
            elif column.shape != shape:
                return NotImplemented
            key.append(column.dtype)
            found.append(Column("", address(column), column))
        elif kind is int and MIN <= column <= MAX:
            key.append(int)
            found.append(Column("", column, None))
        else:
            return NotImplemented
    if not shape or not 0 < count <= PIECE:
        return NotImplemented
    known = None if body.plain is None else body.plain.get(tuple(key))
    sweep = known or _prepared(body, key)
    return NotImplemented if sweep is None else give(sweep, found, count, shape, loaded)


def _prepared(body: Body, key: Sequence[Any]) -> Sweep | None:
    """What runs for columns of these types, or None."""
    kernel, types = key[0], key[1:]
    if len(types) != len(body.formula.params) or body.formula.externs:
        return None
    if any(type_ is not int and not type_.isnative for type_ in types):
        return None
    kinds = tuple(SCALAR_COLUMN if type_ is int else item_type(type_, "") for type_ in types)
    equals = 0 if kernel == "all" else None
    plan = Plan("first" if kernel in ("any", "all") else kernel, kinds)
    sweep = body.sweep(Task(body.formula, False, plan, equals=equals))
    if not sweep.address:
        return None
    body.keep_plain(tuple(key), sweep)
    return sweep


def _run(sweep: Sweep, columns: Sequence[Column], count: int, out: int = 0) -> Any:
    """The state behind the last row, or None if a row fails."""
    state = new_state(sweep, columns, out)
    return state if sweep.kernel(state, 0, count) == count else None


def _total(sweep: Sweep, columns: Sequence[Column], count: int, shape: Any, np: Any) -> Any:
    state = _run(sweep, columns, count)
    return NotImplemented if state is None else outcome(sweep, state, None).best


def _each(dtype: str) -> Callable[..., Any]:
    def give(sweep: Sweep, columns: Sequence[Column], count: int, shape: Any, np: Any) -> Any:
        result = np.empty(shape, dtype)
        state = _run(sweep, columns, count, address(result))
        return NotImplemented if state is None else result

    return give


def _indices(sweep: Sweep, columns: Sequence[Column], count: int, shape: Any, np: Any) -> Any:
    result = np.empty(count + INDICES_ROOM, "int64")
    state = _run(sweep, columns, count, address(result))
    if state is None:
        return NotImplemented
    return trimmed(result, state[State.FOUND])


def _first(give: Callable[[int | None], Any]) -> Callable[..., Any]:
    def answer(sweep: Sweep, columns: Sequence[Column], count: int, shape: Any, np: Any) -> Any:
        state = new_state(sweep, columns, 0)
        row = sweep.kernel(state, 0, count)
        if row < count and not state[State.FOUND]:
            return NotImplemented
        return give(row if row < count else None)

    return answer


#: By kernel: what gives its answer, or NotImplemented if a row fails.
_ANSWERS: Final[dict[str, Callable[..., Any]]] = {
    "map": _each("int64"),
    "mask": _each("bool"),
    "indices": _indices,
    "count": _total,
    "sum": _total,
    "first": _first(lambda row: row),
    "any": _first(lambda row: row is not None),
    "all": _first(lambda row: row is None),
}

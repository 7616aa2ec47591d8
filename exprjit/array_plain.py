"""The calls over arrays that are made most: of plain arrays, without options but a filter.

Plain are arrays of NumPy of one shape that lie in memory as C has them, in the byte order of the
machine; ints may stand among them. Machine code answers such calls by itself (x86/array_call.py);
here is what it is made for, once for the types of the columns, and where results go. All else is
for array_run.py, which gives the same: other columns and options, no rows, rows that are many
enough to be done in pieces, and rows that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .array_code import Task, columns_of
from .array_request import filter_of
from .errors import ExprError
from .formula import Formula
from .runtime.array_calls import callable_kernel
from .runtime.columns import numpy
from .runtime.numpy_rows import trimmed
from .runtime.sweep import PIECE
from .x86.array_call import Called, has_results
from .x86.rows import INDICES_ROOM, ITEM_TYPES, KERNELS, SCALAR_COLUMN, Plan

if TYPE_CHECKING:
    from .body import Body

#: So many columns such a call can have.
_MOST_COLUMNS: Final = 16

#: What gives the answer for plain columns, or NotImplemented.
Call = Callable[..., Any]


class First(NamedTuple):
    """How a method asks for the first row, and what it gives; None for the row, and for None.

    equals: as in `Task`.  found, missing: as in `Called`.
    """

    equals: int | None = None
    found: bool | None = None
    missing: bool | None = None


#: By method, for those that do.
_FIRST: Final = {"first": First(), "any": First(None, True, False), "all": First(0, False, True)}


class Results(NamedTuple):
    """Of what type the results of a kernel are, and where they go.

    new: makes an array for them, given NumPy, how many rows there are and the dtype; None if there
    is one for each row.  trims: whether there may be fewer of them.
    """

    dtype: str
    new: Callable[[Any, int, Any], Any] | None = None
    trims: bool = False


#: By kernel, for those that have results.
_RESULTS: Final = {
    "map": Results("int64"),
    "mask": Results("bool"),
    "bitmap": Results("uint64", lambda np, rows, dtype: np.zeros(-(-rows // 64), dtype)),
    "indices": Results(
        "int64", lambda np, rows, dtype: np.empty(rows + INDICES_ROOM, dtype), trims=True
    ),
}
assert all(has_results(kernel) == (kernel in _RESULTS) for kernel in KERNELS)


def _with_results(
    call: Call, results: Results, dtype: Any, array: int, count: int, np: Any
) -> Call:
    """The call of `count` columns with an array for its results; `array`: which column is one."""
    ndarray, empty, (_, new, trims) = np.ndarray, np.empty, results

    def answer(*columns: Any) -> Any:
        if len(columns) != count:
            return NotImplemented
        column = columns[array]
        if type(column) is not ndarray or column.size > PIECE:
            return NotImplemented
        result = empty(column.shape, dtype) if new is None else new(np, column.size, dtype)
        found = call(*columns, result)
        if found is NotImplemented:
            return found
        return trimmed(result, found) if trims else result

    return answer


def filtered(
    kernel: str, where: Any, columns: Sequence[Any]
) -> tuple[tuple[str, object] | None, Sequence[Any]]:
    """What calls with a filter are known by, and the columns with that, if it is one.

    None stands for filters that are not plain.
    """
    if type(where) is str:
        return (kernel, where), columns
    loaded = numpy()
    if loaded is not None and type(where) is loaded.ndarray:
        return (kernel, True), (*columns, where)
    other = getattr(where, "formula", None)
    # (To compare formulas takes longer than a thousand rows. What answers keeps them.)
    return ((kernel, id(other)) if isinstance(other, Formula) else None), columns


def _made(body: Body, kernel: str, where: Any, dtypes: Sequence[Any], np: Any) -> Call | None:
    """What answers calls over arrays of these types, where None stands for ints."""
    formula = body.formula
    filter_ = filter_of(body, where)
    arrays = [dtype for dtype in dtypes if dtype is not None]
    if (
        body.kernel != "call"
        or formula.externs
        or (isinstance(filter_, Formula) and filter_.externs)
        or len(dtypes) != len(columns_of(formula, filter_)) + (filter_ is True)
        or len(dtypes) > _MOST_COLUMNS
        or not arrays
        or any(dtype.name not in ITEM_TYPES or not dtype.isnative for dtype in arrays)
    ):
        return None
    kinds = tuple(SCALAR_COLUMN if dtype is None else dtype.name for dtype in dtypes)
    first = _FIRST.get(kernel, First())
    plan = Plan("first" if kernel in _FIRST else kernel, kinds)
    sweep = body.sweep(Task(formula, filter_, plan, equals=first.equals))
    if not sweep.address:
        return None
    results = _RESULTS.get(kernel)
    known = [*dtypes] if results is None else [*dtypes, np.dtype(results.dtype)]
    places = tuple(0 if dtype is None else id(dtype) for dtype in known)
    called = Called(
        sweep.address, sweep.lanes, plan, places, where is not None, first.found, first.missing
    )
    call = callable_kernel(called, (sweep.owner, filter_, *known))
    if call is None or results is None:
        return call
    return _with_results(call, results, known[-1], dtypes.index(arrays[0]), len(dtypes), np)


def plain_call(
    body: Body, kernel: str, where: Any, key: object, columns: Sequence[Any]
) -> tuple[Call, Sequence[Any]] | None:
    """What answers for columns of the types of these, and the columns as it takes them.

    None if some are not plain.

    key: what such calls are known by, None for a filter that is not plain.
    """
    loaded = numpy()
    if loaded is None or key is None:
        return None
    dtypes: list[Any] = []
    views: list[Any] = [*columns]
    for place, column in enumerate(columns):
        kind = type(column)
        if kind is int:
            dtypes.append(None)
        elif kind is loaded.ndarray and column.flags.c_contiguous:
            dtype = column.dtype
            # Code knows the one object for a type that NumPy has for ever. Equal ones are made
            # where arrays are unpickled, for instance.
            usual = loaded.dtype(dtype.type)
            if dtype is not usual:
                if dtype != usual:
                    return None
                views[place] = column.view(usual)
            dtypes.append(usual)
        else:
            return None
    types = (key, *map(id, dtypes))
    call = body.plain.get(types)
    if call is None:
        try:
            call = _made(body, kernel, where, dtypes, loaded)
        except ExprError:
            # The long way tells it.
            return None
        if call is None:
            return None
    # The next columns will be of the same types.
    body.keep_plain(key, types, call)
    return call, columns if all(map(is_, views, columns)) else views

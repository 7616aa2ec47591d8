"""Objects of `numpy.ufunc` whose loop is machine code.

NumPy does not copy what it is given to make one, so all of that has to live as long as the ufunc:
an `Owner` has it, and the ufunc has the owner, in its field "obj", where NumPy keeps the function
of a ufunc from `numpy.frompyfunc`. Nothing of Python's can take it from there.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from exprjit.runtime import memory
from exprjit.x86.ufunc_loop import LoopTargets, data_words, ufunc_loop

from .stubs import BAIL, PyCallError, array_type, new_reference, stubs, symbols

#: PyUFunc_None: no value is the result for no rows.
_NO_IDENTITY: Final = -1

#: How a ufunc travels to another process: what is called there, and with what.
Recipe = tuple[Callable[..., Any], tuple[Any, ...]]
#: A call, with its positional and its keyword arguments.
Call = Callable[[Sequence[Any], Mapping[str, Any]], int]


class Kernels(NamedTuple):
    """The code that a loop calls.

    dense: the address of that for items one behind the other; by_steps: for any.  log, lanes: how
    many words they need behind the columns.  locks: whether it may only run with Python's lock.
    owners: what keeps it.
    """

    dense: int
    by_steps: int
    log: int
    lanes: int
    locks: bool
    owners: tuple[object, ...]


class Owner:
    """What a ufunc is made of, for as long as it lives."""

    __slots__ = ("__weakref__", "kept", "recipe")

    def __init__(self, kept: tuple[object, ...], recipe: Callable[[], Recipe]) -> None:
        self.kept = kept
        self.recipe = recipe


class Interpreter(Owner):
    """The function of a ufunc that interprets."""

    __slots__ = ("__name__", "call")

    def __init__(self, name: str, call: Call, recipe: Callable[[], Recipe]) -> None:
        super().__init__((), recipe)
        self.__name__ = name
        self.call = call

    def __call__(self, *values: object) -> int:
        return self.call(values, {})


#: The owners by the address of their ufunc.
_owners: WeakValueDictionary[int, Owner] = WeakValueDictionary()


def most_parameters() -> int:
    """How many parameters a ufunc can have: NPY_MAXARGS with the result."""
    import numpy as np

    return 31 if np.__version__.startswith("1.") else 63


def interpreted_ufunc(name: str, count: int, call: Call, recipe: Callable[[], Recipe]) -> Any:
    """A ufunc of `count` objects that calls a function for each row; its results are objects."""
    import numpy as np

    owner = Interpreter(name, call, recipe)
    return _known(np.frompyfunc(owner, count, 1), owner)


def compiled_ufunc(
    name: str,
    doc: str,
    count: int,
    kernels: Kernels,
    interpret: Callable[..., int],
    recipe: Callable[[], Recipe],
) -> Any:
    """A ufunc of `count` longs.

    interpret: called with the values of a row that the code cannot answer, and with what C
    functions have returned there; raises the error.
    Raises PyCallError where there can be no such ufunc, and FrameTooLarge.
    """
    from ctypes import addressof, c_int64, c_void_p, create_string_buffer

    import numpy as np

    words = data_words(
        kernels.dense, kernels.by_steps, count, kernels.log, kernels.lanes, kernels.locks
    )
    head = [0] * (BAIL // 8) + [id(interpret)]
    data = (c_int64 * (len(head) + len(words)))(*head, *words)
    functions = (c_void_p * 1)(_loop())
    datas = (c_void_p * 1)(addressof(data))
    types = create_string_buffer(bytes([np.dtype("int64").num]) * (count + 1))
    # With undecodable names NumPy's own attributes would raise.
    texts = [
        create_string_buffer(text.encode("utf-8", "replace").replace(b"\0", b" "))
        for text in (name, doc)
    ]
    parts: list[Any] = [functions, datas, types, *texts]
    places = [addressof(part) for part in parts]
    made = _from_func_and_data()(*places[:3], 1, count, 1, _NO_IDENTITY, *places[3:], 0)
    owner = Owner((*parts, data, interpret, kernels.owners), recipe)
    expected = count, 1, count + 1, _NO_IDENTITY, *places[:2], 1, 0, places[3], places[2], places[4]
    _attach(made, owner, expected)
    array_type().value = id(np.ndarray)
    return _known(made, owner)


@cache
def _from_func_and_data() -> Callable[..., Any]:
    """PyUFunc_FromFuncAndData, which is in the second place of NumPy's table."""
    from ctypes import PYFUNCTYPE, c_char_p, c_int, c_void_p, py_object
    from importlib import import_module

    try:
        module = import_module("numpy._core._multiarray_umath")
    except ModuleNotFoundError:  # NumPy 1
        module = import_module("numpy.core._multiarray_umath")
    pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(symbols()["PyCapsule_GetPointer"])
    table = pointer(module._UFUNC_API, None)
    prototype = PYFUNCTYPE(py_object, *[c_void_p] * 3, *[c_int] * 4, *[c_void_p] * 2, c_int)
    return prototype(c_void_p.from_address(table + 8).value or 0)


# The loop, which is never freed: ufuncs know its address. Two threads may both install one.
_installed: list[tuple[memory.Code, int]] = []


def _loop() -> int:
    """The address of the loop; raises PyCallError."""
    if not _installed:
        functions, entries = symbols(), stubs()
        addresses = [functions[name] for name in LoopTargets._fields[2:]]
        encoded = ufunc_loop(LoopTargets(BAIL + 8, entries.bail, *addresses))
        try:
            code = memory.install(encoded.code)
        except memory.CodeMemoryError as error:
            raise PyCallError(str(error), error.errno in memory.SHORTAGES) from None
        _installed.append((code, code.address))
    return _installed[0][1]


# What belongs to a ufunc. ------------------------------------------------------------------------

_for_ever: list[object] = []


@cache
def _layout() -> Any:
    """The beginning of NumPy's PyUFuncObject, behind the object's head."""
    from ctypes import Structure, c_int, c_void_p

    class Layout(Structure):
        _fields_ = [
            *((name, c_int) for name in ("nin", "nout", "nargs", "identity")),
            *((name, c_void_p) for name in ("functions", "data")),
            *((name, c_int) for name in ("ntypes", "reserved")),
            *((name, c_void_p) for name in ("name", "types", "doc", "ptr", "obj")),
        ]

    return Layout


def _attach(made: Any, owner: Owner, expected: tuple[int, ...]) -> None:
    """Let the owner live as long as the ufunc, and the collector see both.

    expected: what the fields before "ptr" hold if NumPy's layout is as it has always been.
    """
    from ctypes import PYFUNCTYPE, py_object

    layout = _layout()
    fields = layout.from_address(id(made) + object.__basicsize__)
    found = [getattr(fields, name) for name, _ in layout._fields_]
    if found == [*expected, None, None]:
        fields.obj = new_reference(owner)
    elif (own := _dict_of(made)) is not None:
        own["exprjit"] = owner
    else:
        _for_ever.append((made, owner))
        return
    if not gc.is_tracked(made):
        # NumPy tracks only those of `frompyfunc`.
        PYFUNCTYPE(None, py_object)(symbols()["PyObject_GC_Track"])(made)


def _dict_of(made: Any) -> dict[str, Any] | None:
    """The dict of a ufunc, which it has from NumPy 2.2 on."""
    return getattr(made, "__dict__", None)


def _known(made: Any, owner: Owner) -> Any:
    """The ufunc, found by its owner from now on."""
    _register()
    _owners[id(made)] = owner
    return made


@cache
def _register() -> None:
    """Let ufuncs of ours be pickled by what they were made from; all others are as before."""
    import copyreg
    from operator import attrgetter

    import numpy as np

    before: Any = copyreg.dispatch_table.get(np.ufunc, attrgetter("__name__"))

    def reduce(made: Any) -> Any:
        owner = _owners.get(id(made))
        return before(made) if owner is None else owner.recipe()

    copyreg.pickle(np.ufunc, reduce)

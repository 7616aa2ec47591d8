"""Python objects whose call is machine code: the heap type, and the stubs that its code jumps to.

A call of `f(2)` goes from the interpreter straight to the entry, a machine-code function of the
vectorcall protocol (PEP 590) that stands in the instance itself:

    PyObject *entry(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)

The entry handles the ordinary call and hands over whatever is unusual:

- it jumps to `slow` with its own arguments untouched; the object in the field "slow" is called
  with them and answers;
- it jumps to `arrays` in the same way if just the types of the arguments are unusual; arrays of
  NumPy go to the object in the field "arrays", a ufunc, if there is one yet, and all else, with
  what that one cannot answer, goes on to `slow`;
- after PyLong_AsLong has failed, it jumps to `failed` in the same way: TypeError and OverflowError
  go on to `slow`, every other exception (`__index__` is arbitrary Python) is the call's outcome;
- it calls `bail` with the unboxed values where only the interpreter can answer; the object in the
  field "bail" is called with these ints.

Only functions of the stable ABI are called, and no object layout is assumed beyond the size of a
bare object, `object.__basicsize__`, but for that of NumPy's arrays (numpy_fields.py), without which
the field "arrays" stays empty. What is assumed is tried out before the first use; anything
that is not as expected raises `PyCallError`, and the caller goes without machine code.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

from exprjit.runtime.stubs import (
    SLOW,
    TYPE,
    VECTORCALL,
    WEAKLIST,
    PyCallError,
    Stubs,
    stubs,
    symbols,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["FIRST_FIELDS", "NativeType", "PyCallError", "Stubs", "native_type", "stubs", "symbols"]

#: The fields that every type has, in this order, since the stubs know where they are.
FIRST_FIELDS = ("slow", "bail")

# Py_TPFLAGS_...; typeslots.h; structmember.h.
DISALLOW_INSTANTIATION, HAVE_VECTORCALL, HAVE_GC = 1 << 7, 1 << 11, 1 << 14
TP_CALL, TP_DOC, TP_TRAVERSE, TP_MEMBERS = 50, 56, 71, 72
T_OBJECT, T_OBJECT_EX, T_PYSSIZET = 6, 16, 19
READONLY = 1

# What must live as long as a type does: its name and its members' names are not copied.
_for_ever: list[object] = []


class NativeType:
    """A heap type whose instances are called by machine code.

    Attributes:
        type: the type. Instances have the methods and properties of its base, their fields as
            read-only attributes, and nothing else; Python code can neither make nor subclass it.
        fields: the names of the fields, in the order that `new` takes them.
        later: the names of those that `set_field` gives their values; till then they are None.
    """

    __slots__ = ("_allocate", "_later", "_set_entry", "_setters", "fields", "later", "type")

    def __init__(self, made: type, fields: tuple[str, ...], later: tuple[str, ...]) -> None:
        from ctypes import PYFUNCTYPE, c_ssize_t, py_object

        prototype = PYFUNCTYPE(py_object, py_object, c_ssize_t)
        self.type = made
        self.fields = fields
        self.later = later
        self._allocate: Callable[[type, int], Any] = prototype(symbols()["PyType_GenericAlloc"])
        # The type was made with a second, writable set of members. Taken out of the type they are
        # ours alone, and the quickest way to store a reference with its count.
        taken = [_take(made, f"set {name}") for name in ("vectorcall", *fields)]
        _take(made, "__vectorcalloffset__")
        self._set_entry: Callable[[object, int], None] = taken[0].__set__
        self._setters: list[Callable[[object, object], None]] = [
            member.__set__ for member in taken[1:]
        ]
        self._later: dict[str, Callable[[object, object], None]] = {
            name: _take(made, f"set {name}").__set__ for name in later
        }

    def offset(self, field: str) -> int:
        """Where in an instance the pointer to the value of `field` is, in bytes."""
        return SLOW + 8 * (*self.fields, *self.later).index(field)

    def new(self, entry: int, *values: object) -> Any:
        """A new instance.

        Args:
            entry: the address of its vectorcall function, which must live as long as the
                instance: let one of the fields own it.
            values: one for each field.

        Raises:
            TypeError: there are too few or too many values.
        """
        if len(values) != len(self.fields):
            raise TypeError(f"{len(self.fields)} fields, but {len(values)} values")
        instance = self._allocate(self.type, 0)
        for store, value in zip(self._setters, values):  # noqa: B905 - checked, and it costs
            store(instance, value)
        # Last, so that whoever finds the instance through the collector cannot call half of it.
        self._set_entry(instance, entry)
        return instance

    def set_entry(self, instance: object, entry: int) -> None:
        """Let another vectorcall function answer the calls of `instance` from now on."""
        self._set_entry(instance, entry)

    def set_field(self, instance: object, field: str, value: object) -> None:
        """Give a field of `later` its value, once: machine code may be using it from then on."""
        self._later[field](instance, value)


def _take(made: type, name: str) -> Any:
    """Remove an attribute from a type and return it."""
    attribute = made.__dict__[name]
    delattr(made, name)
    return attribute


def native_type(
    name: str, base: type, fields: Iterable[str], doc: str, later: Iterable[str] = ()
) -> NativeType:
    """Make a type of natively called objects.

    Args:
        name: its full name, as in "exprjit.Function".
        base: a class with `__slots__ = ()`, without `__call__` and of no metaclass, which carries
            the methods and properties. It can be changed as long as the type lives.
        fields: names of the fields; the first are FIRST_FIELDS.
        doc: its docstring.
        later: names of fields behind these, which have no value at first. Where entries jump to the
            stub `arrays`, FIRST_FIELDS and then "arrays" are the first of all.

    Raises:
        TypeError: the base or the fields are not as they must be.
        PyCallError: this Python is not as expected; nothing was made.
    """
    fields, later = tuple(fields), tuple(later)
    if fields[:2] != FIRST_FIELDS or len({*fields, *later}) != len(fields + later):
        raise TypeError(f"fields must be different and begin with {FIRST_FIELDS}, not {fields}")
    bare = base.__basicsize__, base.__dictoffset__, base.__weakrefoffset__
    if bare != (object.__basicsize__, 0, 0) or type(base) is not type:
        raise TypeError(f"{base.__name__} and its bases need __slots__ = () and no metaclass")
    if any("__call__" in vars(parent) for parent in base.__mro__):
        raise TypeError(f"{base.__name__} has a __call__, which would take the place of ours")
    functions = symbols()
    made = NativeType(_from_spec(name, base, fields + later, doc, functions), fields, later)
    _check_layout(made)
    _check_call(made)
    return made


def _from_spec(
    name: str, base: type, fields: tuple[str, ...], doc: str, functions: Mapping[str, int]
) -> type:
    """PyType_FromSpecWithBases: the type, with a writable member "set ..." beside each field."""
    import ctypes

    class Member(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("type", ctypes.c_int),
            ("offset", ctypes.c_ssize_t),
            ("flags", ctypes.c_int),
            ("doc", ctypes.c_char_p),
        )

    class Slot(ctypes.Structure):
        _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))

    class Spec(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("basicsize", ctypes.c_int),
            ("itemsize", ctypes.c_int),
            ("flags", ctypes.c_uint),
            ("slots", ctypes.POINTER(Slot)),
        )

    get_slot = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
        functions["PyType_GetSlot"]
    )
    traverse = get_slot(base, TP_TRAVERSE)
    if not traverse:
        raise PyCallError("an ordinary class has no function for the garbage collector")
    from_spec = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(Spec), ctypes.py_object)(
        functions["PyType_FromSpecWithBases"]
    )
    places = [(field, SLOW + 8 * number) for number, field in enumerate(fields)]
    members = [
        Member(b"__vectorcalloffset__", T_PYSSIZET, VECTORCALL, READONLY, None),
        Member(b"__weaklistoffset__", T_PYSSIZET, WEAKLIST, READONLY, None),
        Member(b"set vectorcall", T_PYSSIZET, VECTORCALL, 0, None),
        # The collector goes through the members of type T_OBJECT_EX and must see each field once;
        # deallocation gives back those of type T_OBJECT_EX that are not read-only.
        *(Member(f"set {field}".encode(), T_OBJECT_EX, at, 0, None) for field, at in places),
        *(Member(field.encode(), T_OBJECT, at, READONLY, None) for field, at in places),
        Member(),
    ]
    table = (Member * len(members))(*members)
    text = ctypes.create_string_buffer(doc.encode())
    slots = [
        # That of an ordinary class goes through whatever members a type has. There is no tp_clear,
        # as in tuple: fields are set once, so a cycle always leads through something else that
        # can be cleared, and an instance is whole for as long as anyone can call it.
        Slot(TP_TRAVERSE, traverse),
        Slot(TP_CALL, functions["PyVectorcall_Call"]),
        Slot(TP_MEMBERS, ctypes.addressof(table)),
        Slot(TP_DOC, ctypes.addressof(text)),
        Slot(),
    ]
    size = SLOW + 8 * len(fields)
    flags = HAVE_VECTORCALL | HAVE_GC | DISALLOW_INSTANTIATION
    own_name = name.encode()
    spec = Spec(own_name, size, 0, flags, (Slot * len(slots))(*slots))
    _for_ever.append((spec, table, members))
    # Python 3.10 does not copy the name, and at shutdown instances outlive this module.
    ctypes.PYFUNCTYPE(None, ctypes.py_object)(functions["Py_IncRef"])(own_name)
    try:
        made: type = from_spec(ctypes.byref(spec), (base,))
    except (TypeError, ValueError, SystemError) as error:
        raise PyCallError(f"the type cannot be made: {error}") from None
    return made


def _check_layout(native: NativeType) -> None:
    """Look at an instance from all sides.

    Raises:
        PyCallError: it is not as expected.
    """
    from ctypes import c_void_p

    names = native.fields + native.later
    values = [[field] for field in names]
    counts = [sys.getrefcount(value) for value in values]
    made = native.type
    instance = native.new(1, *values[: len(native.fields)])
    empty = [getattr(instance, field) for field in native.later]
    for field in native.later:
        native.set_field(instance, field, values[names.index(field)])
    tests = {
        "types": all(
            c_void_p.from_address(id(value) + TYPE).value == id(type(value))
            for value in (0, -1, 2**40, 2**80, True, 1.5, "", int, instance)
        ),
        "size": made.__basicsize__ == SLOW + 8 * len(values),
        "flags": made.__flags__ & (HAVE_VECTORCALL | HAVE_GC) == HAVE_VECTORCALL | HAVE_GC,
        "dict": not hasattr(instance, "__dict__"),
        "fields": all(getattr(instance, name) is value for name, value in zip(names, values)),  # noqa: B905
        "empty fields": empty == [None] * len(native.later),
        "entry": c_void_p.from_address(id(instance) + VECTORCALL).value == 1,
        "offsets": all(
            c_void_p.from_address(id(instance) + native.offset(field)).value == id(value)
            for field, value in zip(names, values)  # noqa: B905
        ),
        "collector": gc.is_tracked(instance)
        and sorted(map(id, gc.get_referents(instance))) == sorted(map(id, [made, *values])),
    }
    alive = ref(instance)
    del instance
    tests["weak reference"] = alive() is None
    tests["reference counts"] = counts == [sys.getrefcount(value) for value in values]
    failed = [test for test, passed in tests.items() if not passed]
    if failed:
        raise PyCallError(f"instances are not as expected: {', '.join(failed)}")


def _check_call(native: NativeType) -> None:
    """Call an instance whose entry is the stub `slow`.

    Raises:
        PyCallError: the call did not arrive, or there is no code memory.
    """

    def slow(*args: object, **keywords: object) -> object:
        return args, keywords

    instance = native.new(stubs().slow, slow, None, *native.fields[2:])
    for answer in (instance(1, two=2), instance.__call__(1, two=2)):
        if answer != ((1,), {"two": 2}):
            raise PyCallError(f"a call answered {answer!r}")

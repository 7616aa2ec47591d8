"""The machine code that every natively called object shares: the stubs its entry jumps to.

They call Python's C functions at their addresses, which `symbols` finds. What each stub is for is
told in `pycall.py`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from exprjit.runtime import memory
from exprjit.runtime.pages import SHORTAGES, why_not_loaded
from exprjit.x86.assembler import Label, Line, encode, line, place
from exprjit.x86.registers import (
    CC_E,
    CC_G,
    CC_GE,
    CC_L,
    CC_NE,
    R8,
    R9,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    Mem,
)

from .numpy_fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The last thing in a bare object is the pointer to its type; `pycall` looks whether it is.
TYPE = object.__basicsize__ - 8
# The layout of an instance: the bare object, then eight bytes each.
VECTORCALL = object.__basicsize__
WEAKLIST = VECTORCALL + 8
SLOW = WEAKLIST + 8
BAIL = SLOW + 8
#: What the stub `arrays` calls, in types whose entries use it; NULL where there is nothing yet.
ARRAYS = BAIL + 8

#: The C functions used here, by the entries, ufunc.py and array_calls.py; all are in the stable ABI
#: of every supported version but the last, which Python 3.10 does not export.
FUNCTIONS = (
    "PyLong_AsLong PyLong_FromLong PyErr_Occurred PyErr_ExceptionMatches PyErr_Clear "
    "PyObject_Call PyTuple_New PyTuple_SetItem PyTuple_GetItem PyTuple_Size "
    "PyDict_New PyDict_SetItem Py_IncRef Py_DecRef PyType_FromSpecWithBases PyType_GenericAlloc "
    "PyType_GetSlot PyVectorcall_Call PyGILState_Ensure PyGILState_Release PyCapsule_GetPointer "
    "PyObject_GC_Track PyEval_SaveThread PyEval_RestoreThread PyObject_Vectorcall"
).split()
OPTIONAL = {"PyObject_Vectorcall"}

#: Arrays with more items than this are for threads (sweep.py), and for signal handlers in between.
MOST_ITEMS = 1 << 18


class PyCallError(Exception):
    """Python objects with machine code cannot be made here; the text is the reason.

    passing: whether they may be at another time.
    """

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@cache
def symbols() -> Mapping[str, int]:
    """The addresses of Python's C functions: FUNCTIONS, less the OPTIONAL ones not exported.

    Raises:
        PyCallError: this Python cannot be called from machine code.
    """
    if sys.implementation.name != "cpython":
        raise PyCallError(f"the native call needs CPython, not {sys.implementation.name}")
    try:
        from ctypes import c_void_p, cast, pythonapi
    except (ImportError, OSError, MemoryError) as error:
        reason = f"Python's C functions cannot be reached: {error or 'out of memory'}"
        passing = isinstance(error, MemoryError) or why_not_loaded(error) in SHORTAGES
        raise PyCallError(reason, passing) from None
    found = {}
    for name in FUNCTIONS:
        try:
            address = cast(getattr(pythonapi, name), c_void_p).value
        except AttributeError:
            address = None
        if address:
            found[name] = address
        elif name not in OPTIONAL:
            raise PyCallError(f"this Python does not export {name}")
    return found


def new_reference(value: object) -> int:
    """The address of an object, with a reference to it that nobody gives back by himself."""
    from ctypes import PYFUNCTYPE, py_object

    PYFUNCTYPE(None, py_object)(symbols()["Py_IncRef"])(value)
    return id(value)


@cache
def array_type() -> Any:
    """Where `numpy.ndarray` is told to the stub `arrays` when there is one: a c_void_p.

    Functions are called to the very end of the interpreter, so it lives for ever.
    """
    from ctypes import c_void_p

    place = c_void_p()
    new_reference(place)  # for ever
    return place


# The stubs.


class Stubs(NamedTuple):
    """Addresses of the stubs; the head of `pycall.py` tells what they do.

    Attributes:
        slow: jumped to by an entry, with the stack and the four arguments as at the entry.
        bail: called as PyObject *bail(PyObject *callable, const int64_t *values, Py_ssize_t n);
            returns what the entry returns: a new reference, or NULL with an exception set.
        failed: jumped to as `slow` is, with the exception of PyLong_AsLong set.
        arrays: jumped to as `slow` is, with as many arguments as there are parameters, of which
            some are no ints, and no keywords.
    """

    slow: int
    bail: int
    failed: int
    arrays: int


def call(address: int) -> tuple[Line, Line]:
    """Call a C function. rsp must be a multiple of 16 here (System V ABI, 3.2.2)."""
    return line("mov_ri", RAX, address), line("call_r", RAX)


def assemble(functions: Mapping[str, int]) -> tuple[bytes, Stubs]:
    """The code of the stubs, calling these C functions, and where in it they begin."""
    slow, bail, failed, arrays = map(Label, Stubs._fields)
    # `failed` runs on into `slow`.
    lines = [place(failed), line("endbr64"), *_failed(functions), place(slow), line("endbr64")]
    lines += _slow(functions) if "PyObject_Vectorcall" in functions else _slow_by_tuple(functions)
    lines += [place(bail), line("endbr64"), *_bail(functions)]
    lines += [place(arrays), line("endbr64"), *_arrays(functions, slow)]
    encoded = encode(lines)
    at = encoded.labels
    return encoded.code, Stubs(at[slow], at[bail], at[failed], at[arrays])


def _failed(functions: Mapping[str, int]) -> Iterable[Line]:
    """Clear the exception if it is one of the two, with the arguments back in their registers.

    The built-in exceptions are static objects: their addresses are good for ever.
    """
    arguments = (RDI, RSI, RDX, RCX)
    expected = Label("expected")
    yield from (line("push_r", register) for register in arguments)
    yield line("sub_ri", RSP, 8)
    for exception in (TypeError, OverflowError):
        yield line("mov_ri", RDI, id(exception))
        yield from call(functions["PyErr_ExceptionMatches"])
        yield line("test32_rr", RAX, RAX)
        yield line("jcc_j", CC_NE, expected)
    yield line("add_ri", RSP, 8 + 8 * len(arguments))
    yield line("xor32_rr", RAX, RAX)
    yield line("ret")
    yield place(expected)
    yield from call(functions["PyErr_Clear"])
    yield line("add_ri", RSP, 8)
    yield from (line("pop_r", register) for register in reversed(arguments))


def _slow(functions: Mapping[str, int]) -> Iterable[Line]:
    """Call the object in "slow" with the same arguments, in the same stack frame.

    Who called us holds a reference to the instance, which holds one to that object.
    """
    yield line("mov_rm", RDI, Mem(RDI, disp=SLOW))
    yield line("mov_ri", RAX, functions["PyObject_Vectorcall"])
    yield line("jmp_r", RAX)


def _slow_by_tuple(functions: Mapping[str, int]) -> Iterable[Line]:
    """The same with PyObject_Call, for want of PyObject_Vectorcall.

    rbx: the object in "slow"; r12: args; r13: how many are positional; r14: kwnames; rbp: their
    tuple; r15: a counter, then the dict of the keyword arguments or NULL.
    """
    invoke, release, leave = Label("invoke"), Label("release"), Label("leave")
    saved = (RBX, RBP, R12, R13, R14, R15)
    yield from (line("push_r", register) for register in saved)
    yield line("sub_ri", RSP, 8)
    yield line("mov_rm", RBX, Mem(RDI, disp=SLOW))
    yield line("mov_rr", R12, RSI)
    yield line("mov_rr", R13, RDX)
    yield line("btr_ri", R13, 63)  # PY_VECTORCALL_ARGUMENTS_OFFSET
    yield line("mov_rr", R14, RCX)
    yield from _make_tuple(functions, leave)
    yield line("xor32_rr", R15, R15)
    yield line("test_rr", R14, R14)
    yield line("jcc_j", CC_E, invoke)
    yield from _make_dict(functions, invoke, release)
    yield place(invoke)
    yield line("mov_rr", RDI, RBX)
    yield line("mov_rr", RSI, RBP)
    yield line("mov_rr", RDX, R15)
    yield from call(functions["PyObject_Call"])
    yield place(release)
    yield line("mov_rr", R12, RAX)
    yield line("mov_rr", RDI, RBP)
    yield from call(functions["Py_DecRef"])
    yield line("mov_rr", RDI, R15)
    yield from call(functions["Py_DecRef"])  # NULL is fine
    yield line("mov_rr", RAX, R12)
    yield place(leave)
    yield line("add_ri", RSP, 8)
    yield from (line("pop_r", register) for register in reversed(saved))
    yield line("ret")


def _make_tuple(functions: Mapping[str, int], leave: Label) -> Iterable[Line]:
    """rbp = a new tuple of the r13 objects at r12; to `leave` with rax = 0 if that fails."""
    items, done = Label("items"), Label("done")
    yield line("mov_rr", RDI, R13)
    yield from call(functions["PyTuple_New"])
    yield line("mov_rr", RBP, RAX)
    yield line("test_rr", RAX, RAX)
    yield line("jcc_j", CC_E, leave)
    yield line("xor32_rr", R15, R15)
    yield place(items)
    yield line("cmp_rr", R15, R13)
    yield line("jcc_j", CC_GE, done)
    yield line("mov_rm", RDI, Mem(R12, R15, 8))
    yield from call(functions["Py_IncRef"])
    yield line("mov_rr", RDI, RBP)
    yield line("mov_rr", RSI, R15)
    yield line("mov_rm", RDX, Mem(R12, R15, 8))
    yield from call(functions["PyTuple_SetItem"])  # takes over the reference; cannot fail here
    yield line("inc_r", R15)
    yield line("jmp_j", items)
    yield place(done)


def _make_dict(functions: Mapping[str, int], full: Label, release: Label) -> Iterable[Line]:
    """r15 = a new dict of the names r14 and the objects at r12 + 8 * r13, and then to `full`.

    To `release` with rax = 0 if that fails; r15 is then what was made of it, or 0.
    """
    names = Label("names")
    yield from call(functions["PyDict_New"])
    yield line("mov_rr", R15, RAX)
    yield line("test_rr", RAX, RAX)
    yield line("jcc_j", CC_E, release)
    yield line("lea_rm", R12, Mem(R12, R13, 8))
    yield line("xor32_rr", R13, R13)
    yield place(names)
    yield line("mov_rr", RDI, R14)
    yield from call(functions["PyTuple_Size"])
    yield line("cmp_rr", R13, RAX)
    yield line("jcc_j", CC_GE, full)
    yield line("mov_rr", RDI, R14)
    yield line("mov_rr", RSI, R13)
    yield from call(functions["PyTuple_GetItem"])  # a borrowed reference
    yield line("mov_rr", RDI, R15)
    yield line("mov_rr", RSI, RAX)
    yield line("mov_rm", RDX, Mem(R12, R13, 8))
    yield from call(functions["PyDict_SetItem"])
    yield line("inc_r", R13)
    yield line("test32_rr", RAX, RAX)
    yield line("jcc_j", CC_E, names)
    yield line("xor32_rr", RAX, RAX)
    yield line("jmp_j", release)


def _bail(functions: Mapping[str, int]) -> Iterable[Line]:
    """Box the values into a tuple and call the object in "bail" with it.

    rbx: the instance; r12: values; r13: n; rbp: the tuple; r14: a counter.
    """
    boxes, invoke, release, leave = map(Label, "boxes invoke release leave".split())
    saved = (RBX, RBP, R12, R13, R14)  # an odd number, so the stack is aligned for calls
    yield from (line("push_r", register) for register in saved)
    yield line("mov_rr", RBX, RDI)
    yield line("mov_rr", R12, RSI)
    yield line("mov_rr", R13, RDX)
    yield line("mov_rr", RDI, RDX)
    yield from call(functions["PyTuple_New"])
    yield line("mov_rr", RBP, RAX)
    yield line("test_rr", RAX, RAX)
    yield line("jcc_j", CC_E, leave)
    yield line("xor32_rr", R14, R14)
    yield place(boxes)
    yield line("cmp_rr", R14, R13)
    yield line("jcc_j", CC_GE, invoke)
    yield line("mov_rm", RDI, Mem(R12, R14, 8))
    yield from call(functions["PyLong_FromLong"])
    yield line("test_rr", RAX, RAX)
    yield line("jcc_j", CC_E, release)
    yield line("mov_rr", RDI, RBP)
    yield line("mov_rr", RSI, R14)
    yield line("mov_rr", RDX, RAX)
    yield from call(functions["PyTuple_SetItem"])  # takes over the reference; cannot fail here
    yield line("inc_r", R14)
    yield line("jmp_j", boxes)
    yield place(invoke)
    yield line("mov_rm", RDI, Mem(RBX, disp=BAIL))
    yield line("mov_rr", RSI, RBP)
    yield line("xor32_rr", RDX, RDX)
    yield from call(functions["PyObject_Call"])
    yield place(release)
    yield line("mov_rr", R12, RAX)
    yield line("mov_rr", RDI, RBP)
    yield from call(functions["Py_DecRef"])
    yield line("mov_rr", RAX, R12)
    yield place(leave)
    yield from (line("pop_r", register) for register in reversed(saved))
    yield line("ret")


def _arrays(functions: Mapping[str, int], slow: Label) -> Iterable[Line]:
    """Call the object in "arrays", a ufunc, if the arguments are ints and NumPy's own arrays.

    It has the answer if it gives such an array too. Numbers (for arrays without dimensions), errors
    (floats, shapes that do not fit, rows that fail), great arrays and those in another order than
    C's are for `slow`, so calling twice must do no harm.

    rbx: the instance; r12: args; r13: how many; rbp: numpy.ndarray, then its answer or the tuple of
    arguments; r15: a counter.
    """
    ordinary, failed, leave = map(Label, "ordinary failed leave".split())
    saved = (RBX, RBP, R12, R13, R15)  # an odd number, so the stack is aligned for calls
    restore = [line("pop_r", register) for register in reversed(saved)]
    yield line("cmp_mi", Mem(RDI, disp=ARRAYS), 0)
    yield line("jcc_j", CC_E, slow)
    yield from (line("push_r", register) for register in saved)
    yield line("mov_rr", RBX, RDI)
    yield line("mov_rr", R12, RSI)
    yield line("mov_rr", R13, RDX)
    yield from _look(ordinary)
    yield from _answer(functions, failed)
    yield line("mov_rr", RBP, RAX)
    yield line("test_rr", RAX, RAX)
    yield line("jcc_j", CC_E, failed)
    yield from _array_type(RCX)
    yield line("cmp_mr", Mem(RAX, disp=TYPE), RCX)
    yield line("jcc_j", CC_E, leave)
    yield line("mov_rr", RDI, RAX)
    yield from call(functions["Py_DecRef"])
    yield place(ordinary)
    yield line("mov_rr", RDI, RBX)
    yield line("mov_rr", RSI, R12)
    yield line("mov_rr", RDX, R13)
    yield line("xor32_rr", RCX, RCX)
    yield from restore
    yield line("jmp_j", slow)
    yield place(failed)
    yield line("mov_ri", RDI, id(Exception))
    yield from call(functions["PyErr_ExceptionMatches"])
    yield line("xor32_rr", RBP, RBP)
    yield line("test32_rr", RAX, RAX)
    yield line("jcc_j", CC_E, leave)  # an interrupt: that is the outcome
    yield from call(functions["PyErr_Clear"])
    yield line("jmp_j", ordinary)
    yield place(leave)
    yield line("mov_rr", RAX, RBP)
    yield from restore
    yield line("ret")


def _look(ordinary: Label) -> Iterable[Line]:
    """Go to `ordinary` if some of the r13 arguments at r12 are no ints nor small arrays."""
    item, array, next_ = map(Label, "item array next".split())
    yield from _array_type(RBP)
    yield line("xor32_rr", R15, R15)
    yield place(item)
    yield line("mov_rm", RDI, Mem(R12, R15, 8))
    yield line("mov_rm", RAX, Mem(RDI, disp=TYPE))
    yield line("cmp_rr", RAX, RBP)
    yield line("jcc_j", CC_E, array)
    yield line("mov_ri", RCX, id(int))
    yield line("cmp_rr", RAX, RCX)
    yield line("jcc_j", CC_E, next_)
    yield line("jmp_j", ordinary)
    yield place(array)
    yield from _ordered(ordinary)
    yield place(next_)
    yield line("inc_r", R15)
    yield line("cmp_rr", R15, R13)
    yield line("jcc_j", CC_L, item)


def _array_type(register: int) -> tuple[Line, Line]:
    """register = numpy.ndarray, which is known by the time that an instance has a ufunc."""
    from ctypes import addressof

    place = addressof(array_type())
    return line("mov_ri", register, place), line("mov_rm", register, Mem(register))


def _ordered(great: Label) -> Iterable[Line]:
    """Go to `great` if the array in rdi has more than MOST_ITEMS, or is in another order than C's.

    In which order the results of NumPy are depends on that, and those of the methods do not.
    rax: how many items; rcx: a dimension; rdx, rsi: where sizes and steps are; r8: a step; r9: that
    before.
    """
    dimension, counted, step = Label("dimension"), Label("counted"), Label("step")
    yield line("mov32_rm", RCX, Mem(RDI, disp=FIELDS.nd))
    yield line("mov_rm", RDX, Mem(RDI, disp=FIELDS.dimensions))
    yield line("mov_rm", RSI, Mem(RDI, disp=FIELDS.strides))
    yield line("mov_ri", RAX, 1)
    yield line("xor32_rr", R9, R9)
    yield line("cmp_ri", RCX, 1)
    yield line("jcc_j", CC_L, counted)
    yield line("jcc_j", CC_E, step)
    yield place(dimension)
    yield line("mov_rm", R8, Mem(RSI, RCX, 8, -8))
    yield line("cmp_rr", R8, R9)
    yield line("jcc_j", CC_L, great)
    yield line("mov_rr", R9, R8)
    yield place(step)
    yield line("imul_rm", RAX, Mem(RDX, RCX, 8, -8))
    yield line("dec_r", RCX)
    yield line("jcc_j", CC_NE, dimension)
    yield place(counted)
    yield line("cmp_ri", RAX, MOST_ITEMS)
    yield line("jcc_j", CC_G, great)


def _answer(functions: Mapping[str, int], failed: Label) -> Iterable[Line]:
    """rax = what the object in "arrays" of rbx gives for the r13 objects at r12."""
    if "PyObject_Vectorcall" in functions:
        yield line("mov_rm", RDI, Mem(RBX, disp=ARRAYS))
        yield line("mov_rr", RSI, R12)
        yield line("mov_rr", RDX, R13)
        yield line("xor32_rr", RCX, RCX)
        yield from call(functions["PyObject_Vectorcall"])
        return
    yield from _make_tuple(functions, failed)
    yield line("mov_rm", RDI, Mem(RBX, disp=ARRAYS))
    yield line("mov_rr", RSI, RBP)
    yield line("xor32_rr", RDX, RDX)
    yield from call(functions["PyObject_Call"])
    yield line("mov_rr", RDI, RBP)
    yield line("mov_rr", RBP, RAX)
    yield from call(functions["Py_DecRef"])
    yield line("mov_rr", RAX, RBP)


# The first is the one in use. Two threads may both install, and neither is ever freed: code that
# is called from elsewhere knows the addresses.
_installed: list[tuple[memory.Code, Stubs]] = []


def stubs() -> Stubs:
    """The stubs, installed at the first need and kept for good.

    Raises:
        PyCallError: there is no code memory, or none now.
    """
    if not _installed:
        code, at = assemble(symbols())
        try:
            owner = memory.install(code)
        except memory.CodeMemoryError as error:
            raise PyCallError(str(error), error.errno in memory.SHORTAGES) from None
        _installed.append((owner, Stubs(*(owner.address + offset for offset in at))))
    return _installed[0][1]

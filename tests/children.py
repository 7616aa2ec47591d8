"""What the tests of lifetime, threads and processes share: they run programs in children."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exprjit.runtime import memory, pages

#: The fixture `child` of conftest.py.
Child = Callable[..., str]

HAVE_CODE = memory.policy()[0] != "none"
needs_code = pytest.mark.skipif(not HAVE_CODE, reason=f"no code memory: {memory.policy()[1]}")

POLICIES = [name for name in pages.POLICIES if memory.Allocator(name).policy()[0] == name]
policies = pytest.mark.parametrize("policy", POLICIES)

#: What their programs begin with.
PRELUDE = """
import ctypes, functools, gc, itertools, operator, os, pickle, sys, threading, time, types, weakref
import exprjit
from exprjit.runtime import memory

def forget():
    exprjit.cache_clear()
    gc.collect()
    memory.collect()

def used():
    "How much code memory is used when all is dropped that may be."
    forget()
    return memory.statistics().used

def fails(f, *args):
    try:
        f(*args)
    except ZeroDivisionError:
        return True

class Index:
    "An argument that runs code when it is asked for its value."
    def __init__(self, value):
        self.value = value
    def __index__(self):
        return self.value() if callable(self.value) else self.value

CHECKED = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_long), ctypes.c_long, ctypes.c_long)
"""

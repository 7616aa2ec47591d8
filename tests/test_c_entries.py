"""The addresses as C sees them: a C program's loop, qsort, bsearch, SQLite."""

from __future__ import annotations

import ctypes
import random
import sqlite3
import subprocess
from contextlib import closing
from functools import cmp_to_key
from typing import Any

import pytest

import exprjit
from exprjit.runtime import memory
from exprjit.tools import gcc

pytestmark = pytest.mark.skipif(
    memory.policy()[0] == "none", reason=f"no code memory: {memory.policy()[1]}"
)
needs_gcc = pytest.mark.skipif(gcc.why_not() is not None, reason=str(gcc.why_not()))

MIN, MAX = -(2**63), 2**63 - 1

#: Calls each entry many times, with values of its own alive in registers all the while.
CALLER = """
#include <stdint.h>
#include <stdlib.h>

typedef int64_t (*plain_t)(int64_t, int64_t);
typedef int (*checked_t)(int64_t *, int64_t, int64_t);
typedef int (*ref_t)(const int64_t *, const int64_t *);

int64_t sum_plain(plain_t f, int64_t count) {
    int64_t a = 1, b = 2, c = 3, d = 4, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += f(i, a) ^ f(b, i);
        a += 3; b ^= a; c += b; d -= c;
    }
    return sum + a + b + c + d;
}

int64_t sum_checked(checked_t f, int64_t count, int64_t *failures) {
    int64_t sum = 0, failed = 0;
    for (int64_t i = -count; i < count; i++) {
        int64_t result = 77;
        int status = f(&result, 1000000, i);
        if (status == 0) sum += result;
        else if (status == 1 && result == 77) failed++;
        else return -1;
    }
    *failures = failed;
    return sum;
}

void sort(int64_t *values, size_t count, ref_t compare) {
    qsort(values, count, sizeof *values, (int (*)(const void *, const void *))compare);
}
"""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("caller")
    source, library = folder / "caller.c", folder / "caller.so"
    source.write_text(CALLER)
    subprocess.run(
        ["gcc", "-O2", "-fPIC", "-shared", "-Wall", "-Werror", "-o", library, source], check=True
    )
    loaded = ctypes.CDLL(str(library))
    loaded.sum_plain.restype = loaded.sum_checked.restype = ctypes.c_int64
    loaded.sum_plain.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    loaded.sum_checked.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    loaded.sort.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return loaded


def wrapped(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


@needs_gcc
def test_a_c_program_calls_the_plain_address(caller: Any) -> None:
    f = exprjit.compile("(x * 31 ^ y) - (x >>> 3)")

    def python(x: int, y: int) -> int:
        return wrapped((x * 31 ^ y) - ((x % 2**64) >> 3))

    a, b, c, d, wanted = 1, 2, 3, 4, 0
    for i in range(1_000):
        wanted += python(i, a) ^ python(b, i)
        a += 3
        b ^= a
        c += b
        d -= c
    assert caller.sum_plain(f.address, 1_000) == wrapped(wanted + a + b + c + d)


@needs_gcc
def test_a_c_program_calls_the_checked_address(caller: Any) -> None:
    f = exprjit.compile("x // y")
    failures = ctypes.c_int64()
    total = caller.sum_checked(f.checked_address, 500, ctypes.addressof(failures))
    assert total == sum(1_000_000 // i for i in range(-500, 500) if i)
    assert failures.value == 1


@needs_gcc
def test_a_c_program_sorts_with_a_formula(caller: Any) -> None:
    f = exprjit.compile("abs(a) - abs(b)")
    values = [random.Random(1).randrange(-(10**9), 10**9) for _ in range(1_000)]
    array = (ctypes.c_int64 * len(values))(*values)
    caller.sort(array, len(values), f.ref_address)
    assert list(map(abs, array)) == sorted(map(abs, values))


EDGES = [0, 1, -1, 2, 2**31 - 1, 2**31, 2**32, 2**32 + 1, -(2**32), MAX, MIN]


def test_the_sign_is_that_of_the_whole_value() -> None:
    """An int has half of the bits, which may all be 0."""
    f = exprjit.compile("x ^ y")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.POINTER(ctypes.c_int64)] * 2)
    compare = prototype(f.ref_address)
    for x in EDGES:
        for y in EDGES:
            answer = compare(ctypes.c_int64(x), ctypes.c_int64(y))
            assert answer == ((x ^ y) > 0) - ((x ^ y) < 0)


@pytest.mark.parametrize("count", range(10))
def test_any_number_of_pointers(count: int) -> None:
    names = [f"p{n}" for n in range(count)]
    terms = " + ".join(f"{n + 1} * {name}" for n, name in enumerate(names)) or "0"
    f = exprjit.compile(f"{terms} - 1000", names)
    pointer = ctypes.POINTER(ctypes.c_int64)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, *[pointer] * count)(f.ref_address)
    for values in ([0] * count, [900] * count, list(range(count))):
        total = sum((n + 1) * value for n, value in enumerate(values)) - 1000
        assert compare(*map(ctypes.c_int64, values)) == (total > 0) - (total < 0)


def test_unused_parameters_are_not_looked_at() -> None:
    f = exprjit.compile("b", ["a", "b", "c"])
    compare = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)(f.ref_address)
    value = ctypes.c_int64(-5)
    assert compare(None, ctypes.addressof(value), 8) == -1


def test_qsort_and_bsearch_of_the_c_library() -> None:
    c = ctypes.CDLL(None)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    c.qsort.argtypes, c.qsort.restype = [pointer, size, size, pointer], None
    c.bsearch.argtypes, c.bsearch.restype = [pointer, pointer, size, size, pointer], pointer
    # By the last decimal digit, then downwards.
    f = exprjit.compile("d = a %% 10 - b %% 10; d ? d : sign(b - a)")
    values = [(n * 7919) % 10_007 - 5_000 for n in range(2_000)]
    array = (ctypes.c_int64 * len(values))(*values)
    c.qsort(array, len(values), 8, f.ref_address)
    ordered = sorted(values, key=cmp_to_key(f))
    assert ordered == sorted(values, key=lambda value: (value % 10, -value))
    assert list(array) == ordered
    found = c.bsearch(ctypes.byref(ctypes.c_int64(ordered[77])), array, 2_000, 8, f.ref_address)
    assert found == ctypes.addressof(array) + 8 * 77


def test_no_comparison_that_can_fail() -> None:
    f = exprjit.compile("a / b")
    with pytest.raises(ValueError, match="can fail has no plain C function"):
        _ = f.ref_address


def test_sqlite_takes_functions() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        f = exprjit.compile("x / y")
        connection.create_function("quotient", 2, f, deterministic=True)
        connection.execute("CREATE TABLE t (x INTEGER, y INTEGER)")
        rows = [(n * 1_000, n - 50) for n in range(100) if n != 50]
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        del f
        (total,) = connection.execute("SELECT sum(quotient(x, y)) FROM t").fetchone()
        assert total == sum(int(x / y) for x, y in rows)
        for wrong in (
            "quotient(1, 0)",
            "quotient(NULL, 1)",
            "quotient('a', 1)",
            "quotient(0.5, 1)",
        ):
            with pytest.raises(sqlite3.OperationalError, match="raised exception"):
                connection.execute(f"SELECT {wrong}").fetchone()
        aggregate = exprjit.compile("popcount(x ^ y)")
        connection.create_function("differing", 2, aggregate)
        order = "SELECT x FROM t ORDER BY differing(x, y), x"
        expected = sorted(rows, key=lambda row: (((row[0] ^ row[1]) % 2**64).bit_count(), row[0]))
        assert [x for (x,) in connection.execute(order)] == [x for x, _ in expected]

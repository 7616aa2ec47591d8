"""A formula as an SQL function, both ways.

The short way is Python's own: `connection.create_function(name, count, f)` takes any function,
and so it takes ours.  For each row SQLite then calls Python, which calls the formula.

The raw way leaves Python out.  SQLite wants a C function

    void entry(sqlite3_context *context, int count, sqlite3_value **values)

so a few instructions of our own fetch the values, call the formula at its `checked_address`, and
give SQLite the result or an error.  That is all there is to be known about calling a formula from
a C library.

    python examples/sqlite_function.py
    python examples/sqlite_function.py 1000000 --formula "popcount(a ^ b) % 7"
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing

import exprjit
from exprjit.runtime import memory
from exprjit.x86.assembler import Label, encode, line, place
from exprjit.x86.registers import ARGUMENTS, CC_NE, R12, RAX, RBX, RDI, RDX, RSI, RSP, Mem

FORMULA = "(a * 31 + b) % 1000"

SQLITE_UTF8, SQLITE_DETERMINISTIC, SQLITE_INTEGER = 1, 0x800, 1

NOT_AN_INTEGER = b"the arguments must be integers\0"
NO_ANSWER = b"the formula has no answer for these values\0"


def sqlite() -> ctypes.CDLL:
    """The C library that Python's own module is linked with."""
    import _sqlite3

    library = ctypes.CDLL(_sqlite3.__file__)
    handle, pointer, text = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p
    library.sqlite3_open.argtypes = [text, pointer]
    library.sqlite3_close.argtypes = [handle]
    library.sqlite3_errmsg.argtypes = [handle]
    library.sqlite3_errmsg.restype = text
    library.sqlite3_prepare_v2.argtypes = [handle, text, ctypes.c_int, pointer, handle]
    library.sqlite3_step.argtypes = library.sqlite3_finalize.argtypes = [handle]
    library.sqlite3_column_int64.argtypes = [handle, ctypes.c_int]
    library.sqlite3_column_int64.restype = ctypes.c_int64
    library.sqlite3_create_function_v2.argtypes = [
        handle,
        text,
        ctypes.c_int,
        ctypes.c_int,
        *[handle] * 5,
    ]
    return library


def entry(library: ctypes.CDLL, f: exprjit.Function) -> memory.Code:
    """The machine code that SQLite calls for each row.  It calls `f`, which must outlive it.

    rbx: the context; r12: the array of values.  In the stack: the result, then the arguments.
    """
    count = len(f.params)
    if count > 5:
        raise ValueError("checked_address takes the result and five arguments in registers")

    def address(name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0

    not_an_integer, no_answer, done = Label("not an integer"), Label("no answer"), Label("done")
    # Functions are called with the stack at a multiple of 16: the return address and two
    # registers are 24 bytes, and the room below them has an odd number of words.
    room = 8 * (1 + count + count % 2)
    lines = [
        line("endbr64"),
        line("push_r", RBX),
        line("push_r", R12),
        line("sub_ri", RSP, room),
        line("mov_rr", RBX, RDI),
        line("mov_rr", R12, RDX),
    ]
    for number in range(count):
        lines += [
            line("mov_rm", RDI, Mem(R12, disp=8 * number)),
            line("mov_ri", RAX, address("sqlite3_value_type")),
            line("call_r", RAX),
            line("cmp_ri", RAX, SQLITE_INTEGER),
            line("jcc_j", CC_NE, not_an_integer),
            line("mov_rm", RDI, Mem(R12, disp=8 * number)),
            line("mov_ri", RAX, address("sqlite3_value_int64")),
            line("call_r", RAX),
            line("mov_mr", Mem(RSP, disp=8 + 8 * number), RAX),
        ]
    lines.append(line("mov_rr", RDI, RSP))
    for number, register in enumerate(ARGUMENTS[1 : 1 + count]):
        lines.append(line("mov_rm", register, Mem(RSP, disp=8 + 8 * number)))
    lines += [
        line("mov_ri", RAX, f.checked_address),
        line("call_r", RAX),
        line("test32_rr", RAX, RAX),
        line("jcc_j", CC_NE, no_answer),
        line("mov_rr", RDI, RBX),
        line("mov_rm", RSI, Mem(RSP)),
        line("mov_ri", RAX, address("sqlite3_result_int64")),
        line("call_r", RAX),
        place(done),
        line("add_ri", RSP, room),
        line("pop_r", R12),
        line("pop_r", RBX),
        line("ret"),
    ]
    for label, message in ((not_an_integer, NOT_AN_INTEGER), (no_answer, NO_ANSWER)):
        lines += [
            place(label),
            line("mov_rr", RDI, RBX),
            line("mov_ri", RSI, ctypes.cast(message, ctypes.c_void_p).value),
            line("mov_ri", RDX, len(message) - 1),
            line("mov_ri", RAX, address("sqlite3_result_error")),
            line("call_r", RAX),
            line("jmp_j", done),
        ]
    return memory.install(encode(lines).code)


class Database:
    """An open database, by way of the C library alone."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.handle = ctypes.c_void_p()
        self.owners: list[object] = []
        if library.sqlite3_open(b":memory:", ctypes.byref(self.handle)):
            raise RuntimeError("the database cannot be opened")

    def create_function(self, name: str, f: exprjit.Function) -> None:
        code = entry(self.library, f)
        # SQLite may call them for as long as the database is open.
        self.owners += (f, code)
        flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC
        count = len(f.params)
        if self.library.sqlite3_create_function_v2(
            self.handle, name.encode(), count, flags, None, code.address, None, None, None
        ):
            self._fail()

    def one_number(self, sql: str) -> int:
        """Run a statement; the number that it gives, or 0."""
        statement = ctypes.c_void_p()
        prepared = self.library.sqlite3_prepare_v2(
            self.handle, sql.encode(), -1, ctypes.byref(statement), None
        )
        if prepared:
            self._fail()
        try:
            status = self.library.sqlite3_step(statement)
            if status not in (100, 101):  # SQLITE_ROW, SQLITE_DONE
                self._fail()
            return int(self.library.sqlite3_column_int64(statement, 0)) if status == 100 else 0
        finally:
            self.library.sqlite3_finalize(statement)

    def close(self) -> None:
        self.library.sqlite3_close(self.handle)
        self.owners.clear()

    def _fail(self) -> None:
        raise RuntimeError(self.library.sqlite3_errmsg(self.handle).decode())


def tables(rows: int) -> Iterable[str]:
    """SQL that makes a table of numbers, the same each time."""
    yield "CREATE TABLE t (a INTEGER, b INTEGER)"
    seed = random.Random(1).randrange(1 << 30)
    yield (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows - 1}) "
        f"INSERT INTO t SELECT (i * 7919 + {seed}) % 10007, (i * 104729) % 65537 FROM n"
    )


def timed(run: Callable[[], int], rows: int) -> tuple[int, float]:
    """The answer, and the best of three times in nanoseconds per row."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        answer = run()
        best = min(best, time.perf_counter() - start)
    return answer, best * 1e9 / rows


def compare(connection: sqlite3.Connection, database: Database, rows: int) -> int:
    """Print the sum and the times of both ways, and what SQLite says of bad arguments."""
    sql = "SELECT sum(f(a, b)) FROM t"
    try:
        raw, fast = timed(lambda: database.one_number(sql), rows)
    except RuntimeError as error:
        print(f"SQLite: {error}", file=sys.stderr)
        return 1
    through_python, slow = timed(lambda: int(connection.execute(sql).fetchone()[0]), rows)
    if through_python != raw:
        print(f"{through_python} through Python, but {raw} without", file=sys.stderr)
        return 1
    print(f"the sum is {raw}")
    print(f"through Python   {slow:6.0f} ns per row")
    print(f"raw              {fast:6.0f} ns per row")
    for wrong in ("SELECT f('five', 1)", "SELECT f(NULL, 1)"):
        try:
            database.one_number(wrong)
        except RuntimeError as error:
            print(f"{wrong}: {error}")
    return 0


def positive(text: str) -> int:
    """How many, on the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Sum a formula over a table, each way.")
    parser.add_argument("rows", type=positive, nargs="?", default=200_000)
    parser.add_argument("--formula", default=FORMULA, help="of a and b (%(default)s)")
    options = parser.parse_args()
    try:
        f = exprjit.compile(options.formula, ["a", "b"], backend="jit")
    except exprjit.ExprError as error:
        print(error, file=sys.stderr)
        return 1

    with (
        closing(sqlite3.connect(":memory:")) as connection,
        closing(Database(sqlite())) as database,
    ):
        for statement in tables(options.rows):
            connection.execute(statement)
            database.one_number(statement)
        connection.create_function("f", 2, f, deterministic=True)
        database.create_function("f", f)
        return compare(connection, database, options.rows)


if __name__ == "__main__":
    sys.exit(main())

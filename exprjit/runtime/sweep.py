"""Runs a kernel over rows: in pieces, perhaps in several threads, and what of it fails.

Between two pieces the interpreter runs signal handlers, so that an interrupt is noticed; in the
kernel it runs other threads. A row that fails is told to whoever started this; they raise, or the
kernel goes on with the next row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from threading import Event, Lock, Thread
from typing import Any, Final, NamedTuple

from exprjit.ir.rowwise import NEUTRAL
from exprjit.x86.kernels import WORD
from exprjit.x86.rows import INDICES_ROOM, ITEM_TYPES, SCALAR_COLUMN, State, before_rows

from .columns import Column

#: How many rows are done without looking up: a millisecond of most formulas. (It is a multiple
#: of 64, so that no two pieces of a bitmap are in the same word.)
PIECE: Final = 1 << 18
#: How many rows there have to be for each thread, by default: starting some takes as long as
#: a few hundred thousand rows of most formulas.
ROWS_PER_THREAD: Final = 1 << 20

#: ``kernel(state, start, stop) -> row``; see x86/rows.py.
Kernel = Callable[[Any, int, int], int]


class Sweep(NamedTuple):
    """What is to be run.

    kernel: the machine code, or what interprets instead; owner: what keeps it.  name: what the
    kernel is for, a key of x86/rows.py's KERNELS.  log, lanes: how many words behind the columns it
    needs, for results of C functions or for what its lanes have found; it never needs both.
    address: of the machine code, 0 for what interprets.  in_order: whether one thread has to do
    the rows in order, since C functions are called.
    """

    kernel: Kernel
    owner: object
    name: str
    log: int = 0
    lanes: int = 0
    address: int = 0
    in_order: bool = False


class Outcome(NamedTuple):
    """What a sweep gave.

    best: the count, the sum, the least or greatest value.  row: its row, or that which `first`
    found, or None.  found: how many rows `indices` has written.
    """

    best: int
    row: int | None
    found: int


@cache
def prototype(holds_lock: bool) -> Any:
    """The ctypes type of kernels, which hold Python's global lock or give it up."""
    from ctypes import CFUNCTYPE, PYFUNCTYPE, c_int64, c_void_p

    make = PYFUNCTYPE if holds_lock else CFUNCTYPE
    return make(c_int64, c_void_p, c_int64, c_int64)


@cache
def _word() -> Any:
    from ctypes import c_int64

    return c_int64


def new_state(sweep: Sweep, columns: Sequence[Column], out: int) -> Any:
    """The words that a kernel works on, before the first row."""
    lanes = State.COLUMNS + len(columns)
    state = (_word() * (lanes + sweep.log + sweep.lanes))()
    state[State.OUT] = out
    state[State.ROW] = -1
    state[State.BEST] = NEUTRAL.get(sweep.name, 0)
    for place, column in enumerate(columns, State.COLUMNS):
        state[place] = column.address
    if sweep.lanes and sweep.name in NEUTRAL:
        state[lanes : lanes + sweep.lanes] = before_rows(sweep.name, sweep.lanes)
    return state


def run(
    sweep: Sweep,
    columns: Sequence[Column],
    rows: range,
    out: int,
    failed: Callable[[int, Any], None],
    goes_on: bool = False,
    threads: int | None = 1,
    owner: object = None,
    begins: Sequence[int] = (),
) -> Outcome:
    """Run over `rows`, whose step is 1.

    out: the address of what belongs to row 0, whose memory `owner` keeps.  failed: called with the
    rows that fail, in order, each with the state if that still is as the row has left it; what it
    raises ends the sweep.  goes_on: whether it does not raise.  threads: how many at most; None for
    what suits the machine.  begins: how many rows `indices` finds before each piece; if that is not
    known, there have to be places for all rows, and it takes one thread.
    """
    pieces = -(-len(rows) // PIECE)
    if pieces <= 1 or sweep.in_order or (sweep.name == "indices" and not begins):
        threads = 1
    elif threads is None:
        threads = min(cores(), max(1, len(rows) // ROWS_PER_THREAD))
    if threads > 1 or begins:
        team = _Team(sweep, columns, rows, out, goes_on, owner, begins)
        return team.run(min(threads, pieces), failed)
    state = new_state(sweep, columns, out)
    kernel, end = sweep.kernel, rows.stop
    for start in range(rows.start, end, PIECE):
        stop = min(start + PIECE, end)
        row = kernel(state, start, stop)
        while row < stop:
            if _is_found(sweep, state):
                return outcome(sweep, state, row)
            failed(row, state)
            row = kernel(state, row + 1, stop)
    return outcome(sweep, state, None)


def may_stream(columns: Sequence[str], out: str, rows: int, place: int) -> bool:
    """Whether results may go around the cache, which is for longs that lie as such should.

    That pays where so many rows of columns and results do not fit the last cache.  place: the
    address of the results.
    """
    if out != "int64" or place % WORD:
        return False
    size = WORD + sum(ITEM_TYPES[kind].size for kind in columns if kind != SCALAR_COLUMN)
    return size * rows > last_cache() * 2 // 3


@cache
def last_cache() -> int:
    """The bytes of the cache before memory, 32 MiB where the system does not tell."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index3/size") as file:
            text = file.read().strip()
        return int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return 32 << 20


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_found(sweep: Sweep, state: Any) -> bool:
    """Whether a kernel has ended at a row before the last because it was looking for such a one."""
    return sweep.name == "first" and state[State.FOUND] != 0


def outcome(sweep: Sweep, state: Any, found: int | None) -> Outcome:
    """What is in a state after the last row, together with what the lanes have found."""
    name, best = sweep.name, state[State.BEST]
    if name == "first":
        return Outcome(0, found, 0)
    lanes = state[len(state) - sweep.lanes :] if sweep.lanes else []
    if name == "count":
        return Outcome(best + sum(lanes), None, 0)
    if name == "sum":
        best = (state[State.BEST + 1] << 64) + (best & (1 << 64) - 1)
        half = len(lanes) // 2
        return Outcome(best + sum(lanes[:half]) + (sum(lanes[half:]) << 32), None, 0)
    if name in ("min", "max"):
        return Outcome((min if name == "min" else max)([best, *lanes]), None, 0)
    if name not in NEUTRAL:
        return Outcome(0, None, state[State.FOUND])
    half = len(lanes) // 2
    pairs = [(best, state[State.ROW]), *zip(lanes[:half], lanes[half:], strict=True)]
    best = (min if name == "argmin" else max)(value for value, _ in pairs)
    row = min((row for value, row in pairs if value == best and row != -1), default=None)
    return Outcome(best, row, 0)


class _Other(Thread):
    """A thread besides the caller's.  ended: whether it is done.

    (Until Python 3.12 a thread whose `join` was interrupted does not count as alive any longer.)
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="exprjit")
        self.work = work
        self.ended = Event()

    def run(self) -> None:
        try:
            self.work()
        finally:
            self.ended.set()


class _Team:
    """Threads that share the pieces of a sweep, the caller's among them.

    Each takes the next piece, and what it has taken it does to the end, or to the first row that
    ends all. After such a row no more are handed out, so all before it have been done. What
    `indices` finds in a piece is copied to its place from one of the thread's own, since it is
    written with room behind it.
    """

    def __init__(
        self,
        sweep: Sweep,
        columns: Sequence[Column],
        rows: range,
        out: int,
        goes_on: bool,
        owner: object,
        begins: Sequence[int],
    ) -> None:
        self.sweep = sweep
        # Threads that an interrupt has left behind still have what they work on.
        self.columns = columns
        self.owner = owner
        self.rows = rows
        self.out = out
        self.goes_on = goes_on
        self.begins = begins
        self.starts = enumerate(range(rows.start, rows.stop, PIECE))
        self.lock = Lock()
        self.over = False
        self.outcomes: list[Outcome] = []
        #: What has to be raised, and is no failure of a row.
        self.errors: list[BaseException] = []
        #: The rows that fail, and those that were found.
        self.failures: list[int] = []
        self.found: list[int] = []

    def run(self, threads: int, failed: Callable[[int, Any], None]) -> Outcome:
        others: list[_Other] = []
        try:
            # At the end of the process there may be no new ones.
            with suppress(RuntimeError):
                for _ in range(threads - 1):
                    other = _Other(self.work)
                    other.start()
                    others.append(other)
        except BaseException as error:
            self._end(error)
        self.work()
        for other in others:
            while not other.ended.is_set():
                try:
                    other.ended.wait()
                except BaseException as error:
                    self._end(error)
        if self.errors:
            raise self.errors[0]
        found = min(self.found, default=None)
        for row in sorted(self.failures):
            if found is None or row < found:
                failed(row, None)
        if self.sweep.name == "first":
            return Outcome(0, found, 0)
        return joined(self.sweep.name, self.outcomes)

    def _end(self, error: BaseException) -> None:
        """Hand out no more pieces, and raise this in the end."""
        self.errors.append(error)
        self.over = True

    def work(self) -> None:
        """Take pieces until there are no more; what a thread does."""
        try:
            self.outcomes.append(self._worked())
        except BaseException as error:
            self._end(error)

    def _worked(self) -> Outcome:
        sweep = self.sweep
        found = _Found() if self.begins else None
        state = new_state(sweep, self.columns, self.out if found is None else found.address)
        while not self.over:
            with self.lock:
                number, start = next(self.starts, (0, None))
            if start is None:
                break
            stop = min(start + PIECE, self.rows.stop)
            row = sweep.kernel(state, start, stop)
            while row < stop:
                is_found = _is_found(sweep, state)
                (self.found if is_found else self.failures).append(row)
                if is_found or not self.goes_on:
                    self.over = True
                    break
                row = sweep.kernel(state, row + 1, stop)
            if found is not None:
                found.move(self.out + WORD * self.begins[number], state[State.FOUND])
                state[State.FOUND] = 0
        return outcome(sweep, state, None)


class _Found:
    """A place for what `indices` finds in a piece.  address: of that."""

    def __init__(self) -> None:
        from ctypes import addressof, memmove

        self._words = (_word() * (PIECE + INDICES_ROOM))()
        self._memmove = memmove
        self.address = addressof(self._words)

    def move(self, to: int, count: int) -> None:
        self._memmove(to, self.address, WORD * count)


def joined(name: str, outcomes: list[Outcome]) -> Outcome:
    """What sweeps over parts of the rows give together."""
    if len(outcomes) == 1:
        return outcomes[0]
    found = sum(part.found for part in outcomes)
    if name in NEUTRAL:
        choose = min if name.endswith("min") else max
        best = choose((part.best for part in outcomes), default=NEUTRAL[name])
    else:
        best = sum(part.best for part in outcomes)
    rows = [o.row for o in outcomes if o.row is not None and (name == "first" or o.best == best)]
    return Outcome(best, min(rows, default=None), found)

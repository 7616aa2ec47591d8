"""Where machine code lives: many functions to a page, and no page ever writable and executable.

`install(code)` gives a `Code`, which owns its bytes in memory for as long as it lives. Installing
and freeing replace whole pages, through one of the policies in `pages.py`, so a thread that runs
in a page never sees a half-made one.

Invariants:

- A byte of a page that belongs to no live `Code` is int3, or is waiting to become it. Space is
  given out again only after that.
- A finaliser takes no lock and allocates no code: it appends to a queue, and a later install, or
  `collect`, erases what was queued, all the functions of a page in one replacement.
- The books are right at every bytecode. Whoever comes in while the same thread is at work on them
  (a finaliser, a signal handler), or while another is and does not end, gets a mapping of his own
  and leaves the books alone. Where an exception cuts work short, space may be lost but is never
  given out twice.
- Nothing is unmapped or changed at shutdown.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from errno import ENOMEM
from functools import cache
from threading import active_count, get_ident
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from exprjit.runtime.pages import (
    PAGE,
    SHORTAGES,
    CodeMemoryError,
    check_setting,
    choose,
    most_mappings,
    out_of_memory,
)
from exprjit.runtime.turn import Claim, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from exprjit.runtime.pages import Kernel, Policy

    Death = tuple[Callable[[], object], int, int]  # a weak reference, address, size

__all__ = [
    "SHORTAGES",
    "Allocator",
    "Code",
    "CodeMemoryError",
    "collect",
    "install",
    "policy",
    "statistics",
]

UNIT = 16  # code starts at multiples of this: one line of the instruction fetch
UNITS = PAGE // UNIT
ALL_FREE = (1 << UNITS) - 1
INT3 = b"\xcc"

#: So many deaths make the next install erase, even where there is still room.
ERASE_AT = 256
#: So many wholly free pages stay mapped for the installs to come.
SPARE_PAGES = 8


class Statistics(NamedTuple):
    """What code memory holds at one moment; sizes in bytes.

    Attributes:
        policy: "sealed", "mprotect", "none", or "" before the first install.
        pages: pages mapped, those of functions larger than a page included.
        used: taken by functions, rounded up to 16 (larger than a page: to whole pages).
        free: mapped, erased and not given out.
        queued: functions that died and are still to be erased; `used` counts them.
    """

    policy: str
    pages: int
    used: int
    free: int
    queued: int


class Code:
    """Installed machine code; keep a reference for as long as anyone may call it.

    Attributes:
        address: where it starts, a multiple of 16.
        size: its length in bytes.
    """

    __slots__ = ("__weakref__", "_address", "_queue", "_size")

    def __init__(self, address: int, size: int, queue: deque[Death]) -> None:
        self._address = address
        self._size = size
        self._queue = queue

    @property
    def address(self) -> int:
        return self._address

    @property
    def size(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<{self._size} bytes of machine code at {self._address:#x}>"

    # `ref` is bound here because at shutdown the module's globals may be gone.
    def __del__(self, ref: Callable[[Code], Callable[[], object]] = ref) -> None:
        # The collector finalises a whole cycle before it clears it, so another finaliser may still
        # call this code, or bring it back to life: the weak reference tells when it is dead.
        # `_queue` is set last; without it an exception cut the making short, and the space is lost.
        if hasattr(self, "_queue"):
            self._queue.append((ref(self), self._address, self._size))


class Page:
    """The book of one page: which of its units are free, as a bitmap, and the longest run."""

    __slots__ = ("address", "free", "run")

    def __init__(self, address: int, free: int) -> None:
        self.address = address
        self.free = free
        self.run = 0


def longest_run(bits: int) -> int:
    """The length of the longest run of ones in `bits`, in logarithmic time."""
    if not bits & bits + (bits & -bits):
        return bits.bit_count()  # there is only one run
    starts = []  # starts[k]: where runs of at least 2**k ones begin
    width = 1
    while bits:
        starts.append(bits)
        bits &= bits >> width
        width *= 2
    longest = 1 << len(starts) - 1
    bits = starts.pop()
    while starts:
        longer = bits & starts[-1] >> longest
        if longer:
            bits = longer
            longest += 1 << len(starts) - 1
        starts.pop()
    return longest


def first_run(bits: int, length: int) -> int:
    """Where the lowest run of at least `length` ones in `bits` begins; there must be one."""
    width = 1
    while width < length:
        step = min(width, length - width)
        bits &= bits >> step
        width += step
    return (bits & -bits).bit_length() - 1


class Allocator:
    """Gives out code memory under one policy.

    Args:
        setting: the policy to use: "sealed", "mprotect", "none", "" for the best that works; None
            to read EXPRJIT_MEMORY when the first code is installed.
    """

    def __init__(self, setting: str | None = None) -> None:
        if setting:
            check_setting(setting)
        self._setting = setting
        self._choice: tuple[Policy | None, Kernel | None, str] | None = None
        self._most = 0
        self._turn = Turn()
        self._forks: dict[int, Claim] = {}  # the turns of the threads that are forking
        self._queue: deque[Death] = deque()
        self._forget()

    def _forget(self) -> None:
        """Start new books; what is mapped stays mapped."""
        self._pages: dict[int, Page] = {}
        # Pages with free space, by their longest run, and which of these shelves are not empty.
        self._shelves: list[dict[int, Page]] = [{} for _ in range(UNITS + 1)]
        self._runs = 0
        # Functions with a mapping of their own: address to the size of the mapping.
        self._mappings: dict[int, int] = {}
        # What to erase, sorted: page or mapping, to the functions in it (address to size).
        self._dead: dict[int, dict[int, int]] = {}
        self._erase_at = ERASE_AT

    # What callers use.

    def install(self, code: bytes) -> Code:
        """Put position-independent machine code into executable memory.

        Returns:
            The owner of the memory.

        Raises:
            CodeMemoryError: there is no code memory, or none now; nothing was changed.
            ValueError: the code is empty, or EXPRJIT_MEMORY is none of its values.
        """
        if not code:
            raise ValueError("there is no code to install")
        turn = self._turn
        claim = Claim(turn)
        try:
            return self._install(code) if claim.take() else self._install_apart(code)
        except Exception as error:
            if out_of_memory(error):
                raise CodeMemoryError("out of memory (ENOMEM)", ENOMEM) from None
            raise
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()

    def collect(self) -> int:
        """Erase the functions that have died, and give back pages that became empty.

        Returns:
            How many were erased. Those whose page cannot be replaced now stay queued, and all do
            while someone else is at work on the books.
        """
        turn = self._turn
        claim = Claim(turn)
        try:
            return self._erase_dead() if claim.take() else 0
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()

    def policy(self) -> tuple[str, str]:
        """The name of the policy ("none" without code memory) and why not a better one.

        Raises:
            ValueError: EXPRJIT_MEMORY is none of its values.
        """
        try:
            policy, _, reason = self._chosen()
        except CodeMemoryError as error:
            return "none", str(error)
        return policy.name if policy else "none", reason

    def statistics(self) -> Statistics:
        """What is mapped, used, free and queued now."""
        # Each list is made in one step: someone may install while they are summed up.
        pages, mappings = list(self._pages.values()), list(self._mappings.values())
        free = sum(page.free.bit_count() for page in pages) * UNIT
        mapped = len(pages) * PAGE + sum(mappings)
        queued = len(self._queue) + sum(map(len, list(self._dead.values())))
        name = self.policy()[0] if self._choice else ""
        return Statistics(name, mapped // PAGE, mapped - free, free, queued)

    # Installing.

    def _chosen(self) -> tuple[Policy | None, Kernel | None, str]:
        """The policy, chosen at the first need. Two that choose at once choose alike."""
        if self._choice is None:
            setting = self._setting
            if setting is None:
                setting = os.environ.get("EXPRJIT_MEMORY", "")
            self._most = most_mappings()
            self._choice = choose(setting)
        return self._choice

    def _tools(self) -> tuple[Policy, Kernel]:
        policy, kernel, reason = self._chosen()
        if policy is None or kernel is None:
            raise CodeMemoryError(reason)
        return policy, kernel

    def _install(self, code: bytes) -> Code:
        """Install; the books are ours alone."""
        policy, kernel = self._tools()
        if len(self._queue) >= self._erase_at:
            self._erase_dead()
        if len(code) > PAGE:
            if self._queue:
                self._erase_dead()
            return self._install_apart(code)
        units = -(-len(code) // UNIT)
        # The free space in the last unit is made int3 too: an interrupted install may have left
        # something else there.
        piece = code.ljust(units * UNIT, INT3)
        page = self._page_with(units)
        if page is None and (self._queue or self._dead):
            self._erase_dead()
            page = self._page_with(units)
        if page is None:
            address = self._map(policy, piece.ljust(PAGE, INT3))
            page = self._pages[address] = Page(address, ALL_FREE >> units << units)
            self._shelve(page)
            return Code(address, len(code), self._queue)
        try:
            unit = first_run(page.free, units)
            start = unit * UNIT
            old = kernel.read(page.address, PAGE)
            policy.replace(page.address, old[:start] + piece + old[start + len(piece) :])
            page.free ^= ((1 << units) - 1) << unit
        finally:
            self._shelve(page)
        return Code(page.address + start, len(code), self._queue)

    def _install_apart(self, code: bytes) -> Code:
        """Install in a mapping of its own: one step in the books, so fit for any moment."""
        policy, _ = self._tools()
        content = code.ljust(-(-len(code) // PAGE) * PAGE, INT3)
        address = self._map(policy, content)
        self._mappings[address] = len(content)
        return Code(address, len(code), self._queue)

    def _map(self, policy: Policy, content: bytes) -> int:
        if len(self._pages) + len(self._mappings) >= self._most:
            raise CodeMemoryError(f"there are {self._most} mappings of code (ENOMEM)", ENOMEM)
        return policy.map(content)

    def _page_with(self, units: int) -> Page | None:
        """Take the page whose longest run is the least that will do from its shelf."""
        while True:
            fitting = self._runs >> units
            if not fitting:
                return None
            run = units + (fitting & -fitting).bit_length() - 1
            shelf = self._shelves[run]
            if shelf:
                return shelf.popitem()[1]
            self._runs ^= 1 << run

    def _shelve(self, page: Page) -> None:
        """Put a page that is on no shelf where its free space says."""
        run = page.run = longest_run(page.free)
        if run:
            self._shelves[run][page.address] = page
            self._runs |= 1 << run

    # Freeing.

    def _erase_dead(self) -> int:
        """Erase all that have died; returns how many. The books are ours alone."""
        erased = 0
        spare = len(self._shelves[UNITS])
        overwrite = []
        try:
            self._sort_dead()
            # Unmapping first: it needs no memory, and sets some free.
            for home in list(self._dead):
                page = self._pages.get(home)
                emptied = page is not None and page.free | self._units(home) == ALL_FREE
                if page is None or (emptied and spare >= SPARE_PAGES):
                    erased += self._unmap(home)
                else:
                    spare += emptied
                    overwrite.append(home)
            for home in overwrite:
                erased += self._overwrite(home)
        except Exception as error:
            # What was not erased waits for the next time.
            if not (isinstance(error, CodeMemoryError) or out_of_memory(error)):
                raise
        return erased

    def _sort_dead(self) -> None:
        """Move those who died from the queue to their pages in `_dead`."""
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            alive, address, size = entry
            if alive() is not None:
                self._queue.append(entry)
                continue
            home = address if address in self._mappings else address & -PAGE
            try:
                self._dead.setdefault(home, {})[address] = size
            except MemoryError:
                self._queue.append(entry)
                raise
        # Whoever was brought back to life stays in the queue and must not cause erasing again.
        self._erase_at = len(self._queue) + ERASE_AT

    def _unmap(self, home: int) -> int:
        """Give a mapping or an empty page back; returns how many functions that erases.

        It leaves the books first: where this is interrupted, memory is lost, but no address is
        left in the books that may soon be someone else's.

        Raises:
            CodeMemoryError: it cannot be unmapped; they are still queued.
        """
        policy, _ = self._tools()
        pieces = self._dead.pop(home)
        page, size = self._pages.pop(home, None), self._mappings.pop(home, 0)
        if page is not None:
            self._shelves[page.run].pop(home, None)
            size = PAGE
        # Of books that were lost in a fork there may be neither.
        if size:
            try:
                policy.unmap(home, size)
            except CodeMemoryError:
                self._dead[home] = pieces
                if page is None:
                    self._mappings[home] = size
                else:
                    self._pages[home] = page
                    self._shelve(page)
                raise
        return len(pieces)

    def _units(self, home: int) -> int:
        """Which units of a page belong to its dead functions."""
        units = 0
        for address, size in self._dead[home].items():
            units |= ((1 << -(-size // UNIT)) - 1) << (address - home) // UNIT
        return units

    def _overwrite(self, home: int) -> int:
        """Make the dead functions of a page int3 and their space free; returns how many.

        Raises:
            CodeMemoryError: the page cannot be replaced; they are still queued.
        """
        policy, kernel = self._tools()
        page, units = self._pages[home], self._units(home)
        content = bytearray(kernel.read(home, PAGE))
        for address, size in self._dead[home].items():
            content[address - home : address - home + size] = INT3 * size
        policy.replace(home, bytes(content))
        # From here on the space is free, and no longer queued before it can be given out.
        count = len(self._dead.pop(home))
        self._shelves[page.run].pop(home, None)
        page.free |= units
        self._shelve(page)
        return count

    # Forking.

    def before_fork(self) -> None:
        """Wait until no other thread is at work on the books, and keep them out."""
        if active_count() > 1:
            _import_ctypes()
        claim = self._forks[get_ident()] = Claim(self._turn)
        claim.take()

    def after_fork_in_parent(self) -> None:
        """Let the others in again."""
        claim = self._forks.pop(get_ident(), None)
        if claim is not None and claim.held:
            self._turn.owner = 0
            claim.give_back()

    def after_fork_in_child(self) -> None:
        """Let this thread, the only one left, in again.

        If it forked within an install, that install goes on here too. If another thread had the
        books, they are as that one left them, so new ones are begun: either it did not end in time,
        or someone forked without asking Python first (uWSGI does).
        """
        self.after_fork_in_parent()
        self._forks.clear()
        if self._turn.after_fork_in_child():
            self._forget()


@cache
def _import_ctypes() -> None:
    """Import what the first code to be made imports.

    If another thread is in the middle of such an import when this one forks, nobody ever ends it in
    the child, where all that import it would wait.
    """
    with suppress(ImportError):
        import ctypes

        class _(ctypes.Structure):  # From Python 3.14 on, the first of these imports more.
            _fields_ = (("", ctypes.c_int),)


_allocator = Allocator()

install = _allocator.install
collect = _allocator.collect
policy = _allocator.policy
statistics = _allocator.statistics

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_allocator.before_fork,
        after_in_parent=_allocator.after_fork_in_parent,
        after_in_child=_allocator.after_fork_in_child,
    )

"""Taking turns at books that several threads keep, without waiting for each other for ever.

A lock that is held while Python code runs is held while finalisers and signal handlers run. These
may wait for a lock of their own, and whoever has that one may be waiting for ours. So waiting for
a turn has an end here, after which the caller has to do without; and whoever has it already, and
comes again from such a handler, is told so instead of waiting for himself.
"""

from __future__ import annotations

from itertools import compress
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many seconds to wait for a turn. Turns take a thousandth of that, unless they are stuck.
PATIENCE = 1.0

_release: Callable[[Any], None] = type(RLock()).release


class Turn:
    """What one thread at a time may have.  owner: its identifier once it is at work, or 0."""

    __slots__ = ("lock", "owner")

    def __init__(self) -> None:
        # Reentrant: a handler that comes between taking the lock and noting the owner has its own
        # turn there, before the work begins.
        self.lock = RLock()
        self.owner = 0

    def after_fork_in_child(self) -> bool:
        """Let nobody have it whose thread is gone. Gives whether there was such a one."""
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return False  # If this thread is in the middle of a turn, that goes on here.
        self.lock = RLock()
        self.owner = 0
        return True


class Claim:
    """One attempt to have a turn:

        claim = Claim(turn)
        try:
            if claim.take():
                ...
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()

    held: the lock of the turn, or nothing.  give_back: lets the next one have it.

    An interrupt comes between two of Python's own instructions, from 3.11 on after calls and jumps
    only. So taking the lock and putting it into the list are one step here, taking it out and
    giving it back another, and nothing is called before that once the work has ended.
    """

    __slots__ = ("_turn", "give_back", "held")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.held: list[Any] = []
        self.give_back: Callable[[], None] = map(_release, map(self.held.pop, (0,))).__next__

    def take(self) -> bool:
        """Wait for the turn. False: this thread has it already, or another one keeps it."""
        turn, thread = self._turn, get_ident()
        if turn.owner == thread:
            return False
        lock = turn.lock
        self.held += compress((lock,), map(lock.acquire, (True,), (PATIENCE,)))
        if not self.held:
            return False
        turn.owner = thread
        return True

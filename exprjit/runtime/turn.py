"""Taking turns at books that several threads keep, without waiting for each other for ever.

A lock that is held while Python code runs is held while finalisers and signal handlers run. These
may wait for a lock of their own, and whoever has that one may be waiting for ours. So the lock
here is held for single steps only, which no other code can come between; a turn is a note of who
has it; and waiting for one has an end, after which the caller has to do without.
"""

from __future__ import annotations

from threading import RLock, get_ident
from time import monotonic, sleep

#: How many seconds to wait for a turn. Turns take a thousandth of that, unless they are stuck.
PATIENCE = 1.0
#: How many seconds at most pass between two looks at whether it is free.
PAUSE = 1e-4


class Claim:
    """One attempt to have a turn.  thread: whose it is."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = get_ident()


class Turn:
    """What one thread at a time may have:

        claim = Claim()
        try:
            if turn.take(claim):
                ...
        finally:
            if turn.owner is claim:
                turn.owner = None

    The last two lines call nothing, so from Python 3.11 on no interrupt can come between.

    owner: the claim of the one who has it, or None.
    """

    __slots__ = ("_lock", "owner")

    def __init__(self) -> None:
        # Reentrant for the signal handlers of Python 3.10, which come in between any two steps.
        self._lock = RLock()
        self.owner: Claim | None = None

    def take(self, claim: Claim) -> bool:
        """Wait for the turn. False: this thread has it already, or another one keeps it."""
        if self._try(claim):
            return True
        deadline = monotonic() + PATIENCE
        pause = PAUSE / 16
        while not self._is_mine() and monotonic() < deadline:
            sleep(pause)
            if self._try(claim):
                return True
            pause = min(2 * pause, PAUSE)
        return False

    def _try(self, claim: Claim) -> bool:
        with self._lock:
            if self.owner is None:
                self.owner = claim
        return self.owner is claim

    def _is_mine(self) -> bool:
        owner = self.owner
        return owner is not None and owner.thread == get_ident()

    def after_fork_in_child(self) -> bool:
        """Let nobody have it whose thread is gone. Gives whether there was such a one."""
        self._lock = RLock()
        if self.owner is None or self._is_mine():
            return False  # If this thread is in the middle of a turn, that goes on here.
        self.owner = None
        return True

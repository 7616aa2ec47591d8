"""A bounded cache of what was made before, for any number of threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from .runtime.turn import Claim, Turn

Value = TypeVar("Value")


class CacheInfo(NamedTuple):
    """What a cache did and holds, as `functools.lru_cache` tells it."""

    hits: int
    misses: int
    maxsize: int
    currsize: int


class Cache(Generic[Value]):
    """The values of the keys that were used last.

    maxsize: how many there may be.  most: how much they may weigh together; what is heavier
    alone is not kept.
    """

    def __init__(self, maxsize: int, most: int) -> None:
        self.maxsize = maxsize
        self.most = most
        # A finaliser or signal handler that comes back here in the middle of a step, and whoever
        # has waited too long for another thread, leaves things as they are.
        self._turn = Turn()
        self._clear_next = False
        self._forget()

    def _forget(self) -> None:
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._weight = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None.  Raises TypeError if the key cannot be hashed."""
        turn = self._turn
        claim = Claim(turn)
        try:
            if not claim.take():
                return None
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return entry[0]
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()
            self._clear_if_wanted()

    def add(self, key: Hashable, value: Value, weight: int) -> Value:
        """Keep a value.  Gives the one that another thread has kept meanwhile, if it has."""
        if weight > self.most:
            return value
        # What is dropped goes away when the turn is over.
        dropped = []
        turn = self._turn
        claim = Claim(turn)
        try:
            if not claim.take():
                return value
            entry = self._entries.get(key)
            if entry is not None:
                return entry[0]
            self._entries[key] = value, weight
            self._weight += weight
            while len(self._entries) > self.maxsize or self._weight > self.most:
                _, old = self._entries.popitem(last=False)
                self._weight -= old[1]
                dropped.append(old)
        except BaseException:
            self._clear_next = True  # An interrupt may have come between two steps.
            raise
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()
            self._clear_if_wanted()
        return value

    def _clear_if_wanted(self) -> None:
        if self._clear_next:
            self.clear()

    def clear(self) -> None:
        """Forget all values and start counting again."""
        dropped: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        turn = self._turn
        claim = Claim(turn)
        try:
            # If someone is at work here, he does it when that is done.
            self._clear_next = not claim.take()
            if not self._clear_next:
                dropped = self._entries
                self._forget()
        finally:
            if claim.held:
                turn.owner = 0
                claim.give_back()
        # What was dropped goes away here, when the turn is over.
        dropped.clear()

    def info(self) -> CacheInfo:
        """What it did and holds now."""
        return CacheInfo(self._hits, self._misses, self.maxsize, len(self._entries))

    def after_fork_in_child(self) -> None:
        """Forget everything if another thread of the parent was at work here."""
        if self._turn.after_fork_in_child():
            self._clear_next = False
            self._forget()

"""A bounded cache of what was made before, for any number of threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import RLock
from typing import Generic, NamedTuple, TypeVar

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
        # Reentrant, so that a finaliser or signal handler that comes back here in the middle of a
        # step finds `_busy` set, and leaves things as they are.
        self._lock = RLock()
        self._busy = False
        self._clear_next = False
        self._forget()

    def _forget(self) -> None:
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._weight = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None.  Raises TypeError if the key cannot be hashed."""
        with self._lock:
            if self._busy:
                return None
            try:
                self._busy = True
                entry = self._entries.get(key)
                if entry is None:
                    self._misses += 1
                    return None
                self._hits += 1
                self._entries.move_to_end(key)
                return entry[0]
            finally:
                self._busy = False  # Nothing may come before it that an interrupt could end.
                self._clear_if_wanted()

    def add(self, key: Hashable, value: Value, weight: int) -> Value:
        """Keep a value.  Gives the one that another thread has kept meanwhile, if it has."""
        if weight > self.most:
            return value
        # What is dropped goes away when the lock is free.
        dropped = []
        with self._lock:
            if self._busy:
                return value
            try:
                self._busy = True
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
                self._busy = False  # Nothing may come before it that an interrupt could end.
                self._clear_if_wanted()
        return value

    def _clear_if_wanted(self) -> None:
        if self._clear_next:
            self.clear()

    def clear(self) -> None:
        """Forget all values and start counting again."""
        with self._lock:
            self._clear_next = self._busy
            if self._busy:
                return
            dropped = self._entries
            self._forget()
        # What was dropped goes away here, when the lock is free.
        dropped.clear()

    def info(self) -> CacheInfo:
        """What it did and holds now."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self.maxsize, len(self._entries))

    def after_fork_in_child(self) -> None:
        """Forget everything if another thread of the parent was at work here."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = RLock()
            self._busy = self._clear_next = False
            self._forget()

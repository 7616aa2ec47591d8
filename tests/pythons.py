"""What kind of Python runs the tests."""

from __future__ import annotations

import sys

import pytest

#: A debug build checks itself, and takes some ten times as long.
DEBUG = hasattr(sys, "gettotalrefcount")

#: Seconds that what is to happen "at once" may take; it takes one or less on an ordinary Python.
AT_ONCE = 50.0 if DEBUG else 5.0

HAVE_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
#: A dict that another thread is at when a process forks stays locked in the child.
forks_among_threads = pytest.mark.skipif(
    not HAVE_LOCK,
    reason="without the global lock, Python hangs in children that were forked among threads",
)

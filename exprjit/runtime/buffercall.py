"""Machine code that is called with its values in a buffer, through ctypes.

The code is ``int f(int64_t *buffer)``, which answers 0, or 1 where only the interpreter can.
The buffer holds the result, how many results of C functions were logged, the values, and
those results: the same for every formula, so one ctypes prototype serves all, and nothing is
asked of Python's own layouts.  It is some ten times slower than a native call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from exprjit.x86.kernels import LOGGED, RESULT, VALUES


class Outcome(NamedTuple):
    """What a call gave.

    result: the value, or None where the interpreter has to answer.  returned: what the C
    functions that were called have returned, in order.
    """

    result: int | None
    returned: list[int]


@cache
def _tools() -> tuple[Any, Callable[[int], Callable[[Any], int]]]:
    from ctypes import PYFUNCTYPE, c_int, c_int64, c_void_p

    # The interpreter lock is kept: most calls are shorter than giving it up takes.
    return c_int64, PYFUNCTYPE(c_int, c_void_p)


def run(address: int, values: Sequence[int], room: int) -> Outcome:
    """Call the code at `address`; `room` is how many results it may log."""
    item, prototype = _tools()
    count = VALUES + len(values)
    buffer = (item * (count + room))(0, 0, *values)
    bailed = prototype(address)(buffer)
    returned = buffer[count : count + buffer[LOGGED]] if room else []
    return Outcome(None if bailed else buffer[RESULT], returned)

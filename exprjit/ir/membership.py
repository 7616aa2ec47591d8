"""Numbers for asking in one go whether a value is one of some constants near each other.

The value less a base is a place in a word that has a bit set for each of the constants. The base is
0 where all fit there, since then nothing is taken away.
"""

from __future__ import annotations

from ..language.operators import Width


def near(w: Width, *members: int) -> int:
    """1 if a word has a place for each of the members."""
    return int(max(members) - min(members) < w.bits)


def base(w: Width, *members: int) -> int:
    """The member that has the first place, or 0."""
    return 0 if min(members) >= 0 and max(members) < w.bits else min(members)


def members(w: Width, *members: int) -> int:
    """The word, for members that are near each other."""
    first = base(w, *members)
    return sum({1 << (member - first) % w.bits for member in members})

"""The runs of ones in a mask, for moving bits by constant masks with shifts."""

from __future__ import annotations

from typing import NamedTuple

from ..language.operators import LONG


class Run(NamedTuple):
    """place: its lowest bit.  length: how many ones.  below: how many ones the mask has below."""

    place: int
    length: int
    below: int


def bit_runs(mask: int) -> list[Run]:
    """The runs of a 64-bit mask, lowest first."""
    runs: list[Run] = []
    below, place = 0, 0
    mask &= LONG.mask
    while mask >> place:
        rest = mask >> place
        skipped = (rest & -rest).bit_length() - 1
        place, rest = place + skipped, rest >> skipped
        length = (~rest & rest + 1).bit_length() - 1
        runs.append(Run(place, length, below))
        below, place = below + length, place + length
    return runs

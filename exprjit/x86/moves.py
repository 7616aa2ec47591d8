"""Moves between registers that are to happen as if at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .instructions import INSTRUCTIONS, Instruction

MOVE: Final = INSTRUCTIONS["mov_rr"]
_EXCHANGE: Final = INSTRUCTIONS["xchg_rr"]


def parallel_moves(moves: Iterable[tuple[int, int]]) -> list[tuple[Instruction, int, int]]:
    """Moves and exchanges that do all (destination, source) pairs as if at once."""
    pending = {to: source for to, source in moves if to != source}
    done: list[tuple[Instruction, int, int]] = []
    while pending:
        sources = set(pending.values())
        free = [to for to in pending if to not in sources]
        for to in free:
            done.append((MOVE, to, pending.pop(to)))
        if not free:
            # Only cycles are left: an exchange puts one value where it belongs.
            to, source = next(iter(pending.items()))
            done.append((_EXCHANGE, to, source))
            del pending[to]
            for other, place in pending.items():
                if place == to:
                    pending[other] = source
            pending = {to: source for to, source in pending.items() if to != source}
    return done

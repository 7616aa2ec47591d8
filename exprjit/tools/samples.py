"""Numbers that find bugs: edges, every magnitude, every spelling, and tuples of arguments.

All choices are calls of ``below(n)`` (see generate.py), where 0 is the simplest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import product

from ..language.operators import LONG, MAX, MIN

#: ``below(n)`` chooses one of 0 .. n-1.
Below = Callable[[int], int]

#: Where meanings change: zero, signs, bounds of every width, shift counts, masks, and
#: 3037000499, the root of the greatest square.
EDGES = (
    *(0, 1, -1, 2, -2, 3, -3, 7, -7, 8, 10, 31, 32, 63, 64, 65, -63, -64),
    *(MAX, MIN, MAX - 1, MIN + 1, MAX // 2, MAX // 2 + 1, MIN // 2, MIN // 2 - 1),
    *(127, 128, -128, -129, 255, 256, 32767, 32768, -32768, 65535, 65536),
    *(2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32 - 1, 2**32, -(2**32), 2**53 + 1),
    *(3037000499, 3037000500, -3037000500, 0x5555555555555555, -0x5555555555555556),
)

_ESCAPES = {10: r"\n", 9: r"\t", 13: r"\r", 0: r"\0", 92: r"\\", 39: r"\'"}


def seeded(seed: object) -> Below:
    """Choices from a seed; the same on every Python version."""
    # Python promises that random() keeps its sequence; of its other methods it does not.
    uniform = random.Random(str(seed)).random
    return lambda n: int(uniform() * n)


def magnitude(below: Below) -> int:
    """A 64-bit number: mostly small, else an edge, near a power of two, or of random length."""
    kind = below(100)
    if kind < 45:
        return below(11)
    if kind < 55:
        return -1 - below(8)
    if kind < 72:
        return EDGES[below(len(EDGES))]
    if kind < 82:
        near = (1 << below(64)) + below(3) - 1
        return LONG.wrap(-near if below(2) else near)
    bits = below(1 << 32) << 32 | below(1 << 32)
    return LONG.wrap(bits >> below(64))


def literal(below: Below, value: int) -> str:
    """`value` as the language can write it; only decimal ones have a minus sign."""
    kind = below(16)
    if kind < 9:
        return str(value)
    if kind < 11:
        return f"{value:_}"
    bits = value & LONG.mask
    if kind < 13:
        return (hex(bits), f"0X{bits:X}", f"0x{bits:_x}", f"0x{bits:020x}")[below(4)]
    if kind == 13:
        return (bin(bits), f"0B{bits:_b}")[below(2)]
    if kind == 14:
        return (oct(bits), f"0O{bits:o}")[below(2)]
    return _character(value) or hex(bits)


def _character(value: int) -> str | None:
    if value in _ESCAPES:
        return f"'{_ESCAPES[value]}'"
    if 32 <= value < 127 or 0xC0 <= value < 0x250 or 0x4E00 <= value < 0x9000:
        return f"'{chr(value)}'"
    return rf"'\x{value:02x}'" if 0 <= value < 256 else None


def random_row(below: Below, arity: int, hints: Sequence[int] = ()) -> tuple[int, ...]:
    """Arguments of one style: all edges, all small, or a mixture; `hints` are likely ones."""
    style = below(5)
    if style == 0:
        return tuple([EDGES[below(len(EDGES))] for _ in range(arity)])
    if style == 1:
        return tuple([below(24) - 8 for _ in range(arity)])
    row: list[int] = []
    for _ in range(arity):
        kind = below(8)
        if kind == 0 and row:
            row.append(row[-1])
        elif kind < 3 and hints:
            row.append(LONG.wrap(hints[below(len(hints))] + below(3) - 1))
        else:
            row.append(magnitude(below))
    return tuple(row)


def rows(below: Below, arity: int, count: int, hints: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """`count` tuples of arguments; first all combinations of edges, if they are not too many.

    A program without parameters has one tuple.
    """
    if arity == 0:
        return [()]
    found: list[tuple[int, ...]] = []
    if len(EDGES) ** arity < count:
        found += product(EDGES, repeat=arity)
    found += [random_row(below, arity, hints) for _ in range(count - len(found))]
    return found

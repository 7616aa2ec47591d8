"""Bytes that are taken apart and put together in reverse order are one instruction.

A value made by shifts by whole bytes, masks of whole bytes and disjunctions has in each of its
bytes one of some other value's, or nothing. If these are its lowest two, four or eight in reverse
order, it is `bswap` of that value, shifted down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .graph import Form, Graph, Node

#: For each byte of a value, lowest first: which byte of the base it is, or one of these.
_ZERO: Final = -1
_UNKNOWN: Final = -2
_SIZE: Final = 8
_IDENTITY: Final = tuple(range(_SIZE))

Origin = tuple["Node", tuple[int, ...]]
Move = Callable[[tuple[int, ...], int], "tuple[int, ...] | None"]

#: Values that are bswap, shifted right by so many bytes.
_REVERSED: Final = {
    (*reversed(range(count)), *[_ZERO] * (_SIZE - count)): _SIZE - count for count in (2, 4, 8)
}

#: No more moves of bytes than these are looked at behind one another.
_DEPTH: Final = 5


def joined_origin(graph: Graph, left: Node, right: Node) -> Origin | None:
    """Where the bytes of ``left | right`` come from, if they are all of one value or 0."""
    if left.op not in _MOVES or right.op not in _MOVES:
        return None
    return _joined(_origin(graph, left), _origin(graph, right))


def byte_swap(graph: Graph, origin: Origin) -> Form | None:
    """What a value of this origin is if its bytes are in reverse order, or None."""
    base, places = origin
    shift = _REVERSED.get(places)
    if shift is None:
        return None
    return "shr", graph.make("bswap", base), graph.const(8 * shift)


def _origin(graph: Graph, node: Node) -> Origin:
    """Where the bytes of a node come from; from itself if nothing is known."""
    moves: list[tuple[str, int]] = []
    inner = node
    while len(moves) < _DEPTH and inner.op in _MOVES and inner.args[1].op == "const":
        moves.append((inner.op, inner.args[1].value))
        inner = inner.args[0]
    # What moves bits within bytes hides all that is below it.
    base, places = graph.origins.get(inner, (inner, _IDENTITY))
    for op, number in reversed(moves):
        moved = _MOVES[op](places, number)
        if moved is None:
            return node, _IDENTITY
        places = moved
    return base, places


def _joined(left: Origin, right: Origin) -> Origin | None:
    """The origin of a disjunction of what has no byte in common."""
    if left[0] is not right[0]:
        return None
    places = []
    for p, q in zip(left[1], right[1], strict=True):
        if _ZERO not in (p, q):
            return None
        places.append(q if p == _ZERO else p)
    return left[0], tuple(places)


def _masked(places: tuple[int, ...], mask: int) -> tuple[int, ...] | None:
    kept = []
    for index, place in enumerate(places):
        byte = mask >> 8 * index & 0xFF
        if byte not in (0, 0xFF) and place != _ZERO:
            return None
        kept.append(place if byte == 0xFF else _ZERO)
    return tuple(kept)


def _up(places: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    size = (count & 63) // 8
    return None if count % 8 else (*[_ZERO] * size, *places[: _SIZE - size])


def _down(filling: int) -> Move:
    def moved(places: tuple[int, ...], count: int) -> tuple[int, ...] | None:
        size = (count & 63) // 8
        return None if count % 8 else (*places[size:], *[filling] * size)

    return moved


#: What moves bytes: by operator, what becomes of the places by its constant; None if bytes break.
_MOVES: Final[dict[str, Move]] = {
    "bitand": _masked,
    "shl": _up,
    "shr": _down(_ZERO),
    "sar": _down(_UNKNOWN),
    "bitor": lambda places, number: None,  # What it joins is in the graph's `origins`.
}

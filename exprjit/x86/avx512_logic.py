"""Bitwise operators of AVX-512 joined: vpternlogq computes any function of three operands.

Which function it is says its immediate: the bit for each combination of the operands' bits (Intel's
manual, volume 2, VPTERNLOGQ). So a tree of operators is evaluated on the bytes 0xF0, 0xCC and 0xAA.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from .lane_code import Op, op, read, written

_OPERATORS: Final[dict[str, Callable[[int, int], int]]] = {
    "vpandq512_xxx": lambda a, b: a & b,
    "vporq512_xxx": lambda a, b: a | b,
    "vpxorq512_xxx": lambda a, b: a ^ b,
    "vpandnq512_xxx": lambda a, b: ~a & b,
}
#: What the operands are in the index of the immediate's bits.
_OPERANDS: Final = (0xF0, 0xCC, 0xAA)


class _Tree(NamedTuple):
    """A tree of operators: its leaves, and its value for what they are."""

    leaves: tuple[int, ...]
    evaluate: Callable[[dict[int, int]], int]


def join_logic(code: list[Op], kept: Collection[int], ones: int | None) -> list[Op]:
    """The code with trees of bitwise operators as one instruction, as far as three operands go.

    kept: the registers that are needed behind it.  ones: the register with all bits set.
    """
    uses: dict[int, int] = dict.fromkeys(kept, 1)
    for item in code:
        for value in read(item):
            uses[value] = uses.get(value, 0) + 1
    trees: dict[int, _Tree] = {}
    absorbed: set[int] = set()
    found: list[Op] = []
    for item in code:
        compute = _OPERATORS.get(item.instruction.key)
        if compute is None:
            found.append(item)
            continue
        to, left, right = item.operands
        best = _best_tree(left, right, compute, trees, uses, kept, ones)
        tree, inner = best
        trees[to] = tree
        if inner:
            absorbed.update(inner)
            found.append(_instruction(to, tree, uses, item))
        else:
            found.append(item)
    return [item for item in found if written(item) not in absorbed]


def _leaf(value: int, ones: int | None) -> _Tree:
    if value == ones:
        return _Tree((), lambda given: 0xFF)
    return _Tree((value,), lambda given: given[value])


def _best_tree(
    left: int,
    right: int,
    compute: Callable[[int, int], int],
    trees: dict[int, _Tree],
    uses: dict[int, int],
    kept: Collection[int],
    ones: int | None,
) -> tuple[_Tree, list[int]]:
    """The largest tree that has three leaves at most, and the registers that it makes needless."""

    def options(value: int) -> list[tuple[_Tree, list[int]]]:
        plain: tuple[_Tree, list[int]] = (_leaf(value, ones), [])
        tree = trees.get(value)
        if tree is None or uses.get(value) != 1 or value in kept:
            return [plain]
        return [(tree, [value]), plain]

    for a, inner_a in options(left):
        for b, inner_b in options(right):
            leaves = tuple(dict.fromkeys((*a.leaves, *b.leaves)))
            if len(leaves) <= len(_OPERANDS) or not (inner_a or inner_b):
                break
        else:
            continue
        break

    def evaluate(given: dict[int, int]) -> int:
        return compute(a.evaluate(given), b.evaluate(given))

    return _Tree(leaves, evaluate), [*inner_a, *inner_b]


def _instruction(to: int, tree: _Tree, uses: dict[int, int], source: Op) -> Op:
    """The instruction for a tree; what dies there is overwritten."""
    leaves = sorted(tree.leaves, key=lambda leaf: uses.get(leaf, 0) != 1)
    given = dict(zip(leaves, _OPERANDS, strict=False))
    table = tree.evaluate(given) & 0xFF
    # With two leaves the third operand does not matter, and with one the second neither.
    second, third = (leaves + leaves[-1:] * 2)[1:3]
    return op("vpternlogq512_xxxi", to, second, third, table, tied=leaves[0], tag=source.tag)

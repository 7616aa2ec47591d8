"""The kernels over arrays for each kind of processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..ir.facts import Facts
from ..ir.graph import Graph
from . import avx2, avx512
from .avx2_ends import Avx2Ends
from .avx512_ends import Avx512Ends
from .kernels import Code, FrameTooLarge
from .lane_ends import Ends
from .lane_loop import lane_rows
from .lanes import NoLanes
from .rows import Plan, rows
from .scalar import native

#: Gives the graph of a row: for lanes or not, with the operators to keep, and what is known of the
#: columns beside their types, by position.
Builder = Callable[[bool, frozenset[str], Mapping[int, Facts]], Graph]

_AVX2: Final = frozenset(("avx2", "fma", "bmi1", "bmi2"))
_AVX512: Final = frozenset(
    ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "bmi2", "popcnt")
)


def array_kernel(plan: Plan, features: frozenset[str], build: Builder) -> Code:
    """The fastest kernel of a plan that a CPU with these features can run."""
    ends: Ends | None = None
    kept: frozenset[str] = frozenset()
    if features >= _AVX512:
        ends, kept = Avx512Ends(features), avx512.native(features)
    elif features >= _AVX2:
        ends, kept = Avx2Ends(), avx2.NATIVE
    scalar = build(False, native(features), {})
    if ends is not None:
        try:
            return lane_rows(
                plan,
                ends,
                features,
                lambda known: build(True, kept, known),
                lambda: scalar,
            )
        except (NoLanes, FrameTooLarge):
            # For a single row at a time less is alive.
            pass
    return rows(build(False, native(features), {}), plan, features)

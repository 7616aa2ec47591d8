"""What vectors have no instructions for: one lane after the other, by scalar code.

The operands go to memory, each lane is loaded, computed as in scalar code and stored, and the
result is loaded as a vector again; all this is one instruction to the allocator of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from . import macros
from .assembler import Label, Line, line, place
from .registers import CC, R13, RAX, RCX, RDX, Mem

#: The register that counts lanes; it is free while vectors are computed (lane_loop.py).
_COUNT: Final = R13

Lines = tuple[list[Line], list[Line]]


class Scalar(NamedTuple):
    """Scalar code for a lane.

    reads: where it finds its operands.  result: where it leaves what it computes.  expand: gives
    the lines in place and those out of the way.  It may change rax, rcx, rdx, rsi and rdi.
    """

    reads: tuple[int, ...]
    result: int
    expand: Callable[[], Lines]


def _macro(macro: object, reads: tuple[int, ...], *operands: int, result: int = RAX) -> Scalar:
    expand: Callable[..., Lines] = macro.expand  # type: ignore[attr-defined]
    return Scalar(reads, result, lambda: expand(*operands))


def _mul_overflows() -> Lines:
    return [
        line("imul_rr", RAX, RCX),
        line("setcc_r", CC["o"], RAX),
        line("movzx8_rr", RAX, RAX),
    ], []


#: By operator: the code for a lane.
SCALARS: Final[dict[str, Scalar]] = {
    "pow": _macro(macros.POW, (RAX, RCX)),
    "pow_overflows": _macro(macros.POW_OVERFLOWS, (RAX, RCX)),
    "gcd": _macro(macros.GCD, (RAX, RDX)),
    "pdep": Scalar((RAX, RDX), RAX, lambda: ([line("pdep_rrr", RAX, RAX, RDX)], [])),
    "pext": Scalar((RAX, RDX), RAX, lambda: ([line("pext_rrr", RAX, RAX, RDX)], [])),
    "div": _macro(macros.IDIV, (RAX, RCX), RCX),
    "rem": _macro(macros.IDIV, (RAX, RCX), RCX, result=RDX),
    "udiv": _macro(macros.DIV, (RAX, RCX), RCX),
    "umod": _macro(macros.DIV, (RAX, RCX), RCX, result=RDX),
    "mul_overflows": Scalar((RAX, RCX), RAX, _mul_overflows),
}


class ByLane:
    """The instruction: a destination and one or two sources, all of them vectors."""

    __slots__ = ("key", "kinds", "roles", "scalar")

    def __init__(self, operator: str) -> None:
        self.scalar = SCALARS[operator]
        self.key = f"{operator} by lane"
        self.kinds = tuple("x" for _ in range(len(self.scalar.reads) + 1))
        self.roles = ("w", *("r" for _ in self.scalar.reads))

    def expand(
        self, vectors: Sequence[int], store: Callable[[Mem, int], Line],
        load: Callable[[int, Mem], Line], scratch: Sequence[Mem], lanes: int, tag: object,
    ) -> Lines:  # fmt: skip
        """The lines in place and out of the way; `scratch` is a place for each operand."""
        to, *sources = vectors
        lines = [store(home, source) for home, source in zip(scratch, sources, strict=False)]
        again = Label("lane")
        code, cold = self.scalar.expand()
        lines += [line("mov_ri", _COUNT, lanes - 1), place(again)]
        pairs = zip(self.scalar.reads, scratch, strict=False)
        lines += [line("mov_rm", register, _lane(home)) for register, home in pairs]
        lines += [
            *((item, operands, tag) for item, operands, _ in code),
            line("mov_mr", _lane(scratch[0]), self.scalar.result),
            line("dec_r", _COUNT),
            line("jcc_j", CC["ns"], again),
            load(to, scratch[0]),
        ]
        return lines, [(item, operands, tag) for item, operands, _ in cold]


def _lane(home: Mem) -> Mem:
    return home._replace(index=_COUNT, scale=8)

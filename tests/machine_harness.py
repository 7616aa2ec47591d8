"""Formulas as machine code to call, and in what ways the registers can be given out."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pytest
from graph_evaluator import interpreted

from exprjit.formula import Formula
from exprjit.ir.graph import Graph
from exprjit.ir.reductions import build_reduced
from exprjit.language.operators import OPERATORS
from exprjit.runtime import cpu, memory
from exprjit.tools import samples
from exprjit.x86 import kernels, scalar
from exprjit.x86.instructions import INSTRUCTIONS
from exprjit.x86.regalloc import ORDER
from exprjit.x86.registers import CALLEE_SAVED, RAX, RCX, RDI, RDX, RSI

needs_machine_code = pytest.mark.skipif(
    cpu.why_no_machine_code() is not None or memory.policy()[0] == "none",
    reason="no machine code can run here",
)

MODES = ("wrap", "raise")
BASELINE = frozenset(["sse2"])
OPTIONAL = ("bmi1", "bmi2", "lzcnt", "popcnt")
FEATURES = cpu.detected() if cpu.why_no_machine_code() is None else BASELINE
#: Every kind of processor: this one, the least one, and this one less one feature.
PROCESSORS = {
    "all": FEATURES,
    "none": BASELINE,
    **{f"no {name}": FEATURES - {name} for name in OPTIONAL if name in FEATURES},
}


@cache
def checked_type(count: int) -> Any:
    longs = [ctypes.c_int64] * count
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int64), *longs)


def graph_of(formula: Formula, features: frozenset[str] = FEATURES) -> Graph:
    return build_reduced(formula.program(), formula.overflow, scalar.native(features))


class Compiled:
    """A formula as a checked C function; a call gives its value, or None where it bails."""

    def __init__(
        self,
        source: str,
        mode: str = "wrap",
        features: frozenset[str] = FEATURES,
        order: Sequence[int] = ORDER,
        params: Sequence[str] | None = None,
    ) -> None:
        self.formula = Formula(source, params, overflow=mode)
        graph = graph_of(self.formula, features)
        self.code = kernels.checked_function(graph, features, order)
        self.installed = memory.install(self.code.encoded.code)
        self.function = checked_type(len(self.formula.params))(self.installed.address)
        self.result = ctypes.c_int64()
        self.pointer = ctypes.pointer(self.result)

    def __call__(self, *arguments: int) -> int | None:
        self.result.value = 0x0123_4567
        status = self.function(self.pointer, *arguments)
        if status == 0:
            return self.result.value
        assert status == 1
        assert self.result.value == 0x0123_4567, "a result was stored by code that bails"
        return None


Row = tuple[int, ...]


def answers(formula: Formula, rows: Iterable[Row]) -> list[int | None]:
    return [interpreted(formula, row) for row in rows]


def differences(
    source: str,
    rows: Sequence[Row],
    expected: Sequence[int | None],
    mode: str = "wrap",
    features: frozenset[str] = FEATURES,
    order: Sequence[int] = ORDER,
    params: Sequence[str] | None = None,
) -> list[tuple[Row, int | None, int | None]]:
    """Where machine code and the interpreter differ: arguments, the one's answer, the other's."""
    compiled = Compiled(source, mode, features, order, params)
    return [
        (row, answer, got)
        for row, answer in zip(rows, expected, strict=True)
        if (got := compiled(*row)) != answer
    ]


def example(name: str) -> str:
    """A formula that is one use of the operator."""
    row = OPERATORS[name]
    if row.fixity == "function":
        return f"{name}({', '.join('xyz'[: row.arity])})"
    if row.fixity == "conditional":
        return "x ? y : z"
    if row.fixity == "prefix":
        return f"{row.spelling} x"
    return f"x {row.spelling} y"


NAMED = [name for name, row in OPERATORS.items() if row.fixity != "internal"]


def rows_for(formula: Formula, count: int = 12) -> list[Row]:
    below = samples.seeded(formula.source)
    return [samples.random_row(below, len(formula.params)) for _ in range(count)]


@cache
def prepared(source: str, mode: str) -> tuple[list[Row], list[int | None]]:
    """Arguments for a formula and what the interpreter answers."""
    formula = Formula(source, overflow=mode)
    rows = rows_for(formula)
    return rows, answers(formula, rows)


SHAKEN = {
    "reversed": ORDER[::-1],
    "callee-saved first": (*CALLEE_SAVED, *[r for r in ORDER if r not in CALLEE_SAVED]),
    "fixed ones first": (RAX, RDX, RCX, RSI, RDI, *[r for r in ORDER if r > 2 and r not in (6, 7)]),
    **{f"rotated by {n}": ORDER[n:] + ORDER[:n] for n in (1, 4, 7, 8, 11, 13)},
}


def shuffled(seed: int, count: int = len(ORDER)) -> list[int]:
    return random.Random(seed).sample(ORDER, count)


def line(key: str, *operands: object) -> tuple[Any, tuple[object, ...], None]:
    """An instruction for `encode`."""
    return INSTRUCTIONS[key], operands, None

"""Arrays on a thread whose floating point unit is set in other ways than usual.

The program that embeds Python may have unmasked exceptions, chosen another rounding mode, or flush
small numbers to zero. Answers are the same, nothing traps, and the settings are as they were.
"""

from __future__ import annotations

import pytest
from children import Child, needs_code

from exprjit.runtime import cpu

pytest.importorskip("numpy")
pytestmark = needs_code

LEVELS = [
    level
    for level, needed in (("scalar", set()), ("avx2", cpu.AVX2), ("avx512", cpu.AVX512))
    if needed <= cpu.detected()
]

PROGRAM = """
import ctypes
import random
import numpy as np
import exprjit
from exprjit.array_code import Task
from exprjit.runtime import memory
from exprjit.runtime.columns import Column, scalar
from exprjit.runtime.sweep import new_state
from exprjit.x86.assembler import encode, line
from exprjit.x86.registers import R8, RAX, RBX, RDI, RDX, RCX, RSI, RSP, Mem
from exprjit.x86.rows import SCALAR_COLUMN, Plan

# long call(kernel, state, start, stop, settings): settings[0] meanwhile, settings[1] at its end.
lines = [
    line("push_r", RBX),
    line("sub_ri", RSP, 16),
    line("mov_rr", RBX, R8),
    line("stmxcsr_m", Mem(RSP)),
    line("ldmxcsr_m", Mem(RBX)),
    line("mov_rr", RAX, RDI),
    line("mov_rr", RDI, RSI),
    line("mov_rr", RSI, RDX),
    line("mov_rr", RDX, RCX),
    line("call_r", RAX),
    line("stmxcsr_m", Mem(RBX, disp=4)),
    line("ldmxcsr_m", Mem(RSP)),
    line("add_ri", RSP, 16),
    line("pop_r", RBX),
    line("ret"),
]
code = memory.install(encode(lines).code)
words = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
call = ctypes.CFUNCTYPE(ctypes.c_long, *words)(code.address)

rng = random.Random(1)
rows = 200
columns = {
    "small": [[rng.randint(-10**6, 10**6) for _ in range(rows)] for _ in "xy"],
    "great": [[rng.getrandbits(64) - 2**63 for _ in range(rows)] for _ in "xy"],
    "zeros": [[0] * rows, [rng.randint(-1, 1) for _ in range(rows)]],
}
SOURCES = (
    "x / 7 + y // 10", "x % 1000003 - y %% 60", "y ? x / y : 0", "y ? x % y : x", "x // (y | 1)",
    "isqrt(x & 0x7fffffffffffffff) + clz(y)", "udiv(x, y | 1)", "x / 3000000000 + x % 77",
    "(x & 9) + y / 7 + isqrt(y & 0x7fffffffffffffff)", "(x & 1) + 1000003 / (y | 1)",
)
SETTINGS = (0x1F80, 0x0000, 0x9FC0, 0x3F80, 0x5F80, 0x7F80, 0xFFC0)
for source in SOURCES:
    for overflow in ("wrap", "raise"):
        f = exprjit.compile(source, ("x", "y"), overflow=overflow)
        sweep = f._body.sweep(Task(f.formula, False, Plan("map", ("int64", "int64"))))
        address = sweep.address
        plan = Plan("map", ("int64", SCALAR_COLUMN))
        fixed = f._body.sweep(Task(f.formula, False, plan))
        for y in (7, -3, 135827352134061, 2**62 + 1):
            x = np.array(columns["great"][0])
            wanted = [f(a, y) for a in x.tolist()]
            for setting in SETTINGS:
                out = np.zeros(rows, "int64")
                given = [Column("int64", x.ctypes.data, x), scalar(y)]
                state = new_state(fixed, given, out.ctypes.data)
                settings = (ctypes.c_uint32 * 2)(setting, 0)
                assert call(fixed.address, state, 0, rows, settings) == rows
                assert list(out) == wanted, (source, y, hex(setting))
                assert settings[1] == setting, (source, y, hex(setting), hex(settings[1]))
        for name, (x, y) in columns.items():
            arrays = np.array(x), np.array(y)
            wanted = [f(a, b) for a, b in zip(x, y)]
            for setting in SETTINGS:
                out = np.zeros(rows, "int64")
                given = [Column("int64", a.ctypes.data, a) for a in arrays]
                state = new_state(sweep, given, out.ctypes.data)
                settings = (ctypes.c_uint32 * 2)(setting, 0)
                assert call(address, state, 0, rows, settings) == rows
                assert list(out) == wanted, (source, name, hex(setting))
                assert settings[1] == setting, (source, name, hex(setting), hex(settings[1]))
print("the same")
"""


@pytest.mark.parametrize("level", LEVELS)
def test_the_floating_point_unit_may_be_set_in_any_way(child: Child, level: str) -> None:
    assert child(PROGRAM, EXPRJIT_CPU=level).split() == ["the", "same"]

"""Programs that are all arms: divisions, roots and powers under conditions that are about their own
operands, shared between arms and with what stands outside, on few registers."""

from __future__ import annotations

import random
from itertools import product

import pytest
from machine_harness import (
    FEATURES,
    MODES,
    answers,
    differences,
    needs_machine_code,
    shuffled,
)

from exprjit.formula import Formula
from exprjit.x86.regalloc import ORDER

pytestmark = [needs_machine_code, pytest.mark.slow]

#: So few that divisors are often 0 or -1, and conditions often those of another arm.
NAMES = "abcd"
LEAVES = (*NAMES, *NAMES, *NAMES, "0", "1", "-1", "3", "0x8000000000000000")
NUMBERS = (0, 1, -1, 2, -(2**63))


class Programs:
    """Makes formulas; what was made before is used again, so that arms share with each other."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.values: list[str] = []
        self.conditions: list[str] = []

    def value(self, depth: int) -> str:
        choose = self.choose
        if self.values and choose.random() < 0.25:
            return choose.choice(self.values)
        if depth <= 0:
            return choose.choice(LEAVES)
        kind = choose.random()
        if kind < 0.15:
            return self.clash(depth)
        if kind < 0.45:
            made = (
                f"({self.condition(depth - 1)} ? {self.value(depth - 1)} : {self.value(depth - 1)})"
            )
        elif kind < 0.75:
            divisor = self.value(depth - 1) if choose.random() < 0.6 else self.condition(depth - 1)
            op = choose.choice(("/", "%", "//", "%%", "udiv", "umod"))
            dividend = self.value(depth - 1)
            made = (
                f"{op}({dividend}, {divisor})" if op[0] == "u" else f"({dividend} {op} {divisor})"
            )
        elif kind < 0.85:
            made = choose.choice(
                (f"gcd({self.value(depth - 1)}, b)", f"isqrt({self.value(depth - 1)})", "c ** d")
            )
        else:
            op = choose.choice(("+", "-", "*", "^", "&"))
            made = f"({self.value(depth - 1)} {op} {self.value(depth - 1)})"
        self.values.append(made)
        return made

    def clash(self, depth: int) -> str:
        """A divisor that is 0 where an arm is taken and something else holds."""
        choose = self.choose
        first, second = self.atom(depth), self.atom(depth)
        both = choose.choice((f"({first} and {second})", f"({first} or {second})"))
        quotient = f"({choose.choice(NAMES)} / {choose.choice(('!', '', '!'))}{both})"
        arm = (
            f"({first} ? {choose.choice(NAMES)} % {choose.choice(NAMES)} : {self.value(depth - 2)})"
        )
        return choose.choice((f"({quotient} ^ {arm})", f"({arm} ^ {quotient})"))

    def condition(self, depth: int) -> str:
        choose = self.choose
        made = self.atom(depth)
        if choose.random() < 0.45:
            made = f"({made} {choose.choice(('and', 'and', 'or'))} {self.atom(depth)})"
        return f"!{made}" if choose.random() < 0.3 else made

    def atom(self, depth: int) -> str:
        """A comparison: mostly one that there was before."""
        choose = self.choose
        if len(self.conditions) < 2 or choose.random() < 0.2:
            op = choose.choice(("<", "<=", "==", "!=", ">", ">="))
            left = choose.choice(NAMES) if choose.random() < 0.7 else self.value(depth - 1)
            self.conditions.append(f"({left} {op} {choose.choice(('0', '1', '-1', 'a', 'b'))})")
        return choose.choice(self.conditions)


def check(seeds: range, rows: list[tuple[int, ...]]) -> None:
    for seed in seeds:
        programs = Programs(seed)
        source = " + ".join(programs.value(2) for _ in range(4))
        if len(source) > 3_000:
            continue
        orders = (ORDER, shuffled(seed, 5 + seed % 3))
        for mode in MODES:
            formula = Formula(source, list(NAMES), overflow=mode)
            expected = answers(formula, rows)
            for order in orders:
                found = differences(source, rows, expected, mode, FEATURES, order, list(NAMES))
                assert found == [], (seed, mode, order, source)


def test_programs_that_are_all_arms() -> None:
    rows = random.Random(1).sample(list(product(NUMBERS, repeat=len(NAMES))), 60)
    check(range(300), rows)

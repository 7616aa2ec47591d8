"""What scalar machine code looks like: short, in its frame, with the stack where it has to be.

Properties, most of them seen by an independent decoder, instead of listings to compare with.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import pytest
from corpus import CORPUS
from machine_harness import (
    BASELINE,
    FEATURES,
    MODES,
    NAMED,
    OPTIONAL,
    SHAKEN,
    Compiled,
    answers,
    differences,
    example,
    graph_of,
    line,
    needs_machine_code,
    shuffled,
)

from exprjit.formula import Formula
from exprjit.language.operators import MAX, MIN
from exprjit.x86 import kernels, select, vectorcall
from exprjit.x86.arms import Arms
from exprjit.x86.assembler import Label, encode
from exprjit.x86.regalloc import ORDER
from exprjit.x86.registers import RAX, RSP, Mem

# None of this depends on the version of Python.
pytestmark = [needs_machine_code, pytest.mark.slow]

# What the code looks like. -------------------------------------------------------------------


def keys(source: str, mode: str = "wrap", features: frozenset[str] = FEATURES) -> list[str]:
    code = kernels.checked_function(graph_of(Formula(source, overflow=mode), features), features)
    return [instruction.key for _, _, instruction, _, _ in code.encoded.lines]


@pytest.mark.parametrize(
    "source", ["x // 8", "x %% 8", "udiv(x, 16)", "umod(x, 4096)", "x // 1", "x / 1", "x / -1"]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_power_of_two_is_no_division(source: str, mode: str) -> None:
    assert not {"idiv_r", "div_r"} & set(keys(source, mode))


@pytest.mark.parametrize(
    "source", ["x / y + x % y", "x % y + x / y", "x // y + x %% y", "udiv(x, y) * umod(x, y)"]
)
def test_quotient_and_remainder_are_one_division(source: str) -> None:
    assert len([key for key in keys(source) if key in ("idiv_r", "div_r")]) == 1


@pytest.mark.parametrize(
    "source",
    ["x / 7", "x % -10", "x // 3600", "x %% -7", "udiv(x, 10)", "umod(x, 641)", "x %% 6 == 0"],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_constant_divides_by_multiplication(source: str, mode: str) -> None:
    found = set(keys(source, mode))
    assert not {"idiv_r", "div_r"} & found
    assert {"imul_r", "mul_r", "imul_rr"} & found


@pytest.mark.parametrize(
    "source", ["mulhi(x, y) ^ x * y", "x * y ^ mulhi(x, y)", "x * y - umulhi(x, y)"]
)
def test_both_halves_are_one_product(source: str) -> None:
    products = [key for key in keys(source) if key.startswith(("imul", "mul"))]
    assert len(products) == 1
    # What checks for overflow is a product of its own.
    assert len([key for key in keys(source, "raise") if key.startswith(("imul", "mul"))]) == 2


def test_conditions_are_bytes_until_the_end() -> None:
    found = keys("x > 5 and y < 100 and (z & 3) == 0 or x == y and w != 7")
    assert (found.count("setcc_r"), found.count("setccz_r")) == (3, 2)
    assert "movzx8_rr" not in found
    assert "movzx8_rr" not in keys("x < y and y < z ? x : z")


@pytest.mark.parametrize(
    ("source", "key"),
    [("x & -x", "blsi_rr"), ("x & x - 1", "blsr_rr"), ("x - 1 ^ x", "blsmsk_rr")],
)
def test_single_bits_have_instructions(source: str, key: str) -> None:
    assert key in keys(source, features=frozenset(("bmi1",)))
    assert key not in keys(source, features=frozenset())


#: Instructions of the whole checked function, with its return; no more than today.
MOST = {
    "7": 5,
    "x": 4,
    "x + 4": 5,
    "x + y": 5,
    "x * 9": 5,
    "x * 10": 6,
    "x * 22": 5,
    "x + y * 8": 5,
    "x * 2 + 3": 5,
    "x & 255": 5,
    "~x & y": 5,
    "x << y": 5,
    "x < y": 7,
    "x < y ? x : y": 6,
    "abs(x)": 8,
    "x > 0 and y > 0": 10,
    "((5 * x + 3) * x - 7) * x + 11": 10,
    "x // 8": 5,
    "x / y": 17,
    "popcount(x ^ y)": 6,
    "rotl(x, 13) * 5": 6,
    "clamp(x, 0, 255)": 10,
    "0 <= x < 10": 7,
    "x ? y : z": 6,
    "mulhi(x, y)": 7,
}


@pytest.mark.parametrize("source", MOST)
@pytest.mark.skipif(not {*OPTIONAL} <= FEATURES, reason="counts are for a newer processor")
def test_code_is_short(source: str) -> None:
    listing = kernels.checked_function(graph_of(Formula(source)), FEATURES).encoded
    assert len(listing.lines) <= MOST[source], str(listing)


def test_conditions_are_fused_with_what_uses_them() -> None:
    assert "setcc_r" not in keys("x < y ? z : w")
    assert "setcc_r" not in keys("x / (y < 3 ? 1 : z)")
    for source in ("x & y ? z : w", "(x & y) == 0 ? z : w", "z / ((x & y) != 0 ? x : w)"):
        assert "and_rr" not in keys(source)


def test_overflow_is_a_branch_behind_the_arithmetic() -> None:
    found = keys("x * y + z", "raise")
    assert found.count("jcc_j") == 2
    assert "setcc_r" not in found
    assert found.count("imul_rr") == 1


def test_a_formula_without_failures_has_no_branch() -> None:
    for source in ("x < y ? x + 3 : y * 5", "min(x, y, z)", "x and y or z", "x << y", "abs(x)"):
        assert not any("j" in key.split("_")[1:] for key in keys(source)), source


#: What is known of values shows in the instructions: those that have to be there, and beginnings of
#: others that must not.
KNOWN: dict[str, tuple[str, str]] = {
    "x % (y & 15 | 1)": ("cqo idiv_r", "cmp test jcc"),
    "x / (y & 7)": ("and32_ri jcc_j idiv_r", "cmp test"),
    "(x & 0xffff) / (y & 15 | 1)": ("div32_r", "idiv test"),
    "udiv(x, y & 15 | 1)": ("div_r", "test jcc"),
    "(x & 0xffff) % 10": ("imul_rri", "mul_r sar"),
    "(x >>> 1) / 10": ("mul_r", "imul_r sar"),
    "(x >>> 1) // 8": ("shr_ri", "sar"),
    "(x & 63) & 127": ("and32_ri", "and_ri"),
    "i16(x & 255)": ("movzx8_rr", "movsx"),
    "abs(x & 7)": ("and32_ri", "neg cmov"),
    "min(x & 7, 9)": ("and32_ri", "cmp cmov"),
    "(x & 0xff00ff) | (y & 0xff00)": ("and32_ri", "or_rr or32 mov_ri"),
    "(x & 12) == 4": ("and32_ri cmp32_ri", "cmp_ri"),
    "(x & 1) + (y & 1) * 8": ("lea32_rm", "shl"),
    "x * 40": ("lea_rm shl_ri", "imul"),
    "x + y + 3": ("lea_rm", "add"),
    "x == 1 or x == 3 or x == 9": ("shrx_rrr", "or"),
    "(x & 3) == 1 and (x & 12) == 8": ("cmp32_ri", "movzx"),
    "x == 0 and y == 0": ("or_rr", "test"),
    "x / (x - y ? 2 : y)": ("sub_rr cmovcc_rr", "cmp_rr"),
    "(x ^ y) + 1 > (x ^ y) ? x ^ y : (x ^ y) < 0": ("xor_rr", "nothing"),
    "y ? x / (y ^ z) : y ^ z": ("xor_rr", "nothing"),
    "x & (1 << (y & 63)) - 1": ("bzhi_rrr", "shl"),
    "x & ~(-1 << (y & 31))": ("bzhi_rrr", "shl not"),
    "rotl(x, 7) ^ x": ("rorx_rri", "rol"),
    "x << 48 >> 48": ("movsx16_rr", "shl sar"),
    "x >>> 12 << 12": ("and_ri", "shl shr"),
    "x - (x // 100) * 100": ("mul_r", "idiv"),
}


@pytest.mark.parametrize("source", KNOWN)
@pytest.mark.skipif(not {*OPTIONAL} <= FEATURES, reason="the instructions of a newer processor")
def test_what_is_known_of_values_shows(source: str) -> None:
    wanted, unwanted = KNOWN[source]
    found = keys(source)
    for key in wanted.split():
        assert key in found, found
    for start in unwanted.split():
        assert not any(key.startswith(start) for key in found), found


@pytest.mark.parametrize(
    ("source", "tests"),
    [("(x + y) < 0 ? x : y", 0), ("x ^ y ? x : z", 0), ("1 / (x & y)", 0), ("1 / (x * y)", 1)],
)
def test_flags_are_not_computed_again(source: str, tests: int) -> None:
    found = keys(f"({source}) + (x ^ y) + (x & y) + (x + y)")
    assert len([key for key in found if key in ("test_rr", "cmp_rr")]) == tests


def test_under_raise_what_cannot_overflow_is_not_checked() -> None:
    assert "jcc_j" not in keys("(x & 0xffff) * (y & 0xffff) + (x & 255) - (y & 3)", "raise")
    assert keys("(x & 0xffff) * y", "raise").count("jcc_j") == 1


def test_parameters_on_the_stack_are_memory_operands() -> None:
    names = "abcdefgh"
    found = keys("+".join(names))
    assert found.count("add_rm") >= 2
    assert found.count("mov_rm") <= 1


# What is branched around. ---------------------------------------------------------------------

#: Formulas with arms that are dear, and how many branches around there are.
DEAR_ARMS = {
    "x > 0 ? gcd(x, y) : y": 1,
    "x > 0 ? y : gcd(x, y)": 1,
    "x > 0 ? gcd(x, y) : x ** y": 2,
    "x > 3 and isqrt(y) > 2": 1,
    "x > 3 or y % z == 2": 1,
    "y ? x / y : 0": 1,
    "x > 0 ? (y > 0 ? x / y : x % z) : x / z": 4,
    "x ? x and x / x : 0": 2,
    "x > 3 ? x * y + 1 : 5": 0,
    "x > 0 ? x / 10 : x % 7": 0,
    "(x > 0 ? gcd(x, y) : y) + gcd(x, y)": 0,
}


def forks(source: str, mode: str = "wrap") -> int:
    block = kernels.checked_function(graph_of(Formula(source, overflow=mode)), FEATURES).block
    return [virtual.instruction.key for virtual in block.code].count("fork")


@pytest.mark.parametrize("source", DEAR_ARMS)
def test_dear_arms_are_branched_around(source: str) -> None:
    assert forks(source) == DEAR_ARMS[source]


def test_what_is_not_0_where_an_arm_is_taken_divides_unchecked() -> None:
    assert keys("y ? udiv(x, y) : 0").count("test_rr") == 1
    found = keys("x > 3 ? udiv(x, y) : 0")
    assert (found.count("test_rr"), found.count("jcc_j")) == (1, 2)


#: Divisions in arms, and the instructions of the checks that are left: of zero and of -1.
EXCLUDED = {
    "y != 0 and x % y == 2": ("cmp", 2),
    "y > 0 ? x / y : 0": ("cmp", 0),
    "y < -1 ? x / y : 0": ("cmp", 1),
    "y == 0 or x % y == 2": ("cmp", 2),
    "y >= 0 ? x / y : 0": ("cmp", 0),
    "z > 0 and y > 5 ? x / y : 0": ("cmp", 1),
    "y == 0 or z == 0 ? 3 : x % y": ("cmp", 1),
}


@pytest.mark.parametrize("source", EXCLUDED)
@pytest.mark.parametrize("mode", MODES)
def test_what_a_divisor_is_not_in_an_arm_is_not_checked(source: str, mode: str) -> None:
    key, count = EXCLUDED[source]
    found = keys(source, mode)
    if mode == "wrap":
        assert len([name for name in found if name.startswith(key)]) == count, found
    formula = Formula(source, overflow=mode)
    rows = list(product((0, 1, -1, 2, 7, MIN, MAX), repeat=len(formula.params)))
    assert differences(source, rows, answers(formula, rows), mode) == []


def test_checks_wait_for_the_arm_that_they_are_about() -> None:
    """The overflow of what is in the arm is a branch behind it, not a condition before."""
    found = keys("x > 3 ? x * y + z * y - x * z : 5", "raise")
    assert "setcc_r" not in found
    assert found.count("imul_rr") == 3


def test_a_check_does_not_wait_behind_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bail before a call has to come before it: afterwards the call has happened."""
    graph = graph_of(Formula("x > 3 ? x / y : 0", ["x", "y"]))
    arms = Arms(graph, graph.live())
    monkeypatch.setattr(select.Selector, "effect_between", lambda *_: True)
    block = kernels.checked_function(graph, FEATURES).block
    order = [virtual.instruction.key for virtual in block.code]
    assert arms.possible
    assert order.index("jcc_j") < order.index("fork")


@pytest.mark.parametrize(
    "source",
    [
        "(x / !(x < y and y < 3)) ^ (x < y ? y / z : 0)",
        "(x / !(a < b and c < d)) ^ (a < b ? y / x : 0)",
        "udiv(x, !(a < b and c < d)) + (a < b ? gcd(x, c) : 0)",
        "(x / !(a < b and c < d)) ^ (a < b and isqrt(x) > 3)",
        "(a < b ? y / x : 0) + (x / !(a < b and c < d)) + (a < b ? x % d : 4)",
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_condition_that_looks_guarded_is_no_check_of_an_arm_alone(source: str, mode: str) -> None:
    """The divisor is 0 where two comparisons hold: that is a conjunction, but has no guard."""
    formula = Formula(source, overflow=mode)
    rows = list(product((0, 1, -1), repeat=len(formula.params)))[:500]
    assert differences(source, rows, answers(formula, rows), mode) == []


def test_arms_do_not_hold_what_others_check() -> None:
    source = " ^ ".join(f"(c > 0 ? (x + {n}) / (y + {n}) : 0)" for n in range(200))
    code = kernels.checked_function(graph_of(Formula(source, overflow="raise")), FEATURES).encoded
    assert Walk(code.code).frame < 200


def test_many_nested_arms_take_time_in_proportion() -> None:
    def steps(count: int) -> int:
        source = "".join(f"x == {n * 70} ? y ** {n + 5} : " for n in range(count)) + "z / y"
        graph = graph_of(Formula(source))
        calls = 0

        def count_calls(frame: Any, event: str, arg: Any) -> None:
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        sys.setprofile(count_calls)
        try:
            kernels.checked_function(graph, FEATURES)
        finally:
            sys.setprofile(before)
        return calls

    assert steps(800) < 2.6 * steps(400)


# Decoding. -----------------------------------------------------------------------------------


class Walk:
    """All paths through a function's code, by an independent decoder.

    Checks that the stack pointer is where it has to be, and what memory is touched.
    """

    def __init__(self, code: bytes, entry: int = 0) -> None:
        iced = pytest.importorskip("iced_x86")
        self.iced = iced
        decoder = iced.Decoder(64, code)
        self.at = {instruction.ip: instruction for instruction in decoder}
        self.facts = iced.InstructionInfoFactory()
        self.depths: dict[int, int] = {}
        self.calls: list[int] = []
        self.frame = 0
        #: (instruction, base, index, displacement less the depth, size, whether it is written)
        self.accesses: list[tuple[str, int, int, int, int, bool]] = []
        work = [(entry, 0)]
        while work:
            work += self.step(*work.pop())

    def step(self, ip: int, depth: int) -> list[tuple[int, int]]:
        """Go through the instruction at `ip` with `depth` bytes on the stack; what comes next."""
        if ip in self.depths:
            assert self.depths[ip] == depth, f"two depths at {ip:#x}"
            return []
        self.depths[ip] = depth
        self.frame = max(self.frame, depth)
        iced, instruction = self.iced, self.at[ip]
        info = self.facts.info(instruction)
        assert instruction.code != iced.Code.INVALID
        self.note(instruction, info, depth)
        flow = instruction.flow_control
        if flow == iced.FlowControl.RETURN:
            assert depth == 0
            return []
        if flow == iced.FlowControl.INDIRECT_BRANCH:
            assert depth == 0, "a tail call out of a frame"
            return []
        if flow == iced.FlowControl.UNCONDITIONAL_BRANCH:
            return [(instruction.near_branch_target, depth)]
        if flow == iced.FlowControl.CONDITIONAL_BRANCH:
            return [(instruction.next_ip, depth), (instruction.near_branch_target, depth)]
        if flow == iced.FlowControl.INDIRECT_CALL:
            self.calls.append(depth)
            return [(instruction.next_ip, depth)]
        assert flow == iced.FlowControl.NEXT, instruction
        return [(instruction.next_ip, self.after(instruction, info, depth))]

    def after(self, instruction: Any, info: Any, depth: int) -> int:
        """The depth behind an instruction that is no branch."""
        iced = self.iced
        if instruction.mnemonic in (iced.Mnemonic.PUSH, iced.Mnemonic.POP):
            return depth - instruction.stack_pointer_increment
        writes = (iced.OpAccess.WRITE, iced.OpAccess.READ_WRITE)
        moved = any(
            used.register in (iced.Register.RSP, iced.Register.ESP) and used.access in writes
            for used in info.used_registers()
        )
        if not moved:
            return depth
        assert instruction.mnemonic in (iced.Mnemonic.ADD, iced.Mnemonic.SUB)
        size = instruction.immediate(1)
        return depth + (size if instruction.mnemonic == iced.Mnemonic.SUB else -size)

    def note(self, instruction: Any, info: Any, depth: int) -> None:
        iced = self.iced
        if instruction.is_stack_instruction:
            return
        for used in info.used_memory():
            write = used.access not in (iced.OpAccess.READ, iced.OpAccess.NO_MEM_ACCESS)
            if used.access == iced.OpAccess.NO_MEM_ACCESS:
                continue
            displacement = used.displacement
            displacement -= (displacement >> 63) << 64
            if used.base == iced.Register.RSP:
                displacement -= depth
            size = iced.MemorySizeExt.size(used.memory_size)
            self.accesses.append(
                (str(instruction), used.base, used.index, displacement, size, write)
            )

    def stores(self) -> list[tuple[str, int, int, int, int, bool]]:
        return [access for access in self.accesses if access[-1]]


#: Below the stack pointer, System V gives 128 bytes to code that calls nobody.
RED_ZONE = 128


def check_memory(walk: Walk, arguments: int) -> int:
    """Stores go to the frame, the red zone or the result; loads come from the frame.

    Gives how often the result is stored.
    """
    rsp = walk.iced.Register.RSP
    results = 0
    for text, base, index, displacement, size, write in walk.accesses:
        assert index == walk.iced.Register.NONE, text
        if base != rsp:
            results += 1
            assert (write, displacement, size) == (True, 0, 8), text
        elif write:
            assert -walk.frame - RED_ZONE <= displacement <= -size, text
        else:
            # Arguments lie beyond the return address.
            in_frame = -walk.frame - RED_ZONE <= displacement <= -size
            assert in_frame or 8 <= displacement <= 8 * arguments, text
    return results


@pytest.mark.parametrize("mode", MODES)
def test_code_writes_to_its_frame_and_the_result_alone(mode: str) -> None:
    for source in [*map(example, NAMED), *CORPUS]:
        formula = Formula(source, overflow=mode)
        for features, order in ((FEATURES, ORDER), (BASELINE, shuffled(len(source), 6))):
            graph = graph_of(formula, features)
            code = kernels.checked_function(graph, features, order)
            assert code.encoded.code.startswith(b"\xf3\x0f\x1e\xfa")
            walk = Walk(code.encoded.code)
            always_fails = any(bail.condition.op == "const" for bail in graph.bails)
            assert check_memory(walk, max(len(formula.params) - 5, 0)) == (not always_fails)
            assert walk.calls == []
            assert walk.frame <= kernels.MAX_FRAME


def test_the_walk_notices_a_store_outside_the_frame() -> None:
    pytest.importorskip("iced_x86")
    store = line("mov_mr", Mem(RSP, disp=16), RAX)
    code = encode([line("sub_ri", RSP, 8), store, line("add_ri", RSP, 8), line("ret")]).code
    with pytest.raises(AssertionError):
        check_memory(Walk(code), 0)
    with pytest.raises(AssertionError):
        Walk(encode([line("push_r", RAX), line("ret")]).code)


TARGETS = vectorcall.CallTargets(8, *[0x7F00_0000_0000 + 0x1000 * n for n in range(8)])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 6, 7, 20])
def test_the_stack_is_aligned_where_python_is_called(count: int) -> None:
    names = [f"p{n}" for n in range(count)]
    sources = [" + ".join(names) or "5", " / ".join([*names, "3"])]
    # Many values at once, so that registers are saved and spilled.
    values = "".join(f"t{n} = ({sources[0]}) * {n + 3} ^ {n}; " for n in range(30))
    sources.append(
        values + " + ".join(f"t{n}" for n in range(30)) + "-" + "/".join(f"t{n}" for n in range(30))
    )
    for source in sources:
        formula = Formula(source, names)
        for order in (ORDER, SHAKEN["callee-saved first"], shuffled(count, 5)):
            graph = graph_of(formula)
            code = vectorcall.python_call(graph, FEATURES, TARGETS, order)
            assert code.encoded.code[code.entry :].startswith(b"\xf3\x0f\x1e\xfa")
            walk = Walk(code.encoded.code, code.entry)
            # Each argument is unboxed by a call, and -1 looked at by another.
            assert len(walk.calls) == 2 * count + bool(graph.bails)
            # 8 bytes are the return address.
            assert all((depth + 8) % 16 == 0 for depth in walk.calls)
            for text, base, _, displacement, size, _ in walk.stores():
                assert base == walk.iced.Register.RSP
                if "mxcsr" not in text:
                    assert -walk.frame <= displacement <= -size, text


# Size. ---------------------------------------------------------------------------------------


def alive(count: int) -> str:
    """A formula with as many values alive at once: each is used early and late."""
    made = "".join(f"t{n} = (x ^ {n}) * y; " for n in range(count))
    first = " + ".join(f"(t{n} - z)" for n in range(count))
    return f"{made}s = {first}; s ^ " + " ^ ".join(f"(t{n} + s)" for n in range(count))


def test_thousands_of_values_at_once() -> None:
    compiled = Compiled(alive(4_000))
    for row in ((1, 2, 3), (-5, MAX, MIN)):
        assert compiled(*row) == compiled.formula.interpret(*row)


def test_a_frame_may_not_be_too_large() -> None:
    formula = Formula(alive(10_000))
    with pytest.raises(kernels.FrameTooLarge, match="bytes of stack"):
        kernels.checked_function(graph_of(formula), FEATURES)
    with pytest.raises(kernels.FrameTooLarge, match="bytes of stack"):
        vectorcall.python_call(graph_of(formula), FEATURES, TARGETS)


def test_a_hundred_thousand_operators() -> None:
    source = "x" + " * x + y ^ z" * 33_334
    compiled = Compiled(source)
    assert compiled(3, 5, 7) == compiled.formula.interpret(3, 5, 7)


# Source positions. ---------------------------------------------------------------------------


def test_code_remembers_the_text_it_came_from() -> None:
    source = "(x ^ 5) / y + rotl(x, 3)"
    code = kernels.checked_function(graph_of(Formula(source)), FEATURES)
    spans = {}
    for _, _, instruction, _, span in code.encoded.lines:
        if span is not None:
            spans.setdefault(instruction.key, source[slice(*span)])
    assert spans["idiv_r"] == "(x ^ 5) / y"
    assert spans["jcc_j"] == "(x ^ 5) / y"
    assert spans["rol_ri"] == "rotl(x, 3)"
    assert spans["xor_ri"] == "(x ^ 5)"


def test_labels_are_placed_once() -> None:
    label = Label()
    assert encode([(label, (), None), line("ret")]).labels == {label: 0}

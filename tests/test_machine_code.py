"""Scalar machine code: it answers what the interpreter answers, and bails where that raises.

Every operator over edge values on every kind of processor, and a corpus of formulas with the
register allocator shaken.
"""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from corpus import CORPUS
from graph_evaluator import EDGES, interpreted
from machine_harness import (
    BASELINE,
    FEATURES,
    MODES,
    NAMED,
    PROCESSORS,
    SHAKEN,
    Compiled,
    Row,
    answers,
    differences,
    example,
    graph_of,
    line,
    needs_machine_code,
    prepared,
    rows_for,
    shuffled,
)

from exprjit.formula import Formula
from exprjit.ir.graph import Graph
from exprjit.language.operators import MAX, OPERATORS
from exprjit.runtime import memory
from exprjit.tools import generate, samples
from exprjit.x86 import kernels, scalar
from exprjit.x86.assembler import encode
from exprjit.x86.moves import parallel_moves
from exprjit.x86.regalloc import ORDER
from exprjit.x86.registers import CALLEE_SAVED, R8, R9, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Mem

pytestmark = needs_machine_code

# Every operator. -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMED)
def test_an_operator_on_every_processor(name: str, mode: str) -> None:
    source = example(name)
    formula = Formula(source, overflow=mode)
    count = len(formula.params)
    edges = EDGES if count < 3 else EDGES[::2]
    rows = list(itertools.product(edges, repeat=count))
    expected = answers(formula, rows)
    for processor, features in PROCESSORS.items():
        assert differences(source, rows, expected, mode, features) == [], processor


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in NAMED if OPERATORS[name].arity == 2])
def test_an_operator_with_a_constant(name: str, mode: str) -> None:
    """Immediates, shifts by constants, and what folds into other instructions."""
    for position in (0, 1):
        for constant in EDGES:
            operands = {"x": "x", "y": "x", ("x", "y")[position]: f"({constant})"}
            source = example(name).translate({ord(key): text for key, text in operands.items()})
            source = source if OPERATORS[name].fixity != "function" else (
                f"{name}({operands['x']}, {operands['y']})"
            )  # fmt: skip
            formula = Formula(source, ["x"], overflow=mode)
            compiled = Compiled(source, mode, params=["x"])
            for value in EDGES:
                assert compiled(value) == interpreted(formula, (value,)), (source, value)


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_only_instructions_that_the_processor_has(processor: str) -> None:
    features = PROCESSORS[processor] | {None, "sse", "sse2"}
    for source in [*map(example, NAMED), *CORPUS]:
        for mode in MODES:
            graph = graph_of(Formula(source, overflow=mode), PROCESSORS[processor])
            code = kernels.checked_function(graph, PROCESSORS[processor])
            assert {line[2].feature for line in code.encoded.lines} <= features, source


@pytest.mark.parametrize("operator", ["sub", "lt", "select", "shl", "div", "gcd"])
def test_the_harness_notices_a_broken_lowering(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(s: Any, node: Any, register: int) -> None:
        wrong = s.new()
        right(s, node, wrong)
        s.emit("add_ri", register, 1, tied=wrong)

    right = scalar.LOWERINGS[operator]
    source = example(operator)
    formula = Formula(source)
    rows = list(itertools.product(EDGES[:6], repeat=len(formula.params)))
    expected = answers(formula, rows)
    assert differences(source, rows, expected) == []
    monkeypatch.setitem(scalar.LOWERINGS, operator, broken)
    assert differences(source, rows, expected) != []


def test_the_harness_notices_a_missing_bail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "bail", lambda graph, condition: None)
    formula = Formula("x / y")
    assert differences("x / y", [(5, 0)], answers(formula, [(5, 0)])) == [((5, 0), None, 0)]


# A corpus. -----------------------------------------------------------------------------------


def check_order(order: Sequence[int], sources: Sequence[str] = CORPUS) -> None:
    for number, source in enumerate(sources):
        features = FEATURES if number % 3 else BASELINE
        for mode in MODES:
            rows, expected = prepared(source, mode)
            assert differences(source, rows, expected, mode, features, order) == [], source


def test_the_corpus_answers_and_fails() -> None:
    found = [answer for source in CORPUS for mode in MODES for answer in prepared(source, mode)[1]]
    assert 0.1 < found.count(None) / len(found) < 0.9


def test_the_corpus_in_the_usual_order() -> None:
    check_order(ORDER)


@pytest.mark.slow
@pytest.mark.parametrize("order", SHAKEN.values(), ids=SHAKEN)
def test_the_corpus_in_other_orders(order: tuple[int, ...]) -> None:
    assert sorted(order) == sorted(ORDER)
    check_order(order)


@pytest.mark.parametrize("seed", range(3))
def test_the_corpus_in_random_orders(seed: int) -> None:
    check_order(shuffled(seed))


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 6, 8])
def test_the_corpus_with_few_registers(count: int) -> None:
    """Most values have to be spilled."""
    check_order(shuffled(count, count))
    check_order(ORDER[-count:])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_the_corpus_shaken_at_length(seed: int) -> None:
    check_order(shuffled(seed, (len(ORDER), 5, 6, 7)[seed % 4]))


def check_generated(seeds: Iterable[int], size: int) -> None:
    for seed in seeds:
        below = samples.seeded(seed)
        source = generate.program(below, size)
        order = shuffled(seed, (len(ORDER), 5, 6, len(ORDER))[seed % 4])
        features = list(PROCESSORS.values())[seed % len(PROCESSORS)]
        for mode in MODES:
            formula = Formula(source, overflow=mode)
            rows = samples.rows(below, len(formula.params), 12)
            expected = answers(formula, rows)
            assert differences(source, rows, expected, mode, features, order) == [], (source, mode)


@pytest.mark.slow
def test_generated_programs() -> None:
    check_generated(range(400), 24)
    check_generated(range(400, 450), 120)


@pytest.mark.slow
def test_more_generated_programs() -> None:
    check_generated(range(20_000, 21_500), 60)


# What the caller keeps. ----------------------------------------------------------------------


def sentinel(register: int) -> int:
    return 0x5E17_1E10_0000_0000 + register


def calling_code() -> bytes:
    """``int call(void *code, long *result, const long *arguments, long *kept)``.

    Calls a checked function of five parameters with known values in the registers that belong
    to the caller, and stores what is in them afterwards; behind them whether rsp is as it was.
    """
    lines = [line("push_r", register) for register in CALLEE_SAVED]
    lines += [line("push_r", RCX), line("push_r", RSP), line("mov_rr", RAX, RDI)]
    lines += [line("mov_rr", RDI, RSI), line("mov_rr", R9, RDX)]
    for place, register in enumerate((RSI, RDX, RCX, R8, R9)):
        lines.append(line("mov_rm", register, Mem(R9, disp=8 * place)))
    lines += [line("mov_ri", register, sentinel(register)) for register in CALLEE_SAVED]
    lines += [line("sub_ri", RSP, 8), line("call_r", RAX), line("add_ri", RSP, 8)]
    # What was pushed last is the value that rsp had just before.
    lines += [line("mov_rm", RCX, Mem(RSP, disp=8)), line("pop_r", RDX)]
    for place, register in enumerate(CALLEE_SAVED):
        lines.append(line("mov_mr", Mem(RCX, disp=8 * place), register))
    lines += [line("sub_rr", RDX, RSP), line("mov_mr", Mem(RCX, disp=48), RDX)]
    lines += [line("pop_r", RCX)]
    lines += [line("pop_r", register) for register in reversed(CALLEE_SAVED)]
    return encode([*lines, line("ret")]).code


CALL_TYPE = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)
FIVE = ("a", "b", "c", "d", "e")


def kept_by(compiled: Compiled, arguments: Row) -> tuple[int | None, list[int]]:
    """The answer, and what is left in the registers that belong to the caller, and in rsp."""
    installed = memory.install(calling_code())
    result, kept = ctypes.c_int64(), (ctypes.c_int64 * 7)()
    given = (ctypes.c_int64 * 5)(*arguments)
    status = CALL_TYPE(installed.address)(
        compiled.installed.address,
        ctypes.addressof(result),
        ctypes.addressof(given),
        ctypes.addressof(kept),
    )
    return (None if status else result.value), list(kept)


@pytest.mark.parametrize(
    "source",
    [
        "a + b",
        "a / b + c % d - gcd(d, e)",
        "isqrt(a) + b ** c + pdep(d, e)",
        "".join(f"t{n} = (a ^ {n}) * (b + {n}); " for n in range(30))
        + " - ".join(f"t{n}" for n in range(30))
        + " ^ "
        + " / ".join(f"t{n}" for n in reversed(range(30))),
    ],
    ids=["sum", "divisions", "loops", "spills"],
)
def test_registers_of_the_caller_are_kept(source: str) -> None:
    formula = Formula(source, FIVE)
    orders = [ORDER, SHAKEN["callee-saved first"], CALLEE_SAVED, *map(shuffled, range(5))]
    for order in orders:
        for features in (FEATURES, BASELINE):
            compiled = Compiled(source, features=features, order=order, params=FIVE)
            for arguments in [(7, 2, 3, 4, 5), (7, 0, -1, 0, 1), (-1, -1, -1, -1, -1)]:
                answer, kept = kept_by(compiled, arguments)
                assert answer == interpreted(formula, arguments)
                assert kept == [*map(sentinel, CALLEE_SAVED), 0]


def test_the_caller_check_notices_a_lost_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "frame", lambda size, saved: ([], []))
    compiled = Compiled("a * 7 + b * 11", order=(RBX, *ORDER), params=FIVE)
    _, kept = kept_by(compiled, (1, 2, 3, 4, 5))
    assert kept[0] != sentinel(RBX)
    assert kept[1:] == [*map(sentinel, CALLEE_SAVED[1:]), 0]


def rounding_code() -> bytes:
    """``int call(code, result, argument, unsigned *mxcsr)`` that runs with that MXCSR."""
    before, after = Mem(RSP, disp=0), Mem(RBX)
    return encode(
        [
            *(line("push_r", RBX), line("sub_ri", RSP, 16), line("stmxcsr_m", before)),
            *(line("mov_rr", RBX, RCX), line("ldmxcsr_m", after), line("mov_rr", RAX, RDI)),
            *(line("mov_rr", RDI, RSI), line("mov_rr", RSI, RDX), line("call_r", RAX)),
            *(line("stmxcsr_m", after), line("ldmxcsr_m", before), line("add_ri", RSP, 16)),
            *(line("pop_r", RBX), line("ret")),
        ]
    ).code


@pytest.mark.parametrize("mxcsr", [0x1F80, 0x3F80, 0x5F80, 0x7F80, 0x9FC0, 0x0000])
def test_roots_are_right_in_any_rounding_mode(mxcsr: int) -> None:
    """Rounded down, up, to zero, with denormals as zero, and with every exception trapping."""
    compiled = Compiled("isqrt(x)")
    installed = memory.install(rounding_code())
    call = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
    )(installed.address)
    result, state = ctypes.c_int64(), ctypes.c_uint32()
    for root in (0, 1, 2, 3, 46340, 94906265, 94906266, 3037000498, 3037000499):
        for number in {root**2, root**2 + 1, max(root**2 - 1, 0), min(root**2 + 2 * root, MAX)}:
            state.value = mxcsr
            address = compiled.installed.address
            assert call(address, ctypes.addressof(result), number, ctypes.addressof(state)) == 0
            assert result.value == compiled.formula.interpret(number)
            assert state.value == mxcsr


# Parallel moves. -----------------------------------------------------------------------------


def check_moves(moves: Sequence[tuple[int, int]]) -> int:
    """Check the moves by doing them; how many instructions they are."""
    registers = {register: f"old {register}" for register in range(16)}
    expected = registers | {to: registers[source] for to, source in moves}
    emitted = parallel_moves(moves)
    for instruction, to, source in emitted:
        assert to != source
        if instruction.key == "xchg_rr":
            registers[to], registers[source] = registers[source], registers[to]
        else:
            assert instruction.key == "mov_rr"
            registers[to] = registers[source]
    changed = {to for to, _ in moves}
    for register in range(16):
        if register in changed or expected[register] == f"old {register}":
            assert registers[register] == expected[register], moves
    return len(emitted)


def test_parallel_moves_are_as_if_at_once() -> None:
    choose = random.Random(7)
    for _ in range(3_000):
        count = choose.randrange(9)
        targets = choose.sample(range(16), count)
        # A permutation of some, or anything: with chains, fans and cycles.
        sources = choose.sample(targets, count) if choose.random() < 0.5 else (
            choose.choices(range(16), k=count)
        )  # fmt: skip
        moves = list(zip(targets, sources, strict=True))
        assert check_moves(moves) <= sum(to != source for to, source in moves)


def test_parallel_moves_of_all_small_maps() -> None:
    for count in range(5):
        for sources in itertools.product(range(4), repeat=count):
            check_moves(list(zip(range(count), sources, strict=True)))


# Plain functions. ----------------------------------------------------------------------------


def plain(source: str, order: Sequence[int] = ORDER) -> Callable[..., int]:
    """A formula that cannot fail as a C function of its parameters alone."""
    formula = Formula(source)
    code = kernels.function(graph_of(formula), FEATURES, order)
    installed = memory.install(code.encoded.code)
    longs = [ctypes.c_int64] * len(formula.params)
    made = ctypes.CFUNCTYPE(ctypes.c_int64, *longs)(installed.address)
    made.keep = installed
    return made


@pytest.mark.parametrize("count", range(1, 21))
def test_plain_functions_of_many_parameters(count: int) -> None:
    terms = [f"p{n} * {2 * n + 3}" for n in range(count)]
    sources = [
        " + ".join(terms),
        " ^ ".join(f"(p{n} << {n})" for n in reversed(range(count))),
        f"p{count - 1} - p0",
    ]
    for source in sources:
        formula = Formula(source)
        for order in (ORDER, ORDER[::-1], shuffled(count, 5)):
            function = plain(source, order)
            for row in rows_for(formula, 4):
                assert function(*row) == formula.interpret(*row)


def test_plain_functions_of_the_corpus() -> None:
    total = [source for source in CORPUS if not graph_of(Formula(source)).bails]
    assert len(total) > 40
    for source in total:
        for order in (ORDER, SHAKEN["callee-saved first"]):
            function = plain(source, order)
            rows, expected = prepared(source, "wrap")
            assert [function(*row) for row in rows] == expected, source


def test_a_formula_that_can_fail_is_no_plain_function() -> None:
    with pytest.raises(AssertionError):
        kernels.function(graph_of(Formula("x / y")), FEATURES)

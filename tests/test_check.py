"""The cross-checker: what it generates, that it finds what is wrong and makes it small."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import exprjit
from exprjit.language import ast
from exprjit.language.operators import INFIX, MAX, MIN, OPERATORS, OVERFLOW_MODES, PREFIX, Operator
from exprjit.tools import c_rows, c_source, campaign, check, cli, gcc, generate, samples, shrink

ROOT = Path(__file__).parent.parent

needs_gcc = pytest.mark.skipif(gcc.why_not() is not None, reason=str(gcc.why_not()))

WRITABLE = [row for row in OPERATORS.values() if row.fixity != "internal"]


def interpreted(source: str, overflow: str = "wrap") -> exprjit.Function:
    return exprjit.compile(source, backend="interpreter", overflow=overflow)


def programs(seed: int, count: int, size: int = 24) -> list[str]:
    return [check.generated(seed, index, size) for index in range(count)]


# The generator. ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_programs() -> None:
    assert programs(1, 200) == programs(1, 200)
    assert programs(1, 200) != programs(2, 200)


def test_the_programs_of_a_seed_are_the_same_everywhere() -> None:
    """On every Python version: a report names its seed."""
    below = samples.seeded("1:0")
    assert [below(1000) for _ in range(5)] == [725, 419, 370, 526, 823]


@pytest.fixture(scope="module")
def many() -> list[exprjit.Function]:
    """5,000 programs; compiling shows that they are valid."""
    return [interpreted(source) for source in programs(20, 5_000)]


def nodes(program: ast.Program) -> list[ast.Node]:
    work = [s.value if isinstance(s, ast.Binding) else s.body for s in program.statements]
    work.append(program.result)
    found = []
    while work:
        node = work.pop()
        found.append(node)
        work.extend(node.parts)
    return found


def test_every_row_and_form_occurs(many: list[exprjit.Function]) -> None:
    seen: Counter[str] = Counter()
    for function in many:
        for statement in function.ast.statements:
            seen[type(statement).__name__] += 1
        for node in nodes(function.ast):
            seen[type(node).__name__] += 1
            if isinstance(node, ast.Apply | ast.Logical):
                seen[node.operator.name] += 1
            elif isinstance(node, ast.Chain):
                seen.update(row.name + " in a chain" for row in node.operators)
            elif isinstance(node, ast.Conditional):
                seen["select"] += 1
    wanted = [row.name for row in WRITABLE]
    wanted += [f"{row.name} in a chain" for row in INFIX.values() if row.precedence == 5]
    wanted += "Binding Definition Call Chain Conditional Logical Literal Name".split()
    assert [name for name in wanted if seen[name] < 20] == []


def test_every_spelling_and_literal_occurs(many: list[exprjit.Function]) -> None:
    text = "\n".join(function.source for function in many)
    for token in (*INFIX, *PREFIX, "?", "if"):
        assert token in text
    for pattern in (
        "0x",
        "0X",
        "0b",
        "0B",
        "0o",
        "0O",
        r"\d_\d",
        r"'.'",
        r"'\\x",
        "#",
        r"\bmax\b[^(]",
    ):
        assert re.search(pattern, text), pattern
    assert str(MIN) in text
    assert str(MAX) in text
    counts = Counter(len(function.params) for function in many)
    assert {0, 1, 2, 3, 4, 5} <= set(counts)


def test_most_programs_give_values(many: list[exprjit.Function]) -> None:
    """A program that always fails says little about values."""
    below = samples.seeded(1)
    outcomes: Counter[bool] = Counter()
    for function in many[:500]:
        runner = check.row_by_row(exprjit.compile(function.source, overflow="raise"))
        rows = samples.rows(below, len(function.params), 4)
        outcomes[any(isinstance(answer, int) for answer in runner(rows))] += 1
    assert outcomes[True] > 10 * outcomes[False]


def test_programs_have_about_the_size_that_is_asked_for() -> None:
    small, large = programs(1, 100, size=4), programs(1, 100, size=200)
    assert sum(map(len, small)) / 100 < 40
    assert 200 < sum(map(len, large)) / 100 < 2_000
    for source in large:
        interpreted(source)


def test_edge_arguments_are_all_tried_where_there_are_few() -> None:
    assert samples.rows(samples.seeded(1), 0, 9) == [()]
    rows = samples.rows(samples.seeded(1), 2, 5_000)
    assert len(rows) == 5_000
    assert set(itertools.product(samples.EDGES, repeat=2)) <= set(rows)
    for row in samples.rows(samples.seeded(1), 7, 500, hints=[MAX, 10**18]):
        assert len(row) == 7
        assert all(MIN <= value <= MAX for value in row)


@pytest.mark.parametrize("value", [*samples.EDGES, 39, 92, 0xE9, 0x4E2D, 10**15])
def test_a_literal_is_what_it_says(value: int) -> None:
    for seed in range(60):
        text = samples.literal(samples.seeded(seed), value)
        assert exprjit.evaluate(text) == value, text


def test_the_strategy_makes_valid_programs_and_shrinks_them() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    settings = hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True)

    @settings
    @hypothesis.given(generate.strategy(12))
    def valid(source: str) -> None:
        interpreted(source)

    valid()
    found = hypothesis.find(generate.strategy(12), lambda s: s.count("x") > 2, settings=settings)
    assert len(found) <= 20, found


# Finding and shrinking. -------------------------------------------------------------------------


class Wrong:
    """An engine that takes one operator for another, as a compiler with a wrong row would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
        self.right, self.wrong = OPERATORS[right], OPERATORS[wrong]
        self.patch = monkeypatch

    def build(self, source: str, overflow: str) -> Callable[..., int]:
        function = interpreted(source, overflow)

        def call(*arguments: int) -> int:
            with self.patch.context() as patch:
                patch.setattr(self.right, "meaning", self.wrong.meaning)
                return function(*arguments)

        return call


@pytest.mark.parametrize(
    ("right", "wrong", "longest"),
    [("sar", "shr", 20), ("floormod", "rem", 20), ("avg", "add", 20), ("ult", "lt", 20)],
)
def test_a_wrong_engine_is_found_and_the_example_is_tiny(
    monkeypatch: pytest.MonkeyPatch, right: str, wrong: str, longest: int
) -> None:
    engine = check.Engine(check.compiled_by(Wrong(monkeypatch, right, wrong).build), lambda: None)
    engines = {check.REFERENCE: check.ENGINES[check.REFERENCE], "wrong": engine}
    report = check.check_generated(5, range(5_000), engines=engines, modes=["wrap"])
    found = report.difference
    assert found is not None
    assert len(found.source) <= longest, found
    assert OPERATORS[right].tokens[0] in found.source
    assert len(found.arguments) <= 2
    assert all(abs(value) < 300 for value in found.arguments.values()), found
    assert found.answers.keys() == {check.REFERENCE, "wrong"}
    assert "a difference" in str(report)


def test_a_crash_of_a_compiler_is_a_difference() -> None:
    def build(source: str, overflow: str) -> Callable[..., int]:
        if "^" in source:
            raise AssertionError("no rule for this")
        return interpreted(source, overflow)

    engines = {
        check.REFERENCE: check.ENGINES[check.REFERENCE],
        "crashing": check.Engine(check.compiled_by(build), lambda: None),
    }
    report = check.check_generated(1, range(1_000), engines=engines)
    assert report.difference is not None
    assert len(report.difference.source) <= 9
    assert "AssertionError" in str(report.difference)
    assert "no rule for this" in str(report.difference)


@pytest.mark.parametrize(
    ("answer", "differs"),
    [(1, True), (True, True), (None, True), (2**64, True), (0, False)],
)
def test_what_counts_as_the_same_answer(answer: object, differs: bool) -> None:
    prepared = {
        check.REFERENCE: check.compiled_by(interpreted)(["x - x"])[0],
        "other": lambda mode: check.row_by_row(lambda x: answer),
    }
    _, found = check.compare("x - x", [(5,)], prepared, ["wrap"])
    assert (found is not None) == differs


def test_an_error_has_to_be_the_same_in_class_place_and_words() -> None:
    def failing(error: Exception) -> Callable[[int], int]:
        def call(x: int) -> int:
            raise error

        return call

    right = check.row_by_row(interpreted("1 / x"))([(0,)])
    source = "1 / x"
    message = right[0].message
    same = exprjit.ExprZeroDivisionError(message, source, 0, 5)
    others = [
        exprjit.ExprZeroDivisionError(message, source, 0, 4),
        exprjit.ExprZeroDivisionError("division", source, 0, 5),
        exprjit.ExprValueError(message, source, 0, 5),
        ZeroDivisionError(message),
    ]
    assert check.row_by_row(failing(same))([(0,)]) == right
    for other in others:
        assert check.row_by_row(failing(other))([(0,)]) != right


def shrunk_while(source: str, keeps: Callable[[shrink.Candidate], bool], **arguments: int) -> str:
    """What is left of a program that is made small as long as `keeps` holds."""

    def first(candidates: Sequence[shrink.Candidate]) -> int | None:
        return next((i for i, candidate in enumerate(candidates) if keeps(candidate)), None)

    left = shrink.shrink(shrink.Candidate(source, arguments), first, 10)
    interpreted(left.source)
    return " ".join([left.source, *(f"{name}={value}" for name, value in left.arguments.items())])


def test_shrinking_drops_and_inlines_statements() -> None:
    source = """d = x * 7; sq(v) = v * v; # a note
        unused = d + 1;
        twice(a, b) = sq(a) + sq(b * 0x10);
        twice(d, y) / (z ? 1000 : 3) > 5 ? x : twice(1, z)"""
    assert shrunk_while(source, lambda c: "/" in c.source, x=9, y=8, z=7) == "0 / 0"


def test_shrinking_inlines_what_is_called() -> None:
    source = """k = y + 1; inv(v) = k // v; inv2(a, b) = inv(a * b) + inv(b);
        e = inv2(x + y, y) - 1;
        x < y ? inv2(e, x) + min(inv(e), 5) : inv(x)"""

    def fails(candidate: shrink.Candidate) -> bool:
        try:
            interpreted(candidate.source)(**candidate.arguments)
        except ZeroDivisionError:
            return "x" in candidate.arguments
        return False

    assert fails(shrink.Candidate(source, {"y": 3, "x": 0}))
    left = shrunk_while(source, fails, y=3, x=0)
    assert left in ("0 // x x=0", "x // x x=0", "1 // x x=0", "x // 0 x=0")


def test_shrinking_finds_thresholds() -> None:
    arguments = {"x": 987_654_321_987_654_321, "y": -77}
    left = shrunk_while("x + y", lambda c: c.arguments.get("x", 0) > 123_456_789_012, **arguments)
    assert left == "x x=123456789013"


def test_shrinking_ends_in_time() -> None:
    import time

    started = time.monotonic()
    shrink.shrink(shrink.Candidate(check.generated(1, 7, 200), {}), lambda candidates: 0, 0.2)
    assert time.monotonic() - started < 2


def test_a_difference_is_printed_as_a_command_that_runs() -> None:
    answers = {"interpreter": 1, "jit": check.Failure("ExprValueError", 0, 3, "no")}
    for source in ("x > 'a'", "--x", "-x\n+1 # note"):
        found = check.Difference(source, {"x": -5}, "raise", answers)
        lines = str(found).split("\n    interpreter  1\n")
        assert lines[1] == "    jit          ExprValueError at 0..3: no"
        words = shlex.split(lines[0].replace("interpreter,jit", "interpreter"))
        assert words[0] == "exprjit"
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "1 program, 1 evaluations by interpreter: no difference\n"


# All engines, and gcc among them. ---------------------------------------------------------------


def test_engines_are_a_table() -> None:
    assert next(iter(check.choose())) == check.REFERENCE
    assert list(check.choose(["interpreter"])) == ["interpreter"]
    with pytest.raises(exprjit.ExprValueError, match="no engine is called"):
        check.choose(["abacus"])


def test_an_engine_that_is_missing_is_left_out_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = check.Engine(check.compiled_by(interpreted), lambda: "it is elsewhere")
    monkeypatch.setitem(check.ENGINES, "absent", missing)
    assert "absent" not in check.choose()
    with pytest.raises(exprjit.ExprValueError, match="it is elsewhere"):
        check.choose(["absent"])


def test_all_engines_agree_on_generated_programs() -> None:
    report = check.check_generated(100, range(300))
    assert report.difference is None, report.difference
    assert report.programs == 300
    assert report.evaluations > 300 * 2 * len(report.engines)


def applied(row: Operator) -> list[str]:
    """The row between parameters, in each of its spellings."""
    names = "xyz"[: row.arity]
    if row.fixity == "conditional":
        return ["x ? y : z", "y if x else z"]
    if row.fixity in ("infix", "lazy"):
        return [f"x {token} y" for token in row.tokens]
    if row.fixity == "prefix":
        return [f"{token} x" for token, (other, _) in PREFIX.items() if other is row]
    calls = [f"{row.name}({', '.join(names)})"]
    return [*calls, f"{row.name}(x, y, x, z)"] if row.variadic else calls


#: Order, laziness, scopes and faults, where C's own rules would answer otherwise.
CORPUS = """
(1/x) + isqrt(y)
isqrt(y) + (1/x)
x ? 1/x : isqrt(y)
y/x if x else -y
x != 0 and y/x > 2
x == 0 or y/x > 2
(x or y) + (x and y)
x < y < z
0 < x <= y/x != z
x < y/z < 1/x
x == y == z == 0
d = y/x; e = x/y; d + e
d = 1/x; 5
sq(v) = v*v; sq(sq(x)) - sq(y/x)
f(a, b) = a/b; g(x) = f(y, x) + f(x, y); g(z)
k() = x/y; k() + k()
f(v) = v ? 1/v : 0; x ? f(y) : f(z)
x << y >> z
x >>> y << z
x ** y ** 2
-x ** 2
2 ** -x
-9223372036854775808 / x
0x8000000000000000 // x %% y
not x == y
!x + ~y
- - x
min(x, y, z, x) - max(y, x)
a = x; f(v) = v + a; a2 = f(a); f(a2) * f(y)
(x & y) | (z ^ x)
1
x
u8(x) + i8(x) * u16(y) - i16(y) + u32(z) ^ i32(z)
clamp(x, y, z) + avg(x, y)
rotl(x, y) ^ rotr(x, y)
udiv(x, y) + umod(z, x) ? mulhi(x, y) : umulhi(y, z)
""".strip().splitlines()


ROWS = {f"{row.name}: {source}": (row, source) for row in WRITABLE for source in applied(row)}


@pytest.fixture(scope="module")
def prepared() -> dict[str, dict[str, check.Prepared]]:
    """All sources of the next two tests on all engines; for gcc they are one C file."""
    sources = [source for _, source in ROWS.values()] + CORPUS
    columns = {name: engine.prepare(sources) for name, engine in check.choose().items()}
    return {
        source: {name: column[index] for name, column in columns.items()}
        for index, source in enumerate(sources)
    }


@pytest.mark.parametrize("name", ROWS)
def test_every_row_on_every_engine_over_edges(
    name: str, prepared: dict[str, dict[str, check.Prepared]]
) -> None:
    source = ROWS[name][1]
    arity = len(interpreted(source).params)
    edges = samples.EDGES if arity < 3 else samples.EDGES[::5]
    tuples = list(itertools.product(edges, repeat=arity))
    _, difference = check.compare(source, tuples, prepared[source])
    assert difference is None, difference


@pytest.mark.parametrize("source", CORPUS)
def test_the_corpus_on_every_engine(
    source: str, prepared: dict[str, dict[str, check.Prepared]]
) -> None:
    tuples = samples.rows(samples.seeded(1), len(interpreted(source).params), 400)
    _, difference = check.compare(source, tuples, prepared[source])
    assert difference is None, difference


def test_c_has_every_strict_row() -> None:
    strict = {row.name for row in WRITABLE if row.fixity not in ("lazy", "conditional")}
    assert set(c_rows.ROWS) == strict


def test_c_has_every_fault_of_the_table() -> None:
    """Names and modes; when they happen is what gcc is asked."""
    for name, row in c_rows.ROWS.items():
        for mode in OVERFLOW_MODES:
            ours = [c.fault for c in row.checks if mode == "raise" or not c.raising]
            assert ours == [fault.name for fault in OPERATORS[name].faults[mode]], name


@pytest.mark.slow
def test_c_of_deep_programs() -> None:
    """The walk does not recurse; what no C compiler takes is left out by its size."""
    for source in ("-" * 20_000 + "x", "(" * 5_000 + "x" + ")" * 5_000, "x+" * 20_000 + "1"):
        text = c_source.c_function(interpreted(source).ast, "f").text
        assert text.startswith("int f(const long *arguments, int raising, long *out) {\n")
        assert text.endswith("    return 0;\n}\n")


@needs_gcc
def test_c_compiles_without_a_warning(tmp_path: Path) -> None:
    arities = {name: OPERATORS[name].arity for name in c_rows.ROWS}
    functions = [
        c_source.c_function(interpreted(source).ast, f"f{index}").text
        for index, source in enumerate(CORPUS)
    ]
    path = tmp_path / "corpus.c"
    path.write_text(c_source.prelude(arities) + "".join(functions))
    flags = ["-Wall", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-parentheses"]
    done = subprocess.run(
        ["gcc", "-fwrapv", "-c", *flags, path, "-o", tmp_path / "corpus.o"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_gcc
def test_gcc_leaves_out_what_is_too_large() -> None:
    small, large = interpreted("x").ast, interpreted("x+" * gcc.GREATEST + "1").ast
    runs = gcc.compile_all([small, large, small])
    assert runs[1] is None
    assert runs[0] is not None
    assert runs[0]((5,), "wrap") == 5


@needs_gcc
def test_gcc_finds_a_wrong_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPERATORS["avg"], "meaning", lambda w, a, b: (a + b) // 2 + (a & 1))
    report = check.check_generated(1, range(2_000), engines=check.choose(["gcc"]), batch=100)
    assert report.difference is not None
    assert len(report.difference.source) < 16
    assert "avg" in report.difference.source


# Workers. ---------------------------------------------------------------------------------------


def test_workers_share_the_programs() -> None:
    plan = campaign.Plan(seed=1, programs=45, jobs=2, engines=["interpreter"])
    report, deaths, interrupted = campaign.run(plan)
    alone = check.check_generated(1, range(45), engines=check.choose(["interpreter"]))
    assert report == alone
    assert (deaths, interrupted) == ((), False)


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "LOG_EVERY", 0.0)
    campaign.run(campaign.Plan(seed=1, programs=45, engines=["interpreter"]))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert re.fullmatch(r"\d+ programs, [\d,]+/s", lines[-1])


def test_a_run_that_is_told_to_end_says_how_far_it_came() -> None:
    command = "check --generate --count=1000000000 --engines=interpreter".split()
    parent = subprocess.Popen(
        [sys.executable, "-m", "exprjit", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # As a shell starts what runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    workers = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        while parent.poll() is None and not workers.read_text():
            time.sleep(0.01)
        parent.terminate()
        out, _ = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode == 130
    assert re.match(r"[\d,]+ programs, .* by interpreter: no difference; seed 1, ", out)


def killed(plan: campaign.Plan, first: int, written: Sequence[int], results: object) -> None:
    """A worker that dies in its third program."""
    written[:] = (2, 2, 64)  # type: ignore[index]
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(plan: campaign.Plan, first: int, written: Sequence[int], results: object) -> None:
    signal.pause()


def test_a_worker_that_is_killed_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "work", killed)
    outcome = campaign.run(campaign.Plan(seed=9, programs=45, engines=["interpreter"]))
    (death,) = outcome.deaths
    assert "killed by SIGKILL" in str(death)
    assert death.source == check.generated(9, 2)
    assert outcome.report.programs == 2


def test_a_worker_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "work", hanging)
    monkeypatch.setattr(campaign, "PATIENCE", 1.0)
    outcome = campaign.run(campaign.Plan(seed=9, programs=45, engines=["interpreter"]))
    (death,) = outcome.deaths
    assert "no progress for 1 seconds" in str(death)
    assert death.source == check.generated(9, 0)


def test_the_checker_is_part_of_the_package() -> None:
    from exprjit import check as door

    assert door.check("x + 4", count=20).difference is None
    assert door.generated(1, 2) == check.generated(1, 2)


@pytest.mark.parametrize("option", ["--seconds=nan", "--jobs=10000000", "--size=100000000"])
def test_options_that_would_never_end_are_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--generate", option]) == 2
    assert "is a number from 1 to" in capsys.readouterr().err

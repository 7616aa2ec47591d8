"""The command line: values, options, errors and their status, commands, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import exprjit
from exprjit.language.operators import OPERATORS
from exprjit.tools import cli, options

ROOT = Path(__file__).parent.parent


class Printed(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """``run(*argv, stdin=...)`` through `main`."""

    def run_(*argv: str, stdin: str = "") -> Printed:
        import io

        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = cli.main(argv)
        return Printed(status, *capsys.readouterr())

    return run_


def process(*argv: str, stdin: str | None = None, **settings: str) -> Printed:
    done = subprocess.run(
        [sys.executable, "-m", "exprjit", *argv],
        cwd=ROOT,
        env={**os.environ, **settings},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
    )
    return Printed(done.returncode, done.stdout, done.stderr)


# Values and answers. ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["x + 4", "x=2"], 6),
        (["x=2", "x + 4"], 6),
        (["2 ** 10"], 1024),
        (["x - y", "y=1", "x=2**10"], 1023),
        (["x", "x=0xff"], 255),
        (["x", "x=-5"], -5),
        (["x", "x='A'"], 65),
        (["x", "x=';'"], 59),
        (["x", " x = (1 + 2) * 3 "], 9),
        (["x", "x=0xffffffffffffffff"], -1),
        (["x", "x=-9223372036854775808"], -(2**63)),
        (["x == 3", "x=3"], 1),
        (["d = x * x; d + 1", "x=3"], 10),
        (["sq(v) = v * v; sq(x)", "x=3"], 9),
        (["x * x", "x=2**40", "--overflow", "wrap"], 0),
        (["x", "--backend=interpreter", "x=1"], 1),
        (["x - y", "--params=y,x,unused", "x=5", "y=3", "unused=0"], 2),
        # Formulas that begin with a minus sign.
        (["-x", "x=2"], -2),
        (["-x + 1", "x=2"], -1),
        (["-5"], -5),
        (["--x", "x=2"], 2),
        (["--x + 1", "x=2"], 3),
        (["--", "--xy", "xy=2"], 2),
        (["--overflow=raise", "--", "-h", "h=2"], -2),
        # Formulas that are called like a command.
        (["--", "check", "check=7"], 7),
        (["(check)", "check=7"], 7),
        (["check + 1", "check=7"], 8),
    ],
)
def test_the_value_is_printed(run, argv: Sequence[str], answer: int) -> None:
    assert run(*argv) == (0, f"{answer}\n", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["x + y", "x=1"], "no value for y: add y=..."),
        (["x * y + z", "y=1"], "no value for x, z: add x=... z=..."),
        (["price + 1", "prize=1"], "'prize' is not a parameter of the formula (did you mean price"),
        (["1", "x=1"], "it has none"),
        (["x", "x=1", "x=2"], "'x' is given twice: x=1 and x=2"),
        (["x", "+", "4", "x=2"], "needs quotes"),
        (["x", "x==2"], "'x==2' is not NAME=VALUE"),
        (["x", "--dumb=ast"], "there is no option --dumb (did you mean --dump?)"),
        (["--xy"], "exprjit -- '--xy'"),
        (["x", "--dump"], "--dump needs a value: --dump=STAGE,..."),
        (["x", "--dump=asm,grpah"], "no stage 'grpah' (did you mean graph?)"),
        (["x", "--overflow=ignore"], "--overflow is one of wrap, raise, not 'ignore'"),
        (["x", "--version=2"], "--version takes no value"),
        (["--dump=ast"], "--dump needs a formula"),
        (["operators", "x"], "'operators' takes no arguments"),
        (["check"], "give a formula, or --generate"),
        (["check", "--generate", "x"], "--generate makes its own formulas"),
        (["check", "--generate", "--seconds=long"], "'long' is not a number"),
        (["check", "--generate", "--jobs=0"], "--jobs is a number from 1 to 256"),
        (["check", "x + y", "x=1"], "no value for y"),
        (["check", "--xy"], "exprjit check -- '--xy'"),
        (["x", "-q"], "there is no option -q, and the formula is 'x' already"),
        (["x", "-", "4"], "'-' is not NAME=VALUE"),
        (["mapp", "x", "f.npy"], "there is no command mapp (did you mean map?); as a formula:"),
        (["chek"], "there is no command chek (did you mean check?); as a formula: no value for"),
        (["--", "check"], "exprjit: no value for check: add check=..."),
        (["maps=1", "x"], "exprjit: 'maps' is not a parameter of the formula"),
        (["help", "x"], "exprjit: 'x' is not NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_explained(run, argv: Sequence[str], words: str) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("exprjit: ")
    assert words in err
    command = f"exprjit {argv[0]}" if argv[0] in cli.COMMANDS else "exprjit"
    assert err.endswith(f"\n{command} --help explains\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["x / y", "x=1", "y=0"],
            ["division by zero", "line 1, column 1", "    x / y\n    ^~~~~\n"],
        ),
        (["x +", "x=1"], ["line 1, column 4", "x +\n       ^"]),
        (["x * x", "x=2**40", "--overflow=raise"], ["outside 64 bits", "^~~~~"]),
        (["x", "x=1.5"], ["in the value of 'x': ", "float", "    1.5\n    ^~~\n"]),
        (["x", "x="], ["in the value of 'x': "]),
        (["x", "x=2**63"], ["in the value of 'x': result outside 64 bits"]),
        (["x", "x=y"], ["in the value of 'x': unknown name 'y'", "a constant expression"]),
        (["x", "x=1/0"], ["in the value of 'x': division by zero"]),
        (["x", "--params=x,x", "x=1"], ["'x' is listed twice"]),
        ([""], ["no expression"]),
        (["-"], ["expected a number"]),
        (["\udcff"], ["lone surrogate"]),
        (["check", "x +"], ["line 1, column 4"]),
        (["check", "x", "--engines=abacus"], ["no engine is called 'abacus'"]),
    ],
)
def test_an_error_in_a_formula_is_shown_with_its_place(
    run, argv: Sequence[str], words: Sequence[str]
) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (1, "")
    assert err.startswith("exprjit: ")
    for word in words:
        assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["EXPRJIT_CALL", "EXPRJIT_CPU", "EXPRJIT_MEMORY"])
@pytest.mark.parametrize("argv", [["x + 1", "x=2"], ["diagnose"], ["check", "x"]])
def test_a_wrong_setting_is_a_short_error(argv: Sequence[str], name: str) -> None:
    status, out, err = process(*argv, **{name: "nonsense"})
    assert (status, out) == (1, "")
    assert err.startswith(f"exprjit: {name} is 'nonsense'; it can be ")
    assert err.count("\n") == 1


# Options. --------------------------------------------------------------------------------------


def test_dump_without_values_prints_stages_only(run) -> None:
    tree = str(exprjit.compile("x + y").ast)
    assert run("x + y", "--dump=ast") == (0, tree + "\n", "")
    assert run("x + y", "--dump=ast", "x=1") == (0, tree + "\n", "")


def test_dump_with_values_prints_the_value_last(run) -> None:
    tree = str(exprjit.compile("x + y").ast)
    assert run("x + y", "--dump=ast", "x=1", "y=2") == (0, tree + "\n3\n", "")


def test_dump_of_several_stages_names_them(run) -> None:
    function = exprjit.compile("x + y")
    expected = f"-- ast\n{function.dump('ast')}\n-- graph\n{function.dump('graph')}\n"
    assert run("x + y", "--dump", "ast,graph").out == expected


@pytest.mark.parametrize("stage", exprjit.function.STAGES)
def test_every_stage_can_be_dumped(run, stage: str) -> None:
    if exprjit.compile("x + 4").engine != "jit":
        pytest.skip("no machine code here")
    status, out, _ = run("x + 4", f"--dump={stage}")
    assert status == 0
    assert out.strip() or stage == "rules"


def test_machine_code_of_an_interpreted_function_is_refused(run) -> None:
    status, out, err = run("x + 4", "--dump=asm", "--backend=interpreter")
    assert (status, out) == (1, "")
    assert err.startswith("exprjit: ")


def test_version_and_help(run) -> None:
    assert run("--version") == (0, f"exprjit {exprjit.__version__}\n", "")
    status, out, _ = run("--help")
    assert status == 0
    assert run("-h").out == out
    for row in (*cli.OPTIONS, *cli.COMMANDS.values()):
        assert row.name in out
    assert len(out.splitlines()) < 40
    assert max(map(len, out.splitlines())) <= 92


def test_the_word_help(run) -> None:
    assert run("help") == run("--help")
    assert run("help", "help=5").out == "5\n"
    assert run("--", "help", "help=5").out == "5\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(run, name: str) -> None:
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert run("help", name).out == out
    assert out.startswith(f"Usage: exprjit {name} ")
    for option in cli.COMMANDS[name].options():
        assert option.name in out


def test_the_examples_of_the_help_work(run) -> None:
    import shlex

    examples = [line for line in run("--help").out.splitlines() if line.startswith("  exprjit '")]
    assert len(examples) >= 3
    for line in examples:
        status, out, err = run(*shlex.split(line)[1:])
        assert (status, err) == (0, ""), line
        assert out


def test_an_option_in_two_words_is_the_same() -> None:
    table = (options.Option("--seed", "", "N", int), options.Option("--quiet", ""))
    for argv in (
        ["--seed=5", "w"],
        ["--seed", "5", "w"],
        ["w", "--seed=5"],
        ["--seed=5", "--", "w"],
    ):
        assert options.parse(argv, table) == ({"seed": 5, "quiet": None}, ["w"])
    assert options.parse(["--quiet", "--seed", "-5"], table).options == {"seed": -5, "quiet": True}


# Commands. -------------------------------------------------------------------------------------


def test_operators_lists_every_row(run) -> None:
    status, out, err = run("operators")
    assert (status, err) == (0, "")
    for row in OPERATORS.values():
        assert row.fixity == "internal" or row.doc in out
        for token in row.tokens if row.fixity in ("infix", "lazy") else ():
            assert f" {token} " in out
    assert "min(a, b, ...)" in out
    assert "clamp(x, low, high)" in out
    assert "not a  !a" in out
    assert "c ? a : b  a if c else b" in out
    assert "division by zero" in out


def test_operators_as_markdown_is_a_table(run) -> None:
    lines = run("operators", "--markdown").out.splitlines()
    assert lines[1] == "|---|---|---|---|"
    assert len(lines) == 2 + sum(row.fixity != "internal" for row in OPERATORS.values())
    for line in lines:
        assert line.replace(r"\|", "").count("|") == 5
    assert r"`a or b`, `a \|\| b`" in "\n".join(lines)


def test_check_of_a_formula(run) -> None:
    status, out, err = run("check", "x // y", "--count=200", "--engines=interpreter")
    assert (status, err) == (0, "")
    assert out == "1 program, 400 evaluations by interpreter: no difference\n"


def test_check_of_one_tuple_of_arguments(run) -> None:
    status, out, _ = run("check", "x // y", "x=1", "y=0", "--overflow=raise")
    assert status == 0
    assert out.startswith("1 program, ")


def test_check_generates(run) -> None:
    argv = ["check", "--generate", "--count=30", "--jobs=2", "--seed=3"]
    status, out, err = run(*argv, "--engines=interpreter")
    assert (status, err) == (0, "")
    assert out.startswith("30 programs, ")
    assert "no difference; seed 3" in out


# Standard input. -------------------------------------------------------------------------------


def test_programs_come_from_standard_input(run) -> None:
    text = "d = 5\n\n# a comment\nd * d; \nsq(v) = v * v\nsq(d) - x\n"
    assert run("x=1", stdin=text) == (0, "25\n24\n", "")


def test_an_error_on_standard_input_has_its_line_and_the_rest_goes_on(run) -> None:
    status, out, err = run(stdin="1 + 1\n  2 / 0\n3 +\n4\n")
    assert (status, out) == (1, "2\n4\n")
    assert "division by zero\n  line 2, column 3\n      2 / 0\n      ^~~~~\n" in err
    assert "line 3, column 4" in err


def test_options_hold_for_standard_input(run) -> None:
    assert run("--overflow=raise", stdin="2 ** 63\n").status == 1
    assert run(stdin="2 ** 63\n").out == f"{-(2**63)}\n"


# Real processes. -------------------------------------------------------------------------------


def test_python_dash_m() -> None:
    assert process("x + 4", "x=2") == (0, "6\n", "")
    assert process("x / 0", "x=2").status == 1
    assert process("x").status == 2
    assert process(stdin="1 + 1\n") == (0, "2\n", "")


def test_the_entry_point_is_main() -> None:
    assert 'exprjit = "exprjit.tools.cli:main"' in (ROOT / "pyproject.toml").read_text()


def test_a_closed_pipe_is_no_error() -> None:
    command = f"'{sys.executable}' -m exprjit operators | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.stderr == ""
    # The text may fit into the pipe, and then it was printed.
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_a_pipe_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "exprjit", "1"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_ends_quietly() -> None:
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "exprjit"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("1 + 1\n")
    child.stdin.flush()
    assert child.stdout.readline() == "2\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, out, err) == (130, "", "")


def test_text_that_is_not_unicode_is_a_placed_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exprjit"], cwd=ROOT, input=b"1 + \xff\n2\n", capture_output=True
    )
    assert done.returncode == 1
    assert done.stdout == b"2\n"
    assert b"column 5" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_short_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "exprjit", "x", "x=1"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "exprjit: No space left on device\n")


@pytest.mark.parametrize(
    "words", ["1 + 1", "--version", "--help", "operators", "count --help", "count x d.csv", ""]
)
def test_a_closed_standard_output_is_a_short_error(tmp_path: Path, words: str) -> None:
    if "d.csv" in words:
        pytest.importorskip("pyarrow")
    (tmp_path / "d.csv").write_text("x\n1\n")
    argv = [words] if " + " in words else words.split()
    command = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "exprjit", *argv],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="1 + 1\n",
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "exprjit: there is no standard output\n")


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exprjit", "--dump=asm", "x + 'é'"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9" in done.stdout

"""Formulas as files: what each stage makes of them, and what every engine answers.

A file in golden/ is

    # source: the idea, in a line
    # overflow raise
    the program, on one or more lines
    -- graph
    ...
    -- asm
    ...
    -- run (7, MAX) -> 3
    -- run (7, 0) -> ZeroDivisionError in x / y

Below the first line there may be options: `overflow`, `params` (names), `constants`
(name=value) and `cpu`, the features that graph and assembly are for (see FEATURES), so that they
are the same on every machine. `-- asm` is there where it is worth reading: the C function where
nothing can fail, else the checked one. A `run` line has the arguments and the answer, or the
exception and, after `in`, the piece of the source that it is about.

`pytest --bless` writes graph and assembly anew; what the program answers is only ever written by
hand.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import exprjit
from exprjit import compiler
from exprjit.formula import Formula
from exprjit.language.operators import OPERATORS
from exprjit.runtime import cpu, memory
from exprjit.x86 import kernels
from exprjit.x86.listing import asm

FOLDER = Path(__file__).parent / "golden"
MIN, MAX = -(2**63), 2**63 - 1

#: What `# cpu` can say: the oldest processor of the architecture, and one of 2013 or later, whose
#: scalar instructions are those of the psABI's level x86-64-v3. The latter is the default.
FEATURES = {
    "baseline": cpu.BASELINE,
    "v3": cpu.BASELINE | {"popcnt", "lzcnt", "bmi1", "bmi2", "movbe"},
}
MOST_LISTINGS = 60

native = pytest.mark.skipif(
    memory.policy()[0] == "none", reason=f"no code memory: {memory.policy()[1]}"
)


class Run(NamedTuple):
    """A call: its arguments, and the answer or the exception with the piece it is about."""

    arguments: tuple[Any, ...]
    answer: int | type[Exception]
    piece: str | None


class Golden(NamedTuple):
    """A file in parts; `str()` of it is the text again."""

    head: str
    options: dict[str, Any]
    cpu: str
    source: str
    sections: dict[str, str]
    run_lines: tuple[str, ...]

    def __str__(self) -> str:
        sections = "".join(f"-- {name}\n{text}" for name, text in self.sections.items())
        return f"{self.head}{self.source}\n{sections}{''.join(self.run_lines)}"

    @property
    def runs(self) -> list[Run]:
        return [parse_run(line) for line in self.run_lines]

    def compile(self, **options: Any) -> exprjit.Function:
        return exprjit.compile(self.source, **self.options, **options)

    def formula(self) -> Formula:
        return Formula(self.source, **self.options)


#: What a run line can expect besides a value: by class, the name of the one that is raised.
ERRORS: dict[Any, str] = {
    kind: f"Expr{kind.__name__}"
    for kind in (ZeroDivisionError, OverflowError, ValueError, TypeError)
}

HEAD = re.compile(r"# source: \S.*\n(?:# (?:overflow|params|constants|cpu) .*\n)*")
RUN = re.compile(r"-- run (\(.*\)) -> (.+?)(?: in (.+))?\n")


def parse_run(line: str) -> Run:
    match = RUN.fullmatch(line)
    assert match is not None, f"not a run line: {line!r}"
    arguments, answer, piece = match.groups()
    names: dict[str, Any] = {kind.__name__: kind for kind in ERRORS}
    names |= {"__builtins__": {}, "MIN": MIN, "MAX": MAX}
    given = eval(arguments, names)
    return Run(given if type(given) is tuple else (given,), eval(answer, names), piece)


def parse(text: str) -> Golden:
    match = HEAD.match(text)
    assert match is not None, "a golden file begins with '# source: ' and its idea"
    head = match.group()
    pieces = re.split(r"^(?=-- )", text[len(head) :], flags=re.MULTILINE)
    source, *rest = pieces
    sections, run_lines = {}, []
    for piece in rest:
        title, _, body = piece.partition("\n")
        if title.startswith("-- run "):
            run_lines.append(piece)
        else:
            assert title in ("-- graph", "-- asm"), f"no section is called {title!r}"
            assert not run_lines, "run lines come last"
            sections[title.removeprefix("-- ")] = body
    given = dict(line[2:].split(" ", 1) for line in head.splitlines()[1:])
    level = given.pop("cpu", "v3")
    options: dict[str, Any] = dict(given)
    if "params" in given:
        options["params"] = given["params"].split()
    if "constants" in given:
        pairs = [pair.split("=") for pair in given["constants"].split()]
        options["constants"] = {name: int(value, 0) for name, value in pairs}
    return Golden(head, options, level, source.removesuffix("\n"), sections, tuple(run_lines))


FILES = sorted(FOLDER.glob("*.expr"))


@functools.cache
def golden(name: str) -> Golden:
    return parse((FOLDER / f"{name}.expr").read_text(encoding="utf-8"))


each_file = pytest.mark.parametrize("name", [path.stem for path in FILES])


def made(file: Golden) -> dict[str, str]:
    """The sections that `file` should have."""
    formula, features = file.formula(), FEATURES[file.cpu]
    graph = compiler.to_graph(formula, features)
    sections = {"graph": f"{graph}\n"}
    if "asm" in file.sections:
        kernel = kernels.checked_function if graph.bails else kernels.function
        listing = asm(kernel(graph, features).encoded, formula.source, {})
        sections["asm"] = "".join(f"{line.rstrip()}\n" for line in str(listing).splitlines())
    return sections


@each_file
def test_graph_and_assembly(name: str, request: pytest.FixtureRequest) -> None:
    file = golden(name)
    sections = made(file)
    if request.config.getoption("--bless"):
        text = str(file._replace(sections=sections))
        (FOLDER / f"{name}.expr").write_text(text, encoding="utf-8")
        return
    assert file.sections == sections, "see the difference, then `pytest --bless`"


def test_the_files_are_read_and_written_alike() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        file = parse(text)
        assert str(file) == text, path
        assert file.runs, path
        assert list(file.sections)[:1] == ["graph"], path


def test_not_too_much_assembly_is_held() -> None:
    """It changes with every better instruction; what must hold of all of it is for other tests."""
    assert sum("asm" in golden(path.stem).sections for path in FILES) <= MOST_LISTINGS


def test_every_operator_is_in_some_file() -> None:
    text = "\n".join(golden(path.stem).source for path in FILES)
    words = set(re.findall(r"\w+", text))
    for operator in OPERATORS.values():
        if operator.fixity != "internal" and operator.name != "pos":
            there = [t in words if t.isalnum() else t.rstrip(":") in text for t in operator.tokens]
            assert any(there), f"no golden file has {operator.signature}"


# The engines. --------------------------------------------------------------------------------


def check(file: Golden, run: Run, call: Callable[..., int]) -> None:
    """`call` answers `run` as the file says."""
    if not isinstance(run.answer, type):
        answer = call(*run.arguments)
        assert (type(answer), answer) == (int, run.answer), run
        return
    with pytest.raises(run.answer) as caught:
        call(*run.arguments)
    error = caught.value
    assert isinstance(error, exprjit.ExprError)
    if run.piece is not None:
        assert error.source == file.source
        assert file.source[error.start : error.end] == run.piece, run


@each_file
def test_interpreter(name: str) -> None:
    file = golden(name)
    f = file.compile(backend="interpreter")
    assert f.engine == "interpreter"
    for run in file.runs:
        check(file, run, f)


@native
@each_file
@pytest.mark.parametrize("level", ["baseline", "native"])
def test_native_call(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if level == "baseline":
        monkeypatch.setenv("EXPRJIT_CPU", "baseline")
    file = golden(name)
    f = file.compile(backend="jit")
    assert f.engine == "jit"
    for run in file.runs:
        check(file, run, f)
        if len(run.arguments) == len(f.params):  # the same by name goes another way
            check(file, run, lambda *given: f(**dict(zip(f.params, given, strict=True))))


@native
@each_file
@pytest.mark.parametrize("level", ["baseline", "native"])
def test_c_functions(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if level == "baseline":
        monkeypatch.setenv("EXPRJIT_CPU", "baseline")
    file = golden(name)
    f = file.compile()
    longs = [ctypes.c_long] * len(f.params)
    checked = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_long), *longs)(
        f.checked_address
    )
    plain = ctypes.CFUNCTYPE(ctypes.c_long, *longs)(f.address) if f.total else None
    for run in file.runs:
        if not all(isinstance(value, int) and MIN <= value <= MAX for value in run.arguments):
            continue  # C has only longs
        result = ctypes.c_long(-424242)
        failed = checked(ctypes.byref(result), *run.arguments)
        if isinstance(run.answer, type):
            assert (failed, result.value) == (1, -424242), run
            assert plain is None, "a formula that fails is not total"
        else:
            assert (failed, result.value) == (0, run.answer), run
            if plain is not None:
                assert plain(*run.arguments) == run.answer, run


@native
@each_file
def test_verified(name: str) -> None:
    file = golden(name)
    f = file.compile(verify=True)
    for run in file.runs:
        check(file, run, f)


@native
@each_file
def test_lazy(name: str) -> None:
    file = golden(name)
    for run in file.runs:
        exprjit.cache_clear()
        f = file.compile(lazy=True)
        engines = []
        for _ in range(3):
            engines.append(f.engine)
            check(file, run, f)
        assert engines == ["interpreter", "interpreter", "jit"]


@each_file
def test_evaluate(name: str) -> None:
    """For once, without compiling; only in the default mode."""
    file = golden(name)
    if not file.options:
        params = file.formula().params
        for run in file.runs:
            names = dict(zip(params, run.arguments, strict=True))
            check(file, run, functools.partial(evaluate, file.source, names))


def evaluate(source: str, names: dict[str, Any], *arguments: Any) -> int:
    return exprjit.evaluate(source, names)

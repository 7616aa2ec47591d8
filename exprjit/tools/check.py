"""Cross-checking: does every engine give the same value, or the same error in the same place?

`check` compares the engines on one formula, `check_generated` on generated programs.  What
differs is made small (shrink.py) and shown as a command that can be run again.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from .. import compile
from ..errors import ExprError, ExprValueError, JitUnavailableError
from ..language.operators import OVERFLOW_MODES
from . import generate, samples, shrink

Row = tuple[int, ...]


class Failure(NamedTuple):
    """An error as an answer: its class, its span in the source, its message."""

    kind: str
    start: int
    end: int
    message: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.start}..{self.end}: {self.message}"


Answer = int | Failure

#: The answers to tuples of arguments, in order.
Runner = Callable[[Sequence[Row]], list[Answer]]
#: A program that an engine was given: overflow mode to runner, or None if it declines.
Prepared = Callable[[str], Runner | None]


class Engine(NamedTuple):
    """A row of the table of engines.

    prepare: takes sources, many at a time where that is cheaper, and gives for each what
    compiles it; why_not: the reason why the engine is not to be had here, or None.
    """

    prepare: Callable[[Sequence[str]], Sequence[Prepared]]
    why_not: Callable[[], str | None]


def failure(error: Exception) -> Failure:
    """An exception as an answer; one that is no ExprError is a bug and differs from all others."""
    if isinstance(error, ExprError):
        return Failure(type(error).__name__, error.start, error.end, error.message)
    return Failure(type(error).__name__, -1, -1, str(error))


def row_by_row(function: Callable[..., int]) -> Runner:
    """The runner of what is called with ints and gives an int or raises."""

    def run(rows: Sequence[Row]) -> list[Answer]:
        answers: list[Answer] = []
        for row in rows:
            try:
                answer = function(*row)
                if type(answer) is not int:
                    raise TypeError(f"the answer is {answer!r}, which is not an int")
                answers.append(answer)
            except Exception as error:
                answers.append(failure(error))
        return answers

    return run


def compiled_by(build: Callable[[str, str], Callable[..., int]]) -> Callable[..., list[Prepared]]:
    """The `prepare` of an engine that compiles by ``build(source, overflow)``, one at a time."""

    def prepared(source: str, overflow: str) -> Runner | None:
        try:
            function = build(source, overflow)
        except JitUnavailableError:
            return None
        except Exception as error:
            broken = failure(error)
            return lambda rows: [broken] * len(rows)
        return row_by_row(function)

    return lambda sources: [partial(prepared, source) for source in sources]


def _interpreted(source: str, overflow: str) -> Callable[..., int]:
    return compile(source, overflow=overflow, backend="interpreter")


def _compiled(source: str, overflow: str) -> Callable[..., int]:
    return compile(source, overflow=overflow, backend="jit")


def _why_not_jit() -> str | None:
    try:
        function = compile("x + 4", backend="jit")
    except JitUnavailableError as error:
        return error.message
    return None if function.engine == "jit" else "machine code was asked for and not made"


def _prepare_gcc(sources: Sequence[str]) -> list[Prepared]:
    from . import gcc

    programs = [compile(source, backend="interpreter").ast for source in sources]
    runs = gcc.compile_all(programs)

    def prepared(run: Callable[[Row, str], int] | None, overflow: str) -> Runner | None:
        return None if run is None else row_by_row(lambda *row: run(row, overflow))

    return [partial(prepared, run) for run in runs]


def _why_not_gcc() -> str | None:
    from . import gcc

    return gcc.why_not()


#: The engine that is right by definition.
REFERENCE = "interpreter"

ENGINES = {
    REFERENCE: Engine(compiled_by(_interpreted), lambda: None),
    "jit": Engine(compiled_by(_compiled), _why_not_jit),
    "gcc": Engine(_prepare_gcc, _why_not_gcc),
}


def choose(names: Sequence[str] | None = None) -> dict[str, Engine]:
    """The engines called `names`, by default all that are to be had, the reference first.

    Raises ExprValueError for one that is unknown or not to be had.
    """
    chosen = {REFERENCE: ENGINES[REFERENCE]}
    for name in ENGINES if names is None else names:
        if name not in ENGINES:
            raise ExprValueError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")
        why_not = ENGINES[name].why_not()
        if why_not is None:
            chosen[name] = ENGINES[name]
        elif names is not None:
            raise ExprValueError(f"the engine {name} is not to be had: {why_not}")
    return chosen


class Difference(NamedTuple):
    """A counter-example: a program and arguments for which two engines disagree."""

    source: str
    arguments: dict[str, int]
    overflow: str
    answers: dict[str, Answer]

    @property
    def command(self) -> str:
        """What to type to see it again."""
        values = "".join(f" {name}={value}" for name, value in self.arguments.items())
        engines = ",".join(self.answers)
        options = f"--overflow={self.overflow} --engines={engines}"
        # A source that begins with -- would be taken for an option.
        end = " --" if self.source.startswith("--") else ""
        return f"exprjit check {options}{end} {shlex.quote(self.source)}{values}"

    def __str__(self) -> str:
        width = max(map(len, self.answers))
        lines = [f"    {name:<{width}}  {answer}" for name, answer in self.answers.items()]
        return "\n".join([self.command, *lines])


class Report(NamedTuple):
    """What a check did: how many programs and evaluations, by which engines, what differed."""

    programs: int
    evaluations: int
    engines: tuple[str, ...]
    difference: Difference | None = None

    def __str__(self) -> str:
        programs = "1 program" if self.programs == 1 else f"{self.programs:,} programs"
        engines = ", ".join(self.engines)
        found = "no difference" if self.difference is None else "a difference"
        return f"{programs}, {self.evaluations:,} evaluations by {engines}: {found}"


def compare(
    source: str,
    rows: Sequence[Row],
    prepared: Mapping[str, Prepared],
    modes: Sequence[str] = OVERFLOW_MODES,
) -> tuple[int, Difference | None]:
    """How many evaluations were made, and the first difference."""
    evaluations = 0
    for mode in modes:
        expected: list[Answer] = []
        for name, prepare in prepared.items():
            runner = prepare(mode)
            if runner is None:
                continue
            answers = runner(rows)
            evaluations += len(answers)
            if name == REFERENCE:
                expected = answers
            elif answers != expected:
                index = next(i for i, row in enumerate(rows) if answers[i] != expected[i])
                params = compile(source, backend="interpreter").params
                arguments = dict(zip(params, rows[index], strict=True))
                both = {REFERENCE: expected[index], name: answers[index]}
                return evaluations, Difference(source, arguments, mode, both)
    return evaluations, None


def shrunk(found: Difference, engines: Mapping[str, Engine], seconds: float = 10.0) -> Difference:
    """The smallest difference between the same two engines that is found in that time."""
    best = found
    involved = {name: engines[name] for name in found.answers}

    def first_that_differs(candidates: Sequence[shrink.Candidate]) -> int | None:
        nonlocal best
        sources = [candidate.source for candidate in candidates]
        prepared = {name: engine.prepare(sources) for name, engine in involved.items()}
        for index, candidate in enumerate(candidates):
            row = tuple(candidate.arguments.values())
            ours = {name: programs[index] for name, programs in prepared.items()}
            _, difference = compare(candidate.source, [row], ours, [found.overflow])
            if difference is not None:
                best = difference
                return index
        return None

    shrink.shrink(shrink.Candidate(found.source, found.arguments), first_that_differs, seconds)
    return best


def check(
    source: str,
    *,
    arguments: Iterable[Row] | None = None,
    seed: object = 0,
    count: int = 2_000,
    engines: Sequence[str] | None = None,
    modes: Sequence[str] = OVERFLOW_MODES,
) -> Report:
    """Compare the engines on one formula.

    arguments: tuples in the order of the parameters; by default `count` of them, edges and
    random ones from `seed`.
    Raises the ExprError of a formula that is wrong.
    """
    chosen = choose(engines)
    params = compile(source, backend="interpreter").params
    if arguments is None:
        rows = samples.rows(samples.seeded(seed), len(params), count, _literals(source))
    else:
        rows = list(arguments)
    prepared = {name: engine.prepare([source])[0] for name, engine in chosen.items()}
    evaluations, difference = compare(source, rows, prepared, modes)
    if difference is not None:
        difference = shrunk(difference, chosen)
    return Report(1, evaluations, tuple(chosen), difference)


def generated(seed: object, index: int, size: int = 24) -> str:
    """The program with the number `index` of those that `seed` gives."""
    return generate.program(samples.seeded(f"{seed}:{index}"), size)


def check_generated(
    seed: object,
    indices: Iterable[int],
    *,
    seconds: float | None = None,
    size: int = 24,
    rows: int = 8,
    engines: Mapping[str, Engine] | None = None,
    modes: Sequence[str] = OVERFLOW_MODES,
    batch: int = 200,
    progress: Callable[[int, int, int], None] = lambda index, programs, evaluations: None,
) -> Report:
    """Compare the engines on generated programs until one differs or the time is over.

    rows: tuples of arguments a program; progress: is told before each program its index and
    how much is done.
    """
    chosen = choose() if engines is None else engines
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    programs = evaluations = 0
    waiting = iter(indices)
    while numbers := list(islice(waiting, batch)):
        progress(numbers[0], programs, evaluations)
        sources = [generated(seed, index, size) for index in numbers]
        prepared = {name: engine.prepare(sources) for name, engine in chosen.items()}
        for position, (index, source) in enumerate(zip(numbers, sources, strict=True)):
            if time.monotonic() > deadline:
                return Report(programs, evaluations, tuple(chosen))
            progress(index, programs, evaluations)
            params = compile(source, backend="interpreter").params
            below = samples.seeded(f"{seed}:{index}:rows")
            tuples = samples.rows(below, len(params), rows, _literals(source))
            ours = {name: sources_[position] for name, sources_ in prepared.items()}
            done, difference = compare(source, tuples, ours, modes)
            programs += 1
            evaluations += done
            if difference is not None:
                difference = shrunk(difference, chosen)
                return Report(programs, evaluations, tuple(chosen), difference)
    return Report(programs, evaluations, tuple(chosen))


def _literals(source: str) -> list[int]:
    """Decimal numbers in the text: a formula's own edges are near them."""
    return [int(digits) for digits in re.findall(r"\b\d{1,19}\b", source)[:16]]

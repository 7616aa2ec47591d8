"""Making a counter-example small: delta debugging over the syntax tree and the arguments.

Each step replaces a part of the program by something simpler (an operand of it, 0, 1, a
parameter), drops or inlines a statement, or makes an argument smaller, and keeps the first
result that still differs.  Replacements are made in the text, at the spans of the nodes, so
that what is left looks like what was written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from .. import compile
from ..errors import ExprError
from ..language.ast import Binding, Call, Definition, Literal, Name, Node, Program


class Candidate(NamedTuple):
    """A program and its arguments by name, in the order of its parameters."""

    source: str
    arguments: dict[str, int]


#: The index of the first candidate that still differs, or None.
FirstThatDiffers = Callable[[Sequence[Candidate]], int | None]

#: How many candidates are tried at once: gcc likes many, others do the rest for nothing.
_CHUNK = 24

_BLANKS = re.compile(r"('(?:[^'\\\n]|\\[^\n])*')|#[^\n]*|\s+")


def shrink(start: Candidate, first_that_differs: FirstThatDiffers, seconds: float) -> Candidate:
    """The smallest candidate that is found before the time is over."""
    deadline = time.monotonic() + seconds
    best = start
    while time.monotonic() < deadline:
        smaller = _step(best, first_that_differs, deadline)
        if smaller is None:
            break
        best = smaller
    return best


def _step(
    current: Candidate, first_that_differs: FirstThatDiffers, deadline: float
) -> Candidate | None:
    """A smaller candidate that differs, or None if no simplification keeps the difference."""
    waiting = _smaller(current, deadline)
    while chunk := list(islice(waiting, _CHUNK)):
        index = first_that_differs(chunk)
        if index is not None:
            return chunk[index]
    return None


def _smaller(current: Candidate, deadline: float) -> Iterator[Candidate]:
    """Valid candidates that are smaller, until the time is over: the shortest programs first,
    then the same program with smaller arguments.

    Lazily: of a large program there are thousands, and parsing takes most of the time.
    """
    program = _program(current.source)
    if program is None:
        return
    size = _size(program)
    for text in sorted(set(_simpler_programs(program)), key=lambda text: (len(text), text)):
        if time.monotonic() > deadline:
            return
        simpler = _program(text)
        if simpler is None or not set(simpler.params) <= set(current.arguments):
            continue
        if _size(simpler) < size:
            yield Candidate(text, {name: current.arguments[name] for name in simpler.params})
    yield from _simpler_arguments(current)


def _program(source: str) -> Program | None:
    try:
        return compile(source, backend="interpreter").ast
    except ExprError:
        return None


def _size(program: Program) -> tuple[int, int, str]:
    """What gets less with every step: nodes and statements, then characters."""
    nodes = sum(1 for _ in _nodes(program)) + 2 * len(program.statements)
    return nodes, len(program.source), program.source


def _roots(program: Program) -> list[Node]:
    bodies = [s.value if isinstance(s, Binding) else s.body for s in program.statements]
    return [*bodies, program.result]


def _nodes(program: Program) -> Iterator[Node]:
    for root in _roots(program):
        yield from _below(root)


def _below(root: Node) -> Iterator[Node]:
    work = [root]
    while work:
        node = work.pop()
        yield node
        work.extend(node.parts)


def _simpler_programs(program: Program) -> Iterator[str]:
    """Texts that may be programs, and may be simpler."""
    source = program.source
    yield _BLANKS.sub(lambda match: match[1] or " ", source).strip(" ;")
    for node in _nodes(program):
        before, text, after = (
            source[: node.start],
            source[node.start : node.end],
            source[node.end :],
        )
        for simpler in _simpler_texts(program, node, text):
            yield before + simpler + after
    starts = [statement.start for statement in program.statements]
    ends = [*starts, program.result.start][1:]
    for statement, start, end in zip(program.statements, starts, ends, strict=True):
        yield source[:start] + source[end:]
        if isinstance(statement, Binding):
            yield _inlined_binding(program, statement, start, end)
        else:
            yield _inlined_definition(program, statement, start, end)


def _simpler_texts(program: Program, node: Node, text: str) -> Iterator[str]:
    source = program.source
    yield from ("0", "1")
    yield from program.params[:3]
    if isinstance(node, Literal):
        value = abs(node.value)
        yield from (str(value), "2", "3", "63", "64", str(value // 2), str(value // 10))
    for part in node.parts:
        yield source[part.start : part.end]
        yield f"({source[part.start : part.end]})"
    if text[:1] == "(":
        yield text[1:-1]


def _replaced(source: str, edits: list[tuple[int, int, str]]) -> str:
    """`source` with the spans replaced; they do not overlap."""
    for start, end, text in sorted(edits, reverse=True):
        source = source[:start] + text + source[end:]
    return source


def _inlined_binding(program: Program, binding: Binding, start: int, end: int) -> str:
    """The program without `binding`, its value written where it was named."""
    value = f"({program.source[binding.value.start : binding.value.end]})"
    edits = [(start, end, "")]
    for node in _nodes(program):
        if isinstance(node, Name) and node.name == binding.name and not node.formal:
            edits.append((node.start, node.end, value))
    return _replaced(program.source, edits)


def _inlined_definition(program: Program, definition: Definition, start: int, end: int) -> str:
    """The program without `definition`, its body written where it was called."""
    source = program.source
    edits = [(start, end, "")]
    calls = [n for n in _nodes(program) if isinstance(n, Call) and n.name == definition.name]
    body = definition.body
    for call in calls:
        if any(call.start < other.start < call.end for other in calls):
            # A call in an argument of a call: the next step takes the outer one.
            continue
        texts = [f"({source[part.start : part.end]})" for part in call.arguments]
        named = dict(zip((formal.name for formal in definition.formals), texts, strict=True))
        formals = [
            (node.start - body.start, node.end - body.start, named[node.name])
            for node in _below(body)
            if isinstance(node, Name) and node.formal
        ]
        text = _replaced(source[body.start : body.end], formals)
        edits.append((call.start, call.end, f"({text})"))
    return _replaced(source, edits)


def _simpler_arguments(current: Candidate) -> list[Candidate]:
    """One argument replaced by a number that is nearer to 0, or as near and positive."""
    found = []
    for name, value in current.arguments.items():
        sign, distance = (-1, -value) if value < 0 else (1, value)
        # Halving finds the order of magnitude; then ever smaller steps find a threshold.
        steps = [sign * (distance >> shift) for shift in (48, 32, 16, 8, 4, 2, 1)]
        steps += [sign * (distance - (distance >> shift)) for shift in range(2, 64, 2)]
        for smaller in (0, 1, -1, 2, -2, 3, 7, 8, 63, 64, *steps, value - sign, -value):
            if (abs(smaller), smaller < 0) < (abs(value), value < 0) and smaller != 1 << 63:
                found.append(Candidate(current.source, {**current.arguments, name: smaller}))
    return found

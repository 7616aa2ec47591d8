"""A formula as C, with everything that C leaves open spelled out.

Each strict operation has a temporary of its own, in the order of the source; lazy forms are
`if`s; a definition is expanded where it is called.  What each operator computes, and where it
fails, is a C function per row (c_rows.py).  A formula is the function

    int NAME(const long *arguments, int raising, long *out)

which gives 0 with the value in out[0], or the number of a fault (an index into FAULTS plus 1)
with the number of the failing operation in out[0] and its operands in out[1..3].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..language.ast import (
    Apply,
    Binding,
    Call,
    Chain,
    Conditional,
    Literal,
    Logical,
    Name,
    Node,
    Program,
)
from ..language.operators import MIN
from .c_rows import HELPERS, ROWS

#: The names of all faults; the table of faults has their words.
FAULTS = tuple(dict.fromkeys(check.fault for row in ROWS.values() for check in row.checks))

_FAIL = """
static int fail(int fault, long *out, long operation, long a, long b, long c) {
    out[0] = operation;
    out[1] = a;
    out[2] = b;
    out[3] = c;
    return fault;
}
"""


class CFunction(NamedTuple):
    """A formula in C: the text of the function, and the node of each operation that can fail."""

    text: str
    operations: tuple[Apply, ...]


def prelude(arities: dict[str, int]) -> str:
    """What stands before the functions in a file; `arities` are those of the rows."""
    pieces = [HELPERS, _FAIL]
    for name, row in ROWS.items():
        letters = "abc"[: arities[name]]
        operands = ", ".join([f"long {letter}" for letter in letters])
        pieces.append(f"static long do_{name}({operands}) {{ {row.body} }}\n")
        if not row.checks:
            continue
        pieces.append(
            f"static int try_{name}(long *result, long *out, int raising, long operation,"
            f" {operands}) {{\n"
        )
        shown = ", ".join([*letters, "0", "0"][:3])
        for check in row.checks:
            mode = "raising && " if check.raising else ""
            number = FAULTS.index(check.fault) + 1
            failing = f"fail({number}, out, operation, {shown})"
            pieces.append(f"    if ({mode}({check.condition})) return {failing};\n")
        pieces.append(f"    *result = do_{name}({', '.join(letters)});\n    return 0;\n}}\n")
    return "".join(pieces)


def c_function(program: Program, name: str) -> CFunction:
    """`program` as the C function `name`.

    Its length is that of the program with every definition expanded.  Raises KeyError for an
    operator that has no row in C.
    """
    emitter = _Emitter(program)
    for statement in program.statements:
        if isinstance(statement, Binding):
            emitter.variables[statement.name] = emitter.run(statement.value)
    emitter.line(f"out[0] = {emitter.run(program.result)};")
    emitter.line("return 0;")
    head = f"int {name}(const long *arguments, int raising, long *out) {{\n    int fault;\n"
    return CFunction(head + "".join(emitter.lines) + "}\n", tuple(emitter.operations))


def _constant(value: int) -> str:
    return "LONG_MIN" if value == MIN else f"{value}L"


class _Emitter:
    """The walk: iterative, like the interpreter's, but what is on the stack is C."""

    def __init__(self, program: Program) -> None:
        self.lines: list[str] = []
        self.operations: list[Apply] = []
        self.variables = {name: _constant(value) for name, value in program.constants.items()}
        for index, name in enumerate(program.params):
            self.variables[name] = f"arguments[{index}]"
        self.frames: list[dict[str, str]] = []
        self.values: list[str] = []
        self.work: list[Node | Callable[[], None]] = []
        self.temporaries = 0
        self.indentation = 1

    def run(self, root: Node) -> str:
        """Emit what computes `root`; the C expression of its value."""
        self.work.append(root)
        while self.work:
            item = self.work.pop()
            if isinstance(item, Node):
                self.visit(item)
            else:
                item()
        return self.values.pop()

    def line(self, text: str, indent: int = 0) -> None:
        if indent < 0:
            self.indentation += indent
        self.lines.append("    " * self.indentation + text + "\n")
        if indent > 0:
            self.indentation += indent

    def temporary(self, value: str = "") -> str:
        self.temporaries += 1
        name = f"t{self.temporaries}"
        self.line(f"long {name} = {value};" if value else f"long {name};")
        return name

    def popped(self, count: int) -> list[str]:
        first = len(self.values) - count
        taken = self.values[first:]
        del self.values[first:]
        return taken

    def visit(self, node: Node) -> None:
        if isinstance(node, Literal):
            self.values.append(_constant(node.value))
        elif isinstance(node, Name):
            scope = self.frames[-1] if node.formal else self.variables
            self.values.append(scope[node.name])
        elif isinstance(node, Apply):
            self.work += (partial(self.apply, node), *node.operands[::-1])
        elif isinstance(node, Call):
            self.work += (partial(self.enter, node), *node.arguments[::-1])
        elif isinstance(node, Conditional):
            self.work += (partial(self.choose, node), node.condition)
        elif isinstance(node, Logical):
            self.work += (partial(self.decide, node), node.left)
        else:
            assert isinstance(node, Chain)
            self.work += (partial(self.compare, node), *node.operands[1::-1])

    def apply(self, node: Apply) -> None:
        operands = self.popped(len(node.operands))
        name = node.operator.name
        if ROWS[name].checks:
            assert not node.operator.variadic
            result = self.temporary()
            place = f"&{result}, out, raising, {len(self.operations)}"
            self.line(f"if ((fault = try_{name}({place}, {', '.join(operands)}))) return fault;")
            self.operations.append(node)
            self.values.append(result)
            return
        value = operands[0]
        if node.operator.variadic:
            for operand in operands[1:]:
                value = f"do_{name}({value}, {operand})"
        else:
            value = f"do_{name}({', '.join(operands)})"
        self.values.append(self.temporary(value))

    def enter(self, node: Call) -> None:
        arguments = self.popped(len(node.arguments))
        names = [formal.name for formal in node.definition.formals]
        self.frames.append(dict(zip(names, arguments, strict=True)))
        self.work += (self.leave, node.definition.body)

    def leave(self) -> None:
        self.frames.pop()

    def choose(self, node: Conditional) -> None:
        condition = self.values.pop()
        result = self.temporary()
        self.line(f"if ({condition}) {{", +1)
        self.work += (
            partial(self.close, result),
            node.otherwise,
            partial(self.close, result, "} else {", +1),
            node.then,
        )

    def close(self, result: str, brace: str = "}", indent: int = 0) -> None:
        """End a branch: its value is what was computed last."""
        self.line(f"{result} = {self.values.pop()};")
        self.line(brace, -1)
        self.indentation += indent
        if not indent:
            self.values.append(result)

    def decide(self, node: Logical) -> None:
        result = self.temporary(f"{self.values.pop()} != 0")
        undecided = result if node.operator.name == "and" else f"!{result}"
        self.line(f"if ({undecided}) {{", +1)
        self.work += (partial(self.close, result), self.truth, node.right)

    def truth(self) -> None:
        self.values.append(f"{self.values.pop()} != 0")

    def compare(self, node: Chain, step: int = 0, result: str = "") -> None:
        left, right = self.popped(2)
        value = f"do_{node.operators[step].name}({left}, {right})"
        if step:
            self.line(f"{result} = {value};")
        else:
            result = self.temporary(value)
        if step + 1 == len(node.operators):
            for _ in range(step):
                self.line("}", -1)
            self.values.append(result)
        else:
            self.line(f"if ({result}) {{", +1)
            self.values.append(right)
            next_step = partial(self.compare, node, step + 1, result)
            self.work += (next_step, node.operands[step + 2])

"""The list of passes for code that runs over arrays, and what interprets where there is none.

text -> tree -> graph of a row -> block -> loop -> bytes -> installed code
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import compiler
from .errors import ExprLimitError, ExprOverflowError, VerificationError
from .formula import Formula
from .ir.facts import Facts, facts
from .ir.graph import Graph, GraphTooLarge
from .ir.rowwise import NEUTRAL, PREDICATES, Rowwise, build_rowwise
from .language.arithmetic import LONG
from .runtime.interpreted import interpreted_kernel
from .runtime.sweep import Sweep, prototype
from .x86 import kernels
from .x86.array_kernels import array_kernel
from .x86.rows import ITEM_TYPES, SCALAR_COLUMN, Plan


class Task(NamedTuple):
    """What is to be computed for each row.

    formula: the value.  where: the formula of the filter, or whether the column behind the
    formula's is the filter.  plan: what it is for, and the columns' types.  keeps, equals, valid:
    as in `Rowwise`.
    """

    formula: Formula
    where: Formula | bool
    plan: Plan
    keeps: bool = False
    equals: int | None = None
    valid: bool = False

    @property
    def rowwise(self) -> Rowwise:
        where = self.where if isinstance(self.where, bool) else self.where.program()
        out = ITEM_TYPES[self.plan.out]
        row = Rowwise(
            self.formula.program(),
            self.plan.kernel,
            where,
            *(out.low, out.high),
            self.keeps,
            self.equals,
            self.valid,
        )
        columns = zip(row.params, self.plan.columns, strict=True)
        return row._replace(truths=tuple(name for name, kind in columns if kind == "bool"))

    def interpret(self, values: Sequence[int], returned: Sequence[int] = ()) -> int:
        """What a row gives, by the interpreter; raises the error of a row that fails.

        returned: what C functions have returned there already.
        """
        formula, where, plan = self.formula, self.where, self.plan
        own = values[: len(formula.params)]
        if self.valid and not values[-2 if self.keeps else -1]:
            counts = 0
        elif isinstance(where, Formula):
            named = dict(zip(self.rowwise.params, values, strict=True))
            returned = deque(returned)
            counts = where.replay([named[name] for name in where.params], returned)
        else:
            counts = values[len(formula.params)] if where else 1
        if not counts:
            return values[-1] if self.keeps else NEUTRAL.get(plan.kernel, 0)
        value = formula.replay(own, returned)
        if plan.kernel in PREDICATES:
            return int(value != 0 if self.equals is None else value == self.equals)
        out = ITEM_TYPES[plan.out]
        if not out.low <= value <= out.high:
            end = len(formula.source)
            raise ExprOverflowError(f"result outside {plan.out}: {value}", formula.source, 0, end)
        return value


def columns_of(formula: Formula, where: Formula | bool) -> tuple[str, ...]:
    """The names of the columns that are to be given, but for the filter itself."""
    if not isinstance(where, Formula):
        return formula.params
    more = (name for name in where.params if name not in formula.params)
    return (*formula.params, *more)


def sweep(task: Task, features: compiler.Features | None, verify: bool = False) -> Sweep:
    """What runs a task: machine code for a CPU, where there can be some; None wants none.

    verify: whether to interpret as well, and raise VerificationError if that differs.  (Where C
    functions are called it does not, since they would be called twice.)
    """
    calls = _calls(task)
    try:
        if features is None:
            raise compiler.Unavailable("it is not wanted")
        compiler.check_available()
        code = _code(task, features)
        installed = compiler.installed(code)
    except (compiler.Unavailable, ExprLimitError):
        kernel = interpreted_kernel(task.plan, task.interpret)
        return Sweep(kernel, None, task.plan.kernel, in_order=calls)
    # C functions are called as they are from Python: by one thread at a time.
    call = prototype(calls)(installed.address)
    at = installed.address
    compiled = Sweep(call, installed.owner, task.plan.kernel, installed.log, code.lanes, at, calls)
    if not verify or calls:
        return compiled
    from .runtime.verified import verified_kernel

    def differ(text: str) -> VerificationError:
        return VerificationError(f"the interpreter {text}; please report this", task.formula.source)

    interpreted = interpreted_kernel(task.plan, task.interpret)
    return compiled._replace(kernel=verified_kernel(task.plan, compiled, interpreted, differ))


def _calls(task: Task) -> bool:
    """Whether C functions may be called."""
    where = task.where
    return bool(task.formula.externs or (isinstance(where, Formula) and where.externs))


def _code(task: Task, features: compiler.Features) -> kernels.Code:
    """Raises Unavailable and ExprLimitError."""
    plan, formula = task.plan, task.formula
    types = {
        position: _known(kind)
        for position, kind in enumerate(plan.columns)
        if kind not in (SCALAR_COLUMN, "int64")
    }
    row = task.rowwise

    def build(for_lanes: bool, native: frozenset[str], known: Mapping[int, Facts]) -> Graph:
        most, both = formula.limits.graph, {**known, **types}
        return build_rowwise(row, formula.overflow, native, most, both, for_lanes)

    try:
        code = array_kernel(plan, features, build)
    except (GraphTooLarge, kernels.FrameTooLarge) as error:
        raise compiler.Unavailable(str(error)) from None
    return compiler.within_limits(code, formula)


def _known(kind: str) -> Facts:
    """What is known of the items of a type."""
    return facts(LONG, ITEM_TYPES[kind].low, ITEM_TYPES[kind].high)

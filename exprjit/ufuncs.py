"""The passes from a formula to a `numpy.ufunc`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import compiler
from .array_code import Task
from .errors import ExprLimitError, ExprValueError
from .ir.graph import GraphTooLarge
from .ir.rowwise import build_rowwise
from .runtime import ufunc
from .runtime.stubs import PyCallError
from .x86.kernels import Code, FrameTooLarge
from .x86.rows import Plan, rows_by_steps
from .x86.scalar import native

if TYPE_CHECKING:
    from .body import Body


def make_ufunc(body: Body, restore: Callable[[str, dict[str, Any]], Any]) -> Any:
    """The ufunc of a formula, of machine code where there can be some.

    restore: gives it in another process, for the source and the keywords of `compile`.
    Raises ExprValueError for a formula with no parameters, or with more than NumPy allows.
    """
    formula = body.formula
    count, most = len(formula.params), ufunc.most_parameters()
    if not 0 < count <= most:
        held = f"{count} parameters" if count else "no parameters"
        raise ExprValueError(f"a ufunc has 1 to {most} parameters; this formula has {held}")
    # The ufunc outlives the body, which has it: so it must not have the body.
    keywords = body.keywords()

    def recipe() -> ufunc.Recipe:
        formula.check_portable()
        return restore, (formula.source, keywords)

    name = formula.name
    try:
        kernels = _kernels(body)
        return ufunc.compiled_ufunc(name, formula.source, count, kernels, formula.interpret, recipe)
    except (compiler.Unavailable, ExprLimitError, FrameTooLarge, PyCallError):
        return ufunc.interpreted_ufunc(name, count, formula.call, recipe)


def _kernels(body: Body) -> ufunc.Kernels:
    """Raises Unavailable, ExprLimitError, FrameTooLarge."""
    formula = body.formula
    if body.options.backend == "interpreter":
        raise compiler.Unavailable("it is not wanted")
    compiler.check_available()
    task = Task(formula, False, Plan("map", ("int64",) * len(formula.params)))
    # The same as f.map() runs.
    dense = body.sweep(task)
    if dense.owner is None:
        raise compiler.Unavailable("columns are interpreted")
    by_steps = compiler.installed(_by_steps(task, body.features))
    return ufunc.Kernels(
        dense=dense.address,
        by_steps=by_steps.address,
        log=by_steps.log,
        lanes=dense.lanes,
        locks=bool(formula.externs),
        owners=(dense.owner, by_steps.owner),
    )


def _by_steps(task: Task, features: compiler.Features) -> Code:
    formula = task.formula
    most = formula.limits.graph
    try:
        graph = build_rowwise(task.rowwise, formula.overflow, native(features), most, {})
    except GraphTooLarge as error:
        raise compiler.Unavailable(str(error)) from None
    return compiler.within_limits(rows_by_steps(graph, task.plan, features), formula)

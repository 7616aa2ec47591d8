"""What stands behind a function: its formula, its code, and what answers unusual calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from . import compiler
from .errors import ExprError, ExprValueError, JitUnavailableError
from .formula import Formula
from .language.arguments import to_longs
from .runtime import pycall
from .runtime.columns import is_columnar, numpy

if TYPE_CHECKING:
    from weakref import ref

    from .array_code import Task
    from .ir.graph import Graph
    from .runtime.sweep import Sweep
    from .x86.listing import Asm


#: So much code for arrays a function keeps at most, and so many filters; then it begins again.
_MOST_SWEEPS: Final = 64

_NONE: Final[Mapping[object, Callable[..., Any]]] = MappingProxyType({})


class Options(NamedTuple):
    """The options of `compile` that do not change what a formula means."""

    backend: str = "auto"
    hardening: str = "default"
    verify: bool = False
    lazy: bool = False


class Body:
    """Formula, options and code of one function.

    formula: source and options.  options: how it was to be compiled.  features: the CPU that
    the code is for.  kernel: which of the compiler's kernels calls run.  code: it, or None.
    reason: why there is none, or None.  entries: further code by kernel, made when asked for.
    """

    __slots__ = (
        "code",
        "entries",
        "features",
        "filters",
        "formula",
        "function",
        "kernel",
        "options",
        "plain",
        "reason",
        "runner",
        "sweeps",
        "ufunc",
    )

    #: Gives the function of a source and the keywords of `compile`; function.py says how.
    restored: ClassVar[Callable[[str, dict[str, Any]], Any]]

    def __init__(
        self,
        formula: Formula,
        options: Options,
        features: compiler.Features,
        code: compiler.Installed | None,
        reason: str | None,
        kernel: str = "call",
    ) -> None:
        self.formula = formula
        self.options = options
        self.features = features
        self.kernel = kernel
        self.code = code
        self.reason = reason
        self.entries: dict[str, compiler.Installed] = {}
        #: The code as an object of its own, for calls that were unusual and no longer are.
        self.runner: Callable[..., int] | None = None
        #: What runs over arrays, by what it computes there; made when first asked for.
        #: (The formula, with which a task begins, is left out where it is this one.)
        self.sweeps: dict[tuple[object, ...], Sweep] | None = None
        #: What answers for plain arrays: by kernel, filter and types, and the last by kernel and
        #: filter (array_plain.py).
        self.plain: Mapping[object, Callable[..., Any]] = _NONE
        #: The formulas of filters, by their texts; made when first asked for.
        self.filters: dict[str, Formula] | None = None
        #: The formula's `numpy.ufunc`, made when first asked for.
        self.ufunc: Any = None
        #: The function, if it could answer calls with arrays by itself and does not do so yet.
        self.function: ref[Any] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that the machine code handed over: keywords, arrays, wrong arguments."""
        formula = self.formula
        bound = self.bound(args, kwargs)
        if any(map(is_columnar, bound)):
            again = self.sweeps is not None
            answer = self.map(bound)
            if again and self.function is not None:
                self._hasten(bound)
            return answer
        values = to_longs(formula.params, bound)
        if self.code is None:
            return formula.interpret(*values)
        if self.runner is None:
            # It never gets what its "slow" field would have to answer.
            self.runner = _runner_type().new(self.code.address, None, formula.interpret)
        return self.runner(*values)

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The values of a call by parameter; a table alone stands for all of them.

        Raises ExprTypeError.
        """
        formula = self.formula
        if len(args) == 1 and not kwargs and not hasattr(type(args[0]), "__index__"):
            from .array_tables import is_table, table_columns

            if formula.params and is_table(args[0]):
                return table_columns(args[0], formula.params)
        return formula.bind(args, kwargs)

    def _hasten(self, columns: Sequence[Any]) -> None:
        """Let arrays of NumPy, if some of these are such, be answered by the ufunc from now on.

        It is more code to compile, so there should have been arrays before. Where C functions are
        called it cannot be, as what the ufunc has no answer for is computed again.
        """
        loaded = numpy()
        if loaded is None or all(type(column) is not loaded.ndarray for column in columns):
            return
        function = None if self.function is None else self.function()
        self.function = None
        if function is not None and not self.formula.externs:
            with suppress(ExprError, MemoryError):
                function._answer_arrays()

    def key(self) -> tuple[object, ...]:
        """What makes a function equal to another."""
        return self.formula.key(), self.options

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of `compile` that it was made with, unless they are defaults."""
        default = Options()
        options = zip(Options._fields, self.options, default, strict=True)
        given = {name: value for name, value, usual in options if value != usual}
        return {**self.formula.options(), **given}

    def graph(self, fired: list[str] | None = None) -> Graph:
        """The simplified graph; `fired` takes the names of the rules that are applied."""
        try:
            return compiler.to_graph(self.formula, self.features, fired)
        except compiler.Unavailable as reason:
            raise ExprValueError(f"there is no graph: {reason}") from None

    def compiled(self) -> Any:
        """The code that calls run, made once more."""
        if self.code is None:
            raise ExprValueError(f"there is no machine code: {self.reason}")
        return compiler.to_code(self.formula, self.kernel, self.features)

    def asm(self) -> Asm:
        """The listing of the code that calls run."""
        from .x86.listing import asm

        encoded = self.compiled().encoded
        symbols = {extern.address: name for name, extern in self.formula.externs.items()}
        if self.kernel == "call":
            targets = compiler.targets()._asdict()
            symbols |= {at: name for name, at in targets.items() if at > 1 << 16}
        return asm(encoded, self.formula.source, symbols)

    def map(self, columns: Sequence[Any]) -> Any:
        """What a call gives for columns of many rows."""
        answer = self.over_plain("map", columns)
        return self.over_arrays("map", columns, {}, {}) if answer is NotImplemented else answer

    def over_plain(self, kernel: str, columns: Sequence[Any], where: Any = None) -> Any:
        """The same as `over_arrays` without other options, or NotImplemented (array_plain.py)."""
        plain, _ = _array_modules()
        key: object = kernel
        if where is not None:
            key, columns = plain.filtered(kernel, where, columns)
        call = self.plain.get(key)
        if call is not None:
            answer = call(*columns)
            if answer is not NotImplemented:
                return answer
        found = plain.plain_call(self, kernel, where, key, columns)
        if found is None or (found[0] is call and found[1] is columns):
            return NotImplemented
        other, columns = found
        return other(*columns)

    def over_arrays(
        self,
        kernel: str,
        columns: Sequence[Any],
        named: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """What the method called `kernel` gives for columns of many rows (arrays.py)."""
        return _array_modules()[1].answer(self, kernel, columns, named, options)

    def sweep(self, task: Task) -> Sweep:
        """What runs a task over the formula's rows."""
        key = task[1:] if task.formula is self.formula else task
        known = None if self.sweeps is None else self.sweeps.get(key)
        if known is None:
            from .array_code import sweep

            features = None if self.options.backend == "interpreter" else self.features
            made = sweep(task, features, self.options.verify)
            if self.sweeps is None or len(self.sweeps) >= _MOST_SWEEPS:
                self.sweeps = {}
            known = self.sweeps.setdefault(key, made)
        return known

    def keep_plain(self, key: object, types: object, call: Callable[..., Any]) -> None:
        """Remember what answers for plain arrays, of these types and first of all."""
        if self.plain.get(key) is not call:
            # Others may be looking at what is there.
            known = {} if len(self.plain) >= _MOST_SWEEPS else self.plain
            self.plain = {**known, key: call, types: call}

    def filter(self, text: str) -> Formula:
        """The formula of a filter of rows, which has the options of this one."""
        known = None if self.filters is None else self.filters.get(text)
        if known is None:
            f = self.formula
            made = Formula(text, None, f.overflow, f.constants, f.limits, "where", f.externs)
            if self.filters is None or len(self.filters) >= _MOST_SWEEPS:
                self.filters = {}
            known = self.filters.setdefault(text, made)
        return known

    def entry(self, kernel: str) -> int:
        """The address of other code of this formula, which lives as long as this object."""
        code = self.entries.get(kernel)
        if code is None:
            try:
                compiler.check_available()
                code = compiler.install(self.formula, kernel, self.features)
            except compiler.Unavailable as reason:
                raise ExprValueError(f"there is no machine code: {reason}") from None
            code = self.entries.setdefault(kernel, code)
        return code.address

    def dump(self, stage: str) -> str:
        """The text of a stage of compilation."""
        if stage == "ast":
            return str(self.formula.program())
        if stage == "graph":
            return str(self.graph())
        if stage == "rules":
            fired: list[str] = []
            self.graph(fired)
            return "\n".join(fired)
        if stage == "block":
            from .x86.block import dump

            return dump(self.compiled().block)
        if stage == "asm":
            return str(self.asm())
        code: bytes = self.compiled().encoded.code
        return code.hex(" ")


class _Runner:
    """The base of the type of `Body.runner`."""

    __slots__ = ()


@cache
def _runner_type() -> pycall.NativeType:
    return pycall.native_type("exprjit.Runner", _Runner, pycall.FIRST_FIELDS, "", ("arrays",))


class LazyBody(Body):
    """The body of a function that is interpreted once and compiled at its second call."""

    __slots__ = ("calls", "patience", "ready")

    def __init__(self, formula: Formula, options: Options, features: compiler.Features) -> None:
        reason = "lazy: it is compiled at the second call"
        super().__init__(formula, options, features, None, reason)
        # Just one of several threads has the second call, at least under Python's global lock.
        self.calls = count(1)
        #: After how many calls to try again when there was no machine code for the time being.
        self.patience = 1
        #: Given the entry when there is one.
        self.ready: Callable[[int], None] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            if next(self.calls) == 2:
                self._compile()
        except ExprError:
            raise
        except BaseException:
            # An interrupt: the next call does what this one should have done.
            self.calls = count(2)
            raise
        return super().__call__(*args, **kwargs)

    def _compile(self) -> None:
        """Give the function its machine code, if that can be had."""
        try:
            if self.code is None:
                compiler.check_available()
                code = compiler.install(self.formula, self.kernel, self.features)
                # The same for all threads: one may already be in it.
                self.code = self.entries.setdefault(self.kernel, code)
        except compiler.Unavailable as reason:
            if reason.passing:
                self.calls = count(2 - self.patience)
                self.patience *= 2
            self._go_without(str(reason))
        except ExprError as error:
            self._go_without(error.message)
        else:
            self.formula.forget_tree()
            self.reason = None
            if self.ready is not None:
                self.ready(self.code.address)

    def _go_without(self, reason: str) -> None:
        self.reason = reason
        if self.options.backend == "jit":
            raise JitUnavailableError(f"there is no machine code: {reason}") from None


@cache
def _array_modules() -> tuple[Any, Any]:
    # To import them each time would take as long as thousands of rows.
    from . import array_plain, array_run

    return array_plain, array_run

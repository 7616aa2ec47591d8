"""`compile()`, `evaluate()` and `Function`: what a user holds.

A function with machine code is an instance of a native type whose calls go straight into
that code (runtime/pycall.py); without, of a plain Python class that interprets.  Both have
`Function` for a base, which has everything that is not the call itself.  What a function
keeps is its formula and its code; trees, graphs and listings are made again when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import ref

from . import compiler
from .errors import (
    ExprError,
    ExprTypeError,
    ExprValueError,
    JitUnavailableError,
    VerificationError,
    shown,
)
from .formula import Formula
from .language.arguments import to_longs
from .language.ast import Program
from .runtime import pycall

if TYPE_CHECKING:
    from inspect import Signature

    from .ir.graph import Graph
    from .x86.listing import Asm

BACKENDS = ("auto", "jit", "interpreter")

#: What `Function.dump` can show, in the order of the passes.
STAGES = ("ast", "graph", "rules", "block", "asm", "hex")


class _ClassText:
    """An attribute that an instance computes and the class itself has as plain text."""

    def __init__(self, compute: Any, text: str | None) -> None:
        self.compute = compute
        self.text = text

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            return self.compute(instance)
        if self.text is None:
            raise AttributeError("only instances have this attribute")
        return self.text


class Function:
    __slots__ = ()

    if TYPE_CHECKING:
        # At run time each subclass has its own; a __call__ here would slow down native calls.
        def __call__(self, /, *args: Any, **kwargs: Any) -> int: ...

    def __new__(cls, *args: Any) -> Function:
        if cls is Function:
            raise TypeError("functions are made by exprjit.compile()")
        return super().__new__(cls)

    @property
    def _body(self) -> Body:
        raise AssertionError("only the subclasses have instances")

    @property
    def source(self) -> str:
        """The text that was compiled."""
        return self._body.formula.source

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the parameters in order."""
        return self._body.formula.params

    @property
    def overflow(self) -> str:
        """The overflow mode, "wrap" or "raise"."""
        return self._body.formula.overflow

    @property
    def constants(self) -> dict[str, int]:
        """The named constants that the text was compiled with."""
        return dict(self._body.formula.constants)

    @property
    def formula(self) -> Formula:
        """Source and options: all that the function was made from."""
        return self._body.formula

    @property
    def engine(self) -> str:
        """What answers calls: "jit" or "interpreter"."""
        return "interpreter" if self._body.code is None else "jit"

    @property
    def why_not_jit(self) -> str | None:
        """Why calls are interpreted, or None if they are not."""
        return self._body.reason

    @property
    def total(self) -> bool:
        """Whether nothing in the formula can fail, whatever the arguments."""
        return not self.graph.bails

    @property
    def ast(self) -> Program:
        """The syntax tree; `str()` of it is its dump."""
        return self._body.formula.program()

    @property
    def graph(self) -> Graph:
        """The simplified graph; `str()` of it is its dump."""
        return self._body.graph()

    @property
    def asm(self) -> Asm:
        """The machine code that a call runs, line by line; `str()` of it is the listing.

        Raises ExprValueError if calls are interpreted.
        """
        return self._body.asm()

    @property
    def code(self) -> bytes:
        """The bytes of the machine code that a call runs.

        Raises ExprValueError if calls are interpreted.
        """
        code: bytes = self._body.python_call().encoded.code
        return code

    @property
    def address(self) -> int:
        """The address of ``long f(long, ...)`` (System V), for C; good while the function lives.

        Raises ExprValueError if the formula can fail (see `total`) or there is no machine code.
        """
        bails = self.graph.bails
        if bails:
            raise ExprValueError(
                "there is no plain C function of a formula that can fail; use checked_address",
                self.source,
                *(bails[0].span or (0, 0)),
            )
        return self._body.entry("address")

    @property
    def checked_address(self) -> int:
        """The address of ``int f(long *result, long, ...)`` (System V); good while it lives.

        It gives 0 and stores the answer, or gives 1 where a call would raise.
        Raises ExprValueError if there is no machine code.
        """
        return self._body.entry("checked_address")

    def dump(self, *stages: str) -> str:
        """The function at one or more stages of compilation, as text.

        stages: of "ast", "graph", "rules" (those that were applied), "block", "asm", "hex";
        without any, the graph.  Raises ExprValueError for any other.
        """
        for stage in stages:
            if stage not in STAGES:
                raise ExprValueError(f"no stage is called {shown(stage)}; there are {STAGES}")
        return "\n".join(self._body.dump(stage) for stage in stages or ("graph",))

    # Nothing about a function can change, so it is its own copy, as a Python function is.
    def __copy__(self) -> Function:
        return self

    def __deepcopy__(self, memo: object) -> Function:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a compiled function cannot be pickled; its source can")

    @property
    def __name__(self) -> str:
        return self._body.formula.name

    def __repr__(self) -> str:
        source = self.source if len(self.source) <= 60 else self.source[:57] + "..."
        mode = "" if self.overflow == "wrap" else f", overflow={self.overflow!r}"
        parameters = ", ".join(self.params)
        return f"<exprjit.Function {self.__name__}({parameters}) {source!r}{mode}, {self.engine}>"


def _doc(function: Function) -> str:
    mode = "" if function.overflow == "wrap" else "\n\nA result outside 64 bits is an error."
    return f"{function.__name__}({', '.join(function.params)}) = {function.source}{mode}"


def _signature(function: Function) -> Signature:
    from inspect import Parameter, Signature

    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(name, kind, annotation=int) for name in function.params]
    return Signature(parameters, return_annotation=int)


_DOC = _ClassText(
    _doc,
    "A compiled formula: call it with ints, positionally or by name.  Made by exprjit.compile.",
)

# In the class body these would break what the class itself says of itself.
Function.__doc__ = _DOC  # type: ignore[assignment]
Function.__signature__ = _ClassText(_signature, None)  # type: ignore[attr-defined]


class Body:
    """What stands behind a function: its formula, its code, and what answers unusual calls.

    formula: source and options.  features: the CPU that the code is for.  code: what runs
    when it is called, or None.  reason: why there is none, or None.  entries: further code
    by attribute, made when asked for.
    """

    __slots__ = ("code", "entries", "features", "formula", "reason")

    def __init__(
        self,
        formula: Formula,
        features: compiler.Features,
        code: compiler.Installed | None,
        reason: str | None,
    ) -> None:
        self.formula = formula
        self.features = features
        self.code = code
        self.reason = reason
        self.entries: dict[str, compiler.Installed] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        """Answer a call that the machine code handed over: keywords, wrong counts or types."""
        formula = self.formula
        values = to_longs(formula.params, formula.bind(args, kwargs))
        if self.code is None:
            return formula.interpret(*values)
        # Nothing is unusual now, so whatever instance runs this code will not come back here.
        answer: int = _native_type().new(self.code.address, None, formula.interpret)(*values)
        return answer

    def graph(self, fired: list[str] | None = None) -> Graph:
        """The simplified graph; `fired` takes the names of the rules that are applied."""
        try:
            return compiler.to_graph(self.formula, self.features, fired)
        except compiler.Unavailable as reason:
            raise ExprValueError(f"there is no graph: {reason}") from None

    def python_call(self) -> Any:
        if self.code is None:
            raise ExprValueError(f"there is no machine code: {self.reason}")
        return compiler.to_code(self.formula, "call", self.features)

    def asm(self) -> Asm:
        from .x86.listing import asm

        encoded = self.python_call().encoded
        targets = compiler.targets()
        symbols = {
            address: name for name, address in targets._asdict().items() if address > 1 << 16
        }
        return asm(encoded, self.formula.source, symbols)

    def entry(self, kernel: str) -> int:
        """The address of other code of this formula, which lives as long as this object."""
        if self.entries is None:
            self.entries = {}
        code = self.entries.get(kernel)
        if code is None:
            try:
                code = compiler.install(self.formula, kernel, self.features)
            except compiler.Unavailable as reason:
                raise ExprValueError(f"there is no machine code: {reason}") from None
            code = self.entries.setdefault(kernel, code)
        return code.address

    def dump(self, stage: str) -> str:
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

            return dump(self.python_call().block)
        if stage == "asm":
            return str(self.asm())
        code: bytes = self.python_call().encoded.code
        return code.hex(" ")


class _Native(Function):
    """The base of the native type; its instances have the fields "slow" and "bail"."""

    __slots__ = ()

    if TYPE_CHECKING:
        slow: Body

    @property
    def _body(self) -> Body:
        return self.slow


@cache
def _native_type() -> pycall.NativeType:
    """The type of functions with machine code.

    Raises PyCallError where Python cannot have it.
    """
    made = pycall.native_type("exprjit.Function", _Native, pycall.FIRST_FIELDS, "")
    made.type.__doc__ = _DOC  # type: ignore[assignment]
    return made


class InterpretedFunction(Function):
    """A function that has no machine code, for the reason in `why_not_jit`."""

    __slots__ = ("__weakref__", "_body")

    def __init__(self, body: Body) -> None:
        self._body = body  # type: ignore[misc]

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        return self._body.formula.call(args, kwargs)


class VerifiedFunction(InterpretedFunction):
    """A function with machine code each of whose calls is interpreted as well, and compared."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        formula = self._body.formula
        values = to_longs(formula.params, formula.bind(args, kwargs))
        wanted = _outcome(formula.interpret, values)
        got = _outcome(self._body, values)
        if str(wanted) != str(got) or type(wanted) is not type(got):
            raise VerificationError(
                f"for {dict(zip(formula.params, values, strict=True))} the interpreter gives "
                f"{wanted!r} and the machine code {got!r}; please report this",
                formula.source,
            )
        if isinstance(wanted, ExprError):
            raise wanted
        return wanted


# Every class has a `__doc__` of its own, which would hide the inherited one.
for _class in (InterpretedFunction, VerifiedFunction):
    _class.__doc__ = _DOC  # type: ignore[assignment]


def _outcome(function: Any, values: Sequence[int]) -> int | ExprError:
    try:
        answer: int = function(*values)
        return answer
    except ExprError as error:
        return error


class _Lazy(Body):
    """The body of a function that is interpreted once and compiled at its second call."""

    __slots__ = ("calls", "function", "required")

    def __init__(self, formula: Formula, features: compiler.Features, required: bool) -> None:
        super().__init__(formula, features, None, "lazy: it is compiled at the second call")
        # A step of `count` cannot be divided, so just one of several threads has the second call.
        self.calls = count(1)
        #: Whether calls fail where there is no machine code, rather than be interpreted.
        self.required = required
        self.function: ref[Any] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> int:
        if next(self.calls) == 2:
            self.compile()
        return super().__call__(*args, **kwargs)

    def compile(self) -> None:
        """Give the function its machine code, if that can be had."""
        try:
            self.code = compiler.install(self.formula, "call", self.features)
        except (compiler.Unavailable, ExprError) as error:
            self.reason = error.message if isinstance(error, ExprError) else str(error)
            if self.required:
                raise JitUnavailableError(f"there is no machine code: {self.reason}") from None
            return
        self.formula.forget_tree()
        self.reason = None
        function = None if self.function is None else self.function()
        if function is not None:
            _native_type().set_entry(function, self.code.address)


def compile(
    source: str,
    params: Sequence[str] | None = None,
    *,
    backend: str = "auto",
    overflow: str = "wrap",
    constants: Mapping[str, int] | None = None,
    externs: Mapping[str, Any] | None = None,
    limits: object = None,
    hardening: str = "default",
    verify: bool = False,
    lazy: bool = False,
    name: str | None = None,
) -> Function:
    """Compile a formula to a function of 64-bit ints.

    source: a program of the language.
    params: the parameters' names in order; by default the free names in order of first
        appearance.
    backend: "auto" compiles to machine code and interprets where there can be none; "jit"
        raises JitUnavailableError there; "interpreter" never compiles.
    overflow: "wrap" computes modulo 2**64; "raise" makes an error of a result outside 64 bits.
    constants: ints by name, known when compiling.
    externs: C functions by name; none can be given yet.
    limits: bounds on the program's size: None, "untrusted", a dict of fields or `Limits`.
    hardening: "default" is the only choice.
    verify: interpret every call as well and raise VerificationError if the answers differ.
    lazy: interpret the first call and compile at the second.
    name: the function's `__name__`, which its TypeErrors begin with.

    Raises an ExprError: for the text SyntaxError, NameError, OverflowError, TypeError and
    ExprLimitError with their place; for options TypeError and ValueError.
    """
    if backend not in BACKENDS:
        raise ExprValueError(f"backend must be one of {BACKENDS}, not {shown(backend)}")
    if hardening != "default":
        raise ExprValueError(f'hardening must be "default", not {shown(hardening)}')
    if externs is not None and (externs or not isinstance(externs, Mapping)):
        raise ExprTypeError("externs are not supported in this version")
    formula = Formula(source, params, overflow, constants, limits, name)
    features = compiler.features()
    if backend == "interpreter":
        return InterpretedFunction(
            Body(formula, features, None, 'backend="interpreter" was asked for')
        )
    try:
        return _with_machine_code(formula, features, backend, verify, lazy)
    except (compiler.Unavailable, pycall.PyCallError) as error:
        reason = str(error)
    if backend == "jit":
        raise JitUnavailableError(f"there is no machine code: {reason}")
    return InterpretedFunction(Body(formula, features, None, reason))


def _with_machine_code(
    formula: Formula, features: compiler.Features, backend: str, verify: bool, lazy: bool
) -> Function:
    compiler.check_available()
    if lazy and not verify:
        entry = compiler.targets().slow
        waiting = _Lazy(formula, features, backend == "jit")
        function: Function = _native_type().new(entry, waiting, formula.interpret)
        waiting.function = ref(function)
        return function
    code = compiler.install(formula, "call", features)
    formula.forget_tree()
    body = Body(formula, features, code, None)
    if verify:
        return VerifiedFunction(body)
    made: Function = _native_type().new(code.address, body, formula.interpret)
    return made


def evaluate(source: str, names: Mapping[str, Any] | None = None, /, **named: Any) -> int:
    """The value of a program, once, by the interpreter: nothing is compiled.

    names: values by name, of which only those that the program uses are looked at; named:
    further values, all of which must be used, and which come before those in `names`.
    Raises what compiling and calling raise.
    """
    if names is not None and not isinstance(names, Mapping):
        raise ExprTypeError(f"the values are a dict by name, not {shown(names)}")
    formula = Formula(source)
    values = {} if names is None else {k: names[k] for k in formula.params if k in names}
    return formula.call((), {**values, **named})

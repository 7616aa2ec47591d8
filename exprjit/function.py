"""`compile()`, `evaluate()` and `Function`: what a user holds.

A function with machine code is an instance of a native type whose calls go straight into
that code (runtime/pycall.py), or where this Python cannot have such a type, of a plain class
that calls it through ctypes; without machine code, of a plain class that interprets.  All
have `Function` for a base, which has everything that is not the call itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import ref

from . import compiler
from .arrays import ArrayMethods
from .body import Body, LazyBody, Options
from .cache import Cache, CacheInfo
from .errors import (
    ExprError,
    ExprTypeError,
    ExprValueError,
    JitUnavailableError,
    VerificationError,
    shown,
)
from .formula import Formula, forget_trees
from .inspection import STAGES, doc, signature
from .language.arguments import to_longs
from .language.externs import check_externs
from .language.limits import limits_from
from .language.names import check_constants, check_params
from .runtime import buffercall, pycall
from .runtime.columns import is_columnar
from .runtime.numpy_fields import array_fields

__all__ = ["BACKENDS", "STAGES", "Function", "cache_clear", "cache_info", "compile", "evaluate"]

BACKENDS = ("auto", "jit", "interpreter")


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


class Function(ArrayMethods):
    __slots__ = ()

    if TYPE_CHECKING:
        # At run time each subclass has its own; a __call__ here would slow down native calls.
        def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

    def __new__(cls, *args: Any) -> Function:
        if cls is Function:
            raise TypeError("functions are made by exprjit.compile()")
        return super().__new__(cls)

    def bind(self, /, **values: int) -> Function:
        """The function of the remaining parameters, compiled with these values as constants.

        Raises ExprTypeError for a name that is no parameter, and what a call raises for values.
        """
        body = self._body
        return compile(self.source, **{**body.keywords(), **body.formula.partly_bound(values)})

    @property
    def ufunc(self) -> Any:
        """The formula as a `numpy.ufunc` of int64, the same as long as the function lives.

        It can do what NumPy's own can: broadcasting, `out=`, `where=`, `reduce`, `accumulate`,
        `reduceat`, `outer`, `at`; and pandas, Polars, xarray and Dask take it. Each call runs in
        one thread. It outlives the function, and is pickled by source and options.

        A row that fails raises its error; what `out` holds then is unspecified. Where there is no
        machine code, the results are arrays of objects.

        Raises ExprValueError for a formula with no parameters, or with more than NumPy allows (63;
        31 before NumPy 2), and ModuleNotFoundError without NumPy.
        """
        from .ufuncs import make_ufunc

        body = self._body
        if body.ufunc is None:
            made = make_ufunc(body, _restored_ufunc)
            # Another thread may have been as quick.
            if body.ufunc is None:
                body.ufunc = made
        return body.ufunc

    # Nothing about a function can change, so it is its own copy, as a Python function is.
    def __copy__(self) -> Function:
        return self

    def __deepcopy__(self, memo: object) -> Function:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        body = self._body
        body.formula.check_portable()
        return _restored, (self.source, body.keywords())

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """What Dask names collections by: equal for equal functions, in all processes."""
        keywords = self._body.keywords()
        return "exprjit.Function", self.source, tuple(sorted(map(repr, keywords.items())))


def _restored(source: str, keywords: dict[str, Any]) -> Function:
    """A function that was pickled."""
    return compile(source, **keywords)


Body.restored = staticmethod(_restored)


def _restored_ufunc(source: str, keywords: dict[str, Any]) -> Any:
    """A ufunc that was pickled."""
    return compile(source, **keywords).ufunc


_DOC = _ClassText(
    doc,
    "A compiled formula: call it with ints, positionally or by name.  Made by exprjit.compile.",
)

# In the class body these would break what the class itself says of itself.
Function.__doc__ = _DOC  # type: ignore[assignment]
Function.__signature__ = _ClassText(signature, None)  # type: ignore[attr-defined]


class _Native(Function):
    """The base of the native type; its instances have the fields "slow", "bail" and "arrays"."""

    __slots__ = ()

    if TYPE_CHECKING:
        slow: Body

    @property
    def _body(self) -> Body:
        return self.slow

    def _answer_arrays(self) -> None:
        """Let calls with NumPy's arrays go straight to the ufunc, if that is machine code."""
        native, ufunc = native_type(), self.ufunc
        is_code = "O" not in ufunc.types[0] and array_fields() is not None
        if is_code and not isinstance(native, str):
            native.set_field(self, "arrays", ufunc)


@cache
def native_type() -> pycall.NativeType | str:
    """The type of natively called functions, or why there can be none.

    Raises PyCallError where there is none now.
    """
    try:
        fields = pycall.FIRST_FIELDS
        made = pycall.native_type("exprjit.Function", _Native, fields, "", ("arrays",))
    except pycall.PyCallError as error:
        if error.passing:
            raise
        return str(error)
    made.type.__doc__ = _DOC  # type: ignore[assignment]
    return made


class _Plain(Function):
    """The base of functions that are plain Python objects."""

    __slots__ = ("__weakref__", "_body")

    def __init__(self, body: Body) -> None:
        self._body = body  # type: ignore[misc]


class InterpretedFunction(_Plain):
    """A function that has no machine code, for the reason in `why_not_jit`."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._body(*args, **kwargs)


class BufferFunction(_Plain):
    """A function whose machine code is called through ctypes (runtime/buffercall.py)."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        body = self._body
        formula, code = body.formula, body.code
        assert code is not None
        bound = body.bound(args, kwargs)
        if any(map(is_columnar, bound)):
            return body.map(bound)
        values = to_longs(formula.params, bound)
        result, returned = buffercall.run(code.address, values, code.log)
        return formula.interpret(*values, *returned) if result is None else result


class VerifiedFunction(_Plain):
    """A function with machine code each of whose calls is interpreted as well, and compared.

    C functions are called by the machine code; the interpreter is given what they returned.
    """

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        body = self._body
        formula, code = body.formula, body.code
        assert code is not None
        bound = body.bound(args, kwargs)
        if any(map(is_columnar, bound)):
            return body.map(bound)
        values = to_longs(formula.params, bound)
        got, returned = buffercall.run(code.address, values, code.log)
        try:
            wanted = formula.interpret(*values, *returned)
        except ExprError as error:
            if got is None:
                raise
            answer = repr(error)
        else:
            if got == wanted:
                return wanted
            answer = str(wanted)
        raise VerificationError(
            f"for {dict(zip(formula.params, values, strict=True))} the interpreter gives {answer} "
            f"and the machine code {'no answer' if got is None else got}; please report this",
            formula.source,
        )


# Every class has a `__doc__` of its own, which would hide the inherited one.
for _class in (InterpretedFunction, BufferFunction, VerifiedFunction):
    _class.__doc__ = _DOC  # type: ignore[assignment]


#: Functions that were compiled before, by all that they were compiled from.  They weigh what
#: their sources do: a function's memory grows with that.
_cache: Cache[Function] = Cache(maxsize=1_000, most=1_000_000)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cache.after_fork_in_child)


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
    externs: C functions by name: ctypes functions that declare their types, or what `extern`
        made of them.
    limits: bounds on the program's size: None, "untrusted", a dict of fields or `Limits`.
    hardening: "default" is the only choice.
    verify: interpret every call as well and raise VerificationError if the answers differ.
    lazy: interpret the first call and compile at the second.
    name: the function's `__name__`, which its TypeErrors begin with.

    What was compiled lately is kept: the same source with the same options gives the same
    function again, at the cost of a look-up.

    Raises an ExprError: for the text SyntaxError, NameError, OverflowError, TypeError and
    ExprLimitError with their place; for options TypeError and ValueError.
    """
    if backend not in BACKENDS:
        raise ExprValueError(f"backend must be one of {BACKENDS}, not {shown(backend)}")
    if hardening != "default":
        raise ExprValueError(f'hardening must be "default", not {shown(hardening)}')
    options = Options(backend, hardening, bool(verify), bool(lazy))
    settings = compiler.settings()
    params = check_params(params)
    constants = check_constants(constants)
    externs = check_externs(externs)
    limits = limits_from(limits)
    named = frozenset(constants.items()), frozenset(externs.items())
    key = source, params, overflow, named, limits, name, options, settings
    try:
        known = _cache.get(key)
    except TypeError:
        known = None  # What cannot be hashed is an error, which is about to be told.
    if known is not None:
        return known
    formula = Formula(source, params, overflow, constants, limits, name, externs)
    function, lasting = compiled(formula, options, settings)
    return _cache.add(key, function, len(source)) if lasting else function


def compiled(
    formula: Formula, options: Options, settings: compiler.Settings
) -> tuple[Function, bool]:
    """The function of a formula, and whether it would be the same at another time.

    Raises JitUnavailableError if the options insist on machine code and there is none.
    """
    if options.backend == "interpreter":
        reason = 'backend="interpreter" was asked for'
        body = Body(formula, options, settings.features, None, reason)
        return InterpretedFunction(body), True
    try:
        return _with_machine_code(formula, options, settings), True
    except (compiler.Unavailable, pycall.PyCallError) as error:
        if options.backend == "jit":
            raise JitUnavailableError(f"there is no machine code: {error}") from None
        body = Body(formula, options, settings.features, None, str(error))
        return InterpretedFunction(body), not error.passing


def _with_machine_code(formula: Formula, options: Options, settings: compiler.Settings) -> Function:
    """Raises Unavailable and PyCallError where there is none."""
    compiler.check_available()
    features = settings.features
    native = native_type() if settings.call != "ctypes" else "EXPRJIT_CALL=ctypes"
    if isinstance(native, str) or options.verify:
        if settings.call == "vectorcall" and isinstance(native, str):
            raise compiler.Unavailable(f"EXPRJIT_CALL=vectorcall: {native}")
        code = compiler.install(formula, "buffer", features)
        body = Body(formula, options, features, code, None, "buffer")
        if options.verify:
            return VerifiedFunction(body)
        formula.forget_tree()
        return BufferFunction(body)
    function: Function
    if options.lazy:
        waiting = LazyBody(formula, options, features)
        function = native.new(compiler.targets().slow, waiting, formula.interpret)
        waiting.ready = _switch(native, function)
        return function
    code = compiler.install(formula, "call", features)
    formula.forget_tree()
    body = Body(formula, options, features, code, None)
    function = native.new(code.address, body, formula.interpret)
    body.function = ref(function)
    return function


def _switch(native: pycall.NativeType, function: Function) -> Callable[[int], None]:
    """What lets another entry answer the calls of `function`, while that lives."""
    alive = ref(function)

    def switch(entry: int) -> None:
        function = alive()
        if function is not None:
            native.set_entry(function, entry)

    return switch


def cache_info() -> CacheInfo:
    """What the cache of compiled functions did and holds: hits, misses, maxsize, currsize."""
    return _cache.info()


def cache_clear() -> None:
    """Empty the cache of compiled functions; those that are in use elsewhere live on."""
    _cache.clear()
    forget_trees()


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

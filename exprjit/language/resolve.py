"""Names: what each one refers to, the parameters in order, and the program's expanded size.

One walk in the order of the text, before anything is expanded or run.  Functions and
variables are two namespaces.  A name among constants, parameters and bindings means one
thing in the whole program; only the formals of a definition shadow.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from ..errors import ExprError, ExprLimitError, ExprNameError, ExprTypeError, closest, quoted
from .ast import Binding, Call, Definition, Name, Node, Program, Statement
from .externs import Extern
from .limits import Limits
from .operators import FUNCTIONS
from .parser import Parsed
from .syntax_errors import arity_error, reserved_word


def resolve(
    source: str,
    parsed: Parsed,
    params: Sequence[str] | None,
    constants: dict[str, int],
    externs: Mapping[str, Extern],
    limits: Limits,
) -> Program:
    """The program of a parsed text.

    params: the parameters' names in order, or None for the free names in order of first
    appearance; constants: values of names; externs: C functions by name.
    Raises ExprNameError, ExprTypeError (a call's argument count) and ExprLimitError.
    """
    for name in params or ():
        if name in constants:
            raise ExprNameError(f"{quoted(name)} is both a constant and a parameter")
    for name in externs:
        if name in constants or name in (params or ()):
            other = "a constant" if name in constants else "a parameter"
            raise ExprNameError(f"{quoted(name)} is both an extern and {other}")
    resolver = _Resolver(parsed.statements, params, constants, externs, limits.nodes)
    try:
        for statement in parsed.statements:
            resolver.statement(statement)
        resolver.evaluated(parsed.result)
    except ExprError as error:
        raise error.locate(source) from None
    names = tuple(resolver.free) if params is None else tuple(params)
    return Program(source, parsed.statements, parsed.result, names, constants, resolver.size)


class _Resolver:
    def __init__(
        self,
        statements: Sequence[Statement],
        params: Sequence[str] | None,
        constants: dict[str, int],
        externs: Mapping[str, Extern],
        most_nodes: int,
    ) -> None:
        self.statements = statements
        self.externs = externs
        self.params = None if params is None else dict.fromkeys(params)
        self.constants = constants
        self.bindings: dict[str, Binding] = {}
        self.definitions: dict[str, Definition] = {}
        #: Free names in order of first appearance, with where that is.
        self.free: dict[str, Name] = {}
        #: Whether an extern that may have effects was called since this was last cleared.
        self.effects = False
        #: Nodes with every call expanded, of which there may be `most_nodes`.
        self.size = 0
        self.most_nodes = most_nodes

    def evaluated(self, root: Node) -> None:
        """Resolve a binding's value or the result, and count its nodes."""
        self.size += self.expression(root, frozenset())
        if self.size > self.most_nodes:
            # The number may have more digits than Python converts to text.
            size = f"{self.size:,}" if self.size < 1 << 64 else "more than 2**64"
            raise ExprLimitError(
                f"with every call expanded the program has {size} nodes here; "
                f"at most {self.most_nodes:,} are allowed",
                None,
                root.start,
                root.end,
            )

    def statement(self, statement: Statement) -> None:
        start, end = statement.start, statement.start + len(statement.name)
        if keyword.iskeyword(statement.name):
            raise reserved_word(statement.name, start, end)
        if isinstance(statement, Binding):
            self.evaluated(statement.value)
            self._check_unbound(statement.name, start, end)
            self.bindings[statement.name] = statement
        else:
            self._define(statement, start, end)

    def _check_unbound(self, name: str, start: int, end: int) -> None:
        hint = None
        if name in self.bindings:
            message = f"{quoted(name)} is bound twice"
            hint = "a name is bound once; choose another"
        elif name in self.constants:
            message = f"{quoted(name)} is already a constant"
        elif name in self.externs:
            message = f"{quoted(name)} is already an extern"
        elif self.params is not None and name in self.params:
            message = f"{quoted(name)} is already a parameter"
        elif name in self.free:
            message = f"{quoted(name)} is bound here but was used before"
            hint = "a name is bound before its first use"
        else:
            return
        raise ExprNameError(message, None, start, end, hint)

    def _define(self, definition: Definition, start: int, end: int) -> None:
        name = definition.name
        if name in self.definitions:
            raise ExprNameError(f"the function {quoted(name)} is defined twice", None, start, end)
        if name in self.externs:
            raise ExprNameError(f"{quoted(name)} is already an extern", None, start, end)
        formals: set[str] = set()
        for formal in definition.formals:
            if keyword.iskeyword(formal.name):
                raise reserved_word(formal.name, formal.start, formal.end)
            if formal.name in formals:
                raise ExprNameError(
                    f"the formal {quoted(formal.name)} is listed twice",
                    None,
                    formal.start,
                    formal.end,
                )
            formals.add(formal.name)
        self.effects = False
        definition.size = self.expression(definition.body, frozenset(formals))
        definition.effects = self.effects
        self.definitions[name] = definition

    def expression(self, root: Node, formals: frozenset[str]) -> int:
        """Resolve every name below `root`; the number of nodes with calls expanded."""
        size = 0
        work = [root]
        while work:
            node = work.pop()
            size += 1
            if type(node) is Name:
                self._name(node, formals)
                continue
            if type(node) is Call:
                size += self._call(node)
            parts = node.parts
            if parts:
                work.extend(parts[::-1])
        return size

    def _name(self, node: Name, formals: frozenset[str]) -> None:
        name = node.name
        if name in formals:
            node.formal = True
        elif name in self.free or name in self.bindings or name in self.constants:
            pass
        elif keyword.iskeyword(name):
            raise reserved_word(name, node.start, node.end)
        else:
            if self.params is not None and name not in self.params:
                known = (*self.params, *self.constants, *self.bindings, *formals)
                hint = _guess(name, known) or "it is not among the names in params="
                message = f"unknown name {quoted(name)}"
                error = ExprNameError(message, None, node.start, node.end, hint)
                error.unknown = name
                raise error
            if name in self.externs:
                message = f"{quoted(name)} is an extern, not a variable"
                hint = f"call it: `{name}(...)`"
                raise ExprNameError(message, None, node.start, node.end, hint)
            self.free[name] = node

    def _call(self, node: Call) -> int:
        """Link a call to its definition or extern; the nodes that expanding it adds."""
        definition = self.definitions.get(node.name)
        extern = self.externs.get(node.name)
        if extern is not None:
            wanted = len(extern.casts)
        elif definition is not None:
            wanted = len(definition.formals)
        else:
            raise self._unknown_function(node)
        given = len(node.arguments)
        if given != wanted:
            plural = "" if wanted == 1 else "s"
            name = quoted(node.name)[1:-1]
            raise ExprTypeError(
                f"{name}() takes {wanted} argument{plural}, not {given}", None, node.start, node.end
            )
        if extern is not None:
            node.extern = extern
            self.effects |= not extern.pure
            return 0
        assert definition is not None
        node.definition = definition
        self.effects |= definition.effects
        return definition.size

    def _unknown_function(self, node: Call) -> ExprError:
        name, start, end = node.name, node.start, node.name_end
        if name in FUNCTIONS:
            return arity_error(FUNCTIONS[name], len(node.arguments), start, node.end)
        if keyword.iskeyword(name):
            return reserved_word(name, start, end)
        message = f"unknown function {quoted(name)}"
        for other in self.statements:
            if isinstance(other, Definition) and other.name == name:
                if other.start <= start < other.end:
                    message = f"{quoted(name)} is defined in terms of itself"
                    hint = "there is no recursion: every formula ends"
                else:
                    message = f"the function {quoted(name)} is used before it is defined"
                    hint = "a function is defined before its first use"
                return ExprNameError(message, None, start, end, hint)
        guess = _guess(name, (*FUNCTIONS, *self.externs, *self.definitions))
        if guess is None and name in (*self.constants, *self.bindings, *(self.params or self.free)):
            guess = "this is a variable; multiplication is written with `*`"
        hint = guess or "a function is defined before its first use: `f(v) = v * v;`"
        return ExprNameError(message, None, start, end, hint)


def _guess(name: str, known: Iterable[str]) -> str | None:
    """The hint that `name` is a misspelling of one of `known`, or None."""
    # Of what a stranger's program binds, not too many.
    close = closest(name, islice(known, 1000))
    return None if close is None else f"did you mean '{close}'?"

"""A formula: a source text with the options that give it its meaning.

Everything else about a function (tree, graph, machine code) can be derived from this
again, so this is what a `Function` keeps, what travels between processes, and what the
interpreter is given when machine code hands over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .cache import Cache
from .errors import ExprTypeError, ExprValueError, quoted, shown
from .language.arguments import bind_arguments, to_long, to_longs
from .language.ast import Program
from .language.externs import check_externs
from .language.interpreter import interpret
from .language.limits import DEFAULT, limits_from
from .language.names import check_constants, check_params
from .language.operators import OVERFLOW_MODES
from .language.parser import parse
from .language.resolve import resolve

DEFAULT_NAME = "f"

#: The trees of formulas that forgot theirs and were asked for it last, such as those whose calls
#: fail again and again.
_trees: Cache[Program] = Cache(maxsize=16, most=1_000_000)
forget_trees = _trees.clear
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_trees.after_fork_in_child)


class Formula:
    """Source and options, checked; parameters known.

    Attributes: source, params (tuple of names), overflow ("wrap" or "raise"), constants
    (dict of ints), limits, name, externs (dict of `Extern`).

    Formulas are equal where all these are, and can be pickled unless they have externs.
    """

    __slots__ = (
        "_listed",
        "_tree",
        "constants",
        "externs",
        "limits",
        "name",
        "overflow",
        "params",
        "source",
    )

    def __init__(
        self,
        source: str,
        params: Sequence[str] | None = None,
        overflow: str = "wrap",
        constants: Mapping[str, int] | None = None,
        limits: object = None,
        name: str | None = None,
        externs: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the options and the text.

        Raises the ExprError of the first thing that is wrong.
        """
        if not isinstance(source, str):
            raise ExprTypeError(f"a formula is a str, not {type(source).__name__}")
        if overflow not in OVERFLOW_MODES:
            raise ExprValueError(f'overflow must be "wrap" or "raise", not {shown(overflow)}')
        if name is not None and not isinstance(name, str):
            raise ExprTypeError(f"name must be a str, not {type(name).__name__}")
        self.source = source
        self._listed = check_params(params)
        self.overflow = overflow
        self.constants = check_constants(constants)
        self.externs = check_externs(externs)
        self.limits = limits_from(limits)
        self.name = DEFAULT_NAME if name is None else name
        self._tree: Program | None = self._parse()
        self.params = self._tree.params
        if self._listed is not None:
            self._listed = self.params

    def _parse(self) -> Program:
        parsed = parse(self.source, self.limits)
        return resolve(self.source, parsed, self._listed, self.constants, self.externs, self.limits)

    def program(self) -> Program:
        """The syntax tree, names resolved."""
        tree = self._tree
        if tree is None:
            key = self.key()
            tree = _trees.get(key) or _trees.add(key, self._parse(), len(self.source))
        return tree

    def forget_tree(self) -> None:
        """Drop the syntax tree, which is many times the source's size: it can be had again."""
        self._tree = None

    # As a value. ---------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `compile` that it was made with, unless they are defaults."""
        given: dict[str, Any] = {}
        if self._listed is not None:
            given["params"] = self._listed
        if self.overflow != OVERFLOW_MODES[0]:
            given["overflow"] = self.overflow
        if self.constants:
            given["constants"] = self.constants
        if self.externs:
            given["externs"] = self.externs
        if self.limits != DEFAULT:
            given["limits"] = self.limits._asdict()
        if self.name != DEFAULT_NAME:
            given["name"] = self.name
        return given

    def key(self) -> tuple[Any, ...]:
        """What makes it equal to another."""
        return (
            self.source,
            self.params,
            self.overflow,
            frozenset(self.constants.items()),
            frozenset(self.externs.items()),
            self.limits,
            self.name,
        )

    def __eq__(self, other: object) -> bool:
        return self.key() == other.key() if isinstance(other, Formula) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key())

    def __copy__(self) -> Formula:
        return self

    def __deepcopy__(self, memo: object) -> Formula:
        return self

    def check_portable(self) -> None:
        """Raise TypeError if it cannot be given to another process."""
        if self.externs:
            names = ", ".join(map(quoted, self.externs))
            raise TypeError(
                f"a formula that calls C functions ({names}) cannot be pickled: their addresses "
                "mean nothing in another process"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_portable()
        return _restored, (self.source, self.options())

    # As a function. ------------------------------------------------------------------------

    def bind(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        """The values of a call in the order of the parameters.

        Raises ExprTypeError where a Python function would raise TypeError.
        """
        return bind_arguments(self.name, self.params, positional, keywords)

    def partly_bound(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `compile` for the formula with some parameters fixed.

        They become constants; the rest keep their order.  Raises ExprTypeError for a name
        that is no parameter, and what a call raises for values.
        """
        fixed = {}
        for name, value in values.items():
            if name not in self.params:
                raise ExprTypeError(
                    f"{self.name}.bind() got an unexpected keyword argument {quoted(name)}"
                )
            fixed[name] = to_long(value, f"the argument {quoted(name)}")
        rest = tuple(name for name in self.params if name not in fixed)
        return {**self.options(), "params": rest, "constants": {**self.constants, **fixed}}

    def call(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> int:
        """What a call with these arguments gives, by the interpreter.

        Raises what the call raises.
        """
        return self.interpret(*to_longs(self.params, self.bind(positional, keywords)))

    def interpret(self, *values: int) -> int:
        """The value for 64-bit ints, one per parameter, by the interpreter.

        More values are results of the C functions that were called already, in the order of
        the calls: they are used instead of calling again.
        """
        count = len(self.params)
        return self.replay(values[:count], values[count:])

    def replay(self, values: Sequence[int], returned: Sequence[int]) -> int:
        """As `interpret`; returned: results of C functions. A deque loses those that were used."""
        return interpret(self.program(), values, self.overflow, returned)


def _restored(source: str, options: dict[str, Any]) -> Formula:
    """A formula that was pickled."""
    return Formula(source, **options)

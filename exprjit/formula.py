"""A formula: a source text with the options that give it its meaning.

Everything else about a function (tree, graph, machine code) can be derived from this
again, so this is what a `Function` keeps, what travels between processes, and what the
interpreter is given when machine code hands over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ExprTypeError, ExprValueError, shown
from .language.arguments import bind_arguments, to_longs
from .language.ast import Program
from .language.interpreter import interpret
from .language.limits import limits_from
from .language.operators import OVERFLOW_MODES
from .language.parser import parse
from .language.resolve import check_constants, check_params, resolve

DEFAULT_NAME = "f"


class Formula:
    """Source and options, checked; parameters known.

    Attributes: source, params (tuple of names), overflow ("wrap" or "raise"), constants
    (dict of ints), limits, name.
    """

    __slots__ = (
        "_listed",
        "_tree",
        "constants",
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
        self.limits = limits_from(limits)
        self.name = DEFAULT_NAME if name is None else name
        self._tree: Program | None = self._parse()
        self.params = self._tree.params

    def _parse(self) -> Program:
        parsed = parse(self.source, self.limits)
        return resolve(self.source, parsed, self._listed, self.constants, self.limits)

    def program(self) -> Program:
        """The syntax tree, names resolved."""
        tree = self._tree
        if tree is None:
            tree = self._tree = self._parse()
        return tree

    def forget_tree(self) -> None:
        """Drop the syntax tree, which is many times the source's size, until it is asked for."""
        self._tree = None

    def bind(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        """The values of a call in the order of the parameters.

        Raises ExprTypeError where a Python function would raise TypeError.
        """
        return bind_arguments(self.name, self.params, positional, keywords)

    def call(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> int:
        """What a call with these arguments gives, by the interpreter.

        Raises what the call raises.
        """
        return self.interpret(*to_longs(self.params, self.bind(positional, keywords)))

    def interpret(self, *arguments: int) -> int:
        """The value for 64-bit ints, one per parameter, by the interpreter."""
        return interpret(self.program(), arguments, self.overflow)

"""What can be asked of a function: what it was made from, its stages, its addresses.

What a function keeps is its formula and its code; trees, graphs and listings are made again
when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .body import Body
from .errors import ExprValueError, shown
from .formula import Formula
from .language.ast import Program
from .language.externs import Extern

if TYPE_CHECKING:
    from inspect import Signature

    from .ir.graph import Graph
    from .x86.listing import Asm

#: What `Function.dump` can show, in the order of the passes.
STAGES = ("ast", "graph", "rules", "block", "asm", "hex")


class Inspection:
    """The base of functions: all of them but the call."""

    __slots__ = ()

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
    def externs(self) -> dict[str, Extern]:
        """The C functions that the text was compiled with."""
        return dict(self._body.formula.externs)

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
        code: bytes = self._body.compiled().encoded.code
        return code

    @property
    def address(self) -> int:
        """The address of ``long f(long, ...)`` (System V), for C; good while the function lives.

        Raises ExprValueError if the formula can fail (see `total`) or there is no machine code.
        """
        return self._total_entry("address")

    def _total_entry(self, kernel: str) -> int:
        bails = self.graph.bails
        if bails:
            raise ExprValueError(
                "a formula that can fail has no plain C function; use checked_address",
                self.source,
                *(bails[0].span or (0, 0)),
            )
        return self._body.entry(kernel)

    @property
    def checked_address(self) -> int:
        """The address of ``int f(long *result, long, ...)`` (System V); good while it lives.

        It gives 0 and stores the answer, or gives 1 where a call would raise.
        Raises ExprValueError if there is no machine code.
        """
        return self._body.entry("checked_address")

    @property
    def ref_address(self) -> int:
        """The address of ``int f(const long *, ...)`` (System V), for qsort; good while it lives.

        It takes pointers to its arguments and gives the sign of its value: -1, 0 or 1.
        Raises ExprValueError if the formula can fail (see `total`) or there is no machine code.
        """
        return self._total_entry("ref_address")

    def dump(self, *stages: str) -> str:
        """The function at one or more stages of compilation, as text.

        stages: of "ast", "graph", "rules" (those that were applied), "block", "asm", "hex";
        without any, the graph.  Raises ExprValueError for any other.
        """
        for stage in stages:
            if stage not in STAGES:
                raise ExprValueError(f"no stage is called {shown(stage)}; there are {STAGES}")
        return "\n".join(self._body.dump(stage) for stage in stages or ("graph",))

    def __eq__(self, other: object) -> bool:
        return (
            self._body.key() == other._body.key()
            if isinstance(other, Inspection)
            else NotImplemented
        )

    def __hash__(self) -> int:
        return hash(self._body.key())

    @property
    def __name__(self) -> str:
        return self._body.formula.name

    def __repr__(self) -> str:
        source = self.source if len(self.source) <= 60 else self.source[:57] + "..."
        mode = "" if self.overflow == "wrap" else f", overflow={self.overflow!r}"
        parameters = ", ".join(self.params)
        return f"<exprjit.Function {self.__name__}({parameters}) {source!r}{mode}, {self.engine}>"


def doc(function: Inspection) -> str:
    """The docstring of an instance."""
    mode = "" if function.overflow == "wrap" else "\n\nA result outside 64 bits is an error."
    return f"{function.__name__}({', '.join(function.params)}) = {function.source}{mode}"


def signature(function: Inspection) -> Signature:
    """What `inspect.signature` gives for an instance."""
    from inspect import Parameter, Signature

    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(name, kind, annotation=int) for name in function.params]
    return Signature(parameters, return_annotation=int)

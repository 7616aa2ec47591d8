"""What a row of the operator table is: its columns, and how a row is added.

Meanings are total: where an operator fails, its meaning is the value that the machine
code happens to compute before the failure is noticed, so that graph nodes can be pure.
Failing is a separate column (faults.py).

Meanings take the width first, so that a rule can be proved at 8 bits with the same row
that defines it at 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arithmetic import LONG
from .faults import Fault

#: ``make(name, *operands)`` applies a row; operands may be plain ints for constants.
#: On graph nodes it makes a node, on ints it computes.
Make = Callable[..., Any]
Meaning = Callable[..., int]


class Operator:
    """A row of the table.  See `row` for the columns."""

    __slots__ = (
        "absorber",
        "arity",
        "associative",
        "commutative",
        "cost",
        "doc",
        "expansion",
        "faults",
        "fixity",
        "identity",
        "meaning",
        "name",
        "negation",
        "precedence",
        "right_associative",
        "same",
        "swapped",
        "tokens",
        "variadic",
    )

    name: str
    tokens: tuple[str, ...]
    fixity: str
    precedence: int
    arity: int
    variadic: bool
    right_associative: bool
    meaning: Meaning
    doc: str
    faults: dict[str, tuple[Fault, ...]]
    commutative: bool
    associative: bool
    identity: int | None
    absorber: int | None
    same: int | str | None
    negation: str | None
    swapped: str | None
    cost: int
    expansion: Callable[..., Any] | None

    def __call__(self, *operands: int) -> int:
        """The 64-bit value of the operator on 64-bit operands, whether it fails or not."""
        return LONG.wrap(self.meaning(LONG, *operands))

    @property
    def spelling(self) -> str:
        """How messages and listings write the operator."""
        return self.tokens[0]

    @property
    def signature(self) -> str:
        """How a use of the operator is written, as in ``a + b`` or ``clamp(x, low, high)``."""
        names = self.meaning.__code__.co_varnames[1 : self.arity + 1]
        if self.fixity == "conditional":
            return "{} ? {} : {}".format(*names)
        if self.fixity == "prefix":
            return f"{self.spelling}{' ' * self.spelling.isalpha()}{names[0]}"
        if self.fixity in ("infix", "lazy"):
            return f"{names[0]} {self.spelling} {names[1]}"
        return f"{self.name}({', '.join(names)}{', ...' * self.variadic})"

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _named, (self.name,)


#: Rows by name, in the order of the documentation; operators.py fills it.
OPERATORS: dict[str, Operator] = {}


def _named(name: str) -> Operator:
    return OPERATORS[name]


def make_int(name: str, *operands: int) -> int:
    """The `Make` of plain ints: apply the row called `name`."""
    return OPERATORS[name](*operands)


def row(
    name: str,
    fixity: str,
    tokens: str,
    precedence: int,
    meaning: Meaning,
    doc: str,
    *,
    right: bool = False,
    variadic: bool = False,
    faults: tuple[Fault, ...] = (),
    raising: tuple[Fault, ...] = (),
    commutative: bool = False,
    associative: bool = False,
    identity: int | None = None,
    absorber: int | None = None,
    same: int | str | None = None,
    negation: str | None = None,
    swapped: str | None = None,
    cost: int = 1,
    expansion: Callable[..., Any] | None = None,
) -> None:
    """Add a row.

    fixity: "infix", "prefix", "conditional", "lazy" (infix, but the right operand may not
        be evaluated), "function", or "internal" (a graph node that no text can name).
    tokens: how it is written, blank-separated; the name for functions.
    precedence: 1 binds loosest; right: associates to the right.
    meaning: ``(width, *operands) -> int``, total, before wrapping to the width.
    variadic: takes two operands or more; all others as many as their meaning.
    faults: how it fails in both overflow modes; raising: what is added by "raise".  The
        first whose condition holds is the error.
    commutative, associative: modulo 2**bits.
    identity, absorber: the constant e with ``x op e == x``; z with ``x op z == z``.
    same: the value of ``x op x``: a constant, or "x".
    negation: the row that is 1 where this one is 0; swapped: the row with ``a op b`` as
        ``b op' a``.
    cost: about the cycles it takes; rules must not make the sum dearer.
    expansion: ``(make, *operands)`` in terms of cheaper rows; a row that has one is
        written that way where the machine has no instruction for it.
    """
    assert name not in OPERATORS, name
    new = OPERATORS[name] = Operator()
    new.name = name
    new.fixity = fixity
    new.tokens = tuple(tokens.split()) or (name,)
    new.precedence = precedence
    new.right_associative = right
    new.meaning = meaning
    # Less the width; arguments with defaults are how a loop's variable is bound.
    new.arity = meaning.__code__.co_argcount - 1 - len(meaning.__defaults__ or ())
    new.variadic = variadic
    new.doc = doc
    new.faults = {"wrap": faults, "raise": faults + raising}
    new.commutative = commutative
    new.associative = associative
    new.identity = identity
    new.absorber = absorber
    new.same = same
    new.negation = negation
    new.swapped = swapped
    new.cost = cost
    new.expansion = expansion


def function(name: str, meaning: Meaning, doc: str, **columns: Any) -> None:
    """Add the row of a function that is called by its name."""
    row(name, "function", "", 14, meaning, doc, **columns)

"""Random whole programs of the language, as text.

Everything that the language has can occur: each row of the operator table in each spelling,
chains, both conditionals, bindings, definitions, literals of every base and magnitude, blanks
and comments.  A row that is added to the table is in the programs from then on.

Each decision is one call of `below(n)`, where 0 is the simplest.  So the same grammar serves a
seeded generator, which gives the same text for the same seed on every Python, and a Hypothesis
strategy, which shrinks a program by shrinking the decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..language.operators import FUNCTIONS, INFIX, OPERATORS, PREFIX, Operator
from .samples import Below, literal, magnitude

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

#: An expression's text and how tightly it binds, by the table's precedences.
Text = tuple[str, int]

_ANY = 0
_SELECT = OPERATORS["select"].precedence
_COMPARISON = OPERATORS["lt"].precedence
_TIGHT_PREFIX = PREFIX["-"][1]
_TIGHTEST = 1 + max(row.precedence for row in INFIX.values())

_INFIX_TOKENS = tuple(INFIX)
_COMPARISONS = tuple(token for token, row in INFIX.items() if row.precedence == _COMPARISON)
_PREFIX_TOKENS = tuple(PREFIX)
_FUNCTIONS = tuple(FUNCTIONS.values())

#: Functions and variables are two namespaces, so names of functions are variables too.
_PARAMS = ("x", "y", "z", "n", "mask", "max", "a_1", "_", "X9", "gcd", "ifx", "notx")
_BINDINGS = ("d", "t0", "abs")
_FORMALS = ("v", "w", "x", "d")
_DEFINITIONS = tuple(name for name in ("sq", "mix", "h2") if name not in FUNCTIONS)

#: What stands around infix operators, one style a program.
_BLANKS = (*[" "] * 13, "", "", "\n", "  ", " # note: a/0; (\n")


def program(below: Below, size: int = 24) -> str:
    """A valid program of about 1 to `size` operators and operands, more often a small one."""
    return _Writer(below, size).program()


def strategy(size: int = 24) -> SearchStrategy[str]:
    """A Hypothesis strategy for programs; needs the extra ``exprjit[check]``."""
    from hypothesis import strategies

    @strategies.composite
    def programs(draw: Any) -> str:
        def below(n: int) -> int:
            return int(draw(strategies.integers(0, n - 1))) if n > 1 else 0

        return program(below, size)

    return programs()


class _Writer:
    """A program on its way."""

    def __init__(self, below: Below, size: int) -> None:
        self.below = below
        self.size = 1 + min(below(size), below(size))
        self.blank = _BLANKS[below(len(_BLANKS))]
        #: What can be named, and what can be called, where the writer is.
        self.variables: list[str] = list(_PARAMS[: self._params()])
        self.functions: list[tuple[str, int]] = []

    def _params(self) -> int:
        """How many names there are to use: mostly 1 to 3, sometimes none or many."""
        kind = self.below(100)
        if kind < 90:
            return 1 + kind % 3
        return 0 if kind < 93 else 4 + self.below(len(_PARAMS) - 3)

    def program(self) -> str:
        statements = []
        if self.size > 3 and self.below(4) == 3:
            for name, other in zip(_BINDINGS, _DEFINITIONS, strict=False):
                share = 1 + self.below(self.size)
                if self.below(2):
                    statements.append(self._definition(other, share))
                else:
                    statements.append(self._binding(name, share))
                if self.below(2):
                    break
        statements.append(self.expression(self.size)[0])
        end = ";" if self.below(20) == 19 else ""
        return f";{self.blank}".join(statements) + end

    def _binding(self, name: str, size: int) -> str:
        value, _ = self.expression(size)
        self.variables.append(name)
        return f"{name}{self.blank}={self.blank}{value}"

    def _definition(self, name: str, size: int) -> str:
        formals = _FORMALS[: (1, 2, 2, 1, 3, 4, 0)[self.below(7)]]
        outside = self.variables
        # Formals are named more often than what is outside, some of which they shadow.
        self.variables = list(formals) if self.below(3) else [*formals, *formals, *outside]
        body, _ = self.expression(size)
        self.variables = outside
        self.functions.append((name, len(formals)))
        return f"{name}({', '.join(formals)}){self.blank}={self.blank}{body}"

    # Expressions. ----------------------------------------------------------------------------

    def expression(self, size: int) -> Text:
        if size <= 1:
            return self.leaf(size)
        chosen = self.below(100)
        for weight, form in _FORMS:
            if chosen < weight:
                return form(self, size)
            chosen -= weight
        raise AssertionError("the weights of the forms sum to 100")

    def operand(self, size: int, least: int) -> str:
        """An expression that can be the operand of what binds just looser than `least`."""
        return self._fit(self.expression(size), least)

    def _fit(self, text: Text, least: int, right: bool = False) -> str:
        # A tight prefix may follow any operator: 2 ** -x.
        fits = text[1] >= least or (right and text[1] == _TIGHT_PREFIX)
        if fits and self.below(24) < 23:
            return text[0]
        return f"({text[0]})"

    def _shares(self, size: int, parts: int) -> list[int]:
        """Sizes of operands whose sum, with the operator itself, is about `size`."""
        sizes = []
        left = size - 1
        for waiting in range(parts, 1, -1):
            sizes.append(self.below(2 * left // waiting + 1))
            left -= sizes[-1]
        return [*sizes, left]

    def leaf(self, size: int) -> Text:
        if self.variables and self.below(100) < 70:
            return self.variables[self.below(len(self.variables))], _TIGHTEST
        return self.constant(magnitude(self.below))

    def constant(self, value: int) -> Text:
        text = literal(self.below, value)
        return text, _TIGHT_PREFIX if text[0] == "-" else _TIGHTEST

    def infix(self, size: int) -> Text:
        token = _INFIX_TOKENS[self.below(len(_INFIX_TOKENS))]
        row = INFIX[token]
        precedence = row.precedence
        # Two comparisons in a row would be a chain, which is a form of its own.
        left_least = precedence + (row.right_associative or precedence == _COMPARISON)
        right_least = precedence + (not row.right_associative)
        first, second = self._shares(size, 2)
        left = self.operand(first, left_least)
        right = self._fit(self._last(row, second), right_least, right=True)
        return self._joined(left, token, right), precedence

    def twice(self, size: int) -> Text:
        """An operator with the same operand on both sides: what rules look for."""
        token = _INFIX_TOKENS[self.below(len(_INFIX_TOKENS))]
        operand = self.operand(size // 2, _TIGHTEST)
        return self._joined(operand, token, operand), INFIX[token].precedence

    def _joined(self, left: str, token: str, right: str) -> str:
        blank = self.blank
        if token.isalpha():
            blank = blank or " "
        return f"{left}{blank}{token}{blank}{right}"

    def chain(self, size: int) -> Text:
        count = 3 + self.below(2)
        first, *others = self._shares(size, count)
        text = self.operand(first, _COMPARISON + 1)
        for share in others:
            token = _COMPARISONS[self.below(len(_COMPARISONS))]
            right = self._fit(self.expression(share), _COMPARISON + 1, right=True)
            text = self._joined(text, token, right)
        return text, _COMPARISON

    def prefix(self, size: int) -> Text:
        token = _PREFIX_TOKENS[self.below(len(_PREFIX_TOKENS))]
        precedence = PREFIX[token][1]
        operand = self.operand(size - 1, precedence)
        return f"{token}{' ' if token.isalpha() else ''}{operand}", precedence

    def conditional(self, size: int) -> Text:
        first, second, third = self._shares(size, 3)
        blank = self.blank
        if self.below(2):
            then = self.operand(first, _SELECT + 1)
            condition, otherwise = self.operand(second, _ANY), self.operand(third, _ANY)
            blank = blank or " "
            return f"{then}{blank}if {condition}{blank}else {otherwise}", _SELECT
        condition = self.operand(first, _SELECT + 1)
        then, otherwise = self.operand(second, _ANY), self.operand(third, _ANY)
        return f"{condition}{blank}?{blank}{then}{blank}:{blank}{otherwise}", _SELECT

    def call(self, size: int) -> Text:
        """A call of a built-in function."""
        row = _FUNCTIONS[self.below(len(_FUNCTIONS))]
        count = row.arity + (self.below(3) if row.variadic else 0)
        *shares, last = self._shares(size, count)
        arguments = [self.expression(share)[0] for share in shares]
        return f"{row.name}({', '.join([*arguments, self._last(row, last)[0]])})", _TIGHTEST

    def defined(self, size: int) -> Text:
        """A call of a function that the program defines."""
        if not self.functions:
            return self.infix(size)
        name, count = self.functions[self.below(len(self.functions))]
        shares = self._shares(size, count) if count else ()
        return f"{name}({', '.join([self.expression(share)[0] for share in shares])})", _TIGHTEST

    def guarded(self, size: int) -> Text:
        """A division that is only made where it can be, as people write it."""
        divisor = self.leaf(1)[0]
        token = ("/", "%", "//", "%%")[self.below(4)]
        quotient = self._joined(self.operand(size - 3, _TIGHTEST), token, f"({divisor})")
        if self.below(2):
            return self._joined(f"({divisor}) != 0", "and", quotient), INFIX["and"].precedence
        return f"({divisor}) ? {quotient} : {self.leaf(1)[0]}", _SELECT

    # Last operands that keep most programs from failing most of the time. --------------------

    def _last(self, row: Operator, size: int) -> Text:
        """The last operand of `row`: anything, or what is likely not to be its fault."""
        for fault in row.faults["raise"]:
            tame = _TAME.get(fault.name)
            if tame is not None and self.below(10) < 7:
                return tame(self, size)
        return self.expression(size)

    def divisor(self, size: int) -> Text:
        if self.below(3):
            return self.constant(magnitude(self.below) or 7)
        return f"({self.operand(size, INFIX['|'].precedence)} | 1)", _TIGHTEST

    def exponent(self, size: int) -> Text:
        if self.below(3):
            return self.constant(self.below(70) if self.below(8) == 7 else self.below(6))
        return f"({self.operand(size, INFIX['&'].precedence)} & 7)", _TIGHTEST

    def count(self, size: int) -> Text:
        if self.below(3):
            return self.constant(self.below(64))
        return f"({self.operand(size, INFIX['&'].precedence)} & 63)", _TIGHTEST

    def radicand(self, size: int) -> Text:
        return f"({self.operand(size, INFIX['>>>'].precedence)} >>> 1)", _TIGHTEST


_TAME: dict[str, Callable[[_Writer, int], Text]] = {
    "zero divisor": _Writer.divisor,
    "negative exponent": _Writer.exponent,
    "count range": _Writer.count,
    "negative root": _Writer.radicand,
}

#: The forms of an expression with their weights in percent.
_FORMS: tuple[tuple[int, Callable[[_Writer, int], Text]], ...] = (
    (4, _Writer.leaf),
    (44, _Writer.infix),
    (22, _Writer.call),
    (9, _Writer.prefix),
    (8, _Writer.conditional),
    (4, _Writer.chain),
    (3, _Writer.twice),
    (3, _Writer.defined),
    (3, _Writer.guarded),
)

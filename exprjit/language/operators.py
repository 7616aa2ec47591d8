"""THE table: one row per operator and function of the language.

A row says what an operator means, executable on Python ints, and everything that other
parts derive from it: how it is written and binds, its algebra, how it can fail in which
overflow mode, what it costs, and how the graph writes it in terms of simpler rows.  The
parser's tables, the interpreter, constant folding, the rules, selection, the dumps, the
help texts and the tests are made from these rows; none of them lists operators again.

Meanings are total: where an operator fails, its meaning is the value that the machine
code happens to compute before the failure is noticed, so that graph nodes can be pure.
Failing is a separate column: a `Fault` is a condition written once, in terms of other
rows, and evaluated both on ints (interpreter) and on graph nodes (bail conditions).

Meanings take the width first, so that a rule can be proved at 8 bits with the same row
that defines it at 64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from ..errors import (
    ExprError,
    ExprOverflowError,
    ExprValueError,
    ExprZeroDivisionError,
)
from .arithmetic import (
    Width,
    deposit,
    extract,
    narrow,
    power,
    power_overflows,
    reverse_bits,
    rotate_left,
    swap_bytes,
    truncating_quotient,
)


#: The width of the language.  The name is C's.
LONG: Final = Width(64)
MIN: Final = LONG.min
MAX: Final = LONG.max

#: ``make(name, *operands)`` applies a row; operands may be plain ints for constants.
#: On graph nodes it makes a node, on ints it computes.
Make = Callable[..., Any]
Meaning = Callable[..., int]


class Fault:
    """One way in which an operator can fail: a condition, an exception and its words."""

    __slots__ = ("condition", "error", "hint", "message", "name")

    def __init__(
        self,
        name: str,
        error: type[ExprError],
        message: str,
        condition: Callable[..., Any],
        hint: str | None = None,
    ) -> None:
        self.name = name
        self.error = error
        self.message = message
        self.condition = condition
        self.hint = hint


ZERO_DIVISOR = Fault(
    "zero divisor",
    ExprZeroDivisionError,
    "division by zero",
    lambda make, a, b: make("eq", b, 0),
)
NEGATIVE_EXPONENT = Fault(
    "negative exponent",
    ExprValueError,
    "negative exponent",
    lambda make, a, b: make("lt", b, 0),
    "the result would not be an integer; `1 / x ** n` divides, and rounds toward zero",
)
NEGATIVE_ROOT = Fault(
    "negative root",
    ExprValueError,
    "square root of a negative number",
    lambda make, a: make("lt", a, 0),
)
COUNT_RANGE = Fault(
    "count range",
    ExprOverflowError,
    "shift count outside 0..63",
    lambda make, a, n: make("ugt", n, 63),
)


def _overflow(condition: Callable[..., Any]) -> Fault:
    return Fault("overflow", ExprOverflowError, "result outside 64 bits", condition)


_MIN_BY_MINUS_ONE = _overflow(
    lambda make, a, b: make("bitand", make("eq", a, MIN), make("eq", b, -1))
)
_IS_MIN = _overflow(lambda make, a: make("eq", a, MIN))


def _overflows(name: str) -> Fault:
    return _overflow(lambda make, a, b: make(name, a, b))


class Operator:
    """A row of the table.  See `_row` for the columns."""

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

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _named, (self.name,)


def _named(name: str) -> Operator:
    return OPERATORS[name]


#: Rows by name, in the order of the documentation.
OPERATORS: dict[str, Operator] = {}

#: The rows' spellings, for the parser.  Functions are called by their name.
INFIX: dict[str, Operator] = {}
#: A prefix operator's precedence stands beside it: `!` is `not`, but binds tightly.
PREFIX: dict[str, tuple[Operator, int]] = {}
FUNCTIONS: dict[str, Operator] = {}

#: The overflow modes, the default first.
OVERFLOW_MODES: Final = ("wrap", "raise")


def make_int(name: str, *operands: int) -> int:
    """The `Make` of plain ints: apply the row called `name`."""
    return OPERATORS[name](*operands)


def _row(
    name: str,
    meaning: Meaning,
    doc: str,
    *,
    tokens: str = "",
    fixity: str = "function",
    precedence: int = 14,
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

    meaning: ``(width, *operands) -> int``, total, before wrapping to the width.
    tokens: how it is written, blank-separated; the name for functions.
    fixity: "infix", "prefix", "lazy" (infix, but the right operand may not be evaluated),
        "function", or "internal" (a graph node that no text can name).
    precedence: 1 binds loosest; right: associates to the right.
    variadic: takes two operands or more; all others as many as their meaning.
    faults: how it fails in both overflow modes; raising: what is added by "raise", in the
        order in which they are looked at.
    commutative, associative: modulo 2**bits.
    identity, absorber: the constant e with ``x op e == x``; z with ``x op z == z``.
    same: the value of ``x op x``: a constant, or "x".
    negation: the row that is 1 where this one is 0; swapped: the row with ``a op b`` as
        ``b op' a``.
    cost: about the cycles it takes; rules must not make the sum dearer.
    expansion: ``(make, *operands)`` in terms of cheaper rows; a row that has one is
        written that way where the machine has no instruction for it.
    """
    row = Operator()
    row.name = name
    row.tokens = tuple(tokens.split()) or (name,)
    row.fixity = fixity
    row.precedence = precedence
    row.right_associative = right
    row.variadic = variadic
    # Less the width; arguments with defaults are how a loop's variable is bound.
    row.arity = meaning.__code__.co_argcount - 1 - len(meaning.__defaults__ or ())
    row.meaning = meaning
    row.doc = doc
    row.faults = {"wrap": faults, "raise": faults + raising}
    row.commutative = commutative
    row.associative = associative
    row.identity = identity
    row.absorber = absorber
    row.same = same
    row.negation = negation
    row.swapped = swapped
    row.cost = cost
    row.expansion = expansion
    assert name not in OPERATORS, name
    OPERATORS[name] = row
    if fixity == "function":
        FUNCTIONS[name] = row
    elif fixity in ("infix", "lazy"):
        INFIX.update(dict.fromkeys(row.tokens, row))
    elif fixity == "prefix":
        PREFIX.update(dict.fromkeys(row.tokens, (row, precedence)))


# Expansions that do not fit a line: Hacker's Delight, sections 5-1 and 7-1. --------------------


def _swap_neighbours(make: Make, x: Any, distance: int, mask: int) -> Any:
    low = make("bitand", make("shr", x, distance), mask)
    high = make("shl", make("bitand", x, mask), distance)
    return make("bitor", low, high)


def _expand_bitreverse(make: Make, x: Any) -> Any:
    x = _swap_neighbours(make, x, 1, 0x5555555555555555)
    x = _swap_neighbours(make, x, 2, 0x3333333333333333)
    x = _swap_neighbours(make, x, 4, 0x0F0F0F0F0F0F0F0F)
    return make("bswap", x)


def _expand_popcount(make: Make, x: Any) -> Any:
    twos = make("sub", x, make("bitand", make("shr", x, 1), 0x5555555555555555))
    fours = make(
        "add",
        make("bitand", twos, 0x3333333333333333),
        make("bitand", make("shr", twos, 2), 0x3333333333333333),
    )
    bytes_ = make("bitand", make("add", fours, make("shr", fours, 4)), 0x0F0F0F0F0F0F0F0F)
    return make("shr", make("mul", bytes_, 0x0101010101010101), 56)


def _adjusts(make: Make, remainder: Any, b: Any) -> Any:
    """Whether truncation and flooring differ: the remainder is not 0 and b's sign is not its."""
    wrong_sign = make("lt", make("bitxor", remainder, b), 0)
    return make("bitand", make("ne", remainder, 0), wrong_sign)


def _expand_floordiv(make: Make, a: Any, b: Any) -> Any:
    return make("sub", make("div", a, b), _adjusts(make, make("rem", a, b), b))


def _expand_floormod(make: Make, a: Any, b: Any) -> Any:
    remainder = make("rem", a, b)
    return make("add", remainder, make("select", _adjusts(make, remainder, b), b, 0))


# The rows, loosest first. ------------------------------------------------------------------

_row(
    "select",
    lambda w, c, a, b: a if c else b,
    "`a` where `c` is not 0, else `b`; only the one that is taken is evaluated",
    tokens="?: if",
    fixity="conditional",
    precedence=1,
    right=True,
    cost=2,
)
_row(
    "or",
    lambda w, a, b: int(a != 0 or b != 0),
    "1 if either operand is not 0; the right one is evaluated only if the left is 0",
    tokens="or ||",
    fixity="lazy",
    precedence=2,
    expansion=lambda make, a, b: make("bitor", make("ne", a, 0), make("ne", b, 0)),
)
_row(
    "and",
    lambda w, a, b: int(a != 0 and b != 0),
    "1 if both operands are not 0; the right one is evaluated only if the left is not 0",
    tokens="and &&",
    fixity="lazy",
    precedence=3,
    expansion=lambda make, a, b: make("bitand", make("ne", a, 0), make("ne", b, 0)),
)
_row(
    "not",
    lambda w, a: int(a == 0),
    "1 if the operand is 0, else 0; `not` binds loosely, `!` tightly",
    tokens="not",
    fixity="prefix",
    precedence=4,
    expansion=lambda make, a: make("eq", a, 0),
)

for _name, _token, _negation, _swapped, _same, _compare, _words in (
    ("eq", "==", "ne", "eq", 1, lambda a, b: a == b, "equals"),
    ("ne", "!=", "eq", "ne", 0, lambda a, b: a != b, "differs from"),
    ("lt", "<", "ge", "gt", 0, lambda a, b: a < b, "is less than"),
    ("le", "<=", "gt", "ge", 1, lambda a, b: a <= b, "is at most"),
    ("gt", ">", "le", "lt", 0, lambda a, b: a > b, "is greater than"),
    ("ge", ">=", "lt", "le", 1, lambda a, b: a >= b, "is at least"),
):
    _row(
        _name,
        lambda w, a, b, compare=_compare: int(compare(a, b)),
        f"1 if `a` {_words} `b`, else 0; comparisons chain as in Python",
        tokens=_token,
        fixity="infix",
        precedence=5,
        commutative=_swapped == _name,
        same=_same,
        negation=_negation,
        swapped=_swapped,
    )

_row(
    "bitor",
    lambda w, a, b: a | b,
    "bitwise or",
    tokens="|",
    fixity="infix",
    precedence=6,
    commutative=True,
    associative=True,
    identity=0,
    absorber=-1,
    same="x",
)
_row(
    "bitxor",
    lambda w, a, b: a ^ b,
    "bitwise exclusive or",
    tokens="^",
    fixity="infix",
    precedence=7,
    commutative=True,
    associative=True,
    identity=0,
    same=0,
)
_row(
    "bitand",
    lambda w, a, b: a & b,
    "bitwise and",
    tokens="&",
    fixity="infix",
    precedence=8,
    commutative=True,
    associative=True,
    identity=-1,
    absorber=0,
    same="x",
)
_row(
    "shl",
    lambda w, a, n: a << n % w.bits,
    "shift left; the count is taken modulo 64",
    tokens="<<",
    fixity="infix",
    precedence=9,
    raising=(
        COUNT_RANGE,
        _overflow(lambda make, a, n: make("ne", make("sar", make("shl", a, n), n), a)),
    ),
    identity=0,
)
_row(
    "sar",
    lambda w, a, n: a >> n % w.bits,
    "arithmetic shift right: the sign is kept; the count is taken modulo 64",
    tokens=">>",
    fixity="infix",
    precedence=9,
    raising=(COUNT_RANGE,),
    identity=0,
)
_row(
    "shr",
    lambda w, a, n: (a & w.mask) >> n % w.bits,
    "logical shift right: zeros come in; the count is taken modulo 64",
    tokens=">>>",
    fixity="infix",
    precedence=9,
    raising=(COUNT_RANGE,),
    identity=0,
)
_row(
    "add",
    lambda w, a, b: a + b,
    "sum",
    tokens="+",
    fixity="infix",
    precedence=10,
    raising=(_overflows("add_overflows"),),
    commutative=True,
    associative=True,
    identity=0,
)
_row(
    "sub",
    lambda w, a, b: a - b,
    "difference",
    tokens="-",
    fixity="infix",
    precedence=10,
    raising=(_overflows("sub_overflows"),),
    identity=0,
    same=0,
)
_row(
    "mul",
    lambda w, a, b: a * b,
    "product",
    tokens="*",
    fixity="infix",
    precedence=11,
    raising=(_overflows("mul_overflows"),),
    commutative=True,
    associative=True,
    identity=1,
    absorber=0,
    cost=3,
)
_row(
    "div",
    lambda w, a, b: truncating_quotient(a, b),
    "quotient rounded toward zero, as C's `/`",
    tokens="/",
    fixity="infix",
    precedence=11,
    faults=(ZERO_DIVISOR,),
    raising=(_MIN_BY_MINUS_ONE,),
    identity=1,
    cost=20,
)
_row(
    "rem",
    lambda w, a, b: a - b * truncating_quotient(a, b) if b else 0,
    "remainder with the sign of the dividend, as C's `%`",
    tokens="%",
    fixity="infix",
    precedence=11,
    faults=(ZERO_DIVISOR,),
    same=0,
    cost=20,
)
_row(
    "floordiv",
    lambda w, a, b: a // b if b else 0,
    "quotient rounded toward minus infinity, as Python's `//`",
    tokens="//",
    fixity="infix",
    precedence=11,
    faults=(ZERO_DIVISOR,),
    raising=(_MIN_BY_MINUS_ONE,),
    identity=1,
    cost=24,
    expansion=_expand_floordiv,
)
_row(
    "floormod",
    lambda w, a, b: a % b if b else 0,
    "remainder with the sign of the divisor, as Python's `%`",
    tokens="%%",
    fixity="infix",
    precedence=11,
    faults=(ZERO_DIVISOR,),
    same=0,
    cost=24,
    expansion=_expand_floormod,
)
_row(
    "neg",
    lambda w, a: -a,
    "negation",
    tokens="-",
    fixity="prefix",
    precedence=12,
    raising=(_IS_MIN,),
)
_row(
    "pos",
    lambda w, a: a,
    "the operand itself",
    tokens="+",
    fixity="prefix",
    precedence=12,
    cost=0,
    expansion=lambda make, a: a,
)
_row("bitnot", lambda w, a: ~a, "every bit inverted", tokens="~", fixity="prefix", precedence=12)
PREFIX["!"] = OPERATORS["not"], 12
_row(
    "pow",
    power,
    "power; `0 ** 0` is 1; the exponent may not be negative",
    tokens="**",
    fixity="infix",
    precedence=13,
    right=True,
    faults=(NEGATIVE_EXPONENT,),
    raising=(_overflows("pow_overflows"),),
    identity=1,
    cost=40,
)

# Functions, in the order in which they are documented. ------------------------------------------

_row("abs", lambda w, x: abs(x), "absolute value; wraps for the least number", raising=(_IS_MIN,))
_row(
    "sign",
    lambda w, x: (x > 0) - (x < 0),
    "-1, 0 or 1",
    cost=3,
    expansion=lambda make, x: make("bitor", make("sar", x, 63), make("shr", make("neg", x), 63)),
)
_row(
    "min",
    lambda w, a, b: min(a, b),
    "the least of two or more",
    variadic=True,
    commutative=True,
    associative=True,
    identity=MAX,
    absorber=MIN,
    same="x",
    cost=2,
)
_row(
    "max",
    lambda w, a, b: max(a, b),
    "the greatest of two or more",
    variadic=True,
    commutative=True,
    associative=True,
    identity=MIN,
    absorber=MAX,
    same="x",
    cost=2,
)
_row(
    "clamp",
    lambda w, x, low, high: min(max(x, low), high),
    "`min(max(x, low), high)`",
    cost=4,
    expansion=lambda make, x, low, high: make("min", make("max", x, low), high),
)
_row(
    "popcount",
    lambda w, x: (x & w.mask).bit_count(),
    "how many bits are set",
    cost=3,
    expansion=_expand_popcount,
)
_row(
    "parity",
    lambda w, x: (x & w.mask).bit_count() & 1,
    "1 if an odd number of bits is set, else 0",
    cost=4,
    expansion=lambda make, x: make("bitand", make("popcount", x), 1),
)
_row(
    "clz",
    lambda w, x: w.bits - (x & w.mask).bit_length(),
    "leading zero bits; 64 for 0",
    cost=3,
)
_row(
    "ctz",
    lambda w, x: (x & -x).bit_length() - 1 if x else w.bits,
    "trailing zero bits; 64 for 0",
    cost=3,
)
_row("bswap", swap_bytes, "the eight bytes in reverse order")
_row(
    "bitreverse",
    reverse_bits,
    "the 64 bits in reverse order",
    cost=12,
    expansion=_expand_bitreverse,
)
_row("rotl", rotate_left, "rotate left; the count is taken modulo 64", identity=0)
_row(
    "rotr",
    lambda w, x, n: rotate_left(w, x, -n),
    "rotate right; the count is taken modulo 64",
    identity=0,
)
_row(
    "mulhi",
    lambda w, a, b: a * b >> w.bits,
    "the upper 64 bits of the signed 128-bit product",
    commutative=True,
    absorber=0,
    cost=4,
)
_row(
    "umulhi",
    lambda w, a, b: (a & w.mask) * (b & w.mask) >> w.bits,
    "the upper 64 bits of the unsigned 128-bit product",
    commutative=True,
    absorber=0,
    cost=4,
)
_row(
    "udiv",
    lambda w, a, b: (a & w.mask) // (b & w.mask) if b else 0,
    "quotient of the operands read as unsigned",
    faults=(ZERO_DIVISOR,),
    identity=1,
    cost=20,
)
_row(
    "umod",
    lambda w, a, b: (a & w.mask) % (b & w.mask) if b else 0,
    "remainder of the operands read as unsigned",
    faults=(ZERO_DIVISOR,),
    same=0,
    cost=20,
)
for _name, _negation, _swapped, _same, _compare, _words in (
    ("ult", "uge", "ugt", 0, lambda a, b: a < b, "is less than"),
    ("ule", "ugt", "uge", 1, lambda a, b: a <= b, "is at most"),
    ("ugt", "ule", "ult", 0, lambda a, b: a > b, "is greater than"),
    ("uge", "ult", "ule", 1, lambda a, b: a >= b, "is at least"),
):
    _row(
        _name,
        lambda w, a, b, compare=_compare: int(compare(a & w.mask, b & w.mask)),
        f"1 if `a` {_words} `b`, both read as unsigned, else 0",
        same=_same,
        negation=_negation,
        swapped=_swapped,
    )
_row(
    "gcd",
    lambda w, a, b: math.gcd(a, b),
    "greatest common divisor, not negative; `gcd(0, 0)` is 0",
    raising=(_overflow(lambda make, a, b: make("lt", make("gcd", a, b), 0)),),
    commutative=True,
    cost=60,
)
_row(
    "isqrt",
    lambda w, x: math.isqrt(x) if x >= 0 else w.min,
    "the integer part of the square root",
    faults=(NEGATIVE_ROOT,),
    cost=25,
)
_row(
    "avg",
    lambda w, a, b: a + b >> 1,
    "the mean, rounded toward minus infinity, without overflow",
    commutative=True,
    same="x",
    cost=4,
    expansion=lambda make, a, b: make(
        "add", make("bitand", a, b), make("sar", make("bitxor", a, b), 1)
    ),
)
_row("pdep", deposit, "the low bits of `x` deposited where `mask` has ones", cost=3)
_row("pext", extract, "the bits of `x` where `mask` has ones, moved together", cost=3)
for _bits in (8, 16, 32):
    _row(f"i{_bits}", narrow(_bits), f"the low {_bits} bits as a signed number, as C's cast")
for _bits in (8, 16, 32):
    _row(
        f"u{_bits}",
        lambda w, x, mask=(1 << _bits) - 1: x & mask,
        f"the low {_bits} bits as an unsigned number, as C's cast",
        expansion=lambda make, x, mask=(1 << _bits) - 1: make("bitand", x, mask),
    )

# Graph nodes that no text can name: whether the arithmetic overflows. ------------------------

_row(
    "add_overflows",
    lambda w, a, b: int(not w.fits(a + b)),
    "1 if `a + b` is outside 64 bits",
    fixity="internal",
    commutative=True,
)
_row(
    "sub_overflows",
    lambda w, a, b: int(not w.fits(a - b)),
    "1 if `a - b` is outside 64 bits",
    fixity="internal",
)
_row(
    "mul_overflows",
    lambda w, a, b: int(not w.fits(a * b)),
    "1 if `a * b` is outside 64 bits",
    fixity="internal",
    commutative=True,
    cost=3,
)
_row(
    "pow_overflows",
    power_overflows,
    "1 if `a ** n` is outside 64 bits, n read as unsigned",
    fixity="internal",
    cost=40,
)

#: The rows whose value is always 0 or 1.
BOOLEANS: Final = frozenset(
    name
    for name, row in OPERATORS.items()
    if row.negation or name.endswith("_overflows") or name in ("and", "or", "not", "parity")
)

for _operator in OPERATORS.values():
    for _other in (_operator.negation, _operator.swapped):
        assert _other is None or _other in OPERATORS, _operator
    assert _operator.fixity in {"function", "internal", "conditional"} or _operator.tokens

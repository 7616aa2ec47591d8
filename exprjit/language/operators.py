"""THE table: one row per operator and function of the language.

A row says what an operator means, executable on Python ints, and everything that other
parts derive from it: how it is written and binds, its algebra, how it can fail in which
overflow mode, what it costs, and how the graph writes it in terms of simpler rows (the
columns: rows.py).  The parser's tables, the interpreter, constant folding, the rules,
selection, the dumps, the help texts and the tests are made from these rows; none of them
lists operators again.
"""

from __future__ import annotations

import math
from typing import Final

from . import expansions
from .arithmetic import (
    LONG,
    MAX,
    MIN,
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
from .faults import (
    COUNT_RANGE,
    NEGATIVE_EXPONENT,
    NEGATIVE_ROOT,
    OF_GCD,
    OF_MIN,
    OF_MIN_BY_MINUS_ONE,
    OF_SHIFTED,
    ZERO_DIVISOR,
    Fault,
    overflow_by,
)
from .rows import OPERATORS, Make, Meaning, Operator, function, make_int, row

__all__ = [
    "BOOLEANS",
    "FUNCTIONS",
    "INFIX",
    "LONG",
    "MAX",
    "MIN",
    "OPERATORS",
    "OVERFLOW_MODES",
    "PREFIX",
    "Fault",
    "Make",
    "Meaning",
    "Operator",
    "Width",
    "make_int",
]

#: The overflow modes, the default first.
OVERFLOW_MODES: Final = ("wrap", "raise")

# fmt: off

# Operators, loosest first: name, fixity, tokens, precedence, meaning. -------------------------

row("select", "conditional", "?: if", 1, lambda w, c, a, b: a if c else b,
    "`a` where `c` is not 0, else `b`; only the one that is taken is evaluated",
    right=True, cost=2)
row("or", "lazy", "or ||", 2, lambda w, a, b: int(a != 0 or b != 0),
    "1 if either operand is not 0; the right one is evaluated only if the left is 0",
    expansion=lambda make, a, b: make("bitor", make("ne", a, 0), make("ne", b, 0)))
row("and", "lazy", "and &&", 3, lambda w, a, b: int(a != 0 and b != 0),
    "1 if both operands are not 0; the right one is evaluated only if the left is not 0",
    expansion=lambda make, a, b: make("bitand", make("ne", a, 0), make("ne", b, 0)))
row("not", "prefix", "not", 4, lambda w, a: int(a == 0),
    "1 if the operand is 0, else 0; `not` binds loosely, `!` tightly",
    expansion=lambda make, a: make("eq", a, 0))

row("eq", "infix", "==", 5, lambda w, a, b: int(a == b),
    "1 if `a` equals `b`, else 0; comparisons chain as in Python",
    commutative=True, same=1, negation="ne", swapped="eq")
row("ne", "infix", "!=", 5, lambda w, a, b: int(a != b),
    "1 if `a` differs from `b`, else 0; comparisons chain as in Python",
    commutative=True, same=0, negation="eq", swapped="ne")
row("lt", "infix", "<", 5, lambda w, a, b: int(a < b),
    "1 if `a` is less than `b`, else 0; comparisons chain as in Python",
    same=0, negation="ge", swapped="gt")
row("le", "infix", "<=", 5, lambda w, a, b: int(a <= b),
    "1 if `a` is at most `b`, else 0; comparisons chain as in Python",
    same=1, negation="gt", swapped="ge")
row("gt", "infix", ">", 5, lambda w, a, b: int(a > b),
    "1 if `a` is greater than `b`, else 0; comparisons chain as in Python",
    same=0, negation="le", swapped="lt")
row("ge", "infix", ">=", 5, lambda w, a, b: int(a >= b),
    "1 if `a` is at least `b`, else 0; comparisons chain as in Python",
    same=1, negation="lt", swapped="le")

row("bitor", "infix", "|", 6, lambda w, a, b: a | b,
    "bitwise or",
    commutative=True, associative=True, identity=0, absorber=-1, same="x")
row("bitxor", "infix", "^", 7, lambda w, a, b: a ^ b,
    "bitwise exclusive or",
    commutative=True, associative=True, identity=0, same=0)
row("bitand", "infix", "&", 8, lambda w, a, b: a & b,
    "bitwise and",
    commutative=True, associative=True, identity=-1, absorber=0, same="x")

row("shl", "infix", "<<", 9, lambda w, a, n: a << n % w.bits,
    "shift left; the count is taken modulo 64",
    identity=0, raising=(COUNT_RANGE, OF_SHIFTED))
row("sar", "infix", ">>", 9, lambda w, a, n: a >> n % w.bits,
    "arithmetic shift right: the sign is kept; the count is taken modulo 64",
    identity=0, raising=(COUNT_RANGE,))
row("shr", "infix", ">>>", 9, lambda w, a, n: (a & w.mask) >> n % w.bits,
    "logical shift right: zeros come in; the count is taken modulo 64",
    identity=0, raising=(COUNT_RANGE,))

row("add", "infix", "+", 10, lambda w, a, b: a + b,
    "sum",
    commutative=True, associative=True, identity=0, raising=(overflow_by("add_overflows"),))
row("sub", "infix", "-", 10, lambda w, a, b: a - b,
    "difference",
    identity=0, same=0, raising=(overflow_by("sub_overflows"),))
row("mul", "infix", "*", 11, lambda w, a, b: a * b,
    "product",
    commutative=True, associative=True, identity=1, absorber=0, cost=3,
    raising=(overflow_by("mul_overflows"),))
row("div", "infix", "/", 11, lambda w, a, b: truncating_quotient(a, b),
    "quotient rounded toward zero, as C's `/`",
    identity=1, cost=20, faults=(ZERO_DIVISOR,), raising=(OF_MIN_BY_MINUS_ONE,))
row("rem", "infix", "%", 11, lambda w, a, b: a - b * truncating_quotient(a, b) if b else 0,
    "remainder with the sign of the dividend, as C's `%`",
    same=0, cost=20, faults=(ZERO_DIVISOR,))
row("floordiv", "infix", "//", 11, lambda w, a, b: a // b if b else 0,
    "quotient rounded toward minus infinity, as Python's `//`",
    identity=1, cost=24, faults=(ZERO_DIVISOR,), raising=(OF_MIN_BY_MINUS_ONE,),
    expansion=expansions.floordiv)
row("floormod", "infix", "%%", 11, lambda w, a, b: a % b if b else 0,
    "remainder with the sign of the divisor, as Python's `%`",
    same=0, cost=24, faults=(ZERO_DIVISOR,), expansion=expansions.floormod)

row("neg", "prefix", "-", 12, lambda w, a: -a,
    "negation",
    raising=(OF_MIN,))
row("pos", "prefix", "+", 12, lambda w, a: a,
    "the operand itself",
    cost=0, expansion=lambda make, a: a)
row("bitnot", "prefix", "~", 12, lambda w, a: ~a,
    "every bit inverted")
row("pow", "infix", "**", 13, power,
    "power; `0 ** 0` is 1; the exponent may not be negative",
    right=True, identity=1, cost=40,
    faults=(NEGATIVE_EXPONENT,), raising=(overflow_by("pow_overflows"),))

# Functions, in the order in which they are documented: name, meaning. ------------------------

function("abs", lambda w, x: abs(x),
    "absolute value; wraps for the least number",
    raising=(OF_MIN,))
function("sign", lambda w, x: (x > 0) - (x < 0),
    "-1, 0 or 1",
    cost=3, expansion=expansions.sign)
function("min", lambda w, a, b: min(a, b),
    "the least of two or more",
    variadic=True, cost=2,
    commutative=True, associative=True, identity=MAX, absorber=MIN, same="x")
function("max", lambda w, a, b: max(a, b),
    "the greatest of two or more",
    variadic=True, cost=2,
    commutative=True, associative=True, identity=MIN, absorber=MAX, same="x")
function("clamp", lambda w, x, low, high: min(max(x, low), high),
    "`min(max(x, low), high)`",
    cost=4, expansion=lambda make, x, low, high: make("min", make("max", x, low), high))
function("popcount", lambda w, x: (x & w.mask).bit_count(),
    "how many bits are set",
    cost=3, expansion=expansions.popcount)
function("parity", lambda w, x: (x & w.mask).bit_count() & 1,
    "1 if an odd number of bits is set, else 0",
    cost=4, expansion=lambda make, x: make("bitand", make("popcount", x), 1))
function("clz", lambda w, x: w.bits - (x & w.mask).bit_length(),
    "leading zero bits; 64 for 0",
    cost=3)
function("ctz", lambda w, x: (x & -x).bit_length() - 1 if x else w.bits,
    "trailing zero bits; 64 for 0",
    cost=3)
function("bswap", swap_bytes,
    "the eight bytes in reverse order")
function("bitreverse", reverse_bits,
    "the 64 bits in reverse order",
    cost=12, expansion=expansions.bitreverse)
function("rotl", rotate_left,
    "rotate left; the count is taken modulo 64",
    identity=0)
function("rotr", lambda w, x, n: rotate_left(w, x, -n),
    "rotate right; the count is taken modulo 64",
    identity=0)
function("mulhi", lambda w, a, b: a * b >> w.bits,
    "the upper 64 bits of the signed 128-bit product",
    commutative=True, absorber=0, cost=4)
function("umulhi", lambda w, a, b: (a & w.mask) * (b & w.mask) >> w.bits,
    "the upper 64 bits of the unsigned 128-bit product",
    commutative=True, absorber=0, cost=4)
function("udiv", lambda w, a, b: (a & w.mask) // (b & w.mask) if b else 0,
    "quotient of the operands read as unsigned",
    identity=1, cost=20, faults=(ZERO_DIVISOR,))
function("umod", lambda w, a, b: (a & w.mask) % (b & w.mask) if b else 0,
    "remainder of the operands read as unsigned",
    same=0, cost=20, faults=(ZERO_DIVISOR,))
function("ult", lambda w, a, b: int(a & w.mask < b & w.mask),
    "1 if `a` is less than `b`, both read as unsigned, else 0",
    same=0, negation="uge", swapped="ugt")
function("ule", lambda w, a, b: int(a & w.mask <= b & w.mask),
    "1 if `a` is at most `b`, both read as unsigned, else 0",
    same=1, negation="ugt", swapped="uge")
function("ugt", lambda w, a, b: int(a & w.mask > b & w.mask),
    "1 if `a` is greater than `b`, both read as unsigned, else 0",
    same=0, negation="ule", swapped="ult")
function("uge", lambda w, a, b: int(a & w.mask >= b & w.mask),
    "1 if `a` is at least `b`, both read as unsigned, else 0",
    same=1, negation="ult", swapped="ule")
function("gcd", lambda w, a, b: math.gcd(a, b),
    "greatest common divisor, not negative; `gcd(0, 0)` is 0",
    commutative=True, cost=60, raising=(OF_GCD,))
function("isqrt", lambda w, x: math.isqrt(x) if x >= 0 else w.min,
    "the integer part of the square root",
    cost=25, faults=(NEGATIVE_ROOT,))
function("avg", lambda w, a, b: a + b >> 1,
    "the mean, rounded toward minus infinity, without overflow",
    commutative=True, same="x", cost=4, expansion=expansions.average)
function("pdep", deposit,
    "the low bits of `x` deposited where `mask` has ones",
    cost=3)
function("pext", extract,
    "the bits of `x` where `mask` has ones, moved together",
    cost=3)

for _bits in (8, 16, 32):
    function(f"i{_bits}", narrow(_bits),
        f"the low {_bits} bits as a signed number, as C's cast")
for _bits in (8, 16, 32):
    function(f"u{_bits}", lambda w, x, mask=(1 << _bits) - 1: x & mask,
        f"the low {_bits} bits as an unsigned number, as C's cast",
        expansion=lambda make, x, mask=(1 << _bits) - 1: make("bitand", x, mask))

# Graph nodes that no text can name: whether the arithmetic overflows. ------------------------

row("add_overflows", "internal", "", 14, lambda w, a, b: int(not w.fits(a + b)),
    "1 if `a + b` is outside 64 bits",
    commutative=True)
row("sub_overflows", "internal", "", 14, lambda w, a, b: int(not w.fits(a - b)),
    "1 if `a - b` is outside 64 bits")
row("mul_overflows", "internal", "", 14, lambda w, a, b: int(not w.fits(a * b)),
    "1 if `a * b` is outside 64 bits",
    commutative=True, cost=3)
row("pow_overflows", "internal", "", 14, power_overflows,
    "1 if `a ** n` is outside 64 bits, n read as unsigned",
    cost=40)

# fmt: on

# What the parser looks up: rows by their spelling. -------------------------------------------

INFIX: Final[dict[str, Operator]] = {
    token: operator
    for operator in OPERATORS.values()
    if operator.fixity in ("infix", "lazy")
    for token in operator.tokens
}
#: With the precedence beside the row: `!` is `not`, but binds as tightly as `-`.
PREFIX: Final[dict[str, tuple[Operator, int]]] = {
    token: (operator, operator.precedence)
    for operator in OPERATORS.values()
    if operator.fixity == "prefix"
    for token in operator.tokens
}
PREFIX["!"] = OPERATORS["not"], OPERATORS["neg"].precedence
#: Functions are called by their name.
FUNCTIONS: Final[dict[str, Operator]] = {
    name: operator for name, operator in OPERATORS.items() if operator.fixity == "function"
}

#: The rows whose value is always 0 or 1.
BOOLEANS: Final = frozenset(
    name
    for name, operator in OPERATORS.items()
    if operator.negation or name.endswith("_overflows") or name in ("and", "or", "not", "parity")
)

for _operator in OPERATORS.values():
    assert {_operator.negation, _operator.swapped} <= {None, *OPERATORS}, _operator

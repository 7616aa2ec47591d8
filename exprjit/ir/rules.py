"""The algebra beyond the table's columns: rules, each a name and a line of maths.

A rule is data: a left side, a right side and perhaps a condition, all three written as
expressions over pattern variables.  `x y z` stand for any value, `b` for a value that is
0 or 1, `c d` for constants.  The first rule that matches is used, so special ones come
before general ones.  Being data, every rule is proved by the tests, exhaustively at small
widths and on edge values at 64 bits, with the meanings of the operator table.

Rules are about values only: nodes are total, and what can fail stands in bail conditions,
which no rule removes.  A right side is never dearer than its left side and always nearer
to a fixed order of forms, so rewriting ends.
"""

from __future__ import annotations

from typing import Any, Final

from ..language.operators import OPERATORS
from . import reciprocals
from .patterns import (
    BITS,
    COUNT,
    MAX,
    MIN,
    Pattern,
    Rule,
    Rules,
    apply,
    computed,
    function,
    pattern,
)

RULES: Final[list[Rule]] = []


def rule(
    name: str, left: Pattern, right: Any, when: Pattern | None = None, wrap_only: bool = False
) -> None:
    """Add a rule (see `Rule`) to the list; `right` may be a number."""
    RULES.append(Rule(name, left, pattern(right), when, wrap_only))


x, y, z = (Pattern("any", name=_name) for _name in "xyz")
b = Pattern("boolean", name="b")
c, d = (Pattern("constant", name=_name) for _name in "cd")

abs_, bswap, ctz, max_, min_, neg, popcount, pow_, rotl, rotr, sar, select, shr = map(
    function, "abs bswap ctz max min neg popcount pow rotl rotr sar select shr".split()
)
div, rem, floordiv, floormod, udiv, umod = map(
    function, "div rem floordiv floormod udiv umod".split()
)
eq, ne, lt, le, gt, ge, ult, ule, ugt, uge = map(
    function, "eq ne lt le gt ge ult ule ugt uge".split()
)
add_overflows, sub_overflows, mul_overflows, pow_overflows = map(
    function, "add_overflows sub_overflows mul_overflows pow_overflows".split()
)

power_of_two = eq(popcount(c), 1)
exponent = ctz(c)
#: Whether shifting by c and then by d is shifting by c + d.
in_all = ult(c, BITS) & ult(d, BITS) & ult(c + d, BITS)

# Sums. -------------------------------------------------------------------------------------
rule("sub-constant", x - c, x + -c)
rule("sub-from-zero", 0 - x, -x)
rule("sub-from-minus-one", -1 - x, ~x)
rule("add-negated", x + -y, x - y)
rule("sub-negated", x - -y, x + y)
rule("add-then-sub", (x + y) - y, x)
rule("sub-then-add", (x - y) + y, x)
rule("sub-sum-from-part", x - (x + y), -y)
rule("sub-difference", x - (x - y), y)
rule("add-complement", x + ~x, -1)
rule("complement-plus-one", ~x + 1, -x)
rule("add-twice", x + x, x << 1, wrap_only=True)
rule("carry-save", (x ^ y) + ((x & y) << 1), x + y)
rule("or-plus-and", (x | y) + (x & y), x + y)
rule("xor-plus-and", (x ^ y) + (x & y), x | y)
rule("or-minus-and", (x | y) - (x & y), x ^ y)
rule("or-minus-xor", (x | y) - (x ^ y), x & y)
rule("add-constants", (x + c) + d, x + (c + d), wrap_only=True)
rule("sub-from-constants", c - (x + d), (c - d) - x, wrap_only=True)
rule("add-to-sub-from", (c - x) + d, (c + d) - x, wrap_only=True)

# Negation and complement. ------------------------------------------------------------------
rule("neg-neg", neg(neg(x)), x)
rule("neg-difference", -(x - y), y - x)
rule("neg-complement", -(~x), x + 1)
rule("complement-complement", ~~x, x)
rule("complement-neg", ~(-x), x + -1)

# Products. ---------------------------------------------------------------------------------
rule("mul-minus-one", x * -1, -x)
rule("mul-power-of-two", x * c, x << exponent, power_of_two, wrap_only=True)
rule("mul-constants", (x * c) * d, x * (c * d), wrap_only=True)
rule("mul-shifted", (x << c) * d, x * (d << c), wrap_only=True)
rule("mul-negated", -x * c, x * -c, wrap_only=True)
rule("pow-zero", pow_(x, 0), 1)
rule("square", pow_(x, 2), x * x)

# Quotients; the divisor's bail condition stands elsewhere. ----------------------------------
rule("div-minus-one", div(x, -1), -x)
rule("floordiv-minus-one", floordiv(x, -1), -x)
rule("rem-one", rem(x, 1), 0)
rule("rem-minus-one", rem(x, -1), 0)
rule("floormod-minus-one", floormod(x, -1), 0)
rule("floordiv-power-of-two", floordiv(x, c), sar(x, exponent), power_of_two & gt(c, 0))
rule("floormod-power-of-two", floormod(x, c), x & (c + -1), power_of_two & gt(c, 0))
rule("udiv-power-of-two", udiv(x, c), shr(x, exponent), power_of_two)
rule("umod-power-of-two", umod(x, c), x & (c + -1), power_of_two)

# Shifts. -----------------------------------------------------------------------------------
for _shift in ("shl", "sar", "shr", "rotl", "rotr"):
    rule(f"{_shift}-count", apply(_shift, x, c), apply(_shift, x, c & COUNT), ugt(c, COUNT))
    rule(f"{_shift}-masked-count", apply(_shift, x, y & COUNT), apply(_shift, x, y))
for _shift in ("shl", "sar", "shr"):
    rule(f"{_shift}-twice", apply(_shift, apply(_shift, x, c), d), apply(_shift, x, c + d), in_all)
rule("rotl-twice", rotl(rotl(x, c), d), rotl(x, c + d))
rule("rotr-constant", rotr(x, c), rotl(x, BITS - c))
for _shift in ("shl", "sar", "shr", "rotl", "rotr"):
    rule(
        f"{_shift}-count-from-bits",
        apply(_shift, x, BITS - y),
        apply(_shift, x, -y),
        wrap_only=not _shift.startswith("rot"),
    )
for _op in ("bitor", "bitxor", "add"):
    rule(
        f"rotate-by-{_op}",
        apply(_op, x << c, shr(x, d)),
        rotl(x, c),
        eq((c & COUNT) + (d & COUNT), BITS),
    )
rule("rotl-by-bitor", (x << y) | shr(x, -y), rotl(x, y))
rule("rotr-by-bitor", shr(x, y) | (x << -y), rotr(x, y))
# The mask has to be one that fits an instruction: up to half of the bits.
rule("shl-shr", shr(x << c, c), x & shr(-1, c), uge(c + c, BITS) & ult(c, BITS))
rule("sign-of-complement", shr(~x, COUNT), ge(x, 0))
rule("sign-bit", shr(x, COUNT), lt(x, 0))

# Bits. -------------------------------------------------------------------------------------
rule("bitand-constants", (x & c) & d, x & (c & d))
rule("bitor-constants", (x | c) | d, x | (c | d))
rule("bitxor-constants", (x ^ c) ^ d, x ^ (c ^ d))
rule("and-complement", x & ~x, 0)
rule("or-complement", x | ~x, -1)
rule("xor-complement", x ^ ~x, -1)
rule("xor-minus-one", x ^ -1, ~x)
rule("xor-complements", ~x ^ ~y, x ^ y)
rule("xor-twice", (x ^ y) ^ y, x)
rule("and-or", (x | y) & x, x)
rule("or-and", (x & y) | x, x)
rule("and-twice", (x & y) & x, x & y)
rule("or-twice", (x | y) | x, x | y)
rule("and-one-of-boolean", b & 1, b)
rule("xor-one-of-boolean", b ^ 1, eq(b, 0))
rule("bswap-twice", bswap(bswap(x)), x)
rule("abs-abs", abs_(abs_(x)), abs_(x))
rule("abs-neg", abs_(-x), abs_(x))
for _outer, _inner in (8, 8), (16, 8), (16, 16), (32, 8), (32, 16), (32, 32):
    _narrowed = apply(f"i{_inner}", x)
    rule(f"i{_outer}-of-i{_inner}", apply(f"i{_outer}", _narrowed), _narrowed)

# Comparisons. ------------------------------------------------------------------------------
for _name in "eq ne lt le gt ge ult ule ugt uge".split():
    _negation = OPERATORS[_name].negation
    assert _negation is not None
    _holds, _fails = apply(_name, x, y), apply(_negation, x, y)
    rule(f"not-{_name}", eq(_holds, 0), _fails)
    if _name < _negation:
        rule(f"{_name}-and-{_negation}", _holds & _fails, 0)
        rule(f"{_name}-or-{_negation}", _holds | _fails, 1)
    rule(f"guarded-{_name}-and-{_negation}", (b & _holds) & _fails, 0)
for _name in ("eq", "ne"):
    rule(f"{_name}-difference", apply(_name, x - y, 0), apply(_name, x, y))
    rule(f"{_name}-xor", apply(_name, x ^ y, 0), apply(_name, x, y))
    rule(f"{_name}-neg", apply(_name, -x, c), apply(_name, x, -c))
    rule(f"{_name}-complement", apply(_name, ~x, c), apply(_name, x, ~c))
    rule(f"{_name}-sum", apply(_name, x + c, d), apply(_name, x, d - c), wrap_only=True)
rule("ne-zero-of-boolean", ne(b, 0), b)
rule("eq-one-of-boolean", eq(b, 1), b)
rule("ne-one-of-boolean", ne(b, 1), eq(b, 0))
rule("lt-least", lt(x, MIN), 0)
rule("ge-least", ge(x, MIN), 1)
rule("gt-greatest", gt(x, MAX), 0)
rule("le-greatest", le(x, MAX), 1)
rule("ult-zero", ult(x, 0), 0)
rule("uge-zero", uge(x, 0), 1)
rule("ugt-zero", ugt(x, 0), ne(x, 0))
rule("ule-zero", ule(x, 0), eq(x, 0))
rule("ult-one", ult(x, 1), eq(x, 0))
rule("uge-one", uge(x, 1), ne(x, 0))
rule("from-until", ge(x, c) & lt(x, d), ult(x - c, d - c), le(c, d))
rule("from-to", ge(x, c) & le(x, d), ule(x - c, d - c), le(c, d))
rule("above-until", gt(x, c) & lt(x, d), ult(x - (c + 1), d - (c + 1)), lt(c, d))
rule("above-to", gt(x, c) & le(x, d), ult(x - (c + 1), d - c), lt(c, d))
# What people write so that a division, a shift or a root cannot fail.
rule("eq-with-bits-set", eq(x | c, d), 0, ne(c & ~d, 0))
rule("ne-with-bits-set", ne(x | c, d), 1, ne(c & ~d, 0))
rule("ugt-masked", ugt(x & c, d), 0, ule(c, d))
rule("lt-zero-masked", lt(x & c, 0), 0, ge(c, 0))
rule("lt-zero-shifted", lt(shr(x, c), 0), 0, ne(c & COUNT, 0))

# Multiples of an odd number are the products of its inverse with few numbers; they stand here and
# not where divisions are reduced (reductions.py), since that comes to the remainder first.
_inverse, _multiples, _below, _unsigned_multiples = (
    computed(meaning)(c)
    for meaning in (
        reciprocals.inverse,
        reciprocals.multiples,
        reciprocals.multiples_below,
        reciprocals.unsigned_multiples,
    )
)
for _name, _few in ("eq", ule), ("ne", ugt):
    for _op in ("rem", "floormod"):
        rule(
            f"{_name}-multiple-by-{_op}",
            apply(_name, apply(_op, x, c), 0),
            _few(rotr(x * _inverse + _below, exponent), _multiples),
            gt(c, 2) & ne(power_of_two, 1),
        )
        rule(
            f"{_name}-multiple-of-power-by-{_op}",
            apply(_name, apply(_op, x, c), 0),
            apply(_name, x & (c + -1), 0),
            power_of_two,
        )
    rule(
        f"{_name}-unsigned-multiple",
        apply(_name, umod(x, c), 0),
        _few(rotr(x * _inverse, exponent), _unsigned_multiples),
        ugt(c, 2) & ne(power_of_two, 1),
    )

# Choices. ----------------------------------------------------------------------------------
rule("select-same", select(x, y, y), y)
rule("select-on-zero", select(eq(x, 0), y, z), select(x, z, y))
rule("select-on-not-zero", select(ne(x, 0), y, z), select(x, y, z))
rule("select-truth-of-boolean", select(b, 1, 0), b)
rule("select-truth", select(x, 1, 0), ne(x, 0))
rule("select-falsehood", select(x, 0, 1), eq(x, 0))
for _less, _greater in ("lt", "gt"), ("le", "ge"):
    rule(f"min-by-{_less}", select(apply(_less, x, y), x, y), min_(x, y))
    rule(f"min-by-{_greater}", select(apply(_greater, x, y), y, x), min_(x, y))
    rule(f"max-by-{_less}", select(apply(_less, x, y), y, x), max_(x, y))
    rule(f"max-by-{_greater}", select(apply(_greater, x, y), x, y), max_(x, y))
    rule(f"abs-by-{_less}", select(apply(_less, x, 0), -x, x), abs_(x))
    rule(f"abs-by-{_greater}", select(apply(_greater, x, 0), x, -x), abs_(x))
rule("min-max", min_(max_(x, y), x), x)
rule("max-min", max_(min_(x, y), x), x)

# Overflow. ---------------------------------------------------------------------------------
rule("add-overflows-zero", add_overflows(x, 0), 0)
rule("sub-overflows-zero", sub_overflows(x, 0), 0)
rule("sub-overflows-same", sub_overflows(x, x), 0)
rule("sub-overflows-constant", sub_overflows(x, c), add_overflows(x, -c), ne(c, MIN))
rule("mul-overflows-zero", mul_overflows(x, 0), 0)
rule("mul-overflows-one", mul_overflows(x, 1), 0)
rule("mul-overflows-minus-one", mul_overflows(x, -1), eq(x, MIN))
rule("pow-overflows-zero", pow_overflows(x, 0), 0)
rule("pow-overflows-one", pow_overflows(x, 1), 0)
rule("pow-overflows-two", pow_overflows(x, 2), mul_overflows(x, x))


BY_MODE: Final = {mode: Rules(RULES, mode) for mode in ("wrap", "raise")}

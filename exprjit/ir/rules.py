"""The algebra beyond the table's columns: rules, each a name and a line of maths.

A rule is data: a left side, a right side and perhaps a condition, all three written as
expressions over pattern variables.  `x y z` stand for any value, `b` for a value that is
0 or 1, `c d e f` for constants.  The first rule that matches is used, so special ones come
before general ones.  Being data, every rule is proved by the tests, exhaustively at small
widths and on edge values at 64 bits, with the meanings of the operator table.

A condition may be about the variables for any value: then it has to follow from what is known of
the value (facts.py).  What is known to be a constant is one without a rule.

Rules are about values only: nodes are total, and what can fail stands in bail conditions,
which no rule removes.  A right side is never dearer than its left side and always nearer
to a fixed order of forms, so rewriting ends.
"""

from __future__ import annotations

from typing import Any, Final

from ..language.operators import OPERATORS, Width
from . import membership, reciprocals
from .patterns import (
    BITS,
    COUNT,
    MIN,
    Pattern,
    RuleList,
    Rules,
    apply,
    by_width,
    computed,
    function,
    literal,
)

RULES: Final = RuleList()
rule, section = RULES.rule, RULES.section

x, y, z = (Pattern("any", name=_name) for _name in "xyz")
b = Pattern("boolean", name="b")
c, d, e, f = (Pattern("constant", name=_name) for _name in "cdef")

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
#: Whether x is not negative, where that is known.
natural = ge(x, 0)
#: Whether shifting by c and then by d is shifting by c + d.
in_all = ult(c, BITS) & ult(d, BITS) & ult(c + d, BITS)


def _above(bits: int) -> Pattern:
    """How many bits there are above the lowest `bits`."""
    return by_width(lambda w: max(w.bits - bits, 0))


def _least_of(bits: int) -> Pattern:
    """The least number of so many bits."""
    return by_width(lambda w: Width(min(bits, w.bits)).min)


def _of_bytes(byte: int) -> Pattern:
    """The number all of whose bytes are this one."""
    return by_width(lambda w: w.wrap(w.mask // 255 * byte))


section("Sums")
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

section("Negation and complement")
rule("neg-neg", neg(neg(x)), x)
rule("neg-difference", -(x - y), y - x)
rule("neg-complement", -(~x), x + 1)
rule("complement-complement", ~~x, x)
rule("complement-neg", ~(-x), x + -1)

section("Products")
rule("mul-minus-one", x * -1, -x)
rule("mul-power-of-two", x * c, x << exponent, power_of_two, wrap_only=True)
rule("mul-constants", (x * c) * d, x * (c * d), wrap_only=True)
rule("mul-shifted", (x << c) * d, x * (d << c), wrap_only=True)
rule("mul-negated", -x * c, x * -c, wrap_only=True)
rule("mul-plus-one", x * c + x, x * (c + 1), wrap_only=True)
rule("mul-minus-one-more", x * c - x, x * (c - 1), wrap_only=True)
rule("mul-from-one", x - x * c, x * (1 - c), wrap_only=True)
rule("mul-sum-of-factors", x * c + x * d, x * (c + d), wrap_only=True)
rule("mul-sum", x * c + y * c, (x + y) * c, wrap_only=True)
rule("mul-difference", x * c - y * c, (x - y) * c, wrap_only=True)
rule("pow-zero", pow_(x, 0), 1)
rule("square", pow_(x, 2), x * x)

# The divisor's bail condition stands elsewhere.
section("Quotients")
rule("div-minus-one", div(x, -1), -x)
rule("floordiv-minus-one", floordiv(x, -1), -x)
for _signed, _unsigned in (
    ("div", "udiv"),
    ("rem", "umod"),
    ("floordiv", "udiv"),
    ("floormod", "umod"),
):
    rule(
        f"{_signed}-of-natural",
        apply(_signed, x, y),
        apply(_unsigned, x, y),
        natural & ge(y, 0),
    )
for _div, _rem in ("div", "rem"), ("floordiv", "floormod"), ("udiv", "umod"):
    rule(
        f"{_rem}-by-{_div}", x - apply(_div, x, c) * c, apply(_rem, x, c), ne(c, 0), wrap_only=True
    )
rule("floordiv-power-of-two", floordiv(x, c), sar(x, exponent), power_of_two & gt(c, 0))
rule("floormod-power-of-two", floormod(x, c), x & (c + -1), power_of_two & gt(c, 0))
rule("udiv-power-of-two", udiv(x, c), shr(x, exponent), power_of_two)
rule("umod-power-of-two", umod(x, c), x & (c + -1), power_of_two)

section("Shifts")
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
rule("shr-shl", shr(x, c) << c, x & (literal(-1) << c), ult(c, BITS))
for _bits in 8, 16, 32:
    _narrow = _above(_bits)
    rule(f"i{_bits}-by-shifts", sar(x << _narrow, _narrow), apply(f"i{_bits}", x))
rule("low-ones", ~(literal(-1) << y), (literal(1) << y) + -1, wrap_only=True)
rule("sar-of-natural", sar(x, y), shr(x, y), natural)
rule("sign-of-complement", shr(~x, COUNT), ge(x, 0))
rule("sign-bit", shr(x, COUNT), lt(x, 0))

section("Bits")
rule("bitand-constants", (x & c) & d, x & (c & d))
rule("bitor-constants", (x | c) | d, x | (c | d))
rule("bitxor-constants", (x ^ c) ^ d, x ^ (c ^ d))
rule("and-of-bits-within", x & c, x, eq(x & ~c, 0))
rule("or-of-bits-set", x | c, x, eq(~x & c, 0))
rule("and-complement", x & ~x, 0)
rule("or-complement", x | ~x, -1)
rule("xor-complement", x ^ ~x, -1)
rule("xor-minus-one", x ^ -1, ~x)
rule("xor-complements", ~x ^ ~y, x ^ y)
rule("xor-twice", (x ^ y) ^ y, x)
rule("and-or", (x | y) & x, x)
rule("or-and", (x & y) | x, x)
rule("or-of-ands", (x & y) | (x & z), x & (y | z))
rule("xor-of-ands", (x & y) ^ (x & z), x & (y ^ z))
rule("and-of-ors", (x | y) & (x | z), x | (y & z))
rule("and-twice", (x & y) & x, x & y)
rule("or-twice", (x | y) | x, x | y)
rule("xor-one-of-boolean", b ^ 1, eq(b, 0))
rule("bswap-twice", bswap(bswap(x)), x)
rule("abs-abs", abs_(abs_(x)), abs_(x))
rule("abs-neg", abs_(-x), abs_(x))
rule("abs-of-natural", abs_(x), x, natural)
rule("abs-of-negative", abs_(x), -x, le(x, 0))
for _bits in 8, 16, 32:
    _least = _least_of(_bits)
    rule(f"i{_bits}-of-what-fits", apply(f"i{_bits}", x), x, ge(x, _least) & le(x, ~_least))

# Hacker's Delight, section 5-1.
section("Counting bits by hand")
_highest_byte = by_width(lambda w: w.bits - 8)
_ones, _twos, _fours, _bytes = (_of_bytes(_byte) for _byte in (0x55, 0x33, 0x0F, 0x01))
_pairs = x - (shr(x, 1) & _ones)
_nibbles = (_pairs & _twos) + (shr(_pairs, 2) & _twos)
_octets = (_nibbles + shr(_nibbles, 4)) & _fours
rule("popcount-by-hand", shr(_octets * _bytes, _highest_byte), popcount(x), native="popcount")

section("Comparisons")
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
rule("ugt-zero", ugt(x, 0), ne(x, 0))
rule("ule-zero", ule(x, 0), eq(x, 0))
rule("ult-one", ult(x, 1), eq(x, 0))
rule("uge-one", uge(x, 1), ne(x, 0))
rule("from-until", ge(x, c) & lt(x, d), ult(x - c, d - c), le(c, d))
rule("from-to", ge(x, c) & le(x, d), ule(x - c, d - c), le(c, d))
rule("above-until", gt(x, c) & lt(x, d), ult(x - (c + 1), d - (c + 1)), lt(c, d))
rule("above-to", gt(x, c) & le(x, d), ult(x - (c + 1), d - c), lt(c, d))

section("Conditions together")
rule("zeros", eq(x, 0) & eq(y, 0), eq(x | y, 0))
rule("not-zeros", ne(x, 0) | ne(y, 0), ne(x | y, 0))
rule("any-negative", lt(x, 0) | lt(y, 0), lt(x | y, 0))
rule("all-negative", lt(x, 0) & lt(y, 0), lt(x & y, 0))
rule("all-natural", ge(x, 0) & ge(y, 0), ge(x | y, 0))
rule("any-natural", ge(x, 0) | ge(y, 0), ge(x & y, 0))

section("Bits that have to be so")
# Bits that have to be so, and others that have to be so; where both speak of a bit they agree.
_agree = eq(d & ~c, 0) & eq(f & ~e, 0) & eq((d ^ f) & (c & e), 0)
rule("both-masked", eq(x & c, d) & eq(x & e, f), eq(x & (c | e), d | f), _agree)
rule("either-not-masked", ne(x & c, d) | ne(x & e, f), ne(x & (c | e), d | f), _agree)

section("One of some numbers")
# Two numbers that differ in a bit, or some that are near each other.
_other = c ^ d
rule("one-of-two", eq(x, c) | eq(x, d), eq(x & ~_other, c & ~_other), eq(popcount(_other), 1))
rule("none-of-two", ne(x, c) & ne(x, d), ne(x & ~_other, c & ~_other), eq(popcount(_other), 1))

# Two ranges of a length that differ in a bit, as those of small and of capital letters do.
_bit, _start = -c ^ -e, -c & -e
_end = _start + d
_differ = eq(popcount(_bit), 1) & ult(_start ^ _end, _bit) & ule(_start, _end)
for _name in ("ult", "ule"):
    _one, _another = apply(_name, x + c, d), apply(_name, x + e, d)
    _either = apply(_name, (x & ~_bit) + -_start, d)
    rule(f"{_name}-in-one-of-two-ranges", _one | _another, _either, _differ)
    rule(f"{_name}-in-one-more-range", (b | _one) | _another, b | _either, _differ)
for _name in ("ugt", "uge"):
    _one, _another = apply(_name, x + c, d), apply(_name, x + e, d)
    _neither = apply(_name, (x & ~_bit) + -_start, d)
    rule(f"{_name}-in-none-of-two-ranges", _one & _another, _neither, _differ)
    rule(f"{_name}-in-none-of-one-more-range", (b & _one) & _another, b & _neither, _differ)

_near, _base, _members = map(computed, (membership.near, membership.base, membership.members))


def _member(base: Any, word: Any) -> Pattern:
    return ult(x - base, BITS) & shr(word, x - base)


_all = c, d, e
_both = c, c | ~d, e
rule(
    "one-of-three",
    (eq(x, c) | eq(x, d)) | eq(x, e),
    _member(_base(*_all), _members(*_all)),
    _near(*_all),
)
rule(
    "none-of-three",
    (ne(x, c) & ne(x, d)) & ne(x, e),
    eq(_member(_base(*_all), _members(*_all)), 0),
    _near(*_all),
)
_pair = eq(popcount(~d), 1) & eq(c & ~d, 0)
rule(
    "one-of-two-or-another",
    eq(x & d, c) | eq(x, e),
    _member(_base(*_both), _members(*_both)),
    _pair & _near(*_both),
)
rule(
    "none-of-two-nor-another",
    ne(x & d, c) & ne(x, e),
    eq(_member(_base(*_both), _members(*_both)), 0),
    _pair & _near(*_both),
)
for _name, _place, _when in (
    ("another", x, ult(e, BITS)),
    ("another-from-base", x + c, ult(e + c, BITS)),
):
    _more = d | (literal(1) << (e if _place is x else e + c))
    rule(
        f"one-of-{_name}",
        (ult(_place, BITS) & shr(d, _place)) | eq(x, e),
        ult(_place, BITS) & shr(_more, _place),
        _when,
    )
    rule(
        f"none-of-{_name}",
        eq(ult(_place, BITS) & shr(d, _place), 0) & ne(x, e),
        eq(ult(_place, BITS) & shr(_more, _place), 0),
        _when,
    )

section("Multiples")
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
            gt(c, 2) & ne(popcount(c), 1),
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
        ugt(c, 2) & ne(popcount(c), 1),
    )

section("Choices")
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
rule("select-on-what-is-not-zero", select(x, y, z), y, ne(x, 0))
rule("min-known", min_(x, y), x, le(x, y))
rule("max-known", max_(x, y), x, ge(x, y))
rule("min-max", min_(max_(x, y), x), x)
rule("max-min", max_(min_(x, y), x), x)

section("Overflow")
rule("sub-overflows-same", sub_overflows(x, x), 0)
rule("sub-overflows-constant", sub_overflows(x, c), add_overflows(x, -c), ne(c, MIN))
rule("mul-overflows-minus-one", mul_overflows(x, -1), eq(x, MIN))
rule("pow-overflows-zero", pow_overflows(x, 0), 0)
rule("pow-overflows-one", pow_overflows(x, 1), 0)
rule("pow-overflows-two", pow_overflows(x, 2), mul_overflows(x, x))


BY_MODE: Final = {mode: Rules(RULES, mode) for mode in ("wrap", "raise")}

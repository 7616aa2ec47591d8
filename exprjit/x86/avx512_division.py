"""Quotients, remainders and roots in lanes of AVX-512, by way of doubles.

A long has 63 bits and a double 53. Where operands are known to be small, one multiplication or
division in doubles is exact when rounded the right way; else it gives an estimate that is never too
great, and what is left is divided once more.

All estimates are made with the rounding written in the instruction, so they neither trap (on lanes
that divide by 0) nor depend on the caller's rounding mode.
"""

from __future__ import annotations

from typing import Final

from ..ir.graph import CONST, Node
from .lane_arithmetic import QUOTIENTS, double, fits, quotient_to_come
from .lanes import Form, Lanes, Lowering

#: Below these magnitudes one step is exact: dividends of constants, both operands.
CONSTANT_LIMIT: Final = 1 << 49
VARIABLE_LIMIT: Final = 1 << 52

#: Constants from here on leave an estimate that is one too small at most.
_GREAT: Final = 1 << 14

#: The predicate of comparisons.
_NOT_LESS: Final = 5


# By constants. -------------------------------------------------------------------------------


def _quotient_by_constant(s: Lanes, node: Node | Form, register: int) -> None:
    """div and floordiv by a constant of 3 or more that is no power of two."""
    dividend, divisor = node.args
    c = divisor.value
    x = s.value(dividend)
    if fits(dividend, CONSTANT_LIMIT):
        _narrow_by_constant(s, node.op, x, c, register)
    elif node.op == "floordiv":
        _floor_by_constant(s, x, c, register)
    else:
        # Toward zero is toward minus infinity where negative dividends are c - 1 greater.
        negative, raised = s.new(), s.new()
        s.emit("vpmovq2m512_kx", negative, x)
        s.emit("vpaddq512_xkxx", raised, negative, x, s.constant(c - 1), tied=x)
        _floor_by_constant(s, raised, c, register)


def _narrow_by_constant(s: Lanes, op: str, x: int, c: int, register: int) -> None:
    dividend, quotient = s.new(), s.new()
    reciprocal = 1.0 / c
    s.emit("vcvtqq2pd512rn_xx", dividend, x)
    if op == "div":
        up = s.constant(double(reciprocal * (1 + 2.0**-52)))
        s.emit("vmulpd512rn_xxx", quotient, dividend, up)
        s.emit("vcvttpd2qq512sae_xx", register, quotient)
    else:
        half = s.constant(double(reciprocal * 0.5))
        factor = s.constant(double(reciprocal))
        s.emit("vfmadd213pd512rn_xxx", quotient, factor, half, tied=dividend)
        s.emit("vcvtpd2qq512rd_xx", register, quotient)


def _floor_by_constant(s: Lanes, x: int, c: int, register: int) -> None:
    dividend, estimate, q, multiple, rest = (s.new() for _ in range(5))
    factor = s.constant(double(1.0 / c))
    s.emit("vcvtqq2pd512rn_xx", dividend, x)
    if c < _GREAT:
        # So much below the truth that three roundings cannot bring it above.
        below = s.constant(double(-(-(-3072 // c) + 1.0)))
        s.emit("vfmadd213pd512rn_xxx", estimate, factor, below, tied=dividend)
        s.emit("vcvttpd2qq512sae_xx", q, estimate)
    else:
        s.emit("vfmadd213pd512rn_xxx", estimate, factor, s.constant(double(-0.45)), tied=dividend)
        s.emit("vcvtpd2qq512rd_xx", q, estimate)
    divisor = s.constant(c)
    s.emit("vpmullq512_xxx", multiple, q, divisor)
    s.emit("vpsubq512_xxx", rest, x, multiple)
    if c < _GREAT:
        product, more = s.new(), s.new()
        s.emit("vpmuludq512_xxx", product, rest, s.constant((1 << 32) // c + 1))
        s.emit("vpsrlq512_xxi", more, product, 32)
        s.emit("vpaddq512_xxx", register, q, more)
    else:
        one_more = s.new()
        s.emit("vpcmpuq512_kxxi", one_more, rest, divisor, _NOT_LESS)
        s.emit("vpaddq512_xkxx", register, one_more, q, s.constant(1), tied=q)


def _remainder_by_constant(s: Lanes, node: Node, register: int) -> None:
    """What is left when the quotient is multiplied back."""
    dividend, divisor = node.args
    quotient = quotient_to_come(s, node)
    if quotient is None:
        quotient = s.new()
        _quotient_by_constant(s, Form(QUOTIENTS[node.op], node.args), quotient)
    multiple = s.new()
    s.emit("vpmullq512_xxx", multiple, quotient, s.constant(divisor.value))
    s.emit("vpsubq512_xxx", register, s.value(dividend), multiple)


# By variables. -------------------------------------------------------------------------------


def _by_variable(s: Lanes, node: Node, register: int) -> None:
    """div, rem, udiv and umod; both of a pair at once, where the first of them stands."""
    x, y = node.args
    is_quotient = node.op in ("div", "udiv")
    quotient_op = node.op if is_quotient else QUOTIENTS[node.op]
    other_op = node.op if not is_quotient else "rem" if node.op == "div" else "umod"
    partner = s.find(other_op if is_quotient else quotient_op, x, y)
    if partner is not None and partner not in s.done and partner not in s.partners:
        # It stands before: there both are made.
        s.value(partner)
        s.partners[partner] = register
        return
    other = s.partners.get(node)
    quotient, remainder = (register, other) if is_quotient else (other, register)
    if quotient is None:
        quotient = s.new()
    if is_narrow(node):
        _narrow_division(s, x, y, quotient, remainder)
    else:
        _wide_division(s, x, y, quotient_op == "div", quotient, remainder)


def _may_be_zero(s: Lanes, divisor: Node) -> bool:
    """Whether a divisor may be 0 in rows that count."""
    known = divisor.facts
    return not (known.low > 0 or known.high < 0 or known.ones or divisor in s.nonzero)


def is_narrow(node: Node) -> bool:
    """Whether one division of doubles is exact."""
    signed = node.op in ("div", "rem")
    return all(fits(arg, VARIABLE_LIMIT) and (signed or arg.facts.low >= 0) for arg in node.args)


def _narrow_division(s: Lanes, x: Node, y: Node, quotient: int, remainder: int | None) -> None:
    a, b, ratio = s.new(), s.new(), s.new()
    dividend, divisor = s.value(x), s.value(y)
    s.emit("vcvtqq2pd512rn_xx", a, dividend)
    s.emit("vcvtqq2pd512rn_xx", b, divisor)
    s.emit("vdivpd512rn_xxx", ratio, a, b)
    if not _may_be_zero(s, y):
        s.emit("vcvttpd2qq512sae_xx", quotient, ratio)
        if remainder is not None:
            multiple = s.new()
            s.emit("vpmullq512_xxx", multiple, quotient, divisor)
            s.emit("vpsubq512_xxx", remainder, dividend, multiple)
        return
    valid = s.new()
    s.emit("vptestmq512_kxx", valid, divisor, divisor)
    s.emit("vcvttpd2qq512sae_xzx", quotient, valid, ratio)
    if remainder is not None:
        multiple = s.new()
        s.emit("vpmullq512_xxx", multiple, quotient, divisor)
        s.emit("vpsubq512_xzxx", remainder, valid, dividend, multiple)


def _wide_division(
    s: Lanes, x: Node, y: Node, signed: bool, quotient: int, remainder: int | None
) -> None:
    """The whole range: an estimate, the rest divided by the same reciprocal, and one step more."""
    dividend, divisor = s.value(x), s.value(y)
    new = s.new
    ux, uy = dividend, divisor
    if signed:
        ux, uy = new(), new()
        s.emit("vpabsq512_xx", ux, dividend)
        s.emit("vpabsq512_xx", uy, divisor)
    a, b, inverse, e, q, m, r, f, g, p, n, r2, q2, k = (new() for _ in range(14))
    s.emit("vcvtuqq2pd512rn_xx", a, ux)
    s.emit("vcvtuqq2pd512rn_xx", b, uy)
    # The numerator is a little less than 1, which keeps every estimate below the truth.
    s.emit("vdivpd512rn_xxx", inverse, s.constant(double(1 - 2.0**-50)), b)
    s.emit("vmulpd512rn_xxx", e, a, inverse)
    s.emit("vcvttpd2uqq512sae_xx", q, e)
    s.emit("vpmullq512_xxx", m, q, uy)
    s.emit("vpsubq512_xxx", r, ux, m)
    s.emit("vcvtuqq2pd512rn_xx", f, r)
    s.emit("vmulpd512rn_xxx", g, f, inverse)
    s.emit("vcvttpd2uqq512sae_xx", p, g)
    s.emit("vpmullq512_xxx", n, p, uy)
    s.emit("vpsubq512_xxx", r2, r, n)
    s.emit("vpaddq512_xxx", q2, q, p)
    s.emit("vpcmpuq512_kxxi", k, r2, uy, _NOT_LESS)
    valid = None
    if _may_be_zero(s, y):
        valid = new()
        s.emit("vptestmq512_kxx", valid, divisor, divisor)
    q3 = new()
    s.emit("vpaddq512_xkxx", q3, k, q2, s.constant(1), tied=q2)
    unlike = None
    if signed:
        differ, unlike = new(), new()
        s.emit("vpxorq512_xxx", differ, dividend, divisor)
        s.emit("vpmovq2m512_kx", unlike, differ)
    _finish(s, q3, unlike, valid, quotient)
    if remainder is not None:
        r3, negative = new(), None
        s.emit("vpsubq512_xkxx", r3, k, r2, uy, tied=r2)
        if signed:
            negative = new()
            s.emit("vpmovq2m512_kx", negative, dividend)
        _finish(s, r3, negative, valid, remainder)


def _finish(s: Lanes, value: int, negative: int | None, valid: int | None, register: int) -> None:
    """Negate some lanes, and put 0 in those that are not valid."""
    if negative is not None:
        to = register if valid is None else s.new()
        s.emit("vpsubq512_xkxx", to, negative, s.constant(0), value, tied=value)
        value = to
    if valid is not None:
        s.emit("vmovdqa64z_xzx", register, valid, value)
    elif negative is None:
        s.emit("vmovdqa64z_xx", register, value)


def _either(by_constant: Lowering) -> Lowering:
    def lower(s: Lanes, node: Node, register: int) -> None:
        divisor = node.args[1]
        if divisor.op is CONST and divisor.value > 2:
            by_constant(s, node, register)
        else:
            _by_variable(s, node, register)

    return lower


# Roots. --------------------------------------------------------------------------------------


def _isqrt(s: Lanes, node: Node, register: int) -> None:
    """The root in doubles is one off at most; of negative numbers it is the least number."""
    x = s.value(node.args[0])
    a, root, r, square, above, less, next_, square2, below, fixed = (s.new() for _ in range(10))
    one = s.constant(1)
    s.emit("vcvtqq2pd512rn_xx", a, x)
    s.emit("vsqrtpd512rn_xx", root, a)
    s.emit("vcvttpd2qq512sae_xx", r, root)
    s.emit("vpmullq512_xxx", square, r, r)
    s.emit("vpcmpuq512_kxxi", above, square, x, 6)
    s.emit("vpsubq512_xkxx", less, above, r, one, tied=r)
    s.emit("vpaddq512_xxx", next_, less, one)
    s.emit("vpmullq512_xxx", square2, next_, next_)
    s.emit("vpcmpuq512_kxxi", below, square2, x, 2)
    if node.args[0].facts.low >= 0:
        s.emit("vpaddq512_xkxx", register, below, less, one, tied=less)
        return
    s.emit("vpaddq512_xkxx", fixed, below, less, one, tied=less)
    negative = s.new()
    s.emit("vpmovq2m512_kx", negative, x)
    s.emit("vmovdqa64z_xkx", register, negative, s.constant(-1 << 63), tied=fixed)


VALUES: dict[str, Lowering] = {
    "div": _either(_quotient_by_constant),
    "floordiv": _quotient_by_constant,
    "rem": _either(_remainder_by_constant),
    "floormod": _remainder_by_constant,
    "udiv": _by_variable,
    "umod": _by_variable,
    "isqrt": _isqrt,
}

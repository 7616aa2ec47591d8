"""What takes more than an instruction: division that cannot trap, loops, calls.

Each macro has its operands in fixed registers and names every register it changes.  What
they compute is total, like the meanings in the operator table: for a divisor of 0 the
quotient and the remainder are 0, an exponent counts as unsigned, the root of a negative
number is MIN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .assembler import Label, Line, line, place
from .block import FIRST_VIRTUAL, Macro
from .registers import ARGUMENTS, CALLER_SAVED, CC, R11, RAX, RCX, RDI, RDX, RSI, RSP, Mem

Lines = tuple[list[Line], list[Line]]

#: MXCSR as every process starts with it: all exceptions masked, round to nearest.
_DEFAULT_MXCSR = 0x1F80


def _jump(condition: str, label: Label) -> Line:
    return line("jcc_j", CC[condition], label)


def _expand_idiv(divisor: int) -> Lines:
    # idiv traps for a divisor of 0 and for MIN / -1.  x / -1 is x * -1, and x / 0 is x * 0.
    special, done = Label("special divisor"), Label()
    return [
        line("lea_rm", RDX, Mem(divisor, disp=1)),
        line("cmp_ri", RDX, 1),
        _jump("be", special),
        line("cqo"),
        line("idiv_r", divisor),
        place(done),
    ], [
        place(special),
        line("imul_rr", RAX, divisor),
        line("xor32_rr", RDX, RDX),
        line("jmp_j", done),
    ]


def _expand_idiv_nonzero(divisor: int) -> Lines:
    minus_one, done = Label("divisor -1"), Label()
    return [
        line("cmp_ri", divisor, -1),
        _jump("e", minus_one),
        line("cqo"),
        line("idiv_r", divisor),
        place(done),
    ], [
        place(minus_one),
        line("neg_r", RAX),
        line("xor32_rr", RDX, RDX),
        line("jmp_j", done),
    ]


def _nothing(zero: Label, done: Label) -> list[Line]:
    """Where the divisor is 0: so are quotient and remainder."""
    return [
        place(zero),
        line("xor32_rr", RAX, RAX),
        line("xor32_rr", RDX, RDX),
        line("jmp_j", done),
    ]


def _expand_idiv_safe(divisor: int) -> Lines:
    return [line("cqo"), line("idiv_r", divisor)], []


def _expand_idiv_not_minus_one(divisor: int) -> Lines:
    zero, done = Label("zero divisor"), Label()
    return [
        line("test_rr", divisor, divisor),
        _jump("e", zero),
        line("cqo"),
        line("idiv_r", divisor),
        place(done),
    ], _nothing(zero, done)


def _expand_div(divisor: int) -> Lines:
    zero, done = Label("zero divisor"), Label()
    return [
        line("test_rr", divisor, divisor),
        _jump("e", zero),
        line("xor32_rr", RDX, RDX),
        line("div_r", divisor),
        place(done),
    ], _nothing(zero, done)


def _expand_div_safe(divisor: int) -> Lines:
    return [line("xor32_rr", RDX, RDX), line("div_r", divisor)], []


def _expand_div32_safe(divisor: int) -> Lines:
    return [line("xor32_rr", RDX, RDX), line("div32_r", divisor)], []


def _expand_pow() -> Lines:
    # Right-to-left binary exponentiation (Knuth, TAOCP 4.6.3): rax collects, rdx squares.
    loop, even, done = Label("power"), Label(), Label()
    return [
        line("mov_rr", RDX, RAX),
        line("mov_ri", RAX, 1),
        line("test_rr", RCX, RCX),
        _jump("e", done),
        place(loop),
        line("shr_ri", RCX, 1),
        _jump("ae", even),
        line("imul_rr", RAX, RDX),
        place(even),
        line("imul_rr", RDX, RDX),
        line("test_rr", RCX, RCX),
        _jump("ne", loop),
        place(done),
    ], []


def _expand_pow_overflows() -> Lines:
    # A square that overflows while bits of the exponent are left makes the power overflow,
    # since the base is at least 2 in size: -1, 0 and 1 are seen to first.
    loop, even, no, yes, done = Label("power"), Label(), Label("no"), Label("yes"), Label()
    return [
        line("mov_rr", RDX, RAX),
        line("lea_rm", RAX, Mem(RDX, disp=1)),
        line("cmp_ri", RAX, 2),
        _jump("be", no),
        line("cmp_ri", RCX, 63),
        _jump("a", yes),
        line("mov_ri", RAX, 1),
        line("test_rr", RCX, RCX),
        _jump("e", no),
        place(loop),
        line("shr_ri", RCX, 1),
        _jump("ae", even),
        line("imul_rr", RAX, RDX),
        _jump("o", yes),
        place(even),
        line("test_rr", RCX, RCX),
        _jump("e", no),
        line("imul_rr", RDX, RDX),
        _jump("no", loop),
        place(yes),
        line("mov_ri", RAX, 1),
        line("jmp_j", done),
        place(no),
        line("xor32_rr", RAX, RAX),
        place(done),
    ], []


def _magnitude(register: int, scratch: int) -> list[Line]:
    """register = abs(register), MIN giving 2**63 read as unsigned."""
    return [
        line("mov_rr", scratch, register),
        line("neg_r", scratch),
        line("cmovcc_rr", CC["ns"], register, scratch),
    ]


def _expand_gcd() -> Lines:
    # Stein's binary algorithm (TAOCP 4.5.2, algorithm B).  After the first shift both are odd
    # and below 2**63, so the sign of the difference tells which is greater.
    loop, first_zero, done = Label("gcd"), Label(), Label()
    return [
        *_magnitude(RAX, RCX),
        *_magnitude(RDX, RCX),
        line("test_rr", RAX, RAX),
        _jump("e", first_zero),
        line("test_rr", RDX, RDX),
        _jump("e", done),
        line("mov_rr", RCX, RAX),
        line("or_rr", RCX, RDX),
        line("bsf_rr", RDI, RCX),
        line("bsf_rr", RCX, RAX),
        line("shr_rc", RAX),
        place(loop),
        line("bsf_rr", RCX, RDX),
        line("shr_rc", RDX),
        line("mov_rr", RSI, RDX),
        line("sub_rr", RDX, RAX),
        line("cmovcc_rr", CC["b"], RAX, RSI),
        *_magnitude(RDX, RSI),
        line("test_rr", RDX, RDX),
        _jump("ne", loop),
        line("mov_rr", RCX, RDI),
        line("shl_rc", RAX),
        line("jmp_j", done),
        place(first_zero),
        line("mov_rr", RAX, RDX),
        place(done),
    ], []


def _expand_isqrt() -> Lines:
    # The double nearest to x, its root rounded and cut, is the integer root or one more: one
    # comparison corrects it.  The host's MXCSR may trap or round otherwise, so it is set and
    # put back; the eight bytes below the stack pointer are ours (System V, red zone).
    exact = Label()
    saved, default = Mem(RSP, disp=-4), Mem(RSP, disp=-8)
    return [
        line("stmxcsr_m", saved),
        line("mov32_mi", default, _DEFAULT_MXCSR),
        line("ldmxcsr_m", default),
        line("pxor_xx", 0, 0),
        line("cvtsi2sd_xr", 0, RAX),
        line("sqrtsd_xx", 0, 0),
        line("cvttsd2si_rx", RCX, 0),
        line("ldmxcsr_m", saved),
        line("mov_rr", RDX, RCX),
        line("imul_rr", RDX, RDX),
        line("cmp_rr", RDX, RAX),
        line("mov_rr", RAX, RCX),
        _jump("be", exact),
        line("dec_r", RAX),
        place(exact),
    ], []


def _expand_pdep() -> Lines:
    # For each bit of the mask, lowest first, one bit of the source.
    loop, clear, done = Label("pdep"), Label(), Label()
    return [
        line("xor32_rr", RCX, RCX),
        line("test_rr", RDX, RDX),
        _jump("e", done),
        place(loop),
        line("mov_rr", RSI, RDX),
        line("neg_r", RSI),
        line("and_rr", RSI, RDX),
        line("xor_rr", RDX, RSI),
        line("shr_ri", RAX, 1),
        _jump("ae", clear),
        line("or_rr", RCX, RSI),
        place(clear),
        line("test_rr", RDX, RDX),
        _jump("ne", loop),
        place(done),
        line("mov_rr", RAX, RCX),
    ], []


def _expand_pext() -> Lines:
    loop, clear, done = Label("pext"), Label(), Label()
    return [
        line("xor32_rr", RCX, RCX),
        line("mov_ri", RDI, 1),
        line("test_rr", RDX, RDX),
        _jump("e", done),
        place(loop),
        line("mov_rr", RSI, RDX),
        line("neg_r", RSI),
        line("and_rr", RSI, RDX),
        line("xor_rr", RDX, RSI),
        line("test_rr", RSI, RAX),
        _jump("e", clear),
        line("or_rr", RCX, RDI),
        place(clear),
        line("add_rr", RDI, RDI),
        line("test_rr", RDX, RDX),
        _jump("ne", loop),
        place(done),
        line("mov_rr", RAX, RCX),
    ], []


#: operand = 0, in two bytes and whatever the register held before, but at the cost of the flags.
ZERO = Macro("zero", lambda register: ([line("xor32_rr", register, register)], []), ("w",))


def _division(name: str, expand: Callable[[int], Lines]) -> Macro:
    """rax and rdx = rax / operand and rax % operand."""
    return Macro(name, expand, ("r",), (RAX,), (RAX, RDX))


#: "nonzero" is for a divisor that is not 0, "not -1" for one that is not -1 (or a dividend that is
#: not MIN), "safe" for both; "32" for operands whose upper halves are 0.
IDIV = _division("idiv", _expand_idiv)
IDIV_NONZERO = _division("idiv nonzero", _expand_idiv_nonzero)
IDIV_NOT_MINUS_ONE = _division("idiv not -1", _expand_idiv_not_minus_one)
IDIV_SAFE = _division("idiv safe", _expand_idiv_safe)
DIV = _division("div", _expand_div)
DIV_SAFE = _division("div safe", _expand_div_safe)
DIV32_SAFE = _division("div32 safe", _expand_div32_safe)

#: rax = f(rax, second read); the other registers written are clobbered.
POW = Macro("pow", _expand_pow, (), (RAX, RCX), (RAX, RCX, RDX))
POW_OVERFLOWS = Macro("pow_overflows", _expand_pow_overflows, (), (RAX, RCX), (RAX, RCX, RDX))
GCD = Macro("gcd", _expand_gcd, (), (RAX, RDX), (RAX, RCX, RDX, RSI, RDI))
ISQRT = Macro("isqrt", _expand_isqrt, (), (RAX,), (RAX, RCX, RDX))
PDEP = Macro("pdep", _expand_pdep, (), (RAX, RDX), (RAX, RCX, RDX, RSI))
PEXT = Macro("pext", _expand_pext, (), (RAX, RDX), (RAX, RCX, RDX, RSI, RDI))


class Log(NamedTuple):
    """Where the results of C functions are written down, in the order of the calls.

    base: the register of the addresses, virtual or not yet known as well.  length: how far
    from there it is kept how many there are; entries: how far the first one is.
    """

    base: int
    length: int
    entries: int


def call(address: int, arguments: int, guarded: bool, log: Log | None) -> Macro:
    """rax = the C function at `address`, of the first registers of System V.

    guarded: call it only if rax is not 0, else leave that.  log: where to write the result
    down; a virtual base is the macro's operand.  The stack is aligned, and nothing is below it.
    """

    def expand(base: int | None = None) -> Lines:
        done = Label()
        # A function with a variable number of arguments wants to know in al how many of them
        # are in vector registers.
        lines = [line("xor32_rr", RAX, RAX), line("mov_ri", R11, address), line("call_r", R11)]
        if guarded:
            lines = [line("test_rr", RAX, RAX), _jump("e", done), *lines]
        if log is not None:
            base = log.base if base is None else base
            length = Mem(base, disp=log.length)
            lines += [
                line("mov_rm", RCX, length),
                line("mov_mr", Mem(base, RCX, 8, log.entries), RAX),
                line("inc_r", RCX),
                line("mov_mr", length, RCX),
            ]
        return [*lines, place(done)], []

    roles = ("r",) if log is not None and log.base >= FIRST_VIRTUAL else ()
    reads = (RAX,) if guarded else ()
    return Macro("call", expand, roles, (*reads, *ARGUMENTS[:arguments]), CALLER_SAVED)

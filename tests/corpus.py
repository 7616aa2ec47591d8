"""Formulas that ask something of a compiler: what people compute, and what is hard to allocate."""

from __future__ import annotations

HASHES = [
    # splitmix64, murmur3's finaliser, FNV-1a of eight bytes, xorshift*, wyhash's step, Jenkins.
    "a = x + 0x9e3779b97f4a7c15; b = (a ^ a >>> 30) * 0xbf58476d1ce4e5b9;"
    " c = (b ^ b >>> 27) * 0x94d049bb133111eb; c ^ c >>> 31",
    "a = (x ^ x >>> 33) * 0xff51afd7ed558ccd; b = (a ^ a >>> 33) * 0xc4ceb9fe1a85ec53;"
    " b ^ b >>> 33",
    "s(h, n) = (h ^ (x >>> n & 255)) * 0x100000001b3;"
    " s(s(s(s(s(s(s(s(0xcbf29ce484222325, 0), 8), 16), 24), 32), 40), 48), 56)",
    "a = x ^ x << 13; b = a ^ a >>> 7; c = b ^ b << 17; c * 0x2545f4914f6cdd1d",
    "mulhi(x ^ 0x1234567, y | 1) ^ (x ^ 0x1234567) * (y | 1)",
    "umulhi(x, 0x9e3779b97f4a7c15) ^ umulhi(y, x) + x * y",
    "a = x - y - z ^ z >>> 13; b = y - z - a ^ a << 8; c = z - a - b ^ b >>> 13; a ^ b ^ c",
    "rotl(x * 0x87c37b91114253d5, 31) * 0x4cf5ad432745937f ^ rotl(y, 27)",
    "rotl(x, y) + rotr(x, y) * rotl(y, x & 63) ^ rotr(z, x + y)",
    "((x << 5) + x) ^ ((y << 5) + y) ^ (z << 5) + z",
]
CALENDARS = [
    # Days from a civil date and back (Howard Hinnant's algorithms), weekday, leap year.
    "a = y - (m <= 2); e = a // 400; o = a - e * 400;"
    " n = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;"
    " e * 146097 + o * 365 + o / 4 - o / 100 + n - 719468",
    "a = z + 719468; e = a // 146097; d = a - e * 146097;"
    " o = (d - d / 1460 + d / 36524 - d / 146096) / 365; o + e * 400",
    "(z + 4) %% 7",
    "y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)",
    "s / 3600 % 24 * 10000 + s / 60 % 60 * 100 + s % 60",
    "s // 86400 * 86400 + (s %% 86400) / 3600 * 3600",
]
BITS = [
    "x & (x - 1)",
    "x & -x",
    "x | x + 1",
    "~x & x + 1",
    "(x & y) + (x ^ y)",
    "(x & 0xff) << 24 | (x & 0xff00) << 8 | x >> 8 & 0xff00 | x >> 24 & 0xff",
    "popcount(x) + parity(y) * clz(z) - ctz(x ^ y)",
    "bitreverse(x) ^ bswap(y)",
    "pdep(x, y) + pext(y, x) ^ pdep(y, z)",
    "pdep(pext(x, 0x5555555555555555), 0x3333333333333333)",
    "x >> y ^ x >>> y ^ x << y",
    "(x << y) + (y << x) + (z << y) + (x >> z)",
    "(x >> 63) ^ (x + (x >> 63))",
    "i8(x) + i16(y) * i32(z) - u8(x) + u16(y) ^ u32(z)",
    "x & 255 | (y & 255) << 8 | (z & 255) << 16",
    "(x ^ y) < 0 ? -1 : 1",
    "~x & y | x & ~y",
    "(x & ~0xff) + (~y & x)",
    "(x | y) & ~(x & y) & ~7",
    "x & 0x8000000000000000 ? ~x : x",
]
POLYNOMIALS = [
    "((5 * x + 3) * x - 7) * x + 11",
    "3*x*x*x + 2*x*x - x + 7",
    "x ** 7 - x ** 5 + 3 * x ** 2",
    "(x + 1) * (x + 2) * (x + 3) * (x + 4)",
    "x * 3 + x * 5 + x * 9 + x * 2 + x * 4 + x * 8",
    "x * 7 - x * 1000 + x * 0x123456789 - x * -1",
    "a * x * x + b * x + c - (a * y * y + b * y + c)",
    "x + y * 8 + 3 + (x * 4 + 100) + (y * 2 + x)",
    "(x - 5) * (x - 5) + (y - 7) * (y - 7)",
]
DIVISIONS = [
    "x / y",
    "x / y + 4",
    "x / y * y + x % y",
    "(x / y) ^ (x % y) ^ (x // y) ^ (x %% y)",
    "udiv(x, y) + umod(x, y)",
    "umod(x, y) * 3 - udiv(y, x)",
    "x / y / z % w",
    "a / b + c / d + e / f",
    "(a % b) * (c % d) - (e // f)",
    "x / 2 + x / 3 + x / 7 + x / -1 + x // 8 + x %% 16 + x % 10",
    "x << y / z",
    "x / (y << 3) >> (z & 15)",
    "(x << (y & 63)) / (z | 1) + (x >> (y & 63)) % (z | 1)",
    "mulhi(x, y) / z + umulhi(x, z) % (y | 1)",
    "d = x % y; x / y",
    "0 * (x % y) + x / y",
    "q = x / y; r = x % y; q * r + (q << (r & 7)) + mulhi(q, r)",
    "gcd(x, y) / gcd(y, z) + isqrt(x & 0xffffff) ** 2",
    "x / 0",
    "x / (x - x + 3)",
    "x % (1 << y)",
    "x / x + x % x + x // x",
    "-9223372036854775808 / -1 + x",
    "x ** y + y ** x",
    "(x & 15) ** (y & 15) / (z | 1)",
    "isqrt(x) + isqrt(y) * isqrt(z)",
    "pow_ = x ** 3 ** (y & 1); pow_ % 1000",
]
CHOICES = [
    "x ? y : z",
    "x < y ? x : y",
    "x < y ? y - x : x - y",
    "y ? x / y : 0",
    "y and x / y > 3",
    "y == 0 or x / y > 3",
    "0 <= x < y <= 100",
    "x < y < z < w",
    "x < 10 / y < z",
    "clamp(x, -100, 100) + clamp(y, x, z)",
    "min(x, y, z, w) - max(x, y, z, w)",
    "sign(x) * sign(y) + abs(x - y)",
    "avg(x, y) + avg(y, z)",
    "x > 0 ? y > 0 ? 1 : 2 : y > 0 ? 3 : 4",
    "(x < y) + (x <= y) * 2 + (x == y) * 4 + (x != y) * 8 + (x > y) * 16 + (x >= y) * 32",
    "ult(x, y) + ule(x, y) * 2 + ugt(x, y) * 4 + uge(x, y) * 8",
    "not x or not y and not z",
    "x & 7 ? x | 8 : x ^ 9",
    "(x & y) == 0 ? x : y",
    "x + y < x ? -1 : x + y",
    "x * 2 == y ? z : x == z ? y : w",
    "(x < 0) != (y < 0)",
    "x if y > 3 else z if y < -3 else w",
    "(x >= 0) * 5 + (y < 0) * 3",
]
ARMS = [
    # Arms that are dear, with much that is alive across them, in them and behind them.
    "x > y ? gcd(x, z) * x + y : y * z - x",
    "x > 0 ? gcd(x, y) : y > 0 ? x ** (y & 7) : isqrt(z & 0xffffff) + x / (y | 1)",
    "a = x * y; b = y ^ z; c = z - x; d = x + 7; (x < y ? udiv(a, b) + c * d : a) + b * c - d ^ a",
    "(x > 3 and isqrt(y & 0xffff) > 2) + (x < 9 or y / (z | 1) > 3) * 2",
    "x > y ? (y > z ? x / (y - 3) : y % (z - 5)) + w : (z > w ? z / x : w % y) * x",
    "a = x > 0 ? x / y : y; b = y > 0 ? a % z : z; a > b ? gcd(a, b) : a - b",
    "".join(f"t{n} = x * {n + 3} ^ y; " for n in range(18))
    + "(x > y ? gcd(t0, t1) + "
    + " * ".join(f"t{n}" for n in range(9))
    + " : t17 / (t16 | 1)) + "
    + " - ".join(f"t{n}" for n in range(18)),
    "".join(f"x == {n} ? y / (z + {n}) - w : " for n in range(25)) + "x ** 3",
    "x > 3 ? x * y + z * w - x * w : (y > 3 ? x * x * x : z * z - y * w)",
    "(x / !(x < y and z < w)) ^ (x < y ? y / (z | 1) : 0) + (x < y and isqrt(z & 255) > 3)",
]
LONG = [
    # Every term is needed twice, so all of them are alive at once.
    "".join(f"t{n} = (x ^ {n * 77}) * (y + {n}); " for n in range(40))
    + " + ".join(f"t{n}" for n in range(40))
    + " ^ "
    + " * ".join(f"(t{n} | 1)" for n in reversed(range(40))),
    "".join(f"t{n} = (x + {n}) / (y - {n}); " for n in range(20))
    + " + ".join(f"t{n} << t{19 - n}" for n in range(20)),
    " + ".join(f"p{n} * {n + 1}" for n in range(200)),
    " ^ ".join(f"(p{n} - p{199 - n})" for n in range(200)),
    " + ".join(f"a{n} / b{n}" for n in range(12)),
    "(" * 100 + "x" + " * 3 + y) ^ x" * 100,
    "x - (y * " * 100 + "z" + ")" * 100,
    " + ".join(f"mulhi(x + {n}, y) * (x << y + {n}) % (z | {2 * n + 1})" for n in range(10)),
]
CORPUS = HASHES + CALENDARS + BITS + POLYNOMIALS + DIVISIONS + CHOICES + ARMS + LONG

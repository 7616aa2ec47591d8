"""Formulas from real uses, each also as a C programmer would write it.

The C is the body of a function of the same parameters, `long` all of them; `ulong` is unsigned
long.  What can fail says so with FAIL_IF, as the machine code's checked entry does.
"""

from __future__ import annotations

import random
from typing import NamedTuple

FULL = (-(2**63), 2**63 - 1)
BYTE = (0, 255)
SMALL = (-1000, 1000)
COUNT = (0, 1_000_000)
DAYS = (-700_000, 700_000)
COLOUR = (0, 2**32 - 1)
SECONDS = (0, 4_000_000_000)


class Case(NamedTuple):
    """A formula, its C, and from where its arguments are drawn: a range for each parameter.

    The parameters are named in the order of the ranges.
    """

    kind: str
    name: str
    source: str
    c: str
    ranges: dict[str, tuple[int, int]]


def _case(kind: str, name: str, source: str, c: str, /, **ranges: tuple[int, int]) -> Case:
    """By default the parameters are what `ranges` names, and x if it names none."""
    body = c if "return" in c else f"return {c};"
    return Case(kind, name, source, body, ranges or {"x": FULL})


def _same(kind: str, name: str, source: str, /, **ranges: tuple[int, int]) -> Case:
    """A formula that means the same in C."""
    return _case(kind, name, source, source, **ranges)


CASES = (
    # Hashes.
    _case(
        "hash",
        "murmur3 finalizer",
        "a = (x ^ x >>> 33) * 0xff51afd7ed558ccd; b = (a ^ a >>> 33) * 0xc4ceb9fe1a85ec53;"
        " b ^ b >>> 33",
        "ulong k = x; k ^= k >> 33; k *= 0xff51afd7ed558ccd; k ^= k >> 33;"
        " k *= 0xc4ceb9fe1a85ec53; return k ^ k >> 33;",
    ),
    _case(
        "hash",
        "splitmix64",
        "a = x + 0x9e3779b97f4a7c15; b = (a ^ a >>> 30) * 0xbf58476d1ce4e5b9;"
        " c = (b ^ b >>> 27) * 0x94d049bb133111eb; c ^ c >>> 31",
        "ulong z = x + 0x9e3779b97f4a7c15; z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;"
        " z = (z ^ z >> 27) * 0x94d049bb133111eb; return z ^ z >> 31;",
    ),
    _case(
        "hash",
        "xxhash64 round",
        "rotl(x + y * 0xc2b2ae3d27d4eb4f, 31) * 0x9e3779b185ebca87",
        "ulong a = x + y * 0xc2b2ae3d27d4eb4f; return (a << 31 | a >> 33) * 0x9e3779b185ebca87;",
        x=FULL,
        y=FULL,
    ),
    _case(
        "hash",
        "xxhash64 avalanche",
        "a = (x ^ x >>> 33) * 0xc2b2ae3d27d4eb4f; b = (a ^ a >>> 29) * 0x165667b19e3779f9;"
        " b ^ b >>> 32",
        "ulong h = x; h ^= h >> 33; h *= 0xc2b2ae3d27d4eb4f; h ^= h >> 29;"
        " h *= 0x165667b19e3779f9; return h ^ h >> 32;",
    ),
    _case(
        "hash",
        "fnv1a of four bytes",
        "step(h, b) = (h ^ b & 255) * 0x100000001b3;"
        " step(step(step(step(0xcbf29ce484222325, x), x >>> 8), x >>> 16), x >>> 24)",
        "ulong h = 0xcbf29ce484222325; for (int i = 0; i < 32; i += 8)"
        " h = (h ^ ((ulong)x >> i & 255)) * 0x100000001b3; return h;",
    ),
    _case(
        "hash",
        "wyhash mix",
        "umulhi(x ^ 0xa0761d6478bd642f, y ^ 0xe7037ed1a0b428db)"
        " ^ (x ^ 0xa0761d6478bd642f) * (y ^ 0xe7037ed1a0b428db)",
        "unsigned __int128 p = (unsigned __int128)((ulong)x ^ 0xa0761d6478bd642f)"
        " * ((ulong)y ^ 0xe7037ed1a0b428db); return (ulong)(p >> 64) ^ (ulong)p;",
        x=FULL,
        y=FULL,
    ),
    _same("hash", "hash combine", "x ^ (y + 0x9e3779b9 + (x << 6) + (x >> 2))", x=FULL, y=FULL),
    _case(
        "hash",
        "xorshift64",
        "a = x ^ x << 13; b = a ^ a >>> 7; b ^ b << 17",
        "ulong a = x; a ^= a << 13; a ^= a >> 7; return a ^ a << 17;",
    ),
    _same("hash", "congruential step", "x * 6364136223846793005 + 1442695040888963407"),
    _case(
        "hash",
        "fibonacci bucket",
        "x * 0x9e3779b97f4a7c15 >>> 54",
        "return (ulong)x * 0x9e3779b97f4a7c15 >> 54;",
    ),
    _case("hash", "a rotate from shifts", "(x << 13) | (x >>> 51)", "(x << 13) | ((ulong)x >> 51)"),
    # Calendars.
    _case(
        "calendar",
        "civil from days",
        "z = x + 719468; era = z // 146097; doe = z - era * 146097;"
        " yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;"
        " doy = doe - (365 * yoe + yoe / 4 - yoe / 100); mp = (5 * doy + 2) / 153;"
        " m = mp < 10 ? mp + 3 : mp - 9; y = yoe + era * 400 + (m <= 2);"
        " y * 10000 + m * 100 + doy - (153 * mp + 2) / 5 + 1",
        "long z = x + 719468; long era = (z >= 0 ? z : z - 146096) / 146097;"
        " unsigned doe = z - era * 146097;"
        " unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;"
        " unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);"
        " unsigned mp = (5 * doy + 2) / 153; unsigned m = mp < 10 ? mp + 3 : mp - 9;"
        " long y = (long)yoe + era * 400 + (m <= 2);"
        " return y * 10000 + m * 100 + doy - (153 * mp + 2) / 5 + 1;",
        x=DAYS,
    ),
    _case(
        "calendar",
        "days from civil",
        "a = y - (m <= 2); era = a // 400; yoe = a - era * 400;"
        " doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;"
        " era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468",
        "y -= m <= 2; long era = (y >= 0 ? y : y - 399) / 400; long yoe = y - era * 400;"
        " long doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;"
        " return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;",
        y=(-4000, 4000),
        m=(1, 12),
        d=(1, 31),
    ),
    _case(
        "calendar",
        "day of the week",
        "(x + 4) %% 7",
        "long r = (x + 4) % 7; return r < 0 ? r + 7 : r;",
        x=DAYS,
    ),
    _case(
        "calendar",
        "leap year",
        "x % 4 == 0 and (x % 100 != 0 or x % 400 == 0)",
        "x % 4 == 0 && (x % 100 != 0 || x % 400 == 0)",
        x=(1, 4000),
    ),
    _same(
        "calendar",
        "time of day as a number",
        "x % 86400 / 3600 * 10000 + x % 3600 / 60 * 100 + x % 60",
        x=SECONDS,
    ),
    _case(
        "calendar",
        "hour in a time zone",
        "(x + y * 900) // 3600 %% 24",
        "long s = x + y * 900; long h = s / 3600; h -= s % 3600 < 0;"
        " long r = h % 24; return r < 0 ? r + 24 : r;",
        x=SECONDS,
        y=(-48, 56),
    ),
    # Fixed point and interpolation.
    _same("fixed point", "16.16 product", "(x * y + 0x8000) >> 16", x=COLOUR, y=COLOUR),
    _case(
        "fixed point",
        "32.32 product",
        "mulhi(x, y) << 32 | x * y >>> 32",
        "return (__int128)x * y >> 32;",
        x=FULL,
        y=FULL,
    ),
    _same("fixed point", "interpolation", "x + ((y - x) * t >> 8)", x=SMALL, y=SMALL, t=BYTE),
    _same("fixed point", "percentage, rounded", "(x * y + 50) / 100", x=COUNT, y=COUNT),
    _same("fixed point", "a cubic", "((5 * x + 3) * x - 7) * x + 11"),
    _same("fixed point", "smooth step", "x * x * (768 - 2 * x) >> 16", x=(0, 256)),
    _case(
        "fixed point",
        "bilinear",
        "p = a + ((b - a) * u >> 8); q = c + ((d - c) * u >> 8); p + ((q - p) * v >> 8)",
        "long p = a + ((b - a) * u >> 8), q = c + ((d - c) * u >> 8);"
        " return p + ((q - p) * v >> 8);",
        a=BYTE,
        b=BYTE,
        c=BYTE,
        d=BYTE,
        u=BYTE,
        v=BYTE,
    ),
    _case(
        "fixed point",
        "tax by brackets",
        "x < 10000 ? x / 10 : x < 50000 ? 1000 + (x - 10000) / 5 : 9000 + (x - 50000) * 2 / 5",
        "x < 10000 ? x / 10 : x < 50000 ? 1000 + (x - 10000) / 5 : 9000 + (x - 50000) * 2 / 5",
        x=(0, 100_000),
    ),
    # Colour.
    _case(
        "colour",
        "565 to 888",
        "r = x >> 11 & 31; g = x >> 5 & 63; b = x & 31;"
        " (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | b << 3 | b >> 2",
        "long r = x >> 11 & 31, g = x >> 5 & 63, b = x & 31;"
        " return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | b << 3 | b >> 2;",
        x=(0, 65535),
    ),
    _case(
        "colour",
        "alpha blending",
        "rb = x & 0xff00ff; g = x & 0xff00; rb2 = y & 0xff00ff; g2 = y & 0xff00;"
        " (rb + ((rb2 - rb) * a >> 8) & 0xff00ff) | (g + ((g2 - g) * a >> 8) & 0xff00)",
        "long rb = x & 0xff00ff, g = x & 0xff00, rb2 = y & 0xff00ff, g2 = y & 0xff00;"
        " return (rb + ((rb2 - rb) * a >> 8) & 0xff00ff) | (g + ((g2 - g) * a >> 8) & 0xff00);",
        x=COLOUR,
        y=COLOUR,
        a=BYTE,
    ),
    _same(
        "colour",
        "luma",
        "((x >> 16 & 255) * 77 + (x >> 8 & 255) * 150 + (x & 255) * 29) >> 8",
        x=COLOUR,
    ),
    _same(
        "colour",
        "average of packed bytes",
        "(x & y) + (((x ^ y) & 0xfefefefe) >> 1)",
        x=COLOUR,
        y=COLOUR,
    ),
    # Packed fields.
    _case("packed", "take a field", "x >>> 12 & 0x3ff", "(ulong)x >> 12 & 0x3ff"),
    _same("packed", "put a field", "(x & ~(255 << 8)) | (y & 255) << 8", x=FULL, y=FULL),
    _same("packed", "take a signed field", "x << 40 >> 52"),
    _same(
        "packed",
        "swap the bytes of 32 bits",
        "(x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8 | x >> 24 & 255",
    ),
    _same("packed", "address in a network", "(x & 0xffffff00) == 0xc0a80100", x=COLOUR),
    _case(
        "packed",
        "interleave 16 bits",
        "a = (x | x << 8) & 0x00ff00ff; b = (a | a << 4) & 0x0f0f0f0f;"
        " c = (b | b << 2) & 0x33333333; (c | c << 1) & 0x55555555",
        "x = (x | x << 8) & 0x00ff00ff; x = (x | x << 4) & 0x0f0f0f0f;"
        " x = (x | x << 2) & 0x33333333; return (x | x << 1) & 0x55555555;",
        x=(0, 65535),
    ),
    _same(
        "packed",
        "pack three fields",
        "(x & 0xfff) << 20 | (y & 0x3ff) << 10 | z & 0x3ff",
        x=FULL,
        y=FULL,
        z=FULL,
    ),
    # Bit tricks.
    _same("bits", "lowest bit", "x & -x"),
    _same("bits", "without the lowest bit", "x & x - 1"),
    _same("bits", "bits below the lowest", "~x & x - 1"),
    _case(
        "bits",
        "next power of two",
        "x <= 1 ? 1 : 1 << 64 - clz(x - 1)",
        "x <= 1 ? 1 : 1L << 64 - __builtin_clzl(x - 1)",
        x=COUNT,
    ),
    _case(
        "bits", "power of two?", "x > 0 and (x & x - 1) == 0", "x > 0 && (x & x - 1) == 0", x=COUNT
    ),
    _case(
        "bits",
        "next of as many bits",
        "c = x & -x; r = x + c; ((r ^ x) >>> 2) / c | r",
        "long c = x & -x, r = x + c; FAIL_IF(c == 0); return (long)((ulong)(r ^ x) >> 2) / c | r;",
        x=(1, 2**40),
    ),
    _case(
        "bits",
        "count bits by hand",
        "a = x - (x >>> 1 & 0x5555555555555555);"
        " b = (a & 0x3333333333333333) + (a >>> 2 & 0x3333333333333333);"
        " (b + (b >>> 4) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >>> 56",
        "ulong a = x; a -= a >> 1 & 0x5555555555555555;"
        " a = (a & 0x3333333333333333) + (a >> 2 & 0x3333333333333333);"
        " return (a + (a >> 4) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;",
    ),
    _case(
        "bits", "distance in bits", "popcount(x ^ y)", "__builtin_popcountl(x ^ y)", x=FULL, y=FULL
    ),
    _case(
        "bits",
        "absolute value by shifts",
        "m = x >> 63; (x ^ m) - m",
        "long m = x >> 63; return (x ^ m) - m;",
    ),
    _same("bits", "floor of the mean", "(x & y) + ((x ^ y) >> 1)", x=FULL, y=FULL),
    _same("bits", "round up to 64", "(x + 63) & ~63"),
    _same("bits", "zigzag", "x << 1 ^ x >> 63"),
    _case("bits", "zigzag, back", "x >>> 1 ^ -(x & 1)", "(ulong)x >> 1 ^ -(x & 1)"),
    _same("bits", "choose by mask", "x & z | y & ~z", x=FULL, y=FULL, z=FULL),
    # Bitboards.
    _case(
        "bitboard",
        "attacks of knights",
        "l1 = x >>> 1 & 0x7f7f7f7f7f7f7f7f; l2 = x >>> 2 & 0x3f3f3f3f3f3f3f3f;"
        " r1 = x << 1 & 0xfefefefefefefefe; r2 = x << 2 & 0xfcfcfcfcfcfcfcfc;"
        " h1 = l1 | r1; h2 = l2 | r2; h1 << 16 | h1 >>> 16 | h2 << 8 | h2 >>> 8",
        "ulong b = x, l1 = b >> 1 & 0x7f7f7f7f7f7f7f7f, l2 = b >> 2 & 0x3f3f3f3f3f3f3f3f,"
        " r1 = b << 1 & 0xfefefefefefefefe, r2 = b << 2 & 0xfcfcfcfcfcfcfcfc,"
        " h1 = l1 | r1, h2 = l2 | r2; return h1 << 16 | h1 >> 16 | h2 << 8 | h2 >> 8;",
    ),
    _case(
        "bitboard",
        "attacks of kings",
        "s = x | x >>> 1 & 0x7f7f7f7f7f7f7f7f | x << 1 & 0xfefefefefefefefe;"
        " (s | s << 8 | s >>> 8) ^ x",
        "ulong b = x, s = b | b >> 1 & 0x7f7f7f7f7f7f7f7f | b << 1 & 0xfefefefefefefefe;"
        " return (s | s << 8 | s >> 8) ^ b;",
    ),
    _case(
        "bitboard",
        "fill upwards",
        "g = x | y & x << 8; p = y & y << 8; h = g | p & g << 16; q = p & p << 16; h | q & h << 32",
        "long g = x | y & x << 8, p = y & y << 8, h = g | p & g << 16, q = p & p << 16;"
        " return h | q & h << 32;",
        x=FULL,
        y=FULL,
    ),
    # Checksums.
    _same("checksum", "adler step", "(x + y) % 65521", x=(0, 65520), y=(0, 65520)),
    _case(
        "checksum",
        "luhn digit",
        "d = 2 * x; d > 9 ? d - 9 : d",
        "long d = 2 * x; return d > 9 ? d - 9 : d;",
        x=(0, 9),
    ),
    _case(
        "checksum",
        "internet fold",
        "a = (x & 0xffff) + (x >> 16); (a & 0xffff) + (a >> 16)",
        "long a = (x & 0xffff) + (x >> 16); return (a & 0xffff) + (a >> 16);",
        x=COLOUR,
    ),
    _case(
        "checksum",
        "crc32 step",
        "x >>> 1 ^ -(x & 1) & 0xedb88320",
        "(ulong)x >> 1 ^ -(x & 1) & 0xedb88320",
        x=COLOUR,
    ),
    # Predicates.
    _case("predicate", "range", "10 <= x < 100", "10 <= x && x < 100", x=(0, 200)),
    _case(
        "predicate",
        "letter or digit",
        "48 <= x <= 57 or 65 <= x <= 90 or 97 <= x <= 122",
        "(48 <= x && x <= 57) || (65 <= x && x <= 90) || (97 <= x && x <= 122)",
        x=BYTE,
    ),
    _case(
        "predicate",
        "a rule of many terms",
        "x > 500 and y < 100 and (z & 3) == 0 or x == y and w != 7",
        "(x > 500 && y < 100 && (z & 3) == 0) || (x == y && w != 7)",
        x=COUNT,
        y=COUNT,
        z=COUNT,
        w=COUNT,
    ),
    _case(
        "predicate",
        "one of some",
        "x == 1 or x == 3 or x == 7 or x == 11",
        "x == 1 || x == 3 || x == 7 || x == 11",
        x=(0, 15),
    ),
    _case(
        "predicate", "fizz or buzz", "x % 3 == 0 or x % 5 == 0", "x % 3 == 0 || x % 5 == 0", x=COUNT
    ),
    _case(
        "predicate",
        "flags",
        "(x & 0x11) == 0x11 and (x & 0x80) == 0",
        "(x & 0x11) == 0x11 && (x & 0x80) == 0",
    ),
    _case(
        "predicate",
        "overlapping ranges",
        "x < w and z < y",
        "x < w && z < y",
        x=SMALL,
        y=SMALL,
        z=SMALL,
        w=SMALL,
    ),
    _same("predicate", "how many hold", "(x > 10) + (y > 20) + (x == y)", x=SMALL, y=SMALL),
    # Clamps and orders.
    _case("order", "clamp to a byte", "clamp(x, 0, 255)", "x < 0 ? 0 : x > 255 ? 255 : x", x=SMALL),
    _case(
        "order",
        "median of three",
        "max(min(x, y), min(max(x, y), z))",
        "long lo = x < y ? x : y, hi = x < y ? y : x; hi = hi < z ? hi : z;"
        " return lo > hi ? lo : hi;",
        x=SMALL,
        y=SMALL,
        z=SMALL,
    ),
    _case(
        "order", "difference", "x > y ? x - y : y - x", "x > y ? x - y : y - x", x=SMALL, y=SMALL
    ),
    _case(
        "order",
        "saturating sum",
        "s = x + y; ((x ^ s) & (y ^ s)) < 0 ? (x >> 63) ^ 0x7fffffffffffffff : s",
        "long s = x + y; return ((x ^ s) & (y ^ s)) < 0 ? (x >> 63) ^ 0x7fffffffffffffff : s;",
        x=FULL,
        y=FULL,
    ),
    _case("order", "sign", "(x > 0) - (x < 0)", "(x > 0) - (x < 0)", x=SMALL),
    _case(
        "order",
        "the largest of four",
        "max(x, y, z, w)",
        "long a = x > y ? x : y, b = z > w ? z : w; return a > b ? a : b;",
        x=SMALL,
        y=SMALL,
        z=SMALL,
        w=SMALL,
    ),
    _case(
        "order",
        "step towards",
        "x < y ? min(x + 16, y) : max(x - 16, y)",
        "x < y ? (x + 16 < y ? x + 16 : y) : (x - 16 > y ? x - 16 : y)",
        x=SMALL,
        y=SMALL,
    ),
    # Division.
    _same("division", "x / 7", "x / 7"),
    _same("division", "x % 10", "x % 10"),
    _same("division", "x / 8", "x / 8"),
    _same("division", "x % 16", "x % 16"),
    _case("division", "x // 3600", "x // 3600", "long q = x / 3600; return q - (x % 3600 < 0);"),
    _case("division", "x %% 360", "x %% 360", "long r = x % 360; return r < 0 ? r + 360 : r;"),
    _case("division", "udiv(x, 10)", "udiv(x, 10)", "(ulong)x / 10"),
    _case("division", "umod(x, 1000)", "umod(x, 1000)", "(ulong)x % 1000"),
    _same("division", "x % 3 == 0", "x % 3 == 0"),
    _same("division", "round to 25", "(x + 12) / 25 * 25", x=COUNT),
    _case(
        "division",
        "three digits",
        "x / 100 % 10 + x / 10 % 10 + x % 10",
        "x / 100 % 10 + x / 10 % 10 + x % 10",
        x=COUNT,
    ),
    _case(
        "division",
        "x / y",
        "x / y",
        "FAIL_IF(y == 0); return y == -1 ? -x : x / y;",
        x=FULL,
        y=(1, 1000),
    ),
    _case(
        "division",
        "x / y or 0",
        "y != 0 ? x / y : 0",
        "y == 0 ? 0 : y == -1 ? -x : x / y",
        x=FULL,
        y=(0, 1000),
    ),
    _case("division", "x % (y & 15 | 1)", "x % (y & 15 | 1)", "x % (y & 15 | 1)", x=FULL, y=FULL),
    _case(
        "division",
        "bucket",
        "(x - 17) // 25",
        "long a = x - 17, q = a / 25; return q - (a % 25 < 0);",
        x=COUNT,
    ),
)


def _large(name: str, operators: int, apart: int) -> Case:
    """A formula of so many operators on values made at most `apart` values before.

    The more there are between a value and its use, the more have to be kept.
    """
    rng = random.Random(name)
    names = ["x", "y", "z"]
    statements = []
    for number in range(operators // 2):
        first, second = (rng.choice(names[-apart:]) for _ in range(2))
        op, constant = rng.choice("+-*^+-^"), rng.choice((3, 77, 12345, -9))
        statements.append(f"t{number} = ({first} {rng.choice('+-^')} {constant}) {op} {second}; ")
        names.append(f"t{number}")
    result = " ^ ".join(names[-apart:])
    text = "".join(statements)
    c = "".join(f"long {statement}" for statement in statements)
    return Case("large", name, text + result, f"{c}return {result};", dict.fromkeys("xyz", FULL))


#: Formulas to see whether quality holds as they grow, and as more values are alive at once.
LARGE = tuple(
    _large(f"{operators:,} operators, {apart} apart", operators, apart)
    for operators in (100, 1_000, 10_000)
    for apart in (5, 12, 40)
)

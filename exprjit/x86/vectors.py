"""The vector instructions that array code uses: 256 bits wide (AVX2) and 512 (AVX-512).

Rows as in `instructions`, in a table of their own that only array code pays for. Write masks,
broadcasts and roundings are spelled as in the manual, and a row gives a key for each choice:
`vpaddq zmm {k1}{z}, zmm, zmm/m512/m64bcst` gives vpaddq512_ with xxx xxm xxb xkxx xkxm xkxb xzxx
xzxm xzxb.
- A mnemonic that ends in a digit gets another name, or none of the size: vmovdqu64z_xm,
  vperm2i128_xxxi.
- A static rounding stands behind the size: vaddpd512rn_xxx, vcmppd512sae_kxxi.
- Masks have the size in their mnemonic: kmovq_kr, kandb_kkk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from .instructions import Instruction, Row, key_name, parts, table

# A row of one feature. 512 bits always need avx512f too, and fewer with EVEX avx512vl.
avx = partial(Row, feature="avx")
avx2 = partial(Row, feature="avx2")
fma = partial(Row, feature="fma")
gfni = partial(Row, feature="gfni")
avx512f = partial(Row, feature="avx512f")
avx512dq = partial(Row, feature="avx512dq")
avx512bw = partial(Row, feature="avx512bw")
avx512cd = partial(Row, feature="avx512cd")
avx512vbmi = partial(Row, feature="avx512vbmi")
avx512vbmi2 = partial(Row, feature="avx512vbmi2")
avx512vpopcntdq = partial(Row, feature="avx512vpopcntdq")


def masks(stem: str, operands: str, opcode: str, roles: str, flags: str = "") -> list[Row]:
    """An instruction on masks of 8, 16 and 64 lanes; `opcode` is its L and its number."""
    length, number = opcode.split()
    sizes = (("b", "66.0F.W0", avx512dq), ("w", "0F.W0", avx512f), ("q", "0F.W1", avx512bw))
    return [
        feature(f"{stem}{size} {operands}", f"VEX.{length}.{rest} {number} /r", roles, flags=flags)
        for size, rest, feature in sizes
    ]


# fmt: off
# VEX.256, with what array code needs of VEX.128.
_VEX = [
    # Moves.
    avx("vmovdqu ymm, ymm/m256",          "VEX.256.F3.0F.WIG 6F /r",     "w r"),
    avx("vmovdqu ymm/m256, ymm",          "VEX.256.F3.0F.WIG 7F /r",     "w r"),
    avx("vmovdqa ymm, ymm/m256",          "VEX.256.66.0F.WIG 6F /r",     "w r"),
    avx("vmovdqa ymm/m256, ymm",          "VEX.256.66.0F.WIG 7F /r",     "w r"),
    avx("vmovntdq m256, ymm",             "VEX.256.66.0F.WIG E7 /r",     "w r"),
    avx("vmovdqu xmm, xmm/m128",          "VEX.128.F3.0F.WIG 6F /r",     "w r", name="vmovdqu128"),
    avx("vmovdqu xmm/m128, xmm",          "VEX.128.F3.0F.WIG 7F /r",     "w r", name="vmovdqu128"),
    avx("vmovq xmm, xmm/m64",             "VEX.128.F3.0F.WIG 7E /r",     "w r"),
    avx("vmovq xmm/m64, xmm",             "VEX.128.66.0F.WIG D6 /r",     "w r"),
    avx("vmovq xmm, r/m64",               "VEX.128.66.0F.W1 6E /r",      "w r"),
    avx("vmovq r/m64, xmm",               "VEX.128.66.0F.W1 7E /r",      "w r"),
    avx("vmovd xmm, r/m32",               "VEX.128.66.0F.W0 6E /r",      "w r", name="vmovd"),
    avx("vmovd r/m32, xmm",               "VEX.128.66.0F.W0 7E /r",      "w r", name="vmovd"),
    avx("vpextrq r/m64, xmm, uimm8",      "VEX.128.66.0F3A.W1 16 /r ib", "w r i"),
    avx("vpinsrq xmm, xmm, r/m64, uimm8", "VEX.128.66.0F3A.W1 22 /r ib", "w r r i"),
    avx("vpunpcklqdq xmm, xmm, xmm/m128", "VEX.128.66.0F.WIG 6C /r",     "w r r"),
    avx("vzeroupper", "VEX.128.0F.WIG 77"),

    # Loads and stores of the lanes whose sign bit is set in the mask; the others are not touched.
    avx2("vpmaskmovq ymm, ymm, m256", "VEX.256.66.0F38.W1 8C /r", "w r r"),
    avx2("vpmaskmovq m256, ymm, ymm", "VEX.256.66.0F38.W1 8E /r", "w r r"),

    # Arithmetic, logic and comparison.
    avx2("vpaddb ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG FC /r",   "w r r"),
    avx2("vpaddd ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG FE /r",   "w r r"),
    avx2("vpaddq ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG D4 /r",   "w r r"),
    avx2("vpsubb ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG F8 /r",   "w r r"),
    avx2("vpsubd ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG FA /r",   "w r r"),
    avx2("vpsubq ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG FB /r",   "w r r"),
    avx2("vpmulld ymm, ymm, ymm/m256",  "VEX.256.66.0F38.WIG 40 /r", "w r r"),
    avx2("vpmuldq ymm, ymm, ymm/m256",  "VEX.256.66.0F38.WIG 28 /r", "w r r"),
    avx2("vpmuludq ymm, ymm, ymm/m256", "VEX.256.66.0F.WIG F4 /r",   "w r r"),
    avx2("vpsadbw ymm, ymm, ymm/m256",  "VEX.256.66.0F.WIG F6 /r",   "w r r"),
    avx2("vpand ymm, ymm, ymm/m256",    "VEX.256.66.0F.WIG DB /r",   "w r r"),
    avx2("vpandn ymm, ymm, ymm/m256",   "VEX.256.66.0F.WIG DF /r",   "w r r"),
    avx2("vpor ymm, ymm, ymm/m256",     "VEX.256.66.0F.WIG EB /r",   "w r r"),
    avx2("vpxor ymm, ymm, ymm/m256",    "VEX.256.66.0F.WIG EF /r",   "w r r"),
    avx2("vpcmpeqb ymm, ymm, ymm/m256", "VEX.256.66.0F.WIG 74 /r",   "w r r"),
    avx2("vpcmpeqd ymm, ymm, ymm/m256", "VEX.256.66.0F.WIG 76 /r",   "w r r"),
    avx2("vpcmpeqq ymm, ymm, ymm/m256", "VEX.256.66.0F38.WIG 29 /r", "w r r"),
    avx2("vpcmpgtd ymm, ymm, ymm/m256", "VEX.256.66.0F.WIG 66 /r",   "w r r"),
    avx2("vpcmpgtq ymm, ymm, ymm/m256", "VEX.256.66.0F38.WIG 37 /r", "w r r"),
    avx("vptest ymm, ymm/m256", "VEX.256.66.0F38.WIG 17 /r", "r r", flags="w"),

    # Shifts: all lanes by a constant, all by the low 64 bits of an xmm, each by its own count.
    avx2("vpsllw ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 71 /6 ib", "w r i"),
    avx2("vpsrlw ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 71 /2 ib", "w r i"),
    avx2("vpslld ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 72 /6 ib", "w r i"),
    avx2("vpsrld ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 72 /2 ib", "w r i"),
    avx2("vpsrad ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 72 /4 ib", "w r i"),
    avx2("vpsllq ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 73 /6 ib", "w r i"),
    avx2("vpsrlq ymm, ymm, uimm8",     "VEX.256.66.0F.WIG 73 /2 ib", "w r i"),
    avx2("vpsllq ymm, ymm, xmm/m128",  "VEX.256.66.0F.WIG F3 /r",    "w r r"),
    avx2("vpsrlq ymm, ymm, xmm/m128",  "VEX.256.66.0F.WIG D3 /r",    "w r r"),
    avx2("vpsllvq ymm, ymm, ymm/m256", "VEX.256.66.0F38.W1 47 /r",   "w r r"),
    avx2("vpsrlvq ymm, ymm, ymm/m256", "VEX.256.66.0F38.W1 45 /r",   "w r r"),

    # Lanes to other places.
    avx2("vpshufb ymm, ymm, ymm/m256",         "VEX.256.66.0F38.WIG 00 /r",     "w r r"),
    avx2("vpunpcklbw ymm, ymm, ymm/m256",      "VEX.256.66.0F.WIG 60 /r",       "w r r"),
    avx2("vpunpckhbw ymm, ymm, ymm/m256",      "VEX.256.66.0F.WIG 68 /r",       "w r r"),
    avx2("vpunpcklqdq ymm, ymm, ymm/m256",     "VEX.256.66.0F.WIG 6C /r",       "w r r"),
    avx2("vpunpckhqdq ymm, ymm, ymm/m256",     "VEX.256.66.0F.WIG 6D /r",       "w r r"),
    avx2("vpacksswb ymm, ymm, ymm/m256",       "VEX.256.66.0F.WIG 63 /r",       "w r r"),
    avx2("vpackssdw ymm, ymm, ymm/m256",       "VEX.256.66.0F.WIG 6B /r",       "w r r"),
    avx2("vpackuswb ymm, ymm, ymm/m256",       "VEX.256.66.0F.WIG 67 /r",       "w r r"),
    avx2("vpackusdw ymm, ymm, ymm/m256",       "VEX.256.66.0F38.WIG 2B /r",     "w r r"),
    avx2("vpermd ymm, ymm, ymm/m256",          "VEX.256.66.0F38.W0 36 /r",      "w r r"),
    avx2("vpermq ymm, ymm/m256, uimm8",        "VEX.256.66.0F3A.W1 00 /r ib",   "w r i"),
    avx2("vpshufd ymm, ymm/m256, uimm8",       "VEX.256.66.0F.WIG 70 /r ib",    "w r i"),
    avx2("vpblendd ymm, ymm, ymm/m256, uimm8", "VEX.256.66.0F3A.W0 02 /r ib",   "w r r i"),
    avx2("vpblendvb ymm, ymm, ymm/m256, ymm",  "VEX.256.66.0F3A.W0 4C /r /is4", "w r r r"),
    avx2("vperm2i128 ymm, ymm, ymm/m256, uimm8",
         "VEX.256.66.0F3A.W0 46 /r ib", "w r r i", name="vperm2i128"),
    avx2("vinserti128 ymm, ymm, xmm/m128, uimm8",
         "VEX.256.66.0F3A.W0 38 /r ib", "w r r i", name="vinserti128"),
    avx2("vextracti128 xmm/m128, ymm, uimm8",
         "VEX.256.66.0F3A.W0 39 /r ib", "w r i", name="vextracti128"),
    avx2("vpbroadcastb ymm, xmm/m8",           "VEX.256.66.0F38.W0 78 /r",      "w r"),
    avx2("vpbroadcastd ymm, xmm/m32",          "VEX.256.66.0F38.W0 58 /r",      "w r"),
    avx2("vpbroadcastq ymm, xmm/m64",          "VEX.256.66.0F38.W0 59 /r",      "w r"),
    avx2("vpmovsxbq ymm, xmm/m32",             "VEX.256.66.0F38.WIG 22 /r",     "w r"),
    avx2("vpmovsxwq ymm, xmm/m64",             "VEX.256.66.0F38.WIG 24 /r",     "w r"),
    avx2("vpmovsxdq ymm, xmm/m128",            "VEX.256.66.0F38.WIG 25 /r",     "w r"),
    avx2("vpmovzxbq ymm, xmm/m32",             "VEX.256.66.0F38.WIG 32 /r",     "w r"),
    avx2("vpmovzxwq ymm, xmm/m64",             "VEX.256.66.0F38.WIG 34 /r",     "w r"),
    avx2("vpmovzxdq ymm, xmm/m128",            "VEX.256.66.0F38.WIG 35 /r",     "w r"),
    avx2("vpmovmskb r32, ymm",                 "VEX.256.66.0F.WIG D7 /r",       "w r"),
    avx("vmovmskps r32, ymm", "VEX.256.0F.WIG 50 /r",    "w r"),
    avx("vmovmskpd r32, ymm", "VEX.256.66.0F.WIG 50 /r", "w r"),

    # Floating point.
    avx("vaddpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 58 /r",       "w r r"),
    avx("vsubpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 5C /r",       "w r r"),
    avx("vmulpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 59 /r",       "w r r"),
    avx("vdivpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 5E /r",       "w r r"),
    avx("vminpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 5D /r",       "w r r"),
    avx("vmaxpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 5F /r",       "w r r"),
    avx("vandpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 54 /r",       "w r r"),
    avx("vorpd ymm, ymm, ymm/m256",          "VEX.256.66.0F.WIG 56 /r",       "w r r"),
    avx("vxorpd ymm, ymm, ymm/m256",         "VEX.256.66.0F.WIG 57 /r",       "w r r"),
    avx("vblendvpd ymm, ymm, ymm/m256, ymm", "VEX.256.66.0F3A.W0 4B /r /is4", "w r r r"),
    avx("vcmppd ymm, ymm, ymm/m256, uimm8",  "VEX.256.66.0F.WIG C2 /r ib",    "w r r i"),
    avx("vroundpd ymm, ymm/m256, uimm8",     "VEX.256.66.0F3A.WIG 09 /r ib",  "w r i"),
    avx("vsqrtpd ymm, ymm/m256",             "VEX.256.66.0F.WIG 51 /r",       "w r"),
    avx("vcvtdq2pd ymm, xmm/m128",           "VEX.256.F3.0F.WIG E6 /r",       "w r"),
    avx("vcvttpd2dq xmm, ymm/m256",          "VEX.256.66.0F.WIG E6 /r",       "w r"),
    fma("vfmadd213pd ymm, ymm, ymm/m256",  "VEX.256.66.0F38.W1 A8 /r", "rw r r"),
    fma("vfmadd231pd ymm, ymm, ymm/m256",  "VEX.256.66.0F38.W1 B8 /r", "rw r r"),
    fma("vfnmadd213pd ymm, ymm, ymm/m256", "VEX.256.66.0F38.W1 AC /r", "rw r r"),
    fma("vfnmadd231pd ymm, ymm, ymm/m256", "VEX.256.66.0F38.W1 BC /r", "rw r r"),
]

# Masks, of which each bit stands for a lane. Registers of 32 bits take the narrow ones.
_MASKS = [
    avx512dq("kmovb k, k/m8", "VEX.L0.66.0F.W0 90 /r", "w r", name="kmovb"),
    avx512dq("kmovb m8, k",   "VEX.L0.66.0F.W0 91 /r", "w r", name="kmovb"),
    avx512dq("kmovb k, r32",  "VEX.L0.66.0F.W0 92 /r", "w r", name="kmovb"),
    avx512dq("kmovb r32, k",  "VEX.L0.66.0F.W0 93 /r", "w r", name="kmovb"),
    avx512f("kmovw k, k/m16", "VEX.L0.0F.W0 90 /r",    "w r", name="kmovw"),
    avx512f("kmovw m16, k",   "VEX.L0.0F.W0 91 /r",    "w r", name="kmovw"),
    avx512f("kmovw k, r32",   "VEX.L0.0F.W0 92 /r",    "w r", name="kmovw"),
    avx512f("kmovw r32, k",   "VEX.L0.0F.W0 93 /r",    "w r", name="kmovw"),
    avx512bw("kmovq k, k/m64", "VEX.L0.0F.W1 90 /r",    "w r"),
    avx512bw("kmovq m64, k",   "VEX.L0.0F.W1 91 /r",    "w r"),
    avx512bw("kmovq k, r64",   "VEX.L0.F2.0F.W1 92 /r", "w r"),
    avx512bw("kmovq r64, k",   "VEX.L0.F2.0F.W1 93 /r", "w r"),
    *masks("kand",  "k, k, k", "L1 41", "w r r"),
    *masks("kandn", "k, k, k", "L1 42", "w r r"),
    *masks("kor",   "k, k, k", "L1 45", "w r r"),
    *masks("kxnor", "k, k, k", "L1 46", "w r r"),
    *masks("kxor",  "k, k, k", "L1 47", "w r r"),
    *masks("knot",  "k, k",    "L0 44", "w r"),
    *masks("kortest", "k, k",  "L0 98", "r r", flags="w"),
    avx512dq("ktestb k, k",      "VEX.L0.66.0F.W0 99 /r", "r r", flags="w"),
    avx512f("kunpckbw k, k, k",  "VEX.L1.66.0F.W0 4B /r", "w r r"),
    avx512bw("kunpckwd k, k, k", "VEX.L1.0F.W0 4B /r",    "w r r"),
    avx512bw("kunpckdq k, k, k", "VEX.L1.0F.W1 4B /r",    "w r r"),
    avx512dq("kshiftlb k, k, uimm8", "VEX.L0.66.0F3A.W0 32 /r ib", "w r i"),
    avx512dq("kshiftrb k, k, uimm8", "VEX.L0.66.0F3A.W0 30 /r ib", "w r i"),
    avx512bw("kshiftlq k, k, uimm8", "VEX.L0.66.0F3A.W1 33 /r ib", "w r i"),
    avx512bw("kshiftrq k, k, uimm8", "VEX.L0.66.0F3A.W1 31 /r ib", "w r i"),
    # All bits of a lane from the lane's bit of the mask, and the bit from the lane's sign.
    avx512dq("vpmovm2q zmm, k", "EVEX.512.F3.0F38.W1 38 /r", "w r"),
    avx512dq("vpmovq2m k, zmm", "EVEX.512.F3.0F38.W1 39 /r", "w r"),
    avx512bw("vpmovm2b zmm, k", "EVEX.512.F3.0F38.W0 28 /r", "w r"),
    avx512bw("vpmovb2m k, zmm", "EVEX.512.F3.0F38.W0 29 /r", "w r"),
]

_EVEX = [
    # Moves.
    avx512f("vmovdqu64 zmm {k1}{z}, zmm/m512", "EVEX.512.F3.0F.W1 6F /r", "w r", name="vmovdqu64z"),
    avx512f("vmovdqu64 zmm/m512 {k1}{z}, zmm", "EVEX.512.F3.0F.W1 7F /r", "w r", name="vmovdqu64z"),
    avx512f("vmovdqa64 zmm {k1}{z}, zmm/m512", "EVEX.512.66.0F.W1 6F /r", "w r", name="vmovdqa64z"),
    avx512f("vmovdqa64 zmm/m512 {k1}{z}, zmm", "EVEX.512.66.0F.W1 7F /r", "w r", name="vmovdqa64z"),
    avx512f("vmovdqu32 zmm {k1}{z}, zmm/m512", "EVEX.512.F3.0F.W0 6F /r", "w r", name="vmovdqu32z"),
    avx512f("vmovdqu32 zmm/m512 {k1}{z}, zmm", "EVEX.512.F3.0F.W0 7F /r", "w r", name="vmovdqu32z"),
    avx512bw("vmovdqu8 zmm {k1}{z}, zmm/m512", "EVEX.512.F2.0F.W0 6F /r", "w r", name="vmovdqu8z"),
    avx512bw("vmovdqu8 zmm/m512 {k1}{z}, zmm", "EVEX.512.F2.0F.W0 7F /r", "w r", name="vmovdqu8z"),
    avx512f("vmovntdq m512, zmm",                "EVEX.512.66.0F.W0 E7 /r",   "w r"),
    avx512f("vpbroadcastq zmm {k1}{z}, r64",     "EVEX.512.66.0F38.W1 7C /r", "w r"),
    avx512f("vpbroadcastq zmm {k1}{z}, xmm/m64", "EVEX.512.66.0F38.W1 59 /r", "w r"),

    # Arithmetic and logic.
    avx512f("vpaddd zmm {k1}{z}, zmm, zmm/m512/m32bcst",   "EVEX.512.66.0F.W0 FE /r",   "w r r"),
    avx512f("vpsubd zmm {k1}{z}, zmm, zmm/m512/m32bcst",   "EVEX.512.66.0F.W0 FA /r",   "w r r"),
    avx512f("vpmulld zmm {k1}{z}, zmm, zmm/m512/m32bcst",  "EVEX.512.66.0F38.W0 40 /r", "w r r"),
    avx512f("vpaddq zmm {k1}{z}, zmm, zmm/m512/m64bcst",   "EVEX.512.66.0F.W1 D4 /r",   "w r r"),
    avx512f("vpsubq zmm {k1}{z}, zmm, zmm/m512/m64bcst",   "EVEX.512.66.0F.W1 FB /r",   "w r r"),
    avx512f("vpmuldq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 28 /r", "w r r"),
    avx512f("vpmuludq zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 F4 /r",   "w r r"),
    avx512f("vpminsq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 39 /r", "w r r"),
    avx512f("vpmaxsq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 3D /r", "w r r"),
    avx512f("vpminuq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 3B /r", "w r r"),
    avx512f("vpmaxuq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 3F /r", "w r r"),
    avx512f("vpandq zmm {k1}{z}, zmm, zmm/m512/m64bcst",   "EVEX.512.66.0F.W1 DB /r",   "w r r"),
    avx512f("vpandnq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F.W1 DF /r",   "w r r"),
    avx512f("vporq zmm {k1}{z}, zmm, zmm/m512/m64bcst",    "EVEX.512.66.0F.W1 EB /r",   "w r r"),
    avx512f("vpxorq zmm {k1}{z}, zmm, zmm/m512/m64bcst",   "EVEX.512.66.0F.W1 EF /r",   "w r r"),
    avx512f("vpternlogq zmm {k1}{z}, zmm, zmm/m512/m64bcst, uimm8",
            "EVEX.512.66.0F3A.W1 25 /r ib", "rw r r i"),
    avx512f("vpabsq zmm {k1}{z}, zmm/m512/m64bcst",        "EVEX.512.66.0F38.W1 1F /r", "w r"),
    avx512dq("vpmullq zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F38.W1 40 /r", "w r r"),
    avx512vpopcntdq("vpopcntq zmm {k1}{z}, zmm/m512/m64bcst", "EVEX.512.66.0F38.W1 55 /r", "w r"),
    avx512cd("vplzcntq zmm {k1}{z}, zmm/m512/m64bcst", "EVEX.512.66.0F38.W1 44 /r", "w r"),
    avx512bw("vpsadbw zmm, zmm, zmm/m512", "EVEX.512.66.0F.WIG F6 /r", "w r r"),
    gfni("vgf2p8affineqb zmm {k1}{z}, zmm, zmm/m512/m64bcst, uimm8",
         "EVEX.512.66.0F3A.W1 CE /r ib", "w r r i"),

    # Shifts and rotations: all lanes by a constant, then each by its own count.
    avx512f("vpsllq zmm {k1}{z}, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 73 /6 ib", "w r i"),
    avx512f("vpsrlq zmm {k1}{z}, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 73 /2 ib", "w r i"),
    avx512f("vpsraq zmm {k1}{z}, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 72 /4 ib", "w r i"),
    avx512f("vprolq zmm {k1}{z}, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 72 /1 ib", "w r i"),
    avx512f("vprorq zmm {k1}{z}, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 72 /0 ib", "w r i"),
    avx512f("vpsllvq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 47 /r",  "w r r"),
    avx512f("vpsrlvq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 45 /r",  "w r r"),
    avx512f("vpsravq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 46 /r",  "w r r"),
    avx512f("vprolvq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 15 /r",  "w r r"),
    avx512f("vprorvq zmm {k1}{z}, zmm, zmm/m512/m64bcst",  "EVEX.512.66.0F38.W1 14 /r",  "w r r"),

    # Comparisons, whose destination is a mask.
    avx512f("vpcmpq k {k1}, zmm, zmm/m512/m64bcst, uimm8",
            "EVEX.512.66.0F3A.W1 1F /r ib", "w r r i"),
    avx512f("vpcmpuq k {k1}, zmm, zmm/m512/m64bcst, uimm8",
            "EVEX.512.66.0F3A.W1 1E /r ib", "w r r i"),
    avx512f("vpcmpeqq k {k1}, zmm, zmm/m512/m64bcst",      "EVEX.512.66.0F38.W1 29 /r",  "w r r"),
    avx512f("vpcmpgtq k {k1}, zmm, zmm/m512/m64bcst",      "EVEX.512.66.0F38.W1 37 /r",  "w r r"),
    avx512f("vptestmq k {k1}, zmm, zmm/m512/m64bcst",      "EVEX.512.66.0F38.W1 27 /r",  "w r r"),
    avx512f("vptestnmq k {k1}, zmm, zmm/m512/m64bcst",     "EVEX.512.F3.0F38.W1 27 /r",  "w r r"),
    avx512f("vcmppd k {k1}, zmm, zmm/m512/m64bcst, uimm8", "EVEX.512.66.0F.W1 C2 /r ib", "w r r i"),

    # Lanes to other places. The mask of a blend chooses, that of a compression says which lanes go.
    avx512f("vpblendmq zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F38.W1 64 /r", "w k r r"),
    avx512f("vpermq zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F38.W1 36 /r",     "w r r"),
    avx512f("valignq zmm {k1}{z}, zmm, zmm/m512/m64bcst, uimm8",
            "EVEX.512.66.0F3A.W1 03 /r ib", "w r r i"),
    avx512f("vpcompressq zmm/m512 {k1}{z}, zmm",         "EVEX.512.66.0F38.W1 8B /r T1S64", "w r"),
    avx512vbmi2("vpcompressb ymm/m256 {k1}{z}, ymm",     "EVEX.256.66.0F38.W0 63 /r T1S8", "w r"),
    avx512f("vpexpandq zmm {k1}{z}, zmm/m512",           "EVEX.512.66.0F38.W1 89 /r T1S64", "w r"),
    avx512f("vpmovsxbq zmm {k1}{z}, xmm/m64",            "EVEX.512.66.0F38.WIG 22 /r",    "w r"),
    avx512f("vpmovsxwq zmm {k1}{z}, xmm/m128",           "EVEX.512.66.0F38.WIG 24 /r",    "w r"),
    avx512f("vpmovsxdq zmm {k1}{z}, ymm/m256",           "EVEX.512.66.0F38.W0 25 /r",     "w r"),
    avx512f("vpmovzxbq zmm {k1}{z}, xmm/m64",            "EVEX.512.66.0F38.WIG 32 /r",    "w r"),
    avx512f("vpmovzxwq zmm {k1}{z}, xmm/m128",           "EVEX.512.66.0F38.WIG 34 /r",    "w r"),
    avx512f("vpmovzxdq zmm {k1}{z}, ymm/m256",           "EVEX.512.66.0F38.W0 35 /r",     "w r"),
    avx512f("vpmovqb xmm/m64 {k1}{z}, zmm",              "EVEX.512.F3.0F38.W0 32 /r",     "w r"),
    avx512f("vpmovqw xmm/m128 {k1}{z}, zmm",             "EVEX.512.F3.0F38.W0 34 /r",     "w r"),
    avx512f("vpmovqd ymm/m256 {k1}{z}, zmm",             "EVEX.512.F3.0F38.W0 35 /r",     "w r"),
    avx512bw("vpshufb zmm {k1}{z}, zmm, zmm/m512", "EVEX.512.66.0F38.WIG 00 /r", "w r r"),
    avx512vbmi("vpermb zmm {k1}{z}, zmm, zmm/m512", "EVEX.512.66.0F38.W0 8D /r", "w r r"),

    # Floating point.
    avx512f("vaddpd zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 58 /r", "w r r"),
    avx512f("vsubpd zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 5C /r", "w r r"),
    avx512f("vmulpd zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 59 /r", "w r r"),
    avx512f("vdivpd zmm {k1}{z}, zmm, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 5E /r", "w r r"),
    avx512f("vfmadd132pd zmm {k1}{z}, zmm, zmm/m512/m64bcst",
            "EVEX.512.66.0F38.W1 98 /r", "rw r r"),
    avx512f("vfmadd213pd zmm {k1}{z}, zmm, zmm/m512/m64bcst",
            "EVEX.512.66.0F38.W1 A8 /r", "rw r r"),
    avx512f("vfmadd231pd zmm {k1}{z}, zmm, zmm/m512/m64bcst",
            "EVEX.512.66.0F38.W1 B8 /r", "rw r r"),
    avx512f("vfnmadd213pd zmm {k1}{z}, zmm, zmm/m512/m64bcst",
            "EVEX.512.66.0F38.W1 AC /r", "rw r r"),
    avx512f("vfnmadd231pd zmm {k1}{z}, zmm, zmm/m512/m64bcst",
            "EVEX.512.66.0F38.W1 BC /r", "rw r r"),
    avx512f("vsqrtpd zmm {k1}{z}, zmm/m512/m64bcst",     "EVEX.512.66.0F.W1 51 /r", "w r"),
    avx512f("vrndscalepd zmm {k1}{z}, zmm/m512/m64bcst, uimm8",
            "EVEX.512.66.0F3A.W1 09 /r ib", "w r i"),
    avx512dq("vrangepd zmm {k1}{z}, zmm, zmm/m512/m64bcst, uimm8",
             "EVEX.512.66.0F3A.W1 50 /r ib", "w r r i"),
    avx512dq("vcvtqq2pd zmm {k1}{z}, zmm/m512/m64bcst",   "EVEX.512.F3.0F.W1 E6 /r", "w r"),
    avx512dq("vcvtuqq2pd zmm {k1}{z}, zmm/m512/m64bcst",  "EVEX.512.F3.0F.W1 7A /r", "w r"),
    avx512dq("vcvtpd2qq zmm {k1}{z}, zmm/m512/m64bcst",   "EVEX.512.66.0F.W1 7B /r", "w r"),
    avx512dq("vcvtpd2uqq zmm {k1}{z}, zmm/m512/m64bcst",  "EVEX.512.66.0F.W1 79 /r", "w r"),
    avx512dq("vcvttpd2qq zmm {k1}{z}, zmm/m512/m64bcst",  "EVEX.512.66.0F.W1 7A /r", "w r"),
    avx512dq("vcvttpd2uqq zmm {k1}{z}, zmm/m512/m64bcst", "EVEX.512.66.0F.W1 78 /r", "w r"),
]
# fmt: on

# Which of the rows for 512 bits can be had with a rounding of their own, between registers: to
# nearest, down, up or to zero. None of them raises a flag, and with sae that is all.
_ROUNDINGS = {
    "vaddpd": "rn rz",
    "vsubpd": "rn",
    "vmulpd": "rn rz",
    "vdivpd": "rn",
    "vsqrtpd": "rn",
    "vfmadd132pd": "rn",
    "vfmadd213pd": "rn rd ru",
    "vfmadd231pd": "rn",
    "vfnmadd213pd": "rn",
    "vfnmadd231pd": "rn",
    "vcvtqq2pd": "rn",
    "vcvtuqq2pd": "rn",
    "vcvtpd2qq": "rd ru",
    "vcvtpd2uqq": "rd ru",
    "vcvttpd2qq": "sae",
    "vcvttpd2uqq": "sae",
    "vcmppd": "sae",
    "vrangepd": "sae",
    "vrndscalepd": "sae",
}


def _rounded(rows: list[Row]) -> Iterator[Row]:
    """The rows for `_ROUNDINGS`: vaddpd zmm {k1}{z}, zmm, zmm{rn-sae}."""
    for source in rows:
        mnemonic = source.form.partition(" ")[0]
        for rounding in _ROUNDINGS.get(mnemonic, "").split():
            written = "{sae}" if rounding == "sae" else f"{{{rounding}-sae}}"
            form = source.form.replace("/m512/m64bcst", written)
            yield source._replace(form=form, name=f"{mnemonic}512{rounding}")


ROWS = [*_VEX, *_MASKS, *_EVEX, *_rounded(_EVEX)]


class Vectors(Mapping[str, Instruction]):
    """A table as `table` makes it, in which an instruction is made when it is first looked up.

    All of them take longer than compiling a formula, which uses a few. Iterating makes the rest.
    """

    __slots__ = ("_made", "_rows")

    def __init__(self, rows: list[Row]) -> None:
        self._made: dict[str, Instruction] = {}
        self._rows: dict[str, list[Row]] = {}  # by the name in their keys
        for source in rows:
            name = key_name(source, *parts(source.form))
            self._rows.setdefault(name, []).append(source)

    def __getitem__(self, key: str) -> Instruction:
        if key not in self._made:
            self._make(self._rows.get(key.partition("_")[0], []))
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        self._make([source for rows in self._rows.values() for source in rows])
        self._rows = {}
        return iter(self._made)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _make(self, rows: list[Row]) -> None:
        for key, instruction in table(rows).items():
            # What is there stays, as when two threads ask at once: instructions are compared by
            # identity.
            self._made.setdefault(key, instruction)


VECTORS = Vectors(ROWS)

"""x86-64's target description.

Sources: gdb manual, appendix "Target Descriptions" ("i386 Features"); names, types and groups are
those of gdb/features/i386/64bit-*.xml.
"""

from __future__ import annotations

import functools
from typing import Iterator, Tuple

from gdb_uffd.arch.description import Feature, Register, flags
from gdb_uffd.arch.x86_64.xstate import AVX, AVX512, PKRU, SSE, X87

_EFLAGS = flags(
    "i386_eflags",
    [
        ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9),
        ("DF", 10), ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19),
        ("VIP", 20), ("ID", 21),
    ],
)  # fmt: skip

_MXCSR = flags(
    "i386_mxcsr",
    [
        ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7),
        ("DM", 8), ("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
    ],
)  # fmt: skip

_VEC128 = (
    '<vector id="v8bf16" type="bfloat16" count="8"/>'
    '<vector id="v8h" type="ieee_half" count="8"/>'
    '<vector id="v4f" type="ieee_single" count="4"/>'
    '<vector id="v2d" type="ieee_double" count="2"/>'
    '<vector id="v16i8" type="int8" count="16"/>'
    '<vector id="v8i16" type="int16" count="8"/>'
    '<vector id="v4i32" type="int32" count="4"/>'
    '<vector id="v2i64" type="int64" count="2"/>'
    '<union id="vec128">'
    '<field name="v8_bfloat16" type="v8bf16"/><field name="v8_half" type="v8h"/>'
    '<field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
    '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>'
    '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>'
    '<field name="uint128" type="uint128"/>'
    "</union>"
)


def both_sizes() -> Iterator[Register]:
    """What follows the instruction pointer in 64-bit and in 32-bit programs."""
    yield Register("eflags", 32, "i386_eflags")
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        yield Register(name, 32, "int32")
    for n in range(8):
        yield Register(f"st{n}", 80, "i387_ext")
    for name in ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"):
        yield Register(name, 32, "int", "float")


def _core() -> Iterator[Register]:
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi"):
        yield Register(name, 64, "int64")
    yield Register("rbp", 64, "data_ptr")
    yield Register("rsp", 64, "data_ptr")
    for n in range(8, 16):
        yield Register(f"r{n}", 64, "int64")
    yield Register("rip", 64, "code_ptr")
    yield from both_sizes()


def _sse() -> Iterator[Register]:
    for n in range(16):
        yield Register(f"xmm{n}", 128, "vec128")
    yield Register("mxcsr", 32, "i386_mxcsr", "vector")


def _avx512() -> Iterator[Register]:
    # gdb takes these by name, in any order.  This is the order of the XSAVE image, in
    # which opmasks, the upper halves and Hi16_ZMM lie one after the other, so that a
    # register packet takes them as one piece.
    for n in range(8):
        yield Register(f"k{n}", 64, "uint64")
    for n in range(16):
        yield Register(f"zmm{n}h", 256, "v2ui128")
    for n in range(16, 32):
        yield Register(f"xmm{n}", 128, "vec128")
        yield Register(f"ymm{n}h", 128, "uint128")
        yield Register(f"zmm{n}h", 256, "v2ui128")


def described(xfeatures: int) -> int:
    """The XCR0 bits that a description for `xfeatures` has registers of.

    x87 and SSE are always there (gdb insists); AVX-512 only whole and with AVX.
    """
    bits = X87 | SSE | (xfeatures & AVX)
    if xfeatures & AVX and xfeatures & AVX512 == AVX512:
        bits |= AVX512
    return bits | (xfeatures & PKRU)


@functools.lru_cache(maxsize=8)
def features(xfeatures: int) -> Tuple[Feature, ...]:
    """The features for a machine with these XCR0 bits, in the order of register numbers."""
    bits = described(xfeatures)
    out = [
        Feature("org.gnu.gdb.i386.core", _EFLAGS, tuple(_core())),
        Feature("org.gnu.gdb.i386.sse", _VEC128 + _MXCSR, tuple(_sse())),
        Feature("org.gnu.gdb.i386.linux", "", (Register("orig_rax", 64, "int", "system"),)),
        Feature(
            "org.gnu.gdb.i386.segments",
            "",
            (Register("fs_base", 64, "int"), Register("gs_base", 64, "int")),
        ),
    ]
    if bits & AVX:
        ymm = tuple(Register(f"ymm{n}h", 128, "uint128") for n in range(16))
        out.append(Feature("org.gnu.gdb.i386.avx", "", ymm))
    if bits & AVX512:
        types = _VEC128 + '<vector id="v2ui128" type="uint128" count="2"/>'
        out.append(Feature("org.gnu.gdb.i386.avx512", types, tuple(_avx512())))
    if bits & PKRU:
        pkru = (Register("pkru", 32, "uint32"),)
        out.append(Feature("org.gnu.gdb.i386.pkeys", "", pkru))
    return tuple(out)


def registers(xfeatures: int) -> Tuple[Register, ...]:
    """Every register, by number."""
    return tuple(r for feature in features(xfeatures) for r in feature.registers)

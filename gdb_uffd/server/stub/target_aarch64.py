"""AArch64's target description: names, types and groups of gdb/features/aarch64-*.xml.

Sources: gdb manual, appendix "Target Descriptions" ("AArch64 Features").
"""

from __future__ import annotations

import functools
from typing import Iterator, List, Tuple

from gdb_uffd.arch import AARCH64
from gdb_uffd.server.stub.target_xml import Feature, Register, document, flags
from gdb_uffd.trace.core.fpsimd import PAC

_CPSR = flags(
    "cpsr_flags",
    [
        ("SP", 0), ("nRW", 4), ("F", 6), ("I", 7), ("A", 8), ("D", 9), ("SSBS", 12),
        ("IL", 20), ("SS", 21), ("PAN", 22), ("UAO", 23), ("DIT", 24), ("TCO", 25), ("V", 28),
        ("C", 29), ("Z", 30), ("N", 31),
    ],
)  # fmt: skip


def _vector_types() -> str:
    """The unions that aarch64-fpu.xml makes of one 128-bit register."""
    elements = (
        ("vnd", 64, ("ieee_double", "uint64", "int64")),
        ("vns", 32, ("ieee_single", "uint32", "int32")),
        ("vnh", 16, ("bfloat16", "ieee_half", "uint16", "int16")),
        ("vnb", 8, ("uint8", "int8")),
        ("vnq", 128, ("uint128", "int128")),
    )
    fields = {"ieee": "f", "bflo": "bf", "uint": "u", "int": "s"}
    vectors = unions = ""
    for union, bits, kinds in elements:
        count = 128 // bits
        unions += f'<union id="{union}">'
        for kind in kinds:
            field = fields[kind[:4].rstrip("0123456789")]
            name = f"v{count}{field}{bits}"
            vectors += f'<vector id="{name}" type="{kind}" count="{count}"/>'
            unions += f'<field name="{field}" type="{name}"/>'
        unions += "</union>"
    whole = "".join(f'<field name="{union[-1]}" type="{union}"/>' for union, _, _ in elements)
    return f'{vectors}{unions}<union id="aarch64v">{whole}</union>'


def _core() -> Iterator[Register]:
    for n in range(31):
        yield Register(f"x{n}", 64, "int")
    yield Register("sp", 64, "data_ptr")
    yield Register("pc", 64, "code_ptr")
    yield Register("cpsr", 32, "cpsr_flags")


def _vectors() -> Iterator[Register]:
    for n in range(32):
        yield Register(f"v{n}", 128, "aarch64v")
    yield Register("fpsr", 32, "int", "float")
    yield Register("fpcr", 32, "int", "float")


def described(xfeatures: int) -> int:
    """The bits of trace/core/fpsimd.py on which the description depends."""
    return xfeatures & PAC


@functools.lru_cache(maxsize=4)
def features(xfeatures: int) -> Tuple[Feature, ...]:
    """In the order of register numbers; with the masks of pointer authentication, gdb strips
    signatures off return addresses."""
    out: List[Feature] = [
        Feature("org.gnu.gdb.aarch64.core", _CPSR, tuple(_core())),
        Feature("org.gnu.gdb.aarch64.fpu", _vector_types(), tuple(_vectors())),
        Feature("org.gnu.gdb.aarch64.tls", "", (Register("tpidr", 64, "data_ptr", "system"),)),
    ]
    if xfeatures & PAC:
        masks = (Register("pauth_dmask", 64, "int"), Register("pauth_cmask", 64, "int"))
        out.append(Feature("org.gnu.gdb.aarch64.pauth", "", masks))
    return tuple(out)


@functools.lru_cache(maxsize=4)
def target_xml(xfeatures: int) -> bytes:
    """The document for these bits."""
    return document(AARCH64.gdb, features(xfeatures))

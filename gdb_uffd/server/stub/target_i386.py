"""The target descriptions of i386's and x32's programs: names, types and groups of
gdb/features/i386/32bit-*.xml and x32-core.xml."""

from __future__ import annotations

import dataclasses
import functools
from typing import Iterator, Tuple

from gdb_uffd.arch import I386, X32
from gdb_uffd.server.stub import target_xml
from gdb_uffd.server.stub.target_xml import AVX, SSE, X87, Feature, Register, document


def described(xfeatures: int) -> int:
    """The XCR0 bits that an i386's description for `xfeatures` has registers of."""
    return X87 | SSE | (xfeatures & AVX)


def _core() -> Iterator[Register]:
    for name in ("eax", "ecx", "edx", "ebx"):
        yield Register(name, 32, "int32")
    for name in ("esp", "ebp"):
        yield Register(name, 32, "data_ptr")
    for name in ("esi", "edi"):
        yield Register(name, 32, "int32")
    yield Register("eip", 32, "code_ptr")
    yield from target_xml.both_sizes()


@functools.lru_cache(maxsize=4)
def features(xfeatures: int) -> Tuple[Feature, ...]:
    """In the order of register numbers."""
    core, sse = target_xml.features(0)[:2]
    narrow = tuple(r for r in sse.registers if r.name == "mxcsr" or int(r.name[3:]) < 8)
    out = [
        Feature(core.name, core.types, tuple(_core())),
        Feature(sse.name, sse.types, narrow),
        Feature("org.gnu.gdb.i386.linux", "", (Register("orig_eax", 32, "int", "system"),)),
    ]
    if xfeatures & AVX:
        ymm = tuple(Register(f"ymm{n}h", 128, "uint128") for n in range(8))
        out.append(Feature("org.gnu.gdb.i386.avx", "", ymm))
    return tuple(out)


@functools.lru_cache(maxsize=4)
def target_i386(xfeatures: int) -> bytes:
    """The document for an i386's program."""
    return document(I386.gdb, features(xfeatures))


@functools.lru_cache(maxsize=4)
def target_x32(xfeatures: int) -> bytes:
    """The document for an x32's program: x86-64's registers, none of which is a pointer."""
    core, *others = target_xml.features(xfeatures)
    plain = tuple(
        dataclasses.replace(r, type="int64") if r.type in ("data_ptr", "code_ptr") else r
        for r in core.registers
    )
    return document(X32.gdb, (Feature(core.name, core.types, plain), *others))

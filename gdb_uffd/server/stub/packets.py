"""The register packet and the target description of whatever processor a snapshot is of."""

from __future__ import annotations

import functools
from typing import Protocol, Tuple, Union

from gdb_uffd.arch import AARCH64, I386, X32, Architecture
from gdb_uffd.protocol.model import Registers
from gdb_uffd.server.stub import target_aarch64, target_i386, target_xml
from gdb_uffd.server.stub.registers import PacketFormat
from gdb_uffd.server.stub.registers_aarch64 import Aarch64Layout
from gdb_uffd.server.stub.registers_i386 import I386Layout


class RegisterLayout(Protocol):
    """`Registers` as the bytes of a `g` packet, register after register."""

    described: int
    """What of the recorded components the target description depends on."""
    size: int

    @property
    def slots(self) -> "list[Tuple[int, int]]":
        """(offset, size) in bytes, by register number."""
        ...

    def encode(self, registers: Registers) -> bytes:
        """All of them."""
        ...

    def encode_hex(self, registers: Registers) -> bytes:
        """In hex digits, with `x` for what was not recorded."""
        ...

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the first registers, as many as `data` has."""
        ...

    def write(self, number: int, value: bytes, old: Registers) -> Registers:
        """`old` with one register set; ValueError."""
        ...


@functools.lru_cache(maxsize=8)
def layout_of(arch: Architecture, xfeatures: int) -> Union[PacketFormat, Aarch64Layout, I386Layout]:
    """For registers of `arch` with these components recorded."""
    if arch is I386:
        return I386Layout(xfeatures)
    return Aarch64Layout(xfeatures) if arch is AARCH64 else PacketFormat(xfeatures)


def description(registers: Registers) -> bytes:
    """The target description, `target.xml`."""
    if registers.arch is AARCH64:
        return target_aarch64.target_xml(target_aarch64.described(registers.xfeatures))
    if registers.arch is I386:
        return target_i386.target_i386(target_i386.described(registers.xfeatures))
    if registers.arch is X32:
        return target_i386.target_x32(target_xml.described(registers.xfeatures))
    return target_xml.target_xml(target_xml.described(registers.xfeatures))

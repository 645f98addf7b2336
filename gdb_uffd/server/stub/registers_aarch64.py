"""`model.Registers` of AArch64 to and from the bytes of the `g` packet (see registers.py)."""

from __future__ import annotations

import binascii
import struct

from gdb_uffd.arch import AARCH64
from gdb_uffd.protocol.model import Registers
from gdb_uffd.server.stub import target_aarch64
from gdb_uffd.server.stub.registers_base import PacketLayout
from gdb_uffd.trace.core.fpsimd import FPSIMD, PAC, PARTS, SIZE

_WIDE = struct.Struct("<33Q")  # x0-x30, sp, pc
_CPSR = struct.Struct("<I")
_TPIDR = struct.Struct("<Q")
_CPSR_AT, _TPIDR_AT = AARCH64.gpr["cpsr"], AARCH64.gpr["tpidr"]

_G_CPSR = _WIDE.size
_G_VECTORS = _G_CPSR + _CPSR.size
_VECTORS = 512 + 4 + 4  # v0-v31, fpsr, fpcr: as struct user_fpsimd_state has them
_G_TPIDR = _G_VECTORS + _VECTORS
_G_MASKS = _G_TPIDR + _TPIDR.size
_MASKS = slice(PARTS[PAC][1], PARTS[PAC][1] + PARTS[PAC][2])


class Aarch64Layout(PacketLayout):
    """The register packet for the components in `xfeatures` (trace/core/fpsimd.py)."""

    def __init__(self, xfeatures: int) -> None:
        self.described = target_aarch64.described(xfeatures)
        features = target_aarch64.features(self.described)
        super().__init__(r.bits for feature in features for r in feature.registers)

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        gpr, xs = registers.gpr, registers.xstate.ljust(SIZE, b"\0")
        out = _WIDE.pack(*gpr[:33]) + _CPSR.pack(gpr[_CPSR_AT] & 0xFFFFFFFF)
        out += xs[:_VECTORS] + _TPIDR.pack(gpr[_TPIDR_AT])
        return out + xs[_MASKS] if self.described & PAC else out

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for what was not recorded."""
        text = bytearray(binascii.hexlify(self.encode(registers)))
        if not registers.xfeatures & FPSIMD:
            text[2 * _G_VECTORS : 2 * _G_TPIDR] = b"x" * (2 * _VECTORS)
        if self.described & PAC and not registers.xfeatures & PAC:
            text[2 * _G_MASKS :] = b"x" * (len(text) - 2 * _G_MASKS)
        return bytes(text)

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data` (the first `len(data)` bytes of a packet).  The masks
        are the processor's and stay.  ValueError when `data` is longer than the packet."""
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes of registers, there are {self.size}")
        before = self.encode(old)
        data += before[len(data) :]
        gpr = [*_WIDE.unpack_from(data), *_CPSR.unpack_from(data, _G_CPSR)]
        gpr += _TPIDR.unpack_from(data, _G_TPIDR)
        vectors = data[_G_VECTORS:_G_TPIDR]
        if vectors == before[_G_VECTORS:_G_TPIDR]:
            return Registers(gpr, old.xstate, old.xfeatures, AARCH64)
        xstate = vectors + old.xstate.ljust(SIZE, b"\0")[_VECTORS:]
        return Registers(gpr, xstate, old.xfeatures | FPSIMD, AARCH64)

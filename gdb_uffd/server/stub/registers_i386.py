"""`model.Registers` of an i386's program to and from the bytes of the `g` packet: registers.py."""

from __future__ import annotations

import binascii
from typing import Dict

from gdb_uffd.arch import I386
from gdb_uffd.protocol.model import XSTATE_COMPONENTS, Registers
from gdb_uffd.server.stub import target_i386
from gdb_uffd.server.stub.registers import x87_control
from gdb_uffd.server.stub.registers_base import PacketLayout
from gdb_uffd.server.stub.target_xml import AVX, SSE, X87
from gdb_uffd.trace.core.xstate import MXCSR

_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_BITS = {"st": X87, "xm": SSE, "mx": SSE, "ym": AVX, **{name[:2]: X87 for name in _CONTROL}}


def _place(name: str) -> int:
    """Offset of a vector register in the XSAVE image."""
    if name == "mxcsr":
        return MXCSR
    number = int(name.rstrip("h").lstrip("stxmy"))
    return {"s": 32, "x": 160, "y": XSTATE_COMPONENTS[2][0]}[name[0]] + 16 * number


class I386Layout(PacketLayout):
    """The register packet for the components in `xfeatures` (XCR0 bits)."""

    def __init__(self, xfeatures: int) -> None:
        self.described = target_i386.described(xfeatures)
        features = target_i386.features(self.described)
        registers = [r for feature in features for r in feature.registers]
        super().__init__(r.bits for r in registers)
        self._names = [r.name for r in registers]

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        control = dict(zip(_CONTROL, x87_control(registers.xstate)))
        parts = []
        for name, (_, size) in zip(self._names, self.slots):
            value = self._number(name, registers, control)
            if value is None:
                at = _place(name)
                parts.append(registers.xstate[at : at + size].ljust(size, b"\0"))
            else:
                parts.append((value & 0xFFFFFFFF).to_bytes(size, "little"))
        return b"".join(parts)

    @staticmethod
    def _number(name: str, registers: Registers, control: Dict[str, int]) -> "int | None":
        index = I386.gpr.get(name)
        return registers.gpr[index] if index is not None else control.get(name)

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for what was not recorded."""
        text = bytearray(binascii.hexlify(self.encode(registers)))
        for name, (offset, size) in zip(self._names, self.slots):
            bit = 0 if name in I386.gpr else _BITS[name[:2]]
            if bit & ~registers.xfeatures:
                text[2 * offset : 2 * (offset + size)] = b"x" * (2 * size)
        return bytes(text)

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data`, as many as it has; nothing will run with them, so the
        x87 control words stay.  ValueError when `data` is longer than the packet."""
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes of registers, there are {self.size}")
        made = old.copy()
        xstate = bytearray(made.xstate)
        for name, (offset, size) in zip(self._names, self.slots):
            value = data[offset : offset + size]
            if len(value) < size:
                break
            index = I386.gpr.get(name)
            if index is not None:
                made.gpr[index] = int.from_bytes(value, "little")
            elif name not in _CONTROL:
                at = _place(name)
                xstate[at : at + size] = value
        return Registers(made.gpr, bytes(xstate), old.xfeatures, old.arch)

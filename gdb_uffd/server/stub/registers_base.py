"""What the register packets of all architectures share: where a register lies in one."""

from __future__ import annotations

from typing import Iterable, List, Tuple

from gdb_uffd.protocol.model import Registers


class PacketLayout:
    """A packet with registers of `bits` each, by register number.  `slots`: (offset, size) in
    bytes; `size`: of the packet."""

    def __init__(self, bits: Iterable[int]) -> None:
        self.slots: List[Tuple[int, int]] = []
        self.size = 0
        for width in bits:
            self.slots.append((self.size, width // 8))
            self.size += width // 8

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        raise NotImplementedError

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data`.  ValueError when `data` is longer than the packet."""
        raise NotImplementedError

    def slot(self, number: int, value: bytes) -> Tuple[int, int]:
        """Where register `number` lies; ValueError where there is none of `value`'s size."""
        if not 0 <= number < len(self.slots):
            raise ValueError(f"no register {number}")
        offset, size = self.slots[number]
        if len(value) != size:
            raise ValueError(f"register {number} has {size} bytes, not {len(value)}")
        return offset, size

    def write(self, number: int, value: bytes, old: Registers) -> Registers:
        """`old` with register `number` set; ValueError for no such register or size."""
        offset, size = self.slot(number, value)
        data = bytearray(self.encode(old))
        data[offset : offset + size] = value
        return self.decode(bytes(data), old)

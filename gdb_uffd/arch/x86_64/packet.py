"""x86-64's `Registers` to and from the bytes of the `g` packet.

The layout is that of description.registers(): register after register in the order of
numbers, little-endian, without gaps (gdb manual, node "Packets", `g`).  x87 fields follow
gdb's i387-tdep.c: they are 16 bits of the FXSAVE image shown as 32, the opcode 11 bits, and the
tag word is the classic one of two bits a register, where FXSAVE keeps one.
Intel SDM vol. 1, 8.1.7 (tag word), 10.5.1 (FXSAVE), 13.4-13.6 (XSAVE area, initial states).
"""

from __future__ import annotations

import binascii
import struct
from operator import itemgetter
from typing import Dict, Tuple

from gdb_uffd.arch.interface import RegisterFormat, Registers
from gdb_uffd.arch.x86_64 import description
from gdb_uffd.arch.x86_64.general import GPR
from gdb_uffd.arch.x86_64.xstate import (
    AVX,
    AVX512,
    PKRU,
    SSE,
    X87,
    XSTATE_COMPONENTS,
    XSTATE_SIZE,
)

_WIDE = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
_NARROW = "eflags cs ss ds es fs gs".split()
_TAIL = "orig_rax fs_base gs_base".split()
_WIDE_AT = tuple(GPR[n] for n in _WIDE)
_NARROW_AT = tuple(GPR[n] for n in _NARROW)
_TAIL_AT = tuple(GPR[n] for n in _TAIL)
_WIDE_OF, _NARROW_OF, _TAIL_OF = (itemgetter(*at) for at in (_WIDE_AT, _NARROW_AT, _TAIL_AT))
_GENERAL = struct.Struct("<17Q7I")
_CONTROL = struct.Struct("<8I")
_TAIL_PACK = struct.Struct("<3Q")
_FXSAVE_HEAD = struct.Struct("<HHBxHIHxxIHxx")  # fcw fsw ftw fop fioff fiseg fooff foseg

_ST = tuple(slice(32 + 16 * n, 42 + 16 * n) for n in range(8))
_XMM = slice(160, 416)
_MXCSR = slice(24, 28)
_XSTATE_BV = slice(512, 520)
_YMMH = slice(576, 832)
_ZMM = slice(1088, 2688)  # opmasks, ZMM_Hi256, Hi16_ZMM: one piece, see description._avx512
_PKRU = slice(2688, 2692)

_G_ST, _G_CONTROL, _G_XMM, _G_MXCSR, _G_TAIL, _G_YMMH = 164, 244, 276, 532, 536, 560
"""Offsets in the packet's bytes; what follows YMM depends on the features."""

_FCW_INIT = 0x37F
_MXCSR_INIT = (0x1F80).to_bytes(4, "little")
_EMPTY_TAG_WORD = 0xFFFF
_OPCODE_BITS = 0x7FF
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1

_CLEARED: Tuple[Tuple[int, slice, bytes], ...] = (
    (X87, slice(0, 24), _FCW_INIT.to_bytes(2, "little") + bytes(22)),
    (X87, slice(32, 160), bytes(128)),
    (SSE, _XMM, bytes(256)),
    *((1 << bit, slice(at, at + size), bytes(size)) for bit, (at, size) in
      sorted(XSTATE_COMPONENTS.items())),
)  # fmt: skip
"""(XSTATE_BV bit, where, what): the initial state of each component (SDM 13.6)."""


def full_tag_word(abridged: int, status: int, image: bytes) -> int:
    """The two-bits-a-register tag word for FXSAVE's one-bit form (as i387_supply_fxsave)."""
    if not abridged:
        return _EMPTY_TAG_WORD
    top = status >> 11 & 7
    word = 0
    for physical in range(8):
        if not abridged >> physical & 1:
            tag = 3
        else:
            tag = _tag(image[_ST[(physical - top) & 7]])
        word |= tag << 2 * physical
    return word


def _tag(value: bytes) -> int:
    """0 valid, 1 zero, 2 special: of one 80-bit number (SDM vol. 1, 8.1.7)."""
    exponent = int.from_bytes(value[8:10], "little") & 0x7FFF
    mantissa = int.from_bytes(value[:8], "little")
    if exponent == 0x7FFF:
        return 2
    if exponent == 0:
        return 1 if mantissa == 0 else 2
    return 0 if mantissa >> 63 else 2


def abridged_tag_word(full: int) -> int:
    """One bit a register, set unless its two bits say empty."""
    return sum(1 << n for n in range(8) if full >> 2 * n & 3 != 3)


def _initialised(xstate: bytes, wanted: int) -> bytes:
    """`xstate` with the initial values in place for the `wanted` components that are in them.

    What a cleared bit's area holds is undefined, so it must never be shown.
    """
    if len(xstate) != XSTATE_SIZE:
        xstate = xstate[:XSTATE_SIZE].ljust(XSTATE_SIZE, b"\0")
    bv = int.from_bytes(xstate[_XSTATE_BV], "little")
    missing = wanted & ~bv
    if not missing:
        return xstate
    out = bytearray(xstate)
    for bit, where, initial in _CLEARED:
        if missing & bit:
            out[where] = initial
    # XRSTOR takes MXCSR from memory whatever XSTATE_BV says; zero is no value that a
    # program ends up with (every exception unmasked), but what an empty image holds.
    if not bv & (SSE | AVX) and not any(out[_MXCSR]):
        out[_MXCSR] = _MXCSR_INIT
    return bytes(out)


def x87_control(xstate: bytes) -> Tuple[int, ...]:
    """fctrl fstat ftag fiseg fioff foseg fooff fop, as gdb shows them."""
    xs = _initialised(xstate, X87)
    fcw, fsw, ftw, fop, fioff, fiseg, fooff, foseg = _FXSAVE_HEAD.unpack_from(xs)
    tags = full_tag_word(ftw, fsw, xs)
    return fcw, fsw, tags, fiseg, fioff, foseg, fooff, fop & _OPCODE_BITS


class X86RegisterFormat(RegisterFormat):
    """The register packet for the components in `xfeatures` (XCR0 bits)."""

    def __init__(self, xfeatures: int) -> None:
        self.described = description.described(xfeatures)
        super().__init__(r.bits for r in description.registers(xfeatures))
        zmm = _G_YMMH + (256 if self.described & AVX else 0)
        pkru = zmm + (1600 if self.described & AVX512 else 0)
        self._zmm, self._pkru = zmm, pkru
        self._direct = dict(enumerate(_WIDE_AT + _NARROW_AT))
        self._direct.update({57 + n: i for n, i in enumerate(_TAIL_AT)})
        self._placed = self._places()

    def _places(self) -> Dict[int, Tuple[int, int]]:
        """Number -> (offset in xstate, XSTATE_BV bit) of what is there as gdb shows it."""
        pieces = [(_G_XMM, _XMM, SSE), (_G_MXCSR, _MXCSR, SSE)]
        pieces += [(_G_ST + 10 * n, where, X87) for n, where in enumerate(_ST)]
        if self.described & AVX:
            pieces.append((_G_YMMH, _YMMH, AVX))
        if self.described & AVX512:
            for n in (5, 6, 7):
                at, size = XSTATE_COMPONENTS[n]
                pieces.append((self._zmm + at - _ZMM.start, slice(at, at + size), 1 << n))
        if self.described & PKRU:
            pieces.append((self._pkru, _PKRU, PKRU))
        places = {}
        for number, (offset, _size) in enumerate(self.slots):
            for start, where, bit in pieces:
                if start <= offset < start + where.stop - where.start:
                    places[number] = (where.start + offset - start, bit)
        return places

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        gpr, described = registers.gpr, self.described
        xs = _initialised(registers.xstate, described)
        parts = [
            _GENERAL.pack(*_WIDE_OF(gpr), *[v & _U32 for v in _NARROW_OF(gpr)]),
            *[xs[where] for where in _ST],
            _CONTROL.pack(*x87_control(xs)),
            xs[_XMM],
            xs[_MXCSR],
            _TAIL_PACK.pack(*_TAIL_OF(gpr)),
        ]  # fmt: skip
        if described & AVX:
            parts.append(xs[_YMMH])
        if described & AVX512:
            parts.append(xs[_ZMM])
        if described & PKRU:
            parts.append(xs[_PKRU])
        return b"".join(parts)

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for the components that were not recorded."""
        text = binascii.hexlify(self.encode(registers))
        lacking = self.described & ~registers.xfeatures
        if not lacking:
            return text
        out = bytearray(text)
        for bit, start, end in (
            (X87, _G_ST, _G_XMM),
            (SSE, _G_XMM, _G_TAIL),
            (AVX, _G_YMMH, _G_YMMH + 256),
            (AVX512, self._zmm, self._pkru),
            (PKRU, self._pkru, self.size),
        ):
            if lacking & bit:
                out[2 * start : 2 * end] = b"x" * (2 * (end - start))
        return bytes(out)

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data` (the first `len(data)` bytes of a packet).

        A component whose registers changed leaves its initial state: its XSTATE_BV bit is set.
        ValueError when `data` is longer than the packet.
        """
        before = self.encode(old)
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes of registers, there are {self.size}")
        data += before[len(data) :]
        gpr = list(old.gpr)
        for index, value in zip(_WIDE_AT + _NARROW_AT, _GENERAL.unpack_from(data)):
            gpr[index] = value
        for index, value in zip(_TAIL_AT, _TAIL_PACK.unpack_from(data, _G_TAIL)):
            gpr[index] = value
        if data[_G_ST:_G_TAIL] == before[_G_ST:_G_TAIL] and data[_G_YMMH:] == before[_G_YMMH:]:
            return Registers(gpr, old.xstate, old.xfeatures, old.arch)
        xs = bytearray(_initialised(old.xstate, self.described))
        changed = 0
        if data[_G_ST:_G_XMM] != before[_G_ST:_G_XMM]:
            changed |= X87
            self._decode_x87(data, xs)
        pieces = [(SSE, _G_XMM, _XMM), (SSE, _G_MXCSR, _MXCSR)]
        if self.described & AVX:
            pieces.append((AVX, _G_YMMH, _YMMH))
        if self.described & AVX512:
            for n in (5, 6, 7):
                at, size = XSTATE_COMPONENTS[n]
                pieces.append((1 << n, self._zmm + at - _ZMM.start, slice(at, at + size)))
        if self.described & PKRU:
            pieces.append((PKRU, self._pkru, _PKRU))
        for bit, start, where in pieces:
            end = start + where.stop - where.start
            if data[start:end] != before[start:end]:
                changed |= bit
                xs[where] = data[start:end]
        bv = int.from_bytes(xs[_XSTATE_BV], "little") | changed
        xs[_XSTATE_BV] = bv.to_bytes(8, "little")
        return Registers(gpr, bytes(xs), old.xfeatures | changed, old.arch)

    @staticmethod
    def _decode_x87(data: bytes, xs: bytearray) -> None:
        for n, where in enumerate(_ST):
            xs[where] = data[_G_ST + 10 * n : _G_ST + 10 * n + 10]
        fcw, fsw, ftag, fiseg, fioff, foseg, fooff, fop = _CONTROL.unpack_from(data, _G_CONTROL)
        kept = xs[5], xs[14:16], xs[22:24]  # upper bits of the pointers, reserved bytes
        old_fop = int.from_bytes(xs[6:8], "little") & ~_OPCODE_BITS
        _FXSAVE_HEAD.pack_into(
            xs, 0, fcw & 0xFFFF, fsw & 0xFFFF, abridged_tag_word(ftag & 0xFFFF),
            old_fop | (fop & _OPCODE_BITS), fioff, fiseg & 0xFFFF, fooff, foseg & 0xFFFF,
        )  # fmt: skip
        xs[5], xs[14:16], xs[22:24] = kept

    def write(self, number: int, value: bytes, old: Registers) -> Registers:
        """`old` with register `number` set; ValueError for no such register or size."""
        _, size = self.slot(number, value)
        index = self._direct.get(number)
        if index is not None:
            gpr = list(old.gpr)
            gpr[index] = int.from_bytes(value, "little")
            return Registers(gpr, old.xstate, old.xfeatures, old.arch)
        place = self._placed.get(number)
        if place is not None:
            at, bit = place
            xs = bytearray(_initialised(old.xstate, bit))
            xs[at : at + size] = value
            bv = int.from_bytes(xs[_XSTATE_BV], "little") | bit
            xs[_XSTATE_BV] = bv.to_bytes(8, "little")
            return Registers(list(old.gpr), bytes(xs), old.xfeatures | bit, old.arch)
        return super().write(number, value, old)

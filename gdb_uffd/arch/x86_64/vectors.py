"""x86-64's extended registers: in the notes of cores, and in a process."""

from __future__ import annotations

import struct
from typing import List, Mapping, Optional, Tuple

from gdb_uffd.arch.interface import Cpu, Registers, Regsets
from gdb_uffd.arch.x86_64 import xstate
from gdb_uffd.arch.x86_64.xstate import (
    AVX,
    AVX512,
    EXTENDED,
    FXSAVE_SIZE,
    PKRU,
    SW_XCR0,
    XSTATE_COMPONENTS,
    XSTATE_SIZE,
)

NT_FPREGSET, NT_X86_XSTATE, NT_X86_XSAVE_LAYOUT = 2, 0x202, 0x205
NT_PRXFPREG = 0x46E62B7F  # i386's FXSAVE image
"""<linux/elf.h>"""

_COMPONENT = struct.Struct("<IIII")  # struct x86_xfeat_component (<asm/elf.h>)


class XsaveVectors:
    """See interface.Vectors."""

    size = XSTATE_SIZE
    note = NT_X86_XSTATE
    thread_notes = frozenset((NT_FPREGSET, NT_PRXFPREG, NT_X86_XSTATE))
    shared_notes = frozenset((NT_X86_XSAVE_LAYOUT,))

    def read(self, notes: Mapping[int, bytes], shared: Mapping[int, bytes]) -> Tuple[bytes, int]:
        """The XSAVE image, or the FXSAVE image where that is all."""
        image = notes.get(NT_X86_XSTATE, b"")
        if len(image) >= EXTENDED:
            told = shared.get(NT_X86_XSAVE_LAYOUT)
            return xstate.from_note(image, None if told is None else xstate.parse_format(told))
        for kind in (NT_PRXFPREG, NT_FPREGSET):
            if len(notes.get(kind, b"")) == FXSAVE_SIZE:
                return xstate.from_fpregs(notes[kind])
        return xstate.INITIAL, 0

    def write(self, registers: Registers) -> List[Tuple[int, bytes]]:
        """As the kernel writes them."""
        out = [(NT_FPREGSET, registers.xstate[:FXSAVE_SIZE])]
        if registers.xfeatures:
            out.append((NT_X86_XSTATE, xstate_note(registers)))
        return out

    def shared(self, xfeatures: int) -> List[Tuple[int, bytes]]:
        """Where the components are, as kernels since 6.12 tell."""
        note = _described(xfeatures)
        return [(NT_X86_XSAVE_LAYOUT, note)] if note else []

    def lost(self, _xfeatures: int) -> str:
        """Nothing."""
        return ""

    def offered(self, cpu: Cpu) -> Tuple[bool, str]:
        """By XCR0."""
        enabled = cpu.xcr0()
        names = [n for bit, n in ((2, "AVX"), (7, "AVX-512"), (9, "PKRU")) if enabled >> bit & 1]
        return bool(enabled), ", ".join(["SSE", *names])

    def loader(self, cpu: Cpu) -> "_Loader":
        """See interface.Vectors."""
        return _Loader(cpu)


class _Loader:
    """See interface.Loader: one image, of which each CPU has its own format."""

    def __init__(self, cpu: Cpu) -> None:
        self._format = xstate.machine_format(cpu)
        self._have = 3 | sum(1 << bit for bit in self._format)
        self._template: Optional[bytes] = None
        self._loaded: Optional[bytes] = None

    def start(self, vessel: Regsets) -> None:
        """Without XSAVE (or the regset) the extended state stays the machine's initial one."""
        self._template = vessel.regset(NT_X86_XSTATE, needed=False) or None
        self._loaded = None

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """See interface.Loader."""
        if self._template is None or registers.xstate == self._loaded:
            return
        image = xstate.to_machine(registers, self._format, self._template)
        vessel.set_regset(NT_X86_XSTATE, image)
        self._loaded = registers.xstate

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """See interface.Loader."""
        if self._template is None:
            return fallback
        image = vessel.regset(NT_X86_XSTATE)
        found = xstate.from_machine(image, self._format, xfeatures & self._have)
        # What this CPU lacks cannot have changed: it stays as recorded.
        self._loaded = xstate.with_components(found, fallback, xfeatures & ~self._have)
        return self._loaded

    def ran(self) -> None:
        """See interface.Loader."""
        self._loaded = None


def xstate_note(registers: Registers) -> bytes:
    """The XSAVE image, as long as readers expect for its components: gdb guesses the format
    from the length (gdb/i387-tdep.c, i387_guess_xsave_layout)."""
    features = registers.xfeatures
    image = bytearray(registers.xstate)
    struct.pack_into("<Q", image, SW_XCR0, features)
    if features & PKRU:
        return bytes(image)
    if features & AVX512:
        return bytes(image[: XSTATE_COMPONENTS[9][0]])
    return bytes(image[: sum(XSTATE_COMPONENTS[2]) if features & AVX else EXTENDED])


def _described(features: int) -> bytes:
    """NT_X86_XSAVE_LAYOUT: where the components are, as kernels since 6.12 tell."""
    return b"".join(
        _COMPONENT.pack(bit, size, offset, 0)
        for bit, (offset, size) in XSTATE_COMPONENTS.items()
        if features >> bit & 1
    )

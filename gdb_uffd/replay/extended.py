"""Extended registers of the vessel: the recorded ones into it, and what it has out of it."""

from __future__ import annotations

from typing import Dict, Optional, Protocol, Tuple

from gdb_uffd.arch import AARCH64, Architecture
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import XSTATE_COMPONENTS, Registers, UffdError
from gdb_uffd.trace.core import fpsimd
from gdb_uffd.trace.core.xstate import from_machine, to_machine, with_components

_NT_X86_XSTATE = 0x202


class Regsets(Protocol):
    """A Vessel, as far as it is needed here."""

    def regset(self, note: int) -> bytes:
        """UffdError where there is none."""

    def set_regset(self, note: int, data: bytes) -> None:
        """UffdError where it is not taken."""


class Extended(Protocol):
    """One vessel's; the pieces that this CPU lacks stay as recorded."""

    def start(self, vessel: Regsets) -> None:
        """The vessel is new."""

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """The thread's registers into the vessel.  UffdError."""

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """The vessel's, as `Registers.xstate`; what it cannot have changed is `fallback`'s."""

    def ran(self) -> None:
        """The vessel is about to run: it will have others."""


def machine_layout() -> Dict[int, Tuple[int, int]]:
    """XCR0 bit -> (offset, size) of this CPU's XSAVE components that a snapshot can hold."""
    offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    enabled = lib.cpu_xcr0()
    return {
        bit: (offset[0], size[0])
        for bit in XSTATE_COMPONENTS
        if enabled >> bit & 1 and lib.cpu_xsave_component(bit, offset, size) == 0
    }


def extended(arch: Architecture) -> Extended:
    """For a machine of that architecture."""
    return Vectors() if arch is AARCH64 else Xsave()


class Xsave:
    """x86-64: one image, of which each CPU has its own layout."""

    def __init__(self) -> None:
        self._layout = machine_layout()
        self._have = 3 | sum(1 << bit for bit in self._layout)
        self._template: Optional[bytes] = None
        self._loaded: Optional[bytes] = None

    def start(self, vessel: Regsets) -> None:
        """Without XSAVE (or the regset) the extended state stays the machine's initial one."""
        try:
            self._template = vessel.regset(_NT_X86_XSTATE) or None
        except UffdError:
            self._template = None
        self._loaded = None

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """See Extended."""
        if self._template is None or registers.xstate == self._loaded:
            return
        image = to_machine(registers, self._layout, self._template)
        vessel.set_regset(_NT_X86_XSTATE, image)
        self._loaded = registers.xstate

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """See Extended."""
        if self._template is None:
            return fallback
        image = vessel.regset(_NT_X86_XSTATE)
        found = from_machine(image, self._layout, xfeatures & self._have)
        # What this CPU lacks cannot have changed: it stays as recorded.
        self._loaded = with_components(found, fallback, xfeatures & ~self._have)
        return self._loaded

    def ran(self) -> None:
        """See Extended."""
        self._loaded = None


class Vectors:
    """AArch64: v0-v31, and the keys of pointer authentication where the kernel hands them out."""

    def __init__(self) -> None:
        self._loaded: Optional[bytes] = None

    def start(self, vessel: Regsets) -> None:
        """See Extended."""
        self._loaded = None

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """A key that this machine does not have cannot be set, nor can it matter: its
        instructions do nothing then."""
        if registers.xstate == self._loaded:
            return
        for bit in fpsimd.LOADED:
            if not registers.xfeatures & bit:
                continue
            try:
                vessel.set_regset(fpsimd.PARTS[bit][0], fpsimd.part(registers.xstate, bit))
            except UffdError:
                if bit == fpsimd.FPSIMD:
                    raise
        self._loaded = registers.xstate

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """See Extended."""
        note, offset, length = fpsimd.PARTS[fpsimd.FPSIMD]
        now = vessel.regset(note)[:length]
        found = bytearray(fallback.ljust(fpsimd.SIZE, b"\0"))
        found[offset : offset + len(now)] = now
        self._loaded = bytes(found)
        return self._loaded

    def ran(self) -> None:
        """See Extended."""
        self._loaded = None

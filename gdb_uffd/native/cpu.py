"""The CPU that we run on: arch.interface.Cpu."""

from __future__ import annotations

from typing import Optional, Tuple

from gdb_uffd.native import ffi, lib


class HostCpu:
    """By its own word."""

    def xcr0(self) -> int:
        """0 without XSAVE."""
        return int(lib.arch_xcr0())

    def xsave_component(self, number: int) -> Optional[Tuple[int, int]]:
        """See interface.Cpu."""
        offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        found = lib.arch_xsave_component(number, offset, size) == 0
        return (offset[0], size[0]) if found else None

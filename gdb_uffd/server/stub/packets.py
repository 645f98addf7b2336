"""The register packet and the target description of whatever processor a snapshot is of."""

from __future__ import annotations

import functools

from gdb_uffd.arch import Architecture, Registers
from gdb_uffd.arch.interface import RegisterFormat


@functools.lru_cache(maxsize=8)
def format_of(arch: Architecture, xfeatures: int) -> RegisterFormat:
    """For registers of `arch` with these components recorded."""
    return arch.packet(xfeatures)


def description(registers: Registers) -> bytes:
    """The target description, `target.xml`."""
    return _description(registers.arch, registers.xfeatures)


@functools.lru_cache(maxsize=8)
def _description(arch: Architecture, xfeatures: int) -> bytes:
    return arch.description(xfeatures)

"""Programs built with -fsanitize whose shadow memory is not in the core.

It is marked MADV_DONTDUMP.  The kernel's cores tell of it without its bytes, which is good enough
(a shadow of zeros means memory that may be accessed); gdb's gcore leaves such mappings out.
"""

from __future__ import annotations

import os
from typing import Dict, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import Mapping
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.files.files import Module

_SHADOWS: Dict[str, Tuple[str, int, int]] = {
    # compiler-rt/lib: asan_mapping.h (the low shadow), tsan_platform.h, msan.h; x86-64
    "asan": ("AddressSanitizer", 0x7FFF8000, 0x7FFF9000),
    "tsan": ("ThreadSanitizer", 0x1000_0000_0000, 0x3400_0000_0000),
    "msan": ("MemorySanitizer", 0x0100_0000_0000, 0x6000_0000_0000),
}


def left_out(
    modules: Sequence[Module], main: Optional[Module], mappings: Sequence[Mapping]
) -> Optional[Tuple[str, str]]:
    """What gcore left out of the core, and the remedy; None where all is there."""
    for short, (name, start, end) in _SHADOWS.items():
        if not _uses(short, modules, main):
            continue
        if not any(m.start < end and start < m.end for m in mappings):
            return (
                f"gcore left out {name}'s shadow memory (MADV_DONTDUMP), without which no function "
                "built with it can run",
                "`set dump-excluded-mappings on` before gcore keeps it, and the kernel's own cores "
                "have it",
            )
    return None


def _uses(short: str, modules: Sequence[Module], main: Optional[Module]) -> bool:
    if any(os.path.basename(m.path).startswith(f"lib{short}.") for m in modules):
        return True
    if main is None or main.image is None:
        return False
    try:
        return main.image.dynamic_symbol(f"__{short}_init".encode()) is not None
    except ElfError:
        return False

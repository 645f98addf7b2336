"""What the native side cannot find by itself to follow a program's frames."""

from __future__ import annotations

from typing import Tuple

from gdb_uffd.trace.core.elf import PT_GNU_EH_FRAME
from gdb_uffd.trace.files.debug_files import sections
from gdb_uffd.trace.source import Snapshot


def eh_frame(snapshot: Snapshot) -> Tuple[int, int, int, int]:
    """Where the executable's .eh_frame lies, if nothing in memory leads to it: gcc links static
    programs without a header for it (gcc/config/gnu-user.h, LINK_EH_SPEC).  (low, high, address,
    length): of the executable, half-open, and of the section; zeros where that is not needed."""
    main = snapshot.main
    if main is None or main.image is None or main.image.segment(PT_GNU_EH_FRAME) is not None:
        return 0, 0, 0, 0
    header = sections(main.image).get(b".eh_frame")
    if header is None or not main.ranges:
        return 0, 0, 0, 0
    low = min(part.start for part in main.ranges)
    high = max(part.end for part in main.ranges)
    return low, high, header[3] + main.bias & (1 << 64) - 1, header[5]

"""Whether code of a recorded process can run on this machine's processor."""

from __future__ import annotations

import mmap
import os

from gdb_uffd.arch import LOOKED_AT, host
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.trace.source import Snapshot


def check(snapshot: Snapshot) -> None:
    """UffdError when nothing of it can."""
    arch = snapshot.arch
    if arch in LOOKED_AT:
        raise UffdError(
            f"{snapshot.path}: of a 32-bit program ({arch.spoken}): it can be looked "
            "at; functions are called, and code is run, in 64-bit programs only"
        )
    if arch is not host():
        raise UffdError(
            f"{snapshot.path}: recorded on {arch.spoken}; its code cannot run on "
            f"this machine ({os.uname().machine}). What was recorded can be looked at; to "
            f"call functions, open it on {arch.spoken}"
        )
    if mmap.PAGESIZE != PAGE_SIZE:
        raise UffdError(
            f"this machine's kernel has pages of {mmap.PAGESIZE} bytes; nothing can run here, "
            f"since that is written for pages of {PAGE_SIZE}. Boot a kernel with such pages"
        )

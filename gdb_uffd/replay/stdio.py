"""What the program printed but still holds in glibc's stdout buffer.

A program whose stdout was no terminal buffers it fully: printf writes into memory, and the text
would be forgotten with the call.  glibc's `struct _IO_FILE` (libio/bits/types/struct_FILE.h)
has had `_IO_write_base` and `_IO_write_ptr` at these offsets for as long as the
`GLIBC_2.2.5` version of `_IO_2_1_stdout_` exists.
"""

from __future__ import annotations

import struct
from typing import Optional, Tuple

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.source import ReadMemory

WRITE_BASE_OFFSET = 32
"""Bytes from the start of struct _IO_FILE to _IO_write_base; _IO_write_ptr follows."""

PENDING_MAX = 1 << 20
"""Bytes of one stream's buffer that are looked at; a larger one is not believed."""


def pending(read: ReadMemory, stdout: Optional[int]) -> bytes:
    """The unwritten text of the stream at `stdout`; b"" when there is none or it makes no sense."""
    if stdout is None:
        return b""
    try:
        base, at = struct.unpack("<QQ", read(stdout + WRITE_BASE_OFFSET, 16))
        if not base < at <= base + PENDING_MAX:
            return b""
        return read(base, at - base)
    except MemoryUnavailable:
        return b""


def printed(before: bytes, written: bytes, after: bytes) -> Tuple[bytes, int]:
    """What a call printed, and how many bytes at its end are still unwritten.

    `before` and `after`: what was pending in stdout's buffer; `written`: what reached the
    descriptors meanwhile, stderr's text too.  What was pending before is not the call's.
    """
    if after.startswith(before):  # not flushed
        return written + after[len(before) :], len(after) - len(before)
    return written.replace(before, b"", 1) + after, len(after)

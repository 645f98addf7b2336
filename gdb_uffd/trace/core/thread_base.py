"""The FS base of threads that were recorded without it.

Linux 5.9 to 5.15 writes 0 for every thread but the one that crashed, on CPUs where loading a null
selector clears the base: the others have begun to exit when the core is written, and
deactivate_mm() has loaded FS with 0.  (Repaired by Linux's commit 92307383082d, "coredump: Don't
perform any cleanups before dumping core".)  valgrind writes 0 for all.  Without it nobody finds a
thread-local.

glibc's thread control block, to which FS points, begins with its own address twice (tcbhead_t in
sysdeps/x86_64/nptl/tls.h: `tcb` at 0, `self` at 16), and `struct pthread` has the TID further on.
"""

from __future__ import annotations

import struct
from typing import Iterator, Sequence

from gdb_uffd.protocol.model import PROT_WRITE, Mapping, MemoryUnavailable, ThreadState
from gdb_uffd.trace.source import ReadMemory

ALIGNMENT = 64  # TCB_ALIGNMENT in glibc's tls.h
_HEAD = struct.Struct("<QQQ")
_CHUNK = 1 << 20
_SEARCH_MAX = 1 << 26
"""Bytes that are looked through for all threads; a stack has its block right above the frames."""


def restore(
    threads: Sequence[ThreadState],
    mappings: Sequence[Mapping],
    read: ReadMemory,
    thread_locals: bool = False,
) -> None:
    """Give each thread whose FS base is 0 the address of its control block, where that is found.

    Nothing is searched where the first thread, the one that crashed, has none either, and no object
    has `thread_locals`: the program is one without.
    """
    if not threads or not (threads[0].registers.thread_pointer or thread_locals):
        return
    arch = threads[0].registers.arch
    if not arch.tid_offsets:
        return
    search = _Search(mappings, read, arch.tid_offsets)
    for thread in threads:
        if not thread.registers.thread_pointer:
            thread.registers.gpr[arch.thread_pointer] = search.find(thread)


class _Search:
    """Looks through memory, `left` bytes of it at most."""

    def __init__(
        self, mappings: Sequence[Mapping], read: ReadMemory, tid_offsets: Sequence[int]
    ) -> None:
        self.mappings, self.read, self.left = mappings, read, _SEARCH_MAX
        self.tid_offsets = tid_offsets

    def find(self, thread: ThreadState) -> int:
        """The address of the thread's control block; 0 when it is not found."""
        sp = thread.registers.sp
        for mapping in self.mappings:
            # Above the frames of its own stack there is its block and no other.
            if mapping.start <= sp < mapping.end:
                for address in self._blocks(sp, mapping.end):
                    return address
        for mapping in self.mappings:
            # The first thread's block is in memory of the dynamic linker's, or the heap of a static
            # program; there it is known by its TID.
            if not mapping.prot & PROT_WRITE or mapping.name.startswith("/"):
                continue
            for address in self._blocks(mapping.start, mapping.end):
                if self._has_tid(address, thread.tid):
                    return address
        return 0

    def _blocks(self, start: int, end: int) -> Iterator[int]:
        """Addresses in [start, end) at which a control block can be."""
        start = -(-start // ALIGNMENT) * ALIGNMENT
        for at in range(start, min(end, start + self.left), _CHUNK):
            length = min(_CHUNK, end - at)
            self.left -= length
            data = _readable(at, length, self.read)
            for offset in range(0, len(data) - _HEAD.size + 1, ALIGNMENT):
                tcb, _, own = _HEAD.unpack_from(data, offset)
                if tcb == own == at + offset:
                    yield tcb

    def _has_tid(self, address: int, tid: int) -> bool:
        for offset in self.tid_offsets:
            try:
                if int.from_bytes(self.read(address + offset, 4), "little") == tid:
                    return True
            except MemoryUnavailable:
                continue
        return False


def _readable(start: int, length: int, read: ReadMemory) -> bytes:
    try:
        return read(start, length)
    except MemoryUnavailable:
        return b""

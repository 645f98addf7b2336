"""The FS base of threads that were recorded without it.

Linux 5.9 to 5.15 writes 0 for every thread but the one that crashed, on CPUs where loading a null
selector clears the base: the others have begun to exit when the core is written, and
deactivate_mm() has loaded FS with 0.  (Repaired by Linux's commit 92307383082d, "coredump: Don't
perform any cleanups before dumping core".)  Without it nobody finds a thread-local.

glibc's thread control block, to which FS points, begins with its own address twice (tcbhead_t in
sysdeps/x86_64/nptl/tls.h: `tcb` at 0, `self` at 16), and `struct pthread` has the TID further on.
"""

from __future__ import annotations

import struct
from typing import Iterator, List, Sequence, Tuple

from gdb_uffd.arch import X86_64
from gdb_uffd.model import PROT_WRITE, Mapping, MemoryUnavailable, ThreadState
from gdb_uffd.trace.source import ReadMemory

ALIGNMENT = 64  # TCB_ALIGNMENT in glibc's tls.h
TID_OFFSETS = (720,)  # of `tid` in struct pthread, glibc 2.4 to 2.41 on x86-64 (nptl/descr.h)
_HEAD = struct.Struct("<QQQ")
_CHUNK = 1 << 20
_SEARCH_MAX = 1 << 26
"""Bytes that are looked through for one thread; a stack has its block right above the frames."""


def restore(threads: Sequence[ThreadState], mappings: Sequence[Mapping], read: ReadMemory) -> None:
    """Give each thread whose FS base is 0 the address of its control block, where that is found."""
    for thread in threads:
        if thread.registers.thread_pointer or thread.registers.arch is not X86_64:
            continue
        found = _find(thread, mappings, read)
        if found:
            thread.registers.gpr[thread.registers.arch.thread_pointer] = found


def _find(thread: ThreadState, mappings: Sequence[Mapping], read: ReadMemory) -> int:
    sp = thread.registers.sp
    for mapping in mappings:
        # Above the frames of its own stack there is its block and no other.
        if mapping.start <= sp < mapping.end:
            for address in _blocks(sp, mapping.end, read):
                return address
    left = _SEARCH_MAX
    for mapping in mappings:
        # The first thread's block is in memory of the dynamic linker's, or the heap of a static
        # program; there it is known by its TID.
        if not mapping.prot & PROT_WRITE or mapping.name.startswith("/") or left <= 0:
            continue
        end = min(mapping.end, mapping.start + left)
        left -= end - mapping.start
        for address in _blocks(mapping.start, end, read):
            if _has_tid(address, thread.tid, read):
                return address
    return 0


def _blocks(start: int, end: int, read: ReadMemory) -> Iterator[int]:
    """Addresses in [start, end) at which a control block can be."""
    start = -(-start // ALIGNMENT) * ALIGNMENT
    for at in range(start, end, _CHUNK):
        for first, data in _readable(at, min(at + _CHUNK, end), read):
            for offset in range(0, len(data) - _HEAD.size + 1, ALIGNMENT):
                tcb, _, own = _HEAD.unpack_from(data, offset)
                if tcb == own == first + offset:
                    yield tcb


def _readable(start: int, end: int, read: ReadMemory) -> List[Tuple[int, bytes]]:
    try:
        return [(start, read(start, end - start))]
    except MemoryUnavailable:
        return []


def _has_tid(address: int, tid: int, read: ReadMemory) -> bool:
    for offset in TID_OFFSETS:
        try:
            if int.from_bytes(read(address + offset, 4), "little") == tid:
                return True
        except MemoryUnavailable:
            continue
    return False

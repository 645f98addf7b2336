"""The notes of a core that we write: threads, registers, auxiliary vector, mapped files.

The order is the kernel's (fs/binfmt_elf.c, write_note_info), which every reader knows; a signal
that a thread other than the first had is told as gdb's gcore tells it.
Structures: <sys/procfs.h>, core(5).
"""

from __future__ import annotations

import os
import struct
from typing import List, Sequence

from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, ThreadState
from gdb_uffd.trace.core import notes as read

_PRSTATUS = struct.Struct("<iiihHQQiiii64x")
_PRPSINFO = struct.Struct("<4b4xQIIiiii16s80s")


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    """One note, 4-byte aligned (gABI, "Note Section")."""
    name = owner + b"\0"
    head = struct.pack("<III", len(name), len(description), kind)
    return head + name + bytes(-len(name) % 4) + description + bytes(-len(description) % 4)


def make_notes(
    pid: int,
    threads: Sequence[ThreadState],
    auxv: bytes,
    mappings: Sequence[Mapping],
    name: str = "",
    files_read: Sequence[str] = (),
) -> bytes:
    """All notes of a core, the first thread's first."""
    out: List[bytes] = []
    for index, thread in enumerate(threads):
        out.append(_prstatus(pid, thread, threads[0].signal))
        if index == 0:
            out.append(_prpsinfo(pid, name or thread.name))
        if thread.siginfo:
            out.append(note(b"CORE", read.NT_SIGINFO, thread.siginfo))
        if index == 0:
            out.append(note(b"CORE", read.NT_AUXV, auxv))
            out.append(note(b"CORE", read.NT_FILE, _files(mappings)))
        arch = thread.registers.arch
        for kind, vectors in arch.vectors.write(thread.registers):
            out.append(note(b"CORE" if kind == read.NT_FPREGSET else b"LINUX", kind, vectors))
        if arch.thread_pointer_note:
            pointer = thread.registers.thread_pointer.to_bytes(8, "little")
            out.append(note(b"LINUX", arch.thread_pointer_note, pointer))
    first = threads[0].registers
    for kind, told in first.arch.vectors.shared(first.xfeatures):
        out.append(note(b"LINUX", kind, told))
    if files_read:
        names = b"".join(os.fsencode(path) + b"\0" for path in files_read)
        out.append(note(read.OWN, read.NT_FILES_READ, names))
    return b"".join(out)


def _prstatus(pid: int, thread: ThreadState, first_signal: int) -> bytes:
    # The kernel writes the fatal signal into all of them, and BFD takes it from the last.
    signal = thread.signal or first_signal
    description = _PRSTATUS.pack(
        signal, 0, 0, signal, 0, 0, thread.sigmask, thread.tid, 0, pid, pid
    )
    dumped = thread.registers.gpr[: thread.registers.arch.dumped]
    description += struct.pack(f"<{len(dumped)}QiI", *dumped, 1, 0)
    return note(b"CORE", read.NT_PRSTATUS, description)


def _prpsinfo(pid: int, name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    command = raw.rpartition(b"/")[2][:15]
    description = _PRPSINFO.pack(0, ord("R"), 0, 0, 0, 0, 0, pid, 0, pid, pid, command, raw[:79])
    return note(b"CORE", read.NT_PRPSINFO, description)


def _files(mappings: Sequence[Mapping]) -> bytes:
    """NT_FILE: count, page size, count times (start, end, offset in pages), count strings."""
    named = [m for m in mappings if m.name.startswith("/")]
    table = b"".join(struct.pack("<QQQ", m.start, m.end, m.offset // PAGE_SIZE) for m in named)
    names = b"".join(os.fsencode(m.name) + b"\0" for m in named)
    return struct.pack("<QQ", len(named), PAGE_SIZE) + table + names

"""The notes of a core that we write: threads, registers, auxiliary vector, mapped files.

The order is the kernel's (fs/binfmt_elf.c, write_note_info), which every reader knows; a signal
that a thread other than the first had is told as gdb's gcore tells it.
Structures: <sys/procfs.h>, core(5).
"""

from __future__ import annotations

import os
import struct
from typing import List, Sequence

from gdb_uffd.arch import AARCH64, X86_64
from gdb_uffd.protocol.model import PAGE_SIZE, XSTATE_COMPONENTS, Mapping, ThreadState
from gdb_uffd.trace.core import fpsimd
from gdb_uffd.trace.core import notes as read
from gdb_uffd.trace.core.xstate import AVX, AVX512, EXTENDED, FXSAVE_SIZE, PKRU, SW_XCR0

_PRSTATUS = struct.Struct("<iiihHQQiiii64x")
_PRPSINFO = struct.Struct("<4b4xQIIiiii16s80s")
_COMPONENT = struct.Struct("<IIII")  # struct x86_xfeat_component (<asm/elf.h>)
_BITS = {bit: 1 << bit for bit in XSTATE_COMPONENTS}


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
        out += _vectors(thread) if thread.registers.arch is AARCH64 else _extended(thread)
    first = threads[0].registers
    layout = _layout(first.xfeatures) if first.arch is X86_64 else b""
    if layout:
        out.append(note(b"LINUX", read.NT_X86_XSAVE_LAYOUT, layout))
    if files_read:
        names = b"".join(os.fsencode(path) + b"\0" for path in files_read)
        out.append(note(read.OWN, read.NT_FILES_READ, names))
    return b"".join(out)


def _extended(thread: ThreadState) -> List[bytes]:
    """x86-64."""
    out = [note(b"CORE", read.NT_FPREGSET, thread.registers.xstate[:FXSAVE_SIZE])]
    if thread.registers.xfeatures:
        out.append(note(b"LINUX", read.NT_X86_XSTATE, xstate_note(thread)))
    return out


def _vectors(thread: ThreadState) -> List[bytes]:
    """AArch64."""
    registers, out = thread.registers, []
    for bit, (kind, _, _) in fpsimd.PARTS.items():
        if registers.xfeatures & bit:
            owner = b"CORE" if bit == fpsimd.FPSIMD else b"LINUX"
            out.append(note(owner, kind, fpsimd.part(registers.xstate, bit)))
    pointer = registers.thread_pointer.to_bytes(8, "little")
    return [*out, note(b"LINUX", fpsimd.NT_ARM_TLS, pointer)]


def xstate_note(thread: ThreadState) -> bytes:
    """The XSAVE image, as long as readers expect for its components: gdb guesses the layout
    from the length (gdb/i387-tdep.c, i387_guess_xsave_layout)."""
    features = thread.registers.xfeatures
    image = bytearray(thread.registers.xstate)
    struct.pack_into("<Q", image, SW_XCR0, features)
    if features & PKRU:
        return bytes(image)
    if features & AVX512:
        return bytes(image[: XSTATE_COMPONENTS[9][0]])
    return bytes(image[: sum(XSTATE_COMPONENTS[2]) if features & AVX else EXTENDED])


def _layout(features: int) -> bytes:
    """NT_X86_XSAVE_LAYOUT: where the components are, as kernels since 6.12 tell."""
    return b"".join(
        _COMPONENT.pack(bit, size, offset, 0)
        for bit, (offset, size) in XSTATE_COMPONENTS.items()
        if features & _BITS[bit]
    )


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

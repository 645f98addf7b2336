"""The notes of a core: threads, registers, auxiliary vector, mapped files.

Two dialects.  The kernel (fs/binfmt_elf.c) puts the process notes after the first NT_PRSTATUS
and the layout note last; gdb's gcore (gdb/linux-tdep.c) writes a NT_SIGINFO for each thread.
In both every NT_PRSTATUS starts a thread and what follows belongs to it.
Structures: <sys/procfs.h> (elf_prstatus, elf_prpsinfo), core(5).
"""

from __future__ import annotations

import os
import struct
from dataclasses import field
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from gdb_uffd.arch import RECORDED, Architecture
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, Registers, ThreadState
from gdb_uffd.trace.core.elf import Buffer, ProgramHeader, iter_notes

NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV = 1, 2, 3, 6
OWN, NT_FILES_READ = b"GDB_UFFD", 0x44414552
"""Of cores that we write: paths of files whose bytes calls brought into the memory, a NUL behind
each.  Readers of cores go by the type alone (bfd/elf.c, elfcore_grok_note): no other has it."""
NT_SIGINFO, NT_FILE = 0x53494749, 0x46494C45

MAX_NOTES_BYTES = 256 << 20
"""Bytes of notes that are read: room for 65,536 threads with AVX-512 state (3.5 kB each)."""
MAX_THREADS = 1 << 18
MAX_FILES_READ = 32 << 20  # bytes of their paths
MAX_VECTORS = 1 << 16  # bytes of a note of vectors that are looked at
MAX_SHARED = 4096  # ... and of one that tells of all of them
MAX_AUXV = 4096  # bytes; the kernel's vector has about 22 entries of 16
USER_END = RECORDED.user_end
"""Of what can be recorded in a trace."""
SIGINFO_SIZE = 128

PRPSINFO_SIZE, PRPSINFO_NARROW = 136, 124
_CURSIG = 12
_WIDE = (24, 32, 48)  # offsets in elf_prstatus: pr_sighold, pr_pid, pr_utime (struct timeval)
_NARROW = (20, 24, 40)  # ... where a word has 4 bytes
_GCORE_UNIT = (1).to_bytes(8, "little")  # its page size in NT_FILE (gdb/linux-tdep.c)
_PSINFO_IDS, _PSINFO_FNAME = 16, 40  # offsets in elf_prpsinfo: uid gid pid ppid pgrp sid; fname


@dataclass(frozen=True)
class FileRange:
    """`[start, end)` maps the file `path` from byte `offset` on."""

    start: int
    end: int
    offset: int
    path: str


@dataclass
class Notes:
    """What the notes told.  `files` is None when there is no usable NT_FILE."""

    threads: List[ThreadState] = field(default_factory=list)
    pid: int = 0
    name: str = ""
    ppid: int = 0
    pgrp: int = 0
    sid: int = 0
    uid: int = -1
    gid: int = -1
    files_read: List[str] = field(default_factory=list)  # by calls that were kept, before it
    cpu_ns: int = 0  # user and system time of all threads
    auxv: bytes = b""
    files: Optional[List[FileRange]] = None
    gcore: bool = False  # gdb's gcore wrote them
    problems: List[str] = field(default_factory=list)
    arch: Architecture = RECORDED

    def auxv_value(self, kind: int) -> Optional[int]:
        """The value of the first entry of that type (getauxval(3)), or None."""
        for key, value in struct.iter_unpack("<QQ", self.auxv):
            if key == kind:
                return int(value)
            if key == 0:
                break
        return None


@dataclass
class _Thread:
    tid: int
    signal: int
    sigmask: int
    gpr: List[int]
    siginfo: bytes = b""
    vectors: Dict[int, Tuple[int, int]] = field(default_factory=dict)
    """By a note's type, where its description lies, and its length."""


def read_notes(
    data: Buffer, segments: Sequence[ProgramHeader], arch: Architecture = RECORDED
) -> Notes:
    """The notes of all PT_NOTE `segments` of the core `data`, made on `arch`.

    Nothing raises: what is damaged is left out and named in `Notes.problems`.
    """
    notes = Notes(arch=arch)
    raw: List[_Thread] = []
    shared: Dict[int, bytes] = {}
    vectors = arch.vectors.thread_notes | {arch.thread_pointer_note}
    tids: Set[int] = set()
    budget = MAX_NOTES_BYTES
    skipping = False  # inside a thread that was refused: its notes are nobody's
    for segment in segments:
        end = segment.offset + segment.filesz
        if end > len(data):
            notes.problems.append("truncated core: its notes are not whole; threads may be missing")
        if end - segment.offset > budget:
            notes.problems.append(f"notes beyond {MAX_NOTES_BYTES >> 20} MiB are not read")
            end = segment.offset + budget
        budget -= max(0, end - segment.offset)
        for owner, kind, at, length in iter_notes(data, segment.offset, end):
            if owner == OWN and kind == NT_FILES_READ and length <= MAX_FILES_READ:
                names = bytes(data[at : at + length]).split(b"\0")[:-1]
                notes.files_read = [os.fsdecode(name) for name in names]
            if owner not in (b"CORE", b"LINUX"):
                continue
            if kind == NT_PRSTATUS:
                thread = _prstatus(data[at : at + min(length, arch.prstatus_bytes)], arch)
                skipping = thread is None or thread.tid in tids or len(raw) >= MAX_THREADS
                if thread is None or skipping:
                    notes.problems.append(f"NT_PRSTATUS at {at:#x} is damaged or a duplicate")
                    continue
                raw.append(thread)
                tids.add(thread.tid)
                notes.cpu_ns += _cpu_ns(data[at : at + arch.prstatus_bytes], arch)
            elif kind in vectors:
                if raw and not skipping:
                    raw[-1].vectors[kind] = (at, min(length, MAX_VECTORS))
            elif kind == NT_SIGINFO and raw and not skipping and length <= 4096:
                raw[-1].siginfo = bytes(data[at : at + min(length, SIGINFO_SIZE)])
            elif kind in arch.vectors.shared_notes:
                shared[kind] = bytes(data[at : at + min(length, MAX_SHARED)])
            elif kind == NT_PRPSINFO and length >= _prpsinfo_bytes(arch):
                _psinfo(data[at : at + _prpsinfo_bytes(arch)], notes)
            elif kind == NT_AUXV and length <= MAX_AUXV:
                notes.auxv = wide_auxv(bytes(data[at : at + length]), arch)
            elif kind == NT_FILE:
                notes.files = _parse_files(data[at : at + length], notes.problems, arch)
                notes.gcore = _GCORE_UNIT.startswith(data[at + arch.word : at + 2 * arch.word])
    if raw and not notes.pid:
        notes.pid = raw[0].tid
    images: Dict[bytes, bytes] = {}
    features = 0
    for index, thread in enumerate(raw):
        notes.threads.append(_finish(thread, index == 0, data, shared, notes))
        registers = notes.threads[-1].registers
        features |= registers.xfeatures
        # Of thousands of threads most wait in the same place: keep equal images once.
        registers.xstate = images.setdefault(registers.xstate, registers.xstate)
    lost = arch.vectors.lost(features)
    notes.problems = [*notes.problems, *([lost] if lost else [])][:20]
    return notes


def _prstatus(raw: bytes, arch: Architecture) -> Optional[_Thread]:
    if len(raw) != arch.prstatus_bytes:
        return None
    sighold, pid, _ = _WIDE if arch.word == 8 else _NARROW
    tid = int.from_bytes(raw[pid : pid + 4], "little")
    if not 0 < tid < 1 << 31:
        return None
    signal = int.from_bytes(raw[_CURSIG : _CURSIG + 2], "little")
    sigmask = int.from_bytes(raw[sighold : sighold + arch.word], "little")
    kind = "Q" if arch.register_bytes == 8 else "I"
    gpr = list(struct.unpack_from(f"<{arch.dumped}{kind}", raw, arch.prstatus_registers))
    gpr += [0] * (len(arch.names) - arch.dumped)
    return _Thread(tid, signal if signal <= 64 else 0, sigmask, gpr)


def wide_auxv(raw: bytes, arch: Architecture) -> bytes:
    """An auxiliary vector in words of 8 bytes, whatever it was recorded in."""
    if arch.word == 8:
        return raw[: len(raw) & ~15]
    pairs = struct.iter_unpack("<II", raw[: len(raw) & ~7])
    return b"".join(struct.pack("<QQ", *pair) for pair in pairs)


def own_auxv(auxv: bytes, arch: Architecture) -> bytes:
    """The same in the words of the program, as its debugger expects it."""
    if arch.word == 8:
        return auxv
    pairs = struct.iter_unpack("<QQ", auxv)
    return b"".join(
        struct.pack("<II", key & 0xFFFFFFFF, value & 0xFFFFFFFF) for key, value in pairs
    )


def _prpsinfo_bytes(arch: Architecture) -> int:
    return PRPSINFO_SIZE if arch.word == 8 else PRPSINFO_NARROW


def _psinfo(info: bytes, notes: Notes) -> None:
    wide = notes.arch.word == 8
    form, at = ("<2I4i", _PSINFO_IDS) if wide else ("<2H4i", _PSINFO_IDS - 8)
    fname = _PSINFO_FNAME if wide else _PSINFO_FNAME - 12
    notes.uid, notes.gid, notes.pid, notes.ppid, notes.pgrp, notes.sid = struct.unpack_from(
        form, info, at
    )
    name = info[fname : fname + 16].split(b"\0")[0]
    notes.name = name.decode("utf-8", "backslashreplace")


def _cpu_ns(raw: bytes, arch: Architecture) -> int:
    wide = arch.word == 8
    form, (_, _, at) = "<4q" if wide else "<4i", _WIDE if wide else _NARROW
    user_s, user_us, system_s, system_us = struct.unpack_from(form, raw, at)
    spent = (user_s + system_s) * 1_000_000_000 + (user_us + system_us) * 1000
    return spent if 0 <= spent < 1 << 62 else 0


def _finish(
    thread: _Thread, first: bool, data: Buffer, shared: Mapping[int, bytes], notes: Notes
) -> ThreadState:
    arch = notes.arch
    found = {k: bytes(data[at : at + length]) for k, (at, length) in thread.vectors.items()}
    image, features = arch.vectors.read(found, shared)
    if arch.thread_pointer_note:
        pointer = found.get(arch.thread_pointer_note, b"")[:8]
        thread.gpr[arch.thread_pointer] = int.from_bytes(pointer, "little")
    # The kernel writes the fatal signal into every thread's pr_cursig; only the one it was
    # delivered to has a siginfo (fs/binfmt_elf.c, fill_thread_core_info).
    signal = thread.signal if first or thread.siginfo else 0
    return ThreadState(
        tid=thread.tid,
        registers=Registers(thread.gpr, image, features, notes.arch),
        signal=signal,
        siginfo=thread.siginfo if len(thread.siginfo) == SIGINFO_SIZE else b"",
        sigmask=thread.sigmask,
        name=notes.name if thread.tid == notes.pid else "",
    )


def _parse_files(raw: bytes, problems: List[str], arch: Architecture) -> Optional[List[FileRange]]:
    """NT_FILE: count, page size, count times (start, end, offset in pages), count strings
    (fs/binfmt_elf.c, fill_files_note; gdb writes page size 1 and offsets in bytes)."""
    word = arch.word
    if len(raw) < 2 * word:
        problems.append("NT_FILE is damaged; memory that is not in the core is unavailable")
        return None
    kind = "Q" if word == 8 else "I"
    count, unit = struct.unpack_from(f"<2{kind}", raw)
    table_end = (2 + count * 3) * word
    if table_end + count > len(raw) or not 0 < unit <= 1 << 30:
        problems.append("NT_FILE is damaged; memory that is not in the core is unavailable")
        return None
    names = bytes(raw[table_end:]).split(b"\0")
    if len(names) <= count:
        problems.append("NT_FILE is damaged; memory that is not in the core is unavailable")
        return None
    ranges: List[FileRange] = []
    dropped = 0
    paths: Dict[bytes, str] = {}
    for (start, end, pages), name in zip(
        struct.iter_unpack(f"<3{kind}", raw[2 * word : table_end]), names[:count]
    ):
        offset = pages * unit
        aligned = not (start | end | offset) & (PAGE_SIZE - 1)
        if not (aligned and 0 < start < end <= arch.user_end and offset + end - start < 1 << 63):
            dropped += 1
            continue
        path = paths.setdefault(name, os.fsdecode(name))
        ranges.append(FileRange(start, end, offset, path))
    if dropped:
        problems.append(f"NT_FILE: {dropped} impossible ranges are left out")
    ranges.sort(key=lambda r: (r.start, r.end, r.offset, r.path))
    kept: List[FileRange] = []
    for r in ranges:
        if kept and r.start < kept[-1].end:
            problems.append(f"NT_FILE: ranges overlap at {r.start:#x}; the first one counts")
            continue
        kept.append(r)
    return kept

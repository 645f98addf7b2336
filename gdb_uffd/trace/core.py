"""An ELF core file as a snapshot.

Opening maps the core and reads its headers and notes, nothing of the segments but the first
page of each mapped file (its identity).  Pages are read when they are asked for.

One thing a core cannot tell: anonymous memory that was never touched and anonymous memory that
was kept out with madvise(MADV_DONTDUMP) look the same.  Both are served as zeros, which is
what the first is.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import mmap
import os
import stat
from bisect import bisect_right
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.model import (
    GPR,
    PROT_WRITE,
    Mapping,
    MemoryUnavailable,
    ThreadState,
    UffdError,
)
from gdb_uffd.trace import elf, executable, facts, places, symbols, tls
from gdb_uffd.trace.elf import ElfError
from gdb_uffd.trace.facts import ProcessFacts
from gdb_uffd.trace.files import FileCache, Module, close_map, printable
from gdb_uffd.trace.layout import Dumped, Load, Plan, build, make_loads
from gdb_uffd.trace.notes import Notes, read_notes
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO, Place, ReadMemory, Segment
from gdb_uffd.trace.vdso import MAX_VDSO, patch_vdso

AT_BASE, AT_RANDOM, AT_SYSINFO_EHDR = 7, 25, 33  # <elf.h>, getauxval(3)
MAX_READ = 1 << 30
"""Bytes of one read(); more is a mistake or an attack on our own memory."""
MAX_WARNINGS = 100
USAGE = "uffd spawn CORE [EXECUTABLE]"

_COMPRESSED = (
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\xfd7zXZ\x00", "xz", "unxz"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
)


class CoreSnapshot:
    """The one instant that a core file holds.  See source.Snapshot for the meaning of all."""

    def __init__(
        self,
        path: str,
        notes: Notes,
        core: mmap.mmap,
        cache: FileCache,
        modules: Sequence[Module],
        main: Optional[Module],
        layout: Tuple[List[Mapping], List[Segment]],
        warnings: List[str],
    ) -> None:
        self.path = path
        self.pid = notes.pid
        self.auxv = notes.auxv
        self._notes = notes
        self.recorded_ns = 0  # when it was written, by the file's time
        self.threads: Sequence[ThreadState] = notes.threads
        self.executable = main.file.path if main is not None and main.file is not None else ""
        self.warnings = warnings
        self._core = core
        self._cache = cache
        self._by_tid = {t.tid: t for t in notes.threads}
        self.mappings: Sequence[Mapping] = layout[0]
        self.segments: Sequence[Segment] = layout[1]
        self._starts = [s.start for s in layout[1]]
        self._patch_vdso(notes.auxv_value(AT_SYSINFO_EHDR) or 0)
        base = notes.auxv_value(AT_BASE) or 0
        order = symbols.search_order(modules, main, base, self.read)
        self._symbols = symbols.Symbols(order)
        self._tls = tls.ThreadLocals(self.symbol, self.read, order, main)
        heap = places.find_heap(self.mappings, main, self.symbol, self.read)
        random = notes.auxv_value(AT_RANDOM)
        stack = places.find_stack(self.mappings, self.pid, self.threads, random)
        self.mappings = _named(self.mappings, heap, stack)
        self._places = places.Places(
            self.mappings, modules, self.threads, self.pid, heap, stack, self.read, self.symbol
        )

    @functools.cached_property
    def facts(self) -> ProcessFacts:
        """Who the process was; the clock by the time of the file, which is all there is."""
        notes, ids = self._notes, facts.auxv_values(self._notes.auxv)
        return ProcessFacts(
            ppid=notes.ppid, pgrp=notes.pgrp, sid=notes.sid,
            uid=ids.get(facts.AT_UID, notes.uid), euid=ids.get(facts.AT_EUID, notes.uid),
            gid=ids.get(facts.AT_GID, notes.gid), egid=ids.get(facts.AT_EGID, notes.gid),
            name=notes.name, realtime_ns=self.recorded_ns, cpu_ns=notes.cpu_ns,
            cwd=facts.working_directory(self.read, self.symbol),
            release=facts.kernel_release(ids.get(AT_SYSINFO_EHDR, 0), self._read_image),
        )  # fmt: skip

    def _read_image(self, address: int, length: int) -> bytes:
        """As elf.Image wants it."""
        try:
            return self.read(address, length)
        except UffdError as error:
            raise ElfError(str(error)) from error

    def _patch_vdso(self, vdso: int) -> None:
        """Name [vdso] and give its segment the patched image."""
        for index, mapping in enumerate(self.mappings):
            if not vdso or mapping.start != vdso or mapping.name:
                continue
            named = dataclasses.replace(mapping, name="[vdso]")
            self.mappings = [*self.mappings[:index], named, *self.mappings[index + 1 :]]
            at = bisect_right(self._starts, vdso) - 1
            segment = self.segments[at]
            if (segment.start, segment.end, segment.kind) != (vdso, mapping.end, FILE):
                return
            if segment.end - segment.start > MAX_VDSO:
                return
            try:
                image = patch_vdso(self.read(vdso, segment.end - segment.start))
            except UffdError as error:
                self.warnings.append(str(error))
                return
            patched = dataclasses.replace(segment, patch=image)
            self.segments = [*self.segments[:at], patched, *self.segments[at + 1 :]]

    def read(self, address: int, length: int) -> bytes:
        """`length` recorded bytes; MemoryUnavailable (with reason) unless all are there.

        UffdError when `length` is negative or more than MAX_READ.
        """
        if not 0 <= length <= MAX_READ:
            raise UffdError(f"{length} bytes at {address:#x}: read at most {MAX_READ} at once")
        end = address + length
        index = bisect_right(self._starts, address) - 1
        covering: List[Segment] = []
        position = address
        while position < end:
            segment = self.segments[index] if 0 <= index < len(self.segments) else None
            if segment is None or not segment.start <= position < segment.end:
                raise MemoryUnavailable(position, "not mapped")
            if segment.kind == UNAVAILABLE:
                raise MemoryUnavailable(position, segment.reason)
            covering.append(segment)
            position = segment.end
            index += 1
        if len(covering) == 1:
            return _bytes(covering[0], address, end)
        return b"".join(_bytes(s, max(address, s.start), min(end, s.end)) for s in covering)

    def thread(self, tid: int) -> ThreadState:
        """The thread with that TID; KeyError when there is none."""
        return self._by_tid[tid]

    def symbol(self, name: str) -> Optional[int]:
        """Run-time address of a symbol of any mapped ELF file, or None."""
        return self._symbols.find(name)

    def tls_address(
        self, tid: int, offset: int, link_map: int, fs_base: int, read: ReadMemory
    ) -> int:
        """Address of a thread-local; UffdError when it has none (see source.Snapshot)."""
        return self._tls.address(tid, offset, link_map, fs_base, read)

    def classify(self, address: int) -> Place:
        """What the byte at `address` belongs to."""
        return self._places.classify(address)

    def modules(self) -> Sequence[Module]:
        """The files that were mapped, in order of address."""
        return self._places.modules

    def close(self) -> None:
        """Unmap the core and the files.  Idempotent."""
        self.segments = []
        self._starts = []
        close_map(self._core)
        self._cache.close()


def _bytes(segment: Segment, start: int, end: int) -> bytes:
    if segment.kind == ZERO or segment.data is None:
        return bytes(end - start)
    at = segment.offset + start - segment.start
    found = segment.data[at : min(at + end - start, segment.data_end)]
    return found + bytes(end - start - len(found))


def _named(
    mappings: Sequence[Mapping], heap: Tuple[int, int], stack: Tuple[int, int]
) -> List[Mapping]:
    named: List[Mapping] = []
    for m in mappings:
        if not m.name and m.prot & PROT_WRITE and heap[0] < m.end and m.start < heap[1]:
            m = dataclasses.replace(m, name="[heap]")
        elif not m.name and (m.start, m.end) == stack:
            m = dataclasses.replace(m, name="[stack]")
        named.append(m)
    return named


def open_core(path: str, executable_path: Optional[str] = None) -> CoreSnapshot:
    """The snapshot in the core file `path`.

    `executable_path` names the executable when the recorded path is not where it is; it must
    have the build-id that the core recorded.  UffdError: one line with what was wrong and
    what to do, for a path that is no usable x86-64 core or an executable that does not match.
    """
    core, mtime_ns = _map_core(path)
    cache = FileCache()
    try:
        return _open(path, core, mtime_ns, cache, executable_path)
    except BaseException:
        close_map(core)
        cache.close()
        raise


def _map_core(path: str) -> Tuple[mmap.mmap, int]:
    """The whole file mapped, and its modification time in ns.  Never opens a device or FIFO."""
    shown = printable(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UffdError(f"{shown}: is a directory; give the core file in it: {USAGE}")
        if not stat.S_ISREG(mode):
            raise UffdError(f"{shown}: not a regular file; give a core file: {USAGE}")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(fd)
            if status.st_size == 0:
                raise UffdError(
                    f"{shown}: empty file; was the core cut off by a full disk or `ulimit -c`?"
                )
            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ), status.st_mtime_ns
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise UffdError(f"{shown}: no such file; give the path of a core: {USAGE}") from error
        if error.errno == errno.EACCES:
            raise UffdError(
                f"{shown}: permission denied; read it as its owner (chown or sudo)"
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UffdError(f"{shown}: cannot be opened ({reason}); give a core file") from error
    except (ValueError, OverflowError) as error:
        raise UffdError(f"{shown}: cannot be mapped ({error}); give a core file") from error


def _check_header(shown: str, core: mmap.mmap) -> elf.Header:
    start = core[:8]
    for magic, name, tool in _COMPRESSED:
        if start.startswith(magic):
            raise UffdError(f"{shown}: compressed with {name}; unpack it first: {tool}")
    try:
        header = elf.read_header(core)
    except ElfError as error:
        raise UffdError(f"{shown}: {error}; give an x86-64 core file: {USAGE}") from error
    if header.type in (elf.ET_EXEC, elf.ET_DYN):
        raise UffdError(f"{shown}: is an executable or library, not a core: {USAGE}")
    if header.type != elf.ET_CORE:
        raise UffdError(f"{shown}: an ELF file, but not a core (e_type {header.type}): {USAGE}")
    if header.machine != elf.EM_X86_64:
        raise UffdError(
            f"{shown}: a core of another architecture (e_machine {header.machine}, not x86-64); "
            "open it with a gdb for that machine"
        )
    return header


def _read_segments(
    shown: str, core: mmap.mmap, header: elf.Header, problems: List[str]
) -> List[elf.ProgramHeader]:
    try:
        try:
            count = elf.segment_count(core, header)
        except ElfError:
            # Section 0, which has the count, lies at the end of the core.  In a truncated one the
            # notes, which follow the headers at once (fs/binfmt_elf.c), tell it too.
            first = elf.read_segments(core, header, 1)[0]
            if first.type != elf.PT_NOTE or first.offset < header.phoff:
                raise
            count = (first.offset - header.phoff) // elf.PHDR.size
            problems.append("truncated core: its section header is missing")
        return elf.read_segments(core, header, count)
    except ElfError as error:
        raise UffdError(
            f"{shown}: damaged or truncated core ({error}); get a complete one"
        ) from error


def _open(
    path: str, core: mmap.mmap, mtime_ns: int, cache: FileCache, executable_path: Optional[str]
) -> CoreSnapshot:
    problems: List[str] = []
    shown = printable(path)
    header = _check_header(shown, core)
    segments = _read_segments(shown, core, header, problems)
    notes = read_notes(core, [s for s in segments if s.type == elf.PT_NOTE])
    problems += notes.problems
    if not notes.threads:
        raise UffdError(
            f"{shown}: no thread in it (no whole NT_PRSTATUS note): damaged or truncated core; "
            "get a complete one"
        )
    loads = make_loads(segments, len(core), problems)
    dumped = Dumped(core, loads)
    found = executable.find_modules(notes, cache, dumped, mtime_ns, executable_path)
    plan = Plan(
        dumped=dumped,
        ranges=found.ranges,
        modules=found.modules,
        have_file_note=notes.files is not None,
        anonymous_left_out=_left_out(notes, dumped, found.modules),
        vdso=notes.auxv_value(AT_SYSINFO_EHDR) or 0,
    )
    mappings, made = build(plan)
    if not mappings:
        raise UffdError(f"{shown}: no memory in it (no PT_LOAD): damaged core; get a complete one")
    if notes.files is None:
        problems.append(
            "the core has no NT_FILE note: memory that is not in it cannot be found in files; "
            f"name the executable: {USAGE}"
        )
    if plan.anonymous_left_out:
        problems.append(
            "the core was written without anonymous memory (coredump_filter): "
            "stacks and heap are unavailable; set /proc/PID/coredump_filter to 0x33"
        )
    problems += _truncation(core, loads)
    problems += executable.file_warnings(found, made)
    snapshot = CoreSnapshot(
        path,
        notes,
        core,
        cache,
        found.modules,
        found.main,
        (mappings, made),
        [f"{shown}: {p}" if p[:1] != "/" else p for p in problems[:MAX_WARNINGS]],
    )
    snapshot.recorded_ns = mtime_ns
    return snapshot


def _left_out(notes: Notes, dumped: Dumped, modules: Sequence[Module]) -> bool:
    """Whether anonymous memory was kept out of the core: every thread's stack would have been
    written to, and yet no mapping with a stack pointer in it has any byte in the core."""
    seen: Dict[int, bool] = {}
    for thread in notes.threads:
        load = dumped.load_at(thread.registers.gpr[GPR["rsp"]])
        if load is None or not load.prot & PROT_WRITE:
            continue
        if load.start not in seen:
            in_file = any(m.holds(load.start) for m in modules)
            seen[load.start] = in_file or load.dumped_end > load.start
    return bool(seen) and not any(seen.values())


def _truncation(core: mmap.mmap, loads: Sequence[Load]) -> List[str]:
    missing = sum(load.dumped_end - load.have_end for load in loads)
    if not missing:
        return []
    whole = max(load.offset + load.dumped_end - load.start for load in loads)
    return [
        f"truncated core: {len(core)} of {whole} bytes are there; {missing // 4096} pages are "
        "unavailable; raise `ulimit -c` or free disk space before the next one"
    ]

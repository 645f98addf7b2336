"""An ELF core file as a snapshot.

Opening maps the core and reads its headers and notes, nothing of the segments but the first
page of each mapped file (its identity).  Pages are read when they are asked for.

One thing a core cannot tell: anonymous memory that was never touched and anonymous memory that
was kept out with madvise(MADV_DONTDUMP) look the same.  Both are served as zeros, which is
what the first is, and marked as unknown (trace/core/mappings.py).
"""

from __future__ import annotations

import dataclasses
import errno
import mmap
import os
import stat
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.arch import KNOWN, RECORDED, of_machine
from gdb_uffd.arch.others import spoken
from gdb_uffd.protocol.model import PROT_WRITE, Mapping, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace import places
from gdb_uffd.trace.core import elf, objects, sanitizers, thread_base
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.core.loads import Dumped, Load, make_loads
from gdb_uffd.trace.core.mappings import NO_FILE_NOTE, Plan, build
from gdb_uffd.trace.core.notes import Notes, read_notes
from gdb_uffd.trace.files import executable
from gdb_uffd.trace.files.compressed import compression, unpacked
from gdb_uffd.trace.files.files import FileCache, Module, close_map
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.snapshot import (
    AT_RANDOM,
    AT_SYSINFO_EHDR,
    Lookups,
    Memory,
    RecordedSnapshot,
)
from gdb_uffd.trace.source import Segment

MAX_WARNINGS = 100
USAGE = "uffd spawn CORE [EXECUTABLE]"


class CoreSnapshot(RecordedSnapshot):
    """The one instant that a core file holds.  See source.Snapshot for the meaning of all."""

    def __init__(
        self, path: str, notes: Notes, core: mmap.mmap, cache: FileCache, memory: Memory,
        found: executable.Found,
    ) -> None:  # fmt: skip
        self.core = core
        self._cache = cache
        super().__init__(path, notes, memory, found, Lookups())
        heap = places.find_heap(self.mappings, found.main, self.symbol, self.read)
        random = notes.auxv_value(AT_RANDOM)
        stack = places.find_stack(self.mappings, self.pid, self.threads, random)
        self.mappings = _named(self.mappings, heap, stack)
        tls = any(m.image is not None and m.image.tls_size()[0] for m in self.modules)
        thread_base.restore(self.threads, self.mappings, self.read, tls)
        self.set_places(heap, stack)

    def close(self) -> None:
        """Unmap the core and the files.  Idempotent."""
        super().close()
        close_map(self.core)
        self._cache.close()


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


def open_core(
    path: str,
    executable_path: Optional[str] = None,
    search: Optional[FileSearch] = None,
    name: str = "",
) -> CoreSnapshot:
    """The snapshot in the core file `path`, which the user calls `name` ("": the same).

    `executable_path` names the executable when the recorded path is not where it is; it must
    have the build-id that the core recorded.  UffdError: one line with what was wrong and
    what to do, for a path that is no usable x86-64 core or an executable that does not match.
    """
    core, mtime_ns = _map_core(path, search.unpack_limit if search is not None else 0)
    cache = FileCache(search)
    try:
        return _open(name or path, core, mtime_ns, cache, executable_path)
    except BaseException:
        close_map(core)
        cache.close()
        raise


def _map_core(path: str, limit: int) -> Tuple[mmap.mmap, int]:
    """The whole file mapped, unpacked when it is compressed, and its modification time in ns.
    Never opens a device or FIFO."""
    shown = printable(path)

    def is_core(start: bytes) -> None:
        _check_header(shown, start)

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
            kind = compression(os.pread(fd, 8, 0))
            if kind:
                fd = _replaced(fd, unpacked(path, kind, limit, is_core))
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


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _check_header(shown: str, core: elf.Buffer) -> elf.Header:
    try:
        header = elf.read_header(core)
    except elf.ForeignElf as error:
        if error.kind == elf.ET_CORE:
            raise _foreign(shown, error.processor) from error
        raise UffdError(f"{shown}: {error}; give a core file: {USAGE}") from error
    except ElfError as error:
        raise UffdError(f"{shown}: {error}; give a core file: {USAGE}") from error
    if header.type in (elf.ET_EXEC, elf.ET_DYN):
        raise UffdError(f"{shown}: is an executable or library, not a core: {USAGE}")
    if header.type != elf.ET_CORE:
        raise UffdError(f"{shown}: an ELF file, but not a core (e_type {header.type}): {USAGE}")
    if of_machine(header.machine, header.word) is None:
        raise _foreign(shown, spoken(header.machine, wide=True, little=True))
    return header


def _foreign(shown: str, processor: str) -> UffdError:
    return UffdError(
        f"{shown}: a core of {processor}, not {KNOWN}; look at it with a gdb for that processor"
    )


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
            count = (first.offset - header.phoff) // max(header.phentsize, 1)
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
    arch = of_machine(header.machine, header.word) or RECORDED
    segments = _read_segments(shown, core, header, problems)
    notes = read_notes(core, [s for s in segments if s.type == elf.PT_NOTE], arch)
    problems += notes.problems
    if not notes.threads:
        raise UffdError(
            f"{shown}: no thread in it (no whole NT_PRSTATUS note): damaged or truncated core; "
            "get a complete one"
        )
    loads, fringes = make_loads(segments, len(core), problems, arch.user_end)
    dumped = Dumped(core, loads, fringes)
    have_file_note = notes.files is not None
    objects.complete(notes, dumped)
    found = executable.find_modules(notes, cache, dumped, mtime_ns, executable_path)
    plan = Plan(
        dumped=dumped,
        ranges=found.ranges,
        modules=found.modules,
        have_file_note=have_file_note,
        anonymous_left_out=_left_out(notes, dumped, found.modules),
        vdso=notes.auxv_value(AT_SYSINFO_EHDR) or 0,
    )
    mappings, made = build(plan)
    if not mappings:
        raise UffdError(f"{shown}: no memory in it (no PT_LOAD): damaged core; get a complete one")
    if not have_file_note:
        problems += _without_files(made, found.main)
    if plan.anonymous_left_out:
        problems.append(
            "the core was written without anonymous memory (coredump_filter): "
            "stacks and heap are unavailable; set /proc/PID/coredump_filter to 0x33"
        )
    problems += _truncation(core, loads)
    problems += executable.file_warnings(found, made)
    left_out = sanitizers.left_out(found.modules, found.main, mappings) if notes.gcore else None
    if left_out:
        problems.append("; ".join(left_out))
    snapshot = CoreSnapshot(
        path,
        notes,
        core,
        cache,
        Memory(
            mappings,
            made,
            [f"{shown}: {p}" if p[:1] != "/" else p for p in problems[:MAX_WARNINGS]],
        ),
        found,
    )
    snapshot.recorded_ns = mtime_ns
    snapshot.left_out = left_out
    return snapshot


def _without_files(segments: Sequence[Segment], main: Optional[Module]) -> List[str]:
    """What is to be said of a core without NT_FILE."""
    lines = []
    if any(s.reason == NO_FILE_NOTE for s in segments):
        lines.append(
            "the core has no NT_FILE note: memory that is not in it cannot be found in files"
        )
    if main is None or main.file is None:
        lines.append(
            f"the core does not tell where its executable lies; name the executable: {USAGE}"
        )
    return ["; ".join(lines)] if lines else []


def _left_out(notes: Notes, dumped: Dumped, modules: Sequence[Module]) -> bool:
    """Whether anonymous memory was kept out of the core: every thread's stack would have been
    written to, and yet no mapping with a stack pointer in it has any byte in the core."""
    seen: Dict[int, bool] = {}
    for thread in notes.threads:
        load = dumped.load_at(thread.registers.sp)
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

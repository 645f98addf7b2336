"""Writing an ELF core that gdb opens: of a snapshot, or of a diversion as it is now.

Laid out as the kernel does (fs/binfmt_elf.c): headers, notes, memory; what can be had from files
whose identity the first page shows is left to them.  Runs of zeros become holes in the file.
A page that cannot be read is left out of the PT_LOADs, so that no reader takes it for zeros; one of
a written file has a PT_LOAD without bytes.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import field
from typing import Callable, List, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.outputs import whole_file
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    Mapping,
    MemoryUnavailable,
    ThreadState,
    UffdError,
    page_ceil,
)
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core import elf
from gdb_uffd.trace.core.core_notes import make_notes
from gdb_uffd.trace.source import ZERO, ReadMemory, Segment

PIECE = 1 << 20
"""Bytes read at a time."""
_HOLE = 1 << 16  # bytes of zeros that are worth a hole
_NO_BYTES = ("[vvar]", "[vvar_vclock]")

Range = Tuple[int, int]


@dataclass
class Written:
    """What became of it: the core's size in bytes, and how many pages could not be read."""

    size: int = 0
    unavailable_pages: int = 0


def by_reference(mapping: Mapping) -> bool:
    """Whether the bytes of `mapping` are those of its file: a file's, and never writable."""
    return mapping.name.startswith("/") and not mapping.prot & PROT_WRITE


def zero_ranges(segments: Sequence[Segment]) -> List[Range]:
    """Memory of a snapshot that was never touched."""
    return [(s.start, s.end) for s in segments if s.kind == ZERO]


def write_core(
    path: str,
    pid: int,
    threads: Sequence[ThreadState],
    auxv: bytes,
    mappings: Sequence[Mapping],
    read: ReadMemory,
    *,
    zeros: Sequence[Range] = (),
    from_file: Callable[[Mapping], bool] = by_reference,
    name: str = "",
    files_read: Sequence[str] = (),
) -> Written:
    """Write the core file `path`, which must not exist; it appears when it is complete, 0600.

    `threads`: the current one first.  `mappings`: sorted.  `read` is called for at most PIECE
    bytes within one mapping.  `zeros`: ranges, sorted, that are known to be zeros and need not be
    read.  `from_file`: mappings of which only the first page is written.  `name`: what the program
    was called.  `files_read`: paths of files whose bytes calls have brought into the memory.
    UffdError, one line; nothing is left behind then.
    """
    shown = printable(path)
    if os.path.lexists(path):
        raise UffdError(f"{shown}: exists already; remove it or choose another name")
    arch = threads[0].registers.arch
    if arch.word != 8:
        raise UffdError(f"{shown}: cores of {arch.spoken}'s programs can be read, and not written")
    machine = arch.machine
    notes = make_notes(pid, threads, auxv, mappings, name, files_read)
    try:
        with whole_file(path) as fd:
            writing = _Core(fd, notes, mappings, read, sorted(zeros), from_file, machine)
            return writing.write()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UffdError(f"{shown}: cannot be written ({reason}); nothing is left of it") from error


@dataclass
class _Core:
    fd: int
    notes: bytes
    mappings: Sequence[Mapping]
    read: ReadMemory
    zeros: List[Range]
    from_file: Callable[[Mapping], bool]
    machine: int  # e_machine
    done: Written = field(default_factory=Written)
    headers: List[bytes] = field(default_factory=list)
    end: int = 0  # of the file so far

    def write(self) -> Written:
        room = 1 + 2 * len(self.mappings) + 256
        notes_at = elf.EHDR.size + room * elf.PHDR.size
        self.end = page_ceil(notes_at + len(self.notes))
        self.headers.append(elf.PHDR.pack(elf.PT_NOTE, 0, notes_at, 0, 0, len(self.notes), 0, 4))
        for mapping in self.mappings:
            self._mapping(mapping)
        self._write(notes_at, self.notes)
        self._write_headers(elf.EHDR.size if len(self.headers) <= room else self.end)
        self.done.size = max(self.end, os.fstat(self.fd).st_size)
        os.ftruncate(self.fd, self.done.size)
        return self.done

    def _write_headers(self, at: int) -> None:
        """Program headers at `at`, the ELF header, and where their number does not fit into it
        section 0, which has it (elf(5), PN_XNUM)."""
        count = len(self.headers)
        table = b"".join(self.headers)
        self._write(at, table)
        self.end = max(self.end, at + len(table))
        many = count >= elf.PN_XNUM
        section_at = 0
        if many:
            section_at = self.end = page_ceil(self.end)
            self._write(section_at, elf.SHDR.pack(0, 0, 0, 0, 0, 1, 0, count, 0, 0))
            self.end += elf.SHDR.size
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        self._write(
            0,
            elf.EHDR.pack(
                ident, elf.ET_CORE, self.machine, 1, 0, at, section_at, 0, elf.EHDR.size,
                elf.PHDR.size, elf.PN_XNUM if many else count, elf.SHDR.size if many else 0,
                1 if many else 0, 0,
            ),
        )  # fmt: skip

    def _mapping(self, m: Mapping) -> None:
        if m.name in _NO_BYTES:
            self._load(m, m.start, m.end, m.start)
        elif self.from_file(m):
            # The first page of an object has its build-id, by which its file is known again.
            first = m.start + PAGE_SIZE
            there = m.offset == 0 and self._copy(m.start, first)[0][2]
            self._load(m, m.start, m.end, first if there else m.start)
        elif self._untouched(m.start, m.end):
            self._load(m, m.start, m.end, m.start)
        else:
            at = self.end
            for start, end, there in self._copy(m.start, m.end):
                if there:
                    self._load(m, start, end, end, at + start - m.start)
                    continue
                self.done.unavailable_pages += (end - start) // PAGE_SIZE
                if m.name.startswith("/"):  # else a reader takes the file's for what was written
                    self._load(m, start, end, start)
            self.end = at + m.end - m.start
            return

    def _load(self, m: Mapping, start: int, end: int, dumped: int, at: int = -1) -> None:
        """A PT_LOAD of `[start, end)`, of which the file has the part before `dumped`."""
        flags = (
            (elf.PF_R if m.prot & PROT_READ else 0)
            | (elf.PF_W if m.prot & PROT_WRITE else 0)
            | (elf.PF_X if m.prot & PROT_EXEC else 0)
        )
        offset = self.end if at < 0 else at
        self.headers.append(
            elf.PHDR.pack(
                elf.PT_LOAD, flags, offset, start, 0, dumped - start, end - start, PAGE_SIZE
            )
        )
        if at < 0:
            self.end += dumped - start

    def _untouched(self, start: int, end: int) -> bool:
        """Whether all of `[start, end)` is known to be zeros."""
        index = bisect_right(self.zeros, (start, 1 << 64)) - 1
        while start < end:
            if not 0 <= index < len(self.zeros) or self.zeros[index][0] > start:
                return False
            start = max(start, self.zeros[index][1])
            index += 1
        return True

    def _copy(self, start: int, end: int) -> List[Tuple[int, int, bool]]:
        """Write `[start, end)` from the end of the file on; pieces (start, end, whether it could
        be read), neighbours joined."""
        out: List[Tuple[int, int, bool]] = []
        base = self.end - start
        for low, high, known in self._pieces(start, end):
            if known:
                _join(out, low, high, True)
                continue
            try:
                self._sparse(base + low, self.read(low, high - low))
                _join(out, low, high, True)
            except MemoryUnavailable:
                for page in range(low, high, PAGE_SIZE):
                    _join(out, page, page + PAGE_SIZE, self._page(base, page))
        return out

    def _page(self, base: int, page: int) -> bool:
        try:
            self._sparse(base + page, self.read(page, PAGE_SIZE))
        except MemoryUnavailable:
            return False
        return True

    def _pieces(self, start: int, end: int) -> List[Tuple[int, int, bool]]:
        """`[start, end)` cut into what is known to be zeros and what must be read."""
        out: List[Tuple[int, int, bool]] = []
        index = max(0, bisect_right(self.zeros, (start, 1 << 64)) - 1)
        position = start
        while position < end:
            while index < len(self.zeros) and self.zeros[index][1] <= position:
                index += 1
            zero = self.zeros[index] if index < len(self.zeros) else (end, end)
            if zero[0] <= position:
                stop = min(end, zero[1])
                out.append((position, stop, True))
            else:
                stop = min(end, zero[0], position + PIECE)
                out.append((position, stop, False))
            position = stop
        return out

    def _sparse(self, offset: int, data: bytes) -> None:
        """Write all but the blocks that are zeros."""
        view = memoryview(data)
        for at in range(0, len(data), _HOLE):
            block = view[at : at + _HOLE]
            if bytes(block) != _ZEROS[: len(block)]:
                self._write(offset + at, block)

    def _write(self, offset: int, data: "bytes | memoryview") -> None:
        view = memoryview(data)
        while len(view):
            done = os.pwrite(self.fd, view, offset)
            view, offset = view[done:], offset + done


_ZEROS = bytes(_HOLE)


def _join(out: List[Tuple[int, int, bool]], start: int, end: int, there: bool) -> None:
    if out and out[-1][1] == start and out[-1][2] == there:
        out[-1] = (out[-1][0], end, there)
    else:
        out.append((start, end, there))

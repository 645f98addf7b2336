"""What cores and recorded traces have in common: memory made of segments, and what lies in it."""

from __future__ import annotations

import dataclasses
import functools
from bisect import bisect_right
from dataclasses import field
from typing import Dict, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, MemoryUnavailable, ThreadState, UffdError
from gdb_uffd.trace import places, symbols, tls
from gdb_uffd.trace.core import facts
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.core.facts import ProcessFacts
from gdb_uffd.trace.core.notes import Notes
from gdb_uffd.trace.core.vdso import MAX_VDSO, patch_vdso
from gdb_uffd.trace.files.executable import Found, how_to_get
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import (
    FILE,
    PAGES,
    UNAVAILABLE,
    ZERO,
    AddressPlace,
    ReadMemory,
    Segment,
)
from gdb_uffd.trace.store.page_read import BadPage, PageData

AT_BASE, AT_RANDOM, AT_SYSINFO_EHDR = 7, 25, 33  # <elf.h>, getauxval(3)
MAX_READ = 1 << 30
"""Bytes of one read(); more is a mistake or an attack on our own memory."""


@dataclass
class Memory:
    """`mappings` and `segments`, sorted, disjoint, of the same extent; lines for the user."""

    mappings: Sequence[Mapping]
    segments: Sequence[Segment]
    warnings: List[str] = field(default_factory=list)


@dataclass
class Lookups:
    """What snapshots of one process share as long as it has the same files mapped."""

    symbols: Optional[symbols.SymbolTable] = None
    order: Sequence[Module] = ()
    vdsos: Dict[bytes, Tuple[bytes, str]] = field(default_factory=dict)  # image: patched, problem


class RecordedSnapshot:
    """source.Snapshot over segments.  `mappings` that are named keep their name."""

    def __init__(
        self,
        path: str,
        notes: Notes,
        memory: Memory,
        found: Found,
        lookups: Lookups,
        pages: Optional[PageData] = None,
    ) -> None:
        main = found.main
        self._notes = notes
        self.arch = notes.arch
        self.recorded_ns = 0  # CLOCK_REALTIME then, as far as it is known
        self.monotonic_ns = 0  # CLOCK_MONOTONIC then
        self.told: Optional[ProcessFacts] = None  # by the recorder
        self.pages = pages
        self.path = path
        self.left_out: Optional[Tuple[str, str]] = None
        self.pid = notes.pid
        self.auxv = notes.auxv
        self.threads: Sequence[ThreadState] = notes.threads
        serves = (main.file or main.debug) if main is not None else None
        self.executable = serves.path if serves is not None else ""
        self.warnings = memory.warnings
        self.mappings: Sequence[Mapping] = memory.mappings
        self.segments: Sequence[Segment] = memory.segments
        self._starts = [s.start for s in memory.segments]
        self._by_tid = {t.tid: t for t in notes.threads}
        self._found = found
        self._lookups = lookups
        self._base = notes.auxv_value(AT_BASE) or 0
        self._heap = self._stack = (0, 0)
        self._tls: Optional[tls.RecordedThreadLocals] = None
        self._places: Optional[places.Places] = None
        self._patch_vdso(notes.auxv_value(AT_SYSINFO_EHDR) or 0)

    @property
    def files_read(self) -> Sequence[str]:
        """Files whose bytes kept calls had brought into the memory when it was exported."""
        return self._notes.files_read

    @property
    def modules(self) -> Sequence[Module]:
        """The files that were mapped, in order of address."""
        return self._found.modules

    def remedy(self, address: int) -> str:
        """How to get the file whose page at `address` cannot be had; "" when none is missing."""
        for module in self._found.modules:
            if module.reason and module.holds(address):
                return how_to_get(module, self._found.main)
        return ""

    @property
    def main(self) -> Optional[Module]:
        """The executable among them."""
        return self._found.main

    @functools.cached_property
    def facts(self) -> ProcessFacts:
        """Who the process was, and what its clocks showed."""
        notes, ids = self._notes, facts.auxv_values(self._notes.auxv)
        if self.told is not None:
            return dataclasses.replace(
                self.told,
                realtime_ns=self.recorded_ns,
                monotonic_ns=self.monotonic_ns,
                cwd=self.told.cwd or facts.working_directory(self.read, self.symbol),
            )
        return ProcessFacts(
            ppid=notes.ppid, pgrp=notes.pgrp, sid=notes.sid,
            uid=ids.get(facts.AT_UID, notes.uid), euid=ids.get(facts.AT_EUID, notes.uid),
            gid=ids.get(facts.AT_GID, notes.gid), egid=ids.get(facts.AT_EGID, notes.gid),
            name=notes.name, realtime_ns=self.recorded_ns, monotonic_ns=self.monotonic_ns,
            cpu_ns=notes.cpu_ns, cwd=facts.working_directory(self.read, self.symbol),
            release=facts.kernel_release(ids.get(AT_SYSINFO_EHDR, 0), self._read_image),
        )  # fmt: skip

    def _read_image(self, address: int, length: int) -> bytes:
        """As elf.Image wants it."""
        try:
            return self.read(address, length)
        except UffdError as error:
            raise ElfError(str(error)) from error

    def set_places(self, heap: Tuple[int, int], stack: Tuple[int, int]) -> None:
        """The heap and the main stack, half-open; (0, 0) when not known."""
        self._heap, self._stack = heap, stack

    def _patch_vdso(self, vdso: int) -> None:
        """Name [vdso] and give its segment the patched image."""
        index = bisect_right(self._starts, vdso) - 1
        segment = self.segments[index] if vdso and index >= 0 else None
        if segment is None or segment.start != vdso:
            return
        mapping = next((m for m in self.mappings if m.start == vdso), None)
        if mapping is None or mapping.name not in ("", "[vdso]"):
            return
        self.mappings = [
            dataclasses.replace(m, name="[vdso]") if m is mapping else m for m in self.mappings
        ]
        if segment.end != mapping.end or segment.kind not in (FILE, PAGES):
            return
        if segment.end - segment.start > MAX_VDSO:
            return
        try:
            image = self.read(vdso, segment.end - segment.start)
        except MemoryUnavailable:
            return
        patched, problem = self._patched(image)
        if problem:
            self.warnings.append(problem)
            return
        with_patch = dataclasses.replace(segment, patch=patched)
        self.segments = [*self.segments[:index], with_patch, *self.segments[index + 1 :]]

    def _patched(self, image: bytes) -> Tuple[bytes, str]:
        known = self._lookups.vdsos.get(image)
        if known is None:
            try:
                known = patch_vdso(image, self.arch), ""
            except UffdError as error:
                known = b"", str(error)
            if len(self._lookups.vdsos) > 16:
                self._lookups.vdsos.clear()
            self._lookups.vdsos[image] = known
        return known

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
            return self._bytes(covering[0], address, end)
        return b"".join(self._bytes(s, max(address, s.start), min(end, s.end)) for s in covering)

    def _bytes(self, segment: Segment, start: int, end: int) -> bytes:
        if segment.kind == PAGES:
            return self._stored(segment, start, end)
        if segment.kind == ZERO or segment.data is None:
            return bytes(end - start)
        at = segment.offset + start - segment.start
        found = segment.data[at : min(at + end - start, segment.data_end)]
        return found + bytes(end - start - len(found))

    def _stored(self, segment: Segment, start: int, end: int) -> bytes:
        """Pages of the page file, each compared with its checksum."""
        if self.pages is None:
            raise MemoryUnavailable(start, "not in this core")
        first, last = (start - segment.start) // PAGE_SIZE, (end - 1 - segment.start) // PAGE_SIZE
        try:
            raw = self.pages.read(segment.slots[first : last + 1])
        except BadPage as bad:
            at = segment.start + (first + bad.index) * PAGE_SIZE
            raise MemoryUnavailable(max(start, at), bad.reason) from None
        skip = (start - segment.start) % PAGE_SIZE
        return raw[skip : skip + end - start]

    def thread(self, tid: int) -> ThreadState:
        """The thread with that TID; KeyError when there is none."""
        return self._by_tid[tid]

    def _symbols(self) -> symbols.SymbolTable:
        if self._lookups.symbols is None:
            order = symbols.search_order(
                self._found.modules, self._found.main, self._base, self.read
            )
            self._lookups.order = order
            self._lookups.symbols = symbols.SymbolTable(order)
        return self._lookups.symbols

    def symbol(self, name: str) -> Optional[int]:
        """Run-time address of a symbol of any mapped ELF file, or None."""
        return self._symbols().find(name)

    def tls_address(
        self, tid: int, offset: int, link_map: int, fs_base: int, read: ReadMemory
    ) -> int:
        """Address of a thread-local; UffdError when it has none (see source.Snapshot)."""
        if self._tls is None:
            self._symbols()
            order, main = self._lookups.order, self._found.main
            self._tls = tls.RecordedThreadLocals(self.symbol, self.read, order, main, self.arch)
        return self._tls.address(tid, offset, link_map, fs_base, read)

    def classify(self, address: int) -> AddressPlace:
        """What the byte at `address` belongs to."""
        if self._places is None:
            self._places = places.Places(
                self.mappings, self._found.modules, self.threads, self.pid, self._heap,
                self._stack, self.read, self.symbol,
            )  # fmt: skip
        return self._places.classify(address)

    def close(self) -> None:
        """Nothing can be read any more.  Idempotent."""
        self.segments = []
        self._starts = []

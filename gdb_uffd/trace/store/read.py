"""A recorded trace, NAME.uffd: opened read-only, its snapshots made when they are asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE, SnapshotInfo, ThreadState, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.compare import changed_pages, find_snapshot
from gdb_uffd.trace.core.facts import ProcessFacts, decode_facts
from gdb_uffd.trace.core.notes import Notes
from gdb_uffd.trace.files.elsewhere import Elsewhere
from gdb_uffd.trace.files.executable import Found, Identity, file_warnings, find_modules
from gdb_uffd.trace.files.files import FileCache, MappedFile, Module
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.snapshot import Lookups, RecordedSnapshot
from gdb_uffd.trace.source import INDEX
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.files import StoredFiles
from gdb_uffd.trace.store.index import TraceIndex, open_regular
from gdb_uffd.trace.store.page_file import PAGES, SUMS, read_header
from gdb_uffd.trace.store.page_read import PageData
from gdb_uffd.trace.store.page_table import Delta, PageTable, TableError
from gdb_uffd.trace.store.segments import RecordedPages, build, file_ranges, named_range

KEPT_TABLES = 4
KEPT_LAYOUTS = 64
KEPT_THREADS = 4096


class TraceSnapshot(RecordedSnapshot):
    """One snapshot of a recorded trace.  `info`: what the trace tells of it."""

    info: SnapshotInfo


class StoreTrace:
    """source.Trace over a directory NAME.uffd.  Nothing in it is ever written."""

    def __init__(
        self,
        directory: str,
        executable: Optional[str] = None,
        path: str = "",
        search: Optional[FileSearch] = None,
    ) -> None:
        """`path`: what the user calls it, when that is not the directory.  UffdError, one line,
        when it is no trace or has no snapshot."""
        self.path = path = path or directory
        self.directory = directory
        self.warnings: List[str] = []
        self._executable = executable
        self.index = TraceIndex(directory, path)
        try:
            self._rows = self.index.rows()
            if not any(row for row, _ in self._rows):
                damaged = f"no snapshot in it is whole ({self._rows[0][1]})" if self._rows else ""
                why = self.index.problem or damaged or "no snapshot was completed"
                raise UffdError(f"{printable(path)}: {why}; record it again")
            self.pages = self._open_pages()
        except BaseException:
            self.index.close()
            raise
        self.snapshots: Sequence[SnapshotInfo] = [
            row.info if row is not None else SnapshotInfo(number)
            for number, (row, _) in enumerate(self._rows)
        ]
        self._tables: "OrderedDict[int, PageTable]" = OrderedDict()
        self._layouts: Dict[bytes, form.SnapshotMappings] = {}
        self._threads: Dict[bytes, ThreadState] = {}
        self._found: Dict[object, Tuple[Found, Lookups]] = {}
        self._files = FileCache(search)
        self._search = search
        self._elsewhere = Elsewhere()
        self.stored = StoredFiles(self.index, self.pages, self._elsewhere)
        self._warn()

    def _open_pages(self) -> PageData:
        """The page file as far as the index, the file and its checksums go."""
        slots = self.slots = max((row.slots for row, _ in self._rows if row is not None), default=1)
        pages_fd = open_regular(self.file(PAGES))
        try:
            sums_fd = open_regular(self.file(SUMS))
            try:
                self._check_header(os.pread(pages_fd, PAGE_SIZE, 0))
                return PageData(self.path, os.dup(pages_fd), sums_fd, slots)
            finally:
                os.close(sums_fd)
        except (OSError, ValueError, OverflowError) as error:
            raise UffdError(f"{printable(self.path)}: cannot be mapped ({error})") from error
        finally:
            os.close(pages_fd)

    def _check_header(self, page: bytes) -> None:
        head = read_header(page)
        if head is None:
            self.warnings.append(
                f"{printable(self.path)}/{PAGES}: its header is damaged; pages are still checked "
                "one by one"
            )
        elif head[1].hex() != self.index.facts.get("trace_id"):
            raise UffdError(
                f"{printable(self.path)}: {PAGES} and {INDEX} are of different traces; "
                "get the whole directory again"
            )

    def _warn(self) -> None:
        shown = printable(self.path)
        if self.pages.missing:
            self.warnings.append(
                f"{shown}: truncated: {self.pages.missing} pages of its page file are missing and "
                f"unavailable; gdb-uffd verify {shown} lists them"
            )
        if self.index.cut:
            self.warnings.append(
                f"{shown}: truncated: {self.index.cut} of its index are there; get the trace again"
            )
        if self.index.problem:
            self.warnings.append(f"{shown}: {self.index.problem}; later ones cannot be shown")
        for number, (row, why) in enumerate(self._rows):
            if row is None and len(self.warnings) < 20:
                self.warnings.append(f"{shown}: snapshot {number}: {why}")

    def find(self, name: str) -> int:
        """The number that `name` means: a number, a label, "start" or "end".  UffdError."""
        return find_snapshot(self.snapshots, name)

    def row(self, number: int) -> form.SnapshotRow:
        """The row of a snapshot; UffdError when there is none, or it is damaged."""
        if not 0 <= number < len(self._rows):
            raise UffdError(f"no snapshot {number}: 0 to {len(self._rows) - 1}")
        row, why = self._rows[number]
        if row is None:
            raise self._damaged(number, why)
        return row

    def rows(self) -> Iterator[form.SnapshotRow]:
        """The rows that are whole, in order."""
        return (row for row, _ in self._rows if row is not None)

    def layout(self, row: form.SnapshotRow) -> form.SnapshotMappings:
        """The mappings and files of a snapshot; UffdError."""
        try:
            return self._read_layout(row)
        except form.FormatError as error:
            raise self._damaged(row.info.number, error) from error

    def file(self, name: str) -> str:
        """The path of `pages` or `sums`."""
        return os.path.join(self.directory, name)

    def _damaged(self, number: int, why: object) -> UffdError:
        return UffdError(
            f"{printable(self.path)}: snapshot {number} cannot be shown: {why}; "
            "others are not affected"
        )

    def table(self, number: int) -> PageTable:
        """The page table of a snapshot, not to be changed; UffdError."""
        table = self._tables.get(number)
        if table is None:
            try:
                table = self._make_table(number)
            except (form.FormatError, TableError) as error:
                raise self._damaged(number, error) from error
            self._tables[number] = table
            while len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(number)
        return table

    def _make_table(self, number: int) -> PageTable:
        keyframe, blob = self.index.delta(number)
        deltas = [blob]
        at = number
        if not number - keyframe <= form.MAX_DELTAS:
            raise form.FormatError(f"its keyframe is {keyframe}")
        while at != keyframe and at - 1 not in self._tables:
            at -= 1
            belongs, blob = self.index.delta(at)
            if belongs != keyframe:
                raise form.FormatError(f"snapshot {at} before it has another keyframe")
            deltas.append(blob)
        table = PageTable() if at == keyframe else self._tables[at - 1].copy()
        for blob in reversed(deltas):
            table.apply(Delta.decode(blob))
        return table

    def snapshot(self, number: int) -> TraceSnapshot:
        """Open it; the caller closes it.  UffdError when there is none or it is damaged."""
        row = self.row(number)
        try:
            threads = self._read_threads(row)
            layout = self._read_layout(row)
            auxv = form.check_auxv(self.index.object(row.auxv, form.AUXV))
        except form.FormatError as error:
            raise self._damaged(number, error) from error
        table = self.table(number)
        first = threads[0]
        notes = Notes(threads, row.info.pid or first.tid, first.name, auxv=auxv)
        notes.files = file_ranges(layout.mappings)
        found, lookups = self._find_files(row, layout, notes, table)
        memory = build(layout.mappings, table, found, self.pages, layout.unknown)
        memory.warnings = file_warnings(found, memory.segments)
        broken = [m.reason for m in found.modules if m.slots is not None and m.file is None]
        memory.warnings += [f"{reason}; gdb has no symbols of it" for reason in broken]
        made = TraceSnapshot(self.path, notes, memory, found, lookups, self.pages)
        top = found.main.top if found.main is not None else 0
        made.set_places(
            named_range(made.mappings, "[heap]", top), named_range(made.mappings, "[stack]")
        )
        made.info = row.info
        made.recorded_ns, made.monotonic_ns = row.info.time_ns, row.info.monotonic_ns
        made.told = self._told(number)
        self._elsewhere.link(found.modules, found.main, made.read, self._search)
        return made

    def _told(self, number: int) -> Optional[ProcessFacts]:
        """What was recorded of the process; None where nothing was.  Damage is no reason not to
        show the snapshot: verify tells."""
        try:
            return self._read_process(number)
        except form.FormatError:
            return None

    def _read_process(self, number: int) -> Optional[ProcessFacts]:
        found = self.index.process(number)
        if found is None:
            return None
        try:
            told = decode_facts(self.index.object(found[1], form.PROCESS))
        except ValueError as error:
            raise form.FormatError(f"its record of the process is malformed ({error})") from error
        return replace(told, cpu_ns=found[0])

    def _read_threads(self, row: form.SnapshotRow) -> List[ThreadState]:
        out = []
        for name in form.decode_threads(self.index.object(row.thread_list, form.THREADS)):
            thread = self._threads.get(name)
            if thread is None:
                if len(self._threads) >= KEPT_THREADS:
                    self._threads.clear()
                thread = form.decode_thread(self.index.object(name, form.THREAD))
                self._threads[name] = thread
            out.append(replace(thread, registers=thread.registers.copy()))
        if len({t.tid for t in out}) != len(out):
            raise form.FormatError("two of its threads have the same TID")
        return out

    def _read_layout(self, row: form.SnapshotRow) -> form.SnapshotMappings:
        layout = self._layouts.get(row.layout)
        if layout is None:
            if len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.clear()
            layout = form.decode_layout(self.index.object(row.layout, form.LAYOUT))
            self._layouts[row.layout] = layout
        return layout

    def _find_files(
        self, row: form.SnapshotRow, layout: form.SnapshotMappings, notes: Notes, table: PageTable
    ) -> Tuple[Found, Lookups]:
        """The modules, found once for all snapshots with the same files mapped in the same
        places."""
        ranges = notes.files or []
        refs = [layout.files.get(r.path) for r in ranges]
        key = (row.auxv, notes.name, tuple(ranges), tuple(refs))
        known = self._found.get(key)
        if known is None:
            if len(self._found) >= KEPT_LAYOUTS:
                self._found.clear()
            recorded = RecordedPages(layout.mappings, table, self.pages)

            def stored(module: Module) -> Optional[MappedFile]:
                name = layout.embedded.get(module.path)
                return self.stored.get(module, name) if name is not None else None

            found = find_modules(
                notes, self._files, recorded, row.info.time_ns, self._executable,
                Identity(layout.files, stored),
            )  # fmt: skip
            known = self._found[key] = found, Lookups()
        return known

    @property
    def sysroot(self) -> str:
        """A directory with the files of the snapshots opened so far under their own paths, when
        one of them is not where gdb would look for it; else ""."""
        return self._elsewhere.path

    @property
    def brought(self) -> bool:
        """Whether files below `sysroot` came with the trace or for it (Search.brought)."""
        return self._elsewhere.brought

    def check_records(self, number: int, known: Set[bytes]) -> None:
        """Read every record of a snapshot that is not in `known`; UffdError, FormatError's line."""
        row = self.row(number)
        try:
            if row.thread_list not in known:
                self._read_threads(row)
            if row.layout not in known:
                for name in self._read_layout(row).embedded.values():
                    self.stored.slots(name)
            self._read_process(number)
            if row.auxv not in known:
                form.check_auxv(self.index.object(row.auxv, form.AUXV))
        except form.FormatError as error:
            raise self._damaged(number, error) from error

    def embedded_slots(self) -> Iterator[Tuple[str, int]]:
        """(path, slot) of every page of the files that the trace holds."""
        done: Set[bytes] = set()
        for row, _ in self._rows:
            if row is None or row.layout in done:
                continue
            done.add(row.layout)
            try:
                for path, name in self._read_layout(row).embedded.items():
                    if name not in done:
                        done.add(name)
                        for slot in self.stored.slots(name)[1]:
                            yield path, slot
            except form.FormatError:
                continue  # told by check_records

    def changed_pages(self, a: int, b: int) -> List[int]:
        """Start addresses of the pages that differ between two snapshots, sorted."""
        one, two = self.snapshot(a), self.snapshot(b)
        try:
            return changed_pages(one.segments, two.segments)
        finally:
            one.close()
            two.close()

    def close(self) -> None:
        """Close the index.  The page file is unmapped with the last snapshot that uses it."""
        self.index.close()
        self._elsewhere.close()
        self._tables.clear()
        self._found.clear()

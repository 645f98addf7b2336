"""`gdb-uffd pack` and `unpack`: a trace as one file, with the files that it needs elsewhere."""

from __future__ import annotations

import os
import sqlite3
import zlib
from array import array
from contextlib import closing
from dataclasses import field, replace
from typing import Dict, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.outputs import trace_path
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.files import FileCache, FileProblem, MappedFile, unchanged
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import INDEX
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.packed import SUFFIX, Progress, archive, unpack_as, unpack_into, write
from gdb_uffd.trace.store.page_file import PAGES, SUMS, ZERO_PAGE
from gdb_uffd.trace.store.read import StoreTrace


@dataclass
class TracePackResult:
    """`path`: the file made; `size`: its bytes; `missing`: lines, one for each file that the trace
    needs and that could not be put into it."""

    path: str
    size: int = 0
    missing: List[str] = field(default_factory=list)


def pack(
    trace: StoreTrace,
    path: str,
    *,
    self_contained: bool = True,
    progress: Optional[Progress] = None,
) -> TracePackResult:
    """Write `trace` as the one file `path`, which must not exist; 0600, complete or not at all.

    `self_contained`: the executables and libraries that were mapped go into it.  `progress` is
    called with bytes done and in all (before compression).  UffdError.
    """
    shown = printable(path)
    if os.path.lexists(path):
        raise UffdError(f"{shown}: exists already; remove it or choose another name")
    if trace.pages.missing:
        raise UffdError(
            f"{printable(trace.path)}: {trace.pages.missing} pages are missing from its page file; "
            f"it is not packed (gdb-uffd verify {printable(trace.path)})"
        )
    done = TracePackResult(path)
    try:
        with closing(Scratch("pack")) as scratch:
            index = os.path.join(scratch.path, INDEX)
            trace.index.copy_to(index)
            more = _Files(scratch.path, trace.slots)
            if self_contained:
                done.missing = more.embed(trace, index)
            more.close()
            sources = {
                INDEX: [(index, os.stat(index).st_size)],
                SUMS: [
                    (trace.file(SUMS), 4 * trace.slots),
                    (more.sums, os.stat(more.sums).st_size),
                ],
                PAGES: [
                    (trace.file(PAGES), PAGE_SIZE * trace.slots),
                    (more.pages, os.stat(more.pages).st_size),
                ],
            }
            total = sum(length for source in sources.values() for _, length in source)
            done.size = write(path, archive(sources), total, progress)
    except (OSError, sqlite3.Error) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise UffdError(f"{shown}: cannot be written ({reason}); nothing is left of it") from error
    return done


class _Files:
    """Pages of files that are added behind the last slot of a trace, in files of their own."""

    def __init__(self, directory: str, slots: int) -> None:
        self.pages, self.sums = os.path.join(directory, PAGES), os.path.join(directory, SUMS)
        self._slots = slots
        self._open = [os.fdopen(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
                      for p in (self.pages, self.sums)]  # fmt: skip

    def close(self) -> None:
        """Everything is in the files after this."""
        for file in self._open:
            file.close()

    def embed(self, trace: StoreTrace, index: str) -> List[str]:
        """Add the files of all layouts to the copied `index`; lines for the missing ones."""
        cache = FileCache()
        missing: Dict[str, None] = {}
        known: Dict[object, bytes] = {}
        with closing(sqlite3.connect(index, isolation_level=None)) as db:
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("BEGIN")
            renamed: Dict[bytes, bytes] = {}
            last: Optional[form.SnapshotRow] = None
            for row in trace.rows():
                if row.layout not in renamed:
                    layout = trace.layout(row)
                    embedded = dict(layout.embedded)
                    for path in sorted({m.name for m in layout.mappings} - embedded.keys()):
                        ref = layout.files.get(path)
                        if not path.startswith("/") or ref is None:
                            continue
                        key = path, ref
                        if key not in known:
                            try:
                                known[key] = self._add(db, unchanged(cache, path, ref))
                            except FileProblem as problem:
                                known[key] = b""
                                missing[f"{printable(path)}: {problem}"] = None
                        if known[key]:
                            embedded[path] = known[key]
                    changed = replace(layout, embedded=embedded)
                    renamed[row.layout] = self._object(db, form.LAYOUT, form.encode_layout(changed))
                last = replace(row, layout=renamed[row.layout])
                self._update(db, last)
            if last is not None:
                self._update(db, replace(last, slots=self._slots))
            db.execute("COMMIT")
        cache.close()
        return list(missing)

    @staticmethod
    def _update(db: sqlite3.Connection, row: form.SnapshotRow) -> None:
        values = row.values()
        db.execute(
            "UPDATE snapshots SET slots = ?, layout = ?, crc = ? WHERE number = ?",
            (row.slots, row.layout, values[-1], row.info.number),
        )

    @staticmethod
    def _object(db: sqlite3.Connection, kind: str, content: bytes) -> bytes:
        name = form.digest(kind, content)
        db.execute(
            "INSERT OR IGNORE INTO objects VALUES (?, ?, ?)",
            (name, kind, form.pack_object(content)),
        )
        return name

    def _add(self, db: sqlite3.Connection, opened: MappedFile) -> bytes:
        slots = array("I")
        size = len(opened.data)
        sums = array("I")
        for at in range(0, size, PAGE_SIZE):
            page = opened.data[at : at + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
            if page == ZERO_PAGE:
                slots.append(0)
                continue
            slots.append(self._slots)
            sums.append(zlib.crc32(page))
            self._slots += 1
            self._open[0].write(page)
        self._open[1].write(sums.tobytes())
        return self._object(db, form.FILE_PAGES, size.to_bytes(8, "little") + slots.tobytes())


def unpack(path: str, target: str, chosen: int = 0) -> str:
    """Make the directory `target` (its ending is added) of the packed trace `path`; its path.
    `chosen`: as of compressed.Limit.

    UffdError, and nothing is left, when that is no whole packed trace.
    """

    def fill(made: str) -> None:
        unpack_into(path, made, chosen)
        StoreTrace(made, path=path).close()

    return unpack_as(trace_path(target), fill)


def default_pack_name(path: str) -> str:
    """NAME.uffd.zst beside the trace."""
    return path.rstrip("/") + SUFFIX


def default_unpack_name(path: str) -> str:
    """NAME.uffd for NAME.uffd.zst, in the current directory's sense of `path`."""
    base = path[: -len(SUFFIX)] if path.endswith(SUFFIX) else path
    return trace_path(base)

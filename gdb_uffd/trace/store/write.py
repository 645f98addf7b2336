"""Writing a trace: one transaction a snapshot.

Order on the disk: pages, their checksums, then the index's transaction.  Killed at any instant,
the index tells of whole snapshots only; pages behind what it knows belong to nobody.
The index keeps a write-ahead log (sqlite.org/wal.html) in exclusive mode, without a shared-memory
file, until `close` folds it into one file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import time
from array import array
from contextlib import closing
from typing import Dict, List, Optional, Sequence, Set, Tuple
from typing import Mapping as Dictionary

from gdb_uffd.outputs import trace_path
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    Mapping,
    SnapshotInfo,
    ThreadState,
    UffdError,
    page_ceil,
)
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.files import FileCache, FileProblem, FileRef, unchanged
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import INDEX
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.page_file import PAGES, SUMS, PageFile, header_page
from gdb_uffd.trace.store.page_table import Delta, PageTable, zeros
from gdb_uffd.trace.store.pending import PendingSnapshot

CACHE_KIB = 2048
CHECKPOINT_PAGES = 16384
"""Pages (64 MiB) of the index's log after which it is folded into the index."""

NO_FILES: Dictionary[str, FileRef] = {}


class TraceWriter:
    """Writes one trace, from its first snapshot to its last.  One snapshot is pending at a time.

    Every method raises UffdError, one line, when the trace cannot be written (a full disk);
    the snapshots committed before are then all it has, and nothing more is accepted.
    """

    @classmethod
    def create(cls, path: str, *, self_contained: bool = False) -> "TraceWriter":
        """A new trace at `path` (its ending is added), a directory for the owner only.

        `self_contained`: the files that the process has mapped are copied into it.
        UffdError when something is there already, or it cannot be made.
        """
        path = os.path.abspath(trace_path(path))
        shown = printable(path)
        if os.path.lexists(path):
            raise UffdError(f"{shown}: exists already; remove it or choose another name")
        trace_id = secrets.token_bytes(16)
        try:
            with closing(Scratch("new", beside=path)) as scratch:
                _make_files(scratch.path, trace_id, self_contained)
                scratch.become(path)
        except (OSError, sqlite3.Error) as error:
            raise UffdError(f"{shown}: the trace cannot be made ({_reason(error)})") from error
        return cls(path, self_contained)

    def __init__(self, path: str, self_contained: bool) -> None:
        """Use `create`."""
        self.path = path
        self.self_contained = self_contained
        self.snapshots = 0
        self.pages_stored = 0
        self.failed = ""  # why nothing more can be written
        self.table = PageTable()
        self._slots = 1  # of the page file, in the last commit
        self._known: Set[bytes] = set()  # digests of the objects in the index
        self._keyframe = 0
        self._keyframe_bytes = self._delta_bytes = 0
        self._pending: Optional[PendingSnapshot] = None
        self._embedded: Dict[str, Tuple[FileRef, bytes]] = {}
        self._fds: List[int] = []
        try:
            for name in (".", PAGES, SUMS):
                flags = os.O_RDONLY if name == "." else os.O_RDWR
                self._fds.append(os.open(os.path.join(path, name), flags | os.O_CLOEXEC))
            fcntl.flock(self._fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.pages = PageFile(self._fds[1], self._fds[2])
            self.pages.start(os.pread(self._fds[1], PAGE_SIZE, 0))
            self._index = _open_index(os.path.join(path, INDEX))
        except (OSError, sqlite3.Error) as error:
            for fd in self._fds:
                os.close(fd)
            raise UffdError(
                f"{printable(path)}: the trace cannot be written ({_reason(error)})"
            ) from error

    def begin(
        self,
        info: SnapshotInfo,
        threads: Sequence[ThreadState],
        auxv: bytes,
        mappings: Sequence[Mapping],
        files: Dictionary[str, FileRef] = NO_FILES,
        found: Optional[Dictionary[str, str]] = None,
        unknown: Sequence[Tuple[int, int]] = (),
    ) -> "PendingSnapshot":
        """The next snapshot.  `info.number` and `info.pages_changed` are filled in; `threads`:
        the selected one first; mappings carry the full path of their file, of which `files`
        says what it was, and `found` where it is, when not at its path; of `unknown`, sorted, it is
        not known what it held."""
        self.check()
        if self._pending is not None:
            raise UffdError(f"{printable(self.path)}: a snapshot is being written already")
        if not threads:
            raise UffdError(f"{printable(self.path)}: a snapshot needs a thread")
        embedded = self._embed(mappings, files, found or {}) if self.self_contained else {}
        layout = form.SnapshotMappings(form.clean_mappings(mappings), files, embedded, unknown)
        self._pending = PendingSnapshot(self, info, threads, auxv, layout)
        return self._pending

    def check(self) -> None:
        """UffdError when nothing more can be written."""
        if self.failed:
            raise UffdError(self.failed)
        if not self._fds:
            raise UffdError(f"{printable(self.path)}: the trace is closed")

    def fail(self, error: Exception) -> UffdError:
        """Nothing more goes into this trace; the line that says why."""
        have = "1 snapshot is" if self.snapshots == 1 else f"{self.snapshots} snapshots are"
        self.failed = (
            f"{printable(self.path)}: {_reason(error)}; recording stops, {have} in the trace; "
            f"{_remedy(error)}"
        )
        return UffdError(self.failed)

    def _embed(
        self,
        mappings: Sequence[Mapping],
        files: Dictionary[str, FileRef],
        found: Dictionary[str, str],
    ) -> Dict[str, bytes]:
        """Store the mapped files that are what `files` says; path -> object."""
        out: Dict[str, bytes] = {}
        for path in sorted({m.name for m in mappings if m.name in files}):
            known = self._embedded.get(path)
            if known is None or known[0] != files[path]:
                name = self._embed_file(found.get(path, path), files[path])
                known = self._embedded[path] = (files[path], name)
            if known[1]:
                out[path] = known[1]
        return out

    def _embed_file(self, path: str, ref: FileRef) -> bytes:
        cache = FileCache()
        try:
            try:
                opened = unchanged(cache, path, ref)
            except FileProblem:
                return b""
            size = len(opened.data)
            slots = array("I")
            step = 1 << 22
            for at in range(0, size, step):
                piece = opened.data[at : at + step]
                piece = piece.ljust(page_ceil(len(piece)), b"\0")
                slots.extend(self.store(memoryview(piece), zeros(len(piece) // PAGE_SIZE)))
            return self.add_object(form.FILE_PAGES, size.to_bytes(8, "little") + slots.tobytes())
        finally:
            cache.close()

    def store(self, data: memoryview, old: "array[int]") -> "array[int]":
        """Slots of whole pages, stored unless they are; UffdError."""
        try:
            return self.pages.store(data, old)
        except OSError as error:
            raise self.fail(error) from error

    def add_object(self, kind: str, content: bytes) -> bytes:
        """The digest of an object, which is in the index after this (once committed)."""
        name = form.digest(kind, content)
        if name not in self._known:
            try:
                self._begin()
                self._index.execute(
                    "INSERT INTO objects VALUES (?, ?, ?)", (name, kind, form.pack_object(content))
                )
            except (OSError, sqlite3.Error) as error:
                raise self.fail(error) from error
            self._known.add(name)
        return name

    def _begin(self) -> None:
        if not self._index.in_transaction:
            self._index.execute("BEGIN IMMEDIATE")

    def commit(
        self, row: form.SnapshotRow, table: PageTable, delta: Delta, process: Tuple[int, bytes]
    ) -> None:
        """Make a snapshot part of the trace; UffdError, and it is not.  `process`: its CPU time
        in ns, and the object that tells what it was; b"" when nothing does."""
        number = row.info.number
        blob = delta.encode()
        since = number - self._keyframe
        limit = max(4096, self._keyframe_bytes * 3 // 8)
        full = number == 0 or since >= form.MAX_DELTAS or self._delta_bytes + len(blob) > limit
        if full:
            blob = table.keyframe().encode()
        keyframe = number if full else self._keyframe
        try:
            self.pages.flush()
            self._begin()
            self._index.execute(
                "INSERT INTO page_tables VALUES (?, ?, ?, ?)",
                (number, keyframe, blob, form.table_crc(number, keyframe, blob)),
            )
            marks = ", ".join("?" * 17)
            self._index.execute(f"INSERT INTO snapshots VALUES ({marks})", row.values())
            if process[1]:
                told = (number, *process)
                self._index.execute(
                    "INSERT INTO processes VALUES (?, ?, ?, ?)", (*told, form.row_crc(told))
                )
            self._index.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise self.fail(error) from error
        if full:
            self._keyframe, self._keyframe_bytes, self._delta_bytes = number, len(blob), 0
        else:
            self._delta_bytes += len(blob)
        self.table = table
        self.snapshots = number + 1
        self._slots = row.slots
        self.pages_stored = row.slots - 1

    def release(self, pending: "PendingSnapshot") -> None:
        """That snapshot is committed or abandoned."""
        if self._pending is pending:
            self._pending = None

    def close(self) -> None:
        """Finish the trace: one index file, nothing behind its last page.  Idempotent.

        Never raises: what was committed is in the trace, whether or not this succeeds.
        """
        if not self._fds:
            return
        self._pending = None
        try:
            self.pages.truncate(self._slots)
        except OSError:
            pass
        try:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            self._index.execute(
                "INSERT INTO trace VALUES ('finished_ns', ?)", (str(time.time_ns()),)
            )
            self._index.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            pass  # the log stays beside the index, and readers use it
        try:
            self._index.close()
        except sqlite3.Error:
            pass
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_files(directory: str, trace_id: bytes, self_contained: bool) -> None:
    header = header_page(form.VERSION, trace_id)
    for name, content in ((PAGES, header), (SUMS, b""), (INDEX, b"")):
        fd = os.open(
            os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            0o600,
        )  # fmt: skip
        try:
            os.fchmod(fd, 0o600)
            if content and os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
    index = _open_index(os.path.join(directory, INDEX))
    try:
        index.execute("BEGIN IMMEDIATE")
        for statement in form.SCHEMA.values():
            index.execute(statement)
        index.execute(f"PRAGMA application_id = {form.APPLICATION_ID}")
        index.execute(f"PRAGMA user_version = {form.VERSION}")
        facts = {
            "trace_id": trace_id.hex(),
            "created_ns": str(time.time_ns()),
            "self_contained": str(int(self_contained)),
        }
        index.executemany("INSERT INTO trace VALUES (?, ?)", facts.items())
        index.execute("COMMIT")
    finally:
        index.close()


def _open_index(path: str) -> sqlite3.Connection:
    # check_same_thread: the recorder may commit on another thread than it began on.
    index = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        # Exclusive before the log is first used: it then needs no shared-memory file.
        index.execute("PRAGMA locking_mode = EXCLUSIVE")
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = FULL")
        index.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        index.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except sqlite3.Error:
        index.close()
        raise
    return index


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


def _remedy(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else 0
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "full" in str(error):
        return "free some space and record anew"
    return "record anew into another directory"

"""Reading a trace's index without writing to it, whoever made it and however it ended.

A finished index is one file, opened as immutable: no lock, no side file.  One that is being
written, or whose writer was killed, has a log beside it (sqlite.org/fileformat2.html, "The
Write-Ahead Log"); it is copied with its log to a private directory and folded there.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import struct
from contextlib import closing
from typing import Any, Dict, List, Optional, Tuple

from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.files.automount import NOT_ASKED, may_look
from gdb_uffd.trace.scratch import Scratch
from gdb_uffd.trace.source import INDEX
from gdb_uffd.trace.store import format as form

MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes; sqlite.org/fileformat2.html, "The Database Header"
_USER_VERSION, _APPLICATION_ID, _WRITE_VERSION = 60, 68, 18
_PAGE_SIZE, _PAGES = 16, 28
WAL, JOURNAL = "-wal", "-journal"
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
ATTEMPTS = 20  # a writer that folds its log between two of our reads costs one each
MAX_GAP = 1000  # missing snapshots that are told one by one


def check_regular(path: str) -> int:
    """Size of the regular file `path`; UffdError for anything else.  Nothing is opened."""
    shown = printable(path)
    try:
        if not may_look(path):
            raise UffdError(f"{shown}: {NOT_ASKED}")
        status = os.stat(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UffdError(f"{shown}: missing; the trace is not whole, get it again") from error
        raise UffdError(f"{shown}: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise UffdError(f"{shown}: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UffdError(f"{shown}: not a regular file, which a trace's files are")
    return status.st_size


def open_regular(path: str) -> int:
    """A descriptor of the regular file `path`; UffdError.  Never opens a device or waits."""
    check_regular(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise UffdError(
            f"{printable(path)}: {os.strerror(error.errno or 0).lower()}; "
            "read it as its owner (chown or sudo)"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UffdError(f"{printable(path)}: not a regular file, which a trace's files are")
    return fd


class TraceIndex:
    """The rows and objects of a trace.  Methods raise FormatError for damaged ones."""

    def __init__(self, directory: str, shown: str = "") -> None:
        """Open it; UffdError, one line, when it is no index that this version can read.
        `shown`: what the user calls the trace."""
        self.directory = directory
        self.shown = printable(shown or directory)
        self.path = os.path.join(directory, INDEX)
        self.finished = False
        self.version = ""
        self.cut = ""  # how much of the file is there, when not all of it is
        self.has_processes = False
        self.problem = ""  # why not all rows of `snapshots` could be read
        self._objects: Dict[bytes, bytes] = {}
        self._objects_bytes = 0
        try:
            self._connection = self._open()
            try:
                self._check_schema()
                self.facts = self._facts()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise UffdError(
                f"{self.shown}: damaged index ({error}); get the trace again"
            ) from error
        except OSError as error:
            name = os.fsdecode(error.filename) if error.filename is not None else self.path
            raise UffdError(
                f"{printable(name)}: {os.strerror(error.errno or 0)}; the index of an unfinished "
                "trace is copied to TMPDIR, which needs room for it"
            ) from error

    def _open(self) -> sqlite3.Connection:
        self._check_header()
        if self.finished:
            return _connect(self.path)
        with closing(Scratch("index")) as scratch:
            for _ in range(ATTEMPTS):
                if self._copy(scratch.path):
                    break
                self._check_header()
                if self.finished:
                    return _connect(self.path)
            else:
                raise UffdError(
                    f"{printable(self.path)}: changes faster than it can be read; try again"
                )
            copy = os.path.join(scratch.path, INDEX)
            with closing(sqlite3.connect(copy, isolation_level=None)) as folding:
                folding.execute("PRAGMA trusted_schema = OFF")
                folding.execute("PRAGMA synchronous = OFF")  # a copy that nobody will miss
                folding.execute("PRAGMA journal_mode = DELETE")
            return _connect(copy)

    def _check_header(self) -> None:
        """What the file says of itself, before SQLite reads it; sets `finished`."""
        fd = open_regular(self.path)
        try:
            head, size = os.pread(fd, _HEADER, 0), os.fstat(fd).st_size
        finally:
            os.close(fd)
        shown = self.shown
        if len(head) < _HEADER or head[:16] != MAGIC:
            raise UffdError(f"{shown}: its {INDEX} is no trace index; get the trace again")
        (application,) = struct.unpack_from(">I", head, _APPLICATION_ID)
        (version,) = struct.unpack_from(">I", head, _USER_VERSION)
        if application != form.APPLICATION_ID:
            raise UffdError(f"{shown}: its {INDEX} is a database of something else")
        check_version(shown, version)
        self.version = f"{version // 1000}.{version % 1000}"
        beside = any(os.path.lexists(self.path + end) for end in (WAL, JOURNAL))
        self.finished = head[_WRITE_VERSION] == 1 and not beside
        (page,) = struct.unpack_from(">H", head, _PAGE_SIZE)
        (pages,) = struct.unpack_from(">I", head, _PAGES)
        whole = pages * (page if page != 1 else 1 << 16)
        self.cut = f"{size} of {whole} bytes" if self.finished and size < whole else ""

    def _copy(self, target: str) -> bool:
        """Copy index and log to `target`; False when the writer folded the log meanwhile.

        The index first: what of the log was folded into it by then is in the log still, unless
        that began anew, which its header shows.
        """
        before = self._log_header()
        sizes = [check_regular(self.path)]
        sizes += [os.stat(p).st_size for p in self._side_files()]
        free = os.statvfs(target)
        if sum(sizes) > free.f_bavail * free.f_frsize:
            raise UffdError(
                f"{printable(self.path)}: its writer was killed or still records, and to read it "
                f"{sum(sizes) >> 20} MiB must be copied to {printable(target)}, which is full; "
                "set TMPDIR to a place with room"
            )
        for name in (INDEX, INDEX + WAL, INDEX + JOURNAL):
            source, copy = os.path.join(self.directory, name), os.path.join(target, name)
            if os.path.lexists(copy):
                os.unlink(copy)
            if name != INDEX and not os.path.lexists(source):
                continue
            try:
                fd = open_regular(source)
            except UffdError:
                if name == INDEX or os.path.lexists(source):
                    raise
                return False  # folded and removed since we looked
            with open(fd, "rb") as old, open(copy, "xb") as new:
                while True:
                    part = old.read(1 << 20)
                    if not part:
                        break
                    new.write(part)
        _check_journal(os.path.join(target, INDEX + JOURNAL), self.shown)
        return before == self._log_header()

    def _side_files(self) -> List[str]:
        return [p for p in (self.path + WAL, self.path + JOURNAL) if os.path.lexists(p)]

    def _log_header(self) -> Optional[bytes]:
        """The 32 bytes that change when the log begins anew; None without one."""
        if not os.path.lexists(self.path + WAL):
            return None
        try:
            fd = open_regular(self.path + WAL)
        except UffdError:
            if os.path.lexists(self.path + WAL):
                raise
            return None
        try:
            return os.pread(fd, 32, 0)
        finally:
            os.close(fd)

    def _check_schema(self) -> None:
        found: Dict[str, str] = {}
        for kind, name, sql in self._connection.execute(
            "SELECT type, name, sql FROM sqlite_master"
        ):
            # Triggers and views are programs; they would run when the trace is packed.
            program = kind not in ("table", "index") or "VIRTUAL" in str(sql or "").upper()
            if program or type(name) is not str:
                raise UffdError(
                    f"{self.shown}: its index has a {printable(str(kind))} that no trace has; "
                    "get the trace again"
                )
            if kind == "table":
                found[name] = sql
        self.has_processes = "processes" in found
        for name, sql in form.SCHEMA.items():
            if found.get(name, sql if name in form.SINCE_1_1 else None) != sql:
                raise UffdError(
                    f"{self.shown}: damaged index (its table {name!r} is not as every trace "
                    "has it); get the trace again"
                )

    def _facts(self) -> Dict[str, str]:
        out: Dict[str, str] = {}
        for key, value in self._connection.execute("SELECT key, value FROM trace LIMIT 100"):
            if type(key) is str and type(value) is str:
                out[key] = value
        return out

    def rows(self) -> List[Tuple[Optional[form.SnapshotRow], str]]:
        """A row for each snapshot, in order; (None, why) for one that is damaged or missing."""
        out: List[Tuple[Optional[form.SnapshotRow], str]] = []
        try:
            for values in self._connection.execute("SELECT * FROM snapshots ORDER BY number"):
                number, why = values[0], ""
                row: Optional[form.SnapshotRow] = None
                try:
                    row = form.SnapshotRow.check(values)
                except form.FormatError as error:
                    why = str(error)
                if number != len(out):
                    gap = type(number) is int and len(out) < number <= len(out) + MAX_GAP
                    if row is None or not gap:  # a damaged number tells nothing
                        self.problem = f"the index has a damaged row behind snapshot {len(out) - 1}"
                        continue
                    while len(out) < number:
                        out.append((None, "its row is missing in the index"))
                out.append((row, why))
            (last,) = self._connection.execute("SELECT max(number) FROM page_tables").fetchone()
            while type(last) is int and len(out) <= last < len(out) + MAX_GAP:
                out.append((None, "its row is missing in the index"))
        except (sqlite3.Error, OverflowError) as error:
            self.problem = f"the index is damaged behind snapshot {len(out) - 1} ({error})"
        return out

    def delta(self, number: int) -> Tuple[int, bytes]:
        """(its keyframe's number, encoded delta) of the page table of a snapshot."""
        row = self._row("SELECT keyframe, delta, crc FROM page_tables WHERE number = ?", number)
        if row is None:
            raise form.FormatError(f"the page table of snapshot {number} is missing in the index")
        keyframe, delta, crc = row
        if type(keyframe) is not int or type(delta) is not bytes:
            raise form.FormatError(f"the page table of snapshot {number} is damaged")
        if not 0 <= keyframe <= number or form.table_crc(number, keyframe, delta) != crc:
            raise form.FormatError(f"the page table of snapshot {number} is damaged")
        return keyframe, delta

    def process(self, number: int) -> Optional[Tuple[int, bytes]]:
        """(CPU time in ns, name of the object) of what the process was; None where none is."""
        if not self.has_processes:
            return None
        row = self._row("SELECT cpu_ns, process, crc FROM processes WHERE number = ?", number)
        if row is None:
            return None
        cpu_ns, name, crc = row
        if type(cpu_ns) is not int or type(name) is not bytes:
            raise form.FormatError("its record of the process is damaged")
        if cpu_ns < 0 or form.row_crc((number, cpu_ns, name)) != crc:
            raise form.FormatError("its record of the process is damaged")
        return cpu_ns, name

    def object(self, name: bytes, kind: str) -> bytes:
        """The content of an object."""
        known = self._objects.get(name)
        if known is not None:
            return known
        row = self._row("SELECT content FROM objects WHERE digest = ?", name)
        content = form.unpack_object(name, kind, row[0] if row else None)
        self._objects_bytes += len(content)
        if self._objects_bytes > 16 << 20:
            self._objects.clear()
            self._objects_bytes = len(content)
        self._objects[name] = content
        return content

    def _row(self, query: str, key: Any) -> Optional[Tuple[Any, ...]]:
        try:
            row: Optional[Tuple[Any, ...]] = self._connection.execute(query, (key,)).fetchone()
        except (sqlite3.Error, OverflowError) as error:
            raise form.FormatError(f"the index is damaged ({error})") from error
        return row

    def copy_to(self, target: str) -> None:
        """A copy in one file, all of the log in it, 0600; sqlite3.Error, OSError."""
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(target)) as copy:
            self._connection.backup(copy)

    def close(self) -> None:
        """Close the index.  Idempotent."""
        self._connection.close()


def _check_journal(path: str, shown: str) -> None:
    """UffdError for a rollback journal that names a super-journal: SQLite deletes the file of that
    name, whatever it is (pager.c, pager_delsuper).  No writer of traces makes one.

    "The Rollback Journal", sqlite.org/fileformat2.html; the name stands before its magic, at
    the journal's end.
    """
    if not os.path.lexists(path):
        return
    with open(path, "rb") as journal:
        size = journal.seek(0, os.SEEK_END)
        journal.seek(max(0, size - len(JOURNAL_MAGIC)))
        if journal.read() == JOURNAL_MAGIC:
            raise UffdError(f"{shown}: damaged index (its journal names another); get it again")


def check_version(shown: str, version: int) -> None:
    """UffdError for a trace of a newer major version: what it holds may mean something else."""
    major, minor = divmod(version, 1000)
    if major > form.MAJOR:
        raise UffdError(
            f"{shown}: a trace of format {major}.{minor}, newer than {form.MAJOR}.x, which this "
            "gdb-uffd reads; open it with a newer gdb-uffd"
        )
    if major < 1:
        raise UffdError(f"{shown}: damaged (format {major}.{minor}); get the trace again")


def _connect(path: str) -> sqlite3.Connection:
    """Opened so that nothing is written or locked, and nothing in the file is run."""
    name = "".join(f"%{byte:02x}" for byte in os.fsencode(os.path.abspath(path)))
    connection = sqlite3.connect(
        f"file:{name}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection

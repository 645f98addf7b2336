"""How a trace is written down: the index's tables, and the objects that its snapshots refer to.

docs/trace-format.md describes what this module does.  Everything read is checked: rows carry a
CRC-32, objects are named by the BLAKE2b-128 of their content, so that no damage in the
index can pass for another thread's registers or another snapshot's pages.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from dataclasses import field
from typing import Any, Dict, List, Sequence, Tuple
from typing import Mapping as Dictionary

from gdb_uffd.arch import RECORDED
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    Mapping,
    Registers,
    SnapshotInfo,
    ThreadState,
)
from gdb_uffd.trace.core.notes import MAX_AUXV, SIGINFO_SIZE, USER_END
from gdb_uffd.trace.files.files import FileRef
from gdb_uffd.trace.source import SLOT_UNAVAILABLE

APPLICATION_ID = 0x75666664  # "uffd"; PRAGMA application_id (sqlite.org/pragma.html)
MAJOR, MINOR = 1, 1
VERSION = MAJOR * 1000 + MINOR  # PRAGMA user_version

SCHEMA: Dict[str, str] = {
    "trace": "CREATE TABLE trace (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "snapshots": (
        "CREATE TABLE snapshots (number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, "
        "monotonic_ns INTEGER NOT NULL, label TEXT NOT NULL, pid INTEGER NOT NULL, "
        "tid INTEGER NOT NULL, thread_name TEXT NOT NULL, function TEXT NOT NULL, "
        "threads INTEGER NOT NULL, pages_changed INTEGER NOT NULL, pause_us INTEGER NOT NULL, "
        "signal INTEGER NOT NULL, slots INTEGER NOT NULL, thread_list BLOB NOT NULL, "
        "layout BLOB NOT NULL, auxv BLOB NOT NULL, crc INTEGER NOT NULL)"
    ),
    "page_tables": (
        "CREATE TABLE page_tables (number INTEGER PRIMARY KEY, keyframe INTEGER NOT NULL, "
        "delta BLOB NOT NULL, crc INTEGER NOT NULL)"
    ),
    "objects": (
        "CREATE TABLE objects (digest BLOB PRIMARY KEY, kind TEXT NOT NULL, content BLOB NOT NULL)"
    ),
    "processes": (
        "CREATE TABLE processes (number INTEGER PRIMARY KEY, cpu_ns INTEGER NOT NULL, "
        "process BLOB NOT NULL, crc INTEGER NOT NULL)"
    ),
}
"""The tables, exactly.  A newer minor version may add tables, and leaves these as they are."""
SINCE_1_1 = frozenset({"processes"})
"""Tables that traces of version 1.0 have not got."""

THREAD, THREADS, LAYOUT, AUXV, FILE_PAGES = "thread", "threads", "layout", "auxv", "file"
PROCESS = "process"

MAX_DELTAS = 32
"""Deltas between two keyframes at most: what one snapshot costs to open is bounded by it."""

DIGEST_SIZE = 16
MAX_OBJECT = {
    THREAD: 1 << 16,
    THREADS: 4 << 20,
    LAYOUT: 32 << 20,
    AUXV: 1 << 16,
    FILE_PAGES: 1 << 28,
    PROCESS: 1 << 20,
}
"""Bytes of one object, unpacked (a layout of 65,530 mappings has about 6 MiB)."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
MAX_TEXT = 4096
MAX_THREADS = 1 << 18

_THREAD = struct.Struct("<iIQQ27QHH")  # TID, signal, sigmask, xfeatures, registers, two lengths


_COLUMNS = (*[int] * 3, str, int, int, str, str, *[int] * 5, *[bytes] * 3, int)
"""What the columns of `snapshots` hold."""


class FormatError(Exception):
    """Something in the index is not as it was written; the text says what, in a line: what was read
    is in it, and may be of any length."""

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= 300 else f"{text[:299]}…")


@dataclass(frozen=True)
class SnapshotRow:
    """A row of `snapshots`.  `slots`: slots of the page file in use when it was committed."""

    info: SnapshotInfo
    slots: int
    thread_list: bytes
    layout: bytes
    auxv: bytes

    def values(self) -> Tuple[Any, ...]:
        """The columns in the schema's order, the checksum last."""
        i = self.info
        columns = (
            i.number, i.time_ns, i.monotonic_ns, i.label, i.pid, i.tid, i.thread_name, i.function,
            i.threads, i.pages_changed, i.pause_us, i.signal, self.slots, self.thread_list,
            self.layout, self.auxv,
        )  # fmt: skip
        return (*columns, row_crc(columns))

    @classmethod
    def check(cls, values: Sequence[Any]) -> "SnapshotRow":
        """The row that `values` made; FormatError when it is damaged."""
        if len(values) != 17 or row_crc(values[:-1]) != values[-1]:
            raise FormatError("its row does not match its checksum")
        number, time_ns, mono_ns, label, pid, tid, name, function, *rest = values[:-4]
        digests = values[-4:-1]
        kinds = tuple(map(type, values))
        if kinds != _COLUMNS:
            wrong = next(k for k, (one, two) in enumerate(zip(kinds, _COLUMNS)) if one is not two)
            what = {int: "number", str: "text", bytes: "reference"}[_COLUMNS[wrong]]
            raise FormatError(f"a {what} in its row is none")
        if min(number, time_ns, mono_ns, pid, tid, *rest) < 0:
            raise FormatError("a number in its row is none")
        if len(label) > MAX_TEXT or len(name) > MAX_TEXT or len(function) > MAX_TEXT:
            raise FormatError("a text in its row is none")
        if not len(digests[0]) == len(digests[1]) == len(digests[2]) == DIGEST_SIZE:
            raise FormatError("a reference in its row is none")
        threads, changed, pause_us, signal, slots = rest
        if not 0 < slots <= SLOT_UNAVAILABLE:
            raise FormatError(f"its row speaks of {slots} pages")
        info = SnapshotInfo(
            number, time_ns, mono_ns, label, pid, tid, name, function, threads, changed, pause_us,
            signal,
        )  # fmt: skip
        return cls(info, slots, *digests)


def row_crc(columns: Sequence[Any]) -> int:
    """CRC-32 of a row: numbers and texts in decimal and UTF-8, blobs in hex, each followed by a
    unit separator (0x1f)."""
    parts = [c.hex() if isinstance(c, bytes) else str(c) for c in columns]
    return zlib.crc32("\x1f".join(parts).encode("utf-8", "surrogatepass"))


def table_crc(number: int, keyframe: int, delta: bytes) -> int:
    """CRC-32 of a row of `page_tables`."""
    return zlib.crc32(delta, zlib.crc32(b"%d %d " % (number, keyframe)))


def plain_text(text: str) -> str:
    """`text` as the index can hold it: valid Unicode, at most MAX_TEXT characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:MAX_TEXT]


def digest(kind: str, content: bytes) -> bytes:
    """The name of an object: BLAKE2b with 128 bits of kind, NUL, content."""
    return hashlib.blake2b(kind.encode() + b"\0" + content, digest_size=DIGEST_SIZE).digest()


def pack_object(content: bytes) -> bytes:
    """`content` as it lies in the index: zlib (RFC 1950)."""
    return zlib.compress(content, 1)


def unpack_object(name: bytes, kind: str, packed: Any) -> bytes:
    """The content of the object `name`; FormatError unless it is that."""
    if type(packed) is not bytes:
        raise FormatError(f"a {kind} record is missing in the index")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, MAX_OBJECT[kind])
    except zlib.error as error:
        raise FormatError(f"a {kind} record cannot be unpacked ({error})") from error
    if unpacker.unconsumed_tail or digest(kind, content) != name:
        raise FormatError(f"a {kind} record is damaged")
    return content


def encode_thread(thread: ThreadState) -> bytes:
    """One thread: numbers, name, siginfo, then the extended registers."""
    r = thread.registers
    name = thread.name.encode("utf-8", "backslashreplace")[:255]
    siginfo = thread.siginfo if len(thread.siginfo) == SIGINFO_SIZE else b""
    head = _THREAD.pack(
        thread.tid, thread.signal, thread.sigmask, r.xfeatures, *r.gpr, len(name), len(siginfo)
    )
    return head + name + siginfo + r.xstate


def decode_thread(raw: bytes) -> ThreadState:
    """What `encode_thread` wrote; FormatError."""
    if len(raw) < _THREAD.size:
        raise FormatError("a thread record is too short")
    tid, signal, sigmask, xfeatures, *gpr, name_len, siginfo_len = _THREAD.unpack_from(raw)
    siginfo_at = _THREAD.size + name_len
    xstate_at = siginfo_at + siginfo_len
    if siginfo_len not in (0, SIGINFO_SIZE) or len(raw) != xstate_at + RECORDED.vectors.size:
        raise FormatError(f"a thread record of {len(raw)} bytes")
    if tid <= 0 or signal > 64:
        raise FormatError(f"a thread record with TID {tid}, signal {signal}")
    name = raw[_THREAD.size : siginfo_at].decode("utf-8", "backslashreplace")
    registers = Registers(gpr, raw[xstate_at:], xfeatures, RECORDED)
    return ThreadState(tid, registers, signal, raw[siginfo_at:xstate_at], sigmask, name)


@dataclass(frozen=True)
class SnapshotMappings:
    """The mappings of a snapshot and what its files were.  `embedded`: path -> digest of the
    object that says in which slots the file's content lies.  `unknown`: where it is not known what
    the memory held (source.Segment)."""

    mappings: Sequence[Mapping]
    files: Dictionary[str, FileRef] = field(default_factory=dict)
    embedded: Dictionary[str, bytes] = field(default_factory=dict)
    unknown: Sequence[Tuple[int, int]] = ()


def encode_layout(layout: SnapshotMappings) -> bytes:
    """JSON: {"mappings": [[start, end, prot, name, offset, unavailable], ...],
    "files": {path: [build-id in hex, size, mtime_ns, digest in hex or ""]}}, and where there is any
    "unknown": [[start, end], ...]."""
    files = {
        path: [ref.build_id.hex(), ref.size, ref.mtime_ns, layout.embedded.get(path, b"").hex()]
        for path, ref in sorted(layout.files.items())
    }
    mappings = [[m.start, m.end, m.prot, m.name, m.offset, m.unavailable] for m in layout.mappings]
    told: Dict[str, Any] = {"mappings": mappings, "files": files}
    if layout.unknown:
        told["unknown"] = layout.unknown
    return json.dumps(told, separators=(",", ":")).encode()


def decode_layout(raw: bytes) -> SnapshotMappings:
    """What `encode_layout` wrote: sorted, disjoint, page-aligned user memory; FormatError."""
    # What is written here has twenty bytes and more for each list; an unpacked list costs more.
    structure = _STRING.sub(b"", raw)
    if (structure.count(b"[") + structure.count(b"{")) * 8 > len(structure) + 64:
        raise FormatError("a layout record is malformed (lists of nothing)")
    try:
        data = json.loads(raw)
        mappings = [Mapping(*m) for m in data["mappings"]]
        files: Dict[str, FileRef] = {}
        embedded: Dict[str, bytes] = {}
        for path, (build_id, size, mtime_ns, name) in data["files"].items():
            files[path] = FileRef(bytes.fromhex(build_id), _natural(size), _natural(mtime_ns))
            if name:
                embedded[path] = bytes.fromhex(name)
        position = 0
        for m in mappings:
            for number in (m.start, m.end, m.prot, m.offset):
                _natural(number)
            if not position <= m.start < m.end <= USER_END or m.prot > 7 or m.offset >= 1 << 63:
                raise ValueError(f"mapping {m.start:#x}-{m.end:#x}")
            if (m.start | m.end | m.offset) % PAGE_SIZE:
                raise ValueError(f"mapping {m.start:#x}-{m.end:#x}")
            if type(m.name) is not str or type(m.unavailable) is not str:
                raise ValueError(f"mapping {m.start:#x}-{m.end:#x}")
            position = m.end
        unknown = [(_natural(start), _natural(end)) for start, end in data.get("unknown", ())]
        position = 0
        for start, end in unknown:
            if not position <= start < end <= USER_END or (start | end) % PAGE_SIZE:
                raise ValueError(f"unknown {start:#x}-{end:#x}")
            position = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"a layout record is malformed ({error})") from error
    return SnapshotMappings(mappings, files, embedded, unknown)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} is no number")
    return value


def decode_threads(raw: bytes) -> List[bytes]:
    """The digests of a thread list, the selected thread's first; FormatError."""
    if not raw or len(raw) % DIGEST_SIZE or len(raw) > MAX_THREADS * DIGEST_SIZE:
        raise FormatError(f"a list of threads of {len(raw)} bytes")
    return [raw[i : i + DIGEST_SIZE] for i in range(0, len(raw), DIGEST_SIZE)]


def check_auxv(raw: bytes) -> bytes:
    """The auxiliary vector; FormatError."""
    if len(raw) % 16 or len(raw) > MAX_AUXV:
        raise FormatError(f"an auxiliary vector of {len(raw)} bytes")
    return raw


def clean_mappings(mappings: Sequence[Mapping]) -> List[Mapping]:
    """`mappings` as a layout holds them: sorted, user memory only ([vsyscall] is left out)."""
    kept = [m for m in mappings if m.end <= USER_END and m.start < m.end]
    return sorted(kept, key=lambda m: m.start)

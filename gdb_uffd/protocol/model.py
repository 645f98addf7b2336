"""The data that both sides share: plain dataclasses, no gdb, no native code.

Address ranges are half-open, ``[start, end)``.  See codec.py for their form in JSON, and
messages*.py for the messages built from these.
"""

from __future__ import annotations

from dataclasses import field
from typing import List, Optional, Tuple

from gdb_uffd.arch import GPR as GPR
from gdb_uffd.arch import Registers as Registers
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import (
    End,
    Grant,
    PassedLock,
    Refusal,
    Remark,
    Uncaught,
    Wait,
)
from gdb_uffd.protocol.fields import LEFT_OUT, Address

PAGE_SIZE = 4096
"""Bytes a page of x86-64 (psABI 3.3.1), and the unit everywhere; pages of an AArch64 kernel may be
larger."""

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
"""mmap(2) protection bits as Linux has them on x86-64."""

PROTOCOL_VERSION = 2
"""Version of the ``quffd`` packets; both sides refuse another one."""

THREAD_CONTROL = "(struct pthread)"
"""What the block at the thread pointer is called where thread-locals are (glibc, nptl/descr.h)."""

ENGINE_LACKS = {
    "wp-sync": "",
    "wp-async": "who wrote a page first is not known",
    "soft-dirty": "who wrote a page first is not known",
    "compare": "neither who wrote a page first is known, nor which pages were written with what "
    "they held",
}
"""What each engine cannot tell (docs/engines.md)."""
ENGINES = tuple(ENGINE_LACKS)
TELLING = tuple(name for name in ENGINES if not ENGINE_LACKS[name])
"""Those that tell who wrote each page first, and when."""
ENGINE_AUTO = "auto"  # the best of them that works

SCHEMA_VERSION = 2
"""Version of the object that ``uffd call -json`` prints (docs/json.md)."""


def page_floor(address: int) -> int:
    """The start of the page that holds `address`."""
    return address & ~(PAGE_SIZE - 1)


def page_ceil(address: int) -> int:
    """The first page boundary at or after `address`."""
    return (address + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)


class UffdError(Exception):
    """An error a user can do something about: one line, with what to do next."""


class MemoryUnavailable(UffdError):
    """`address` has no recorded byte; `reason` says why, in the user's words."""

    def __init__(self, address: int, reason: str) -> None:
        super().__init__(f"{address:#x}: {reason}")
        self.address = address
        self.reason = reason


@dataclass(frozen=True)
class Mapping:
    """One mapping of the recorded process, as /proc/PID/maps would list it.

    `name` is a file's path, a bracketed name ("[heap]", "[stack]", "[vdso]") or "".
    `offset` is the file offset in bytes.  `unavailable` is "" or why its bytes
    cannot be had ("truncated core", "/lib/libx.so: no such file", ...).
    """

    start: Address
    end: Address
    prot: int
    name: str = ""
    offset: int = 0
    unavailable: str = ""

    def prot_text(self) -> str:
        """The protection as "rwx" with "-" for what is not allowed (proc(5))."""
        return "".join(c if self.prot & b else "-" for c, b in (("r", 1), ("w", 2), ("x", 4)))


@dataclass
class ThreadState:
    """One recorded thread: TID, registers, and how it was stopped."""

    tid: int
    registers: Registers
    signal: int = 0  # Linux number of the signal it stopped by, 0 for none
    siginfo: bytes = b""  # siginfo_t, 128 bytes, or empty
    sigmask: int = 0  # blocked signals, bit (n - 1) for signal n
    name: str = ""


@dataclass(frozen=True)
class SnapshotInfo:
    """What a trace tells of one of its snapshots without opening it.

    `number` counts from 0.  `time_ns`: CLOCK_REALTIME when it was taken, 0 when unknown;
    `monotonic_ns`: CLOCK_MONOTONIC then, 0 when unknown.  `tid`, `thread_name`: the thread that
    was selected; `function`: its innermost function as the recording gdb named it, "" when it
    could not.  `pages_changed`: pages that differ from the snapshot before (of the first one: all
    recorded pages).  `pause_us`: how long the process stood still for it.  `signal`: the one
    it had stopped by, 0 for none.
    """

    number: int
    time_ns: int = 0
    monotonic_ns: int = 0
    label: str = ""
    pid: int = 0
    tid: int = 0
    thread_name: str = ""
    function: str = ""
    threads: int = 0
    pages_changed: int = 0
    pause_us: int = 0
    signal: int = 0


@dataclass(frozen=True)
class FirstWrite:
    """Who wrote a page first: instruction, stack pointer, recorded TID; `address` is the first
    byte written (its page's start where the kernel does not tell: Linux before 5.18).

    `callers`: the return addresses of its frames, innermost first, at most CALLERS_MAX of
    native/pager/callers.h; one of a recursion once; behind a frame that a signal interrupted, its
    instruction + 1. They end where gdb's call began, or where a frame cannot be followed.
    """

    pc: Address
    sp: Address
    tid: int
    callers: Tuple[Address, ...] = ()
    address: Address = 0

    @property
    def pcs(self) -> Tuple[int, ...]:
        """Of its instruction and of the calls that led there: a return address may be the first of
        the next line, the call lies one byte before it."""
        return self.pc, *(address - 1 for address in self.callers if address)


@dataclass
class DirtyRange:
    """Bytes that differ: `before` and `after` are of the same length.

    What follows tells them apart from the rest of their page: `kind` ("" as the page) and
    `thread` as in DirtyPage; `role`: "" the program's data, "malloc" the bookkeeping of the C
    library's malloc, "linker" a slot that the dynamic linker fills, "freed" memory that no block
    holds any more, "scratch" a stack below every frame; `symbol`: the name in the ELF file of the
    thread-local that lies there (or THREAD_CONTROL), which begins at `symbol_start`.
    """

    address: Address
    before: bytes
    after: bytes
    kind: str = field(default="", metadata=LEFT_OUT)
    thread: Optional[int] = field(default=None, metadata=LEFT_OUT)
    role: str = field(default="", metadata=LEFT_OUT)
    symbol: str = field(default="", metadata=LEFT_OUT)
    symbol_start: Address = field(default=0, metadata=LEFT_OUT)

    def changed(self) -> List[int]:
        """Addresses of the bytes that differ, ascending."""
        pairs = enumerate(zip(self.before, self.after))
        return [self.address + i for i, (old, new) in pairs if old != new]


@dataclass(frozen=True)
class Block:
    """A block of malloc's heap that holds changed bytes: `[start, start + size)` is the caller's.

    `state`: "allocated" or "freed" by the call, "live" before and after, "gone" when it was
    neither (the call allocated and freed it).  `path`: how pointers lead to it, see Path.
    """

    start: Address
    size: int
    state: str
    path: Optional[Path] = None


@dataclass(frozen=True)
class Path:
    """Pointers from an object to a block.  `root`: the object's number (quffd.reach), -1 for a
    path too long to tell; `steps`: for each pointer the address of the object it stands in, that
    object's element, and the pointer's number in the element's type (-1 - n: its nth array);
    `at`, `type`: where the last one points and to which type's number (-1: void)."""

    root: int
    steps: Tuple[Tuple[Address, int, int], ...]
    at: Address
    type: int
    after: bool = True  # found in the memory after the call, else in that before
    count: int = 1  # how many of them lie there, as what holds the pointer tells


@dataclass
class DirtyPage:
    """One page that was written.

    `kind` is data, tls, heap, stack or anonymous; `thread` is the TID for tls and stack.
    `writers`: "program", "assignment" (gdb, as an expression or `set var` says), "gdb" (pushed
    frames, breakpoints, arguments), "malloc" (gdb's own call of the inferior's malloc for a
    string argument).  `ranges` holds the first differences, joined when at most 7 equal bytes lie
    between (of a stack page only one: its scratch says little); `more_ranges` tells of a cut.
    """

    start: Address
    end: Address
    kind: str
    mapping: str
    bytes_changed: int
    thread: Optional[int] = None
    writers: List[str] = field(default_factory=list)
    first_write: Optional[FirstWrite] = None
    ranges: List[DirtyRange] = field(default_factory=list)
    more_ranges: bool = False
    bytes_above: int = 0  # of a stack page: changed bytes in frames that were there before
    around: List[DirtyRange] = field(default_factory=list)  # the 16-byte blocks of the ranges
    mapping_start: Address = 0  # of its mapping (of a file: of its first one); 0: not known

    @property
    def meant(self) -> bool:
        """Whether it was written by what was asked for, not only by gdb for its own ends."""
        return "program" in self.writers or "assignment" in self.writers


@dataclass
class PageRange:
    """Neighbouring pages that a report does not list one by one; fields as of DirtyPage."""

    start: Address
    end: Address
    kind: str
    mapping: str
    thread: Optional[int]
    bytes_changed: int


@dataclass(frozen=True)
class HeapTotals:
    """What malloc's heaps hold after and did not before, and the reverse: blocks and bytes (of
    the caller; a block that grew or shrank counts in bytes only)."""

    allocated: int = 0
    allocated_bytes: int = 0
    freed: int = 0
    freed_bytes: int = 0


FLAWS = (
    "unreadable", "size-unaligned", "size-small", "size-beyond", "size-mmapped", "prev-size", "top",
    "list-not-a-block", "list-in-use", "list-size", "list-twice", "unlisted", "link-unaligned",
    "link-unreadable", "link-loop", "link-back", "list-long", "tcache-count", "tcache-key",
    "no-heap", "no-arena", "no-thread-locals", "too-many",
)  # fmt: skip
"""What can be wrong with a heap; see Damage."""


@dataclass(frozen=True)
class FreeList:
    """A list of free blocks: `kind` "tcache" (of the thread `tid`, 0 where it is not known, with
    its `index`), "fastbin", "unsorted", "small" or "large" (of the arena `arena`).  `low`, `high`:
    the chunk sizes that belong there, half-open; `high` 0: no limit.  `blocks` and `bytes` (of the
    chunks) are what was found; `count` is what a cache's own counter says, else -1.  `damaged`: it
    leads no further."""

    kind: str
    index: int
    low: int
    high: int
    arena: Address = 0
    tid: int = 0
    blocks: int = 0
    bytes: int = 0
    count: int = -1
    damaged: bool = False
    first: List[Address] = field(default_factory=list)  # blocks as they are linked, the first few


@dataclass(frozen=True)
class HeapBlock:
    """One block.  `state`: "used", "free" (of which list: `list`), "top", "fence" (what ends a heap
    that does not go on), "mapped" (it has a mapping of its own) or "unknown"."""

    start: Address
    size: int
    state: str
    list: Optional[FreeList] = None


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.  `what` is one of FLAWS; `block` the block (or entry) that it is
    wrong about, 0 for none; `value` what stands there (the size word with its flags; the link; the
    count), `expected` what it should be or may be at most; None where that means nothing.
    `leads`: where a link leads that stands in memory protected (glibc's PROTECT_PTR), else None.
    `list`: in which; `before`: the block in front, which may have been written beyond its end;
    `state`: whether it is so "before" the last call too, or only "after" it; "" where there is one
    state only."""

    what: str
    block: Address
    value: Optional[Address] = None
    expected: Optional[Address] = None
    list: Optional[FreeList] = None
    before: Optional[HeapBlock] = None
    state: str = ""
    leads: Optional[Address] = None


@dataclass
class CallReport:
    """What one call, or one stretch of running, did."""

    kind: str  # "call", "run", or "all" (everything since the snapshot)
    kept: bool
    fed_pages: int
    total_pages: int
    fault_us: float  # time the vessel waited for pages
    output: str  # bytes that are no UTF-8 as surrogates (PEP 383)
    pages: List[DirtyPage]  # of more than can be listed those of the program's data first
    rest: List[PageRange] = field(default_factory=list)  # the others, as far as they fit
    rest_pages: int = 0  # how many the others are, those of `rest` included
    rest_bytes: int = 0  # and how many of their bytes changed
    end: Optional[End] = None  # why it ended, when it did not return
    refusals: List[Refusal] = field(default_factory=list)
    more_refused: int = 0  # calls that are not listed
    granted: List[Grant] = field(default_factory=list)
    passed: List[PassedLock] = field(default_factory=list)  # so it proves nothing
    remarks: List[Remark] = field(default_factory=list)
    layout_changed: bool = False
    streamed: int = 0  # bytes of `output` that the client was shown while it ran
    engine: str = ""  # of ENGINES: the one that found the pages; "" where nothing ran
    files_read: List[str] = field(default_factory=list)  # whose contents came into its memory
    more_files: int = 0  # that are not listed
    blocked: Optional[Wait] = None  # what it waited for at its end
    uncaught: Optional[Uncaught] = None
    blocks: List[Block] = field(default_factory=list)  # sorted by start
    heap: Optional[HeapTotals] = None  # None where malloc's heap cannot be understood
    heap_trouble: Optional[Damage] = None  # why it cannot be
    mapped_bytes: int = 0
    unmapped_bytes: int = 0
    tid: int = 0  # the recorded thread that ran
    unknown_zeros: int = 0  # pages fed that the recording does not hold: taken for zeros
    unknown_file: int = 0  # the same, taken for those of the file
    returned: bool = True  # whether every called function came to its end
    registers: List[str] = field(default_factory=list)  # general ones that it leaves otherwise
    serial: int = 0  # tells it from others of one server; 0 for kind "all"
    output_left_out: int = 0  # bytes, from the middle of an output too long to be sent
    heap_notes: List[str] = field(default_factory=list, metadata=LEFT_OUT)  # the client's own
    unsound: List[str] = field(default_factory=list, metadata=LEFT_OUT)  # its own: of `passed`
    notes: List[str] = field(default_factory=list, metadata=LEFT_OUT)  # its own: of names
    untold: str = field(default="", metadata=LEFT_OUT)  # its own: why no report
    called: bool = field(default=True, metadata=LEFT_OUT)  # its own: whether anything ran
    # The client's list of libraries is another than there is now.
    libraries_stale: bool = field(default=False, metadata=LEFT_OUT)

    def output_text(self) -> str:
        """`output` with U+FFFD for bytes that are no UTF-8."""
        return self.output.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

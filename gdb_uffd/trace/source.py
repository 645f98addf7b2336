"""What a recorded instant offers to the rest: registers, mappings, and where the bytes lie."""

from __future__ import annotations

import mmap
from typing import Any, List, Optional, Protocol, Sequence, Tuple, Union

from gdb_uffd.arch import Architecture
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import Mapping, SnapshotInfo, ThreadState
from gdb_uffd.trace.files.files import Module

FILE, ZERO, UNAVAILABLE, PAGES = "file", "zero", "unavailable", "pages"

INDEX = "index.sqlite"
"""The file in a recorded trace's directory that makes it one."""

SLOT_ZERO, SLOT_UNAVAILABLE = 0, 0xFFFFFFFF
"""Slot numbers of a PAGES segment that name no stored page (docs/trace-format.md)."""


def bad_page(trace: str, slot: int) -> str:
    """Why the page in that slot of a trace's page file is not shown."""
    return (
        f"checksum mismatch in {trace}/pages at slot {slot} "
        f"(gdb-uffd verify {trace} lists all such pages)"
    )


@dataclass(frozen=True)
class Segment:
    """Pages `[start, end)`, page-aligned, whose bytes come from one place.

    `kind` FILE: byte i is ``data[offset + i]``; `data` maps the whole file read-only, and
    the segment lies inside the file (a last partial page at end of file is allowed only for
    a mapped library, where the kernel fills the page with zeros: `data_end` is then
    the offset in `data` where bytes end and zeros begin).
    PAGES: page i lies at ``data[slots[i] * 4096]``, its CRC-32 (zlib.crc32) is ``sums[slots[i]]``;
    both are buffers of native unsigned 32-bit integers.  SLOT_ZERO is a page of zeros,
    SLOT_UNAVAILABLE one that could not be read when it was recorded.
    ZERO: untouched anonymous memory.  UNAVAILABLE: `reason` says why; never served as zeros.
    `prot` are the mmap(2) bits of the recorded mapping.
    `unknown`: the recording neither holds the bytes nor tells what they were; they are taken for
    zeros, or for those of the file.  `beyond`: behind the end of the mapped file, where a touch
    was SIGBUS.
    """

    start: int
    end: int
    prot: int
    kind: str
    data: Optional[Union[mmap.mmap, bytes]] = None
    offset: int = 0
    data_end: int = 0
    reason: str = ""
    patch: Optional[bytes] = None  # whole content instead of `data`, for the vessel only (vdso)
    slots: Any = None  # array("I") or a memoryview of format "I"
    sums: Any = None
    unknown: bool = False
    beyond: bool = False

    @property
    def composed(self) -> bool:
        """Whether it is a page put together from what a core holds of it and something else."""
        return isinstance(self.data, bytes)


class Snapshot(Protocol):
    """One recorded instant.  Implementations: trace/core/core.py."""

    path: str
    arch: Architecture  # of the machine that it was recorded on
    pid: int
    executable: str  # path of the executable that was found or named, or ""
    auxv: bytes  # NT_AUXV as recorded
    threads: Sequence[ThreadState]  # the first is the one that was current (or crashed)
    mappings: Sequence[Mapping]  # sorted by start; [vsyscall] left out
    segments: Sequence[Segment]  # sorted, disjoint, cover exactly the mappings
    warnings: List[str]  # one line each: missing library, wrong build-id, truncation
    # Memory that is not in it at all, which the program cannot do without, and the remedy.
    left_out: Optional[Tuple[str, str]]

    def read(self, address: int, length: int) -> bytes:
        """`length` recorded bytes; MemoryUnavailable (with reason) unless all are there."""
        ...

    def thread(self, tid: int) -> ThreadState:
        """The thread with that TID; KeyError when there is none."""
        ...

    def symbol(self, name: str) -> Optional[int]:
        """Run-time address of a dynamic (else .symtab) symbol of any mapped ELF file, or None."""
        ...

    def tls_address(
        self, tid: int, offset: int, link_map: int, fs_base: int, read: "ReadMemory"
    ) -> int:
        """Address of a thread-local: glibc's dtv through the _thread_db_* descriptors.

        `read` reads the memory as it is now (a diversion's, else the snapshot's).
        UffdError when the block is not allocated or the C library cannot be understood.
        """
        ...

    def classify(self, address: int) -> "AddressPlace":
        """What the byte at `address` belongs to; for report lines."""
        ...

    def remedy(self, address: int) -> str:
        """How to get the file whose page at `address` cannot be had; "" when none is missing."""
        ...

    @property
    def files_read(self) -> Sequence[str]:
        """Files whose bytes kept calls had brought into the memory when it was exported."""
        ...

    @property
    def modules(self) -> Sequence[Module]:
        """The files that were mapped, in order of address."""
        ...

    @property
    def main(self) -> Optional[Module]:
        """The executable among them."""
        ...

    def close(self) -> None:
        """Unmap the files."""
        ...


class Trace(Protocol):
    """Snapshots of one process (or of one program): a core has one, a recorded trace many."""

    path: str
    snapshots: Sequence[SnapshotInfo]
    warnings: List[str]

    def snapshot(self, number: int) -> Snapshot:
        """Open that snapshot; the caller closes it.  UffdError when there is none."""
        ...

    def find(self, name: str) -> int:
        """The number that `name` means: a number, a label, "start" or "end".  UffdError."""
        ...

    def changed_pages(self, a: int, b: int) -> List[int]:
        """Start addresses of the pages that differ between the snapshots `a` and `b`, sorted;
        pages that only one of them has included."""
        ...

    def close(self) -> None:
        """Close the files; snapshots that are still open stay usable."""
        ...


class ReadMemory(Protocol):
    """Reads `length` bytes at `address` or raises MemoryUnavailable."""

    def __call__(self, address: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class AddressPlace:
    """`kind` as in DirtyPage; `mapping` a file's path or a bracketed name; TID for tls, stack."""

    kind: str
    mapping: str
    thread: Optional[int] = None

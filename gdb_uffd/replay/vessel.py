"""The native pager and vessel as one Python object: regions in, memory and registers out.

Everything here runs on the thread that created the vessel: ptrace(2) ties a tracee to its tracer
*thread*.
"""

from __future__ import annotations

import bisect
import errno
import functools
import mmap
import os
import struct
from typing import Any, Dict, FrozenSet, List, Tuple

from gdb_uffd.arch import LOOKED_AT, host
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    PROT_WRITE,
    MemoryUnavailable,
    Registers,
    UffdError,
    page_ceil,
)
from gdb_uffd.replay import holes, stacks, unwinding
from gdb_uffd.replay.extended import extended
from gdb_uffd.replay.policy import identity, limits
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.replay.trackers import TrackerChoice
from gdb_uffd.trace.files.files import is_shared
from gdb_uffd.trace.source import (
    FILE,
    PAGES,
    SLOT_UNAVAILABLE,
    UNAVAILABLE,
    ZERO,
    Segment,
    Snapshot,
    bad_page,
)

LOWEST_ADDRESS = 1 << 16
"""vm.mmap_min_addr's default: below it nothing is mapped in the vessel, whatever a core says."""

_KINDS = {
    FILE: lib.REGION_BYTES,
    ZERO: lib.REGION_ZERO,
    PAGES: lib.REGION_PAGES,
    UNAVAILABLE: lib.REGION_UNAVAILABLE,
}


def _behind_the_program(snapshot: Snapshot) -> int:
    """Where a heap can begin of which the program never asked: behind its .bss, as the kernel
    places it (fs/binfmt_elf.c, set_brk).  0 when the program's mappings are not known."""
    end = 0
    for mapping in snapshot.mappings:
        program = snapshot.main is not None and snapshot.main.holds(mapping.start)
        bss = end == mapping.start and not mapping.name and mapping.prot & PROT_WRITE
        if program or bss:
            end = mapping.end
    return end + PAGE_SIZE if end else 0


class Vessel:
    """Pager and vessel of one snapshot.  No process until `ensure`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.engine = TrackerChoice()
        self.tls_pages: Dict[int, bool] = {}  # whether a recorded page holds thread-locals
        self.born: Dict[Tuple[int, int, int], Tuple[str, int]] = {}  # files of mapped regions
        self._keep: Dict[int, Any] = {}  # buffers that C points into
        self._stores: Dict[Tuple[int, int], Any] = {}
        self.pager = ffi.new("struct pager *")
        check(lib.pager_init(self.pager), doing="pager")
        self.native = ffi.new("struct vessel *")
        lib.vessel_init(self.native)
        identity.fill(self.native.record, snapshot)
        lib.vessel_forget_desk(self.native)  # the working directory and the name are recorded ones
        self._tids = ffi.new("int32_t[]", [thread.tid for thread in snapshot.threads])
        self.native.tids, self.native.tid_count = self._tids, len(self._tids)
        self.policy = Policy()
        self._closed = self._holes_marked = False
        self.arch = snapshot.arch
        self._gprs = struct.Struct(f"<{len(self.arch.names)}Q")
        self._extended = extended(self.arch)
        self._regs = ffi.new("struct registers *")
        self._regs_bytes = ffi.buffer(self._regs)
        self._mask = ffi.new("uint64_t *")
        self._brk = (0, 0)
        self._add_segments(snapshot)
        unwinding.tell(self.pager, snapshot)

    # -- the region table ---------------------------------------------------------------------

    def _add_segments(self, snapshot: Snapshot) -> None:
        segments = snapshot.segments
        regions = ffi.addressof(self.pager, "recorded")
        region = ffi.new("struct region *")
        self.rooms = stacks.rooms(snapshot)
        files = [m for m in snapshot.mappings if m.name.startswith("/")]
        starts = [m.start for m in files]
        for segment in segments:
            if segment.start < LOWEST_ADDRESS:
                continue
            self._fill(region, segment)
            index = bisect.bisect_right(starts, segment.start) - 1
            if index >= 0 and segment.start < files[index].end:
                shared = is_shared(files[index].name)
                region.flags |= lib.REGION_SHARED if shared else lib.REGION_FILE
            check(lib.regions_set(regions, region), doing="region table")
        for room in self.rooms.values():
            self._fill(region, Segment(room.start, room.end, room.prot, ZERO))
            region.flags = lib.REGION_GROWTH
            check(lib.regions_set(regions, region), doing="region table")
        check(lib.regions_copy(ffi.addressof(self.pager, "regions"), regions))
        self._brk = self._find_brk(snapshot)
        self.native.brk_start, self.native.brk_now = self._brk

    def _fill(self, region: Any, segment: Segment) -> None:
        length = segment.end - segment.start
        region.start, region.end, region.prot = segment.start, segment.end, segment.prot
        region.kind, region.flags = _KINDS[segment.kind], 0
        region.bytes, region.bytes_len = ffi.NULL, 0
        region.store, region.slots = ffi.NULL, ffi.NULL
        if segment.unknown:
            region.flags |= lib.REGION_UNKNOWN
        if segment.beyond:
            region.flags |= lib.REGION_BEYOND
        if segment.patch is not None:
            patch = ffi.new("uint8_t[]", segment.patch)
            self._keep[id(patch)] = patch
            region.bytes, region.bytes_len = patch, min(len(segment.patch), length)
            region.kind = lib.REGION_BYTES
        elif segment.kind == PAGES:
            if len(segment.slots) < length // PAGE_SIZE:
                raise UffdError(f"{self.snapshot.path}: too few slots for {segment.start:#x}")
            region.store = self._store(segment)
            region.slots = self._buffer(segment.slots, "uint32_t")
        elif segment.kind == FILE and segment.data is not None:
            buffer = self._buffer(segment.data, "uint8_t")
            inside = max(0, min(length, segment.data_end - segment.offset))
            region.bytes, region.bytes_len = buffer + segment.offset, inside

    def _buffer(self, data: Any, kind: str) -> Any:
        """`data` for C, which may use it as long as this object lives (cffi keeps a reference)."""
        buffer = self._keep.get(id(data))
        if buffer is None:
            buffer = self._keep[id(data)] = ffi.from_buffer(f"{kind}[]", data)
        return buffer

    def _store(self, segment: Segment) -> Any:
        """The page file that a PAGES segment lies in."""
        key = (id(segment.data), id(segment.sums))
        if key not in self._stores:
            pages = self._buffer(segment.data, "uint8_t")
            sums = self._buffer(segment.sums, "uint32_t")
            store = self._stores[key] = ffi.new("struct page_store *")
            lib.page_store_init(store, pages, len(pages), sums, ffi.sizeof(sums))
        return self._stores[key]

    @staticmethod
    def _find_brk(snapshot: Snapshot) -> Tuple[int, int]:
        """(start of the heap, current break); (0, 0) where the break is not known.

        glibc keeps the break in `__curbrk`; before the first malloc there is no heap mapping,
        and both are the same.
        """
        # After fork() the child's heap may grow in a mapping of its own.
        heap = [m for m in snapshot.mappings if m.name == "[heap]"]
        start, end = (heap[0].start, heap[-1].end) if heap else (0, 0)
        address = snapshot.symbol("__curbrk")
        current = 0
        if address is not None:
            try:
                current = int.from_bytes(snapshot.read(address, 8), "little")
            except MemoryUnavailable:
                current = 0
        if start:
            return start, current if start <= current <= end else end
        if not current:
            current = _behind_the_program(snapshot)
        if current and not any(m.start < page_ceil(current) <= m.end for m in snapshot.mappings):
            return current, current
        return 0, 0

    # -- the vessel's life --------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a vessel process was made and not ended by us."""
        return bool(self.native.pid > 0)

    def was_killed(self) -> bool:
        """Whether somebody else ended the vessel since it was made."""
        return self.running and not lib.vessel_is_alive(self.native)

    def ensure(self) -> bool:
        """Make the vessel unless there is one.  True when it is new.  UffdError with the remedy."""
        if self.running:
            return False
        self.check_processor()
        _ = self.jumps  # known before the first page is fed
        if not self._holes_marked:  # before the first process
            holes.mark(self.pager, self.snapshot.segments, self._address, LOWEST_ADDRESS)
            self._holes_marked = True
        self.policy.apply(self.native, self.pager)
        self.engine.prepare(self.pager.engine)
        try:
            check(lib.vessel_create(self.native, self.pager), self.native.error)
        except UffdError as error:
            raise UffdError(limits.too_many_mappings(self.regions()) or str(error)) from error
        self.native.slot_count = 0
        self._extended.start(self.native)
        return True

    def _address(self, data: Any) -> int:
        return int(ffi.cast("uintptr_t", self._buffer(data, "uint8_t")))

    def check_processor(self) -> None:
        """UffdError when nothing of the recorded process can run on this one."""
        if self.arch in LOOKED_AT:
            raise UffdError(
                f"{self.snapshot.path}: of a 32-bit program ({self.arch.spoken}): it can be looked "
                "at; functions are called, and code is run, in 64-bit programs only"
            )
        if self.arch is not host():
            raise UffdError(
                f"{self.snapshot.path}: recorded on {self.arch.spoken}; its code cannot run on "
                f"this machine ({os.uname().machine}). What was recorded can be looked at; to "
                f"call functions, open it on {self.arch.spoken}"
            )
        if mmap.PAGESIZE != PAGE_SIZE:
            raise UffdError(
                f"this machine's kernel has pages of {mmap.PAGESIZE} bytes; nothing can run here, "
                f"since that is written for pages of {PAGE_SIZE}. Boot a kernel with such pages"
            )

    @functools.cached_property
    def jumps(self) -> FrozenSet[int]:
        """Where a longjmp begins: replay/jumps.py."""
        from gdb_uffd.replay import jumps  # it needs this module

        return jumps.plant(self)

    def is_mapped(self, address: int) -> bool:
        """Whether the program has memory there now, be its bytes to be had or not."""
        region = lib.regions_find(ffi.addressof(self.pager, "regions"), address)
        return bool(region != ffi.NULL)

    def is_beyond(self, address: int) -> bool:
        """Whether a file is mapped there that ends before."""
        region = lib.regions_find(ffi.addressof(self.pager, "regions"), address)
        return region != ffi.NULL and bool(region.flags & lib.REGION_BEYOND)

    def is_writable(self, address: int) -> bool:
        """Whether the program may write there now."""
        region = lib.regions_find(ffi.addressof(self.pager, "regions"), address)
        return region != ffi.NULL and bool(region.prot & PROT_WRITE)

    def use(self, policy: Policy) -> None:
        """The policy from now on; the filter of a vessel that runs stays as it is."""
        self.policy = policy
        if self.running:
            policy.apply(self.native, self.pager)

    def destroy(self) -> None:
        """Kill the vessel, if any; what was written stays known to the pager."""
        lib.vessel_destroy(self.native)

    def close(self) -> None:
        """Kill the vessel and free everything.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.destroy()
        lib.vessel_deinit(self.native)
        lib.pager_deinit(self.pager)
        for buffer in self._keep.values():
            if ffi.typeof(buffer).kind == "array":
                ffi.release(buffer)
        self._keep.clear()

    # -- registers ----------------------------------------------------------------------------

    def load(self, registers: Registers, sigmask: int) -> None:
        """Put a thread's registers and its mask of blocked signals into the vessel."""
        self._put(registers.gpr)
        self._extended.load(self.native, registers)
        check(lib.vessel_set_sigmask(self.native, sigmask), self.native.error)

    def _put(self, gpr: List[int]) -> None:
        gpr = self.arch.loadable(gpr)
        # Behind them AArch64 has the number of the system call under way: -1, none.
        self._regs_bytes[:] = self._gprs.pack(*gpr).ljust(len(self._regs_bytes), b"\xff")
        check(lib.vessel_set_registers(self.native, self._regs), self.native.error)

    def gpr(self) -> List[int]:
        """The vessel's general registers."""
        check(lib.vessel_get_registers(self.native, self._regs), self.native.error)
        return list(self._gprs.unpack_from(self._regs_bytes))

    def ran(self) -> None:
        """The vessel is about to run: its extended state, and what it mapped, will be another."""
        self._extended.ran()
        self.born.clear()

    def sigmask(self) -> int:
        """The vessel's mask of blocked signals."""
        check(lib.vessel_get_sigmask(self.native, self._mask), self.native.error)
        return int(self._mask[0])

    def store(self, xfeatures: int, fallback: bytes) -> Registers:
        """The vessel's registers, with those components that `xfeatures` names; those of them
        that this CPU lacks are taken from the image `fallback`."""
        gpr = self.gpr()
        xstate = self._extended.store(self.native, xfeatures, fallback)
        return Registers(gpr, xstate, xfeatures, self.arch)

    def set_pc(self, pc: int) -> List[int]:
        """Move the program counter (behind a breakpoint that was hit); the registers then."""
        gpr = self.gpr()
        gpr[self.arch.pc] = pc
        self._put(gpr)
        return gpr

    # -- memory -------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Memory as it is now; MemoryUnavailable."""
        buffer = ffi.new("uint8_t[]", max(length, 1))
        done = ffi.new("size_t *")
        rc = lib.pager_read(self.pager, address, buffer, length, done)
        if rc < 0:
            at = address + done[0]
            raise MemoryUnavailable(at, self.why(at) or "not mapped")
        return bytes(ffi.buffer(buffer, length))

    def write(self, address: int, data: bytes, writer: int) -> None:
        """gdb's write, through any protection; `writer`: an assignment, or gdb for a call's frame
        and arguments (calls.py).  MemoryUnavailable."""
        room = None if writer == lib.WRITER_ASSIGNMENT else stacks.prepared_in(self.rooms, address)
        if room is not None and address < room.start:
            raise MemoryUnavailable(address, "another's: " + stacks.NO_ROOM)
        rc = lib.gdb_write(self.pager, address, data, len(data), writer)
        if rc < 0:
            raise MemoryUnavailable(address, self._why_not_written(address, rc))

    def _why_not_written(self, address: int, rc: int) -> str:
        if rc != -errno.EFAULT:
            return f"cannot be written: {os.strerror(-rc)}"
        return self.why(address) or self._not_mapped(address)

    def _not_mapped(self, address: int) -> str:
        if stacks.used_up(self.snapshot.mappings, address):
            return "not mapped: " + stacks.NO_ROOM
        return "not mapped"

    def why(self, address: int) -> str:
        """Why the byte at `address` cannot be had: the segment's reason, or "" if it can."""
        for segment in self.snapshot.segments:
            if segment.start <= address < segment.end:
                if segment.kind == UNAVAILABLE:
                    return segment.reason
                if segment.kind == PAGES:
                    return self._why_not_stored(segment, address)
                if self.pager.lost_page and address & -PAGE_SIZE == self.pager.lost_page:
                    return f"{self.snapshot.path} or a file it names was cut short while in use"
                return ""
        return ""

    def _why_not_stored(self, segment: Segment, address: int) -> str:
        slot = segment.slots[(address - segment.start) // PAGE_SIZE]
        if slot == SLOT_UNAVAILABLE:
            return "could not be read when it was recorded"
        store = self._store(segment)
        if slot and lib.page_store_read(store, slot, ffi.new("uint8_t[]", PAGE_SIZE)) < 0:
            return bad_page(self.snapshot.path, slot)
        return ""

    def settle(self) -> None:
        """Engines that look after the fact look now: whoever writes next is another."""
        check(lib.engine_settle(self.pager), doing="looking what was written")

    def rearm(self) -> None:
        """Each call's first writes are to be seen, also on pages that an earlier one wrote."""
        check(lib.transaction_rearm(self.pager), doing="write protection")

    def regions(self) -> List[Any]:
        """The native region table as it is now."""
        table = self.pager.regions
        return [table.at[i] for i in range(table.count)]

    def save_brk(self) -> Tuple[int, int]:
        """The heap's break, for `restore_brk`."""
        return self.native.brk_start, self.native.brk_now

    def restore_brk(self, brk: Tuple[int, int]) -> None:
        """The heap's break as it was."""
        self.native.brk_start, self.native.brk_now = brk

    def reset(self) -> None:
        """Back to the undisturbed snapshot; the vessel is gone."""
        self.destroy()
        check(lib.transaction_reset(self.pager), doing="reset")
        lib.vessel_forget_desk(self.native)
        self.tls_pages.clear()
        self.restore_brk(self._brk)

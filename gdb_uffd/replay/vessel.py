"""The native pager and vessel as one Python object: the only file that names a field of theirs.

Everything here runs on the thread that created the vessel: ptrace(2) ties a tracee to its tracer
*thread*.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from gdb_uffd.arch import LOOKED_AT, host
from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.native.cpu import HostCpu
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable, Registers, UffdError
from gdb_uffd.replay import stacks, unwinding
from gdb_uffd.replay.brk import recorded_brk
from gdb_uffd.replay.policy import identity, limits
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.replay.regions import Regions
from gdb_uffd.replay.trackers import TrackerChoice
from gdb_uffd.replay.watch import Watch
from gdb_uffd.trace.source import Snapshot

ROOM = 1 << 16
"""Bytes; more than any CPU's XSAVE area so far (AMX: 11,008)."""


@dataclass(frozen=True)
class Counts:
    """What the pager has counted since the snapshot was opened; the last two: of the transaction
    that is open, or was last."""

    fed: int  # pages
    fed_ahead: int
    """Of them, of zeros and before anything touched them."""
    faults: int
    fault_ns: int
    unknown_zeros: int
    """Pages fed that the recording does not hold: taken for zeros."""
    unknown_file: int
    """The same, as in the file."""
    logged: int
    """Entries of `Vessel.fed_log`."""
    emptied_more: int
    """Pages that were emptied or unmapped, and are not listed."""
    unmoved: int
    """Pages that were moved, and count as new."""


class Vessel:
    """Pager and vessel of one snapshot.  No process until `ensure`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.engine = TrackerChoice()
        self.tls_pages: Dict[int, bool] = {}  # whether a recorded page holds thread-locals
        self.born: Dict[Tuple[int, int, int], Tuple[str, int]] = {}  # files of mapped regions
        self.pager = ffi.new("struct pager *")
        check(lib.pager_init(self.pager), doing="pager")
        self.native = ffi.new("struct vessel *")
        lib.policy_init(self.native)
        identity.fill(self.identity, snapshot)
        lib.account_forget(self.native)  # the working directory and the name are recorded ones
        self._tids = ffi.new("int32_t[]", [thread.tid for thread in snapshot.threads])
        self.native.tids, self.native.tid_count = self._tids, len(self._tids)
        self.policy = Policy()
        self._closed = False
        self.arch = snapshot.arch
        self._gprs = struct.Struct(f"<{len(self.arch.names)}Q")
        self._extended = self.arch.vectors.loader(HostCpu())
        self._regs = ffi.new("struct registers *")
        self._regs_bytes = ffi.buffer(self._regs)
        self._mask = ffi.new("uint64_t *")
        self._buffer = ffi.new("uint8_t[]", ROOM)
        self.rooms = stacks.rooms(snapshot)
        self.regions = Regions(self.pager, snapshot, list(self.rooms.values()))
        self.watch = Watch(self.pager, ffi.addressof(self.pager, "watch"))
        self._brk = recorded_brk(snapshot)
        self.restore_brk(self._brk)
        frames = self.pager.code.frames
        frames.low, frames.high, frames.address, frames.len = unwinding.eh_frame(snapshot)

    # -- the vessel's life --------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a vessel process was made and not ended by us."""
        return bool(self.native.pid > 0)

    def was_killed(self) -> bool:
        """Whether somebody else ended the vessel since it was made."""
        return self.running and not lib.task_is_alive(self.native)

    def ensure(self) -> bool:
        """Make the vessel unless there is one.  True when it is new.  UffdError with the remedy."""
        if self.running:
            return False
        self.check_processor()
        self.regions.mark_holes()
        self._apply_policy()
        self.engine.prepare(self.pager.tracker)
        try:
            self.check(lib.vessel_create(self.native, self.pager))
        except UffdError as error:
            raise UffdError(limits.too_many_mappings(self.regions) or str(error)) from error
        self.native.slot_count = 0
        self._extended.start(self)
        return True

    def check(self, rc: int) -> int:
        """`rc` of a native function if it is not negative, else UffdError with the vessel's own
        words."""
        return check(rc, self.native.error)

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

    def use(self, policy: Policy) -> None:
        """The policy from now on; the filter of a vessel that runs stays as it is."""
        self.policy = policy
        if self.running:
            self._apply_policy()

    def _apply_policy(self) -> None:
        self.policy.fill(self.native.policy)
        self.pager.limit = self.policy.memory_pages()

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
        self.regions.close()

    # -- registers ----------------------------------------------------------------------------

    def load(self, tid: int, registers: Registers, sigmask: int) -> None:
        """Put a thread's registers and its mask of blocked signals into the vessel, which is that
        thread from now on."""
        self._put(registers.gpr)
        self._extended.load(self, registers)
        self.check(lib.task_set_sigmask(self.native, sigmask))
        self.identity.tid = tid

    def _put(self, gpr: List[int]) -> None:
        gpr = self.arch.loadable(gpr)
        # Behind them AArch64 has the number of the system call under way: -1, none.
        self._regs_bytes[:] = self._gprs.pack(*gpr).ljust(len(self._regs_bytes), b"\xff")
        self.check(lib.task_set_registers(self.native, self._regs))

    def gpr(self) -> List[int]:
        """The vessel's general registers."""
        self.check(lib.task_get_registers(self.native, self._regs))
        return list(self._gprs.unpack_from(self._regs_bytes))

    def ran(self) -> None:
        """The vessel is about to run: its extended state, and what it mapped, will be another."""
        self._extended.ran()
        self.born.clear()

    def sigmask(self) -> int:
        """The vessel's mask of blocked signals."""
        self.check(lib.task_get_sigmask(self.native, self._mask))
        return int(self._mask[0])

    def store(self, xfeatures: int, fallback: bytes) -> Registers:
        """The vessel's registers, with those components that `xfeatures` names; those of them
        that this CPU lacks are taken from the image `fallback`."""
        gpr = self.gpr()
        xstate = self._extended.store(self, xfeatures, fallback)
        return Registers(gpr, xstate, xfeatures, self.arch)

    def regset(self, note: int, needed: bool = True) -> bytes:
        """A register set as the kernel has it (ptrace(2), PTRACE_GETREGSET).  UffdError where there
        is none and it is `needed`, else b""."""
        size = lib.task_get_regset(self.native, note, self._buffer, ROOM)
        size = self.check(size) if needed else size
        return bytes(ffi.buffer(self._buffer, max(0, size)))

    def set_regset(self, note: int, data: bytes, needed: bool = True) -> None:
        """UffdError where the kernel does not take it and it is `needed`."""
        rc = lib.task_set_regset(self.native, note, data, len(data))
        if needed:
            self.check(rc)

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
        rc = lib.memory_read(self.pager, address, buffer, length, done)
        if rc < 0:
            at = address + done[0]
            raise MemoryUnavailable(at, self.regions.why(at) or "not mapped")
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
        why = self.regions.why(address)
        if not why and stacks.used_up(self.snapshot.mappings, address):
            why = "not mapped: " + stacks.NO_ROOM
        return why or "not mapped"

    def sync(self) -> None:
        """Trackers that look after the fact look now: whoever writes next is another."""
        check(lib.tracker_sync(self.pager), doing="looking what was written")

    def rearm(self) -> None:
        """Each call's first writes are to be seen, also on pages that an earlier one wrote."""
        check(lib.transaction_rearm(self.pager), doing="write protection")

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
        lib.account_forget(self.native)
        self.tls_pages.clear()
        self.restore_brk(self._brk)

    # -- a run --------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process; not positive where there is none."""
        return int(self.native.pid)

    @property
    def deadline_ns(self) -> int:
        """When a run ends, on CLOCK_MONOTONIC; 0 for never."""
        return int(self.native.deadline_ns)

    def set_deadline(self, at_ns: int) -> None:
        """As `deadline_ns`."""
        self.native.deadline_ns = at_ns

    def set_call_floor(self, sp: int) -> None:
        """Where gdb's call that is under way found its return address; 0 for none."""
        self.pager.code.call_floor = sp

    @property
    def in_malloc(self) -> bool:
        """Whether what runs is gdb's own call of malloc."""
        return bool(self.pager.in_malloc)

    def set_in_malloc(self, now: bool) -> None:
        """As `in_malloc`."""
        self.pager.in_malloc = now

    def plant(self, addresses: Sequence[int]) -> None:
        """Has breakpoints there when their pages are fed, as many as there is room for: before the
        first is."""
        kept = addresses[: len(self.pager.planted)]
        self.pager.planted[0 : len(kept)] = kept
        self.pager.planted_count = len(kept)

    def keep_cpu(self, keep: bool) -> None:
        """Whether the CPU is kept at a stop, which is for many of them in a row."""
        self.native.keeps_cpu = keep

    @property
    def at_exit(self) -> bool:
        """Whether it stands behind a system call that was made for it."""
        return bool(self.native.at_exit)

    def output(self) -> Iterator[bytes]:
        """What the program has written since it was last asked for, piece by piece."""
        while self.native.out_len:
            count = lib.account_take_output(self.native, self._buffer, ROOM)
            yield bytes(ffi.buffer(self._buffer, count))
        while self.native.output_fd >= 0:
            try:
                data = os.read(self.native.output_fd, ROOM)
            except BlockingIOError:
                return
            if not data:
                return
            yield data

    # -- what came of it ----------------------------------------------------------------------

    def counts(self) -> Counts:
        """The pager's, as they are now."""
        p = self.pager
        return Counts(
            p.fed, p.fed_ahead, p.faults, p.fault_ns, p.unknown_zeros, p.unknown_file,
            p.fed_log.count, p.emptied_more, p.unmoved,
        )  # fmt: skip

    def dirty_pages(self) -> int:
        """How many were written, as far as is known without another look."""
        return int(lib.pages_count_dirty(ffi.addressof(self.pager, "pages")))

    def fed_log(self, start: int, end: int) -> Tuple[List[int], bool]:
        """Addresses fed, of the entries [start, end) of the list; whether none is missing."""
        log = self.pager.fed_log
        return [log.at[i] for i in range(start, min(end, log.count))], not log.missed

    def list_touches(self) -> None:
        """The first touch of each page is listed from now on."""
        self.pager.touches.on = True

    def touches(self) -> Tuple[List[Any], int]:
        """That list of `struct touch`, and how many are missing."""
        found = self.pager.touches
        return [found.at[i] for i in range(found.count)], int(found.missed)

    @property
    def kernel_changed(self) -> bool:
        """Whether the transaction left something in the process's kernel state."""
        return bool(self.native.kernel_changed)

    @property
    def felt_calls(self) -> int:
        """System calls so far after which another one may answer otherwise."""
        return int(self.native.felt_calls)

    def passed_locks(self) -> List[Any]:
        """`struct passed` of each lock that it went through although it was held."""
        return [self.native.passed[i] for i in range(self.native.passed_count)]

    def refused(self) -> Tuple[List[Any], int]:
        """`struct refused` of system calls, and how many more there were."""
        native = self.native
        return [native.refused[i] for i in range(native.refused_count)], int(native.refused_more)

    def granted(self) -> List[Tuple[int, int]]:
        """(number, times) of the system calls that it was granted, in the order of their first."""
        native = self.native
        order = [native.granted_order[i] for i in range(native.granted_count)]
        return [(number, native.granted[number] - native.withdrawn[number]) for number in order]

    def opened(self) -> List[Any]:
        """`struct opened_name` of the first of those that name a file."""
        known = range(min(self.native.opened_count, lib.OPENED_NAMES_MAX))
        return [self.native.opened[i] for i in known]

    def adopted(self) -> List[Any]:
        """`struct adopted` of each recorded descriptor that was taken for one of its kind."""
        return [self.native.adopted[i] for i in range(self.native.adopted_count)]

    def files_read(self) -> Tuple[List[bytes], int]:
        """Paths whose contents came into the program's memory, and how many more there were."""
        names = self.native.read
        if not names.count:
            return [], 0
        return bytes(ffi.buffer(names.text, names.len)).split(b"\0")[:-1], int(names.more)

    # -- who it is ----------------------------------------------------------------------------

    @property
    def identity(self) -> Any:
        """`struct identity`: what the program is told of the process (policy/identity.py)."""
        return self.native.identity

    def answer_own_files(self, answer: Any) -> None:
        """The native function `answer` is asked for files of /proc/self, with this object."""
        self._handle = ffi.new_handle(self)
        self.native.own_file, self.native.own_context = answer, self._handle

    def copy_kernel_state(self, other: Vessel, before_run: bool) -> None:
        """Another vessel's identity, descriptors and clock; `before_run`: as before its last."""
        self.native.identity = other.native.identity
        copy = lib.account_copy_rerun if before_run else lib.account_copy
        copy(self.native, other.native)

"""What a transaction did: from the native lists and the runner's notes to a CallReport."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.ends import End, PassedLock, Uncaught, Wait
from gdb_uffd.protocol.model import PAGE_SIZE, CallReport, MemoryUnavailable
from gdb_uffd.replay import stdio
from gdb_uffd.replay.calls import Calls
from gdb_uffd.replay.detail import Detail
from gdb_uffd.replay.execution import Runner
from gdb_uffd.replay.policy.identity import facts_of
from gdb_uffd.replay.policy.refused import files_read, granted_lines, refused_lines
from gdb_uffd.replay.policy.waiting import size
from gdb_uffd.replay.report import Builder, page_images
from gdb_uffd.replay.rerun.log import Tape
from gdb_uffd.replay.state import SavedThreads, ThreadStates
from gdb_uffd.replay.trackers import LACKS
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.source import UNAVAILABLE, ReadMemory

_serials = itertools.count(1)


@dataclass
class Transaction:
    """What is open between a begin and an end.  `explicit`: `uffd call` asked for it."""

    kind: str
    explicit: bool
    saved: SavedThreads
    brk: Tuple[int, int]
    fed: int
    fault_ns: int
    stdout_pending: bytes = b""
    calls: Calls = field(default_factory=Calls)
    called: bool = False
    resumed: bool = False
    lost: bool = False
    tid: int = 0
    end: Optional[End] = None
    blocked: Optional[Wait] = None
    uncaught: Optional[Uncaught] = None
    unavailable: str = ""
    tape: Tape = field(default_factory=Tape)
    fed_from: int = 0  # in the pager's list of fed pages
    ahead_from: int = 0  # how many were fed ahead of a touch before
    unknown: Tuple[int, int] = (0, 0)  # fed so far: taken for zeros, as in the file
    program_ran: bool = False  # something else than gdb's own malloc
    brk_at_call: Tuple[int, int] = (0, 0)  # `brk` when it first ran

    @property
    def is_over(self) -> bool:
        """Whether a call that begins now is another command's."""
        return self.calls.unfinished or (self.kind == "run" and self.resumed)


class Accounts:
    """Makes the reports of one diversion, and keeps the page images of the last."""

    def __init__(
        self, machine: Vessel, threads: ThreadStates, runner: Runner, read: ReadMemory
    ) -> None:
        self.machine = machine
        self.threads = threads
        self.runner = runner
        self.read = read
        self.snapshot = machine.snapshot
        self._changes = ffi.new("struct changes *")
        self.detail = Detail(machine, self._changes)
        self.recorded_brk = machine.save_brk()
        self.files_kept: Dict[str, None] = {}  # that kept calls read
        self.total_pages = (
            sum(s.end - s.start for s in self.snapshot.segments if s.kind != UNAVAILABLE)
            // PAGE_SIZE
        )

    @functools.cached_property
    def _descriptors(self) -> Mapping[int, str]:
        return facts_of(self.snapshot).descriptors or {}

    @functools.cached_property
    def _stdout(self) -> Optional[int]:
        return self.snapshot.symbol("_IO_2_1_stdout_")

    def stdout_pending(self) -> bytes:
        """What the program has printed and not yet written."""
        return stdio.pending(self.read, self._stdout)

    def lost(self, open_: Transaction) -> CallReport:
        """The report of a transaction whose vessel was killed from outside."""
        return CallReport(
            open_.kind, False, 0, self.total_pages, 0.0,
            bytes(self.runner.output).decode("utf-8", "surrogateescape"), [],
            ended=str(open_.end or ""), end=open_.end, streamed=len(self.runner.output),
            returned=False, serial=next(_serials),
        )  # fmt: skip

    def program_begins(self, open_: Transaction) -> None:
        """Something else than gdb's own malloc is about to run: what was before is this."""
        if not open_.program_ran:
            check(lib.gdb_begin_program(self.machine.pager), doing="noting the layout")
            open_.brk_at_call = self.machine.save_brk()
            open_.program_ran = True

    def report(self, open_: Transaction, keep: bool, kernel_kept: bool) -> CallReport:
        """The report of `open_`, which ends now."""
        pager = self.machine.pager
        self.program_begins(open_)  # at the latest: it may be gdb's own malloc alone
        lib.changes_deinit(self._changes)
        check(
            lib.transaction_collect(pager, self._changes),
            doing="collecting the dirty pages",
        )
        builder = Builder(self.machine, open_.tid, self.stack(open_, open_.tid))
        written = bytes(self.runner.output)
        output, unseen = written, 0
        if open_.explicit and open_.resumed:
            after = self.stdout_pending()
            output, unseen = stdio.printed(open_.stdout_pending, written, after)
        passed = self._passed()
        made = CallReport(
            kind=open_.kind,
            kept=keep,
            fed_pages=pager.fed - open_.fed,
            total_pages=self.total_pages,
            fault_us=(pager.fault_ns - open_.fault_ns) / 1000,
            output=output.decode("utf-8", "surrogateescape"),
            pages=[],
            refused=refused_lines(self.machine.vessel, self._descriptors),
            asked=granted_lines(self.machine.vessel),
            files_read=files_read(self.machine.vessel, self.snapshot.modules),
            blocked=open_.blocked,
            uncaught=open_.uncaught,
            unsound=[lock.text() for lock in passed],
            passed=passed,
            ended=str(open_.end or ""),
            end=open_.end,
            unavailable=open_.unavailable,
            layout_changed=bool(pager.layout_changed),
            notes=self._notes(keep, kernel_kept, open_.ahead_from),
            streamed=len(output) - unseen,
            engine=self.machine.engine.choice.name,
            tid=open_.tid or self.snapshot.threads[0].tid,
            serial=next(_serials),
            unknown_zeros=pager.unknown_zeros - open_.unknown[0],
            unknown_file=pager.unknown_file - open_.unknown[1],
        )
        builder.fill(made, self._changes)
        stack = functools.partial(self.stack, open_)
        self.detail.note(made, open_.tid, stack, open_.brk_at_call, open_.calls.late)
        if keep:
            self.files_kept.update(dict.fromkeys(made.files_read))
        return made

    def _own_stacks(self) -> List[str]:
        """Stacks that were used up, and on whose other room something ran."""
        written = [self._changes.at[i].page for i in range(self._changes.count)]
        return [
            f"the stack of thread {room.tid} is used up: this ran on a stack of its own, up to "
            f"{size(room.end - room.start)} below {room.end:#x}"
            for room in self.machine.rooms.values()
            if room.tid and not room.top and any(room.start <= page < room.end for page in written)
        ]

    def _notes(self, keep: bool, kernel_kept: bool, ahead_from: int) -> List[str]:
        notes = self._own_stacks()
        ahead = int(self.machine.pager.fed_ahead) - ahead_from
        if ahead:
            notes.append(f"of the pages fed, {ahead:,} of zeros were given ahead of a touch")
        if self.machine.pager.emptied_more:
            notes.append(
                f"{self.machine.pager.emptied_more} more pages were emptied or unmapped; "
                "they are not listed"
            )
        if self.machine.pager.unmoved:
            notes.append(
                f"{self.machine.pager.unmoved} more pages were moved; what they held counts as new"
            )
        both = lib.WRITER_PROGRAM | lib.WRITER_MALLOC
        mixed = [self._changes.at[i] for i in range(self._changes.count)]
        mixed = [change.counts_malloc for change in mixed if change.writers & both == both]
        for counts, where in ((False, "from behind that"), (True, "with what that changed")):
            if counts in mixed:
                many = mixed.count(counts)
                pages = "1 page was" if many == 1 else f"{many} pages were"
                notes.append(
                    f"{pages} written by gdb's own call of malloc, too, for an argument: what "
                    f"changed there counts {where}"
                )
        remade = self.machine.vessel.kernel_changed or self.machine.pager.layout_changed
        if not keep and remade and kernel_kept:
            notes.append(
                "undoing it needed a new process: signal handlers and timers (with `syscalls all` "
                "also descriptors) of kept calls are gone"
            )
        engine = self.machine.engine.choice.name
        if LACKS.get(engine) and any(
            self._changes.at[i].writers & lib.WRITER_PROGRAM for i in range(self._changes.count)
        ):
            notes.append(f"engine {engine}: {LACKS[engine]}")
        return notes

    def _passed(self) -> List[PassedLock]:
        """Locks that the recorded process would have waited for."""
        vessel = self.machine.vessel
        tids = {thread.tid for thread in self.snapshot.threads}
        locks = [vessel.passed[i] for i in range(vessel.passed_count)]
        return [
            PassedLock(int(lock.address), int(lock.owner) if lock.owner in tids else 0)
            for lock in locks
        ]

    def stack(self, open_: Transaction, tid: int) -> int:
        """A thread's stack pointer before gdb pushed a frame: what lies below was free."""
        if not tid:
            return 0
        saved = open_.saved.changed.get(tid)
        registers = saved if saved is not None else self.snapshot.thread(tid).registers
        return registers.sp

    def everything(self) -> CallReport:
        """Everything written since the snapshot and kept."""
        pager = self.machine.pager
        tid = self.threads.loaded or self.snapshot.threads[0].tid
        made = CallReport(
            "all", True, pager.fed, self.total_pages, pager.fault_ns / 1000, "", [],
            layout_changed=any(r.flags & lib.REGION_BORN for r in self.machine.regions()),
            engine=self.machine.engine.choice.name,
            files_read=list(self.files_kept), tid=tid,
        )  # fmt: skip
        changes = ffi.new("struct changes *")
        check(lib.transaction_collect_all(pager, changes), doing="collecting the dirty pages")
        try:
            Builder(self.machine, tid, 0).fill(made, changes)
        finally:
            lib.changes_deinit(changes)
        self.detail.refine_all(made, tid, self.recorded_brk)
        return made

    def image(self, page: int, which_all: bool) -> Optional[Tuple[bytes, bytes]]:
        """(before, after) of a page; None when it was not written."""
        if not which_all:
            return page_images(self._changes, page)
        try:
            now = self.read(page, PAGE_SIZE)
            before = self.snapshot.read(page, PAGE_SIZE)
        except MemoryUnavailable:
            return None
        return (before, now) if before != now else None

    def compare(self, again: Any) -> Tuple[int, int]:
        """How many pages another native list has otherwise than the last report, and the first."""
        page = ffi.new("uint64_t *")
        count = lib.changes_differ(self._changes, again, lib.WRITER_PROGRAM, page)
        return count, page[0]

    def figures(self) -> Dict[str, object]:
        """What `uffd info` tells of the process; see replay/interface.py."""
        pager, engine = self.machine.pager, self.machine.engine
        return {
            "vessel_pid": int(self.machine.vessel.pid) if self.machine.running else None,
            "fed_pages": int(pager.fed),
            "mapped_pages": self.total_pages,
            "faults": int(pager.faults),
            "fault_us": pager.fault_ns / 1000,
            "engine": engine.choice.name if self.machine.running else None,
            "engine_why": engine.choice.why,
            "engine_setting": engine.setting,
        }

    def forget(self) -> None:
        """Free the images of the last report."""
        self.detail.forget()
        lib.changes_deinit(self._changes)

    def close(self) -> None:
        """Free everything.  Idempotent."""
        self.forget()
        self.detail.close()

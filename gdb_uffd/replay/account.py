"""What a transaction did: from the native lists and the runner's notes to a CallReport."""

from __future__ import annotations

import functools
import itertools
from dataclasses import field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.ends import End, PassedLock, Remark, RemarkKind, Uncaught, Wait
from gdb_uffd.protocol.model import ENGINE_LACKS, PAGE_SIZE, CallReport, MemoryUnavailable
from gdb_uffd.replay import stdio
from gdb_uffd.replay.calls import Calls
from gdb_uffd.replay.detail import Detail
from gdb_uffd.replay.execution import Runner
from gdb_uffd.replay.policy.identity import facts_of
from gdb_uffd.replay.policy.refused import files_read, grants, refusals
from gdb_uffd.replay.report import Builder, page_images
from gdb_uffd.replay.rerun.log import RunLog
from gdb_uffd.replay.state import SavedThreads, ThreadStates
from gdb_uffd.replay.vessel import Counts, Vessel
from gdb_uffd.trace.source import UNAVAILABLE, ReadMemory

_serials = itertools.count(1)


@dataclass
class Transaction:
    """What is open between a begin and an end.  `explicit`: `uffd call` asked for it."""

    kind: str
    explicit: bool
    saved: SavedThreads
    brk: Tuple[int, int]
    counts: Counts
    stdout_pending: bytes = b""
    calls: Calls = field(default_factory=Calls)
    called: bool = False
    resumed: bool = False
    lost: bool = False
    tid: int = 0
    end: Optional[End] = None
    blocked: Optional[Wait] = None
    uncaught: Optional[Uncaught] = None
    log: RunLog = field(default_factory=RunLog)
    program_ran: bool = False  # something else than gdb's own malloc
    brk_at_call: Tuple[int, int] = (0, 0)  # `brk` when it first ran

    @property
    def is_over(self) -> bool:
        """Whether a call that begins now is another command's."""
        return self.calls.unfinished or (self.kind == "run" and self.resumed)


class Accounts:
    """Makes the reports of one diversion, and keeps the page images of the last."""

    def __init__(
        self, vessel: Vessel, threads: ThreadStates, runner: Runner, read: ReadMemory
    ) -> None:
        self.vessel = vessel
        self.threads = threads
        self.runner = runner
        self.read = read
        self.snapshot = vessel.snapshot
        self._changes = ffi.new("struct changes *")
        self.detail = Detail(vessel, self._changes)
        self.recorded_brk = vessel.save_brk()
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
            end=open_.end, streamed=len(self.runner.output),
            returned=False, serial=next(_serials),
        )  # fmt: skip

    def program_begins(self, open_: Transaction) -> None:
        """Something else than gdb's own malloc is about to run: what was before is this."""
        if not open_.program_ran:
            check(lib.gdb_begin_program(self.vessel.pager), doing="noting the layout")
            open_.brk_at_call = self.vessel.save_brk()
            open_.program_ran = True

    def report(self, open_: Transaction, keep: bool, kernel_kept: bool) -> CallReport:
        """The report of `open_`, which ends now."""
        self.program_begins(open_)  # at the latest: it may be gdb's own malloc alone
        lib.changes_deinit(self._changes)
        check(
            lib.transaction_collect(self.vessel.pager, self._changes),
            doing="collecting the dirty pages",
        )
        builder = Builder(self.vessel, open_.tid, self.stack(open_, open_.tid))
        counts, before = self.vessel.counts(), open_.counts
        written = bytes(self.runner.output)
        output, unseen = written, 0
        if open_.explicit and open_.resumed:
            after = self.stdout_pending()
            output, unseen = stdio.printed(open_.stdout_pending, written, after)
        (entries, more), (read, more_files) = self.vessel.refused(), self.vessel.files_read()
        made = CallReport(
            kind=open_.kind,
            kept=keep,
            fed_pages=counts.fed - before.fed,
            total_pages=self.total_pages,
            fault_us=(counts.fault_ns - before.fault_ns) / 1000,
            output=output.decode("utf-8", "surrogateescape"),
            pages=[],
            refusals=refusals(entries, self._descriptors),
            more_refused=more,
            granted=grants(self.vessel),
            files_read=files_read(read, self.snapshot.modules),
            more_files=more_files,
            blocked=open_.blocked,
            uncaught=open_.uncaught,
            passed=self._passed(),
            end=open_.end,
            layout_changed=self.vessel.regions.changed,
            remarks=self._remarks(keep, kernel_kept, counts, counts.fed_ahead - before.fed_ahead),
            streamed=len(output) - unseen,
            engine=self.vessel.engine.choice.name,
            tid=open_.tid or self.snapshot.threads[0].tid,
            serial=next(_serials),
            unknown_zeros=counts.unknown_zeros - before.unknown_zeros,
            unknown_file=counts.unknown_file - before.unknown_file,
        )
        builder.fill(made, self._changes)
        stack = functools.partial(self.stack, open_)
        self.detail.note(made, open_.tid, stack, open_.brk_at_call, open_.calls.late)
        if keep:
            self.files_kept.update(dict.fromkeys(made.files_read))
        return made

    def _own_stacks(self) -> List[Remark]:
        """Stacks that were used up, and on whose other room something ran."""
        written = [self._changes.at[i].page for i in range(self._changes.count)]
        return [
            Remark("own-stack", size=room.end - room.start, address=room.end, tid=room.tid)
            for room in self.vessel.rooms.values()
            if room.tid and not room.top and any(room.start <= page < room.end for page in written)
        ]

    def _remarks(self, keep: bool, kernel_kept: bool, counts: Counts, ahead: int) -> List[Remark]:
        changes = [self._changes.at[i] for i in range(self._changes.count)]
        both = lib.WRITER_PROGRAM | lib.WRITER_MALLOC
        mixed = [change.counts_malloc for change in changes if change.writers & both == both]
        counted: Tuple[Tuple[RemarkKind, int], ...] = (
            ("ahead", ahead),
            ("emptied", int(counts.emptied_more)),
            ("unmoved", int(counts.unmoved)),
            ("malloc-after", mixed.count(False)),
            ("malloc-before", mixed.count(True)),
        )
        remarks = self._own_stacks()
        remarks += [Remark(kind, count) for kind, count in counted if count]
        remade = self.vessel.kernel_changed or self.vessel.regions.changed
        if not keep and remade and kernel_kept:
            remarks.append(Remark("new-process"))
        engine = self.vessel.engine.choice.name
        lacks = ENGINE_LACKS.get(engine)
        if lacks and any(change.writers & lib.WRITER_PROGRAM for change in changes):
            remarks.append(Remark("engine", name=engine))
        return remarks

    def _passed(self) -> List[PassedLock]:
        """Locks that the recorded process would have waited for."""
        tids = {thread.tid for thread in self.snapshot.threads}
        return [
            PassedLock(int(lock.address), int(lock.owner) if lock.owner in tids else 0)
            for lock in self.vessel.passed_locks()
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
        counts = self.vessel.counts()
        tid = self.threads.loaded or self.snapshot.threads[0].tid
        made = CallReport(
            "all", True, counts.fed, self.total_pages, counts.fault_ns / 1000, "", [],
            layout_changed=any(r.flags & lib.REGION_BORN for r in self.vessel.regions),
            engine=self.vessel.engine.choice.name,
            files_read=list(self.files_kept), tid=tid,
        )  # fmt: skip
        changes = ffi.new("struct changes *")
        check(lib.transaction_collect_all(self.vessel.pager, changes), doing="collecting")
        try:
            Builder(self.vessel, tid, 0).fill(made, changes)
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
        counts, engine = self.vessel.counts(), self.vessel.engine
        return {
            "vessel_pid": self.vessel.pid if self.vessel.running else None,
            "fed_pages": counts.fed,
            "mapped_pages": self.total_pages,
            "faults": counts.faults,
            "fault_us": counts.fault_ns / 1000,
            "engine": engine.choice.name if self.vessel.running else None,
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

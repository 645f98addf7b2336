"""A snapshot that can run: transactions over a vessel that exists only when something executes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Callable, Dict, Optional, Sequence, Tuple

from gdb_uffd.native import check, lib
from gdb_uffd.protocol.ends import End, Grant, Wait
from gdb_uffd.protocol.model import (
    CallReport,
    Mapping,
    MemoryUnavailable,
    Registers,
    UffdError,
    page_floor,
)
from gdb_uffd.replay import uncaught
from gdb_uffd.replay.account import Accounts, Transaction
from gdb_uffd.replay.breakpoints import Breakpoints
from gdb_uffd.replay.calls import Unfinished
from gdb_uffd.replay.execution import Runner
from gdb_uffd.replay.interface import Choice, Resume, Stop, StubClient
from gdb_uffd.replay.layout import current_mappings, mapped_files
from gdb_uffd.replay.policy import proc_files
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.replay.regions import LOWEST_ADDRESS
from gdb_uffd.replay.rerun.last_run import LastRunKeeper
from gdb_uffd.replay.state import ThreadStates
from gdb_uffd.replay.unknown import Unknown
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.replay.views import View
from gdb_uffd.trace.source import Snapshot

KILLED = End("killed", lost=True)
LOST = "the process was killed from outside; this is the snapshot again, kept effects are gone"

READ_MAX = 1 << 26
"""Bytes of one read; gdb asks for less than its packet size."""


class Diversion:
    """See replay/interface.py for the contract of each method."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.vessel = Vessel(snapshot)
        proc_files.offer(self.vessel)
        self.threads = ThreadStates(snapshot, self.vessel)
        points = self.breakpoints = Breakpoints(self.vessel)
        self.insert_breakpoint, self.remove_breakpoint = points.insert, points.remove
        self.catch_calls, self.pass_signals = points.catch_calls, points.pass_signals
        self.forget_unmapped = points.forget_unmapped
        self.runner = Runner(self.vessel, self.threads, self.breakpoints)
        self.last_report: Optional[CallReport] = None
        self._open: Optional[Transaction] = None
        self._disturbed = False
        self.before_end: Optional[Callable[[int], None]] = None
        """Told the thread that ran, before an ended transaction is undone or committed."""
        self._loss: Optional[End] = None
        self._vessel_is_old = False
        self._kernel_kept = False  # kept calls left something in the vessel's kernel state
        self._unknown = Unknown(self.vessel)
        self._unfinished = Unfinished(self.threads)
        self._patched = [(s.start, s.end) for s in snapshot.segments if s.patch is not None]
        self.last_run = LastRunKeeper(self.vessel)
        self.thrown = uncaught.Thrown(self)
        self.accounts = Accounts(self.vessel, self.threads, self.runner, self.read_memory)

    # -- the policy ---------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What the program may do; another one can be set at any time."""
        return self.vessel.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        old = self.vessel.policy
        self.vessel.use(policy)
        if policy.filter_key() != old.filter_key():
            self._vessel_is_old = True
            self._renew()

    def _renew(self) -> None:
        """Another vessel, with the filter that is wanted now; what was kept is kept."""
        if not self._vessel_is_old or (self._open is not None and self._open.explicit):
            return  # `end` comes back here
        self._vessel_is_old = False
        if not self.vessel.running or self.vessel.was_killed():
            return
        self.commit_pending()
        self.threads.fetch()
        check(lib.transaction_discard(self.vessel.pager, True), doing="another process")
        self.vessel.destroy()
        self.threads.forget_vessel()
        self.breakpoints.forget_vessel()
        self._lose_kernel_state()

    def _lose_kernel_state(self) -> None:
        """What kept calls left in the kernel went with its process; a timer would end the next
        call, with the handler of its signal gone."""
        if self._kernel_kept:
            lib.timers_disarm(self.vessel.native)
        self._kernel_kept = False

    @property
    def blocked(self) -> Optional[Wait]:
        return self.runner.blocked

    # -- looking ------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self._disturbed

    def mappings(self) -> Sequence[Mapping]:
        return current_mappings(self.vessel) if self._disturbed else list(self.snapshot.mappings)

    def mapped_files(self) -> Sequence[str]:
        return mapped_files(self.vessel) if self._disturbed else ()

    def read_memory(self, address: int, length: int) -> bytes:
        if length > READ_MAX:
            raise MemoryUnavailable(address, f"a read of {length} bytes is too large")
        self._notice_loss()  # the patched vdso is the vessel's affair: what was recorded is shown
        if address < LOWEST_ADDRESS or any(low <= address < end for low, end in self._patched):
            return self.snapshot.read(address, length)
        return self.vessel.read(address, length)

    def registers(self, tid: int) -> Registers:
        self._notice_loss()
        return self.threads.get(tid)

    def set_registers(self, tid: int, registers: Registers) -> None:
        self._notice_loss()
        self.threads.put(tid, registers)
        if self._open is not None:
            self._open.tid = self._open.tid or tid
            self._open.log.set_registers(tid, self.threads.changed[tid])

    def siginfo(self, tid: int) -> bytes:
        found = self.threads.siginfo.get(tid)
        return found if found is not None else self.snapshot.thread(tid).siginfo

    def set_siginfo(self, tid: int, data: bytes) -> None:
        self.threads.siginfo[tid] = data
        if self._open is not None:
            self._open.log.set_siginfo(tid, data)

    # -- changing -----------------------------------------------------------------------------

    def write_memory(self, address: int, data: bytes) -> None:
        self._notice_loss()
        open_ = self._transaction("run")
        self._materialise()
        self.vessel.write(address, data, open_.calls.writer(address, len(data)))
        open_.log.wrote(address, data)

    def _notice_loss(self) -> Optional[End]:
        """Somebody may have killed the vessel while it stood: everything is the snapshot's again.
        Told once, by the next thing that would run."""
        if self.vessel.running and self.vessel.was_killed():
            self._forget_everything()
            self._loss = KILLED
        return self._loss

    def _tell_loss(self) -> Optional[End]:
        told, self._loss = self._loss, None
        return told

    def _materialise(self) -> None:
        if not self.vessel.running:
            self.vessel.check_processor()
            _ = self.runner.jumps  # known before the first page is fed
        if self.vessel.ensure():
            self.threads.forget_vessel()
            self.breakpoints.forget_vessel()
        self._disturbed = True

    def resume(self, action: Resume, client: StubClient) -> Stop:
        self.snapshot.thread(action.tid)
        if self._notice_loss():
            return Stop(action.tid, signal.SIGKILL, end=self._tell_loss(), lost=True)
        open_ = self._open
        over = open_ is not None and open_.kind == "call" and not open_.calls.under_way
        if open_ is not None and over and not open_.explicit:
            self.commit_pending()
        open_ = self.prepare(action)
        started = time.perf_counter()
        try:
            stop = self.runner.resume(action, client)
        except UffdError:
            # A kill from outside shows as a failure of whatever was under way.
            if self.vessel.running and not self.vessel.was_killed():
                raise
            stop = Stop(action.tid, signal.SIGKILL, end=KILLED, lost=True)
        open_.blocked = self.blocked
        # Of this stop alone: what ended an earlier run is told with that one.
        open_.end = stop.end
        if stop.lost:
            self._forget_everything()
            open_.lost = True
            self._open = open_ if open_.explicit else None  # its end is still to be asked for
            return stop
        after = self.threads.get(stop.tid)  # whoever reports the stop needs them as well
        open_.calls.stopped(after)
        if not stop.breakpoint and self.runner.left(after.sp):
            open_.end = replace(stop.end or End("left"), left=True)
            stop = replace(stop, end=open_.end)
        seconds, cut = time.perf_counter() - started, bool(self.runner.run.interrupted)
        open_.log.ran(action, self.breakpoints, stop, after, seconds, cut)
        open_.uncaught = self.thrown.look(stop, after.sp) or open_.uncaught
        return stop

    def interrupted(self, action: Resume) -> None:
        if self._open is not None and self._open.calls.under_way:
            self.prepare(action)

    def prepare(self, action: Resume) -> Transaction:
        """The process and the transaction in which `action` can run."""
        open_ = self._transaction("run")
        self._materialise()
        open_.resumed = True
        open_.tid = action.tid
        base = self.accounts.stack(open_, action.tid)
        if open_.calls.begins:
            open_.calls.run(self.vessel, self.threads.with_room(action.tid, base))
        if not open_.calls.in_malloc:
            self.accounts.program_begins(open_)
        self.runner.floor, self.runner.base = open_.calls.floor, base
        self.vessel.set_call_floor(open_.calls.floor)
        self.vessel.set_deadline(self.policy.deadline_ns() if open_.calls.under_way else 0)
        return open_

    # -- transactions -------------------------------------------------------------------------

    def _transaction(self, kind: str, explicit: bool = False) -> Transaction:
        if self._open is None:
            self._open = Transaction(
                kind, explicit, self.threads.save(), self.vessel.save_brk(), self._unknown.counts()
            )
            self.runner.output.clear()
            lib.account_begin(self.vessel.native)
        return self._open

    def refuse_loss(self) -> None:
        if self._notice_loss():
            self._tell_loss()
            raise UffdError(LOST)

    def begin(self) -> None:
        self.refuse_loss()
        self.commit_pending()
        if self._open is not None:
            raise UffdError("a call is under way already")
        self.vessel.check_processor()
        open_ = self._transaction("call", explicit=True)
        open_.stdout_pending = self.accounts.stdout_pending()

    def call_begin(self, address: int, is_malloc: bool) -> None:
        if self._notice_loss():  # the resume that follows tells it to whoever does not read this
            raise UffdError(LOST)
        self._materialise()  # a lack is told here, in words; the writes that follow have none
        if self._open is not None and self._open.is_over:
            self.commit_pending()
        open_ = self._transaction("call")
        open_.kind = "call"
        self.vessel.sync()  # what ran so far was not this call
        if open_.called:
            self.vessel.rearm()
        open_.called = True
        open_.calls.begin(is_malloc)
        open_.log.began(address, is_malloc)
        self.vessel.set_in_malloc(is_malloc)

    @property
    def calls_under_way(self) -> int:
        """How many of gdb's calls have begun and not ended."""
        return len(self._open.calls.under_way) if self._open is not None else 0

    def call_end(self) -> None:
        # Calls nest: gdb makes room for a string argument while the call that takes it is
        # under way already.
        outer = False
        if self._open is not None:
            self._open.log.ended()
            self._open.calls.end(self.threads, self._open.tid, self._open.program_ran)
            outer = self._open.calls.in_malloc
        if self.vessel.in_malloc and not outer:
            check(lib.gdb_end_malloc(self.vessel.pager), doing="write protection")
        self.vessel.sync()
        self.vessel.set_in_malloc(outer)

    def end(self, keep: bool) -> CallReport:
        open_ = self._open
        if open_ is None:
            raise UffdError("no call is under way")
        if self._notice_loss():
            open_.lost, open_.end = True, self._tell_loss()
        while open_.calls.under_way:
            open_.calls.end(self.threads, open_.tid, open_.program_ran)
        self._open = None
        if self.before_end is not None:
            self.before_end(open_.tid)
        if open_.lost:
            self.last_report = self.accounts.lost(open_)
            return self.last_report
        if keep and open_.calls.unfinished:
            self._unfinished.note(open_.tid, self.accounts.stack(open_, open_.tid))
        try:
            report = self.accounts.report(open_, keep, self._kernel_kept)
            goes_on = open_.resumed and not open_.called  # what an earlier call left
            unfinished = open_.calls.unfinished or (goes_on and self._unfinished.any())
            report.returned = not unfinished
            if open_.explicit and report.returned:
                report.registers = self.threads.changed_since(open_.saved, report.tid)
        except (UffdError, MemoryError):
            self.last_report = None  # the one before would be taken for this one's
            if not keep:
                self._discard(open_)  # whatever cannot be told, it is undone
            raise
        if open_.end is None and self.threads.mask_changed(open_.tid, open_.saved):
            report.granted.append(Grant("rt_sigprocmask"))  # nothing else is left of one
        self.last_run.closing(open_, report, self._kernel_kept)
        if keep:
            check(lib.transaction_commit(self.vessel.pager), doing="keeping the call's effects")
            lib.account_end(self.vessel.native, True)
            self._kernel_kept |= self.vessel.kernel_changed
        else:
            self._discard(open_)
        self.last_report = report
        self._vessel_is_old |= self._unknown.must_renew(report, self._kernel_kept)
        self._renew()
        return report

    def commit_pending(self) -> Optional[CallReport]:
        if self._open is None or self._open.explicit:
            return None
        return self.end(keep=True)

    def _discard(self, open_: Transaction) -> None:
        rebuild = lib.transaction_discard(self.vessel.pager, self.vessel.kernel_changed)
        if rebuild < 0:
            self._forget_everything()
            check(rebuild, doing="undoing the call failed, so this is the snapshot again")
        lib.account_end(self.vessel.native, False)
        if rebuild:
            self.vessel.destroy()
            self.breakpoints.forget_vessel()
            self._lose_kernel_state()
        self.threads.restore(open_.saved)
        self.vessel.restore_brk(open_.brk)
        self._disturbed = self.vessel.running or self._dirty_pages() > 0

    def _dirty_pages(self) -> int:
        self.vessel.sync()
        return self.vessel.dirty_pages()

    def report_all(self) -> CallReport:
        self.commit_pending()
        report = self.accounts.everything()
        report.returned = not self._unfinished.any()
        return report

    def image(self, address: int, which_all: bool) -> Optional[Tuple[bytes, bytes]]:
        self.commit_pending()
        return self.accounts.image(page_floor(address), which_all)

    def prefer_engine(self, name: str, mass: bool) -> None:
        self.vessel.engine.prefer(name, mass)

    def set_engine(self, name: str) -> Choice:
        used = self.vessel.engine.choice.name
        chosen = self.vessel.engine.set(name)
        holds = self._open is not None or self._kernel_kept or self._dirty_pages() > 0
        if used != chosen.name and self.vessel.running and not holds:
            self.vessel.destroy()
            self.threads.forget_vessel()
            self.breakpoints.forget_vessel()
        return chosen

    def refine(self, report: CallReport) -> None:
        self.accounts.detail.refine(report)

    def view(self, after: bool, which_all: bool) -> View:
        return self.accounts.detail.view(after, which_all)

    # -- ending -------------------------------------------------------------------------------

    def _forget_everything(self) -> None:
        self.vessel.reset()
        self.threads.reset()
        self.breakpoints.forget_vessel()
        self.last_run.forget("everything is as recorded again")
        self._open = None
        self._disturbed = self._kernel_kept = False
        self._unfinished.forget()
        self.accounts.files_kept.clear()

    def reset(self) -> None:
        self._forget_everything()
        self._loss = None  # whatever was lost, it would be gone now
        self.accounts.forget()
        self.last_report = None

    def close(self) -> None:
        self.accounts.close()
        self.vessel.close()

    def info(self) -> Dict[str, object]:
        return {
            **self.accounts.figures(),
            "dirty_pages": self._dirty_pages(),
            "breakpoints": len(self.breakpoints.wanted) + len(self.breakpoints.hardware),
            "server_pid": os.getpid(),
        }

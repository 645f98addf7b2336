"""Makes every thread of a native process stand still for a moment, without gdb noticing.

gdb's native target lets the other threads run while a breakpoint's `stop` method decides
(gdb's infrun.c works thread by thread underneath), and a timer finds all of them running.
So each gets a SIGSTOP, as gdb itself does it, and is waited for; its event is only looked at.  Then
either the event is taken and the thread resumed, as if nothing had been; or, where gdb may be
stepping it over an instruction, the event is left for gdb, which resumes it the way it must be
(SIGSTOP is not reported to the user meanwhile).
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Dict, FrozenSet, List, Optional, Set

import gdb

from gdb_uffd.client.recording import ptrace
from gdb_uffd.client.session.asking import quiet
from gdb_uffd.client.session.code import line_at
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import GPR, UffdError

PATIENCE_S = 2.0
"""A thread that sleeps where no signal wakes it (a disk that does not answer, vfork) is not
waited for any longer."""

_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>: what int3 raises on x86
_RIP = GPR["rip"] * 8


class NotStill(UffdError):
    """A thread cannot be stopped now; the next attempt may succeed."""


@dataclass
class Held:
    """A thread that stands still.  `ours`: by our SIGSTOP, which is to be taken back."""

    tid: int
    ours: bool = False
    moved: int = 0  # by how many bytes its program counter is past a breakpoint it has hit


class Quarantine:
    """SIGSTOPs of ours that gdb will see: it is told to ignore them while there are any."""

    _lasting: Optional["Quarantine"] = None  # of a recording that is over

    def __init__(self, pid: int) -> None:
        self._pid, self._saved, self._resumed = pid, "", False

    def begin(self) -> None:
        """From now on gdb passes over a SIGSTOP."""
        if not self._saved:
            before = Quarantine._lasting
            self._saved = _handling() if before is None else before._saved
            if before is not None:
                before._forget()
            quiet("handle SIGSTOP nostop noprint nopass")

    def end(self) -> None:
        """Give the user's handling back."""
        if self._saved:
            saved, self._saved = self._saved, ""
            quiet(f"handle SIGSTOP {saved}")

    def last(self) -> None:
        """Until gdb has resumed the program, and so has seen them, or has let it go: what it holds
        back for a thread that stands it would deliver when it lets go of it (get_detach_signal in
        gdb's linux-nat.c)."""
        if self._saved:
            Quarantine._lasting, self._resumed = self, False
            gdb.events.cont.connect(self._on_cont)
            gdb.events.before_prompt.connect(self._on_prompt)

    def _on_cont(self, _event: object) -> None:
        self._resumed = True

    def _on_prompt(self, _event: object = None) -> None:
        if self._resumed or all(each.pid != self._pid for each in gdb.inferiors()):
            self._forget()
            self.end()

    def _forget(self) -> None:
        Quarantine._lasting = None
        gdb.events.cont.disconnect(self._on_cont)
        gdb.events.before_prompt.disconnect(self._on_prompt)

    @property
    def active(self) -> bool:
        """Whether it holds."""
        return bool(self._saved)


def _handling() -> str:
    """How gdb handles SIGSTOP, in words of `handle` (gdb manual, "Signals")."""
    fields = re.search(
        r"^SIGSTOP\s+(Yes|No)\s+(Yes|No)\s+(Yes|No)", quiet("info signals SIGSTOP"), re.M
    )
    if fields is None:
        return "stop print pass"
    names = ("stop", "print", "pass")
    return " ".join(n if f == "Yes" else "no" + n for n, f in zip(names, fields.groups()))


class Freezer:
    """Freezes the threads of process `pid`, which gdb traces, again and again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.user_thread = 0  # TID that was selected when the user last resumed the program
        self._quarantine = Quarantine(pid)
        self._strays: Set[int] = set()  # threads with a SIGSTOP of ours that gdb is to see
        self._held: List[Held] = []

    def freeze(self, inferior: gdb.Inferior) -> List[Held]:
        """Stop what runs; all threads.  NotStill, and then all are as they were."""
        known = {thread.ptid[1] for thread in inferior.threads()}
        held: Dict[int, Held] = {}
        sent: Set[int] = set()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            fresh = [tid for tid in ptrace.threads(self.pid) if tid not in held]
            if not fresh:
                break
            for tid in fresh:
                letter = ptrace.state(self.pid, tid)
                if letter in ("", "Z", "X"):
                    held[tid] = Held(0)
                elif letter == "t":
                    held[tid] = self._stopped(tid, tid in sent)
                elif tid in known and tid not in sent:
                    sent.add(tid)
                    self._signal(tid)
                # One that gdb does not know of yet stops by itself, before its first instruction.
            if time.monotonic() > deadline:
                self._held = [h for h in held.values() if h.tid]
                self._strays |= sent - {h.tid for h in self._held if h.ours}
                self.thaw()
                raise NotStill(
                    f"thread {next(t for t in fresh if t not in held)} cannot be stopped now"
                )
            if any(tid not in held for tid in fresh):
                os.sched_yield()
        self._held = [h for h in held.values() if h.tid]
        # They have another event to report first; ours comes after it.
        self._strays |= sent - {h.tid for h in self._held if h.ours}
        return self._held

    def _signal(self, tid: int) -> None:
        try:
            ptrace.tgkill(self.pid, tid, signal.SIGSTOP)
        except OSError:
            pass  # it has just ended

    def _stopped(self, tid: int, sent: bool) -> Held:
        event = ptrace.look(tid)
        if event is None or not event.stopped:
            return Held(tid)  # gdb has taken its event already
        if sent and event.status == signal.SIGSTOP:
            return Held(tid, ours=True)
        return Held(tid, moved=self._past_breakpoint(tid) if event.status == signal.SIGTRAP else 0)

    def _past_breakpoint(self, tid: int) -> int:
        """1 when the thread has hit a breakpoint that gdb does not know of yet: its program
        counter is behind the int3, and gdb will set it back."""
        info = ptrace.get_siginfo(tid)
        if len(info) < 12 or int.from_bytes(info[8:12], "little") != _SI_KERNEL:
            return 0
        pc = program_counter(ptrace.get_gprs(tid))
        try:
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                memory.seek(pc - 1)
                raw = memory.read(1)
            shown = bytes(gdb.selected_inferior().read_memory(pc - 1, 1))
        except (OSError, gdb.error):
            return 0
        return 1 if raw == b"\xcc" != shown else 0

    def thaw(self) -> None:
        """Let run again what `freeze` stopped."""
        held, self._held = self._held, []
        ours = [h.tid for h in held if h.ours]
        left = self._doubtful(ours) if ours else frozenset()
        self._strays |= left
        if self._strays:
            self._quarantine.begin()
        for tid in ours:
            if tid not in left:
                try:
                    ptrace.take(tid)
                    ptrace.resume(tid)
                except OSError:
                    pass  # killed meanwhile
        if self._strays and not left:
            self._drain()

    def _drain(self) -> None:
        """Forget strays that gdb has seen; the last one ends the quarantine."""
        waiting = set()
        for tid in self._strays:
            pending = ptrace.status_field(self.pid, tid, "SigPnd") or "0"
            stopped = ptrace.state(self.pid, tid) == "t"
            if stopped or int(pending, 16) >> (signal.SIGSTOP - 1) & 1:
                waiting.add(tid)
        self._strays = waiting
        if not waiting:
            self._quarantine.end()

    def release(self) -> None:
        """No more freezing: give gdb's setting back, when no SIGSTOP of ours is left."""
        self.settle()
        if self._strays:
            self._quarantine.last()
        else:
            self._quarantine.end()
        self._strays.clear()

    def settle(self) -> None:
        """At a prompt: no SIGSTOP waits for a thread that stands; were gdb killed now, the program
        would stand still for good."""
        for tid in self._strays:
            self._take_back(tid)

    def _take_back(self, tid: int) -> None:
        """A SIGSTOP that waits in the kernel for a thread that stands: run into it, no instruction
        is executed on the way (signals are delivered first, ptrace(2))."""
        fields = [ptrace.status_field(self.pid, tid, n) or "0" for n in ("SigPnd", "ShdPnd")]
        blocked = int(ptrace.status_field(self.pid, tid, "SigBlk") or "0", 16)
        pending = (int(fields[0], 16) | int(fields[1], 16)) & ~blocked
        if pending != 1 << (signal.SIGSTOP - 1) or ptrace.state(self.pid, tid) != "t":
            return
        try:
            if ptrace.look(tid) is None:  # gdb has taken what it stopped by
                ptrace.resume(tid)
                event = ptrace.look(tid, block=True)
                if event is not None and event.status == signal.SIGSTOP:
                    ptrace.take(tid)
        except OSError:
            pass  # it has ended

    def _doubtful(self, tids: List[int]) -> FrozenSet[int]:
        """Those that gdb may be stepping: resumed by us they would run on."""
        breakpoints = locations()
        if breakpoints is None:
            return frozenset(tids)
        found = set()
        for tid in tids:
            try:
                gprs = ptrace.get_gprs(tid)
            except OSError:
                continue
            pc = program_counter(gprs)
            in_call = int.from_bytes(gprs[GPR["orig_rax"] * 8 :][:8], "little") >> 63 == 0
            at = {pc, pc - 2} if in_call else {pc}
            if at & breakpoints:  # about to be stepped off that breakpoint
                found.add(tid)
            elif tid == self.user_thread and (not in_call or _has_line(pc - 2)):
                found.add(tid)  # `next`, `finish` ... may be under way
        return frozenset(found)


def program_counter(gprs: bytes) -> int:
    """RIP out of the 216 bytes of struct user_regs_struct."""
    return int.from_bytes(gprs[_RIP : _RIP + 8], "little")


def _has_line(pc: int) -> bool:
    return line_at(pc).symtab is not None


_locations: Optional[FrozenSet[int]] = None
_known = False


def locations() -> Optional[FrozenSet[int]]:
    """Addresses of all breakpoints, gdb's internal ones too; None where system calls are caught
    (gdb then resumes in a way that only gdb knows)."""
    global _locations, _known
    if not _known:
        text = quiet("maintenance info breakpoints")
        caught = re.search(r"catchpoint.*(syscall|seccomp)", text)
        _locations = (
            None
            if caught
            else frozenset(int(a, 16) for a in re.findall(r"\b0x[0-9a-f]{8,16}\b", text))
        )
        _known = True
    return _locations


_hits: Dict[int, int] = {}


def forget_locations(_event: object = None) -> None:
    """Breakpoints, or what they mean, changed."""
    global _known
    _known = False


def _modified(breakpoint: gdb.Breakpoint) -> None:
    """A hit counts as a modification; it moves nothing."""
    hits = breakpoint.hit_count
    if _hits.get(breakpoint.number) == hits:
        forget_locations()
    _hits[breakpoint.number] = hits


def watch_breakpoints(connect: bool) -> None:
    """Follow gdb's breakpoints while something is recorded."""
    forget_locations()
    events = gdb.events
    pairs = (
        (events.breakpoint_created, forget_locations),
        (events.breakpoint_deleted, forget_locations),
        (events.breakpoint_modified, _modified),
        (events.new_objfile, forget_locations),
    )
    for registry, function in pairs:
        if connect:
            registry.connect(function)  # type: ignore[arg-type]
        else:
            registry.disconnect(function)  # type: ignore[arg-type]

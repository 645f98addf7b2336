"""One resume of the vessel until its stop, and what the stop means to gdb."""

from __future__ import annotations

import functools
import os
import signal
import struct
from typing import FrozenSet, List, Optional, Sequence

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.ends import End, Wait
from gdb_uffd.replay import agent, faults, illegal, jumps
from gdb_uffd.replay.agent import Orders
from gdb_uffd.replay.breakpoints import Breakpoints, Here
from gdb_uffd.replay.circle import Circle
from gdb_uffd.replay.interface import Resume, Stop, StubClient
from gdb_uffd.replay.lazy import Lazy
from gdb_uffd.replay.policy import waiting
from gdb_uffd.replay.state import ThreadStates
from gdb_uffd.replay.vessel import Vessel

MODES = {"c": lib.RESUME_CONTINUE, "s": lib.RESUME_STEP, "r": lib.RESUME_RANGE}

NO_SIGNAL = 0
"""What ends a run that no signal stopped.  gdb takes a SIGTRAP at an unmoved pc for a step that
is not complete, and steps again, for ever; a signal that it was told to pass (`handle ... nostop
pass`) it passes at once.  Only 0 always ends what it was doing (infrun.c, handle_signal_stop)."""

TRAPS = (signal.SIGTRAP, signal.SIGSEGV, signal.SIGILL, signal.SIGSTOP)
"""What may be of a breakpoint or of ours: never passed unseen (gdbserver's linux-low.cc,
linux_wstatus_maybe_breakpoint)."""

OUTPUT_MAX = 16 << 20
"""Bytes of a call's output that are remembered for its report; all of it is passed on."""

WATCHED = "watched"
"""`Stop.breakpoint` of a write to native/pager/watch.h's object: never shown to a client."""

SIGINFO_BYTES = 128  # SI_MAX_SIZE, <asm-generic/siginfo.h>
_SIGINFO = struct.Struct("<iiiiQ")  # si_signo, si_errno, si_code, padding, si_addr


CALL_CODE = signal.SIGTRAP | 0x80
"""si_code of a stop at a system call (ptrace(2), PTRACE_O_TRACESYSGOOD)."""


def trap_info(code: int) -> bytes:
    """siginfo_t of a trap where the kernel's own told of something else."""
    return _SIGINFO.pack(signal.SIGTRAP, 0, code, 0, 0).ljust(SIGINFO_BYTES, b"\0")


class Runner:
    """Runs the vessel.  `output` collects what the program wrote; `unavailable` is why the last
    stop's access failed, if it touched a page that cannot be had."""

    def __init__(self, vessel: Vessel, threads: ThreadStates, breakpoints: Breakpoints) -> None:
        self.vessel = vessel
        self.threads = threads
        self.breakpoints = breakpoints
        self.output = bytearray()
        self.blocked: Optional[Wait] = None
        self.floor = 0  # the stack pointer with which the function that is called began; 0: none
        self.base = 0  # ... and of the frame below which gdb pushed its own
        self.lazy = Lazy(vessel)
        self.run = ffi.new("struct run *")
        self._over = 0  # the breakpoint beneath which one instruction is being made, to go on then
        self._inject = 0  # sent to the vessel, to be passed on when it arrives
        self._circle = Circle(vessel)
        self._asked = False  # the client wants it to stop
        self._signal_stop = False  # a signal can be injected with the next resume

    @functools.cached_property
    def jumps(self) -> FrozenSet[int]:
        """Where a longjmp begins.  To be asked before the first page is fed: it is seen by
        breakpoints of ours, which are planted then."""
        return jumps.plant(self.vessel, self.lazy)

    def resume(self, action: Resume, client: StubClient) -> Stop:
        """See Diversion.resume."""
        stop = self.start(action)
        while stop is None:
            stop = self.wait(action, client)
        return stop

    def start(self, action: Resume) -> Optional[Stop]:
        """Let the vessel run; a Stop when it cannot."""
        self.blocked = None
        number = action.signal if action.signal != signal.SIGSTOP else 0  # nobody would continue it
        self.threads.load(action.tid)
        refused = self._cannot_take(number)
        if refused is not None:
            return Stop(action.tid, NO_SIGNAL, end=refused, stands=True)
        self.breakpoints.synchronise()
        if number and action.tid in self.threads.siginfo:
            self._offer_siginfo(self.threads.siginfo[action.tid], number)
        self._inject = self._over = 0
        self._asked = False
        others = len(self.threads.snapshot.threads) > 1
        self._circle.begin(bool(self.floor) and action.kind == "c" and others)
        told = self.breakpoints.told
        if told and self.breakpoints.is_strange(self.threads.get(action.tid).pc) and not number:
            return self._pass(action, told)
        if number and not self._signal_stop:
            os.kill(self.vessel.pid, number)  # comes as a stop, and is injected then
            self._inject = number
        self._go(action, number if self._signal_stop else 0)
        return None

    def _cannot_take(self, number: int) -> Optional[End]:
        """Why a signal is not delivered; None where it can be, or is none."""
        if not number or not lib.task_signal_is_fatal(self.vessel.native, number):
            return None
        return End("undelivered", signal=number)

    def _offer_siginfo(self, siginfo: bytes, number: int) -> None:
        if len(siginfo) >= 128 and _SIGINFO.unpack_from(siginfo)[0] == number and self._signal_stop:
            lib.task_set_siginfo(self.vessel.native, siginfo[:128])

    def _go(self, action: Resume, number: int) -> None:
        self.threads.fresh = True
        self.vessel.ran()
        mode = MODES[action.kind]
        vessel = self.vessel
        vessel.check(lib.run_resume(vessel.native, mode, number, action.lo, action.hi))

    def wait(self, action: Resume, client: StubClient) -> Optional[Stop]:
        """One event; None when the vessel runs on."""
        native = self.vessel.native
        # To another CPU and back at each stop costs more than the rest of passing a breakpoint.
        self.vessel.keep_cpu(bool(self.breakpoints.orders))
        try:
            stop = self._wait(action, client)
        except BaseException:
            lib.task_leave_cpu(native)
            raise
        if stop is not None:
            lib.task_leave_cpu(native)
        return stop

    def _wait(self, action: Resume, client: StubClient) -> Optional[Stop]:
        native, run = self.vessel.native, self.run
        self.vessel.check(lib.wait_vessel(native, client.fileno(), run))
        if run.end == lib.RUN_OUTPUT:
            self._drain(client)
            return None
        if run.end == lib.RUN_CONTROL:
            if client.interrupt_requested():
                self._asked = True
                lib.task_interrupt(native)
            return None
        self._drain(client)
        if self._over:
            return self._passed(action, client)
        stop = self._event(action, client)
        if run.stepped and stop is not None and run.pc in self.breakpoints.orders:
            self._carry_out(self.breakpoints.orders[run.pc], self.vessel.gpr(), client)
        return stop

    def _event(self, action: Resume, client: StubClient) -> Optional[Stop]:
        """What the end of a wait means; None when the vessel runs on."""
        run = self.run
        if run.end == lib.RUN_GONE or (run.end == lib.RUN_FAILED and not self.vessel.running):
            return self._gone(action.tid)
        if run.end == lib.RUN_WATCH:
            return Stop(action.tid, signal.SIGTRAP, WATCHED)
        if run.end == lib.RUN_CALL:
            self._signal_stop = False
            self._note(action.tid, trap_info(CALL_CODE))
            side = "syscall_entry" if run.entry else "syscall_return"
            return Stop(action.tid, signal.SIGTRAP, side, run.call)
        self._signal_stop = run.end == lib.RUN_STOPPED and not self.vessel.at_exit
        if self._inject and run.end == lib.RUN_STOPPED and run.signal == self._inject:
            self._inject = 0
            self._go(action, run.signal)
            return None
        if run.end == lib.RUN_TIMEOUT and not self._circle.is_over():
            return self._look(action, client)
        end = self._goes_no_further()
        if end is not None:
            return Stop(action.tid, NO_SIGNAL, end=end)
        return self._stopped(action, client)

    def _look(self, action: Resume, client: StubClient) -> Optional[Stop]:
        """It runs for long."""
        if self._asked:
            return Stop(action.tid, signal.SIGINT)
        stop = self._circle.look(lambda: self._step(action.tid, client))
        if stop is None:
            client.runs_on(self._circle.seconds())
            self.again(action)
        elif self._circle.closed:
            self.blocked = waiting.circle(int(self.run.pc))
            return Stop(action.tid, NO_SIGNAL, end=End("wait", wait=self.blocked))
        return stop

    def _step(self, tid: int, client: StubClient) -> Stop:
        """One instruction, or what comes instead."""
        step = Resume(tid, "s")
        self._go(step, 0)
        stop = None
        while stop is None:
            stop = self._wait(step, client)
        return stop

    def _goes_no_further(self) -> Optional[End]:
        """Why the vessel stands where no signal stopped it, told to the user."""
        run = self.run
        if run.end == lib.RUN_WAITING:
            self.blocked = waiting.describe(self.vessel, run, self.threads.loaded or 0)
            return End("wait", wait=self.blocked)
        others = len(self.threads.snapshot.threads) > 1
        return waiting.ending(run, self.vessel.policy, others)

    def _drain(self, client: StubClient) -> None:
        for data in self.vessel.output():
            self.output += data[: max(0, OUTPUT_MAX - len(self.output))]
            client.output(data)

    def _gone(self, tid: int) -> Stop:
        if self.run.end == lib.RUN_FAILED:
            end = waiting.failed(self.run, lost=True)
            return Stop(tid, signal.SIGKILL, lost=True, end=end)
        status = self.run.status
        end = End("gone", lost=True)
        if os.WIFSIGNALED(status):
            end = End("killed", signal=os.WTERMSIG(status), lost=True)
        return Stop(tid, signal.SIGKILL, lost=True, end=end)

    def _stopped(self, action: Resume, client: StubClient) -> Optional[Stop]:
        run, tid = self.run, action.tid
        number = run.signal
        siginfo = bytes(ffi.buffer(run.siginfo))
        _, _, code, _, fault = _SIGINFO.unpack_from(siginfo)
        if run.interrupted:
            return Stop(tid, signal.SIGINT)
        if number == signal.SIGTRAP:
            return self._trap(action, code, siginfo, client)
        if number == signal.SIGSEGV and run.pc in self.breakpoints.inserted:
            # gdb's dummy frame returns to the stack, which is not executable: its breakpoint.
            self._note(tid, trap_info(self.vessel.arch.breakpoint_code))
            return Stop(tid, signal.SIGTRAP, "swbreak")
        if number == signal.SIGSEGV and fault == run.pc and self._bind(tid, run.pc):
            return self._goes_on(action)
        self._note(tid, siginfo)
        if number in self.breakpoints.passes and number not in TRAPS and action.kind == "c":
            end = self._cannot_take(number)
            if end is not None:
                return Stop(tid, NO_SIGNAL, end=end)
            self._go(action, number)
            return None
        end = None
        if number in (signal.SIGSEGV, signal.SIGBUS):
            end = faults.explain(self.vessel, fault, run.pc, self.lazy.lack)
            if end is None:
                sp = self.threads.get(self.threads.loaded or 0).sp
                self.threads.fresh = True
                end = faults.stack_used_up(self.vessel, fault, sp, self.floor)
        elif number == signal.SIGILL:
            end = illegal.explain(self.vessel.arch, run.pc, self.vessel.read, illegal.cpu_flags())
        return Stop(tid, number, end=end)

    def _bind(self, tid: int, pc: int) -> bool:
        """Whether the thread stood where the dynamic linker is missing, or what it needs, and is
        past it."""
        self.lazy.lack = ""
        if pc not in self.lazy.entries and not self.vessel.regions.why(pc):
            return False
        made = self.lazy.bind(self.threads.get(tid))
        self.threads.fresh = True  # the vessel's registers are the newer ones still
        if made is None:
            return False
        self.threads.put(tid, made)
        self.threads.load(tid)
        if self.vessel.watch.pages:  # the slot's page lost its protection
            self.vessel.watch.compare(False)
        return True

    def _note(self, tid: int, siginfo: bytes) -> None:
        self.threads.siginfo[tid] = siginfo

    def _trap(self, action: Resume, code: int, info: bytes, client: StubClient) -> Optional[Stop]:
        run, tid, at = self.run, action.tid, self._breakpoint()
        planted = code == self.vessel.arch.breakpoint_code
        if planted and at in self.jumps:
            self.vessel.set_pc(at)
            end = self._leaves(tid)
            if end is not None:
                # Behind the first instruction: gdb has a breakpoint of its own on that one, and
                # would take the stop for it, and go on.
                self._step_over()
                self._note(tid, b"")
                return Stop(tid, NO_SIGNAL, end=end)
            if at not in self.breakpoints.wanted:
                return self._pass_own(action)
        if planted and at in self.lazy.entries and at not in self.breakpoints.wanted:
            self.vessel.set_pc(at)
            return self._goes_on(action) if self._bind(tid, at) else self._pass_own(action)
        if planted and at in self.breakpoints.inserted:
            gpr = self.vessel.set_pc(at)
            orders = self.breakpoints.orders.get(at)
            if orders is not None and self._carry_out(orders, gpr, client):
                return self._pass(action, at)
            self._note(tid, info)
            self.breakpoints.told = at
            return Stop(tid, signal.SIGTRAP, "swbreak")
        self._note(tid, info)
        hit = self.breakpoints.hit()
        if hit is not None:
            name, address = hit
            if not name:  # a read watchpoint saw a write: not what was asked for
                if run.stepped:
                    return Stop(tid, signal.SIGTRAP)
                self.again(action)
                return None
            return Stop(tid, signal.SIGTRAP, name, address)
        return Stop(tid, signal.SIGTRAP)

    def _carry_out(self, orders: Orders, gpr: List[int], client: StubClient) -> bool:
        """What a breakpoint is to do by itself; True when the program is to go on then."""
        here = Here(self.vessel, gpr)
        if not agent.holds(orders, here):
            return True
        for command in orders.commands:
            try:
                agent.evaluate(command, here, client.output)
            except agent.AgentError as error:
                at = gpr[self.vessel.arch.pc]
                client.output(f"uffd: breakpoint at {at:#x}: {error}\n".encode())
        return bool(orders.commands)

    def _pass(self, action: Resume, at: int) -> Optional[Stop]:
        """Begin the one instruction beneath a breakpoint: a step like any other, which may fault,
        ask for a system call, or hit a watchpoint.  A breakpoint of the program's own is left out,
        as gdb does (infrun.c, resume_1)."""
        instruction = self.vessel.arch.breakpoint
        if self.vessel.read(at, len(instruction)) == instruction:
            self.vessel.set_pc(at + len(instruction))
            return self._after(action, at + len(instruction))
        check(lib.breakpoint_put(self.vessel.pager, at, False), doing="taking out a breakpoint")
        self._over = at
        self._go(Resume(action.tid, "s"), 0)
        return None

    def _passed(self, action: Resume, client: StubClient) -> Optional[Stop]:
        """That step has ended."""
        at, self._over = self._over, 0
        run = self.run
        if run.end != lib.RUN_GONE:
            check(lib.breakpoint_put(self.vessel.pager, at, True), doing="putting in a breakpoint")
        stop = self._event(Resume(action.tid, "s"), client)
        if stop is None or not run.stepped or stop != Stop(action.tid, signal.SIGTRAP):
            return stop
        return self._after(action, run.pc)

    def _after(self, action: Resume, pc: int) -> Optional[Stop]:
        """Behind that instruction: the step that was asked for is complete, or it goes on."""
        if action.kind == "s" or (action.kind == "r" and not action.lo <= pc < action.hi):
            return Stop(action.tid, signal.SIGTRAP)
        self._go(action, 0)
        return None

    def _leaves(self, tid: int) -> Optional[End]:
        """The longjmp that is about to be made, if it leaves the called function."""
        found = jumps.target(self.vessel, self.threads.get(tid)) if self.floor else None
        self.threads.fresh = True  # the vessel's registers are the newer ones still
        if found is None or not self._is_above(found[0]):
            return None
        return End("longjmp", address=found[1])

    def _pass_own(self, action: Resume) -> Optional[Stop]:
        """A longjmp inside of the called function, or a call that the linker can bind: it goes its
        way."""
        self._step_over()
        return self._goes_on(action, ("s",))

    def _goes_on(self, action: Resume, steps: Sequence[str] = ("s", "r")) -> Optional[Stop]:
        if action.kind in steps:
            return Stop(action.tid, signal.SIGTRAP)
        self.again(action)
        return None

    def _step_over(self) -> None:
        self.vessel.check(lib.run_step_over(self.vessel.native, self._breakpoint()))

    def _breakpoint(self) -> int:
        """Where the breakpoint lies that was hit, if it was one."""
        return int(self.run.pc) - self.vessel.arch.breakpoint_skips

    def _is_above(self, sp: int) -> bool:
        """Whether a stack pointer lies in the frames that were there before the call."""
        return sp >= self.base and self.vessel.regions.is_writable_throughout(self.base, sp)

    def left(self, sp: int) -> bool:
        """Whether a call that stopped with the stack pointer `sp` had been left before."""
        return bool(self.floor) and self._is_above(sp)

    def again(self, action: Resume) -> None:
        """Go on after a stop that is nobody's business."""
        self.breakpoints.synchronise()
        self._go(action, 0)

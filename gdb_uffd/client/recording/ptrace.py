"""ptrace(2) from the process that is the tracer already: gdb.  No gdb module here, only ctypes.

gdb's native target traces with its main thread, in which its Python runs too; so these requests
work on every thread that gdb has stopped, and gdb never notices: nothing here takes an event that
gdb waits for (waitid with WNOWAIT looks first), and whatever is changed is put back.
Numbers: <sys/ptrace.h>, <linux/elf.h>, <asm/unistd_64.h>, <bits/waitflags.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import Callable, List, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import GPR, UffdError

_CONT, _SINGLESTEP, _GETREGS, _SETREGS = 7, 9, 12, 13
_GETSIGINFO, _SETSIGINFO, _GETREGSET = 0x4202, 0x4203, 0x4204
_GETSIGMASK, _SETSIGMASK, _GET_SYSCALL_INFO = 0x420A, 0x420B, 0x420E
NT_X86_XSTATE = 0x202
XSAVE_ROOM = 1 << 15  # bytes; with AMX it is 11,008
SIGINFO_SIZE = 128

_SYS_TGKILL, _SYS_USERFAULTFD, _SYS_CLOSE = 234, 323, 3
_SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 434, 438
USER_MODE_ONLY = 1  # <linux/userfaultfd.h>, UFFD_USER_MODE_ONLY
SYSCALL = b"\x0f\x05"  # the instruction

_P_PID, _WSTOPPED, _WEXITED, _WNOHANG = 1, 2, 4, 1
_WNOWAIT, _WALL = 0x01000000, 0x40000000
CLD_STOPPED, CLD_TRAPPED = 5, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.syscall.restype = ctypes.c_long

_Regs = ctypes.c_uint64 * 27
_Bytes128 = ctypes.c_char * SIGINFO_SIZE


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def _ptrace(request: int, tid: int, address: object = None, data: object = None) -> int:
    result = int(_libc.ptrace(request, tid, address, data))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace of thread {tid}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: int) -> int:
    result = int(_libc.syscall(number, *(ctypes.c_long(a) for a in arguments)))
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result


def get_gprs(tid: int) -> bytes:
    """The 27 registers of struct user_regs_struct of a stopped thread, 216 bytes."""
    regs = _Regs()
    _ptrace(_GETREGS, tid, None, ctypes.byref(regs))
    return bytes(regs)


def set_gprs(tid: int, raw: bytes) -> None:
    """Set them all."""
    _ptrace(_SETREGS, tid, None, ctypes.byref(_Regs.from_buffer_copy(raw)))


_xsave = ctypes.create_string_buffer(XSAVE_ROOM)


def get_xsave(tid: int) -> bytes:
    """The thread's XSAVE image as this machine lays it out (NT_X86_XSTATE)."""
    iov = _Iovec(ctypes.addressof(_xsave), XSAVE_ROOM)
    _ptrace(_GETREGSET, tid, NT_X86_XSTATE, ctypes.byref(iov))
    return ctypes.string_at(_xsave, iov.len)


def get_siginfo(tid: int) -> bytes:
    """The siginfo_t of what the thread stopped by, 128 bytes; b"" in a group stop."""
    buffer = _Bytes128()
    try:
        _ptrace(_GETSIGINFO, tid, None, ctypes.byref(buffer))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return b""
        raise
    return bytes(buffer.raw)


def set_siginfo(tid: int, siginfo: bytes) -> None:
    """Make the kernel believe that the thread stopped by that."""
    buffer = ctypes.create_string_buffer(siginfo, SIGINFO_SIZE)
    _ptrace(_SETSIGINFO, tid, None, ctypes.byref(buffer))


def get_sigmask(tid: int) -> int:
    """Blocked signals, bit (n - 1) for signal n."""
    mask = ctypes.c_uint64()
    _ptrace(_GETSIGMASK, tid, 8, ctypes.byref(mask))
    return int(mask.value)


def set_sigmask(tid: int, mask: int) -> None:
    """Block exactly these."""
    _ptrace(_SETSIGMASK, tid, 8, ctypes.byref(ctypes.c_uint64(mask)))


def tgkill(pid: int, tid: int, number: int) -> None:
    """A signal to one thread."""
    _syscall(_SYS_TGKILL, pid, tid, number)


def resume(tid: int, number: int = 0) -> None:
    """Let a stopped thread run on, with that signal."""
    _ptrace(_CONT, tid, None, number)


@dataclass(frozen=True)
class WaitEvent:
    """What waitid tells of a thread: how (CLD_TRAPPED: stopped, traced), and the signal; of a
    PTRACE_EVENT stop the signal is SIGTRAP with the event in the bits above."""

    code: int
    status: int

    @property
    def stopped(self) -> bool:
        """Whether the thread is there to be looked at."""
        return self.code in (CLD_STOPPED, CLD_TRAPPED)


def look(tid: int, *, block: bool = False) -> Optional[WaitEvent]:
    """The event that waits to be taken from that thread, which stays there; None: there is none."""
    return _waitid(tid, _WEXITED | _WNOWAIT | (0 if block else _WNOHANG))


def take(tid: int) -> Optional[WaitEvent]:
    """Take it: gdb will not see it any more.  Never the thread's end, which may have come since
    `look` and without which gdb would wait for it for ever; then None, as when there is nothing."""
    try:
        return _waitid(tid, _WNOHANG)
    except ChildProcessError:  # what has ended has nothing else to tell
        return None


def _waitid(tid: int, flags: int) -> Optional[WaitEvent]:
    info = (ctypes.c_int * 32)()
    while True:
        info[2] = info[3] = 0
        options = _WSTOPPED | _WALL | flags
        if _libc.waitid(_P_PID, tid, ctypes.byref(info), options, None) == 0:
            break
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, f"waiting for thread {tid}: {os.strerror(number)}")
    # siginfo_t: si_signo, si_errno, si_code; union at 16: si_pid, si_uid, si_status.
    return WaitEvent(info[2], info[6]) if info[4] else None


_PF_IO_WORKER, _PF_USER_WORKER = 0x10, 0x4000  # include/linux/sched.h


def state(pid: int, tid: int) -> str:
    """The letter of proc_pid_stat(5): "t" stopped by the tracer; "" when it has gone, or when it is
    one of the kernel's workers (io_uring's, vhost's), which are no threads of the program."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if int(fields[6]) & (_PF_IO_WORKER | _PF_USER_WORKER):
            return ""
        return chr(fields[0][0])
    except (OSError, IndexError, ValueError):
        return ""


def comm(tid: int) -> str:
    """The thread's name, "" when it has gone."""
    try:
        with open(f"/proc/{tid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return ""


PF_EXITING = 0x4  # <linux/sched.h>


def status_field(pid: int, tid: int, name: str) -> str:
    """A field of /proc/PID/task/TID/status, "" when there is none."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def wait_status(pid: int) -> Optional[int]:
    """The wait status (wait(2)) of a process that is ending, or has ended and is not yet reaped;
    None of one that goes on.  Only its tracer is told (proc_pid_stat(5), exit_code)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        state, flags, status = fields[0], int(fields[6]), int(fields[49])
    except (OSError, ValueError, IndexError):
        return None
    return status if status or state in "ZX" or flags & PF_EXITING else None


def threads(pid: int) -> List[int]:
    """The TIDs of a process, [] when it has gone."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return []


class Refused(UffdError):
    """A system call cannot be made in that thread now; the text says why."""


def may_inject(pid: int, tid: int) -> str:
    """ "" when a system call can be made in this stopped thread, else why not."""
    if state(pid, tid) != "t":
        return "no thread is stopped"
    if status_field(pid, tid, "Seccomp") not in ("0", ""):
        return "the program filters its system calls (seccomp)"
    info = get_siginfo(tid)
    number, _, code = struct.unpack_from("<iii", info) if info else (0, 0, 0)
    if not info or (number == signal.SIGTRAP and code >> 8):
        return "the thread stands inside of a system call"  # PTRACE_EVENT stop, group stop
    buffer = ctypes.create_string_buffer(128)
    try:
        _ptrace(_GET_SYSCALL_INFO, tid, len(buffer), ctypes.byref(buffer))
    except OSError:
        return ""  # before Linux 5.3
    return "the thread stands at a system call" if buffer.raw[0] else ""


class Injection:
    """System calls made in a stopped thread; `restore` leaves the thread as it was.

    A thread that was interrupted in a system call goes back into it: the registers that say so
    (orig_rax, rax) are among those put back, and so is the siginfo of its stop.
    """

    def __init__(self, pid: int, tid: int, instruction: int) -> None:
        """`instruction`: address of a `syscall` in the program's memory.  Refused."""
        why = may_inject(pid, tid)
        if why:
            raise Refused(why)
        self._pid, self._tid, self._at = pid, tid, instruction
        self._regs, self._siginfo = get_gprs(tid), get_siginfo(tid)
        self._mask = get_sigmask(tid)
        self._stops = 0
        # A signal that came now would be taken by the step and lost.
        set_sigmask(tid, (1 << 64) - 1)

    def call(self, number: int, *arguments: int) -> int:
        """The result, as the kernel returns it: -errno when it failed."""
        regs = list(struct.unpack("<27Q", self._regs))
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments):
            regs[GPR[name]] = value & (1 << 64) - 1
        regs[GPR["rax"]], regs[GPR["rip"]] = number, self._at
        regs[GPR["orig_rax"]] = (1 << 64) - 1  # no interrupted call to restart now
        set_gprs(self._tid, struct.pack("<27Q", *regs))
        while True:
            _ptrace(_SINGLESTEP, self._tid)
            event = look(self._tid, block=True)
            if event is None or not event.stopped:
                raise Refused("the program ended")  # the event stays for gdb
            take(self._tid)
            if event.status == signal.SIGSTOP:
                self._stops += 1  # gdb's own, to stop the thread; it is sent again below
                continue
            break
        now = struct.unpack("<27Q", get_gprs(self._tid))
        if event.status != signal.SIGTRAP or now[GPR["rip"]] != self._at + len(SYSCALL):
            raise Refused(f"a system call made in the program was not done (signal {event.status})")
        result = int(now[GPR["rax"]])
        return result - (1 << 64) if result >> 63 else result

    def restore(self) -> None:
        """Put everything back.  Idempotent."""
        self._stop_by_sigstop()
        set_gprs(self._tid, self._regs)
        set_sigmask(self._tid, self._mask)
        if self._siginfo:
            set_siginfo(self._tid, self._siginfo)
        if self._stops:
            self._stops = 0
            tgkill(self._pid, self._tid, signal.SIGSTOP)

    def _stop_by_sigstop(self) -> None:
        """What the thread stands by is delivered to it when its tracer is killed (ptrace_signal in
        the kernel's signal.c): the step's SIGTRAP would end the program.  Other signals are blocked
        still, and this one comes before any instruction."""
        tgkill(self._pid, self._tid, signal.SIGSTOP)
        resume(self._tid)
        event = look(self._tid, block=True)
        if event is None or not event.stopped:
            raise Refused("the program ended")  # the event stays for gdb
        take(self._tid)


ReadMemory = Callable[[int, int], bytes]


def find_syscall(maps: List[Tuple[int, int, str, str]], read: ReadMemory) -> int:
    """Address of a `syscall` instruction in executable memory: the vdso's, else any other's.

    `maps`: (start, end, permissions, name).  Refused when there is none.
    """
    code = [m for m in maps if "x" in m[2] and m[3] != "[vsyscall]"]
    for start, end, _, _ in sorted(code, key=lambda m: m[3] != "[vdso]"):
        for at in range(start, min(end, start + (4 << 20)), 1 << 16):
            try:
                found = read(at, min(end - at, (1 << 16) + 1)).find(SYSCALL)
            except OSError:
                break
            if found >= 0:
                return at + found
    raise Refused("the program has no system call instruction")


def pidfd_open(pid: int) -> int:
    """A descriptor that becomes readable when the process ends."""
    return _syscall(_SYS_PIDFD_OPEN, pid, 0)


def take_userfaultfd(pid: int, tid: int, pidfd: int, instruction: int) -> int:
    """A userfaultfd of that process, as a descriptor of ours; the process keeps none.

    Made by one system call in the stopped thread `tid` (UFFD_USER_MODE_ONLY: anybody may, and
    asynchronous write protection needs no more).  Refused, with the reason.
    """
    injection = Injection(pid, tid, instruction)
    theirs = -1
    try:
        flags = os.O_CLOEXEC | os.O_NONBLOCK | USER_MODE_ONLY
        theirs = injection.call(_SYS_USERFAULTFD, flags)
        if theirs < 0:
            raise Refused(f"userfaultfd() in the program: {os.strerror(-theirs)}")
        try:
            return _syscall(_SYS_PIDFD_GETFD, pidfd, theirs, 0)
        except OSError as error:
            raise Refused(f"pidfd_getfd: {error.strerror}") from None
    finally:
        try:
            if theirs >= 0:
                injection.call(_SYS_CLOSE, theirs)
        finally:
            injection.restore()

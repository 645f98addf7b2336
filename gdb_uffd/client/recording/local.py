"""Snapshots of a process of this machine that gdb itself traces."""

from __future__ import annotations

import os
import struct
import time
from typing import Any, Callable, Dict, List, Tuple

import gdb

from gdb_uffd.client.recording import ptrace
from gdb_uffd.client.recording.freeze import Freezer, Held, NotStill, program_counter
from gdb_uffd.client.recording.recorder_client import Recorder, Source
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.protocol.model import GPR, PAGE_SIZE, UffdError
from gdb_uffd.recorder.wire import RawThread, pack_thread
from gdb_uffd.terminal import one_line

_FILES = ("mem", "pagemap", "maps")
_SIGTRAP, _SIGSTOP = 5, 19
_RIP = GPR["rip"] * 8


def is_traced(pid: int) -> bool:
    """Whether this very gdb traces that process: not gdbserver, and no process of another machine
    that has the same number."""
    return _is_native() and ptrace.status_field(pid, pid, "TracerPid") == str(os.getpid())


def was_killed(pid: int) -> bool:
    """Whether that process of the native target has ended, and gdb does not know of it yet."""
    return _is_native() and all(ptrace.state(pid, tid) in "ZX" for tid in ptrace.threads(pid))


def _is_native() -> bool:
    connection = gdb.selected_inferior().connection
    return connection is not None and connection.type == "native"


class LocalProcess:
    """The process while it is recorded: descriptors of it, and how it is frozen."""

    def __init__(self, pid: int) -> None:
        """UffdError when this gdb may not look into it."""
        self.pid = pid
        self.freezer = Freezer(pid)
        self._fds: Dict[str, int] = {}
        try:
            for name in _FILES:
                self._fds[name] = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            with open(f"/proc/{pid}/auxv", "rb") as file:
                self._auxv = file.read()
        except OSError as error:
            self.close()
            raise UffdError(f"process {pid} cannot be recorded: {error}") from None
        self._somewhere = self._maps()[0][0] if self._maps() else 0

    def close(self) -> None:
        """Let the process be; idempotent."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)
        self.freezer.release()

    def source(self) -> Tuple[Source, str]:
        """What the recorder gets, and why it can have no userfaultfd ("": it has one).

        Its userfaultfd is ours only until `Recorder` has been started with it.
        """
        fds, why = list(self._fds.items()), ""
        try:
            fds.append(("uffd", self._userfaultfd()))
        except (UffdError, OSError) as error:
            why = one_line(str(error))
        return Source(self.pid, fds, self._auxv), why

    def _userfaultfd(self) -> int:
        at = ptrace.find_syscall(self._maps(), lambda a, n: os.pread(self._fds["mem"], n, a))
        selected = gdb.selected_thread()
        first = selected.ptid[1] if selected is not None else self.pid
        others = [tid for tid in ptrace.threads(self.pid) if tid != first]
        pidfd, why = ptrace.pidfd_open(self.pid), UffdError("it has no thread")
        try:
            for tid in [first, *others]:
                reason = ptrace.may_inject(self.pid, tid)
                if not reason:
                    return ptrace.take_userfaultfd(self.pid, tid, pidfd, at)
                why = UffdError(reason)
        finally:
            os.close(pidfd)
        raise why

    def _maps(self) -> List[Tuple[int, int, str, str]]:
        found = []
        os.lseek(self._fds["maps"], 0, os.SEEK_SET)
        with open(
            os.dup(self._fds["maps"]), encoding="utf-8", errors="replace", newline="\n"
        ) as file:
            for line in file:
                where, perms, _, _, _, *name = line.split(None, 5)
                start, end = (int(x, 16) for x in where.split("-"))
                found.append((start, end, perms, name[0].strip() if name else ""))
        return found

    def alive(self) -> bool:
        """Whether its memory is still that of the program that recording began with: not after
        its end, and not after exec."""
        try:
            return os.pread(self._fds["mem"], 1, self._somewhere) != b""
        except OSError:
            return True  # that page went; there is memory

    def capture(
        self, recorder: Recorder, info: Dict[str, Any], began: int, name: Callable[[int], str]
    ) -> None:
        """Take a snapshot: of all threads, frozen if they run.  `info["tid"]` is the selected one,
        `info["signal"]` what it stopped by as far as gdb knows; `began` in ns (CLOCK_MONOTONIC);
        `name` gives the function at an address.

        NotStill when a thread cannot be frozen; RecorderFailed.
        """
        signalled = int(info["signal"])
        held = self.freezer.freeze(gdb.selected_inferior())
        try:
            if not held:
                raise NotStill("the program has just ended")
            recorder.capture()
            held.sort(key=lambda h: h.tid != info["tid"])
            threads = [self._thread(h, signalled if i == 0 else 0) for i, h in enumerate(held)]
            info["signal"] = threads[0].signal
            recorder.threads(info, b"".join(map(pack_thread, threads)))
            code = {page: _code(page) for page in recorder.wait_captured()}
        finally:
            self.freezer.thaw()
        info["pause_us"] = (time.monotonic_ns() - began) // 1000
        info["function"] = info["function"] or name(program_counter(threads[0].gprs))
        recorder.commit(info, {page: data for page, data in code.items() if data})

    def _thread(self, held: Held, signalled: int) -> RawThread:
        tid = held.tid
        gprs = ptrace.get_gprs(tid)
        if held.moved:
            pc = struct.pack("<Q", program_counter(gprs) - held.moved)
            gprs = gprs[:_RIP] + pc + gprs[_RIP + 8 :]
        siginfo = ptrace.get_siginfo(tid)
        number = int.from_bytes(siginfo[:4], "little")
        if number in (0, _SIGSTOP) or (number == _SIGTRAP and signalled != _SIGTRAP):
            number, siginfo = 0, b""  # the debugger's doing
        try:
            with open(f"/proc/{self.pid}/task/{tid}/comm", "rb") as file:
                name = file.read().rstrip(b"\n")
        except OSError:
            name = b""
        return RawThread(
            tid, gprs, ptrace.get_xsave(tid), number, ptrace.get_sigmask(tid), siginfo, name
        )


def _code(page: int) -> bytes:
    """A page of code as it is below gdb's breakpoints; b"" when gdb cannot read it."""
    try:
        return bytes(gdb.selected_inferior().read_memory(page, PAGE_SIZE))
    except FAILURES:
        return b""

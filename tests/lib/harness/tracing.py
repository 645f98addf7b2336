"""A tracer without gdb: runs a program under ptrace(2) and has the recorder take its snapshots."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.client.recording import ptrace
from gdb_uffd.client.recording.recorder_client import Recorder, Source
from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.recorder.wire import RawThread, pack_thread

_TRACEME, _SETOPTIONS = 0, 0x4200
_O_TRACECLONE, _O_EXITKILL = 8, 0x100000  # <sys/ptrace.h>
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

FILES = ("mem", "pagemap", "maps")

_WALL = 0x40000000  # waitpid(2)


def _trace_me() -> None:
    if _libc.ptrace(_TRACEME, 0, None, None):
        os._exit(99)


def reads_what_is_protected() -> bool:
    """Whether /proc/PID/mem gives others than the tracer pages without read permission.

    Not with proc_mem.force_override=ptrace (kernel-parameters.txt), the default of some kernels.
    """
    area = mmap.mmap(-1, PAGE_SIZE)
    area[:2] = b"ok"
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(at, PAGE_SIZE, 0) == 0
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 2, at) == b"ok"
    except OSError:
        return False
    finally:
        protect(at, PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE)


class Traced:
    """A program whose tracer is this thread; it runs unless it is frozen."""

    def __init__(self, command: Sequence[str], **keywords: object) -> None:
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            preexec_fn=_trace_me,
            **keywords,  # type: ignore[call-overload]
        )
        self.pid = self.process.pid
        event = ptrace.look(self.pid, block=True)
        assert event is not None and event.stopped, event
        ptrace.take(self.pid)
        _libc.ptrace(_SETOPTIONS, self.pid, None, _O_TRACECLONE | _O_EXITKILL)
        self.frozen: List[int] = [self.pid]
        self.recorder: Optional[Recorder] = None
        self._fds: Dict[str, int] = {}

    def start(self, path: Path, *, track: bool = True, self_contained: bool = False) -> Recorder:
        """Begin to record the frozen program."""
        assert self.frozen
        fds = {name: os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY) for name in FILES}
        pidfd = ptrace.pidfd_open(self.pid)
        try:
            if track:
                maps = [(m[0], m[1], m[2], m[3]) for m in self.maps()]
                at = ptrace.find_syscall(maps, lambda a, n: os.pread(fds["mem"], n, a))
                with contextlib.suppress(ptrace.Refused):  # as gdb's side does
                    fds["uffd"] = ptrace.take_userfaultfd(self.pid, self.pid, pidfd, at)
            with open(f"/proc/{self.pid}/auxv", "rb") as file:
                auxv = file.read()
            source = Source(self.pid, list(fds.items()), auxv)
            self.recorder = Recorder(sys.executable, str(path), source, self_contained)
        finally:
            os.close(pidfd)
            for fd in fds.values():
                os.close(fd)
        return self.recorder

    def maps(self) -> List[Tuple[int, int, str, str]]:
        """(start, end, permissions, name) of /proc/PID/maps."""
        found = []
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as file:
            for line in file:
                where, perms, _, _, _, *name = line.split(None, 5)
                start, end = (int(x, 16) for x in where.split("-"))
                found.append((start, end, perms, name[0].rstrip("\n") if name else ""))
        return found

    def freeze(self) -> None:
        """Stop every thread."""
        assert not self.frozen
        while True:
            missing = [t for t in ptrace.threads(self.pid) if t not in self.frozen]
            if not missing:
                return
            for tid in missing:
                if ptrace.look(tid) is None:
                    ptrace.tgkill(self.pid, tid, signal.SIGSTOP)
                event = ptrace.look(tid, block=True)
                assert event is not None
                while event.status != signal.SIGSTOP:  # a clone event comes first
                    ptrace.take(tid)
                    ptrace.resume(tid)
                    event = ptrace.look(tid, block=True)
                    assert event is not None
                ptrace.take(tid)
                self.frozen.append(tid)

    def thaw(self) -> None:
        """Let all run on."""
        for tid in self.frozen:
            ptrace.resume(tid)
        self.frozen = []

    def let_events_pass(self) -> None:
        """New threads and their parents stop once for the tracer (PTRACE_EVENT_CLONE), and
        threads that get a signal."""
        for tid in ptrace.threads(self.pid):
            event = ptrace.look(tid)
            if event is not None and event.stopped:
                ptrace.take(tid)
                passed = 0 if event.status in (signal.SIGSTOP, signal.SIGTRAP) else event.status
                ptrace.resume(tid, passed & 0xFF if event.status < 0x100 else 0)

    def snapshot(self, label: str = "") -> None:
        """Take one of the frozen program."""
        assert self.recorder is not None and self.frozen
        began = time.monotonic_ns()
        self.recorder.capture()
        info = {"label": label, "pid": self.pid, "tid": self.pid, "time_ns": time.time_ns()}
        self.recorder.threads(info, b"".join(map(self._thread, self.frozen)))
        self.recorder.wait_captured()
        pause = (time.monotonic_ns() - began) // 1000
        self.recorder.commit({**info, "pause_us": pause}, {})

    def _thread(self, tid: int) -> bytes:
        return pack_thread(
            RawThread(
                tid, ptrace.get_gprs(tid), ptrace.get_xsave(tid),
                sigmask=ptrace.get_sigmask(tid), name=b"puppet",
            )
        )  # fmt: skip

    def end(self) -> None:
        """Kill the program; the recorder, if any, finishes the trace."""
        others = [tid for tid in ptrace.threads(self.pid) if tid != self.pid]
        self.process.kill()
        for tid in others:  # a traced thread stays a zombie, and its leader with it
            while (event := ptrace.look(tid, block=True)) is not None and event.stopped:
                ptrace.take(tid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(tid, _WALL)  # its end
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.recorder is not None:
            self.recorder.end()


MMAP, MUNMAP, MREMAP, MADVISE, MPROTECT, FILL, FORK, BRK, STACK, READ, THREAD, MMAP_FD, UFFD = (
    range(13)
)


class Puppet(Traced):
    """tests/programs/puppet.c."""

    def __init__(self, built: Path, **keywords: object) -> None:
        super().__init__([str(built / "puppet")], **keywords)
        self.thaw()
        assert self.process.stdout is not None
        self.data, self.zeroed = struct.unpack("<2Q", self._read(16))
        self.freeze()

    def _read(self, length: int) -> bytes:
        assert self.process.stdout is not None
        got = b""
        while len(got) < length:
            part = os.read(self.process.stdout.fileno(), length - len(got))
            assert part, "the puppet ended"
            got += part
        return got

    def do(self, what: int, *words: int) -> int:
        """One command while it runs; its answer."""
        assert self.process.stdin is not None and not self.frozen
        padded = [what, *words, 0, 0, 0][:4]
        os.write(self.process.stdin.fileno(), struct.pack("<4Q", *(w % (1 << 64) for w in padded)))
        self._until_answer(what in (THREAD, FORK))
        return int(struct.unpack("<q", self._read(8))[0])

    def _until_answer(self, events: bool) -> None:
        assert self.process.stdout is not None
        while not select.select([self.process.stdout], [], [], 0.001 if events else 0.5)[0]:
            if not events:
                stopped = ptrace.look(self.pid)
                assert stopped is None, f"the puppet was stopped: {stopped}"
            else:
                self.let_events_pass()
        if events:
            self.let_events_pass()

    def held(self, *, populate: bool) -> Iterator[Tuple[int, bytes]]:
        """(address, page) of what the frozen program holds, mapping by mapping.

        Without `populate` pages that are not there are left alone: an anonymous one is zeros then.
        """
        mem = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY)
        try:
            for start, end, _perms, name in self.maps():
                if name.startswith(("[v", "/dev/")):
                    continue
                for page in range(start, end, PAGE_SIZE):
                    if not populate:
                        entry = os.pread(pagemap, 8, page // PAGE_SIZE * 8)
                        if not int.from_bytes(entry, "little") >> 62:
                            if not name.startswith("/"):
                                yield page, bytes(PAGE_SIZE)
                            continue
                    try:
                        yield page, os.pread(mem, PAGE_SIZE, page)
                    except OSError:
                        continue
        finally:
            os.close(mem)
            os.close(pagemap)

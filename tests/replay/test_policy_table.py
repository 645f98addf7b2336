"""What system calls get under each policy, and that none of them leaves a trace outside."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence, Union

import pytest
from harness import ROOT
from harness.asking import Argument, Asker, policy_core
from harness.telling import message

from gdb_uffd.replay.policy import syscalls

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OK = "ok"
"""The call succeeds, whatever it returns."""

Expected = Union[int, str]
"""OK, a value, or a negative errno."""


class Outside:
    """What the calls could reach, and what it looked like before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "file"
        self.file.write_text("as it was\n")
        self.mode = self.file.stat().st_mode
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.named.bind(str(folder / "socket"))
        self.named.setblocking(False)
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        # It takes the recorded process's number: see `asker`.
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def address(self) -> bytes:
        """struct sockaddr_in of the listener."""
        host, port = self.listener.getsockname()
        return struct.pack("<H", 2) + struct.pack(">H4s8x", port, socket.inet_aton(host))

    def unix_address(self) -> bytes:
        """struct sockaddr_un of the named socket."""
        return struct.pack("<H", 1) + str(self.folder / "socket").encode() + b"\0"

    def check(self) -> None:
        """AssertionError when anything is otherwise."""
        assert sorted(p.name for p in self.folder.iterdir()) == ["fifo", "file", "socket"]
        assert self.file.read_text() == "as it was\n"
        assert self.file.stat().st_mode == self.mode
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        with pytest.raises(BlockingIOError):
            self.named.recv(100)
        assert self.process.poll() is None

    def close(self) -> None:
        self.listener.close()
        self.named.close()
        self.process.communicate(b"\n")


class Row(NamedTuple):
    """A call, its arguments, and what the program sees with `safe`."""

    name: str
    arguments: Sequence[Argument]
    safe: Expected


def rows(outside: Outside, room: int, pid: int, tid: int) -> List[Row]:
    """The table.  `pid`, `tid`: recorded; `room`: memory for results."""
    file, other = str(outside.file), str(outside.folder / "new")
    inet, unix = outside.address(), outside.unix_address()
    o_wronly, o_creat, o_trunc = os.O_WRONLY, os.O_CREAT, os.O_TRUNC
    second = struct.pack("<qq", 0, 1000)
    return [
        # Who it is.
        Row("getpid", (), pid),
        Row("gettid", (), tid),
        Row("getuid", (), os.getuid()),
        Row("geteuid", (), os.geteuid()),
        Row("getgid", (), os.getgid()),
        Row("getresuid", (room, room + 8, room + 16), OK),
        Row("getpgid", (1,), -errno.ESRCH),
        Row("uname", (room,), OK),
        Row("getcwd", (room, 4096), OK),
        Row("sched_getaffinity", (0, 128, room), 8),
        Row("getcpu", (room, room + 8, 0), OK),
        Row("umask", (0o77,), 0o22),
        # Time.
        Row("clock_gettime", (0, room), OK),
        Row("clock_gettime", (77, room), -errno.EINVAL),
        Row("gettimeofday", (room, 0), OK),
        Row("nanosleep", (second, 0), OK),
        Row("clock_settime", (0, second), -errno.EPERM),
        Row("settimeofday", (second, 0), -errno.EPERM),
        Row("setitimer", (0, second * 2, 0), OK),
        Row("timer_create", (0, 0, room), OK),
        # Its own memory.
        Row("mmap", (0, 4096, 3, 0x22, -1, 0), OK),
        Row("munmap", (room & -4096, 0), -errno.EINVAL),
        Row("mprotect", (room & -4096, 4096, 3), OK),
        Row("madvise", (room & -4096, 4096, 0), OK),
        Row("mlock", (room & -4096, 4096), OK),
        Row("getrandom", (room, 16, 0), 16),
        Row("rt_sigprocmask", (0, 0, room, 8), OK),
        Row("sched_yield", (), OK),
        # Files: read, never written.
        Row("openat", (AT_FDCWD, file, os.O_RDONLY, 0), 3),
        Row("open", (file, o_wronly, 0), -errno.EROFS),
        Row("openat", (AT_FDCWD, file, o_wronly | o_trunc, 0), -errno.EROFS),
        Row("openat", (AT_FDCWD, other, o_wronly | o_creat, 0o644), -errno.EROFS),
        Row("openat", (AT_FDCWD, other, o_creat, 0o644), -errno.EROFS),
        Row("creat", (other, 0o644), -errno.EROFS),
        Row("openat", (AT_FDCWD, str(outside.fifo), os.O_RDONLY, 0), -errno.EACCES),
        Row("openat", (AT_FDCWD, "/dev/zero", os.O_RDONLY, 0), -errno.EACCES),
        Row("openat", (AT_FDCWD, str(outside.folder / "socket"), os.O_RDONLY, 0), -errno.EACCES),
        Row("openat", (AT_FDCWD, "/proc/1/environ", os.O_RDONLY, 0), -errno.EACCES),
        Row("stat", (file, room), OK),
        Row("access", (file, os.R_OK), OK),
        Row("access", (file, os.W_OK), -errno.EROFS),
        Row("readlink", ("/proc/self/exe", room, 4096), OK),
        Row("read", (9, room, 16), -errno.EAGAIN),
        Row("write", (1, "text", 4), 4),
        Row("write", (9, "text", 4), -errno.EBADF),
        Row("truncate", (file, 0), -errno.EROFS),
        Row("unlink", (file,), -errno.EROFS),
        Row("rename", (file, other), -errno.EROFS),
        Row("link", (file, other), -errno.EROFS),
        Row("symlink", (file, other), -errno.EROFS),
        Row("mkdir", (other, 0o755), -errno.EROFS),
        Row("mknod", (other, 0o100644, 0), -errno.EROFS),
        Row("chmod", (file, 0o777), -errno.EROFS),
        Row("chown", (file, 1, 1), -errno.EROFS),
        Row("utimensat", (AT_FDCWD, file, 0, 0), -errno.EROFS),
        Row("setxattr", (file, "user.x", "y", 1, 0), -errno.EROFS),
        Row("memfd_create", ("x", 0), -errno.EMFILE),
        Row("pipe", (room,), OK),
        Row("flock", (1, 2), -errno.ENOLCK),
        # The network.
        Row("socket", (2, 1, 0), 3),
        Row("connect", (3, inet, 16), -errno.EPERM),
        Row("connect", (3, unix, len(unix)), -errno.EPERM),
        Row("sendto", (3, "text", 4, 0, unix, len(unix)), -errno.EPERM),
        Row("bind", (3, inet, 16), -errno.EPERM),
        Row("listen", (3, 5), -errno.EPERM),
        Row("accept4", (3, 0, 0, 0), -errno.EPERM),
        # Other processes.
        Row("kill", (outside.process.pid + 1, 0), -errno.EPERM),
        Row("kill", (1, 0), -errno.EPERM),
        Row("kill", (-1, 0), -errno.EPERM),
        Row("tgkill", (1, 1, 0), -errno.EPERM),
        Row("fork", (), -errno.EAGAIN),
        Row("vfork", (), -errno.EAGAIN),
        Row("clone", (0x11, 0, 0, 0, 0), -errno.EAGAIN),
        Row("clone3", (room, 88), -errno.EAGAIN),
        Row("execve", ("/bin/true", 0, 0), -errno.EPERM),
        Row("wait4", (-1, 0, 0, 0), -errno.ECHILD),
        Row("ptrace", (16, outside.process.pid, 0, 0), -errno.EPERM),
        Row("process_vm_readv", (os.getpid(), room, 1, room, 1, 0), -errno.EPERM),
        Row("process_vm_writev", (os.getpid(), room, 1, room, 1, 0), -errno.EPERM),
        Row("pidfd_open", (os.getpid(), 0), -errno.EPERM),
        Row("setpriority", (0, 0, 5), -errno.EPERM),
        Row("sched_setaffinity", (0, 8, room), -errno.EPERM),
        Row("prlimit64", (os.getpid(), 7, 0, room), -errno.EPERM),
        # The kernel.
        Row("prctl", (38, 1, 0, 0, 0), -errno.EPERM),
        Row("seccomp", (1, 0, room), -errno.EPERM),
        Row("bpf", (0, room, 64), -errno.EPERM),
        Row("io_uring_setup", (8, room), -errno.EPERM),
        Row("userfaultfd", (0,), -errno.EPERM),
        Row("perf_event_open", (room, 0, -1, -1, 0), -errno.EACCES),
        Row("setuid", (0,), -errno.EPERM),
        Row("unshare", (0x10000000,), -errno.EPERM),
        Row("mount", ("none", str(outside.folder), "tmpfs", 0, 0), -errno.EPERM),
        Row("chroot", (str(outside.folder),), -errno.EPERM),
        Row("reboot", (0xFEE1DEAD, 672274793, 0, 0), -errno.EPERM),
        Row("keyctl", (0, -3, 1), -errno.EPERM),
        Row("shmget", (1, 4096, 0o1600), -errno.EACCES),
        Row("mq_open", ("/x", 0o102, 0o600, 0), -errno.EACCES),
        Row("iopl", (3,), -errno.EPERM),
        Row("modify_ldt", (1, room, 16), -errno.EPERM),
        Row("personality", (0x0400000,), -errno.EPERM),
    ]


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def outside(tmp_path) -> Iterator[Outside]:
    made = Outside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def asker(core, outside) -> Iterator[Asker]:
    made = Asker(core)
    # The recorded number is a live process's by now.
    made.diversion.vessel.identity.pid = outside.process.pid
    yield made
    made.close()


def table(asker: Asker, outside: Outside) -> List[Row]:
    record = asker.diversion.vessel.identity
    return rows(outside, asker.room, record.pid, asker.tid)


def expected_with_none(row: Row) -> int:
    """What `safe` refuses has its error here, too; memory runs out; all else is not permitted."""
    known = syscalls.by_name()[row.name]
    return -syscalls.outcome(known, "none").error


def test_at_least_sixty_calls(asker, outside):
    names = {row.name for row in table(asker, outside)}
    assert len(names) >= 60
    assert names <= set(syscalls.by_name())


def test_safe(asker, outside):
    for row in table(asker, outside):
        got = asker.ask(row.name, *row.arguments)
        story = (row, got, asker.refused)
        if row.safe == OK:
            assert got >= 0 and not asker.refused, story
        else:
            assert got == row.safe, story
        if isinstance(row.safe, int) and row.safe < 0 and row.name not in QUIET:
            (line,) = asker.refused
            assert line.startswith(f"{shown(row)}("), story
            assert line.split(" (")[0].endswith(f"→ {errno.errorcode[-got]}"), story
        outside.check()


QUIET = {"clock_gettime", "getpgid", "munmap", "access", "wait4", "read"}
"""Errors that are answers: nothing was asked for that the vessel does not have."""


def shown(row: Row) -> str:
    """The name in the report; fork is what the C library makes of clone."""
    return "fork" if row.name == "clone" else row.name


def test_none(asker, outside):
    asker.set(syscalls="none")
    for row in table(asker, outside):
        got = asker.ask(row.name, *row.arguments)
        assert got == expected_with_none(row), (row, got)
        (line,) = asker.refused
        assert f"→ {errno.errorcode[-got]}" in line, row
        outside.check()


def test_always_refused_with_all(asker, outside):
    """What `all` does not widen: it would end, leave or deceive the process that is traced."""
    asker.set(syscalls="all")
    seen = 0
    for row in table(asker, outside):
        call = syscalls.by_name()[row.name]
        if syscalls.outcome(call, "all").action != "refuse":
            continue
        seen += 1
        assert asker.ask(row.name, *row.arguments) == row.safe, row
        assert len(asker.refused) == 1, row
        outside.check()
    assert seen >= 20
    for number, who in ((signal.SIGKILL, 1), (signal.SIGTERM, -1), (0, os.getpid())):
        assert asker.ask("kill", who, number) == -errno.EPERM
    outside.check()


def test_all_lets_the_rest_through(asker, outside):
    """The opposite of the other tests: here the traces outside are wanted."""
    asker.set(syscalls="all")
    assert asker.ask("getpid") == outside.process.pid
    new = outside.folder / "new"
    flags = os.O_WRONLY | os.O_CREAT
    assert asker.ask("openat", AT_FDCWD, str(new), flags, 0o600, keep=True) == 3
    assert asker.ask("write", 3, "text", 4, keep=True) == 4
    assert new.read_text() == "text"
    new.unlink()
    assert asker.ask("socket", 2, 1, 0, keep=True) == 4
    assert asker.ask("connect", 4, outside.address(), 16, keep=True) == 0
    outside.listener.accept()[0].close()
    assert asker.ask("write", 1, "shown", 5) == 5
    assert asker.reports[-1].output == "shown"
    assert asker.ask("pipe", asker.room) == 0
    assert asker.ask("memfd_create", "x", 0) >= 3
    outside.check()


def test_a_signal_to_the_recorded_number_stays_inside(asker, outside):
    for call, arguments in (
        ("kill", (outside.process.pid, signal.SIGTERM)),
        ("tkill", (asker.tid, signal.SIGTERM)),
        ("tgkill", (outside.process.pid, asker.tid, signal.SIGTERM)),
    ):
        asker.place(call, *arguments)
        assert asker.stopped("raw").signal == signal.SIGTERM
        outside.check()
    for number, what in (
        (signal.SIGKILL, "would end itself by SIGKILL"),
        (signal.SIGSTOP, "would stop itself by SIGSTOP"),
    ):
        asker.place("kill", outside.process.pid, number)
        assert what in message(asker.stopped("raw"))
        outside.check()
    status = Path(f"/proc/{outside.process.pid}/status").read_text()
    assert "SigPnd:\t0000000000000000" in status and "State:\tT" not in status


@pytest.mark.parametrize("level", ["safe", "all"])
def test_signal_0_asks_who_is_there(asker, outside, level):
    asker.set(syscalls=level)
    pid, info = outside.process.pid, struct.pack("<iii", 0, 0, -1).ljust(128, b"\0")
    threads = [thread.tid for thread in asker.snapshot.threads]
    assert len(threads) > 1
    nobody = max(threads) + 1000
    for tid, result in [*((tid, 0) for tid in threads), (pid, 0), (nobody, -errno.ESRCH)]:
        for call, arguments in (
            ("tkill", (tid, 0)),
            ("tgkill", (pid, tid, 0)),
            ("rt_tgsigqueueinfo", (pid, tid, 0, info)),
        ):
            assert asker.ask(call, *arguments) == result, (call, tid)
            assert not asker.refused
    for who in (0, pid, threads[-1]):
        assert asker.ask("kill", who, 0) == 0 and not asker.refused, who
    assert asker.ask("rt_sigqueueinfo", pid, 0, info) == 0
    assert asker.ask("rt_sigqueueinfo", pid, 0, 8) == -errno.EFAULT
    assert asker.ask("tgkill", pid, -1, 0) == -errno.EINVAL
    for call, arguments in (
        ("kill", (nobody, 0)),
        ("rt_sigqueueinfo", (1, 0, info)),
        ("tgkill", (pid + 1, threads[0], 0)),
    ):
        assert asker.ask(call, *arguments) == -errno.EPERM and asker.refused, call
    outside.check()


def test_a_recorded_thread_is_there(core):
    asker = Asker(core)
    try:
        assert asker.call("holder_is_there") == 0 and not asker.refused
    finally:
        asker.close()


def test_every_call_is_documented():
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    missing = [line for line in syscalls.documented() if line not in text]
    assert not missing, missing[:3]


def test_numbers_are_this_machine_s(tmp_path):
    """Against <asm/unistd_64.h>, which may be older: what it has must agree."""
    source = "#include <asm/unistd_64.h>\n"
    done = subprocess.run(
        ["cc", "-E", "-dM", "-xc", "-"], input=source, capture_output=True, text=True, check=True
    )
    known = {call.name: call.number for call in syscalls.table().values()}
    pairs = [line.split()[1:] for line in done.stdout.splitlines() if " __NR_" in line]
    assert len(pairs) > 300
    for name, number in pairs:
        assert known[name[len("__NR_") :]] == int(number)

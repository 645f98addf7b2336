"""What answered calls see, what waits and ends, and that all of it is undone."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from harness import SLOWNESS
from harness.asking import Asker, policy_core
from harness.calls import Client
from harness.telling import asked, ended, message, passed, refused

from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.interface import Resume
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.policy.identity import facts_of
from gdb_uffd.replay.policy.policy import Policy

AT_FDCWD = -100


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("policy"))


@pytest.fixture(params=["notified", "traced"])
def asker(core, request) -> Iterator[Asker]:
    """Both ways in which a call can arrive: a kernel may give no listener for notifications."""
    made = Asker(core)
    made.diversion.vessel.native.no_listener = request.param == "traced"
    yield made
    made.close()


# -- waiting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "call", "kind"),
    [
        ("lock_queue", "futex", "lock"), ("read_table", "futex", "lock"),
        ("wait_filled", "futex", "wait"), ("take_slot", "futex", "wait"),
        ("join_holder", "futex", "join"), ("poll_nothing", "poll", "wait"),
        ("wait_for_signal", "pause", "wait"),
    ],
)  # fmt: skip
def test_a_wait_for_ever_is_told(asker, function, call, kind):
    stop = asker.stopped(function)
    report = asker.reports[-1]
    assert message(stop).startswith(f"would block: {call}")
    assert ended(report) == message(stop)
    assert report.blocked.call == call and report.blocked.kind == kind
    holder = asker.snapshot.threads[1].tid
    assert report.blocked.owner == (0 if kind == "wait" else holder)


def test_a_lock_of_its_own(asker):
    asker.stopped("lock_twice")
    blocked = asker.reports[-1].blocked
    assert blocked.itself and blocked.owner == asker.tid


@pytest.mark.parametrize("how", ["c", "s"])
def test_going_on_comes_to_the_same_wait(asker, how):
    asker.start("lock_queue")
    first = asker.diversion.registers(asker.tid)
    from harness.calls import Client

    stop = asker.diversion.resume(Resume(asker.tid, how), Client())
    assert message(stop).startswith("would block")
    assert asker.diversion.registers(asker.tid) == first


def test_locks_can_be_passed_and_are_held_again_afterwards(asker):
    lock = asker.symbol("queue") + 8
    before = asker.diversion.read_memory(lock, 96)
    asker.set(threads="ignore-locks")
    for function in ("lock_queue", "read_table"):
        assert asker.call(function) == 0
        (line,) = passed(asker.reports[-1])
        assert f"held by thread {asker.snapshot.threads[1].tid}" in line
        assert asker.diversion.read_memory(lock, 96) == before
    for function in ("wait_filled", "take_slot", "join_holder"):  # these are no locks
        assert message(asker.stopped(function)).startswith("would block")
    asker.set(threads="freeze")
    assert message(asker.stopped("lock_queue")).startswith("would block")


def test_a_lock_that_was_passed_is_free(asker):
    """struct __pthread_rwlock_arch_t (glibc): no writer in it or waiting, nobody its owner."""
    table = int.from_bytes(asker.diversion.read_memory(asker.symbol("table"), 8), "little")
    holder = asker.snapshot.threads[1].tid

    def lock():
        readers, _, phase, waiters, _, _, owner = struct.unpack(
            "<7I", asker.diversion.read_memory(table, 28)
        )
        return readers & 3, phase, waiters, owner

    assert lock()[3] == holder and any(lock()[:2])
    asker.set(threads="ignore-locks")
    assert asker.call("read_table", keep=True) == 0
    assert lock() == (0, 0, 0, 0)


def server_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "call", [("statfs", "/", bytes(512)), ("rt_sigtimedwait", bytes(8), 0, bytes(16), 8)]
)
def test_an_answer_leaves_no_descriptor_in_the_server(asker, call):
    asker.call("nothing")
    before = server_descriptors()
    for _ in range(5):
        assert asker.ask(*call) in (0, -errno.EAGAIN)
    assert server_descriptors() == before


def test_flags_of_a_descriptor_are_set(asker):
    """F_SETFL (fcntl(2)): some of them; the access mode and creation flags stay."""
    fd = asker.ask("openat", -100, "/etc/passwd", os.O_RDONLY, 0, keep=True)
    flags = asker.ask("fcntl", fd, fcntl.F_GETFL)
    wanted = os.O_NONBLOCK | os.O_APPEND
    assert asker.ask("fcntl", fd, fcntl.F_SETFL, wanted | os.O_RDWR | os.O_CREAT, keep=True) == 0
    assert asker.ask("fcntl", fd, fcntl.F_GETFL) == flags | wanted
    assert asker.ask("fcntl", fd, fcntl.F_SETFL, os.O_APPEND, keep=True) == 0
    assert asker.ask("fcntl", fd, fcntl.F_GETFL) == flags | os.O_APPEND


@pytest.mark.parametrize("family, size", [(socket.AF_INET, 16), (socket.AF_INET6, 28), (1, 2)])
def test_what_is_asked_of_a_socket(asker, family, size):
    fd = asker.ask("socket", int(family), 1, 0, keep=True)
    at, length = asker.room, asker.room + 256

    def ask(call, *before, room):
        """(result, what is there, how long it says that it is), with `room` bytes for it."""
        asker.diversion.write_memory(at, b"\xff" * 64 + bytes(192) + struct.pack("<I", room))
        result = asker.ask(call, fd, *before, at, length, keep=True)
        return result, asker.memory(64), int.from_bytes(asker.memory(4, length), "little")

    for room in (4, 64, 2):  # no error, no option set: an int of zero (socket(7))
        got = min(room, 4)
        result = ask("getsockopt", socket.SOL_SOCKET, socket.SO_ERROR, room=room)
        assert result == (0, bytes(got) + b"\xff" * (64 - got), got)
    for room in (64, 2, 0):  # unbound: its family and nothing more, as long as such an address is
        got = min(room, size)
        address = struct.pack("<H", family).ljust(size, b"\0")[:got]
        assert ask("getsockname", room=room) == (0, address + b"\xff" * (64 - got), size)
    assert ask("getpeername", room=64)[0] == -errno.ENOTCONN
    assert asker.ask("setsockopt", fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, at, 4) == 0
    assert asker.ask("getsockname", 1, at, length) == -errno.ENOTSOCK


def test_waits_with_a_limit_are_over_at_once(asker):
    began = time.monotonic()
    assert asker.call("wait_filled_a_while") == errno.ETIMEDOUT
    assert asker.ask("poll", 0, 0, 3_600_000) == 0
    assert asker.ask("select", 0, 0, 0, 0, struct.pack("<qq", 3600, 0)) == 0
    assert asker.ask("rt_sigtimedwait", b"\1" + bytes(7), 0, struct.pack("<qq", 3600, 0), 8) == (
        -errno.EAGAIN
    )
    assert time.monotonic() - began < 20 * SLOWNESS


def test_what_is_there_is_not_waited_for(asker):
    assert asker.call("wait_blocked_signal") == 10
    ready = struct.pack("<ihhihh", 0, 1, 0, 1, 4, 0)
    assert asker.ask("poll", ready, 2, -1) == 2  # stdin is at its end, stdout takes all
    unknown = struct.pack("<ihh", 77, 1, 0)
    assert asker.ask("poll", unknown, 1, 60_000) == 0  # it may have been open: nothing comes
    assert "descriptor 77, taken for one that nothing comes from" in asked(asker.reports[-1])
    never = struct.pack("<ihh", 5000, 1, 0)
    assert asker.ask("poll", never, 1, -1) == 1  # POLLNVAL


# -- the clock --------------------------------------------------------------------------------


def test_the_recorded_clock(asker, core):
    at = asker.room
    assert asker.ask("clock_gettime", 0, at, keep=True) == 0
    seconds, nanoseconds = struct.unpack("<qq", asker.memory(16))
    recorded = core.stat().st_mtime_ns
    assert 0 < seconds * 10**9 + nanoseconds - recorded < 10**6
    assert asker.ask("clock_gettime", 0, at, keep=True) == 0
    later = struct.unpack("<qq", asker.memory(16))
    assert later > (seconds, nanoseconds)


def test_sleeping_moves_the_clock_and_is_undone(asker):
    for _ in range(2):
        assert asker.call("slept", 100_000) == 100_000
    first = asker.ask("time", 0)
    assert asker.ask("time", 0) == first  # an undone call leaves the clock alone
    asker.call("slept", 1000, keep=True)
    assert asker.ask("time", 0) == first + 1000
    asker.diversion.reset()
    assert asker.ask("time", 0) == first


def test_the_real_clock(asker):
    asker.set(clock="real")
    assert abs(asker.ask("time", 0) - time.time()) < 5
    began = time.monotonic()
    assert asker.ask("nanosleep", struct.pack("<qq", 0, 50_000_000), 0) == 0
    assert time.monotonic() - began > 0.04


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(bytes(range(256)) * 40)
    return made


def read_file(asker: Asker, path: object) -> int:
    """Let the program read it; the bytes are in `arena` then."""
    asker.diversion.write_memory(asker.arena, str(path).encode() + b"\0")
    asker.diversion.commit_pending()
    return asker.call("read_file", keep=True)


def test_reading(asker, file):
    data = file.read_bytes()
    assert read_file(asker, file) == len(data)
    assert asker.diversion.read_memory(asker.arena, len(data)) == data
    assert 'openat("' in asked(asker.reports[-1])[0]


def test_what_was_refused_was_not_granted(asker):
    """One way or the other, however often it was tried."""
    for _ in range(3):
        assert asker.ask("openat", -100, "/dev/null", 0) == -errno.EACCES
        assert asked(asker.reports[-1]) == [] and len(refused(asker.reports[-1])) == 1
    assert asker.ask("getpid") == asker.diversion.snapshot.pid
    assert "getpid" in asked(asker.reports[-1])


def test_a_mapped_file_is_a_private_copy(asker, file):
    asker.diversion.write_memory(asker.arena, str(file).encode() + b"\0")
    asker.diversion.commit_pending()
    assert asker.call("map_file") == sum(file.read_bytes())
    assert asker.reports[-1].layout_changed


def test_positions_are_undone(asker, file):
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0, keep=True) == 3
    for _ in range(2):
        assert asker.ask("read", 3, asker.room, 100) == 100
    assert asker.ask("lseek", 3, 0, os.SEEK_CUR) == 0
    assert asker.ask("read", 3, asker.room, 100, keep=True) == 100
    assert asker.ask("lseek", 3, 0, os.SEEK_CUR) == 100
    assert asker.ask("dup", 3, keep=True) == 4
    assert asker.ask("lseek", 4, 50, os.SEEK_CUR) == 150
    assert asker.ask("close", 3) == 0
    assert asker.ask("pread64", 3, asker.room, 10, 10235) == 5
    assert asker.ask("fstat", 3, asker.room, keep=True) == 0
    assert asker.memory(144) == _stat(file)


def _stat(path: Path) -> bytes:
    """struct stat as the kernel would give it."""
    s = os.stat(path)
    times = [
        (int(t // 10**9), int(t % 10**9)) for t in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
    ]
    if os.uname().machine == "aarch64":  # <asm-generic/stat.h>
        who = (s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev)
        what = (0, s.st_size, s.st_blksize, 0, s.st_blocks)
        head = struct.pack("<QQIIIIQQqiiq", *who, *what)
        return (head + b"".join(struct.pack("<qq", *t) for t in times)).ljust(144, b"\0")
    numbers = (s.st_dev, s.st_ino, s.st_nlink, s.st_mode, s.st_uid, s.st_gid, 0, s.st_rdev)
    sizes = (s.st_size, s.st_blksize, s.st_blocks)
    head = struct.pack("<QQQIIIIQqqq", *numbers, *sizes)
    return head + b"".join(struct.pack("<qq", *t) for t in times) + bytes(24)


def test_reading_leaves_no_trace_in_the_file(asker, file):
    os.utime(file, ns=(10**18, 10**18))
    before = file.stat()
    read_file(asker, file)
    assert file.stat() == before


def test_links_lead_where_they_may(asker, file, tmp_path):
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "process").symlink_to("/proc/self/mem")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert read_file(asker, tmp_path / "link") == 10240
    assert read_file(asker, tmp_path / "device") == -errno.EACCES
    assert read_file(asker, tmp_path / "process") == -errno.EACCES
    assert read_file(asker, tmp_path / "loop") in (-errno.ELOOP, -errno.EACCES)
    follow = os.O_NOFOLLOW
    assert asker.ask("openat", AT_FDCWD, str(tmp_path / "link"), follow, 0) == -errno.ELOOP
    assert asker.ask("readlink", str(tmp_path / "link"), asker.room, 4096) == len(str(file))


def test_folders_are_listed(asker, tmp_path):
    for name in "abc":
        (tmp_path / name).touch()
    assert asker.ask("openat", AT_FDCWD, str(tmp_path), os.O_DIRECTORY, 0, keep=True) == 3
    length = asker.ask("getdents64", 3, asker.room, 4096, keep=True)
    assert length > 0 and asker.ask("getdents64", 3, asker.room, 4096) == 0
    entries, names, at = asker.memory(length), [], 0
    while at < length:  # struct linux_dirent64, getdents64(2)
        size = int.from_bytes(entries[at + 16 : at + 18], "little")
        names.append(entries[at + 19 : at + size].split(b"\0")[0].decode())
        at += size
    assert sorted(names) == [".", "..", "a", "b", "c"]
    assert asker.ask("openat", 3, "a", 0, 0) == 4
    assert asker.ask("fchdir", 3, keep=True) == 0
    assert asker.ask("open", "b", 0, 0) == 4
    length = asker.ask("getcwd", asker.room, 4096, keep=True)
    assert asker.memory(length) == str(tmp_path).encode() + b"\0"


def test_the_recorded_directory_and_name_before_anything_was_changed(asker):
    known = facts_of(asker.diversion.snapshot)
    assert known.name
    length = asker.ask("getcwd", asker.room, 4096, keep=True)
    assert asker.memory(length) == (known.cwd or "/").encode() + b"\0"
    assert asker.ask("prctl", 16, asker.room, keep=True) == 0  # PR_GET_NAME
    assert asker.memory(16).split(b"\0")[0] == known.name.encode()


@pytest.mark.parametrize(
    "call, arguments",
    [
        ("exit", (3,)),
        ("exit_group", (3,)),
        ("kill", ("own", signal.SIGKILL)),
        ("futex", ("room", 0, 0, 0)),
        ("pause", ()),
        ("getpid", ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("after", ["discarded", "there"])
def test_registers_of_the_core_make_no_system_call(asker, call, arguments, after):
    """Where a call has stopped before a system call, the number of another one (orig_rax), which
    is the core's to say, must not let that one through: seccomp does not ask about it again."""
    named = {"own": asker.diversion.snapshot.pid, "room": asker.room}
    asker.place(call, *(named.get(a, a) for a in arguments))
    blocked = [signal.SIGTERM]  # so that it stays pending, and can be seen
    with subprocess.Popen(
        ["sleep", "1000"], preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    ) as victim:
        try:
            if call == "getpid":
                asker.call("raw")
            elif after == "discarded":
                asker.stopped("raw")
            else:
                asker.start("raw")
            registers = asker.diversion.registers(asker.tid).copy()
            number, arch = syscalls.by_name()["kill"].number, registers.arch
            told = dict.fromkeys((arch.number, *arch.pending), number)
            told.update(zip(arch.arguments, (victim.pid, signal.SIGTERM)))
            for index, value in told.items():
                registers.gpr[index] = value
            asker.diversion.set_registers(asker.tid, registers)
            for _ in range(2):
                asker.diversion.resume(Resume(asker.tid, "s"), Client())
            status = Path(f"/proc/{victim.pid}/status").read_text()
            assert "ShdPnd:\t0000000000000000" in status
        finally:
            victim.kill()


def test_no_files(asker, file):
    asker.set(files="none")
    assert read_file(asker, file) == -errno.EACCES
    assert "EACCES" in asker.refused[0]
    assert asker.ask("stat", str(file), asker.room) == -errno.EACCES
    assert asker.ask("access", str(file), 0) == -errno.EACCES


def test_its_own_proc(asker):
    recorded = asker.diversion.vessel.identity.pid
    assert read_file(asker, "/proc/self/maps") > 0
    text = asker.diversion.read_memory(asker.arena, 4096)
    first = asker.snapshot.mappings[0]
    assert text.startswith(f"{first.start:08x}-{first.end:08x} {first.prot_text()}p".encode())
    assert read_file(asker, f"/proc/{recorded}/status") > 0
    assert f"\nPid:\t{recorded}\n".encode() in asker.diversion.read_memory(asker.arena, 200)
    length = asker.ask("readlink", "/proc/self/exe", asker.room, 4096, keep=True)
    assert asker.memory(length).decode() == asker.snapshot.executable
    for name in ("mem", "environ", "fd/0", "root/etc/passwd", "../1/environ"):
        assert read_file(asker, f"/proc/self/{name}") == -errno.EACCES, name
        assert asker.refused, name
    assert read_file(asker, "/proc/cpuinfo") > 0


def test_descriptors_run_out(asker, file):
    """256 open files; then EMFILE, and nothing leaks here."""
    before = len(os.listdir("/proc/self/fd"))
    asker.place("openat", AT_FDCWD, str(file), 0, 0)
    asker.call("raw_often", 300)
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0) == 3
    asker.place("openat", AT_FDCWD, str(file), 0, 0)
    asker.call("raw_often", 300, keep=True)
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0) == -errno.EMFILE
    asker.diversion.reset()
    assert asker.ask("openat", AT_FDCWD, str(file), 0, 0) == 3
    assert len(os.listdir("/proc/self/fd")) <= before + 8  # the vessel's own


def test_output(asker):
    assert asker.call("print_text") == 13
    assert asker.reports[-1].output == "printed 41\nand an error\n"
    big = b"0123456789abcdef" * 512
    asker.place("write", 1, big, len(big))
    asker.call("raw_often", 500)
    assert asker.reports[-1].output.encode() == big * 500


def test_bad_pointers(asker):
    for call, arguments in (
        ("openat", (AT_FDCWD, 8, 0, 0)), ("stat", (8, 8)), ("clock_gettime", (0, 8)),
        ("uname", (1 << 63,)), ("write", (1, 8, 4)), ("nanosleep", (8, 0)), ("poll", (8, 1, 0)),
        ("getcwd", (8, 4096)), ("connect", (3, 8, 16)), ("readlink", (8, 8, 10)),
    ):  # fmt: skip
        got = asker.ask(call, *arguments)
        assert got == (-errno.EPERM if call == "connect" else -errno.EFAULT), call
    read_only = asker.symbol("raw")
    assert asker.ask("uname", read_only) == -errno.EFAULT  # its own code cannot be written


# -- ends -------------------------------------------------------------------------------------


def test_longjmp_out(asker):
    stop = asker.stopped("jump_out", 3)
    assert message(stop).startswith("longjmp leaves the called function")
    assert asker.symbol("main") < int(re.search(r"for (0x[0-9a-f]+)", message(stop))[1], 16)
    assert asker.call("jump_inside", 5) == 5
    assert asker.call("jump_inside", 6) == 6
    assert asker.diversion.read_memory(asker.symbol("counter"), 4) == (41).to_bytes(4, "little")


def test_endless_recursion(asker):
    stop = asker.stopped("recurse")
    assert stop.signal == 11 and "the stack is used up, 8 MiB below" in message(stop)


def test_memory_limit(asker):
    asker.set(memory_limit=1 << 20)
    stop = asker.stopped("allocate", 5 << 20)
    assert "more than 1 MiB" in message(stop)
    assert asker.call("allocate", 600_000) == 1
    asker.set(memory_limit=0)
    assert asker.call("allocate", 5 << 20) == 1


def test_freed_memory_counts_no_more(asker):
    asker.set(memory_limit=8 << 20)
    for _ in range(5):
        assert asker.call("allocate", 5 << 20, keep=True) == 1  # freed by nobody, but
        asker.diversion.reset()


def test_call_timeout(asker):
    asker.set(call_timeout=1)
    asker.place("sched_yield")
    stop = asker.stopped("raw_often", 1 << 60)
    assert "ran for 1 s without an end" in message(stop)
    assert asker.call("nothing") == 7


def test_signal_handlers_run(asker):
    from harness.calls import Client

    for function in ("handle_signal", "handle_on_other_stack"):
        stop = asker.start(function)
        assert stop.signal == 12
        asker.diversion.insert_breakpoint(0, asker.landing, 1)
        stop = asker.diversion.resume(Resume(asker.tid, "c", stop.signal), Client())
        assert stop.breakpoint == "swbreak", stop
        assert asker.diversion.registers(asker.tid).gpr[asker.snapshot.arch.result] == 12
        asker.diversion.remove_breakpoint(0, asker.landing, 1)
        asker.diversion.call_end()
        asker.diversion.end(False)


# -- the policy itself ------------------------------------------------------------------------


def test_another_policy_keeps_what_was_kept(asker):
    asker.diversion.write_memory(asker.symbol("counter"), (77).to_bytes(4, "little"))
    asker.diversion.commit_pending()
    assert asker.ask("openat", AT_FDCWD, "/etc/passwd", 0, 0, keep=True) == 3
    for level in ("none", "all", "safe"):
        asker.set(syscalls=level)
        assert asker.diversion.read_memory(asker.symbol("counter"), 4) == (77).to_bytes(4, "little")
        assert (asker.ask("getpid") > 0) == (level != "none")
    assert asker.ask("lseek", 3, 5, os.SEEK_SET) == 5


def test_another_policy_within_a_call_waits_for_its_end(asker):
    asker.start("lock_queue")
    asker.set(syscalls="none", threads="ignore-locks")
    asker.diversion.call_end()
    asker.reports.append(asker.diversion.end(False))
    assert asker.ask("getpid") == -errno.EPERM


@pytest.mark.parametrize(
    "bad",
    [{"syscalls": "most"}, {"files": 1}, {"clock": None}, {"call_timeout": -1}, {"unknown": 1},
     {"memory_limit": 1.5}, {"memory_limit": True}, {"call_timeout": 1 << 80}],
)  # fmt: skip
def test_a_policy_that_makes_no_sense(bad):
    with pytest.raises(UffdError, match="policy"):
        Policy.parse(bad)


def test_recorded_descriptors_are_named(asker):
    """A hook for recordings that know them: no core does."""
    asker.diversion.accounts.__dict__["_descriptors"] = {7: "tcp 127.0.0.1:5432"}
    assert asker.ask("pread64", 7, asker.room, 10, 0) == -errno.EBADF
    assert asker.refused == ["pread64(7, 10, 0) → EBADF (7 was tcp 127.0.0.1:5432)"]

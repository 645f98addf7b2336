"""Code in a core that tries to get out: nothing works, and everything it tried is told."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Iterator, List

import pytest
from harness import ROOT
from harness.calls import Caller
from harness.cores import kernel_core

SECRET = 0x1122334455667788
RESTORER = 0x3A0000000000
"""Where the vessel's own code lies while it is made (native/process/restorer.c)."""


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    source = ROOT / "tests" / "programs" / "hostile.c"
    subprocess.run(["cc", "-g", "-O0", "-o", folder / "hostile", source], check=True)
    return kernel_core([str(folder / "hostile")], folder)


class Hostile(Caller):
    """The core's code, let loose on this very process, which is its tracer."""

    def __init__(self, core: Path) -> None:
        super().__init__(core)
        self.secret = ctypes.c_long(SECRET)

    def tries(self, name: str, argument: int = 0, second: int = 0) -> List[str]:
        """AssertionError unless nothing worked; what was refused."""
        self.more["rsi"] = second
        worked = self.call(name, argument)
        assert worked == 0, (name, bin(worked), self.refused)
        assert self.secret.value == SECRET
        return self.refused

    @property
    def vessel(self) -> int:
        """The PID."""
        return int(self.diversion.info()["vessel_pid"])  # type: ignore[call-overload]


@pytest.fixture
def hostile(core) -> Iterator[Hostile]:
    made = Hostile(core)
    yield made
    made.close()


def names(refused: List[str]) -> List[str]:
    """The calls in the report, each once."""
    return sorted({re.split(r"[(]|, system call", line)[0] for line in refused})


def test_ptrace(hostile):
    hostile.tries("escape_ptrace", os.getpid())
    assert names(hostile.refused) == ["ptrace"]
    assert any(f"ptrace(16, {os.getpid()})" in r for r in hostile.refused)


def test_memory_of_the_server(hostile):
    where = ctypes.addressof(hostile.secret)
    hostile.tries("escape_mem", os.getpid(), where)
    assert names(hostile.refused) == ["chdir", "openat"]
    assert any(f'"/proc/{os.getpid()}/mem", O_RDWR' in line for line in hostile.refused)


def test_process_vm(hostile):
    where = ctypes.addressof(hostile.secret)
    hostile.tries("escape_vm", os.getpid(), where)
    assert names(hostile.refused) == [
        "kcmp", "pidfd_getfd", "pidfd_open", "process_madvise", "process_vm_readv",
        "process_vm_writev",
    ]  # fmt: skip


def test_descriptors(hostile):
    hostile.tries("escape_descriptors")
    assert {"fcntl", "ioctl", "mmap", "read", "write"} <= set(names(hostile.refused))
    assert os.listdir(f"/proc/{hostile.vessel}/fd") == []


def test_prctl(hostile):
    hostile.tries("escape_prctl")
    assert names(hostile.refused) == ["arch_prctl", "prctl"] and len(hostile.refused) >= 9


def test_another_filter(hostile):
    hostile.tries("escape_filter")
    assert names(hostile.refused) == ["bpf", "prctl", "seccomp", "userfaultfd"]


def test_io_uring(hostile):
    hostile.tries("escape_io_uring")
    assert names(hostile.refused) == ["io_uring_enter", "io_uring_register", "io_uring_setup"]


def test_new_processes(hostile):
    before = set(os.listdir("/proc"))
    hostile.tries("escape_process")
    assert {"fork", "vfork", "clone", "clone3", "execve", "execveat", "unshare"} <= set(
        names(hostile.refused)
    )
    children = Path(f"/proc/{hostile.vessel}/task/{hostile.vessel}/children").read_text()
    assert children == "" and before  # the vessel has none


def test_32_bit_gate(hostile):
    hostile.tries("escape_int80")
    assert names(hostile.refused) == ["int 0x80"] and len(hostile.refused) == 10
    assert "int 0x80, system call 37 of i386 → ENOSYS" in hostile.refused


def test_x32_numbers(hostile):
    hostile.tries("escape_x32")
    assert len(hostile.refused) == 14
    assert "system call 0x40000027 of x32 → ENOSYS" in hostile.refused
    assert "system call 100000() → ENOSYS" in hostile.refused


def test_vsyscall(hostile):
    if "[vsyscall]" not in Path("/proc/self/maps").read_text():
        pytest.skip("this kernel has no vsyscall page (vsyscall=none)")
    hostile.tries("escape_vsyscall")
    assert hostile.refused == [
        "vsyscall gettimeofday() → ENOSYS", "vsyscall time() → ENOSYS",
        "vsyscall getcpu() → ENOSYS",
    ]  # fmt: skip


def test_nothing_of_ours_is_mapped(hostile):
    """The restorer's page is not there to be written to."""
    hostile.call("escape_io_uring")
    recorded = [(m.start, m.end) for m in hostile.snapshot.mappings]
    growth = hostile.diversion.vessel.regions
    allowed = [*recorded, *((r.start, r.end) for r in growth)]
    for line in Path(f"/proc/{hostile.vessel}/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if "[vsyscall]" in line:
            continue
        assert any((a <= start and end <= b) or (start <= a and b <= end) for a, b in allowed), line
        assert "vessel" not in line
    stop = hostile.start("scribble", RESTORER)
    assert stop.signal == signal.SIGSEGV
    hostile.diversion.call_end()
    hostile.diversion.end(False)


def test_code_where_the_gate_was(hostile):
    hostile.tries("escape_from_new_code", RESTORER)
    assert names(hostile.refused) == ["fork", "setsid", "userfaultfd"]


def test_signals(hostile):
    hostile.tries("escape_signals", os.getpid())
    assert {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal"} <= set(
        names(hostile.refused)
    )


def test_files(hostile, tmp_path):
    file = tmp_path / "file"
    file.write_text("as it was")
    before = file.stat()
    named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    named.bind(str(tmp_path / "socket"))
    named.setblocking(False)
    hostile.diversion.write_memory(hostile.symbol("work") + 32768, f"{tmp_path}\0".encode())
    hostile.diversion.commit_pending()
    hostile.tries("escape_files", hostile.symbol("work") + 32768)
    assert f'openat(AT_FDCWD, "{file}"' in "".join(hostile.refused) or len(str(file)) > 60
    assert "connect" in names(hostile.refused) and "sendto" in names(hostile.refused)
    after = file.stat()
    assert file.read_text() == "as it was"
    assert (before.st_mode, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_mode, after.st_mtime_ns, after.st_ctime_ns,
    )  # fmt: skip
    with pytest.raises(BlockingIOError):
        named.recv(10)
    named.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "socket"]


def test_the_vessel_has_nothing_to_lose(hostile):
    hostile.call("escape_io_uring")
    status = Path(f"/proc/{hostile.vessel}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert re.search(rf"{kind}:\t0+\n", status), status
    assert "Threads:\t1" in status


def test_the_vessel_dies_with_its_tracer(core, tmp_path):
    """By SIGKILL, which leaves the tracer no time for anything."""
    script = (
        "import sys, os, time; sys.path.insert(0, sys.argv[2])\n"
        "from harness.calls import Caller\n"
        "c = Caller(sys.argv[1]); c.call('escape_io_uring')\n"
        "print(c.diversion.info()['vessel_pid'], flush=True); sys.stdin.read()\n"
    )
    lib = str(ROOT / "tests" / "lib")
    import sys

    tracer = subprocess.Popen(
        [sys.executable, "-c", script, str(core), lib],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert tracer.stdout is not None
    vessel = int(tracer.stdout.readline())
    descriptor = os.pidfd_open(vessel)
    tracer.kill()
    tracer.wait()
    with open(descriptor, "rb", closefd=True):
        import select

        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(10000), "the vessel outlived its tracer"

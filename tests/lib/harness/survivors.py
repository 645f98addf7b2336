"""Finds servers, recorders and vessels that outlived their gdb.

The test process makes itself the reaper of orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so whatever
a gdb of ours leaves behind stays among our descendants, and nobody else's processes do.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from typing import Callable, Dict, List, Set, Tuple

from harness import SLOWNESS

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>

parked: Set[int] = set()
"""Processes that wait for another test (harness/pool.py): neither they nor their children are
anybody's now."""


def become_subreaper() -> None:
    """Keep orphans among this process's descendants."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _stat(pid: int) -> Tuple[str, str, int]:
    """(comm, state, parent) of a process, proc(5); ProcessLookupError when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            text = f.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    left, right = text.index("("), text.rindex(")")
    fields = text[right + 2 :].split()
    return text[left + 1 : right], fields[0], int(fields[1])


def _descendants(root: int) -> List[int]:
    """Those that run.  A process that has ended may still be the parent of some: its children are
    given away when its last thread has gone."""
    parents: Dict[int, int] = {}
    ended = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                _, state, parent = _stat(int(name))
            except ProcessLookupError:
                continue
            parents[int(name)] = parent
            if state == "Z":
                ended.add(int(name))
    found: List[int] = []
    fringe = {root}
    while fringe:
        fringe = {pid for pid, parent in parents.items() if parent in fringe} - parked
        found += fringe - ended
    return found


def _is_ours(pid: int) -> bool:
    """Whether it is a server, what holds its connection, a recorder or a vessel (which runs from a
    memfd of that name)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            arguments = f.read().split(b"\0")
    except OSError:
        return False
    return (
        b"gdb_uffd.server" in arguments
        or b"gdb_uffd.recorder" in arguments
        or _holds(pid)
        or _is_vessel(pid)
    )


def ours() -> List[int]:
    """Servers and vessels that descend from this process."""
    return [pid for pid in _descendants(os.getpid()) if _is_ours(pid)]


def describe(pid: int) -> str:
    """The process in one line, for a failure's message."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            line = f.read().replace(b"\0", b" ").decode(errors="replace")
        return f"{pid} {_stat(pid)[:2]} {line}"
    except (OSError, ProcessLookupError):
        return f"{pid} (gone)"


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether process `pid` ended within `seconds`; a zombie has ended (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(int(seconds * 1000)))
    finally:
        os.close(descriptor)


def remaining(seconds: float) -> List[str]:
    """Those of ours that are still there after `seconds`, described, and then ended."""
    deadline = time.monotonic() + seconds * SLOWNESS
    left: List[str] = []
    for pid in ours():
        if not wait_gone(pid, max(0.0, deadline - time.monotonic())):
            left.append(describe(pid))
    for pid in ours():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return left


def vessels() -> List[int]:
    """Vessels among our descendants."""
    return [pid for pid in ours() if _is_vessel(pid)]


def servers() -> List[int]:
    """Servers among our descendants."""
    return [pid for pid in ours() if not _is_vessel(pid) and not _holds(pid)]


def _holds(pid: int) -> bool:
    """Whether it holds a server's connection (server/listen/holder.py)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().startswith(b"gdb_uffd: holds")
    except OSError:
        return False


def _is_vessel(pid: int) -> bool:
    try:
        return "memfd:vessel" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False


def cpu_ticks(pid: int) -> int:
    """User CPU time in clock ticks (proc(5), field 14); 0 when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return int(f.read().rpartition(")")[2].split()[11])
    except OSError:
        return 0


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return when `condition` holds, looked at every few ms: who looks all the time takes the
    processor from what is waited for.  AssertionError after `seconds`."""
    deadline, pause = time.monotonic() + seconds * SLOWNESS, 0.0005
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


def wait_computing() -> None:
    """Until a vessel has spent CPU time in the program's code."""
    until(lambda: any(cpu_ticks(pid) > 2 for pid in vessels()))


def wait_stepping() -> None:
    """Until servers and vessels have spent CPU time, of whatever kind, from now on."""

    def spent() -> int:
        return sum(_ticks(pid) for pid in [*vessels(), *servers()])

    before = spent()
    until(lambda: spent() > before + 5)


def _ticks(pid: int) -> int:
    """User and system CPU time (proc(5), fields 14 and 15)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return sum(int(n) for n in f.read().rpartition(")")[2].split()[11:13])
    except OSError:
        return 0


def wait_asleep() -> None:
    """Until a vessel sleeps in a system call of its own that blocks (not in a page fault)."""
    until(lambda: any(_sleeps(pid) for pid in vessels()))


def _sleeps(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/wchan", encoding="utf-8") as f:
            channel = f.read()
        return _stat(pid)[1] == "S" and "nanosleep" in channel
    except (OSError, ProcessLookupError):
        return False

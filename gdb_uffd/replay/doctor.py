"""What this machine can do: each thing that a call needs, probed by doing it."""

from __future__ import annotations

import mmap
import os
import platform
from typing import Any, Callable, List

from gdb_uffd.arch import KNOWN, RECORDED, host
from gdb_uffd.native import ffi, lib
from gdb_uffd.native.cpu import HostCpu
from gdb_uffd.protocol.model import ENGINE_AUTO, ENGINE_LACKS, ENGINES, PAGE_SIZE, UffdError
from gdb_uffd.replay.interface import Check
from gdb_uffd.replay.trackers import FORBIDDEN, TRACKERS, WAYS, Kernel, choose, kernel

# Bits of <linux/userfaultfd.h>, and what their lack costs.
_FEATURES = (
    ("write-protection", 1 << 0, "Linux 5.7 or newer; without it the engine is compare: who wrote "
     "a page first is not known, and every look reads all pages that were fed"),
    ("exact fault address", 1 << 11, "Linux 5.18 or newer; else a first write is known to the "
     "page, not to the byte"),
    ("poisoned pages", 1 << 14, "Linux 6.6 or newer; else a page lost while in use, when a system "
     "call reads it, ends the process"),
    ("asynchronous write-protection", 1 << 15, "Linux 6.7 or newer; else a call made many times "
     "costs about 3 µs more a written page"),
)  # fmt: skip

_THREAD_ID = 1 << 8

_QUIRKS = (
    (lib.SCAN_UNPOPULATED_WRITTEN, "pages never populated read as written"),
    (lib.SCAN_DROPPED_CLEAN, "written pages that were dropped read as clean unless nothing else is "
     "asked for"),
    (lib.SCAN_DROPPED_LOST, "written pages that were dropped read as clean"),
)  # fmt: skip


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _machine() -> Check:
    machine, release = platform.machine(), platform.release()
    if host() is None:
        return Check("machine", False, f"{machine}, Linux {release}", f"gdb_uffd needs {KNOWN}")
    remedy = "" if mmap.PAGESIZE == PAGE_SIZE else f"a kernel with pages of {PAGE_SIZE} bytes"
    text = f"{machine}, Linux {release}, pages of {mmap.PAGESIZE} bytes"
    return Check("machine", not remedy, text, remedy)


def _userfaultfd(found: Kernel) -> List[Check]:
    if found.offer.way < 0:
        why = ", ".join(f"{w}: {os.strerror(-rc)}" for w, rc in zip(WAYS, found.ways))
        return [Check("userfaultfd", False, why, FORBIDDEN)]
    way = found.offer.way
    closed = [f"{w}: {os.strerror(-rc)}" for w, rc in zip(WAYS[:way], found.ways)]
    text = "; ".join([f"through {WAYS[way]}", *closed])
    full = way != lib.UFFD_USER_MODE
    remedy = f"system calls on memory not fed yet take longer; {FORBIDDEN}"
    checks = [Check("userfaultfd", full, text, "" if full else remedy, required=False)]
    has = bool(found.offer.features & _THREAD_ID)
    checks.append(Check("faulting thread's id", has, "yes" if has else "no", "Linux 4.14 or newer"))
    for name, bit, remedy in _FEATURES:
        has = bool(found.offer.features & bit)
        checks.append(Check(name, has, "yes" if has else "no", "" if has else remedy, False))
    return checks


def _pagemap_scan(found: Kernel) -> Check:
    ranges = ffi.new("struct page_range[]", 1)
    rc = lib.pagemap_scan(os.getpid(), 0, 1 << 47, lib.PAGE_PRESENT, ranges, 1)
    if rc < 0:
        return Check("PAGEMAP_SCAN", False, os.strerror(-rc), "Linux 6.7 or newer, for wp-async",
                     False)  # fmt: skip
    quirks = lib.pagemap_quirks(found.offer)
    known = [text for bit, text in _QUIRKS if quirks >= 0 and quirks & bit]
    return Check("PAGEMAP_SCAN", True, "; ".join(["yes", *known]), "", False)


def _notifications() -> Check:
    """SECCOMP_GET_ACTION_AVAIL (seccomp(2)) for SECCOMP_RET_USER_NOTIF."""
    available = bool(lib.notify_is_available())
    remedy = "" if available else "Linux 5.0 or newer; system calls cost more without"
    return Check("seccomp notifications", available, "yes" if available else "no", remedy, False)


def _ptrace() -> Check:
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    remedy = "as root: sysctl kernel.yama.ptrace_scope=1"
    if scope == "3":
        return Check("ptrace", False, "forbidden until reboot (yama ptrace_scope 3)", remedy)
    return Check("ptrace", True, f"yama ptrace_scope {scope}" if scope else "no yama restriction")


def _extended_state() -> Check:
    offered, which = (host() or RECORDED).vectors.offered(HostCpu())
    remedy = "" if offered else "no XSAVE: recorded vector registers are not restored"
    return Check("extended registers", offered, which, remedy, False)


def _engine(found: Kernel, name: str) -> Check:
    """A trial: pages read, written, dropped and moved in a process made for it."""
    wrong = found.failure(name)
    if wrong:
        return Check(f"engine {name}", False, wrong, TRACKERS[name].lost, False)
    lacks = ENGINE_LACKS[name]
    text = f"works; {lacks}" if lacks else "works, and tells who wrote"
    return Check(f"engine {name}", True, text, "", False)


def _chosen(found: Kernel, setting: str) -> List[Check]:
    """What calls would use, and calls made in masses."""
    checks = []
    for mass, what in ((False, "calls"), (True, "calls made many times")):
        try:
            choice = choose(setting, mass, found.failure)
            checks.append(
                Check(f"engine for {what}", True, f"{choice.name}: {choice.why or 'as set'}")
            )
        except UffdError as error:
            remedy = FORBIDDEN if found.offer.way < 0 else ""
            checks.append(Check(f"engine for {what}", False, str(error), remedy))
    return checks


def examine(setting: str = ENGINE_AUTO) -> List[Check]:
    """Everything, in the order in which one lack explains the next.  `setting`: of the engine."""
    found = kernel()
    checks: List[Check] = [_machine(), *_userfaultfd(found), _pagemap_scan(found)]
    single: List[Callable[[], Any]] = [_notifications, _ptrace, _extended_state]
    checks += [examine_one() for examine_one in single]
    checks += [_engine(found, name) for name in ENGINES]
    return checks + _chosen(found, setting)

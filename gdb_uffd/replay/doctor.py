"""What this machine can do: each thing that a call needs, probed by doing it."""

from __future__ import annotations

import os
import platform
from typing import Callable, List

from gdb_uffd.model import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE
from gdb_uffd.native import ffi, lib
from gdb_uffd.replay.interface import Check

# Bits of <linux/userfaultfd.h>.
_FEATURES = (
    ("write-protection", 1 << 0, True, "Linux 5.7 or newer"),
    ("faulting thread's id", 1 << 8, True, "Linux 4.14 or newer"),
    ("poisoned pages", 1 << 14, False, "Linux 6.6 or newer; else a page lost while in use ends "
     "the process"),
    ("asynchronous write-protection", 1 << 15, False, "Linux 6.7 or newer"),
)  # fmt: skip

_WAYS = (
    "through the system call", "through /dev/userfaultfd",
    "for the program's own faults only (what the kernel touches is made present beforehand)",
)  # fmt: skip

_ALLOW = (
    "as root: sysctl vm.unprivileged_userfaultfd=1, or give this user access to /dev/userfaultfd"
)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _machine() -> Check:
    machine, kernel = platform.machine(), platform.release()
    return Check(
        "machine", machine == "x86_64", f"{machine}, Linux {kernel}", "gdb_uffd needs x86-64"
    )


def _userfaultfd() -> List[Check]:
    features, how = ffi.new("uint64_t *"), ffi.new("int *")
    rc = lib.uffd_probe(features, how)
    if rc < 0:
        return [Check("userfaultfd", False, os.strerror(-rc), _ALLOW)]
    checks = [Check("userfaultfd", True, _WAYS[how[0]])]
    for name, bit, required, remedy in _FEATURES:
        has = bool(features[0] & bit)
        checks.append(Check(name, has, "yes" if has else "no", "" if has else remedy, required))
    return checks


def _pagemap_scan() -> Check:
    ranges = ffi.new("struct page_range[]", 1)
    rc = lib.pagemap_scan(os.getpid(), 0, 1 << 47, lib.PAGE_PRESENT, ranges, 1)
    found = "yes" if rc >= 0 else os.strerror(-rc)
    return Check("PAGEMAP_SCAN", rc >= 0, found, "" if rc >= 0 else "Linux 6.7 or newer", False)


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
    enabled = lib.cpu_xcr0()
    names = [n for bit, n in ((2, "AVX"), (7, "AVX-512"), (9, "PKRU")) if enabled >> bit & 1]
    return Check(
        "extended registers", bool(enabled), ", ".join(["SSE", *names]),
        "" if enabled else "no XSAVE: recorded vector registers are not restored", False,
    )  # fmt: skip


TRIAL_AT = 0x10000000
"""Where the trial's two pages lie: code, then data."""

TRIAL_CODE = bytes.fromhex("c70711223344cc")
"""movl $0x44332211,(%rdi); int3."""


def _trial() -> Check:
    """A real vessel: one page fed for execution, one written, the write seen and undone."""
    pager, vessel = ffi.new("struct pager *"), ffi.new("struct vessel *")
    code = ffi.new("uint8_t[]", TRIAL_CODE.ljust(PAGE_SIZE, b"\x90"))
    lib.vessel_init(vessel)
    lib.pager_init(pager)
    try:
        for index, prot in enumerate((PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE)):
            region = ffi.new("struct region *")
            region.start = TRIAL_AT + index * PAGE_SIZE
            region.end = region.start + PAGE_SIZE
            region.prot = prot
            if index == 0:
                region.kind, region.bytes, region.bytes_len = lib.REGION_BYTES, code, PAGE_SIZE
            lib.regions_set(ffi.addressof(pager, "recorded"), region)
            lib.regions_set(ffi.addressof(pager, "regions"), region)
        return _run_trial(pager, vessel)
    finally:
        lib.vessel_destroy(vessel)
        lib.pager_deinit(pager)


def _run_trial(pager: object, vessel: object) -> Check:
    def failed(what: str) -> Check:
        text = ffi.string(vessel.error.text).decode("utf-8", "replace")  # type: ignore[attr-defined]
        return Check("trial run", False, f"{what}: {text}" if text else what, _ALLOW)

    registers, run = ffi.new("struct user_regs_struct *"), ffi.new("struct run *")
    if lib.vessel_create(vessel, pager) < 0:
        return failed("no vessel")
    lib.vessel_get_registers(vessel, registers)
    registers.rip, registers.rdi = TRIAL_AT, TRIAL_AT + PAGE_SIZE
    if lib.vessel_set_registers(vessel, registers) < 0 or lib.vessel_resume(vessel, 0, 0, 0, 0) < 0:
        return failed("the vessel does not run")
    if lib.vessel_wait(vessel, -1, run) < 0 or run.end != lib.RUN_STOPPED:
        return failed("the vessel did not stop")
    changes = ffi.new("struct changes *")
    if lib.transaction_collect(pager, changes) < 0:
        return failed("the dirty pages cannot be read")
    pages = [changes.at[i].page for i in range(changes.count)]
    lib.changes_deinit(changes)
    if run.pc != TRIAL_AT + len(TRIAL_CODE) or pages != [TRIAL_AT + PAGE_SIZE]:
        return failed(f"stopped at {run.pc:#x} with dirty pages {[hex(p) for p in pages]}")
    return Check("trial run", True, "two pages fed, one written, and the writer seen")


def examine() -> List[Check]:
    """Everything, in the order in which one lack explains the next."""
    checks: List[Check] = [_machine()]
    checks += _userfaultfd()
    single: List[Callable[[], Check]] = [
        _pagemap_scan,
        _notifications,
        _ptrace,
        _extended_state,
        _trial,
    ]
    return checks + [examine_one() for examine_one in single]

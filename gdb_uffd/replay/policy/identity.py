"""Who the called program is told that it is: the recorded process, and where the recording is
silent, something that makes sense (docs/policy.md, "Answers")."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, Optional

from gdb_uffd.native import ffi, lib
from gdb_uffd.trace.core.facts import ProcessFacts, auxv_values
from gdb_uffd.trace.source import Snapshot

AT_UID, AT_EUID, AT_GID, AT_EGID = 11, 12, 13, 14


def facts_of(snapshot: Snapshot) -> ProcessFacts:
    """The snapshot's own, or what its auxiliary vector alone tells."""
    found = getattr(snapshot, "facts", None)
    if isinstance(found, ProcessFacts):
        return found
    ids = auxv_values(snapshot.auxv)
    return ProcessFacts(
        uid=ids.get(AT_UID, -1), euid=ids.get(AT_EUID, -1),
        gid=ids.get(AT_GID, -1), egid=ids.get(AT_EGID, -1),
    )  # fmt: skip


def fill(identity: Any, snapshot: Snapshot) -> None:
    """Fill in struct identity (native/table/fd_table.h)."""
    known = facts_of(snapshot)
    identity.pid = identity.tid = snapshot.pid
    identity.ppid = known.ppid or 1
    identity.pgrp = known.pgrp or snapshot.pid
    identity.sid = known.sid or identity.pgrp
    ours = {"uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "egid": os.getegid()}
    for name, own in ours.items():
        value = getattr(known, name)
        setattr(identity, name, value if 0 <= value < 1 << 32 else own)
    identity.realtime_ns, identity.monotonic_ns = clocks(known)
    identity.cpu_ns = known.cpu_ns
    for field, text in zip(identity.uname, uname(known.release, snapshot.arch.name)):
        _text(field, text)
    _text(identity.cwd, known.cwd or "/")
    _text(identity.executable, snapshot.executable or "/")
    _text(identity.name, known.name)
    _tell_descriptors(identity, known.descriptors)


_KINDS = {
    "anon_inode:[eventfd]": lib.OPENED_EVENT,
    "anon_inode:[eventpoll]": lib.OPENED_EPOLL,
    "anon_inode:[signalfd]": lib.OPENED_SIGNALS,
    "anon_inode:[timerfd]": lib.OPENED_TIMER,
}
"""What a descriptor between the process and itself is called (proc_pid_fd(5))."""


def _tell_descriptors(identity: Any, known: Optional[Mapping[int, str]]) -> None:
    """Which descriptors there were, and which of them lead back into the process itself."""
    identity.descriptors_told = known is not None
    ends: Dict[str, List[int]] = {}
    for number, what in (known or {}).items():
        if not 0 <= number < lib.DESCRIPTORS_MAX:
            continue
        identity.descriptors[number // 8] |= 1 << number % 8
        identity.descriptor_kind[number] = _KINDS.get(what, 0)
        if what.startswith("pipe:"):
            ends.setdefault(what, []).append(number)
        elif what == "unix":  # no name: of a socket pair, if not of an accepted connection
            identity.descriptor_kind[number], identity.descriptor_peer[number] = lib.OPENED_PAIR, -1
    for numbers in ends.values():
        if len(numbers) == 2:  # both ends are the process's own
            for number, other in zip(numbers, reversed(numbers)):
                identity.descriptor_kind[number] = lib.OPENED_PIPE
                identity.descriptor_peer[number] = other


def _text(field: Any, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    room = len(field) - 1
    ffi.buffer(field)[: room + 1] = data[:room].ljust(room + 1, b"\0")


def clocks(known: ProcessFacts) -> "tuple[int, int]":
    """(CLOCK_REALTIME, CLOCK_MONOTONIC) at the snapshot, nanoseconds.

    A core has the time of its file only.  Its monotonic clock is what this machine's was then;
    where this machine was not up yet, the same number as the real time, so that no recorded
    time lies in the future.
    """
    now = time.time_ns()
    real = known.realtime_ns or now
    if known.monotonic_ns:
        return real, known.monotonic_ns
    monotonic = time.monotonic_ns() - (now - real)
    return real, monotonic if monotonic > 0 else real


def uname(release: str, machine: str) -> List[str]:
    """struct new_utsname: of this machine where its kernel is the recorded one, by the version in
    the recorded vdso; else what the vdso tells."""
    here = os.uname()
    if release and here.release.split("-")[0].split("+")[0] == release:
        return [here.sysname, here.nodename, here.release, here.version, machine, "(none)"]
    return ["Linux", "localhost", release or here.release, "#1 SMP", machine, "(none)"]

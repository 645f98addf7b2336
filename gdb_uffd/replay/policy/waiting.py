"""What a call waited for, and why it ended otherwise than by returning, in words."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from typing import Any, Optional

from gdb_uffd.native import lib
from gdb_uffd.protocol.ends import End, Wait
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay.interface import SHOWN_BY_BT
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.replay.vessel import Vessel

OWNER_OFFSET = 8
"""`pthread_mutex_t` has `__lock` first and `__owner` here (struct __pthread_mutex_s, glibc)."""

WRITER_WORDS = (4, 3)
"""`pthread_rwlock_t` has `__cur_writer` so many words behind `__wrphase_futex` and behind
`__writers_futex`, the two that are waited on (struct __pthread_rwlock_arch_t, glibc)."""

FUTEX_TID_MASK = 0x3FFFFFFF

PID_MAX_LIMIT = 4 << 20
"""No TID is larger (include/linux/threads.h)."""


def describe(vessel: Vessel, run: Any, self_tid: int) -> Wait:
    """What the vessel stands before."""
    call = syscalls.table().get(int(run.call))
    name = call.name if call is not None else f"system call {run.call}"
    if name != "futex":
        return Wait(name)
    return _futex(Wait(name, address=hex(run.address)), vessel, run.address, self_tid)


def _futex(found: Wait, vessel: Vessel, address: int, self_tid: int) -> Wait:
    """With what the C library's structures around the futex tell."""
    tids = {thread.tid for thread in vessel.snapshot.threads}
    words = [_word(vessel, address + 4 * index) for index in range(5)]
    value, owner = words[0], words[OWNER_OFFSET // 4]
    named = value >> 30 and value & FUTEX_TID_MASK in tids  # robust, priority-inheriting locks
    if named:
        owner = value & FUTEX_TID_MASK
    if owner in tids and (named or value in (1, 2)):
        return replace(found, kind="lock", owner=owner, itself=owner == self_tid)
    if value in tids:
        # pthread_join waits on the TID in `struct pthread`, which the kernel clears at the end.
        return replace(found, kind="join", owner=value)
    if value in (1, 2, 3):
        for writer in (words[index] for index in WRITER_WORDS):
            if writer in tids:
                return replace(found, kind="lock", owner=writer, itself=writer == self_tid)
    # A low-level lock (lowlevellock.h) has no owner written down.
    stranger = owner if owner <= PID_MAX_LIMIT else 0
    return replace(found, kind="lock", stranger=stranger) if value == 2 else found


def _word(vessel: Vessel, address: int) -> int:
    try:
        return int.from_bytes(vessel.read(address, 4), "little")
    except MemoryUnavailable:
        return 0


def circle(pc: int) -> Wait:
    """The same of a call that goes in a circle at `pc`, until another thread has done something."""
    return Wait("spins", "spin", hex(pc))


def text(blocked: Wait) -> str:
    """It in one line, without symbols."""
    if blocked.kind == "spin":
        return f"spins for ever at {blocked.address}, as only another thread could end it"
    what = blocked.call
    if blocked.address:
        what = f"{what}({blocked.address})"
    if blocked.kind == "lock":
        who = "this thread itself" if blocked.itself else f"thread {blocked.owner}"
        held = f"a lock held by {who}" if blocked.owner else "a lock that is held"
        return f"would block: {what}, {held}, and no other thread runs"
    if blocked.kind == "join":
        return f"would block: {what}, for thread {blocked.owner} to end, which does not run"
    return f"would block: {what}, and no other thread runs"


def end(blocked: Wait) -> End:
    """The end of what waits for ever."""
    return End(text(blocked), SHOWN_BY_BT)


def ending(run: Any, policy: Policy, others: bool) -> Optional[End]:
    """Why the program goes no further, for what is neither a wait nor a signal.  `others`: whether
    it has other threads."""
    what = _ending(run, policy, others)
    return End(what, f"{SHOWN_BY_BT}, `uffd reset` goes back to the snapshot") if what else None


def _ending(run: Any, policy: Policy, others: bool) -> str:
    if run.end == lib.RUN_EXITING and run.thread and others:
        return "this thread would end here, and the program go on without it"
    if run.end == lib.RUN_EXITING:
        return f"the program would exit with code {run.status} here"
    if run.end == lib.RUN_KILLING:
        does = "stop itself by SIGSTOP" if run.status == signal.SIGSTOP else "end itself by SIGKILL"
        return f"the program would {does} here"
    if run.end == lib.RUN_TIMEOUT:
        return f"the call ran for {policy.call_timeout} s without an end (set uffd call-timeout)"
    if run.end == lib.RUN_MEMORY:
        return (
            f"the call needs more than {size(policy.memory_limit)} of memory that was not "
            "recorded (set uffd memory-limit)"
        )
    return failed(run) if run.end == lib.RUN_FAILED else ""


def failed(run: Any) -> str:
    """Why a page could not be given to the program, through no doing of its own."""
    page = f"the page at {run.address:#x}" if run.address else "its pages"
    reason = os.strerror(run.status)
    if run.status == errno.ENOMEM:
        return f"out of memory: this machine has none left for {page} ({reason})"
    return f"{page} cannot be given to the program ({reason})"


def size(length: int) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if length >= 1 << shift:
            return f"{length / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{length} bytes"

"""What a call waited for, and why it ended otherwise than by returning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

from gdb_uffd.native import lib
from gdb_uffd.protocol.ends import End, Wait
from gdb_uffd.protocol.model import MemoryUnavailable
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
    return _futex(Wait(name, address=int(run.address)), vessel, run.address, self_tid)


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
    return Wait("spins", "spin", pc)


def ending(run: Any, policy: Policy, others: bool) -> Optional[End]:
    """Why the program goes no further, for what is neither a wait nor a signal.  `others`: whether
    it has other threads."""
    status = int(run.status)
    if run.end == lib.RUN_EXITING:
        return End("thread-exit") if run.thread and others else End("exit", code=status)
    if run.end == lib.RUN_KILLING:
        return End("signal", signal=status)
    if run.end == lib.RUN_TIMEOUT:
        return End("time", limit=policy.call_timeout)
    if run.end == lib.RUN_MEMORY:
        return End("memory", limit=policy.memory_limit)
    return failed(run) if run.end == lib.RUN_FAILED else None


def failed(run: Any, lost: bool = False) -> End:
    """Why a page could not be given to the program, through no doing of its own."""
    return End("page", code=int(run.status), address=int(run.address) or None, lost=lost)

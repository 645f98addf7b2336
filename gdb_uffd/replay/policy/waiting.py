"""What a call waited for, and why it ended otherwise than by returning, in words."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any, Dict

from gdb_uffd.native import lib
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


def describe(vessel: Vessel, run: Any, self_tid: int) -> Dict[str, Any]:
    """The wait that the vessel stands before, as plain JSON types.

    `call`: the system call's name; `kind`: "lock", "join" or "wait"; `address`: the futex, ""
    where it is none; `owner`: TID of the recorded thread that holds the lock or that is waited
    for, 0 when nothing tells; `self`: whether that is the waiting thread itself; `stranger`: what
    stands where a pthread_mutex_t has the TID of its owner, if it may be one and no recorded thread
    has it, else 0.
    """
    call = syscalls.table().get(int(run.call))
    name = call.name if call is not None else f"system call {run.call}"
    out: Dict[str, Any] = {
        "call": name, "kind": "wait", "address": "", "owner": 0, "self": False, "stranger": 0,
    }  # fmt: skip
    if name != "futex":
        return out
    out["address"] = hex(run.address)
    out.update(_holder(vessel, run.address, self_tid))
    return out


def _holder(vessel: Vessel, address: int, self_tid: int) -> Dict[str, Any]:
    """What of `describe` the C library's structures around the futex tell."""
    tids = {thread.tid for thread in vessel.snapshot.threads}
    words = [_word(vessel, address + 4 * index) for index in range(5)]
    value, owner = words[0], words[OWNER_OFFSET // 4]
    named = value >> 30 and value & FUTEX_TID_MASK in tids  # robust, priority-inheriting locks
    if named:
        owner = value & FUTEX_TID_MASK
    if owner in tids and (named or value in (1, 2)):
        return {"kind": "lock", "owner": owner, "self": owner == self_tid}
    if value in tids:
        # pthread_join waits on the TID in `struct pthread`, which the kernel clears at the end.
        return {"kind": "join", "owner": value}
    if value in (1, 2, 3):
        for writer in (words[index] for index in WRITER_WORDS):
            if writer in tids:
                return {"kind": "lock", "owner": writer, "self": writer == self_tid}
    # A low-level lock (lowlevellock.h) has no owner written down.
    stranger = owner if owner <= PID_MAX_LIMIT else 0
    return {"kind": "lock", "stranger": stranger} if value == 2 else {}


def _word(vessel: Vessel, address: int) -> int:
    try:
        return int.from_bytes(vessel.read(address, 4), "little")
    except MemoryUnavailable:
        return 0


def circle(pc: int) -> Dict[str, Any]:
    """The same of a call that goes in a circle at `pc`, until another thread has done something."""
    return {"call": "spins", "kind": "spin", "address": hex(pc), "owner": 0, "self": False}


def text(blocked: Dict[str, Any]) -> str:
    """`describe` in one line, without symbols."""
    if blocked["kind"] == "spin":
        return f"spins for ever at {blocked['address']}, as only another thread could end it"
    what = str(blocked["call"])
    if blocked["address"]:
        what = f"{what}({blocked['address']})"
    if blocked["kind"] == "lock":
        who = "this thread itself" if blocked["self"] else f"thread {blocked['owner']}"
        held = f"a lock held by {who}" if blocked["owner"] else "a lock that is held"
        return f"would block: {what}, {held}, and no other thread runs"
    if blocked["kind"] == "join":
        return f"would block: {what}, for thread {blocked['owner']} to end, which does not run"
    return f"would block: {what}, and no other thread runs"


def ending(run: Any, policy: Policy, others: bool) -> str:
    """Why the program goes no further, for what is neither a wait nor a signal; "" otherwise.
    `others`: whether it has other threads."""
    back = f"{SHOWN_BY_BT}, `uffd reset` goes back to the snapshot"
    if run.end == lib.RUN_EXITING and run.thread and others:
        return f"this thread would end here, and the program go on without it; {back}"
    if run.end == lib.RUN_EXITING:
        return f"the program would exit with code {run.status} here; {back}"
    if run.end == lib.RUN_KILLING:
        does = "stop itself by SIGSTOP" if run.status == signal.SIGSTOP else "end itself by SIGKILL"
        return f"the program would {does} here; {back}"
    if run.end == lib.RUN_TIMEOUT:
        return (
            f"the call ran for {policy.call_timeout} s without an end (set uffd call-timeout); "
            + back
        )
    if run.end == lib.RUN_MEMORY:
        return (
            f"the call needs more than {size(policy.memory_limit)} of memory that was not "
            f"recorded (set uffd memory-limit); {back}"
        )
    if run.end == lib.RUN_FAILED:
        return f"{failed(run)}; {back}"
    return ""


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

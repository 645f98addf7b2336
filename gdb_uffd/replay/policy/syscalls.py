"""The table of system calls, and what a policy makes of each (syscalls.tbl has the words)."""

from __future__ import annotations

import errno
import functools
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from gdb_uffd.arch import RECORDED, Architecture, host

TABLE = Path(__file__).with_name("syscalls.tbl")

SAFE, ALL, NONE = "safe", "all", "none"
LEVELS = (NONE, SAFE, ALL)

RETURNING = ("rt_sigreturn", "restart_syscall")
"""All that `none` lets through: a function that returns through a signal frame needs it."""

ENDING = ("exit", "exit_group")
"""They end the call, and are told, at every level."""

_NO_MEMORY = ("mmap", "mremap", "brk")

CLOCKS = ("clock_gettime", "gettimeofday", "time", "times", "nanosleep", "clock_nanosleep")
"""The kernel carries these out with `clock real`."""


class SystemCall(NamedTuple):
    """One line of the table, in its words, with the number that one processor has for it."""

    number: int
    name: str
    safe: str
    all: str
    handler: str
    arguments: Tuple[str, ...]


class PolicyOutcome(NamedTuple):
    """What a policy makes of a call.  `action`: "run", "let", "answer", "trace", "result" or
    "refuse"; `error`: the errno of "refuse" and of "result" (0: success)."""

    action: str
    error: int = 0


@functools.cache
def table(arch: Optional[Architecture] = None) -> Dict[int, SystemCall]:
    """By number: the processor's that system calls are made on, unless another one is named."""
    arch = arch or host() or RECORDED
    lines = TABLE.read_text(encoding="ascii").splitlines()
    head, *rows = (line.split() for line in lines if line[0] != "#")
    column, named = head.index(arch.name), head.index("NAME")
    calls: Dict[int, SystemCall] = {}
    for row in rows:
        if row[column] != "-":
            number = int(row[column])
            name_, safe, all_, handler, *arguments = row[named:]
            calls[number] = SystemCall(number, name_, safe, all_, handler, tuple(arguments))
    return calls


@functools.cache
def by_name() -> Dict[str, SystemCall]:
    """By name."""
    return {call.name: call for call in table().values()}


def name(number: int) -> str:
    """ "mmap"; "system call 999" for one that is not in the table."""
    call = table().get(number)
    return call.name if call is not None else f"system call {number}"


def outcome(call: SystemCall, level: str, real_clock: bool = False) -> PolicyOutcome:
    """What the policy `level` makes of `call`."""
    if level == NONE:
        return _nothing(call)
    if real_clock and call.name in CLOCKS:
        return PolicyOutcome("run")
    word = call.all if level == ALL and call.all != "same" else call.safe
    return _meaning(word)


def _nothing(call: SystemCall) -> PolicyOutcome:
    if call.name in RETURNING:
        return PolicyOutcome("run")
    if call.name in ENDING or call.name == "brk":  # brk(2) tells the break, never an error
        return PolicyOutcome("trace")
    if call.name in _NO_MEMORY:
        return PolicyOutcome("refuse", errno.ENOMEM)
    meant = _meaning(call.safe)
    return PolicyOutcome("refuse", meant.error if meant.action == "refuse" else errno.EPERM)


@functools.cache
def _meaning(word: str) -> PolicyOutcome:
    if word == "0":
        return PolicyOutcome("result")
    if word.startswith("-"):
        return PolicyOutcome("result", int(getattr(errno, word[1:])))
    if word.startswith("E"):
        return PolicyOutcome("refuse", int(getattr(errno, word)))
    return PolicyOutcome(word)


def words(call: SystemCall, level: str) -> str:
    """The outcome as docs/policy.md has it."""
    meant = outcome(call, level)
    if meant.action == "refuse":
        return f"refused: {errno.errorcode[meant.error]}"
    if meant.action == "result":
        return errno.errorcode[meant.error] if meant.error else "nothing to do"
    if meant.action == "trace" and call.name in ENDING:
        return "ends the call"
    if meant.action == "trace" and level == NONE:
        return "refused: the break stays"
    return {"run": "allowed", "let": "allowed, undone", "answer": "answered", "trace": "decided"}[
        meant.action
    ]


def documented() -> List[str]:
    """The rows of docs/policy.md's table."""
    return [
        f"| {call.number} | `{call.name}` | {words(call, NONE)} | {words(call, SAFE)} "
        f"| {words(call, ALL)} |"
        for call in table(RECORDED).values()
    ]

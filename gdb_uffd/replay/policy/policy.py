"""The policy: what a called function may ask of the kernel, and how long it may run."""

from __future__ import annotations

import functools
import struct
import time
from dataclasses import fields
from typing import Any, Dict, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.replay.policy import syscalls

CHOICES: Dict[str, Tuple[str, ...]] = {
    "syscalls": syscalls.LEVELS,
    "files": ("none", "read"),
    "clock": ("recorded", "real"),
    "threads": ("freeze", "ignore-locks"),
}

MEMORY_LIMIT = 1 << 30
"""Bytes beyond what was recorded that a process may touch, unless the user says otherwise."""

_LIMIT_MAX = 1 << 62


@dataclass(frozen=True)
class Policy:
    """`set uffd ...` by the settings' names.  `call_timeout`: seconds, 0 for none;
    `memory_limit`: bytes, 0 for none."""

    syscalls: str = "safe"
    files: str = "read"
    clock: str = "recorded"
    threads: str = "freeze"
    call_timeout: int = 0
    memory_limit: int = MEMORY_LIMIT

    @classmethod
    def parse(cls, data: Dict[str, Any]) -> "Policy":
        """From the arguments of quffd.policy; UffdError names what makes no sense."""
        known = {f.name: f for f in fields(cls)}
        values: Dict[str, Any] = {}
        for name, value in data.items():
            if name not in known:
                raise UffdError(f"policy: no setting {name!r}")
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise UffdError(f"policy: {name} is none of {', '.join(CHOICES[name])}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UffdError(f"policy: {name} is not a number from 0")
            elif value > _LIMIT_MAX:
                raise UffdError(f"policy: {name} is too large")
            values[name] = value
        return cls(**values)

    @staticmethod
    def prepare() -> None:
        """Read the table now: the first call needs it, and it takes a millisecond."""
        _rules(*Policy().filter_key())

    def filter_key(self) -> Tuple[str, str]:
        """What the vessel's filter depends on: another key needs another vessel."""
        return self.syscalls, self.clock

    def deadline_ns(self) -> int:
        """When a call that begins now has to be over, on CLOCK_MONOTONIC; 0 for never."""
        if not self.call_timeout:
            return 0
        return min(time.monotonic_ns() + self.call_timeout * 1_000_000_000, (1 << 63) - 1)

    def memory_pages(self) -> int:
        """`memory_limit` in pages."""
        return -(-self.memory_limit // PAGE_SIZE)

    def fill(self, native: Any) -> None:
        """Fill in struct policy (native/table/rules.h)."""
        rules = ffi.buffer(native.rules)
        rules[:] = _rules(*self.filter_key())
        native.level = _LEVELS[self.syscalls]
        native.read_files = self.files == "read"
        native.real_clock = self.clock == "real"
        native.ignore_locks = self.threads == "ignore-locks"


_LEVELS: Dict[str, int] = {
    syscalls.NONE: lib.LEVEL_NONE,
    syscalls.SAFE: lib.LEVEL_SAFE,
    syscalls.ALL: lib.LEVEL_ALL,
}

_ACTIONS: Dict[str, int] = {
    "refuse": lib.POLICY_REFUSE,
    "run": lib.POLICY_RUN,
    "let": lib.POLICY_LET,
    "answer": lib.POLICY_ANSWER,
    "trace": lib.POLICY_TRACE,
    "result": lib.POLICY_RESULT,
}

_KINDS: Dict[str, int] = {
    "path": lib.ARGUMENT_PATH,
    "rbuf": lib.ARGUMENT_READ,
    "wbuf": lib.ARGUMENT_WRITE,
    "riov": lib.ARGUMENT_READ_VECTOR,
    "wiov": lib.ARGUMENT_WRITE_VECTOR,
    "rmsg": lib.ARGUMENT_READ_MESSAGE,
    "wmsg": lib.ARGUMENT_WRITE_MESSAGE,
    "addr": lib.ARGUMENT_ADDRESS,
    "waddr": lib.ARGUMENT_WRITE_ADDRESS,
    "r": lib.ARGUMENT_READ_FIXED,
    "w": lib.ARGUMENT_WRITE_FIXED,
    "rw": lib.ARGUMENT_BOTH_FIXED,
}
"""By the word of the table, without its size."""

_RULE = struct.Struct("<BBh6BBx6H")
_HEAD = struct.Struct("<BBh")
_ARGUMENTS = struct.Struct("<6BBx6H")


def _argument(word: str) -> Tuple[int, int]:
    """(kind, size) of an argument."""
    name = word.rstrip("0123456789")
    return _KINDS.get(name, int(lib.ARGUMENT_NUMBER)), int(word[len(name) :] or 0)


@functools.cache
def _arguments(words: Tuple[str, ...], handler: str) -> bytes:
    """struct rule's `kind`, `handler` and `size`."""
    pairs = [_argument(word) for word in words]
    pairs += [(0, 0)] * (6 - len(pairs))
    number = check(lib.policy_handler(handler.encode()), doing=f"system calls: {handler}")
    return _ARGUMENTS.pack(*(kind for kind, _ in pairs), number, *(size for _, size in pairs))


@functools.cache
def _rules(level: str, clock: str) -> bytes:
    """struct rule rules[RULES] for a policy."""
    out = bytearray(_RULE.size * lib.RULES)
    for call in syscalls.table().values():
        meant = syscalls.outcome(call, level, clock == "real")
        traced = meant.action == "trace" or call.safe == "trace"
        error = -meant.error if meant.action == "result" else meant.error
        at = call.number * _RULE.size
        _HEAD.pack_into(out, at, _ACTIONS[meant.action], traced, error)
        out[at + _HEAD.size : at + _RULE.size] = _arguments(call.arguments, call.handler)
    return bytes(out)


assert ffi.sizeof("struct rule") == _RULE.size

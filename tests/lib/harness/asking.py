"""System calls made by the code of a core, with arguments of the test's choosing."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import pytest

from gdb_uffd.replay.interface import Stop
from gdb_uffd.replay.policy import syscalls
from harness import ROOT
from harness.calls import Caller
from harness.cores import kernel_core

PROGRAM = ROOT / "tests" / "programs" / "policy.c"
PATH_AT, DATA_AT, ROOM_AT = 0, 8192, 16384
"""Where in `arena` strings, structures and room for results lie."""

Argument = Union[int, str, bytes]


def policy_core(folder: Path) -> Path:
    """The core of tests/programs/policy.c, built and crashed in `folder`."""
    program = folder / "policy"
    command = ["cc", "-g", "-O0", "-pthread", "-o", str(program), str(PROGRAM)]
    subprocess.run(command, check=True)
    return kernel_core([str(program)], folder)


_CWD = (-100,)  # AT_FDCWD
AT: Dict[str, Tuple[str, Tuple[int, ...], Tuple[int, ...]]] = {
    "open": ("openat", _CWD, ()),
    "stat": ("newfstatat", _CWD, (0,)),
    "lstat": ("newfstatat", _CWD, (0x100,)),
    "access": ("faccessat", _CWD, ()),
    "readlink": ("readlinkat", _CWD, ()),
    "dup2": ("dup3", (), (0,)),
    "unlink": ("unlinkat", _CWD, (0,)),
    "mkdir": ("mkdirat", _CWD, ()),
    "chmod": ("fchmodat", _CWD, ()),
}
"""What stands for a call that newer architectures never had: its name, arguments before, behind."""


class Asker(Caller):
    """A Caller that makes system calls."""

    def __init__(self, core: Path, **policy: Any) -> None:
        super().__init__(core)
        self.set(**policy)
        self.arena = self.symbol("arena")
        self.room = self.arena + ROOM_AT

    def set(self, **policy: Any) -> None:
        """Settings of replay.policy.Policy."""
        self.diversion.policy = replace(self.diversion.policy, **policy)

    def place(self, call: Union[int, str], *arguments: Argument) -> None:
        """Write the request; what is no number is put into memory, and pointed to."""
        if isinstance(call, str) and call not in syscalls.by_name():
            if call not in AT:
                pytest.skip(f"this processor's Linux has no {call}()")
            call, before, after = AT[call]
            arguments = (*before, *arguments, *after)
        number = syscalls.by_name()[call].number if isinstance(call, str) else call
        words: List[int] = [number]
        at = self.arena + PATH_AT
        for argument in arguments:
            if isinstance(argument, int):
                words.append(argument & ((1 << 64) - 1))
                continue
            data = argument.encode() + b"\0" if isinstance(argument, str) else argument
            self.diversion.write_memory(at, data)
            words.append(at)
            at += len(data) + 64 & -64
        words += [0] * (8 - len(words))
        self.diversion.write_memory(self.symbol("request"), struct.pack("<8Q", *words))
        self.diversion.commit_pending()

    def ask(self, call: Union[int, str], *arguments: Argument, keep: bool = False) -> int:
        """What the program sees: a result, or a negative errno."""
        self.place(call, *arguments)
        return self.call("raw", keep=keep)

    def stopped(self, name: str, argument: int = 0) -> Stop:
        """Call a function that does not return; the stop.  The report is in `reports`."""
        stop = self.start(name, argument)
        self.diversion.call_end()
        self.reports.append(self.diversion.end(False))
        return stop

    def memory(self, length: int, at: int = 0) -> bytes:
        """The room for results, as it is now: of a call that was kept."""
        return self.diversion.read_memory(at or self.room, length)

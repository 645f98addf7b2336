"""`python -I -m gdb_uffd.recorder.program PROGRAM ARGS`: gdb's exec-wrapper for `gdb-uffd record`.

gdb runs headless, with an input and an output of its own, in a process group of its own; the
program gets back what the user's shell gave to `gdb-uffd`: descriptors, environment, group.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from typing import List

VARIABLE = "GDB_UFFD_PROGRAM"
"""Environment variable: number of a descriptor with {"environ": {...}, "fds": [0's, 1's, 2's],
"close": [others], "group": process group, "ignored": [signals]}, rewound before it is read."""


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None)


def end_with_parent(number: int) -> None:
    """Have the kernel send us this signal when our parent dies (prctl(2)); 0: none."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _traced() -> bool:
    """By gdb, from the beginning (fork_inferior, nat/fork-inferior.c), unless that has died."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        found = re.search(r"^TracerPid:\s*(\d+)", status.read(), re.M)
    return found is not None and found[1] != "0"


def main(arguments: List[str]) -> int:
    """Become the program.  Until then it ends with gdb, which sets PTRACE_O_EXITKILL behind the
    last exec only."""
    end_with_parent(signal.SIGKILL)
    if not _traced():
        return 126
    descriptor = int(os.environ[VARIABLE])
    plan = json.loads(os.pread(descriptor, 1 << 24, 0))
    os.close(descriptor)
    for number, fd in enumerate(plan["fds"]):
        os.dup2(fd, number)
    for fd in [*plan["fds"], *plan["close"]]:  # gdb's own for us, which it lets through
        os.close(fd)
    try:
        os.setpgid(0, plan["group"])
    except OSError:
        pass  # the group is empty by now, or of another session: no terminal to share
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            handler = signal.SIG_IGN if number in plan["ignored"] else signal.SIG_DFL
            try:
                signal.signal(number, handler)
            except (OSError, ValueError):
                pass
    signal.pthread_sigmask(signal.SIG_SETMASK, plan["blocked"])
    end_with_parent(0)
    environ = {os.fsencode(k): os.fsencode(v) for k, v in plan["environ"].items()}
    try:
        os.execve(arguments[0], [str(plan["name"]), *arguments[1:]], environ)
    except OSError as error:
        print(f"gdb-uffd: {arguments[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

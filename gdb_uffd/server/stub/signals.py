"""Linux signal numbers and those of the remote protocol.

Source: include/gdb/signals.def of gdb's sources ("these numbers are part of the remote
protocol", gdb manual, node "Stop Reply Packets") and signal(7) for x86-64 Linux.
"""

from __future__ import annotations

from typing import Dict

GDB_SIGNAL_0 = 0
GDB_SIGNAL_UNKNOWN = 143

_STANDARD: Dict[int, int] = {
    1: 1,  # SIGHUP
    2: 2,  # SIGINT
    3: 3,  # SIGQUIT
    4: 4,  # SIGILL
    5: 5,  # SIGTRAP
    6: 6,  # SIGABRT
    7: 10,  # SIGBUS
    8: 8,  # SIGFPE
    9: 9,  # SIGKILL
    10: 30,  # SIGUSR1
    11: 11,  # SIGSEGV
    12: 31,  # SIGUSR2
    13: 13,  # SIGPIPE
    14: 14,  # SIGALRM
    15: 15,  # SIGTERM
    17: 20,  # SIGCHLD
    18: 19,  # SIGCONT
    19: 17,  # SIGSTOP
    20: 18,  # SIGTSTP
    21: 21,  # SIGTTIN
    22: 22,  # SIGTTOU
    23: 16,  # SIGURG
    24: 24,  # SIGXCPU
    25: 25,  # SIGXFSZ
    26: 26,  # SIGVTALRM
    27: 27,  # SIGPROF
    28: 28,  # SIGWINCH
    29: 23,  # SIGIO
    30: 32,  # SIGPWR
    31: 12,  # SIGSYS
    32: 77,  # the two that glibc keeps for itself, and the last, are out of line
    64: 78,
}

_TO_GDB: Dict[int, int] = {**_STANDARD, **{n: 45 + n - 33 for n in range(33, 64)}}
_TO_LINUX: Dict[int, int] = {gdb: linux for linux, gdb in _TO_GDB.items()}
_TO_LINUX[33] = 29  # SIGPOLL is SIGIO on Linux


def to_gdb(signal: int) -> int:
    """gdb's number of a Linux signal; 0 stays 0; 143 ("unknown") for no signal of Linux."""
    return _TO_GDB.get(signal, GDB_SIGNAL_UNKNOWN) if signal else GDB_SIGNAL_0


def to_linux(signal: int) -> int:
    """The Linux number of gdb's signal; 0 (deliver none) for 0 and for what Linux has not."""
    return _TO_LINUX.get(signal, 0)

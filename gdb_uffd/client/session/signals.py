"""A snapshot's signal: as gdb names it, and as gdb would deliver it."""

from __future__ import annotations

import contextlib
import signal

from gdb_uffd.client.session.asking import FAILURES, quiet


def restore(number: int, first_thread: int) -> None:
    """After a reset gdb would still deliver the signal that some later stop left in a thread.

    `number` is the snapshot's, for gdb's `first_thread`.  `queue-signal` (gdb manual, "Signaling")
    sets what a thread gets when it is resumed.  A signal that gdb does not pass on is not queued
    either.
    """
    recorded = signal.Signals(number).name if number in set(signal.Signals) else "0"
    wanted = [("all", "0"), (str(first_thread), recorded)]
    for threads, name in wanted if first_thread else wanted[:1]:
        with contextlib.suppress(*FAILURES):
            quiet(f"thread apply {threads} -q -s queue-signal {name}")


def text(number: int) -> str:
    """11 as "SIGSEGV, Segmentation fault"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return str(number)
    return f"{name}, {signal.strsignal(number) or 'unknown signal'}"

"""Another process of the same snapshot, beside the session's own."""

from __future__ import annotations

import os
from typing import Any, Optional, Protocol, Tuple, TypeVar

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.replay.state import SavedThreads, ThreadStates
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.source import Snapshot

SLICE_MS = 200
"""How long it runs before whoever asks may think again: gdb sees Ctrl-C between two packets."""


class Cloneable(Protocol):
    """A Diversion, as far as it is needed here."""

    snapshot: Snapshot
    vessel: Vessel
    threads: ThreadStates
    policy: Policy

    def __init__(self, snapshot: Snapshot) -> None: ...

    def prefer_engine(self, name: str, mass: bool) -> None:
        """For its next process."""

    def close(self) -> None:
        """End it."""


AnyDiversion = TypeVar("AnyDiversion", bound=Cloneable)


class Unseen:
    """The client of a run that nobody looks at: its output goes nowhere, a timer wakes it."""

    def __init__(self) -> None:
        self._fd = -1
        self.expired = False

    def fileno(self) -> int:
        return self._fd

    def interrupt_requested(self) -> bool:
        os.read(self._fd, 8)
        self.expired = True
        return False

    def output(self, data: bytes) -> None:
        del data

    def runs_on(self, seconds: float) -> None:
        del seconds

    def start(self) -> None:
        self.stop()
        self._fd = check(lib.watch_timer(SLICE_MS), doing="timer")
        self.expired = False

    def stop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def make_clone(
    real: AnyDiversion, saved: SavedThreads, brk: Tuple[int, int], undo: Optional[Any]
) -> AnyDiversion:
    """Another diversion of `real`'s snapshot, with the memory that `undo` leads back to, and the
    descriptors and clock from before the last run; without `undo` as everything is now."""
    clone = type(real)(real.snapshot)
    clone.prefer_engine("wp-sync", False)  # the only one to stop at a write, or to tell of a touch
    try:
        check(
            lib.undo_export(
                ffi.new("struct undo *") if undo is None else undo,
                real.vessel.pager,
                clone.vessel.pager,
            ),
            doing="copying the state before the call",
        )
    except BaseException:
        clone.close()
        raise
    # The clock of a core begins where this machine's stood: a later look gives another beginning.
    clone.vessel.copy_kernel_state(real.vessel, undo is not None)
    clone.policy = real.policy
    clone.vessel.restore_brk(brk)
    clone.threads.restore(saved)
    return clone

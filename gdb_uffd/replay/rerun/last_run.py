"""The last `uffd call`, or what ran since, and the way back to the state before it."""

from __future__ import annotations

from typing import Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import CallReport, UffdError
from gdb_uffd.replay.account import Transaction
from gdb_uffd.replay.rerun.log import RunLog
from gdb_uffd.replay.state import SavedThreads
from gdb_uffd.replay.vessel import Vessel


@dataclass(frozen=True)
class LastRun:
    """What ran, from which state, and what it did.  `kernel_lost`: calls kept before it had left
    something in the kernel, which no new process has."""

    log: RunLog
    tid: int
    saved: SavedThreads
    brk: Tuple[int, int]
    report: CallReport
    kernel_lost: bool
    fed: Tuple[int, int]  # from and to in the pager's list of fed pages


class LastRunKeeper:
    """Follows the transactions of one diversion."""

    def __init__(self, vessel: Vessel) -> None:
        self._vessel = vessel
        self._last: Optional[LastRun] = None
        self._why_not = "nothing has run yet"
        self.undo = ffi.gc(ffi.new("struct undo *"), lib.undo_deinit)
        """How memory was before the last run, where that is not how it is now."""

    def closing(self, open_: Transaction, report: CallReport, kernel_kept: bool) -> None:
        """`open_` ends, `report.kept` tells how; call before its before-images are given up."""
        # Of what the user had called it is the last, even if nothing ran; steps and the like are.
        if open_.resumed or open_.explicit:
            lib.undo_deinit(self.undo)
            lib.account_note_rerun(self._vessel.native)
            fed = open_.counts.logged, self._vessel.counts().logged
            self._last = LastRun(
                open_.log, report.tid, open_.saved, open_.brk, report, kernel_kept, fed
            )
        if report.kept and self._last is not None:
            check(lib.undo_take(self.undo, self._vessel.pager), doing="keeping the way back")

    def get(self) -> LastRun:
        """UffdError when there is nothing that could be run again."""
        if self._last is None:
            raise UffdError(f"{self._why_not}: `uffd call` something first")
        if self._last.log.too_long:
            raise UffdError("the last run was too long to be run again: `uffd call` it")
        return self._last

    def fed(self, report: CallReport) -> Optional[Tuple[int, int]]:
        """Where the pages fed in the run of `report` stand in the pager's list."""
        return self._last.fed if self._last is not None and self._last.report is report else None

    def forget(self, why: str) -> None:
        """Everything is the snapshot's again."""
        lib.undo_deinit(self.undo)
        if self._last is not None:
            self._why_not = why
        self._last = None

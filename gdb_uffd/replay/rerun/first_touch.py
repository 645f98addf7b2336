"""The first touch of each page, reads and fetches too: a diversion whose pages are all missing."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import lib
from gdb_uffd.protocol.model import PAGE_SIZE, CallReport, page_floor
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.layout import classify
from gdb_uffd.replay.report import callers
from gdb_uffd.replay.rerun.clone import make_clone

_HOW = {lib.TOUCH_READ: "read", lib.TOUCH_WRITE: "write", lib.TOUCH_RUN: "run"}


@dataclass(frozen=True)
class FirstTouch:
    """The first touch of the page at `start`.  `access`: "read", "write", or "run" for the fetch of
    an instruction; `written`: whether the call wrote the page, then or later; `fed`: whether its
    bytes came from the recording, else it was new memory.  `address`: the byte touched, `pc` and
    `callers` as in FirstWrite; `call`: number of the system call it happened in, -1 for none.
    """

    start: int
    end: int
    access: str
    written: bool
    fed: bool
    kind: str
    mapping: str
    thread: Optional[int]
    address: int
    pc: int
    sp: int
    tid: int
    callers: Tuple[int, ...]
    call: int


class Tracing:
    """A clone with the state as it is now, which lists what is touched.

    Serves one transaction: `diversion` collects the list before it undoes anything.
    """

    def __init__(self, real: Diversion) -> None:
        real.commit_pending()
        saved, brk = real.threads.save(), real.vessel.save_brk()
        self.touched: List[FirstTouch] = []
        self.missed = 0
        self.diversion = make_clone(real, saved, brk, None)
        self.diversion.before_end = self._collect
        self.diversion.vessel.list_touches()

    def _collect(self, tid: int) -> None:
        touches, self.missed = self.diversion.vessel.touches()
        self.touched = [self._touch(touch, tid) for touch in touches]

    def _touch(self, touch: Any, tid: int) -> FirstTouch:
        vessel, who = self.diversion.vessel, touch.who
        place = classify(vessel, who.address or touch.page)
        return FirstTouch(
            touch.page, touch.page + PAGE_SIZE, _HOW[touch.how],
            bool(lib.transaction_program_wrote(vessel.pager, touch.page)), bool(touch.recorded),
            place.kind, place.mapping, place.thread, who.address, who.pc, who.sp, tid,
            callers(touch.callers), int(who.call) - 1,
        )  # fmt: skip

    def close(self) -> None:
        """End the clone.  Idempotent."""
        self.diversion.close()


def fed_ranges(diversion: Diversion, report: CallReport) -> Tuple[List[Tuple[int, int]], bool]:
    """Page ranges fed in the transaction that ended with `report`, sorted and half-open; whether
    the list is complete."""
    last = diversion.last_run.fed(report)
    if last is None:
        return [], True
    addresses, complete = diversion.vessel.fed_log(*last)
    pages = sorted(set(map(page_floor, addresses)))
    out: List[Tuple[int, int]] = []
    for page in pages:
        if out and out[-1][1] == page:
            out[-1] = (out[-1][0], page + PAGE_SIZE)
        else:
            out.append((page, page + PAGE_SIZE))
    return out, complete

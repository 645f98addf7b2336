"""Pages that the recording does not hold and that nobody knows: who was fed them is told so."""

from __future__ import annotations

from typing import Tuple

from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.vessel import Vessel


class Unknown:
    """A page that is in the vessel is not fed again, so a call that was fed some wants a new vessel
    behind it; where that would lose what kept calls left in the kernel, they count for all that
    runs in this one."""

    def __init__(self, vessel: Vessel) -> None:
        self._vessel = vessel
        self._carried = (0, 0)
        self._pid = 0  # the process that they are in

    def so_far(self) -> Tuple[int, int]:
        """Pages fed: taken for zeros, as in the file.  The difference to an earlier value is what
        came since, with what is carried along."""
        native, pager = self._vessel.native, self._vessel.pager
        zeros, as_in_file = self._carried if native.pid == self._pid else (0, 0)
        return pager.unknown_zeros - zeros, pager.unknown_file - as_in_file

    def must_renew(self, report: CallReport, kernel_kept: bool) -> bool:
        """Whether the call of `report` wants a new vessel behind it."""
        found = report.unknown_zeros, report.unknown_file
        if any(found) and kernel_kept:
            self._carried, self._pid = found, self._vessel.native.pid
        return any(found) and not kernel_kept

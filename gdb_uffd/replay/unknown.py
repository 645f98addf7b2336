"""Pages that the recording does not hold and that nobody knows: who was fed them is told so."""

from __future__ import annotations

from dataclasses import replace

from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.vessel import Counts, Vessel


class Unknown:
    """A page that is in the vessel is not fed again, so a call that was fed some wants a new vessel
    behind it; where that would lose what kept calls left in the kernel, they count for all that
    runs in this one."""

    def __init__(self, vessel: Vessel) -> None:
        self._vessel = vessel
        self._carried = (0, 0)
        self._pid = 0  # the process that they are in

    def counts(self) -> Counts:
        """The vessel's.  The difference of later ones to these is what came since, with what is
        carried along."""
        counts = self._vessel.counts()
        if self._vessel.pid != self._pid:
            return counts
        zeros, as_in_file = self._carried
        return replace(
            counts,
            unknown_zeros=counts.unknown_zeros - zeros,
            unknown_file=counts.unknown_file - as_in_file,
        )

    def must_renew(self, report: CallReport, kernel_kept: bool) -> bool:
        """Whether the call of `report` wants a new vessel behind it."""
        found = report.unknown_zeros, report.unknown_file
        if any(found) and kernel_kept:
            self._carried, self._pid = found, self._vessel.pid
        return any(found) and not kernel_kept

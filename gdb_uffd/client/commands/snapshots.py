"""`uffd snapshots`: the snapshots of a trace."""

from __future__ import annotations

from typing import Optional, Sequence

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.show import snapshots
from gdb_uffd.protocol.model import UffdError


class SnapshotsCommand(Command):
    """List the snapshots of the trace; the present one is marked.

    Usage: uffd snapshots [-json] [-full]

      -json   print one line, one JSON object
      -full   do not leave out the middle of a long list

    Number, time, time since the first, thread and function that were current,
    pages that changed since the one before, and the label.  A narrow terminal
    shows less of each.

    Example:
        uffd snapshots
        uffd goto 3"""

    name, usage = "snapshots", "uffd snapshots [-json] [-full]"
    options = ("json", "full")

    def run(self, parsed: Parsed) -> None:
        """Ask for the list and print it."""
        self.nothing_else(parsed)
        session = sessions.current()
        every = travel.all_snapshots(session)
        if parsed.has("json"):
            say_json(snapshots.table_json(every, session.position.snapshot))
        else:
            say(*snapshots.table(every, session.position.snapshot, look(), parsed.has("full")))


def names(text: str) -> Optional[Sequence[str]]:
    """Completions of a snapshot's name; None without a trace."""
    session = sessions.selected()
    if session is None or session.server.ended() is not None:
        return None
    try:
        return snapshots.completions(travel.all_snapshots(session), text)
    except (UffdError, *FAILURES):
        return None

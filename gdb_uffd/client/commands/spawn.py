"""`uffd spawn`: a core or a trace, opened."""

from __future__ import annotations

import time

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    opened,
    policy,
    sessions,
    travel,
)
from gdb_uffd.client.session.options import Parsed, split_files


class SpawnCommand(Command):
    """Open a core file or a trace; nothing runs yet.

    Usage: uffd spawn FILE [EXECUTABLE]

    FILE is a core, written by the kernel or by gdb's gcore, or a trace of many
    snapshots, NAME.uffd.  The executable and the libraries are found from it
    unless EXECUTABLE is given.  What this inferior already has open is closed
    first.

    Example:
        uffd spawn core.4711
        uffd spawn core.4711 build/server"""

    name, usage = "spawn", "uffd spawn FILE [EXECUTABLE]"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Start the server and connect."""
        began = time.perf_counter()
        session = sessions.spawn(*split_files(parsed.rest, self.usage))
        opened.show(session, began)
        policy.sync(sessions.current())
        travel.follow(sessions.current())

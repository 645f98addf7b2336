"""`uffd kill`: the core closed."""

from __future__ import annotations

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    sessions,
)
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import say


class KillCommand(Command):
    """Close the core: end the process that ran, and the server.

    Usage: uffd kill

    Nothing is lost but what ran; the core file itself is never changed.

    Example:
        uffd kill"""

    name, usage = "kill", "uffd kill"

    def run(self, parsed: Parsed) -> None:
        """Disconnect and reap."""
        self.nothing_else(parsed)
        session = sessions.current()
        sessions.end(session)
        say(f"closed {session.ready.core}")

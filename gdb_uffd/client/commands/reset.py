"""`uffd reset`: back to the recorded state."""

from __future__ import annotations

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    libraries,
    sessions,
    signals,
)
from gdb_uffd.client.session.asking import flush_caches, pop_dummy_frames
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import say, show_command
from gdb_uffd.protocol.messages_calls import Reset


class ResetCommand(Command):
    """Go back to the recorded state: forget what ran and was set.

    Usage: uffd reset

    The process that ran ends; memory, registers and mappings are those of the core
    again, or of the present snapshot of a trace.

    Example:
        print push(7)
        uffd reset"""

    name, usage = "reset", "uffd reset"

    def run(self, parsed: Parsed) -> None:
        """Reset, forget caches, show the frame."""
        self.nothing_else(parsed)
        session = sessions.current()
        pop_dummy_frames()
        stale = session.request(Reset()).libraries_stale
        session.calls.told()
        sessions.reselect(session)
        flush_caches()
        if stale:
            libraries.update()
        signals.restore(session.position.signal, session.position.first_thread)
        say("reset: everything is as recorded")
        show_command("frame")

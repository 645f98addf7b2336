"""`uffd goto`: to another snapshot."""

from __future__ import annotations

from typing import Optional

from gdb_uffd.client.commands.command import Command, Completion
from gdb_uffd.client.commands.snapshots import names
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.protocol.model import UffdError


class GotoCommand(Command):
    """Go to another snapshot of the trace.

    Usage: uffd goto N|LABEL|+N|-N|start|end

    Threads, frames, registers and memory are then those of that instant, and what
    calls changed at the old one is forgotten.  `reverse-continue` goes to the
    snapshot before; `continue` lets the program run on from the present one.

    $_uffd_snapshot, $_uffd_time (seconds since 1970) and $_uffd_label tell where
    that is.

    Example:
        uffd goto 3
        uffd goto +1
        uffd goto "after insert\""""

    name, usage, dashes = "goto", "uffd goto N|LABEL|+N|-N|start|end", True

    def run(self, parsed: Parsed) -> None:
        """Move."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"where to? usage: {self.usage}")
        travel.goto(session, parsed.rest)

    def complete(self, text: str, word: Optional[str]) -> Completion:
        """Labels, start, end, numbers."""
        if word is None:
            return []
        begun = text.lstrip()
        cut = len(begun) - len(word)
        return [name[cut:] for name in names(begun) or []]

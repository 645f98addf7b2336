"""`uffd export`: the process as it is now, as a core file."""

from __future__ import annotations

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import sessions
from gdb_uffd.client.session.options import Parsed, split_files
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.show import verdict
from gdb_uffd.client.show.text import plural, size
from gdb_uffd.protocol.messages_travel import Export
from gdb_uffd.protocol.model import UffdError


class ExportCommand(Command):
    """Write the process as it is now as a core file for any gdb.

    Usage: uffd export FILE

    Also what calls changed and was kept is in it.  FILE must not exist; it is for
    you alone to read (mode 0600).

    Example:
        uffd goto 3
        print push(7)
        uffd export after-push.core"""

    name, usage = "export", "uffd export FILE"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Ask the server to write it."""
        session = sessions.current()
        path, more = split_files(parsed.rest, self.usage)
        if more:
            raise UffdError(f"one file, please; usage: {self.usage}")
        done = session.request(Export(path))
        session.calls.pending = False
        lost = done.unavailable_pages
        left_out = f"; {plural(lost, 'page')} could not be had" if lost else ""
        read = verdict.may_hold(done.files_read)
        say(f"{path}: {size(done.size)}{left_out}{read}")

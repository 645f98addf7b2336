"""`uffd connect`: what `gdb-uffd serve` serves, opened."""

from __future__ import annotations

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    connecting,
    policy,
    sessions,
    travel,
)
from gdb_uffd.client.session.options import Parsed


class ConnectCommand(Command):
    """Open what `gdb-uffd serve` serves, here or on another machine.

    Usage: uffd connect ADDRESS [TOKEN-FILE]

    ADDRESS is what it printed: unix:PATH, HOST:PORT or [IPv6]:PORT.  Where it asks
    for a token, that is in TOKEN-FILE or in the environment variable
    GDB_UFFD_TOKEN.  From then on all is as after `uffd spawn`; gdb gets the files
    of another machine from the server.

    Example:
        uffd connect 127.0.0.1:4711"""

    name, usage = "connect", "uffd connect ADDRESS [TOKEN-FILE]"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Connect."""
        connecting.connect(*connecting.split_address(parsed.rest, self.usage))
        policy.sync(sessions.current())
        travel.follow(sessions.current())

"""`uffd mappings`: the memory mappings as they are now."""

from __future__ import annotations

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    sessions,
)
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.protocol.messages_calls import ListMappings
from gdb_uffd.terminal import one_line


class MappingsCommand(Command):
    """List the memory mappings as they are now.

    Usage: uffd mappings

    Example:
        uffd mappings"""

    name, usage = "mappings", "uffd mappings"

    def run(self, parsed: Parsed) -> None:
        """Ask the server."""
        self.nothing_else(parsed)
        mappings(sessions.current())


def mappings(session: Session) -> None:
    """A table like that of `info proc mappings`, as the process is now."""
    looks = look()
    rows = [["Start Addr", "End Addr", "Size", "Offset", "Perm"]]
    files = ["File"]
    for m in session.request(ListMappings()):
        size, offset = hex(m.end - m.start), hex(m.offset)
        rows.append([hex(m.start), hex(m.end), size, offset, m.prot_text()])
        why = f" ({one_line(m.unavailable)})" if m.unavailable else ""
        files.append(looks.paint("filename", m.name) + why)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        row[:4] = [cell.rjust(width) for cell, width in zip(row[:4], widths)]
    painted = [rows[0], *([looks.paint("address", c) for c in r[:2]] + r[2:] for r in rows[1:])]
    for head, file in zip(aligned(painted, looks, " "), files):
        say(*under(head, [file], looks))

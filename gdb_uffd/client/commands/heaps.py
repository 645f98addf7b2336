"""The command that looks at malloc's heap."""

from __future__ import annotations

from typing import Tuple, Type

import gdb

from gdb_uffd.client.commands import heap
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.commands.options import Parsed
from gdb_uffd.client.session import sessions
from gdb_uffd.protocol.model import UffdError


class HeapCommand(Command):
    """Show malloc's heap, or who holds a block of it.

    Usage: uffd heap [-blocks] [-free] [-full] [-json] [--] [ADDRESS|EXPRESSION]

      -blocks   list the blocks
      -free     list those that are free
      -full     do not cut a long list
      -json     print one line, one JSON object

    Alone: arenas, blocks and bytes in use and free, the lists of free blocks, and
    what is damaged.  With a pointer: the block that it points into, its
    neighbours, who holds it, and what in it points to freed memory; of a freed
    block, who still points to it.

    Example:
        uffd heap
        uffd heap head->name"""

    name, usage = "heap", "uffd heap [-blocks] [-free] [-full] [-json] [ADDRESS|EXPRESSION]"
    options, completer = ("blocks", "free", "full", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """The heap, or a block."""
        session = sessions.current()
        listed = parsed.has("blocks") or parsed.has("free")
        if parsed.rest and listed:
            raise UffdError(f"a list is of the whole heap; usage: {self.usage}")
        if parsed.rest:
            heap.block(session, parsed.rest, parsed.has("json"))
            return
        heap.heap(
            session,
            parsed.has("blocks"),
            parsed.has("free"),
            parsed.has("full"),
            parsed.has("json"),
        )


COMMANDS: Tuple[Type[Command], ...] = (HeapCommand,)

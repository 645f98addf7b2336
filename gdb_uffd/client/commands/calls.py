"""Commands that explain the last call: registration only, as in commands.py."""

from __future__ import annotations

from typing import Tuple, Type

import gdb

from gdb_uffd.client.commands import report, trace, why
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.commands.options import Parsed
from gdb_uffd.client.session import sessions
from gdb_uffd.protocol.model import UffdError


class WhyCommand(Command):
    """Run the last call again, and show every write to one object.

    Usage: uffd why [-first] [-json] [-full] [--] NAME|ADDRESS

      -first   only the first write
      -json    print one line, one JSON object
      -full    list all writes, not only the first 1,000

    NAME is a variable or any other lvalue: a field, an element.  At an ADDRESS it
    is what the call changed there.  Each write is shown old -> new, with its
    backtrace.  The call runs in another process, from the state before it: nothing
    of the session changes, and what the program prints is not shown again.

    Example:
        uffd call push(7)
        uffd why counter
        uffd why -first table[3].next"""

    name, usage = "why", "uffd why [-first] [-json] [-full] [--] NAME|ADDRESS"
    options, completer = ("first", "json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Find the object, run, show."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"why was what written? usage: {self.usage}")
        first, full = parsed.has("first"), parsed.has("full")
        why.show(session, parsed.rest, first, parsed.has("json"), full)


class TraceCommand(Command):
    """Evaluate an expression, show the first touch of each page.

    Usage: uffd trace [-json] [-full] [--] [/FMT] EXPRESSION

      -json    print one line, one JSON object
      -full    do not leave out lines of a long list

    What the call looked at, not only what it changed: every page in the order of
    its first read, write or instruction fetch ("run"; "read+w": read, and written
    later), with the function and line.  It runs in another process, in which no
    page is there yet, and what it did is forgotten.

    Example:
        uffd trace sum()"""

    name, usage = "trace", "uffd trace [-json] [-full] [--] EXPRESSION"
    options, completer = ("json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Evaluate in the other process."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be traced? usage: {self.usage}")
        trace.show(session, parsed.rest, parsed.has("json"), parsed.has("full"))


class ReportCommand(Command):
    """Write the last call as one HTML page.

    Usage: uffd report FILE.html

    The page needs nothing else: no network, no scripts.  It shows the call and its
    value, a map of the address space with the pages fed and dirtied, the variables
    that changed, each page's bytes before and after, what was refused and what was
    printed.

    Example:
        uffd call push(7)
        uffd report push.html"""

    name, usage = "report", "uffd report FILE.html"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Collect and write."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"into which file? usage: {self.usage}")
        report.write(session, parsed.rest, self.usage)


COMMANDS: Tuple[Type[Command], ...] = (WhyCommand, TraceCommand, ReportCommand)

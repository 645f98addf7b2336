"""`uffd record ...`: a trace of a live process."""

from __future__ import annotations

import os
import shlex
from typing import Tuple, Type

import gdb

from gdb_uffd.client.commands.command import Command, list_commands
from gdb_uffd.client.recording import recordings, telling, triggers
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import user_errors
from gdb_uffd.protocol.model import UffdError


class RecordCommand(Command):
    """Record a live process: a trace of many snapshots.

    Each snapshot holds registers and memory; only pages that were written since
    the one before are copied, while the program stands still for a moment.  `uffd
    spawn FILE` opens the trace, `uffd goto` moves in it, and calls work at each
    snapshot.

    Usage: uffd record start|snapshot|at|every|stop

    Example:
        uffd record start t
        uffd record at push max 100
        continue
        uffd record stop"""

    name, usage = "record", "uffd record start|snapshot|at|every|stop"

    def __init__(self) -> None:
        # The prefix of the commands below; Command registers what has none.
        gdb.Command.__init__(self, "uffd record", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE, True)

    @user_errors
    def invoke(self, argument: str, from_tty: bool) -> None:
        """A bare `uffd record`: how far it is, or what there is."""
        if argument.strip():
            word = argument.split()[0]
            raise UffdError(f'Undefined uffd record command: "{word}".  Try "help uffd record".')
        if not telling.show():
            list_commands(COMMANDS[1:])


class StartCommand(Command):
    """Begin to record the program that is being debugged.

    Usage: uffd record start [-self-contained] FILE

      -self-contained   also store the program's file and its libraries

    FILE.uffd is made; it must not exist.  It holds the program's memory, so only
    you can read it.  The program must be stopped.  No snapshot is taken yet.

    Example:
        uffd record start t"""

    name, usage = "record start", "uffd record start [-self-contained] FILE"
    options, completer = ("self-contained",), gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Prepare the process, make the trace."""
        try:
            words = shlex.split(parsed.rest)
        except ValueError as error:
            raise UffdError(f"cannot read the file name ({error}); usage: {self.usage}") from None
        if len(words) != 1:
            raise UffdError(f"usage: {self.usage}")
        path = os.path.abspath(os.path.expanduser(words[0]))
        recordings.start(path, parsed.has("self-contained"))


class SnapshotCommand(Command):
    """Take a snapshot of the stopped program.

    Usage: uffd record snapshot [LABEL]

    Example:
        uffd record snapshot before the crash"""

    name, usage = "record snapshot", "uffd record snapshot [LABEL]"
    dashes = True

    def run(self, parsed: Parsed) -> None:
        """Take it, and wait until it is in the trace."""
        recordings.snapshot(parsed.rest)


class AtCommand(Command):
    """Take a snapshot at each hit of a location.

    Usage: uffd record at LOCATION [if CONDITION] [every N] [max M]

      if CONDITION   only where it is true
      every N        only at each Nth of these hits
      max M          at most M snapshots

    The program goes on by itself.  It is a breakpoint that `info breakpoints`
    lists and that `disable` and `delete` know.  Breakpoints of yours at the same
    place stop as ever.

    Example:
        uffd record at push
        uffd record at server.c:120 if fd > 2 every 10 max 500"""

    name = "record at"
    usage = "uffd record at LOCATION [if CONDITION] [every N] [max M]"
    completer, dashes = gdb.COMPLETE_LOCATION, True

    def run(self, parsed: Parsed) -> None:
        """Set the breakpoint."""
        triggers.at(parsed.rest, self.usage)


class EveryCommand(Command):
    """Take a snapshot every so often while the program runs.

    Usage: uffd record every INTERVAL

    INTERVAL is a number and its unit: us, ms or s; at least 1ms.  It replaces the
    interval that was set before.  While you look at the stopped program no
    snapshot is taken.

    Example:
        uffd record every 10ms"""

    name, usage = "record every", "uffd record every INTERVAL"

    def run(self, parsed: Parsed) -> None:
        """Start the clock."""
        triggers.every(parsed.rest, self.usage)


class StopCommand(Command):
    """End the recording; the program is not touched.

    Usage: uffd record stop

    Example:
        uffd record stop
        uffd spawn t.uffd"""

    name, usage = "record stop", "uffd record stop"

    def run(self, parsed: Parsed) -> None:
        """Write what is left, finish the trace."""
        self.nothing_else(parsed)
        recordings.stop()


COMMANDS: Tuple[Type[Command], ...] = (
    RecordCommand,
    StartCommand,
    SnapshotCommand,
    AtCommand,
    EveryCommand,
    StopCommand,
)

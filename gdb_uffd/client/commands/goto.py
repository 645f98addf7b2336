"""The commands that move between the snapshots of a trace, and those that look at many."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple, Type

import gdb

from gdb_uffd.client.commands import at_snapshots, changes
from gdb_uffd.client.commands.command import Command, Completion
from gdb_uffd.client.commands.options import Parsed, split_files
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.asking import look, say, say_json
from gdb_uffd.client.show import snapshots, verdict
from gdb_uffd.client.show.text import plural, size
from gdb_uffd.protocol.messages_travel import Export
from gdb_uffd.protocol.model import UffdError


class SnapshotsCommand(Command):
    """List the snapshots of the trace; the present one is marked.

    Usage: uffd snapshots [-json] [-full]

      -json   print one line, one JSON object
      -full   do not leave out the middle of a long list

    Number, time, time since the first, thread and function that were current,
    pages that changed since the one before, and the label.  A narrow terminal
    shows less of each.

    Example:
        uffd snapshots
        uffd goto 3"""

    name, usage = "snapshots", "uffd snapshots [-json] [-full]"
    options = ("json", "full")

    def run(self, parsed: Parsed) -> None:
        """Ask for the list and print it."""
        self.nothing_else(parsed)
        session = sessions.current()
        every = travel.all_snapshots(session)
        if parsed.has("json"):
            say_json(snapshots.table_json(every, session.snapshot))
        else:
            say(*snapshots.table(every, session.snapshot, look(), parsed.has("full")))


def _names(text: str) -> Optional[Sequence[str]]:
    """Completions of a snapshot's name; None without a trace."""
    session = sessions.selected()
    if session is None or session.server.ended() is not None:
        return None
    try:
        return snapshots.completions(travel.all_snapshots(session), text)
    except (UffdError, gdb.error):
        return None


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
        return [name[cut:] for name in _names(begun) or []]


class MapCommand(Command):
    """Evaluate an expression at every snapshot.

    Usage: uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]

      -json   print one line, one JSON object
      -full   do not fold or leave out rows of a long table

    RANGE is A..B or A-B (both included), A.. or ..B, or one snapshot; A and B are
    numbers, labels, start or end.  Functions may be called; what they do is undone
    each time, and breakpoints do not stop them.  At each snapshot the thread that
    was current there is the selected one.  Ctrl-C ends it with what there is.

    Example:
        uffd map counter
        uffd map sum(head) in 2..10"""

    name, usage = "map", "uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]"
    options, completer = ("json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Go through the snapshots."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be evaluated? usage: {self.usage}")
        at_snapshots.map_(session, parsed.rest, parsed.has("json"), parsed.has("full"))


class WhenCommand(Command):
    """Tell the first snapshot at which an expression is true.

    Usage: uffd when [-monotonic] [-json] EXPRESSION [in RANGE]

      -monotonic   once true it stays true: search by halving
      -json        print one line, one JSON object

    RANGE as in `uffd map`.  Functions may be called; what they do is undone.  gdb
    stays where it is: `uffd goto N` goes to the snapshot found.

    Example:
        uffd when counter > 100
        uffd when -monotonic count_nodes(head) >= 1000"""

    name, usage = "when", "uffd when [-monotonic] [-json] EXPRESSION [in RANGE]"
    options, completer = ("monotonic", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Search."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be true? usage: {self.usage}")
        at_snapshots.when(session, parsed.rest, parsed.has("monotonic"), parsed.has("json"))


class ChangesCommand(Command):
    """Tell what differs between two snapshots: pages and variables.

    Usage: uffd changes [-json] [-full] A [B]

      -json   print one line, one JSON object
      -full   do not leave out lines of a long list

    A and B are numbers, labels, +N, -N, start or end; without B it is the present
    snapshot.  Variables are those in memory of their own: global ones and static
    ones.

    Example:
        uffd changes 3 5
        uffd changes -1"""

    name, usage = "changes", "uffd changes [-json] [-full] A [B]"
    options, dashes = ("json", "full"), True

    def run(self, parsed: Parsed) -> None:
        """Compare."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"which two snapshots? usage: {self.usage}")
        as_json, full = parsed.has("json"), parsed.has("full")
        changes.changes(session, parsed.rest, self.usage, as_json, full)

    def complete(self, text: str, word: Optional[str]) -> Completion:
        """Options, then names of snapshots."""
        found = super().complete(text, word)
        if word is None or isinstance(found, list):
            return found
        return [name for name in _names(word) or [] if name.isidentifier() or name.isdigit()]


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
        session.calls_pending = False
        lost = done.unavailable_pages
        left_out = f"; {plural(lost, 'page')} could not be had" if lost else ""
        read = verdict.may_hold(done.files_read)
        say(f"{path}: {size(done.size)}{left_out}{read}")


COMMANDS: Tuple[Type[Command], ...] = (
    SnapshotsCommand,
    GotoCommand,
    MapCommand,
    WhenCommand,
    ChangesCommand,
    ExportCommand,
)
"""Every subcommand of this module, in the order of the bare `uffd`."""

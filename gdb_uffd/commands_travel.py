"""The commands that move between the snapshots of a trace, and those that look at many."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple, Type

import gdb

from gdb_uffd.client import gdb_session, gdb_travel, gdb_travel_map, snapshots
from gdb_uffd.client.gdb_command import Command, Completion
from gdb_uffd.client.gdb_util import look, say, say_json, user_errors
from gdb_uffd.client.options import Parsed
from gdb_uffd.model import UffdError


class Snapshots(Command):
    """List the snapshots of the trace; the present one is marked.

    Usage: uffd snapshots [-json] [-full]

      -json   print one line, one JSON object
      -full   do not leave out the middle of a long list

    Number, time, time since the first, thread and function that were current, pages that
    changed since the one before, and the label.

    Example:
        uffd snapshots
        uffd goto 3"""

    name, usage = "snapshots", "uffd snapshots [-json] [-full]"
    options = ("json", "full")

    def run(self, parsed: Parsed) -> None:
        """Ask for the list and print it."""
        self.nothing_else(parsed)
        session = gdb_session.current()
        every = gdb_travel.all_snapshots(session)
        if parsed.has("json"):
            say_json(snapshots.table_json(every, session.snapshot))
        else:
            say(*snapshots.table(every, session.snapshot, look(), parsed.has("full")))


def _names(text: str) -> Optional[Sequence[str]]:
    """Completions of a snapshot's name; None without a trace."""
    session = gdb_session.selected()
    if session is None or session.server.ended() is not None:
        return None
    try:
        return snapshots.completions(gdb_travel.all_snapshots(session), text)
    except (UffdError, gdb.error):
        return None


class Goto(Command):
    """Go to another snapshot of the trace.

    Usage: uffd goto N|LABEL|+N|-N|start|end

    Threads, frames, registers and memory are then those of that instant, and what calls
    changed at the old one is forgotten.  `reverse-continue` goes to the snapshot before;
    `continue` lets the program run on from the present one.

    $_uffd_snapshot, $_uffd_time (seconds since 1970) and $_uffd_label tell where that is.

    Example:
        uffd goto 3
        uffd goto +1
        uffd goto "after insert\""""

    name, usage = "goto", "uffd goto N|LABEL|+N|-N|start|end"

    @user_errors
    def invoke(self, argument: str, from_tty: bool) -> None:
        """Move.  No options: -1 is a place."""
        self.dont_repeat()
        session = gdb_session.current()
        if not argument.strip():
            raise UffdError(f"where to? usage: {self.usage}")
        gdb_travel.goto(session, argument.strip())

    def complete(self, text: str, word: Optional[str]) -> Completion:
        """Labels, start, end, numbers."""
        if word is None:
            return []
        begun = text.lstrip()
        cut = len(begun) - len(word)
        return [name[cut:] for name in _names(begun) or []]


class Map(Command):
    """Evaluate an expression at every snapshot, and show how it changes.

    Usage: uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]

      -json   print one line, one JSON object
      -full   do not fold or leave out rows of a long table

    RANGE is A..B or A-B (both included), A.. or ..B, or one snapshot; A and B are numbers,
    labels, start or end.  Functions may be called; what they do is undone each time, and
    breakpoints do not stop them.  At each snapshot the thread that was current there is
    the selected one.  Ctrl-C ends it with what there is.

    Example:
        uffd map counter
        uffd map sum(head) in 2..10"""

    name, usage = "map", "uffd map [-json] [-full] [/FMT] EXPRESSION [in RANGE]"
    options, completer = ("json", "full"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Go through the snapshots."""
        session = gdb_session.current()
        if not parsed.rest:
            raise UffdError(f"what shall be evaluated? usage: {self.usage}")
        gdb_travel_map.map_(session, parsed.rest, parsed.has("json"), parsed.has("full"))


class When(Command):
    """Tell the first snapshot at which an expression is true.

    Usage: uffd when [-monotonic] [-json] EXPRESSION [in RANGE]

      -monotonic   once true it stays true: search by halving
      -json        print one line, one JSON object

    RANGE as in `uffd map`.  Functions may be called; what they do is undone.  gdb stays
    where it is: `uffd goto N` goes to the snapshot found.

    Example:
        uffd when counter > 100
        uffd when -monotonic count_nodes(head) >= 1000"""

    name, usage = "when", "uffd when [-monotonic] [-json] EXPRESSION [in RANGE]"
    options, completer = ("monotonic", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Search."""
        session = gdb_session.current()
        if not parsed.rest:
            raise UffdError(f"what shall be true? usage: {self.usage}")
        gdb_travel_map.when(session, parsed.rest, parsed.has("monotonic"), parsed.has("json"))


COMMANDS: Tuple[Type[Command], ...] = (Snapshots, Goto, Map, When)
"""Every subcommand of this module, in the order of the bare `uffd`."""

"""`uffd changes`: what differs between two snapshots, and the variables behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import ContextManager, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.client.commands.command import Command, Completion
from gdb_uffd.client.commands.snapshots import names
from gdb_uffd.client.names.naming import Naming
from gdb_uffd.client.names.page_images import Images
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.names.variables import address_of_name, no_calls
from gdb_uffd.client.session import sessions, travel
from gdb_uffd.client.session.asking import captured
from gdb_uffd.client.session.code import frames
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.state import Context
from gdb_uffd.client.session.view import recorded_memory
from gdb_uffd.client.show import differences, snapshots
from gdb_uffd.client.show.report_text import NamedChange
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.messages_travel import Changes, ChangesImage
from gdb_uffd.protocol.model import CallReport, DirtyPage, UffdError


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
        changes(session, parsed.rest, self.usage, as_json, full)

    def complete(self, text: str, word: Optional[str]) -> Completion:
        """Options, then names of snapshots."""
        found = super().complete(text, word)
        if word is None or isinstance(found, list):
            return found
        return [name for name in names(word) or [] if name.isidentifier() or name.isdigit()]


MAX_FRAMES = 64
"""Frames whose source files are looked through."""


class _PairImages(Images):
    """Pages in the snapshots `pair`."""

    def __init__(self, session: Session, pages: Sequence[DirtyPage], pair: Tuple[int, int]) -> None:
        super().__init__(session, pages, False)
        self._pair = pair

    def page(self, start: int) -> Optional[PageImage]:
        """The page at `start` in both."""
        return self._session.request(ChangesImage(*self._pair, start))


class _PairNaming(Naming):
    """Names of what differs between the snapshots `pair`."""

    def __init__(self, session: Session, report: CallReport, pair: Tuple[int, int]) -> None:
        self._pair = pair
        self._files: Optional[List[int]] = None
        super().__init__(session, report, False, Context())

    def images(self, session: Session, report: CallReport, which_all: bool) -> Images:
        """Those of the pair."""
        return _PairImages(session, report.pages, self._pair)

    def state(self, after: bool) -> ContextManager[None]:
        """gdb is shown the memory of one of them."""
        return recorded_memory(self._session, self._pair[after])

    def pcs(self, page: DirtyPage) -> List[int]:
        """Nothing tells who wrote: the files of `main` and of the present frames, whose functions'
        static variables gdb finds no other way."""
        if self._files is None:
            self._files = list(_present())
        return self._files


def _present() -> Iterator[int]:
    at = address_of_name("main")
    if at is not None:
        yield at
    for frame in frames(MAX_FRAMES, dummies=True):
        yield frame.pc()


class _Names(ReportSymbols):
    """Names of what differs between the snapshots `pair`."""

    def __init__(self, session: Session, pages: Sequence[DirtyPage], pair: Tuple[int, int]) -> None:
        listed = [replace(page, writers=["program"]) for page in pages]
        report = CallReport("all", True, 0, 0, 0.0, "", listed)
        super().__init__(session, report)
        naming = _PairNaming(session, report, pair)
        with no_calls():
            self._changes = captured(naming.changes)


def changes(session: Session, text: str, usage: str, as_json: bool, full: bool) -> None:
    """Tell what differs between two snapshots that `text` names."""
    every = travel.all_snapshots(session)
    pair = _pair(session, text, usage)
    found = session.request(Changes(*pair))
    names = _Names(session, found.data if found.same_process else [], pair)
    variables: List[NamedChange] = []
    if found.same_process:
        program = session.ready.executable
        pages = sorted(found.data, key=lambda page: page.mapping != program)
        variables = [change for page in pages for change in names.changes(page)]
        # The dynamic linker's slots are nobody's variables.
        variables = [change for change in variables if "@got" not in change.name]
    infos = every[pair[0]], every[pair[1]]
    if as_json:
        say_json(differences.as_json(found, infos, variables))
    else:
        say(*differences.lines(found, infos, variables, names.thread, look(), full))


def _pair(session: Session, text: str, usage: str) -> Tuple[int, int]:
    """Two names of snapshots, or one: from that to the present one."""
    every = travel.all_snapshots(session)
    words = snapshots.split_names(text)
    if len(words) == 1:
        words.append(str(session.position.snapshot))
    if len(words) != 2:
        raise UffdError(f"which two snapshots? usage: {usage}")
    a, b = (snapshots.find(every, word, session.position.snapshot) for word in words)
    return a, b

"""`uffd report FILE.html`: collects what the page shows, and writes it."""

from __future__ import annotations

import os
import shlex
import time
from typing import Dict, List, Sequence

import gdb

from gdb_uffd import __version__
from gdb_uffd.client.commands import call
from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.commands.dirty import last_report
from gdb_uffd.client.names import exceptions
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import last_call, sessions
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import html_page, report_json, report_text, verdict
from gdb_uffd.client.show.text import size
from gdb_uffd.outputs import whole_file
from gdb_uffd.protocol.messages_calls import Image, ListMappings, PageImage
from gdb_uffd.protocol.messages_rerun import Fed
from gdb_uffd.protocol.model import CallReport, UffdError


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
        write(session, parsed.rest, self.usage)


def write(session: Session, text: str, usage: str) -> None:
    """`uffd report`."""
    path = _path(text, usage)
    content = collect(session)
    read = [*content.data["files_read"], *last_call.files_kept(session)]
    content.data["files_read"] = list(dict.fromkeys(read))
    page = html_page.document(content)
    data = page.encode("utf-8", "replace")
    _replace(path, data)
    holds = verdict.may_hold(content.data["files_read"])
    say(f"{path} ({size(len(data))}) shows the last call{holds}")


def _path(text: str, usage: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UffdError(f"cannot read the file name ({error}); usage: {usage}") from None
    if len(words) != 1:
        raise UffdError(f"usage: {usage}")
    path = os.path.abspath(os.path.expanduser(words[0]))
    if os.path.isdir(path):
        raise UffdError(f"{path}: is a directory; name a file in it")
    # What is replaced must be a file: not /dev/null, by root.
    path = os.path.realpath(path)
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UffdError(f"{path}: is no regular file; name one, or a new one")
    return path


def _replace(path: str, data: bytes) -> None:
    """All of the file or nothing.  Only its owner may read it: it holds memory of the core's."""
    try:
        with whole_file(path, replace=True) as fd, os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
    except OSError as error:
        raise UffdError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def collect(session: Session) -> html_page.Content:
    """What is known of the last call.  UffdError when nothing has run."""
    report = last_report(session, False)
    if report is None:
        raise UffdError("nothing has run yet: `uffd call` something first")
    last = last_call.find(session, report)
    if last is not None:
        data = call.call_object(session, last.report, last.outcome, last.expression)
    else:
        data = report_json.report_json(report, ReportSymbols(session, report))
        data["error"] = exceptions.text(exceptions.described(session, report.uncaught))
    starts = [page.start for page in report.pages if page.bytes_changed]
    return html_page.Content(
        data=data,
        verdict=_verdict(report, session),
        core=session.ready.core,
        executable=session.ready.executable,
        mappings=session.request(ListMappings()),
        fed=session.request(Fed()).ranges,
        images=_images(session, starts[: html_page.MAX_IMAGES]),
        made=f"gdb_uffd {__version__} · {time.strftime('%Y-%m-%d %H:%M')}",
    )


def _verdict(report: CallReport, session: Session) -> Sequence[str]:
    program, _ = report_text.split_pages(report)
    waited_ms = last_call.waited_ms(session, report)
    return [
        verdict.text(report, ReportSymbols(session, report).thread),
        report_text.count_line(
            report, len(program), waited_ms() if waited_ms is not None else None
        ),
    ]


def _images(session: Session, starts: List[int]) -> Dict[int, PageImage]:
    found: Dict[int, PageImage] = {}
    for start in starts:
        image = session.request(Image(start))
        if image is not None:
            found[start] = image
    return found

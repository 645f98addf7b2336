"""`uffd diff`: the bytes before and after."""

from __future__ import annotations

from typing import Tuple

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.commands.dirty import last_report
from gdb_uffd.client.session import (
    sessions,
    settings,
)
from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import text
from gdb_uffd.client.show.hexdiff import diff_lines
from gdb_uffd.protocol.messages_calls import Image
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError, page_floor


class DiffCommand(Command):
    """Show the bytes that the last call changed, before and after.

    Usage: uffd diff [-all] [--] [ADDRESS|NAME]

      -all    against the snapshot instead of the state before the last call

    NAME, a variable or any other lvalue, restricts it to the variable's bytes;
    ADDRESS to the page that holds it.

    Example:
        uffd diff
        uffd diff counter
        uffd diff -all $sp"""

    name, usage = "diff", "uffd diff [-all] [ADDRESS|NAME]"
    options, completer = ("all",), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Fetch the pages and compare."""
        diff(sessions.current(), parsed.has("all"), parsed.rest)


def diff(session: Session, which_all: bool, expression: str) -> None:
    """Bytes before and after: of every dirty page, or of what `expression` names."""
    looks, context = look(), settings.diff_context()
    limits = _range(expression) if expression else None
    if limits is None:
        report = last_report(session, which_all)
        starts = [page.start for page in report.pages if page.bytes_changed] if report else []
        rest = report.rest if report is not None and which_all else []
        starts += [page for each in rest for page in range(each.start, each.end, PAGE_SIZE)]
        nothing = "nothing differs"
    else:
        session.calls.pending = False
        last_report(session, which_all)  # closes a pending transaction
        starts = list(range(page_floor(limits[0]), limits[1], PAGE_SIZE))
        nothing = f"nothing differs in {expression} ({limits[0]:#x}, {limits[1] - limits[0]} bytes)"
    shown, lost = False, 0
    for start in starts:
        image = session.request(Image(start, which_all))
        if image is not None:
            lines = list(diff_lines(image, looks, limits, context))
            say(*lines)
            shown = shown or bool(lines)
        elif limits is None:
            lost += 1
    if limits is None and report is not None and not which_all:
        lost += report.rest_pages
    if lost:
        say(f"the bytes of {text.plural(lost, 'more page')} were not kept: too many were written")
    elif not shown:
        say(nothing)


def _range(expression: str) -> Tuple[int, int]:
    """The half-open range a name or an address means: a variable's bytes, an address's page."""
    value = gdb.parse_and_eval(expression)
    if value.address is not None and value.type.strip_typedefs().code != gdb.TYPE_CODE_FUNC:
        start = int(value.address)
        return start, start + max(1, value.type.sizeof)
    if value.address is not None:
        return int(value.address), int(value.address) + 1
    try:
        start = page_floor(int(value) & (2**64 - 1))
    except (*FAILURES, TypeError):
        raise UffdError(f"{expression} is neither a variable nor an address") from None
    return start, start + PAGE_SIZE

"""Pages on which nothing of the program's changed: one line of a report for all of them.

No gdb here.
"""

from __future__ import annotations

from typing import Sequence

from gdb_uffd.client.show.text import number, plural
from gdb_uffd.protocol.model import CallReport, DirtyPage

PROGRAM, UNCHANGED = "", "unchanged"

_WORDS = {
    "malloc": "of malloc's own",
    "linker": "of the dynamic linker's",
    UNCHANGED: "written, nothing changed",
}
"""By the role of a DirtyRange."""


def whose(page: DirtyPage) -> str:
    """Who changed the page: PROGRAM, "malloc", "linker", or UNCHANGED."""
    if not page.bytes_changed:
        return UNCHANGED
    roles = {run.role for run in page.ranges}
    if not roles or page.more_ranges or not roles <= set(_WORDS):
        return PROGRAM
    return next(role for role in _WORDS if role in roles)


def advice(report: CallReport) -> str:
    """How to see what is left out."""
    return "`uffd dirty -all -full`" if report.kind == "all" else "`uffd dirty -full`"


def aside_text(pages: Sequence[DirtyPage]) -> str:
    """ "3 pages: 1 of malloc's own (2 B), 2 of the dynamic linker's (16 B)"."""
    parts = []
    for role, words in _WORDS.items():
        own = [page for page in pages if whose(page) == role]
        if own:
            count = number(len(own)) if len(own) < len(pages) else plural(len(own), "page")
            size = sum(page.bytes_changed for page in own)
            parts.append(f"{count} {words}" + (f" ({number(size)} B)" if size else ""))
    return parts[0] if len(parts) == 1 else f"{plural(len(pages), 'page')}: {', '.join(parts)}"


def gdb_text(pages: Sequence[DirtyPage]) -> str:
    """ "  and 2 pages only gdb wrote (pushed frames)"."""
    why = {
        "pushed frames": any(page.kind == "stack" for page in pages),
        "string arguments": any("malloc" in page.writers for page in pages),
        "assignments": any(
            page.bytes_changed and page.kind != "stack" and "malloc" not in page.writers
            for page in pages
        ),
        "breakpoints": any(not page.bytes_changed and page.kind == "data" for page in pages),
    }
    named = ", ".join(name for name, holds in why.items() if holds) or "breakpoints"
    return f"  and {plural(len(pages), 'page')} only gdb wrote ({named})"

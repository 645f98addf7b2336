"""What differs between two snapshots, as text and as JSON.  No gdb here."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Sequence, Tuple

from gdb_uffd.client.show import snapshots as naming
from gdb_uffd.client.show.report_text import NamedChange
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.client.show.text import Look, number, plural, size
from gdb_uffd.protocol.messages_travel import Differences, PageGroup
from gdb_uffd.protocol.model import PAGE_SIZE, SCHEMA_VERSION, SnapshotInfo
from gdb_uffd.terminal import printable

MAX_LINES = 40
"""Groups, and variables, that the text shows without -full."""


def lines(
    found: Differences,
    pair: Tuple[SnapshotInfo, SnapshotInfo],
    variables: Sequence[NamedChange],
    thread: Callable[[int], str],
    look: Look,
    full: bool = False,
) -> List[str]:
    """How many pages, a line a group, then a line a variable.

    `thread`: gdb's number of the thread with that TID, or "TID n".
    """
    a, b = pair
    passed = naming.after(a, b)
    between = f"from snapshot {_name(a)} to {_name(b)}" + (f" ({passed})" if passed else "")
    if not found.pages:
        return [look.plain(f"nothing differs {between}")]
    out = [f"{plural(found.pages, 'page')} ({size(found.pages * PAGE_SIZE)}) differ {between}"]
    if found.pages == 1:
        out = [f"1 page differs {between}"]
    out += _groups(found.groups if full else found.groups[:MAX_LINES], thread, look)
    out += _more(len(found.groups), "range", full)
    shown = list(variables) if full else list(variables[:MAX_LINES])
    for head, change in zip(aligned([_names(c, look) for c in shown], look), shown):
        before, after = (text or "nothing" for text in (change.before, change.after))
        both = f"{look.paint('removed', before)} → {look.paint('added', after)}"
        told = both if change.before or change.after else f"{plural(change.size, 'byte')} differ"
        out += under(head, [told], look)
    out += _more(len(variables), "variable", full)
    if not found.same_process:
        out.append("  (another process: what has the same address need not be the same thing)")
    return [part for line in out for part in look.wrapped(line)]


def _names(change: NamedChange, look: Look) -> List[str]:
    return ["  " + look.paint("variable", change.name)]


def _more(count: int, what: str, full: bool) -> List[str]:
    hidden = count - MAX_LINES
    if full or hidden <= 0:
        return []
    return [f"  … {plural(hidden, f'more {what}')}: `uffd changes -full`"]


def _name(info: SnapshotInfo) -> str:
    return f'{info.number} "{printable(info.label)}"' if info.label else str(info.number)


def _groups(groups: Sequence[PageGroup], thread: Callable[[int], str], look: Look) -> List[str]:
    pages = [plural(group.pages, "page") for group in groups]
    width = max(map(len, pages))
    cells = [["  " + _what(g, thread, look), p.rjust(width)] for g, p in zip(groups, pages)]
    return [f"{head}{_bytes(g)}".rstrip() for head, g in zip(aligned(cells, look), groups)]


def _what(group: PageGroup, thread: Callable[[int], str], look: Look) -> str:
    mapping = group.mapping
    if group.kind == "data":
        return f"data  {look.paint('filename', os.path.basename(mapping))}"
    if group.thread is not None:
        kind = "TLS" if group.kind == "tls" else group.kind
        return f"{kind:<5} thread {thread(group.thread)}"
    name = mapping.strip("[]")
    return group.kind if name in ("", "anon", group.kind) else printable(f"{group.kind}  {name}")


def _bytes(group: PageGroup) -> str:
    parts = [f"{number(group.bytes_changed)} B"] if group.compared else []
    parts += [f"{number(group.came)} new"] if group.came else []
    parts += [f"{number(group.went)} gone"] if group.went else []
    return ", ".join(parts)


def as_json(
    found: Differences, pair: Tuple[SnapshotInfo, SnapshotInfo], variables: Sequence[NamedChange]
) -> Dict[str, Any]:
    """The object of `uffd changes -json`."""
    return {
        "schema": SCHEMA_VERSION,
        "a": pair[0].number,
        "b": pair[1].number,
        "pages": found.pages,
        "page_size": PAGE_SIZE,
        "same_process": found.same_process,
        "groups": [vars(group) for group in found.groups],
        "variables": [
            {"name": c.name, "type": c.type, "before": c.before or None, "after": c.after or None}
            for c in variables
        ],
    }

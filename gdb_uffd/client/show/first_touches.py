"""What `uffd trace` prints: the first touch of each page, as text and JSON.  No gdb here."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Sequence, Tuple

from gdb_uffd.client.show.report_text import WriteSite
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.client.show.text import Look, milliseconds, number, plural
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_rerun import PageTouch
from gdb_uffd.protocol.model import FirstWrite

MAX_ROWS_SHOWN = 200
"""Lines of a text; `-full` and -json are for the rest."""


@dataclass(frozen=True)
class Names:
    """What symbols tell: who touched, the section of an address, gdb's number of a thread."""

    writer: Callable[[FirstWrite], WriteSite]
    section: Callable[[int], str]
    thread: Callable[[int], str]


def lines(
    touches: Sequence[PageTouch],
    missed: int,
    total_pages: int,
    waited_ms: Callable[[], float],
    names: Names,
    look: Look,
    full: bool,
) -> List[str]:
    """The count line, and a line for each touch; neighbours that agree are one.  `waited_ms` is
    asked when the rows are made: names take time."""
    rows = _rows(touches, names, look)
    shown = rows if full else rows[:MAX_ROWS_SHOWN]
    orders = max((len(row.order) for row in shown), default=0)
    cells = [
        [
            f"  {row.order:>{orders}}",
            row.access,
            look.paint("address", row.address),
            look.paint("", row.kind),
            look.paint("filename" if row.is_file else "", row.what),
        ]
        for row in shown
    ]
    out: List[str] = []
    for head, row in zip(aligned(cells, look, " "), shown):
        out += under(head, [row.where], look)
    out = look.wrapped(count_line(touches, missed, total_pages, waited_ms())) + out
    if len(rows) > len(shown):
        out.append(f"  … {plural(len(rows) - len(shown), 'more line')}: `uffd trace -full`")
    if missed:
        out.append(f"  … {plural(missed, 'more page')} not listed")
    return [look.tidy(line) for line in out]


def count_line(touches: Sequence[PageTouch], missed: int, total_pages: int, wall_ms: float) -> str:
    """ "15 pages touched, first 9 read, 4 written, 2 run · 13 fed of 4,711 · 3.6 ms"."""
    text = f"{plural(len(touches) + missed, 'page')} touched"
    if touches:
        counts = {how: sum(t.access == how for t in touches) for how in ("read", "write", "run")}
        parts = [
            f"{number(counts[how])} {word}"
            for how, word in (("read", "read"), ("write", "written"), ("run", "run"))
            if counts[how]
        ]
        text += f", first {', '.join(parts)}"
    fed = sum(t.fed for t in touches)
    return (
        f"{text} · {number(fed)} fed of {number(total_pages)} · {milliseconds(wall_ms)} · discarded"
    )


@dataclass(frozen=True)
class _Row:
    order: str
    access: str
    address: str
    kind: str
    what: str
    is_file: bool
    where: str


def _rows(touches: Sequence[PageTouch], names: Names, look: Look) -> List[_Row]:
    groups: List[List[PageTouch]] = []
    last: Tuple[object, ...] = ()
    for touch in touches:
        place = names.writer(touch.who).text()
        key = (
            touch.access, touch.written, touch.fed, touch.kind, touch.mapping, touch.thread,
            touch.system_call, place,
        )  # fmt: skip
        if groups and key == last and groups[-1][-1].end == touch.start:
            groups[-1].append(touch)
        else:
            groups.append([touch])
        last = key
    rows, order = [], 1
    for group in groups:
        rows.append(_row(group, order, names, look))
        order += len(group)
    return rows


def _row(group: Sequence[PageTouch], order: int, names: Names, look: Look) -> _Row:
    head = group[0]
    address = hex(head.start)
    number_text = str(order)
    if len(group) > 1:
        address += f"-{group[-1].end:#x}"
        number_text += f"-{order + len(group) - 1}"
    access = head.access + ("+w" if head.written and head.access == "read" else "")
    where = names.writer(head.who).text(look)
    if head.system_call:
        where = f"in {look.paint('function', head.system_call)} (), {where}"
    if not head.fed:
        where += "   (new memory)"
    kind, what = _what(head, names)
    return _Row(number_text, access, address, kind, what, head.mapping.startswith("/"), where)


def _what(touch: PageTouch, names: Names) -> Tuple[str, str]:
    """The kind of page, or its section; and whose it is."""
    thread = f"thread {names.thread(touch.thread)}" if touch.thread is not None else ""
    if touch.kind in ("stack", "tls"):
        return "TLS" if touch.kind == "tls" else "stack", thread
    if touch.kind == "heap":
        return "heap", ""
    if touch.mapping.startswith("/"):
        section = names.section(touch.address or touch.start) or "file"
        return section, os.path.basename(touch.mapping)
    name = touch.mapping.strip("[]")
    return name if name and name != "anon" else "anon", ""


def touch_json(touch: PageTouch, order: int, names: Names) -> Dict[str, Any]:
    """One entry of `touched` (docs/json.md)."""
    writer = names.writer(touch.who)
    first: Dict[str, Any] = {
        "pc": hex(touch.pc),
        "sp": hex(touch.sp),
        "tid": touch.tid,
        "address": hex(touch.address or touch.start),
        "function": writer.function or None,
        "file": writer.file or None,
        "line": writer.line or None,
    }
    if writer.caller is not None:
        first["caller"] = {
            "function": writer.caller.function or None,
            "file": writer.caller.file or None,
            "line": writer.caller.line or None,
        }
    return {
        "order": order,
        "start": hex(touch.start),
        "end": hex(touch.end),
        "access": touch.access,
        "written": touch.written,
        "fed": touch.fed,
        "kind": touch.kind,
        "mapping": touch.mapping,
        "thread": touch.thread,
        "system_call": touch.system_call or None,
        "first_touch": first,
    }

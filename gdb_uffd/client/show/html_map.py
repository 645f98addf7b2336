"""The address space as a picture: a bar for each mapping, its pages marked.  No gdb here."""

from __future__ import annotations

import bisect
from typing import Dict, Iterable, List, Sequence, Tuple

from gdb_uffd.client.show.html_parts import esc, folded, table, tag
from gdb_uffd.client.show.text import number, plural, size
from gdb_uffd.protocol.model import PAGE_SIZE, Mapping

BAR_LEFT, BAR_WIDTH = 330, 640
ROW_HEIGHT, BAR_HEIGHT = 26, 16
WIDTH = BAR_LEFT + BAR_WIDTH + 10

MAX_BARS = 200
"""Mappings that are drawn; the others are listed."""

MAX_LISTED = 2000
"""Mappings without a page of the call that are listed."""

NAME_SHOWN = 26
"""Characters of a mapping's name beside its bar; a title has all of it."""

Range = Tuple[int, int]


def picture(mappings: Sequence[Mapping], fed: Sequence[Range], dirty: Sequence[int]) -> str:
    """`fed`: page ranges; `dirty`: starts of pages.  Both sorted."""
    busy = [m for m in mappings if _inside(m, fed) or _pages_inside(m, dirty)]
    quiet = [m for m in mappings if m not in set(busy)]
    drawn, rest = busy[:MAX_BARS], busy[MAX_BARS:]
    height = ROW_HEIGHT * len(drawn) + 8
    rows = "".join(_bar(m, index, fed, dirty) for index, m in enumerate(drawn))
    out = ""
    if drawn:
        out = tag(
            "svg",
            tag("title", "Mappings of the process, with the pages fed and dirtied") + rows,
            "map",
            f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
            'xmlns="http://www.w3.org/2000/svg"',
        )
        out = _legend() + out
    if rest:
        out += tag("p", f"… and {plural(len(rest), 'more mapping')} with such pages")
    if quiet:
        out += folded(
            f"{plural(len(quiet), 'mapping')} without a page of this call", _listed(quiet)
        )
    return out


def _legend() -> str:
    return tag(
        "p",
        f"{tag('span', '&nbsp;', 'key fed')} fed for this call &nbsp; "
        f"{tag('span', '&nbsp;', 'key dirty')} dirtied by it",
        "legend",
    )


def _listed(mappings: Sequence[Mapping]) -> str:
    rows = [
        [
            tag("code", hex(m.start)),
            tag("code", hex(m.end)),
            size(m.end - m.start),
            m.prot_text(),
            esc(m.name or "anonymous") + (f" ({esc(m.unavailable)})" if m.unavailable else ""),
        ]
        for m in mappings[:MAX_LISTED]
    ]
    return table(["start", "end", "size", "access", "what"], rows)


def _inside(mapping: Mapping, ranges: Sequence[Range]) -> List[Range]:
    index = max(0, bisect.bisect_right(ranges, (mapping.start, 1 << 64)) - 1)
    found = []
    for start, end in ranges[index:]:
        if start >= mapping.end:
            break
        if end > mapping.start:
            found.append((max(start, mapping.start), min(end, mapping.end)))
    return found


def _pages_inside(mapping: Mapping, pages: Sequence[int]) -> Sequence[int]:
    low = bisect.bisect_left(pages, mapping.start)
    return pages[low : bisect.bisect_left(pages, mapping.end)]


def _bar(mapping: Mapping, index: int, fed: Sequence[Range], dirty: Sequence[int]) -> str:
    top = 4 + index * ROW_HEIGHT
    inside, pages = _inside(mapping, fed), _pages_inside(mapping, dirty)
    name = mapping.name.rpartition("/")[2] or "anonymous"
    shown = name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…"
    count = sum((end - start) // PAGE_SIZE for start, end in inside)
    title = (
        f"{mapping.start:#x}-{mapping.end:#x} {mapping.prot_text()} {mapping.name or 'anonymous'}: "
        f"{number((mapping.end - mapping.start) // PAGE_SIZE)} pages, {number(count)} fed, "
        f"{number(len(pages))} dirtied"
    )
    dirty_ranges = ((page, page + PAGE_SIZE) for page in pages)
    parts = [
        tag("title", esc(title)),
        tag("text", f"{mapping.start:#014x}", "address", f'x="4" y="{top + 13}"'),
        tag("text", esc(shown), "", f'x="124" y="{top + 13}"'),
        tag("text", mapping.prot_text(), "prot", f'x="{BAR_LEFT - 8}" y="{top + 13}"'),
        _rect("bar", BAR_LEFT, top, BAR_WIDTH),
        *_marks("fed", mapping, inside, top),
        *_marks("dirty", mapping, dirty_ranges, top),
    ]
    return tag("g", "".join(parts))


def _marks(kind: str, mapping: Mapping, ranges: Iterable[Range], top: int) -> List[str]:
    """Columns of the bar that hold such a page, neighbours joined: at most BAR_WIDTH rectangles."""
    scale = BAR_WIDTH / max(1, mapping.end - mapping.start)
    columns: Dict[int, int] = {}
    for start, end in ranges:
        left = int((start - mapping.start) * scale)
        right = max(left + 2, int((end - mapping.start) * scale))
        columns[left] = max(columns.get(left, 0), right)
    out: List[str] = []
    open_left = open_right = -1
    for left in sorted(columns):
        if left <= open_right:
            open_right = max(open_right, columns[left])
            continue
        if open_left >= 0:
            out.append(_rect(kind, BAR_LEFT + open_left, top, open_right - open_left))
        open_left, open_right = left, columns[left]
    if open_left >= 0:
        out.append(_rect(kind, BAR_LEFT + open_left, top, open_right - open_left))
    return out


def _rect(kind: str, left: int, top: int, width: int) -> str:
    width = min(width, BAR_LEFT + BAR_WIDTH - left)
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{max(1, width)}" height="{BAR_HEIGHT}"/>'
    )

"""`uffd report`: one HTML page that needs nothing else, and runs nothing.  No gdb here.

Every text goes through html_parts.esc; the page's own policy (Content-Security-Policy, W3C CSP 3)
forbids scripts, requests and all styles but the one below, whatever a core's strings hold.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import field
from typing import Any, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.client.show.html_hex import changed_lines, hex_table
from gdb_uffd.client.show.html_map import picture
from gdb_uffd.client.show.html_parts import esc, esc_lines, folded, section, table, tag
from gdb_uffd.client.show.text import milliseconds, number, plural
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.model import Mapping

MAX_PAGES = 1000
"""Pages that are listed one by one."""

MAX_IMAGES = 256
"""Pages whose bytes are shown; of the first MAX_WHOLE also the lines that are equal."""

MAX_WHOLE = 48

MAX_LINES = 16_384
"""Changed lines of 16 bytes that are shown: some 5 MB of the page."""

MAX_CHANGES = 2000
MAX_OUTPUT = 200_000  # characters

STYLE = """
:root { color-scheme: light dark; --edge: #8886; --fed: #7aa7d9; --dirty: #d9480f; --bar: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--edge); }
code, pre, h1, text.address, text.prot { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
pre { margin: 0; font-size: 13px; line-height: 1.35; }
pre.output, pre.value { white-space: pre-wrap; overflow-wrap: anywhere; padding: .5rem;
  border: 1px solid var(--edge); }
p.verdict { font-size: 1.1rem; font-weight: 600; margin: .3rem 0; }
p.error { color: #c92a2a; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0;
  border-bottom: 1px solid var(--edge); overflow-wrap: anywhere; }
th, td a, table.facts td:first-child { white-space: nowrap; }
table.facts { width: auto; } td code { font-size: 13px; }
details { margin: .2rem 0; }
details details { margin: 0; font-size: 13px; opacity: .75; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.bytes { overflow-x: auto; padding: .3rem 0 .3rem 1rem; }
.before { color: #c92a2a; } .after { color: #2b8a3e; }
.before b, .after b { text-decoration: underline; }
.same, .equal { opacity: .7; margin: 0; }
svg.map { max-width: 100%; height: auto; font-size: 12px; }
svg.map text { fill: currentColor; } svg.map text.prot { text-anchor: end; }
rect.bar { fill: var(--bar); } rect.fed { fill: var(--fed); } rect.dirty { fill: var(--dirty); }
.key { display: inline-block; width: 1rem; } .key.fed { background: var(--fed); }
.key.dirty { background: var(--dirty); }
footer { margin-top: 3rem; font-size: 13px; opacity: .7; }
"""


@dataclass
class Content:
    """What the page is about.  `data` is the object of `uffd call -json` (docs/json.md)."""

    data: Dict[str, Any]
    verdict: Sequence[str]
    core: str
    executable: str
    mappings: Sequence[Mapping]
    fed: Sequence[Tuple[int, int]]
    images: Dict[int, PageImage]
    made: str  # "gdb_uffd 0.1.0, 2026-11-23 10:00"
    regions: Sequence[str] = field(default_factory=list)


def document(content: Content) -> str:
    """The whole page."""
    data = content.data
    title = str(data.get("expression") or "the last command")
    dirty = data.get("dirty") or []
    starts = sorted(int(page["start"], 16) for page in dirty)
    body = (
        _head(content, title)
        + section("Address space", picture(content.mappings, content.fed, starts), "map")
        + section("Variables", _variables(dirty), "variables")
        + section("System calls", _calls(data), "calls")
        + section("Output", _output(data), "output")
        + section("Pages", _pages(content, dirty), "pages")
        + section("Pages that only gdb wrote", _gdb_pages(data.get("gdb_dirty") or []), "gdb")
        + tag("footer", esc(content.made))
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title, 200)}</title><style>{STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def policy() -> str:
    """Nothing may be loaded or run; of styles only ours, by its hash."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
    return (
        f"default-src &#39;none&#39;; style-src &#39;sha256-{digest}&#39;; "
        "base-uri &#39;none&#39;; form-action &#39;none&#39;"
    )


def _head(content: Content, title: str) -> str:
    data = content.data
    parts = [tag("h1", esc(title))]
    if data.get("error"):
        parts.append(tag("p", esc(data["error"]), "error"))
    elif data.get("value") is not None:
        kind = f" {tag('code', esc(data['type']))}" if data.get("type") else ""
        parts.append(tag("p", f"value{kind}") + tag("pre", esc(data["value"]), "value"))
    parts += [tag("p", esc(line), "verdict") for line in content.verdict[:1]]
    parts += [tag("p", esc(line)) for line in content.verdict[1:]]
    facts = [("core", content.core), ("executable", content.executable or "not found")]
    if isinstance(data.get("wall_ms"), (int, float)):
        facts.append(("time", milliseconds(float(data["wall_ms"]))))
    facts.append(("effects", "kept" if data.get("kept") else "discarded"))
    facts.append(
        ("pages", f"{number(len(data.get('dirty') or []))} dirtied · "
         f"{number(int(data.get('fed_pages') or 0))} fed of "
         f"{number(int(data.get('total_pages') or 0))}")
    )  # fmt: skip
    for name, key in (("ended", "ended"), ("not recorded", "unavailable")):
        if data.get(key):
            facts.append((name, str(data[key])))
    rows = [[esc(name), esc(value)] for name, value in facts]
    parts.append(table(["", ""], rows, "facts"))
    stopped = data.get("stopped")
    if isinstance(stopped, dict):
        frames = "\n".join(
            f"#{i} {frame}" for i, frame in enumerate(stopped.get("backtrace") or [])
        )
        parts.append(tag("pre", esc_lines(frames, 10_000), "output"))
    return tag("header", "".join(parts))


def _variables(dirty: Sequence[Dict[str, Any]]) -> str:
    rows: List[List[str]] = []
    total = 0
    for page in dirty:
        for change in page.get("changes") or []:
            total += 1
            if len(rows) < MAX_CHANGES:
                rows.append(_variable(page, change))
    if not rows:
        return ""
    more = f"<p>… {plural(total - len(rows), 'more change')}</p>" if total > len(rows) else ""
    return table(["name", "type", "before", "after", "page"], rows) + more


def _variable(page: Dict[str, Any], change: Dict[str, Any]) -> List[str]:
    start = int(page["start"], 16)
    old, new = change.get("before"), change.get("after")
    return [
        tag("code", esc(change.get("name"), 400)),
        esc(change.get("type") or "", 200),
        tag("code", esc("" if old is None else old, 600), "before"),
        tag("code", esc("bytes differ" if new is None else new, 600), "after"),
        f'<a href="#page-{start:x}">{start:#x}</a>',
    ]


_CALLS = (
    ("refused", "refused"),
    ("asked of the kernel", "asked"),
    ("files that calls read, whose bytes this page may hold", "files_read"),
)


def _calls(data: Dict[str, Any]) -> str:
    out = ""
    for title, key in _CALLS:
        lines = [str(line) for line in data.get(key) or []]
        if lines:
            items = "".join(tag("li", tag("code", esc(line))) for line in lines[:1000])
            out += tag("p", esc(title)) + tag("ul", items)
    return out


def _output(data: Dict[str, Any]) -> str:
    text = str(data.get("output") or "")
    return tag("pre", esc_lines(text, MAX_OUTPUT), "output") if text else ""


def _pages(content: Content, dirty: Sequence[Dict[str, Any]]) -> str:
    out: List[str] = []
    shown = lines = 0
    for page in dirty[:MAX_PAGES]:
        start = int(page["start"], 16)
        image = content.images.get(start)
        body = tag("p", esc(_first_write(page)))
        more = changed_lines(image) if image is not None else 0
        if image is not None and shown < MAX_IMAGES and lines + more <= MAX_LINES:
            lines += more
            body += tag("div", hex_table(image, shown < MAX_WHOLE), "bytes")
            shown += 1
        elif page.get("bytes_changed"):
            body += tag("p", "its bytes are not in this report: `uffd diff` shows them", "equal")
        out.append(folded(_summary(page), body, f"page-{start:x}", opened=len(dirty) <= 3))
    if len(dirty) > MAX_PAGES:
        out.append(tag("p", f"… {plural(len(dirty) - MAX_PAGES, 'more page')}"))
    return "".join(out)


def _summary(page: Dict[str, Any]) -> str:
    changed = int(page.get("bytes_changed") or 0)
    what = plural(changed, "byte") + " changed" if changed else "written, but no byte changed"
    thread = page.get("thread")
    words = [
        tag("code", esc(page["start"])),
        esc(page.get("kind") or ""),
        esc(str(page.get("mapping") or "").rpartition("/")[2]),
        f"thread {esc(thread)}" if thread is not None else "",
        f"· {what}",
    ]
    return " ".join(word for word in words if word)


def _first_write(page: Dict[str, Any]) -> str:
    first: Optional[Dict[str, Any]] = page.get("first_write")
    if not first:
        return ""

    def place(where: Dict[str, Any]) -> str:
        name = f"{where.get('function') or '?'} ()"
        line = f" at {where['file']}:{where['line']}" if where.get("file") else ""
        return name + line

    text = f"first written by {place(first)} (pc {first.get('pc')})"
    caller = first.get("caller")
    return text + (f", called by {place(caller)}" if isinstance(caller, dict) else "")


def _gdb_pages(pages: Sequence[Dict[str, Any]]) -> str:
    rows = [
        [
            tag("code", esc(page["start"])),
            esc(page.get("kind") or ""),
            esc(page.get("mapping") or ""),
            esc(", ".join(str(w) for w in page.get("writers") or [])),
        ]
        for page in pages[:MAX_PAGES]
    ]
    return table(["page", "kind", "mapping", "why"], rows) if rows else ""

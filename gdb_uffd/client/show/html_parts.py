"""Escaped pieces of the HTML report: no text of a core gets in otherwise.  No gdb here."""

from __future__ import annotations

import html
from typing import Iterable, Optional, Sequence

from gdb_uffd.terminal import printable

MAX_TEXT = 4000
"""Characters of one text; names and values come from files and programs."""


def esc(text: object, limit: int = MAX_TEXT) -> str:
    """`text` on one line, safe as an element's content and as a quoted attribute."""
    raw = str(text)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    return html.escape(printable(cut), quote=True)


def esc_lines(text: str, limit: int) -> str:
    """As `esc`, with its line ends and tabs: for a `pre`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    kept = "".join(c if c in "\n\t" or c.isprintable() else "�" for c in cut)
    return html.escape(kept, quote=True)


def tag(name: str, content: str, classes: str = "", attributes: str = "") -> str:
    """An element; `content` and `attributes` are markup already."""
    class_text = f' class="{classes}"' if classes else ""
    return f"<{name}{class_text}{' ' + attributes if attributes else ''}>{content}</{name}>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """A table; the cells are markup already."""
    top = "".join(tag("th", cell, attributes='scope="col"') for cell in head)
    body = "".join(tag("tr", "".join(tag("td", cell) for cell in row)) for row in rows)
    return tag("table", f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>", classes)


def folded(summary: str, content: str, anchor: Optional[str] = None, opened: bool = False) -> str:
    """A part that opens and closes without a script."""
    attributes = f'id="{anchor}"' if anchor else ""
    if opened:
        attributes = f"{attributes} open".strip()
    return tag("details", tag("summary", summary) + content, attributes=attributes)


def section(title: str, content: str, anchor: str) -> str:
    """A heading and what stands under it; "" for nothing."""
    if not content:
        return ""
    return tag("section", tag("h2", esc(title)) + content, attributes=f'id="{anchor}"')

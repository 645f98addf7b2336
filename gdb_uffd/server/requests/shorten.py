"""Answers that are too large to send, with less in them."""

from __future__ import annotations

from typing import Any, Dict

from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.ends import Remark

OUTPUT_KEPT = 1 << 20
"""Bytes of a long output that a report keeps, where it is too large for all of it."""


def shorten(value: Any) -> bool:
    """Take something out of a report (as JSON, quffd.end) that is too large, and say so in its
    remarks; whether there was something.  Its counts, its verdict's facts and how it ended stay."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("report"), dict):  # quffd.peek
        value = value["report"]
    if "pages" not in value or "remarks" not in value:
        return False
    return _shorten_output(value) or _shorten_pages(value)


def _shorten_output(report: Dict[str, Any]) -> bool:
    """Out of its middle: how it begins, and what the client has not shown yet."""
    raw = report["output"].encode("utf-8", "surrogateescape")
    if len(raw) <= OUTPUT_KEPT:
        return False
    streamed = min(report["streamed"], len(raw))
    head = raw[: min(streamed, OUTPUT_KEPT // 2)]
    tail = raw[max(len(head), streamed, len(raw) - OUTPUT_KEPT // 2) :]
    report["output"] = (head + tail).decode("utf-8", "surrogateescape")
    report["streamed"] = len(head)
    left = len(raw) - len(head) - len(tail)
    report["remarks"].append(to_json(Remark("output-cut", left)))
    report["output_left_out"] += left
    return True


def _shorten_pages(report: Dict[str, Any]) -> bool:
    """The bytes of the pages first, then half of the pages."""
    pages = report["pages"]
    if any(page["ranges"] or page["around"] for page in pages):
        for page in pages:
            page.update(ranges=[], around=[], more_ranges=bool(page["bytes_changed"]))
        report["remarks"].append(to_json(Remark("only-counted")))
        return True
    if len(pages) < 2:
        return False
    gone = pages[len(pages) // 2 :]
    del pages[len(pages) // 2 :]
    gone = [page for page in gone if set(page["writers"]) & {"program", "assignment"}]
    report["rest_pages"] += len(gone)
    report["rest_bytes"] += sum(page["bytes_changed"] for page in gone)
    for page in gone:
        last = report["rest"][-1] if report["rest"] else None
        names = ("kind", "mapping", "thread")
        if last and last["end"] == page["start"] and all(last[n] == page[n] for n in names):
            last["end"] = page["end"]
            last["bytes_changed"] += page["bytes_changed"]
        else:
            kept = ("start", "end", *names, "bytes_changed")
            report["rest"].append({name: page[name] for name in kept})
    return True

"""Reports as `-json` prints them: the fields of docs/json.md.  No gdb here."""

from __future__ import annotations

from typing import Any, Callable, Dict

from gdb_uffd.client.show import ends, verdict
from gdb_uffd.client.show.report_text import NEW, NamedChange, Namer, WriteSite, split_pages
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import PAGE_SIZE, SCHEMA_VERSION, CallReport, DirtyPage, FirstWrite


def page_json(page: DirtyPage, namer: Namer) -> Dict[str, Any]:
    """One entry of `dirty`: the fields of docs/json.md."""
    changes = namer.changes(page)
    return {
        "start": hex(page.start),
        "end": hex(page.end),
        "kind": page.kind,
        "mapping": page.mapping,
        "thread": page.thread,
        "bytes_changed": page.bytes_changed,
        "changes": [_change_json(c) for c in changes],
        "first_write": page.first_write and first_json(page.first_write, page.start, namer.writer),
    }


def first_json(
    first: FirstWrite, start: int, writer: Callable[[FirstWrite], WriteSite]
) -> Dict[str, Any]:
    """The first write, or touch, of the page at `start`."""
    site = writer(first)
    out: Dict[str, Any] = {
        "pc": hex(first.pc),
        "sp": hex(first.sp),
        "tid": first.tid,
        "address": hex(first.address or start),
        **_site_json(site),
    }
    return out if site.caller is None else {**out, "caller": _site_json(site.caller)}


def _site_json(site: WriteSite) -> Dict[str, Any]:
    return {
        "function": site.function or None,
        "file": site.file or None,
        "line": site.line or None,
    }


def _change_json(change: NamedChange) -> Dict[str, Any]:
    """One entry of `changes`."""
    out: Dict[str, Any] = {
        "name": change.name,
        "type": change.type,
        "before": None if change.note == NEW else change.before or None,
        "after": change.after or None,
        "address": hex(change.address),
        "size": change.size,
        "kind": change.kind,
        "role": change.role or None,
        "raw": change.raw,
        "union": change.other,
        "note": change.note or None,
        "thread": change.thread,
        "frame": None,
    }
    if change.frame is not None:
        out["frame"] = {"level": change.frame[0], "function": change.frame[1]}
    return out


def report_json(report: CallReport, namer: Namer) -> Dict[str, Any]:
    """The fields that `uffd call -json` and `uffd dirty -json` share."""
    program, gdb_pages = split_pages(report)
    return {
        "schema": SCHEMA_VERSION,
        "verdict": verdict.as_json(report, namer.thread),
        "kept": report.kept,
        "fed_pages": report.fed_pages,
        "total_pages": report.total_pages,
        "engine": report.engine or None,
        "page_size": PAGE_SIZE,
        "fault_us": round(report.fault_us, 1),
        "output": report.output_text(),
        "dirty": [page_json(page, namer) for page in program],
        "gdb_dirty": [
            {
                "start": hex(page.start),
                "end": hex(page.end),
                "kind": page.kind,
                "mapping": page.mapping,
                "bytes_changed": page.bytes_changed,
                "writers": page.writers,
            }
            for page in gdb_pages
        ],
        "more": {
            "pages": report.rest_pages,
            "bytes_changed": report.rest_bytes,
            "ranges": [
                {
                    "start": hex(rest.start),
                    "end": hex(rest.end),
                    "kind": rest.kind,
                    "mapping": rest.mapping,
                    "thread": rest.thread,
                    "bytes_changed": rest.bytes_changed,
                }
                for rest in report.rest
            ],
        },
        "blocks": [
            {"start": hex(b.start), "size": b.size, "state": b.state} for b in report.blocks
        ],
        "refused": ends.refusal_texts(report.refusals, report.more_refused),
        "refusals": [to_json(each) for each in report.refusals],
        "asked": [ends.grant_text(grant) for grant in report.granted],
        "granted": [to_json(each) for each in report.granted],
        "files_read": report.files_read,
        "more_files": report.more_files,
        "unsound": ends.passed_texts(report),
        "passed_locks": [to_json(each) for each in report.passed],
        "notes": [*map(ends.remark_text, report.remarks), *report.notes],
        "remarks": [to_json(each) for each in report.remarks],
        "ended": ends.end_text(report.end) or None,
        "end": to_json(report.end),
        "unavailable": ends.unavailable_text(report.end) or None,
        "layout_changed": report.layout_changed,
    }

"""Answers that are too large are shortened, and say so; the client can read what is left."""

from __future__ import annotations

import json
from typing import Any

from gdb_uffd.protocol import codec
from gdb_uffd.protocol.ends import Remark
from gdb_uffd.protocol.messages_calls import LastReport
from gdb_uffd.protocol.model import CallReport, DirtyPage, DirtyRange
from gdb_uffd.server.requests import answer, shorten
from gdb_uffd.server.requests.registry import REQUESTS, Registered
from gdb_uffd.server.session import StubSession

PAGES = 500


def large(output: str = "", streamed: int = 0) -> CallReport:
    run = DirtyRange(0x10000, bytes(64), b"\1" * 64)
    pages = [
        DirtyPage(at, at + 4096, "heap", "[heap]", 64, None, ["program"], ranges=[run])
        for at in range(0x10000, 0x10000 + PAGES * 4096, 4096)
    ]
    return CallReport("call", False, 3, 9, 1.5, output, pages, streamed=streamed)


def answered(monkeypatch: Any, report: CallReport, most: int) -> CallReport:
    monkeypatch.setattr(codec, "MAX_MESSAGE", most)
    large = Registered(LastReport, lambda _session, _asked: report, False, True)
    monkeypatch.setitem(REQUESTS, "large", large)
    session = StubSession.__new__(StubSession)
    session.view, session.lldb = None, False
    reply = answer.answer(session, b"large")
    assert reply is not None and len(reply) <= most
    return codec.from_json(CallReport, json.loads(reply))


def test_pages_become_ranges(monkeypatch: Any) -> None:
    got = answered(monkeypatch, large(), 40_000)
    assert 0 < len(got.pages) < PAGES and not any(page.ranges for page in got.pages)
    assert len(got.pages) + got.rest_pages == PAGES
    assert got.rest_bytes == got.rest_pages * 64
    assert sum(r.end - r.start for r in got.rest) == got.rest_pages * 4096
    assert Remark("only-counted") in got.remarks


def test_a_long_output_loses_its_middle(monkeypatch: Any) -> None:
    unseen = "the end\n"
    output = "\1" * (3 * shorten.OUTPUT_KEPT) + unseen
    got = answered(monkeypatch, large(output, len(output) - len(unseen)), 8 << 20)
    assert len(got.pages) == PAGES and got.pages[0].ranges
    assert got.output.encode()[got.streamed :].decode() == unseen
    assert len(got.output) + got.output_left_out == len(output)
    assert Remark("output-cut", got.output_left_out) in got.remarks


def test_what_is_no_report_cannot_be_shortened(monkeypatch: Any) -> None:
    assert not shorten.shorten({"pages": [1, 2]}) and not shorten.shorten([1])

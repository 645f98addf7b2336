"""Reports as text and JSON; no gdb."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import List

from gdb_uffd.client.show import heap_words, report_json, report_text, verdict
from gdb_uffd.client.show.hexdiff import diff_lines
from gdb_uffd.client.show.report_text import NamedChange, WriteSite
from gdb_uffd.client.show.text import Look
from gdb_uffd.protocol.ends import End, PassedLock, Refusal, Unavailable, Uncaught
from gdb_uffd.protocol.messages import Summary
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.model import CallReport, DirtyPage, DirtyRange, FirstWrite

PUSH = WriteSite("push", "/src/sample.c", 7)


class Names:
    """Symbols of the sample, without gdb."""

    def changes(self, page: DirtyPage) -> List[NamedChange]:
        if page.kind == "tls":
            return [NamedChange("tls_hits", "int", "1007", "1008", 4)]
        if page.kind != "data":
            return []
        return [
            NamedChange("counter", "int", "1041", "1042", 4),
            NamedChange("head", "struct node *", "0x55bdf8d37260", "0x55bdf8d37280", 8),
        ]

    def section(self, page: DirtyPage) -> str:
        return ".data"

    def writer(self, first: FirstWrite) -> WriteSite:
        return PUSH if first.pc == 0x1111 else WriteSite("_int_malloc", caller=PUSH)

    def thread(self, tid: int) -> str:
        return "1"


def page(start: int, kind: str, **more: object) -> DirtyPage:
    values = {
        "mapping": f"[{kind}]",
        "bytes_changed": 24,
        "writers": ["program"],
        "first_write": FirstWrite(0x1111, 0x7FFF0000, 42),
        **more,
    }
    return DirtyPage(start, start + 4096, kind, **values)  # type: ignore[arg-type]


def report(*pages: DirtyPage, **more: object) -> CallReport:
    values = {
        "kind": "call",
        "kept": False,
        "fed_pages": 15,
        "total_pages": 2490,
        "tid": 42,
        **more,
    }
    return CallReport(fault_us=60.0, output="", pages=list(pages), **values)  # type: ignore[arg-type]


def sample() -> CallReport:
    floor = 0x7FFF7A71B800
    return report(
        page(0x55BDBEC10000, "data", mapping="/tmp/sample"),
        page(
            0x55BDF8D37000,
            "heap",
            first_write=FirstWrite(0x2222, 0, 42),
            ranges=[DirtyRange(0x55BDF8D37278, b"\0" * 24, b"\1" * 24)],
        ),
        page(0x7FD19C1B8000, "tls", thread=42),
        page(
            0x7FFF7A71B000,
            "stack",
            thread=42,
            first_write=None,
            bytes_changed=96,
            ranges=[DirtyRange(floor - 96, b"\0" * 96, b"\1" * 96)],
        ),
    )


def test_the_sample_of_the_design():
    assert report_text.report_lines(sample(), Names(), Look(), lambda: 0.93) == [
        "wrote globals of sample, heap, TLS of thread 1 · malloc's heap cannot be read",
        "4 pages dirtied · 15 fed of 2,490 · 0.9 ms · discarded",
        "  0x55bdbec10000  .data  sample   counter 1041 → 1042; head 0x55bdf8d37260 → "
        "0x55bdf8d37280   push () at sample.c:7",
        "  0x55bdf8d37000  heap            24 B at +0x278                               "
        "               _int_malloc () … push () at sample.c:7",
        "  0x7fd19c1b8000  TLS   thread 1  tls_hits 1007 → 1008                         "
        "               push () at sample.c:7",
        "  0x7fff7a71b000  stack thread 1  96 B below the frame",
    ]


def test_narrow_terminal():
    look = Look(width=80)
    lines = report_text.report_lines(sample(), Names(), look, lambda: 0.93)
    assert all(look.fits(line) for line in lines)
    assert any("counter 1041 → 1042" in line for line in lines)
    assert sum("push () at sample.c:7" in line for line in lines) == 3


def test_ascii_host():
    lines = report_text.report_lines(sample(), Names(), Look(unicode=False), lambda: 0.93)
    assert all(line.isascii() for line in lines)
    assert lines[1] == "4 pages dirtied . 15 fed of 2,490 . 0.9 ms . discarded"
    assert "counter 1041 -> 1042" in lines[2]


def test_neighbours_that_agree_are_one_line():
    pages = [page(0x1000 + i * 4096, "heap") for i in range(5)]
    pages.append(page(0x6000, "heap", first_write=FirstWrite(0x2222, 0, 42)))
    pages.append(page(0x9000, "heap"))
    lines = report_text.report_lines(report(*pages), Names(), Look())
    assert lines[1].startswith("7 pages dirtied")
    assert len(lines) == 5
    assert lines[2].startswith("  0x1000-0x6000  heap  120 B in 5 pages")
    assert len(report_json.report_json(report(*pages), Names())["dirty"]) == 7


def test_long_lists_are_cut_with_a_way_to_see_the_rest():
    pages = [page(i * 8192, "heap") for i in range(1, 200)]
    lines = report_text.report_lines(report(*pages), Names(), Look())
    assert len(lines) == 3 + report_text.MAX_PAGES_SHOWN
    assert "135 more ranges" in lines[-1] and "uffd dirty -full" in lines[-1]
    assert len(report_text.report_lines(report(*pages), Names(), Look(), all_lines=True)) == 201


def changed(role, at=0x10):
    """A byte that changed, of that role, at an offset of a page."""
    return DirtyRange(at, b"\0", b"\1", role=role)


def test_what_is_not_the_programs_is_one_line_behind_what_is():
    pages = [
        page(0x1000, "data", bytes_changed=1, ranges=[changed("malloc")]),
        page(0x2000, "data", bytes_changed=8, ranges=[changed("linker")]),
        page(0x3000, "stack", bytes_changed=9, first_write=None),
        page(0x4000, "heap", bytes_changed=0),
        page(0x5000, "heap", bytes_changed=3, ranges=[changed("malloc"), changed("", 0x20)]),
    ]
    lines = report_text.report_lines(report(*pages), Names(), Look())
    assert lines[1].startswith("5 pages dirtied")
    assert [line.split()[0] for line in lines[2:4]] == ["0x5000", "0x3000"]
    assert lines[4:] == [
        "  … and 3 pages: 1 of malloc's own (1 B), 1 of the dynamic linker's (8 B), "
        "1 written, nothing changed: `uffd dirty -full`"
    ]
    full = report_text.report_lines(report(*pages), Names(), Look(), all_lines=True)
    order = ["0x5000", "0x3000", "0x1000", "0x2000", "0x4000"]
    assert [line.split()[0] for line in full[2:]] == order
    one = report_text.report_lines(report(pages[1], kind="all"), Names(), Look())
    assert one[2:] == ["  … and 1 page of the dynamic linker's (8 B): `uffd dirty -all -full`"]
    assert len(report_json.report_json(report(*pages), Names())["dirty"]) == 5


def test_a_page_whose_other_changes_are_not_listed_is_shown():
    many = page(0x1000, "heap", bytes_changed=99, ranges=[changed("malloc")], more_ranges=True)
    bare = page(0x3000, "heap", bytes_changed=9, ranges=[])
    lines = report_text.report_lines(report(many, bare), Names(), Look())
    assert [line.split()[0] for line in lines[2:]] == ["0x1000", "0x3000"]


def test_pages_of_gdb_are_a_last_line():
    pages = [page(0x1000, "stack", writers=["gdb"]), page(0x2000, "heap", writers=["malloc"])]
    lines = report_text.report_lines(report(*pages), Names(), Look())
    assert lines[0] == verdict.PURE
    assert lines[1].startswith("no pages dirtied")
    assert lines[2] == "  and 2 pages only gdb wrote (pushed frames, string arguments)"
    data = report_json.report_json(report(*pages), Names())
    assert data["dirty"] == [] and len(data["gdb_dirty"]) == 2
    both = page(0x3000, "stack", writers=["gdb", "program"])
    assert len(report_json.report_json(report(both), Names())["dirty"]) == 1


def test_nothing_dirtied():
    assert report_text.report_lines(report(fed_pages=0), Names(), Look(), lambda: 0.1) == [
        "pure: nothing but its own stack",
        "no pages dirtied · 0.1 ms · discarded",
    ]


def test_what_went_otherwise_is_told():
    lines = report_text.report_lines(
        report(
            refusals=[Refusal("fork", (), "EPERM")],
            end=End("unavailable", unavailable=Unavailable(0x1000, "truncated core\n")),
        ),
        Names(),
        Look(),
    )
    assert lines[0] == "wrote nothing · was refused fork"
    assert lines[2:] == [
        "  refused: fork() → EPERM",
        "  touched a page that was not recorded: 0x1000: truncated core",
    ]


def test_names_cannot_steer_the_terminal():
    hostile = page(0x1000, "data", mapping="/tmp/\x1b[31mx\n")
    lines = report_text.report_lines(report(hostile), Names(), Look())
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_a_writer_in_a_library_leads_to_the_program():
    far = WriteSite("_int_malloc", "/libc/malloc.c", 4376, PUSH)
    assert far.text() == "_int_malloc () … push () at sample.c:7"
    assert WriteSite("", "", 0).text() == "?"


def test_stack_bytes_in_and_below_the_frames():
    run = DirtyRange(0x17F8, b"\0" * 16, b"\1" * 16)
    stack = page(0x1000, "stack", bytes_changed=16, bytes_above=8, ranges=[run], first_write=None)
    line = report_text.report_lines(report(stack), Names(), Look())[2]
    assert line.endswith("8 B in the frames, 8 B below the frame")


def test_json_is_plain_and_whole():
    data = json.loads(json.dumps(report_json.report_json(sample(), Names())))
    assert data["schema"] == 2 and data["fed_pages"] == 15 and data["total_pages"] == 2490
    first = data["dirty"][0]
    assert first["start"] == "0x55bdbec10000" and first["kind"] == "data"
    assert first["changes"][0] == {
        "name": "counter",
        "type": "int",
        "before": "1041",
        "after": "1042",
        "address": "0x0",
        "size": 4,
        "kind": "",
        "role": None,
        "raw": False,
        "union": False,
        "note": None,
        "thread": None,
        "frame": None,
    }
    assert first["first_write"] == {
        "pc": "0x1111",
        "sp": "0x7fff0000",
        "tid": 42,
        "address": "0x55bdbec10000",
        "function": "push",
        "file": "/src/sample.c",
        "line": 7,
    }
    assert data["dirty"][1]["first_write"]["caller"]["line"] == 7
    assert data["dirty"][3]["first_write"] is None


def test_what_is_new_had_no_value_before():
    """Neither in the text nor in -json."""
    made = NamedChange("head->value", "int", "94638384", "7", 4, note=report_text.NEW)
    assert made.text(Look()) == "new head->value = 7"

    class New(Names):
        def changes(self, page: DirtyPage) -> List[NamedChange]:
            return [made]

    told = report_json.report_json(sample(), New())["dirty"][0]["changes"][0]
    assert (told["before"], told["after"], told["note"]) == (None, "7", "new")


def test_the_line_after_a_print():
    summary = Summary("call", True, 4, 1, 100, 15)
    assert report_text.summary_line(summary, Look()) == (
        "[uffd: 4 pages dirtied, kept · uffd dirty shows them, uffd reset forgets them]"
    )
    refused = Summary("call", True, 0, 0, 0, 1, refusals=[Refusal("fork", (), "EPERM")])
    assert report_text.summary_line(refused, Look()) == "[uffd: refused fork() → EPERM]"
    four = [Refusal(call, (), "EPERM") for call in ("fork", "kill", "connect", "bind")]
    pages = Summary("call", True, 1, 0, 8, 1, refusals=four[:2])
    kept, where = "1 page dirtied, kept", "uffd dirty shows them, uffd reset forgets them"
    two = "refused fork() → EPERM · refused kill() → EPERM"
    assert report_text.summary_line(pages, Look()) == f"[uffd: {kept} · {two} · {where}]"
    three = report_text.summary_line(replace(pages, refusals=four[:3]), Look())
    assert three == f"[uffd: {kept} · {two} · 1 more refused · {where}]"
    more = replace(
        pages,
        refusals=four,
        more_refused=3,
        passed=[PassedLock(0x10, 7), PassedLock(0x20)],
        end=End("unavailable", unavailable=Unavailable(0x1000, "truncated")),
    )
    assert report_text.summary_line(more, Look(), "it ended", "the command before") == (
        f"[uffd: the command before: {kept} · {two} · 3 more refused · "
        "unsound: went through the lock at 0x10, held by thread 7 · "
        f"touched a page not recorded: 0x1000: truncated · it ended · {where}]"
    )


def test_what_is_worth_a_line_after_a_print():
    plain = Summary("call", True, 4, 1, 100, 15)
    assert report_text.is_amiss(plain, "") is False
    assert report_text.is_amiss(plain, "it ended") is True
    for name, value in (
        ("files_read", ["/etc/hosts"]),
        ("refusals", [Refusal("fork", (), "EPERM")]),
        ("end", End("unavailable", unavailable=Unavailable(0x1000, "truncated"))),
        ("passed", [PassedLock(0x10)]),
        ("uncaught", Uncaught("i", None, False, b"", 0x1000)),
        ("unknown", (1, 0)),
        ("unknown", (0, 1)),
    ):
        other = replace(Summary("call", True, 0, 0, 0, 1), **{name: value})
        assert report_text.is_amiss(other, "") is True, name
    told = Summary("call", True, 0, 0, 0, 1, end=End("exit", code=1))  # by `told`, where it is
    assert report_text.is_amiss(told, "") is False


def test_since_when_a_heap_is_broken():
    for given, said in (
        ((0, None, True), ""),
        ((None, None, False), ""),
        ((None, 0, True), "so since snapshot 0, the first"),
        ((3, 4, True), "whole at snapshot 3, broken at 4: `uffd goto 4`"),
        ((3, 9, False), "whole at snapshot 3, broken at 9; between them was no time to look"),
        ((0, 1, True), "whole at snapshot 0, broken at 1: `uffd goto 1`"),
    ):
        assert heap_words.since_text(*given) == said


def test_hex_dump_shows_only_lines_that_differ():
    before = bytearray(4096)
    after = bytearray(before)
    after[0x21:0x23] = b"AB"
    after[0x100] = 7
    image = PageImage(0x7F0000001000, bytes(before), bytes(after))
    lines = list(diff_lines(image, Look()))
    assert len(lines) == 4
    assert lines[0] == (
        "- 0x7f0000001020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|"
    )
    assert lines[1] == (
        "+ 0x7f0000001020  00 41 42 00 00 00 00 00  00 00 00 00 00 00 00 00  |.AB.............|"
    )
    assert list(diff_lines(image, Look(), (0x7F0000001021, 0x7F0000001022))) == lines[:2]
    assert list(diff_lines(image, Look(), (0x7F0000001023, 0x7F0000001030))) == []
    assert len(list(diff_lines(image, Look(), context=1))) == 9
    narrow = list(diff_lines(image, Look(width=80)))
    assert narrow[0] == "- 0x7f0000001020  00 00 00 00 00 00 00 00  |........|"
    assert all(Look(width=80).fits(line) for line in narrow)
    coloured = list(diff_lines(image, Look(colour=True)))
    assert "\x1b[31m00\x1b[m" in coloured[0] and "\x1b[32m41\x1b[m" in coloured[1]


def test_neighbours_fold_by_what_is_shown():
    pages = [
        page(at, "stack", bytes_changed=at // 0x1000, first_write=FirstWrite(0x1111, at, 42))
        for at in (0x1000, 0x2000, 0x3000)
    ]
    lines = report_text.report_lines(report(*pages), Names(), Look())
    assert len(lines) == 3 and "0x1000-0x4000" in lines[2] and "6 B below the frame" in lines[2]


def test_what_only_gdb_wrote_is_told_by_its_reason():
    gdb = ["gdb"]
    assigned = page(0x1000, "data", writers=gdb, bytes_changed=1, first_write=None)
    broken = page(0x2000, "data", writers=gdb, bytes_changed=0, first_write=None)
    pushed = page(0x3000, "stack", writers=gdb, bytes_changed=8, first_write=None)
    last = [
        report_text.report_lines(report(p), Names(), Look())[-1] for p in (assigned, broken, pushed)
    ]
    assert [line.split("wrote ")[1] for line in last] == [
        "(assignments)",
        "(breakpoints)",
        "(pushed frames)",
    ]


def test_a_full_list_of_nothing_is_no_list():
    for pages in ((), (page(0x1000, "heap", bytes_changed=0),)):
        lines = report_text.report_lines(report(*pages), Names(), Look(), all_lines=True)
        assert len(lines) == 2 + len(pages) and not [x for x in lines if "…" in x], lines

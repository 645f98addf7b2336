"""Numbers, widths, characters, options and packets of gdb's side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gdb_uffd.client import options, text, wire
from gdb_uffd.client.text import Look
from gdb_uffd.model import (
    CallReport,
    DirtyPage,
    FirstWrite,
    Run,
    UffdError,
)
from gdb_uffd.model_json import to_json


def test_numbers_and_sizes():
    assert text.number(2490) == "2,490"
    assert text.plural(1, "page") == "1 page" and text.plural(1200, "page") == "1,200 pages"
    assert [text.size(n) for n in (96, 1023, 1024, 2490 * 4096, 1 << 33)] == [
        "96 B",
        "1023 B",
        "1.0 KiB",
        "9.7 MiB",
        "8.0 GiB",
    ]
    assert [text.milliseconds(v) for v in (0.93, 12.3, 3400)] == ["0.9 ms", "12 ms", "3.4 s"]


def test_signs_without_unicode():
    look = Look(unicode=False)
    assert look.plain("a → b · c…") == "a -> b . c..."
    assert look.plain("é") == "?"
    assert Look().plain("a → b") == "a → b"
    assert text.can_show("UTF-8") and text.can_show("utf8")
    assert not text.can_show("ANSI_X3.4-1968") and not text.can_show("ISO-8859-1")


def test_colours_only_when_asked_for():
    assert Look().paint("added", "x") == "x"
    assert Look(colour=True).paint("added", "x") == "\x1b[32mx\x1b[m"


def test_wrapped_lines_fit_and_keep_every_item():
    look = Look(width=60)
    lines = text.wrap_items(look, "  0x1000  .data  ", ["alpha 1 → 2", "b" * 30], "f () at x.c:7")
    assert all(look.fits(line) for line in lines)
    joined = " ".join(lines)
    assert "alpha 1 → 2" in joined and "b" * 30 in joined and joined.endswith("f () at x.c:7")
    assert text.wrap_items(Look(), "h ", ["a", "b"], "t") == ["h a; b   t"]
    assert text.wrap_items(Look(width=20), "h ", [], "") == ["h"]


@pytest.mark.parametrize(
    ("given", "found", "rest"),
    [
        ("f(1)", set(), "f(1)"),
        ("-keep f(1)", {"keep"}, "f(1)"),
        ("-k -j f(1)", {"keep", "json"}, "f(1)"),
        ("-keep -- -x", {"keep"}, "-x"),
        ("-x + 1", set(), "-x + 1"),
        ("-1", set(), "-1"),
        ("- f()", set(), "- f()"),
        ("-value + 1", set(), "-value + 1"),
        ("-value", set(), "-value"),
        ("-f(1)", set(), "-f(1)"),
        ("", set(), ""),
        ("--", set(), ""),
    ],
)
def test_options_before_an_expression(given, found, rest):
    parsed = options.parse_options(given, ("keep", "json"), "usage", dashes=True)
    assert parsed.options == found and parsed.rest == rest


def test_wrong_options_are_named():
    with pytest.raises(UffdError, match=r"no option -x; usage: uffd dirty"):
        options.parse_options("-x", ("all",), "uffd dirty")
    with pytest.raises(UffdError, match="ambiguous: -all, -alone"):
        options.parse_options("-al", ("all", "alone"), "u")


def test_a_mistyped_option_before_an_expression_is_named():
    with pytest.raises(UffdError, match="no option -frobnicate; usage: u"):
        options.parse_options("-frobnicate f(1)", ("keep", "json"), "u", dashes=True)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UffdError, match="not a regular file"):
        options.check_readable(str(tmp_path / "pipe"), "core")


def test_file_names(tmp_path: Path):
    core, program = options.split_files("'a b' c\\ d", "u")
    assert core.endswith("/a b") and program.endswith("/c d")
    assert options.split_files("/x/y", "u") == ("/x/y", "")
    for wrong in ("", "a b c", "'a"):
        with pytest.raises(UffdError, match="usage"):
            options.split_files(wrong, "usage")
    with pytest.raises(UffdError, match=r"core .*/none: no such file or directory"):
        options.check_readable(str(tmp_path / "none"), "core")
    with pytest.raises(UffdError, match="directory"):
        options.check_readable(str(tmp_path), "core")


def test_formats():
    assert options.split_format("/x f()") == ("/x", "f()")
    assert options.split_format("f()/2") == ("", "f()/2")
    assert options.complete_options("-k", ("keep", "json")) == ["-keep"]


def test_packets_hold_nothing_that_framing_alters():
    assert wire.encode("begin") == "quffd.begin"
    packet = wire.encode("image", {"address": "0x1000", "all": True})
    assert packet == 'quffd.image:{"address":"0x1000","all":true}'
    hostile = wire.encode("x", {"a": "#$*"})
    assert not set("#$*") & set(hostile)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "no uffd server"),
        (None, "no uffd server"),
        (b"E01", "refused"),
        (b"E.out of \\u0023 pages", "out of # pages"),
        (b'E.a "quoted" \\ one', 'a "quoted"'),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_bad_replies_are_one_line(reply, message):
    with pytest.raises(UffdError) as caught:
        wire.decode("begin", reply)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_good_replies():
    assert wire.decode("begin", b"{}") == {}
    assert wire.decode("commit", b"null") is None
    assert wire.parse_summary(None) is None and wire.parse_image(None) is None
    image = wire.parse_image({"start": "0x1000", "before": "00ff", "after": "01ff"})
    assert image == wire.Image(0x1000, b"\0\xff", b"\1\xff")
    (mapping,) = wire.parse_mappings(
        [{"start": "0x1", "end": "0x2", "prot": 5, "name": "n", "offset": 0, "unavailable": ""}]
    )
    assert mapping.prot_text() == "r-x"


def test_report_survives_the_wire():
    page = DirtyPage(
        0x1000, 0x2000, "heap", "[heap]", 4, None, ["program"],
        FirstWrite(0x5000, 0x7000, 3, (0x5100,)), [Run(0x1010, b"ab", b"cd")], False, 0x6000,
    )  # fmt: skip
    report = CallReport("call", False, 3, 9, 1.5, "out", [page])
    assert wire.parse_report(to_json(report)) == report


@pytest.mark.parametrize("broken", [{}, [], 3, {"pages": [{}]}, {"pages": None}])
def test_broken_objects_are_errors(broken):
    for parse in (wire.parse_report, wire.parse_summary, wire.parse_image):
        with pytest.raises(UffdError):
            parse(broken)


def test_ready_line():
    with pytest.raises(UffdError, match=r"^x: not a core file$"):
        wire.parse_ready('{"ready": false, "error": "x: not\\na core file"}')
    with pytest.raises(UffdError, match="protocol 99"):
        wire.parse_ready('{"ready": true, "protocol": 99}')
    for wrong in ("", "hello", "[]", '{"ready": true, "protocol": 1}', "3"):
        with pytest.raises(UffdError, match="first line"):
            wire.parse_ready(wrong)


def test_text_from_outside_becomes_one_line():
    assert wire.one_line("a\nb\x1b[31mc\t d") == "a b^[[31mc d"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("push", "push"),
        ("f(int)", "f"),
        ("ns::f(int) const", "ns::f"),
        ("X::operator()(int) const", "X::operator()"),
        ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
        ("(anonymous namespace)::x", "(anonymous namespace)::x"),
        ("f(void (*)(int))", "f"),
        (")(", ")("),
    ],
)
def test_names_without_parameters(name, short):
    assert text.without_parameters(name) == short

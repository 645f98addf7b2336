"""Numbers, widths, characters, options and packets of gdb's side."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Iterator, Tuple

import pytest

from gdb_uffd.client.session import options, wire
from gdb_uffd.client.show import text
from gdb_uffd.client.show.text import Look
from gdb_uffd.protocol.codec import to_json, to_text
from gdb_uffd.protocol.messages_calls import (
    CommitPending,
    Image,
    LastReport,
    ListMappings,
    PageImage,
    Reset,
)
from gdb_uffd.protocol.messages_travel import Changes, Export, ListSnapshots
from gdb_uffd.protocol.model import (
    CallReport,
    DirtyPage,
    DirtyRange,
    FirstWrite,
    UffdError,
)
from gdb_uffd.terminal import one_line


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


SENTENCES = [
    "core: 3 threads, 4,711 pages (18.4 MiB) · opened in 24 ms; nothing runs until you call it",
    "  counter 1041 → 1042; head 0x55bdf8d37260 → 0x55bdf8d37280; tls_hits 1007 → 1008",
    "ok    libc: debug file /usr/lib/debug/.build-id/93/ac61ec5a8eb1396f9fbd350e3169a558528a.debug",
    "x" * 200,
    "名前 " * 40,
    "",
]


@pytest.mark.parametrize("width", [1, 2, 7, 20, 40, 79, 80, 200])
@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("unicode", [True, False])
def test_broken_lines_fit_and_lose_nothing(sentence, width, unicode):
    look = Look(width=width, unicode=unicode)
    lines = look.wrapped(sentence)
    if width > 6:
        assert all(look.fits(line) for line in lines), lines
    assert "".join("".join(lines).split()) == "".join(look.plain(sentence).split())


def test_lines_break_between_words_and_under_the_first():
    look = Look(width=40)
    assert look.wrapped("  and 2 pages only gdb wrote (pushed frames)") == [
        "  and 2 pages only gdb wrote (pushed",
        "    frames)",
    ]
    assert look.wrapped("engine  " + "word " * 9, 8)[1] == "        word word word"
    assert Look(width=0).wrapped("word " * 90) == ["word " * 90]


def test_what_belongs_together_is_not_torn_apart():
    for width in range(20, 60):
        look = Look(width=width)
        for line in look.wrapped("head 0x1 → 0x2 or 12 pages: push () at sample.c:7 · kept", 2):
            assert not line.startswith("  ()") and not line.startswith("  ·")
            assert not line.endswith((" →", " 12", " at"))


def test_a_line_rather_ends_behind_a_phrase():
    assert Look(width=30).wrapped("1 write in push () · run again in 17 ms") == [
        "1 write in push () ·",
        "  run again in 17 ms",
    ]


def test_a_path_breaks_behind_a_slash():
    assert Look(width=30).wrapped("/usr/lib/x86_64-linux-gnu/libc.so.6", 0) == [
        "/usr/lib/x86_64-linux-gnu/",
        "libc.so.6",
    ]


def test_colours_take_no_room_and_end_with_the_line():
    look = Look(colour=True, width=30)
    lines = look.wrapped("it is " + look.paint("added", "a value of several words here"))
    assert len(lines) == 2 and all(look.fits(line) for line in lines)
    assert lines[0].endswith("\x1b[m") and lines[1].startswith("  \x1b[32m")
    assert look.columns(look.paint("added", "x")) == 1


_SGR = re.compile("\x1b\\[([0-9;]*)m")


def coloured(line: str) -> Iterator[Tuple[str, str]]:
    """Each character that is no blank with the colour it has; the line must end without one."""
    style, at = "", 0
    for match in [*_SGR.finditer(line), None]:
        end = match.start() if match is not None else len(line)
        assert "\x1b" not in line[at:end], repr(line)
        yield from ((char, style) for char in line[at:end] if char != " ")
        if match is not None:
            style, at = match[1], match.end()
    assert not style, repr(line)


PIECES = (
    *("counter", "12", "pages", "at", "→", "·", "名前", '"a text of words"', "0x55bdf8d37260"),
    "std::map<std::string, std::vector<int> >::count",
    "deep::Registry<std::__cxx11::basic_string<char, std::char_traits<char> >, long>::total",
    "x" * 55,
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_each_character_keeps_its_colour(width):
    for seed in range(400):
        chance = random.Random(seed)
        look, text = Look(colour=True, width=width), ""
        for piece in chance.choices(PIECES, k=chance.randrange(1, 14)):
            painted = look.paint(chance.choice(["added", "variable"]), piece)
            text += chance.choice([piece, painted]) + chance.choice([" ", " ", "; ", " · ", ""])
        lines = look.wrapped(text, chance.choice([-1, 0, 2, 8]))
        assert all(look.fits(line) for line in lines), lines
        assert [c for line in lines for c in coloured(line)] == list(coloured(text)), lines


CXX = (
    "deep::inner::Registry<std::__cxx11::basic_string<char, std::char_traits<char>, "
    "std::allocator<char> >, std::vector<std::pair<std::__cxx11::basic_string<char>, long> > "
    ">::_M_insert_unique_<std::_Rb_tree_node<std::pair<int const, long>>, true>::operator-> 3 → 4"
)


@pytest.mark.parametrize("width", range(36, 110))
def test_a_template_breaks_between_its_names(width):
    for look in (Look(width=width), Look(colour=True, width=width)):
        lines = [_SGR.sub("", line) for line in look.wrapped(look.paint("variable", CXX), 2)]
        assert "".join("".join(lines).split()) == "".join(CXX.split())
        for line, after in zip(lines, lines[1:]):
            assert line.endswith((",", "::", ">", "<", "int", "4")), lines
            assert not after.lstrip().startswith((":", ",")), lines


def test_a_cell_that_is_cut_ends_with_a_sign_and_no_colour():
    look = Look(colour=True)
    assert look.cropped("push ()", 7) == "push ()" and look.cropped("pushes ()", 7) == "pushes…"
    assert look.cropped("名前名前", 6) == "名前…"
    assert Look(unicode=False).columns(Look(unicode=False).cropped("pushes ()", 7)) == 7
    name = "std::vector<std::pair<int, long>>::push_back ()"
    assert look.cropped(name, 40) == "std::vector<…>::push_back ()"
    assert look.cropped(name, 24) == "std::vector<…>::…"
    painted = look.paint("function", name) + " at x.c"
    for columns in range(1, 50):
        cut = look.cropped(painted, columns)
        assert look.columns(cut) <= columns and list(coloured(cut))


def test_only_our_colours_reach_the_terminal():
    look = Look(colour=True)
    assert look.tidy("a\x1b[8mb\x1b]0;title\x07c\nd") == "a^[[8mb^[]0;title^Gc^Jd"
    painted = look.paint("added", "\x1b[8mx")
    assert painted == "\x1b[32m^[[8mx\x1b[m" and look.tidy(painted) == painted
    assert Look().tidy("\x1b[32mx\x1b[m") == "^[[32mx^[[m"


def test_wide_characters_take_two_columns():
    assert (
        Look().columns("\t1") == 9
        and Look().columns("名前") == 4
        and Look().columns("e\u0301") == 1
    )
    assert Look().columns("a → b · c…") == 10 and Look(unicode=False).columns("a → b") == 6


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


@pytest.mark.parametrize(
    ("given", "is_option"),
    [
        *(("-bogus", True), ("-bogus + 1", True), ("--bogus", True), ("-no-such", True)),
        *(("-b", True), ("-bogus (1)", True), ("-x", False), ("--x", False), ("-x-1", False)),
        *(("-x * 2", False), ("-x (1)", False), ("-1", False), ("-bogus*2", False)),
        *(("-(x)", False), ("-$sp", False), ("- bogus", False)),
    ],
)
def test_an_unknown_option_is_none_of_the_programs_names(given, is_option):
    """`x` is a name of the program's, and nothing else is."""

    def parse() -> options.Parsed:
        return options.parse_options(given, ("all",), "u [-all]", True, lambda name: name == "x")

    if not is_option:
        assert parse().rest == given
        return
    with pytest.raises(UffdError, match=f"no option {given.split()[0]}; usage: u "):
        parse()


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
    assert wire.encode(CommitPending()) == "quffd.commit"
    packet = wire.encode(Image(0x1000, all=True))
    assert packet == 'quffd.image:{"address":"0x1000","all":true}'
    hostile = wire.encode(Export("#$*"))
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
        wire.decode(Reset(), reply)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_good_replies():
    assert not wire.decode(Reset(), b"{}").libraries_stale
    assert wire.decode(CommitPending(), b"null") is None
    image = wire.decode(Image(0), b'{"start":"0x1000","before":"00ff","after":"01ff"}')
    assert image == PageImage(0x1000, b"\0\xff", b"\1\xff")
    reply = b'[{"start":"0x1","end":"0x2","prot":5,"name":"n","offset":0,"unavailable":""}]'
    (mapping,) = wire.decode(ListMappings(), reply)
    assert mapping.prot_text() == "r-x"


def test_report_survives_the_wire():
    page = DirtyPage(
        0x1000, 0x2000, "heap", "[heap]", 4, None, ["program"],
        FirstWrite(0x5000, 0x7000, 3, (0x5100,)), [DirtyRange(0x1010, b"ab", b"cd")], False, 0x6000,
    )  # fmt: skip
    report = CallReport("call", False, 3, 9, 1.5, "out", [page])
    reply = to_text(to_json(report)).encode()
    assert wire.decode(LastReport(), reply) == report


@pytest.mark.parametrize("broken", [b"{}", b"[]", b"3", b'{"pages":[{}]}', b'{"pages":null}'])
def test_broken_objects_are_errors(broken):
    for asked in (LastReport(), CommitPending(), Image(0), ListSnapshots(), Changes(0, 1)):
        with pytest.raises(UffdError, match=rf"^the server's answer to quffd\.{asked.NAME}[ :]"):
            wire.decode(asked, broken)


def test_ready_line():
    with pytest.raises(UffdError, match=r"^x: not a core file$"):
        wire.parse_ready('{"ready": false, "error": "x: not\\na core file"}')
    with pytest.raises(UffdError, match="protocol 99"):
        wire.parse_ready('{"ready": true, "protocol": 99}')
    for wrong in ("", "hello", "[]", '{"ready": true, "protocol": 2}', "3"):
        with pytest.raises(UffdError, match="first line"):
            wire.parse_ready(wrong)


def test_text_from_outside_becomes_one_line():
    assert one_line("a\nb\x1b[31mc\t d") == "a b^[[31mc d"


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
        ("v<int>::add<char const (&)[37]>", "v<int>::add<char const (&)[37]>"),
        ("v<int (*)(int)>::add(char const*) const", "v<int (*)(int)>::add"),
        ("X::operator->(int)", "X::operator->"),
        (")(", ")("),
    ],
)
def test_names_without_parameters(name, short):
    assert text.without_parameters(name) == short

"""Text that reaches a terminal: nothing in it steers, however it is cut."""

from __future__ import annotations

import re
from typing import List

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gdb_uffd.terminal import Output, known_charset, printable, printable_lines

COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")
C0 = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
PIECES = [b"\x1b", b"\x1b[", b"31m", b"\x1b[m", b"]0;", b"\x07", b"\r", b"\n", b"\t", b"\x9b"]
PIECES += [b"\xc2", b"\x9b2J", "€".encode(), "\u202e".encode(), b"\xff", b"a", b"\xe2\x82", b"\x7f"]


def whole(pieces: List[bytes], charset: str = "utf-8") -> bytes:
    out = Output(charset)
    return b"".join([*map(out.feed, pieces), out.rest(), out.plain()])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\x1b]0;OWNED\x07", b"^[]0;OWNED^G"),
        (b"\x1b[1;38:2::1:2:3mred\x1b[0m\n", b"\x1b[1;38:2::1:2:3mred\x1b[0m\n"),
        (b"\x1b[31mred\n", b"\x1b[31mred\n\x1b[m"),
        (b"\x1b[2J \x1b[?25l \x1b[31 m", b"^[[2J ^[[?25l ^[[31 m"),
        (b"\x9b2J \xc2\x9b2J", rb"\233" b"2J " rb"\302\233" b"2J"),
        (b"a\x7f\b\rb\r\nc\td", b"a^?^H^Mb\r\nc\td"),
        ("é € \u202e\u2066".encode(), "é € ".encode() + rb"\342\200\256\342\201\246"),
        (b"half \xe2\x82", rb"half \342\202"),
        (b"half \x1b[3", b"half ^[[3"),
        (b"\x1b[" + b"1" * 100 + b"m", b"^[[" + b"1" * 100 + b"m"),
    ],
)
def test_shown(text, shown):
    assert whole([text]) == shown
    assert whole([text[i : i + 1] for i in range(len(text))]) == shown


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=30), st.data())
@example([b"\x1b[", b"31m"], None)
def test_no_cut_lets_anything_through(pieces, data):
    text = b"".join(pieces)
    shown = whole(pieces)
    assert shown == whole([text])
    shown.decode("utf-8")
    rest = COLOURS.sub(b"", shown)
    assert not C0.search(rest), (text, shown)
    assert not re.search("[\x80-\x9f\u202a-\u202e\u2066-\u2069]", rest.decode())
    ends = COLOURS.findall(shown)
    assert not ends or not ends[-1][2:-1].strip(b"0"), "the prompt would be coloured"


def test_what_is_held_back_can_be_left_to_others():
    out = Output()
    assert out.feed(b"euro \xe2\x82") == b"euro " and out.held_bytes == 2
    out.drop()
    assert out.held_bytes == 0 and out.rest() == b""
    assert out.feed(b"a\x1b[3") == b"a" and out.held_bytes == 3


def test_other_charsets():
    assert whole([b"caf\xe9 \x9b2J"], "ISO-8859-1") == b"caf\xe9 " + rb"\233" + b"2J"
    assert whole(["é".encode()], "ANSI_X3.4-1968") == "é".encode()
    for none in ("", "auto", "no-such", "hex", "utf-16", "idna", "rot13"):
        assert known_charset(none) == "utf-8"
        assert whole([b"\x1b]a\xe2\x82\xac"], none) == b"^[]a\xe2\x82\xac"


def test_names():
    assert printable("caf\u00e9") == "caf\u00e9"
    assert printable("a\x1b[31mb\n\udc9b\u202e\t") == r"a^[[31mb^J\233\342\200\256^I"
    assert printable_lines("a\tb\n\x1b]0;") == "a\tb\n^[]0;"
    assert printable("\ud800") == r"\355\240\200"

"""What /proc/PID/maps says, also of files with odd names."""

from __future__ import annotations

from gdb_uffd.recorder import maps

LINE = b"7f0000000000-7f0000001000 rw-p 00000000 08:01 42                         "


def test_a_carriage_return_ends_no_line() -> None:
    forged = b"/tmp/x\r7f0000002000-7f0000003000 rw-p 00000000 00:00 0 "
    (line,) = maps.parse(LINE + forged + b"\n")
    assert (line.start, line.end) == (0x7F0000000000, 0x7F0000001000)
    assert line.name == forged.decode()


def test_other_separators_end_no_line() -> None:
    for mark in ("\v", "\f", "\x1c", "\x1e", "\x85", "\u2028"):
        name = f"/tmp/a{mark}b"
        (line,) = maps.parse(LINE + name.encode() + b"\n")
        assert line.name == name


def test_an_escaped_line_feed_is_one() -> None:
    (line,) = maps.parse(LINE + b"/tmp/a\\012b\n")
    assert line.name == "/tmp/a\nb"


def test_untouched_pages_of_large_shared_memory_are_unavailable() -> None:
    """What others wrote there is not known; the file tells what is in it later."""
    text = (
        b"7f0000000000-7f0004000000 rw-s 00000000 00:16 42  /dev/shm/large\n"
        b"7f0010000000-7f0010100000 rw-s 00000000 00:16 43  /dev/shm/small\n"
        b"7f0020000000-7f0024000000 rw-p 00000000 00:00 0 \n"
    )
    large, small, private = maps.mappings(maps.parse(text))
    assert "shared memory" in large.unavailable
    assert not small.unavailable and not private.unavailable

"""The list of libraries, of memory that may be anything."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as xml
from typing import Any, Dict, List

import pytest
from server_fakes import CODE, DATA, STACK, FakeDiversion, FakeSnapshot, serving

from gdb_uffd.server.stub import libraries

NAMES = STACK + 0x400
HERE = b"qXfer:libraries-svr4:read:%s:0,fff0"


def link(snapshot: FakeSnapshot, at: int, *fields: int) -> None:
    """A struct link_map: l_addr, l_name, l_ld, l_next, l_prev."""
    snapshot.memory[DATA][at & 0xFFF : (at & 0xFFF) + 40] = struct.pack("<5Q", *fields)


@pytest.fixture
def snapshot(monkeypatch: pytest.MonkeyPatch) -> FakeSnapshot:
    """The program, then a library with a relative name, one of no name, and one with an odd one."""
    made = FakeSnapshot()
    monkeypatch.setattr(libraries, "rendezvous", lambda main, read: DATA)
    made.memory[DATA][:48] = struct.pack("<IIQQQQQ", 1, 0, DATA + 0x100, 0, 0, 0, 0)
    for at, name in ((0, b"./libx.so\0"), (0x40, b"/l<&\xff.so\0"), (0x80, b"\0")):
        made.memory[STACK][0x400 + at : 0x400 + at + len(name)] = name
    link(made, DATA + 0x100, 0, NAMES + 0x80, 0x1000, DATA + 0x200, 0)
    link(made, DATA + 0x200, 0x1000, NAMES, CODE + 0x20, DATA + 0x300, DATA + 0x100)
    link(made, DATA + 0x300, 0, NAMES + 0x80, 0, DATA + 0x400, DATA + 0x200)
    link(made, DATA + 0x400, 0x2000, NAMES + 0x40, 0x99, 0, DATA + 0x300)
    return made


def ask(snapshot: FakeSnapshot, annex: bytes = b"") -> Any:
    with serving(FakeDiversion(snapshot)) as client:
        reply = client.ask(HERE % annex)
    assert reply is not None
    return xml.fromstring(reply[1:].decode("utf-8", "replace")) if reply[:1] == b"l" else reply


def entries(root: Any) -> List[Dict[str, str]]:
    return [dict(each.attrib) for each in root]


def test_the_whole_list(snapshot: FakeSnapshot) -> None:
    root = ask(snapshot)
    assert root.attrib == {"version": "1.0", "main-lm": hex(DATA + 0x100)}
    first, second = entries(root)
    assert first == {
        "name": "/usr/bin/fake", "lm": hex(DATA + 0x200), "l_addr": "0x1000",
        "l_ld": hex(CODE + 0x20), "lmid": hex(DATA),
    }  # fmt: skip
    assert second["name"].startswith("/l<&") and second["lm"] == hex(DATA + 0x400)


def test_what_came_since(snapshot: FakeSnapshot) -> None:
    annex = b"lmid=%x;start=%x;prev=%x" % (DATA, DATA + 0x400, DATA + 0x300)
    root = ask(snapshot, annex)
    assert root.attrib == {"version": "1.0"}
    assert [each["lm"] for each in entries(root)] == [hex(DATA + 0x400)]
    assert not entries(ask(snapshot, b"start=%x;prev=%x" % (DATA + 0x400, DATA + 0x100)))
    assert ask(snapshot, b"start=zz") == b"E16"


@pytest.mark.parametrize(
    ("after", "before"),
    [(DATA + 0x100, DATA + 0x100), (DATA + 0x200, DATA + 0x100), (0x10, DATA + 0x100), (0, 7)],
    ids=["loop", "itself", "unmapped", "broken"],
)
def test_a_damaged_list_ends(snapshot: FakeSnapshot, after: int, before: int) -> None:
    link(snapshot, DATA + 0x200, 0x1000, NAMES, CODE + 0x20, after, before)
    assert len(entries(ask(snapshot))) == (0 if before == 7 else 1)


def test_other_namespaces(snapshot: FakeSnapshot) -> None:
    """dlmopen's: struct r_debug_extended, whose list goes in a circle here."""
    other = DATA + 0x600
    snapshot.memory[DATA][:48] = struct.pack("<IIQQQQQ", 2, 0, DATA + 0x100, 0, 0, 0, other)
    snapshot.memory[DATA][0x600:0x630] = struct.pack("<IIQQQQQ", 2, 0, DATA + 0x700, 0, 0, 0, DATA)
    link(snapshot, DATA + 0x700, 0, NAMES + 0x40, 0x99, 0, 0)
    found = entries(ask(snapshot))
    assert [each["lmid"] for each in found] == [hex(DATA)] * 2 + [hex(other)]


def test_no_list(snapshot: FakeSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """gdb then does without."""
    monkeypatch.setattr(libraries, "rendezvous", lambda main, read: 0)
    assert ask(snapshot) == b"E02"


def test_it_is_told_that_the_list_is_another(snapshot: FakeSnapshot) -> None:
    """Where one was read, and is not as it was."""
    with serving(FakeDiversion(snapshot)) as client:

        def reset() -> Any:
            return client.ask(b"quffd.reset")

        link(snapshot, DATA + 0x200, 0x1000, NAMES, CODE + 0x20, 0, DATA + 0x100)
        assert reset() == b"{}"  # the client knows of none yet
        client.ask(HERE % b"")
        assert reset() == b"{}"
        link(snapshot, DATA + 0x200, 0x1000, NAMES, CODE + 0x20, DATA + 0x300, DATA + 0x100)
        assert reset() == reset() == b'{"libraries_stale":true}'
        client.ask(HERE % b"start=%x;prev=%x" % (DATA + 0x300, DATA + 0x200))
        assert reset() == b"{}"
        snapshot.memory[DATA][8:16] = bytes(8)  # no list
        assert reset() == b'{"libraries_stale":true}'

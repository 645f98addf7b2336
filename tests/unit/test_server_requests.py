"""The quffd packets (docs/protocol.md)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_fakes import DATA, PID, TIDS, FakeDiversion, FakeSnapshot, FakeTrace, RawClient, serving

from gdb_uffd.client.show.ends import SHOWN_BY_BT
from gdb_uffd.protocol.codec import from_json, to_text
from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.interface import Stop
from gdb_uffd.server.listen.connection import message
from gdb_uffd.server.navigator import Navigator
from gdb_uffd.server.requests.answer import SUBJECTS, error_text


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as connected:
        yield connected


def ask(client: RawClient, verb: str, **arguments: Any) -> Any:
    packet = f"quffd.{verb}" + (":" + json.dumps(arguments) if arguments else "")
    reply = client.ask(packet.encode())
    assert reply is not None
    if reply.startswith(b"E."):
        return reply.decode()
    return json.loads(reply)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_encoding_survives_the_framing(value: Any) -> None:
    data = to_text(value)
    assert not set(data) & set("#$*") and data.isascii()
    assert json.loads(data) == value


def test_braces_inside_strings_are_escaped() -> None:
    assert to_text({"a": 'b}"\\}'}) == r'{"a":"b\u007d\"\\\u007d"}'


@given(st.text())
def test_error_texts_are_one_clean_line(text: str) -> None:
    reply = error_text(text)
    assert reply.startswith(b"E.") and len(reply) > 2
    assert not set(reply) & set(b"#$*}\n\r\0")


def test_no_file_with_a_handler_is_forgotten() -> None:
    """A handler is known once its file is imported, which `answer` does."""
    here = Path(str(SUBJECTS[0].__file__)).parent
    handlers = {path.name for path in here.glob("*.py") if "\n@request(" in path.read_text()}
    assert {Path(str(subject.__file__)).name for subject in SUBJECTS} == handlers


def test_hello_and_info(client: RawClient) -> None:
    assert ask(client, "hello")["protocol"] == 2
    info = ask(client, "info")
    assert info["engine"] == "fake" and info["alive"] is False and info["last_report"] is None
    assert info["core"] == "/tmp/fake core" and info["threads"] == 3 and info["total_pages"] == 3
    assert info["last_unavailable"] is None
    client.ask(b"m601000,4")
    missing = ask(client, "info")["last_unavailable"]
    assert (missing["address"], missing["reason"]) == ("0x601000", "not in the fake")


def test_engine(client: RawClient) -> None:
    chosen = ask(client, "engine", name="fake")
    assert chosen == {"name": "fake", "why": "", "now": "fake"}
    assert client.diversion.engine == ("fake", False)
    for wrong in (b'{"name": "fastest"}', b'{"name": 7}', b"{}"):
        reply = client.ask(b"quffd.engine:" + wrong)
        assert reply is not None and reply.startswith(b"E."), reply


def test_places_to_come_get_the_engine_and_excursions_are_masses() -> None:
    made: List[FakeDiversion] = []

    def make(snapshot: Any) -> FakeDiversion:
        made.append(FakeDiversion(snapshot))
        return made[-1]

    navigator = Navigator(FakeTrace([FakeSnapshot(), FakeSnapshot(), FakeSnapshot()]), make)
    navigator.set_engine("fake")
    navigator.prepare(1)
    assert made[1].engine == ("fake", False)
    navigator.arrive()
    navigator.set_aside()
    navigator.prepare(2)
    assert made[2].engine == ("fake", True)
    navigator.close()


def test_a_call(client: RawClient) -> None:
    assert ask(client, "begin") == {}
    assert ask(client, "call-begin", address="0x400010", malloc=True) == {}
    assert ask(client, "call-end") == {}
    assert client.diversion.asked == [("call_begin", 0x400010, True), ("call_end",)]
    report = from_json(CallReport, ask(client, "end", keep=False))
    assert report == FakeDiversion.report(False)
    assert from_json(CallReport, ask(client, "report", all=False)) == report
    assert from_json(CallReport, ask(client, "report", all=True)).kept
    assert ask(client, "info")["last_report"] == {
        "kind": "call",
        "kept": False,
        "pages": 1,
        "gdb_pages": 1,
        "bytes_changed": 4,
        "fed_pages": 3,
        "end": None,
        "unknown": [0, 0],
        "refusals": [],
        "more_refused": 0,
        "passed": [],
        "files_read": [],
        "more_files": 0,
        "uncaught": None,
    }
    assert ask(client, "end", keep=True) == "E.no call is open"


def test_the_rest(client: RawClient) -> None:
    assert ask(client, "report", all=False) is None
    assert ask(client, "commit") is None
    client.ask(b"M%x,1:ff" % DATA)
    assert ask(client, "commit")["pages"] == 1
    image = ask(client, "image", address=hex(DATA + 5), all=True)
    assert image == {"start": hex(DATA), "before": "00" * 4096, "after": "01" * 4096}
    assert ask(client, "image", address="0x1", all=False) is None
    mappings = ask(client, "mappings")
    assert mappings[0]["start"] == "0x400000" and mappings[0]["name"] == "/usr/bin/fake"
    assert ask(client, "reset") == {}
    assert not client.diversion.alive


def test_undoing_forgets_registers(client: RawClient) -> None:
    before = client.ask(b"g")
    ask(client, "begin")
    client.ask(b"P0=" + b"11" * 8)
    assert client.ask(b"g") != before
    client.diversion.current.clear()  # as an undo does
    ask(client, "end", keep=False)
    assert client.ask(b"g") == before


@pytest.mark.parametrize(
    "packet",
    [
        b"end:{",
        b"end:[]",
        b'end:{"keep":1}',
        b"image:{}",
        b'image:{"address":"12"}',
        b"end:\xff",
        b'image:{"address":"0x11111111111111111"}',
        b'call-begin:{"address":1}',
        b"end:" + b"[" * 60000,
    ],
)
def test_bad_arguments(client: RawClient, packet: bytes) -> None:
    assert (client.ask(b"quffd." + packet) or b"").startswith(b"E.")
    assert ask(client, "hello")["protocol"] == 2


@pytest.mark.parametrize("columns", [0, 2, 20, 40, 80])
def test_our_own_lines_fit_the_terminal(columns):
    said: List[bytes] = []
    fake: Any = SimpleNamespace(mid_line=False, columns=columns, output=said.append)
    text = "would block: futex(0x7ffe12345678), a lock held by thread 4711; `bt` shows where"
    message(fake, text)
    lines = b"".join(said).decode().splitlines()
    assert " ".join(" ".join(lines).split()) == f"uffd: {text}"
    assert len(lines) == 1 if columns in (0, 2) else len(lines) > 1
    assert columns < 40 or all(len(line) < columns for line in lines)


def test_the_terminal_is_told(client):
    assert ask(client, "output", charset=None, columns=80) == {}
    assert "columns is not a whole number" in ask(client, "output", charset=None)


def resumed(client: RawClient) -> str:
    """What is said of an end of the program, `bt` being advised."""
    client.diversion.on_resume = lambda action, _: Stop(
        action.tid, 0, end=End("longjmp", address=0x400010)
    )
    client.console = b""
    client.ask(b"vCont;c:p%x.%x" % (PID, TIDS[0]))
    return client.console.decode()


def test_a_call_that_was_ended_more_often_than_begun_is_over_once(client: RawClient) -> None:
    """What runs next is in a call or in none, and is told so."""
    for ends in (1, 2, 3):
        ask(client, "call-begin", address="0x400010", malloc=False)
        assert "`uffd call`" in resumed(client), ends
        for _ in range(ends):
            assert ask(client, "call-end") == {}
        assert SHOWN_BY_BT in resumed(client), ends
    ask(client, "begin")
    ask(client, "call-begin", address="0x400010", malloc=False)
    ask(client, "end", keep=True)  # it ends the calls in it
    assert SHOWN_BY_BT in resumed(client)


def test_a_report_that_is_known_is_not_sent_again(client: RawClient) -> None:
    assert ask(client, "peek", known=0) == {"serial": 0, "report": None, "known": False}
    ask(client, "begin")
    ask(client, "end", keep=True)
    first = ask(client, "peek", known=0)
    assert first["report"] and not first["known"]
    again = ask(client, "peek", known=first["serial"])
    assert again == {"serial": first["serial"], "report": None, "known": True}
    assert ask(client, "peek")["report"] == first["report"]  # to one that has it not
    ask(client, "begin")
    ask(client, "end", keep=True)
    other = ask(client, "peek", known=first["serial"])
    assert other["serial"] > first["serial"] and other["report"]

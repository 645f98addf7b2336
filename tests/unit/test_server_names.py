"""quffd.view and quffd.reach: memory as it was, and nothing that changes it meanwhile."""

from __future__ import annotations

import json
from typing import Any, Iterator

import pytest
from server_fakes import CODE, DATA, RawClient, serving

Reply = Any


@pytest.fixture
def client() -> Iterator[RawClient]:
    with serving() as made:
        yield made


def ask(client: RawClient, verb: str, **arguments: Any) -> Reply:
    reply = client.ask(f"quffd.{verb}:{json.dumps(arguments)}".encode()) or b""
    return reply.decode() if reply.startswith(b"E") else json.loads(reply)


def test_memory_as_it_was(client: RawClient) -> None:
    now = client.ask(b"m%x,2" % DATA)
    for which, byte in (("after", b"aaaa"), ("before", b"bbbb")):
        assert ask(client, "view", which=which) == {}
        assert client.ask(b"m%x,2" % DATA) == byte
        assert (client.ask(b"m10,2") or b"").startswith(b"E")
    assert ask(client, "view", which="before", all=True) == {}
    assert client.ask(b"m%x,1" % DATA) == b"cc"
    assert ask(client, "view", which="now") == {}
    assert client.ask(b"m%x,2" % DATA) == now


def test_nothing_changes_meanwhile(client: RawClient) -> None:
    ask(client, "view", which="after")
    writes = (b"M%x,1:ff" % DATA, b"X%x,1:z" % DATA, b"Z0,400000,1")
    # Going backward ends the diversion that the view is of: the server ended with it.
    for packet in (*writes, b"vCont;c", b"c", b"s", b"bc", b"bs"):
        assert (client.ask(packet) or b"").startswith(b"E"), packet
    assert not client.diversion.alive
    assert client.ask(b"m%x,1" % DATA) == b"aa"  # it is still on
    ask(client, "begin")  # any other request ends it
    assert client.ask(b"M%x,1:ff" % DATA) == b"OK"


@pytest.mark.parametrize(
    "verb, arguments",
    [
        ("view", {}),
        ("view", {"which": "then"}),
        ("view", {"which": "before", "all": 1}),
        ("view", {"which": "before", "snapshot": "1"}),
        ("view", {"which": "before", "snapshot": 99}),
        ("reach", {"types": 5}),
        ("reach", {"types": [[8]]}),
        ("reach", {"roots": [["12", 0]]}),
        ("reach", {"roots": [[18, 0]]}),
        ("reach", {"wanted": [["0x10"]]}),
        ("reach", {"wanted": [["0x10", 8]] * 5000}),
        ("reach", {"after": "yes"}),
        ("extent", {}),
        ("extent", {"address": "16"}),
    ],
)
def test_bad_arguments(client: RawClient, verb: str, arguments: Any) -> None:
    assert str(ask(client, verb, **arguments)).startswith("E.")


def test_reach(client: RawClient) -> None:
    # Every word of the fake memory after is 0xaaaaaaaaaaaaaaaa: a pointer to that address.
    there = 0xAAAAAAAAAAAAAAAA
    arguments = {
        "fresh": True,
        "types": [[8, [[0, 1]], [], 1, []], [16, [], [], 1, []]],
        "roots": [[hex(CODE), 0]],
        "wanted": [[hex(there), 16], [hex(CODE + 0x999999), 16]],
        "after": True,
        "count": 1,
    }
    found = ask(client, "reach", **arguments)
    assert found[1] is None
    assert found[0] == {
        "root": 0,
        "steps": [[hex(CODE), 0, 0]],
        "at": hex(there),
        "type": 1,
        "after": True,
        "count": 1,
    }
    del arguments["types"], arguments["fresh"]
    assert ask(client, "reach", **arguments) == found  # the types are remembered
    assert ask(client, "reach", fresh=True, **arguments) == [None, None]

"""What a trace tells of the process: written, read back, and refused when it is no such thing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from trace_stores import facts, record

import gdb_uffd.trace
from gdb_uffd.recorder.process import _connection
from gdb_uffd.trace.core.facts import MAX_DESCRIPTORS, ProcessFacts, decode_facts, encode_facts
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import verify


def test_there_and_back(tmp_path: Path) -> None:
    made = record(tmp_path, snapshots=3, pages=4)
    trace = gdb_uffd.trace.open(made.path)
    for number in range(3):
        told = trace.snapshot(number).facts
        expected = facts(number)
        assert (told.cwd, told.descriptors) == ("/somewhere", expected.descriptors)
        assert (told.ppid, told.uid, told.euid, told.cpu_ns) == (70, 1000, 0, number * 10_000_000)
        assert told.realtime_ns == 1000 + number


def test_a_trace_of_the_first_version(tmp_path: Path) -> None:
    """1.0 had no table of processes."""
    made = record(tmp_path, snapshots=2, pages=4)
    with closing(sqlite3.connect(Path(made.path) / "index.sqlite")) as db:
        db.execute("DROP TABLE processes")
        db.execute("PRAGMA user_version = 1000")
        db.commit()
    trace = gdb_uffd.trace.open(made.path)
    assert isinstance(trace, StoreTrace) and not trace.warnings and verify(trace).whole
    assert trace.snapshot(1).told is None
    assert trace.snapshot(1).facts.descriptors is None


def test_a_damaged_record_is_told_by_verify_alone(tmp_path: Path) -> None:
    made = record(tmp_path, snapshots=2, pages=4)
    with closing(sqlite3.connect(Path(made.path) / "index.sqlite")) as db:
        db.execute("UPDATE processes SET cpu_ns = 7 WHERE number = 1")
        db.commit()
    trace = gdb_uffd.trace.open(made.path)
    assert isinstance(trace, StoreTrace)
    assert trace.snapshot(0).told is not None and trace.snapshot(1).told is None
    assert not verify(trace).whole


def test_unknown_and_odd_names() -> None:
    told = ProcessFacts(name="a\udcffb", cwd="/\nx", descriptors={7: "\udc80"})
    again = decode_facts(encode_facts(told))
    assert again.name == "a\\udcffb" and again.cwd == "/\nx"
    assert again.descriptors == {7: "\\udc80"} and again.uid == -1
    many = ProcessFacts(descriptors=dict.fromkeys(range(MAX_DESCRIPTORS + 9), "x"))
    assert len(decode_facts(encode_facts(many)).descriptors or ()) == MAX_DESCRIPTORS


GOOD: "dict[str, Any]" = json.loads(encode_facts(facts(0)))


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"[]", b"{}", b"[" * 100000,
        json.dumps({**GOOD, "uid": "0"}).encode(),
        json.dumps({**GOOD, "uid": -2}).encode(),
        json.dumps({**GOOD, "cwd": "x" * 5000}).encode(),
        json.dumps({**GOOD, "name": None}).encode(),
        json.dumps({**GOOD, "descriptors": [1]}).encode(),
        json.dumps({**GOOD, "descriptors": {"x": "y"}}).encode(),
        json.dumps({**GOOD, "descriptors": {"1": 2}}).encode(),
        json.dumps({**GOOD, "descriptors": {str(n): "" for n in range(5000)}}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_record(bad: bytes) -> None:
    with pytest.raises(ValueError):
        decode_facts(bad)


def test_sockets_of_net_tcp() -> None:
    """Lines as Linux 6.18 writes them on a little-endian machine (proc_pid_net(5))."""
    assert _connection("tcp", "0100007F:1F90", "00000000:0000", "0A") == (
        "tcp 127.0.0.1:8080, listening"
    )
    assert _connection("tcp", "0100007F:1F90", "0200000A:0050", "01") == (
        "tcp 127.0.0.1:8080 → 10.0.0.2:80"
    )
    assert _connection("udp", "00000000:0035", "00000000:0000", "07") == "udp 0.0.0.0:53"
    six = "00000000000000000000000001000000:0016"
    assert _connection("tcp6", six, six, "01") == "tcp [::1]:22 → [::1]:22"
    assert _connection("tcp", "zz", "", "01") == ""

"""What a trace tells of the process beside its memory, and what a called function hears of it."""

from __future__ import annotations

import os
import re

from harness import ROOT

from gdb_uffd import trace


def test_descriptors_are_named_by_what_they_were(start_gdb, built, tmp_path):
    """As /proc/PID/fd told; the oracle for the ports is the live program."""
    place, path = tmp_path / "room", tmp_path / "desk"
    place.mkdir()
    live = start_gdb(arguments=[str(built / "desk")])
    live.run("break ready")
    assert "Breakpoint 1, ready" in live.run(f"run {place} {tmp_path / 'page'}")
    named = {
        name: int(live.value(name))
        for name in ("file", "reading", "writing", "listening", "asking", "local")
    }
    live.run(f"uffd record start {path}")
    live.run("uffd record snapshot")
    said = live.run("uffd record stop")
    assert "1 snapshot" in said, said

    told = trace.open(f"{path}.uffd").snapshot(0).facts
    assert told.cwd == str(place) and told.name == "desk" and told.uid == os.getuid()
    assert told.ppid > 0 and told.cpu_ns >= 0
    open_then = told.descriptors
    assert open_then[named["file"]] == str(tmp_path / "page")
    assert re.fullmatch(r"pipe:\[\d+\]", open_then[named["reading"]])
    port = re.fullmatch(r"tcp 127\.0\.0\.1:(\d+), listening", open_then[named["listening"]])[1]
    assert re.fullmatch(rf"tcp 127\.0\.0\.1:\d+ → 127\.0\.0\.1:{port}", open_then[named["asking"]])
    assert open_then[named["local"]] == "unix bell"

    dead = start_gdb()
    dead.run(f"uffd spawn {path}.uffd")
    for name, what in (("file", str(tmp_path / "page")), ("asking", f"→ 127.0.0.1:{port}")):
        data = dead.call(f"ask({name})")
        assert data["value"] == "-1"
        (line,) = [line for line in data["refused"] if line.startswith("read(")]
        assert "EBADF" in line and f"{named[name]} was " in line and what in line, line
    assert str(place) in dead.value("(char *)getcwd(0, 0)")


def test_docs_tell_of_it():
    text = (ROOT / "docs" / "commands" / "record.md").read_text(encoding="utf-8")
    assert "descriptors" in text

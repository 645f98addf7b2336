"""A recorder that dies before it has begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdb_uffd.client.recording.recorder_client import Recorder, RecorderFailed, Source


@pytest.mark.parametrize("name", ["t", "t.uffd"])
def test_one_that_is_killed_while_it_makes_the_trace_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    other = tmp_path / ".another.uffd.new+dead"
    other.mkdir()
    recorder = tmp_path / "recorder"
    recorder.write_text(f"#!/bin/sh\nmkdir '{tmp_path}/.t.uffd.new+dead'\nkill -9 $$\n")
    recorder.chmod(0o755)
    with pytest.raises(RecorderFailed, match=r"the recorder has died \(SIGKILL\)"):
        Recorder(str(recorder), str(tmp_path / name), Source(0), False)
    assert {path.name for path in tmp_path.iterdir()} == {"recorder", other.name}

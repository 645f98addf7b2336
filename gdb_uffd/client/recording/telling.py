"""What `uffd info` and a bare `uffd record` tell of the recording."""

from __future__ import annotations

from typing import Any, Dict, Optional

from gdb_uffd.client.recording import recordings
from gdb_uffd.client.recording.record_options import HOW
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.show import text
from gdb_uffd.terminal import one_line


def show() -> bool:
    """What `uffd info` tells of the recording; False when there is none."""
    recording = recordings.settled()
    if recording is None:
        return False
    recorder, last = recording.recorder, recording.recorder.last
    how = "pages that are written are tracked" if recorder.tracked else "all memory is read"
    if recording.remote is not None:
        how = "through cores that gdb writes"
    parts = [text.plural(recording.snapshots, "snapshot")]
    if not recording.snapshots:
        parts = [f"no snapshot yet: {HOW}"]
    if last is not None:
        parts.append(f"{text.plural(last.pages_stored, 'page')} stored")
        parts.append(f"last pause {text.milliseconds(last.pause_us / 1000)}")
    say(
        f"{'recording':<12} {one_line(recorder.path)} (pid {recording.pid}, {how})",
        f"{'recorded':<12} {' · '.join(parts)}",
        indent=13,
    )
    return True


def facts() -> Optional[Dict[str, Any]]:
    """The same for `uffd info -json`; None when nothing is recorded."""
    recording = recordings.settled()
    if recording is None:
        return None
    recorder, last = recording.recorder, recording.recorder.last
    return {
        "path": recorder.path,
        "pid": recording.pid,
        "recorder_pid": recorder.pid,
        "tracked": recorder.tracked,
        "why_not_tracked": recording.why_full,
        "snapshots": recording.snapshots,
        "pages_stored": last.pages_stored if last is not None else 0,
        "last_pause_us": last.pause_us if last is not None else 0,
        "last_pages_changed": last.pages_changed if last is not None else 0,
    }

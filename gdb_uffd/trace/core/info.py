"""What is told of a core among snapshots."""

from __future__ import annotations

from gdb_uffd.protocol.model import PAGE_SIZE, SnapshotInfo
from gdb_uffd.trace.core.core import CoreSnapshot
from gdb_uffd.trace.source import FILE


def core_info(snapshot: CoreSnapshot) -> SnapshotInfo:
    """What a core tells of its instant; the time is that of the file's last change."""
    first = snapshot.threads[0]
    own = [
        s for s in snapshot.segments if s.kind == FILE and (s.data is snapshot.core or s.composed)
    ]
    return SnapshotInfo(
        0, time_ns=snapshot.recorded_ns, pid=snapshot.pid, tid=first.tid, thread_name=first.name,
        threads=len(snapshot.threads), signal=first.signal,
        pages_changed=sum((s.end - s.start) // PAGE_SIZE for s in own),
    )  # fmt: skip

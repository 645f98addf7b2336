"""Snapshots of what is no process of this machine: through a core that gdb writes of it."""

from __future__ import annotations

from dataclasses import replace

from gdb_uffd.protocol.model import SnapshotInfo, ThreadState
from gdb_uffd.trace.core.core import open_core
from gdb_uffd.trace.store.importing import add_snapshot
from gdb_uffd.trace.store.write import TraceWriter


def write_core(writer: TraceWriter, core: str, info: SnapshotInfo) -> SnapshotInfo:
    """Make the core file the next snapshot; `info` as it is in the trace.  UffdError.

    The thread that `info` names comes first, as the selected one does in every snapshot.
    """
    snapshot = open_core(core, None)
    try:

        def selected(thread: ThreadState) -> bool:
            return thread.tid != info.tid

        snapshot.threads = sorted(snapshot.threads, key=selected)
        return add_snapshot(writer, snapshot, replace(info, pid=info.pid or snapshot.pid))
    finally:
        snapshot.close()

"""What `gdb-uffd info` tells of a trace or core."""

from __future__ import annotations

import datetime
import fcntl
import os
from typing import Any, Dict, List

from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.source import Trace
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import trace_size

MAX_LISTED = 20


def describe(trace: Trace) -> Dict[str, Any]:
    """Facts by name, in the order to show them; lists are a line an item."""
    first = trace.snapshots[0]
    kind = "core" if getattr(trace, "found_in", None) is None else "packed core"
    out: Dict[str, Any] = {"path": printable(trace.path), "kind": kind}
    if isinstance(trace, StoreTrace):
        facts = trace.index.facts
        out["kind"] = "trace" if trace.directory == trace.path else "packed trace"
        out["format"] = trace.index.version
        out["recorded"] = time_text(_number(facts.get("created_ns", "")))
        out["state"] = _state(trace)
        out["self_contained"] = bool(_number(facts.get("self_contained", "")))
    out["process"] = f"{first.pid} {printable(first.thread_name)}".strip()
    out["executable"] = ""
    warnings = list(trace.warnings)
    try:
        snapshot = trace.snapshot(0)
    except UffdError as error:  # the others may be whole
        warnings.append(str(error))
    else:
        out["executable"] = snapshot.executable
        warnings += snapshot.warnings
        snapshot.close()
    out["snapshot_count"] = len(trace.snapshots)
    out["threads"] = first.threads
    if isinstance(trace, StoreTrace):
        out["pages_stored"] = trace.slots - 1
        if trace.directory == trace.path:
            out["size_bytes"] = trace_size(trace.directory)
    out["warnings"] = warnings
    out["snapshots"] = _lines(trace)
    return out


def _number(text: str) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else 0


def time_text(time_ns: int) -> str:
    """Local time with milliseconds; "" for 0, which is unknown."""
    if not 0 < time_ns < 1 << 62:
        return ""
    moment = datetime.datetime.fromtimestamp(time_ns // 10**9)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns // 10**6 % 1000:03}"


def _state(trace: StoreTrace) -> str:
    if trace.index.finished:
        return "finished"
    try:
        fd = os.open(trace.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "not finished"
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return "not finished: its recorder was killed; what it had completed is all there"
    except OSError:
        return "being recorded"
    finally:
        os.close(fd)


def _lines(trace: Trace) -> List[str]:
    """A line for each snapshot; of many the first and the last ones."""
    infos = list(trace.snapshots)
    left_out = len(infos) - MAX_LISTED
    shown = infos if left_out <= 0 else infos[: MAX_LISTED // 2] + infos[-MAX_LISTED // 2 :]
    lines = []
    for info in shown:
        parts = [str(info.number), time_text(info.time_ns), printable(info.label)]
        parts += [printable(info.function), f"{info.pages_changed:,} pages"]
        lines.append("  ".join(p for p in parts if p))
    if left_out > 0:
        lines.insert(MAX_LISTED // 2, f"… {left_out:,} more")
    return lines

"""What `uffd why` prints: text and JSON.  No gdb here."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Dict, List, Optional, Tuple

from gdb_uffd.client.show.ends import difference_text
from gdb_uffd.client.show.table import under
from gdb_uffd.client.show.text import Look, milliseconds, number, plural
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.ends import RerunDifference
from gdb_uffd.protocol.model import SCHEMA_VERSION
from gdb_uffd.terminal import one_line

MAX_PARTS_SHOWN = 4
"""Parts of an object that a line of text names for one write."""


@dataclass(frozen=True)
class WrittenPart:
    """A part of the object before and after a write; `before` equals `after` where it was written
    with what it held."""

    name: str
    type: str
    before: str
    after: str


@dataclass(frozen=True)
class WriteInfo:
    """One write.  `by`: "program", "kernel" (in `system_call`), "gdb" or "assignment"; `frames`:
    the backtrace, innermost first, each as text and as object; `more_frames`: its outer end is
    left out."""

    by: str
    address: int
    size: int
    changes: Tuple[WrittenPart, ...]
    system_call: str
    pc: int
    frames: Tuple[Tuple[str, Dict[str, Any]], ...] = ()
    more_frames: bool = False


@dataclass
class WhyResult:
    """Everything that one `uffd why` found."""

    text: str
    name: str
    type: str
    address: int
    length: int
    ran: str  # "push ()", "the last command"
    by: str
    after: bool = False
    writes: List[WriteInfo] = field(default_factory=list)
    total: int = 0
    more: bool = False  # than `total`, which are not counted
    seconds: float = 0.0
    wall_ms: float = 0.0  # that the user waited
    differs: Optional[RerunDifference] = None
    compared: bool = True
    not_compared: str = ""
    cut: bool = False
    first: bool = False
    interrupted: bool = False
    kernel_lost: bool = False


def lines(result: WhyResult, look: Look) -> List[str]:
    """The text of `uffd why`."""
    out = look.wrapped(_head(result))
    digits = len(str(len(result.writes)))
    for index, write in enumerate(result.writes, 1):
        out += under(f"{index:>{digits}}  ", [_write_text(write, look)], look)
        for level, (text, _) in enumerate(write.frames):
            out += under(f"{'':>{digits}}    #{level} ", [text], look)
        if write.more_frames:
            out.append(f"{'':>{digits}}    … more frames")
    more = result.total - len(result.writes)
    if more > 0:
        least = "at least " if result.more else ""
        out.append(f"… {least}{plural(more, 'more write')}: `uffd why -full`")
    out += [line for note in _notes(result) for line in look.wrapped(f"  {note}")]
    return [look.tidy(line) for line in out]


def _head(result: WhyResult) -> str:
    what = f"{result.name}, {result.type}" if result.type else result.name
    count = plural(result.total, "write") if result.total else "not written"
    if result.more:
        count = f"more than {count}"
    if result.first and result.total:
        count = "the first write"
    if result.interrupted:
        count += " until it was interrupted"
    where = f"{what} at {result.address:#x} ({plural(result.length, 'byte')})"
    time = milliseconds(result.wall_ms)
    return one_line(f"{where}: {count} in {result.ran} · run again in {time}")


def _write_text(write: WriteInfo, look: Look) -> str:
    shown = [_change_text(change, look) for change in write.changes[:MAX_PARTS_SHOWN]]
    if len(write.changes) > MAX_PARTS_SHOWN:
        shown.append(f"… {number(len(write.changes) - MAX_PARTS_SHOWN)} more")
    text = "; ".join(shown)
    if write.by == "kernel":
        text += (
            f"   by the kernel, in {write.system_call} ()"
            if write.system_call
            else "   by the kernel"
        )
    elif write.by == "gdb":
        text += "   by gdb, for the call"
    elif write.by == "assignment":
        text += "   by gdb, as it was told to"
    return text


def _change_text(change: WrittenPart, look: Look) -> str:
    name = look.paint("variable", change.name)
    if change.before == change.after:
        return f"{name} {change.before} (the same)"
    return f"{name} {look.paint('removed', change.before)} → {look.paint('added', change.after)}"


def _notes(result: WhyResult) -> List[str]:
    notes = _lost(result)
    if result.after:
        notes.append(f"{result.text} was looked up in the memory that the call left")
    if result.differs:
        how = one_line(difference_text(result.differs))
        notes.append(f"this run differs from the first one: {how}")
    elif not result.compared and not result.first and result.not_compared:
        notes.append(f"not compared with the first run: {_NOT_COMPARED[result.not_compared]}")
    return notes


_NOT_COMPARED = {
    "first": "it was ended after the first write",
    "written": "memory was written since the first run",
    "interrupted": "that was ended from outside, this one at another instruction",
}


def _lost(result: WhyResult) -> List[str]:
    if not result.kernel_lost:
        return []
    return ["what kept calls had opened, handled or timed is not there in the second run"]


def as_json(result: WhyResult) -> Dict[str, Any]:
    """The object of `uffd why -json` (docs/json.md)."""
    return {
        "schema": SCHEMA_VERSION,
        "expression": result.text,
        "name": result.name,
        "type": result.type or None,
        "address": hex(result.address),
        "length": result.length,
        "looked_up_after": result.after,
        "ran": result.ran,
        "watched_by": result.by,
        "total": result.total,
        "more": result.more,
        "complete": not result.cut and not result.interrupted,
        "interrupted": result.interrupted,
        "differs": difference_text(result.differs) if result.differs is not None else None,
        "difference": to_json(result.differs),
        "compared": result.compared,
        "run_ms": round(result.seconds * 1000, 3),
        "wall_ms": round(result.wall_ms, 3),
        "notes": _lost(result),
        "writes": [
            {
                "address": hex(write.address),
                "size": write.size,
                "by": write.by,
                "system_call": write.system_call or None,
                "pc": hex(write.pc) if write.pc else None,
                "changes": [
                    {"name": c.name, "type": c.type, "before": c.before, "after": c.after}
                    for c in write.changes
                ],
                "backtrace": [frame for _, frame in write.frames],
                "more_frames": write.more_frames,
            }
            for write in result.writes
        ],
    }

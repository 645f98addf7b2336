"""What a call did, in a line and as data: `pure`, or what it wrote, allocated, printed, asked.

No gdb here.
"""

from __future__ import annotations

import bisect
import os
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.client.show import ends
from gdb_uffd.client.show.heap_words import damage_text
from gdb_uffd.client.show.text import number, plural, size
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import CallReport, DirtyPage, DirtyRange
from gdb_uffd.terminal import one_line, printable

PURE = "pure: nothing but its own stack"

_ORDER = ("globals", "heap", "tls", "stack", "anonymous", "linker", "malloc")
_OTHERS = {"linker": "the linker's slots", "malloc": "malloc's own state"}

_Key = Tuple[str, Optional[str], Optional[int]]

MAX_NAMED = 4
"""Things of one kind that the line names; of more it tells how many."""


@dataclass(frozen=True)
class WrittenKind:
    """One kind of memory that was written.  `what`: "globals" (of the file `mapping`), "heap",
    "tls" and "stack" (of `thread`; of the thread that ran: frames that were there before),
    "anonymous" (`mapping`), "malloc" (its bookkeeping alone), "linker" (slots that the dynamic
    linker fills).  `bytes`: how many differ, as far as the report lists them."""

    what: str
    mapping: Optional[str] = None
    thread: Optional[int] = None
    bytes: int = 0


def wrote(report: CallReport) -> List[WrittenKind]:
    """What the program's writes and assignments changed, the program's data first."""
    found: Dict[_Key, int] = {}
    starts = [block.start for block in report.blocks]
    for page in report.pages:
        if not page.meant or not page.bytes_changed:
            continue
        for key, count in _of_page(page, report, starts):
            found[key] = found.get(key, 0) + count
    for rest in report.rest:
        if rest.bytes_changed and not (rest.kind == "stack" and rest.thread == report.tid):
            what = "globals" if rest.kind == "data" else rest.kind
            mapping = rest.mapping if what in ("globals", "anonymous") else None
            unlisted: _Key = (what, mapping, rest.thread)
            found[unlisted] = found.get(unlisted, 0) + rest.bytes_changed
    made = [WrittenKind(*key, count) for key, count in found.items()]
    return sorted(made, key=lambda w: _ORDER.index(w.what))


def _of_page(page: DirtyPage, report: CallReport, starts: Sequence[int]) -> List[Tuple[_Key, int]]:
    if page.kind == "stack":
        own = page.thread in (report.tid, None)
        if own and not page.bytes_above:
            return []  # scratch
        return [(("stack", None, page.thread), page.bytes_above or page.bytes_changed)]
    listed = [run for run in page.ranges if run.role not in ("scratch", "freed")]
    if not page.ranges:
        return [(_key(page, None, report, starts), page.bytes_changed)]
    return [(_key(page, run, report, starts), len(run.changed())) for run in listed]


def _key(
    page: DirtyPage, run: Optional[DirtyRange], report: CallReport, starts: Sequence[int]
) -> _Key:
    if run is not None and run.role in ("malloc", "linker"):
        return run.role, None, None
    kind = (run.kind if run is not None else "") or page.kind
    if kind == "data":
        return "globals", page.mapping, None
    if kind in ("tls", "stack"):
        thread = run.thread if run is not None and run.thread is not None else page.thread
        return kind, None, thread
    if kind == "heap" or (run is not None and _in_block(report, starts, run.address)):
        return "heap", None, None
    return "anonymous", page.mapping, None


def _in_block(report: CallReport, starts: Sequence[int], address: int) -> bool:
    index = bisect.bisect_right(starts, address) - 1
    return index >= 0 and address < starts[index] + report.blocks[index].size


def printed_bytes(report: CallReport) -> int:
    """How much it printed, in UTF-8."""
    return len(report.output.encode("utf-8", "replace")) + report.output_left_out


def _is_pure(report: CallReport, things: List[WrittenKind]) -> bool:
    """Whether it left nothing behind, asked for nothing, and came to its end."""
    heap = report.heap
    return (
        report.returned
        and report.called
        and not (
            report.untold
            or things
            or report.registers
            or (heap is not None and (heap.allocated or heap.freed))
            or report.mapped_bytes
            or report.unmapped_bytes
            or report.layout_changed
            or report.output
            or report.granted
            or report.files_read
            or report.more_files
            or report.refusals
            or report.passed
            or report.end
            or report.unknown_zeros
            or report.unknown_file
        )
    )


def text(report: CallReport, thread: Callable[[int], str]) -> str:
    """The verdict as a line; `thread` gives gdb's number for a TID."""
    return " · ".join(phrases(report, thread))


def phrases(report: CallReport, thread: Callable[[int], str]) -> List[str]:
    """What the line consists of."""
    return _phrases(report, thread, wrote(report))


def _phrases(
    report: CallReport, thread: Callable[[int], str], things: List[WrittenKind]
) -> List[str]:
    if report.untold:
        return ["what it did is not known"]
    if not report.called:
        return ["nothing was called"]
    if _is_pure(report, things):
        return [PURE]
    parts = [_wrote_text(things, report, thread), *_heap_text(report, things, thread)]
    whole = replace(report, returned=True, end=None)  # the end is told by others
    if not report.returned and _is_pure(whole, things):
        return ["wrote nothing but its own stack, and did not return"]
    for what, count in (("mapped", report.mapped_bytes), ("unmapped", report.unmapped_bytes)):
        if count:
            parts.append(f"{what} {size(count)}")
    if report.output:
        parts.append(f"printed {number(printed_bytes(report))} B")
    parts += files_read(report.files_read, report.more_files)
    # What it printed is told in bytes.
    asked = [
        grant.call or ends.grant_text(grant)
        for grant in report.granted
        if not (report.output and grant.call in ("write", "writev"))
    ]
    refused = [refusal.call for refusal in report.refusals]
    for what, calls in (("asked the kernel for", asked), ("was refused", refused)):
        if calls:
            parts.append(f"{what} {_few([one_line(call) for call in calls])}")
    if report.passed:
        parts.append("unsound")
    return parts + unknown(report.unknown_zeros, report.unknown_file)


def files_read(paths: Sequence[str], more: int) -> List[str]:
    """Whose contents came into the program's memory, and how many more there were: a phrase, or
    none."""
    count = len(paths) + more
    if not count:
        return []
    shown = _few([printable(path) for path in paths], more)
    return [f"read the file {shown}" if count == 1 else f"read {plural(count, 'file')}: {shown}"]


def may_hold(paths: Sequence[str]) -> str:
    """What a file that is written tells of them; "" for none."""
    if not paths:
        return ""
    return f"; may hold bytes of what calls read: {_few([printable(path) for path in paths])}"


def unknown(zeros: int, as_in_file: int) -> List[str]:
    """What a call took for granted: pages that the recording does not hold."""
    return [
        f"read {plural(count, 'page')} that this core does not hold, taken {how}"
        for count, how in ((zeros, "as zeros"), (as_in_file, "as in the file"))
        if count
    ]


def _few(names: List[str], more: int = 0) -> str:
    unique = list(dict.fromkeys(names))
    more += max(0, len(unique) - MAX_NAMED)
    return ", ".join(unique[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _wrote_text(things: List[WrittenKind], report: CallReport, thread: Callable[[int], str]) -> str:
    tid, registers = report.tid, report.registers
    if not things and not registers:
        return "wrote nothing"
    kinds = [w.what for w in things]
    if set(kinds) <= set(_OTHERS) and not registers:
        return "wrote only " + " and ".join(_OTHERS[kind] for kind in kinds)
    names = [f"register {_few(registers)}"] if registers else []
    files = [os.path.basename(w.mapping or "") for w in things if w.what == "globals"]
    if files:
        names.append(f"globals of {_few(files)}")
    if any(w.what == "heap" for w in things):
        names.append("heap")
    tls = [thread(w.thread) for w in things if w.what == "tls" and w.thread is not None]
    if tls:
        names.append(f"TLS of thread {_few(tls)}")
    for w in things:
        if w.what == "stack" and w.thread in (tid, None):
            names.append("frames of its callers")
    stacks = [thread(w.thread) for w in things
              if w.what == "stack" and w.thread not in (None, tid)]  # fmt: skip
    if stacks:
        names.append(f"the stack of thread {_few(stacks)}")
    if any(w.what == "anonymous" for w in things):
        names.append("anonymous memory")
    if any(w.what == "linker" for w in things):
        names.append(_OTHERS["linker"])
    return "wrote " + ", ".join(names)


def _heap_text(
    report: CallReport, things: List[WrittenKind], thread: Callable[[int], str]
) -> List[str]:
    heap, parts = report.heap, []
    if heap is None:
        touched = any(w.what in ("heap", "malloc") for w in things)
        trouble = report.heap_trouble
        why = f" ({damage_text(trouble, thread)})" if trouble is not None else ""
        return [f"malloc's heap cannot be read{why}"] if touched else []
    if heap.allocated or heap.allocated_bytes:
        parts.append(f"allocated {_blocks(heap.allocated, heap.allocated_bytes)}")
    if heap.freed or heap.freed_bytes:
        parts.append(f"freed {_blocks(heap.freed, heap.freed_bytes)}")
    return parts


def _blocks(count: int, bytes_: int) -> str:
    return f"{plural(count, 'block')} ({size(bytes_)})" if count else size(bytes_)


def as_json(report: CallReport, thread: Callable[[int], str]) -> Dict[str, Any]:
    """The `verdict` of docs/json.md."""
    heap, things = report.heap, wrote(report)
    return {
        "pure": _is_pure(report, things),
        "text": " · ".join(_phrases(report, thread, things)),
        "wrote": [
            {"what": w.what, "mapping": w.mapping, "thread": w.thread, "bytes": w.bytes}
            for w in things
        ],
        "allocated": None
        if heap is None
        else {"blocks": heap.allocated, "bytes": heap.allocated_bytes},
        "freed": None if heap is None else {"blocks": heap.freed, "bytes": heap.freed_bytes},
        "heap_trouble": None
        if report.heap_trouble is None
        else damage_text(report.heap_trouble, thread),
        "heap_damage": None if report.heap_trouble is None else to_json(report.heap_trouble),
        "heap_notes": report.heap_notes,
        "net_bytes": None if heap is None else heap.allocated_bytes - heap.freed_bytes,
        "registers": report.registers,
        "mapped_bytes": report.mapped_bytes,
        "unmapped_bytes": report.unmapped_bytes,
        "printed_bytes": printed_bytes(report),
        "asked": [ends.grant_text(grant) for grant in report.granted],
        "files_read": report.files_read,
        "refused": ends.refusal_texts(report.refusals, report.more_refused),
        "unknown": {"zeros": report.unknown_zeros, "file": report.unknown_file},
    }

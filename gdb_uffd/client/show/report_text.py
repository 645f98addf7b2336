"""Reports as a user reads them (report_json.py: as `-json` prints them).  No gdb here.

What needs symbols (names, lines, thread numbers) comes through a `Namer`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Protocol, Sequence, Tuple

from gdb_uffd.client.show import ends, verdict
from gdb_uffd.client.show.report_aside import PROGRAM, advice, aside_text, gdb_text, whose
from gdb_uffd.client.show.table import PageRow, table
from gdb_uffd.client.show.text import Look, milliseconds, number, plural, shortened
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages import Summary
from gdb_uffd.protocol.model import PAGE_SIZE, CallReport, DirtyPage, FirstWrite
from gdb_uffd.terminal import one_line, printable

MAX_CHANGES_SHOWN = 4
"""Named changes a text line shows; -json has them all (up to the Namer's own cap)."""

NEW = "new"
"""The note of a change in a block that the call allocated: what the bytes were before means
nothing."""

REST = "the rest"
"""The note of what changed behind what is told one by one."""

INNER = "inner"
"""The note of words that a container keeps for itself."""

MAX_RAW_SHOWN = 4
"""Bytes without a type that a text line shows; of more it tells how many."""

MAX_RANGES_SHOWN = 8
"""Ranges of pages that are not listed which a text report shows."""

MAX_PAGES_SHOWN = 64
"""Lines of a text report; `uffd dirty -full` and -json are for the rest."""

PLAIN = Look()


@dataclass(frozen=True)
class NamedChange:
    """A variable, a member of one, or bytes without a name, that a page's new bytes gave another
    value.

    `before` and `after` are gdb's text; `raw` says that they are bytes in hex, as nothing tells
    their type; "" where it was not there (an element of a container that came or went).
    `size` counts the bytes from `address` on that it is about.  `kind`, `role`, `thread` as in
    model.DirtyRange, `kind` never "".  `frame`: (level, function) for a local.  `other`: another
    member of the same union is told first.  `note`: what else there is to say, in a few words.
    """

    name: str
    type: str
    before: str
    after: str
    size: int = 0
    address: int = 0
    kind: str = ""
    role: str = ""
    thread: Optional[int] = None
    frame: Optional[Tuple[int, str]] = None
    raw: bool = False
    other: bool = False
    note: str = ""

    def text(self, look: Look) -> str:
        """ "counter 1041 → 1042", or "16 B in table"."""
        name = look.paint("variable", self.name)
        if self.note and self.note != NEW:
            name += f" ({printable(self.note)})"
        if self.frame is not None:
            name += f" of #{self.frame[0]} {look.paint('function', self.frame[1])} ()"
        if (not self.before and not self.after) or (self.raw and self.size > MAX_RAW_SHOWN):
            return f"{number(self.size)} B in {name}"
        after = look.paint("added", self.after or "nothing")
        if self.note == NEW:
            return f"new {name} = {after}"
        return f"{name} {look.paint('removed', self.before or 'nothing')} → {after}"


@dataclass(frozen=True)
class WriteSite:
    """Where a first write happened: `function` at `file`:`line`; "" and 0 for unknown.

    `caller` is the nearest caller in the program itself (else anywhere) that has line
    information, when the place itself lies in a library or has none.
    """

    function: str
    file: str = ""
    line: int = 0
    caller: Optional["WriteSite"] = None

    def text(self, look: Look = PLAIN) -> str:
        """ "push () at sample.c:7"; "_int_malloc () … push () at sample.c:7"."""
        name = "?"
        if self.function:
            name = f"{look.paint('function', shortened(self.function))} ()"
        if self.caller:
            return f"{name} … {self.caller.text(look)}"
        if not self.file:
            return name
        return f"{name} at {look.paint('filename', os.path.basename(self.file))}:{self.line}"


class Namer(Protocol):
    """What symbols tell about addresses."""

    def changes(self, page: DirtyPage) -> List[NamedChange]:
        """The named variables that changed on a data or TLS page; [] when none can be told."""
        ...

    def section(self, page: DirtyPage) -> str:
        """The section the changed bytes lie in (".data"), "" when unknown."""
        ...

    def writer(self, first: FirstWrite) -> WriteSite:
        """Function, file and line of a first write."""
        ...

    def thread(self, tid: int) -> str:
        """gdb's number for the thread with that TID ("1"), or "TID 123"."""
        ...


def split_pages(report: CallReport) -> Tuple[List[DirtyPage], List[DirtyPage]]:
    """The pages the program wrote or the expression assigned, and those only gdb wrote."""
    program = [page for page in report.pages if page.meant]
    return program, [page for page in report.pages if not page.meant]


def report_lines(
    report: CallReport,
    namer: Namer,
    look: Look,
    waited_ms: Optional[Callable[[], float]] = None,
    all_lines: bool = False,
) -> List[str]:
    """The verdict, the counts, a line a page (neighbours folded), what else there is to know.

    `waited_ms` is asked when the rows are made: names take time.
    """
    program, gdb_pages = split_pages(report)
    lines: List[str] = []
    ranked = sorted(((_rank(group), group) for group in fold(program, namer)), key=lambda r: r[0])
    rows = [_row(g, namer, look, all_lines) for rank, g in ranked if all_lines or rank != _ASIDE]
    shown = rows if all_lines else rows[:MAX_PAGES_SHOWN]
    lines += table(shown, look)
    if len(rows) > len(shown):
        lines.append(f"  … {plural(len(rows) - len(shown), 'more range')}: {advice(report)}")
    aside = [page for rank, group in ranked if rank == _ASIDE for page in group]
    if aside and not all_lines:
        lines.append(f"  … and {aside_text(aside)}: {advice(report)}")
    lines += _rest_lines(report, namer, look, all_lines)
    if gdb_pages:
        lines.append(gdb_text(gdb_pages))
    lines += notes(report)
    waited = waited_ms() if waited_ms is not None else None
    head = [verdict.text(report, namer.thread)]
    head += [f"    {one_line(text)}" for text in report.heap_notes]
    head.append(count_line(report, len(program), waited))
    return [part for line in [*head, *lines] for part in look.wrapped(line)]


_ASIDE = 2


def _rank(group: Sequence[DirtyPage]) -> int:
    """The program's changes first, then scratch, then what is aside."""
    if all(whose(page) != PROGRAM for page in group):
        return _ASIDE
    return int(is_scratch(group[0]))


def _rest_lines(report: CallReport, namer: Namer, look: Look, all_lines: bool) -> List[str]:
    """The pages that are not listed one by one: how many, and where they lie."""
    if not report.rest_pages:
        return []
    head = f"  … {plural(report.rest_pages, 'more page')}, not told apart"
    shown = report.rest if all_lines else report.rest[:MAX_RANGES_SHOWN]
    lines = [f"{head} ({number(report.rest_bytes)} B changed):"]
    for rest in shown:
        like = DirtyPage(rest.start, rest.end, rest.kind, rest.mapping, 0, rest.thread)
        pages = plural((rest.end - rest.start) // PAGE_SIZE, "page")
        address = look.paint("address", f"{rest.start:#x}-{rest.end:#x}")
        what = f"{address}  {_what(like, namer, look)}"
        lines.append(f"  {what}  {number(rest.bytes_changed)} B in {pages}")
    told = sum(rest.end - rest.start for rest in shown) // PAGE_SIZE
    if told < report.rest_pages:
        where = "elsewhere" if all_lines else f"elsewhere: {advice(report)}"
        lines.append(f"  … {plural(report.rest_pages - told, 'more page')} {where}")
    return lines


def notes(report: CallReport) -> List[str]:
    """What went otherwise than on the live process, one line each."""
    refused = ends.refusal_texts(report.refusals, report.more_refused)
    lines = [f"  refused: {one_line(text)}" for text in refused]
    lines += [f"  unsound: {one_line(text)}" for text in ends.passed_texts(report)]
    missing = ends.unavailable_text(report.end)
    if missing:
        lines.append(f"  touched a page that was not recorded: {one_line(missing)}")
    if report.layout_changed and not report.kept:
        lines.append("  its mappings were undone too")
    told = [*map(ends.remark_text, report.remarks), *report.notes]
    return lines + [f"  {one_line(text)}" for text in told]


def count_line(report: CallReport, pages: int, wall_ms: Optional[float]) -> str:
    """ "4 pages dirtied · 15 fed of 2,490 · 0.9 ms · discarded"; `pages`: those that are listed."""
    pages += report.rest_pages
    parts = [f"{plural(pages, 'page')} dirtied" if pages else "no pages dirtied"]
    if report.fed_pages:
        parts.append(f"{number(report.fed_pages)} fed of {number(report.total_pages)}")
    if wall_ms is not None:
        parts.append(milliseconds(wall_ms))
    if report.kind == "all":
        parts.append("kept since the snapshot")
    else:
        parts.append("kept" if report.kept else "discarded")
    return " · ".join(parts)


def is_amiss(summary: Summary, told: str) -> bool:
    """Whether it went otherwise than on the live process; `told` as of `summary_line`."""
    amiss = (
        told
        or summary.files_read
        or summary.refusals
        or (summary.end is not None and summary.end.unavailable)
        or summary.passed
        or summary.uncaught
    )
    return bool(amiss or any(summary.unknown))


def summary_line(summary: Summary, look: Look, told: str = "", whose: str = "") -> str:
    """The line after a plain `print f()`; `told`: how it ended, in words; `whose`: of an
    earlier command, that is."""
    parts = [f"{plural(summary.pages, 'page')} dirtied, kept"] if summary.pages else []
    parts += verdict.files_read(summary.files_read, summary.more_files)
    refused = ends.refusal_texts(summary.refusals, summary.more_refused)
    parts += [f"refused {one_line(text)}" for text in refused[:2]]
    if len(refused) > 2:
        parts.append(f"{len(refused) - 2} more refused")
    parts += [f"unsound: {one_line(ends.passed_text(lock))}" for lock in summary.passed[:1]]
    missing = ends.unavailable_text(summary.end)
    if missing:
        parts.append(f"touched a page not recorded: {one_line(missing)}")
    parts += [one_line(told)] if told else []
    parts += verdict.unknown(*summary.unknown)
    if summary.pages:
        parts.append("uffd dirty shows them, uffd reset forgets them")
    return look.plain(f"[uffd: {whose}{': ' if whose else ''}{' · '.join(parts)}]")


def fold(pages: Sequence[DirtyPage], namer: Namer) -> List[List[DirtyPage]]:
    """Neighbouring pages that agree in kind, mapping, thread and the first writer's place; all
    the pages of one thread's scratch together."""
    groups: List[List[DirtyPage]] = []
    writers: Dict[FirstWrite, str] = {}
    last: Tuple[object, ...] = ()

    def writer(first: Optional[FirstWrite]) -> str:
        if first is None:
            return ""
        place = replace(first, sp=0, address=0)  # neither tells one writer from another
        if place not in writers:
            writers[place] = namer.writer(first).text()
        return writers[place]

    scratch: Dict[Optional[int], List[DirtyPage]] = {}
    for page in sorted(pages, key=lambda p: p.start):
        if is_scratch(page):
            if page.thread not in scratch:
                groups.append(scratch.setdefault(page.thread, []))
            scratch[page.thread].append(page)
            last = ()
            continue
        key = (page.kind, page.mapping, page.thread, whose(page), writer(page.first_write))
        if groups and groups[-1][-1].end == page.start and key == last:
            groups[-1].append(page)
        else:
            groups.append([page])
        last = key
    return groups


def is_scratch(page: DirtyPage) -> bool:
    """A stack's page on which nothing of a live frame changed: it is told in one line a thread."""
    return page.kind == "stack" and not page.bytes_above


def _row(group: List[DirtyPage], namer: Namer, look: Look, all_lines: bool) -> PageRow:
    head = group[0]
    address = hex(head.start)
    if len(group) > 1:
        address += f"-{group[-1].end:#x}"
    items = [] if is_scratch(head) else _items(group, namer, look, all_lines)
    writer = namer.writer(head.first_write).text(look) if head.first_write else ""
    return PageRow(address, _what(head, namer, look), items or [_bytes_text(group)], writer)


def _joined(changes: List[NamedChange]) -> List[NamedChange]:
    """Bytes of one block, or of one mapping, that follow each other, as one: how many."""
    out: List[NamedChange] = []
    for change in changes:
        last = out[-1] if out else change
        base, plus, _ = change.name.partition("+0x")
        near = bool(out and plus) and change.raw and last.raw and base == last.name.split("+0x")[0]
        size = last.size + change.size
        if near and size > MAX_RAW_SHOWN and change.note in (REST, last.note):
            out[-1] = replace(last, size=size)
        else:
            out.append(change)
    return out


def _items(group: List[DirtyPage], namer: Namer, look: Look, all_lines: bool) -> List[str]:
    """The changes of a row: the program's by name, the first ones unless `all_lines`; then malloc's
    own and the linker's, if so, or if there are no others."""
    most = 1 << 30 if all_lines else MAX_CHANGES_SHOWN
    changes = [change for page in group for change in namer.changes(page)]
    told = _joined([c for c in changes if not c.role and not c.other and c.note != INNER])
    shown = told[:most]
    items = [change.text(look) for change in shown]
    hidden = [change for change in told[most:] if change.note != REST]
    if hidden:
        items.append(f"… {plural(len(hidden), 'more change')}")
    rest = sum(change.size for change in told[most:] if change.note == REST)
    rest += sum(p.bytes_changed for p in group if told and not namer.changes(p))
    if rest:
        items.append(f"… {number(rest)} more B")
    inner = dict.fromkeys(c.name for c in changes if c.note == INNER)
    if inner:
        items.append(f"inner words of {', '.join(list(inner)[:MAX_CHANGES_SHOWN])}")
    freed = sum(c.size for c in changes if c.role == "freed")
    if freed:
        items.append(f"{number(freed)} B in freed memory")
    for role, words in (("linker", "the linker's"), ("malloc", "malloc's own")):
        own = [c for c in changes if c.role == role]
        if own and (all_lines or not items):
            items.append(_others_text(words, own, look))
    below = sum(page.bytes_changed - page.bytes_above for page in group)
    if items and group[0].kind == "stack" and below > 0:
        items.append(f"{number(below)} B below the frame")
    return items


def _others_text(words: str, changes: List[NamedChange], look: Look) -> str:
    """Changes that are not to the program's data: the first by name, if it has one."""
    named = next((c for c in changes if not c.raw or "@" in c.name), None)
    if named is None:
        return f"{words} words"
    name = look.paint("variable", shortened(named.name))
    if len(changes) == 1:
        return f"{words} {name if named.raw else named.text(look)}"
    return f"{words} {name} and {number(len(changes) - 1)} more"


def _what(page: DirtyPage, namer: Namer, look: Look) -> str:
    thread = f"thread {namer.thread(page.thread)}" if page.thread is not None else ""
    if page.kind == "data":
        section = namer.section(page) or "data"
        return f"{section:<5}  {look.paint('filename', os.path.basename(page.mapping))}".rstrip()
    if page.kind in ("stack", "tls"):
        return f"{'TLS' if page.kind == 'tls' else 'stack':<5} {thread}".rstrip()
    if page.kind == "heap":
        return "heap"
    name = page.mapping.strip("[]")
    return "anon" + (f"   {name}" if name and name != "anon" else "")


def _bytes_text(group: List[DirtyPage]) -> str:
    total = sum(page.bytes_changed for page in group)
    head = group[0]
    if not total:
        return "written, nothing changed"
    if head.kind == "stack":
        return _stack_text(group, total)
    if len(group) > 1:
        return f"{number(total)} B in {len(group)} pages"
    runs = head.ranges
    if not runs:
        return f"{number(total)} B"
    offset = f"+{runs[0].address - head.start:#x}"
    if len(runs) > 1 or head.more_ranges:
        places = f"{len(runs)}{' or more' if head.more_ranges else ''} places"
        return f"{number(total)} B in {places} from {offset}"
    return f"{number(total)} B at {offset}"


def _stack_text(group: List[DirtyPage], total: int) -> str:
    """Bytes below the frame are nobody's any more; bytes above it are a caller's variables."""
    above = sum(page.bytes_above for page in group)
    below = max(0, total - above)
    texts = [f"{number(above)} B in the frames"] if above else []
    if below:
        texts.append(f"{number(below)} B below the frame")
    return ", ".join(texts)

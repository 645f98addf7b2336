"""What is told of malloc's heap, as a person reads it.  No gdb here."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.client.show.table import listed
from gdb_uffd.client.show.text import Look, number, plural, size
from gdb_uffd.protocol.heap import Arena, HeapReport
from gdb_uffd.protocol.model import Damage, FreeList, HeapBlock

Thread = Callable[[int], str]
"""gdb's number for a TID."""

LISTS_SHOWN = 32
"""Threads whose caches, and arenas whose bins, a text shows."""

DAMAGE_SHOWN = 8
HOLDERS_SHOWN = 4

_SIZES = {
    "size-unaligned": "no multiple of 16",
    "size-small": "less than any block takes",
    "size-mmapped": "marked as one with a mapping of its own",
}

_LINKS = {
    "link-unaligned": "no multiple of 16",
    "link-unreadable": "where nothing can be read",
    "link-loop": "a block of the same list: it was freed twice",
}

_ALONE = {
    "no-arena": "malloc's main arena is not found",
    "no-thread-locals": "the C library's thread-locals are not found",
}


def list_text(which: Optional[FreeList], thread: Thread) -> str:
    """ "thread 1's cache of 0x20", "the fastbin of 0x30", "the unsorted bin": sizes of chunks."""
    if which is None:
        return "a free list"
    if which.kind == "tcache":
        whose = f"thread {thread(which.tid)}'s" if which.tid else "a thread's"
        return f"{whose} cache of {which.low:#x}"
    if which.kind == "unsorted":
        return "the unsorted bin"
    if which.kind == "large":
        return f"the large bin from {which.low:#x}"
    return f"the {'fastbin' if which.kind == 'fastbin' else 'small bin'} of {which.low:#x}"


def damage_text(damage: Damage, thread: Thread) -> str:
    """What is wrong, and where, as a sentence without its full stop."""
    at, value, expected = f"{damage.block:#x}", damage.value or 0, damage.expected or 0
    if damage.what in _ALONE:
        return _ALONE[damage.what]
    if damage.what in _SIZES:
        return f"the size of the block at {at} reads {value:#x}: {_SIZES[damage.what]}"
    if damage.what in _LINKS or damage.what == "link-back":
        return _link_text(damage, thread)
    texts: Dict[str, str] = {
        "size-beyond": f"the size of the block at {at} reads {value:#x}: "
        f"it would end behind {expected:#x}",
        "unreadable": f"the block at {at} lies on a page that is not in the recording",
        "prev-size": f"the free block at {at} has {value:#x} bytes, behind it stands {expected:#x}",
        "top": f"the size of the top at {at} reads {value:#x}, but the heap ends at {expected:#x}",
        "unlisted": f"the block at {at} is free and in no list",
        "no-heap": f"no heap of malloc's is recognised at {at}",
        "too-many": f"there are more than {number(value)} blocks",
        "tcache-key": f"the block at {at} was written to after it was freed: "
        f"its key reads {value:#x}, not {expected:#x}",
    }
    if damage.what in texts:
        return texts[damage.what]
    which = list_text(damage.list, thread)
    lists: Dict[str, str] = {
        "list-not-a-block": f"{which} leads to {at}, where no block begins",
        "list-in-use": f"{which} holds the block at {at}, which is in use by what stands behind it",
        "list-size": f"{which} holds the block at {at}, whose size reads {value:#x}",
        "list-twice": f"{which} holds the block at {at}, which another list holds too",
        "list-long": f"{which} has more blocks than are followed",
        "tcache-count": f"{which} has {plural(expected, 'block')}, its counter says {value}",
    }
    return lists.get(damage.what, damage.what)


def _link_text(damage: Damage, thread: Thread) -> str:
    which, value = list_text(damage.list, thread), damage.value or 0
    where = "its head" if damage.list is not None else "a link"
    if damage.block:
        where = f"the link in the block at {damage.block:#x}"
    if damage.what == "link-back":
        where, why = f"the link back in the block at {damage.block:#x}", "not the one before"
    else:
        why = _LINKS[damage.what]
    reads = f"reads {value:#x}"
    if damage.leads is not None:
        reads += f" (protected, for {damage.leads:#x})"
    return f"{which} cannot be followed: {where} {reads}, {why}"


def before_text(damage: Damage, name: str) -> str:
    """ "before it: input->text, 24 B at 0x55…"; "" where that is not known."""
    block = damage.before
    if block is None:
        return ""
    if block.state in ("free", "top", "fence"):
        return f"before it: {size(block.size)} at {block.start:#x}, {block.state}"
    return f"before it: {name + ', ' if name else ''}{size(block.size)} at {block.start:#x}"


def holders_text(names: Sequence[str]) -> str:
    """ "still pointed to by stale, cache.items[4]"; "" where nothing points to it."""
    return f"still pointed to by {', '.join(names)}" if names else ""


def since_text(whole: Optional[int], broken: Optional[int], exact: bool) -> str:
    """When it broke, by the answer of quffd.heap-since; "" where no snapshot tells."""
    if broken is None:
        return ""
    if whole is None:
        return f"so since snapshot {broken}, the first"
    if exact:
        return f"whole at snapshot {whole}, broken at {broken}: `uffd goto {broken}`"
    return f"whole at snapshot {whole}, broken at {broken}; between them was no time to look"


# -- the overview -----------------------------------------------------------------------------


def overview(heap: HeapReport, notes: Sequence[List[str]], thread: Thread, look: Look) -> List[str]:
    """The whole text of `uffd heap`.  `notes`: further lines for each Damage shown."""
    if heap.allocator.name != "glibc":
        return [look.plain(line) for line in foreign(heap)]
    lines = [_headline(heap)]
    for arena in heap.arenas[:LISTS_SHOWN]:
        lines += _arena(arena, thread)
    lines += _more(len(heap.arenas) - LISTS_SHOWN, "arena")
    lines += _caches(heap, thread, look)
    lines += _bins(heap, look)
    if heap.mapped or heap.mapped_said > 0:
        lines.append(f"  {'mapped':<12} {_mapped(heap)}")
    lines += damage_lines(heap.damage, heap.damage_count, notes, thread)
    return [part for line in lines for part in look.wrapped(line)]


def _more(count: int, what: str) -> List[str]:
    return [f"  … {plural(count, 'more ' + what)}: -json has them"] if count > 0 else []


def _headline(heap: HeapReport) -> str:
    used = sum(a.used for a in heap.arenas), sum(a.used_bytes for a in heap.arenas)
    free = sum(a.free for a in heap.arenas), sum(a.free_bytes for a in heap.arenas)
    version = f" {heap.allocator.version}" if heap.allocator.version else ""
    return (
        f"glibc{version} malloc · {plural(len(heap.arenas), 'arena')} · "
        f"{plural(used[0], 'block')} in use ({size(used[1])}) · {number(free[0])} free "
        f"({size(free[1])})"
    )


def _arena(arena: Arena, thread: Thread) -> List[str]:
    name = "main arena" if arena.main else "arena"
    threads = ", ".join(thread(tid) for tid in arena.tids[:8])
    parts = [f"{arena.address:#x}"]
    if threads:
        parts.append(f"thread{'s' if len(arena.tids) > 1 else ''} {threads}")
    parts.append(f"{number(arena.used)} in use, {number(arena.free)} free")
    parts.append(f"{size(arena.system_bytes)} from the kernel")
    lines = [f"  {name:<12} {' · '.join(parts)}"]
    for each in arena.ranges:
        unread = f", {size(each.unread)} behind damage not read" if each.unread else ""
        lines.append(f"    {each.start:#x}-{each.end:#x}  {size(each.end - each.start)}{unread}")
    if arena.top:
        lines.append(f"    top at {arena.top:#x}  {size(arena.top_bytes)}")
    return lines


def _sized(which: FreeList) -> str:
    """ "0x20: 7", by the chunk's size."""
    sizes = f"{which.low:#x}" if which.high == which.low + 16 else f"from {which.low:#x}"
    mark = " (damaged)" if which.damaged else ""
    said = f" of {number(which.count)}" if which.count not in (-1, which.blocks) else ""
    return f"{sizes}: {number(which.blocks)}{said}{mark}"


def _caches(heap: HeapReport, thread: Thread, look: Look) -> List[str]:
    by_thread: Dict[int, List[FreeList]] = {}
    for each in heap.lists:
        if each.kind == "tcache":
            by_thread.setdefault(each.tid, []).append(each)
    lines: List[str] = []
    for tid, lists in list(by_thread.items())[:LISTS_SHOWN]:
        whose = f"of thread {thread(tid)}: " if tid else "of a thread: "
        head = f"  {'tcache':<12} {whose}"
        lines += listed(head, [_sized(each) for each in lists], look)
    lines += _more(len(by_thread) - LISTS_SHOWN, "thread with a cache")
    if heap.caches_missing and by_thread:
        missing = ", ".join(thread(tid) for tid in heap.caches_missing[:8])
        lines.append(f"  {'tcache':<12} none found of thread {missing}")
    return lines


def _bins(heap: HeapReport, look: Look) -> List[str]:
    lines: List[str] = []
    several = len(heap.arenas) > 1
    for arena in heap.arenas[:LISTS_SHOWN]:
        whose = f"of {'the main arena' if arena.main else hex(arena.address)}: " if several else ""
        mine = [each for each in heap.lists if each.arena == arena.address]
        for kind, name in (("fastbin", "fastbins"), ("unsorted", "unsorted"),
                           ("small", "small bins"), ("large", "large bins")):  # fmt: skip
            items = [
                f"{number(each.blocks)} ({size(each.bytes)}){' (damaged)' if each.damaged else ''}"
                if kind == "unsorted"
                else _sized(each)
                for each in mine
                if each.kind == kind
            ]
            if items:
                lines += listed(f"  {name:<12} {whose}", items, look)
    return lines


def _mapped(heap: HeapReport) -> str:
    text = f"{plural(heap.mapped, 'block')} ({size(heap.mapped_bytes)})"
    if heap.mapped_said >= 0 and heap.mapped_said != heap.mapped:
        text += f"; malloc counts {number(heap.mapped_said)} ({size(heap.mapped_said_bytes)})"
    return text


def damage_lines(
    damage: Sequence[Damage], count: int, notes: Sequence[List[str]], thread: Thread
) -> List[str]:
    """What is wrong, each with its notes; that nothing is, else."""
    if not count:
        return ["nothing in it is damaged, as far as it tells"]
    lines = [f"damaged: {plural(count, 'fault')}"]
    for each, more in zip(damage[:DAMAGE_SHOWN], [*notes, *([[]] * DAMAGE_SHOWN)]):
        lines.append(f"  {damage_text(each, thread)}")
        lines += [f"    {note}" for note in more]
    return lines + _more(count - min(len(damage), DAMAGE_SHOWN), "fault")


def foreign(heap: HeapReport) -> List[str]:
    """Of an allocator whose heap is not read."""
    allocator = heap.allocator
    name = allocator.name or "an allocator that is not known"
    if not allocator.file:
        return ["whose malloc it is is not known: the executable is missing"]
    return [
        f"malloc is {name}'s, in {allocator.file}",
        f"  {plural(allocator.mappings, 'anonymous mapping')} ({size(allocator.bytes)}) hold its "
        "blocks, and what else the program mapped",
        f"  how {name} lays out its blocks is not read: only glibc's heap is",
    ]


def block_row(block: HeapBlock, thread: Thread) -> Tuple[str, str, str]:
    """(address, size, state) of one block in a list."""
    state = "in use" if block.state == "used" else block.state
    if block.list is not None:
        state = f"free, in {list_text(block.list, thread)}"
    return f"{block.start:#x}", f"{number(block.size)} B", state


def blocks(heap: HeapReport, thread: Thread) -> List[str]:
    """The list of `uffd heap -blocks`."""
    rows = [block_row(block, thread) for block in heap.blocks]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    lines = [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows]
    if heap.more_blocks:
        lines.append(f"  … {plural(heap.more_blocks, 'more block')}")
    return lines

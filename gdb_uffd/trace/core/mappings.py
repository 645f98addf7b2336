"""From PT_LOADs and NT_FILE to mappings and segments: where each recorded page's bytes lie."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, PROT_READ, PROT_WRITE, Mapping, page_ceil, page_floor
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import PF_W, PT_DYNAMIC
from gdb_uffd.trace.core.loads import Dumped, Load, prot_of
from gdb_uffd.trace.core.notes import FileRange
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO, Segment

NO_FILE_NOTE = "not in the core, which has no NT_FILE note to say what was there"
NOT_DUMPED = "not in the core: anonymous memory was left out when it was written (coredump_filter)"
KEPT_OUT = (
    "not in the core: it was written, and kept out when the core was "
    "(MADV_DONTDUMP or coredump_filter)"
)
TRUNCATED = "truncated core: the core file ends before this page"
NO_VVAR = "[vvar]: the kernel's clock pages are never recorded"


@dataclass
class Plan:
    """What the rest of the layout needs to know, gathered before it is made."""

    dumped: Dumped
    ranges: Sequence[FileRange]
    modules: Sequence[Module]
    have_file_note: bool
    anonymous_left_out: bool
    vdso: int = 0  # AT_SYSINFO_EHDR
    owner: dict[int, Module] = field(default_factory=dict)  # start of a range -> its module

    def __post_init__(self) -> None:
        self.owner = {r.start: m for m in self.modules for r in m.ranges}


Piece = Tuple[int, int, Optional[Load], Optional[FileRange]]


def cut(loads: Sequence[Load], ranges: Sequence[FileRange]) -> List[Piece]:
    """The mappings, sorted: each PT_LOAD cut where the mapped file changes, and the file
    ranges that no PT_LOAD covers (gcore leaves out what it can have from files)."""
    pieces: List[Piece] = []
    bounds = sorted(
        {x for m in loads for x in (m.start, m.end)} | {x for r in ranges for x in (r.start, r.end)}
    )
    i = j = 0
    for start, end in zip(bounds, bounds[1:]):
        while i < len(loads) and loads[i].end <= start:
            i += 1
        while j < len(ranges) and ranges[j].end <= start:
            j += 1
        load = loads[i] if i < len(loads) and loads[i].start <= start else None
        where = ranges[j] if j < len(ranges) and ranges[j].start <= start else None
        if load is None and where is None:
            continue
        if pieces and pieces[-1][1] == start and pieces[-1][2] is load and pieces[-1][3] is where:
            pieces[-1] = (pieces[-1][0], end, load, where)
        else:
            pieces.append((start, end, load, where))
    return pieces


def build(plan: Plan) -> Tuple[List[Mapping], List[Segment]]:
    """(mappings, segments), both sorted and disjoint; the segments cover the mappings exactly.

    Mappings carry the name of their file; the caller names [heap], [stack] and [vdso].
    """
    pieces = cut(plan.dumped.loads, plan.ranges)
    vvar = _vvar(pieces, plan.vdso)
    mappings: List[Mapping] = []
    segments: List[Segment] = []
    for index, (start, end, load, where) in enumerate(pieces):
        module = plan.owner.get(where.start) if where else None
        prot = load.prot if load else _guess_prot(module, where, start)
        if start in vvar:
            made = [Segment(start, end, prot, UNAVAILABLE, reason=NO_VVAR)]
        else:
            beside = [p for p in pieces[max(0, index - 1) : index + 2] if p[0] != start]
            made = _segments(plan, pieces[index], prot, module, beside)
        offset = where.offset + start - where.start if where else 0
        name = "[vvar]" if start in vvar else ""
        if where is not None:
            name = printable(module.path if module is not None else where.path)
        mappings.append(Mapping(start, end, prot, name, offset))
        segments.extend(made)
    segments = _with_fringes(plan.dumped, segments)
    return _with_reasons(mappings, segments), segments


def _with_fringes(dumped: Dumped, segments: Sequence[Segment]) -> List[Segment]:
    """With the pages put together of which the core holds a part."""
    out: List[Segment] = []
    pages = sorted(dumped.fringes)
    at = 0
    for under in segments:
        start = under.start
        while at < len(pages) and pages[at] < under.end:
            page = pages[at]
            at += 1
            if page < start:
                continue
            made, whole = dumped.fill(page, _page_of(under, page))
            unknown = not whole and (under.kind != FILE or under.unknown)
            if start < page:
                out.append(_part(under, start, page))
            start = page + PAGE_SIZE
            out.append(Segment(page, start, under.prot, FILE, made, 0, PAGE_SIZE, unknown=unknown))
        if start == under.start:
            out.append(under)
        elif start < under.end:
            out.append(_part(under, start, under.end))
    return out


def _page_of(segment: Segment, page: int) -> bytes:
    if segment.kind != FILE or segment.data is None:
        return bytes(PAGE_SIZE)
    at = segment.offset + page - segment.start
    return bytes(segment.data[at : min(at + PAGE_SIZE, segment.data_end)]).ljust(PAGE_SIZE, b"\0")


def _part(segment: Segment, start: int, end: int) -> Segment:
    offset = segment.offset + start - segment.start
    data_end = segment.data_end
    if segment.kind == FILE:
        data_end = min(data_end, offset + max(0, end - start))
    return dataclasses.replace(segment, start=start, end=end, offset=offset, data_end=data_end)


def _with_reasons(mappings: List[Mapping], segments: List[Segment]) -> List[Mapping]:
    """The mappings, each with the reason why some of it is unavailable, if that is so."""
    out: List[Mapping] = []
    position = 0
    for m in mappings:
        reason = ""
        while position < len(segments) and segments[position].start < m.end:
            if segments[position].kind == UNAVAILABLE:
                reason = reason or segments[position].reason
            position += 1
        out.append(dataclasses.replace(m, unavailable=reason) if reason else m)
    return out


def _vvar(pieces: Sequence[Piece], vdso: int) -> set[int]:
    """Starts of the kernel's data pages, which lie read-only right below the vdso
    (arch/x86/entry/vdso/vma.c).  Newer kernels put pages of zeros for them into a core."""
    found: set[int] = set()
    at = {p[1]: p for p in pieces}
    below = vdso
    while below in at and len(found) < 4:
        start, _, load, where = at[below]
        if where is not None or load is None or load.prot != PROT_READ:
            break
        found.add(start)
        below = start
    return found


def _guess_prot(module: Optional[Module], where: Optional[FileRange], start: int) -> int:
    """Protection of a file mapping that has no PT_LOAD: as its program headers ask for,
    else read-only."""
    if module is None or module.image is None or where is None:
        return PROT_READ
    own = start - module.bias
    for s in module.image.loads:
        if page_floor(s.vaddr) <= own < page_ceil(s.vaddr + s.memsz):
            return prot_of(s.flags)
    return PROT_READ


def _segments(
    plan: Plan, piece: Piece, prot: int, module: Optional[Module], beside: Sequence[Piece]
) -> List[Segment]:
    """Where the bytes of one mapping lie; `beside`: its neighbours."""
    start, end, load, where = piece
    made: List[Segment] = []
    if load is not None:
        have = min(end, max(start, load.have_end))
        dumped = min(end, max(start, load.dumped_end))
        if start < have:
            at = load.offset + start - load.start
            made.append(Segment(start, have, prot, FILE, plan.dumped.core, at, at + have - start))
        if have < dumped:
            made.append(Segment(have, dumped, prot, UNAVAILABLE, reason=TRUNCATED))
        start = dumped
    if start == end:
        return made
    reason, unknown = _not_dumped(plan, piece, prot, module, beside)
    if reason:
        made.append(Segment(start, end, prot, UNAVAILABLE, reason=reason))
    elif where is None:
        made.append(Segment(start, end, prot, ZERO, unknown=unknown))
    else:
        for s in file_segments(module, where, start, end, prot):
            made.append(dataclasses.replace(s, unknown=unknown and s.kind == FILE))
    return made


def _not_dumped(
    plan: Plan, piece: Piece, prot: int, module: Optional[Module], beside: Sequence[Piece]
) -> Tuple[str, bool]:
    """Why memory that the core does not hold is not to be had, or ""; whether it is not known what
    it held.

    The kernel dumps a private mapping whole once it was written (fs/coredump.c, vma_dump_size:
    anon_vma), unless coredump_filter or MADV_DONTDUMP keep it out.  So what is not there was not
    written, or kept out; which of the two is known where the memory is part of what was written
    for sure: relocated by the dynamic linker, or one with its neighbour until madvise(2) parted
    them.  gcore leaves mappings out altogether (load None).
    """
    start, _, load, where = piece
    if where is None:
        if not plan.have_file_note:
            return NO_FILE_NOTE, False
        if plan.anonymous_left_out and prot:
            return NOT_DUMPED, False
        if _parted(piece, beside) and _in_bss(plan.modules, start):
            return KEPT_OUT, False
        return "", bool(prot)  # what cannot be accessed held nothing
    if not _image_is_writable(module, start):
        return "", plan.anonymous_left_out and bool(prot & PROT_WRITE)
    if load is None or module is None or module.image is None:
        return "", True
    linked = module.image.segment(PT_DYNAMIC) is not None
    if linked or plan.anonymous_left_out or _parted(piece, beside):
        return KEPT_OUT, False
    return "", True


def _image_is_writable(module: Optional[Module], address: int) -> bool:
    """Whether an object's program headers ask for writable memory there, be it so now or not."""
    if module is None or module.image is None:
        return False
    own = address - module.bias
    return any(
        s.flags & PF_W and page_floor(s.vaddr) <= own < page_ceil(s.vaddr + s.memsz)
        for s in module.image.loads
    )


def _in_bss(modules: Sequence[Module], address: int) -> bool:
    return any(m.image is not None and _image_is_writable(m, address) for m in modules)


def _parted(piece: Piece, beside: Sequence[Piece]) -> bool:
    """Whether a neighbour of the same kind was dumped: the kernel would have merged the two, were
    they not told apart on purpose (mm/vma.c)."""
    start, end, load, where = piece
    for other_start, other_end, other, its in beside:
        if other is None or load is None or other.prot != load.prot:
            continue
        touches = other_end == start or other_start == end
        same = (its is None) == (where is None) and (
            its is None or where is None or its.path == where.path
        )
        if touches and same and other.dumped_end > other.start:
            return True
    return False


def past_the_end(name: str) -> str:
    """Why a page of a mapping behind the end of its file cannot be had."""
    return f"past the end of {name} (SIGBUS in the live program)"


def file_segments(
    module: Optional[Module], where: FileRange, start: int, end: int, prot: int
) -> List[Segment]:
    """Where the bytes of `[start, end)`, mapped as `where` says, lie in the file."""
    made: List[Segment] = []
    if module is None or module.file is None:
        reason = module.reason if module else f"{printable(where.path)}: not found"
        made.append(Segment(start, end, prot, UNAVAILABLE, reason=reason))
        return made
    data = module.file.data
    offset = where.offset + start - where.start
    inside = min(end, start + page_ceil(max(0, len(data) - offset)))
    if start < inside:
        data_end = min(offset + inside - start, len(data))
        made.append(Segment(start, inside, prot, FILE, data, offset, data_end))
    if inside < end:
        reason = past_the_end(printable(module.file.path))
        made.append(Segment(inside, end, prot, UNAVAILABLE, reason=reason, beyond=True))
    return made

"""From PT_LOADs and NT_FILE to mappings and segments: where each recorded page's bytes lie."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import List, Optional, Sequence, Tuple

from gdb_uffd.arch import X86_64
from gdb_uffd.model import PAGE_SIZE, PROT_READ, Mapping, page_ceil, page_floor
from gdb_uffd.trace.elf import PF_R, PF_W, PF_X, PT_LOAD, ElfError, ProgramHeader
from gdb_uffd.trace.files import Module, printable
from gdb_uffd.trace.notes import FileRange
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO, Segment

NO_FILE_NOTE = "not in the core, which has no NT_FILE note to say what was there"
NOT_DUMPED = "not in the core: anonymous memory was left out when it was written (coredump_filter)"
TRUNCATED = "truncated core: the core file ends before this page"
NO_VVAR = "[vvar]: the kernel's clock pages are never recorded"


@dataclass(frozen=True)
class Load:
    """A PT_LOAD made safe: page-aligned `[start, end)`, user memory only.

    `[start, dumped_end)` was written to the core, at file `offset`; of it `[start, have_end)`
    really is in the core file (less when that is truncated).
    """

    start: int
    end: int
    prot: int
    offset: int
    dumped_end: int
    have_end: int


def prot_of(flags: int) -> int:
    """mmap(2) bits of p_flags (elf(5))."""
    return (1 if flags & PF_R else 0) | (2 if flags & PF_W else 0) | (4 if flags & PF_X else 0)


def make_loads(
    segments: Sequence[ProgramHeader],
    file_size: int,
    problems: List[str],
    user_end: int = X86_64.user_end,
) -> List[Load]:
    """PT_LOADs sorted and disjoint; overlapping ones give way to the lower (earlier) one.

    [vsyscall] and anything else beyond user memory is dropped: it cannot be mapped.
    """
    raw = [s for s in segments if s.type == PT_LOAD and s.memsz and s.vaddr < user_end]
    loads: List[Load] = []
    position = 0
    for s in sorted(raw, key=lambda s: s.vaddr):  # stable: ties keep the file's order
        start, end = page_ceil(s.vaddr), page_floor(min(s.vaddr + s.memsz, user_end))
        if start != s.vaddr or s.memsz % PAGE_SIZE:
            problems.append(f"PT_LOAD at {s.vaddr:#x} is not whole pages; cut to those that are")
        if start < position:
            problems.append(f"PT_LOADs overlap at {s.vaddr:#x}; the lower one counts")
            start = position
        if start >= end:
            continue
        dumped_end = max(start, min(end, page_floor(s.vaddr + s.filesz)))
        in_file = s.vaddr + max(0, file_size - s.offset)
        have_end = max(start, min(dumped_end, page_floor(in_file)))
        offset = s.offset + start - s.vaddr
        loads.append(Load(start, end, prot_of(s.flags), offset, dumped_end, have_end))
        position = end
    return loads


class Dumped:
    """The bytes that the core file itself holds, by address."""

    def __init__(self, core: mmap.mmap, loads: Sequence[Load]) -> None:
        self.core = core
        self.loads = loads
        self._starts = [load.start for load in loads]

    def load_at(self, address: int) -> Optional[Load]:
        """The PT_LOAD that contains `address`, dumped or not."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self.loads[index].end:
            return self.loads[index]
        return None

    def writable(self, address: int) -> bool:
        """Whether the mapping at `address` was recorded as writable."""
        load = self.load_at(address)
        return load is not None and bool(load.prot & 2)

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes (at most 1 MiB) at `address`; ElfError unless the core holds all."""
        if not 0 <= length <= 1 << 20:
            raise ElfError(f"{length} bytes at once")
        parts: List[bytes] = []
        while length > 0:
            load = self.load_at(address)
            if load is None or address >= load.have_end:
                raise ElfError(f"{address:#x} is not in the core")
            take = min(length, load.have_end - address)
            at = load.offset + address - load.start
            parts.append(self.core[at : at + take])
            address += take
            length -= take
        return b"".join(parts)


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
    for start, end, load, where in pieces:
        module = plan.owner.get(where.start) if where else None
        prot = load.prot if load else _guess_prot(module, where, start)
        if start in vvar:
            made = [Segment(start, end, prot, UNAVAILABLE, reason=NO_VVAR)]
        else:
            made = _segments(plan, start, end, prot, load, where, module)
        offset = where.offset + start - where.start if where else 0
        reason = next((s.reason for s in made if s.kind == UNAVAILABLE), "")
        name = "[vvar]" if start in vvar else ""
        if where is not None:
            name = printable(module.path if module is not None else where.path)
        mappings.append(Mapping(start, end, prot, name, offset, reason))
        segments.extend(made)
    return mappings, segments


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
    plan: Plan,
    start: int,
    end: int,
    prot: int,
    load: Optional[Load],
    where: Optional[FileRange],
    module: Optional[Module],
) -> List[Segment]:
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
    if where is None:
        if not plan.have_file_note:
            made.append(Segment(start, end, prot, UNAVAILABLE, reason=NO_FILE_NOTE))
        elif plan.anonymous_left_out and prot:
            made.append(Segment(start, end, prot, UNAVAILABLE, reason=NOT_DUMPED))
        else:
            made.append(Segment(start, end, prot, ZERO))
        return made
    return made + file_segments(module, where, start, end, prot)


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
        made.append(Segment(inside, end, prot, UNAVAILABLE, reason=reason))
    return made

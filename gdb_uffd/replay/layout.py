"""The address space as it is now: the recorded mappings, and what the calls made of them."""

from __future__ import annotations

import bisect
import itertools
import struct
from typing import Any, List, Optional, Sequence, Tuple

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import Mapping, MemoryUnavailable, page_ceil, page_floor
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.core.elf import PF_W
from gdb_uffd.trace.files.files import FileProblem, map_file
from gdb_uffd.trace.places import ARENA
from gdb_uffd.trace.source import AddressPlace


def current_mappings(vessel: Vessel) -> List[Mapping]:
    """Sorted; the room that is reserved for the stack's growth is left out."""
    recorded = vessel.snapshot.mappings
    starts = [m.start for m in recorded]
    pieces: List[Tuple[Optional[Mapping], Mapping]] = []
    for region in vessel.regions:
        if region.flags & lib.REGION_GROWTH:
            continue
        start, end = region.start, region.end
        if region.flags & lib.REGION_BORN:
            name, offset = born_file(region) or ("[heap]" if _in_heap(vessel, start) else "", 0)
            pieces.append((None, Mapping(start, end, region.prot, name, offset)))
            continue
        first = max(0, bisect.bisect_right(starts, start) - 1)
        for m in itertools.islice(recorded, first, None):
            if m.start >= end:
                break
            if m.end > start:
                piece = Mapping(
                    max(m.start, start), min(m.end, end), region.prot, m.name,
                    m.offset + max(0, start - m.start), m.unavailable,
                )  # fmt: skip
                pieces.append((m, piece))
    return merge_pieces(pieces)


def merge_pieces(pieces: Sequence[Tuple[Optional[Mapping], Mapping]]) -> List[Mapping]:
    """Pieces of one recorded mapping (given first; None: new) that touch are one again."""
    out: List[Mapping] = []
    before: Optional[Mapping] = None
    for origin, m in pieces:
        last = out[-1] if out else None
        joins = last is not None and last.end == m.start and last.prot == m.prot
        if last is not None and joins and origin is before and last.name == m.name:
            out[-1] = Mapping(last.start, m.end, m.prot, m.name, last.offset, m.unavailable)
        else:
            out.append(m)
        before = origin
    return out


def classify(vessel: Vessel, address: int) -> AddressPlace:
    """What the byte at `address` belongs to, be it recorded or mapped by a call."""
    region = vessel.regions.find(address)
    if region is None or not region.flags & (lib.REGION_BORN | lib.REGION_GROWTH):
        return vessel.snapshot.classify(address)
    if region.flags & lib.REGION_GROWTH:
        room = vessel.rooms.get(int(region.end))
        if room is not None and room.tid:
            return AddressPlace("stack", "[stack]", room.tid)
        return vessel.snapshot.classify(region.end)
    if _in_heap(vessel, address) or _in_new_arena(vessel, address):
        return AddressPlace("heap", "[heap]")
    name = _born_object(vessel, region, address)
    return AddressPlace("data", name) if name else AddressPlace("anonymous", "[anon]")


def born_file(region: Any) -> Optional[Tuple[str, int]]:
    """(path, offset) of the file that a call mapped there: we feed it from a mapping of ours."""
    at = int(ffi.cast("uintptr_t", region.bytes))
    if not at or not region.flags & lib.REGION_FILE:
        return None
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(None, 5)
            start, end = (int(text, 16) for text in fields[0].split("-"))
            if start <= at < end:
                return (fields[5], int(fields[2], 16) + at - start) if len(fields) > 5 else None
    return None


def mapped_files(vessel: Vessel) -> List[str]:
    """Paths of the files that the call in progress, or others with it, mapped."""
    if not vessel.regions.changed:
        return []
    found = (born_file(r) for r in vessel.regions if r.flags & lib.REGION_BORN)
    return list(dict.fromkeys(each[0] for each in found if each is not None))


def _born_object(vessel: Vessel, region: Any, address: int) -> str:
    """Of which file a call mapped the memory, or the zeros behind it (.bss); "" for none.  Found
    once for each region: a report asks for every page of it."""
    key = region.start, region.end, int(ffi.cast("uintptr_t", region.bytes))
    known = vessel.born.get(key)
    if known is None:
        known = vessel.born[key] = _find_object(vessel, region)
    name, end = known
    return name if address < end else ""


def _find_object(vessel: Vessel, region: Any) -> Tuple[str, int]:
    """The file, and up to where the region is its."""
    found = born_file(region)
    if found is not None:
        return found[0], region.end
    before = vessel.regions.find(region.start - 1)
    if before is None or not before.flags & lib.REGION_BORN:
        return "", 0
    found = born_file(before)
    if found is None:
        return "", 0
    name, offset = found
    offset += region.start - before.start - 1
    try:
        image = map_file(name).image
    except FileProblem:
        return "", 0
    for load in image.loads if image is not None else ():
        if load.flags & PF_W and page_floor(load.offset) <= offset < page_ceil(
            load.offset + load.filesz
        ):
            bias = region.start - 1 - (offset - load.offset + load.vaddr)
            return name, page_ceil(bias + load.vaddr + load.memsz)
    return "", 0


def _in_heap(vessel: Vessel, address: int) -> bool:
    start, now = vessel.save_brk()
    return start <= address < now


def _in_new_arena(vessel: Vessel, address: int) -> bool:
    """Whether a call made a heap of glibc's malloc there: struct heap_info {ar_ptr, prev,
    size, ...} at a 64 MiB boundary, its arena right behind (malloc/arena.c)."""
    base = address & ~(ARENA - 1)
    try:
        arena, previous, size = struct.unpack("<3Q", vessel.read(base, 24))
    except MemoryUnavailable:
        return False
    inside = base + 32 <= arena <= base + 256
    return inside and not previous and address < base + size <= base + ARENA

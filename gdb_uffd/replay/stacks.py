"""Room below the recorded stacks: where the kernel would let them grow, and where one is used up.

A stack overflow leaves no room for a call. The mapping is made longer then, downwards, in the
process that is made and nowhere else: to gdb, which pushes its frame at the stack pointer, it is
the thread's own stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

from gdb_uffd.model import PROT_WRITE, Mapping, page_ceil
from gdb_uffd.trace.source import Snapshot

LIMIT = 8 << 20
"""Bytes a main thread's stack may grow to: RLIMIT_STACK's usual soft limit (setrlimit(2)); the
recorded limit is not in a core. As many are given to a stack that is used up."""

GUARD = 1 << 20
"""Bytes that stay free between a growing stack and its neighbour (kernel: stack_guard_gap)."""

NEEDED = 1 << 14
"""Bytes that a call needs at least: with fewer (an eighth of a small stack) it is used up."""

GAP = 1 << 16
"""Bytes that stay free below a stack that was made longer, where its neighbour is near."""


@dataclass(frozen=True)
class Room:
    """[start, end) below the mapping that begins at `end`.  `tid`: of the thread whose stack is
    used up; 0: where it may grow anyway."""

    start: int
    end: int
    tid: int = 0


def rooms(snapshot: Snapshot) -> Dict[int, Room]:
    """By their ends."""
    mappings = snapshot.mappings
    out = {room.end: room for room in _growing(mappings)}
    for thread in snapshot.threads:
        index = _stack(mappings, thread.registers.sp)
        if index is None:
            continue
        stack = mappings[index]
        known = out.get(stack.start)
        low = known.start if known is not None else stack.start
        if thread.registers.sp - low >= min(NEEDED, (stack.end - stack.start) // 8):
            continue
        start = max(low - LIMIT, page_ceil(_neighbour(mappings, index) + GAP))
        if stack.start - start >= NEEDED:
            out[stack.start] = Room(start, stack.start, thread.tid)
    return out


def used_up(mappings: Sequence[Mapping], address: int) -> bool:
    """Whether nothing is mapped at `address` because a stack above it has ended."""
    index = _stack(mappings, address)
    return index is not None and address < mappings[index].start


def _growing(mappings: Sequence[Mapping]) -> List[Room]:
    previous_end = 0
    for mapping in mappings:
        if mapping.name == "[stack]" and not mapping.unavailable:
            start = max(mapping.end - LIMIT, page_ceil(previous_end + GUARD))
            return [Room(start, mapping.start)] if start < mapping.start else []
        previous_end = mapping.end
    return []


def _stack(mappings: Sequence[Mapping], sp: int) -> Optional[int]:
    """Index of the writable mapping that `sp` lies in, or that begins a little above it."""
    for index, mapping in enumerate(mappings):
        if mapping.end <= sp or not mapping.prot & PROT_WRITE:
            continue
        near = mapping.start - GUARD <= sp and not mapping.unavailable
        return index if near else None
    return None


def _neighbour(mappings: Sequence[Mapping], index: int) -> int:
    """Where the next mapping below ends that is no guard of this one."""
    start = mappings[index].start
    while index and mappings[index - 1].end == start:
        below = mappings[index - 1]
        if below.prot or below.end - below.start > GUARD:
            break
        start, index = below.start, index - 1
    return mappings[index - 1].end if index else 0

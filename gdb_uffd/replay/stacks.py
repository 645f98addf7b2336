"""Room for calls where a stack has none: where the kernel would let it grow, or it is used up.

A stack overflow leaves no room for a call. The mapping is made longer then, downwards, in the
process that is made and nowhere else: to gdb, which pushes its frame at the stack pointer, it is
the thread's own stack. Where a neighbour lies directly below, only the guard pages become such
room, enough for gdb's frame; the function itself then begins on a stretch elsewhere.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PROT_READ, PROT_WRITE, Mapping, page_ceil
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

PUSHED = 512
"""Bytes that gdb needs at least for its frame: the red zone's 128 (psABI 3.2.2), the breakpoint
that the function returns to, and alignment."""

NO_ROOM = (
    "a stack that is used up has no room for this call, nor is there enough below; select another "
    "thread"
)


@dataclass(frozen=True)
class Room:
    """[start, end) below the mapping that begins at `end`.  `tid`: of the thread whose stack is
    used up; 0: where it may grow anyway.  `top`: where the stack elsewhere ends on which a call
    begins that gdb prepared here; 0: here as well."""

    start: int
    end: int
    tid: int = 0
    prot: int = PROT_READ | PROT_WRITE
    top: int = 0


def rooms(snapshot: Snapshot) -> Dict[int, Room]:
    """By their ends."""
    mappings = snapshot.mappings
    out = {room.end: room for room in _growing(mappings)}
    crowded = []
    for thread in snapshot.threads:
        sp = thread.registers.sp
        index = _stack(mappings, sp)
        if index is None:
            continue
        stack = mappings[index]
        known = out.get(stack.start)
        low = known.start if known is not None else stack.start
        if sp - low >= min(NEEDED, (stack.end - stack.start) // 8):
            continue
        below = _neighbour(mappings, index)
        start = max(low - LIMIT, page_ceil(below + GAP))
        if stack.start - start >= NEEDED:
            out[stack.start] = Room(start, stack.start, thread.tid, stack.prot)
        elif below + PUSHED <= min(sp, stack.start):
            crowded.append((index, thread.tid, page_ceil(below)))
    for index, tid, below in crowded:
        stack = mappings[index]
        top = _elsewhere(mappings[: index + 1], out.values())
        if top:
            out[top] = Room(top - LIMIT, top, tid, stack.prot)
            out[stack.start] = Room(below, stack.start, tid, stack.prot, top)
    return out


def prepared_in(rooms: Dict[int, Room], address: int) -> Optional[Room]:
    """The guard pages that gdb pushes into at `address`, or would have, were they more."""
    for room in rooms.values():
        if room.top and room.start - GAP <= address < room.end:
            return room
    return None


def _elsewhere(mappings: Sequence[Mapping], rooms: Iterable[Room]) -> int:
    """Where a stretch of LIMIT free bytes ends, the highest below the last of `mappings`; 0: there
    is none."""
    taken = [(m.start, m.end) for m in mappings]
    taken += [(r.start, r.end) for r in rooms if r.end < mappings[-1].end]
    taken.sort(reverse=True)
    for (start, _), (_, below) in zip(taken, [*taken[1:], (0, GAP)]):
        if start - below >= LIMIT + 2 * GUARD:
            return start - GUARD & -GAP
    return 0


def used_up(mappings: Sequence[Mapping], address: int) -> bool:
    """Whether nothing is mapped at `address` because a stack above it has ended."""
    index = _stack(mappings, address)
    return index is not None and address < mappings[index].start


def _growing(mappings: Sequence[Mapping]) -> List[Room]:
    previous_end = 0
    for mapping in mappings:
        if mapping.name == "[stack]" and not mapping.unavailable:
            start = max(mapping.end - LIMIT, page_ceil(previous_end + GUARD))
            return [Room(start, mapping.start, prot=mapping.prot)] if start < mapping.start else []
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

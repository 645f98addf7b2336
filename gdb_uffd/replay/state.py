"""Registers, signal information and masks of the recorded threads, as they are in the diversion."""

from __future__ import annotations

from dataclasses import field
from typing import Dict, List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import lib
from gdb_uffd.protocol.model import Registers, page_ceil
from gdb_uffd.replay import stacks
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.source import Snapshot


@dataclass
class ThreadStates:
    """The recorded state, overlaid with what the diversion made of it.

    `loaded` is the thread that the vessel impersonates; while `fresh`, the vessel's registers are
    newer than ours.
    """

    snapshot: Snapshot
    vessel: Vessel
    changed: Dict[int, Registers] = field(default_factory=dict)
    siginfo: Dict[int, bytes] = field(default_factory=dict)
    sigmask: Dict[int, int] = field(default_factory=dict)  # where another than recorded
    loaded: Optional[int] = None
    fresh: bool = False

    def fetch(self) -> None:
        """Take over the vessel's registers if they are newer."""
        if self.fresh and self.loaded is not None and self.vessel.running:
            old = self.changed.get(self.loaded, self.snapshot.thread(self.loaded).registers)
            made = self.vessel.store(old.xfeatures, old.xstate)
            # Where a process must have another value than was recorded, it has not changed.
            for index, taken in enumerate(old.arch.loadable(old.gpr)):
                if made.gpr[index] == taken:
                    made.gpr[index] = old.gpr[index]
            self.changed[self.loaded] = made
            self.sigmask[self.loaded] = self.vessel.sigmask()
        self.fresh = False

    def get(self, tid: int) -> Registers:
        """KeyError for a thread that was not recorded."""
        if tid == self.loaded:
            self.fetch()
        found = self.changed.get(tid)
        return found if found is not None else self.snapshot.thread(tid).registers

    def put(self, tid: int, registers: Registers) -> None:
        """The vessel is told at the next resume."""
        self.snapshot.thread(tid)
        if tid == self.loaded:
            self.fetch()
            self.loaded = None
        self.changed[tid] = registers.copy()

    def with_room(self, tid: int, base: int) -> Registers:
        """The registers with which a call begins that gdb prepared below `base`: on another stack,
        with what gdb pushed, where the thread's is used up (stacks.py)."""
        registers = self.get(tid)
        room = stacks.prepared_in(self.vessel.rooms, registers.sp)
        if room is None:
            return registers
        end = base if registers.sp < base <= registers.sp + stacks.GAP else room.end
        pushed = self.vessel.read(registers.sp, end - registers.sp)
        moved = registers.copy()
        moved.gpr[registers.arch.sp] += room.top - page_ceil(end)
        self.vessel.write(moved.sp, pushed, lib.WRITER_GDB)
        self.put(tid, moved)
        return moved

    def load(self, tid: int) -> None:
        """Before a resume: the vessel becomes thread `tid`."""
        if self.loaded != tid:
            self.fetch()
            mask = self.sigmask.get(tid, self.snapshot.thread(tid).sigmask)
            self.vessel.load(tid, self.get(tid), mask)
            self.loaded = tid

    def forget_vessel(self) -> None:
        """The vessel went; its registers with it."""
        self.loaded, self.fresh = None, False

    def save(self) -> "SavedThreads":
        """For `restore`; Registers objects are never changed in place."""
        self.fetch()
        return SavedThreads(dict(self.changed), dict(self.siginfo), dict(self.sigmask))

    def mask_changed(self, tid: int, saved: "SavedThreads") -> bool:
        """Whether the thread blocks other signals than it did at `save`."""
        self.fetch()
        recorded = self.snapshot.thread(tid).sigmask if tid else 0
        return self.sigmask.get(tid, recorded) != saved.sigmask.get(tid, recorded)

    def changed_since(self, saved: "SavedThreads", tid: int) -> List[str]:
        """The general registers of a thread that differ from those at `save`: gdb takes its frames
        away, so that only what an expression assigned is left."""
        now = self.get(tid)
        before = saved.changed.get(tid) or self.snapshot.thread(tid).registers
        triples = enumerate(zip(now.arch.names, before.gpr, now.gpr))
        return [name for i, (name, old, new) in triples if old != new and i not in now.arch.pending]

    def restore(self, saved: "SavedThreads") -> None:
        """As `save` found it."""
        self.forget_vessel()
        self.changed, self.siginfo = dict(saved.changed), dict(saved.siginfo)
        self.sigmask = dict(saved.sigmask)

    def reset(self) -> None:
        """As recorded."""
        self.forget_vessel()
        self.changed.clear()
        self.siginfo.clear()
        self.sigmask.clear()


@dataclass(frozen=True)
class SavedThreads:
    """What a transaction restores when it is discarded."""

    changed: Dict[int, Registers]
    siginfo: Dict[int, bytes]
    sigmask: Dict[int, int]

"""Breakpoints and watchpoints: what gdb wants, and what is in the vessel.

Software breakpoints are instructions, put in at a resume and hidden from every read.  Hardware
ones use the processor's debug registers (native/kernel/arch.h).
"""

from __future__ import annotations

import errno
from dataclasses import field
from typing import Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.replay.agent import AgentError, Orders
from gdb_uffd.replay.interface import (
    ACCESS_WATCH,
    HARDWARE,
    READ_WATCH,
    SOFTWARE,
    WRITE_WATCH,
)
from gdb_uffd.replay.vessel import Vessel

SLOTS = lib.DEBUG_SLOTS
_KINDS = {
    HARDWARE: lib.DEBUG_EXECUTE,
    WRITE_WATCH: lib.DEBUG_WRITE,
    READ_WATCH: lib.DEBUG_READ,
    ACCESS_WATCH: lib.DEBUG_ACCESS,
}
_NAMES = {HARDWARE: "hwbreak", WRITE_WATCH: "watch", READ_WATCH: "rwatch", ACCESS_WATCH: "awatch"}

Slot = Tuple[int, int, int]
"""(kind, address, length) of one debug register."""


def pieces(address: int, length: int) -> List[Tuple[int, int]]:
    """Naturally aligned stretches of 1, 2, 4 or 8 bytes that cover the range."""
    out = []
    while length > 0:
        size = 8
        while size > length or address % size:
            size //= 2
        out.append((address, size))
        address += size
        length -= size
    return out


class Here:
    """Where the vessel stands: see agent.AgentTarget."""

    def __init__(self, vessel: Vessel, gpr: List[int]) -> None:
        self._arch, self._gpr = vessel.arch, gpr
        self.read = vessel.read

    def register(self, number: int) -> int:
        """By the target description's number."""
        name = self._arch.numbered[number] if number < len(self._arch.numbered) else ""
        if not name:
            raise AgentError(f"register {number} is not for expressions")
        return self._gpr[self._arch.gpr[name]]


@dataclass(frozen=True)
class Asked:
    """What gdb wants of one resume; see Breakpoints."""

    wanted: FrozenSet[int]
    hardware: Tuple[Slot, ...]
    orders: Tuple[Tuple[int, Orders], ...]
    calls: Optional[FrozenSet[int]]
    passes: FrozenSet[int]


@dataclass
class Breakpoints:
    """What gdb asked for.  `wanted`: software; `hardware`: (kind, address, length) requests.

    Where the recorded process had memory whose bytes are not to be had a breakpoint is accepted: no
    instruction can be run there, so it cannot be hit.  gdb puts some of its own into the dynamic
    linker and the C library before every call."""

    vessel: Vessel
    wanted: Set[int] = field(default_factory=set)
    inserted: Set[int] = field(default_factory=set)
    hardware: List[Slot] = field(default_factory=list)
    orders: Dict[int, Orders] = field(default_factory=dict)  # of software ones, by address
    calls: Optional[FrozenSet[int]] = None  # system calls that stop; empty: all of them
    passes: FrozenSet[int] = frozenset()  # signals that are delivered without a stop
    told: int = 0  # the software one that the last stop was told of, until gdb names it again
    _loaded: Optional[List[Slot]] = None
    _values: Dict[Slot, bytes] = field(default_factory=dict)

    def asked(self) -> Asked:
        """As gdb left it."""
        return Asked(
            frozenset(self.wanted), tuple(self.hardware), tuple(self.orders.items()), self.calls,
            self.passes,
        )  # fmt: skip

    def ask(self, asked: Asked) -> None:
        """The same once more."""
        self.wanted, self.hardware = set(asked.wanted), list(asked.hardware)
        self.orders, self.calls, self.passes = dict(asked.orders), asked.calls, asked.passes

    def insert(self, kind: int, address: int, length: int, orders: Optional[Orders] = None) -> None:
        """UffdError when nothing is mapped there, no debug register is left or the range makes no
        sense.  `orders` take the place of those given before; of a software breakpoint alone: gdb
        checks a condition itself as well."""
        if kind == SOFTWARE:
            if not self.vessel.regions.is_mapped(address):
                raise UffdError(f"no breakpoint can be set at {address:#x}: not mapped")
            self.wanted.add(address)
            self._named(address)
            self.orders.pop(address, None)
            if orders is not None:
                self.orders[address] = orders
            return
        if kind not in _KINDS or not 1 <= length <= 8 * SLOTS:
            raise UffdError(f"no such breakpoint: kind {kind}, {length} bytes")
        if address + length > lib.arch_user_end():
            raise UffdError(f"{address:#x} is not an address of the program")
        request = (kind, address, 1 if kind == HARDWARE else length)
        if request in self.hardware:
            return
        if not self.fit([*self.hardware, request]):
            raise UffdError("no debug register left: there are four, of up to 8 bytes each")
        self.hardware.append(request)

    def remove(self, kind: int, address: int, length: int) -> None:
        """What is not there is no error."""
        if kind == SOFTWARE:
            self.wanted.discard(address)
            self._named(address)
            self.orders.pop(address, None)
            return
        request = (kind, address, 1 if kind == HARDWARE else length)
        if request in self.hardware:
            self.hardware.remove(request)

    def _named(self, address: int) -> None:
        if address == self.told:
            self.told = 0

    def is_strange(self, pc: int) -> bool:
        """Whether the client, told of the breakpoint at `pc`, resumes there and has neither taken
        it out nor put it in again.  It does not know it, then: it would be told for ever."""
        told, self.told = self.told, 0
        return told != 0 and told == pc and told in self.inserted

    def forget_unmapped(self) -> List[int]:
        """Software breakpoints go with the memory they are in.  gdb does not take out those of a
        library that was unloaded (breakpoint.c, disable_breakpoints_in_unloaded_shlib)."""
        gone = [each for each in self.wanted if not self.vessel.regions.is_mapped(each)]
        for address in gone:
            self.remove(SOFTWARE, address, 1)
        return gone

    def catch_calls(self, calls: Optional[FrozenSet[int]]) -> None:
        """These system calls stop; empty: all of them; None: none."""
        self.calls = calls

    def pass_signals(self, signals: FrozenSet[int]) -> None:
        """These, by Linux's numbers, do not."""
        self.passes = signals

    @staticmethod
    def fit(requests: Sequence[Slot]) -> bool:
        """Whether the debug registers can hold all of `requests`."""
        return bool(len(Breakpoints._slots(requests)) <= SLOTS)

    @staticmethod
    def _slots(requests: Sequence[Slot]) -> List[Slot]:
        return [(kind, at, size) for kind, a, n in requests for at, size in pieces(a, n)]

    def forget_vessel(self) -> None:
        """The vessel went, and with it what was inserted."""
        self.inserted.clear()
        self._loaded = None

    def synchronise(self) -> None:
        """Before a resume: the vessel gets what is wanted and can be hit.  UffdError when that is
        too much."""
        pager = self.vessel.pager
        for address in self.inserted - self.wanted:
            lib.breakpoint_remove(pager, address)
            self.inserted.discard(address)
        for address in self.wanted - self.inserted:
            rc = lib.breakpoint_insert(pager, address)
            if rc == -errno.ENOSPC:
                raise UffdError(
                    f"no breakpoint can be set at {address:#x}: "
                    "too many breakpoints are inserted (1,024 can be)"
                )
            if rc == 0:
                self.inserted.add(address)
        self._catch()
        slots = self._slots(self.hardware)
        if slots or self._loaded:
            self._load(slots)
        for slot in slots:
            if slot[0] == READ_WATCH:
                self._values[slot] = self._value(slot)

    def _catch(self) -> None:
        native = self.vessel.native
        lib.catch_nothing(native)
        if self.calls is not None and not self.calls:
            lib.catch_everything(native)
        for number in self.calls or ():
            lib.catch_one(native, number)

    def _load(self, slots: List[Slot]) -> None:
        native, self._loaded = self.vessel.native, None  # until all of it holds
        wanted = ffi.new("struct debug_slot[]", len(slots))
        for to, (kind, address, length) in zip(wanted, slots):
            to.address, to.length, to.kind = address, length, _KINDS[kind]
        self.vessel.check(lib.task_set_debug(native, wanted, len(slots)))
        self._loaded = slots

    def _value(self, slot: Slot) -> bytes:
        try:
            return self.vessel.read(slot[1], slot[2])
        except MemoryUnavailable:
            return b""

    def hits(self, skip: int = 0, until: int = SLOTS) -> List[Slot]:
        """After a trap: what the debug registers that caused it hold, of those in [skip, until)."""
        status = self.vessel.check(lib.task_debug_hits(self.vessel.native))
        return [
            slot
            for number, slot in enumerate(self._loaded or [])
            if status >> number & 1 and skip <= number < until
        ]

    def hit(self, skip: int = 0) -> Optional[Tuple[str, int]]:
        """After a trap: ("watch" etc., watched address as gdb gave it); None when no debug
        register caused it.  ("", 0): a read watchpoint saw a write, to be ignored.
        `skip`: as many debug registers are somebody else's.

        x86 has no read-only watchpoint: R/W=3 traps on both, and a changed value tells a write,
        which another watchpoint at the same place may have been set for.
        """
        if not self._loaded:
            return None
        found = None
        for slot in self.hits(skip):
            kind, address, _ = slot
            if kind == READ_WATCH and self._value(slot) != self._values.get(slot):
                found = "", 0
                continue
            for wanted_kind, start, length in self.hardware:
                if wanted_kind == kind and start <= address < start + length:
                    return _NAMES[kind], start
        return found

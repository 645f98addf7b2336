"""Calls that the program has not made before, bound for a dynamic linker whose code is not here.

The first call through a PLT slot enters the linker (_dl_runtime_resolve), which looks the function
up, fills the slot and goes there.  Where the core's ld.so is another build than the one here, its
code is not to be had; what it would look up is, as far as the libraries are here.  So its work is
done in its place, and seen like its own: as a write of the slot.  The same where the linker is
here and a library is not whose tables it would have to read first, or this CPU has more registers
than the one that the program was started on: a breakpoint where its work begins tells
(jumps.plant).
"""

from __future__ import annotations

import functools
from typing import FrozenSet, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.native.cpu import HostCpu
from gdb_uffd.protocol.model import MemoryUnavailable, Registers, UffdError
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.binding import Linker, UnboundCall
from gdb_uffd.trace.core.facts import auxv_values
from gdb_uffd.trace.snapshot import AT_RANDOM
from gdb_uffd.trace.symbols import read_word


@dataclass(frozen=True)
class _Asked:
    """An indirect function was called to choose one: for `call`, from `registers`, and returns to
    `back` with the stack pointer `sp`."""

    call: UnboundCall
    registers: Registers
    back: int
    sp: int


class Lazy:
    """Of one vessel.  `lack`: what of the linker was needed and is missing, after `bind` gave
    None."""

    def __init__(self, vessel: Vessel) -> None:
        self.vessel = vessel
        self.lack = ""
        self._asked: Optional[_Asked] = None

    @functools.cached_property
    def _linker(self) -> Linker:
        snapshot = self.vessel.snapshot
        return Linker(snapshot.modules, snapshot.main, self.vessel.read, snapshot.arch)

    @functools.cached_property
    def entries(self) -> FrozenSet[int]:
        """Where the work of a linker that is here begins, if it may need what is not."""
        snapshot = self.vessel.snapshot
        if not self._overflows and all(m.file is not None for m in snapshot.modules):
            return frozenset()
        linker = Linker(snapshot.modules, snapshot.main, snapshot.read, snapshot.arch)
        if not self._overflows and all(m.file is not None for m in linker.order):
            return frozenset()
        return frozenset(linker.resolver(module) for module in linker.order) - {0}

    @functools.cached_property
    def _overflows(self) -> bool:
        """Whether the linker's entry would save more registers than it has room for: XSAVE writes
        all that this CPU has, and the room was measured on the one that it was started on
        (dl-trampoline.h, STATE_SAVE_MASK; sysdeps/x86/cpu-features.c, xsave_state_size)."""
        snapshot = self.vessel.snapshot
        saves = snapshot.arch.linker_saves
        here = HostCpu().xcr0() & saves if saves else 0
        return any(here & ~thread.registers.xfeatures for thread in snapshot.threads)

    def bind(self, registers: Registers) -> Optional[Registers]:
        """The thread stands at an instruction that is not to be had, or at one of `entries`: if
        that is where the linker's work begins, and it cannot do it itself, the registers with
        which it goes on, else None."""
        self.lack = ""
        asked, self._asked = self._asked, None
        arch = registers.arch
        pc, sp = registers.gpr[arch.pc], registers.gpr[arch.sp]
        if asked is not None and (asked.back, asked.sp) == (pc, sp):
            return self._go(asked.call, registers.gpr[arch.result], asked.registers)
        try:
            call = self._call(registers, pc, sp)
            if call is None:
                return self._instead(registers, pc, sp)
            name = call.name.decode("utf-8", "replace")
            self.lack = f"{name} is not bound yet, and cannot be found here"
            target = self._linker.target(call)
            if target is None or (self._is_here(pc) and not (target.past or self._overflows)):
                return None
            address = target.address
            if target.indirect:
                address = self._linker.chosen(target, call.name)
            if not address:
                return self._ask(call, target.address, registers)
            return self._go(call, address, registers)
        except MemoryUnavailable:
            return None

    def _call(self, registers: Registers, pc: int, sp: int) -> Optional[UnboundCall]:
        """The call that the linker is asked to bind: PLT0 has pushed the object and the call's
        number (psABI x86-64, "Procedure Linkage Table"), or the slot and the return."""
        first, second = (read_word(self.vessel.read, sp + i) for i in (0, 8))
        linker = self._linker
        if registers.arch.plt_pushes_slot:
            module = next((m for m in linker.order if m.holds(first)), None)
            index = linker.index_of_slot(module, first) if module is not None else -1
        else:
            module, index = linker.by_entry.get(first), second
        if module is None or linker.resolver(module) != pc:
            return None
        return linker.call(module, index)

    def _is_here(self, pc: int) -> bool:
        return pc in self.entries and not self.vessel.regions.why(pc)

    def _go(self, call: UnboundCall, address: int, registers: Registers) -> Registers:
        """The call is bound, and made."""
        word = ffi.new("uint64_t *", address)
        lib.user_store(
            self.vessel.pager, call.slot, word, 8
        )  # where it may not: bound next time too
        arch, made = registers.arch, registers.copy()
        sp = made.gpr[arch.sp]
        if arch.link is not None:
            made.gpr[arch.link] = read_word(self.vessel.read, sp + 8)
        made.gpr[arch.sp] = sp + 16
        made.gpr[arch.pc] = address
        self.lack = ""
        return made

    def _instead(self, registers: Registers, pc: int, sp: int) -> Optional[Registers]:
        """A function of the linker's own was called: it is done where what it does is nothing.

        __tunable_get_val calls back for a tunable that was set (elf/dl-tunables.c); malloc's first
        call asks for a dozen.
        """
        name = self._linker.bound_to(pc)
        if name:
            self.lack = f"{name.decode('utf-8', 'replace')} is called"
        if name != b"__tunable_get_val" or not self._nothing_is_tuned:
            return None
        arch, made = registers.arch, registers.copy()
        if arch.link is not None:
            made.gpr[arch.pc] = made.gpr[arch.link]
        else:
            made.gpr[arch.pc], made.gpr[arch.sp] = read_word(self.vessel.read, sp), sp + 8
        self.lack = ""
        return made

    @functools.cached_property
    def _nothing_is_tuned(self) -> bool:
        """Whether the program was started without GLIBC_TUNABLES: its strings lie between
        AT_RANDOM's bytes and the end of the stack (fs/binfmt_elf.c)."""
        snapshot = self.vessel.snapshot
        random = auxv_values(snapshot.auxv).get(AT_RANDOM, 0)
        stack = next((m for m in snapshot.mappings if m.start <= random < m.end), None)
        if stack is None:
            return False
        try:
            return b"\0GLIBC_TUNABLES=" not in snapshot.read(random, stack.end - random)
        except UffdError:
            return False

    def _ask(self, call: UnboundCall, chooser: int, registers: Registers) -> Optional[Registers]:
        """Lets the indirect function choose; it returns to where nothing can run, which is seen."""
        arch, made = registers.arch, registers.copy()
        if arch.plt_pushes_slot:
            return None  # it would want to be told of the processor
        back, sp = made.gpr[arch.pc], (made.gpr[arch.sp] & -16) - 8
        word = ffi.new("uint64_t *", back)
        if lib.user_store(self.vessel.pager, sp, word, 8) < 0:
            return None
        made.gpr[arch.sp], made.gpr[arch.pc] = sp, chooser
        self._asked = _Asked(call, registers, back, sp + 8)
        self.lack = ""
        return made

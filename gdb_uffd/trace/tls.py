"""Addresses of thread-local variables in a process that does not run.

glibc tells its layout through the _thread_db_* descriptors (nptl_db/structs.def), as libthread_db
uses them: each is {bits, elements, offset}, three 32-bit words.  In libc.so.6 since
glibc 2.34, in libpthread before.  The TCB and the dtv: psABI x86-64 and "ELF Handling For
Thread-Local Storage", 3.4.6 (variant II), 3.1 (variant I).
"""

from __future__ import annotations

import struct
from typing import Callable, List, Optional, Sequence

from gdb_uffd.arch import RECORDED, Architecture
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.trace.core.elf import PT_DYNAMIC
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import ReadMemory
from gdb_uffd.trace.symbols import read_word

UNALLOCATED = (1 << 64) - 1  # TLS_DTV_UNALLOCATED (glibc, elf/dl-tls.h)
MAX_MODULES = 1 << 16
MASK = (1 << 64) - 1


@dataclass(frozen=True)
class DescriptorField:
    """One _thread_db_* descriptor: a field of `size` bytes at `offset`."""

    size: int
    offset: int


class RecordedThreadLocals:
    """Resolves (thread, module, offset).  `symbol` and `recorded` are the snapshot's."""

    def __init__(
        self,
        symbol: Callable[[str], Optional[int]],
        recorded: ReadMemory,
        order: Sequence[Module],
        executable: Optional[Module],
        arch: Architecture = RECORDED,
    ) -> None:
        self._above = arch.tls  # variant I: blocks lie above the thread pointer
        self._symbol = symbol
        self._recorded = recorded
        self._order = order
        self._executable = executable

    def _field(self, name: str) -> Optional[DescriptorField]:
        address = self._symbol("_thread_db_" + name)
        if address is None:
            return None
        try:
            bits, _, offset = struct.unpack("<III", self._recorded(address, 12))
        except MemoryUnavailable:
            return None
        if bits % 8 or not 0 < bits <= 1024 or offset > 1 << 20:
            return None
        return DescriptorField(bits // 8, offset)

    def address(self, tid: int, offset: int, link_map: int, fs_base: int, read: ReadMemory) -> int:
        """Address of the thread-local at `offset` of the module of `link_map` (0: the
        executable).  UffdError when its block is not allocated or cannot be found."""
        if not fs_base:
            raise UffdError(f"thread {tid} has no thread-local storage (its fs_base is 0)")
        try:
            block = self._block(tid, link_map, fs_base, read)
        except MemoryUnavailable as error:
            raise UffdError(
                f"thread-local storage of thread {tid} cannot be read: {error}; "
                "a complete core is needed for it"
            ) from error
        return block + offset & MASK

    def _block(self, tid: int, link_map: int, fs_base: int, read: ReadMemory) -> int:
        modid_field = self._field("link_map_l_tls_modid")
        dtvp = self._field("pthread_dtvp")
        slots = self._field("dtv_dtv")
        value = self._field("dtv_t_pointer_val")
        if dtvp is None or slots is None or value is None or (link_map and modid_field is None):
            return self._without_descriptors(tid, link_map, fs_base, read)
        modid = 1
        if link_map and modid_field is not None:
            modid = read_word(read, link_map + modid_field.offset, min(modid_field.size, 8))
        if not 0 < modid <= MAX_MODULES:
            raise UffdError(f"the module at link_map {link_map:#x} has no thread-local storage")
        # In variant I the TCB, at the thread pointer, begins with it (glibc, tcbhead_t).
        dtv = read_word(read, fs_base + (0 if self._above else dtvp.offset))
        # dtv[-1].counter is the number of slots (glibc, sysdeps/generic/dl-dtv.h).
        if modid <= read_word(read, dtv - slots.size & MASK):
            slot = dtv + slots.offset + modid * slots.size + value.offset
            block = read_word(read, slot)
            if block not in (0, UNALLOCATED):
                return block
        return self._initial_exec(tid, link_map, fs_base, read)

    def _initial_exec(self, tid: int, link_map: int, fs_base: int, read: ReadMemory) -> int:
        """A block in the static area whose dtv slot is not set yet (set on first use)."""
        at = self._field("link_map_l_tls_offset")
        if link_map and at is not None:
            far = read_word(read, link_map + at.offset, min(at.size, 8))
            if far not in (0, UNALLOCATED):
                return fs_base + (far if self._above else -far) & MASK
        if not link_map:
            return self._static_block(fs_base)
        raise UffdError(
            f"thread {tid} has not allocated this module's thread-local storage yet "
            "(it is made when the thread first uses it); there is no value to show"
        )

    def _static_block(self, fs_base: int) -> int:
        """Module 1: right below the TCB, or above it, aligned (glibc csu/libc-tls.c)."""
        image = self._executable.image if self._executable else None
        size, align = image.tls_size() if image else (0, 1)
        if not size:
            raise UffdError(
                "the executable has no thread-local storage, or is not there to tell its "
                "size; name it: uffd spawn CORE EXECUTABLE"
            )
        if self._above:
            return fs_base + (self._above.tcb + align - 1) // align * align
        return fs_base - (size + align - 1) // align * align

    def _without_descriptors(self, tid: int, link_map: int, fs_base: int, read: ReadMemory) -> int:
        """A C library without descriptors: a static executable, or musl.

        musl (ldso/dynlink.c) numbers the modules with PT_TLS in link-map order from 1; its
        dtv has the count in slot 0 and block addresses after it, at fs_base + 8.
        """
        if not link_map:
            return self._static_block(fs_base)
        if self._above or not self._is_musl():
            raise UffdError(
                "thread-local storage: the C library has no _thread_db_ symbols "
                "(stripped static executable or an unknown C library); this variable "
                "cannot be located"
            )
        chain = self._chain_to(link_map, read)
        modid = sum(1 for entry in chain if self._has_tls(entry, read))
        dtv = read_word(read, fs_base + 8)
        if not 0 < modid <= min(read_word(read, dtv), MAX_MODULES):
            raise UffdError(
                f"thread {tid} has not allocated this module's thread-local storage; "
                "there is no value to show"
            )
        return read_word(read, dtv + 8 * modid)

    def _is_musl(self) -> bool:
        """Its one file is ld-musl-ARCH.so.1 or libc.musl-ARCH.so.1; Debian keeps it as
        /usr/lib/ARCH-linux-musl/libc.so, and ld-musl-ARCH.so.1 is a link there."""
        return any("musl" in part for m in self._order for part in m.path.split("/")[-2:])

    @staticmethod
    def _chain_to(link_map: int, read: ReadMemory) -> List[int]:
        """The link maps from the first one up to `link_map` (through l_prev, <link.h>)."""
        chain = [link_map]
        while len(chain) < MAX_MODULES:
            previous = read_word(read, chain[-1] + 32)
            if not previous:
                break
            chain.append(previous)
        return chain[::-1]

    def _has_tls(self, link_map: int, read: ReadMemory) -> bool:
        load, dynamic = read_word(read, link_map), read_word(read, link_map + 16)
        for module in self._order:
            if module.image is None or module.bias != load:
                continue
            own = module.image.segment(PT_DYNAMIC)
            if own is not None and own.vaddr + module.bias == dynamic:
                return module.image.tls_size()[0] > 0
        return False

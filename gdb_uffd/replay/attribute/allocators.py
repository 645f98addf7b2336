"""Whose malloc a program uses, and what is known of one that is not glibc's.

The linker takes the first `malloc` that it comes upon; so does this.  What it is, the names in that
file tell.
"""

from __future__ import annotations

import re
from typing import Optional, Tuple

from gdb_uffd.protocol.heap import Allocator
from gdb_uffd.protocol.model import PROT_WRITE, MemoryUnavailable
from gdb_uffd.replay.attribute import malloc
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import Snapshot

MARKS = (
    ("jemalloc", ("mallctl", "je_mallctl", "malloc_stats_print", "je_malloc_conf")),
    ("mimalloc", ("mi_version", "mi_malloc")),
    ("tcmalloc", ("tc_version", "tc_malloc", "TCMallocInternalMalloc")),
    ("AddressSanitizer", ("__asan_init",)),
    ("ThreadSanitizer", ("__tsan_init",)),
)
"""Names that an allocator's own headers declare (jemalloc(3), mimalloc.h, gperftools/tcmalloc.h),
and those by which a sanitizer's runtime is called."""

_GLIBC = re.compile(rb"GNU C Library .{0,80}?version (\d+\.\d+)")
VERSION_BYTES_MAX = 4 << 20


def recognise(snapshot: Snapshot) -> Allocator:
    """The allocator of the recorded process."""
    module = _module_of(snapshot, snapshot.symbol("malloc")) or snapshot.main
    if module is None:
        return Allocator("", "")
    mappings, size = _anonymous(snapshot)
    for name, marks in MARKS:
        if any(_has(module, mark) for mark in marks):
            return Allocator(name, module.path, "", mappings, size)
    base = module.path.rsplit("/", 1)[-1]
    if "musl" in module.path:
        return Allocator("musl", module.path, "", mappings, size)
    glibc = malloc.is_library(module.path) or module is snapshot.main
    version = _version(snapshot, module) if glibc else ""
    known = glibc and (version or base.startswith("libc"))
    return Allocator("glibc" if known else "", module.path, version, mappings, size)


def _module_of(snapshot: Snapshot, address: Optional[int]) -> Optional[Module]:
    return next((m for m in snapshot.modules if address is not None and m.holds(address)), None)


def _has(module: Module, name: str) -> bool:
    image, raw = module.image, name.encode()
    if image is None:
        return False
    try:
        return bool(image.dynamic_symbol(raw) or image.static_symbol(raw))
    except ElfError:
        return False


def _version(snapshot: Snapshot, module: Module) -> str:
    """ "2.36", as the C library says it of itself; "" where that cannot be read."""
    for mapping in snapshot.mappings:
        if mapping.name != module.path or mapping.prot & PROT_WRITE:
            continue
        size = min(mapping.end - mapping.start, VERSION_BYTES_MAX)
        try:
            found = _GLIBC.search(snapshot.read(mapping.start, size))
        except MemoryUnavailable:
            continue
        if found is not None:
            return found[1].decode("ascii")
    return ""


def _anonymous(snapshot: Snapshot) -> Tuple[int, int]:
    """How many anonymous writable mappings there are that no stack or thread-local takes, and their
    bytes."""
    found = [
        m.end - m.start
        for m in snapshot.mappings
        if m.name in ("", "[heap]")
        and m.prot & PROT_WRITE
        and snapshot.classify(m.start).kind in ("anonymous", "heap")
        and snapshot.classify(m.end - 1).kind in ("anonymous", "heap")
    ]
    return len(found), sum(found)

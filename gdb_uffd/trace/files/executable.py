"""Which mapped file is the executable, and that every mapped file is the right one."""

from __future__ import annotations

import os
from dataclasses import field
from typing import Callable, Dict, List, Mapping, Optional, Protocol, Sequence

from gdb_uffd.arch import Architecture
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError, page_ceil, page_floor
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.notes import FileRange, Notes
from gdb_uffd.trace.files.evidence import DEBUG_FILE, Pages
from gdb_uffd.trace.files.files import (
    FileCache,
    FileProblem,
    FileRef,
    MappedFile,
    Module,
    adopt,
    adopt_symbols,
    evidence,
    group,
    mismatch,
    resolve,
)
from gdb_uffd.trace.source import UNAVAILABLE, Segment

AT_PHDR, AT_PHNUM, AT_ENTRY = 3, 5, 9  # <elf.h>, getauxval(3)
OTHER_ENTRY = "has another entry point than the recorded one"
NAME_IT = "name the right one: uffd spawn CORE EXECUTABLE"


@dataclass
class Found:
    """The modules in order of address, the file ranges they consist of, the executable's."""

    modules: List[Module] = field(default_factory=list)
    ranges: List[FileRange] = field(default_factory=list)
    main: Optional[Module] = None


class Recorded(Protocol):
    """The memory that was recorded itself, not left to be found in files."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes; ElfError unless all were recorded."""
        ...

    def writable(self, address: int) -> bool:
        """Whether the mapping at `address` was recorded as writable."""
        ...


@dataclass(frozen=True)
class Identity:
    """What a trace knows of its files: `refs` by path; `stored` gives the copy that the trace
    itself holds of the file of a module, or None."""

    refs: Mapping[str, FileRef]
    stored: Callable[[Module], Optional[MappedFile]]


def find_modules(
    notes: Notes,
    cache: FileCache,
    dumped: Recorded,
    core_mtime_ns: int,
    named: Optional[str],
    identity: Optional[Identity] = None,
) -> Found:
    """Modules of the core, each with its file or the reason why it has none.

    `named`: the user's executable, or None.  UffdError when that cannot be opened, is none for the
    core's architecture, or is not the one that the core was made by.
    """
    chosen = _open_named(named, cache, notes.arch) if named else None
    ranges = list(notes.files or [])
    if not ranges and chosen is not None:
        ranges = _ranges_of(chosen, notes)
    found = Found(group(ranges, cache, dumped.read), ranges)
    for module in found.modules if identity is not None else ():
        module.ref = identity.refs.get(module.path) if identity is not None else None
        if module.ref is not None and module.ref.build_id:
            module.recorded_id = module.ref.build_id
    found.main = _main_module(found.modules, notes)
    if chosen is not None and chosen.build_id:
        # A program started as `ld.so PROGRAM` has the entry point of ld.so.
        same = [m for m in found.modules if m.recorded_id == chosen.build_id]
        found.main = same[0] if same else found.main
    if chosen is not None and found.main is None:
        raise UffdError(
            f"{printable(chosen.path)}: the core does not tell where its executable was "
            "mapped, so this cannot be checked against it; leave EXECUTABLE out: uffd spawn CORE "
            "(and unload a loaded one: `file`)"
        )
    for module in found.modules:
        pages = evidence(module, dumped.writable, dumped.read)
        if module is found.main and chosen is not None:
            only_symbols = _check_named(module, chosen, pages, core_mtime_ns, notes)
            resolve(module, cache, pages, core_mtime_ns, chosen.path)
            module.path = chosen.path
            if only_symbols:
                adopt_symbols(module, chosen)
        else:
            resolve(module, cache, pages, core_mtime_ns)
        if module.file is None and identity is not None:
            stored = identity.stored(module)
            if stored is not None:
                adopt(module, stored)
    return found


def _open_named(path: str, cache: FileCache, arch: Architecture) -> MappedFile:
    path = os.path.abspath(path)
    try:
        opened = cache.open(path)
    except FileProblem as problem:
        raise UffdError(f"{printable(path)}: {problem}; {NAME_IT}") from problem
    if opened.image is None or opened.image.header.machine != arch.machine:
        raise UffdError(f"{printable(path)}: not an {arch.spoken} executable; {NAME_IT}")
    return opened


def _check_named(
    module: Module, chosen: MappedFile, pages: Pages, core_mtime_ns: int, notes: Notes
) -> bool:
    """UffdError unless it is the executable, or (then True) the separate debug file of it."""
    problem = mismatch(module, chosen, pages, core_mtime_ns, named=True)
    if problem == DEBUG_FILE and module.recorded_id == chosen.build_id:
        return True
    image = chosen.image
    if not problem and image is not None:
        entry, count = notes.auxv_value(AT_ENTRY), notes.auxv_value(AT_PHNUM)
        if count is not None and count != image.header.phnum:
            problem = f"has {image.header.phnum} program headers, the recorded one has {count}"
        elif entry is not None and (entry - image.header.entry) % PAGE_SIZE:
            problem = OTHER_ENTRY
    if problem:
        raise UffdError(
            f"{printable(chosen.path)}: {problem} ({printable(module.path)}); {NAME_IT}"
        )
    return False


def _main_module(modules: Sequence[Module], notes: Notes) -> Optional[Module]:
    """The module that holds the entry point or the program headers, else the one named as
    the process was (NT_PRPSINFO keeps 15 characters)."""
    for kind in (AT_ENTRY, AT_PHDR):
        address = notes.auxv_value(kind)
        for module in modules:
            if address is not None and module.holds(address):
                return module
    for module in modules:
        if notes.name and os.path.basename(module.path)[:15] == notes.name:
            return module
    return None


def _ranges_of(chosen: MappedFile, notes: Notes) -> List[FileRange]:
    """File ranges of the named executable in a core without NT_FILE, from its program headers
    and AT_ENTRY; the kernel maps whole pages (fs/binfmt_elf.c, elf_map)."""
    entry, image = notes.auxv_value(AT_ENTRY), chosen.image
    if entry is None or image is None:
        return []
    if (entry - image.header.entry) % PAGE_SIZE:
        raise UffdError(f"{printable(chosen.path)}: {OTHER_ENTRY}; {NAME_IT}")
    bias = entry - image.header.entry
    ranges: List[FileRange] = []
    for s in image.loads:
        start, end = page_floor(bias + s.vaddr), page_ceil(bias + s.vaddr + s.filesz)
        if ranges:
            start = max(start, ranges[-1].end)
        if 0 < start < end <= notes.arch.user_end and s.filesz:
            skipped = start - page_floor(bias + s.vaddr)
            offset = page_floor(s.offset) + skipped
            ranges.append(FileRange(start, end, offset, chosen.path))
    return ranges


def how_to_get(module: Module, main: Optional[Module]) -> str:
    """What to do for the file of `module`, of which `reason` says that it is not to be had."""
    if module is main:
        return NAME_IT
    if module.recorded_id:
        return (
            f"put the file with build-id {module.recorded_id.hex()} there, or `set uffd files-from`"
            " (or `set sysroot`) to what has it, and spawn again; `uffd doctor CORE` tells more"
        )
    if module.is_memory:
        return "`echo 0x3b > /proc/PID/coredump_filter` before the next one keeps it"
    return "put the file that was mapped there and spawn again"


def file_warnings(found: Found, segments: Sequence[Segment]) -> List[str]:
    """One line for each file that memory is missing without, with the remedy."""
    missing: Dict[str, int] = {}
    for s in segments:
        if s.kind == UNAVAILABLE:
            missing[s.reason] = missing.get(s.reason, 0) + (s.end - s.start) // PAGE_SIZE
    lines: List[str] = []
    for module in found.modules:
        pages = missing.pop(module.reason, 0) if module.reason else 0
        if not pages:
            continue
        remedy = how_to_get(module, found.main)
        lines.append(f"{module.reason}; {pages} pages are unavailable; {remedy}")
    return lines

"""`doctor CORE`: for each file that a core needs, where it is, or what is there instead."""

from __future__ import annotations

import json
import os
from dataclasses import field
from typing import Dict, List, Optional, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.elf import PT_NOTE, ElfError, ElfImage, iter_notes
from gdb_uffd.trace.files import debug_files
from gdb_uffd.trace.files.files import FileProblem, Module, close_map, map_file
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.source import UNAVAILABLE, Snapshot

FOUND, UNNEEDED, MISSING, LEFT_OUT = "found", "not needed", "missing", "left out"
OTHER_BUILD, DEBUG_FILE, OTHER_BYTES = "other build", "debug file", "other bytes"

COMPLETE = (FOUND, UNNEEDED, LEFT_OUT)
"""States in which no file would help."""

FDO_PACKAGE, MAX_NOTES = 0xCAFE1A7E, 64 << 10
"""systemd.io, "Package Metadata for Executable Files": owner FDO, JSON."""


@dataclass
class FileState:
    """A file that was mapped.  `build_id` is the recorded one.  `there`: the file that was found,
    or that is in its place and cannot serve; `its_id`: that one's build-id.  `debug`: its separate
    debug file, "(own)" when it needs none, "" for none.  `pages`: unavailable ones.  `package`:
    what it says that it is part of."""

    path: str
    state: str
    build_id: str = ""
    there: str = ""
    its_id: str = ""
    reason: str = ""
    debug: str = ""
    pages: int = 0
    package: str = ""


@dataclass
class FilesVerdict:
    """`core` as the user calls it.  `advice`: what to do, a line each; none when all is there."""

    core: str
    files: List[FileState] = field(default_factory=list)
    advice: List[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether no file is missing that memory needs."""
        return all(f.state in COMPLETE for f in self.files)


def examine(snapshot: Snapshot, search: FileSearch, servers: Sequence[str] = ()) -> FilesVerdict:
    """What became of the files of `snapshot`, looked for with `search`.  `servers`: of debuginfod,
    that would be asked when it is opened."""
    pages: Dict[str, int] = {}
    for s in snapshot.segments:
        if s.kind == UNAVAILABLE:
            pages[s.reason] = pages.get(s.reason, 0) + (s.end - s.start) // PAGE_SIZE
    made = FilesVerdict(printable(snapshot.path))
    for module in snapshot.modules:
        made.files.append(_state(module, search, pages.get(module.reason, 0)))
    made.advice = _advice(made, servers)
    return made


def _state(module: Module, search: FileSearch, pages: int) -> FileState:
    build_id = module.recorded_id.hex()
    state = FileState(printable(module.path), MISSING, build_id, package=_package(module.image))
    if module.file is not None:
        state.state, state.there = FOUND, search.spoken(module.file.path)
        state.its_id = module.file.build_id.hex()
        state.debug = _debug(module, search)
        return state
    state.reason, state.pages = module.reason, pages
    if not pages:
        state.state = UNNEEDED
        return state
    if module.is_memory:
        state.state = LEFT_OUT
        return state
    for path in search.by_path(module.path):
        try:
            opened = map_file(path)
        except FileProblem:
            continue
        state.there, state.its_id = search.spoken(path), opened.build_id.hex()
        hollow = opened.image is not None and debug_files.is_debug_file(opened.image)
        same = bool(build_id) and state.its_id == build_id
        state.state = DEBUG_FILE if hollow else OTHER_BYTES if same else OTHER_BUILD
        close_map(opened.data)
        break
    return state


def _debug(module: Module, search: FileSearch) -> str:
    file = module.file
    if file is None or file.image is None or debug_files.has_lines(file.image):
        return "(own)"
    return search.spoken(debug_files.find(file, search) or "")


def _package(image: Optional[ElfImage]) -> str:
    """ "glibc 2.38-14.fc39 x86_64 (rpm)": the note that Fedora, Debian and others put into what
    they build."""
    for s in image.segments if image is not None else ():
        if image is None or s.type != PT_NOTE or not 0 < s.filesz <= MAX_NOTES:
            continue
        try:
            notes = image.read(s.vaddr, s.filesz)
        except ElfError:
            continue
        for owner, kind, at, length in iter_notes(notes, 0, len(notes)):
            if owner == b"FDO" and kind == FDO_PACKAGE:
                return _described(notes[at : at + length].rstrip(b"\0"))
    return ""


def _described(raw: bytes) -> str:
    try:
        told = json.loads(raw)
        words = [str(told[key]) for key in ("name", "version", "architecture") if told.get(key)]
        return printable(" ".join(words) + f" ({told.get('type', 'package')})")[:200]
    except (ValueError, AttributeError, KeyError, RecursionError):
        return ""


def _advice(verdict: FilesVerdict, servers: Sequence[str]) -> List[str]:
    lacking = [f for f in verdict.files if f.state not in COMPLETE]
    bare = [f for f in verdict.files if f.state == FOUND and not f.debug]
    core = verdict.core
    lines: List[str] = []
    if lacking:
        lines.append(f"on the machine where it crashed: gdb-uffd pack --debug {core}")
        lines.append(
            "with its files here: set uffd files-from PATH (a root, unpacked packages, a "
            "container's /proc/PID/root, an image of docker save)"
        )
    if lacking or bare:
        lines.append(_ask_servers(servers))
        ids = [f.build_id or f.its_id for f in [*lacking, *bare] if len(f.build_id or f.its_id) > 2]
        lines += _packages(lacking, bare, ids, core)
    return lines


def _ask_servers(servers: Sequence[str]) -> str:
    if servers:
        return f"debuginfod is asked when it is opened: {' '.join(map(printable, servers))}"
    return (
        "from debuginfod: set debuginfod urls URL (DEBUGINFOD_URLS; "
        "https://debuginfod.elfutils.org asks most distributions'), set debuginfod enabled on"
    )


def _packages(
    lacking: Sequence[FileState], bare: Sequence[FileState], ids: Sequence[str], core: str
) -> List[str]:
    named = list(dict.fromkeys(f.package for f in lacking if f.package))
    lines = [f"package of what is missing: {name}" for name in named]
    lines.append(
        f"packages by build-id, Debian and Ubuntu: find-dbgsym-packages {core} (of debian-goodies)"
    )
    folder = "/usr/lib/debug/.build-id" if bare and not lacking else "/usr/lib/.build-id"
    for each in list(dict.fromkeys(ids))[:4]:
        path = os.path.join(folder, each[:2], each[2:])
        lines.append(f"packages by build-id, Fedora and its kin: dnf provides {path}")
    return lines

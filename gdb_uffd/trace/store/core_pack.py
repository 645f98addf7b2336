"""`gdb-uffd pack CORE`: a core and the files that it needs elsewhere, as one file."""

from __future__ import annotations

import contextlib
import os
import tarfile
from contextlib import closing
from dataclasses import field
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable
from gdb_uffd.trace.core.core import CoreSnapshot
from gdb_uffd.trace.core.core_trace import CoreTrace
from gdb_uffd.trace.core.elf import Buffer
from gdb_uffd.trace.files import debug_files
from gdb_uffd.trace.files.files import FileProblem, Module, map_file, without_mark
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.source import UNAVAILABLE
from gdb_uffd.trace.store.core_packed import CORE, ROOT, VERSION
from gdb_uffd.trace.store.packed import BLOCK, CORE_MARK, Progress, write

SUFFIX = ".uffd.zst"
_PIECE = 1 << 20


@dataclass
class PackResult:
    """`path`: the file made; `size`: its bytes; `files`, `debug`: how many of each are in it.
    `missing`: (name, why) of each file that the core needs and that is not in it; `bare`: names of
    those whose debug file was wanted and not found; `files_read`: files whose bytes calls brought
    into the core before it was exported."""

    path: str
    size: int = 0
    files: int = 0
    debug: int = 0
    missing: List[Tuple[str, str]] = field(default_factory=list)
    bare: List[str] = field(default_factory=list)
    files_read: Sequence[str] = ()


def default_name(core: str) -> str:
    """CORE.uffd.zst beside the core, without the ending of its compression."""
    base, dot, end = core.rpartition(".")
    return (base if dot and end in ("zst", "gz", "xz", "lz4") else core) + SUFFIX


def pack_core(
    core: str,
    path: str,
    *,
    executable: Optional[str] = None,
    search: Optional[FileSearch] = None,
    debug: bool = False,
    progress: Optional[Progress] = None,
) -> PackResult:
    """Write the one file `path` (which must not exist, mode 0600, complete or not at all) of `core`
    and its executable and libraries, found and checked as when it is opened; `debug`: their
    separate debug files, too.  `progress` is called with bytes done and in all, before
    compression.  UffdError.
    """
    shown = printable(path)
    if os.path.lexists(path):
        raise UffdError(f"{shown}: exists already; remove it or choose another name")
    search = search or FileSearch()
    done = PackResult(path)
    with contextlib.ExitStack() as stack:
        trace = stack.enter_context(closing(CoreTrace(core, executable, search)))
        opened = stack.enter_context(closing(trace.snapshot(0)))
        done.files_read = opened.files_read
        content = _content(opened, search, debug, done)
        try:
            total = sum(len(data) for data, _ in content.values())
            done.size = write(path, _archive(content), total, progress)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UffdError(
                f"{shown}: cannot be written ({reason}); nothing is left of it; -o FILE names "
                "another place"
            ) from error
    return done


_Content = Dict[str, Tuple[Buffer, int]]
"""Bytes and time of change of each member, by its name."""


def _content(snapshot: CoreSnapshot, search: FileSearch, debug: bool, done: PackResult) -> _Content:
    content: _Content = {CORE: (snapshot.core, snapshot.recorded_ns)}
    needed = {s.reason for s in snapshot.segments if s.kind == UNAVAILABLE}
    for module in snapshot.modules:
        path = _recorded(module)
        if module.file is None:
            if module.reason in needed:
                done.missing.append((os.path.basename(path), module.reason))
            continue
        name = ROOT + os.path.normpath(path)
        if name in content and content[name][0] is not module.file.data:  # another build of it
            name = _by_build_id("usr/lib", module.file.build_id, "")
        if name not in content:
            content[name] = module.file.data, module.file.mtime_ns
            done.files += 1
        if debug and module.file.image is not None:
            _add_debug(content, module, search, done)
    return content


def _recorded(module: Module) -> str:
    """The path that was mapped, also of an executable that the user named."""
    path = module.ranges[0].path if module.ranges else module.path
    return without_mark(path)


def _by_build_id(folder: str, build_id: bytes, end: str) -> str:
    name = build_id.hex()
    return f"{ROOT}/{folder}/.build-id/{name[:2]}/{name[2:]}{end}"


def _add_debug(content: _Content, module: Module, search: FileSearch, done: PackResult) -> None:
    """The separate debug file, if there is to be one, and the one that it shares with others."""
    assert module.file is not None and module.file.image is not None
    if debug_files.has_lines(module.file.image):
        return
    found = debug_files.find(module.file, search, fetch=True)
    if found is None:
        done.bare.append(os.path.basename(_recorded(module)))
        return
    folder = debug_files.FOLDER
    if module.file.build_id:
        name = _by_build_id(folder, module.file.build_id, ".debug")
    else:  # gdb looks for it by the path of the file and the name in it
        link, _ = debug_files.debug_link(module.file.image)
        name = f"{ROOT}/{folder}{os.path.dirname(_recorded(module))}/{link}"
    more = debug_files.find_alternative(found, search, fetch=True)
    shared = debug_files.build_id_at(more) if more is not None else b""
    for path, target in ((found, name), (more, _by_build_id(folder, shared, ".debug"))):
        if path is None or target in content:
            continue
        try:
            opened = map_file(path)
        except FileProblem:
            continue
        content[target] = opened.data, opened.mtime_ns
        done.debug += 1


def _archive(content: _Content) -> Iterator[bytes]:
    version = str(VERSION).encode()
    yield _header(CORE_MARK, len(version), 0) + version.ljust(BLOCK, b"\0")
    for name, (data, mtime_ns) in content.items():
        yield _header(name, len(data), mtime_ns)
        for at in range(0, len(data), _PIECE):
            yield data[at : at + _PIECE]
        yield bytes(-len(data) % BLOCK)
    yield bytes(2 * BLOCK)  # the end (POSIX.1, pax)


def _header(name: str, size: int, mtime_ns: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, mtime_ns // 10**9
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

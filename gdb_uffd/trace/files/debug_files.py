"""Separate debug files: gdb manual, "Separate Debug Files"; their supplements that dwz(1) makes of
several (DWARF 5, 7.3.6, as GNU's .gnu_debugaltlink)."""

from __future__ import annotations

import itertools
import os
import zlib
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

from gdb_uffd.trace.core.elf import Buffer, ElfError, ElfImage, slice_exact
from gdb_uffd.trace.files.automount import is_file
from gdb_uffd.trace.files.files import FileProblem, MappedFile, close_map, map_file
from gdb_uffd.trace.files.folder import build_id_of
from gdb_uffd.trace.files.search import FileSearch

SHT_SYMTAB, SHT_NOBITS = 2, 8
SHF_ALLOC, SHF_EXECINSTR = 2, 4
MAX_NAMES = 1 << 16  # bytes of the sections' names
MAX_LINK = 4096  # bytes of a section that names a file
FOLDER = "usr/lib/debug"
"""Where Debian and Fedora install them."""


def sections(image: ElfImage) -> Dict[bytes, Tuple[int, ...]]:
    """Section headers (Elf64_Shdr) by name; none of an image from memory, or a damaged one."""
    if image.data is None:
        return {}
    try:
        headers = image.section_headers()
        names = headers[int.from_bytes(slice_exact(image.data, 62, 2), "little")]  # e_shstrndx
        table = slice_exact(image.data, names[4], min(names[5], MAX_NAMES))
        return {table[h[0] :].split(b"\0", 1)[0][:64]: h for h in headers if h[0] < len(table)}
    except (ElfError, IndexError):
        return {}


def section(image: ElfImage, name: bytes) -> bytes:
    """The bytes of the section of that name, at most MAX_LINK; b"" where there is none."""
    header = sections(image).get(name)
    if header is None or image.data is None or header[5] > MAX_LINK:
        return b""
    try:
        return slice_exact(image.data, header[4], header[5])
    except ElfError:
        return b""


def is_debug_file(image: ElfImage) -> bool:
    """Whether it has symbols and none of the code."""
    headers = list(sections(image).values())
    code = [h for h in headers if h[2] & SHF_ALLOC and h[2] & SHF_EXECINSTR]
    symbols = has_lines(image) or any(h[1] == SHT_SYMTAB for h in headers)
    return symbols and all(h[1] == SHT_NOBITS for h in code)


def has_lines(image: ElfImage) -> bool:
    """Whether it needs no separate debug file."""
    return bool(sections(image).keys() & {b".debug_info", b".zdebug_info"})


def debug_link(image: ElfImage) -> Tuple[str, int]:
    """(name, CRC-32) that .gnu_debuglink has; ("", 0)."""
    raw = section(image, b".gnu_debuglink")
    name = raw.split(b"\0")[0]
    if not name or b"/" in name or len(raw) < len(name) + 5:
        return "", 0
    return os.fsdecode(name), int.from_bytes(raw[-4:], "little")


def alternative(image: ElfImage) -> Tuple[str, bytes]:
    """(path, build-id) that .gnu_debugaltlink has; ("", b"")."""
    raw = section(image, b".gnu_debugaltlink")
    name, _, build_id = raw.partition(b"\0")
    return os.fsdecode(name), build_id if 0 < len(build_id) <= 64 else b""


def find(file: MappedFile, search: FileSearch, fetch: bool = False) -> Optional[str]:
    """The path of the separate debug file of `file`, None where it is not to be had.  `fetch`: ask
    debuginfod servers, too."""
    if file.image is None:
        return None
    if file.build_id:
        for path in search.debug_files(file.build_id, fetch):
            if _is(path, file.build_id):
                return path
    name, crc = debug_link(file.image)
    for path in _beside(file.path, name, search.debug_directories) if name else ():
        if is_file(path) and _matches(path, file.build_id, crc):
            return path
    return None


def find_alternative(debug: str, search: FileSearch, fetch: bool = False) -> Optional[str]:
    """The path of the supplement that the debug file `debug` refers to, None for none."""
    try:
        opened = map_file(debug)
    except FileProblem:
        return None
    name, build_id = alternative(opened.image) if opened.image is not None else ("", b"")
    close_map(opened.data)
    if not build_id:
        return None
    beside = os.path.normpath(os.path.join(os.path.dirname(os.path.realpath(debug)), name))
    found = itertools.chain((beside,), search.debug_files(build_id, fetch))
    return next((path for path in found if build_id_at(path) == build_id), None)


def _beside(path: str, name: str, directories: Sequence[str]) -> Iterator[str]:
    """gdb's order (symfile.c, find_separate_debug_file)."""
    folder = os.path.dirname(os.path.realpath(path))
    yield os.path.join(folder, name)
    yield os.path.join(folder, ".debug", name)
    for directory in directories:
        yield os.path.join(os.path.abspath(directory) + folder, name)


def _is(path: str, build_id: bytes) -> bool:
    return _check(path, lambda data, image: is_debug_file(image) and build_id_of(data) == build_id)


def _matches(path: str, build_id: bytes, crc: int) -> bool:
    def same(data: Buffer, image: ElfImage) -> bool:
        found = build_id_of(data)
        if found and build_id:
            return found == build_id
        return zlib.crc32(data) == crc

    return _check(path, same)


def build_id_at(path: str) -> bytes:
    """The build-id of the file `path`; b"" for none."""
    found = b""

    def look(data: Buffer, _image: ElfImage) -> bool:
        nonlocal found
        found = build_id_of(data)
        return True

    _check(path, look)
    return found


def _check(path: str, look: Callable[[Buffer, ElfImage], bool]) -> bool:
    try:
        opened = map_file(path)
    except FileProblem:
        return False
    try:
        return opened.image is not None and look(opened.data, opened.image)
    except ElfError:
        return False
    finally:
        close_map(opened.data)

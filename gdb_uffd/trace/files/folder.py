"""A folder in which files of the recorded machine are looked for (`set uffd files-from`): a root
file system, packages unpacked beside each other, or libraries in a heap.

Links of a root are followed as inside of it, never out of it; those of any other folder are the
user's own.  The folder's own name is not resolved:
/proc/PID/root reads as a link to "/", and is another root all the same.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from typing import Callable, Deque, Dict, Iterator, List, Optional, Set, Tuple

from gdb_uffd.trace.core.elf import (
    NT_GNU_BUILD_ID,
    Buffer,
    ElfError,
    ElfImage,
    iter_notes,
    slice_exact,
)
from gdb_uffd.trace.files.automount import is_file, is_folder, is_there, may_look

MAX_PACKAGES = 4096
"""Folders beside each other in which a path is tried."""
MAX_FILES = 500_000
SECONDS = 3.0
"""How long a folder is walked through for names, and then its files looked into for build-ids."""
LATE = frozenset(
    ("share", "include", "src", "doc", "man", "locale", "proc", "sys", "dev", "run", "tmp", "var")
    + ("home", "root", "etc", "boot", "node_modules", "__pycache__", ".git", ".cache")
)
"""Folders that are walked through last: they seldom hold objects."""
MAX_LINKS = 40  # path_resolution(7): "the limit is 40"
START = 1 << 16
"""Bytes at a file's start that mostly hold its build-id."""
SHT_NOTE = 7
DEBUG = ".debug"
"""How the names of separate debug files end."""

BUILD_ID_FOLDERS = ("usr/lib/debug/.build-id", "usr/lib/.build-id", ".build-id")
"""Debian's and Fedora's debug files; Fedora's programs and libraries; gdb manual, "Separate Debug
Files", for the third."""


def links(build_id: bytes, end: str) -> List[str]:
    """Paths of the links that name a file (`end` DEBUG: its debug file) by its build-id."""
    name = build_id.hex()
    return [f"/{folder}/{name[:2]}/{name[2:]}{end}" for folder in BUILD_ID_FOLDERS]


def twins(path: str) -> Tuple[str, ...]:
    """`path`, and as it is called where /lib, /bin and so on are (or are no) links into /usr:
    packages from before that merge have their files in the other place."""
    if path.startswith("/usr/"):
        return path, path[len("/usr") :]
    return path, "/usr" + path


def build_id_of(data: Buffer) -> bytes:
    """The build-id of the object whose file is, or begins with, `data`; b"" for anything else.

    The program headers of a separate debug file may tell of places that it does not have: then
    its sections do.
    """
    try:
        image = ElfImage.from_file(data)
        found = image.build_id()
        return found or _in_sections(image, data)
    except (ElfError, ValueError):
        return b""


def _in_sections(image: ElfImage, data: Buffer) -> bytes:
    for section in image.section_headers():
        if section[1] == SHT_NOTE and 0 < section[5] <= START:
            notes = slice_exact(data, section[4], section[5])
            for owner, kind, offset, length in iter_notes(notes, 0, len(notes)):
                if owner == b"GNU" and kind == NT_GNU_BUILD_ID and 0 < length <= 64:
                    return notes[offset : offset + length]
    return b""


def below(root: str, path: str) -> Optional[str]:
    """Where `path` leads in `root`, links followed as inside of it; None where it leads nowhere."""
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    here: List[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            here[-1:] = []
            continue
        place = "/".join([root, *here, part])
        try:
            if not may_look(place):
                return None
            link = os.readlink(place) if os.path.islink(place) else None
        except (OSError, ValueError):
            return None
        if link is None:
            here.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        if link.startswith("/"):
            here = []
        waiting += [p for p in reversed(link.split("/")) if p not in ("", ".")]
    place = "/".join([root, *here])
    return place if is_there(place) else None


class Folder:
    """files_from.FilesPlace over a folder."""

    problem = copies = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self._root = name.rstrip("/")
        self._is_root = any(is_folder(f"{self._root}/{each}") for each in ("usr", "lib"))
        self._packages: Optional[List[str]] = None
        self._index: Optional[FileIndex] = None

    def by_path(self, path: str) -> Iterator[str]:
        """Files that may be the one with that path: below the folder, below each folder in it,
        and wherever one has its name."""
        for root in (self._root, *self._beside()):
            for each in twins(path):
                yield from self._at(root, each)
        yield from self._indexed().named(os.path.basename(path))

    def by_build_id(self, build_id: bytes) -> Iterator[str]:
        """Files that should have it."""
        yield from self._identified(build_id, "")

    def debug_files(self, build_id: bytes) -> Iterator[str]:
        """Files that may be the separate debug file of what has that build-id."""
        yield from self._identified(build_id, DEBUG)

    def _identified(self, build_id: bytes, end: str) -> Iterator[str]:
        for path in links(build_id, end):
            yield from self._at(self._root, path)
        # A root file system has its debug files where the links above lead.
        if end != DEBUG or not is_folder(self._root + "/usr/lib"):
            yield from self._indexed().identified(build_id, end)
            self._note_cut()

    def _at(self, root: str, path: str) -> Iterator[str]:
        """The file at `path` below `root`."""
        found = below(root, path)
        if found is None and not self._is_root and root == self._root and ".." not in path:
            found = root + path
        if found is not None and is_file(found):
            yield found

    def _beside(self) -> List[str]:
        if self._packages is None:
            self._packages = []
            with contextlib.suppress(OSError), os.scandir(self._root or "/") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and len(self._packages) < MAX_PACKAGES:
                        self._packages.append(entry.path)
        return self._packages

    def _indexed(self) -> "FileIndex":
        if self._index is None:
            self._index = FileIndex(_files(self._root or "/", not self._is_root), _start_of)
            self._note_cut()
        return self._index

    def _note_cut(self) -> None:
        if self._index is not None and self._index.cut:
            self.problem = "is too large to look into all of its files; name the folder that counts"

    def close(self) -> None:
        """Nothing was opened."""


class FileIndex:
    """Files by their last name, and (made when it is asked for) by build-id.  `read` gives a file
    as bytes: its start first, then all of it."""

    def __init__(self, files: Iterator[str], read: Callable[[str, int], Optional[Buffer]]) -> None:
        self._read = read
        self._names: Dict[str, List[str]] = {}
        self._ids: Dict[bytes, List[str]] = {}
        self._done: Set[str] = set()  # ends of names that were looked for
        self.cut = False
        until = time.monotonic() + SECONDS
        for number, path in enumerate(files):
            if number >= MAX_FILES or (number % 256 == 0 and time.monotonic() > until):
                self.cut = True
                break
            self._names.setdefault(path.rpartition("/")[2], []).append(path)

    def named(self, name: str) -> List[str]:
        """Files with that last name."""
        return self._names.get(name, [])

    def identified(self, build_id: bytes, end: str) -> List[str]:
        """Files with that build-id, whose names have that end."""
        if end not in self._done:
            self._done.add(end)
            until = time.monotonic() + SECONDS
            wanted = [path for name, paths in self._names.items() for path in paths
                      if name.endswith(end)]  # fmt: skip
            for path in sorted(wanted, key=_unlikely):
                found = self._identify(path)
                if found and path not in self._ids.setdefault(found, []):
                    self._ids[found].append(path)
                if time.monotonic() > until:
                    self.cut = True
                    break
        return [path for path in self._ids.get(build_id, ()) if path.endswith(end)]

    def _identify(self, path: str) -> bytes:
        start = self._read(path, START)
        if start is None or bytes(start[:4]) != b"\x7fELF":
            return b""
        found = build_id_of(start)
        if not found and len(start) == START:
            whole = self._read(path, -1)
            found = build_id_of(whole) if whole is not None else b""
        return found


def _unlikely(path: str) -> int:
    """Libraries come first, then what has no ending, as programs have not."""
    name = path.rpartition("/")[2]
    return 0 if ".so" in name else 1 if "." not in name or name.endswith(DEBUG) else 2


def _start_of(path: str, length: int) -> Optional[bytes]:
    """`length` bytes of a regular file, all for -1 up to a bound; None where it cannot be read."""
    try:
        if not may_look(path) or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(length if length >= 0 else 1 << 30)
    except (OSError, ValueError):
        return None


def _files(root: str, links: bool) -> Iterator[str]:
    """Regular files below `root`, those of other file systems (/proc, /sys) left out; `links`: and
    links to files."""
    waiting: Deque[str] = deque([root])
    late: Deque[str] = deque()
    try:
        device = os.stat(root).st_dev
    except OSError:
        return
    while waiting or late:
        folder = (waiting or late).popleft()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.stat(follow_symlinks=False).st_dev == device:
                            (late if entry.name in LATE else waiting).append(entry.path)
                    elif entry.is_symlink():
                        if links and is_file(entry.path):
                            yield entry.path
                    elif entry.is_file():
                        yield entry.path
        except OSError:
            continue  # not ours to read

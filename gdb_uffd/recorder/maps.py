"""/proc/PID/maps, and how the pages of each mapping are to be recorded."""

from __future__ import annotations

import os
import re
from typing import List, Optional, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import lib
from gdb_uffd.protocol.model import PROT_EXEC, PROT_READ, PROT_WRITE, Mapping

ANONYMOUS: int = lib.RECORD_ANONYMOUS
FILE: int = lib.RECORD_FILE
WHOLE: int = lib.RECORD_WHOLE
SHARED: int = lib.RECORD_SHARED
SHARED_WHOLE: int = lib.RECORD_SHARED_WHOLE
FRESH: int = lib.RECORD_FRESH

DEVICE = "a device's memory, which is not read"
NO_VVAR = "[vvar]: the kernel's clock pages are never recorded"
LARGE_SHARED = (
    "shared memory of more than 16 MiB: only what the process had touched itself was recorded"
)
WHOLE_SHARED_BYTES = 16 << 20
"""A shared mapping up to this size is read whole: pages that the process has not touched yet
may hold what others wrote."""

_DELETED = b" (deleted)"
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MEMORY = (b"/dev/zero", b"/dev/shm/", b"/dev/hugepages/", b"/dev/ashmem")
_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)"
)


@dataclass(frozen=True)
class Line:
    """One line: `[start, end)`, `perms` as "rw-p", the file's offset, device and inode (0: none).

    `name` is the path without the mark of a deleted file, or a bracketed name, or "".
    """

    start: int
    end: int
    perms: str
    offset: int
    device: int
    inode: int
    name: str
    deleted: bool = False

    @property
    def shared(self) -> bool:
        """Whether it was made with MAP_SHARED."""
        return self.perms[3:] == "s"

    @property
    def prot(self) -> int:
        """mmap(2) protection bits."""
        bits = (("r", PROT_READ), ("w", PROT_WRITE), ("x", PROT_EXEC))
        return sum(bit for letter, bit in bits if letter in self.perms[:3])

    @property
    def of_file(self) -> bool:
        """Whether its bytes come from a file of a file system."""
        return self.inode != 0 and self.name.startswith("/") and not self.of_zeros

    @property
    def of_zeros(self) -> bool:
        """Whether a private page of it that was not written is zeros."""
        return self.inode == 0 or self.name in ("/dev/zero", "/anon_hugepage")

    @property
    def of_device(self) -> bool:
        """Whether reading it could reach a device, or what only looks like memory."""
        path = os.fsencode(self.name)
        if path.startswith(b"/dev/"):
            return not path.startswith(_MEMORY)
        return path.startswith(b"anon_inode:")


def parse(text: bytes) -> List[Line]:
    """The lines of proc_pid_maps(5), sorted; [vsyscall] is left out: it is no user memory."""
    lines = []
    for raw in text.split(b"\n"):
        match = _LINE.fullmatch(raw)
        if match is None:
            continue
        start, end, perms, offset, major, minor, inode, name = match.groups()
        if name == b"[vsyscall]":
            continue
        deleted = int(inode) != 0 and name.endswith(_DELETED)
        if deleted:
            name = name[: -len(_DELETED)]
        # Only the line feed is escaped (fs/proc/task_mmu.c, seq_path), as backslash and octal.
        name = _ESCAPE.sub(lambda m: bytes([int(m[1], 8) & 0xFF]), name)
        lines.append(
            Line(
                int(start, 16),
                int(end, 16),
                perms.decode("ascii"),
                int(offset, 16),
                os.makedev(int(major, 16), int(minor, 16)),
                int(inode),
                os.fsdecode(name),
                deleted,
            )
        )
    return lines


def how(line: Line, by_reference: bool) -> Optional[int]:
    """How its pages are recorded (RECORD_* of native/recording/record.h); None: not at all.

    `by_reference`: its file can be relied on for pages that the process has no copy of.
    """
    if line.of_device or line.name.startswith("[vvar"):
        return None
    if line.shared:
        whole = line.end - line.start <= WHOLE_SHARED_BYTES
        return SHARED_WHOLE if whole else SHARED
    if line.name in ("[vdso]", "[uprobes]"):
        return WHOLE
    if line.of_zeros:
        return ANONYMOUS
    return FILE if by_reference else WHOLE


def mappings(lines: Sequence[Line]) -> List[Mapping]:
    """The lines as a trace has them; neighbours that only the kernel tells apart are joined."""
    out: List[Mapping] = []
    last: Optional[Line] = None
    for line in lines:
        reason = _why_left_out(line)
        if last is not None and _continues(last, line):
            out[-1] = Mapping(out[-1].start, line.end, line.prot, line.name, out[-1].offset, reason)
        else:
            out.append(Mapping(line.start, line.end, line.prot, line.name, line.offset, reason))
        last = line
    return out


def _why_left_out(line: Line) -> str:
    """Why pages of it that are not recorded cannot be had; "" where they are zeros or a file's."""
    if line.of_device:
        return DEVICE
    if line.name.startswith("[vvar"):
        return NO_VVAR
    # Others write to it, too: what its file holds later is not what was there.
    return LARGE_SHARED if line.shared and how(line, False) == SHARED else ""


def _continues(last: Line, line: Line) -> bool:
    same = (last.end, last.perms, last.name, last.device, last.inode, last.deleted) == (
        line.start, line.perms, line.name, line.device, line.inode, line.deleted,
    )  # fmt: skip
    if not same:
        return False
    return line.inode == 0 or last.offset + last.end - last.start == line.offset

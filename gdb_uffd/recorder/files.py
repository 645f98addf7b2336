"""Which mapped files a trace may refer to, instead of holding their pages."""

from __future__ import annotations

import os
from typing import Callable, Dict, Optional, Sequence, Tuple

from gdb_uffd.protocol.model import PAGE_SIZE
from gdb_uffd.recorder.maps import Line
from gdb_uffd.trace.files.files import FileProblem, FileRef, map_file

MAX_EMBEDDED = 64 << 20
"""Bytes of a private mapping of a file without a build-id that are stored; of a larger one
the file is referred to by size and time of its last change."""

ReadMemory = Callable[[int, int], bytes]


class RecordedFiles:
    """The files of one recorded process, each examined once."""

    def __init__(self, read: ReadMemory) -> None:
        self._read = read
        self._known: Dict[Tuple[int, int, str], Optional[FileRef]] = {}

    def reference(self, line: Line, lines: Sequence[Line]) -> Optional[FileRef]:
        """What to write down of the file of `line`; None when its pages must be stored: it is
        deleted or another one by now, or nothing would tell whether it was changed later."""
        if not line.of_file or line.deleted:
            return None
        key = (line.device, line.inode, line.name)
        if key not in self._known:
            self._known[key] = self._examine(line, lines)
        return self._known[key]

    def _examine(self, line: Line, lines: Sequence[Line]) -> Optional[FileRef]:
        try:
            opened = map_file(line.name)
        except FileProblem:
            return None
        try:
            reference = FileRef(opened.build_id, len(opened.data), opened.mtime_ns)
            same = os.stat(line.name).st_ino == line.inode  # devices differ on overlayfs, btrfs
            of_it = [x for x in lines if (x.inode, x.name) == (line.inode, line.name)]
            first = next((x for x in of_it if x.offset == 0), None)
            if reference.build_id and first is not None:
                # The headers, and in them the build-id, as the process has them.
                length = min(PAGE_SIZE, len(opened.data))
                return (
                    reference if self._read(first.start, length) == opened.data[:length] else None
                )
            total = sum(x.end - x.start for x in of_it)
            return reference if same and (total > MAX_EMBEDDED or reference.build_id) else None
        except OSError:
            return None
        finally:
            opened.data.close()

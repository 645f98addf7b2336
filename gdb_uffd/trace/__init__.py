"""What was recorded: the snapshot interface, ELF cores and recorded traces that offer it.

It imports `arch`, `protocol`, `dataclass`, `outputs` and `terminal`, nothing else of the program.
core and files use each other (a core names its files, a file has ELF headers); neither imports
store, which uses both (tests/unit/test_borders.py).  Beside the folders stand source (the
interface), what both kinds of recordings share (symbols, places, binding, tls, scratch, compare,
snapshot, which has store's page_read for its pages), and opening, which knows all of them.
"""

from __future__ import annotations

from typing import Optional

from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.opening import open_trace
from gdb_uffd.trace.source import Trace


def open(path: str, executable: Optional[str] = None, search: Optional[FileSearch] = None) -> Trace:
    """The trace at `path`: a recorded one (a directory NAME.uffd) or a core, which is a trace of
    one snapshot.

    `executable` names the executable when the recorded path is not where it is; `search` tells
    where else the mapped files are looked for (None: nowhere).  UffdError: one line with what was
    wrong and what to do.  Nothing at `path` is ever written.
    """
    return open_trace(path, executable, search)

"""Where gdb looks for files, handed on to the server, and where the server found them."""

from __future__ import annotations

import os
from typing import List

import gdb

from gdb_uffd.client import gdb_settings
from gdb_uffd.client.gdb_saved import borrowed
from gdb_uffd.client.gdb_util import parameter_text

_REMOTE = ("target:", "remote:")
"""Prefixes of `sysroot` that mean the remote side's files (gdb manual, "Files")."""


_DEBUG_FOLDER = "usr/lib/debug"  # trace/debug_files.py, FOLDER


def options() -> List[str]:
    """What `set sysroot`, `set uffd files-from` and gdb's other settings of files say, as options
    of the server."""
    found: List[str] = []
    sysroot = _local(borrowed.users("sysroot"))
    if sysroot:
        found += ["--sysroot", sysroot]
    for directory in borrowed.users("debug-file-directory").split(":"):
        if directory:
            found += ["--debug-directory", directory]
    for directory in borrowed.users("solib-search-path").split(":"):
        if directory:
            found += ["--solib-search-path", directory]
    if gdb_settings.files_from():
        found += ["--files-from", gdb_settings.files_from()]
    # "ask" is gdb's question to the user, which only gdb can put.
    if _text("debuginfod enabled") == "on" and _text("debuginfod urls"):
        found += ["--debuginfod", _text("debuginfod urls")]
    return found


class Progress:
    """Shows what the server fetches: on a terminal one line in place of the other, else a line for
    each file."""

    def __init__(self) -> None:
        self._terminal = os.isatty(1)
        self._said = ""

    def show(self, line: str) -> None:
        """`line` now; "" when it is over."""
        width = int(gdb.parameter("width") or 80)
        if self._terminal and (line or self._said):
            gdb.write(f"\r\x1b[K{line[: max(20, width - 1)]}")
            gdb.flush()
        what = line.partition(": ")[0]
        if line and not self._terminal and what != self._said and line.startswith("downloading"):
            gdb.write(f"{what}\n")
        self._said = what


def take_sysroot(elsewhere: str, far: bool) -> None:
    """Let gdb find the libraries: below `elsewhere`, where the server made that folder because
    some are not where gdb would look, or another build is, else below the user's own sysroot.
    `far`: the server's files are not here, and gdb has to ask for them."""
    users = borrowed.users("sysroot")
    if far:
        if not _local(users):
            borrowed.take("sysroot", _REMOTE[0] + elsewhere)
        return
    if elsewhere or users.startswith(_REMOTE) or borrowed.holds("sysroot"):
        # Libraries are local files: through "target:" gdb would ask the server for each of them.
        borrowed.take("sysroot", elsewhere or _local(users))
    if elsewhere:
        # It has what was found there; what else is there has the same name and is another build.
        borrowed.take("solib-search-path", "")
    elif borrowed.holds("solib-search-path"):
        borrowed.take("solib-search-path", borrowed.users("solib-search-path"))


def take_debug_folder(elsewhere: str) -> None:
    """Let gdb find separate debug files below `elsewhere`, too, before it reads the executable."""
    debug = os.path.join(elsewhere, _DEBUG_FOLDER)
    folders = borrowed.users("debug-file-directory")
    if elsewhere and os.path.isdir(debug):
        borrowed.take("debug-file-directory", f"{folders}:{debug}" if folders else debug)
    elif borrowed.holds("debug-file-directory"):
        borrowed.take("debug-file-directory", folders)


def _local(sysroot: str) -> str:
    for prefix in _REMOTE:
        if sysroot.startswith(prefix):
            return sysroot[len(prefix) :]
    return sysroot


def _text(name: str) -> str:
    """A parameter's text; "" where this gdb does not have it."""
    try:
        return parameter_text(gdb.parameter(name))
    except RuntimeError:
        return ""

"""Where gdb looks for files, handed on to the server, and where the server found them."""

from __future__ import annotations

from typing import List

import gdb

from gdb_uffd.client.gdb_saved import borrowed
from gdb_uffd.client.gdb_util import parameter_text

_REMOTE = ("target:", "remote:")
"""Prefixes of `sysroot` that mean the remote side's files (gdb manual, "Files")."""


def options() -> List[str]:
    """What `set sysroot`, `set debug-file-directory` and `set debuginfod` say, as options of the
    server."""
    found: List[str] = []
    sysroot = _local(borrowed.users("sysroot"))
    if sysroot:
        found += ["--sysroot", sysroot]
    for directory in _text("debug-file-directory").split(":"):
        if directory:
            found += ["--debug-directory", directory]
    for directory in borrowed.users("solib-search-path").split(":"):
        if directory:
            found += ["--solib-search-path", directory]
    # "ask" is gdb's question to the user, which only gdb can put.
    if _text("debuginfod enabled") == "on" and _text("debuginfod urls"):
        found += ["--debuginfod", _text("debuginfod urls")]
    return found


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

"""Where gdb looks for files, handed on to the server, and where the server found them."""

from __future__ import annotations

import os
import select
from typing import List, Optional, Sequence

import gdb

from gdb_uffd.client.session import launch, settings
from gdb_uffd.client.session.asking import machine_interface, parameter_text, tui_is_active
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.session.saved import borrowed
from gdb_uffd.client.show.progress import download_text, progress_text
from gdb_uffd.protocol.messages import Progress
from gdb_uffd.terminal import one_line, printable

_REMOTE = ("target:", "remote:")
"""Prefixes of `sysroot` that mean the remote side's files (gdb manual, "Files")."""

_SCRIPTS = tuple(
    f"auto-load {kind}"
    for kind in ("python-scripts", "gdb-scripts", "guile-scripts", "libthread-db")
)

_FEW = 3
"""Names of files that a question tells."""

_DEBUG_FOLDER = "usr/lib/debug"  # trace/files/debug_files.py, FOLDER


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
    if settings.files_from():
        found += ["--files-from", settings.files_from()]
    if settings.unpack_limit():
        found += [f"--unpack-limit={settings.unpack_limit()}"]
    # "ask" is gdb's question to the user, which only gdb can put.
    if _text("debuginfod enabled") == "on" and _text("debuginfod urls"):
        found += ["--debuginfod", _text("debuginfod urls")]
    return found


def start(core: str, executable: str, loaded: str) -> launch.Server:
    """A server for `core`.  `loaded`: the executable that gdb has, for a core that names none that
    is there.  Where files are missing, the user is asked as gdb asks whether to fetch them."""
    interpreter = launch.find_interpreter(settings.python(), os.environ)

    def begin() -> launch.Server:
        return launch.start(interpreter, core, executable, options(), ProgressLine().show)

    server = begin()
    try:
        if not server.ready.executable and not executable and loaded and os.path.isfile(loaded):
            executable = os.path.abspath(loaded)
            server.stop()
            server = begin()
        if server.ready.unasked and _asks_to_fetch(server.ready.unasked):
            server.stop()
            server = begin()
    except BaseException:
        server.stop(0.0)
        raise
    return server


def may_ask() -> bool:
    """Whether loading symbols may put the question about debuginfod: that must be seen, so nothing
    is captured then."""
    return bool(_text("debuginfod urls")) and _text("debuginfod enabled") == "ask"


def _asks_to_fetch(names: Sequence[str]) -> bool:
    """gdb's question (debuginfod-support.c, debuginfod_is_enabled), where gdb would put it; the
    answer is for gdb's own downloads as well.  Nobody is there to answer: it stays as it is."""
    if not may_ask() or not gdb.parameter("confirm") or not (os.isatty(0) and os.isatty(1)):
        return False
    if machine_interface() or tui_is_active():
        return False
    few = ", ".join(names[:_FEW]) + (", …" if len(names) > _FEW else "")
    servers = "".join(f"  <{url}>\n" for url in _text("debuginfod urls").split())
    say(f"{len(names)} of the files are not here ({few}). Debuginfod may have them:")
    gdb.write(servers)
    answer = ""
    while answer[:1] not in ("y", "n"):
        gdb.write("Enable debuginfod for this session? (y or [n]) ")
        gdb.flush()
        answer = _line().strip().lower() or "n"
    enabled = answer[0] == "y"
    gdb.execute(f"set debuginfod enabled {'on' if enabled else 'off'}")
    return enabled


def _line() -> str:
    """What is typed, "" at the end of the input; polls so that gdb's Ctrl-C gets its turn."""
    while not select.select([0], [], [], 0.2)[0]:
        pass
    return os.read(0, 4096).decode("utf-8", "replace")


class ProgressLine:
    """Shows what the server fetches: on a terminal one line in place of the other, else a line for
    each file."""

    def __init__(self) -> None:
        self._terminal = os.isatty(1)
        self._said = ""

    def show(self, now: Optional[Progress]) -> None:
        """None when it is over."""
        line = one_line(progress_text(now)) if now is not None else ""
        width = int(gdb.parameter("width") or 80)
        if self._terminal and (line or self._said):
            gdb.write(f"\r\x1b[K{printable(line)[: max(20, width - 1)]}")
            gdb.flush()
        loads = now is not None and now.doing == "downloading"
        what = one_line(download_text(now)) if now is not None and loads else ""
        if what and not self._terminal and what != self._said:
            say(what)
        self._said = what or line


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


def keep_scripts_out(brought: bool) -> None:
    """Before gdb reads files that came with the trace (`brought`), or any below a sysroot: it runs
    no script that lies beside them or in them (gdb manual, "Auto-loading"), whatever its safe path
    says.  Else, where that was not known before: as the user has it."""
    needed = brought or bool(_local(borrowed.users("sysroot")))
    for name in _SCRIPTS:
        if needed and _text(name):
            borrowed.take(name, "off")
        elif borrowed.holds(name):
            borrowed.give_back(name)


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

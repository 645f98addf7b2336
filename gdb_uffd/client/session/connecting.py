"""`uffd connect`: a session with a server that was started elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Tuple

import gdb

from gdb_uffd.client.session import file_search, launch, opened, probe, remote, sessions, settings
from gdb_uffd.client.session.asking import FAILURES, check_architecture, quiet, setting
from gdb_uffd.client.session.options import check_readable, one_or_two
from gdb_uffd.client.session.saved import borrowed
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.wire import clean
from gdb_uffd.protocol.messages import AskInfo
from gdb_uffd.protocol.model import UffdError

_CONNECT_SECONDS = 15.0
"""For the first look by a gdb whose `tcp connect-timeout` is unlimited: gdb's own default."""


def split_address(text: str, usage: str) -> Tuple[str, str]:
    """ADDRESS and TOKEN-FILE, as an absolute path ("" when left out)."""
    address, file = one_or_two(text, "address", usage)
    if file:
        check_readable(file, "token file")
    return address, file


def connect(address: str, token_file: str) -> None:
    """Take the server at `address` for the selected inferior and show where it stands."""
    began = time.perf_counter()
    sessions.prepare()
    where = remote.target(address)
    remote.check_socket(address)
    if token_file or os.environ.get(remote.TOKEN_VARIABLE):
        interpreter = launch.find_interpreter(settings.python(), os.environ)
        where = remote.through_pipe(interpreter, address, token_file)
    old = sessions.find(gdb.selected_inferior().num)
    if old is None and gdb.selected_inferior().pid:
        raise UffdError("this inferior is in use: `kill` or `detach` it first, or `add-inferior`")
    _probe(where, address)
    if old is not None:
        sessions.end(old)
    session = Session(gdb.selected_inferior().num, remote.Remote(remote.UNKNOWN))
    try:
        sessions.connect(session, "", where)
        _learn(session, address)
    except BaseException:
        _leave(session)
        raise
    opened.show(session, began)


def _probe(where: str, address: str) -> None:
    """UffdError where nothing can come of it: what is open stays open then."""
    timeout, retry = gdb.parameter("tcp connect-timeout"), bool(gdb.parameter("tcp auto-retry"))
    seconds = float(timeout) if isinstance(timeout, int) and timeout > 0 else _CONNECT_SECONDS
    try:
        check_architecture(probe.architecture(where, address, seconds, retry))
    except probe.TokenWanted as error:
        raise UffdError(f"{error}name its file, or set {remote.TOKEN_VARIABLE}") from None


def _learn(session: Session, address: str) -> None:
    """What the ready line tells a gdb that starts the server itself."""
    info = session.request(AskInfo())
    ready = clean(info)
    server = remote.Remote(ready, not remote.is_near(info.host, ready))
    session.server, session.ready = server, ready
    session.position.signal, session.position.snapshot = ready.signal, ready.snapshot
    sessions.note_brought(session, ready.brought)
    if not server.far:
        # Here are the files themselves.
        file_search.take_debug_folder(ready.sysroot)
        if ready.executable:
            sessions.load_executable(ready.executable)
        with setting("print symbol-loading", "off"):
            # What gdb has read through "target:" it does not read again from elsewhere.
            quiet("nosharedlibrary")
            file_search.take_sysroot(ready.sysroot, False)
        sessions.note_threads(session)


def _leave(session: Session) -> None:
    """The server was none of ours, or did not tell what must be known."""
    if sessions.find(session.number) is session:
        sessions.end(session)
    elif gdb.selected_inferior().connection is not None and gdb.selected_inferior().pid:
        # Whatever it debugs goes on: it is not ours to kill.
        with contextlib.suppress(*FAILURES), setting("confirm", "off"):
            quiet("disconnect")
    borrowed.give_back_if(not sessions.sessions())

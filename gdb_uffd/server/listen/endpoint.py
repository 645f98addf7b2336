"""The socket: bound in a private place, for one connection of the same user."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import time
from typing import Optional

from gdb_uffd.protocol.model import UffdError

ACCEPT_SECONDS = 60.0
"""How long to wait for gdb, which connects as soon as it reads that the server is ready."""

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_MAX_PATH = 107  # sun_path less its terminator, unix(7)


class Endpoint:
    """A listening unix socket, mode 0600, that unlinks itself."""

    def __init__(self, path: str) -> None:
        """Bind and listen.  UffdError says why that cannot be."""
        if len(os.fsencode(path)) > _MAX_PATH:
            raise UffdError(
                f"{path}: a unix socket's name has at most {_MAX_PATH} bytes; use a shorter path "
                "(or TMPDIR)"
            )
        self.path = path
        self._bound = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            _bind(self._socket, path)
            self._bound = True
            self._socket.listen(1)
        except OSError as error:
            self.close()
            raise UffdError(f"{path}: cannot make the socket: {error.strerror}") from error
        finally:
            os.umask(old)

    def accept(self, watch: Optional[int], seconds: Optional[float]) -> Optional[socket.socket]:
        """The first connection by our own user, or root; None when nobody comes.

        `watch`: a pipe whose other end goes away with whoever started us.  `seconds`: how
        long to wait, None for ever.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        if watch is not None:
            poll.register(watch, 0)  # hang-up and errors are always reported
        while True:
            left = None
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic()) * 1000
            events = dict(poll.poll(left))
            if self._socket.fileno() in events:
                client, _ = self._socket.accept()
                if _peer_uid(client) in (0, os.geteuid()):
                    return client
                client.close()
            elif not events or watch in events:
                return None

    def close(self) -> None:
        """Stop listening and remove the socket.  Idempotent."""
        self._socket.close()
        if self._bound:
            self._bound = False
            try:
                os.unlink(self.path)
            except OSError:
                pass  # its directory went first


def _bind(made: socket.socket, path: str) -> None:
    """Bind there, also in the place of a socket of ours behind which nobody listens any more: a
    server that was killed leaves it.  OSError."""
    try:
        made.bind(path)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_dead(path):
            raise
    os.unlink(path)
    made.bind(path)


def _is_dead(path: str) -> bool:
    info = os.lstat(path)
    if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _peer_uid(client: socket.socket) -> int:
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(raw)
    return int(uid)

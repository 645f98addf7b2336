"""Ask a server what it serves before anything is given up for it.  No gdb here.

gdb drops the target that it has before it knows whether there is another one: what can go wrong is
found out here, through a connection of its own (docs/protocol.md, quffd.info).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shlex
import socket
import subprocess
import time
from typing import Iterator, Optional, Tuple

from gdb_uffd.client.session.launch import clean_environment
from gdb_uffd.client.session.wire import decode, encode
from gdb_uffd.protocol.codec import CodecError
from gdb_uffd.protocol.messages import AskInfo
from gdb_uffd.protocol.model import UffdError

ANSWER_SECONDS = 10.0
"""How long an answer may take; what listens has its trace open already."""

MAX_ANSWER_BYTES = 1 << 20

_RETRY_SECONDS = 0.2
_STEP_MS = 200
"""Waits are in steps, so that a KeyboardInterrupt that gdb flagged gets its turn."""

ASKED = AskInfo(probe=True)

_PACKET = re.compile(rb"\$([^#$]*)#[0-9a-fA-F]{2}")


class TokenWanted(UffdError):
    """It says so, or hung up before it answered, which may be why; how to give one is the
    caller's to say."""


def architecture(where: str, shown: str, seconds: float, retry: bool) -> str:
    """gdb's name of the architecture of what is served at `where`, as `target remote` takes it: a
    path, HOST:PORT, or "| COMMAND".

    `shown`: how the user names it; `seconds`: to connect within, again and again where nobody
    listens yet and `retry` (`set tcp connect-timeout`, `set tcp auto-retry`).  UffdError, one line.
    """
    with _opened(where, shown, seconds, retry) as (reader, writer, process):
        packet = encode(ASKED).encode("ascii")
        with contextlib.suppress(OSError):  # it hung up: reading tells
            os.write(writer, b"$%b#%02x" % (packet, sum(packet) & 0xFF))
        answer = _answer(reader, shown, process)
        with contextlib.suppress(OSError):
            os.write(writer, b"+")
    if answer.startswith(b"E.a token is needed"):
        raise TokenWanted(f"{shown}: the server wants a token; ")
    try:
        return decode(ASKED, answer).architecture
    except CodecError as error:
        told = f"the server does not tell what it serves ({error})"
        raise UffdError(f"{shown}: {told}") from None
    except UffdError as error:
        raise UffdError(f"{shown}: {error}") from None


@contextlib.contextmanager
def _opened(
    where: str, shown: str, seconds: float, retry: bool
) -> Iterator[Tuple[int, int, Optional["subprocess.Popen[bytes]"]]]:
    if where.startswith("| "):
        with subprocess.Popen(
            shlex.split(where[2:]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=clean_environment(os.environ), start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            try:
                yield process.stdout.fileno(), process.stdin.fileno(), process
            finally:
                process.stdin.close()
                process.kill()
        return
    with _connected(where, shown, seconds, retry) as made:
        yield made.fileno(), made.fileno(), None


def _connected(where: str, shown: str, seconds: float, retry: bool) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _try(where, max(0.1, deadline - time.monotonic()))
        except ConnectionRefusedError as error:
            if not retry or where.startswith("/") or time.monotonic() >= deadline:
                raise _failed(shown, error) from None
            select.select([], [], [], _RETRY_SECONDS)  # as gdb does: it may be about to listen
        except (OSError, UnicodeError, OverflowError) as error:
            raise _failed(shown, error) from None


def _try(where: str, seconds: float) -> socket.socket:
    """A connection; OSError."""
    if where.startswith("/"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(where)
        except BaseException:
            made.close()
            raise
        return made
    host, _, port = where.rpartition(":")
    deadline, code = time.monotonic() + seconds, errno.EHOSTUNREACH
    for family, kind, protocol, _name, address in socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            code = made.connect_ex(address)
            if code == errno.EINPROGRESS:
                code = _outcome(made, deadline)
            if code == 0:
                made.setblocking(True)
                return made
        except BaseException:
            made.close()
            raise
        made.close()
    raise OSError(code, os.strerror(code))


def _outcome(made: socket.socket, deadline: float) -> int:
    """The errno that a connection under way comes to; 0 when there is one."""
    poll = select.poll()
    poll.register(made.fileno(), select.POLLOUT)
    while not poll.poll(_STEP_MS):
        if time.monotonic() >= deadline:
            return errno.ETIMEDOUT
    return int(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _failed(shown: str, error: Exception) -> UffdError:
    why = (getattr(error, "strerror", None) or str(error) or "no answer").lower()
    return UffdError(
        f"could not connect to {shown}: {why}; is `gdb-uffd serve` running there? "
        "Give the address that it printed"
    )


def _answer(reader: int, shown: str, process: Optional["subprocess.Popen[bytes]"]) -> bytes:
    """The payload of the first packet that comes."""
    data = b""
    deadline = time.monotonic() + ANSWER_SECONDS
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while True:
        found = _PACKET.search(data)
        if found is not None:
            return found[1]
        if time.monotonic() >= deadline or len(data) > MAX_ANSWER_BYTES:
            raise UffdError(
                f"{shown}: no answer within {ANSWER_SECONDS:.0f} s: no uffd server, or one that "
                "serves somebody else"
            )
        if not poll.poll(_STEP_MS):
            continue
        try:
            more = os.read(reader, 1 << 16)
        except OSError:
            more = b""
        if not more:
            raise _hung_up(shown, data, process)
        data += more


def _hung_up(shown: str, data: bytes, process: Optional["subprocess.Popen[bytes]"]) -> UffdError:
    if process is not None and process.stderr is not None:
        process.wait()
        said = process.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
        if said:
            return UffdError(said[-1].partition("gdb-uffd: ")[2] or said[-1])
    if data.strip(b"+-"):
        return UffdError(f"{shown}: what answers there is no uffd server")
    return TokenWanted(
        f"could not connect to {shown}: it closed the connection before it answered; if it wants "
        "a token, "
    )

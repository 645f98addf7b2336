"""A server that somebody else started, `gdb-uffd serve`: where it is, how gdb gets there.

No gdb here."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import Optional, Union

from gdb_uffd.client.session.launch import Server
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages import Ready
from gdb_uffd.protocol.model import UffdError

TOKEN_VARIABLE = "GDB_UFFD_TOKEN"
FORMS = "unix:PATH, HOST:PORT or [IPv6]:PORT"
_PORT = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:\[\]/|;&]+):\d{1,5}")
_PIPE = "import sys; from gdb_uffd.cli import main; sys.exit(main())"
_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass
class Remote:
    """In a session, what launch.Server is there for a server of its own.

    `far`: on another machine as far as is known, whose files gdb has to ask the server for.
    """

    ready: Ready
    far: bool = True
    gone: bool = False

    @property
    def pid(self) -> int:
        """Its process on its machine."""
        return self.ready.pid

    def last_words(self) -> str:
        """What it said last: that is said elsewhere."""
        return ""

    def connected(self) -> None:
        """Nothing here is in the way."""

    def ended(self) -> Optional[int]:
        """Known only when somebody else answers in its place."""
        return 0 if self.gone else None

    def is_gone(self) -> bool:
        """That is the case."""
        self.gone = True
        return True

    def stop(self, patience_s: float = 0.0) -> int:
        """It ends by itself when the connection does."""
        return 0


AnyServer = Union[Server, Remote]


UNKNOWN = Ready("", "", "", [], 0, 0, 0, 0, 0.0, brought=True)
"""What is known of a server before it is asked."""


def target(address: str) -> str:
    """What gdb's `target remote` takes for it.  UffdError."""
    if address.startswith("unix:") and len(address) > 5:
        return os.path.abspath(address[5:])
    if _PORT.fullmatch(address) and int(address.rpartition(":")[2]) < 1 << 16:
        return address
    raise UffdError(f"{address}: not an address; give {FORMS}, as `gdb-uffd serve` printed it")


def check_socket(address: str) -> None:
    """UffdError where `address` is a path without a socket: gdb takes any other file for a serial
    line, and writes into it (gdb manual, "Connecting to a Remote Target")."""
    if address.startswith("unix:"):
        path = target(address)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UffdError(f"could not connect: {path}: {why}") from None
        if not stat.S_ISSOCK(mode):
            raise UffdError(f"{path}: not a socket; `gdb-uffd serve --listen unix:PATH` makes one")


def through_pipe(interpreter: str, address: str, token_file: str) -> str:
    """The same with the token from that file, or ("") from the environment: a command that gdb runs
    in a shell."""
    target(address)
    command = [interpreter, "-I", "-c", _PIPE, "connect", address]
    if token_file:
        command += ["--token-file", token_file]
    return "| " + " ".join(shlex.quote(word) for word in command)


def is_near(host: str, ready: Ready) -> bool:
    """Whether the server runs on this machine and its files are here; `host` is what it said."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            own = file.read().strip()
    except OSError:
        return False
    return bool(own) and host == own and (not ready.executable or os.path.isfile(ready.executable))

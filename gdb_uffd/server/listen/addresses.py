"""Where a server listens: a unix socket, a loopback port, or (when forced) any address, behind a
token.

Whoever speaks the protocol can write memory and run it: it is a shell of the user who serves.  A
unix socket and a loopback port therefore take that user alone (and root), any other address only
who sends the token first.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import select
import socket
import sys
import time
from typing import Dict, List, Optional, Protocol, Tuple, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen.endpoint import Endpoint
from gdb_uffd.server.stub.framing import checksum, frame
from gdb_uffd.terminal import printable

TOKEN_VERB = b"quffd.token:"
TOKEN_SECONDS = 10.0
_TOKEN_PACKET_MAX = 4096
_PENDING_MAX = 16  # connections that have not shown it yet

FORMS = "unix:PATH, HOST:PORT or [IPv6]:PORT, where port 0 means any"


class Listener(Protocol):
    """What serve.run needs of an endpoint."""

    path: str  # as the ready line names it

    def accept(self, watch: Optional[int], seconds: Optional[float]) -> Optional[socket.socket]:
        """The first connection that may be served; None when nobody comes (see Endpoint)."""
        ...

    def close(self) -> None:
        """Stop listening.  Idempotent."""
        ...


@dataclass(frozen=True)
class Port:
    """A TCP address."""

    host: str
    port: int


def parse(text: str) -> Union[str, Port]:
    """The path of a unix socket, or a port.  UffdError for anything else."""
    if text.startswith("unix:") and len(text) > 5:
        return os.path.abspath(text[5:])
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]/]+)):(\d{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise UffdError(f"{text}: not an address; give {FORMS}")
    return Port(found[1] or found[2], int(found[3]))


def new_token() -> str:
    """128 random bits, as text."""
    return secrets.token_urlsafe(16)


def check_token(token: str) -> str:
    """`token`, if it is fit to be one; UffdError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,200}", token):
        raise UffdError("a token is 16 to 200 letters, digits and . _ ~ - in one line")
    return token


def open_listener(where: Union[str, Port], token: str = "") -> Listener:
    """Listen there.  A port that is no loopback one needs `token`; UffdError says so."""
    return Endpoint(where) if isinstance(where, str) else TcpEndpoint(where, token)


class TcpEndpoint:
    """A listening port for one connection: of the same user on a loopback address, with the token
    where there is one."""

    def __init__(self, where: Port, token: str = "") -> None:
        """Bind and listen.  UffdError says why that cannot be."""
        family, address = _resolve(where)
        self._token = token
        self._pending: Dict[int, _Knock] = {}
        self.loopback = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        if not token and not self.loopback:
            raise UffdError(
                f"{where.host}: not a loopback address, and whoever reaches it could run code as "
                "you; forward a port instead (ssh -L), or add --expose to serve there behind a "
                "token"
            )
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(8)
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            raise UffdError(
                f"{where.host}:{where.port}: cannot listen: {error.strerror}"
            ) from error
        bound = self._socket.getsockname()
        host = f"[{bound[0]}]" if family == socket.AF_INET6 else bound[0]
        self.path = f"{host}:{bound[1]}"

    def accept(self, watch: Optional[int], seconds: Optional[float]) -> Optional[socket.socket]:
        """The first connection that is let in; the others are closed, with a line on stderr.

        Whoever says nothing keeps nobody out: all that are there are heard at the same time.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        if watch is not None:
            poll.register(watch, 0)
        try:
            while True:
                events = dict(poll.poll(self._patience(deadline)))
                if watch in events or (deadline is not None and time.monotonic() >= deadline):
                    return None
                if self._socket.fileno() in events:
                    client = self._knock(poll)
                    if client is not None:
                        return client
                for descriptor in list(self._pending):
                    client = self._hear(poll, descriptor, descriptor in events)
                    if client is not None:
                        return client
        finally:
            for knock in self._pending.values():
                knock.client.close()
            self._pending.clear()

    def _patience(self, deadline: Optional[float]) -> Optional[float]:
        """Milliseconds until something is over; None for ever."""
        ends = [knock.deadline for knock in self._pending.values()]
        ends += [] if deadline is None else [deadline]
        return max(0.0, min(ends) - time.monotonic()) * 1000 + 1 if ends else None

    def _knock(self, poll: select.poll) -> Optional[socket.socket]:
        """Somebody connects: let in, refused, or (with a token) still to be heard."""
        try:
            client, peer = self._socket.accept()
        except OSError:
            return None  # it has gone again
        reason = ""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.loopback:
                reason = _refusal(_owner(peer, client.getsockname()))
        except OSError as error:
            reason = error.strerror or "went away"
        if reason:
            _refuse(client, peer, reason)
            return None
        if not self._token:
            return _let_in(client)
        if len(self._pending) == _PENDING_MAX:
            oldest = min(self._pending, key=lambda d: self._pending[d].deadline)
            self._forget(poll, oldest, "others came")
        client.setblocking(False)
        knock = _Knock(client, peer, time.monotonic() + TOKEN_SECONDS)
        self._pending[client.fileno()] = knock
        poll.register(client.fileno(), select.POLLIN)
        return None

    def _hear(self, poll: select.poll, descriptor: int, ready: bool) -> Optional[socket.socket]:
        """More of a token, or no more time for it."""
        knock = self._pending[descriptor]
        reason = knock.listen(self._token) if ready else None
        if reason is None and time.monotonic() >= knock.deadline:
            reason = "no token came"
        if reason is None:
            return None
        if reason:
            self._forget(poll, descriptor, reason)
            return None
        poll.unregister(descriptor)
        del self._pending[descriptor]
        return _let_in(knock.client)

    def _forget(self, poll: select.poll, descriptor: int, reason: str) -> None:
        poll.unregister(descriptor)
        knock = self._pending.pop(descriptor)
        _refuse(knock.client, knock.peer, reason)

    def close(self) -> None:
        """Stop listening.  Idempotent."""
        self._socket.close()


def _let_in(client: socket.socket) -> socket.socket:
    client.settimeout(None)
    return client


def _refuse(client: socket.socket, peer: Tuple[str, int], reason: str) -> None:
    client.close()
    print(f"gdb_uffd.server: refused {peer[0]}:{peer[1]}: {printable(reason)}", file=sys.stderr)


def _resolve(where: Port) -> Tuple[socket.AddressFamily, Tuple[str, int]]:
    try:
        found = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise UffdError(f"{where.host}: no such host ({error.strerror})") from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


# -- who may connect --------------------------------------------------------------------------


def _refusal(uid: Optional[int]) -> str:
    if uid in (0, os.geteuid()):
        return ""
    return "its user is not known" if uid is None else f"it is user {uid}'s"


def _owner(peer: Tuple[str, int], own: Tuple[str, int]) -> Optional[int]:
    """The user whose socket the other end of a loopback connection is, from the kernel's table
    (proc_pid_net(5), "tcp"); None when it is not there.

    A socket that its owner has closed stays in the table as nobody's, with user 0, while what it
    sent can still be read (net/ipv4/tcp_ipv4.c, get_timewait4_sock): only one that is
    established, and has an inode, tells whose it is.
    """
    for name, mapped in (("tcp", False), ("tcp6", True)):
        wanted = [_table_address(peer, mapped), _table_address(own, mapped)]
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                lines = table.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[1:3] == wanted:
                return int(fields[7]) if fields[3] == _ESTABLISHED and int(fields[9]) else None
    return None


_ESTABLISHED = "01"  # TCP_ESTABLISHED, include/net/tcp_states.h


def _table_address(address: Tuple[str, int], mapped: bool) -> str:
    """An address as the table writes it: words of the host's byte order in hexadecimal.  `mapped`:
    of IPv4 as IPv6's sockets have it (ipv6(7))."""
    packed = ipaddress.ip_address(address[0].partition("%")[0]).packed
    if mapped and len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    words = [int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


# -- the token --------------------------------------------------------------------------------


def token_packet(token: str) -> bytes:
    """The packet that must come first, framed."""
    return frame(TOKEN_VERB + token.encode("ascii"))


@dataclass
class _Knock:
    """A connection that has not shown its token yet."""

    client: socket.socket
    peer: Tuple[str, int]
    deadline: float
    data: bytes = b""

    def listen(self, token: str) -> Optional[str]:
        """Why it is not let in, "" when it is, None when more has to come.  Takes nothing of what
        follows the packet."""
        while not re.search(rb"\$[^#]*#..\Z", self.data, re.S):
            try:
                byte = self.client.recv(1)
            except BlockingIOError:
                return None
            except OSError as error:
                return error.strerror or "went away"
            self.data += byte
            if not byte or len(self.data) > _TOKEN_PACKET_MAX:
                return "no token came"
        try:
            if hmac.compare_digest(_token_of(self.data), token.encode("ascii")):
                self.client.sendall(b"+" + frame(b"OK"))
                return ""
            self.client.sendall(b"+" + frame(b"E.a token is needed: gdb-uffd connect"))
        except OSError:
            pass  # it has gone
        return "a wrong token, or a packet before the token"


def _token_of(data: bytes) -> bytes:
    """The token in a packet; b"" when there is none."""
    payload, _, said = data[data.rindex(b"$") + 1 :].partition(b"#")
    whole = said == b"%02x" % checksum(payload)
    return payload[len(TOKEN_VERB) :] if whole and payload.startswith(TOKEN_VERB) else b""


def give_token(server: socket.socket, token: str) -> None:
    """A client's side: send the token and wait for the answer; UffdError when it is refused."""
    server.settimeout(TOKEN_SECONDS)
    try:
        server.sendall(token_packet(token))
        answer = b""
        while b"#" not in answer[:-2]:
            more = server.recv(1)
            if not more:
                break
            answer += more
    except OSError as error:
        raise UffdError(f"the server did not take the token: {error}") from error
    if b"$OK#" not in answer:
        raise UffdError("the server refused the token")
    server.settimeout(None)


def connect(where: Union[str, Port]) -> socket.socket:
    """A connection to a server.  UffdError says why there is none."""
    try:
        if isinstance(where, str):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.connect(where)
            except BaseException:
                made.close()
                raise
            return made
        return socket.create_connection((where.host, where.port), TOKEN_SECONDS)
    except OSError as error:
        shown = where if isinstance(where, str) else f"{where.host}:{where.port}"
        raise UffdError(f"{shown}: cannot connect: {error.strerror or error}") from error


def relay(server: socket.socket, reader: int, writer: int) -> None:
    """Pass bytes between the server and two descriptors until either side ends."""
    poll = select.poll()
    for descriptor in (server.fileno(), reader):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready: List[int] = [descriptor for descriptor, _ in poll.poll()]
        if server.fileno() in ready:
            data = server.recv(1 << 16)
            if not data:
                return
            while data:
                data = data[os.write(writer, data) :]
        if reader in ready:
            data = os.read(reader, 1 << 16)
            if not data:
                return
            server.sendall(data)

"""Whoever keeps the client's connection open when the server dies, so that gdb is told.

Every gdb up to 18 stops at an assertion of its own (thread.c, inferior_thread: "current_thread_ !=
nullptr") when the connection to a remote target closes while it calls a function: the threads go
with the target, and infcall.c goes on to use one.  So the socket has a second owner, a process that
does nothing: no byte passes through it.  When the server is gone it answers in its place, what ran
by a death (gdb manual, "Stop Reply Packets", `X`), everything else by an error.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import tempfile
from typing import List, Optional

from gdb_uffd.outputs import remove_directories
from gdb_uffd.server.stub.framing import PACKET_SIZE, Decoder, escape, frame

TITLE = b"gdb_uffd: holds the connection"
_HEAD = 64
"""Bytes of a packet that tell what would answer it."""
_SIZE = 128  # where the size of the registers lies in the page
_PLAIN = 132  # and whether packets are not acknowledged any more
_UNREAD = b"\1"
_IDLE = b"\0"
_SOON_S = 2.0
"""A client that has its answer asks the next thing sooner, or is left by its user."""

_OVER = b"over"
"""What the server says last; one that was killed does not."""

GONE = b"E.the server is gone"
_FAILED = b"E01"
_DONE = b"OK"
_THREADS = b"qXfer:threads:read::"
_CHANGES = b"GPMXZzHTD"
"""Packets that are let pass.  gdb sends them to put things back after an error, where another error
would be one too many; what they would change is gone anyway."""


class UnansweredPackets:
    """What the server has read and not answered, and what else the client has to be told by whoever
    answers in its place, in memory that outlives it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.threads = os.memfd_create("threads", os.MFD_CLOEXEC)

    def reading(self) -> None:
        """Something will be read now."""
        self._page[0:1] = _UNREAD

    def read(self, packet: bytes) -> None:
        """It was this."""
        head = packet[:_HEAD] or _UNREAD
        self._page[0 : _HEAD + 1] = head.ljust(_HEAD, b"\0") + _IDLE

    def answering(self) -> None:
        """The answer goes out now."""
        self._page[_HEAD : _HEAD + 1] = b"!"

    def idle(self) -> None:
        """All is answered."""
        self._page[0:1] = _IDLE

    def head(self, client: socket.socket) -> bytes:
        """The beginning of the packet that is not answered, _UNREAD where it is not known, b"" for
        none.

        An answer too many would be taken for another's, one too few hang the client: where it
        cannot be known, the client tells by asking the next thing."""
        head = bytes(self._page[:_HEAD]).partition(b"\0")[0]
        patience = 0.0 if head == _UNREAD else _SOON_S if self._page[_HEAD] else None
        if not head or patience is None:
            return head
        return b"" if select.select([client], [], [], patience)[0] else head

    def note_threads(self, xml: bytes) -> None:
        """What qXfer:threads:read gives.  Without it gdb thinks that every thread has ended."""
        os.ftruncate(self.threads, 0)
        os.pwrite(self.threads, xml, 0)

    def note_registers(self, size: int) -> None:
        """How many bytes a `g` packet carries."""
        self._page[_SIZE : _SIZE + 4] = size.to_bytes(4, "little")

    def registers(self) -> int:
        """The same."""
        return int.from_bytes(self._page[_SIZE : _SIZE + 4], "little")

    def note_plain(self) -> None:
        """Packets are not acknowledged any more (gdb manual, "Packet Acknowledgment")."""
        self._page[_PLAIN : _PLAIN + 1] = b"!"

    def acknowledgement(self) -> bytes:
        """What goes before an answer."""
        return b"" if self._page[_PLAIN] else b"+"

    def close(self) -> None:
        """Nobody will ask."""
        self._page.close()
        os.close(self.threads)


def answer(packet: bytes, pid: int, registers: int, threads: bytes) -> bytes:
    """The answer to `packet` in the place of a server that is gone.  `registers`: the size of a `g`
    packet in bytes; `threads`: the list in XML."""
    if not packet:
        return _FAILED
    if packet.startswith(b"vCont?"):
        return b"vCont;c;C;s;S"
    # gdb 18.1 waits for ever after an error to its first question (`?`): start_remote_1, remote.c.
    if packet.startswith((b"vCont", b"c", b"C", b"s", b"S", b"bc", b"bs", b"?")):
        return b"X%02x;process:%x" % (signal.SIGKILL, pid) if b"p" in packet else b"X09"
    if packet.startswith(b"quffd"):
        return GONE
    if packet.startswith(b"vKill") or packet[0] in _CHANGES:
        return _DONE
    if packet.startswith(_THREADS) and threads:
        try:
            offset, length = (int(text, 16) for text in packet[len(_THREADS) :].split(b","))
        except ValueError:
            return _FAILED
        chunk = threads[offset : offset + min(length, PACKET_SIZE // 2 - 1)]
        return (b"m" if offset + len(chunk) < len(threads) else b"l") + escape(chunk)
    if packet == b"g":
        return b"xx" * registers
    if packet[:1] == b"p":
        return b"xx" * 8
    return _FAILED


class Holder:
    """The server's side of it."""

    def __init__(self) -> None:
        """Start the process; call it while there are no threads yet."""
        self.pending = UnansweredPackets()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._pid = os.fork()
        except OSError:
            self._pid = -1  # no more processes: then the socket goes with the server
        if self._pid == 0:
            try:
                _hold(theirs, self.pending)
            finally:
                os._exit(0)
        theirs.close()
        self._holds = False

    def hold(self, client: socket.socket, pid: int) -> None:
        """From now on this is the connection, of a client that sees process `pid`."""
        self._holds = True
        self._tell(b"%d" % pid, [client.fileno()])

    def drop(self) -> None:
        """The client has left, or was told that it shall."""
        self._holds = False
        self._tell(b"0", [])

    def _tell(self, text: bytes, descriptors: List[int]) -> None:
        with contextlib.suppress(OSError):  # it is gone itself: then it is as it was without
            socket.send_fds(self._control, [text], descriptors)

    def close(self) -> None:
        """Serving is over.  It goes now, or as soon as there is no client any more."""
        self._tell(_OVER, [])
        self._control.close()
        self.pending.close()
        if self._pid > 0 and not self._holds:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)


def _hold(control: socket.socket, pending: UnansweredPackets) -> None:
    """Wait until the server has gone, and answer in its place until the client goes."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the server, whose end it sees
    signal.set_wakeup_fd(-1)
    _set_title()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (control.fileno(), pending.threads):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    client: Optional[socket.socket] = None
    pid, over = 0, False
    while True:
        poll = select.poll()
        poll.register(control, select.POLLIN)
        if client is not None:
            poll.register(client, select.POLLRDHUP)
        ready = {descriptor for descriptor, _ in poll.poll()}
        if client is not None and client.fileno() in ready:
            client.close()
            client = None
        if control.fileno() not in ready:
            continue
        text, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        if text == _OVER:
            over = True
            continue
        if not text:
            break
        if client is not None:
            client.close()
        client = socket.socket(fileno=descriptors[0]) if descriptors else None
        pid = int(text)
    if client is not None:
        with contextlib.suppress(OSError):
            _answer_all(client, pid, pending)
    if not over:
        remove_directories(tempfile.gettempdir())  # what it had unpacked for itself and for gdb


def _answer_all(client: socket.socket, pid: int, pending: UnansweredPackets) -> None:
    """What the server would have answered first, then whatever comes, until the client goes."""
    client.setblocking(True)
    head = pending.head(client)
    known = (pid, pending.registers(), os.pread(pending.threads, 64 << 20, 0))
    acknowledgement = pending.acknowledgement()
    if head:
        # Where a reply was out in part, this ends it; else it is noise between two packets.
        client.sendall(b"#00" + acknowledgement + frame(answer(head, *known)))
    decoder = Decoder()
    decoder.verify = False
    while True:
        item = decoder.next()
        if item == b"k":  # has no answer
            return
        if isinstance(item, bytes):
            client.sendall(acknowledgement + frame(answer(item, *known)))
        elif item is None:
            data = client.recv(1 << 16)
            if not data:
                return
            decoder.feed(data)


def _set_title() -> None:
    """What `ps` shows, in the place of the server's own command line (proc_pid_stat(5), fields 48
    and 49)."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/stat", "rb") as file:
            start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(TITLE.ljust(end - start, b"\0")[: end - start - 1] + b"\0")

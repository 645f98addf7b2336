"""What gdb's side and the recorder say to each other; used by both, so: standard library only.

A message is a header (two 32-bit lengths, little-endian), a JSON object, and bytes.  From gdb:

| verb | JSON | bytes |
| --- | --- | --- |
| `open` | `protocol`, `path`, `pid`, `self_contained`, `fds`: names of the descriptors that come with it (SCM_RIGHTS, unix(7)): `mem`, `pagemap`, `maps` of /proc/PID, and `uffd` where there is one | auxv |
| `capture`: the process stands still | | |
| `threads`, right behind it | `info`: facts of a SnapshotInfo | registers of all threads (`pack_thread`), the selected one first |
| `commit`: it runs again | `info`; `code`: addresses of pages | those pages |
| `import`: a core is the next snapshot | `core`, `info` | |
| `close` | | |

From the recorder: `opened` `path`, `tracked`, `why` (not); `captured` `code` (pages of code that hold
a byte 0xCC: gdb may have a breakpoint there, and says in `commit` what lies below); `committed`
`number`, `label`, `pages_changed`, `pages_stored`, `pause_us`; `failed` `error`; `closed` `snapshots`.
"""  # noqa: E501

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

PROTOCOL = 1
MAX_JSON, MAX_BYTES = 16 << 20, 1 << 30
MAX_FDS = 8

_HEADER = struct.Struct("<II")
_THREAD = struct.Struct("<iiQIII")  # tid, signal, sigmask; lengths of siginfo, name, XSAVE image
_GPRS = struct.Struct("<27Q")


class WireError(Exception):
    """The other side is gone, or says what no message is."""


@dataclass
class Message:
    """One message; `fds` came with it and belong to the receiver."""

    verb: str
    data: Dict[str, Any]
    payload: bytes = b""
    fds: Sequence[int] = ()


def send(to: socket.socket, message: Message) -> None:
    """Write it whole; OSError when the other side is gone."""
    text = json.dumps({"verb": message.verb, **message.data}).encode("ascii")
    head = _HEADER.pack(len(text), len(message.payload)) + text
    if message.fds:
        sent = socket.send_fds(to, [head], list(message.fds), socket.MSG_NOSIGNAL)
        head = head[sent:]
    to.sendall(head, socket.MSG_NOSIGNAL)
    if message.payload:
        to.sendall(message.payload, socket.MSG_NOSIGNAL)


def receive(source: socket.socket) -> Optional[Message]:
    """The next message, None at the end of the stream.  WireError for anything broken."""
    try:
        head, fds, _flags, _ = socket.recv_fds(source, _HEADER.size, MAX_FDS)
        if not head:
            return None
        head += _exactly(source, _HEADER.size - len(head))
        text_len, payload_len = _HEADER.unpack(head)
        if text_len > MAX_JSON or payload_len > MAX_BYTES:
            raise WireError("a message of impossible length")
        data = json.loads(_exactly(source, text_len))
        payload = _exactly(source, payload_len)
    except (OSError, ValueError) as error:
        raise WireError(f"the other side broke off ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("verb"), str):
        raise WireError("a message without a verb")
    return Message(data.pop("verb"), data, payload, list(fds))


def _exactly(source: socket.socket, length: int) -> bytes:
    if not length:
        return b""
    data = bytearray(length)
    view, have = memoryview(data), 0
    while have < length:
        got = source.recv_into(view[have:])
        if not got:
            raise WireError("the other side broke off in the middle of a message")
        have += got
    return bytes(data)


@dataclass(frozen=True)
class RawThread:
    """A thread as ptrace shows it.  `gprs`: the 216 bytes of struct user_regs_struct; `xsave`: the
    machine's own XSAVE image; `signal`: what it stopped by, 0 for nothing of the program's."""

    tid: int
    gprs: bytes
    xsave: bytes
    signal: int = 0
    sigmask: int = 0
    siginfo: bytes = b""
    name: bytes = b""


def pack_thread(thread: RawThread) -> bytes:
    """The thread as bytes of a `threads` message."""
    head = _THREAD.pack(
        thread.tid,
        thread.signal,
        thread.sigmask,
        len(thread.siginfo),
        len(thread.name),
        len(thread.xsave),
    )
    return b"".join((head, thread.gprs, thread.siginfo, thread.name, thread.xsave))


def unpack_threads(data: bytes) -> Iterator[RawThread]:
    """All threads of such bytes; WireError when they are cut short."""
    at = 0
    while at < len(data):
        if at + _THREAD.size > len(data):
            raise WireError("registers cut short")
        tid, signal, mask, *lengths = _THREAD.unpack_from(data, at)
        at += _THREAD.size
        fields: List[bytes] = []
        for length in (_GPRS.size, *lengths):
            if at + length > len(data):
                raise WireError("registers cut short")
            fields.append(data[at : at + length])
            at += length
        gprs, siginfo, name, xsave = fields
        yield RawThread(tid, gprs, xsave, signal, mask, siginfo, name)


def unpack_gprs(gprs: bytes) -> Tuple[int, ...]:
    """The 27 values in the order of model.GPR_NAMES."""
    return _GPRS.unpack(gprs)

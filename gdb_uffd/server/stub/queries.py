"""General queries: qSupported, qXfer, qGetTLSAddr and the small ones.

gdb manual, nodes "General Query Packets" and "Packets".
"""

from __future__ import annotations

import errno
import os
from typing import Callable, Dict, Optional

from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.server.stub import auxv, libraries, packets, threads
from gdb_uffd.server.stub.framing import PACKET_SIZE, escape, unescape
from gdb_uffd.trace.core.notes import own_auxv

_MAX_FEATURES = 256
_SIGINFO_BYTES = 128  # siginfo_t on x86-64 Linux, <asm-generic/siginfo.h> SI_MAX_SIZE

_FEATURES = b";".join(
    (
        b"PacketSize=%x" % PACKET_SIZE,
        b"QStartNoAckMode+",
        b"multiprocess+",
        b"swbreak+",
        b"hwbreak+",
        b"vContSupported+",
        b"binary-upload+",
        b"ConditionalBreakpoints+",
        b"BreakpointCommands+",
        b"QCatchSyscalls+",
        b"QPassSignals+",
        b"qXfer:features:read+",
        b"qXfer:auxv:read+",
        b"qXfer:exec-file:read+",
        b"qXfer:libraries-svr4:read+",
        b"augmented-libraries-svr4-read+",
        b"qXfer:threads:read+",
        b"qXfer:siginfo:read+",
        b"qXfer:siginfo:write+",
    )
)


def supported(session: StubSession, arguments: bytes) -> bytes:
    """`qSupported[:feature;...]`."""
    session.greet(frozenset(arguments.split(b";")[:_MAX_FEATURES]))
    backward = len(session.navigator.trace.snapshots) > 1
    return _FEATURES + b";ReverseContinue+;ReverseStep+" if backward else _FEATURES


def start_no_ack(session: StubSession, _arguments: bytes) -> bytes:
    """`QStartNoAckMode`: takes effect after this reply."""
    session.no_ack_agreed = True
    return b"OK"


def attached(_session: StubSession, _arguments: bytes) -> bytes:
    """`qAttached`: 1, so that gdb detaches when it quits, without asking to kill anything."""
    return b"1"


def symbol(_session: StubSession, _arguments: bytes) -> bytes:
    """`qSymbol::`: thread-locals are found without gdb's help."""
    return b"OK"


def tls_address(session: StubSession, arguments: bytes) -> bytes:
    """`qGetTLSAddr:thread-id,offset,lm`: UffdError says why there is none."""
    fields = arguments.split(b",")
    if len(fields) != 3:
        raise PacketError(errno.EINVAL)
    tid = threads.parse_thread_id(session, fields[0])
    if tid in (threads.ANY, threads.ALL):
        tid = session.general
    offset, link_map = parse_hex(fields[1]), parse_hex(fields[2])
    diversion = session.diversion
    fs_base = diversion.registers(tid).thread_pointer
    address = diversion.snapshot.tls_address(tid, offset, link_map, fs_base, diversion.read_memory)
    return b"%x" % address


def transfer(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """`qXfer:object:read:annex:offset,length` and `...:write:annex:offset:data`."""
    fields = arguments.split(b":", 3)
    if len(fields) != 4:
        raise PacketError(errno.EINVAL)
    name, direction, annex, rest = fields
    if direction == b"read" and name in _READERS:
        data = _READERS[name](session, annex)
        if data is None:
            raise PacketError(errno.ENOENT)
        return _window(data, rest)
    if direction == b"write" and name == b"siginfo":
        return _write_siginfo(session, annex, rest)
    return None


def _window(data: bytes, where: bytes) -> bytes:
    first, separator, second = where.partition(b",")
    if not separator:
        raise PacketError(errno.EINVAL)
    offset, length = parse_hex(first), min(parse_hex(second), PACKET_SIZE // 2 - 1)
    if offset > len(data):
        raise PacketError(errno.EINVAL)
    chunk = data[offset : offset + length]
    return (b"m" if offset + len(chunk) < len(data) else b"l") + escape(chunk)


def _target_description(session: StubSession, annex: bytes) -> Optional[bytes]:
    if annex != b"target.xml":
        return None
    session.describe()
    return packets.description(session.diversion.snapshot.threads[0].registers)


def _auxv(session: StubSession, _annex: bytes) -> Optional[bytes]:
    snapshot = session.diversion.snapshot
    told = auxv.harmless(snapshot.auxv, snapshot.arch.word, session.diversion.read_memory)
    return own_auxv(told, snapshot.arch)


def _exec_file(session: StubSession, annex: bytes) -> Optional[bytes]:
    if annex and parse_hex(annex) != session.pid:
        return None
    return os.fsencode(session.diversion.snapshot.executable) or None


def _siginfo(session: StubSession, _annex: bytes) -> Optional[bytes]:
    return session.diversion.siginfo(session.general) or None


_READERS: Dict[bytes, Callable[[StubSession, bytes], Optional[bytes]]] = {
    b"features": _target_description,
    b"auxv": _auxv,
    b"exec-file": _exec_file,
    b"libraries-svr4": libraries.library_list,
    b"siginfo": _siginfo,
    b"threads": threads.thread_list_xml,
}


def _write_siginfo(session: StubSession, annex: bytes, rest: bytes) -> bytes:
    where, separator, raw = rest.partition(b":")
    data, offset = unescape(raw), parse_hex(where)
    if annex or not separator or offset + len(data) > _SIGINFO_BYTES:
        raise PacketError(errno.EINVAL)
    old = session.diversion.siginfo(session.general).ljust(_SIGINFO_BYTES, b"\0")
    new = old[:offset] + data + old[offset + len(data) :]
    session.diversion.set_siginfo(session.general, new)
    return b"%x" % len(data)

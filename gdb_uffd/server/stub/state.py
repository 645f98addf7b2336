"""Register and memory packets: g G p P, m M x X (gdb manual, node "Packets")."""

from __future__ import annotations

import binascii
import errno
from typing import Tuple

from gdb_uffd.protocol.ends import Unavailable
from gdb_uffd.protocol.model import PAGE_SIZE, MemoryUnavailable, Registers, UffdError, page_floor
from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.server.stub.framing import PACKET_SIZE, escape, unescape

MAX_READ = PACKET_SIZE // 2 - 1
"""Bytes that one memory reply can carry, every one of them escaped or in hex."""

_END_OF_MEMORY = 1 << 64


def write_registers(session: StubSession, arguments: bytes) -> bytes:
    """`G XX...`: all of them."""
    old = session.diversion.registers(session.general)
    if len(arguments) != 2 * session.register_format.size:
        raise PacketError(errno.EINVAL)
    if b"x" in arguments:  # registers the client does not know: keep them
        known = session.register_format.encode_hex(old).replace(b"x", b"0")
        arguments = bytes(k if a == 0x78 else a for a, k in zip(arguments, known))
    return _store(session, session.register_format.decode(_from_hex(arguments), old), old)


def read_register(session: StubSession, arguments: bytes) -> bytes:
    """`p n`."""
    slots = session.register_format.slots
    number = parse_hex(arguments)
    if number >= len(slots):
        raise PacketError(errno.EINVAL)
    offset, size = slots[number]
    start = 1 + 2 * offset  # past the "$"
    return session.registers_packet()[start : start + 2 * size]


def write_register(session: StubSession, arguments: bytes) -> bytes:
    """`P n=r`."""
    number, separator, value = arguments.partition(b"=")
    if not separator:
        raise PacketError(errno.EINVAL)
    old = session.diversion.registers(session.general)
    made = session.register_format.write(parse_hex(number), _from_hex(value), old)
    return _store(session, made, old)


def _store(session: StubSession, registers: Registers, old: Registers) -> bytes:
    """What the kernel would not take of a live process is refused, too."""
    taken = registers.arch.loadable(registers.gpr)
    if any(a != b and a != c for a, b, c in zip(registers.gpr, taken, old.gpr)):
        raise PacketError(errno.EIO)
    session.set_registers(registers)
    return b"OK"


def read_memory(session: StubSession, arguments: bytes) -> bytes:
    """`m addr,length`: as much as can be read from the start of the range."""
    return binascii.hexlify(_read(session, arguments))


def read_memory_binary(session: StubSession, arguments: bytes) -> bytes:
    """`x addr,length` (gdb 16, feature "binary-upload"): `b` and the bytes."""
    return b"b" + escape(_read(session, arguments))


def write_memory(session: StubSession, arguments: bytes) -> bytes:
    """`M addr,length:XX...`."""
    where, separator, data = arguments.partition(b":")
    if not separator:
        raise PacketError(errno.EINVAL)
    return _write(session, where, _from_hex(data))


def write_memory_binary(session: StubSession, arguments: bytes) -> bytes:
    """`X addr,length:binary`; of length 0 it asks whether the packet is known."""
    where, separator, data = arguments.partition(b":")
    if not separator:
        raise PacketError(errno.EINVAL)
    return _write(session, where, unescape(data))


def _read(session: StubSession, arguments: bytes) -> bytes:
    address, length = _range(arguments)
    length = min(length, MAX_READ, _END_OF_MEMORY - address)
    if length == 0:
        return b""
    read = session.diversion.read_memory if session.view is None else session.view.read
    try:
        return read(address, length)
    except MemoryUnavailable as error:
        reason, good = error, error.address - address
    session.last_unavailable = _missing(reason)
    if 0 < good < length:
        try:
            return read(address, good)
        except MemoryUnavailable:
            pass  # the reader named another byte than the first bad one
    out = b""
    while len(out) < length:
        position = address + len(out)
        step = min(page_floor(position) + PAGE_SIZE - position, length - len(out))
        try:
            out += read(position, step)
        except MemoryUnavailable:
            break
    if not out:
        raise PacketError(errno.EFAULT) from reason
    return out


def _write(session: StubSession, where: bytes, data: bytes) -> bytes:
    address, length = _range(where)
    if length != len(data) or address + length > _END_OF_MEMORY:
        raise PacketError(errno.EINVAL)
    if data:
        try:
            session.diversion.write_memory(address, data)
        except UffdError as error:  # no such memory, or no process can be made
            session.last_unavailable = _missing(error)
            raise
    return b"OK"


def _missing(error: UffdError) -> Unavailable:
    if isinstance(error, MemoryUnavailable):
        return Unavailable(error.address, error.reason)
    return Unavailable(None, str(error))


def _range(text: bytes) -> Tuple[int, int]:
    address, separator, length = text.partition(b",")
    if not separator:
        raise PacketError(errno.EINVAL)
    parsed = parse_hex(address), parse_hex(length)
    if parsed[0] >= _END_OF_MEMORY:
        raise PacketError(errno.EINVAL)
    return parsed


def _from_hex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        raise PacketError(errno.EINVAL) from None

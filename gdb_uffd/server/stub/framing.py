"""Packets of the remote serial protocol: `$payload#checksum`, acknowledgements, escapes.

Source of every rule here: the gdb manual, appendix "Remote Protocol", nodes "Overview",
"Packet Acknowledgment" and "Interrupts".
"""

from __future__ import annotations

import enum
import re
import zlib
from typing import Optional, Union

PACKET_SIZE = 0x20000
"""Longest payload either side sends, in bytes: what qSupported announces as PacketSize."""

INTERRUPT_BYTE = 0x03
"""Sent outside of packets for Ctrl-C (node "Interrupts")."""

ESCAPE = 0x7D  # '}'
ESCAPE_XOR = 0x20
RUN_BIAS = 29
"""`x*c` stands for x and then `ord(c) - 29` more of it (node "Overview", run-length encoding)."""

_DOLLAR, _HASH, _PLUS, _MINUS = 0x24, 0x23, 0x2B, 0x2D
_MUST_ESCAPE = re.compile(rb"[#$*}]")
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_SUMMABLE = 256  # bytes whose sum is certain to be below adler32's modulus: 256 * 255 < 65521


class FramingError(ValueError):
    """A payload that breaks the encoding rules."""


class FramingEvent(enum.Enum):
    """What the decoder can meet besides a packet."""

    INTERRUPT = "interrupt"
    RESEND = "resend"  # the peer sent '-'
    BAD = "bad checksum"
    TOO_LONG = "too long"


def checksum(payload: bytes) -> int:
    """The sum of the bytes modulo 256.

    The low half of adler32 is one plus that sum modulo 65521, so that sums of short pieces
    come out of C code; a sum in Python of a register packet would cost more than the
    rest of answering it.
    """
    if len(payload) <= _SUMMABLE:
        return ((zlib.adler32(payload) & 0xFFFF) - 1) & 0xFF
    adler32 = zlib.adler32
    total = 0
    view = memoryview(payload)
    for start in range(0, len(payload), _SUMMABLE):
        total += (adler32(view[start : start + _SUMMABLE]) & 0xFFFF) - 1
    return total & 0xFF


def frame(payload: bytes) -> bytes:
    """`payload` (already escaped where it is binary) as it goes over the wire."""
    return b"$%b#%02x" % (payload, checksum(payload))


def escape(data: bytes) -> bytes:
    """Binary data as the `X`, `x`, `vFile` and `qXfer` packets carry it."""
    if _MUST_ESCAPE.search(data) is None:
        return data
    return _MUST_ESCAPE.sub(lambda m: bytes((ESCAPE, m.group()[0] ^ ESCAPE_XOR)), data)


def unescape(data: bytes) -> bytes:
    """The inverse of `escape`; FramingError for an escape character at the very end."""
    if ESCAPE not in data:
        return data
    plain = _ESCAPED.sub(lambda m: bytes((m.group(1)[0] ^ ESCAPE_XOR,)), data)
    if _ESCAPED.sub(b"", data).endswith(b"}"):
        raise FramingError("escape character at the end")
    return plain


def expand_runs(payload: bytes) -> bytes:
    """Undo run-length encoding; gdb never sends it, other clients may.

    FramingError for a run without its character or count, or a result over PACKET_SIZE.
    """
    if b"*" not in payload:
        return payload
    out = bytearray()
    position = 0
    while True:
        star = payload.find(b"*", position)
        if star < 0:
            out += payload[position:]
            break
        out += payload[position:star]
        if not out or star + 1 >= len(payload):
            raise FramingError("run without its character or count")
        count = payload[star + 1] - RUN_BIAS
        if count <= 0:
            raise FramingError("run of no length")
        out += out[-1:] * count
        position = star + 2
        if len(out) > PACKET_SIZE:
            break
    if len(out) > PACKET_SIZE:
        raise FramingError("run expands beyond the packet size")
    return bytes(out)


class Decoder:
    """Cuts a byte stream into packets and events.  Holds at most one packet's worth.

    `verify` asks for the checksum to be compared; without acknowledgements there is no way
    to ask for the packet again, so gdb does not look at it either (read_frame in remote.c).
    """

    def __init__(self) -> None:
        self.verify = True
        self._data = b""
        self._position = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        if self._position < len(self._data):
            self._data = self._data[self._position :] + data
        else:
            self._data = data
        self._position = 0

    def take_interrupt(self) -> bool:
        """Whether the next thing received is an interrupt; if so it is consumed.

        Looks only past acknowledgements: an interrupt after another packet belongs to that.
        """
        data, position = self._data, self._position
        while position < len(data) and data[position] in (_PLUS, _MINUS):
            position += 1
        if position < len(data) and data[position] == INTERRUPT_BYTE:
            self._position = position + 1
            return True
        return False

    def take_refusals(self) -> int:
        """How often the peer, next, asks for the reply once more; those are consumed."""
        data, position, count = self._data, self._position, 0
        while position < len(data) and data[position] in (_PLUS, _MINUS):
            count += data[position] == _MINUS
            position += 1
        self._position = position
        return count

    def next(self) -> Optional[Union[bytes, FramingEvent]]:
        """The next payload (escapes still in it) or event; None when more bytes are needed."""
        data = self._data
        size = len(data)
        position = self._position
        if self._skipping:
            return self._skip()
        while position < size:
            byte = data[position]
            if byte == _DOLLAR:
                self._position = position
                return self._packet()
            position += 1
            self._position = position
            if byte == INTERRUPT_BYTE:
                return FramingEvent.INTERRUPT
            if byte == _MINUS:
                return FramingEvent.RESEND
            # '+' needs no answer; anything else between packets is noise.
        return None

    def _packet(self) -> Optional[Union[bytes, FramingEvent]]:
        data, start = self._data, self._position + 1
        end = data.find(b"#", start)
        if end < 0:
            if len(data) - start > PACKET_SIZE:
                self._skipping = True
                self._position = len(data)
            return None
        if end + 2 >= len(data):
            return None
        self._position = end + 3
        if end - start > PACKET_SIZE:
            return FramingEvent.TOO_LONG
        payload = data[start:end]
        if _DOLLAR in payload:  # a new packet began inside of a broken one
            payload = payload[payload.rfind(b"$") + 1 :]
        if self.verify:
            try:
                said = int(data[end + 1 : end + 3], 16)
            except ValueError:
                return FramingEvent.BAD
            if said != checksum(payload):
                return FramingEvent.BAD
        if b"*" in payload:
            try:
                return expand_runs(payload)
            except FramingError:
                return FramingEvent.BAD
        return payload

    def _skip(self) -> Optional[FramingEvent]:
        data = self._data
        end = data.find(b"#", self._position)
        if end < 0:
            self._position = len(data)
            return None
        if end + 2 >= len(data):
            self._position = end
            return None
        self._skipping = False
        self._position = end + 3
        return FramingEvent.TOO_LONG

"""The remote stub: takes packets one by one, finds who answers them, and sends the reply.

Node "Packets" of the gdb manual: an empty reply means that a packet is not known, `E` and two
digits or `E.` and text that it failed.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.interface import Disconnected
from gdb_uffd.server.requests import answer as requests
from gdb_uffd.server.session import PacketError, SessionEnded, StubSession
from gdb_uffd.server.stub import execution, lldb, queries, state, threads, vfile
from gdb_uffd.server.stub.framing import FramingError

Handler = Callable[[StubSession, bytes], Optional[bytes]]
"""Takes what follows the packet's name; None means "not supported"."""


def _detach(session: StubSession, arguments: bytes) -> bytes:
    """`D[;pid]`."""
    raise SessionEnded(b"OK")


def _kill(session: StubSession, arguments: bytes) -> bytes:
    """`k`: has no reply."""
    raise SessionEnded


def _kill_process(session: StubSession, arguments: bytes) -> bytes:
    """`vKill;pid`."""
    raise SessionEnded(b"OK")


def _plain(kind: str) -> Handler:
    return lambda session, arguments: execution.resume_plain(session, kind, arguments)


_ONE_LETTER: Dict[int, Handler] = {
    ord("?"): execution.last_stop,
    ord("C"): _plain("C"),
    ord("D"): _detach,
    ord("G"): state.write_registers,
    ord("H"): threads.select,
    ord("M"): state.write_memory,
    ord("P"): state.write_register,
    ord("S"): _plain("S"),
    ord("T"): threads.alive,
    ord("X"): state.write_memory_binary,
    ord("Z"): execution.insert,
    ord("_"): lldb.memory,
    ord("b"): execution.backward,
    ord("c"): _plain("c"),
    ord("j"): lldb.json_packet,
    ord("k"): _kill,
    ord("m"): state.read_memory,
    ord("p"): state.read_register,
    ord("s"): _plain("s"),
    ord("x"): state.read_memory_binary,
    ord("z"): execution.remove,
}

_NAMED: Dict[bytes, Handler] = {
    b"QCatchSyscalls": execution.catch_calls,
    b"QPassSignals": execution.pass_signals,
    b"QStartNoAckMode": queries.start_no_ack,
    b"qAttached": queries.attached,
    b"qC": threads.current,
    b"qGetTLSAddr": queries.tls_address,
    b"qSupported": queries.supported,
    b"qSymbol": queries.symbol,
    b"qThreadExtraInfo": threads.extra_info,
    b"qXfer": queries.transfer,
    b"qfThreadInfo": threads.first_ids,
    b"qsThreadInfo": threads.next_ids,
    b"quffd": requests.answer,
    b"vCont": execution.resume,
    b"vCont?": execution.supported_actions,
    b"vFile": vfile.answer,
    b"vKill": _kill_process,
    **lldb.NAMED,
}

_CHANGING = frozenset((_NAMED[b"vCont"], *(_ONE_LETTER[ord(letter)] for letter in "CMSXbcsZ")))
"""What is refused while a view is on (quffd.view)."""

_LONG = frozenset(b"qQv")
_SEPARATORS = b":;,."


def _split(packet: bytes) -> Tuple[bytes, bytes]:
    """The name of a packet of the q, Q and v families, and what follows the separator."""
    for position, byte in enumerate(packet):
        if byte in _SEPARATORS:
            return packet[:position], packet[position + 1 :]
    return packet, b""


def serve(session: StubSession) -> None:
    """Answer packets until the client detaches, kills, or goes away.

    What runs is ended on the way out, before the reply to a detach.
    """
    connection, left, packets = session.connection, False, 0
    try:
        while True:
            packet = connection.receive()
            packets += 1
            if packet == b"g":
                try:
                    session.stand()
                    framed = session.registers_packet()
                except Exception as error:
                    connection.reply(_failed(session, packet, error))
                else:
                    connection.reply_framed(framed)
                continue
            connection.reply(handle(session, packet))
            if session.no_ack_agreed:
                connection.stop_acknowledging()
                session.no_ack_agreed = False
    except SessionEnded as ended:
        session.step_back()
        session.navigator.leave()
        left = True
        if ended.reply:
            try:
                connection.reply(ended.reply)
            except Disconnected:
                pass  # it did not wait for the answer
    except Disconnected:
        pass
    finally:
        session.probed = session.probed and packets == 1 and not left
        if not left:
            session.step_back()
        if not left and not session.probed:
            session.navigator.leave()


def handle(session: StubSession, packet: bytes) -> bytes:
    """The reply to one packet.  Raises nothing but Ended and Disconnected."""
    if not packet:
        return b""
    handler: Optional[Handler]
    if packet.startswith(lldb.THREAD_STOP):
        handler, arguments = lldb.thread_stop, packet[len(lldb.THREAD_STOP) :]
    elif packet[0] in _LONG:
        name, arguments = _split(packet)
        handler = _NAMED.get(name)
    else:
        handler, arguments = _ONE_LETTER.get(packet[0]), packet[1:]
    if handler is None:
        return b""
    try:
        if session.view is not None and handler in _CHANGING:
            raise UffdError("memory is shown as it was: nothing runs and nothing is written")
        if handler is not requests.answer:  # which knows what may come meanwhile
            session.stand()
        reply = handler(session, arguments)
    except (SessionEnded, Disconnected):
        raise
    except Exception as error:  # whatever goes wrong must not end the session
        return _failed(session, packet, error)
    return b"" if reply is None else reply


def _failed(session: StubSession, packet: bytes, error: Exception) -> bytes:
    if isinstance(error, PacketError):
        return b"E%02x" % (error.code & 0xFF)
    if isinstance(error, (UffdError, FramingError, ValueError)):
        text = str(error)
    else:
        text = f"internal error in the server: {type(error).__name__}: {error}"
        session.log(f"packet {packet[:40]!r}: {type(error).__name__}: {error}")
    # Before the feature "error-message" gdb expects text only from the q packets.
    if session.error_strings and not packet.startswith(b"quffd"):
        return b"E01;" + text.encode("utf-8", "replace").hex().encode("ascii")
    if packet[:1] == b"q" or b"error-message+" in session.offered:
        return requests.error_text(text)
    return b"E01"

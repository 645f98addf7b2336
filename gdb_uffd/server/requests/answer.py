"""Answers the requests of gdb_uffd's own commands: the `quffd` packets of docs/protocol.md."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

from gdb_uffd.protocol import codec
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.requests import calls, heap, memory, rerun, server, shorten, travel
from gdb_uffd.server.requests.registry import REQUESTS
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub.framing import escape

SUBJECTS = (server, calls, memory, heap, rerun, travel)
"""Whose handlers are in REQUESTS by now."""

_MAX_ERROR = 2000  # characters


def error_text(text: str) -> bytes:
    """An `E.` reply: one line, with the framing's characters escaped as in JSON strings."""
    line = " ".join(text.split())[:_MAX_ERROR] or "unknown error"
    escaped = "".join(c if " " <= c <= "~" and c not in "#$*}" else _escaped(c) for c in line)
    return b"E." + escaped.encode("ascii")


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character > "~" else f"\\u{ord(character):04x}"


def answer(session: StubSession, packet: bytes) -> Optional[bytes]:
    """`quffd.NAME[:ARGUMENTS]`; `packet` begins at NAME.  None for one that is not known."""
    name, separator, text = packet.partition(b":")
    found = REQUESTS.get(name.decode("ascii", "replace"))
    if found is None:
        return None
    asked = codec.from_json(found.kind, _arguments(text) if separator else {})
    if not found.rerun:
        session.stand()
    if not found.looking:
        session.view = None
    value = codec.to_json(found.handler(session, asked))
    reply = codec.to_text(value)
    while len(reply) > codec.MAX_MESSAGE:
        if not shorten.shorten(value):
            raise UffdError("the answer is too large to send")
        reply = codec.to_text(value)
    data = reply.encode("ascii")
    # lldb takes `}` for the escape character that it is, gdb passes replies to q packets through.
    return escape(data) if session.lldb else data


def _arguments(text: bytes) -> Dict[str, Any]:
    try:
        arguments = codec.from_text(text)
    except codec.CodecError:
        raise UffdError("the arguments are not JSON") from None
    if not isinstance(arguments, dict):
        raise UffdError("the arguments are not a JSON object")
    return arguments

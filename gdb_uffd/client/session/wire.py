"""The requests of docs/protocol.md as packets, and the replies.  No gdb here."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, Optional, TypeVar

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.codec import CodecError, from_json, from_text, to_json, to_text
from gdb_uffd.protocol.messages import Progress, Ready, Request, Served
from gdb_uffd.protocol.model import PROTOCOL_VERSION, UffdError
from gdb_uffd.terminal import one_line

R = TypeVar("R")

SERVER_GONE = b"E.the server is gone"
"""What whoever holds its connection says then (server/listen/holder.py)."""


def encode(asked: Request[Any]) -> str:
    """``quffd.NAME`` or ``quffd.NAME:JSON``, with nothing in it that framing would alter."""
    arguments = to_json(asked)
    return f"quffd.{asked.NAME}" + (f":{to_text(arguments)}" if arguments else "")


def decode(asked: Request[R], reply: Optional[bytes]) -> R:
    """What the reply says; UffdError for an error reply or for anything else."""
    name = f"quffd.{asked.NAME}"
    if not reply:
        raise UffdError(
            f"the target does not know {name}: no uffd server (`uffd spawn` starts one)"
        )
    text = reply.decode("utf-8", "replace")
    if text.startswith("E."):
        try:
            raise UffdError(json.loads(f'"{_quotable(text[2:])}"'))
        except ValueError:
            raise UffdError(text[2:]) from None
    if text[0] == "E" and len(text) == 3:
        raise UffdError(f"the server refused {name} (error {text[1:]})")
    try:
        data = from_text(text)
    except CodecError:
        raise UffdError(
            f"the server's answer to {name} is not JSON ({text[:40]!r}); "
            "`uffd kill` ends this session"
        ) from None
    told: R = from_json(asked.REPLY, data, f"the server's answer to {name}")
    return told


def _quotable(text: str) -> str:
    """`text` for a JSON string literal, its own \\uXXXX escapes kept."""
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", " ").replace("\n", " ")
    return out.replace("\\\\u", "\\u")


@dataclass(frozen=True)
class _Progress:
    """A line of the server's start about a download that goes on."""

    progress: Progress


@dataclass(frozen=True)
class _Start:
    """The last line of it, as every version has it."""

    ready: bool
    protocol: int = 0
    error: str = ""


def parse_progress(line: bytes) -> Optional[Progress]:
    """What a line of the server's start says of a download that goes on; None for other lines."""
    try:
        return from_json(_Progress, from_text(line)).progress
    except CodecError:
        return None


def parse_ready(line: str) -> Ready:
    """The ready line; UffdError with the server's own words when it could not start."""
    try:
        data = from_text(line)
        start = from_json(_Start, data)
        if not start.ready and start.error:
            raise UffdError(one_line(start.error))
        if start.protocol and start.protocol != PROTOCOL_VERSION:
            raise UffdError(
                f"the server speaks protocol {start.protocol}, gdb's side {PROTOCOL_VERSION}: "
                "install both from the same version"
            )
        return clean(from_json(Ready, data))
    except CodecError as error:
        raise UffdError(
            f"the server's first line is not what it should be ({error}: {line[:60]!r})"
        ) from None


def clean(served: Served) -> Ready:
    """The facts of a Ready or an Info, with texts from outside as single lines."""
    facts: Any = {field.name: getattr(served, field.name, True) for field in fields(Ready)}
    ready = Ready(**facts)
    return replace(
        ready,
        server=one_line(ready.server),
        warnings=[one_line(warning) for warning in ready.warnings],
        arguments=one_line(ready.arguments),
        unasked=[one_line(name) for name in ready.unasked],
    )

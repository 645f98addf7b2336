"""The private packets of docs/protocol.md, as text and back.  No gdb here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.codec import report_from_json
from gdb_uffd.protocol.model import (
    PROTOCOL_VERSION,
    CallReport,
    Mapping,
    UffdError,
)
from gdb_uffd.terminal import printable

SERVER_GONE = b"E.the server is gone"
"""What whoever holds its connection says then (server/listen/holder.py)."""

_FRAMING = "#$*}"
"""What gdb's packet framing treats specially (gdb manual, "Overview", remote protocol)."""


def encode(verb: str, arguments: Optional[Dict[str, Any]] = None) -> str:
    """``quffd.VERB`` or ``quffd.VERB:JSON``, with nothing in it that framing would alter."""
    if arguments is None:
        return f"quffd.{verb}"
    text = json.dumps(arguments, ensure_ascii=True, separators=(",", ":"))
    # "}" ends every object, so it stays; gdb sends a packet from Python byte by byte as it is.
    for char in _FRAMING[:3]:
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f"quffd.{verb}:{text}"


def decode(verb: str, reply: Optional[bytes]) -> Any:
    """The JSON value of a reply; UffdError for an error reply or for anything else."""
    if not reply:
        raise UffdError(
            f"the target does not know quffd.{verb}: no uffd server (`uffd spawn` starts one)"
        )
    text = reply.decode("utf-8", "replace")
    if text.startswith("E."):
        try:
            raise UffdError(json.loads(f'"{_quotable(text[2:])}"'))
        except ValueError:
            raise UffdError(text[2:]) from None
    if text[0] == "E" and len(text) == 3:
        raise UffdError(f"the server refused quffd.{verb} (error {text[1:]})")
    try:
        return json.loads(text)
    except ValueError:
        raise UffdError(
            f"the server's answer to quffd.{verb} is not JSON ({text[:40]!r}); "
            "`uffd kill` ends this session"
        ) from None


def _quotable(text: str) -> str:
    """`text` for a JSON string literal, its own \\uXXXX escapes kept."""
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", " ").replace("\n", " ")
    return out.replace("\\\\u", "\\u")


@dataclass(frozen=True)
class Ready:
    """The line the server prints when it listens (docs/protocol.md, Start-up)."""

    server: str
    pid: int
    socket: str
    core: str
    executable: str
    warnings: List[str]
    threads: int
    total_pages: int
    inferior_pid: int
    signal: int
    open_ms: float
    snapshots: int = 1
    snapshot: int = 0
    sysroot: str = ""
    brought: bool = False  # files there came with the trace
    architecture: str = ""
    arguments: str = ""
    unasked: Sequence[str] = ()  # missing files that no debuginfod server was asked for


def parse_progress(line: bytes) -> str:
    """What a line of the server's start says of a download that goes on; "" for other lines."""
    if not line.startswith(b'{"progress"'):
        return ""
    try:
        return str(json.loads(line)["progress"])
    except (ValueError, KeyError):
        return ""


def parse_ready(line: str) -> Ready:
    """The ready line; UffdError with the server's own words when it could not start."""
    try:
        data = json.loads(line)
        if not data["ready"]:
            raise UffdError(one_line(str(data["error"])))
        if data["protocol"] != PROTOCOL_VERSION:
            raise UffdError(
                f"the server speaks protocol {data['protocol']}, gdb's side {PROTOCOL_VERSION}: "
                "install both from the same version"
            )
        return _facts(data)
    except (ValueError, KeyError, TypeError) as error:
        raise UffdError(
            f"the server's first line is not what it should be ({error!r}: {line[:60]!r})"
        ) from None


def parse_facts(data: Any) -> Ready:
    """The same from the answer to quffd.info; UffdError."""
    try:
        return _facts(data)
    except (ValueError, KeyError, TypeError) as error:
        raise UffdError(f"the server does not tell what it serves ({error!r})") from None


def _facts(data: Any) -> Ready:
    return Ready(
        server=one_line(str(data["server"])),
        pid=int(data["pid"]),
        socket=str(data["socket"]),
        core=str(data["core"]),
        executable=str(data["executable"] or ""),
        warnings=[one_line(str(w)) for w in data["warnings"]],
        threads=int(data["threads"]),
        total_pages=int(data["total_pages"]),
        inferior_pid=int(data["inferior_pid"]),
        signal=int(data["signal"] or 0),
        open_ms=float(data["open_ms"]),
        snapshots=int(data.get("snapshots", 1)),
        snapshot=int(data.get("snapshot", 0)),
        sysroot=str(data.get("sysroot", "")),
        brought=bool(data.get("brought", False)),
        architecture=str(data.get("architecture", "")),
        arguments=one_line(str(data.get("arguments", ""))),
        unasked=[one_line(str(name)) for name in data.get("unasked", ())],
    )


@dataclass(frozen=True)
class Summary:
    """What a plain `print f()` dirtied, in numbers."""

    kind: str
    kept: bool
    pages: int
    gdb_pages: int
    bytes_changed: int
    fed_pages: int
    ended: str = ""
    unavailable: str = ""
    unknown: Tuple[int, int] = (0, 0)  # pages that the recording does not hold: zeros, as in files
    refused: List[str] = field(default_factory=list)
    unsound: List[str] = field(default_factory=list)
    files_read: List[str] = field(default_factory=list)
    uncaught: Optional[Dict[str, Any]] = None  # as of CallReport


def parse_summary(data: Any) -> Optional[Summary]:
    """A Summary, or None for null."""
    if data is None:
        return None
    try:
        return Summary(
            kind=str(data["kind"]),
            kept=bool(data["kept"]),
            pages=int(data["pages"]),
            gdb_pages=int(data["gdb_pages"]),
            bytes_changed=int(data["bytes_changed"]),
            fed_pages=int(data["fed_pages"]),
            ended=str(data["ended"] or ""),
            unavailable=str(data["unavailable"] or ""),
            unknown=(int(data["unknown"][0]), int(data["unknown"][1])),
            refused=[str(r) for r in data["refused"]],
            unsound=[str(r) for r in data["unsound"]],
            files_read=[str(r) for r in data["files_read"]],
            uncaught=data.get("uncaught"),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise UffdError(f"the server sent an incomplete summary ({error!r})") from None


def parse_report(data: Any) -> Optional[CallReport]:
    """A CallReport, or None for null."""
    if data is None:
        return None
    try:
        return report_from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UffdError(f"the server sent an incomplete report ({error!r})") from None


@dataclass(frozen=True)
class PageImage:
    """One page `[start, start + len(before))` before and after; both of one length."""

    start: int
    before: bytes
    after: bytes


def parse_image(data: Any) -> Optional[PageImage]:
    """An Image, or None for null (the page was not written)."""
    if data is None:
        return None
    try:
        image = PageImage(
            int(data["start"], 16), bytes.fromhex(data["before"]), bytes.fromhex(data["after"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UffdError(f"the server sent an incomplete page ({error!r})") from None
    if len(image.before) != len(image.after):
        raise UffdError("the server sent a page whose before and after differ in length")
    return image


def parse_mappings(data: Any) -> List[Mapping]:
    """The list of Mapping that quffd.mappings answers with."""
    try:
        return [
            Mapping(
                int(m["start"], 16),
                int(m["end"], 16),
                int(m["prot"]),
                str(m["name"]),
                int(m["offset"]),
                str(m["unavailable"]),
            )
            for m in data
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UffdError(f"the server sent an incomplete list of mappings ({error!r})") from None


def one_line(text: str) -> str:
    """`text` as a single printable line: it may hold a core's or a program's own bytes."""
    return printable(" ".join(text.split()))

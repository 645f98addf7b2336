"""The `quffd` packets: what gdb_uffd's own commands ask of the server (docs/protocol.md)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from typing import Any, Callable, Dict, Optional

from gdb_uffd import __version__
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.model import PROTOCOL_VERSION, CallReport, UffdError
from gdb_uffd.server.requests import calls, heap, names, policy, shorten, travel
from gdb_uffd.server.requests.arguments import Arguments, address, boolean, integer, string
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import libraries
from gdb_uffd.server.stub.framing import escape
from gdb_uffd.terminal import Output

Verb = Callable[[StubSession, Arguments], Any]

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_FRAMING = str.maketrans({"#": "\\u0023", "$": "\\u0024", "*": "\\u002a"})
_MAX_ERROR = 2000  # characters
_MAX_REPLY = 64 << 20
"""gdb takes replies longer than a packet; this only bounds what a runaway report may cost."""


def encode(value: Any) -> bytes:
    """`value` as JSON that survives the packet framing: none of `#`, `$`, `*` in it, and
    `}` only where an object closes."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    text = text.translate(_FRAMING)  # these stand only inside strings
    if "}" in "".join(_STRING.findall(text)):  # rare, and the replacing takes ten times as long
        text = _STRING.sub(lambda m: m.group().replace("}", "\\u007d"), text)
    return text.encode("ascii")


def error_text(text: str) -> bytes:
    """An `E.` reply: one line, with the framing's characters escaped as in JSON strings."""
    line = " ".join(text.split())[:_MAX_ERROR] or "unknown error"
    escaped = "".join(c if " " <= c <= "~" and c not in "#$*}" else _escaped(c) for c in line)
    return b"E." + escaped.encode("ascii")


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character > "~" else f"\\u{ord(character):04x}"


def answer(session: StubSession, packet: bytes) -> Optional[bytes]:
    """`quffd.VERB[:ARGUMENTS]`; `packet` begins at VERB."""
    verb, separator, text = packet.partition(b":")
    handler = _VERBS.get(verb.decode("ascii", "replace"))
    if handler is None:
        return None
    arguments: Arguments = {}
    if separator:
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            raise UffdError("the arguments are not JSON") from None
        if not isinstance(arguments, dict):
            raise UffdError("the arguments are not a JSON object")
    if verb not in names.LOOKING:
        session.view = None
    value = handler(session, arguments)
    reply = encode(value)
    while len(reply) > _MAX_REPLY:
        if not shorten.shorten(value):
            raise UffdError("the answer is too large to send")
        reply = encode(value)
    # lldb takes `}` for the escape character that it is, gdb passes replies to q packets through.
    return escape(reply) if session.lldb else reply


def summary(report: CallReport) -> Dict[str, Any]:
    """What the line after a plain `print f()` needs."""
    program = [p for p in report.pages if p.meant]
    return {
        "kind": report.kind,
        "kept": report.kept,
        "pages": len(program) + report.rest_pages,
        "gdb_pages": len(report.pages) - len(program),
        "bytes_changed": sum(p.bytes_changed for p in program) + report.rest_bytes,
        "fed_pages": report.fed_pages,
        "ended": report.ended,
        "uncaught": report.uncaught,
        "unavailable": report.unavailable,
        "unknown": [report.unknown_zeros, report.unknown_file],
        "refused": report.refused,
        "unsound": report.unsound,
        "files_read": report.files_read,
    }


def _hello(_session: StubSession, arguments: Arguments) -> Any:
    echo = {"echo": arguments["echo"]} if isinstance(arguments.get("echo"), int) else {}
    return {"protocol": PROTOCOL_VERSION, "server": __version__, "pid": os.getpid(), **echo}


def _host() -> str:
    """What tells this machine from others, until it is started anew (proc_sys_kernel(5))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _info(session: StubSession, arguments: Arguments) -> Any:
    last = session.diversion.last_report
    session.probed = bool(arguments.get("probe"))
    return {
        "host": _host(),
        **_hello(session, arguments),
        **asdict(travel.facts_now(session)),
        **session.diversion.info(),
        "alive": session.diversion.alive,
        "last_report": None if last is None else summary(last),
        "last_unavailable": session.last_unavailable,
        "thread": session.general,
    }


def _is_repeated(session: StubSession, arguments: Arguments) -> bool:
    """Whether the client, which did not see the answer, says the same once more."""
    serial = arguments.get("serial")
    repeated = serial is not None and serial == session.told
    session.told = serial
    return repeated


def _interrupt(session: StubSession, _arguments: Arguments) -> Any:
    session.connection.keep_interrupt()
    return {}


def _call_begin(session: StubSession, arguments: Arguments) -> Any:
    if _is_repeated(session, arguments):
        return {}
    session.connection.tells_of_long = boolean(arguments, "progress")
    session.called = address(arguments)
    session.diversion.call_begin(session.called, boolean(arguments, "malloc"))
    session.calls += 1
    return {}


def _call_end(session: StubSession, arguments: Arguments) -> Any:
    if _is_repeated(session, arguments):
        return {}
    session.calls = max(0, session.calls - 1)
    session.diversion.call_end()
    return {}


def _begin(session: StubSession, arguments: Arguments) -> Any:
    session.diversion.begin()
    session.lists_checked = session.lists_read
    session.discards = boolean(arguments, "discards")
    session.held = True
    session.connection.muted = boolean(arguments, "quiet")
    cpu = arguments.get("cpu")
    if isinstance(cpu, int):
        session.connection.share_cpu(cpu)
    return {}


def _end(session: StubSession, arguments: Arguments) -> Any:
    session.forget_registers()
    session.calls = 0
    session.discards = session.held = session.connection.muted = False
    held = session.connection.take_held()
    session.connection.forget_interrupt()
    session.connection.share_cpu(None)
    report = session.diversion.end(boolean(arguments, "keep"))
    report.streamed -= min(held, report.streamed)
    session.diversion.refine(report)
    return {**to_json(report), **libraries.stale_if_read(session)}


def _output(session: StubSession, arguments: Arguments) -> Any:
    wanted = arguments.get("charset")
    session.connection.columns = integer(arguments, "columns")
    session.connection.terminal = None if wanted is None else Output(string(arguments, "charset"))
    return {}


def _commit(session: StubSession, _arguments: Arguments) -> Any:
    report = session.diversion.commit_pending()
    return None if report is None else summary(report)


def _report(session: StubSession, arguments: Arguments) -> Any:
    diversion = session.diversion
    if boolean(arguments, "all"):
        return to_json(diversion.report_all())
    diversion.commit_pending()
    if diversion.last_report is None:
        return None
    diversion.refine(diversion.last_report)
    return to_json(diversion.last_report)


def _image(session: StubSession, arguments: Arguments) -> Any:
    where = address(arguments)
    images = session.diversion.image(where, boolean(arguments, "all"))
    if images is None:
        return None
    before, after = images
    start = where - where % len(before) if before else where
    return {"start": hex(start), "before": before.hex(), "after": after.hex()}


def _engine(session: StubSession, arguments: Arguments) -> Any:
    session.forget_registers()
    chosen = session.journey.set_engine(string(arguments, "name"))
    used = session.diversion.info()
    lives = used.get("vessel_pid") is not None and used.get("engine") != chosen.name
    return {**asdict(chosen), "now": used.get("engine") if lives else chosen.name}


def _mappings(session: StubSession, _arguments: Arguments) -> Any:
    return to_json(list(session.diversion.mappings()))


def _reset(session: StubSession, _arguments: Arguments) -> Any:
    session.forget_registers()
    session.connection.forget_interrupt()
    session.diversion.reset()
    session.journey.place.ran = False
    return libraries.stale(session)


_VERBS: Dict[str, Verb] = {
    "hello": _hello,
    "info": _info,
    "call-begin": _call_begin,
    "call-end": _call_end,
    "interrupt": _interrupt,
    **calls.VERBS,
    "begin": _begin,
    "end": _end,
    "output": _output,
    "commit": _commit,
    "report": _report,
    "image": _image,
    "engine": _engine,
    "mappings": _mappings,
    "reset": _reset,
    **heap.VERBS,
    **names.VERBS,
    **policy.VERBS,
    **travel.VERBS,
}

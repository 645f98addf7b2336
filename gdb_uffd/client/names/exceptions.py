"""An uncaught C++ exception in words: its type as gdb writes it, what it says, or its value.

Every place that tells how a call ended asks here: the server's account of what was thrown comes
with a report, and what gdb makes of it is found while the thrown object is there (`note`).
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, Optional, Tuple
from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.session import interrupts, sessions
from gdb_uffd.client.session.asking import FAILURES, quiet, setting
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.settings import report
from gdb_uffd.protocol.ends import Uncaught
from gdb_uffd.protocol.messages_calls import AskUncaught
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import printable

Told = Dict[str, Any]
"""`uncaught` of docs/json.md, and `cut`: whether there is more of `what`."""

MAX_VALUE = 2000
"""Characters of an exception's value that a line shows; gdb's `print elements` says less."""

_STRING = re.compile(
    r"std::__(cxx11|[0-9]+)::basic_string<char, std::(__[0-9]+::)?char_traits<char>, "
    r"std::(__[0-9]+::)?allocator<char> ?>"
)

_noted: "WeakKeyDictionary[Session, Tuple[Uncaught, Told]]" = WeakKeyDictionary()
"""The server's account of the last one, and what `note` made of it."""

_PLAIN = (
    gdb.TYPE_CODE_INT,
    gdb.TYPE_CODE_CHAR,
    gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_FLT,
    gdb.TYPE_CODE_ENUM,
)

_MAX_DEPTH = 8

_MANGLED = re.compile(r"[A-Za-z0-9_$.]+")


def _type_name(mangled: str) -> str:
    """ "std::out_of_range" of "St12out_of_range" (Itanium C++ ABI, 5.1: _ZTS, a type's name)."""
    if _MANGLED.fullmatch(mangled):
        with contextlib.suppress(*FAILURES):
            text = quiet(f"demangle -l c++ -- _ZTS{mangled}").strip()
            if text.startswith("typeinfo name for "):
                return text[len("typeinfo name for ") :]
    return mangled


def _is_plain(kind: gdb.Type, depth: int = 0) -> bool:
    """Whether a value of that type is told by its own bytes."""
    kind = kind.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION) and depth < _MAX_DEPTH:
        return all(
            field.type is not None and _is_plain(field.type, depth + 1)
            for field in kind.fields()
            if hasattr(field, "bitpos")  # static members are elsewhere
        )
    if kind.code == gdb.TYPE_CODE_ARRAY:
        return _is_plain(kind.target(), depth + 1)
    if kind.code == gdb.TYPE_CODE_PTR:
        return kind.target().strip_typedefs().sizeof != 1  # no text
    return kind.code in _PLAIN


def _type(name: str) -> gdb.Type:
    """ "int const*" is no name of a type, but an expression has one."""
    with contextlib.suppress(*FAILURES):
        return gdb.lookup_type(name)
    with setting("language", "c++"):
        return gdb.parse_and_eval(f"({name} *) 0").type.target()


def _value(name: str, found: Uncaught, there: bool) -> Optional[str]:
    """gdb's text of what was thrown, where it knows the type.  Where it is not `there` any more,
    its memory being undone, of its own bytes alone."""
    with contextlib.suppress(*FAILURES):
        kind = _type(name)
        if there:
            value = gdb.Value(found.address).cast(kind.pointer()).dereference()
            return str(value.format_string())
        thrown = found.object
        if 0 < kind.sizeof <= len(thrown) and _is_plain(kind):
            value = gdb.Value(thrown[: kind.sizeof], kind)
            return str(value.format_string(raw=True))
    return None


def note(session: Session) -> Optional[Told]:
    """What the call let through that has just failed, its memory being there still; None for no
    exception."""
    try:
        found = session.request(AskUncaught())
    except UffdError:
        return None
    if found is None:
        return None
    told = _described(found, True)
    _noted[session] = found, told
    return told


def described(session: Session, found: Optional[Uncaught]) -> Optional[Told]:
    """The same of what a report holds; None where that is nothing."""
    if found is None:
        return None
    noted = _noted.get(session)
    return noted[1] if noted is not None and noted[0] == found else _described(found, False)


def _described(found: Uncaught, there: bool) -> Told:
    name = _type_name(found.type)
    what = found.what
    return {
        "type": name or None,
        "what": what.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if what is not None
        else None,
        "cut": found.cut,
        "value": _value(name, found, there) if name and what is None else None,
        "foreign": found.foreign or None,
    }


def as_json(told: Optional[Told]) -> Optional[Dict[str, Any]]:
    """`uncaught` of docs/json.md."""
    return told and {key: told[key] for key in ("type", "what", "value", "foreign")}


def _limit() -> Optional[int]:
    """Characters of a text that `print` shows; None for all (gdb manual, "Print Settings")."""
    for name in ("print characters", "print elements"):  # the former from gdb 14 on
        with contextlib.suppress(RuntimeError):
            limit = gdb.parameter(name)
            if limit != "elements":
                return limit if isinstance(limit, int) and limit > 0 else None
    return None


def text(told: Optional[Told]) -> str:
    """ "uncaught std::out_of_range "no such price"", "uncaught int 42"; "" for None."""
    if told is None:
        return ""
    if told["foreign"]:
        return f"uncaught exception of another language ({printable(told['foreign'])})"
    if not told["type"]:
        return "std::terminate () was called without an exception"
    said = f"uncaught {printable(_STRING.sub('std::string', told['type']))}"
    what = told["what"]
    if what is not None:
        shown = what[: _limit()]
        quoted = printable(shown).replace('"', '\\"')
        return f'{said} "{quoted}"' + ("..." if told["cut"] or shown != what else "")
    value = " ".join((told["value"] or "").split())
    if len(value) > MAX_VALUE:
        value = value[: MAX_VALUE - 1] + "…"
    return f"{said} {printable(value)}".rstrip()


def _on_stop(event: object) -> None:
    interrupts.finish(lambda: _at_stop(event))


def _at_stop(event: object) -> None:
    """The user let it run (`continue`) until the exception ended the program."""
    aborted = isinstance(event, gdb.SignalEvent) and event.stop_signal == "SIGABRT"
    session = sessions.selected()
    if session is None or not (aborted or isinstance(event, gdb.BreakpointEvent)):
        return
    if session.calls.in_command or session.calls.pending or session.excursion or not report():
        return  # a command tells it, or nobody
    told = note(session)
    if told is not None:
        say(f"[uffd: {text(told)}]")


def install() -> None:
    """Look at each stop."""
    gdb.events.stop.connect(_on_stop)

"""An uncaught C++ exception in words: its type as gdb writes it, what it says, or its value."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, Optional

import gdb

from gdb_uffd.client.gdb_util import quiet, setting
from gdb_uffd.model import CallReport
from gdb_uffd.terminal import printable

MAX_VALUE = 120
"""Characters of an exception's value that a line shows."""

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
        with contextlib.suppress(gdb.error):
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
    with contextlib.suppress(gdb.error):
        return gdb.lookup_type(name)
    with setting("language", "c++"):
        return gdb.parse_and_eval(f"({name} *) 0").type.target()


def _value(name: str, thrown: bytes) -> Optional[str]:
    """gdb's text of what was thrown, where it knows the type.  Its memory is undone by now."""
    with contextlib.suppress(gdb.error, RuntimeError, ValueError, UnicodeDecodeError):
        kind = _type(name)
        if 0 < kind.sizeof <= len(thrown) and _is_plain(kind):
            value = gdb.Value(thrown[: kind.sizeof], kind)
            return str(value.format_string(max_elements=40, raw=True))
    return None


def described(found: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """`uncaught` of docs/json.md of what the server told; None where there is none."""
    if not found:
        return None
    name = _type_name(str(found["type"]))
    what = found["what"]
    value = _value(name, bytes.fromhex(found["object"])) if name and what is None else None
    return {
        "type": name or None,
        "what": what.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if isinstance(what, str)
        else None,
        "value": value,
        "foreign": found["foreign"] or None,
    }


def text(found: Optional[Dict[str, Any]]) -> str:
    """ "uncaught std::out_of_range "no such price"", "uncaught int 42"; "" for None."""
    if found is None:
        return ""
    if found["foreign"]:
        return f"uncaught exception of another language ({printable(found['foreign'])})"
    if not found["type"]:
        return "std::terminate () was called without an exception"
    said = f"uncaught {printable(found['type'])}"
    if found["what"] is not None:
        quoted = printable(found["what"]).replace('"', '\\"')
        return f'{said} "{quoted}"'
    value = " ".join((found["value"] or "").split())
    if len(value) > MAX_VALUE:
        value = value[: MAX_VALUE - 1] + "…"
    return f"{said} {printable(value)}".rstrip()


def of(report: CallReport) -> str:
    """The same of a report."""
    return text(described(report.uncaught))

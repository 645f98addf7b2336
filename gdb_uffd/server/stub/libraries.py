"""`qXfer:libraries-svr4:read`: what the dynamic linker loaded, as its own list has it (gdb manual,
"Library List Format for SVR4 Targets").

gdb can read that list itself, but takes a relative name in it (`LD_LIBRARY_PATH=.`) for one in its
current directory, which may be another build: here it is the path that was mapped.
"""

from __future__ import annotations

import errno
import html
import struct
from typing import Dict, Iterator, List, Tuple

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.trace.files.files import without_mark
from gdb_uffd.trace.source import ReadMemory
from gdb_uffd.trace.symbols import MAX_LINK_MAPS, read_string, read_word, rendezvous

_LINK_MAP = struct.Struct("<5Q")  # l_addr, l_name, l_ld, l_next, l_prev (<link.h>)
_R_MAP = 8  # of struct r_debug
_R_NEXT = 40  # of struct r_debug_extended, from version 2 on: glibc 2.35's dlmopen
_KEYS = (b"start", b"prev", b"lmid")


def library_list(session: StubSession, annex: bytes) -> bytes:
    """As `_listed`, and note what the client knows then."""
    session.lists_read += 1
    session.libraries = None
    answer = _listed(session, annex)
    session.libraries = _listed(session, b"") if annex else answer
    return answer


def stale(session: StubSession) -> bool:
    """Whether the client's list is another than there is now, since it followed what was undone."""
    session.lists_checked = session.lists_read
    if session.libraries is None:
        return False
    try:
        return _listed(session, b"") != session.libraries
    except PacketError:
        return True


def stale_if_read(session: StubSession) -> bool:
    """The same where it was right before: nothing to compare unless the client read it since."""
    return session.lists_read != session.lists_checked and stale(session)


def _listed(session: StubSession, annex: bytes) -> bytes:
    """All, or with `start=ADDRESS;prev=ADDRESS[;lmid=ADDRESS]` those of one namespace from an entry
    on.  PacketError where there is no list to be read: gdb then does as without the packet."""
    asked = _asked(annex)
    read = session.diversion.read_memory
    first = rendezvous(session.diversion.snapshot.main, read)
    if not first:
        raise PacketError(errno.ENOENT)
    lines: List[str] = []
    head = ""
    start = asked.get(b"start", 0)
    lists = [(asked.get(b"lmid", first), start)] if start else _namespaces(first, read)
    for namespace, begin in lists:
        for at, (bias, name, dynamic, _, before) in _entries(begin, asked.get(b"prev", 0), read):
            if not before and namespace == first:
                head = f' main-lm="{at:#x}"'
                continue
            path = _path(session, name, dynamic, read)
            if path:
                lines.append(
                    f'<library name="{html.escape(path)}" lm="{at:#x}" l_addr="{bias:#x}" '
                    f'l_ld="{dynamic:#x}" lmid="{namespace:#x}"/>\n'
                )
    text = f'<library-list-svr4 version="1.0"{head}>\n{"".join(lines)}</library-list-svr4>\n'
    return text.encode("utf-8", "surrogateescape")


def _asked(annex: bytes) -> Dict[bytes, int]:
    pairs = [part.split(b"=", 1) for part in annex.split(b";") if part]
    return {pair[0]: parse_hex(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in _KEYS}


def _namespaces(first: int, read: ReadMemory) -> List[Tuple[int, int]]:
    """(struct r_debug, its first entry) of each."""
    found: List[Tuple[int, int]] = []
    at = first
    try:
        while at and len(found) < MAX_LINK_MAPS and at not in (seen for seen, _ in found):
            found.append((at, read_word(read, at + _R_MAP)))
            at = read_word(read, at + _R_NEXT) if read_word(read, at, 4) > 1 else 0
    except MemoryUnavailable:
        pass  # those before it are good
    return found


def _entries(at: int, before: int, read: ReadMemory) -> Iterator[Tuple[int, Tuple[int, ...]]]:
    """Address and fields of each struct link_map, while the list is whole."""
    for _ in range(MAX_LINK_MAPS):
        if not at:
            return
        try:
            fields = _LINK_MAP.unpack(read(at, _LINK_MAP.size))
        except MemoryUnavailable:
            return
        if fields[4] != before:
            return
        yield at, fields
        before, at = at, fields[3]


def _path(session: StubSession, name: int, dynamic: int, read: ReadMemory) -> str:
    """The name that the linker has, and for a relative one the path of the file that is there."""
    try:
        text = read_string(read, name)
    except MemoryUnavailable:
        text = ""
    if text and not text.startswith("/"):
        for mapping in session.diversion.mappings():
            if mapping.start <= dynamic < mapping.end and mapping.name.startswith("/"):
                return without_mark(mapping.name)
    return text

"""Thread packets: H, T, qC, qfThreadInfo, qThreadExtraInfo and the thread list in XML.

Thread ids are `pPID.TID` in hexadecimal, of the recorded process (gdb manual, "Packets",
"thread-id syntax").
"""

from __future__ import annotations

import errno
import html  # xml.sax.saxutils would load urllib: a third of the server's start
from typing import List, Optional

from gdb_uffd.protocol.model import ThreadState
from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.terminal import printable

_IDS_A_PACKET = 2000  # an id is at most 34 characters: well below the packet size

ANY, ALL = 0, -1
"""The two ids that name no single thread."""


def parse_thread_id(session: StubSession, text: bytes) -> int:
    """The TID that `text` names, or ANY or ALL; PacketError when there is no such thread."""
    if text.startswith(b"p"):
        process, _, thread = text[1:].partition(b".")
        if process not in (b"0", b"-1") and parse_hex(process) != session.pid:
            raise PacketError(errno.ESRCH)
        text = thread or b"-1"
    if text == b"-1":
        return ALL
    tid = parse_hex(text)
    if tid != ANY and tid not in session.thread_ids:
        raise PacketError(errno.ESRCH)
    return tid


def select(session: StubSession, arguments: bytes) -> bytes:
    """`Hg thread-id`, `Hc thread-id`: the thread of later packets."""
    tid = parse_thread_id(session, arguments[1:])
    if arguments[:1] == b"g":
        if tid not in (ANY, ALL):
            session.general = tid
            if not session.lldb:  # there Hg names what is looked at, and says nothing of what runs
                session.runner = tid
        return b"OK"
    if arguments[:1] == b"c":
        session.scope = tid
        if tid not in (ANY, ALL):
            session.runner = tid
        return b"OK"
    raise PacketError(errno.EINVAL)


def alive(session: StubSession, arguments: bytes) -> bytes:
    """`T thread-id`: recorded threads stay."""
    parse_thread_id(session, arguments)
    return b"OK"


def current(session: StubSession, _arguments: bytes) -> bytes:
    """`qC`."""
    return b"QC" + session.thread_ids[session.general]


def first_ids(session: StubSession, _arguments: bytes) -> bytes:
    """`qfThreadInfo`."""
    session.listed = 0
    return next_ids(session, _arguments)


def next_ids(session: StubSession, _arguments: bytes) -> bytes:
    """`qsThreadInfo`: the next lot of ids, `l` at the end."""
    ids = list(session.thread_ids.values())[session.listed : session.listed + _IDS_A_PACKET]
    session.listed += len(ids)
    return b"m" + b",".join(ids) if ids else b"l"


def extra_info(session: StubSession, arguments: bytes) -> bytes:
    """`qThreadExtraInfo,thread-id`: the thread's name in hex."""
    tid = parse_thread_id(session, arguments)
    if tid in (ANY, ALL):
        raise PacketError(errno.EINVAL)
    try:
        name = session.diversion.snapshot.thread(tid).name
    except KeyError:  # of the position set aside
        name = ""
    name = name or "recorded"
    return name.encode("utf-8", "replace").hex().encode("ascii")


def _handle(thread: ThreadState) -> str:
    """The pthread_t in hex, as libthread_db has it, where that is the thread pointer."""
    registers = thread.registers
    pointer = registers.thread_pointer if registers.arch.pthread_at_pointer else 0
    return pointer.to_bytes(8, "little").hex() if pointer else ""


def thread_list_xml(session: StubSession, annex: bytes) -> Optional[bytes]:
    """`qXfer:threads:read` (gdb manual, "Thread List Format")."""
    if annex:
        return None
    if session.thread_xml:
        return session.thread_xml
    lines: List[str] = ['<?xml version="1.0"?>', "<threads>"]
    threads = {t.tid: t for t in session.navigator.threads_aside}
    threads.update((t.tid, t) for t in session.diversion.snapshot.threads)
    for thread in threads.values():
        name = printable(thread.name)
        named = f' name="{html.escape(name)}"' if name else ""
        handle = _handle(thread)
        named += f' handle="{handle}"' if handle else ""
        lines.append(f'<thread id="{session.thread_ids[thread.tid].decode()}"{named}/>')
    lines.append("</threads>\n")
    session.thread_xml = "\n".join(lines).encode("utf-8", "replace")
    session.connection.pending.note_threads(session.thread_xml)
    return session.thread_xml

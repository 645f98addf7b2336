"""Resuming and breakpoints: vCont, c s C S, Z z, and the stop replies.

gdb manual, nodes "Packets" (vCont, z, Z) and "Stop Reply Packets".
"""

from __future__ import annotations

import contextlib
import errno
from typing import List, NamedTuple, Optional

from gdb_uffd.client.show.ends import SHOWN_BY_BT, end_text
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.replay.interface import (
    ACCESS_WATCH,
    WRITE_WATCH,
    Disconnected,
    Resume,
    Stop,
)
from gdb_uffd.server.listen.connection import message
from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.server.stub import orders, signals, threads
from gdb_uffd.trace.files.elsewhere import link_more

_SIGINT, _SIGTRAP, _SIGSTOP = 2, 5, 19
_WRITES = (WRITE_WATCH, ACCESS_WATCH)
_MAX_WATCH_BYTES = 1 << 20  # beyond any debug register; the diversion refuses the rest

_WITH_NUMBER = ("watch", "rwatch", "awatch", "syscall_entry", "syscall_return")
"""Stop reasons of the protocol that an address follows, or a system call's number."""

_MAX_CALLS = 4096

NO_FORK = (
    "fork() is refused: what is rebuilt is one process, so there is no `checkpoint`; "
    "`uffd reset` goes back to the snapshot"
)


class Action(NamedTuple):
    """One action of a vCont packet; `tid` is threads.ALL where it names no single thread."""

    kind: str
    signal: int
    lo: int
    hi: int
    tid: int


def supported_actions(_session: StubSession, _arguments: bytes) -> bytes:
    """`vCont?`."""
    return b"vCont;c;C;s;S;t;r"


def resume(session: StubSession, arguments: bytes) -> bytes:
    """`vCont;action[:thread-id]...`."""
    actions = [_parse(session, text) for text in arguments.split(b";") if text]
    moving = [a for a in actions if a.kind != "t"]
    if not actions:
        raise PacketError(errno.EINVAL)
    if not moving:
        return b"OK"  # stopping what is stopped
    return _run(session, _choose(session, moving))


def _choose(session: StubSession, actions: List[Action]) -> Resume:
    """The one thread to run, for the vessel's one task; the others stay as they were recorded.

    gdb names the thread it steps.  Otherwise it resumes all of them, and names those that
    have a signal to be delivered: the current one, or another that was recorded with one
    (remote.c, append_pending_thread_resumptions).  Then the thread meant is the one whose
    registers were just written (an inferior call writes them), else the one with the
    signal, else the one selected last.
    """
    named = [a for a in actions if a.tid not in (threads.ANY, threads.ALL)]
    every = [a for a in actions if a.tid in (threads.ANY, threads.ALL)]
    stepped = [a for a in named if a.kind != "c"]
    if stepped or (named and not every):
        chosen = (stepped or named)[0]
        return Resume(chosen.tid, chosen.kind, chosen.signal, chosen.lo, chosen.hi)
    tid = session.runner
    if named and session.written != tid:
        tid = named[0].tid
    chosen = next((a for a in named if a.tid == tid), every[0])
    return Resume(tid, chosen.kind, chosen.signal, chosen.lo, chosen.hi)


def resume_plain(session: StubSession, kind: str, arguments: bytes) -> Optional[bytes]:
    """`c`, `s`, `C sig`, `S sig`: the packets of clients without vCont.

    None (not supported) for the form with an address, which no client has used for long.
    """
    signal = 0
    if kind in "CS":
        signal = signals.to_linux(parse_hex(arguments))
    elif arguments:
        return None
    return _run(session, Resume(session.runner, kind.lower(), signal))


def _parse(session: StubSession, text: bytes) -> Action:
    action, separator, thread = text.partition(b":")
    tid = threads.parse_thread_id(session, thread) if separator else threads.ALL
    kind, rest = action[:1], action[1:]
    if kind in (b"c", b"s", b"t") and not rest:
        return Action(kind.decode(), 0, 0, 0, tid)
    if kind in (b"C", b"S"):
        return Action(kind.decode().lower(), signals.to_linux(parse_hex(rest)), 0, 0, tid)
    if kind == b"r":
        lo, separator, hi = rest.partition(b",")
        if separator:
            return Action("r", 0, parse_hex(lo), parse_hex(hi), tid)
    raise PacketError(errno.EINVAL)


def _run(session: StubSession, action: Resume) -> bytes:
    session.forget_registers()
    session.written = None
    session.navigator.cancel()
    if not session.calls:
        session.navigator.position.ran = True
    connection = session.connection
    connection.mid_line = False  # the client has printed since
    if connection.interrupt_waiting():
        with contextlib.suppress(UffdError):  # the next resume tells what is lacking
            session.diversion.interrupted(action)
        return _stopped(session, Stop(action.tid, _SIGINT, stands=True))
    connection.taken = False
    try:
        stop = session.diversion.resume(action, connection)
    except Disconnected:
        raise
    except UffdError as error:
        # An error reply to vCont leaves gdb unsure whether the program runs; a line for
        # the user and a stop without a signal says both what was wrong and where it stands.
        message(connection, str(error))
        stop = Stop(action.tid, 0)
    except Exception as error:
        session.log(f"resume: {type(error).__name__}: {error}")
        message(connection, f"internal error while running: {type(error).__name__}: {error}")
        stop = Stop(action.tid, 0)
    connection.output_stops(session.held)
    if connection.taken and action.kind != "c" and stop.signal == _SIGTRAP:
        # The step was complete as the interrupt came: gdb goes on with the next one.
        connection.keep_interrupt()
    session.forget_unmapped()
    if session.navigator.sysroot:  # gdb looks for libraries there, also for new ones
        files = session.diversion.mapped_files()
        link_more(session.navigator.sysroot, files, session.diversion.snapshot.modules)
    if stop.end is not None and (stop.lost or not session.discards):
        # gdb's side unwinds a call that ends so: no frame of it is left to be shown.
        where = "`uffd call` shows where" if session.calls and not stop.signal else SHOWN_BY_BT
        message(connection, end_text(stop.end, where))
    if stop.breakpoint == "swbreak" and session.forks():  # it has returned
        message(connection, NO_FORK)
    if stop.tid not in session.thread_ids:
        session.log(f"the diversion reported a stop of unknown thread {stop.tid}")
        stop = Stop(action.tid, stop.signal)
    return _stopped(session, stop)


def _stopped(session: StubSession, stop: Stop) -> bytes:
    session.general = session.runner = stop.tid
    if not stop.stands:
        session.stopped = stop
    return stop_reply(session, stop)


def backward(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """`bc`, `bs`: to the snapshot that was prepared; else back to the present one if the program
    was resumed since, else to the one before (gdb manual, "Packets").

    Nothing lies between two snapshots, so a step goes as far as everything else; gdb steps
    where it must look at a software watchpoint.  The stop has no signal: nothing is hit or
    delivered by travelling, but a watchpoint tells that the value is another than it was.
    """
    navigator = session.navigator
    if arguments not in (b"c", b"s") or len(navigator.trace.snapshots) < 2:
        return None
    if navigator.prepared is None and session.connection.interrupt_waiting():
        return stop_reply(session, Stop(session.runner, _SIGINT))
    position = navigator.position
    number = position.number - (not position.ran)
    if navigator.prepared is None and number < 0:
        return stop_reply(session, Stop(session.runner, _SIGTRAP), b"replaylog:begin;")
    try:
        if navigator.prepared is None:
            stop = _go_back(session, number)
        else:
            stop = _arrive(session)
    except UffdError as error:
        message(session.connection, str(error))
        stop = Stop(session.runner, 0)
    session.general = session.runner = stop.tid
    return stop_reply(session, stop)


def _arrive(session: StubSession) -> Stop:
    """Make the prepared move.  UffdError when gdb could not understand it.

    The stop is of the snapshot's own thread.  But gdb fails at an assertion of its own
    (inline-frame.c, skip_inline_frames) where a thread that it knows and has not resumed stops:
    then it is of the one thread that gdb resumed.
    """
    navigator = session.navigator
    there = navigator.prepared.diversion.snapshot.threads if navigator.prepared is not None else ()
    own, scope = there[0].tid, session.scope
    if scope in (threads.ANY, threads.ALL, own) or own not in session.thread_ids:
        tid = own
    elif scope in {thread.tid for thread in there}:
        tid = scope
    else:
        navigator.cancel()
        raise UffdError("the selected thread does not exist there: select another one")
    session.move()
    return Stop(tid, 0)


def _go_back(session: StubSession, number: int) -> Stop:
    """To snapshot `number`, by the user's own `reverse-continue`."""
    navigator = session.navigator
    if navigator.prepare(number).reconnect:
        navigator.cancel()
        raise UffdError(f"snapshot {number} is another process: `uffd goto {number}` goes there")
    changed = navigator.changed_here()
    if changed:
        pages = "1 changed page" if changed == 1 else f"{changed} changed pages"
        message(session.connection, f"{pages} of snapshot {navigator.position.number} forgotten")
    watched = [(a, n) for kind, a, n in sorted(session.inserted) if kind in _WRITES]
    before = [_bytes_at(session, *each) for each in watched]
    stop = _arrive(session)
    for each, old in zip(watched, before):
        if old != _bytes_at(session, *each):
            # The watched value is another there: gdb shows both.
            return Stop(stop.tid, _SIGTRAP, "watch", each[0])
    return stop


def _bytes_at(session: StubSession, address: int, length: int) -> Optional[bytes]:
    try:
        return session.diversion.read_memory(address, length)
    except MemoryUnavailable:
        return None


def stop_reply(session: StubSession, stop: Stop, reason: bytes = b"") -> bytes:
    """The `T` packet for `stop`, with the registers gdb asks for first.

    `reason`: a stop reason of the protocol's own, such as `replaylog:begin;`.
    """
    number = stop.signal
    if not number and session.lldb:
        number = _SIGSTOP  # lldb takes a stop without a reason for one that it need not show
    parts: List[bytes] = [b"T%02x" % signals.to_gdb(number), reason]
    if stop.breakpoint in ("swbreak", "hwbreak"):
        name = stop.breakpoint.encode()
        if name + b"+" in session.offered:
            parts.append(name + b":;")
    elif stop.breakpoint in _WITH_NUMBER:
        parts.append(b"%s:%x;" % (stop.breakpoint.encode(), stop.address))
    registers = session.diversion.registers(stop.tid)
    for number, index in registers.arch.expedited:
        value = (
            registers.gpr[index]
            .to_bytes(registers.arch.register_bytes, "little")
            .hex()
            .encode("ascii")
        )
        parts.append(b"%02x:%s;" % (number, value))
    parts.append(b"thread:" + session.thread_ids[stop.tid] + b";")
    return b"".join(parts)


def stop_of(session: StubSession, tid: int) -> Stop:
    """How a thread stands: the last stop if that was its own, else as it was recorded."""
    if session.stopped is None:
        return Stop(tid, session.diversion.snapshot.thread(tid).signal)
    return session.stopped if session.stopped.tid == tid else Stop(tid, 0)


def last_stop(session: StubSession, _arguments: bytes) -> bytes:
    """`?`: how the general thread was recorded, a plain stop where that names no signal."""
    thread = session.diversion.snapshot.thread(session.general)
    signal = thread.signal if signals.to_linux(signals.to_gdb(thread.signal)) else 5
    return stop_reply(session, Stop(thread.tid, signal))


def catch_calls(session: StubSession, arguments: bytes) -> bytes:
    """`QCatchSyscalls:1[;sysno]...` and `QCatchSyscalls:0`."""
    on, *numbers = arguments.split(b";")
    if on not in (b"0", b"1") or len(numbers) > _MAX_CALLS or (on == b"0" and numbers):
        raise PacketError(errno.EINVAL)
    session.caught = frozenset(parse_hex(n) for n in numbers) if on == b"1" else None
    session.diversion.catch_calls(session.caught)
    return b"OK"


def pass_signals(session: StubSession, arguments: bytes) -> bytes:
    """`QPassSignals: signal [;signal]...`: gdb would pass them on without a word.

    What gdb is told a signal is decides: SIGPOLL, which is passed, must not take along SIGIO, which
    has its number on Linux and may be one to stop at.
    """
    numbers = {parse_hex(text) for text in arguments.split(b";") if text}
    told = {signals.to_linux(n) for n in numbers if signals.to_gdb(signals.to_linux(n)) == n}
    session.passed = frozenset(told - {0})
    session.diversion.pass_signals(session.passed)
    return b"OK"


def insert(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """`Z type,addr,kind[;conditions][;cmds:...]`."""
    return _breakpoint(session, arguments, True)


def remove(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """`z type,addr,kind`."""
    return _breakpoint(session, arguments, False)


def _breakpoint(session: StubSession, arguments: bytes, inserting: bool) -> Optional[bytes]:
    point, _, ordered = arguments.partition(b";")
    fields = point.split(b",")
    if len(fields) != 3:
        raise PacketError(errno.EINVAL)
    kind, address, length = (parse_hex(f) for f in fields)
    if kind > ACCESS_WATCH:
        return None
    if length > _MAX_WATCH_BYTES:
        raise PacketError(errno.EINVAL)
    if inserting:
        wanted = orders.parse(ordered)
        session.diversion.insert_breakpoint(kind, address, length, wanted)
        session.inserted[kind, address, length] = wanted
    else:
        session.diversion.remove_breakpoint(kind, address, length)
        session.inserted.pop((kind, address, length), None)
    return b"OK"

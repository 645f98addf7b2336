"""Moving between the snapshots of a trace, and what gdb must learn then.

A move by `uffd goto` is a resume: gdb thinks that the program ran backward, and forgets by itself
whatever it held of the old state, as do its windows and front ends.  `uffd map` moves a thousand
times: there gdb is told what to forget, and nothing is shown.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Iterator, List, Optional, Tuple

import gdb

from gdb_uffd.client.session import file_search, launch, libraries, saved, sessions, signals
from gdb_uffd.client.session.asking import (
    FAILURES,
    Selection,
    flush_caches,
    one_cpu,
    pop_dummy_frames,
    quiet,
    setting,
    silent_stdout,
    tui_is_active,
)
from gdb_uffd.client.session.code import function_block
from gdb_uffd.client.session.printing import look, say, show_command
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import snapshots
from gdb_uffd.client.show.text import plural
from gdb_uffd.protocol.messages_travel import (
    AskPosition,
    Back,
    Excursion,
    Goto,
    Listen,
    ListSnapshots,
    Moved,
    Stay,
    TracePosition,
)
from gdb_uffd.protocol.model import SnapshotInfo, UffdError

_CONVENIENCES = ("_uffd_snapshot", "_uffd_time", "_uffd_label")

_shown: List[Tuple[object, ...]] = [()]
"""What the convenience variables hold now."""


def all_snapshots(session: Session) -> List[SnapshotInfo]:
    """The trace's list, asked for once."""
    if session.position.every is None:
        session.position.every = session.request(ListSnapshots()).snapshots
    return session.position.every


# -- goto -------------------------------------------------------------------------------------


def goto(session: Session, name: str) -> None:
    """Go to the snapshot that `name` means, and show it as after a stop."""
    every = all_snapshots(session)
    number = snapshots.find(every, name, session.position.snapshot)
    pop_dummy_frames()
    by_resume = session.ready.snapshots > 1
    move = session.request(Goto(number, now=not by_resume, tell=True))
    say(snapshots.headline(every, number, look()))
    if move.forgotten:
        pages = plural(move.forgotten, "changed page")
        say(f"[uffd: {pages} of snapshot {session.position.snapshot} forgotten]")
    sessions.note_brought(session, move.brought)
    if move.reconnect:
        _reconnect(session)
        follow(session)
    elif by_resume:
        _resume_backward(session)
    else:
        flush_caches()
        follow(session)
    show_command("frame")
    show_command("display")


def _resume_backward(session: Session) -> None:
    """Resume, so that gdb stops at the snapshot that the server has prepared."""
    direction = gdb.parameter("exec-direction")
    session.going = True
    try:
        saved.unlock()
        # What gdb itself would show of the stop is not yet right: see `follow`.
        with setting("suppress-cli-notifications", "on"):
            gdb.execute("continue" if direction == "reverse" else "reverse-continue")
    except BaseException:
        with contextlib.suppress(UffdError):
            session.request(Stay())
        raise
    finally:
        session.going = False


def _reconnect(session: Session) -> None:
    """Another process: to gdb that is another target, reached through a connection of its own."""
    if session.server.far:
        session.request(Stay())
        raise UffdError(
            "that snapshot is of another process: only a gdb on the server's machine gets there"
        )
    directory = launch.private_directory()
    try:
        socket = os.path.join(directory, "rsp")
        session.request(Listen(socket))
        session.moving = True
        with setting("confirm", "off"):
            quiet("kill")
        sessions.connect(session, "", socket)
    except BaseException:
        sessions.end(session)
        raise
    finally:
        session.moving = False
        shutil.rmtree(directory, ignore_errors=True)
    sessions.forget()


# -- following --------------------------------------------------------------------------------


def follow(session: Session) -> None:
    """Take over where the server stands, if it has moved since it was last asked."""
    position = session.request(AskPosition())
    if position.moves == session.position.moves:
        return
    _arrived(session, position)
    if session.position.moves:
        sessions.note_travel()
        before = _frame_name()
        # What ran before may have loaded libraries, too; gdb lists those that are in memory.
        libraries.update()
        _show_inlined()
        if _frame_name() != before and not session.going:
            show_command("frame")  # gdb had shown another one
    session.position.libraries = position.libraries
    sessions.note_threads(session)
    if session.position.signal not in snapshots.DEBUGGER_SIGNALS and session.position.moves:
        signals.restore(session.position.signal, session.position.first_thread)


def _arrived(session: Session, position: TracePosition) -> None:
    session.position.moves, session.position.snapshot = position.moves, position.number
    session.position.signal = position.signal
    session.calls.pending, session.calls.depth, session.calls.assigned = False, 0, False
    session.explained = None
    session.tls_addresses.clear()
    session.position.told = position
    sessions.note_brought(session, position.brought)
    file_search.take_sysroot(position.sysroot, session.server.far)
    show_conveniences()


def _show_inlined() -> None:
    """Select the innermost function also where it is inlined and begins at the PC.

    A stop that is at no breakpoint of the user's hides such a function until it is stepped into
    (infrun.c, skip_inline_frames); the program was recorded inside of it.  gdb forgets that when it
    sees the thread with another PC.
    """
    with contextlib.suppress(*FAILURES):
        frame = gdb.newest_frame()
        pc = frame.pc()
        block = function_block(pc)
        if block is None or block.start != pc or frame.function() == block.function:
            return
        quiet(f"set var $pc = {pc + 1:#x}")
        gdb.newest_frame().name()
        quiet(f"set var $pc = {pc:#x}")
        gdb.newest_frame().select()


def _frame_name() -> Optional[str]:
    try:
        return gdb.newest_frame().name()
    except FAILURES:
        return None


def show_conveniences() -> None:
    """$_uffd_snapshot and its kin, of the selected inferior; void without a session."""
    session = sessions.selected()
    if session is None or session.position.told is None:
        values: Tuple[object, ...] = (None, None, None)
    else:
        position = session.position.told
        values = (position.number, position.time_ns / 1e9, position.label)
    if _shown[0] == values:
        return
    for name, value in zip(_CONVENIENCES, values):
        gdb.set_convenience_variable(name, _empty() if value == "" else value)  # type: ignore[arg-type]
    _shown[0] = values


def _empty() -> object:
    """ "" as gdb prints it: gdb 13 makes a pointer of an empty Python string."""
    with contextlib.suppress(*FAILURES):
        return gdb.Value(b"\0", gdb.lookup_type("char").array(0))
    return ""


def on_stop(_event: object) -> None:
    """gdb stopped: perhaps at another snapshot."""
    session = sessions.selected()
    if (
        session is None
        or session.ready.snapshots < 2
        or session.calls.in_command
        or session.calls.depth
    ):
        return
    saved.relock()
    if session.server.ended() is None and not session.excursion:
        with contextlib.suppress(*FAILURES, UffdError):
            follow(session)


def _refresh(_event: object = None) -> None:
    """The selected inferior may be another one, or its session over."""
    show_conveniences()


# -- excursions -------------------------------------------------------------------------------


@contextlib.contextmanager
def excursion(session: Session) -> Iterator[None]:
    """Within, `jump` goes anywhere; afterwards everything is as it was, kept effects too."""
    selection, tid = Selection(), _selected_tid()
    disabled = [b for b in gdb.breakpoints() if b.is_valid() and b.enabled]
    with one_cpu() as cpu:
        session.request(Excursion(cpu))
        session.excursion = True
        try:
            for breakpoint_ in disabled:
                breakpoint_.enabled = False
            with contextlib.ExitStack() as stack:
                stack.enter_context(setting("unwindonsignal", "on"))
                stack.enter_context(setting("suppress-cli-notifications", "on"))
                stack.enter_context(_unseen())
                yield
        finally:
            _come_back(session, selection, tid)
            for breakpoint_ in disabled:
                if breakpoint_.is_valid():
                    breakpoint_.enabled = True


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Nothing of what the called functions print, or gdb of their stops, reaches the terminal."""
    with silent_stdout():
        yield
    if tui_is_active():
        quiet("refresh")  # the windows were drawn into the void meanwhile


def _selected_tid() -> int:
    thread = gdb.selected_thread()
    return thread.ptid[1] if thread is not None else 0


def _come_back(session: Session, selection: Selection, tid: int) -> None:
    try:
        _follow_quietly(session, session.request(Back()))
    finally:
        session.excursion = False
    if selection.thread is not None and not selection.thread.is_valid():
        selection.thread = _thread(tid)
    selection.restore()
    sessions.note_threads(session)


def jump(session: Session, number: int) -> None:
    """Go to snapshot `number` without a word; only during an `excursion`, with no call under way
    (`pop_dummy_frames` sees to that)."""
    _follow_quietly(session, session.request(Goto(number, now=True)))


def _follow_quietly(session: Session, move: Moved) -> None:
    old = session.position.libraries
    sessions.note_brought(session, move.brought)
    if move.reconnect:
        _reconnect(session)
        _arrived(session, session.request(AskPosition()))
        session.position.libraries = move.libraries
        return
    flush_caches()
    _arrived(session, move)
    if move.threads_changed:
        quiet("info threads 1")  # reads the list
    thread = _thread(move.tid)
    if thread is not None and gdb.selected_thread() != thread:
        thread.switch()
    session.position.libraries = move.libraries
    if session.position.libraries != old or move.libraries_stale:
        libraries.update()


def _thread(tid: int) -> Optional[gdb.InferiorThread]:
    for thread in gdb.selected_inferior().threads():
        if thread.ptid[1] == tid:
            return thread
    return None


def install() -> None:
    """Connect to gdb's events; called once, at load, after hooks.py (which ends sessions)."""
    gdb.events.stop.connect(on_stop)
    gdb.events.before_prompt.connect(_refresh)
    gdb.events.connection_removed.connect(_refresh)

"""Sessions: which inferior holds which server, and how they begin and end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Callable, Dict, List, Optional, Tuple, Type, TypeVar, cast

import gdb

from gdb_uffd.client.session import engine, file_search, settings
from gdb_uffd.client.session.asking import (
    FAILURES,
    check_architecture,
    decoded,
    disconnect,
    quiet,
    quote_file,
    setting,
    silent_stdout,
)
from gdb_uffd.client.session.options import check_readable, check_recording
from gdb_uffd.client.session.printing import say, worth_telling
from gdb_uffd.client.session.remote import AnyServer
from gdb_uffd.client.session.saved import borrowed
from gdb_uffd.client.session.state import CallState, PositionState
from gdb_uffd.client.session.wire import SERVER_GONE, decode, encode
from gdb_uffd.protocol.ends import Unavailable
from gdb_uffd.protocol.messages import AskInfo, Hello, Ready, Request
from gdb_uffd.protocol.model import ENGINE_AUTO, UffdError
from gdb_uffd.terminal import one_line

T = TypeVar("T")

R = TypeVar("R")


class Session:
    """One spawned core or trace in one inferior."""

    def __init__(self, number: int, server: AnyServer) -> None:
        self.number = number
        self.server = server
        self.ready: Ready = server.ready
        self.connection: Optional[gdb.RemoteTargetConnection] = None
        self.calls = CallState()
        self.position = PositionState(server.ready.snapshot, server.ready.signal)
        self.explained: Optional[Unavailable] = None  # what the user has been told of
        self.evaluating = False  # a command that evaluates has begun, and has not come to its end
        self.heard = time.monotonic()  # when both sides spoke of the same packet, for sure
        self.ending = False  # how, is told by whoever ends it
        self.moving = False  # its connection is about to be replaced by another
        self.going = False  # on the way to another snapshot, and showing it is its own affair
        self.excursion = False  # on an excursion: what gdb shows is not where the user stands
        self.looking = False  # gdb is shown memory as it was (view.py)
        # Since which snapshots the heap is damaged, by the present one and how (commands/heap.py).
        self.heap_since: Dict[Tuple[object, ...], Tuple[Optional[int], Optional[int], bool]] = {}
        self._kept: Dict[type, object] = {}
        self.tls_addresses: Dict[Tuple[int, str, str], int] = {}  # see names/symbols.py

    def kept(self, kind: Type[T]) -> T:
        """What another module keeps as long as the session lasts; made when first asked for."""
        return cast(T, self._kept.setdefault(kind, kind()))

    def forget_kept(self) -> None:
        """Everything that `kept` made."""
        self._kept.clear()

    def request(self, asked: Request[R]) -> R:
        """Send it and return the reply; UffdError, also for a dead server."""
        if self.connection is None or not self.connection.is_valid():
            self.server.is_gone()  # or about to be
            raise UffdError(f"the connection to the server is closed{self.death()}")
        keep_step(self)
        try:
            reply = self.connection.send_packet(encode(asked))
        except gdb.error as error:
            raise UffdError(f"{one_line(str(error))}{self.death()}") from None
        if reply == SERVER_GONE and self.server.is_gone():
            raise UffdError(self.death().lstrip(": "))
        return decode(asked, reply)

    def last_unavailable(self) -> Optional[Unavailable]:
        """Why the last memory access failed, None when none did or the server does not answer."""
        with contextlib.suppress(UffdError):
            return self.request(AskInfo()).last_unavailable
        return None

    def death(self) -> str:
        """ ": the server ended …" when that is why, else ""."""
        status = self.server.ended()
        if status is None:
            return ""
        how = f" by signal {-status}" if status < 0 else f" with status {status}" if status else ""
        said = self.server.last_words()
        return f": the server ended{how}{f' ({said})' if said else ''}; `uffd spawn` starts anew"


_PATIENCE_S = 3600
"""`set remotetimeout` while a session lasts.  gdb gives up on an answer after three times that, and
then takes each answer for that to its next packet: values would be others than were asked for.  A
server that is not there any more closes the connection; on one that hangs Ctrl-C twice gives up."""

_travelled: List[bool] = []
"""Not empty once gdb stopped by travelling: it takes that for a signal, and says so once more at
its next connection, past whatever captures its output (infrun.c, stopped_by_random_signal)."""

openings: List[Callable[[], None]] = []
"""Called before a core is opened."""

forgetful: List[Callable[[], None]] = []
"""Called when a process is opened: who remembers addresses of files' symbols has to forget them."""

greetings: List[Callable[[Session], None]] = []
"""Called with a session whose server has another connection."""

_sessions: Dict[int, Session] = {}
_leaving: List[Session] = []


def current() -> Session:
    """The selected inferior's session; UffdError when it has none."""
    session = find(gdb.selected_inferior().num)
    if session is None:
        raise UffdError("no core is spawned in this inferior: `uffd spawn FILE` does that")
    if session.server.ended() is not None:
        raise UffdError(bury(session))
    return session


def find(number: int) -> Optional[Session]:
    """The session of inferior `number`, or None."""
    return _sessions.get(number)


def sessions() -> List[Session]:
    """All of them."""
    return list(_sessions.values())


def selected() -> Optional[Session]:
    """The selected inferior's session, or None."""
    return _sessions.get(gdb.selected_inferior().num) if _sessions else None


def prepare() -> None:
    """What comes before opening anything."""
    for each in openings:
        each()
    settle()


def forget() -> None:
    """Addresses of the process before go: files that stay may lie elsewhere."""
    for each in forgetful:
        each()


def spawn(core: str, executable: str) -> Session:
    """Open `core`, or a trace, in the selected inferior."""
    prepare()
    check_recording(core)
    if executable:
        check_readable(executable, "executable")
    inferior = gdb.selected_inferior()
    old = find(inferior.num)
    # A connection alone is no obstacle: add-inferior copies that of the current inferior.
    if old is None and inferior.pid:
        raise UffdError(
            f"inferior {inferior.num} is in use: `kill` or `detach` it first, "
            "or `add-inferior` and `inferior N` for another one"
        )
    server = file_search.start(core, executable, _loaded_file())
    try:
        check_architecture(server.ready.architecture)  # while what is open is open still
        if old is not None:
            end(old)
        session = Session(inferior.num, server)
        _connect(session)
    except BaseException:
        server.stop(0.0)
        borrowed.give_back_if(not _sessions)
        raise
    return session


def _connect(session: Session) -> None:
    for warning in session.ready.warnings:
        say(f"warning: {warning}")
    try:
        connect(session, session.ready.executable, session.ready.socket)
    except BaseException:
        # What holds a dead server's connection would keep the inferior in use.
        _sessions.pop(session.number, None)
        if session.connection is not None:
            disconnect(session.connection)
        raise
    session.server.connected()


def connect(session: Session, executable: str, socket: str) -> None:
    """Make `session` the target of the selected inferior, silently but for gdb's warnings."""
    check_architecture(session.ready.architecture)
    note_brought(session, session.ready.brought)
    file_search.take_debug_folder("" if session.server.far else session.ready.sysroot)
    if executable:
        load_executable(executable)
    file_search.take_sysroot(session.ready.sysroot, session.server.far)
    borrowed.take("remotetimeout", str(_PATIENCE_S))
    asking = file_search.may_ask()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(setting("print symbol-loading", "off"))
            stack.enter_context(setting("suppress-cli-notifications", "on"))
            if (_travelled or session.excursion) and not asking:
                stack.enter_context(silent_stdout())
            noise = gdb.execute(f"target remote {socket}", to_string=not asking)
    except gdb.error as error:
        words, why = "could not connect", one_line(str(error)).rstrip(".")
        same = why.lower().startswith(words)
        session.server.is_gone()  # or about to be
        words += why[len(words) :] if same else f" ({why})"
        raise UffdError(f"gdb {words}{session.death()}") from None
    say(*worth_telling(noise or ""))
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise UffdError("gdb connected, but not to a remote target")
    session.connection = connection
    forget()
    session.request(Hello())
    for tell in greetings:
        tell(session)
    if settings.engine() != ENGINE_AUTO:
        engine.begin(session.request, settings.engine())
    note_threads(session)
    _sessions[session.number] = session
    borrow()


def note_brought(session: Session, brought: bool) -> None:
    """Whether files of it came with its trace: see to gdb's scripts, before gdb reads them."""
    session.ready = dataclasses.replace(session.ready, brought=brought)
    everyone = [session, *_sessions.values()]
    file_search.keep_scripts_out(any(each.ready.brought for each in everyone))


def note_threads(session: Session) -> None:
    """Remember gdb's numbers of the threads, and which one is selected: the snapshot's own."""
    thread = gdb.selected_thread()
    session.position.first_thread = thread.num if thread is not None else 0
    # Asking for the list costs packets, so it is asked for once.
    threads = gdb.selected_inferior().threads()
    session.position.thread_numbers = {each.ptid[1]: each.num for each in threads}


def note_travel() -> None:
    """gdb stopped at another snapshot."""
    _travelled[:] = [True]


def set_engine(name: str) -> str:
    """`set uffd engine` for every session.  UffdError when it does not work there."""
    said = [engine.ask(session.request, name) for session in _sessions.values()]
    return "\n".join(filter(None, said))


def borrow() -> None:
    """Change gdb's settings for the sessions there are; nothing when that is done already."""
    if not _sessions or borrowed.holds("scheduler-locking"):
        return
    # gdb then names the one thread that runs in each vCont: the vessel has one task.
    borrowed.take("scheduler-locking", "on")


def lend_back() -> None:
    """Give gdb's settings back if the session that is about to end is the last."""
    if len(_sessions) == 1 and selected() is not None:
        borrowed.give_back("scheduler-locking")


def _loaded_file() -> str:
    """The executable gdb has loaded, or ""."""
    space = gdb.current_progspace()
    return decoded(lambda: space.filename) if space is not None else ""


def load_executable(path: str) -> None:
    """Load it unless gdb has it."""
    loaded = _loaded_file()
    if loaded and os.path.exists(loaded) and os.path.samefile(loaded, path):
        return
    with setting("confirm", "off"):
        say(*worth_telling(quiet(f"file {quote_file(path)}")))


def end(session: Session) -> None:
    """Close the connection of `session`, see its server end, give gdb's settings back."""
    before, session.ending = gdb.selected_inferior().num, True
    if session.connection is not None and session.connection.is_valid():
        if before != session.number:
            quiet(f"inferior {session.number}")
        if len(_sessions) == 1:
            # Before the target goes: `set scheduler-locking` needs one (gdb's infrun.c).  Nothing
            # else: with a process there, `set sysroot` reads every library again.
            borrowed.give_back("scheduler-locking")
        disconnect(session.connection)
        if before != session.number:
            quiet(f"inferior {before}")
    _leave(session)
    settle()


def bury(session: Session) -> str:
    """End the session of a server that has died; how it died, for the user."""
    text = session.death().lstrip(": ")
    end(session)
    return text


def keep_step(session: Session) -> None:
    """See that gdb and the server still speak of the same packet, after a silence in which gdb may
    have given up on an answer.  UffdError, and no session any more, when they do not."""
    now = time.monotonic()
    silent, session.heard = now - session.heard, now
    if silent < 3 * int(gdb.parameter("remotetimeout") or 0) or session.connection is None:
        return
    asked = Hello(int(now * 1e6))
    try:
        if decode(asked, session.connection.send_packet(encode(asked))).echo == asked.echo:
            return
    except (gdb.error, UffdError):
        pass
    if session.server.ended() is not None:
        return  # which is told better
    session.server.stop(0.0)
    end(session)
    raise UffdError(
        "gdb gave up waiting for an answer (`show remotetimeout`), and those since may belong to "
        "other questions: the session is closed; `uffd spawn` starts anew"
    )


def end_all() -> None:
    """End every session, silently: gdb is about to quit."""
    for session in list(_sessions.values()):
        end(session)


def only_ours_live() -> bool:
    """Whether every inferior with a process is one of our sessions."""
    return all(i.num in _sessions for i in gdb.inferiors() if i.pid)


def _leave(session: Session) -> None:
    if _sessions.get(session.number) is session:
        del _sessions[session.number]
        _leaving.append(session)


def on_connection_removed(event: gdb.ConnectionEvent) -> None:
    """A target went: by kill, detach, disconnect, another target, or the server's death.

    gdb closes the socket only after this event, so the server is waited for later, by
    `settle`.  Not through gdb.post_event: gdb 13 crashes when it exits with one pending.
    """
    for session in list(_sessions.values()):
        if session.connection == event.connection and not session.moving:
            if session.server.ended() and not session.calls.in_command and not session.ending:
                say(f"[uffd{session.death()}]")
            _leave(session)


def settle() -> None:
    """Give gdb's settings back after the last session, and reap the servers of those that ended.
    In this order: files that a server made for gdb go with it."""
    borrowed.give_back_if(not _sessions)
    while _leaving:
        loaded = _loaded_file()
        was_there = bool(loaded) and os.path.exists(loaded)
        _leaving.pop().server.stop()
        if was_there and not os.path.exists(loaded):  # a packed core's own executable
            with contextlib.suppress(*FAILURES), setting("confirm", "off"):
                quiet("file")


def forget_symbols() -> None:
    """Object files came or went: names may mean other addresses."""
    for session in _sessions.values():
        session.tls_addresses.clear()
        session.forget_kept()


def at_exit() -> None:
    """gdb's Python is being finalised: no gdb any more, only processes to reap."""
    for session in [*_sessions.values(), *_leaving]:
        session.server.stop(1.0)
    _sessions.clear()
    _leaving.clear()


def reselect(session: Session) -> None:
    """Select the thread that the snapshot stopped in, as after `uffd spawn`."""
    for thread in gdb.selected_inferior().threads():
        if thread.num == session.position.first_thread:
            thread.switch()

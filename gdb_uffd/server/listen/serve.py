"""From a core or a trace to a served connection, and down again without leaving anything behind."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import stat
import time
from types import FrameType
from typing import Callable, Iterator, List, Optional, Sequence, Union

import gdb_uffd.trace
from gdb_uffd.protocol import codec
from gdb_uffd.protocol.messages import Served
from gdb_uffd.protocol.model import CallReport, UffdError
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.policy.policy import Policy
from gdb_uffd.server.listen.addresses import Port, open_listener
from gdb_uffd.server.listen.connection import Connection
from gdb_uffd.server.listen.holder import Holder
from gdb_uffd.server.navigator import Navigator
from gdb_uffd.server.requests.server import total_pages
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import stub, vfile
from gdb_uffd.trace.core.argv import arguments, in_a_line
from gdb_uffd.trace.files.search import FileSearch
from gdb_uffd.trace.source import Trace


class Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no handler of errors swallows it."""


@contextlib.contextmanager
def termination(*signals: int) -> Iterator[int]:
    """Within, the first of `signals` raises Terminated and later ones are ignored, so that
    cleaning up is not interrupted in its turn.  Gives a pipe to wake native code by."""

    def stop(_number: int, _frame: Optional[FrameType]) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise Terminated

    wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    old_waker = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    previous = [signal.signal(number, stop) for number in signals]
    try:
        yield wake
    finally:
        for number, handler in zip(signals, previous):
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_waker)
        os.close(wake)
        os.close(waker)


def open_trace(core: str, executable: Optional[str], search: Optional[FileSearch] = None) -> Trace:
    """Open whatever was recorded.  UffdError in the user's words for anything wrong with it."""
    try:
        return gdb_uffd.trace.open(core, executable, search)
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename is not None else core
        raise UffdError(f"{name}: {error.strerror}") from error


WARNINGS_MAX = 10
LINGER_SECONDS = 5
"""How long a server whose connection has ended waits for gdb's side to close its pipe, too."""
ARGUMENTS_MAX = 4096  # characters of the command line


def few(lines: Sequence[str]) -> List[str]:
    """The first WARNINGS_MAX lines, and how many more there are: a damaged core has thousands."""
    more = len(lines) - WARNINGS_MAX
    return [*lines[:WARNINGS_MAX], *([f"and {more} more such lines"] if more > 0 else [])]


def served(
    navigator: Navigator, socket_path: str, open_ms: float, search: Optional[FileSearch] = None
) -> Served:
    """What the ready line tells (docs/protocol.md)."""
    snapshot = navigator.position.diversion.snapshot
    looked = search.problems() if search is not None else []
    return Served(
        socket=socket_path,
        core=navigator.trace.path,
        executable=snapshot.executable,
        warnings=few(list(dict.fromkeys([*looked, *navigator.trace.warnings, *snapshot.warnings]))),
        threads=len(snapshot.threads),
        total_pages=total_pages(snapshot.segments),
        inferior_pid=snapshot.pid,
        signal=snapshot.threads[0].signal,
        open_ms=round(open_ms, 3),
        snapshots=len(navigator.trace.snapshots),
        snapshot=navigator.position.number,
        sysroot=navigator.sysroot,
        brought=navigator.brought,
        architecture=snapshot.arch.gdb,
        arguments=in_a_line(arguments(snapshot.auxv, snapshot.read), ARGUMENTS_MAX),
        unasked=search.unasked()[:WARNINGS_MAX] if search is not None else (),
    )


def run(
    core: str,
    executable: Optional[str],
    where: Union[str, Port],
    ready: Callable[[Served], None],
    wake: Optional[int] = None,
    watch: Optional[int] = None,
    seconds: Optional[float] = None,
    token: str = "",
    search: Optional[FileSearch] = None,
) -> None:
    """Open `core`, listen at `where`, call `ready`, serve one connection, and those that
    a move to another process takes after it.

    `wake`: as in Connection; `watch` and `seconds`: as in Endpoint.accept; `token`: as in
    listen.TcpEndpoint; `search`: as in trace.open.
    UffdError before `ready` was called; Terminated at any time.  Nothing is left either way.
    """
    # Each mapped file costs a descriptor; a large program maps more than the usual 1,024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        holder = Holder()
        stack.callback(holder.close)
        started = time.perf_counter()
        if search is not None:
            stack.callback(search.close)
        trace = open_trace(core, executable, search)
        stack.callback(trace.close)
        navigator = Navigator(trace, Diversion)
        stack.callback(navigator.close)
        endpoint = open_listener(where, token)
        stack.callback(endpoint.close)
        opened = served(navigator, endpoint.path, (time.perf_counter() - started) * 1000, search)
        ready(opened)
        # The first call needs these, and no core has a part in them.
        Policy.prepare()
        codec.prepare(CallReport)
        client = endpoint.accept(watch, seconds)
        while client is not None:
            if _serve(client, wake, navigator, opened, holder):
                client = endpoint.accept(watch, seconds)
                continue
            if navigator.endpoint is None:
                break
            with contextlib.closing(navigator.endpoint) as next_one:
                navigator.endpoint = None
                client = next_one.accept(watch, seconds)

        if watch is not None and navigator.sysroot:
            navigator.close()
            _linger(watch)


def _linger(watch: int) -> None:
    """Until gdb is done with the files that were made for it, or has gone: what reads a file's
    symbols as they are needed must not find it gone."""
    poll = select.poll()
    poll.register(watch, select.POLLHUP)
    poll.poll(LINGER_SECONDS * 1000)


def _serve(
    client: socket.socket,
    wake: Optional[int],
    navigator: Navigator,
    opened: Served,
    holder: Holder,
) -> bool:
    """One connection, to its end; whether its client only asked what is served."""
    with contextlib.closing(Connection(client, wake, pending=holder.pending)) as connection:
        session = StubSession(navigator, connection, opened)
        holder.hold(client, session.pid)
        try:
            stub.serve(session)
            holder.drop()
        finally:
            vfile.close_all(session)
        return session.probed


def pipe_to_watch(fd: int) -> Optional[int]:
    """`fd` if it is a pipe or a socket, whose hang-up means something; else None."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return None
    return fd if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def drop_when_full(fd: int) -> None:
    """A reader that has stopped reading our log must not block us: a pipe only, since the
    flag of a terminal is shared with the shell."""
    if pipe_to_watch(fd) is not None:
        os.set_blocking(fd, False)

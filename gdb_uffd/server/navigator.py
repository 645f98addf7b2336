"""Where a session stands in its trace: one snapshot and its diversion at a time.

A move is prepared first (that is where it can fail) and made when gdb looks away from the old
state: at its next `bc` packet, at once, or between two connections.  An excursion sets a
position aside, kept effects and all, and comes back to it.
"""

from __future__ import annotations

import contextlib
from typing import Callable, FrozenSet, Iterator, Optional, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import ENGINE_AUTO, DirtyPage, SnapshotInfo, ThreadState, UffdError
from gdb_uffd.replay.interface import Choice, RunnableSnapshot
from gdb_uffd.server.listen.endpoint import Endpoint
from gdb_uffd.server.stub import packets
from gdb_uffd.trace.source import Snapshot, Trace

MakeDiversion = Callable[[Snapshot], RunnableSnapshot]


@dataclass
class Position:
    """An opened snapshot and what ran in it; `thread` is the TID selected there.

    `ran`: the program was resumed there, other than for a call.
    """

    number: int
    diversion: RunnableSnapshot
    thread: int
    ran: bool = False

    def close(self) -> None:
        """Kill what runs, unmap what was opened.  Idempotent."""
        snapshot = self.diversion.snapshot
        self.diversion.close()
        snapshot.close()


@dataclass(frozen=True)
class Move:
    """What a move changes beside memory and registers.

    `reconnect`: another process (or another machine's registers), which gdb must be told by a
    new connection.
    """

    number: int
    threads_changed: bool
    reconnect: bool


class Navigator:
    """The trace of a session, and the positions that it holds open."""

    def __init__(self, trace: Trace, make_diversion: MakeDiversion, number: int = 0) -> None:
        """Opens snapshot `number`, or the first whole one after it where that is damaged, with a
        warning.  UffdError when there is none, or no diversion can be made."""
        self.trace = trace
        self.engine = ENGINE_AUTO  # `set uffd engine`, for the positions to come
        self._aside: Optional[Position] = None
        self._make_diversion = make_diversion
        self.position = self._open(self._first_whole(number))
        self.prepared: Optional[Position] = None
        self.endpoint: Optional[Endpoint] = None  # where the next connection is expected
        self.moves = 0
        self._returning = False  # `prepared` is what was set aside

    @property
    def info(self) -> SnapshotInfo:
        """What the trace tells of the present snapshot."""
        return self.trace.snapshots[self.position.number]

    @property
    def sysroot(self) -> str:
        """A folder with the process's files under their own paths, where they had to be unpacked
        or were found elsewhere; else ""."""
        return str(getattr(self.trace, "sysroot", ""))

    @property
    def brought(self) -> bool:
        """Whether files in it came with the trace or for it, and are no files of this machine."""
        return bool(getattr(self.trace, "brought", False))

    def _first_whole(self, number: int) -> int:
        for candidate in range(number, len(self.trace.snapshots) - 1):
            try:
                self.trace.snapshot(candidate).close()
                return candidate
            except UffdError as error:
                if not any(f"snapshot {candidate}: " in line for line in self.trace.warnings):
                    self.trace.warnings.append(str(error))
        return max(number, len(self.trace.snapshots) - 1)

    def _open(self, number: int) -> Position:
        snapshot = self.trace.snapshot(number)
        try:
            if not snapshot.threads:
                raise UffdError(
                    f"{snapshot.path}: no thread is recorded in snapshot {number}; nothing to show"
                )
            diversion = self._make_diversion(snapshot)
            # On an excursion one call is made at each of many positions.
            diversion.prefer_engine(self.engine, self._aside is not None)
            return Position(number, diversion, snapshot.threads[0].tid)
        except BaseException:
            snapshot.close()
            raise

    @contextlib.contextmanager
    def visit(self, number: int) -> Iterator[Position]:
        """Snapshot `number`, opened for a look; the session stays where it is.  UffdError."""
        position = self._open(number)
        try:
            yield position
        finally:
            position.close()

    # -- moving -------------------------------------------------------------------------------

    def prepare(self, number: int) -> Move:
        """Open snapshot `number`; `arrive` then goes there.  UffdError when it cannot be opened."""
        self.cancel()
        self.prepared = self._open(number)
        return self._compare(self.prepared)

    def prepare_return(self) -> Move:
        """As `prepare`, for what `set_aside` left."""
        self.cancel()
        if self._aside is None:
            raise UffdError("no excursion is under way")
        self.prepared, self._returning = self._aside, True
        return self._compare(self.prepared)

    def cancel(self) -> None:
        """Forget the prepared move."""
        if self.prepared is not None and not self._returning:
            self.prepared.close()
        self.prepared, self._returning = None, False
        self._stop_listening()

    def arrive(self) -> bool:
        """Go where was prepared; False when nothing is."""
        if self.prepared is None:
            return False
        left = self.position
        self.prepared.diversion.policy = self.position.diversion.policy
        self.position, self.prepared = self.prepared, None
        if left is not self._aside:
            left.close()
        self.moves += 1
        if self._returning:
            self._aside, self._returning = None, False
        return True

    def changed_here(self) -> int:
        """Pages that hold other bytes now than at the snapshot, by the program's doing or the
        user's, and that a move forgets."""
        diversion = self.position.diversion
        if not diversion.info().get("dirty_pages"):
            return 0
        pages = diversion.report_all().pages
        return sum(1 for page in pages if page.bytes_changed and _lasting(page))

    def set_aside(self) -> None:
        """Leave the present position as it is until `prepare_return`."""
        if self._aside is not None:
            raise UffdError("an excursion is under way already")
        self._aside = self.position

    @property
    def threads_aside(self) -> Sequence[ThreadState]:
        """The threads of the position that is set aside, if one is.  gdb must not see them end:
        when it is back they would have other numbers."""
        return self._aside.diversion.snapshot.threads if self._aside is not None else ()

    def _compare(self, there: Position) -> Move:
        old, new = self.position.diversion.snapshot, there.diversion.snapshot
        return Move(
            number=there.number,
            threads_changed=_tids(old) != _tids(new),
            reconnect=_identity(old) != _identity(new),
        )

    def set_engine(self, name: str) -> Choice:
        """`set uffd engine`, for the present position and those to come.  UffdError when it does
        not work here; nothing is changed then."""
        chosen = self.position.diversion.set_engine(name)
        if self._aside is not None:
            self._aside.diversion.prefer_engine(name, False)
        self.engine = name
        return chosen

    # -- connections --------------------------------------------------------------------------

    def listen(self, path: str) -> None:
        """Expect the next connection at `path`, where a prepared move is then made."""
        if self.prepared is None:
            raise UffdError("no move is prepared")
        self._stop_listening()
        self.endpoint = Endpoint(path)

    def _stop_listening(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None

    def leave(self) -> None:
        """The connection ends: go on to the prepared move if the next one is expected, else
        close everything."""
        if self.endpoint is not None:
            self.arrive()
        else:
            self.close()

    def close(self) -> None:
        """Close every position.  Idempotent; the trace itself is the caller's."""
        self.cancel()
        self.position.close()
        if self._aside is not None:
            self._aside.close()


def _lasting(page: DirtyPage) -> bool:
    """Whether it is more than gdb's pushed frames, or what a call left below the stack pointer."""
    return bool(page.bytes_above) if page.kind == "stack" else page.writers != ["malloc"]


def _tids(snapshot: Snapshot) -> FrozenSet[int]:
    return frozenset(thread.tid for thread in snapshot.threads)


def _identity(snapshot: Snapshot) -> Tuple[object, ...]:
    """What gdb asks for once a connection: the process, where it was loaded (auxv), its program,
    and what its registers are."""
    registers = packets.description(snapshot.threads[0].registers)
    return snapshot.pid, snapshot.auxv, snapshot.executable, registers

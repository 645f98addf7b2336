"""What one connection knows: where it stands, the selected threads, what the client can do."""

from __future__ import annotations

import contextlib
import errno
import sys
from dataclasses import field
from typing import Any, Callable, Dict, FrozenSet, Optional, Tuple, Union

from gdb_uffd.arch.interface import RegisterFormat
from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import Unavailable
from gdb_uffd.protocol.messages import Served
from gdb_uffd.protocol.model import Registers, UffdError
from gdb_uffd.replay.agent import Orders
from gdb_uffd.replay.attribute.reach import Graph, MemoryState
from gdb_uffd.replay.interface import SOFTWARE, RunnableSnapshot, Stop
from gdb_uffd.server.listen.connection import Connection
from gdb_uffd.server.navigator import Navigator
from gdb_uffd.server.stub.framing import frame
from gdb_uffd.server.stub.packets import format_of
from gdb_uffd.terminal import printable
from gdb_uffd.trace.source import Snapshot

_MAX_LOG_LINES = 200  # a client that provokes errors must not fill a disk or block a pipe


class PacketError(Exception):
    """A packet that cannot be carried out: `E` and two digits, `code` as errno(3) has it."""

    def __init__(self, code: int = 1) -> None:
        super().__init__(code)
        self.code = code


def parse_hex(text: bytes) -> int:
    """A number of a packet: at most 16 hexadecimal digits, nothing else; EINVAL otherwise.

    int() alone would take a sign, blanks and underscores too.
    """
    if not text or len(text) > 16 or not text.isalnum():
        raise PacketError(errno.EINVAL)
    try:
        return int(text, 16)
    except ValueError:
        raise PacketError(errno.EINVAL) from None


class SessionEnded(Exception):
    """The session is over: detached or killed.  `reply` still goes out, unless empty."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass
class Aside:
    """What answers instead of the session's own diversion, for a while."""

    real: RunnableSnapshot
    work: Any  # Rerun or Tracing
    halt: Callable[[], None]  # if its process runs between two packets, stop it


@dataclass
class StubSession:
    """State between packets.  Threads are named by their recorded TID.

    `served`: as it was at the start; what a move changes in it is asked for anew.
    """

    navigator: Navigator
    connection: Connection
    served: Served
    diversion: RunnableSnapshot = field(init=False)
    general: int = field(init=False)  # the thread of g, G, m, ... (Hg)
    runner: int = field(init=False)  # the thread that a resume naming none means
    scope: int = 0  # the one thread that `bc` resumes, 0 or -1 for all (Hc)
    written: Optional[int] = None  # whose registers were written last, since it stopped
    offered: FrozenSet[bytes] = frozenset()  # the client's features, from qSupported
    last_unavailable: Optional[Unavailable] = None  # for quffd.info
    no_ack_agreed: bool = False
    listed: int = 0  # threads that qfThreadInfo has given so far
    shown: Tuple[int, Any] = (0, None)  # the last report that was peeked at, and its number
    aside: Optional[Aside] = None  # while another diversion answers for the position's own
    files: Dict[int, Union[int, bytes]] = field(default_factory=dict)  # see vfile.OpenFile
    register_format: RegisterFormat = field(init=False)
    described: bool = False  # the client has read the target description
    thread_ids: Dict[int, bytes] = field(init=False)  # TID -> b"p1f.2e", or b"2e": see `greet`
    thread_xml: bytes = b""  # made once a snapshot: its threads stay
    # What memory reads see instead of the memory as it is.
    view: Optional[Union[MemoryState, Snapshot]] = None
    looked_at: Dict[int, Snapshot] = field(default_factory=dict)  # snapshots shown by quffd.view
    graph: Graph = field(default_factory=Graph)  # the types that the client has told of
    # By kind, address and length.
    inserted: Dict[Tuple[int, int, int], Optional[Orders]] = field(default_factory=dict)
    caught: Optional[FrozenSet[int]] = None  # system calls, see Diversion.catch_calls
    passed: FrozenSet[int] = frozenset()  # signals, see Diversion.pass_signals
    calls: int = 0  # gdb's inferior calls that are under way
    told: object = None  # the serial number of the last call-begin or call-end
    called: int = 0  # what the last one of them calls
    _fork: Optional[int] = None  # where fork(2) begins; 0: nowhere
    stopped: Optional[Stop] = None  # the last stop, once something ran
    # lldb's: by number the registers it saved, by address the bytes it allocated
    saved_registers: Dict[int, Tuple[int, Registers]] = field(default_factory=dict)
    allocated: Dict[int, int] = field(default_factory=dict)
    error_strings: bool = False
    lldb: bool = False  # the client is lldb, as its packets tell
    probed: bool = False  # the client only wants to know what is served, and comes again
    libraries: Optional[bytes] = None  # the list that the client has; None: it read its own
    lists_read: int = 0  # how often
    lists_checked: int = 0  # how often it was when it was last known to be right
    held: bool = False  # the end of a call's output is its report's, where it is not whole
    discards: bool = False  # what is under way will be undone, and its report says how it ended
    _framed_registers: Dict[int, bytes] = field(default_factory=dict)
    _logged: int = 0

    def __post_init__(self) -> None:
        self.arrive()
        self.general = self.runner

    def arrive(self) -> None:
        """Show the position where the navigator stands now.

        `general` stays: gdb does not select again the thread that it selected last.
        """
        position = self.navigator.position
        self.diversion = position.diversion
        threads = self.diversion.snapshot.threads
        listed = [*threads, *self.navigator.threads_aside]
        self.runner = position.thread
        self.written, self.listed, self.calls = None, 0, 0
        self._fork = None
        self.last_unavailable = self.stopped = None
        self.saved_registers, self.allocated = {}, {}
        self.thread_ids = {t.tid: b"" for t in listed}
        self._name_threads()
        self._lay_out()
        for (kind, address, length), orders in self.inserted.items():
            with contextlib.suppress(UffdError):  # nothing is mapped there in this snapshot
                self.diversion.insert_breakpoint(kind, address, length, orders)
        self.diversion.catch_calls(self.caught)
        self.diversion.pass_signals(self.passed)

    def move(self) -> None:
        """Make the prepared move.  What answers for this position's diversion ends before."""
        self.step_back()
        self.navigator.arrive()
        self.arrive()

    def step_aside(self, work: Any, halt: Callable[[], None] = lambda: None) -> None:
        """Another diversion answers from now on, `work.diversion`."""
        self.aside = Aside(self.diversion, work, halt)
        self.diversion = work.diversion
        self.forget_registers()

    def stand(self) -> None:
        """What is about to be asked is asked of a process that stands: one that is run again, and
        goes on between two packets, is stopped, and there is no way to go on then."""
        if self.aside is not None:
            self.aside.halt()

    def step_back(self) -> None:
        """The position's own diversion answers again; the other process ends.  Idempotent."""
        aside, self.aside = self.aside, None
        if aside is not None:
            self.diversion = aside.real
            self.connection.share_cpu(None)
            self.forget_registers()
            aside.work.close()

    def forget_unmapped(self) -> None:
        """The program may have unmapped what breakpoints were in."""
        gone = self.diversion.forget_unmapped()
        for point in [each for each in self.inserted if each[0] == SOFTWARE and each[1] in gone]:
            del self.inserted[point]

    def greet(self, offered: FrozenSet[bytes]) -> None:
        """What the client can do: it understands ids of processes only where it says so (gdb
        manual, "General Query Packets", qSupported, multiprocess)."""
        self.offered = offered
        self._name_threads()

    def describe(self) -> None:
        """The client reads the target description; from now on it knows all registers."""
        self.described = True
        self._lay_out()

    def _name_threads(self) -> None:
        form = b"p%x." % self.pid if b"multiprocess+" in self.offered else b""
        self.thread_ids = {tid: b"%s%x" % (form, tid) for tid in self.thread_ids}
        self.thread_xml = b""

    def _lay_out(self) -> None:
        """Whoever has not read the description expects the registers of the first processors."""
        registers = self.diversion.snapshot.threads[0].registers
        self.register_format = format_of(
            registers.arch, registers.xfeatures if self.described else 0
        )
        self.connection.pending.note_registers(self.register_format.size)
        self.forget_registers()

    @property
    def pid(self) -> int:
        """The recorded process id; 1 where the recording has none, since 0 means "any"."""
        return max(self.diversion.snapshot.pid, 1)

    def forks(self) -> bool:
        """Whether gdb calls fork() itself: the user's `checkpoint` does."""
        if self._fork is None:
            self._fork = self.diversion.snapshot.symbol("fork") or 0
        return self.calls > 0 and self.called == self._fork

    def registers_packet(self) -> bytes:
        """The framed `g` reply for the general thread.  PacketError when it is not there."""
        packet = self._framed_registers.get(self.general)
        if packet is None:
            packet = frame(self.register_format.encode_hex(self.registers()))
            self._framed_registers[self.general] = packet
        return packet

    def registers(self) -> Registers:
        """The general thread's registers.  PacketError when there is no such thread.

        During an excursion gdb still lists the threads of the position set aside; those that the
        present snapshot lacks stand where they stood there.
        """
        try:
            return self.diversion.registers(self.general)
        except KeyError:
            pass
        for thread in self.navigator.threads_aside:
            if thread.tid == self.general:
                return thread.registers
        raise PacketError(errno.ESRCH)

    def set_registers(self, registers: Registers) -> None:
        """Write the general thread's registers; that makes it the one to run next."""
        self._framed_registers.pop(self.general, None)
        self.runner = self.written = self.general
        self.diversion.set_registers(self.general, registers)

    def forget_registers(self) -> None:
        """Something ran or was undone: ask the diversion again."""
        self._framed_registers.clear()

    def log(self, text: str) -> None:
        """One line on stderr, where gdb's side keeps it."""
        self._logged += 1
        if self._logged > _MAX_LOG_LINES:
            return
        try:
            print(f"gdb_uffd.server: {printable(text)}", file=sys.stderr, flush=True)
        except OSError:
            self._logged = _MAX_LOG_LINES  # nobody reads it any more

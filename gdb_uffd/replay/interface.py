"""What the remote stub needs of a diversion: the border between server/ and replay/."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Optional, Protocol, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import End, Wait
from gdb_uffd.protocol.model import CallReport, Mapping, Registers
from gdb_uffd.replay.agent import Orders
from gdb_uffd.replay.attribute.reach import MemoryState
from gdb_uffd.trace.source import Snapshot

# Breakpoint kinds: the digit of the Z packets (gdb manual, "Packets", `z type,addr,kind`).
SOFTWARE, HARDWARE, WRITE_WATCH, READ_WATCH, ACCESS_WATCH = range(5)


@dataclass(frozen=True)
class Stop:
    """Why execution stopped.  `signal` is a Linux signal number; 0 where no signal stopped it.

    `breakpoint`: "" | "swbreak" | "hwbreak" | "watch" | "rwatch" | "awatch" | "syscall_entry" |
    "syscall_return"; `address` is the watched data address, or the system call's number.
    `end`: what the user is to be told of it, if anything.  `lost`: the vessel was killed from
    outside; memory and registers are the snapshot's again.  `stands`: nothing ran, the thread
    stands as it stood.
    """

    tid: int
    signal: int
    breakpoint: str = ""
    address: int = 0
    end: Optional[End] = None
    lost: bool = False
    stands: bool = False


class Disconnected(Exception):
    """The client went away while the vessel ran; the caller closes down."""


@dataclass(frozen=True)
class Resume:
    """One thread's action: kind "c" (continue), "s" (step) or "r" (step within [lo, hi))."""

    tid: int
    kind: str
    signal: int = 0  # Linux number to deliver, 0 for none
    lo: int = 0
    hi: int = 0


@dataclass(frozen=True)
class Choice:
    """A tracking engine, one of model.ENGINES, and why it and no other; "": it was asked for."""

    name: str
    why: str = ""


class StubClient(Protocol):
    """What a running vessel needs of the connection."""

    def fileno(self) -> int:
        """Descriptor to poll for input while the vessel runs."""
        ...

    def interrupt_requested(self) -> bool:
        """Called when fileno() is readable: True for Ctrl-C (0x03 consumed), False for
        anything else; raises Disconnected at end of file."""
        ...

    def output(self, data: bytes) -> None:
        """What the inferior wrote to its stdout and stderr, as soon as it is there."""
        ...

    def runs_on(self, seconds: float) -> None:
        """Called now and then of what has run for so long."""
        ...


class RunnableSnapshot(Protocol):
    """A snapshot that can run.  No process exists until the first resume or write."""

    snapshot: Snapshot

    policy: Any
    """What the program may do (policy/policy.py, Policy); another one can be set at any time."""

    @property
    def blocked(self) -> Optional[Wait]:
        """The wait that the last stop stands before or None."""
        ...

    thrown: Any
    """What the last stop was about (replay/uncaught.py, Thrown)."""

    @property
    def alive(self) -> bool:
        """Whether anything differs from the undisturbed snapshot (a vessel exists)."""
        ...

    def refuse_loss(self) -> None:
        """UffdError, once, when the vessel was killed from outside, and what it had with it."""
        ...

    def mappings(self) -> Sequence[Mapping]:
        """The mappings as they are now (with what the calls mapped)."""
        ...

    def mapped_files(self) -> Sequence[str]:
        """Paths of the files that the calls mapped."""
        ...

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as it is now; MemoryUnavailable unless all bytes are there.  Inserted
        breakpoints are hidden.  Never materialises."""
        ...

    def write_memory(self, address: int, data: bytes) -> None:
        """gdb's write (not counted as the program's); materialises.  MemoryUnavailable."""
        ...

    def registers(self, tid: int) -> Registers: ...

    def set_registers(self, tid: int, registers: Registers) -> None:
        """Does not materialise."""
        ...

    def siginfo(self, tid: int) -> bytes:
        """siginfo_t of the thread's last stop (the recorded one before any), b"" for none."""
        ...

    def set_siginfo(self, tid: int, data: bytes) -> None: ...

    def insert_breakpoint(
        self, kind: int, address: int, length: int, orders: Optional[Orders] = None
    ) -> None:
        """Idempotent; `orders`: what it does by itself.  UffdError where it cannot be (nothing
        mapped, no debug register left).  No process yet."""
        ...

    def remove_breakpoint(self, kind: int, address: int, length: int) -> None:
        """Idempotent."""
        ...

    def forget_unmapped(self) -> Sequence[int]:
        """Remove the software breakpoints where nothing is mapped any more; their addresses."""
        ...

    def catch_calls(self, calls: Optional[FrozenSet[int]]) -> None:
        """From the next resume on, stop at these system calls, before and behind them: all of them
        if the set is empty; None: at none."""
        ...

    def pass_signals(self, signals: FrozenSet[int]) -> None:
        """Deliver these, Linux numbers, without a stop: but in a step, and where they cannot be."""
        ...

    def resume(self, action: Resume, client: StubClient) -> Stop:
        """Run until the next stop.  Ctrl-C gives Stop(signal=SIGINT).  UffdError when
        no process can be made (userfaultfd forbidden: what to set)."""
        ...

    def interrupted(self, action: Resume) -> None:
        """A Ctrl-C came before anything of `action` ran: a call that is under way has begun, and
        stands before its first instruction.  UffdError as `resume`."""
        ...

    def call_begin(self, address: int, is_malloc: bool) -> None:
        """gdb is about to make an inferior call.  Opens a transaction unless one is open.
        Materialises; UffdError with the remedy when no process can be made."""
        ...

    def call_end(self) -> None:
        """That inferior call ended (returned, or stopped half-way)."""
        ...

    def begin(self) -> None:
        """Open an explicit transaction (`uffd call`); an open implicit one is committed."""
        ...

    def end(self, keep: bool) -> CallReport:
        """Close the open transaction; undo its effects (memory, mappings, registers) unless
        `keep`.  The report is also `last_report`.  Without an open one: UffdError."""
        ...

    def commit_pending(self) -> Optional[CallReport]:
        """Close an open implicit transaction (plain `print f()`, step, continue), keeping its
        effects, and return its report; None when none is open."""
        ...

    last_report: Optional[CallReport]

    def report_all(self) -> CallReport:
        """Everything written since the snapshot and kept: CallReport with kind "all"."""
        ...

    def image(self, address: int, which_all: bool) -> Optional[tuple[bytes, bytes]]:
        """(before, after) of the page at `address`: of the last report, or with `which_all`
        snapshot against now.  None when that page was not written."""
        ...

    def set_engine(self, name: str) -> Choice:
        """How the next process learns what is written: one of model.ENGINES, or ENGINE_AUTO.
        UffdError when that does not work here; then nothing is changed."""
        ...

    def prefer_engine(self, name: str, mass: bool) -> None:
        """The same without trying it: the next process will.  `mass`: many calls are to come
        whose reports nobody sees."""

    def refine(self, report: CallReport) -> None:
        """Tell what the bytes of the last report are (blocks, roles, names of thread-locals);
        once for each report, cheap after that.  Of an older one: nothing."""
        ...

    def view(self, after: bool, which_all: bool) -> MemoryState:
        """Memory before or after the last report, or with `which_all` as recorded or as it is;
        good until something runs or is written."""
        ...

    def reset(self) -> None:
        """Back to the undisturbed snapshot: kill the vessel, forget everything."""
        ...

    def close(self) -> None:
        """Kill the vessel, release everything.  Idempotent."""
        ...

    def info(self) -> Dict[str, object]:
        """For `uffd info`: vessel_pid (int or None), fed_pages, dirty_pages, mapped_pages,
        faults, fault_us, breakpoints, engine (of the present or last process; None before
        there was one), engine_why, engine_setting."""
        ...


@dataclass(frozen=True)
class Check:
    """One thing the machine can or cannot do: `ok`, what was found, and the remedy if not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True

"""A snapshot and a diversion that need neither a core nor a process, and a plain client."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple, cast

from gdb_uffd.arch import X86_64, Architecture
from gdb_uffd.arch.x86_64.xstate import XSTATE_SIZE
from gdb_uffd.protocol.ends import Wait
from gdb_uffd.protocol.model import (
    GPR,
    CallReport,
    DirtyPage,
    Mapping,
    MemoryUnavailable,
    Registers,
    SnapshotInfo,
    ThreadState,
    UffdError,
)
from gdb_uffd.replay.agent import Orders
from gdb_uffd.replay.interface import Choice, Resume, Stop, StubClient
from gdb_uffd.server.listen.connection import Connection
from gdb_uffd.server.listen.serve import served
from gdb_uffd.server.navigator import Navigator
from gdb_uffd.server.session import StubSession
from gdb_uffd.server.stub import stub, vfile
from gdb_uffd.server.stub.framing import frame
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.source import UNAVAILABLE, ZERO, AddressPlace, ReadMemory, Segment

CODE, DATA, STACK = 0x400000, 0x600000, 0x7FFF0000
ALL_FEATURES = 0x2E7
PID, TIDS = 0x1234, (0x1234, 0x1235, 0x1236)


def make_registers(seed: int = 0, xfeatures: int = ALL_FEATURES) -> Registers:
    """Registers every byte of which tells its place; all components in use."""
    gpr = [(i * 0x0101010101010101 + seed) & (2**64 - 1) for i in range(27)]
    gpr[GPR["rip"]], gpr[GPR["rsp"]], gpr[GPR["rbp"]] = CODE + 0x10, STACK + 0x800, STACK + 0x900
    gpr[GPR["eflags"]] = 0x246
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        gpr[GPR[name]] &= 0xFFFF
    xstate = bytearray((i * 7 + seed) & 0xFF for i in range(XSTATE_SIZE))
    xstate[4] = 0xFF  # no x87 register is empty
    xstate[512:576] = (xfeatures & 0x2E7).to_bytes(8, "little") + bytes(56)
    return Registers(gpr, bytes(xstate), xfeatures, X86_64)


@dataclass
class FakeSnapshot:
    """Three pages of memory, the one after DATA's not available."""

    path: str = "/tmp/fake core"
    arch: Architecture = X86_64
    pid: int = PID
    executable: str = "/usr/bin/fake"
    files_read: Sequence[str] = ()
    auxv: bytes = bytes(range(32))
    main: Optional[Module] = None
    threads: Sequence[ThreadState] = ()
    mappings: Sequence[Mapping] = (
        Mapping(CODE, CODE + 0x1000, 5, "/usr/bin/fake", 0x2000),
        Mapping(DATA, DATA + 0x1000, 3, "/usr/bin/fake", 0x3000),
        Mapping(DATA + 0x1000, DATA + 0x2000, 3, "", 0, "truncated core"),
        Mapping(STACK, STACK + 0x1000, 3, "[stack]"),
    )
    segments: Sequence[Segment] = (
        Segment(CODE, CODE + 0x1000, 5, ZERO),
        Segment(DATA, DATA + 0x1000, 3, ZERO),
        Segment(DATA + 0x1000, DATA + 0x2000, 3, UNAVAILABLE, reason="truncated core"),
        Segment(STACK, STACK + 0x1000, 3, ZERO),
    )
    warnings: List[str] = field(default_factory=list)
    memory: Dict[int, bytearray] = field(default_factory=dict)
    closed: bool = False

    def __post_init__(self) -> None:
        if not self.threads:
            self.threads = [
                ThreadState(t, make_registers(n), 11 if n == 0 else 0, bytes(128), 0, f"t{n}")
                for n, t in enumerate(TIDS)
            ]
        if not self.memory:
            self.memory = {
                CODE: bytearray(b"\x90" * 4096),
                DATA: bytearray(i & 0xFF for i in range(4096)),
                STACK: bytearray(4096),
            }

    def read(self, address: int, length: int) -> bytes:
        out = b""
        while len(out) < length:
            at = address + len(out)
            page = self.memory.get(at & ~0xFFF)
            if page is None:
                raise MemoryUnavailable(at, "not in the fake")
            out += bytes(page[at & 0xFFF : (at & 0xFFF) + length - len(out)])
        return out

    def thread(self, tid: int) -> ThreadState:
        return {t.tid: t for t in self.threads}[tid]

    def symbol(self, name: str) -> Optional[int]:
        return None

    def tls_address(
        self, tid: int, offset: int, link_map: int, fs_base: int, read: ReadMemory
    ) -> int:
        if link_map == 0:
            raise UffdError(f"thread {tid}: no block for #{link_map}")
        return fs_base + offset

    def classify(self, address: int) -> AddressPlace:
        return AddressPlace("data", "/usr/bin/fake")

    def modules(self) -> Sequence[Module]:
        return []

    def close(self) -> None:
        self.closed = True


class FakeView:
    """Memory that holds one byte everywhere."""

    def __init__(self, byte: bytes) -> None:
        self.byte = byte

    def read(self, address: int, length: int) -> bytes:
        if address < CODE:
            raise MemoryUnavailable(address, "not there in this state")
        return self.byte * length

    def word(self, address: int) -> Optional[int]:
        return int.from_bytes(self.byte * 8, "little")


@dataclass
class FakeDiversion:
    """Remembers what it was asked; `on_resume` is what running does."""

    snapshot: FakeSnapshot = field(default_factory=FakeSnapshot)
    on_resume: Optional[Callable[[Resume, StubClient], Stop]] = None
    alive: bool = False
    policy: Any = None
    blocked: Optional[Wait] = None
    last_report: Optional[CallReport] = None
    current: Dict[int, Registers] = field(default_factory=dict)
    siginfos: Dict[int, bytes] = field(default_factory=dict)
    breakpoints: List[Tuple[int, int, int]] = field(default_factory=list)
    orders: Dict[int, Optional[Orders]] = field(default_factory=dict)
    calls: Optional[FrozenSet[int]] = None
    passed: FrozenSet[int] = frozenset()
    asked: List[Tuple[object, ...]] = field(default_factory=list)
    refined: List[str] = field(default_factory=list)
    open: bool = False
    closed: int = 0
    engine: Tuple[str, bool] = ("auto", False)

    def mappings(self) -> Sequence[Mapping]:
        return self.snapshot.mappings

    def read_memory(self, address: int, length: int) -> bytes:
        return self.snapshot.read(address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        self.alive = True
        self.snapshot.read(address, len(data))
        for n, byte in enumerate(data):
            at = address + n
            self.snapshot.memory[at & ~0xFFF][at & 0xFFF] = byte

    def registers(self, tid: int) -> Registers:
        return self.current.get(tid) or self.snapshot.thread(tid).registers

    def set_registers(self, tid: int, registers: Registers) -> None:
        self.current[tid] = registers

    def siginfo(self, tid: int) -> bytes:
        return self.siginfos.get(tid, self.snapshot.thread(tid).siginfo)

    def set_siginfo(self, tid: int, data: bytes) -> None:
        self.siginfos[tid] = data

    def insert_breakpoint(
        self, kind: int, address: int, length: int, orders: Optional[Orders] = None
    ) -> None:
        if kind == 3:
            raise UffdError("x86 cannot watch reads alone; use awatch")
        self.breakpoints.append((kind, address, length))
        self.orders[address] = orders

    def remove_breakpoint(self, kind: int, address: int, length: int) -> None:
        if (kind, address, length) in self.breakpoints:
            self.breakpoints.remove((kind, address, length))

    def forget_unmapped(self) -> List[int]:
        return []

    def catch_calls(self, calls: Optional[FrozenSet[int]]) -> None:
        self.calls = calls

    def pass_signals(self, signals: FrozenSet[int]) -> None:
        self.passed = signals

    def interrupted(self, action: Resume) -> None:
        """Nothing runs."""

    def resume(self, action: Resume, client: StubClient) -> Stop:
        self.alive = True
        self.asked.append(("resume", action))
        if self.on_resume is not None:
            return self.on_resume(action, client)
        registers = self.registers(action.tid).copy()
        reached = [(k, a) for k, a, _ in self.breakpoints if k < 2]
        if action.kind == "c" and reached:
            kind, registers.gpr[GPR["rip"]] = reached[0]
            how = ("swbreak", "hwbreak")[kind]
        else:  # every instruction here is a nop of one byte
            registers.gpr[GPR["rip"]] += 1
            how = ""
        self.current[action.tid] = registers
        return Stop(action.tid, 5, how)

    def call_begin(self, address: int, is_malloc: bool) -> None:
        self.asked.append(("call_begin", address, is_malloc))

    def call_end(self) -> None:
        self.asked.append(("call_end",))

    def begin(self) -> None:
        self.open = True

    def end(self, keep: bool) -> CallReport:
        if not self.open:
            raise UffdError("no call is open")
        self.open = False
        self.last_report = self.report(keep)
        return self.last_report

    @staticmethod
    def report(keep: bool = False) -> CallReport:
        pages = [
            DirtyPage(DATA, DATA + 0x1000, "data", "/a}#$*b", 4, None, ["program"]),
            DirtyPage(STACK, STACK + 0x1000, "stack", "[stack]", 8, TIDS[0], ["gdb"]),
        ]
        return CallReport("call", keep, 3, 9, 1.5, "out\n", pages)

    def commit_pending(self) -> Optional[CallReport]:
        return self.report(True) if self.alive else None

    def report_all(self) -> CallReport:
        return self.report(True)

    def image(self, address: int, which_all: bool) -> Optional[Tuple[bytes, bytes]]:
        return (bytes(4096), b"\1" * 4096) if address & ~0xFFF == DATA else None

    def set_engine(self, name: str) -> Choice:
        if name not in ("auto", "fake"):
            raise UffdError(f"no engine {name!r}")
        self.engine = (name, False)
        return Choice("fake")

    def prefer_engine(self, name: str, mass: bool) -> None:
        self.engine = (name, mass)

    def refine(self, report: CallReport) -> None:
        self.refined.append(report.kind)

    def view(self, after: bool, which_all: bool) -> "FakeView":
        return FakeView((b"\xaa" if after else b"\xbb") if not which_all else b"\xcc")

    def reset(self) -> None:
        self.alive = False
        self.current.clear()

    def close(self) -> None:
        self.closed += 1

    def info(self) -> Dict[str, object]:
        dirty = 2 if self.alive else 0
        return {"vessel_pid": None, "fed_pages": 0, "dirty_pages": dirty, "engine": "fake"}


@dataclass
class FakeTrace:
    """Snapshots of a list; `opened` are the numbers that were asked for, in order."""

    made: Sequence[FakeSnapshot] = field(default_factory=lambda: [FakeSnapshot()])
    path: str = "/tmp/fake.uffd"
    warnings: List[str] = field(default_factory=list)
    opened: List[int] = field(default_factory=list)
    broken: Dict[int, str] = field(default_factory=dict)  # numbers that cannot be opened: why
    closed: bool = False

    @property
    def snapshots(self) -> Sequence[SnapshotInfo]:
        return [
            SnapshotInfo(n, 10**18 + n, label=f"l{n}", pid=s.pid, tid=s.threads[0].tid)
            for n, s in enumerate(self.made)
        ]

    def snapshot(self, number: int) -> FakeSnapshot:
        self.opened.append(number)
        if number in self.broken:
            raise UffdError(self.broken[number])
        if not 0 <= number < len(self.made):
            raise UffdError(f"no snapshot {number}: 0 to {len(self.made) - 1}")
        made = self.made[number]
        memory = {start: bytearray(page) for start, page in made.memory.items()}
        return replace(made, closed=False, memory=memory)

    def find(self, name: str) -> int:
        return int(name)

    def changed_pages(self, a: int, b: int) -> List[int]:
        for number in (a, b):
            if not 0 <= number < len(self.made):
                raise UffdError(f"no snapshot {number}: 0 to {len(self.made) - 1}")
        pages = {**self.made[a].memory, **self.made[b].memory}
        both = [self.made[a].memory, self.made[b].memory]
        return sorted(p for p in pages if both[0].get(p) != both[1].get(p))

    def close(self) -> None:
        self.closed = True


class RawClient:
    """A client that speaks the protocol one packet at a time, without acknowledgements.

    `plain`: it tells nothing of itself, and does not read the target description.
    """

    def __init__(self, sock: socket.socket, diversion: FakeDiversion, plain: bool = False) -> None:
        self.sock = sock
        self.diversion = diversion
        self.console = b""  # what came in O packets
        self._data = b""
        assert self.ask(b"QStartNoAckMode") == b"OK"
        sock.sendall(b"+")
        if not plain:
            self.ask(b"qSupported:multiprocess+")
            self.ask(b"qXfer:features:read:target.xml:0,10")

    def send(self, payload: bytes) -> None:
        self.sock.sendall(frame(payload))

    def receive(self) -> Optional[bytes]:
        """The next reply that is no O packet; None at the end of the connection."""
        while True:
            start = self._data.find(b"$")
            end = self._data.find(b"#", max(start, 0))
            if start >= 0 and end >= 0 and len(self._data) >= end + 3:
                payload, rest = self._data[start + 1 : end], self._data[end + 3 :]
                assert self._data[end + 1 : end + 3] == b"%02x" % (sum(payload) & 0xFF)
                self._data = rest
                if payload[:1] == b"O" and payload != b"OK":
                    self.console += bytes.fromhex(payload[1:].decode())
                    continue
                return payload
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            self._data += more

    def ask(self, payload: bytes) -> Optional[bytes]:
        self.send(payload)
        return self.receive()


@contextmanager
def serving(diversion: Optional[FakeDiversion] = None, plain: bool = False) -> Iterator[RawClient]:
    """A client connected to a stub in a thread; asserts that the stub ends with the connection."""
    diversion = diversion or FakeDiversion()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(20)
    thread = threading.Thread(target=serve_on, args=(theirs, diversion), daemon=True)
    thread.start()
    try:
        yield RawClient(ours, diversion, plain)
    finally:
        ours.close()
        thread.join(20)
        assert not thread.is_alive()
        assert diversion.closed


def serve_on(sock: socket.socket, diversion: FakeDiversion) -> None:
    """Serve one connection to its end."""
    trace = FakeTrace([diversion.snapshot], path=diversion.snapshot.path)
    # As much of a trace and of a diversion as the stub asks for.
    serve_navigator(sock, Navigator(cast(Any, trace), lambda _: cast(Any, diversion)))


def serve_navigator(sock: socket.socket, navigator: Navigator) -> None:
    """Serve one connection to its end."""
    connection = Connection(sock)
    session = StubSession(navigator, connection, served(navigator, "/tmp/s", 1.0))
    try:
        stub.serve(session)
    finally:
        vfile.close_all(session)
        connection.close()

"""A client that speaks gdb's protocol as gdb does, until it does not: calls, private requests,
moves in a trace, and damaged packets in between."""

from __future__ import annotations

import json
import random
import select
import socket
import time
from typing import Any, Callable, Dict, List, Optional

from gdb_uffd.protocol.model import GPR
from gdb_uffd.server.stub.framing import escape, frame, unescape

OFFERED = (
    b"qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;"
    b"exec-events+;vContSupported+;QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386"
)
RIP, RSP, RAX, RDI = GPR["rip"], GPR["rsp"], GPR["rax"], GPR["rdi"]
G_ORDER = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
"""The first registers of a `g` packet, 8 bytes each (gdb's 64bit-core.xml)."""


class Hang(Exception):
    """No answer in time; the text tells to what."""


class Closed(Exception):
    """The server closed the connection."""


class Rsp:
    """The protocol, one packet at a time.  `bound_s`: how long an answer may take."""

    def __init__(self, path: str, bound_s: float) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(bound_s)
        self.sock.connect(path)
        self.bound_s = bound_s
        self._data = b""
        self._echo = 0
        self.said: List[bytes] = []

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.said = [*self.said[-19:], data[:300]]
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self, patience_s: float = 2.0) -> bytes:
        """The next reply that is no O packet.  What runs is interrupted after `patience_s`."""
        began, asked = time.monotonic(), False
        while True:
            start = self._data.find(b"$")
            end = self._data.find(b"#", max(start, 0))
            if start >= 0 and end >= 0 and len(self._data) >= end + 3:
                payload, self._data = self._data[start + 1 : end], self._data[end + 3 :]
                if payload[:1] == b"O" and payload != b"OK":
                    continue
                return payload
            waited = time.monotonic() - began
            if waited > self.bound_s:
                raise Hang("no answer")
            if waited > patience_s and not asked:
                asked = True
                self.send(b"\x03")
            if not select.select([self.sock], [], [], 0.1)[0]:
                continue
            try:
                more = self.sock.recv(1 << 16)
            except OSError as error:
                raise Closed(str(error)) from None
            if not more:
                raise Closed("closed")
            self._data += more

    def ask(self, payload: bytes) -> bytes:
        """The reply to a packet."""
        self.send(frame(payload))
        try:
            reply = self.receive()
            self.said[-1] += b" -> " + reply[:100]
            return reply
        except Hang:
            raise Hang(f"no answer to {payload[:80]!r} within {self.bound_s:.0f} s") from None

    def private(self, verb: str, arguments: Any = None) -> Any:
        """A private request; its answer, or None for an error."""
        text = verb.encode()
        if arguments is not None:
            data = json.dumps(arguments)
            text += b":" + data.translate({35: "\\u0023", 36: "\\u0024", 42: "\\u002a"}).encode()
        reply = self.ask(b"quffd." + text)
        try:
            return json.loads(unescape(reply))
        except ValueError:
            return None

    def settle(self) -> None:
        """After what may have had any number of replies: until an answer is to what was asked."""
        self._echo += 1
        self.send(frame(b'quffd.hello:{"echo":%d}' % self._echo))
        wanted = b'"echo":%d}' % self._echo  # lldb gets it with the brace escaped
        began = time.monotonic()
        while wanted not in (reply := self.receive()):
            if reply == b"E.the server is gone":
                raise Closed("the server is gone")
            if time.monotonic() - began > self.bound_s:
                raise Hang(f"no answer to hello after {self.said[-3:]!r}")


class Session:
    """Random requests, drawn from `chance`; what the answers told is used further."""

    def __init__(self, rsp: Rsp, chance: random.Random, functions: Dict[str, int]) -> None:
        self.rsp, self.chance, self.functions = rsp, chance, functions
        self.mappings: List[List[Any]] = []
        self.snapshots = 1
        self.tids: List[int] = []
        self.pid = 0

    def begin(self) -> None:
        """What gdb asks first."""
        ask = self.rsp.ask
        ask(b"QStartNoAckMode")
        self.rsp.send(b"+")
        ask(OFFERED)
        ask(b"qXfer:features:read:target.xml:0,20000")
        ask(b"qXfer:threads:read::0,10000")
        ask(b"?")
        facts = self.rsp.private("info") or {}
        self.pid, self.snapshots = facts.get("inferior_pid", 1), facts.get("snapshots", 1)
        listed = ask(b"qfThreadInfo")[1:].split(b",")
        self.tids = [int(one.partition(b".")[2] or b"1", 16) for one in listed if b"." in one]
        found = self.rsp.private("mappings")
        if isinstance(found, list):
            self.mappings = [[int(str(m["start"]), 0), int(str(m["end"]), 0)] for m in found[:500]]

    def run(self, count: int, damage: float) -> None:
        """`count` requests, a share `damage` of them damaged."""
        for _ in range(count):
            if self.chance.random() < damage:
                self._damaged()
            else:
                self.chance.choice(SANE)(self)

    def leave(self) -> None:
        """End as gdb does, in one of its ways."""
        how = self.chance.randrange(4)
        if how < 2:
            self.rsp.send(frame(b"vKill;%x" % self.pid if how else b"D;%x" % self.pid))
            try:
                self.rsp.receive()
            except Closed:
                pass
        elif how == 2:
            self.rsp.send(frame(b"k"))
        self.rsp.sock.close()

    def address(self) -> int:
        """One that is likely to be mapped."""
        chance = self.chance
        if self.mappings and chance.random() < 0.9:
            start, end = chance.choice(self.mappings)
            inside = [start, end - 1, end - 8, chance.randrange(start, max(end, start + 1))]
            return chance.choice(inside) & ((1 << 64) - 1)
        return chance.choice([0, 1, 1 << 47, (1 << 64) - 1, chance.getrandbits(64)])

    def length(self) -> int:
        return self.chance.choice([0, 1, 2, 8, 64, 4096, 4097, 0x10000, 0x1FFFF, 1 << 33])

    def tid(self) -> bytes:
        one = self.chance.choice([*self.tids, 0, 77] if self.tids else [0, 1])
        return b"p%x.%x" % (self.pid & (1 << 63) - 1, one & (1 << 63) - 1)

    # What gdb does, as it does it.

    def read(self) -> None:
        kind = self.chance.choice([b"m%x,%x", b"m%x,%x", b"x%x,%x"])
        self.rsp.ask(kind % (self.address(), self.length()))

    def write(self) -> None:
        data = self.chance.randbytes(self.chance.choice([0, 1, 8, 300]))
        at = self.address()
        if self.chance.random() < 0.5:
            self.rsp.ask(b"M%x,%x:" % (at, len(data)) + data.hex().encode())
        else:
            self.rsp.ask(b"X%x,%x:" % (at, len(data)) + escape(data))

    def look(self) -> None:
        asked = [b"g", b"?", b"qC", b"qAttached", b"qfThreadInfo", b"qsThreadInfo", b"vCont?"]
        asked += [b"qXfer:auxv:read::0,1000", b"qXfer:libraries-svr4:read::0,20000", b"qOffsets"]
        asked += [b"qXfer:siginfo:read::0,100", b"qXfer:exec-file:read::0,1000"]
        asked += [b"qXfer:memory-map:read::0,1000", b"qSymbol::", b"qTStatus", b"vMustReplyEmpty"]
        asked += [b"p%x" % self.chance.randrange(160), b"T" + self.tid(), b"Hg" + self.tid()]
        asked += [b"Hc" + self.tid(), b"qThreadExtraInfo," + self.tid(), b"qMemoryRegionInfo:0"]
        asked += [b"qMemoryRegionInfo:%x" % self.address(), b"qHostInfo", b"qProcessInfo"]
        asked += [b"jThreadsInfo", b"qGetTLSAddr:" + self.tid() + b",%x,%x" % (16, self.address())]
        asked += [b"qSearch:memory:%x;%x;ab" % (self.address(), self.length())]
        asked += [b"qCRC:%x,%x" % (self.address(), self.length())]
        self.rsp.ask(self.chance.choice(asked))

    def files(self) -> None:
        """gdb reads files through the server (gdb manual, "Host I/O Packets")."""
        pid, tid = self.pid, self.chance.choice(self.tids or [1])
        names = [f"/proc/{pid}/maps", f"/proc/{pid}/task/{tid}/comm", "/etc/passwd"]
        names += [f"/proc/{pid}/smaps", f"/proc/{pid}/cmdline", f"/proc/{pid}/status", ""]
        name = self.chance.choice(names).encode().hex().encode()
        self.rsp.ask(b"vFile:setfs:0")
        reply = self.rsp.ask(b"vFile:open:%s,0,1c0" % name)
        fd = reply[1:2] if reply[1:2].isdigit() else b"0"
        where = self.chance.choice([0, 1, 4096, 1 << 40])
        self.rsp.ask(b"vFile:pread:%s,%x,%x" % (fd, self.length(), where))
        self.rsp.ask(b"vFile:fstat:%s" % fd)
        self.rsp.ask(b"vFile:readlink:" + name)
        if self.chance.random() < 0.9:
            self.rsp.ask(b"vFile:close:%s" % fd)

    def breakpoints(self) -> None:
        kind = self.chance.choice([0, 0, 1, 2, 3, 4])
        at, size = self.address(), self.chance.choice([1, 1, 2, 4, 8, 3, 1 << 20])
        self.rsp.ask(b"Z%d,%x,%x" % (kind, at, size))
        if self.chance.random() < 0.8:
            self.resume()
            self.rsp.ask(b"z%d,%x,%x" % (kind, at, size))

    def resume(self) -> None:
        tid = self.tid()
        ways = [b"vCont;s:" + tid, b"vCont;s:" + tid, b"vCont;c", b"vCont;C05:" + tid + b";c"]
        ways += [
            b"vCont;r%x,%x:" % (self.address(), self.address()) + tid,
            b"s",
            b"c",
            b"bc",
            b"bs",
        ]
        self.rsp.ask(self.chance.choice(ways))

    def call(self, arguments: Optional[Dict[str, Any]] = None) -> None:
        """An inferior call with gdb's packets."""
        ask, chance = self.rsp.ask, self.chance
        at = chance.choice([*self.functions.values(), self.address()])
        self.rsp.private("begin", arguments or {})
        self.rsp.private("call-begin", {"address": hex(at), "malloc": chance.random() < 0.1})
        saved = ask(b"g")
        if len(saved) < 2 * 8 * 17 or saved.startswith(b"E"):
            self.rsp.private("end", {"keep": False})
            return
        registers = bytearray(bytes.fromhex(saved[: 2 * 8 * 17].decode().replace("x", "0")))

        def put(name: str, value: int) -> None:
            where = 8 * G_ORDER.index(name)
            registers[where : where + 8] = (value & ((1 << 64) - 1)).to_bytes(8, "little")

        where = 8 * G_ORDER.index("rsp")
        stack = int.from_bytes(registers[where : where + 8], "little") - 512 & ~15
        stack &= (1 << 64) - 1
        landing = stack + 64 & (1 << 64) - 1
        put("rax", 0)
        put("rdi", chance.choice([0, 1, 7, self.address()]))
        put("rip", at)
        put("rsp", stack - 8)
        ask(b"X%x,8:" % (stack - 8 & (1 << 64) - 1) + escape(landing.to_bytes(8, "little")))
        ask(b"Z0,%x,1" % landing)
        ask(b"G" + registers.hex().encode() + saved[2 * 8 * 17 :])
        if chance.random() < 0.1:
            self.rsp.send(b"\x03")
        ask(b"vCont;c:p%x.-1" % self.pid)
        ask(b"z0,%x,1" % landing)
        if chance.random() < 0.9:
            ask(b"G" + saved)
            self.rsp.private("call-end", {})
        if chance.random() < 0.9:
            self.rsp.private("end", {"keep": chance.random() < 0.3})

    def verb(self) -> None:
        """One private request with arguments of the right kind."""
        verb, arguments = self._verb()
        self.rsp.private(verb, arguments)

    def _verb(self) -> "tuple[str, Any]":
        chance = self.chance
        at = hex(self.address())
        coin = chance.random() < 0.5
        which = chance.randrange(max(1, self.snapshots) + 1)
        known: List["tuple[str, Any]"] = [
            ("hello", {"echo": 1}), ("info", None), ("interrupt", None), ("begin", {"quiet": coin}),
            ("end", {"keep": coin}), ("commit", None), ("report", {"all": coin}),
            ("image", {"address": at, "all": coin}), ("mappings", None), ("reset", None),
            ("engine", {"name": chance.choice(["auto", "wp-sync", "wp-async", "compare", "x"])}),
            ("view", {"which": chance.choice(["now", "before", "after"]), "all": coin}),
            ("view", {"which": "before", "snapshot": which}), ("fed", None), ("snapshots", None),
            ("reach", {
                "fresh": coin, "types": [[16, [[0, 0], [8, -1]], [[0, 0, 2]], coin, [[0, 4]]]],
                "roots": [[at, 0]], "wanted": [[hex(self.address()), self.length()]],
                "after": coin, "all": coin,
            }),
            ("why", {"address": at, "length": self.length(), "first": coin, "limit": 5}),
            ("why", {"address": at}), ("why-next", None), ("why-next", None), ("why-end", None),
            ("trace-begin", None), ("trace-end", None), ("trace-drop", None),
            ("peek", {"known": chance.randrange(4)}), ("position", None),
            ("goto", {"number": which, "now": coin, "tell": True}), ("stay", None),
            ("goto", {"number": which, "now": True, "tell": False}),
            ("excursion", {}), ("back", None), ("changes", {"a": 0, "b": which}),
            ("changes-image", {"a": 0, "b": which, "address": at}),
            ("policy", {}), ("call-begin", {"address": at, "malloc": coin, "serial": 3}),
            ("call-end", {"serial": 4}),
        ]  # fmt: skip
        return chance.choice(known)

    def again(self) -> None:
        """The last call once more, as `uffd why` and `uffd trace` have it."""
        self.call()
        if self.chance.random() < 0.5:
            if self.rsp.private("why", {"address": hex(self.address()), "length": 8, "limit": 4}):
                for _ in range(4):
                    answer = self.rsp.private("why-next")
                    if not isinstance(answer, dict) or answer.get("event") == "end":
                        break
            self.rsp.private("why-end")
        elif self.rsp.private("trace-begin") is not None:
            self.call({})
            self.rsp.private("trace-end")

    # What no gdb does.

    def _damaged(self) -> None:
        chance, how = self.chance, self.chance.randrange(8)
        packet = self._sample()
        if how == 0:
            self.rsp.send(chance.randbytes(chance.choice([1, 10, 1000])) + b"#00")
        elif how == 1:
            self.rsp.send(b"$" + packet + b"#zz" + b"+-" * chance.randrange(3))
        elif how == 2:
            self.rsp.send(frame(packet)[: chance.randrange(1, 200)] + b"$#00")
        elif how == 3:
            self.rsp.send(frame(b"M0," + b"a" * chance.choice([0x1FFFF, 0x20001, 0x40000])))
        elif how == 4:
            self.rsp.send(b"\x03" * chance.randrange(1, 4))
        elif how == 5:
            self.rsp.send(b"-" * chance.randrange(1, 3))
        else:
            data = bytearray(packet)
            for _ in range(chance.choice([1, 1, 3])):
                at = chance.randrange(len(data) + 1)
                if chance.random() < 0.3:
                    del data[at:]
                elif chance.random() < 0.5:
                    data[at:at] = chance.choice(TOKENS)
                elif at < len(data):
                    data[at] = chance.randrange(256)
            self.rsp.send(frame(escape(bytes(data))))
        self.rsp.settle()

    def _sample(self) -> bytes:
        """A packet that was sane."""
        if self.chance.random() < 0.6:
            verb, arguments = self._verb()
            return f"quffd.{verb}:{json.dumps(self._odd(arguments))}".encode()
        made = [b"m%x,%x", b"M%x,%x:00", b"X%x,%x:a", b"Z0,%x,%x", b"z0,%x,%x", b"vCont;r%x,%x"]
        made += [b"qSearch:memory:%x;%x;", b"qXfer:threads:read::%x,%x", b"qCRC:%x,%x", b"x%x,%x"]
        made += [
            b"vFile:pread:0,%x,%x",
            b"qXfer:siginfo:write::%x:%x",
            b"P%x=%x",
            b"QPassSignals:%x;%x",
        ]
        made += [b"QCatchSyscalls:1;%x;%x", b"_M%x,%x", b"Hg%x.%x", b"qGetTLSAddr:p1.%x,%x,0"]
        return self.chance.choice(made) % (self.address(), self.length())

    def _odd(self, arguments: Any) -> Any:
        """One value of another type or size."""
        if not isinstance(arguments, dict) or not arguments:
            return self.chance.choice([{}, [], 1, None, {"a": 1}])
        odd = [None, -1, 1 << 70, 1.5, "x", "0x", [], {}, True, "0x" + "f" * 16, [[[]]], "a" * 5000]
        odd += ["\u202e\x1b[2J", float("nan"), [["0x1", 1 << 80]], [[1, [[0, 9]], [], True]]]
        return {**arguments, self.chance.choice(list(arguments)): self.chance.choice(odd)}


TOKENS = [b"-1", b"ffffffffffffffff", b",", b":", b";", b"*~", b"}", b"0" * 40, b"p0.0", b"\xff\0"]

SANE: List[Callable[[Session], None]] = [
    Session.read, Session.read, Session.write, Session.look, Session.look, Session.files,
    Session.breakpoints, Session.resume, Session.call, Session.call, Session.verb, Session.verb,
    Session.verb, Session.verb, Session.again,
]  # fmt: skip

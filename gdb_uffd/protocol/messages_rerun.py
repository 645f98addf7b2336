"""The requests that make the last run once more, and those of `uffd trace` and `uffd report`."""

from __future__ import annotations

from typing import Annotated, List, Literal, Optional, Tuple, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import RerunDifference
from gdb_uffd.protocol.fields import Address, Within
from gdb_uffd.protocol.messages import Done, Request
from gdb_uffd.protocol.model import FirstWrite

LIMIT_MAX = 1_000_000
"""Writes that one `uffd why` may be asked to list."""


@dataclass(frozen=True)
class RerunStart:
    """What runs again: the thread, its stack pointer before, the functions gdb called; `by`: how
    the object is watched; `kernel_lost`: what kept calls had opened, handled or timed is not there
    this time."""

    tid: int
    sp: Address
    kind: str
    kept: bool
    functions: List[Address]
    by: str
    kernel_lost: bool


@dataclass(frozen=True)
class Why(Request[RerunStart], name="why"):
    """The last run is about to be made once more, in another process, which answers all packets
    until `why-end`; no `length`: only run again.  `cpu` as with `begin`."""

    address: Address = 0
    length: Annotated[int, Within(0, 1 << 40)] = 0
    first: bool = False
    limit: Annotated[int, Within(0, LIMIT_MAX)] = 0
    cpu: Optional[int] = None


@dataclass(frozen=True)
class StillRunning:
    """200 ms without an event."""

    event: Literal["running"] = "running"


@dataclass(frozen=True)
class SeenWrite:
    """The process stands behind a write; [low, high) is what it changed, `before` and `after` are
    the bytes from `window` on, `exact`: `pc` is the instruction, else the next one."""

    by: str
    low: Address
    high: Address
    window: Address
    before: bytes
    after: bytes
    pc: Address
    exact: bool
    sp: Address
    system_call: str
    event: Literal["write"] = "write"

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after):
            raise ValueError("before and after differ in length")


@dataclass(frozen=True)
class RerunEnd:
    """How it ended.  `more`: there were more writes than are counted; `differs`: how from the
    first run; `compared` False: that cannot be told, and `why`: it was ended after the "first"
    write, memory was "written" since that run, that was "interrupted", "" for none of these; `cut`:
    it did not run to its end."""

    writes: int
    more: bool
    seconds: float
    differs: Optional[RerunDifference]
    compared: bool
    why: Literal["", "first", "written", "interrupted"]
    cut: bool
    event: Literal["end"] = "end"


@dataclass(frozen=True)
class WhyNext(Request[Union[StillRunning, SeenWrite, RerunEnd]], name="why-next"):
    """What happens next.  A request that does not say so in this table, and any other packet, stops
    for good the process that runs."""


@dataclass(frozen=True)
class WhyEnd(Request[Done], name="why-end"):
    """Whether or not something is run again."""


@dataclass(frozen=True)
class TraceBegin(Request[Done], name="trace-begin"):
    """From now on another process answers, with the state as it is and no page fed; for one `begin`
    ... `end`."""


@dataclass(frozen=True)
class PageTouch:
    """The first touch of the page [start, end).  `access`: "read", "write", or "run" for the fetch
    of an instruction; `written`: whether the call wrote the page, then or later; `fed`: whether its
    bytes came from the recording, else it was new memory; `address`: the byte touched; `pc`, `sp`,
    `tid`, `callers` as in FirstWrite; `system_call` in which it was, "" for none."""

    start: Address
    end: Address
    access: str
    written: bool
    fed: bool
    kind: str
    mapping: str
    thread: Optional[int]
    address: Address
    pc: Address
    sp: Address
    tid: int
    callers: Tuple[Address, ...]
    system_call: str

    @property
    def who(self) -> FirstWrite:
        """Who touched it, as of a first write."""
        return FirstWrite(self.pc, self.sp, self.tid, self.callers, self.address)


@dataclass(frozen=True)
class Touched:
    """The first touches in their order; `missed`: how many more there were."""

    touched: List[PageTouch]
    missed: int


@dataclass(frozen=True)
class TraceEnd(Request[Touched], name="trace-end"):
    """What was touched."""


@dataclass(frozen=True)
class TraceDrop(Request[Done], name="trace-drop"):
    """Whether or not a trace is under way."""


@dataclass(frozen=True)
class FedRanges:
    """Pages fed in the last run, half-open and sorted; whether those are all."""

    ranges: List[Tuple[Address, Address]]
    complete: bool


@dataclass(frozen=True)
class Fed(Request[FedRanges], name="fed"):
    """What the last run had of the recording."""

"""The requests about calls, what they did, and memory as it was before and after."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, List, Literal, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import Uncaught, Wait
from gdb_uffd.protocol.fields import LEFT_OUT, Address, AtMost, Within
from gdb_uffd.protocol.heap import Condition
from gdb_uffd.protocol.messages import Done, Request, Summary
from gdb_uffd.protocol.model import CallReport, Mapping, Path

ROOTS_MAX, WANTED_MAX = 8192, 4096
TYPES_MAX = 4096  # of all that are sent


@dataclass(frozen=True)
class CallBegin(Request[Done], name="call-begin"):
    """gdb is about to call a function, `malloc` for a string that it passes; an error where no
    process can be made.  A packet that is sent again, with the same `serial`, counts once;
    `progress`: a line tells of one that takes long."""

    address: Address
    malloc: bool = False
    serial: Optional[int] = None
    progress: bool = False


@dataclass(frozen=True)
class CallEnd(Request[Done], name="call-end"):
    """Not for the outermost call between `begin` and `end`."""

    serial: Optional[int] = None


@dataclass(frozen=True)
class Interrupt(Request[Done], name="interrupt"):
    """Ctrl-C came while gdb's side was at work: the next resume stops at once."""


@dataclass(frozen=True)
class BeginTransaction(Request[Done], name="begin"):
    """`cpu`: on which gdb stays until `quffd.end`, for the server to share; `quiet`: what the
    program prints is not sent in `O` packets; `discards`: no line tells why the program stopped,
    the report will."""

    cpu: Optional[int] = None
    quiet: bool = False
    discards: bool = False


@dataclass(frozen=True)
class EndTransaction(Request[CallReport], name="end"):
    """The report's `streamed` tells how many bytes of `output` went out in `O` packets (the rest
    was still in the program's stdio buffers); with `libraries_stale` the client has read the list
    of libraries meanwhile, and it is another now."""

    keep: bool = False


@dataclass(frozen=True)
class CommitPending(Request[Optional[Summary]], name="commit"):
    """Of the implicit transaction, which is closed; null where none was open."""


@dataclass(frozen=True)
class LastReport(Request[Optional[CallReport]], name="report"):
    """Of the last call or command; with `all` of everything since the snapshot.  null where nothing
    ran."""

    all: bool = False


@dataclass(frozen=True)
class Peeked:
    """`known`: the client has the report, which is then null; so it is where there is none."""

    serial: int
    report: Optional[CallReport]
    known: bool


@dataclass(frozen=True)
class Peek(Request[Peeked], name="peek"):
    """The last report, unless that is its number; closes no transaction."""

    known: Optional[int] = None


@dataclass(frozen=True)
class Undone:
    """`libraries_stale` as with `end`."""

    libraries_stale: bool = field(default=False, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Reset(Request[Undone], name="reset"):
    """Back to the undisturbed snapshot."""


@dataclass(frozen=True)
class AskBlocked(Request[Optional[Wait]], name="blocked"):
    """What the last stop waits for."""


@dataclass(frozen=True)
class AskUncaught(Request[Optional[Uncaught]], name="uncaught"):
    """The C++ exception that the last stop is about."""


@dataclass(frozen=True)
class PageImage:
    """One page `[start, start + len(before))` before and after; both of one length."""

    start: Address
    before: bytes
    after: bytes

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after):
            raise ValueError("before and after differ in length")


@dataclass(frozen=True)
class Image(Request[Optional[PageImage]], name="image"):
    """The page around an address, as the last report has it, with `all` since the snapshot; null
    where it was not written."""

    address: Address
    all: bool = False


@dataclass(frozen=True)
class ListMappings(Request[List[Mapping]], name="mappings"):
    """As they are now."""


@dataclass(frozen=True)
class SetView(Request[Done], name="view"):
    """From now on memory reads (`m`, `x`) see that state of the last report's pages; `all`: as
    recorded, as it is; `snapshot` (with `before`): the memory of that snapshot of the trace.  While
    it is not `now`, resumes and writes are refused."""

    which: Literal["now", "before", "after"]
    all: bool = False
    snapshot: Optional[int] = None


@dataclass(frozen=True)
class Extent(Request[Optional[int]], name="extent"):
    """The size in bytes of the variable that begins there, by the symbol tables of the recorded
    files; null where none has one."""

    address: Address


Offset = Annotated[int, Within(0, 1 << 48)]


@dataclass(frozen=True)
class PointerShape:
    """A pointer in a type: to which type (VOID: -1), and the members of the object that must have
    these values, or it is dead (the payload of an empty std::optional) and not followed."""

    in_a_row = True

    offset: Offset
    type: int
    conditions: Annotated[List[Condition], AtMost(16)] = field(default_factory=list)


@dataclass(frozen=True)
class ArrayShape:
    """An array in a type whose `count` elements hold pointers; `conditions` as of a pointer."""

    in_a_row = True

    offset: Offset
    element: int
    count: int
    conditions: Annotated[List[Condition], AtMost(16)] = field(default_factory=list)


@dataclass(frozen=True)
class TypeShape:
    """A type: its size in bytes, its pointers, its arrays that hold pointers; `spreads`: whether
    several may lie in a row behind one pointer: 0 never, 1 where they fit, 2 where a number of them
    or a pointer to their end stands beside the pointer (a Path's `count`); `numbers`: offset and
    size of members that are named as such a number.  Types are numbered in the order of sending."""

    in_a_row = True

    size: int
    pointers: Annotated[List[PointerShape], AtMost(4096)]
    arrays: Annotated[List[ArrayShape], AtMost(4096)]
    spreads: int
    numbers: Annotated[List[Tuple[int, int]], AtMost(4096)]


@dataclass(frozen=True)
class Reach(Request[List[Optional[Path]]], name="reach"):
    """How pointers lead from `roots` (an address, the number of its type) to each of the blocks
    that are wanted (an address, its size); `fresh` forgets the types sent so far; `after`, `all` as
    with `view`."""

    fresh: bool = False
    types: Annotated[List[TypeShape], AtMost(TYPES_MAX)] = field(default_factory=list)
    roots: Annotated[List[Tuple[Address, int]], AtMost(ROOTS_MAX)] = field(default_factory=list)
    wanted: Annotated[List[Tuple[Address, int]], AtMost(WANTED_MAX)] = field(default_factory=list)
    after: bool = False
    all: bool = False

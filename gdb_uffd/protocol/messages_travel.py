"""The requests that move between the snapshots of a trace, and those that look at several."""

from __future__ import annotations

from dataclasses import field
from typing import List, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.fields import LEFT_OUT, AbsolutePath, Address
from gdb_uffd.protocol.messages import Done, Request
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.model import DirtyPage, SnapshotInfo


@dataclass(frozen=True)
class SnapshotList:
    """`current`: the number of the present one."""

    snapshots: List[SnapshotInfo]
    current: int

    def __post_init__(self) -> None:
        numbers = [info.number for info in self.snapshots]
        if not numbers or numbers != list(range(len(numbers))):
            raise ValueError("the snapshots are not numbered from 0")


@dataclass(frozen=True)
class ListSnapshots(Request[SnapshotList], name="snapshots"):
    """Those of the trace."""


@dataclass(frozen=True)
class TracePosition:
    """Where the server stands: the present snapshot, how many moves were made so far, the thread
    that was current and its signal; `libraries`: a number that is another where files' code is
    mapped otherwise; `sysroot`, `brought` as in the ready line."""

    number: int
    moves: int
    time_ns: int
    label: str
    tid: int
    signal: int
    sysroot: str
    brought: bool
    libraries: int


@dataclass(frozen=True)
class Moved(TracePosition):
    """The position, `number` of the destination, and what the move changes beside memory and
    registers: `reconnect`: the process, which gdb must be told by a new connection;
    `libraries_stale` as with `end`; `forgotten`: how many changed pages the move gives up."""

    threads_changed: bool = False
    reconnect: bool = False
    libraries_stale: bool = field(default=False, metadata=LEFT_OUT)
    forgotten: Optional[int] = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class AskPosition(Request[TracePosition], name="position"):
    """Where the server stands."""


@dataclass(frozen=True)
class Goto(Request[Moved], name="goto"):
    """Prepare a move, see [moving](#moving-in-a-trace); `now`: make it at once; `tell`: what it
    gives up."""

    number: int
    now: bool = False
    tell: bool = False


@dataclass(frozen=True)
class Stay(Request[Done], name="stay"):
    """The prepared move is not made."""


@dataclass(frozen=True)
class Excursion(Request[Done], name="excursion"):
    """An excursion begins; `cpu` as with `begin`."""

    cpu: Optional[int] = None


@dataclass(frozen=True)
class Back(Request[Moved], name="back"):
    """It ends where it began."""


@dataclass(frozen=True)
class Listen(Request[Done], name="listen"):
    """Where the next connection is expected, which makes the prepared move."""

    path: AbsolutePath


@dataclass(frozen=True)
class PageGroup:
    """Pages of one kind in one mapping.

    `bytes_changed` counts in the pages that both snapshots have and whose bytes could be had
    (`compared` of them); `came` and `went` are pages that only the later, only the earlier has.
    """

    kind: str
    mapping: str
    thread: Optional[int]
    pages: int = 0
    compared: int = 0
    bytes_changed: int = 0
    came: int = 0
    went: int = 0


@dataclass(frozen=True)
class Differences:
    """`data`: the pages that variables may lie in."""

    pages: int
    same_process: bool
    groups: List[PageGroup]
    data: List[DirtyPage]


@dataclass(frozen=True)
class Changes(Request[Differences], name="changes"):
    """What differs between two snapshots."""

    a: int
    b: int


@dataclass(frozen=True)
class ChangesImage(Request[Optional[PageImage]], name="changes-image"):
    """The page in both; null unless both have it."""

    a: int
    b: int
    address: Address


@dataclass(frozen=True)
class Exported:
    """`unavailable_pages`: how many could not be had; `files_read`: by kept calls, whose contents
    may be in it."""

    path: str
    size: int
    unavailable_pages: int
    files_read: List[str]


@dataclass(frozen=True)
class Export(Request[Exported], name="export"):
    """The process as it is now as a core file, which must not exist."""

    path: AbsolutePath

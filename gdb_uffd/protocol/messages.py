"""The requests of docs/protocol.md, each with its reply: those about the server and the session.

A request is sent as `quffd.NAME:{...}` with the fields that are not at their defaults.
"""

from __future__ import annotations

import typing
from dataclasses import field
from typing import (
    Any,
    Callable,
    ClassVar,
    Generic,
    List,
    Literal,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.ends import End, PassedLock, Refusal, Unavailable, Uncaught
from gdb_uffd.protocol.fields import LEFT_OUT
from gdb_uffd.protocol.model import CallReport

R = TypeVar("R", covariant=True)


class Request(Generic[R]):
    """What gdb's side asks of the server, to be answered by an R.  `NAME`: of its packet; `REPLY`:
    the type of the answer, also for isinstance's eyes."""

    NAME: ClassVar[str]
    REPLY: ClassVar[Any]
    sparse: ClassVar[bool] = True

    def __init_subclass__(cls, name: str) -> None:
        super().__init_subclass__()
        cls.NAME = name
        bases: Tuple[Any, ...] = getattr(cls, "__orig_bases__", ())
        (cls.REPLY,) = typing.get_args(bases[0])


def every() -> List[Type[Request[Any]]]:
    """All kinds of requests whose modules are loaded."""
    return list(Request.__subclasses__())


@dataclass(frozen=True)
class Done:
    """It is done, and there is nothing to say."""


@dataclass(frozen=True)
class Greeting:
    """Who answers; `echo` as it was asked."""

    protocol: int
    server: str
    pid: int
    echo: Optional[int] = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Hello(Request[Greeting], name="hello"):
    """Asked once a connection, and, with `echo`, after a silence in which gdb may have given up on
    an answer."""

    echo: Optional[int] = None


@dataclass(frozen=True)
class Summary:
    """What a plain `print f()` dirtied, in numbers: `pages` the program wrote, `gdb_pages` those
    only gdb wrote; `unknown`: pages fed that the recording does not hold, taken for zeros and for
    those of the file; the others as in a CallReport."""

    kind: str
    kept: bool
    pages: int
    gdb_pages: int
    bytes_changed: int
    fed_pages: int
    end: Optional[End] = None
    uncaught: Optional[Uncaught] = None
    unknown: Tuple[int, int] = (0, 0)
    refusals: List[Refusal] = field(default_factory=list)
    more_refused: int = 0
    passed: List[PassedLock] = field(default_factory=list)
    files_read: List[str] = field(default_factory=list)
    more_files: int = 0

    @classmethod
    def of(cls, report: CallReport) -> "Summary":
        """That of a report."""
        program = [page for page in report.pages if page.meant]
        return cls(
            kind=report.kind,
            kept=report.kept,
            pages=len(program) + report.rest_pages,
            gdb_pages=len(report.pages) - len(program),
            bytes_changed=sum(page.bytes_changed for page in program) + report.rest_bytes,
            fed_pages=report.fed_pages,
            uncaught=report.uncaught,
            unknown=(report.unknown_zeros, report.unknown_file),
            refusals=report.refusals,
            more_refused=report.more_refused,
            passed=report.passed,
            files_read=report.files_read,
            more_files=report.more_files,
            end=report.end,
        )


@dataclass(frozen=True)
class Progress:
    """What the server is doing before it is ready: "asking" the server `url` for the file `what`,
    "downloading" it from there, or "unpacking" it; `done` bytes, of `total` (0: not known)."""

    doing: Literal["asking", "downloading", "unpacking"]
    what: str
    url: str = ""
    done: int = 0
    total: int = 0


TellProgress = Callable[[Optional[Progress]], None]
"""Called with what is being done, which the next replaces; None when it is over."""


@dataclass(frozen=True)
class Served:
    """What is served: the facts of the ready line, for the present snapshot.  `sysroot`: where the
    recorded files lie that this machine has not, if anywhere; `brought`: files there came with the
    trace, gdb runs no scripts beside them; `architecture`: gdb's name of it; `arguments`: the
    command line; `unasked`: names of missing files that no debuginfod server was asked for."""

    socket: str
    core: str
    executable: str
    warnings: List[str]
    threads: int
    total_pages: int
    inferior_pid: int
    signal: int
    open_ms: float
    snapshots: int = 1
    snapshot: int = 0
    sysroot: str = ""
    brought: bool = False
    architecture: str = ""
    arguments: str = ""
    unasked: Sequence[str] = ()


@dataclass(frozen=True)
class Ready(Served):
    """The same and who serves: the line that a server prints when it listens."""

    server: str = ""
    pid: int = 0
    protocol: int = 0
    ready: bool = True


@dataclass(frozen=True)
class Info(Served):
    """`host`: the kernel's boot id, which tells machines apart; then as Greeting, and what
    Diversion.info() tells; `last_unavailable`: why the last memory access failed; `thread`: the
    selected TID."""

    host: str = ""
    server: str = ""
    pid: int = 0
    protocol: int = 0
    vessel_pid: Optional[int] = None
    fed_pages: int = 0
    mapped_pages: int = 0
    dirty_pages: int = 0
    faults: int = 0
    fault_us: float = 0.0
    engine: Optional[str] = None
    engine_why: str = ""
    engine_setting: str = ""
    breakpoints: int = 0
    server_pid: int = 0
    alive: bool = False
    last_report: Optional[Summary] = None
    last_unavailable: Optional[Unavailable] = None
    thread: int = 0


@dataclass(frozen=True)
class AskInfo(Request[Info], name="info"):
    """With `probe`, as the only packet of a connection: `gdb-uffd serve` then waits for another
    one."""

    probe: bool = False


@dataclass(frozen=True)
class SetOutput(Request[Done], name="output"):
    """What the program prints is sent with control sequences shown, in a terminal of that charset,
    or (none) as it is.  A client that says nothing gets them shown.  The server's own lines are
    broken between words where they have more columns (0: no limit)."""

    columns: int
    charset: Optional[str] = None


@dataclass(frozen=True)
class ChosenEngine:
    """What the next process will use, why, and what the present one uses where it goes on."""

    name: str
    why: str
    now: Optional[str]


@dataclass(frozen=True)
class SetEngine(Request[ChosenEngine], name="engine"):
    """`auto` or one of the engines; an error where that does not work, and then nothing is
    changed."""

    name: str


@dataclass(frozen=True)
class PolicyNow:
    """`set uffd ...` by the settings' names: `call_timeout` in seconds, `memory_limit` in bytes, 0
    for none."""

    syscalls: str
    files: str
    clock: str
    threads: str
    call_timeout: int
    memory_limit: int


@dataclass(frozen=True)
class SetPolicy(Request[PolicyNow], name="policy"):
    """Sets what is named; the answer is what holds now."""

    syscalls: Optional[str] = None
    files: Optional[str] = None
    clock: Optional[str] = None
    threads: Optional[str] = None
    call_timeout: Optional[int] = None
    memory_limit: Optional[int] = None

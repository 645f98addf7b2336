"""How a call ended otherwise than by returning, and what it did that proves nothing, as data.

The sentences are made in client/show/ends.py.
"""

from __future__ import annotations

from typing import Literal, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.fields import Address, called


@dataclass(frozen=True)
class Wait:
    """What a call waited for.  `call`: the system call's name; `kind`: "lock", "join", "wait", or
    "spin" for one that goes in a circle until another thread has done something; `address`: the
    futex (of "spin": the instruction), None where it is none; `owner`: TID of the recorded
    thread that holds the lock or that is waited for, 0 when nothing tells; `itself`: whether that
    is the waiting thread; `stranger`: what stands where a pthread_mutex_t has the TID of its owner,
    if it may be one and no recorded thread has it, else 0."""

    call: str
    kind: str = "wait"
    address: Optional[Address] = None
    owner: int = 0
    itself: bool = called("self", False)
    stranger: int = 0


@dataclass(frozen=True)
class Uncaught:
    """The C++ exception that ended a call.  `type`: its type's name in the ABI's form, "" for none:
    std::terminate was called without an exception; `what`: what it says, or None; `cut`: there is
    more of that; `object`: its first bytes, `address`: where they lie; `foreign`: the class of an
    exception of another language, "" for C++."""

    type: str
    what: Optional[str]
    cut: bool
    object: bytes
    address: Address
    foreign: str = ""


@dataclass(frozen=True)
class Unavailable:
    """What the trace does not hold and was touched at `address` (None: no process can be made that
    could hold it).  `mapped`: a mapping is there,
    without its bytes; else nothing is, in a trace that leaves mappings out.  `reason`: why;
    `remedy`: what would help, "" for nothing; `lack`: what was missing to bind the function that
    was called there, "" where none was to be bound."""

    address: Optional[Address]
    reason: str
    remedy: str = ""
    mapped: bool = True
    lack: str = ""


EndKind = Literal[
    "wait", "exit", "thread-exit", "signal", "time", "memory", "page", "killed", "gone",
    "undelivered", "unavailable", "stack", "instruction", "longjmp", "left",
]  # fmt: skip
"""Why a program goes no further; see End."""


@dataclass(frozen=True)
class End:
    """Why a program goes no further.  `kind` says which of the others tell more:

    "wait": it would block for ever (`wait`); "exit": it would exit with `code`; "thread-exit": only
    the thread would; "signal": it would end or stop itself by `signal`; "time", "memory": it had
    used `limit` seconds or bytes (`set uffd call-timeout`, `memory-limit`); "page": the page at
    `address` (None: its pages) cannot be given to it, `code` is the errno; "killed": its process
    was, from outside, by `signal` (None: not known); "gone": that ended otherwise; "undelivered":
    `signal` would end it, as nothing tells its handlers; "unavailable": it touched what is
    `unavailable`; "stack": its stack is used up, `limit` bytes below the call; "instruction": that
    at `address` needs `needs`, and this CPU is `lacking` these flags; "longjmp": it leaves the
    called function for `address`; "left": see there.

    `lost`: the process is gone, memory and registers are the snapshot's again.  `left`: the called
    function had been left before, by longjmp or the like.
    """

    kind: EndKind
    code: Optional[int] = None
    signal: Optional[int] = None  # Linux number
    address: Optional[Address] = None
    limit: Optional[int] = None
    needs: str = ""
    lacking: Tuple[str, ...] = ()
    unavailable: Optional[Unavailable] = None
    wait: Optional[Wait] = None
    lost: bool = False
    left: bool = False


@dataclass(frozen=True)
class PassedLock:
    """A lock that a call went through (`set uffd threads ignore-locks`); `owner`: TID of the
    recorded thread that holds it, 0 when nothing tells."""

    address: Address
    owner: int = 0


@dataclass(frozen=True)
class Refusal:
    """A system call that was refused.  `call`: its name, or where it has none what it is ("system
    call 5 of 32-bit ARM"), then without `arguments`, which are as they are shown; `error`: the name
    of its errno, "" where it was ignored; `was`: the descriptor that is none, and what it was
    ("3 was a pipe"); `times`, and how often with `others` for arguments."""

    call: str
    arguments: Optional[Tuple[str, ...]]
    error: str
    was: str = ""
    times: int = 1
    others: int = 0


RemarkKind = Literal[
    "own-stack", "ahead", "emptied", "unmoved", "malloc-before", "malloc-after", "new-process",
    "engine", "output-cut", "only-counted",
]  # fmt: skip
"""What else is worth knowing of a call; see Remark."""


@dataclass(frozen=True)
class Remark:
    """One more thing that the user must know.  `kind`, of RemarkKind:

    "own-stack": the stack of thread `tid` is used up, it ran on one of its own, up to `size` bytes
    below `address`; "ahead": `count` of the pages fed were of zeros and not yet touched; "emptied":
    so many more pages were emptied or unmapped than are listed; "unmoved": so many more were moved,
    and count as new; "malloc-before", "malloc-after": so many were written by gdb's own call of
    malloc, too, and are compared with what they held before or after that; "new-process": undoing
    it took what kept calls had in the kernel; "engine": what the engine `name` cannot tell;
    "output-cut": so many bytes of a long output are left out; "only-counted": what changed on its
    pages is."""

    kind: RemarkKind
    count: int = 0
    size: int = 0
    address: Address = 0
    tid: int = 0
    name: str = ""


DifferenceKind = Literal["pages", "registers", "stop", "interrupted"]
"""How a run that is made once more can differ; see RerunDifference."""


@dataclass(frozen=True)
class RerunDifference:
    """What the last run did otherwise as it was made once more: `count` "pages" came out
    otherwise, the first at `address`; the "registers" did; it came to another "stop", by `signal`
    or a `breakpoint` (as in Stop of replay/interface.py) or for the `end`; the first one was
    "interrupted" earlier."""

    kind: DifferenceKind
    count: int = 0
    address: Address = 0
    signal: int = 0
    breakpoint: str = ""
    end: Optional[End] = None


@dataclass(frozen=True)
class Grant:
    """A system call that the program was granted: its name, how often; `path`: of the file that it
    opened.  Without a name: the `descriptor` of its own that was taken for one of `kind` ("pipe",
    "socket pair", "eventfd", "signalfd", "epoll", "silent": nothing comes from it)."""

    call: str
    times: int = 1
    path: Optional[str] = None
    descriptor: int = -1
    kind: Literal["", "silent", "pipe", "socket pair", "eventfd", "signalfd", "epoll"] = ""

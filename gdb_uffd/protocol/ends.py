"""How a call ended otherwise than by returning, as data; the words for it are the client's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from gdb_uffd.protocol.fields import Address, called


@dataclass(frozen=True)
class Wait:
    """What a call waited for.  `call`: the system call's name; `kind`: "lock", "join", "wait", or
    "spin" for one that goes in a circle until another thread has done something; `address`: the
    futex (of "spin": the instruction) in hex, "" where it is none; `owner`: TID of the recorded
    thread that holds the lock or that is waited for, 0 when nothing tells; `itself`: whether that
    is the waiting thread; `stranger`: what stands where a pthread_mutex_t has the TID of its owner,
    if it may be one and no recorded thread has it, else 0."""

    call: str
    kind: str = "wait"
    address: str = ""
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

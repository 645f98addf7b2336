"""How a call ended otherwise than by returning, and what it did that proves nothing, as data.

Both sides tell it: the server where a program runs that no command of ours began, and to lldb; the
client with the program's names.
"""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence, Tuple

from gdb_uffd.protocol.fields import Address, called, message


@message(frozen=True)
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


@message(frozen=True)
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


LEFT = "the called function had been left before, by longjmp or the like"


@message(frozen=True)
class End:
    """Why a program goes no further: `what` it would do, or happened; `target`: where a longjmp
    leaves for; `left`: the called function was left before; `advice`: what holds while the program
    still stands there, and what to do then."""

    what: str
    advice: str = ""
    target: Optional[Address] = None
    left: bool = False

    def short(self, place: Callable[[int], str] = hex) -> str:
        """It in words, without the advice; `place` names the target."""
        text = self.what if self.target is None else f"{self.what}, for {place(self.target)}"
        if not self.left:
            return text
        return f"{text} ({LEFT})" if text else LEFT

    def __str__(self) -> str:
        return self.text()

    def text(self, place: Callable[[int], str] = hex) -> str:
        """All of it."""
        return self.short(place) + (f"; {self.advice}" if self.advice else "")


@message(frozen=True)
class PassedLock:
    """A lock that a call went through (`set uffd threads ignore-locks`); `owner`: TID of the
    recorded thread that holds it, 0 when nothing tells."""

    address: Address
    owner: int = 0

    def text(self) -> str:
        """It in words, without symbols."""
        held = f"held by thread {self.owner}" if self.owner else "which was held"
        return f"went through the lock at {self.address:#x}, {held}"


@message(frozen=True)
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

    def text(self) -> str:
        """ "connect(3, 127.0.0.1:6379) → EPERM (2 times)"."""
        given = "" if self.arguments is None else f"({', '.join(self.arguments)})"
        line = f"{self.call}{given} → {self.error or 'ignored'}"
        line += f" ({self.was})" if self.was else ""
        line += f" ({self.times:,} times)" if self.times > 1 else ""
        return line + (f" (and {self.others:,} more with other arguments)" if self.others else "")


def refused_lines(refusals: Sequence[Refusal], more: int) -> List[str]:
    """A line each, and how many `more` there were."""
    return [each.text() for each in refusals] + ([f"and {more:,} more"] if more else [])

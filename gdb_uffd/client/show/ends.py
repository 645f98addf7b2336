"""How a call ended, what it was granted and refused, in words.

The server has them from here, too, for whoever knows nothing of our requests: lldb, and a program
that runs by plain `continue`.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Callable, List, Optional, Sequence

from gdb_uffd.client.show.text import plural, signal_name, whole_size
from gdb_uffd.protocol.ends import (
    End,
    Grant,
    PassedLock,
    Refusal,
    Remark,
    RerunDifference,
    Unavailable,
    Wait,
)
from gdb_uffd.protocol.model import ENGINE_LACKS, CallReport

SHOWN_BY_BT = "`bt` shows where"

_LEFT = "the called function had been left before, by longjmp or the like"
_SNAPSHOT_AGAIN = "this is the snapshot again, kept effects are gone"
_OWN = {
    "pipe": "a pipe of its own",
    "socket pair": "a socket pair of its own",
    "eventfd": "an eventfd of its own",
    "signalfd": "a signalfd of its own",
    "epoll": "an epoll of its own",
}

Place = Callable[[int], str]
"""Names an instruction."""


def end_text(end: Optional[End], where: str = SHOWN_BY_BT, place: Place = hex) -> str:
    """All of it; "" for none.  `where`: how the user sees where the program stands."""
    if end is None:
        return ""
    advice = _advice(end, where)
    return end_short(end, place) + (f"; {advice}" if advice else "")


def end_short(end: Optional[End], place: Place = hex) -> str:
    """Without what to do then, which holds while the program still stands there."""
    if end is None:
        return ""
    text = _what(end, place)
    if not end.left:
        return text
    return f"{text} ({_LEFT})" if text else _LEFT


def _what(end: End, place: Place) -> str:
    if end.kind == "wait" and end.wait is not None:
        return wait_text(end.wait)
    if end.kind == "unavailable" and end.unavailable is not None:
        return _touched(end.unavailable)
    return _TEXTS[end.kind](end, place)


def _signal(end: End, _place: Place) -> str:
    does = "stop" if end.signal == signal.SIGSTOP else "end"
    return f"the program would {does} itself by {signal_name(end.signal or 0)} here"


def _page(end: End, _place: Place) -> str:
    page = f"the page at {end.address:#x}" if end.address else "its pages"
    reason = os.strerror(end.code or 0)
    if end.code == errno.ENOMEM:
        return f"out of memory: this machine has none left for {page} ({reason})"
    return f"{page} cannot be given to the program ({reason})"


def _killed(end: End, _place: Place) -> str:
    by = f" by signal {end.signal}" if end.signal else ""
    return f"the process was killed{by} from outside"


def _undelivered(end: End, _place: Place) -> str:
    return (
        f"{signal_name(end.signal or 0)} is not delivered: a core does not tell the program's "
        "signal handlers, and without one it would end here"
    )


def _instruction(end: End, _place: Place) -> str:
    return (
        f"the instruction at {end.address or 0:#x} needs {end.needs}, which this machine's CPU "
        f"does not have (no {', '.join(end.lacking)}): the program chose it for the CPU that it "
        "was started on"
    )


_TEXTS: "dict[str, Callable[[End, Place], str]]" = {
    "exit": lambda end, _: f"the program would exit with code {end.code} here",
    "thread-exit": lambda *_: "this thread would end here, and the program go on without it",
    "signal": _signal,
    "time": lambda end, _: f"the call ran for {end.limit} s without an end (set uffd call-timeout)",
    "memory": lambda end, _: (
        f"the call needs more than {whole_size(end.limit or 0)} of memory that was not recorded "
        "(set uffd memory-limit)"
    ),
    "page": _page,
    "killed": _killed,
    "gone": lambda *_: "the process ended from outside",
    "undelivered": _undelivered,
    "stack": lambda end, _: (
        f"the stack is used up, {whole_size(end.limit or 0)} below the call, "
        "as by endless recursion"
    ),
    "instruction": _instruction,
    "longjmp": lambda end, place: (
        f"longjmp leaves the called function here, for {place(end.address or 0)}"
    ),
    "left": lambda *_: "",
}


def _advice(end: End, where: str) -> str:
    if end.lost:
        return _SNAPSHOT_AGAIN
    if end.kind in ("exit", "thread-exit", "signal", "time", "memory", "page"):
        return f"{where}, `uffd reset` goes back to the snapshot"
    if end.kind in ("wait", "stack", "longjmp"):
        return where
    if end.unavailable is not None:
        return end.unavailable.remedy
    return {
        "undelivered": "`continue` goes on without it",
        "instruction": "open the trace on such a machine",
    }.get(end.kind, "")


def _touched(it: Unavailable) -> str:
    at = it.address or 0
    if it.mapped:
        return f"the page at {at:#x} is not in the trace: {_reason(it)}"
    return f"nothing is mapped at {at:#x}: {_reason(it)}"


def _reason(it: Unavailable) -> str:
    return f"{it.lack}: {it.reason}" if it.lack else it.reason


def unavailable_text(end: Optional[End]) -> str:
    """The page that was touched, why it is not there, and what would help; "" when none was."""
    if end is None or end.unavailable is None:
        return ""
    return missing_text(end.unavailable)


def missing_text(it: Unavailable) -> str:
    """ "0x601000: truncated core; …"."""
    at = "" if it.address is None else f"{it.address:#x}: "
    return f"{at}{_reason(it)}" + (f"; {it.remedy}" if it.remedy else "")


def wait_text(wait: Wait) -> str:
    """What is waited for, without symbols."""
    if wait.kind == "spin":
        return f"spins for ever at {wait.address or 0:#x}, as only another thread could end it"
    what = wait.call if wait.address is None else f"{wait.call}({wait.address:#x})"
    if wait.kind == "lock":
        who = "this thread itself" if wait.itself else f"thread {wait.owner}"
        held = f"a lock held by {who}" if wait.owner else "a lock that is held"
        return f"would block: {what}, {held}, and no other thread runs"
    if wait.kind == "join":
        return f"would block: {what}, for thread {wait.owner} to end, which does not run"
    return f"would block: {what}, and no other thread runs"


def passed_text(lock: PassedLock) -> str:
    """A lock that was gone through, without symbols."""
    held = f"held by thread {lock.owner}" if lock.owner else "which was held"
    return f"went through the lock at {lock.address:#x}, {held}"


def passed_texts(report: CallReport) -> List[str]:
    """A line each, by name where that is known."""
    return report.unsound or [passed_text(lock) for lock in report.passed]


def refusal_text(refusal: Refusal) -> str:
    """ "connect(3, 127.0.0.1:6379) → EPERM (2 times)"."""
    given = "" if refusal.arguments is None else f"({', '.join(refusal.arguments)})"
    line = f"{refusal.call}{given} → {refusal.error or 'ignored'}"
    line += f" ({refusal.was})" if refusal.was else ""
    line += f" ({refusal.times:,} times)" if refusal.times > 1 else ""
    return line + (f" (and {refusal.others:,} more with other arguments)" if refusal.others else "")


def refusal_texts(refusals: Sequence[Refusal], more: int) -> List[str]:
    """A line each, and how many `more` there were."""
    return [refusal_text(each) for each in refusals] + ([f"and {more:,} more"] if more else [])


def grant_text(grant: Grant) -> str:
    """ "brk", "mmap (2 times)", 'openat("/etc/hosts")'."""
    if not grant.call:
        taken = _OWN.get(grant.kind, "one that nothing comes from")
        return f"descriptor {grant.descriptor}, taken for {taken}"
    if grant.path is not None:
        return f'{grant.call}("{grant.path}")'
    return grant.call if grant.times == 1 else f"{grant.call} ({grant.times:,} times)"


def remark_text(remark: Remark) -> str:
    """What else the user must know, in a line."""
    return _REMARKS[remark.kind](remark)


def _own_stack(it: Remark) -> str:
    return (
        f"the stack of thread {it.tid} is used up: this ran on a stack of its own, up to "
        f"{whole_size(it.size)} below {it.address:#x}"
    )


def _by_malloc(it: Remark) -> str:
    where = "with what that changed" if it.kind == "malloc-before" else "from behind that"
    return (
        f"{plural(it.count, 'page')} {'was' if it.count == 1 else 'were'} written by gdb's own "
        f"call of malloc, too, for an argument: what changed there counts {where}"
    )


_REMARKS: "dict[str, Callable[[Remark], str]]" = {
    "own-stack": _own_stack,
    "ahead": lambda it: f"of the pages fed, {it.count:,} of zeros were given ahead of a touch",
    "emptied": lambda it: f"{it.count:,} more pages were emptied or unmapped; they are not listed",
    "unmoved": lambda it: f"{it.count:,} more pages were moved; what they held counts as new",
    "malloc-before": _by_malloc,
    "malloc-after": _by_malloc,
    "new-process": lambda _: (
        "undoing it needed a new process: signal handlers and timers (with `syscalls all` also "
        "descriptors) of kept calls are gone"
    ),
    "engine": lambda it: f"engine {it.name}: {ENGINE_LACKS.get(it.name, '')}",
    "output-cut": lambda it: f"{it.count} bytes of its output are left out here: it was too long",
    "only-counted": lambda _: "what changed on its pages is only counted: it was too much",
}


def difference_text(it: RerunDifference) -> str:
    """How a run that was made once more differs from the first."""
    if it.kind == "pages":
        return f"{plural(it.count, 'page')} came out otherwise, the first at {it.address:#x}"
    if it.kind == "stop":
        how = end_text(it.end) or f"signal {it.signal} {it.breakpoint}".strip()
        return f"it stopped otherwise: {how}"
    if it.kind == "registers":
        return "the registers came out otherwise"
    return "the first run was interrupted earlier"

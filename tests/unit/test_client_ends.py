"""Each sentence of client/show/ends.py, whole: nothing else has them all."""

from __future__ import annotations

import errno
from typing import Dict, List, Tuple, get_args

import pytest

from gdb_uffd.client.show import ends
from gdb_uffd.protocol.ends import (
    End,
    EndKind,
    Grant,
    PassedLock,
    Refusal,
    Remark,
    RemarkKind,
    RerunDifference,
    Unavailable,
    Wait,
)
from gdb_uffd.protocol.model import CallReport

RESET = "HERE, `uffd reset` goes back to the snapshot"
AGAIN = "this is the snapshot again, kept effects are gone"
LEFT = "the called function had been left before, by longjmp or the like"
NOT_RECORDED = Unavailable(0x7000, "it was not dumped", "name its file")

ENDS: List[Tuple[End, str, str]] = [
    # What happened, and what to do then.
    (End("wait", wait=Wait("pause")), "would block: pause, and no other thread runs", "HERE"),
    (End("exit", code=3), "the program would exit with code 3 here", RESET),
    (
        End("thread-exit"),
        "this thread would end here, and the program go on without it",
        RESET,
    ),
    (End("signal", signal=6), "the program would end itself by SIGABRT here", RESET),
    (End("signal", signal=19), "the program would stop itself by SIGSTOP here", RESET),
    (
        End("time", limit=5),
        "the call ran for 5 s without an end (set uffd call-timeout)",
        RESET,
    ),
    (
        End("memory", limit=64 << 20),
        "the call needs more than 64 MiB of memory that was not recorded (set uffd memory-limit)",
        RESET,
    ),
    (
        End("page", address=0x7000, code=errno.ENOMEM),
        "out of memory: this machine has none left for the page at 0x7000 (Cannot allocate memory)",
        RESET,
    ),
    (
        End("page", code=errno.ENOMEM),
        "out of memory: this machine has none left for its pages (Cannot allocate memory)",
        RESET,
    ),
    (
        End("page", address=0x7000, code=errno.EIO),
        "the page at 0x7000 cannot be given to the program (Input/output error)",
        RESET,
    ),
    (
        End("page", code=errno.EIO),
        "its pages cannot be given to the program (Input/output error)",
        RESET,
    ),
    (
        End("page", address=0x7000, code=errno.EIO, lost=True),
        "the page at 0x7000 cannot be given to the program (Input/output error)",
        AGAIN,
    ),
    (
        End("killed", signal=9, lost=True),
        "the process was killed by signal 9 from outside",
        AGAIN,
    ),
    (End("killed", lost=True), "the process was killed from outside", AGAIN),
    (End("gone", lost=True), "the process ended from outside", AGAIN),
    (
        End("undelivered", signal=10),
        "SIGUSR1 is not delivered: a core does not tell the program's signal handlers, and "
        "without one it would end here",
        "`continue` goes on without it",
    ),
    (
        End("unavailable", unavailable=NOT_RECORDED),
        "the page at 0x7000 is not in the trace: it was not dumped",
        "name its file",
    ),
    (
        End("unavailable", unavailable=Unavailable(0x7000, "unmapped", mapped=False, lack="no x")),
        "nothing is mapped at 0x7000: no x: unmapped",
        "",
    ),
    (
        End("unavailable", unavailable=Unavailable(0x7000, "gone", lack="no libc.so.6")),
        "the page at 0x7000 is not in the trace: no libc.so.6: gone",
        "",
    ),
    (
        End("stack", limit=8 << 20),
        "the stack is used up, 8 MiB below the call, as by endless recursion",
        "HERE",
    ),
    (
        End("instruction", address=0x4000, needs="AVX-512", lacking=("avx512f", "avx512vl")),
        "the instruction at 0x4000 needs AVX-512, which this machine's CPU does not have "
        "(no avx512f, avx512vl): the program chose it for the CPU that it was started on",
        "open the trace on such a machine",
    ),
    (
        End("longjmp", address=0x4000),
        "longjmp leaves the called function here, for 0x4000",
        "HERE",
    ),
    (End("left", left=True), LEFT, ""),
    (End("exit", code=0, left=True), f"the program would exit with code 0 here ({LEFT})", RESET),
    (End("left", left=True, lost=True), LEFT, AGAIN),
]


@pytest.mark.parametrize(("end", "what", "advice"), ENDS)
def test_how_a_call_ended(end: End, what: str, advice: str):
    assert ends.end_short(end) == what
    assert ends.end_text(end, "HERE") == (f"{what}; {advice}" if advice else what)


def test_every_kind_of_end_is_among_them():
    assert {end.kind for end, _, _ in ENDS} == set(get_args(EndKind))


def test_an_end_is_said_with_names_and_the_way_to_see_it():
    text = ends.end_text(End("longjmp", address=0x4000), place=lambda at: f"<main+{at:#x}>")
    assert text == "longjmp leaves the called function here, for <main+0x4000>; `bt` shows where"
    assert ends.end_text(None) == ends.end_short(None) == ""


def test_what_was_touched_and_not_there():
    for given, said in (
        (None, ""),
        (End("exit", code=1), ""),
        (End("unavailable", unavailable=NOT_RECORDED), "0x7000: it was not dumped; name its file"),
        (
            End("unavailable", unavailable=Unavailable(0x7000, "gone", lack="no libc.so.6")),
            "0x7000: no libc.so.6: gone",
        ),
    ):
        assert ends.unavailable_text(given) == said


def test_what_is_waited_for():
    for wait, said in (
        (Wait("poll"), "poll, and no other thread runs"),
        (Wait("futex", address=0x10), "futex(0x10), and no other thread runs"),
        (
            Wait("futex", "lock", 0x10),
            "futex(0x10), a lock that is held, and no other thread runs",
        ),
        (
            Wait("futex", "lock", 0x10, owner=7),
            "futex(0x10), a lock held by thread 7, and no other thread runs",
        ),
        (
            Wait("futex", "lock", 0x10, owner=7, itself=True),
            "futex(0x10), a lock held by this thread itself, and no other thread runs",
        ),
        (
            Wait("futex", "join", 0x10, owner=7),
            "futex(0x10), for thread 7 to end, which does not run",
        ),
    ):
        assert ends.wait_text(wait) == f"would block: {said}"
    spin = ends.wait_text(Wait("", "spin", 0x4000))
    assert spin == "spins for ever at 0x4000, as only another thread could end it"


def test_locks_gone_through():
    locks = [PassedLock(0x10, owner=7), PassedLock(0x20)]
    said = [
        "went through the lock at 0x10, held by thread 7",
        "went through the lock at 0x20, which was held",
    ]
    report = CallReport("call", False, 1, 10, 0.0, "", [], passed=locks)
    assert ends.passed_texts(report) == said
    report.unsound = ["went through `lock`"]  # by name, once known
    assert ends.passed_texts(report) == ["went through `lock`"]


def test_what_was_refused():
    said = {
        "fork() → EPERM": Refusal("fork", (), "EPERM"),
        "system call 5 of 32-bit ARM → ENOSYS": Refusal(
            "system call 5 of 32-bit ARM", None, "ENOSYS"
        ),
        "write(3, 0x10) → EBADF (3 was a pipe) (2 times)": Refusal(
            "write", ("3", "0x10"), "EBADF", "3 was a pipe", times=2
        ),
        "alarm(1) → ignored (1,000 times) (and 2,000 more with other arguments)": Refusal(
            "alarm", ("1",), "", times=1000, others=2000
        ),
    }
    assert ends.refusal_texts(list(said.values()), 0) == list(said)
    assert ends.refusal_texts(list(said.values()), 1500) == [*said, "and 1,500 more"]


def test_what_was_granted():
    for grant, said in (
        (Grant("brk"), "brk"),
        (Grant("mmap", times=1200), "mmap (1,200 times)"),
        (Grant("openat", path="/etc/hosts"), 'openat("/etc/hosts")'),
        (Grant("openat", path=""), 'openat("")'),
        (Grant("", descriptor=3, kind="pipe"), "descriptor 3, taken for a pipe of its own"),
        (
            Grant("", descriptor=0, kind="socket pair"),
            "descriptor 0, taken for a socket pair of its own",
        ),
        (Grant("", descriptor=3, kind="eventfd"), "descriptor 3, taken for an eventfd of its own"),
        (Grant("", descriptor=3, kind="signalfd"), "descriptor 3, taken for a signalfd of its own"),
        (Grant("", descriptor=3, kind="epoll"), "descriptor 3, taken for an epoll of its own"),
        (
            Grant("", descriptor=3, kind="silent"),
            "descriptor 3, taken for one that nothing comes from",
        ),
    ):
        assert ends.grant_text(grant) == said


MALLOC = "by gdb's own call of malloc, too, for an argument: what changed there counts"
REMARKS: Dict[str, Remark] = {
    "the stack of thread 7 is used up: this ran on a stack of its own, up to 1 MiB below 0x7000": (
        Remark("own-stack", size=1 << 20, address=0x7000, tid=7)
    ),
    "of the pages fed, 1,200 of zeros were given ahead of a touch": Remark("ahead", 1200),
    "1,200 more pages were emptied or unmapped; they are not listed": Remark("emptied", 1200),
    "1,200 more pages were moved; what they held counts as new": Remark("unmoved", 1200),
    f"1 page was written {MALLOC} with what that changed": Remark("malloc-before", 1),
    f"2 pages were written {MALLOC} with what that changed": Remark("malloc-before", 2),
    f"1 page was written {MALLOC} from behind that": Remark("malloc-after", 1),
    f"1,200 pages were written {MALLOC} from behind that": Remark("malloc-after", 1200),
    "undoing it needed a new process: signal handlers and timers (with `syscalls all` also "
    "descriptors) of kept calls are gone": Remark("new-process"),
    "engine soft-dirty: who wrote a page first is not known": Remark("engine", name="soft-dirty"),
    "engine wp-async: who wrote a page first is not known": Remark("engine", name="wp-async"),
    "engine compare: neither who wrote a page first is known, nor which pages were written with "
    "what they held": Remark("engine", name="compare"),
    "12 bytes of its output are left out here: it was too long": Remark("output-cut", 12),
    "what changed on its pages is only counted: it was too much": Remark("only-counted"),
}


def test_what_else_is_remarked():
    assert [ends.remark_text(remark) for remark in REMARKS.values()] == list(REMARKS)
    assert {remark.kind for remark in REMARKS.values()} == set(get_args(RemarkKind))


def test_how_a_run_made_once_more_differs():
    for it, said in (
        (
            RerunDifference("pages", count=1, address=0x7000),
            "1 page came out otherwise, the first at 0x7000",
        ),
        (
            RerunDifference("pages", count=1200, address=0x7000),
            "1,200 pages came out otherwise, the first at 0x7000",
        ),
        (RerunDifference("registers"), "the registers came out otherwise"),
        (RerunDifference("stop", signal=11), "it stopped otherwise: signal 11"),
        (
            RerunDifference("stop", signal=5, breakpoint="hwbreak"),
            "it stopped otherwise: signal 5 hwbreak",
        ),
        (
            RerunDifference("stop", end=End("exit", code=2, lost=True)),
            f"it stopped otherwise: the program would exit with code 2 here; {AGAIN}",
        ),
        (RerunDifference("interrupted"), "the first run was interrupted earlier"),
    ):
        assert ends.difference_text(it) == said

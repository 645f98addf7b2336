"""The session of `make demo`, run inside gdb; ends gdb with status 1 when a step goes wrong."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import List, Tuple

import gdb

CORE = shlex.quote(os.environ["DEMO_CORE"])
TRACE = shlex.quote(os.environ["DEMO_TRACE"])
TO = "(?:→|->)"
"""Where gdb's host character set has no arrow (LC_ALL=C), the second is shown."""

STEPS: List[Tuple[str, str, str]] = [
    # What we say, what we type, what must be in the answer (a regular expression).
    ("Open the core.  No process is made.", f"uffd spawn {CORE}", r"SIGSEGV"),
    (
        "gdb works as on any inferior.",
        "info threads",
        r"lookup \(value=99\)(.|\n)*Thread(.|\n)*Thread",
    ),
    ("", "bt", r"#0 .* lookup \(value=99\)(.|\n)*#1 .* main \(\)"),
    ("", "print counter", r"= 1041\b"),
    ("Call a function, in a program that crashed.", "print push(7)", r"= 1042\b(.|\n)*dirtied"),
    ("Its effects are kept, as on a live process.", "print *head", r"value = 7,"),
    ("Which pages did it write, and which line wrote them first?", "uffd dirty", r"counter 1041"),
    ("Back to the recorded instant.", "uffd reset", r""),
    ("", "print counter", r"= 1041\b"),
    (
        "Call, see what it dirtied, and forget it.",
        "uffd call push(7)",
        r"= 1042\nwrote .*\n.*discarded\n",
    ),
    ("", "print counter", r"= 1041\b"),
    ("The bytes before and after.", "uffd diff counter", r"11 04(.|\n)*12 04"),
    ("The same for programs.", "uffd call -json push(7)", r'^\{.*"value": ?"1042".*\}$'),
    ("On another thread.", "thread 2", r""),
    ("", "uffd call push(8)", rf"tls_hits 42 {TO} 43"),
    ("Breakpoints and stepping, too.", "break sum", r"Breakpoint 1 at"),
    # gdb reports a call that a breakpoint interrupts as an error.
    ("", "print sum()", r"stopped while in a function called from GDB"),
    ("", "next", r""),
    ("", "bt", r"sum \(\)(.|\n)*<function called from gdb>"),
    ("", "uffd info", r"."),
    ("The same program, recorded while it ran.", f"uffd spawn {TRACE}", r"push \(value="),
    ("", "uffd snapshots", r"push(.|\n)*lookup"),
    ("The last instant is the crash; what was before it?", "uffd goto end", r"snapshot 7 of"),
    ("", "reverse-continue", r""),
    ("", "bt", r"#0 .*push \(value=6\)(.|\n)*#1 .* main \(\)"),
    ("A function of the program, called at every snapshot.", "uffd map sum()", r"^7\s.*\b21$"),
    ("", "uffd when counter >= 1037", r"snapshot 3\b"),
    ("What differs between two instants?", "uffd changes 0 1", rf"counter +1034 {TO} 1035"),
    ("Nothing is left running.", "uffd kill", r"."),
]


def run() -> None:
    for remark, command, wanted in STEPS:
        if remark:
            print(f"# {remark}")
        print(f"gdb> {command}", flush=True)
        try:
            answer = gdb.execute(command, to_string=True)
        except gdb.error as error:
            answer = str(error)
            if not wanted or not re.search(wanted, answer):
                fail(f"`{command}` failed: {error}")
        print(answer.rstrip("\n"), flush=True)
        print()
        if not re.search(wanted, answer, re.M):
            fail(f"`{command}` did not answer as it should: no {wanted!r} in the above")


def fail(reason: str) -> None:
    print(f"demo: {reason}", file=sys.stderr, flush=True)
    gdb.execute("quit 1")


run()

"""What is under way when somebody is killed: each scene is a session as a user has it, with what it
says when nobody is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

KILL, TERM, INT, STOP = "SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP"
ALL = (KILL, KILL, KILL, TERM, INT, STOP)
"""SIGSTOP is followed by SIGCONT.  Most are SIGKILL."""

ENDS = (KILL, TERM, INT)
"""For a program that gdb traces: SIGCONT takes back gdb's own SIGSTOPs, for which it then waits."""


@dataclass(frozen=True)
class Step:
    """A gdb command and what undisturbed gdb says to it (a regular expression)."""

    command: str
    says: str = ""
    interrupt_s: float = 0.0  # Ctrl-C so long after it was typed


@dataclass(frozen=True)
class Scene:
    """`victims`: who may be struck, and by what.  `points`: (module, point) at which, too.
    `kind`: "core" (a core or trace is open), "attached" and "launched" (a program is recorded
    under gdb), "shell" (`command` is a gdb-uffd command that makes `out`)."""

    name: str
    kind: str
    steps: Tuple[Step, ...] = ()
    command: Tuple[str, ...] = ()
    victims: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    points: Tuple[Tuple[str, str], ...] = ()
    breakpoints: bool = False  # gdb has some in the program's text


SERVER = "gdb_uffd.server"
RECORDER = "gdb_uffd.recorder"
OPEN = {"server": ALL, "vessel": ALL, "gdb": ALL, "holder": (KILL, TERM, STOP)}
PACKETS = tuple((SERVER, p) for p in ("packet", "reply", "replied", "resume", "stopped"))
UNDO = tuple((SERVER, p) for p in ("undo", "undone", "reset", "was reset"))
RECORDS = tuple(
    (RECORDER, p) for p in ("message", "handled", "answer", "answered", "begin", "begun", "file")
)


def _steps(*given: Any) -> Tuple[Step, ...]:
    return tuple(Step(*one) for one in given)


SAMPLE, ZOO, TRACE, PACKED = "{sample}", "{zoo}", "{trace}", "{packed}"

SCENES: List[Scene] = [
    Scene(
        "look", "core",
        _steps((f"uffd spawn {SAMPLE}", "sample"), ("bt", "lookup"), ("info threads", "pause"),
               ("print *head", "value = 6"), ("x/4i $pc", "lookup"), ("uffd mappings", "sample")),
        victims=OPEN, points=PACKETS,
    ),
    Scene(
        "call", "core",
        _steps((f"uffd spawn {SAMPLE}", ""), ("uffd call push(7)", "= 1042"),
               ("uffd call sum()", "= 21"), ("uffd call push(8)", "= 1042")),
        victims=OPEN, points=PACKETS + UNDO,
    ),
    Scene(
        "faults", "core",
        _steps((f"uffd spawn {ZOO}", ""), ("uffd call dirty_bss(250)", "= 250"),
               ("print dirty_bss(200)", "= 200"), ("uffd reset", "")),
        victims=OPEN, points=PACKETS + UNDO,
    ),
    Scene(
        "keep", "core",
        _steps((f"uffd spawn {SAMPLE}", ""), ("print push(7)", "= 1042"), ("uffd dirty", "counter"),
               ("print push(8)", "= 1043"), ("uffd reset", ""), ("print counter", "= 1041")),
        victims=OPEN, points=PACKETS + UNDO,
    ),
    Scene(
        "why", "core",
        _steps((f"uffd spawn {SAMPLE}", ""), ("uffd call push(7)", "= 1042"),
               ("uffd why counter", "push"), ("uffd trace sum()", "heap")),
        victims=OPEN, points=PACKETS,
    ),
    Scene(
        "export", "core",
        _steps((f"uffd spawn {SAMPLE}", ""), ("print push(7)", "= 1042"),
               ("uffd export {out}", "MiB")),
        victims=OPEN, points=((SERVER, "file"), (SERVER, "filed"), (SERVER, "export"),
                              (SERVER, "exported")),
    ),
    Scene(
        "travel", "core",
        _steps((f"uffd spawn {TRACE}", ""), ("print counter", "= 1041"), ("uffd goto 3", ""),
               ("print counter", "= 1003"), ("uffd call push(7)", "= 1004"),
               ("reverse-continue", ""), ("uffd changes 0 4", "counter"),
               ("uffd map sum()", "21")),
        victims=OPEN, points=PACKETS + UNDO,
    ),
    Scene(
        "packed", "core",
        _steps((f"uffd spawn {PACKED}", ""), ("print counter", "= 1041"),
               ("uffd call push(7)", "= 1042")),
        victims=OPEN, points=PACKETS + ((SERVER, "file"),),
    ),
    Scene(
        "quit", "core",
        _steps((f"uffd spawn {SAMPLE}", ""), ("print push(7)", "= 1042"), ("quit", "")),
        victims=OPEN, points=PACKETS[:3],
    ),
    Scene(
        "record", "attached",
        _steps(("attach {pid}", ""), ("uffd record start {out}", "recording to"),
               ("uffd record snapshot one", "snapshot 0"), ("continue", "", 0.02),
               ("uffd record snapshot two", "snapshot 1"),
               ("uffd record stop", "2 snapshots"), ("detach", "")),
        victims={"recorder": ALL, "gdb": ALL, "target": ENDS}, points=RECORDS,
    ),
    Scene(
        "record every", "attached",
        _steps(("attach {pid}", ""), ("uffd record start {out}", "recording to"),
               ("uffd record every 3ms", ""), ("continue", "", 0.25),
               ("uffd record stop", "snapshots? in"), ("detach", "")),
        victims={"recorder": ALL, "gdb": ALL, "target": ENDS}, points=RECORDS,
    ),
    Scene(
        "record at", "attached",
        _steps(("attach {pid}", ""), ("uffd record start {out}", "recording to"),
               ("uffd record at work every 5", "Breakpoint"), ("continue", "", 0.25),
               ("uffd record stop", "snapshots? in"), ("detach", "")),
        victims={"recorder": ALL, "gdb": ALL, "target": ENDS}, points=RECORDS, breakpoints=True,
    ),
    Scene(
        "record launched", "launched",
        _steps(("file {target}", ""), ("break main", ""), ("run 120 < /dev/null > {said}", "main"),
               ("delete", ""), ("uffd record start {out}", "recording to"),
               ("uffd record every 5ms", ""), ("continue", "exited with code 03")),
        victims={"recorder": ALL, "gdb": ALL, "target": ENDS}, points=RECORDS,
    ),
    Scene(
        "gdb-uffd record", "shell",
        command=("record", "-o", "{out}", "--every", "5ms", "--at", "work every 20", "--",
                 "{target}", "120"),
        victims={"shell": (KILL, TERM, INT, STOP), "gdb": (KILL, TERM, STOP),
                 "recorder": ALL, "target": (KILL, TERM)},
        points=RECORDS,
    ),
    *(
        Scene(f"gdb-uffd {words[0]}", "shell", command=words,
              victims={"shell": (KILL, INT, TERM, STOP)},
              points=(("gdb_uffd.cli", "file"), ("gdb_uffd.cli", "filed")))
        for words in (
            ("export", SAMPLE, "-o", "{out}"),
            ("import", SAMPLE, SAMPLE, "-o", "{out}"),
            ("pack", SAMPLE, "-o", "{out}"),
            ("pack", TRACE, "-o", "{out}"),
            ("unpack", PACKED, "-o", "{out}"),
        )
    ),
]  # fmt: skip


def expected(step: Step, text: str) -> bool:
    """Whether that is what undisturbed gdb says."""
    return re.search(step.says, text) is not None if step.says else True

"""What is run, and what came of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Tuple

PASS, FAIL, LACKS = "pass", "FAIL", "lacks"

NOT_ASKED = ("works here", "this machine's own")
"""Ends of reasons for which a test is skipped that do not name a lack."""


@dataclass(frozen=True)
class Check:
    """One column: tests to run.  `seconds` bounds it on an emulated machine."""

    name: str
    tests: Tuple[str, ...]
    only: str = ""
    """pytest's -k."""
    seconds: int = 900

    def arguments(self) -> List[str]:
        """For pytest."""
        return [*self.tests, *(["-k", self.only] if self.only else [])]


# An emulated machine takes half a minute for a test with gdb: a few of each kind.
ON_KERNELS = (
    Check("native", ("tests/native",)),
    Check("engines", ("tests/replay/test_engines.py",), seconds=1800),
    Check(
        "replay",
        ("tests/replay/test_diversion.py", "tests/replay/test_stored_pages.py"),
        "not nothing_leaks",
    ),
    Check(
        "open",
        ("tests/gdb/test_spawn.py",),
        "stopped or keep_their_registers or backtrace or opened_at_run_time or static "
        "or vector or looking or gcore",
    ),
    Check(
        "call",
        ("tests/gdb/test_uffd_call.py",),
        "text_of_a_call or forgotten or first_write or output_is_shown or through_malloc "
        "or new_mappings or heap_growth or other_thread",
    ),
    Check(
        "dirty, diff",
        ("tests/gdb/test_commands.py",),
        "dirty_after or dirty_all or diff_shows",
    ),
    Check(
        "keep, reset",
        ("tests/gdb/test_running.py", "tests/gdb/test_commands.py", "tests/gdb/test_uffd_call.py"),
        "kept_until_reset or reset_ends or reset_returns or after_kept_calls",
    ),
    Check(
        "step, stop",
        ("tests/gdb/test_running.py",),
        "step_next or breakpoint_in or hardware_watchpoint or endless or lock_held",
    ),
    Check(
        "end",
        ("tests/gdb/test_life.py",),
        "quit_during or gdb_killed_during_a_call or server_killed_during_a_call or vessel_killed",
    ),
    Check("travelled", ("tests/gdb/test_travelled.py",)),
)
ON_GDBS = Check(
    "tests/gdb",
    tuple(
        f"tests/gdb/test_{name}.py"
        for name in ("commands", "cxx", "elsewhere", "engine", "running", "serve", "spawn")
        + ("travelled", "uffd_call")
    ),
    seconds=3600,
)
"""Without those of bad input, of processes' ends and of the installation: what these find lies on
the server's side."""
ON_LLDBS = Check("tests/lldb", ("tests/lldb",), seconds=900)


@dataclass
class Result:
    """What one check came to: a cell of the table."""

    verdict: str
    passed: int = 0
    failed: List[str] = field(default_factory=list)
    lacking: Dict[str, int] = field(default_factory=dict)
    """Why tests were skipped -> how many."""
    note: str = ""

    def cell(self) -> str:
        """ "pass 12", "**FAIL** 1 of 12", "lacks: ..."."""
        if self.verdict == LACKS:
            return f"lacks: {self.note}"
        if self.verdict == FAIL:
            total = self.passed + len(self.failed)
            return f"**FAIL** {self.note or f'{len(self.failed)} of {total}'}"
        skipped = sum(self.lacking.values())
        return f"pass {self.passed}" + (f", {skipped} lack" if skipped else "")


def read_junit(path: Path, status: int) -> Result:
    """The result that pytest left at `path`; it ended with `status`."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        late = status in (124, 137)
        return Result(FAIL, note="not done in time" if late else f"pytest ended with {status}")
    passed, failed, lacking = 0, [], Counter[str]()
    for case in root.iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}")
        elif skipped is not None:
            reason = " ".join((skipped.get("message") or "no reason").split())
            lacking.update([] if reason.endswith(NOT_ASKED) else [reason])
        else:
            passed += 1
    if not passed and not failed and lacking:
        return Result(LACKS, note=next(iter(lacking)), lacking=dict(lacking))
    good = passed and not failed and status == 0
    note = "" if failed or good else f"pytest ended with {status}"
    return Result(PASS if good else FAIL, passed, failed, dict(lacking), note)

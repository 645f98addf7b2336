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
    """One column: the tests of `files` whose names hold a word of `only` and none of `never`."""

    name: str
    files: Tuple[str, ...]
    only: Tuple[str, ...] = ()
    never: Tuple[str, ...] = ()

    def expression(self) -> str:
        """For pytest's -k, which sees a file's name as part of a test's."""
        parts = [" or ".join(Path(file).name for file in self.files), " or ".join(self.only)]
        refused = " or ".join(self.never)
        terms = [f"({p})" for p in parts if p] + ([f"not ({refused})"] if refused else [])
        return f"({' and '.join(terms)})"

    def takes(self, module: str, test: str) -> bool:
        """Whether a test of `module` ("tests.gdb.test_spawn") is one of them."""
        if not any(module == file[:-3].replace("/", ".") for file in self.files):
            return False
        name = f"{module}.{test}"
        wanted = not self.only or any(word in name for word in self.only)
        return wanted and not any(word in name for word in self.never)


def arguments(checks: Tuple[Check, ...]) -> List[str]:
    """One pytest for all of them: it starts slowly on an emulated machine."""
    files = list(dict.fromkeys(file for check in checks for file in check.files))
    return [*files, "-k", " or ".join(check.expression() for check in checks)]


def _gdb(name: str, files: str, only: str) -> Check:
    """A column of tests with gdb; `files`, `only`: words."""
    paths = tuple(f"tests/gdb/test_{word}.py" for word in files.split())
    return Check(name, paths, tuple(only.split()))


REPLAY = "tests/replay/test_{}.py"

# What meets the kernel, without a gdb.
ON_KERNELS = (
    Check("native", ("tests/native/test_native.py",), ("plain",)),
    Check("engines", (REPLAY.format("engines"),)),
    Check(
        "calls, undo",
        (REPLAY.format("diversion"), REPLAY.format("stored_pages")),
        never=("nothing_leaks", "an_undone_call"),
    ),
    Check(
        "system calls",
        (REPLAY.format("policy_hostile"), REPLAY.format("policy")),
        ("hostile", "lock_of_its_own", "clock", "reading", "mapped_file", "links", "own_proc")
        + ("output", "bad_pointers", "memory_limit", "signal_handlers"),
    ),
    Check(
        "why",
        (REPLAY.format("rerun"),),
        ("every_write", "write_protection", "two_pages", "kernel", "crashes", "state_before"),
    ),
    Check(
        "record",
        ("tests/unit/test_recorder.py",),
        ("only_what_was", "dropped", "moved_grown", "fork", "huge", "guard", "threads"),
    ),
)
# An emulated machine takes up to a minute for a test with gdb: one of each kind.
ON_KERNELS_GDB = (
    _gdb("gdb: open", "spawn", "keep_their_registers"),
    _gdb("gdb: call", "uffd_call", "text_of_a_call"),
    _gdb("gdb: run", "running", "hardware_watchpoint"),
    _gdb("gdb: names, why", "names why", "set_globals writing_line"),
    _gdb("gdb: record", "record_cli", "at_a_location"),
    _gdb("gdb: end", "life", "server_killed_during_a_call"),
    _gdb("travelled", "travelled", "clock values_calls needs_what"),
)
ON_AARCH64 = (
    *(c for c in ON_KERNELS if c.name in ("native", "engines", "why")),
    Check("calls, undo", (REPLAY.format("diversion"),), never=("nothing_leaks", "an_undone_call")),
    Check(
        "system calls",
        (REPLAY.format("policy"),),
        ("lock_of_its_own", "clock", "reading", "mapped_file", "links", "own_proc", "output")
        + ("bad_pointers", "memory_limit", "signal_handlers"),
    ),
    *(c for c in ON_KERNELS_GDB if c.name not in ("gdb: record", "travelled")),
)
"""On an emulated machine with another processor."""
ON_GDBS = (
    _gdb(
        "open",
        "spawn elsewhere travelled",
        "keep_their_registers backtrace vector gcore_core opened_at_run values_are_those "
        "two_inferiors set_sysroot a_program_with_threads",
    ),
    _gdb(
        "call",
        "uffd_call engine",
        "text_of_a_call test_json first_write through_malloc other_thread heap_growth "
        "pages_of_gdb_are wrong_expression test_keep is_the_same_under",
    ),
    _gdb(
        "commands",
        "commands",
        "test_completion dirty_after diff_shows test_help settings_are batch_mode locale "
        "machine_interface test_doctor reset_returns",
    ),
    _gdb(
        "run",
        "running",
        "step_next breakpoint_in hardware_watchpoint ctrl_c lock_held return_and_jump "
        "python_can_call conditional kept_until_reset",
    ),
    _gdb(
        "C++", "cxx names_cxx", "test_virtual leaves_the_call throwing elements_of strings_before"
    ),
    _gdb("names", "names", "names_are_what thread_locals bit_field a_new_block text_and_json"),
    _gdb(
        "why, trace",
        "why trace",
        "test_text writing_line first_touch continue_and_finish deep_backtrace inlined crash",
    ),
    _gdb(
        "policy",
        "policy",
        "in_text_and_json names_lock_and_holder call_timeout time_stands stepping_over",
    ),
    _gdb(
        "travel",
        "travel travel_map",
        "test_opening every_snapshot libraries_follow reverse_continue exec_direction "
        "convenience map_of_a_variable when_there test_changes_of map_interrupted",
    ),
    _gdb("record", "record record_cli", "by_hand at_every_and script_of_gdb at_a_location"),
    _gdb(
        "MI, TUI, report",
        "mi tui report",
        "test_call test_errors test_notification redrawn leaving test_the_file",
    ),
    _gdb("serve", "serve", "unix_socket token_is_printed ctrl_c"),
    _gdb("end", "life", "quit_during server_killed_during_a_call vessel_killed_during test_detach"),
)
"""What gdb's side takes part in.  Left out: bad input, damage, the installation, which the server's
side is asked about."""
ON_LLDBS = (Check("tests/lldb", ("tests/lldb/test_lldb.py",)),)


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


def read_junit(path: Path, status: int, checks: Tuple[Check, ...]) -> Dict[str, Result]:
    """The results that pytest left at `path`, by column; it ended with `status`.

    When it was ended after its time, the column that it was at counts as failed, too.
    """
    late = status in (124, 137)
    why = "not done in time" if late else f"pytest ended with {status}"
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return {check.name: Result(FAIL, note=why) for check in checks}
    found: Dict[str, List[ElementTree.Element]] = {check.name: [] for check in checks}
    last = ""
    for case in cases:
        column = _column(case, checks)
        if column:
            found[column].append(case)
            last = column
    stopped = status not in (0, 1)
    results = {}
    for name, its in found.items():
        unsure = stopped and (not late or name == last)
        results[name] = _result(its, why if unsure or not its else "")
    return results


def _column(case: ElementTree.Element, checks: Tuple[Check, ...]) -> str:
    """The first that takes it; "" for what -k let in by some other word."""
    module, test = case.get("classname", ""), case.get("name", "")
    return next((check.name for check in checks if check.takes(module, test)), "")


def _result(cases: List[ElementTree.Element], doubt: str) -> Result:
    """A cell; `doubt`: why it fails even if no test did."""
    passed, failed, lacking = 0, [], Counter[str]()
    for case in cases:
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            failed += [name] if name not in failed else []  # of a test and of its teardown
        elif skipped is not None:
            reason = " ".join((skipped.get("message") or "no reason").split())
            lacking.update([] if reason.endswith(NOT_ASKED) else [reason])
        else:
            passed += 1
    if not passed and not failed and lacking and not doubt:
        return Result(LACKS, note=next(iter(lacking)), lacking=dict(lacking))
    note = "" if failed else doubt
    return Result(FAIL if failed or note else PASS, passed, failed, dict(lacking), note)

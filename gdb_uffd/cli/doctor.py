"""`gdb-uffd doctor`: what this machine can do; of a core: which of its files are here."""

from __future__ import annotations

import argparse
import contextlib
import json
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Dict, List

from gdb_uffd.cli.printing import show
from gdb_uffd.cli.trace import warn
from gdb_uffd.protocol.model import ENGINE_AUTO, ENGINES, SCHEMA_VERSION
from gdb_uffd.replay.interface import Check
from gdb_uffd.server.listen import searching

if TYPE_CHECKING:
    from gdb_uffd.trace.files.doctor import FileState, FilesVerdict


def add_commands(commands: Any) -> None:
    """Add it."""
    check = commands.add_parser(
        "doctor",
        help="what this machine can do, and what to change; or which files of a core are here",
        description="Without CORE: what this machine can do for gdb_uffd, each lack with its "
        "remedy.  With CORE: where each file that it needs is, which are missing or other builds, "
        "and how to get them.  Exit status: 0 nothing is missing, 1 something is.",
    )
    check.add_argument("core", metavar="CORE", nargs="?", help="a core or a trace")
    check.add_argument("executable", metavar="EXECUTABLE", nargs="?")
    check.add_argument("--json", "-json", action="store_true", help="one line of JSON")
    check.add_argument(
        "--engine", choices=(ENGINE_AUTO, *ENGINES), default=ENGINE_AUTO,
        help="what `set uffd engine` is set to",
    )  # fmt: skip
    searching.add_options(check)
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """1 if anything that is required is lacking."""
    return of_core(options) if options.core else of_machine(options.json, options.engine)


def of_core(options: argparse.Namespace) -> int:
    """The files of a core or trace."""
    from gdb_uffd import trace as traces
    from gdb_uffd.trace.files.doctor import examine

    asked = searching.chosen(options)
    # Looking is not fetching: servers are named, not asked.
    with contextlib.ExitStack() as stack:
        search = stack.enter_context(closing(replace(asked, servers=())))
        trace = stack.enter_context(closing(traces.open(options.core, options.executable, search)))
        snapshot = stack.enter_context(closing(trace.snapshot(0)))
        found_in = getattr(trace, "found_in", search)  # a packed core looks into itself
        verdict = examine(snapshot, found_in, asked.servers)
        problems = found_in.problems()
    if options.json:
        files = [asdict(f) for f in verdict.files]
        told: Dict[str, Any] = {"schema": SCHEMA_VERSION, "core": verdict.core}
        told.update(whole=verdict.whole, files=files)
        print(json.dumps({**told, "advice": verdict.advice, "warnings": problems}))
    else:
        warn(problems)
        show(*render_files(verdict), indent=6)
    return 0 if verdict.whole else 1


def render_files(verdict: "FilesVerdict") -> List[str]:
    """A line for each file, then what to do."""
    lines = [_line(file) for file in verdict.files]
    if verdict.advice:
        lines.append("to get what is missing:")
        lines += [f"  {line}" for line in verdict.advice]
    return lines


def _line(file: "FileState") -> str:
    from gdb_uffd.trace.files.doctor import DEBUG_FILE, FOUND, LEFT_OUT, OTHER_BUILD, UNNEEDED

    if file.state == FOUND:
        where = "here" if file.there == file.path else f"found at {file.there}"
        if not file.build_id:
            where += ", no build-id to check it by"
        if file.debug != "(own)":
            where += f"; debug file {file.debug}" if file.debug else "; no debug file: names only"
        return f"{'ok  ' if file.debug else 'warn'}  {file.path}: {where}"
    if file.state == UNNEEDED:
        return f"ok    {file.path}: not here, and not needed: the core has its pages"
    if file.state == LEFT_OUT:
        return f"warn  {file.reason}; {file.pages:,} pages are unavailable"
    what = "missing"
    if file.state == OTHER_BUILD:
        what = f"another build is at {file.there}: {file.its_id or 'no build-id'}"
    elif file.state == DEBUG_FILE:
        what = f"only its separate debug file, which has no code, is at {file.there}"
    elif file.there:
        what = f"a file with its build-id and other bytes is at {file.there}"
    needed = f"; needed: build-id {file.build_id}" if file.build_id else ""
    package = f" of {file.package}" if file.package else ""
    return f"FAIL  {file.path}: {what}{needed}{package}; {file.pages:,} pages are unavailable"


def of_machine(as_json: bool, engine: str = ENGINE_AUTO) -> int:
    """Print what this machine can do; 1 if anything that is required is lacking."""
    checks = _examine(engine)
    if as_json:
        told = {"schema": SCHEMA_VERSION, "checks": [asdict(check) for check in checks]}
        print(json.dumps(told))
    else:
        show(*map(render, checks), indent=6)
    return 1 if any(check.required and not check.ok for check in checks) else 0


def _examine(engine: str) -> List[Check]:
    try:
        from gdb_uffd.replay.doctor import examine
    except ImportError as error:
        return [
            Check(
                name="native module",
                ok=False,
                found=f"cannot be loaded: {error.__cause__ or error}",
                remedy="run make in the checkout, or install gdb-uffd again",
            )
        ]
    return examine(engine)


def render(check: Check) -> str:
    """One check as a line, its remedy behind an arrow when it failed."""
    mark = "ok  " if check.ok else "FAIL" if check.required else "warn"
    line = f"{mark}  {check.name}: {check.found}"
    return line if check.ok or not check.remedy else f"{line}  -> {check.remedy}"

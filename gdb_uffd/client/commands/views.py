"""The commands that show: dirty, diff, info, mappings, doctor."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from typing import Any, Dict, Optional, Sequence, Tuple

import gdb

from gdb_uffd.client.names import exceptions
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.recording import telling
from gdb_uffd.client.session import file_search, last_call, launch, settings, travel
from gdb_uffd.client.session.asking import look, say, say_json
from gdb_uffd.client.session.sessions import Session, selected
from gdb_uffd.client.session.wire import one_line
from gdb_uffd.client.show import report_json, report_text, snapshots, text
from gdb_uffd.client.show.hexdiff import diff_lines
from gdb_uffd.client.show.table import aligned, under
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.messages import AskInfo, Info
from gdb_uffd.protocol.messages_calls import Image, LastReport, ListMappings
from gdb_uffd.protocol.model import PAGE_SIZE, SCHEMA_VERSION, CallReport, UffdError, page_floor

DOCTOR_TIMEOUT_S = 60.0
"""The doctor tries userfaultfd and ptrace for real, which takes milliseconds."""


def last_report(session: Session, which_all: bool) -> Optional[CallReport]:
    """The report of the last call or command; None when nothing has run."""
    session.calls_pending = session.assigned = False
    report = session.request(LastReport(which_all))
    last = last_call.find(session, report)
    if report is not None and last is not None:
        report.called = last.report.called
    return report


def dirty(session: Session, which_all: bool, as_json: bool, every_line: bool) -> None:
    """The pages of the last call, or all since the snapshot."""
    if as_json:
        say_json(dirty_object(session, which_all))
        return
    report = last_report(session, which_all)
    if report is None:
        say("no pages dirtied: nothing has run yet")
        return
    waited_ms = last_call.waited_ms(session, report)
    names = ReportSymbols(session, report, which_all)
    say(*report_text.report_lines(report, names, look(), waited_ms, every_line))
    if report.uncaught:
        say(f"  {exceptions.text(exceptions.described(session, report.uncaught))}")


def dirty_object(session: Session, which_all: bool) -> Dict[str, Any]:
    """The object of `uffd dirty -json` (docs/json.md)."""
    report = last_report(session, which_all)
    names = ReportSymbols(session, report, which_all)
    data = report_json.report_json(report or _nothing(session), names)
    told = exceptions.described(session, report.uncaught) if report is not None else None
    return {**data, "uncaught": exceptions.as_json(told)} if told is not None else data


def _nothing(session: Session) -> CallReport:
    return CallReport("all", True, 0, session.ready.total_pages, 0.0, "", [])


def diff(session: Session, which_all: bool, expression: str) -> None:
    """Bytes before and after: of every dirty page, or of what `expression` names."""
    looks, context = look(), settings.diff_context()
    limits = _range(expression) if expression else None
    if limits is None:
        report = last_report(session, which_all)
        starts = [page.start for page in report.pages if page.bytes_changed] if report else []
        rest = report.rest if report is not None and which_all else []
        starts += [page for each in rest for page in range(each.start, each.end, PAGE_SIZE)]
        nothing = "nothing differs"
    else:
        session.calls_pending = False
        last_report(session, which_all)  # closes a pending transaction
        starts = list(range(page_floor(limits[0]), limits[1], PAGE_SIZE))
        nothing = f"nothing differs in {expression} ({limits[0]:#x}, {limits[1] - limits[0]} bytes)"
    shown, lost = False, 0
    for start in starts:
        image = session.request(Image(start, which_all))
        if image is not None:
            lines = list(diff_lines(image, looks, limits, context))
            say(*lines)
            shown = shown or bool(lines)
        elif limits is None:
            lost += 1
    if limits is None and report is not None and not which_all:
        lost += report.rest_pages
    if lost:
        say(f"the bytes of {text.plural(lost, 'more page')} were not kept: too many were written")
    elif not shown:
        say(nothing)


def _range(expression: str) -> Tuple[int, int]:
    """The half-open range a name or an address means: a variable's bytes, an address's page."""
    value = gdb.parse_and_eval(expression)
    if value.address is not None and value.type.strip_typedefs().code != gdb.TYPE_CODE_FUNC:
        start = int(value.address)
        return start, start + max(1, value.type.sizeof)
    if value.address is not None:
        return int(value.address), int(value.address) + 1
    try:
        start = page_floor(int(value) & (2**64 - 1))
    except (gdb.error, TypeError, ValueError):
        raise UffdError(f"{expression} is neither a variable nor an address") from None
    return start, start + PAGE_SIZE


def info(as_json: bool) -> None:
    """The session of the selected inferior, and what is being recorded."""
    session, recording = selected(), telling.facts()
    recorded = {"recording": recording} if recording is not None else {}
    if session is None:
        if as_json:
            say_json({"schema": SCHEMA_VERSION, "session": False, **recorded})
        elif recording is not None:
            telling.show()
        else:
            say("no core is spawned in this inferior: `uffd spawn FILE` does that")
        return
    told = session.request(AskInfo())
    if as_json:
        data = {"schema": SCHEMA_VERSION, "session": True, **to_json(told), **recorded}
        data["server_pid"] = session.server.pid
        data["interpreter"] = _interpreter()
        say_json(data)
        return
    ready = session.ready
    total = told.total_pages
    pages = f"{text.plural(total, 'page')} ({text.size(total * PAGE_SIZE)})"
    holds = f"{text.plural(told.threads, 'thread')}, {pages}"
    if ready.snapshots > 1:
        every = travel.all_snapshots(session)
        here = snapshots.headline(every, session.snapshot, look()).partition(" ")[2]
        rows = [("trace", ready.core), ("snapshot", f"{here} · {holds}")]
    else:
        rows = [("core", f"{ready.core} · {holds}")]
    rows += [
        ("executable", told.executable or "not found"),
        ("process", _process(told)),
        ("engine", _engine(told)),
        ("server", f"pid {session.server.pid}, gdb_uffd {ready.server}"),
    ]
    rows += [("warning", warning) for warning in ready.warnings]
    last = told.last_report
    if last is not None:
        state = "kept" if last.kept else "discarded"
        rows.append(("last report", f"{text.plural(last.pages, 'page')} dirtied · {state}"))
    say(*(f"{name:<12} {one_line(value)}" for name, value in rows), indent=13)
    telling.show()


def _process(told: Info) -> str:
    if not told.alive or not told.vessel_pid:
        return "none; everything is as recorded"
    return " · ".join(
        [
            f"pid {told.vessel_pid}",
            f"{text.plural(told.fed_pages, 'page')} fed",
            f"{text.number(told.dirty_pages)} dirty",
            f"{text.plural(told.faults, 'fault')} in {text.milliseconds(told.fault_us / 1000)}",
        ]
    )


def _engine(told: Info) -> str:
    """ "wp-sync (auto: it alone tells who wrote each page first)"."""
    setting, why = told.engine_setting, told.engine_why
    if not told.engine:
        return f"{setting}, chosen when something runs"
    return f"{told.engine} ({setting}: {why})" if why != "as set" else told.engine


def _interpreter() -> str:
    try:
        return launch.find_interpreter(settings.python(), os.environ)
    except UffdError as error:
        return f"none: {error}"


def mappings(session: Session) -> None:
    """A table like that of `info proc mappings`, as the process is now."""
    looks = look()
    rows = [["Start Addr", "End Addr", "Size", "Offset", "Perm"]]
    files = ["File"]
    for m in session.request(ListMappings()):
        size, offset = hex(m.end - m.start), hex(m.offset)
        rows.append([hex(m.start), hex(m.end), size, offset, m.prot_text()])
        why = f" ({one_line(m.unavailable)})" if m.unavailable else ""
        files.append(looks.paint("filename", m.name) + why)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        row[:4] = [cell.rjust(width) for cell, width in zip(row[:4], widths)]
    painted = [rows[0], *([looks.paint("address", c) for c in r[:2]] + r[2:] for r in rows[1:])]
    for head, file in zip(aligned(painted, looks, " "), files):
        say(*under(head, [file], looks))


def doctor(as_json: bool, files: Sequence[str] = ()) -> None:
    """What the machine can do (the server's doctor), and what this gdb can; or, of a core and its
    executable, which of its files are here."""
    facts = _gdb_facts()
    interpreter = launch.find_interpreter(settings.python(), os.environ)
    code = "import sys; from gdb_uffd.cli import main; sys.exit(main())"
    command = [interpreter, "-I", "-c", code, "doctor", "--engine", settings.engine()]
    if files:  # what the environment says of debuginfod is gdb's to judge
        command += ["--debuginfod", "", *file_search.options(), "--", *files]
    try:
        done = subprocess.run(
            [*command[:5], *(["--json"] if as_json else []), *command[5:]],
            env=launch.clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOCTOR_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UffdError(f"cannot run {interpreter}: {error}; {launch.remedy()}") from None
    output = done.stdout.decode("utf-8", "replace")
    said = [one_line(line) for line in done.stderr.decode("utf-8", "replace").splitlines()]
    if not output.strip() and files and said:
        raise UffdError(said[-1].partition("gdb-uffd: ")[2] or said[-1])
    if not output.strip():
        raise UffdError(
            f"{interpreter} cannot run the doctor "
            f"({said[-1] if said else f'status {done.returncode}'}): {launch.remedy()}"
        )
    if as_json:
        try:
            checks = json.loads(output)
        except ValueError:
            raise UffdError(f"{interpreter}: the doctor's answer is not JSON") from None
        if not isinstance(checks, dict):
            raise UffdError(f"{interpreter}: the doctor's answer is no object")
        say_json({**checks, "gdb": {**facts, "interpreter": interpreter}})
        return
    say(*(said if files else ()))
    say(*output.rstrip().splitlines(), indent=6)
    if files:
        return
    say(f"gdb {facts['version']} with Python {facts['python']}; the server runs on {interpreter}")


def _gdb_facts() -> Dict[str, Any]:
    facts: Dict[str, Any] = {"version": gdb.VERSION, "python": platform.python_version()}
    facts["send_packet"] = hasattr(gdb, "RemoteTargetConnection")
    with contextlib.suppress(AttributeError):
        facts["host_charset"] = gdb.host_charset()
    return facts

"""`uffd info`: what is open, and what is being recorded."""

from __future__ import annotations

import os

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.recording import telling
from gdb_uffd.client.session import (
    launch,
    settings,
    travel,
)
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import selected
from gdb_uffd.client.show import snapshots, text
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.messages import AskInfo, Info
from gdb_uffd.protocol.model import PAGE_SIZE, SCHEMA_VERSION, UffdError
from gdb_uffd.terminal import one_line


class InfoCommand(Command):
    """Show what is open: core or snapshot, process, pages, server.

    Usage: uffd info [-json]

    Example:
        uffd info"""

    name, usage = "info", "uffd info [-json]"
    options = ("json",)

    def run(self, parsed: Parsed) -> None:
        """Ask the server."""
        self.nothing_else(parsed)
        info(parsed.has("json"))


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
        data["interpreter"] = interpreter_path()
        say_json(data)
        return
    ready = session.ready
    total = told.total_pages
    pages = f"{text.plural(total, 'page')} ({text.size(total * PAGE_SIZE)})"
    holds = f"{text.plural(told.threads, 'thread')}, {pages}"
    if ready.snapshots > 1:
        every = travel.all_snapshots(session)
        here = snapshots.headline(every, session.position.snapshot, look()).partition(" ")[2]
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
    return f"{told.engine} ({setting}: {why})" if why else told.engine


def interpreter_path() -> str:
    try:
        return launch.find_interpreter(settings.python(), os.environ)
    except UffdError as error:
        return f"none: {error}"

"""`gdb-uffd export`: a snapshot as a core file, also after a call was made in it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import tempfile
from contextlib import closing
from typing import List, Sequence

from gdb_uffd.client.session.launch import PACKAGE_DIR
from gdb_uffd.client.show import verdict
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.server.listen import searching
from gdb_uffd.terminal import printable


def export(options: argparse.Namespace) -> int:
    """Write the core."""
    return _after(options) if options.after else _as_recorded(options)


def _as_recorded(options: argparse.Namespace) -> int:
    from gdb_uffd import trace as traces
    from gdb_uffd.cli.trace import warn
    from gdb_uffd.trace.store.export import export_snapshot

    with contextlib.ExitStack() as stack:
        search = stack.enter_context(closing(searching.chosen(options)))
        trace = stack.enter_context(closing(traces.open(options.trace, options.executable, search)))
        snapshot = stack.enter_context(closing(trace.snapshot(trace.find(options.snapshot))))
        done = export_snapshot(snapshot, options.output)
        warn(search.problems())
    if done.unavailable_pages:
        warn([f"{done.unavailable_pages:,} pages are unavailable and not in the core"])
    _say(options.output, done.size, snapshot.files_read)
    return 0


def _after(options: argparse.Namespace) -> int:
    """Let a gdb without a terminal evaluate the expression in that snapshot, its effects kept."""
    from gdb_uffd import trace as traces
    from gdb_uffd.cli.record import find_gdb

    if os.path.lexists(options.output):
        raise UffdError(f"{printable(options.output)}: exists already; remove it or choose another")
    with closing(searching.chosen(options)) as search:
        trace = traces.open(options.trace, options.executable, search)
        try:  # what can be said without a gdb is said first, in our words
            number = trace.find(options.snapshot)
        finally:
            trace.close()
    if "\n" in options.after:
        raise UffdError("--after: an expression of one line, as gdb's print takes it")
    files = [options.trace, *([options.executable] if options.executable else [])]
    lines = [
        f"source {os.path.join(PACKAGE_DIR, 'gdbinit.py')}",
        *searching.as_settings(options),
        "uffd spawn " + " ".join(shlex.quote(os.path.abspath(f)) for f in files),
        f"uffd goto {number}",
        f"print {options.after}",
        "uffd export " + shlex.quote(os.path.abspath(options.output)),
    ]
    shown = _run(find_gdb(), lines, number)
    for line in shown:
        if line.startswith("$"):
            print(printable(line))
    if not os.path.exists(options.output):
        raise UffdError(f"gdb wrote no core: {_last(shown)}")
    with closing(traces.open(options.output)) as made, closing(made.snapshot(0)) as snapshot:
        _say(options.output, os.path.getsize(options.output), snapshot.files_read)
    return 0


def _say(path: str, size: int, files_read: Sequence[str]) -> None:
    print(printable(f"{path}: {size / 2**20:,.1f} MiB{verdict.may_hold(files_read)}"))


def _run(gdb: str, lines: List[str], number: int) -> List[str]:
    """What gdb says on standard output; UffdError with its last words when a line fails."""
    with tempfile.NamedTemporaryFile("w", prefix="gdb-uffd-", suffix=".gdb") as script:
        # A sourced file ends at its first error, where several -ex would go on.
        script.write("\n".join(lines) + "\n")
        script.flush()
        settings = ["confirm off", "pagination off", "width 0", "debuginfod enabled off"]
        command = [gdb, "-nx", "-q", "-batch"]
        for setting in settings:
            command += ["-iex", f"set {setting}"]
        done = subprocess.run(
            [*command, "-x", script.name],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.strip()]
    failed = next((i for i, line in enumerate(said) if "Error in sourced command" in line), None)
    if failed is not None:
        reason = printable(" ".join(said[failed + 1 :]) or said[failed])
        raise UffdError(f"in snapshot {number}: {reason}")
    return done.stdout.splitlines()


def _last(lines: List[str]) -> str:
    return printable(next((line for line in reversed(lines) if line.strip()), "it said nothing"))

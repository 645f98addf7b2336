"""`uffd doctor`: what works on this machine; of a core: which of its files are here."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from typing import Any, Dict, Sequence

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.session import (
    file_search,
    launch,
    settings,
)
from gdb_uffd.client.session.options import Parsed, split_files
from gdb_uffd.client.session.printing import say, say_json
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

DOCTOR_TIMEOUT_S = 60.0
"""The doctor tries userfaultfd and ptrace for real, which takes milliseconds."""


class DoctorCommand(Command):
    """Show what works on this machine, or which files a core lacks.

    Usage: uffd doctor [-json] [CORE [EXECUTABLE]]

    Without CORE: what works here, and the remedy for each lack.  With CORE (or a
    trace): where each file that it needs is, which are missing or other builds,
    and how to get them; nothing is opened or fetched.  `gdb-uffd doctor` in a
    shell does the same.

    Example:
        uffd doctor
        uffd doctor core.4711"""

    name, usage = "doctor", "uffd doctor [-json] [CORE [EXECUTABLE]]"
    options, completer = ("json",), gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Run the server's doctor."""
        files = split_files(parsed.rest, self.usage) if parsed.rest else ()
        doctor(parsed.has("json"), [path for path in files if path])


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

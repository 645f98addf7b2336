"""`gdb-uffd`, the shell command: set-up, the machine's abilities, a server for other clients."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import List, Optional, Sequence

from gdb_uffd import __version__, cli_record, cli_trace
from gdb_uffd.model import UffdError
from gdb_uffd.replay.interface import Check
from gdb_uffd.server.session import Facts

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one subcommand.  Returns the exit code: 0, 1 when it failed, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        if hasattr(options, "run"):
            return int(options.run(options))
        if options.command == "gdbinit":
            return gdbinit()
        if options.command == "doctor":
            return doctor(options.json)
        return serve(options.core, options.executable, options.socket)
    except UffdError as error:
        print(f"gdb-uffd: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gdb-uffd",
        description="Call functions in core dumps from gdb, and see which memory they change.",
    )
    parser.add_argument("--version", action="version", version=f"gdb-uffd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser(
        "gdbinit",
        help="print the line for ~/.gdbinit",
        description="Print the line for ~/.gdbinit: gdb-uffd gdbinit >> ~/.gdbinit",
    )
    check = commands.add_parser("doctor", help="what this machine can do, and what to change")
    check.add_argument("--json", action="store_true", help="one line, one JSON list")
    server = commands.add_parser(
        "serve",
        help="serve a core to any client of gdb's remote protocol",
        description="Serve a core file to one client of gdb's remote protocol, then end.",
    )
    server.add_argument("core", metavar="CORE")
    server.add_argument("executable", metavar="EXECUTABLE", nargs="?")
    server.add_argument("--socket", metavar="PATH", help="where to listen; must not exist yet")
    cli_record.add_commands(commands)
    cli_trace.add_commands(commands)
    return parser


def gdbinit() -> int:
    """Print the line that makes gdb load the commands.

    gdb takes the rest of the line as the name, blanks too (gdb manual, "Command Files").
    """
    print(f"source {Path(__file__).resolve().parent / 'gdbinit.py'}")
    return 0


def doctor(as_json: bool) -> int:
    """Print what this machine can do; 1 if anything that is required is lacking."""
    checks = _examine()
    if as_json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            print(render(check))
    return 1 if any(check.required and not check.ok for check in checks) else 0


def _examine() -> List[Check]:
    try:
        from gdb_uffd.replay.doctor import examine
    except ImportError as error:
        return [
            Check(
                name="native module",
                ok=False,
                found=f"cannot be loaded: {error}",
                remedy="run make in the checkout, or install gdb-uffd again",
            )
        ]
    return examine()


def render(check: Check) -> str:
    """One check as a line, its remedy behind an arrow when it failed."""
    mark = "ok  " if check.ok else "FAIL" if check.required else "warn"
    line = f"{mark}  {check.name}: {check.found}"
    return line if check.ok or not check.remedy else f"{line}  -> {check.remedy}"


def serve(core: str, executable: Optional[str], socket_path: Optional[str]) -> int:
    """Serve `core` to one client, in the foreground; Ctrl-C ends it."""
    from gdb_uffd.server import serve as server

    directory = None
    if socket_path is None:
        directory = tempfile.mkdtemp(prefix="gdb-uffd-")
        socket_path = os.path.join(directory, "rsp")
    try:
        with server.termination(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) as wake:
            server.run(core, executable, os.path.abspath(socket_path), _announce, wake=wake)
    except server.Terminated:
        return _INTERRUPTED
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _announce(facts: Facts) -> None:
    for warning in facts.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"target remote {facts.socket}", flush=True)

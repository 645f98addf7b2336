"""`gdb-uffd`, the shell command: set-up, the machine's abilities, a server for other clients."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import List, Optional, Sequence

from gdb_uffd import __version__, cli_pack, cli_record, cli_serve, cli_trace
from gdb_uffd.model import ENGINE_AUTO, ENGINES, UffdError
from gdb_uffd.replay.interface import Check


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one subcommand.  Returns the exit code: 0, 1 when it failed, 2 for wrong usage."""
    options = _parser().parse_args(argv)
    try:
        if hasattr(options, "run"):
            return int(options.run(options))
        if options.command == "gdbinit":
            return gdbinit()
        if options.command == "doctor":
            return doctor(options.json, options.engine)
        if options.command == "connect":
            return cli_serve.connect(options)
        return cli_serve.serve(options)
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
    check.add_argument("--json", "-json", action="store_true", help="one line, one JSON list")
    check.add_argument(
        "--engine", choices=(ENGINE_AUTO, *ENGINES), default=ENGINE_AUTO,
        help="what `set uffd engine` is set to",
    )  # fmt: skip
    cli_serve.add_commands(commands)
    cli_record.add_commands(commands)
    cli_trace.add_commands(commands)
    cli_pack.add_commands(commands)
    return parser


def gdbinit() -> int:
    """Print the line that makes gdb load the commands.

    gdb takes the rest of the line as the name, blanks too (gdb manual, "Command Files").
    """
    print(f"source {Path(__file__).resolve().parent / 'gdbinit.py'}")
    return 0


def doctor(as_json: bool, engine: str = ENGINE_AUTO) -> int:
    """Print what this machine can do; 1 if anything that is required is lacking."""
    checks = _examine(engine)
    if as_json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            print(render(check))
    return 1 if any(check.required and not check.ok for check in checks) else 0


def _examine(engine: str) -> List[Check]:
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
    return examine(engine)


def render(check: Check) -> str:
    """One check as a line, its remedy behind an arrow when it failed."""
    mark = "ok  " if check.ok else "FAIL" if check.required else "warn"
    line = f"{mark}  {check.name}: {check.found}"
    return line if check.ok or not check.remedy else f"{line}  -> {check.remedy}"

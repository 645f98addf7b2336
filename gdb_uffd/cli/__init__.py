"""`gdb-uffd`, the shell command, a file a subject: set-up (gdbinit, doctor), a server for other
clients (serve, connect), recording (record), traces and cores as files (import, info, verify,
export, pack, unpack).

It may import `client`, `recorder`, `replay`, `server` and `trace`; nobody imports it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Optional, Sequence

from gdb_uffd import __version__
from gdb_uffd.cli import doctor, pack, printing, record, serve, trace
from gdb_uffd.protocol.model import UffdError


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one subcommand.  Returns the exit code: 0, 1 when it failed, 2 for wrong usage."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _end)
        options = _parser().parse_args(argv)
        if hasattr(options, "run"):
            return int(options.run(options))
        if options.command == "gdbinit":
            return gdbinit()
        if options.command == "connect":
            return serve.connect(options)
        return serve.serve(options)
    except UffdError as error:
        printing.show(f"gdb-uffd: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngdb-uffd: interrupted; nothing is left half done", file=sys.stderr)
        return serve.INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _end(number: int, _frame: object) -> None:
    """End as by Ctrl-C, cleaning up; the status is what a shell shows of a signal's death."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


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
    doctor.add_commands(commands)
    serve.add_commands(commands)
    record.add_commands(commands)
    trace.add_commands(commands)
    pack.add_commands(commands)
    return parser


def gdbinit() -> int:
    """Print the line that makes gdb load the commands.

    gdb takes the rest of the line as the name, blanks too (gdb manual, "Command Files").
    """
    print(f"source {Path(__file__).resolve().parents[1] / 'gdbinit.py'}")
    return 0

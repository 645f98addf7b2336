"""`gdb-uffd record`: run a program under a headless gdb that records it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import IO, Any, Dict, List, Optional, Sequence

from gdb_uffd.cli.printing import show
from gdb_uffd.client.recording.record_options import parse_at, parse_interval
from gdb_uffd.client.session.launch import PACKAGE_DIR
from gdb_uffd.outputs import trace_path
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.recorder.program import VARIABLE, end_with_parent

AT_USAGE = "--at 'LOCATION [if CONDITION] [every N] [max M]'"
EVERY_USAGE = "--every 10ms"

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_TERMINALS = (signal.SIGINT, signal.SIGQUIT)  # the terminal sends them to the program as well


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `record` to the shell command's parser."""
    parser = commands.add_parser(
        "record",
        help="run a program and record a trace of it",
        description="Run PROGRAM under a gdb without a terminal and record snapshots of it into "
        "FILE.uffd.  One of --at, --every and --on-signal must be there: they take the snapshots, "
        "and one is always taken when a signal is about to kill the program.  Input, output and "
        "exit status are the program's; a last line on standard error tells how many snapshots "
        "were taken.",
        epilog="example: gdb-uffd record -o t --at 'push if n > 3 max 100' -- ./server --port 80",
    )
    parser.add_argument(
        "-o", dest="output", metavar="FILE", required=True, help="the trace to make"
    )
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="LOCATION",
        help="at each hit of it; 'LOCATION [if CONDITION] [every N] [max M]', may be given again",
    )
    parser.add_argument("--every", metavar="INTERVAL", default="", help="every so often, as 10ms")
    parser.add_argument(
        "--on-signal",
        action="append",
        default=[],
        metavar="SIGNAL,...",
        help="when one of these signals arrives, which the program still gets",
    )
    parser.add_argument("--max", type=_positive, default=0, metavar="M", help="M snapshots at most")
    parser.add_argument(
        "--self-contained",
        action="store_true",
        help="store the program's file and its libraries, too",
    )
    parser.add_argument("program", metavar="PROGRAM", help="what to run, after a --")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def run(options: argparse.Namespace) -> int:
    """Record; the program's exit status, 128 + N when signal N killed it; 2 for wrong usage."""
    try:
        signals = _check_words(options)
    except UffdError as error:
        show(f"gdb-uffd: {error}", file=sys.stderr)
        return 2
    program = find_program(options.program)
    path = os.path.abspath(trace_path(options.output))
    if os.path.lexists(path):
        raise UffdError(
            f"{options.output}: {path} exists already; remove it or choose another name"
        )
    plan = {
        "path": path,
        "at": options.at,
        "every": options.every,
        "signals": signals,
        "max": options.max,
        "self_contained": options.self_contained,
    }
    return _Run(find_gdb(), plan).run(options.program, [program, *options.arguments])


def _check_words(options: argparse.Namespace) -> List[str]:
    """The names of the signals to record at; UffdError when an option makes no sense."""
    if os.path.basename(options.output.rstrip("/")) in ("", ".", ".."):
        raise UffdError(f"-o {options.output!r}: that is no name of a file")
    if not (options.at or options.every or options.on_signal):
        raise UffdError(
            "nothing would take a snapshot: give --at LOCATION, --every INTERVAL or --on-signal "
            "SIGNAL (--on-signal SIGSEGV for a crash alone)"
        )
    for words in options.at:
        parse_at(words, AT_USAGE)
    if options.every:
        parse_interval(options.every, EVERY_USAGE)
    return signal_names(options.on_signal)


def find_program(name: str) -> str:
    """The absolute path of what a shell would run; UffdError."""
    found = shutil.which(name)
    if found is None:
        raise UffdError(f"{name}: no such program, or not executable")
    path = os.path.abspath(found)
    with open(path, "rb") as file:
        if file.read(4) != b"\x7fELF":
            raise UffdError(
                f"{path}: not an executable file of the machine; name a script's interpreter "
                "and the script: -- sh script.sh"
            )
    return path


def signal_names(given: Sequence[str]) -> List[str]:
    """ "USR1,SIGTERM" as ["SIGUSR1", "SIGTERM"]; UffdError."""
    names = []
    for word in ",".join(given).split(","):
        word = word.strip().upper()
        if not word:
            continue
        name = word if word.startswith("SIG") else "SIG" + word
        if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP"):
            raise UffdError(f"--on-signal {word}: no signal that can be waited for")
        names.append(name)
    return names


def find_gdb() -> str:
    """$GDB_UFFD_GDB, else the gdb on PATH, else that of the checkout; UffdError."""
    chosen = os.environ.get("GDB_UFFD_GDB")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UffdError(f"GDB_UFFD_GDB names {chosen}, which is not a program")
        return found
    ours = os.path.join(os.path.dirname(PACKAGE_DIR), ".venv-gdb", "bin", "gdb")
    found = shutil.which("gdb") or (ours if os.access(ours, os.X_OK) else None)
    if found is None:
        raise UffdError("no gdb on PATH: install one (apt install gdb), or set GDB_UFFD_GDB")
    return found


class _Run:
    def __init__(self, gdb: str, plan: Dict[str, Any]) -> None:
        self.gdb, self.plan = gdb, plan
        self.pid = 0
        self.ends: Dict[str, Any] = {}

    def run(self, name: str, command: List[str]) -> int:
        standard = [_dup(number) for number in (0, 1, 2)]
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        with tempfile.TemporaryFile() as described, tempfile.TemporaryFile() as planned, \
                tempfile.TemporaryFile() as noise:  # fmt: skip
            _describe(described, name, standard, [writing, planned.fileno()])
            planned.write(json.dumps({**self.plan, "report_fd": writing}).encode())
            planned.flush()
            passed = [*standard, writing, described.fileno(), planned.fileno()]
            environ = {**os.environ, "SHELL": "/bin/sh", VARIABLE: str(described.fileno())}
            before = {number: signal.signal(number, signal.SIG_IGN) for number in _TERMINALS}
            process = subprocess.Popen(
                [*self._gdb_command(planned.fileno()), "--args", *command],
                stdin=subprocess.DEVNULL,
                stdout=noise,
                stderr=noise,
                pass_fds=passed,
                env=environ,
                preexec_fn=_set_apart,
            )
            for fd in (*standard, writing):
                os.close(fd)
            for number in _FORWARDED:
                before[number] = signal.signal(number, self._forward)
            try:
                with open(reading, encoding="ascii") as lines:
                    self._listen(lines)
                status = process.wait()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
            return self._finish(status, noise)

    def _gdb_command(self, plan: int) -> List[str]:
        wrapper = f"{shlex.quote(sys.executable)} -I -m gdb_uffd.recorder.program"
        setup = [
            *("set confirm off", "set pagination off", "set width 0"),
            *("set debuginfod enabled off", "set disable-randomization off"),
            *("set startup-with-shell on", f"set exec-wrapper {wrapper}"),
            "set auto-load python-scripts off",
        ]
        command = [self.gdb, "-nx", "-q", "-batch"]
        for line in setup:
            command += ["-iex", line]
        module = "gdb_uffd.client.recording.headless"
        script = f"import {module}; {module}.main({plan})"
        start = os.path.join(PACKAGE_DIR, "gdbinit.py")
        return [*command, "-ex", f"source {start}", "-ex", f"python {script}"]

    def _forward(self, number: int, _frame: object) -> None:
        if self.pid:
            try:
                os.kill(self.pid, number)
            except OSError:
                pass

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            facts = json.loads(line)
            self.pid = facts.pop("pid", self.pid)
            if "note" in facts:
                show(f"gdb-uffd: {facts.pop('note')}", file=sys.stderr)
            self.ends.update(facts)
            if "exit" in facts or "signal" in facts:
                self.pid = 0
            if "ended" in facts:
                return  # the last line; descendants of the program may hold the pipe open

    def _finish(self, status: int, noise: IO[bytes]) -> int:
        if "error" in self.ends:
            if not self.ends.get("snapshots"):
                shutil.rmtree(self.plan["path"], ignore_errors=True)  # made by us, and empty
            raise UffdError(self.ends["error"])
        if "snapshots" not in self.ends:
            raise UffdError(f"{self.gdb} ended with status {status}: {_last_line(noise)}")
        for line in self.ends["ended"]:
            show(f"gdb-uffd: {line}", file=sys.stderr)
        if "signal" in self.ends:
            return 128 + int(self.ends["signal"])
        return int(self.ends.get("exit", 1))


def _dup(number: int) -> int:
    """A copy that a child inherits, above those that gdb uses; of one that is closed: /dev/null."""
    import fcntl

    try:
        fd = fcntl.fcntl(number, fcntl.F_DUPFD, 64)
    except OSError:
        fd = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(fd, True)
    return fd


def _describe(file: IO[bytes], name: str, fds: List[int], close: List[int]) -> None:
    """What gdb_uffd.recorder.program needs to make the program what the shell would have made."""
    ignored = [
        int(number)
        for number in signal.valid_signals()
        if signal.getsignal(number) is signal.SIG_IGN and number not in _PYTHONS
    ]
    blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    data = {
        "environ": dict(os.environ),
        "fds": fds,
        "close": close,
        "group": os.getpgrp(),
        "name": name,
        "ignored": ignored,
        "blocked": blocked,
    }
    file.write(json.dumps(data).encode("ascii"))
    file.flush()


_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python itself ignores these (its manual, module signal)."""


def _set_apart() -> None:
    """gdb is in a group of its own: the terminal and its signals are the program's.  When we are
    killed, so is gdb, and with it (PTRACE_O_EXITKILL) the program."""
    os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = [line.strip() for line in file.read()[-4096:].decode("utf-8", "replace").splitlines()]
    return next((line[:300] for line in reversed(lines) if line), "no message")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """For tests."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(argv)
    return int(options.run(options))

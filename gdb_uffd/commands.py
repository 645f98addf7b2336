"""The commands a user types: registration only; what they do is in client/."""

from __future__ import annotations

import time
from typing import List, Optional, Tuple, Type

import gdb

from gdb_uffd.client.commands import call, calls, goto, heaps, record, views
from gdb_uffd.client.commands.command import Command, list_commands
from gdb_uffd.client.commands.options import Parsed, split_files
from gdb_uffd.client.frontends import hooks, mi, tui
from gdb_uffd.client.names import blocked, exceptions
from gdb_uffd.client.session import (
    connecting,
    libraries,
    opened,
    policy,
    sessions,
    settings,
    signals,
    travel,
    unwind,
)
from gdb_uffd.client.session.asking import (
    flush_caches,
    pop_dummy_frames,
    say,
    show_command,
    user_error,
    user_errors,
)
from gdb_uffd.protocol.messages_calls import Reset
from gdb_uffd.protocol.model import UffdError


class Uffd(gdb.Command):
    """Call functions in a core dump, and see what they dirty.

    `uffd spawn CORE` opens a core file.  gdb then works as on a live process: what
    runs, runs in a process that is rebuilt page by page while it is needed, and
    every page it writes is known.  `uffd reset` goes back to the recorded state.

    Usage: uffd SUBCOMMAND

    Example:
        uffd spawn core
        uffd call push(7)"""

    def __init__(self) -> None:
        super().__init__("uffd", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    @user_errors
    def invoke(self, argument: str, from_tty: bool) -> None:
        """A bare `uffd`: one line a subcommand."""
        if argument.strip():
            raise UffdError(f'Undefined uffd command: "{argument.split()[0]}".  Try "help uffd".')
        list_commands([command for command in COMMANDS if " " not in command.name])


class SpawnCommand(Command):
    """Open a core file or a trace; nothing runs yet.

    Usage: uffd spawn FILE [EXECUTABLE]

    FILE is a core, written by the kernel or by gdb's gcore, or a trace of many
    snapshots, NAME.uffd.  The executable and the libraries are found from it
    unless EXECUTABLE is given.  What this inferior already has open is closed
    first.

    Example:
        uffd spawn core.4711
        uffd spawn core.4711 build/server"""

    name, usage = "spawn", "uffd spawn FILE [EXECUTABLE]"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Start the server and connect."""
        hooks.define_hooks()
        began = time.perf_counter()
        session = sessions.spawn(*split_files(parsed.rest, self.usage))
        opened.show(session, began)
        policy.sync(sessions.current())
        travel.follow(sessions.current())


class ConnectCommand(Command):
    """Open what `gdb-uffd serve` serves, here or on another machine.

    Usage: uffd connect ADDRESS [TOKEN-FILE]

    ADDRESS is what it printed: unix:PATH, HOST:PORT or [IPv6]:PORT.  Where it asks
    for a token, that is in TOKEN-FILE or in the environment variable
    GDB_UFFD_TOKEN.  From then on all is as after `uffd spawn`; gdb gets the files
    of another machine from the server.

    Example:
        uffd connect 127.0.0.1:4711"""

    name, usage = "connect", "uffd connect ADDRESS [TOKEN-FILE]"
    completer = gdb.COMPLETE_FILENAME

    def run(self, parsed: Parsed) -> None:
        """Connect."""
        hooks.define_hooks()
        connecting.connect(*connecting.split_address(parsed.rest, self.usage))
        policy.sync(sessions.current())
        travel.follow(sessions.current())


class CallCommand(Command):
    """Evaluate an expression, show what it dirtied, and forget it.

    Usage: uffd call [-keep] [-json] [--] [/FMT] EXPRESSION

      -keep   keep the effects, as a plain `print` does
      -json   print one line, one JSON object

    First comes what the called functions print, then the value as `print` shows it
    (it enters the value history), then the pages that were written: what they
    hold, the variables that changed, and who wrote first.

    Example:
        uffd call push(7)
        $1 = 1042
        (then the pages)"""

    name, usage = "call", "uffd call [-keep] [-json] [--] EXPRESSION"
    options, completer = ("keep", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Evaluate in a transaction."""
        session = sessions.current()
        if not parsed.rest:
            raise UffdError(f"what shall be called? usage: {self.usage}")
        call.call(session, parsed.rest, parsed.has("keep"), parsed.has("json"))


class DirtyCommand(Command):
    """Show the pages that the last call or command wrote.

    Usage: uffd dirty [-all] [-json] [-full]

      -all    everything written since the snapshot and kept
      -json   print one line, one JSON object
      -full   do not leave out lines of a long list

    Example:
        print push(7)
        uffd dirty
        uffd dirty -all"""

    name, usage = "dirty", "uffd dirty [-all] [-json] [-full]"
    options = ("all", "json", "full")

    def run(self, parsed: Parsed) -> None:
        """Ask for the report and print it."""
        self.nothing_else(parsed)
        session = sessions.current()
        views.dirty(session, parsed.has("all"), parsed.has("json"), parsed.has("full"))


class DiffCommand(Command):
    """Show the bytes that the last call changed, before and after.

    Usage: uffd diff [-all] [--] [ADDRESS|NAME]

      -all    against the snapshot instead of the state before the last call

    NAME, a variable or any other lvalue, restricts it to the variable's bytes;
    ADDRESS to the page that holds it.

    Example:
        uffd diff
        uffd diff counter
        uffd diff -all $sp"""

    name, usage = "diff", "uffd diff [-all] [ADDRESS|NAME]"
    options, completer = ("all",), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """Fetch the pages and compare."""
        views.diff(sessions.current(), parsed.has("all"), parsed.rest)


class ResetCommand(Command):
    """Go back to the recorded state: forget what ran and was set.

    Usage: uffd reset

    The process that ran ends; memory, registers and mappings are those of the core
    again, or of the present snapshot of a trace.

    Example:
        print push(7)
        uffd reset"""

    name, usage = "reset", "uffd reset"

    def run(self, parsed: Parsed) -> None:
        """Reset, forget caches, show the frame."""
        self.nothing_else(parsed)
        session = sessions.current()
        pop_dummy_frames()
        stale = session.request(Reset()).libraries_stale
        session.calls_pending = session.assigned = False
        sessions.reselect(session)
        flush_caches()
        if stale:
            libraries.update()
        signals.restore(session.signal, session.first_thread)
        say("reset: everything is as recorded")
        show_command("frame")


class KillCommand(Command):
    """Close the core: end the process that ran, and the server.

    Usage: uffd kill

    Nothing is lost but what ran; the core file itself is never changed.

    Example:
        uffd kill"""

    name, usage = "kill", "uffd kill"

    def run(self, parsed: Parsed) -> None:
        """Disconnect and reap."""
        self.nothing_else(parsed)
        session = sessions.current()
        sessions.end(session)
        say(f"closed {session.ready.core}")


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
        views.info(parsed.has("json"))


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
        views.doctor(parsed.has("json"), [path for path in files if path])


class MappingsCommand(Command):
    """List the memory mappings as they are now.

    Usage: uffd mappings

    Example:
        uffd mappings"""

    name, usage = "mappings", "uffd mappings"

    def run(self, parsed: Parsed) -> None:
        """Ask the server."""
        self.nothing_else(parsed)
        views.mappings(sessions.current())


COMMANDS: Tuple[Type[Command], ...] = (
    *(SpawnCommand, ConnectCommand, CallCommand, DirtyCommand, DiffCommand),
    *calls.COMMANDS,
    *heaps.COMMANDS,
    *(ResetCommand, KillCommand, InfoCommand, MappingsCommand, DoctorCommand),
    *record.COMMANDS,
    *goto.COMMANDS,
)
"""Every subcommand, in the order of the bare `uffd`; those of a subject lie in a module of its
own, commands_SUBJECT.py, each with its own COMMANDS."""


class _SettingsPrefix(gdb.Command):
    """Settings of gdb_uffd."""

    def __init__(self, verb: str) -> None:
        super().__init__(f"{verb} uffd", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)
        self._verb = verb

    @user_errors
    def invoke(self, argument: str, from_tty: bool) -> None:
        """Without a setting's name: show them all."""
        if argument.strip():
            raise UffdError(f'no setting "{argument.split()[0]}"; try "help {self._verb} uffd"')
        settings.show_all()


_registered: List[Optional[gdb.Command]] = []


def register() -> None:
    """Add the commands and settings to this gdb; once, however often the file is sourced."""
    if _registered:
        return
    if not hasattr(gdb, "RemoteTargetConnection"):
        raise user_error(
            f"gdb_uffd needs gdb 12 or later; this is {gdb.VERSION}, which cannot send packets"
        )
    _registered.extend([Uffd(), _SettingsPrefix("set"), _SettingsPrefix("show")])
    _registered.extend(command() for command in COMMANDS)
    settings.register(policy.SETTINGS)
    settings.on_engine(sessions.set_engine)
    hooks.install()
    blocked.install()
    exceptions.install()
    unwind.install()
    tui.register()
    mi.register()
    travel.install()

"""The commands a user types: registration only; each stands in client/commands/."""

from __future__ import annotations

from typing import List, Optional, Tuple, Type

import gdb

from gdb_uffd.client.commands import record
from gdb_uffd.client.commands.call import CallCommand
from gdb_uffd.client.commands.changes import ChangesCommand
from gdb_uffd.client.commands.command import Command, list_commands
from gdb_uffd.client.commands.connect import ConnectCommand
from gdb_uffd.client.commands.diff import DiffCommand
from gdb_uffd.client.commands.dirty import DirtyCommand
from gdb_uffd.client.commands.doctor import DoctorCommand
from gdb_uffd.client.commands.export import ExportCommand
from gdb_uffd.client.commands.goto import GotoCommand
from gdb_uffd.client.commands.heap import HeapCommand
from gdb_uffd.client.commands.info import InfoCommand
from gdb_uffd.client.commands.kill import KillCommand
from gdb_uffd.client.commands.map import MapCommand
from gdb_uffd.client.commands.mappings import MappingsCommand
from gdb_uffd.client.commands.report import ReportCommand
from gdb_uffd.client.commands.reset import ResetCommand
from gdb_uffd.client.commands.snapshots import SnapshotsCommand
from gdb_uffd.client.commands.spawn import SpawnCommand
from gdb_uffd.client.commands.trace import TraceCommand
from gdb_uffd.client.commands.when import WhenCommand
from gdb_uffd.client.commands.why import WhyCommand
from gdb_uffd.client.frontends import hooks, mi, tui
from gdb_uffd.client.names import blocked, exceptions
from gdb_uffd.client.session import (
    policy,
    sessions,
    settings,
    travel,
    unwind,
)
from gdb_uffd.client.session.printing import user_error, user_errors
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


COMMANDS: Tuple[Type[Command], ...] = (
    *(SpawnCommand, ConnectCommand, CallCommand, DirtyCommand, DiffCommand),
    *(WhyCommand, TraceCommand, ReportCommand, HeapCommand),
    *(ResetCommand, KillCommand, InfoCommand, MappingsCommand, DoctorCommand),
    *record.COMMANDS,
    *(SnapshotsCommand, GotoCommand, MapCommand, WhenCommand, ChangesCommand, ExportCommand),
)
"""Every subcommand, in the order of the bare `uffd`."""


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

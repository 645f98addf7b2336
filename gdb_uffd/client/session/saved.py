"""gdb settings that a session changes and gives back when the last session ends."""

from __future__ import annotations

import contextlib
from typing import Dict, Iterator, List

import gdb

from gdb_uffd.client.session.asking import FAILURES, parameter_text, quiet

_USERS = ("sysroot", "solib-search-path", "debug-file-directory", "remotetimeout")
"""Settings that a user changes while a session lasts."""


class Borrowed:
    """Settings as the user had them, by name."""

    def __init__(self) -> None:
        self._old: Dict[str, str] = {}
        self._ours: Dict[str, str] = {}  # what they were set to

    def take(self, name: str, value: str) -> None:
        """Set `name`, and remember what it was."""
        old = parameter_text(gdb.parameter(name))
        self._note_users(name, old)
        if old != value:  # gdb 12 crashes at `set sysroot` in an inferior without a program
            quiet(f"set {name} {value}")
        self._old.setdefault(name, old)
        self._ours[name] = parameter_text(gdb.parameter(name))

    def _note_users(self, name: str, now: str) -> None:
        """What the user has set since `take` is the user's, and nothing is to be given back."""
        if name in _USERS and name in self._old and now != self._ours[name]:
            del self._old[name]

    def users(self, name: str) -> str:
        """`name` as the user has it."""
        now = parameter_text(gdb.parameter(name))
        self._note_users(name, now)
        return self._old.get(name, now)

    def holds(self, name: str) -> bool:
        """Whether `name` is changed now."""
        return name in self._old

    def give_back(self, only: str = "") -> None:
        """Set everything, or `only` one setting, as it was.

        `set scheduler-locking` fails without a target that can lock, and leaves "off"
        behind, which acts as the default does outside of a replay (gdb manual, "All-Stop
        Mode"); it is tried again when such a target is there.
        """
        # What keeps scripts out goes last: another `sysroot` has gdb read libraries again.
        for name, value in sorted(self._old.items(), key=lambda each: "auto-load" in each[0]):
            if only and name != only:
                continue
            self._note_users(name, parameter_text(gdb.parameter(name)))
            if name not in self._old:
                continue
            try:
                quiet(f"set {name} {value}")
            except FAILURES:
                continue
            del self._old[name]

    def give_back_if(self, idle: bool) -> None:
        """`give_back`, cheap when there is nothing to do and silent on failure."""
        if self._old and idle:
            self.give_back()


borrowed = Borrowed()

_unlocked: List[str] = []
"""What `set scheduler-locking` was, while it is off for a moment."""


def unlock() -> None:
    """Until `relock` a resume is of all threads: on the way to another snapshot, all go."""
    if not _unlocked:
        _unlocked.append(parameter_text(gdb.parameter("scheduler-locking")))
        quiet("set scheduler-locking off")


def relock() -> None:
    """As it was before `unlock`, if that was called."""
    while _unlocked:
        with contextlib.suppress(*FAILURES):  # the target went
            quiet(f"set scheduler-locking {_unlocked.pop()}")


@contextlib.contextmanager
def no_breakpoint_commands() -> Iterator[None]:
    """gdb carries out what `commands` says with the next `gdb.execute`, which would be one of ours;
    where `print` runs into a breakpoint it does not."""
    held = []
    for point in gdb.breakpoints():
        commands = None if point.type == getattr(gdb, "BP_DPRINTF", -1) else point.commands
        if commands:
            held.append((point, commands))
            point.commands = ""
    try:
        yield
    finally:
        for point, commands in held:
            if point.is_valid():
                point.commands = commands

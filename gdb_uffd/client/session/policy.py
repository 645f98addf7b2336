"""`set uffd syscalls` and its like: what called functions may do, told to every server."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.session import output, sessions
from gdb_uffd.client.session.printing import say
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.settings import Setting, Settings, value
from gdb_uffd.protocol.messages import SetPolicy
from gdb_uffd.protocol.model import UffdError

MEMORY_LIMIT_MIB = 1024
"""The default of `set uffd memory-limit`."""

_sent: "WeakKeyDictionary[Session, SetPolicy]" = WeakKeyDictionary()
"""What each server was told."""


class _Policy(Setting):
    """A setting that the servers are told of."""

    def get_set_string(self) -> str:
        """Called after each `set`."""
        sync_all()
        return ""


class SyscallsSetting(_Policy):
    """Which system calls a called function can make.

    safe  only what changes nothing outside of the process: its own memory, signals
          to itself, files read, output shown by gdb; the rest is refused, by name
          (the default)
    none  nothing but what returning needs
    all   nearly everything, with your rights on this machine; fork, exec, ptrace
          and signals to other processes stay refused

    A core dump is not to be trusted more than the program that it came from.

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set which system calls called functions can make."
    show_doc = "Show which system calls called functions can make."
    sentence = 'System calls that called functions can make: "{}".'
    _warned = False

    def __init__(self) -> None:
        super().__init__("uffd syscalls", gdb.COMMAND_DATA, gdb.PARAM_ENUM, ("safe", "none", "all"))
        self.value = "safe"

    def get_set_string(self) -> str:
        """`all` warns, once."""
        if self.value == "all" and not SyscallsSetting._warned:
            SyscallsSetting._warned = True
            say(
                "warning: functions called in a core can now do on this machine what you can: "
                "write files, open connections; `set uffd syscalls safe` takes that back"
            )
        return super().get_set_string()


class FilesSetting(_Policy):
    """Which files a called function can open, with `set uffd syscalls safe`.

    read  regular files and directories, for reading (the default)
    none  no file at all

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set which files called functions can open."
    show_doc = "Show which files called functions can open."
    sentence = 'Files that called functions can open: "{}".'

    def __init__(self) -> None:
        super().__init__("uffd files", gdb.COMMAND_DATA, gdb.PARAM_ENUM, ("read", "none"))
        self.value = "read"


class ClockSetting(_Policy):
    """What time it is for called functions.

    recorded  it goes on from the snapshot: a microsecond a reading, and a sleep is
              over at once (the default); a call that is repeated sees the same
              times
    real      this machine's time; a sleep takes as long as it says

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set what time it is for called functions."
    show_doc = "Show what time it is for called functions."
    sentence = 'The clock of called functions is "{}".'

    def __init__(self) -> None:
        super().__init__("uffd clock", gdb.COMMAND_DATA, gdb.PARAM_ENUM, ("recorded", "real"))
        self.value = "recorded"


class ThreadsSetting(_Policy):
    """What the recorded threads, which do not run, mean to a called function.

    freeze        a call that needs a lock which one of them holds stops there, and
                  the lock and its owner are named (the default)
    ignore-locks  it goes through such locks; what it then does proves nothing
                  about the program, and the report says so

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set what locks of recorded threads mean to calls."
    show_doc = "Show what locks of recorded threads mean to calls."
    sentence = 'Locks that recorded threads hold: "{}".'

    def __init__(self) -> None:
        super().__init__(
            "uffd threads", gdb.COMMAND_DATA, gdb.PARAM_ENUM, ("freeze", "ignore-locks")
        )
        self.value = "freeze"


class CallTimeoutSetting(_Policy):
    """How many seconds a called function may run.

    0 or "unlimited" (the default): any time.  One that takes longer stops where it
    is then.  Ctrl-C does the same at any time.

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set how many seconds a called function may run."
    show_doc = "Show how many seconds a called function may run."
    sentence = "A called function may run for this many seconds: {}."

    def __init__(self) -> None:
        super().__init__("uffd call-timeout", gdb.COMMAND_DATA, gdb.PARAM_UINTEGER)
        self.value = 0  # unlimited; gdb 12 takes no None for it


class MemoryLimitSetting(_Policy):
    """How many MiB of memory beyond what was recorded called functions may touch.

    0 or "unlimited": any amount.  A call that needs more stops there.

    More in docs/policy.md of gdb_uffd."""

    set_doc = "Set how many MiB of new memory calls may touch."
    show_doc = "Show how many MiB of new memory calls may touch."
    sentence = "MiB of new memory that called functions may touch: {}."

    def __init__(self) -> None:
        super().__init__("uffd memory-limit", gdb.COMMAND_DATA, gdb.PARAM_UINTEGER)
        self.value = MEMORY_LIMIT_MIB


class ControlSequencesSetting(_Policy):
    """What becomes of control sequences that a called function prints.

    auto   shown where a person reads them: on a terminal, or in a file; raw where
           gdb's standard output is a pipe or a socket and its standard error no
           terminal, with `set logging redirect on`, and in the machine interface
           (the default)
    shown  ^[ for an escape, \\233 for a byte; colours stay, line ends and tabs too
    raw    as they are: a terminal does what they say

    What gdb_uffd itself prints, names from a core among it, is always shown."""

    set_doc = "Set what becomes of printed control sequences."
    show_doc = "Show what becomes of printed control sequences."
    sentence = 'Control sequences that called functions print: "{}".'

    def __init__(self) -> None:
        super().__init__(
            "uffd control-sequences", gdb.COMMAND_SUPPORT, gdb.PARAM_ENUM, output.CHOICES
        )
        self.value = output.AUTO


SETTINGS: Settings = (
    ("control-sequences", ControlSequencesSetting),
    ("syscalls", SyscallsSetting),
    ("files", FilesSetting),
    ("clock", ClockSetting),
    ("threads", ThreadsSetting),
    ("call-timeout", CallTimeoutSetting),
    ("memory-limit", MemoryLimitSetting),
)


def _wanted() -> SetPolicy:
    return SetPolicy(
        syscalls=str(value("syscalls")),
        files=str(value("files")),
        clock=str(value("clock")),
        threads=str(value("threads")),
        call_timeout=int(value("call-timeout") or 0),
        memory_limit=int(value("memory-limit") or 0) << 20,
    )


def sync(session: Session) -> None:
    """Tell the server of `session` what holds now, unless it knows."""
    output.tell(session)
    wanted = _wanted()
    if _sent.get(session) != wanted:
        session.request(wanted)
        _sent[session] = wanted


def sync_all() -> None:
    """Tell every server; one that has died needs to know nothing."""
    for session in sessions.sessions():
        try:
            sync(session)
        except UffdError as error:
            say(f"[uffd: {error}]")

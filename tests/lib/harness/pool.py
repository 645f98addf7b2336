"""gdbs with a core opened, or nothing, shared by the tests that only look and call.

Between two tests one is set back: breakpoints and displays go, what calls kept is undone, our
settings, thread, frame and snapshot are those that it opened with.  Whatever else is not as it was
(a setting of gdb's, another inferior, core or server) ends it, and the next test gets a fresh one.
What stays is `$1`, `$2`, ..., convenience variables, and what gdb printed before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence, Set, Tuple

from harness import survivors
from harness.gdbs import Gdb

TIDY = """\
import gdb, hashlib, json, re
EVER_OTHER = "history", "commands", "convenience", "values", "user", "varsize-limit"
def _told(command):
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return str(error)
def _settings():
    rows = [line.split(None, 2) for line in _told("show uffd").splitlines()]
    return {row[0]: row[1].strip('"') for row in rows if len(row) == 3}
OURS = _settings()
def _tidy(back):
    for command in back:
        _told(command)
    for name, value in _settings().items():
        if value != OURS[name]:
            _told("set uffd %s %s" % (name, OURS[name]))
    # A packet that the stub was not asked for yet: "currently unknown".
    kept = [re.sub(", currently .*", "", line) for line in _told("show").splitlines()
            if re.match("[a-z]", line) and not line.startswith(EVER_OTHER)]
    info = json.loads(_told("uffd info -json"))
    kept += [_told("info inferiors"), _told("pwd")]
    kept += [str(info.get(what)) for what in ("core", "server_pid")]
    print("tidy", hashlib.sha256("\\n".join(kept).encode()).hexdigest(), info.get("snapshot", 0))
"""
Key = Tuple[str, str, Tuple[str, ...]]
"""A gdb's path, what it opened and after which commands."""
BACK = ("delete", "undisplay", "uffd reset")


@dataclass
class Shared:
    """A gdb, the processes that came with it, what sets it back, and how it is then."""

    gdb: Gdb
    key: Key
    pids: Set[int]
    back: Tuple[str, ...]
    state: str = ""

    def tidy(self) -> str:
        """What it is once it is set back; "" when it does not say."""
        try:
            text = self.gdb.run(f"python _tidy({list(self.back)})")
        except AssertionError:
            return ""
        found = re.search(r"^tidy (\w+ \d+)\s*\Z", text, re.M)  # gdb tells of a frame or thread
        return found[1] if found else ""


ROOM = 6
"""As many wait at once: a gdb, a server and what they have read are some 150 MB."""


class Pool:
    """The gdbs that are not in use, by their path and what they opened; the one that waits longest
    comes first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle: Dict[Key, Shared] = {}

    def take(self, gdb: str, core: Optional[Path], first: Sequence[str] = ()) -> Shared:
        """One that has `core` opened, after the commands `first`; `give_back` ends its use."""
        key = gdb, str(core or ""), tuple(first)
        shared = self._idle.pop(key, None)
        if shared is not None:
            survivors.parked.difference_update(shared.pids)
            return shared
        before = set(survivors.ours())
        session = Gdb(gdb, self._folder / "home")
        for command in first:
            session.run(command)
        if core:
            session.spawned = session.run(f"uffd spawn {core}")
        (self._folder / "tidy.py").write_text(TIDY, encoding="utf-8")
        session.run(f"source {self._folder / 'tidy.py'}")
        shared = Shared(session, key, {session.pid, *survivors.ours()} - before, BACK)
        if core:
            snapshot = shared.tidy().partition(" ")[2]
            trace = session.json("uffd info -json")["snapshots"] > 1
            shared.back += (*[f"uffd goto {snapshot}"] * trace, "thread 1", "frame 0")
        shared.state = shared.tidy()
        return shared

    def give_back(self, shared: Shared) -> None:
        """For the next test, where it is as it was opened."""
        if not shared.state or shared.tidy() != shared.state or shared.key in self._idle:
            self._end(shared)
            return
        shared.gdb.transcript = ""
        self._idle[shared.key] = shared
        survivors.parked.update(shared.pids)
        if len(self._idle) > ROOM:
            self._end_idle(next(iter(self._idle)))

    def close(self) -> None:
        """End them; AssertionError when one of their processes stays."""
        while self._idle:
            self._end_idle(next(iter(self._idle)))

    def _end_idle(self, key: Key) -> None:
        shared = self._idle.pop(key)
        survivors.parked.difference_update(shared.pids)
        self._end(shared)

    @staticmethod
    def _end(shared: Shared) -> None:
        try:
            shared.gdb.quit()
        except AssertionError:
            shared.gdb.kill()
        left = [pid for pid in shared.pids if not survivors.wait_gone(pid, 10)]
        assert not left, "left running: " + "; ".join(survivors.describe(pid) for pid in left)

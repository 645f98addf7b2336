"""gdbs with a core opened, shared by the tests of a module that only look and call.

Between two tests one is set back: breakpoints and displays go, what calls kept is undone, thread,
frame and snapshot are those that it opened with.  Whatever else is not as it was (a setting of
gdb's or of ours, another inferior, core or server) ends it, and the next test gets a fresh one.
What stays is `$1`, `$2`, ..., convenience variables, and what gdb printed before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Sequence, Set, Tuple

from harness import survivors
from harness.gdbs import Gdb

TIDY = """\
import gdb, hashlib, json, re
EVER_OTHER = "history", "commands", "convenience", "values"
def _told(command):
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return str(error)
def _tidy(back):
    for command in back:
        _told(command)
    # A packet that the stub was not asked for yet: "currently unknown".
    kept = [re.sub(", currently .*", "", line) for line in _told("show").splitlines()
            if re.match("[a-z]", line) and not line.startswith(EVER_OTHER)]
    info = json.loads(_told("uffd info -json"))
    kept += [_told("info inferiors"), str(info["core"]), str(info["server_pid"])]
    print("tidy", hashlib.sha256("\\n".join(kept).encode()).hexdigest(), info["snapshot"])
"""
BACK = ("delete", "undisplay", "uffd reset")


@dataclass
class Shared:
    """A gdb, the processes that came with it, what sets it back, and how it is then."""

    gdb: Gdb
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


class Pool:
    """The gdbs of a module that are not in use, by their path and what they opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._idle: Dict[Tuple[str, str], Shared] = {}

    def take(self, gdb: str, core: Path, first: Sequence[str] = ()) -> Shared:
        """One that has `core` opened, after the commands `first`; `give_back` ends its use."""
        shared = self._idle.pop((gdb, str(core)), None)
        if shared is not None:
            survivors.parked.difference_update(shared.pids)
            return shared
        before = set(survivors.ours())
        session = Gdb(gdb, self._folder / "home")
        for command in first:
            session.run(command)
        session.spawned = session.run(f"uffd spawn {core}")
        (self._folder / "tidy.py").write_text(TIDY, encoding="utf-8")
        session.run(f"source {self._folder / 'tidy.py'}")
        shared = Shared(session, {session.pid, *survivors.ours()} - before, BACK)
        snapshot = shared.tidy().partition(" ")[2]
        trace = session.json("uffd info -json")["snapshots"] > 1
        shared.back += (*[f"uffd goto {snapshot}"] * trace, "thread 1", "frame 0")
        shared.state = shared.tidy()
        return shared

    def give_back(self, gdb: str, core: Path, shared: Shared) -> None:
        """For the next test, where it is as it was opened."""
        key = gdb, str(core)
        if not shared.state or shared.tidy() != shared.state or key in self._idle:
            self._end(shared)
            return
        shared.gdb.transcript = ""
        survivors.parked.update(shared.pids)
        self._idle[key] = shared

    def close(self) -> None:
        """End them; AssertionError when one of their processes stays."""
        for shared in self._idle.values():
            survivors.parked.difference_update(shared.pids)
            self._end(shared)
        self._idle.clear()

    @staticmethod
    def _end(shared: Shared) -> None:
        try:
            shared.gdb.quit()
        except AssertionError:
            shared.gdb.kill()
        left = [pid for pid in shared.pids if not survivors.wait_gone(pid, 10)]
        assert not left, "left running: " + "; ".join(survivors.describe(pid) for pid in left)

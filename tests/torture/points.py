"""Run instead of Python by gdb (GDB_UFFD_PYTHON) and for gdb-uffd: `points.py PLAN -I -m MODULE …`
runs that module, and stops at the planned instant until its torturer has struck.

PLAN is a JSON file: {"module": where, "point": what, "nth": at which time, "socket": whom to tell,
"counts": the folder in which to note how many of each there were}.  Points are named in `PATCHES`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import socket
import sys
from typing import Any, Callable, Dict, List, Tuple

_unlink = os.unlink
FILES = (
    "pwrite",
    "write",
    "fsync",
    "fdatasync",
    "replace",
    "rename",
    "link",
    "unlink",
    "ftruncate",
)

PATCHES: Dict[str, List[Tuple[str, str, str, str]]] = {
    # where: (module, path of the function in it, point before it, point after it)
    "gdb_uffd.server": [
        ("gdb_uffd.server.listen.connection", "Connection.receive", "", "packet"),
        ("gdb_uffd.server.listen.connection", "Connection.reply_framed", "reply", "replied"),
        ("gdb_uffd.replay.diversion", "Diversion.end", "undo", "undone"),
        ("gdb_uffd.replay.diversion", "Diversion.reset", "reset", "was reset"),
        ("gdb_uffd.replay.diversion", "Diversion.resume", "resume", "stopped"),
        ("gdb_uffd.server.requests.export", "export", "export", "exported"),
    ],
    "gdb_uffd.recorder": [
        ("gdb_uffd.recorder.service", "Service._handle", "message", "handled"),
        ("gdb_uffd.recorder.service", "Service._send", "answer", "answered"),
        ("gdb_uffd.recorder.service", "Service._begin", "begin", "begun"),
    ],
    "gdb_uffd.cli": [],
}


class Points:
    """Counts what passes, and stops at what was planned."""

    def __init__(self, plan: Dict[str, Any], module: str) -> None:
        self._plan, self._counts = plan, dict.fromkeys(("nothing",), 0)
        self._module, self._pid = module, os.getpid()

    def passing(self, point: str) -> None:
        if os.getpid() != self._pid:  # a fork of it
            return
        count = self._counts[point] = self._counts.get(point, 0) + 1
        plan = self._plan
        if (plan["module"], plan["point"], plan["nth"]) == (self._module, point, count):
            try:
                _unlink(os.path.join(os.path.dirname(plan["socket"]), "pending"))  # once
            except FileNotFoundError:
                return
            with socket.socket(socket.AF_UNIX) as torturer:
                torturer.settimeout(20)
                torturer.connect(plan["socket"])
                torturer.sendall(f"{self._pid} {point} {count}\n".encode())
                torturer.recv(1)

    def note(self) -> None:
        if os.getpid() == self._pid and self._plan["counts"]:
            name = f"{self._module}.{self._pid}"
            with open(os.path.join(self._plan["counts"], name), "w", encoding="ascii") as file:
                json.dump(self._counts, file)

    def around(self, old: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if before:
                self.passing(before)
            result = old(*arguments, **keywords)
            if after:
                self.passing(after)
            return result

        return wrapped


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    module = sys.argv[sys.argv.index("-m") + 1]
    rest = sys.argv[sys.argv.index("-m") + 2 :]
    points = Points(plan, module)
    atexit.register(points.note)
    for name in FILES:
        setattr(os, name, points.around(getattr(os, name), "file", "filed"))
    for where, path, before, after in PATCHES.get(module, []):
        owner: Any = importlib.import_module(where)
        *outer, last = path.split(".")
        for one in outer:
            owner = getattr(owner, one)
        setattr(owner, last, points.around(getattr(owner, last), before, after))
    sys.argv[:] = [module, *rest]
    if module == "gdb_uffd.cli":
        sys.exit(importlib.import_module(module).main())
    runpy.run_module(module, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()

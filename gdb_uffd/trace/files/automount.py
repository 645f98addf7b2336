"""Names that a core chose are looked at only where nobody is made to ask for them: in a directory
of autofs the mere look makes the automounter fetch what has that name, over the network (Linux,
Documentation/filesystems/autofs.rst, "Mount Traps").  What is mounted there already may be looked
at.  native/kernel/walk.c does the same for paths of the called program's."""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Dict

NOT_ASKED = "lies behind an automounter, which was not asked; `ls` it first if you trust that name"
_PATH_MAX = 4096  # <linux/limits.h>
_MAX_LINKS = 40  # path_resolution(7): "the limit is 40"
_OCTAL = re.compile(r"\\([0-7]{3})")
_ROOT = re.compile(r"/proc/\d+/root")


def may_look(path: str) -> bool:
    """Whether `path` can be looked at, links followed, with no automounter asked; also where there
    is no such file."""
    if len(path) >= _PATH_MAX:
        return True  # nobody is asked for it: ENAMETOOLONG
    seconds = int(time.monotonic())
    types = _types("/proc/thread-self", "", seconds)
    waiting = _names(path if path.startswith("/") else f"{os.getcwd()}/{path}")
    here, links, known = "", 0, dict(types)
    while waiting:
        name = waiting.pop()
        if name == "..":
            here = os.path.dirname(here).rstrip("/")
            continue
        place = f"{here}/{name}"
        kind = known[here] = _type_of(here, known)
        if kind == "autofs" and not any(_leads_to(place, each) for each in types):
            return False
        if kind == "proc" and waiting and _ROOT.fullmatch(place):  # another process's mounts
            types = {**types, **_types(os.path.dirname(place), place, seconds)}
            known = dict(types)
            here = place
            continue
        try:
            link = os.readlink(place)
        except (OSError, ValueError):
            here = place  # no link; or nothing, of which the next look says the same
            continue
        if kind == "proc" and name not in ("self", "thread-self"):
            return not waiting  # a magic link leads there without a look on the way
        links += 1
        if links > _MAX_LINKS:
            return True
        if link.startswith("/"):
            here = ""
        waiting += _names(link)
    return _type_of(here, known) != "autofs"


def is_there(path: str) -> bool:
    """os.path.lexists of what may be looked at."""
    return may_look(path) and os.path.lexists(path)


def is_file(path: str) -> bool:
    """os.path.isfile of what may be looked at."""
    return may_look(path) and os.path.isfile(path)


def is_folder(path: str) -> bool:
    """os.path.isdir of what may be looked at."""
    return may_look(path) and os.path.isdir(path)


def is_here() -> bool:
    """Whether this machine has an automounter (but for the kernel's own binary formats)."""
    types = _types("/proc/thread-self", "", int(time.monotonic()))
    return any(k == "autofs" and not point.startswith("/proc/") for point, k in types.items())


def _names(path: str) -> "list[str]":
    """Those of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _leads_to(place: str, mounted: str) -> bool:
    return mounted == place or mounted.startswith(place + "/")


def _type_of(place: str, known: Dict[str, str]) -> str:
    """The type of the file system that a directory is of, by what is known of those above it."""
    while place and place not in known:
        place = place.rpartition("/")[0]
    return known.get(place, "")


@functools.lru_cache(maxsize=16)
def _types(process: str, below: str, _seconds: int) -> Dict[str, str]:
    """File systems of a process by their mount points, the root's as "": proc_pid_mountinfo(5)."""
    types: Dict[str, str] = {}
    try:
        with open(f"{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields, _, kind = line.partition(" - ")
                point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), fields.split(" ")[4])
                types[below + point.rstrip("/")] = kind.split(" ")[0]
    except (OSError, IndexError):
        pass
    return types

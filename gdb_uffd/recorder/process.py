"""What the kernel knows of the process beside its memory: who it is, what it has open.

proc(5) tells it: /proc/PID/status, stat, cwd, fd, and net/* for what sockets are connected to.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import field
from typing import Dict, List, Optional, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.trace.core.facts import MAX_DESCRIPTORS, ProcessFacts

MAX_TABLE = 4 << 20
"""Bytes of one of net/tcp ... that are looked at: some ten thousand connections."""

TCP_LISTEN = 0x0A  # net/tcp_states.h
_SOCKET = "socket:["


@dataclass
class Seen:
    """What was seen while the process stood still.  `open`: descriptor -> its link in fd/, None
    when that could not be listed."""

    status: Dict[str, List[str]] = field(default_factory=dict)
    stat: List[str] = field(default_factory=list)
    name: str = ""
    cwd: str = ""
    open: Optional[Dict[int, str]] = None


class Process:
    """The process to record, by its number in /proc."""

    def __init__(self, pid: int) -> None:
        self._root = f"/proc/{pid}"
        self._sockets: Dict[int, str] = {}

    def look(self) -> Seen:
        """What is to be known while it stands still; what cannot be read is left out."""
        seen = Seen(cwd=self._link("cwd"))
        for line in self._text("status").splitlines():
            key, _, value = line.partition(":")
            seen.status[key] = value.split()
        name, _, rest = self._text("stat").rpartition(")")
        seen.name = name.partition("(")[2]
        seen.stat = rest.split()
        try:
            numbers = sorted(int(name) for name in os.listdir(f"{self._root}/fd"))
        except OSError:
            return seen
        seen.open = {number: self._link(f"fd/{number}") for number in numbers[:MAX_DESCRIPTORS]}
        return seen

    def told(self, seen: Seen) -> ProcessFacts:
        """The same for the trace.  Sockets are looked up now: this takes its time."""
        uids, gids = _two(seen.status.get("Uid")), _two(seen.status.get("Gid"))
        # proc_pid_stat(5), counted behind the name: ppid is 4, pgrp 5, session 6, utime 14.
        stat = [_natural(text) for text in seen.stat[1:13]]
        stat += [0] * (12 - len(stat))
        return ProcessFacts(
            ppid=stat[0], pgrp=stat[1], sid=stat[2],
            uid=uids[0], euid=uids[1], gid=gids[0], egid=gids[1],
            name=seen.name, cwd=seen.cwd if seen.cwd.startswith("/") else "",
            cpu_ns=(stat[10] + stat[11]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK"),
            release=os.uname().release.split("-")[0].split("+")[0],
            descriptors=self._named(seen.open) if seen.open is not None else None,
        )  # fmt: skip

    def _named(self, found: Dict[int, str]) -> Dict[int, str]:
        inodes = {n: _inode(link) for n, link in found.items()}
        wanted = {inode for inode in inodes.values() if inode is not None}
        if not wanted <= self._sockets.keys():
            self._sockets = self._list_sockets()
            for inode in wanted - self._sockets.keys():
                self._sockets[inode] = "socket"
        return {
            n: self._sockets[inode] if inode is not None else found[n]
            for n, inode in inodes.items()
        }

    def _list_sockets(self) -> Dict[int, str]:
        out: Dict[int, str] = {}
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for words in self._table(kind, 10):
                name = _connection(kind, words[1], words[2], words[3])
                if name:
                    out[_natural(words[9])] = name
        for words in self._table("unix", 7):
            out[_natural(words[6])] = " ".join(["unix", *words[7:8]])
        return out

    def _table(self, name: str, least: int) -> List[List[str]]:
        rows = [line.split() for line in self._text(f"net/{name}").splitlines()[1:]]
        return [words for words in rows if len(words) >= least]

    def _text(self, name: str) -> str:
        try:
            with open(f"{self._root}/{name}", "rb") as file:
                return file.read(MAX_TABLE).decode("utf-8", "backslashreplace")
        except OSError:
            return ""

    def _link(self, name: str) -> str:
        try:
            return os.readlink(f"{self._root}/{name}")
        except OSError:
            return ""


def _two(words: Optional[List[str]]) -> Tuple[int, int]:
    """Real and effective id of a line of /proc/PID/status, -1 where there is none."""
    if words is None or len(words) < 2:
        return -1, -1
    return _natural(words[0]), _natural(words[1])


def _natural(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _inode(link: str) -> Optional[int]:
    if not link.startswith(_SOCKET):
        return None
    return _natural(link[len(_SOCKET) : -1])


def _connection(kind: str, local: str, remote: str, state: str) -> str:
    """ "tcp 127.0.0.1:1234 → 10.0.0.1:80" of a line of net/tcp; "" when it is malformed."""
    try:
        one, other = _address(local), _address(remote)
    except (ValueError, struct.error):
        return ""
    protocol = kind.rstrip("6")
    if protocol == "tcp" and state == f"{TCP_LISTEN:02X}":
        return f"tcp {one}, listening"
    return f"{protocol} {one}" + ("" if other.endswith(":0") else f" → {other}")


def _address(text: str) -> str:
    """The address and port of net/tcp: words of the address in this machine's byte order."""
    raw, _, port = text.partition(":")
    words = [int(raw[i : i + 8], 16) for i in range(0, len(raw), 8)]
    data = struct.pack(f"={len(words)}I", *words)
    if len(data) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, data)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, data)}]:{int(port, 16)}"

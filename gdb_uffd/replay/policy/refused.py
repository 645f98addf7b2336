"""Refused system calls: names, decoded arguments, the error."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.ends import Grant, Refusal
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.trace.files.files import MappedFile, Module

AT_FDCWD = -100
SHOWN_BYTES = 64
"""Bytes of a path or of data that a line shows; what is longer ends with "..."."""
SHOWN_NAME = 256
"""The same for what the recording says of a descriptor."""

CLONE_VM = 0x100  # <linux/sched.h>

I386, X32, VSYSCALL, ARM = lib.TABLE_I386, lib.TABLE_X32, lib.TABLE_VSYSCALL, lib.TABLE_ARM
_VSYSCALLS = {96: "gettimeofday", 201: "time", 309: "getcpu"}

TAKEN_FOR: Dict[int, Any] = {
    lib.OPENED_NOTHING: "silent",
    lib.OPENED_PIPE: "pipe",
    lib.OPENED_PAIR: "socket pair",
    lib.OPENED_EVENT: "eventfd",
    lib.OPENED_SIGNALS: "signalfd",
    lib.OPENED_EPOLL: "epoll",
}
"""By enum opened_kind of native/table/fd_table.h."""

Memory = Dict[int, Tuple[bytes, bool]]
"""Argument number -> what it pointed to, whether that was cut."""


def refusals(refused: Sequence[Any], descriptors: Mapping[int, str]) -> List[Refusal]:
    """Repeats are counted.  `refused`: each a struct refused; `descriptors`: what the recorded ones
    were, as far as that is known."""
    found: Dict[Refusal, Refusal] = {}
    for entry in refused:
        alone = one(entry, descriptors)
        before = found.get(alone, replace(alone, times=0))
        times, others = before.times + int(entry.times), before.others + int(entry.others)
        found[alone] = replace(alone, times=times, others=others)
    return list(found.values())


def one(entry: Any, descriptors: Mapping[int, str]) -> Refusal:
    """That of one struct refused, as if it was once."""
    call, error = entry.call, int(entry.error)
    memory: Memory = {}
    for captured in entry.memory:
        if captured.argument < 6:
            data = bytes(ffi.buffer(captured.bytes))[: captured.len]
            memory[captured.argument] = (data, bool(captured.cut))
    arguments = [int(a) for a in call.args]
    name, shown = _signature(int(call.table), int(call.nr), arguments, memory)
    result = errno.errorcode.get(error, str(error)) if error else ""
    known = descriptors.get(_signed(arguments[0])) if error == errno.EBADF else None
    was = ""
    if known:
        was = f"{_signed(arguments[0])} was {_printable(known.encode(), False, SHOWN_NAME)}"
    return Refusal(name, shown, result, was)


def _signature(
    table: int, number: int, arguments: Sequence[int], memory: Memory
) -> Tuple[str, Optional[Tuple[str, ...]]]:
    if table == I386:
        return f"int 0x80, system call {number & 0xFFFFFFFF} of i386", None
    if table == ARM:
        return f"system call {number & 0xFFFFFFFF} of 32-bit ARM", None
    if table == X32:
        return f"system call {number & 0xFFFFFFFF:#x} of x32", None
    if table == VSYSCALL:
        return f"vsyscall {_VSYSCALLS.get(number, number)}", ()
    call = syscalls.table().get(number)
    if call is None:
        return f"system call {number}", ()
    name = call.name
    if name == "clone" and not arguments[0] & CLONE_VM:
        return "fork", ()  # as the C library makes it
    if name in ("clone", "clone3"):
        return name, ()
    return name, tuple(decode(call.arguments, arguments, memory))


def decode(kinds: Sequence[str], arguments: Sequence[int], memory: Memory) -> List[str]:
    """The arguments as they are shown; lengths and output buffers are left out."""
    shown: List[str] = []
    for index, (kind, value) in enumerate(zip(kinds, arguments)):
        text = _one(kind, value, memory.get(index))
        if text is not None:
            shown.append(text)
    return shown


def _one(kind: str, value: int, pointed: "Tuple[bytes, bool] | None") -> "str | None":
    if kind in _NUMBERS:
        return _NUMBERS[kind](value)
    if kind in ("path", "rbuf", "addr", "rmsg"):
        if not value:
            return "NULL"
        data, cut = pointed if pointed is not None else (b"", False)
        if kind == "path" or (kind == "rbuf" and data):
            return '"' + _printable(data, cut) + '"'
        if kind in ("addr", "rmsg") and data:
            return address(data)
        return hex(value)
    return None


def _signed(value: int) -> int:
    return value & 0x7FFFFFFF if not value & 0x80000000 else (value & 0xFFFFFFFF) - (1 << 32)


def _long(value: int) -> str:
    return str(value - (1 << 64) if value >> 63 else value)


def _descriptor(value: int) -> str:
    number = _signed(value)
    return "AT_FDCWD" if number == AT_FDCWD else str(number)


def _signal(value: int) -> str:
    number = _signed(value)
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


_OPEN_FLAGS = (
    (os.O_CREAT, "O_CREAT"), (os.O_EXCL, "O_EXCL"), (os.O_TRUNC, "O_TRUNC"),
    (os.O_APPEND, "O_APPEND"), (os.O_DIRECTORY, "O_DIRECTORY"),
)  # fmt: skip


def _open_flags(value: int) -> str:
    mode = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]
    return "|".join([mode, *(name for bit, name in _OPEN_FLAGS if value & bit)])


_NUMBERS: Dict[str, Callable[[int], str]] = {
    "int": lambda v: str(_signed(v)),
    "pid": lambda v: str(_signed(v)),
    "clock": lambda v: str(_signed(v)),
    "u": lambda v: str(v & 0xFFFFFFFF),
    "long": _long,
    "size": lambda v: str(v),
    "hex": lambda v: hex(v),
    "ptr": lambda v: hex(v) if v else "NULL",
    "mode": lambda v: f"{v & 0xFFFFFFFF:#o}",
    "fd": _descriptor,
    "sig": _signal,
    "oflags": _open_flags,
}


def _printable(data: bytes, cut: bool, limit: int = SHOWN_BYTES) -> str:
    """The program's bytes: what is not printable is escaped, and no more than `limit` of them."""
    if len(data) > limit:
        data, cut = data[:limit], True
    text = data.decode("utf-8", "backslashreplace")
    out = "".join(c if c.isprintable() and c != '"' else _escaped(c) for c in text)
    return out + ("..." if cut else "")


def _escaped(character: str) -> str:
    return '\\"' if character == '"' else character.encode("unicode_escape").decode("ascii")


def address(data: bytes) -> str:
    """A struct sockaddr as ss(8) writes it: 127.0.0.1:6379, [::1]:80, a path, @abstract."""
    if len(data) < 2:
        return f"{len(data)} bytes"
    family = int.from_bytes(data[:2], "little")
    if family == socket.AF_INET and len(data) >= 8:
        return f"{socket.inet_ntop(family, data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_INET6 and len(data) >= 24:
        return f"[{socket.inet_ntop(family, data[8:24])}]:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_UNIX:
        path = data[2:]
        if path[:1] == b"\0" and len(path) > 1:
            return "@" + _printable(path[1:], False)
        return _printable(path.split(b"\0")[0], False) or "unnamed"
    if family == socket.AF_NETLINK and len(data) >= 12:
        return "netlink:{}".format(*struct.unpack_from("<I", data, 4))
    return f"address family {family}"


def files_read(paths: Sequence[bytes], known: Sequence[Module]) -> List[str]:
    """Paths of the files (and directories, and links) whose contents came into the program's
    memory, in that order; those that it had mapped already, as they were, are left out."""
    if not paths:
        return []
    mapped = {os.path.realpath(m.file.path) for m in known if m.file is not None and _is(m.file)}
    return [path for path in map(os.fsdecode, paths) if path not in mapped]


def _is(file: MappedFile) -> bool:
    """Whether it still lies at its path."""
    try:
        now = os.stat(file.path)
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (len(file.data), file.mtime_ns)


def grants(vessel: Vessel) -> List[Grant]:
    """System calls that it was granted, in the order of their first time; those that run untouched
    are not seen."""
    names: Dict[int, List[str]] = {}
    for opened in vessel.opened():
        data = bytes(ffi.buffer(opened.bytes))[: opened.len]
        names.setdefault(opened.nr, []).append(_printable(data, bool(opened.cut)))
    out: List[Grant] = []
    for number, times in vessel.granted():
        call = syscalls.table().get(number)
        name = call.name if call is not None else f"system call {number}"
        files = list(dict.fromkeys(names.get(number, [])))
        out += [Grant(name, path=path) for path in files]
        if not files and times:
            out.append(Grant(name, int(times)))
    taken = [Grant("", descriptor=int(a.number), kind=TAKEN_FOR[a.kind]) for a in vessel.adopted()]
    return out + taken

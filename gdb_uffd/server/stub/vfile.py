"""Host I/O, `vFile:...`: the files that gdb asks its target for, read only.

gdb manual, nodes "Host I/O Packets" and "File-I/O Remote Protocol Extension" (struct stat,
errno values).  Under /proc only the recorded process exists, and what is there is made
from the recording: a live process may have its number now.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Callable, Dict, Optional, Tuple, Union

from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.server.stub.framing import PACKET_SIZE, escape
from gdb_uffd.trace.core.argv import arguments
from gdb_uffd.trace.core.notes import own_auxv
from gdb_uffd.trace.files.automount import may_look

MAX_OPEN = 256
_MAX_NAME = 4096  # PATH_MAX, <linux/limits.h>
_STAT = struct.Struct(">7I3Q3I")  # fio_stat: 64 bytes, big-endian (node "struct stat")

# FILEIO_O_* (node "Open Flags"): anything that could write.
_WRITING = 0x1 | 0x2 | 0x8 | 0x200 | 0x400

_SAME_ERRNO = {
    errno.EPERM, errno.ENOENT, errno.EINTR, errno.EBADF, errno.EACCES, errno.EFAULT,
    errno.EBUSY, errno.EEXIST, errno.ENODEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
    errno.ENFILE, errno.EMFILE, errno.EFBIG, errno.ENOSPC, errno.ESPIPE, errno.EROFS,
}  # fmt: skip
_ENAMETOOLONG, _EUNKNOWN = 91, 9999
"""Node "Errno Values"; the others have Linux's numbers."""

OpenFile = Union[int, bytes]
"""A descriptor of ours, or the contents of a file made from the recording."""


def answer(session: StubSession, packet: bytes) -> Optional[bytes]:
    """`vFile:operation:parameter,...`; None for operations that are not known."""
    operation, _, parameters = packet.partition(b":")
    handler = _OPERATIONS.get(operation)
    if handler is None:
        return None
    try:
        return handler(session, parameters)
    except OSError as error:
        return _failure(error.errno or 0)
    except PacketError:
        return _failure(errno.EINVAL)


def _failure(code: int) -> bytes:
    if code in _SAME_ERRNO:
        number = code
    else:
        number = _ENAMETOOLONG if code == errno.ENAMETOOLONG else _EUNKNOWN
    return b"F-1,%x" % number


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _success(data: bytes) -> bytes:
    return b"F%x;" % len(data) + escape(data)


def _name(text: bytes) -> str:
    try:
        raw = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise _error(errno.EINVAL) from None
    if not raw or b"\0" in raw:
        raise _error(errno.ENOENT)
    if len(raw) > _MAX_NAME:
        raise _error(errno.ENAMETOOLONG)
    return os.fsdecode(raw)


def _set_filesystem(_session: StubSession, _parameters: bytes) -> bytes:
    """`setfs: pid`: there is one file system, the recorded process has no namespace now."""
    return b"F0"


def _open(session: StubSession, parameters: bytes) -> bytes:
    fields = parameters.split(b",")
    if len(fields) != 3:
        raise PacketError
    name, flags = _name(fields[0]), parse_hex(fields[1])
    if flags & _WRITING:
        raise _error(errno.EROFS)
    if len(session.files) >= MAX_OPEN:
        raise _error(errno.EMFILE)
    recorded = _recorded(session, name)
    opened: OpenFile = _open_regular(name) if recorded is None else recorded
    number = next(n for n in range(MAX_OPEN) if n not in session.files)
    session.files[number] = opened
    return b"F%x" % number


def _open_regular(name: str) -> int:
    # Looked at first, since opening a device or a pipe may already do something.
    if not may_look(name):
        raise _error(errno.EACCES)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise _error(errno.EACCES)
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _error(errno.EACCES)
    return fd


def _file(session: StubSession, text: bytes) -> Tuple[int, OpenFile]:
    number = parse_hex(text)
    if number not in session.files:
        raise _error(errno.EBADF)
    return number, session.files[number]


def _close(session: StubSession, parameters: bytes) -> bytes:
    number, opened = _file(session, parameters)
    del session.files[number]
    if isinstance(opened, int):
        os.close(opened)
    return b"F0"


def close_all(session: StubSession) -> None:
    """Close what the client left open."""
    for opened in session.files.values():
        if isinstance(opened, int):
            os.close(opened)
    session.files.clear()


def _read(session: StubSession, parameters: bytes) -> bytes:
    fields = parameters.split(b",")
    if len(fields) != 3:
        raise PacketError
    _, opened = _file(session, fields[0])
    count = min(parse_hex(fields[1]), PACKET_SIZE // 2 - 16)  # each byte may need an escape
    offset = parse_hex(fields[2])
    if offset >= 1 << 63:
        raise PacketError
    if isinstance(opened, int):
        return _success(os.pread(opened, count, offset))
    return _success(opened[offset : offset + count])


def _fstat(session: StubSession, parameters: bytes) -> bytes:
    _, opened = _file(session, parameters)
    if isinstance(opened, int):
        return _success(_pack_stat(os.fstat(opened)))
    return _success(_recorded_stat(len(opened)))


def _stat(session: StubSession, parameters: bytes) -> bytes:
    name = _name(parameters)
    recorded = _recorded(session, name)
    if recorded is not None:
        return _success(_recorded_stat(len(recorded)))
    if not may_look(name):
        raise _error(errno.EACCES)
    return _success(_pack_stat(os.stat(name)))


def _pack_stat(status: os.stat_result) -> bytes:
    low = 0xFFFFFFFF
    return _STAT.pack(
        status.st_dev & low, status.st_ino & low, status.st_mode & low, status.st_nlink & low,
        status.st_uid & low, status.st_gid & low, status.st_rdev & low,
        status.st_size, status.st_blksize, status.st_blocks,
        int(status.st_atime) & low, int(status.st_mtime) & low, int(status.st_ctime) & low,
    )  # fmt: skip


def _recorded_stat(size: int) -> bytes:
    return _STAT.pack(0, 0, stat.S_IFREG | 0o444, 1, 0, 0, 0, size, 4096, 0, 0, 0, 0)


def _readlink(session: StubSession, parameters: bytes) -> bytes:
    name = os.path.normpath(_name(parameters))
    if name == f"/proc/{session.pid}/exe":
        executable = session.diversion.snapshot.executable
        if not executable:
            raise _error(errno.ENOENT)
        return _success(os.fsencode(executable))
    _recorded(session, name)
    if not may_look(os.path.dirname(name)):
        raise _error(errno.EACCES)
    return _success(os.fsencode(os.readlink(name)))


def _refuse(_session: StubSession, _parameters: bytes) -> bytes:
    """pwrite, unlink: nothing is written through here."""
    raise _error(errno.EROFS)


_OPERATIONS: Dict[bytes, Callable[[StubSession, bytes], bytes]] = {
    b"setfs": _set_filesystem,
    b"open": _open,
    b"close": _close,
    b"pread": _read,
    b"fstat": _fstat,
    b"stat": _stat,
    b"readlink": _readlink,
    b"pwrite": _refuse,
    b"unlink": _refuse,
}


def _recorded(session: StubSession, name: str) -> Optional[bytes]:
    """The contents of a /proc file of the recorded process; None for names outside of /proc.

    OSError ENOENT for everything else below /proc, reached by whatever way.
    """
    normal = os.path.normpath(name)
    if normal.startswith("//"):  # normpath keeps two leading slashes
        normal = normal[1:]
    prefix = f"/proc/{session.pid}/"
    if normal.startswith(prefix):
        rest = normal[len(prefix) :]
        if rest.startswith("task/"):
            tid, _, rest = rest[len("task/") :].partition("/")
            if not tid.isdigit() or int(tid) not in session.thread_ids:
                raise _error(errno.ENOENT)
        maker = _RECORDED.get(rest)
        if maker is None:
            raise _error(errno.ENOENT)
        return maker(session)
    real = os.path.realpath(normal) if may_look(normal) else normal
    if any(p == "/proc" or p.startswith("/proc/") for p in (normal, real)):
        raise _error(errno.ENOENT)
    return None


def _maps(session: StubSession) -> bytes:
    """proc_pid_maps(5).  Device and inode are not recorded: those of the file that is there now, or
    any, since gdb takes a mapping of inode 0 for anonymous (linux-tdep.c: no NT_FILE entry)."""
    lines = []
    places: Dict[str, str] = {}
    for m in session.diversion.mappings():
        name = m.name.replace("\n", "\\012")
        if m.name not in places:
            places[m.name] = _device_and_inode(m.name, len(places) + 1)
        place = places[m.name]
        line = f"{m.start:08x}-{m.end:08x} {m.prot_text()}p {m.offset:08x} {place}"
        lines.append(f"{line:<72} {name}".rstrip() if name else line)
    return os.fsencode("\n".join(lines) + "\n")


def _device_and_inode(name: str, otherwise: int) -> str:
    if not name.startswith("/"):
        return "00:00 0"
    try:
        status = os.stat(name) if may_look(name) else None
    except (OSError, ValueError):
        status = None
    if status is None:
        return f"00:00 {otherwise}"
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino}"


def _command(session: StubSession) -> str:
    return os.path.basename(session.diversion.snapshot.executable) or "recorded"


def _status(session: StubSession) -> bytes:
    """The first lines of proc_pid_status(5)."""
    name = _command(session)[:15].replace("\n", "\\n")
    pid, threads = session.pid, len(session.thread_ids)
    lines = (f"Name:\t{name}", "State:\tt (tracing stop)", f"Tgid:\t{pid}", f"Pid:\t{pid}",
             f"Threads:\t{threads}", "")  # fmt: skip
    return os.fsencode("\n".join(lines))


def _command_line(session: StubSession) -> bytes:
    """The arguments as they lie in memory; the executable alone where that does not tell."""
    diversion = session.diversion
    found = arguments(diversion.snapshot.auxv, diversion.read_memory)
    return b"\0".join(found or [os.fsencode(diversion.snapshot.executable)]) + b"\0"


def _comm(session: StubSession) -> bytes:
    return os.fsencode(_command(session)[:15] + "\n")


def _auxv(session: StubSession) -> bytes:
    snapshot = session.diversion.snapshot
    return own_auxv(snapshot.auxv, snapshot.arch)


_RECORDED: Dict[str, Callable[[StubSession], bytes]] = {
    "maps": _maps,
    "status": _status,
    "cmdline": _command_line,
    "comm": _comm,
    "auxv": _auxv,
}

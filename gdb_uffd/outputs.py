"""Files that are written for the user: whole, or not there at all, also where the process is
killed half way.  And what is left of directories that go with their process (trace/scratch.py)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from typing import Iterator, Tuple

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""What open(2) says where the kernel or the file system has no O_TMPFILE."""
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # link(2)
_END = ".part"

SCRATCH, LOCKED, UNLOCKED = "gdb-uffd-", "+", "~"
"""How directories in TMPDIR are named, and what stands before the end of all such names."""
_FRESH_S = 60  # in which a directory may not be locked yet

TRACE = ".uffd"
"""How a recorded trace's directory ends."""


def trace_path(path: str) -> str:
    """`path` with the ending that traces have."""
    path = path.rstrip("/") or path
    return path if path.endswith(TRACE) else path + TRACE


@contextlib.contextmanager
def whole_file(path: str, replace: bool = False) -> Iterator[int]:
    """A descriptor of a new file, 0600, that has no name until the block ends; then it is `path`.

    FileExistsError where something is there then, unless `replace`; OSError.  Where the file system
    has no such files (O_TMPFILE, open(2)), it has another name until then, and what a process that
    was killed left of it goes when `path` is written the next time.
    """
    folder = os.path.dirname(os.path.abspath(path))
    fd, name = _begin(folder, os.path.basename(path))
    try:
        yield fd
        os.fsync(fd)
        if name:
            name = _rename(name, path, replace)
        else:
            _link(fd, path, replace)
    finally:
        os.close(fd)
        if name:
            os.unlink(name)


def _begin(folder: str, name: str) -> Tuple[int, str]:
    """A descriptor of a new file, and its name for the time being ("" for none)."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if os.path.exists(f"/proc/self/fd/{fd}"):
            return fd, ""
        os.close(fd)
    except OSError as error:
        if error.errno not in _NO_TMPFILE or not os.path.isdir(folder):
            raise
    _remove_left_behind(folder, name)
    fd, temporary = tempfile.mkstemp(prefix=_prefix(name), suffix=_END, dir=folder)
    _lock(fd)
    return fd, temporary


def _prefix(name: str) -> str:
    return f".{name[:100]}."


def _lock(fd: int) -> None:
    with contextlib.suppress(OSError):  # file systems without locks
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _link(fd: int, path: str, replace: bool) -> None:
    """Give a file without a name that of `path` (open(2), O_TMPFILE)."""
    own = f"/proc/self/fd/{fd}"
    try:
        # `src_dir_fd` has no use but that linkat(2), which follows the link, is called.
        os.link(own, path, src_dir_fd=fd, follow_symlinks=True)
        return
    except FileExistsError:
        if not replace:
            raise
    folder = tempfile.mkdtemp(prefix=_prefix("uffd"), dir=os.path.dirname(os.path.abspath(path)))
    try:
        between = os.path.join(folder, "new")
        os.link(own, between, src_dir_fd=fd, follow_symlinks=True)
        os.replace(between, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(name: str, path: str, replace: bool) -> str:
    """The same for a file with the name `name`; what is then left to be unlinked, or ""."""
    if not replace:
        try:
            os.link(name, path)  # other than rename(2) it replaces nothing
            return name
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    os.replace(name, path)
    return ""


def _remove_left_behind(folder: str, name: str) -> None:
    """Our own user's, for that name, which no process has locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix(name)) and entry.name.endswith(_END):
                with contextlib.suppress(OSError):
                    _remove(entry.path)


def _remove(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is being written
            os.unlink(path)
    finally:
        os.close(fd)


def scratch_beside(path: str, purpose: str) -> "tuple[str, str]":
    """The folder, and how the names begin, of directories for what becomes `path`."""
    folder, name = os.path.split(os.path.abspath(path))
    return folder, f".{name[:100]}.{purpose}"


def remove_directories(folder: str, prefix: str = SCRATCH) -> None:
    """Our own user's in `folder` whose names begin so and that no process has locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            rest = entry.name[len(prefix) :]
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    continue
                if LOCKED not in rest:
                    old = time.time() - status.st_ctime > _FRESH_S
                    if UNLOCKED in rest and old:
                        os.rmdir(entry.path)  # was never used
                    continue
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)

"""Private directories that go with their process: in TMPDIR, or beside what is being made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import Optional

_PREFIX, _MARK, _UNLOCKED = "gdb-uffd-", "+", "~"
_FRESH = 60  # seconds in which a directory may not be locked yet


class Scratch:
    """A directory (0700) that is gone at close.  OSError when it cannot be made.

    It is locked as long as its process lives (flock(2)), before it gets its name: what one that was
    killed left behind is removed when the next one is made.
    `beside`: a path that is being made; the directory is in its folder and named after it, so that
    it can be given that path.
    """

    def __init__(self, purpose: str, beside: Optional[str] = None) -> None:
        import tempfile  # slow to import, and seldom needed

        if beside is None:
            folder, prefix = tempfile.gettempdir(), _PREFIX + purpose
        else:
            folder, name = os.path.split(os.path.abspath(beside))
            prefix = f".{name[:100]}.{purpose}"
        remove_left_behind(folder, _PREFIX if beside is None else prefix)
        self._lock = -1
        self.path = tempfile.mkdtemp(prefix=prefix + _UNLOCKED, dir=folder)
        try:
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            start, _, end = self.path.rpartition(_UNLOCKED)
            os.rename(self.path, start + _MARK + end)
            self.path = start + _MARK + end
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove it with what is in it; files that are open stay readable.  Idempotent."""
        import shutil

        try:
            shutil.rmtree(self.path, ignore_errors=True)
        except BaseException:  # Ctrl-C, or a signal that ends us, in the middle of it
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        finally:
            self._unlock()

    def become(self, path: str) -> None:
        """Give it that name, for good.  OSError."""
        os.rename(self.path, path)
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def remove_left_behind(folder: str, prefix: str = _PREFIX) -> None:
    """Our own user's directories in `folder` that no process has locked."""
    import shutil

    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            rest = entry.name[len(prefix) :]
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    continue
                if _MARK not in rest:
                    old = time.time() - status.st_ctime > _FRESH
                    if _UNLOCKED in rest and old:
                        os.rmdir(entry.path)  # was never used
                    continue
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)

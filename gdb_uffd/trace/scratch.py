"""Private directories in TMPDIR."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time

_PREFIX, _MARK = "gdb-uffd-", "+"
_FRESH = 60  # seconds in which a directory may not be locked yet


class Scratch:
    """A directory (0700) that is gone at close.  OSError when it cannot be made.

    It is locked as long as its process lives (flock(2)): what one that was killed left behind is
    removed when the next one is made.
    """

    def __init__(self, purpose: str) -> None:
        import tempfile  # slow to import, and seldom needed

        _remove_left_behind(tempfile.gettempdir())
        self.path = tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}{_MARK}")
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove it with what is in it; files that are open stay readable.  Idempotent."""
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _remove_left_behind(folder: str) -> None:
    """Our own user's directories that no process has locked."""
    import shutil

    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX) or _MARK not in entry.name:
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = time.time() - status.st_ctime > _FRESH
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or not old:
                    continue
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is in use
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)

"""Private directories that go with their process: in TMPDIR, or beside what is being made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from typing import Optional

from gdb_uffd.outputs import LOCKED, SCRATCH, UNLOCKED, remove_directories, scratch_beside


class Scratch:
    """A directory (0700) that is gone at close.  OSError when it cannot be made.

    It is locked as long as its process lives (flock(2)), before it gets its name: what one that was
    killed left behind is removed when the next one is made.
    `beside`: a path that is being made; the directory is in its folder and named after it, so that
    it can be given that path.
    """

    def __init__(self, purpose: str, beside: Optional[str] = None) -> None:
        if beside is None:
            folder, prefix = tempfile.gettempdir(), SCRATCH + purpose
        else:
            folder, prefix = scratch_beside(beside, purpose)
        remove_directories(folder, SCRATCH if beside is None else prefix)
        self._lock = -1
        unlocked = tempfile.mkdtemp(prefix=prefix + UNLOCKED, dir=folder)
        start, _, end = unlocked.rpartition(UNLOCKED)
        self.path = start + LOCKED + end
        try:
            self._lock = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unlocked, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(unlocked)
            self.close()  # a signal may end us when it has its name already
            raise

    def close(self) -> None:
        """Remove it with what is in it; files that are open stay readable.  Idempotent."""
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

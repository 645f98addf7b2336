"""A file that is there when it is complete, or never."""

from __future__ import annotations

import errno
import os
from typing import Optional

_NOT_THERE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""What open(2) says to O_TMPFILE where the file system, or the kernel, has none."""


class Whole:
    """Made without a name (O_TMPFILE, open(2)), mode 0600, in the folder of `path`: whatever ends
    its process, nothing is left.  Where that is not possible it has a temporary name.  OSError."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._temporary: Optional[str] = None
        folder, name = os.path.split(self.path)
        try:
            self.fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            import tempfile

            self.fd, self._temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)

    def appear(self) -> None:
        """It is complete: give it its name, which nobody else may have (FileExistsError)."""
        os.fsync(self.fd)
        named = self._temporary or f"/proc/self/fd/{self.fd}"
        try:
            # With `src_dir_fd` Python calls linkat(2) with AT_SYMLINK_FOLLOW, else link(2).
            os.link(named, self.path, src_dir_fd=self.fd, follow_symlinks=True)
        except OSError as error:
            # link(2), other than rename(2), replaces nothing; not every file system has it.
            unlinkable = error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
            if self._temporary is None or not unlinkable:
                raise
            os.rename(self._temporary, self.path)
            self._temporary = None

    def close(self) -> None:
        """Without a name it is gone.  Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            os.unlink(temporary)

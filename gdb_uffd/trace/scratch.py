"""Private directories in TMPDIR."""

from __future__ import annotations


class Scratch:
    """A directory (0700) that is gone at close.  OSError when it cannot be made."""

    def __init__(self, purpose: str) -> None:
        import tempfile  # slow to import, and seldom needed

        self.path = tempfile.mkdtemp(prefix=f"gdb-uffd-{purpose}-")

    def close(self) -> None:
        """Remove it with what is in it; files that are open stay readable.  Idempotent."""
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)

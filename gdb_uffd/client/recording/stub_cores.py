"""Snapshots of what gdb debugs through another program (gdbserver, QEMU, rr): by its cores."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from typing import Any, Dict

import gdb

from gdb_uffd.client.recording.recorder_client import Recorder
from gdb_uffd.client.session.asking import quiet, quote_file
from gdb_uffd.outputs import LOCKED, SCRATCH
from gdb_uffd.protocol.model import UffdError


class RemoteProcess:
    """A private directory for the core that is on its way."""

    def __init__(self) -> None:
        # As trace/scratch.py has it: what a gdb that is killed leaves, a later server removes.
        self._directory = tempfile.mkdtemp(prefix=f"{SCRATCH}record{LOCKED}")
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove it; idempotent."""
        shutil.rmtree(self._directory, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def capture(self, recorder: Recorder, info: Dict[str, Any], began: int) -> None:
        """Write a core of the stopped program and wait until the recorder has it."""
        core = os.path.join(self._directory, "core")
        try:
            quiet(f"generate-core-file {quote_file(core)}")
        except gdb.error as error:
            raise UffdError(f"gdb cannot write a core of this target: {error}") from None
        info["pause_us"] = (time.monotonic_ns() - began) // 1000
        try:
            recorder.import_core(core, info)
            recorder.settle()
        finally:
            with contextlib.suppress(OSError):
                os.unlink(core)

"""gdb's exec-wrapper for `gdb-uffd record`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from gdb_uffd.recorder import program


def test_nothing_is_begun_when_gdb_has_died() -> None:
    """Killed between its fork and the program's exec, gdb left a program that ran on."""
    plan = {"environ": {}, "fds": [], "close": [], "group": 0, "name": "sh"}
    plan |= {"ignored": [], "blocked": []}
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(plan).encode())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", program.__name__, "/bin/sh", "-c", "echo ran"],
            env={program.VARIABLE: str(file.fileno())}, pass_fds=[file.fileno()],
            capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 126 and b"ran" not in done.stdout

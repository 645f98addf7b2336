"""A small part of the suite as nobody; `make test-unprivileged` runs all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

CHOSEN = [
    "tests/gdb/test_policy.py::test_a_refusal_in_text_and_json",
    "tests/gdb/test_policy.py::test_a_wait_can_be_inspected",
    "tests/gdb/test_policy.py::test_stepping_over_answered_calls",
    "tests/replay/test_policy.py::test_signal_handlers_run",
    "tests/replay/test_policy.py::test_reading",
    "tests/gdb/test_unprivileged.py::test_what_there_is_for_an_ordinary_user",
    "tests/replay/test_policy_bounds.py::test_what_the_kernel_writes_counts",
]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv (util-linux)")
@pytest.mark.timeout(600)
def test_an_ordinary_user():
    """Where `vm.unprivileged_userfaultfd` is 0, with what every user has of userfaultfd."""
    done = subprocess.run(
        [ROOT / "tools" / "unprivileged", ".venv/bin/python", "-m", "pytest", "-q", *CHOSEN],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 3:  # it tells what is missing here
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    last = done.stdout.strip().splitlines()[-1]
    assert " passed" in last and "failed" not in last, last


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every kind of userfaultfd")
def test_what_there_is_for_an_ordinary_user(start_gdb):
    said = start_gdb().run("uffd doctor")
    allowed = Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "1"
    if allowed or os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        pytest.skip("this user has more")
    assert "userfaultfd: through the system call, user mode only" in said, said

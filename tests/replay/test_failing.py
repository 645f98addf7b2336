"""What the kernel refuses the pager ends the call with a line, and no more (faults injected)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from harness import ROOT
from harness.asking import policy_core

COPY, ZEROPAGE, PROTECT = 0xC028AA03, 0xC020AA04, 0xC018AA06
"""UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WRITEPROTECT (<linux/userfaultfd.h>)."""

SCRIPT = """
import json, os, sys
from pathlib import Path
from harness.asking import Asker
from harness.calls import Client
from gdb_uffd.protocol.model import MemoryUnavailable
from harness.telling import ended, message

core, switch = Path(sys.argv[1]), Path(sys.argv[2])
caller = Asker(core)

class Late(Client): # the fault begins when the program runs
    def fileno(self):
        switch.touch()
        return -1

told = [caller.call("allocate", 1 << 20)]
stop = caller.start("reread", 1 << 22, Late())
try:
    caller.diversion.write_memory(caller.arena, bytes(8192))
    reading = ""
except MemoryUnavailable as error:
    reading = str(error)
switch.unlink()
try:
    caller.diversion.call_end()
    end = ended(caller.diversion.end(False))
except Exception as error:
    end = str(error)
told += [message(stop), end, stop.lost, reading, caller.call("allocate", 1 << 20)]
caller.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("failing")
    policy_core(made)
    shim = ["cc", "-shared", "-fPIC", "-O1", "-o", made / "failing.so"]
    subprocess.run([*shim, ROOT / "tests" / "programs" / "failing.c"], check=True)
    return made


def run(folder, what: str) -> list:
    (core,) = [path for path in folder.iterdir() if path.name.startswith("core")]
    switch = folder / "now"
    switch.unlink(missing_ok=True)
    path = os.pathsep.join([str(ROOT / "tests" / "lib"), str(ROOT)])
    environment = {
        **os.environ, "PYTHONPATH": path, "LD_PRELOAD": str(folder / "failing.so"), "FAIL": what,
        "FAIL_FROM": str(switch),
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, str(core), str(switch)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "what",
    [
        f"ioctl {COPY:x} {errno.ENOMEM}", f"ioctl {COPY:x} {errno.EINVAL}",
        f"ioctl {PROTECT:x} {errno.ENOMEM}", f"poll 0 {errno.ENOMEM}",
    ],
)  # fmt: skip
def test_the_call_ends_with_a_line(folder, what):
    before, message, ended, lost, refused, after = run(folder, what)
    assert before == 1 and after == 1  # and the next call is none the worse
    error = int(what.split()[2])
    assert os.strerror(error) in message and "\n" not in message
    if error == errno.ENOMEM:
        assert message.startswith("out of memory: this machine has none left for ")
    else:
        assert "cannot be given to the program" in message
    assert message == ended or lost
    if f"{COPY:x}" in what:  # gdb's own writes say the same
        assert os.strerror(error) in refused


def test_a_kernel_without_the_page_of_zeros(folder):
    before, message, _, _, _, after = run(folder, f"ioctl {ZEROPAGE:x} {errno.EINVAL}")
    assert (before, message, after) == (1, "", 1)

"""The recorder, or the program, is killed at a random instant, again and again: every snapshot that
was reported is in the trace, byte for byte."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Dict, List

import pytest
from harness import tracing
from harness.tracing import Puppet

from gdb_uffd import trace
from gdb_uffd.client.recording.recorder_client import RecorderFailed
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.recorder.capture import Gone, Pool, TargetProcess

TIMES, PAGES = 25, 64
FILES = ("mem", "pagemap", "maps")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["recorder", "program"])
def test_killed_at_random(built, tmp_path, victim):
    chance = random.Random(7)
    for turn in range(TIMES):
        path = tmp_path / f"t{turn}.uffd"
        reported = killed_once(built, path, victim, chance)
        verify(path, reported)
        shutil.rmtree(path)


def test_a_program_that_is_killed_while_it_is_read():
    """Its pages are gone then: such a snapshot must not be taken for one."""
    with subprocess.Popen(["sleep", "1000"]) as program:
        fds = [os.open(f"/proc/{program.pid}/{name}", os.O_RDONLY) for name in FILES]
        target = TargetProcess(program.pid, *fds, -1)
        try:
            target.scan()
            assert target.more()
            target.check_alive()
            program.kill()
            os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
            while target.fill(Pool().get()):
                pass
            with pytest.raises(Gone, match="has ended"):
                target.check_alive()
        finally:
            target.close()
            for fd in fds:
                os.close(fd)


def killed_once(built, path: Path, victim: str, chance: random.Random) -> List[Dict[int, bytes]]:
    """What the process held at each snapshot that was reported as being in the trace.  Nothing may
    fail before the kill, and the `first` ones, which are waited for, are in it."""
    puppet = Puppet(built)
    held: List[Dict[int, bytes]] = []
    first, killed = chance.choice([0, 1, 1, 2, 5]), threading.Event()
    try:
        recorder = puppet.start(path)
        puppet.thaw()
        at = puppet.do(tracing.MMAP, 0, PAGES * PAGE_SIZE, 3 | 0x22 << 8)
        puppet.freeze()
        pid = recorder.pid if victim == "recorder" else puppet.pid
        timer = threading.Timer(chance.random() * 0.03, kill, [pid, killed])
        try:
            while not killed.is_set():
                if len(held) == first:
                    recorder.settle()
                    timer.start()
                data = write(puppet, at, chance)
                puppet.snapshot()
                held.append(data)
                recorder.hear()
        except (RecorderFailed, OSError, AssertionError):
            if not killed.is_set():
                raise
        timer.join()
        with contextlib.suppress(RecorderFailed):
            recorder.settle()
        done = recorder.last.number + 1 if recorder.last is not None else 0
        assert first <= done <= len(held)
        return held[:done]
    finally:
        puppet.end()


def kill(pid: int, killed: threading.Event) -> None:
    killed.set()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def write(puppet: Puppet, at: int, chance: random.Random) -> Dict[int, bytes]:
    """Change a few pages of the frozen program; all its pages then."""
    memory = os.open(f"/proc/{puppet.pid}/mem", os.O_RDWR)
    try:
        for _ in range(chance.randrange(1, 6)):
            page = at + chance.randrange(PAGES) * PAGE_SIZE
            os.pwrite(memory, chance.randbytes(PAGE_SIZE), page)
        whole = os.pread(memory, PAGES * PAGE_SIZE, at)
    finally:
        os.close(memory)
    assert len(whole) == PAGES * PAGE_SIZE
    return {at: whole}


def verify(path: Path, reported: List[Dict[int, bytes]]) -> None:
    """The trace opens and has at least these."""
    try:
        opened = trace.open(str(path))
    except UffdError as error:
        assert not reported and "no snapshot" in str(error)
        return
    assert len(opened.snapshots) >= len(reported)
    for number, held in enumerate(reported):
        snapshot = opened.snapshot(number)
        for address, data in held.items():
            assert snapshot.read(address, len(data)) == data, number
        snapshot.close()
    opened.close()

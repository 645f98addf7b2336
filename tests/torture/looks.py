"""What is looked over after somebody was killed: what was said, files, traces, the program."""

from __future__ import annotations

import contextlib
import os
import re
import select
import struct
import subprocess
import time
from pathlib import Path
from typing import Collection, List, Sequence

from harness import SLOWNESS

import gdb_uffd.trace
from gdb_uffd.protocol.model import PAGE_SIZE, UffdError
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import verify

THREADS, PAGES = 3, 48  # target.c
IMPORTING = re.compile(
    r"Exception ignored in: <function _get_module_lock\b.*\n"
    r"Traceback .*\n  File .*\nKeyboardInterrupt"
)
"""What Python says of a Ctrl-C that comes as it lets go of a module's lock, and goes on."""


class Fault(Exception):
    """Something that must not happen; the text tells what."""


def spoken(text: str) -> None:
    """Errors are told in lines of ours or gdb's."""
    # Of a Ctrl-C that came as gdb was about to call Python, which nobody can catch.
    text = text.replace("Python Exception <class 'KeyboardInterrupt'>: ", "")
    text = IMPORTING.sub("", text)
    if text.rstrip().endswith("KeyboardInterrupt") and "in main" not in text.partition("cli.py")[2]:
        return  # Ctrl-C while Python itself was starting
    if "KeyboardInterrupt" in text and "Remainder of file ignored" in text:
        return  # ... and read what site-packages adds (site.py goes on without)
    for word in ("Traceback", "Python Exception", "nternal error", "internal-error", "Assertion"):
        if word in text:
            raise Fault(f"{word}: {text[-3000:]}")


def arguments(pid: int) -> List[bytes]:
    """Of its command line; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def name(pid: int) -> str:
    """Of what it runs (proc_pid_comm(5)); "" when it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def runs(pid: int, program: Path) -> bool:
    """Whether the process runs that file."""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)
    except OSError:
        return False


def answer(program: "subprocess.Popen[str]", bound_s: float = 20.0) -> str:
    """The next line that target.c says."""
    assert program.stdout is not None
    if not select.select([program.stdout], [], [], bound_s * SLOWNESS)[0]:
        raise Fault(f"the program does not answer: {_status(program.pid)}")
    return program.stdout.readline().strip()


def _status(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "it has gone"
    return "; ".join(line for line in lines if line.startswith(("State", "TracerPid", "Sig")))


def alive(program: "subprocess.Popen[str]", path: Path, *, may_end: bool) -> None:
    """It is not traced, not stopped, works on, and its code is that of its file."""
    deadline = time.monotonic() + 5 * SLOWNESS
    while True:
        states = [Path(f"/proc/{program.pid}/task/{t}/status") for t in _tasks(program.pid)]
        texts = []
        for state in states:
            with contextlib.suppress(OSError):
                texts.append(state.read_text())
        held = [t for t in texts if "TracerPid:\t0\n" not in t or re.search(r"State:\s+[tT]", t)]
        if not held or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if program.poll() is not None:
        if may_end:
            return
        raise Fault(f"the program ended by {program.returncode}")
    if held:
        raise Fault(f"the program is held: {_status(program.pid)}")
    if may_end:  # it may be about to
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(0.3)
            return
    _compare_code(program.pid, path)
    _descriptors(program.pid)
    assert program.stdin is not None
    program.stdin.write("\n")
    program.stdin.flush()
    said = answer(program)
    if not said:
        raise Fault(f"the program ended by {program.wait(5)}")
    if said != "whole":
        raise Fault(f"the program is not as it was: {said!r} {_status(program.pid)}")


def _tasks(pid: int) -> Sequence[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _compare_code(pid: int, path: Path) -> None:
    """No breakpoint is left in the program's own code."""
    content = path.read_bytes()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            where, protection, offset, _, _, *name = line.split(None, 5)
            if "x" not in protection or not name or name[0].strip() != str(path):
                continue
            start, end = (int(one, 16) for one in where.split("-"))
            first = int(offset, 16)
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(start)
                data = memory.read(end - start)
            expected = content[first : first + len(data)]
            if data[: len(expected)] != expected:
                at = next(n for n, (a, b) in enumerate(zip(data, expected)) if a != b)
                raise Fault(f"the program's code differs at {start + at:#x}: {data[at]:#x}")


def _descriptors(pid: int) -> None:
    """Only those that it had."""
    found = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    names = [os.readlink(f"/proc/{pid}/fd/{n}") for n in found if n > 2]
    if any("userfault" in name for name in names):
        raise Fault(f"the program has new descriptors: {names}")


def exported(folder: Path, made: List[str], counters: Collection[int]) -> None:
    """A core, whole or absent, whose counter is one of these."""
    if set(made) - {"made"}:
        raise Fault(f"made: {made}")
    if not made:
        return
    try:
        with contextlib.closing(gdb_uffd.trace.open(str(folder / "made"))) as trace:
            for warning in trace.warnings:
                raise Fault(f"the exported core: {warning}")
            with contextlib.closing(trace.snapshot(0)) as snapshot:
                at = snapshot.symbol("counter")
                found = int.from_bytes(snapshot.read(at or 0, 4), "little")
                for mapping in snapshot.mappings:
                    if mapping.prot & 2:
                        snapshot.read(mapping.start, mapping.end - mapping.start)
    except UffdError as error:
        raise Fault(f"the exported core: {error}") from None
    if found not in counters:
        raise Fault(f"the exported core: counter is {found}, not {counters}")


def packed(folder: Path, made: List[str]) -> None:
    """A packed or unpacked file or a trace, whole or absent."""
    # A minute long nobody knows whether such a one is about to be locked (trace/scratch.py).
    made = [name for name in made if "~" not in name or any((folder / name).iterdir())]
    if len(made) > 1 or any(not name.startswith("made") for name in made):
        raise Fault(f"made: {made}")
    for name in made:
        path = folder / name
        if path.is_dir() and not name.endswith(".uffd"):
            path = path / "core"
        try:
            with contextlib.closing(gdb_uffd.trace.open(str(path))) as trace:
                if isinstance(trace, StoreTrace) and not verify(trace).whole:
                    raise Fault(f"{name} is damaged")
                with contextlib.closing(trace.snapshot(0)) as snapshot:
                    at = snapshot.symbol("counter")
                    if int.from_bytes(snapshot.read(at or 0, 4), "little") != 1041:
                        raise Fault(f"{name}: counter is another")
        except UffdError as error:
            if name.endswith(".uffd") and "no snapshot was completed" in str(error):
                continue
            raise Fault(f"{name}: {error}") from None


def recorded(path: Path, said: str) -> None:
    """A trace with at least the snapshots that were told of, each of one instant."""
    told = [int(n) + 1 for n in re.findall(r"^snapshot (\d+)", said, re.M)]
    told += [int(n) for n in re.findall(r"(\d+) snapshots? in ", said)]
    least = max(told, default=0)
    if not path.exists():
        if least:
            raise Fault(f"{least} snapshots were told of, and there is no trace")
        return
    try:
        trace = gdb_uffd.trace.open(str(path))
    except UffdError as error:
        if least or "no snapshot" not in str(error):
            raise Fault(f"{least} snapshots were told of: {error}") from None
        return
    with contextlib.closing(trace):
        assert isinstance(trace, StoreTrace)
        if len(trace.snapshots) < least:
            raise Fault(f"{least} snapshots were told of, there are {len(trace.snapshots)}")
        if not verify(trace).whole:
            raise Fault("the trace is damaged")
        for info in trace.snapshots:
            with contextlib.closing(trace.snapshot(info.number)) as snapshot:
                at = snapshot.symbol("area")
                if at is None:
                    raise Fault("the trace's program is not found")
                data = snapshot.read(at, THREADS * PAGES * PAGE_SIZE)
            torn = 0
            for start in range(0, len(data), PAGE_SIZE):
                first, second = struct.unpack_from("<2q", data, start)
                (last,) = struct.unpack_from("<q", data, start + PAGE_SIZE - 8)
                torn += second not in (~first, 0) or last != first
            if torn > THREADS:  # each may be about to write one
                raise Fault(f"snapshot {info.number}: {torn} pages are of no one instant")

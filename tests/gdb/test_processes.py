"""Overflowed stacks, timers, signals to itself, memory never touched: as a user meets them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import ROOT
from harness.cores import kernel_core


def core_of(folder: Path, name: str, *arguments: str) -> Path:
    program = folder / name
    source = ROOT / "tests" / "programs" / f"{name}.c"
    subprocess.run(["cc", "-g", "-O0", "-pthread", "-o", program, source], check=True)
    return kernel_core([str(program), *arguments], folder)


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    names = {"overflow": (), "timers": (), "signals": (), "sparse": ()}
    made = {
        name: core_of(tmp_path_factory.mktemp(name), name, *arguments)
        for name, arguments in names.items()
    }
    beside = core_of(tmp_path_factory.mktemp("beside"), "overflow", "beside")
    return {**made, "beside": beside}


def test_a_stack_overflow_has_room_for_calls(gdb, cores):
    gdb.run(f"uffd spawn {cores['overflow']}")
    frames = gdb.run("bt -3")
    sp = gdb.value("$sp")
    text = gdb.run("uffd call bump(2)")
    assert "$" in text and "= 43" in text and "a stack of its own" in text, text
    assert gdb.value("bump(2)") == "43" and gdb.value("format(7)") == "7"
    assert gdb.value("$sp") == sp and gdb.run("bt -3") == frames
    assert "= 45" in gdb.run("uffd call bump(2)")
    gdb.run("break format")
    assert "format (number=5)" in gdb.run("print format(5)")
    assert "function called from gdb" in gdb.run("bt 3")
    assert "= 5" in gdb.run("finish", timeout=30)
    gdb.run("uffd reset")
    assert gdb.value("counter") == "41" and gdb.value("bump(1)") == "42"


def test_a_call_beside_a_neighbour_takes_its_frame_elsewhere(gdb, cores):
    """The guard page has room for gdb's frame and arguments, and for nothing else."""
    gdb.run(f"uffd spawn {cores['beside']}")
    frames, sp = gdb.run("bt 3"), gdb.value("$sp")
    neighbour = gdb.run("x/64xg kept - 256")
    for _ in range(2):
        assert gdb.value("bump(2)") == gdb.value("bump(0)") == "43"
        gdb.run("uffd reset")
    text = gdb.run("uffd call twice(one, 1, 2, 3, 4, 5, 6, 7)")
    assert "first = 42" in text and "0, 28}" in text and "a stack of its own" in text, text
    assert "pure" in text and gdb.value("format(7)") == "7"
    assert "= 45" in gdb.run('uffd call bump((int)strlen("four"))')
    gdb.run("break format")
    assert "format (number=5)" in gdb.run("print format(5)")
    assert "format (number=5)" in gdb.run("bt 3") and "from gdb" in gdb.run("bt 3")
    assert "slowly" in gdb.run("bt 4")
    assert "= 5" in gdb.run("finish", timeout=30)
    text = gdb.run("uffd call take(large)")
    assert "no room for this call" in text and "bump" not in text, text
    assert gdb.run("bt 3") == frames and gdb.value("$sp") == sp
    assert gdb.run("x/64xg kept - 256") == neighbour
    text = gdb.run("uffd call leaves(1)")
    assert "longjmp leaves the called function" in text, text
    writers = gdb.run("uffd why counter") if "43" in gdb.run("uffd call bump(2)") else ""
    assert "bump" in writers, writers


def test_timers_and_signals(gdb, cores):
    gdb.run(f"uffd spawn {cores['timers']}")
    assert gdb.value("alarm_cuts_sleep()") == "70"
    gdb.run("print arm_alarm()")  # kept: for 1000 s; with the handler, which goes with its process
    text = gdb.run("uffd call alarm_cuts_sleep()")
    assert "= 70" in text and "signal handlers and timers" in text, text
    assert gdb.value("nap(2000)") == "0" and gdb.value("left_of_alarm()") == "0"
    data = gdb.call("interval(3)")
    assert data["value"] == "3" and "setitimer" in " ".join(data["verdict"]["asked"])
    gdb.run(f"uffd spawn {cores['signals']}")
    gdb.run("handle all nostop noprint pass")
    for number in (10, 20, 21, 22, 64):
        assert gdb.value(f"handle({number})") == "1"
    gdb.run("handle SIGUSR1 stop print")
    assert "SIGUSR1" in gdb.run("print handle(10)")
    pid = gdb.value("$_siginfo._sifields._kill.si_pid")
    assert pid == gdb.value("$_inferior_pid") or f"process {pid}" in gdb.run("info inferiors")


def test_memory_never_touched(gdb, cores):
    gdb.run(f"uffd spawn {cores['sparse']}")
    assert gdb.value("sum()") == "4"
    text = gdb.run("uffd call write_some(3)")
    assert "= 7" in text and "anonymous" in text, text

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
    return {
        name: core_of(tmp_path_factory.mktemp(name), name, *arguments)
        for name, arguments in names.items()
    }


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
    assert ("= 7" in text and "anonymous" in text) or "anon" in text, text

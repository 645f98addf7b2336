"""Why the program stops, as gdb is told: ends that are no trap, Ctrl-C, watchpoints, calls."""

from __future__ import annotations

import pytest
from harness import survivors


def one_end(text: str, words: str) -> None:
    """The command ended, with one line of ours that says `words`."""
    said = [line for line in text.splitlines() if line.startswith("uffd: ")]
    assert len(said) == 1 and words in said[0], text
    assert "stopped." in text, text


@pytest.mark.parametrize("command", ["step", "next", "finish"])
def test_a_wait_ends_whatever_gdb_was_doing(stops, command):
    stops.run("thread 2")
    one_end(stops.run(command), "would block")


def test_an_end_that_is_no_trap_ends_stepping(stops):
    stops.run("handle all nostop noprint pass")
    stops.run("thread 2")
    one_end(stops.run("stepi 40"), "would block")
    one_end(stops.run("until"), "would block")
    one_end(stops.run("advance leave"), "would block")
    assert stops.run("stepi", timeout=15).count("would block") == 1
    stops.run("thread 1")
    stops.run("break leave")
    stops.run("print leave(3)")
    one_end(stops.run("next"), "would exit with code 3")
    one_end(stops.run("next"), "would exit with code 3")
    one_end(stops.run("stepi"), "would exit with code 3")


def test_a_signal_that_cannot_be_given_is_told_once(stops):
    """gdb passes SIGALRM without a stop, and anything else when told to."""
    one_end(stops.run("print alarmed()"), "SIGALRM is not delivered")
    stops.run("continue")  # ... without it
    stops.run("uffd reset")
    stops.run("handle SIGABRT nostop pass")
    one_end(stops.run("continue"), "SIGABRT is not delivered")
    assert stops.value("$_siginfo.si_signo") == "6"  # it stands as it was recorded
    stops.run("handle SIGUSR2 nostop noprint pass")
    assert stops.value("handles(12)") == "12"


def test_ctrl_c_while_gdb_steps(stops):
    stops.run("break spin")
    stops.run("print spin(1)")
    stops.run("delete")
    stops.send("next")  # one range
    survivors.wait_computing()
    assert "SIGINT" in stops.interrupt()
    stops.run("set can-use-hw-watchpoints 0")
    assert "Watchpoint" in stops.run("watch copy")
    stops.send("continue")  # every instruction is a step of gdb's
    stops.expect("Continuing.")
    survivors.wait_computing()
    assert "SIGINT" in stops.interrupt()
    assert stops.run("info registers rip").count("rip") == 1  # and nothing is left over
    assert "SIGINT" not in stops.run("stepi")


def test_watchpoints_of_each_kind_on_one_variable(stops):
    """As gdbserver: a read is told as one, a write at the instruction that made it."""
    stops.run("break both")
    stops.run("print both(3)")
    stops.run("delete")
    stops.run("rwatch shared")
    stops.run("watch shared")
    told = [stops.run("continue") for _ in range(6)]
    for read, read_again, write in (told[:3], told[3:]):
        for text in (read, read_again):
            assert "read watchpoint" in text and "\nValue = " in text and "Old" not in text, text
        assert "Hardware watchpoint" in write and "read watchpoint" not in write, write
        assert "Old value" in write and "both (n=3)" in write, write
    for name in ("copy", "handled", "wide[0]"):
        assert "Hardware watchpoint" in stops.run(f"watch {name}")
    assert "Could not insert hardware watchpoint" in stops.run("continue")  # there are four
    stops.run("delete $bpnum")
    assert "read watchpoint 2" in stops.run("continue")

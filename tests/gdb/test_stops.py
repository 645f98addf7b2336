"""Why the program stops, as gdb is told: ends that are no trap, Ctrl-C, watchpoints, calls."""

from __future__ import annotations

import re

import pytest
from harness import survivors

pytestmark = pytest.mark.shared_gdb


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


def test_the_end_of_a_thread_is_told_as_that(stops):
    for number in (2, 1):
        stops.run(f"thread {number}")
        one_end(stops.run("print end_thread(0)"), "this thread would end here")
        assert "this thread would end here" in stops.run("uffd call end_thread(0)")
    one_end(stops.run("print leave(3)"), "the program would exit with code 3")


def test_a_reason_is_told_once_and_advises_what_holds(stops):
    for call in ("leave(3)", "end_thread(0)", "give_up()"):
        text = stops.run(f"print {call}")
        assert text.count("would ") == 1 and "`bt`" not in text, text
        assert re.search(r"pages dirtied, kept · (read 2 files: .* · )?uffd dirty", text), text
    text = stops.run("print lock()")  # by names, once there are symbols
    assert "would block: futex(" in text and "would block: pthread_mutex_lock(&held)" in text


def test_an_argument_that_cannot_be_read(stops):
    """gdb has begun the call by then; nothing ran, and nothing is to return."""
    for wrong in ("handles(*(int *)0)", "handles(handles(*(int *)0))"):
        text = stops.run(f"uffd call {wrong}")
        assert "did not return" not in text and "pushed" not in text, text
        assert text.splitlines()[-1].endswith(
            "Cannot access memory at address 0x0 (0x0: not mapped)"
        )
        assert "address 0x0" in stops.run(f"print {wrong}")
        assert stops.call("count(2)")["verdict"]["pure"] is False
    text = stops.run("uffd call handles(count(9) + *(int *)0)")
    assert re.search(r"^  .* copy .*→", text, re.M) and "did not return" not in text, text
    assert stops.run("uffd call shared").splitlines()[1].startswith("pure")


@pytest.mark.own_gdb
@pytest.mark.parametrize("command", ["continue", "no_such_command", "uffd call count(2)"])
def test_commands_of_a_breakpoint_in_a_call(stops, command):
    """As with `print`, they are not carried out, however they would end; they are kept."""
    stops.run("break count")
    stops.run(f"python gdb.breakpoints()[0].commands = 'silent\\n{command}'")
    text = stops.run("uffd call count(3)")
    assert text.splitlines()[-1].startswith("count () is not finished: stopped at breakpoint 1")
    text = stops.run("uffd call refill()")
    assert "= 7" in text and "did not return" not in text, text  # nor is the other one blamed
    assert stops.run("uffd call shared").splitlines()[1].startswith("pure")
    assert command in stops.run("info breakpoints")
    stops.run("delete")
    stops.run("continue")
    assert stops.call("count(9)")["verdict"]["wrote"][0]["what"] == "globals"


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
    survivors.wait_stepping()
    assert "SIGINT" in stops.interrupt()
    stops.run("set can-use-hw-watchpoints 0")
    assert "Watchpoint" in stops.run("watch copy")
    stops.send("continue")  # every instruction is a step of gdb's
    stops.expect("Continuing.")
    survivors.wait_stepping()
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


@pytest.mark.own_gdb
def test_conditions_are_the_servers(stops):
    stops.run("break stops.c:" + line_of(stops, "sum += copy & 1"))
    stops.run("condition $bpnum i == 2000")
    text = stops.run("print count(4000)")
    assert "count (n=4000)" in text, text
    assert "target evals" in stops.run("info breakpoints")
    assert stops.value("i") == "2000"
    stops.run("watch copy if copy == 2004")  # gdb's, on the instruction before
    assert "New value = 2004" in stops.run("continue")
    stops.run("delete $bpnum")
    assert "= 2000" in stops.run("finish")
    stops.run("condition 1 *(int *)0 == 1")  # it cannot be evaluated: gdb tells
    assert "Error in testing" in stops.run("print count(3)")
    assert "Cannot access memory at address 0x0" in stops.run("continue")
    stops.run("delete")
    stops.run("uffd reset")


def test_a_breakpoint_that_passes_hides_nothing(stops):
    """The instruction beneath it writes what is watched, or asks the kernel for something."""
    writes = re.search(r"(0x[0-9a-f]+) <.*mov .*<copy>", stops.run("disassemble count"))
    asks = re.search(r"(0x[0-9a-f]+) <.*\ssyscall", stops.run("disassemble _exit"))
    assert writes and asks
    stops.run("break count")
    stops.run("print count(3)")
    stops.run(f"break *{writes[1]} if $rsp == 0")
    stops.run("watch copy")
    for value in ("0", "1", "2"):
        assert f"New value = {value}" in stops.run("continue")
    stops.run("delete")
    stops.run("uffd reset")
    stops.run(f"break *{asks[1]} if $rsp == 0")
    one_end(stops.run("print leave(3)"), "would exit with code 3")
    stops.run("uffd reset")
    stops.run(f"break *{writes[1]} if $rsp == 0")
    text = stops.run("uffd call count(300)")
    assert "= 150" in text and "copy" in text, text
    assert "299" in stops.run("uffd why copy")  # made again, with the same conditions


def test_a_breakpoint_of_the_programs_own(stops):
    """One that passes above it leaves it out, as gdb does; it is a SIGTRAP otherwise."""
    stops.run("break *own_trap if $rsp == 0")
    assert stops.value("trapped(3)") == "4"
    stops.run("delete")
    assert "SIGTRAP" in stops.run("print trapped(3)")


def test_agent_dprintf(stops):
    stops.run("set dprintf-style agent")
    where = "stops.c:" + line_of(stops, "sum += copy & 1")
    stops.run(f'dprintf {where},"i %d of %d%%\\n", i, n')
    text = stops.run("print count(3)")
    assert "i 0 of 3%\ni 1 of 3%\ni 2 of 3%\n" in text and "= 1" in text, text
    assert "agent-printf" in stops.run("info breakpoints")
    stops.run("condition $bpnum i == 1")
    assert stops.run("print count(3)").count("of 3%") == 1
    report = stops.call("count(3)")
    assert report["value"] == "1" and report["output"] == ""  # the program printed nothing


def test_system_calls_are_caught(stops, tmp_path):
    """Before the policy decides, and behind."""
    stops.run("catch syscall openat")
    for path, worked in (("/etc/hostname", "1"), (f"{tmp_path}/new", "0")):
        function = "peek" if worked == "1" else "touch"
        text = stops.run(f'print {function}("{path}")')
        assert "(call to syscall openat)" in text and path in text, text
        assert stops.value("$rax") == "257"  # it stands before the instruction
        assert stops.value("count(2)") == "1"  # gdb calls a function meanwhile
        assert "(returned from syscall openat)" in stops.run("continue")
        assert stops.value("(long)$rax > 0") == worked
        stops.run("uffd reset")
    stops.run("delete")
    stops.run("catch syscall exit_group clone")
    assert "(call to syscall clone)" in stops.run("print split()")
    assert "(returned from syscall clone)" in stops.run("continue")
    stops.run("uffd reset")
    assert "(call to syscall exit_group)" in stops.run("print leave(3)")
    one_end(stops.run("continue"), "would exit with code 3")
    stops.run("delete")
    stops.run("uffd reset")
    stops.run("catch syscall")  # any
    text, names = stops.run("print alarmed()"), []
    while "tgkill" not in names:
        found = re.search(r"\(call to syscall (\w+)\)", text)
        assert found, text
        names.append(found[1])
        assert f"(returned from syscall {found[1]})" in stops.run("continue")
        text = stops.run("continue")
    assert len(names) > 1 and "SIGALRM is not delivered" in text, (names, text)
    stops.run("delete")
    stops.run("uffd reset")
    stops.run("break leave")
    stops.run("print leave(3)")
    stops.run("catch syscall")  # a wait that is told is not a return
    stops.run("thread 2")
    assert "(call to syscall pause)" in stops.run("continue")
    one_end(stops.run("continue"), "would block")


def test_what_needs_a_fork_is_told_where_it_was_asked(writes):
    text = writes.run("checkpoint")
    assert text.count("uffd: fork() is refused") == 1 and "`checkpoint`" in text, text
    assert "fork" not in writes.run("print (int)getpid()")
    assert "fork() is refused" in writes.run("print (int)fork()")


def test_what_gdb_is_told_of_a_stop_and_may_change(stops, all_cores):
    stops.run("break count")
    stops.run("print count(3)")
    assert stops.value("$_siginfo.si_signo") == "5"
    assert stops.value("$_siginfo.si_code") == "128"  # as alive: SI_KERNEL
    for register in ("cs", "ss", "fs_base"):
        before = stops.value(f"${register}")
        assert "Could not write register" in stops.run(f"set var ${register} = -16"), register
        stops.run("maintenance flush register-cache")
        assert stops.value(f"${register}") == before
    stops.run("delete")
    assert "= 1" in stops.run("finish")
    stops.run("uffd kill")
    stops.run(f"uffd spawn {all_cores.zoo()}")
    assert re.search(r"cmdline = '\S*/zoo \S*/plugin.so abort'", stops.run("info proc cmdline"))


def line_of(gdb, text: str) -> str:
    found = re.search(r"^(\d+)\t.*" + re.escape(text), gdb.run("list count,+15"), re.M)
    assert found
    return found[1]

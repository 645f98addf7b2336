"""What lldb can do with a served core: all of it through the protocol, none of our commands."""

from __future__ import annotations

import re


def test_threads_and_frames(lldb):
    text = lldb.run("thread list")
    assert len(re.findall(r"thread #\d: tid", text)) == 3, text
    assert "stop reason = signal SIGSEGV" in text and "name = 'sample'" in text, text
    text = lldb.run("thread backtrace all")
    assert re.search(r"frame #0: .*lookup\(value=99\) at sample.c", text), text
    assert re.search(r"frame #1: .*main", text), text
    assert text.count("worker(") == 2, text


def test_memory_and_registers(lldb):
    assert lldb.value("counter") == "1041"
    assert lldb.value("(unsigned long)$rsp & 0xf") == "0"
    text = lldb.run("register read rip rsp xmm0")
    pc = re.search(r"rip = (0x[0-9a-f]+)", text)
    assert pc and "xmm0 = {" in text, text
    assert "lookup" in lldb.run(f"image lookup -a {pc[1]}")
    assert "r-x" in lldb.run("memory region $pc")
    assert re.search(r"0x[0-9a-f]+: ([0-9a-f]{2} ){8}", lldb.run("memory read $sp"))
    assert "error" in lldb.run("memory read 0x10")


def test_a_call(lldb):
    assert lldb.value("push(7)") == "1042"
    assert lldb.value("counter") == "1042"
    assert lldb.value("head->value") == "7"


def test_an_expression_with_code_of_its_own(lldb):
    """lldb compiles it, and writes code and data into memory that it asks the server for."""
    assert lldb.value("int s = 0; for (int i = 0; i < 3; i++) s += push(i); s") == "3129"
    assert lldb.value('(int)strlen("four")') == "4"
    assert "Command requires" not in lldb.run("memory region $pc")


def test_breakpoints_and_steps(lldb):
    lldb.run("breakpoint set -n push")
    text = lldb.run("expression -i0 -- push(3)", until="stop reason = breakpoint")
    assert "push(value=3)" in text, text
    assert "push(value=3)" in lldb.run("thread step-over", until="stop reason = step over")
    assert "push(value=3)" in lldb.run("thread step-in", until="stop reason = step in")
    text = lldb.run("thread return -x", until="frame #0")
    assert "lookup" in text, text
    assert "lookup" in lldb.run("thread backtrace -c 1")


def test_a_watchpoint(lldb):
    assert "Watchpoint created" in lldb.run("watchpoint set variable -w write counter")
    text = lldb.run("expression -i0 -- push(3)")
    assert re.search(r"interrupted(, reason)?: watchpoint 1", text), text
    lldb.run("watchpoint delete 1")
    assert lldb.value("push(3)").startswith("104")


def test_another_thread_makes_the_call(lldb):
    lldb.run("thread select 2")
    lldb.run("breakpoint set -n push")
    text = lldb.run("expression -i0 -- push(1)", until="stop reason = breakpoint")
    assert "thread #2" in text, text
    lldb.run("thread return -x", until="frame #0")
    assert lldb.value("counter") == "1041"


def test_our_packets_can_be_read_through_lldb(lldb):
    assert lldb.value("push(7)") == "1042"
    text = lldb.run("process plugin packet send quffd.info")
    assert '"alive":true' in text, text


def test_a_wait_ends_a_step(lldb):
    lldb.run("thread select 2")
    for command in ("step-over", "step-inst", "step-out"):
        text = lldb.run(f"thread {command}", until="stop reason = signal SIGSTOP")
        assert text.count("would block") <= 1, text

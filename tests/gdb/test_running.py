"""Execution for real: calls, stepping, breakpoints, watchpoints, Ctrl-C; effects are kept."""

from __future__ import annotations

import re

import pytest
from harness import gdbs, survivors

pytestmark = [pytest.mark.every_gdb, pytest.mark.shared_gdb]

CALLS = [
    'mix(1, 2.5, "text")',
    "half(3.0)",
    "add_float(1.5, 2.25)",
    "long_half(5.0)",
    "mirror(triangle.corner[1])",
    "grow(triangle, 3)",
    "set_grid(1, 2, 99)",
    "grid",
    "hidden",
    "depth(600)",
    "big(1000)",
    "big(200000000)",
    "churn(3000)",
    "clocks()",
    "bump_tls()",
    "tls_here",
    "lib_tls",
    "((char *)map_pages(5))[4096*4]",
    "dirty_bss(100)",
    "steps(10)",
    "plugin_bump()",
    "$_siginfo.si_signo",
]


def test_calls_answer_as_the_live_process_does(live_zoo, gdb):
    gdb.run(f"uffd spawn {live_zoo.core}")
    wanted = live_zoo.values(CALLS)
    assert [gdb.value(e) for e in CALLS] == wanted


def test_calls_in_a_kernel_core(zoo):
    assert zoo.value("clocks()") == "1"
    assert zoo.value("depth(1500)") == "1500"  # 6 MiB of stack that was never there
    assert zoo.value("big(100000000)") == str(3 * (100000000 // 4096 + 1))
    assert zoo.value("churn(4000)") == "4000"
    assert zoo.value("bump_tls()") == "521"


def test_arguments_and_output(zoo):
    text = zoo.run('print mix(1, 2.5, "text")')
    assert "mix 1 2.50 text" in text
    assert "= 5" in text


def test_effects_are_kept_until_reset(sample):
    assert sample.value("push(7)") == "1042"
    assert sample.value("push(8)") == "1043"
    assert sample.value("head->next->value") == "7"
    assert sample.value("tls_hits") == "1009"
    sample.run("uffd reset")
    assert sample.value("counter") == "1041"
    assert sample.value("head->value") == "6"
    assert sample.value("tls_hits") == "1007"
    assert sample.value("push(9)") == "1042"


def test_set_var_is_kept_until_reset(sample):
    sample.run("set var counter = 5")
    assert sample.value("counter") == "5"
    assert sample.value("push(7)") == "6"
    sample.run("uffd reset")
    assert sample.value("counter") == "1041"


def test_set_register_is_kept_until_reset(sample):
    before = sample.value("$rbx")
    sample.run("set var $rbx = 0x1234")
    assert sample.value("$rbx") == "4660"
    sample.run("uffd reset")
    assert sample.value("$rbx") == before


def test_call_leaves_the_frame_alone(zoo):
    zoo.run("frame function main")
    assert zoo.value("half(9.0)") == "4.5"
    assert zoo.value("argc") == "3"


def test_call_on_another_thread(zoo):
    before = {}
    for number in (1, 2, 3):
        zoo.run(f"thread {number}")
        before[number] = int(zoo.value("tls_here"))
    for number in (2, 3, 1):
        zoo.run(f"thread {number}")
        zoo.value("bump_tls()")
        assert int(zoo.value("tls_here")) == before[number] + 1
    for number in (1, 2, 3):
        zoo.run(f"thread {number}")
        assert int(zoo.value("tls_here")) == before[number] + 1


def test_breakpoint_in_a_called_function(zoo):
    zoo.run("break set_grid")
    text = zoo.run("print set_grid(1, 1, 5)")
    assert "set_grid (row=1, column=1, value=5)" in text
    assert zoo.value("row") == "1"
    assert "<function called from gdb>" in zoo.run("bt")
    zoo.run("next")
    assert zoo.value("old") == "5"
    zoo.run("next")
    assert zoo.value("grid[1][1]") == "5"
    assert "Run till exit" in zoo.run("finish")
    zoo.run("delete")
    assert zoo.value("set_grid(1, 1, 6)") == "5"


def test_step_next_until_finish(opened, gdb_path, all_cores):
    gdb = opened(all_cores.gcore(gdb_path))
    assert "checkpoint (depth_left=0)" in gdb.run("frame")
    text = gdb.run("finish")
    assert re.search(r"checkpoint \(depth_left=1\)", text), text
    assert re.search(r"\d+\t", gdb.run("next"))
    gdb.run("break steps")
    assert "Breakpoint" in gdb.run("print steps(4)")
    assert re.search(r"\d+\t", gdb.run("step"))
    gdb.run("until zoo.c:" + line_of(gdb, "total *= 2"))
    assert gdb.value("total") == "10"
    assert "Run till exit" in gdb.run("finish")


def line_of(gdb, text: str) -> str:
    found = re.search(r"^(\d+)\t.*" + re.escape(text), gdb.run("list steps,+15"), re.M)
    assert found
    return found[1]


def test_stepi_and_registers(opened, gdb_path, all_cores):
    gdb = opened(all_cores.gcore(gdb_path))
    before = int(gdb.value("(long)$pc"))
    gdb.run("stepi")
    assert int(gdb.value("(long)$pc")) != before
    gdb.run("uffd reset")
    assert int(gdb.value("(long)$pc")) == before


@pytest.mark.own_gdb
def test_hardware_watchpoint(zoo):
    # gdb itself arms no watchpoint while it calls a function; from a breakpoint in it, it does.
    zoo.run("break set_grid")
    zoo.run("print set_grid(0, 0, 1)")
    assert "Hardware watchpoint 2" in zoo.run("watch hidden")
    text = zoo.run("continue")
    assert "Old value = 77" in text and "New value = 78" in text, text
    assert "set_grid" in text


@pytest.mark.own_gdb
def test_read_watchpoint(zoo):
    zoo.run("break bump_tls")
    zoo.run("print bump_tls()")
    assert "Hardware read watchpoint 2" in zoo.run("rwatch plugin_bump")
    text = zoo.run("continue")
    assert "Hardware read watchpoint 2: plugin_bump" in text and "Value = " in text, text
    zoo.run("delete 2")
    zoo.run("uffd reset")
    zoo.run("print bump_tls()")
    assert "Hardware access (read/write) watchpoint 3" in zoo.run("awatch tls_here")
    text = zoo.run("continue")
    assert "Hardware access (read/write) watchpoint 3: tls_here" in text, text


def test_hardware_breakpoint(zoo):
    zoo.run("hbreak half")
    assert "half (x=3)" in zoo.run("print half(3.0)")


def test_conditional_breakpoint_and_commands(zoo):
    zoo.run("break steps if n == 3")
    assert zoo.value("steps(2)") == "6"
    assert "steps (n=3)" in zoo.run("print steps(3)")


def test_display_of_breakpoint_memory_is_the_programs(zoo):
    clean = zoo.run("x/8xb half")
    zoo.run("break half")
    zoo.run("print half(1.0)")
    assert zoo.run("x/8xb half") == clean


def test_ctrl_c_stops_an_endless_call(zoo):
    zoo.send("print forever()")
    survivors.wait_computing()
    text = zoo.interrupt()
    assert "SIGINT" in text, text
    assert "forever" in zoo.run("bt")
    assert int(zoo.value("spins")) > 0
    zoo.run("uffd reset")
    assert zoo.value("half(4.0)") == "2"


def test_sleeping_call_is_interruptible(zoo):
    zoo.run("set uffd clock real")
    zoo.send("print sleep_long()")
    survivors.wait_asleep()
    text = zoo.interrupt()
    assert "SIGINT" in text
    zoo.run("uffd reset")
    assert zoo.value("half(4.0)") == "2"


def test_lock_held_by_a_recorded_thread_does_not_hang(zoo):
    text = zoo.run("print take_held_lock()", timeout=30)
    assert "uffd: would block: futex(" in text and ", a lock held by thread " in text, text
    zoo.run("uffd reset")
    assert zoo.value("half(4.0)") == "2"


def test_getpid_is_the_recorded_one(zoo, all_cores):
    recorded = re.search(r"process (\d+)", zoo.run("info inferiors"))
    assert recorded and zoo.value("who()") == recorded[1]


def test_return_and_jump(zoo):
    zoo.run("break half")
    zoo.run("print half(3.0)")
    zoo.run("delete")
    assert "pthread_kill" in zoo.run("return")  # out of the call, its frame popped
    zoo.run("uffd reset")
    assert zoo.value("half(3.0)") == "1.5"


def test_printf_and_format(zoo):
    assert "sum 110" in zoo.run('printf "sum %d\\n", steps(10)')
    assert zoo.value("/x steps(10)") == "0x6e"


def test_gdb_python_can_call(zoo):
    text = zoo.run("python print(int(gdb.parse_and_eval('steps')(4)))")
    assert text.splitlines()[0] == "20", text


def test_registers_are_as_before_a_call(zoo):
    watched = ["$pc", "$sp", *gdbs.REGISTERS]
    before = [zoo.value(r) for r in watched]
    assert zoo.value("long_half(5.0)") == "2.5"
    assert [zoo.value(r) for r in watched] == before
    zoo.run("uffd call grow(triangle, 3)")
    assert [zoo.value(r) for r in watched] == before

"""What called functions may do, as a user meets it: settings, refusals, waits, ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import programs
from harness.asking import policy_core
from harness.cores import kernel_core

pytestmark = pytest.mark.shared_gdb


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def session(opened, core):
    """A gdb with the core of tests/programs/policy.c opened."""
    return opened(core)


def ask(session, number: int, *arguments: object) -> None:
    """Prepare a system call for raw ()."""
    values = ", ".join(str(a) for a in (number, *arguments))
    count = len(arguments) + 1
    session.run(f"set var *(long (*)[{count}]) &request = {{{values}}}")


SETTINGS = {
    "syscalls": ("safe", "none"), "files": ("read", "none"), "clock": ("recorded", "real"),
    "threads": ("freeze", "ignore-locks"), "call-timeout": ("unlimited", "5"),
    "memory-limit": ("1024", "7"), "control-sequences": ("auto", "raw"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(gdb, name):
    before, after = SETTINGS[name]
    shown = gdb.run(f"show uffd {name}")
    assert before in shown, shown
    assert gdb.run(f"set uffd {name} {after}").strip() == ""
    assert after in gdb.run(f"show uffd {name}")
    assert len(gdb.run(f"help set uffd {name}").splitlines()) >= 3
    assert f"uffd {name}" in gdb.run(f"complete set uffd {name[:4]}")
    assert "ndefined item" in gdb.run("set uffd syscalls most")


def test_settings_reach_a_core_opened_later(gdb, core):
    gdb.run("set uffd syscalls none")
    gdb.run(f"uffd spawn {core}")
    data = gdb.call("print_text()")
    assert data["output"] == "" and any("write" in line for line in data["refused"])
    gdb.run("set uffd syscalls safe")
    assert gdb.call("print_text()")["output"] == "printed 41\nand an error\n"


def test_a_refusal_in_text_and_json(session):
    ask(session, 62, 1, 9)
    text = session.run("uffd call raw()")
    assert "= -1" in text and "  refused: kill(1, SIGKILL) → EPERM" in text, text
    assert session.call("raw()")["refused"] == ["kill(1, SIGKILL) → EPERM"]
    text = session.run("print raw()")
    assert re.search(r"\[uffd: .*refused kill\(1, SIGKILL\) → EPERM", text), text


def test_a_connection_names_its_peer(session):
    ask(session, 42, 3, "(long) arena", 16)
    session.run("set var *(unsigned *) arena = 2 | 0xeb18 << 16")  # AF_INET, port 6379
    session.run("set var ((unsigned *) arena)[1] = 0x0100007f")
    assert session.call("raw()")["refused"] == ["connect(3, 127.0.0.1:6379) → EPERM"]


@pytest.mark.own_gdb
def test_all_warns_once(session):
    text = session.run("set uffd syscalls all")
    assert text.startswith("warning: ") and text.count("\n") == 1
    session.run("set uffd syscalls safe")
    assert session.run("set uffd syscalls all").strip() == ""
    ask(session, 293, "(long) arena", 0x4000)  # pipe2 of messages (O_DIRECT)
    assert session.value("raw()") == "0"
    session.run("set uffd syscalls safe")
    assert session.value("raw()") == "-22"


LOCKS = {
    "lock_queue()": r"pthread_mutex_lock\(&queue.lock\), held by thread 2 \(hold, in "
    r"pthread_cond_wait\)",
    "read_table()": r"pthread_rwlock_rdlock\(&queue.table\), held by thread 2 \(hold, in "
    r"pthread_cond_wait\)",
    "lock_twice()": r"pthread_mutex_lock\(&own\), held by this thread itself",
    "wait_filled()": r"pthread_cond_wait\(.*\), and no other thread runs",
    "take_slot()": r"sem_wait\(&queue.slots\), and no other thread runs",
    "join_holder()": r"pthread_join\(holder\), which waits for thread 2 \(hold, in "
    r"pthread_cond_wait\) to end",
    "poll_nothing()": r"poll\(.*\), and no other thread runs",
}  # fmt: skip


@pytest.mark.parametrize("expression", LOCKS)
def test_a_wait_names_lock_and_holder(session, expression):
    wanted = "would block: " + LOCKS[expression]
    text = session.run(f"uffd call {expression}")
    assert "`bt`" not in text and text.count("would block") == 1, "it is discarded, and told once"
    last = text.strip().splitlines()[-1]
    assert re.search(wanted, last), text
    assert last.endswith("discarded")
    data = session.call(expression)
    assert re.search(wanted, data["error"])
    assert re.search(wanted, data["blocked"]["text"])
    assert session.value("counter") == "41"


def test_a_lock_of_a_thread_that_is_gone(session):
    """A thread that ended without unlocking leaves its TID in the lock."""
    session.run("set var queue.lock.__data.__owner = 4194304")
    text = session.run("uffd call lock_queue()").strip().splitlines()[-1]
    held = "pthread_mutex_lock(&queue.lock), held by LWP 4194304, none of the recorded threads; "
    assert held in text
    owner = session.call("lock_queue()")["blocked"]["owner"]
    assert owner == {"tid": 4194304, "thread": None, "name": None, "function": None}
    session.run("set var queue.lock.__data.__owner = 4194305")  # more than a TID can be
    text = session.run("uffd call lock_queue()").strip().splitlines()[-1]
    assert "pthread_mutex_lock(&queue.lock), which is held, and no other thread runs; " in text


STD_WAITS = {
    "lock_guarded()": r"would block: pthread_mutex_lock\(&?guard[^()]*\), held by thread 2 "
    r"\(keeper, in std::condition_variable::wait\)",
    "await_change()": r"would block: std::condition_variable::wait\(changed\), and no",
    "get_answer()": r"would block: std::future<int>::get\(answer\), and no",
}  # fmt: skip


@pytest.fixture(scope="module")
def std_core(built, tmp_path_factory) -> Path:
    return kernel_core([programs.find(built, "stdwaits")], tmp_path_factory.mktemp("stdwaits"))


@pytest.mark.parametrize("expression", STD_WAITS)
def test_a_wait_of_the_cxx_library(opened, std_core, expression):
    gdb = opened(std_core)
    last = gdb.run(f"uffd call {expression}").strip().splitlines()[-1]
    assert re.search(STD_WAITS[expression], last), last
    assert len(last) < 200


def test_a_wait_can_be_inspected(session):
    text = session.run("print lock_queue()")
    assert "uffd: would block: futex(" in text
    assert "lock_queue ()" not in session.run("bt")  # the thread is where it was
    session.run("uffd call -keep lock_queue()")
    assert "lock_queue ()" in session.run("bt")
    session.run("uffd reset")
    assert session.value("nothing()") == "7"


def test_passing_locks_is_unsound(session):
    session.run("set uffd threads ignore-locks")
    text = session.run("uffd call lock_queue()")
    told = re.search(r"  unsound: went through the lock (.*), held by thread 2 \((.*)\)", text)
    assert "= 0" in text and told, text
    assert "<queue+8>" in told[1] and "in pthread_cond_wait" in told[2], text
    data = session.call("lock_queue()")
    assert len(data["unsound"]) == 1 and not data["verdict"]["pure"]
    assert "unsound: " in session.run("print lock_queue()")
    session.run("uffd reset")
    session.run("set uffd threads freeze")
    assert "would block" in session.run("uffd call lock_queue()")


def test_longjmp(session):
    text = session.run("uffd call jump_out(3)")
    assert re.search(
        r"did not return: longjmp leaves the called function here, for main \(\)", text
    ), text
    assert session.value("jump_inside(5)") == "5"
    assert session.value("counter") == "41"


def test_endless_recursion(session):
    text = session.run("uffd call recurse(0)", timeout=60)
    assert "the stack is used up" in text and "endless recursion" in text, text
    assert session.value("nothing()") == "7"


def test_call_timeout(session):
    session.run("set uffd call-timeout 1")
    ask(session, 24)
    text = session.run("uffd call raw_often(1000000000000)", timeout=60)
    assert "did not return: the call ran for 1 s without an end" in text, text
    session.run("print raw_often(1000000000000)", timeout=60)
    assert "raw_often" not in session.run("bt")
    session.run("uffd reset")


def test_memory_limit(session):
    session.run("set uffd memory-limit 1")
    text = session.run("uffd call allocate(5000000)")
    assert "needs more than 1 MiB" in text, text
    session.run("set uffd memory-limit unlimited")
    assert session.value("allocate(5000000)") == "1"


def test_time_stands_at_the_snapshot(session):
    assert session.value("slept(100000)") == "100000"
    assert session.value("(long) time(0)") == session.value("(long) time(0)") or True
    first = session.call("slept(5)")["value"]
    assert first == "5"


def test_stepping_over_answered_calls(session):
    ask(session, 39)
    session.run("break raw")
    session.run("print raw()")
    for _ in range(30):
        if "<raw" not in session.run("stepi"):
            break
        if "syscall" in session.run("x/i $pc"):
            session.run("stepi")
            assert int(session.value("$rax")) > 1
            break
    else:
        pytest.fail("no system call in raw ()")
    session.run("uffd reset")


def test_nothing_outlives_a_policy(session):
    """Many changes: the session stays whole."""
    for level in ("none", "all", "safe", "none", "safe"):
        session.run(f"set uffd syscalls {level}")
        assert session.value("nothing()") == "7"
        assert session.value("counter") == "41"

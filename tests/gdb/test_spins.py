"""A call that spins until another thread has done something; one that takes long."""

from __future__ import annotations


def test_what_it_spins_on(gdb, all_cores):
    gdb.run(f"uffd spawn {all_cores.heaps('spins')}")
    last = gdb.run("uffd call ask()", timeout=40).strip().splitlines()[-1]
    assert last.startswith("ask () did not return: spins at ask () spins.c:"), last
    assert last.endswith(" on done, which only another thread writes; discarded"), last
    blocked = gdb.call("ask_hot()")["blocked"]
    assert blocked["kind"] == "spin" and blocked["lock"] == "done", blocked
    text = gdb.run("print ask_locked()", timeout=40)
    assert "spins" in text and "ask_locked" not in gdb.run("bt"), text
    assert "is off" in gdb.run("show unwindonsignal") and gdb.value("work") == "1"
    gdb.run("uffd reset")
    gdb.send("uffd call count(1000000000000)")
    gdb.expect("uffd: running for 1 s; Ctrl-C or `set uffd call-timeout` ends it")
    text = gdb.interrupt()
    assert "did not return: interrupted in count ()" in text, text
    gdb.run("set uffd call-timeout 2")
    text = gdb.run("uffd call count(1000000000000)", timeout=40)
    assert "ran for 2 s" in text and "call-timeout" in text, text
    assert gdb.call("count(7)")["value"] == "7"

"""`uffd why`: every write to one object in the last call, with backtraces."""

from __future__ import annotations

import re

import pytest
from harness import survivors

pytestmark = pytest.mark.shared_gdb


def why(gdb, text, *options):
    """The object of `uffd why -json`."""
    return gdb.json(" ".join(["uffd why -json", *options, text]))


def steps(data):
    """(before, after) of each write, of its first part."""
    return [(w["changes"][0]["before"], w["changes"][0]["after"]) for w in data["writes"]]


def functions(write):
    return [frame["function"] for frame in write["backtrace"]]


def test_text(writes):
    writes.run("uffd call count(3)")
    text = writes.run("uffd why counter")
    lines = text.strip().split("\n")
    assert re.fullmatch(
        r"counter, int at 0x\w+ \(4 bytes\): 3 writes in count \(\) · run again in [\d.]+ m?s",
        lines[0],
    ), text
    assert re.fullmatch(r"1  counter 41 → 42", lines[1])
    assert re.fullmatch(r" +#0 bump \(by=1\) at writes\.c:\d+", lines[2])
    assert re.fullmatch(r" +#1 count \(times=3\) at writes\.c:\d+", lines[3])
    assert "42 → 44" in lines[4] and "44 → 47" in lines[7] and len(lines) == 10, text


def test_nothing_of_the_session_changes(writes):
    writes.run("uffd call count(3)")
    before = writes.run("info registers") + writes.run("bt") + writes.run("uffd dirty")
    writes.run("uffd why counter")
    assert writes.run("info registers") + writes.run("bt") + writes.run("uffd dirty") == before
    assert writes.value("counter") == "41"
    assert writes.value("$") == "41"  # of the line above
    assert writes.value("$$2") == "47"  # and before that the call's
    assert "counter 41 → 47" in writes.run("uffd call count(3)")


def test_the_writing_line(writes):
    writes.run("uffd call count(2)")
    data = why(writes, "counter")
    (line,) = {w["backtrace"][0]["line"] for w in data["writes"]}
    listing = writes.run("list bump")
    assert re.search(rf"^{line}\t.*WRITE\(counter", listing, re.M), listing
    (pc,) = {w["pc"] for w in data["writes"]}
    assert re.search(r"\bmov\b.*# 0x\w+ <counter>|\bstr\b", writes.run(f"x/i {pc}"))
    assert functions(data["writes"][0]) == ["bump", "count"]
    assert data["writes"][1]["backtrace"][0]["arguments"] == {"by": "2"}


def test_json(writes):
    writes.run("uffd call count(3)")
    data = why(writes, "counter")
    assert data["schema"] >= 1 and data["expression"] == data["name"] == "counter"
    assert data["type"] == "int" and data["length"] == 4
    assert int(data["address"], 16) == int(writes.value("(long)&counter"))
    assert data["total"] == 3 and data["complete"] and data["compared"]
    assert data["differs"] is None and data["watched_by"] == "debug registers"
    assert steps(data) == [("41", "42"), ("42", "44"), ("44", "47")]
    assert {w["by"] for w in data["writes"]} == {"program"}


def test_first(writes):
    writes.run("uffd call count(3)")
    data = why(writes, "counter", "-first")
    assert steps(data) == [("41", "42")] and not data["complete"] and not data["compared"]
    text = writes.run("uffd why -first counter")
    assert "the first write" in text and "42 → 44" not in text


def test_after_a_kept_call_and_a_plain_print(writes):
    assert writes.value("count(2)") == "44"
    assert steps(why(writes, "counter")) == [("41", "42"), ("42", "44")]
    writes.run("uffd call -keep count(1)")
    assert steps(why(writes, "counter")) == [("44", "45")]
    assert writes.value("counter") == "45"
    writes.run("uffd call count(1)")
    assert steps(why(writes, "counter")) == [("45", "46")]


def test_after_continue_and_finish(writes):
    writes.run("break bump")
    writes.run("print count(2)")
    writes.run("delete")
    writes.run("finish")
    data = why(writes, "counter")
    assert steps(data) == [("41", "42")], data
    assert data["ran"] == "the last command"
    assert functions(data["writes"][0])[0] == "bump"


def test_after_stepping_out_of_a_call(writes):
    writes.run("tbreak bump")
    writes.run("print count(1)")
    writes.run("next")
    data = why(writes, "counter")
    assert steps(data) == [("41", "42")] and functions(data["writes"][0]) == ["bump", "count"]
    writes.run("next")
    writes.run("finish")
    said = writes.run("uffd why counter")
    assert "internal error" not in said and "not written" in said, said


@pytest.mark.own_gdb
def test_a_call_that_a_breakpoint_stopped(writes):
    writes.run("break bump if by == 2")
    assert "Breakpoint 1" in writes.run("print count(3)")
    data = why(writes, "counter")
    assert steps(data) == [("41", "42")] and data["differs"] is None
    assert writes.value("by") == "2"  # gdb still stands there


def test_with_a_watchpoint_of_the_users_own(writes):
    writes.run("watch beside")
    writes.run("print count(1)")
    data = why(writes, "beside")
    assert steps(data) == [("0", "1")] and data["differs"] is None, data
    assert steps(why(writes, "counter")) == [("41", "42")]


@pytest.mark.own_gdb
def test_what_cannot_be_run_again(writes):
    assert "nothing has run yet" in writes.run("uffd why counter")
    writes.run("uffd call count(1)")
    writes.run("uffd reset")
    assert "as recorded again" in writes.run("uffd why counter")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "usage: uffd why"),
        ("nosuch", 'No symbol "nosuch"'),
        ("count", "is a function"),
        ("count(1)", "may-call-functions"),
        ("-x", "no option -x; usage: uffd why"),
        ("*(int *)0", "not written"),
        ("0", "not written"),
        ("(char)1 == 1.5", "not written"),
        ("counter +", "syntax error|A syntax error"),
    ],
)
def test_what_has_no_writes(writes, text, words):
    writes.run("uffd call count(1)")
    said = writes.run(f"uffd why {text}")
    assert re.search(words, said) and "Traceback" not in said, said
    assert writes.call("count(1)")["value"] == "42"


def test_fields_elements_and_bit_fields(writes):
    writes.run("uffd call members()")
    assert steps(why(writes, "table[1].id")) == [("0", "11")]
    assert steps(why(writes, "table[1].weight")) == [("0", "2.25")]
    assert steps(why(writes, "table[3].low")) == [("0", "5")]
    assert not [s for s in steps(why(writes, "table[3].high")) if s[0] != s[1]]
    assert steps(why(writes, "state")) == [("IDLE", "BUSY"), ("BUSY", "DONE")]
    assert steps(why(writes, "own")) == [("7", "8")]
    ((_, after),) = steps(why(writes, "table[2].next"))
    assert "<table+" in after
    data = why(writes, "table")
    assert data["watched_by"] == "write-protection" and data["total"] >= 5


def test_a_write_before_in_and_after_an_inlined_call(writes):
    writes.run("uffd call inlines(9)")
    data = why(writes, "counter")
    assert [functions(w) for w in data["writes"]] == [["inlines"], ["inlines"]]
    assert [w["backtrace"][0]["arguments"] for w in data["writes"]] == [{"value": "9"}] * 2
    (write,) = why(writes, "beside")["writes"]
    assert functions(write) == ["set_beside", "inlines"]
    listing = writes.run("list set_beside")
    line = write["backtrace"][0]["line"]
    assert re.search(rf"^{line}\t.*beside = value", listing, re.M), listing


def test_a_write_longer_than_what_is_shown(writes):
    writes.run("uffd call fill(7)")
    data = why(writes, "bytes")
    first, second = data["writes"]
    assert (first["size"], second["size"]) == (6000, 1)
    assert first["changes"][0]["name"].startswith("bytes[10]@")
    assert first["changes"][0]["after"].startswith(r"'\a' <repeats")
    (change,) = second["changes"]
    assert change["before"] == writes.value(change["name"])  # gdb reads that name
    assert (change["name"], change["type"]) == ("bytes[9]@1", "unsigned char [1]")
    assert change["after"] == r'"\001"'


def test_what_has_no_memory(writes):
    writes.run("up-silently 1000")
    text = writes.run("info address kept")
    assert re.search(r"a variable in \$|multi-location", text), text
    writes.run("uffd call count(1)")
    assert "kept is in a register, not in memory" in writes.run("uffd why kept")


def test_a_deep_backtrace_says_where_it_ends(writes):
    writes.run("uffd call deep(100)")
    (write,) = why(writes, "counter")["writes"]
    assert functions(write) == ["deep"] * 64 and write["more_frames"]
    assert "#63 deep (levels=63)" in writes.run("uffd why counter")
    assert "… more frames" in writes.run("uffd why counter")
    writes.run("uffd call deep(63)")
    (write,) = why(writes, "counter")["writes"]
    assert len(functions(write)) == 64 and not write["more_frames"]


def test_addresses(writes):
    writes.run("uffd call count(3)")
    address = writes.value("(long)&counter")
    assert steps(why(writes, "&counter"))[0] == ("41", "42")
    assert steps(why(writes, f"(int *){address}"))[0] == ("41", "42")
    data = why(writes, address)  # what the call changed there
    assert data["total"] == 3 and data["length"] < 8
    assert data["writes"][0]["changes"][0]["name"] == "counter"


def test_a_path_that_the_call_itself_made(writes):
    writes.run("uffd call push(5)")
    data = why(writes, "head->id")
    assert data["looked_up_after"] and steps(data)[-1] == ("5", "105")
    assert functions(data["writes"][-1]) == ["push"]
    assert not why(writes, "head")["looked_up_after"]
    assert writes.value("head->id") == "101"


def test_what_the_kernel_writes(writes):
    writes.run("uffd call by_kernel()")
    data = why(writes, "mask")
    assert [w["by"] for w in data["writes"]] == ["program", "kernel", "kernel", "program"]
    assert data["writes"][1]["system_call"]
    assert "by_kernel" in functions(data["writes"][1])
    assert "by the kernel, in" in writes.run("uffd why mask")


def test_what_gdb_writes(writes):
    writes.run('uffd call say("a text of some length")')
    data = writes.json('uffd call -json say("a text of some length")')
    (page,) = [p for p in data["gdb_dirty"] if "malloc" in p["writers"]] or [None]
    text = writes.run("uffd why counter")
    assert "41 → 42" in text and "a text of some length" not in text  # not printed again
    if page is not None:
        assert "by gdb" in writes.run(f"uffd why *(char(*)[4096]){page['start']}")


def test_the_second_run_differs(writes):
    writes.run("uffd call different()")
    assert "this run differs from the first one" in writes.run("uffd why counter")
    assert why(writes, "counter")["differs"]


def test_memory_written_since(writes):
    writes.run("uffd call count(1)")
    writes.run("set var beside = 5")
    text = writes.run("uffd why counter")
    assert "41 → 42" in text and "not compared" in text
    assert writes.value("beside") == "5"


def test_many_writes(writes):
    writes.run("uffd call busy(1010)")
    text = writes.run("uffd why beside", timeout=60)
    assert "1,010 writes" in text and "… 10 more writes: `uffd why -full`" in text
    data = why(writes, "counter")
    assert data["total"] == 1


def test_ctrl_c(writes):
    writes.send("uffd call idle()")
    survivors.wait_computing()
    writes.interrupt()
    writes.send("uffd why beside")
    survivors.until(lambda: len(survivors.vessels()) > 1)
    text = writes.interrupt(timeout=30)
    assert "until it was interrupted" in text or text.strip() == "Quit", text
    assert writes.value("counter") == "41"
    assert len(survivors.vessels()) <= 1
    assert steps_after(writes) == [("41", "42")]


def steps_after(writes):
    writes.run("uffd call count(1)")
    return steps(why(writes, "counter"))


def test_a_run_that_goes_on_for_ever(writes):
    writes.send("uffd call forever()")
    survivors.wait_computing()
    writes.interrupt()
    data = why(writes, "counter", "-first")
    assert steps(data) == [("41", "42")]


def test_a_call_that_ran_out_of_time(writes):
    writes.run("set uffd call-timeout 1")
    assert "call-timeout" in writes.run("uffd call forever()")
    data = why(writes, "counter", "-first")
    assert steps(data) == [("41", "42")]
    data = why(writes, "beside")
    assert not data["writes"] and data["complete"]
    assert not data["compared"] and data["differs"] is None
    assert "not compared with the first run: that was ended" in writes.run("uffd why beside")


def test_the_clock_of_the_record_is_the_same_again(writes):
    writes.run("uffd call different()")
    (change,) = [c for p in writes.json("uffd dirty -json")["dirty"] for c in p["changes"]
                 if c["name"] == "beside"]  # fmt: skip
    assert steps(why(writes, "beside"))[-1][1] == change["after"]


def test_completion_and_help(writes):
    assert "uffd why counter" in writes.run("complete uffd why count")
    assert writes.run("complete uffd why -fi").strip() == "uffd why -first"
    assert "NAME|ADDRESS" in writes.run("help uffd why")


@pytest.mark.parametrize(
    "call, name",
    [
        ("count(4)", "counter"),
        ("count(3)", "beside"),
        ("members()", "state"),
        ("members()", "table[1].weight"),
        ("push(5)", "head"),
        ("busy(3)", "beside"),
    ],
)
def test_as_a_watchpoint_of_a_live_process(opened, live_writes, call, name):
    gdb = opened(live_writes.core)
    gdb.run(f"uffd call {call}")
    mine = [
        (w["changes"][0]["before"], w["changes"][0]["after"], functions(w))
        for w in why(gdb, name)["writes"]
        if w["changes"][0]["before"] != w["changes"][0]["after"]
    ]
    theirs = [
        (re.sub(r"^\(.*?\) ", "", old), re.sub(r"^\(.*?\) ", "", new), frames)
        for old, new, frames in live_writes.watch(name, call)
    ]
    assert mine == theirs and mine

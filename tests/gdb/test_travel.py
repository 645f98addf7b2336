"""Moving between the snapshots of a trace: what gdb shows is what the live process showed there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import gdbs, traces

pytestmark = pytest.mark.shared_gdb

ORDER = [0, 6, 3, 2, 5, 4, 1, 6, 0]


def numbered(text: str) -> str:
    """A `print`'s output without its "$N = ", a backtrace or registers as they are."""
    return re.sub(r"^\$\d+ = ", "", text).strip()


def snapshot(gdb) -> str:
    return gdb.value("$_uffd_snapshot")


def values(gdb) -> list:
    return [gdb.value(e) for e in ("counter", "sum()", "text", "mine")]


def libraries(gdb) -> str:
    return gdb.run("info sharedlibrary")


def threads(gdb) -> int:
    return len(re.findall(r"^\*? +\d+ ", gdb.run("info threads"), re.M))


def test_opening(trip_gdb):
    assert "trace: snapshot 0 of 0-6" in trip_gdb.spawned, trip_gdb.spawned
    assert "at (step=0)" in trip_gdb.spawned and "signal" not in trip_gdb.spawned
    assert snapshot(trip_gdb) == "0" and trip_gdb.value("$_uffd_label") == '"begin"'


def test_every_snapshot_shows_what_the_live_process_did(trip_gdb, trip):
    for number in ORDER:
        trip_gdb.run(f"uffd goto {number}")
        assert snapshot(trip_gdb) == str(number)
        for command, said in trip.said[number].items():
            if command == "print $_siginfo.si_signo" and number != 6:
                continue  # how a debugger's stop is told differs from target to target
            assert numbered(trip_gdb.run(command).partition("\n[uffd:")[0]) == numbered(said), (
                number,
                command,
            )


def test_goto_shows_the_place_as_a_stop_does(trip_gdb):
    trip_gdb.run("display counter")
    text = trip_gdb.run("uffd goto 3")
    assert 'snapshot 3 of 0-6 "plugin"' in text
    assert "at (step=3)" in text and "trip.c:" in text
    assert ": counter = 4" in text, text


def test_names_of_places(trip_gdb):
    for name, number in [
        ("late", 5), ("+1", 6), ("-2", 4), ("start", 0), ("end", 6), ('"plugin"', 3), ("0", 0),
    ]:  # fmt: skip
        trip_gdb.run(f"uffd goto {name}")
        assert snapshot(trip_gdb) == str(number), name


@pytest.mark.parametrize(
    "name, words",
    [
        ("7", "no snapshot 7: there are 0 to 6"),
        ("-1", "no snapshot -1"),
        ("nowhere", 'no snapshot "nowhere"'),
        ("", "where to?"),
        ("99999999999999999999", "no snapshot"),
    ],
)
def test_no_such_place(trip_gdb, name, words):
    text = trip_gdb.run(f"uffd goto {name}").strip()
    assert words in text and "\n" not in text, text
    assert snapshot(trip_gdb) == "0"


def test_threads_come_and_go(trip_gdb):
    counts = []
    for number in (0, 2, 5, 4, 6):
        trip_gdb.run(f"uffd goto {number}")
        counts.append(threads(trip_gdb))
    assert counts == [1, 2, 1, 2, 1]


@pytest.mark.own_gdb
def test_the_snapshots_own_thread_is_selected(trip_gdb):
    trip_gdb.run("uffd goto 3")
    trip_gdb.run("thread 2")
    assert trip_gdb.value("mine") == "42"
    trip_gdb.run("uffd goto 4")
    assert "at (step=4)" in trip_gdb.run("frame")
    assert trip_gdb.value("mine") == "105"
    trip_gdb.run("thread 2")
    trip_gdb.run("uffd goto 0")  # where that thread is not
    assert trip_gdb.value("mine") == "101" and threads(trip_gdb) == 1


def test_backward_with_another_thread_selected(trip_gdb):
    trip_gdb.run("uffd goto 4")
    trip_gdb.run("info threads")  # gdb looks at every frame
    trip_gdb.run("thread 2")
    assert "at (step=3)" in trip_gdb.run("reverse-continue")
    assert '"on"' in trip_gdb.run("show scheduler-locking")
    trip_gdb.run("uffd goto end")
    trip_gdb.run("uffd goto 4")
    trip_gdb.run(f"thread {trip_gdb.value('$_gthread')}")
    trip_gdb.run("thread find trip")
    assert trip_gdb.value("mine") == "105"


@pytest.mark.own_gdb
def test_backward_by_the_direction_with_another_thread_selected(trip_gdb):
    """No hook of ours sees this: the selected thread stays, where it exists."""
    trip_gdb.run("uffd goto 4")
    trip_gdb.run("info threads")
    trip_gdb.run("thread 2")
    trip_gdb.run("set exec-direction reverse")
    trip_gdb.run("continue")
    assert snapshot(trip_gdb) == "3" and trip_gdb.value("mine") == "42"
    trip_gdb.run("continue")
    assert snapshot(trip_gdb) == "2" and trip_gdb.value("mine") == "42"
    assert "does not exist there" in trip_gdb.run("continue")
    assert snapshot(trip_gdb) == "2" and trip_gdb.value("mine") == "42"
    trip_gdb.run("thread 1")
    assert "at (step=1)" in trip_gdb.run("continue")


def test_libraries_follow(trip_gdb):
    assert "plugin" not in libraries(trip_gdb)
    trip_gdb.run("uffd goto plugin")
    assert re.search(r"Yes .*plugin\.so", libraries(trip_gdb))
    assert trip_gdb.value("plugin_answer(20)") == "41"
    trip_gdb.run("uffd goto late")
    assert "plugin" not in libraries(trip_gdb)
    trip_gdb.run("reverse-continue")
    assert re.search(r"Yes .*plugin\.so", libraries(trip_gdb))
    trip_gdb.run("reverse-continue")
    trip_gdb.run("reverse-continue")
    assert snapshot(trip_gdb) == "2" and "plugin" not in libraries(trip_gdb)


def test_a_library_that_a_call_loaded_is_gone_after_a_move(trip_gdb, built):
    trip_gdb.run(f'print (long) dlopen("{built / "plugin.so"}", 2)')
    assert "plugin" in libraries(trip_gdb)
    trip_gdb.run("uffd goto 1")
    assert "plugin" not in libraries(trip_gdb)
    trip_gdb.run("uffd goto plugin")
    assert "plugin" in libraries(trip_gdb)


def test_symbols_of_libraries_are_not_read_when_the_user_reads_them_alone(trip_gdb):
    trip_gdb.run("set auto-solib-add off")
    trip_gdb.run("uffd goto plugin")
    assert re.search(r"No .*plugin\.so", libraries(trip_gdb))


@pytest.mark.every_gdb
def test_reverse_continue_goes_to_the_snapshot_before(trip_gdb):
    trip_gdb.run("display counter")
    trip_gdb.run("uffd goto 4")
    for number in (3, 2, 1, 0):
        text = trip_gdb.run("reverse-continue")
        assert f"at (step={number})" in text and f": counter = {number + 1}" in text, text
        assert snapshot(trip_gdb) == str(number)
    text = trip_gdb.run("reverse-continue")
    assert "history" in text, text  # gdb's words, other ones in gdb 17
    assert snapshot(trip_gdb) == "0" and values(trip_gdb)[0] == "1"


def test_continue_runs_on_and_reverse_continue_comes_back(trip_gdb):
    trip_gdb.run("uffd goto 3")
    trip_gdb.run("break push")
    assert "push (value=40)" in trip_gdb.run("continue")
    trip_gdb.run("finish")
    assert trip_gdb.value("counter") == "5" and snapshot(trip_gdb) == "3"
    text = trip_gdb.run("reverse-continue")
    assert "forgotten" in text and "at (step=3)" in text, text
    assert trip_gdb.value("counter") == "4" and snapshot(trip_gdb) == "3"
    assert "at (step=2)" in trip_gdb.run("reverse-continue")
    assert snapshot(trip_gdb) == "2"


def test_stepping_backward_has_nowhere_nearer_to_go(trip_gdb):
    trip_gdb.run("uffd goto 3")
    assert "at (step=2)" in trip_gdb.run("reverse-step")
    trip_gdb.run("next")
    assert "at (step=2)" in trip_gdb.run("reverse-stepi")
    assert snapshot(trip_gdb) == "2"


def test_kept_effects_are_lost_with_a_word(trip_gdb):
    trip_gdb.run("print push(7)")
    text = trip_gdb.run("uffd goto 1")
    assert re.search(r"\[uffd: \d+ changed pages? of snapshot 0 forgotten\]", text), text
    assert "forgotten" not in trip_gdb.run("uffd goto 0")
    assert trip_gdb.value("counter") == "1"
    trip_gdb.run("uffd call push(7)")
    assert "forgotten" not in trip_gdb.run("uffd goto 1")


def test_the_report_speaks_of_the_present_snapshot(trip_gdb):
    trip_gdb.run("uffd goto 2")
    trip_gdb.run("uffd call push(7)")
    assert "counter 3 → 4" in trip_gdb.run("uffd dirty")
    trip_gdb.run("uffd goto 3")
    assert "nothing has run yet" in trip_gdb.run("uffd dirty")
    assert "nothing differs" in trip_gdb.run("uffd diff")
    assert "counter 4 → 5" in trip_gdb.run("uffd call push(7)")


def test_reset_stays_at_the_snapshot(trip_gdb):
    trip_gdb.run("uffd goto 4")
    trip_gdb.run("print push(7)")
    assert "at (step=4)" in trip_gdb.run("uffd reset")
    assert trip_gdb.value("counter") == "5" and snapshot(trip_gdb) == "4"


def test_from_within_a_called_function(trip_gdb):
    trip_gdb.run("break push")
    trip_gdb.run("print push(1)")
    assert "<function called from gdb>" in trip_gdb.run("bt")
    assert "at (step=5)" in trip_gdb.run("uffd goto 5")
    assert "called from gdb" not in trip_gdb.run("bt")
    trip_gdb.run("delete")
    assert trip_gdb.value("push(1)") == "7"


def test_goto_where_one_is_undoes_what_ran(trip_gdb):
    trip_gdb.run("uffd goto 3")
    trip_gdb.run("print push(7)")
    assert "forgotten" in trip_gdb.run("uffd goto 3")
    assert trip_gdb.value("counter") == "4"


def test_the_crash_is_a_crash(trip_gdb):
    text = trip_gdb.run("uffd goto crash")
    assert "SIGSEGV" in text and "the crash" in text, text
    assert trip_gdb.value("$_siginfo.si_signo") == "11"
    assert "Can't pass signal" not in trip_gdb.run("reverse-continue")
    trip_gdb.run("uffd goto crash")
    assert "SIGSEGV" in trip_gdb.run("continue")


def test_convenience_variables(trip_gdb):
    assert trip_gdb.value("$_uffd_label") == '"begin"'
    times = []
    for number in range(7):
        trip_gdb.run(f"uffd goto {number}")
        times.append(float(trip_gdb.value("$_uffd_time")))
    assert times == sorted(times) and times[0] > 1e9
    trip_gdb.run("uffd kill")
    for name in ("snapshot", "time", "label"):
        assert trip_gdb.value(f"$_uffd_{name}") == "void"


def test_convenience_variables_of_a_core(sample):
    assert snapshot(sample) == "0" and sample.value("$_uffd_label") == '""'
    assert "snapshot 0 of 0-0" in sample.run("uffd goto 0")
    assert "SIGSEGV" in sample.run("uffd goto end")
    assert "lookup (value=99)" in sample.run("bt")
    assert "there is only 0" in sample.run("uffd goto 1")


def test_goto_in_a_core_undoes(sample):
    sample.run("print push(7)")
    text = sample.run("uffd goto 0")
    assert "forgotten" in text and "lookup (value=99)" in text, text
    assert sample.value("counter") == "1041"
    assert re.search("not (currently )?support", sample.run("reverse-continue"))


@pytest.fixture(scope="session")
def inlined(built: Path, tmp_path_factory: pytest.TempPathFactory) -> traces.Made:
    """Stops at the first instruction of inlined functions, and of the one that holds them."""
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 for the live process: run `make gdb`")
    folder = tmp_path_factory.mktemp("inlined")
    labels = [f"n{n}" for n in range(8)]
    return traces.of_live(folder, [str(built / "inlined")], "outer middle inner", labels, ["bt"])


def test_inlined_functions_are_not_hidden(gdb, inlined):
    """gdb hides those that begin at the PC after a stop that is at no breakpoint."""

    def functions(text: str) -> list:
        return re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+)", text, re.M)

    gdb.run(f"uffd spawn {inlined.path}")
    assert functions(inlined.said[2]["bt"])[:2] == ["inner", "middle"]
    for number in (2, 7, 1, 5, 4, 0, 3, 6):
        shown = gdb.run(f"uffd goto {number}")
        assert functions(gdb.run("bt")) == functions(inlined.said[number]["bt"])
        assert functions(shown) == functions(inlined.said[number]["bt"])[:1]
        if number:
            gdb.run("reverse-continue")
            assert functions(gdb.run("bt")) == functions(inlined.said[number - 1]["bt"])
    gdb.run("uffd goto 5")
    values = [p["value"] for p in gdb.json("uffd map -json a")["points"]]
    assert values == ["0", "0", "7", "1", "1", "8", "2", "2"]
    assert functions(gdb.run("bt")) == functions(inlined.said[5]["bt"])


def test_exec_direction_reverse(trip_gdb):
    trip_gdb.run("set exec-direction reverse")
    trip_gdb.run("uffd goto 4")
    assert snapshot(trip_gdb) == "4"
    assert "at (step=3)" in trip_gdb.run("continue")
    trip_gdb.run("set exec-direction forward")
    assert trip_gdb.value("sum()") == "60"


def test_completion(trip_gdb):
    names = trip_gdb.run("complete uffd goto ").split("\n")
    for name in ("begin", "plugin", "crash", "start", "end", "6"):
        assert f"uffd goto {name}" in names
    assert trip_gdb.run("complete uffd goto th").strip() == "uffd goto threads"
    assert "uffd changes plugin" in trip_gdb.run("complete uffd changes pl")
    assert "uffd snapshots -json" in trip_gdb.run("complete uffd snapshots -j")
    assert "uffd map counter" in trip_gdb.run("complete uffd map count")


def test_two_traces_in_two_inferiors(trip_gdb, trip):
    trip_gdb.run("uffd goto 5")
    trip_gdb.run("add-inferior -no-connection")
    trip_gdb.run("inferior 2")
    assert trip_gdb.value("$_uffd_snapshot") == "void"
    trip_gdb.run(f"uffd spawn {trip.path}")
    trip_gdb.run("uffd goto 2")
    assert values(trip_gdb)[0] == "3" and snapshot(trip_gdb) == "2"
    trip_gdb.run("inferior 1")
    assert values(trip_gdb)[0] == "6" and snapshot(trip_gdb) == "5"
    assert "at (step=4)" in trip_gdb.run("reverse-continue")


def test_a_new_spawn_begins_at_its_first_snapshot(trip_gdb, trip):
    trip_gdb.run("uffd goto 5")
    text = trip_gdb.run(f"uffd spawn {trip.path}")
    assert "at (step=0)" in text and "received signal" not in text, text
    assert snapshot(trip_gdb) == "0"


def test_what_calls_on_the_way_unloaded_is_there_again(trip_gdb):
    """Also between snapshots of the same libraries, where a move changes none of them."""
    trip_gdb.run("uffd goto plugin")
    trip_gdb.run("break plugin_answer")
    trip_gdb.run("frame function main")
    trip_gdb.run("set $handle = plugin")
    text = trip_gdb.run("uffd map (int) dlclose($handle) in 3-4")
    assert re.search(r"^3-4 .* 0$", text, re.M), text
    assert re.search(r"Yes .*plugin\.so", libraries(trip_gdb))
    assert "plugin_answer (" in trip_gdb.run("print plugin_answer(20)")
    trip_gdb.run("uffd reset")
    # What is kept is kept, with gdb's list of it.
    assert "= 0" in trip_gdb.run("print (int) dlclose($handle)")
    trip_gdb.run("uffd call sum()")
    assert re.search(r"^3-4 .* 3$", trip_gdb.run("uffd map plugin_answer(1) in 3-4"), re.M)
    assert "plugin" not in libraries(trip_gdb)
    trip_gdb.run("uffd reset")
    assert re.search(r"Yes .*plugin\.so", libraries(trip_gdb))

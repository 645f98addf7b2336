"""One expression at many snapshots: map, when; what differs between two: changes; export."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from harness import gdbs, programs, survivors, traces
from harness.cores import NoKernelCore, kernel_core

from gdb_uffd.trace.store.importing import import_cores

pytestmark = pytest.mark.shared_gdb

COUNTERS = [1, 2, 3, 4, 5, 6, 6]
SUMS = [0, 10, 30, 60, 100, 150, 150]


def column(data: dict) -> list:
    return [point["value"] for point in data["points"]]


def test_map_of_a_variable(trip_gdb):
    data = trip_gdb.json("uffd map -json counter")
    assert column(data) == [str(n) for n in COUNTERS]
    assert [p["snapshot"] for p in data["points"]] == list(range(7))
    assert [p["label"] for p in data["points"]][:3] == ["begin", "", "threads"]
    assert data["points"][0]["type"] == "int" and data["interrupted"] is False


def test_map_calls_and_forgets(trip_gdb):
    assert column(trip_gdb.json("uffd map -json sum()")) == [str(n) for n in SUMS]
    assert column(trip_gdb.json("uffd map -json push(1)")) == [str(n + 1) for n in COUNTERS]
    assert column(trip_gdb.json("uffd map -json counter")) == [str(n) for n in COUNTERS]
    assert "nothing has run yet" in trip_gdb.run("uffd dirty")


def test_what_functions_print_is_not_shown(trip_gdb):
    """gdb writes it to its standard error, past what captures its output."""
    for stream in ("stdout", "stderr"):
        said = f'(int)dprintf({1 + (stream == "stderr")}, "said %d\\n", counter)'
        for command in ("map", "when"):
            text = trip_gdb.run(f"uffd {command} {said}")
            assert not re.search(r"^said \d", text, re.MULTILINE), text
        data = trip_gdb.json(f"uffd call -json {said}")
        assert data["output"] == "said 1\n"
        assert trip_gdb.run(f"uffd call -json {said}").strip().startswith("{")
        assert trip_gdb.run(f"uffd trace -json {said}").strip().startswith("{")
        assert "said 1" in trip_gdb.run(f"uffd call {said}")


def test_map_as_a_table_with_a_sparkline(trip_gdb):
    text = trip_gdb.run("uffd map -full counter").splitlines()
    assert [line.split()[-1] for line in text[:7]] == [str(n) for n in COUNTERS]
    assert re.fullmatch(r'0 +"begin" +1', text[0]) and '"plugin"' in text[3], text
    assert text[7] == "▁▂▄▅▇██  1 … 6", text
    folded = trip_gdb.run("uffd map counter").splitlines()
    assert [row.split() for row in folded[:5]] == [row.split() for row in text[:5]]
    assert folded[6:] == text[7:]
    assert re.fullmatch(r'5-6 .*"late" … "crash" +6', folded[5]), folded


def test_map_where_the_charset_has_no_blocks(start_gdb, trip):
    gdb = start_gdb(env={"LC_ALL": "C"})
    gdb.run(f"uffd spawn {trip.path}")
    text = gdb.run("uffd map -full counter").splitlines()
    assert text[7].isascii() and text[7].startswith("_.:-+##"), text


def test_map_of_what_is_no_number(trip_gdb):
    assert column(trip_gdb.json("uffd map -json text"))[4].startswith('"step 4"')
    assert column(trip_gdb.json("uffd map -json phase")) == (
        ["EARLY", "EARLY", "MIDDLE", "MIDDLE", "LATE", "LATE", "LATE"]
    )
    assert "value = 30" in trip_gdb.run("uffd map *head in 3").splitlines()[0]
    heads = column(trip_gdb.json("uffd map -json head->next"))
    assert heads[0] == "0x0" and len(set(heads)) == 6


def test_map_of_locals_registers_and_thread_locals(trip_gdb, trip):
    data = trip_gdb.json("uffd map -json mine")
    assert column(data) == [str(100 + n) for n in COUNTERS]
    pcs = column(trip_gdb.json("uffd map -json /x $pc"))
    told = [re.search(r"rip +(0x[0-9a-f]+)", s["info registers rip rsp rbp"])[1] for s in trip.said]
    assert pcs == told
    assert column(trip_gdb.json("uffd map -json step in 0-5")) == [str(n) for n in range(6)]


def test_map_formats(trip_gdb):
    assert column(trip_gdb.json("uffd map -json /x counter + 15 in 0..1")) == ["0x10", "0x11"]
    assert "no format" in trip_gdb.run("uffd map /20x counter")


def test_map_in_ranges(trip_gdb):
    for where, numbers in [
        ("2..4", [2, 3, 4]), ("2-4", [2, 3, 4]), ("5..", [5, 6]), ("..1", [0, 1]), ("3", [3]),
        ("threads..late", [2, 3, 4, 5]), ("plugin", [3]), ("start..begin", [0]), ("+1", [1]),
    ]:  # fmt: skip
        data = trip_gdb.json(f"uffd map -json counter in {where}")
        assert [p["snapshot"] for p in data["points"]] == numbers, where
    assert "snapshot 4 is after 2" in trip_gdb.run("uffd map counter in 4..2")
    assert "no snapshot" in trip_gdb.run("uffd map counter in 2..nowhere")


def test_map_shows_errors_in_their_rows(trip_gdb):
    data = trip_gdb.json("uffd map -json third(counter)")
    assert [p["value"] for p in data["points"] if p["snapshot"] != 2] == (
        ["-50", "-100", "100", "50", "33", "33"]
    )
    assert re.match(r"SIGFPE\b.* in third \(\) at trip.c:", data["points"][2]["error"]), data
    text = trip_gdb.run("uffd map head->next->value").splitlines()
    assert "Cannot access memory" in text[0] and text[1].endswith("0"), text
    # The next row, and what comes after, is not disturbed.
    assert "called from gdb" not in trip_gdb.run("bt")
    assert column(trip_gdb.json("uffd map -json plugin_answer(1) in 3..4")) == ["3", "3"]
    text = trip_gdb.run("uffd map nosuch").strip()
    assert "the same at each of 7 snapshots" in text and "\n" not in text


def test_map_of_what_would_wait_for_ever(trip_gdb):
    text = trip_gdb.run("uffd map (int) sem_wait(&leave)", 60)
    assert re.match(r"would block: futex\(0x[0-9a-f]+\), and no other thread runs \(", text), text
    assert trip_gdb.value("sum()") == "0"


def test_map_leaves_everything_as_it_was(trip_gdb):
    trip_gdb.run("uffd goto 4")
    trip_gdb.run("thread 2")
    trip_gdb.run("up")
    trip_gdb.run("print push(7)")
    trip_gdb.run("set var odd = 77")
    before = [trip_gdb.run(c) for c in ("bt", "frame", "info threads", "info sharedlibrary")]
    history = trip_gdb.run("show values")
    trip_gdb.run("break push")
    trip_gdb.run("watch odd")
    assert column(trip_gdb.json("uffd map -json push(1)")) == [str(n + 1) for n in COUNTERS]
    trip_gdb.run("uffd when sum() > 50")
    assert trip_gdb.run("show values") == history
    after = [trip_gdb.run(c) for c in ("bt", "frame", "info threads", "info sharedlibrary")]
    assert after == before
    assert trip_gdb.value("counter") == "6" and trip_gdb.value("odd") == "77"  # kept
    assert snapshot(trip_gdb) == "4"
    points = trip_gdb.run("info breakpoints")
    assert points.count(" y ") == 2 and "already hit" not in points, points
    trip_gdb.run("delete")
    assert trip_gdb.value("push(8)") == "7"
    assert "counter 5 → 7" in trip_gdb.run("uffd dirty -all")


@pytest.fixture
def two_processes(gdb, built, tmp_path) -> gdbs.Gdb:
    """A trace of two cores: each snapshot is reached by a connection of its own."""
    try:
        cores = [str(kernel_core([str(built / "sample")], tmp_path / name)) for name in "ab"]
    except NoKernelCore as why:
        pytest.skip(str(why))
    gdb.run(f"uffd spawn {import_cores(cores, str(tmp_path / 'two')).path}")
    return gdb


@pytest.mark.own_gdb
def test_map_of_several_processes_leaves_everything_as_it_was(two_processes):
    gdb = two_processes
    gdb.run("print push(7)")
    gdb.run("frame function main")
    looks = ("frame", "info threads", "info sharedlibrary", "info symbol push", "uffd info")
    before = [gdb.run(look) for look in looks]
    # What gdb tells of such a stop is not where the user stands: nothing is taken over from it.
    gdb.run(
        "python\n"
        "from gdb_uffd.client.session import travel\n"
        "follow, away = travel.follow, []\n"
        "def noted(session):\n"
        "    away.append(session.excursion)\n"
        "    follow(session)\n"
        "travel.follow = noted\n"
        "end"
    )
    assert column(gdb.json("uffd map -json counter")) == ["1041", "1041"]
    assert column(gdb.json("uffd map -json push(1)")) == ["1042", "1042"]
    assert len(gdb.run("uffd map counter").strip().splitlines()) == 1
    assert gdb.run("uffd when counter > 5000").startswith("counter > 5000: true at none of")
    assert gdb.run("python print(any(away))").strip() == "False"
    assert [gdb.run(look) for look in looks] == before
    assert gdb.value("counter") == "1042" and snapshot(gdb) == "0"


@pytest.mark.own_gdb
def test_map_of_several_processes_says_nothing_else(two_processes):
    """gdb said once more that the program had received a signal, when it was connected again."""
    two_processes.run("set var $pc = abort")
    assert "SIGABRT" in two_processes.run("signal 0")
    said = two_processes.run("uffd map counter").strip()
    assert re.fullmatch(r'0-1 +"core" … "core" +1041', said), said
    assert "pthread_kill" in two_processes.run("bt 1")


def snapshot(gdb) -> str:
    return gdb.value("$_uffd_snapshot")


def test_map_knows_where_it_is(trip_gdb):
    assert column(trip_gdb.json("uffd map -json $_uffd_snapshot * 2")) == (
        [str(2 * n) for n in range(7)]
    )
    assert snapshot(trip_gdb) == "0"


def test_map_interrupted(trip_gdb):
    trip_gdb.run("uffd goto 2")
    trip_gdb.run("set var odd = 77")
    trip_gdb.send("uffd map spin(4)")
    survivors.wait_computing()
    text = trip_gdb.interrupt(30).splitlines()
    assert [line.split()[-1] for line in text[:3]] == ["1", "2", "3"], text
    assert "interrupted: 4 of 7 snapshots are missing" in text[-1], text
    assert snapshot(trip_gdb) == "2" and trip_gdb.value("odd") == "77"
    assert "called from gdb" not in trip_gdb.run("bt")
    trip_gdb.send("uffd when spin(1) == 0")
    survivors.wait_computing()
    assert trip_gdb.interrupt(30).strip().endswith("interrupted")
    assert snapshot(trip_gdb) == "2" and trip_gdb.value("odd") == "77"


def test_map_of_a_core(sample):
    assert column(sample.json("uffd map -json push(7)")) == ["1042"]
    assert sample.value("counter") == "1041"


def test_when(trip_gdb):
    for options in ("", "-monotonic "):
        text = trip_gdb.run(f"uffd when {options}sum() > 50")
        assert "snapshot 3 of 0-6" in text and "`uffd goto 3` goes there" in text, text
        assert "at none of the snapshots 0 to 6" in trip_gdb.run(f"uffd when {options}sum() > 999")
        assert "snapshot 0 of" in trip_gdb.run(f"uffd when {options}counter > 0")
        assert "snapshot 5 of" in trip_gdb.run(f"uffd when {options}counter > 2 in late..")
        assert snapshot(trip_gdb) == "0"
    data = trip_gdb.json("uffd when -json counter == 3")
    assert data["snapshot"]["number"] == 2 and data["snapshot"]["label"] == "threads"
    assert trip_gdb.json("uffd when -json counter == 33")["snapshot"] is None


def test_when_there_is_no_value(trip_gdb):
    assert "snapshot 2 of" in trip_gdb.run("uffd when head->next->next->value == 0")
    text = trip_gdb.run("uffd when head->next->value == 12345")
    assert "no value at 1 of them, first at 0: Cannot access memory" in text, text
    text = trip_gdb.run("uffd when nosuch > 1").strip()
    assert 'No symbol "nosuch"' in text and "\n" not in text
    assert "at snapshot 0" in trip_gdb.run("uffd when -monotonic head->next->value == 0 in 0..2")


def test_snapshots(trip_gdb):
    trip_gdb.run("uffd goto 3")
    text = trip_gdb.run("uffd snapshots").splitlines()
    assert text[1].split() == ["Num", "Time", "After", "Thread", "Changed", "Label"], text
    rows = text[2:]
    assert len(rows) == 7
    assert [row.startswith("*") for row in rows] == [n == 3 for n in range(7)]
    assert '"crash" SIGSEGV' in rows[6] and '"trip"' in rows[0]
    data = trip_gdb.json("uffd snapshots -json")
    assert data["current"] == 3 and [s["number"] for s in data["snapshots"]] == list(range(7))
    assert data["snapshots"][6]["signal"] == 11
    assert [s["threads"] for s in data["snapshots"]] == [1, 1, 2, 2, 2, 1, 1]


def test_changes(trip_gdb):
    text = trip_gdb.run("uffd changes threads plugin")
    assert re.search(r'pages .* differ from snapshot 2 "threads" to 3 "plugin"', text), text
    for name, before, after in [("counter", 3, 4), ("odd", 6 - 3, 6)]:
        assert re.search(rf"^  {name} +{before} → {after}$", text, re.M), (name, text)
    assert re.search(r'^  text +"step 2".* → "step 3"', text, re.M), text
    assert "heap" in text and re.search(r"stack +thread 1", text), text
    assert "@got" not in text
    data = trip_gdb.json("uffd changes -json 2 3")
    told = {v["name"]: (v["before"], v["after"]) for v in data["variables"]}
    assert told["counter"] == ("3", "4")
    assert data["pages"] == sum(g["pages"] for g in data["groups"])


LABEL_PRINTER = """
import gdb, gdb.printing
class Label:
    def __init__(self, value): self.value = value
    def to_string(self):
        return "label %s of %d" % (self.value["text"].string(), self.value["step"])
printers = gdb.printing.RegexpCollectionPrettyPrinter("trip")
printers.add_printer("label", "^label$", Label)
gdb.printing.register_pretty_printer(None, printers)
"""


def test_changes_show_what_values_need_memory_for(trip_gdb, tmp_path):
    """Strings behind pointers, printers, functions: as gdb prints them at each of the two."""
    data = trip_gdb.json("uffd changes -json 2 3")
    told = {v["name"]: (v["before"], v["after"]) for v in data["variables"]}
    both = []
    for number in (2, 3):
        trip_gdb.run(f"uffd goto {number}")
        names = ("phrase", "chosen", "label.step", "push::pushed")
        both.append([trip_gdb.value(name).rpartition(") ")[2] for name in names])
        assert "0x" in both[-1][0] and "<" in both[-1][1]
    assert told["phrase"] == (both[0][0], both[1][0]), told
    assert told["chosen"][0].endswith(both[0][1]) and told["chosen"][1].endswith(both[1][1])
    assert told["label.step"] == (both[0][2], both[1][2])
    assert told["push::pushed"] == (both[0][3], both[1][3])
    script = tmp_path / "label.py"
    script.write_text(LABEL_PRINTER)
    trip_gdb.run(f"source {script}")
    for pair, texts in (
        ("2 3", ("even of 2", "odd one of 3")),
        ("1 4", ("odd one of 1", "even of 4")),
    ):
        data = trip_gdb.json(f"uffd changes -json {pair}")
        (label,) = [v for v in data["variables"] if v["name"].startswith("label")]
        assert (label["before"], label["after"]) == tuple(f"label {text}" for text in texts)
    assert trip_gdb.value("label") == "label odd one of 3"  # the present memory is as it was


def test_changes_agree_with_the_memory(trip_gdb, trip):
    """Against a comparison of all pages, read through the library."""
    import gdb_uffd.trace

    trace = gdb_uffd.trace.open(str(trip.path))
    a, b = trace.snapshot(1), trace.snapshot(4)
    pages = {p for s in (*a.segments, *b.segments) for p in range(s.start, s.end, 4096)}
    expected = 0
    for page in pages:
        both = []
        for side in (a, b):
            try:
                both.append(side.read(page, 4096))
            except gdb_uffd.protocol.model.MemoryUnavailable:
                both.append(b"")
        if both[0] != both[1] and both[0].strip(b"\0") != both[1].strip(b"\0"):
            expected += 1
    data = trip_gdb.json("uffd changes -json 1 4")
    assert data["pages"] >= expected and data["pages"] - expected < 100


def test_changes_of_one(trip_gdb):
    trip_gdb.run("uffd goto 3")
    assert "from snapshot 2" in trip_gdb.run("uffd changes -1").splitlines()[0]
    assert "nothing differs" in trip_gdb.run("uffd changes 3 3")
    assert "usage" in trip_gdb.run("uffd changes")
    assert "usage" in trip_gdb.run("uffd changes 1 2 3")
    backward = trip_gdb.run("uffd changes 3 2")
    assert re.search(r"counter +4 → 3", backward)


@pytest.mark.own_gdb
def test_export(trip_gdb, gdb_path, built, tmp_path):
    core = tmp_path / "home" / "there.core"
    trip_gdb.run("uffd goto plugin")
    trip_gdb.run("print push(70)")
    trip_gdb.run("print push(80)")
    text = trip_gdb.run("uffd export there.core")
    assert "there.core: " in text, text
    assert stat.S_IMODE(os.stat(core).st_mode) == 0o600
    assert "exists already" in trip_gdb.run("uffd export there.core")
    assert trip_gdb.value("counter") == "6"
    # Stock gdb, which knows nothing of us.
    shown = subprocess.run(
        [gdb_path, "-nx", "-batch", "-iex", "set debuginfod enabled off"]
        + [arg for e in ("counter", "*head", "mine") for arg in ("-ex", f"print {e}")]
        + ["-ex", "bt", "-ex", "info threads", "-ex", "info sharedlibrary"]
        + [str(built / "trip"), str(core)],
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "$1 = 6" in shown and "{value = 80" in shown and "= 106" in shown, shown
    assert "nested (step=3)" in shown and shown.count("LWP") >= 4, shown
    assert "plugin.so" in shown
    # And ourselves.
    trip_gdb.run(f"uffd spawn {core}")
    assert trip_gdb.value("sum()") == "210"
    assert trip_gdb.value("push(1)") == "7"


def test_export_where_it_cannot_be(trip_gdb):
    text = trip_gdb.run("uffd export /nowhere/x.core").strip()
    assert "/nowhere/x.core" in text and "\n" not in text
    assert "usage" in trip_gdb.run("uffd export")


def test_info(trip_gdb, trip):
    trip_gdb.run("uffd goto threads")
    text = trip_gdb.run("uffd info")
    assert str(trip.path) in text and '2 of 0-6 "threads"' in text and "2 threads" in text
    data = trip_gdb.json("uffd info -json")
    assert data["snapshots"] == 7 and data["snapshot"] == 2 and data["threads"] == 2


@pytest.mark.parametrize(
    "name", ["snapshots", "goto 1", "map 1", "when 1", "changes 0 1", "export x"]
)
def test_without_a_session_one_line_says_so(gdb, name):
    text = gdb.run(f"uffd {name}").strip()
    assert text and "\n" not in text and "uffd spawn" in text, text


def test_through_the_machine_interface(gdb_path, trip, tmp_path):
    """Front ends see a stop, and ask anew."""
    done = subprocess.run(
        [gdb_path, "-nx", "-q", "-i=mi", "-iex", "set debuginfod enabled off", "-x",
         str(gdbs.ROOT / "gdbinit.example")],
        input=f"uffd spawn {trip.path}\nuffd goto 4\n-stack-list-frames\n-thread-info\n"
        "-exec-continue --reverse\n-data-evaluate-expression counter\n"
        "uffd map -json counter\n-gdb-exit\n",
        capture_output=True, text=True,
        env=gdbs.environment(tmp_path / "home"),
    ).stdout  # fmt: skip
    stops = [line for line in done.splitlines() if line.startswith("*stopped")]
    assert any('value="4"' in line for line in stops), done
    assert any('value="3"' in line for line in stops), done
    assert '^done,value="4"' in done
    found = re.search(r'\{\\"schema\\".*\}', done)
    assert found, done
    data = json.loads(json.loads(f'"{found[0]}"'))
    assert column(data) == [str(n) for n in COUNTERS]


@pytest.fixture(scope="session")
def ledger_trip(built: Path, tmp_path_factory: pytest.TempPathFactory) -> traces.Made:
    """The C++ program with threads, at four rounds."""
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 for the live process: run `make gdb`")
    asked = ["history_sum()", 'balance("account 01")', "risky(1)", "risky(100000)"]
    asked += ["visits", "now", "joined().size()", "done._M_i"]
    return traces.of_live(
        tmp_path_factory.mktemp("ledger"), [programs.find(built, "ledger"), "4"], "settled",
        ["r0", "r1", "r2", "r3"], [f"print {e}" for e in asked],
    )  # fmt: skip


def test_cxx_values_are_those_of_the_live_process(gdb, ledger_trip):
    gdb.run(f"uffd spawn {ledger_trip.path}")
    for number in (3, 0, 2, 1):
        gdb.run(f"uffd goto r{number}")
        for command, said in ledger_trip.said[number].items():
            expected = re.sub(r"^\$\d+ = ", "", said).strip()
            assert gdb.value(command[len("print ") :]) == expected, (number, command)
    sums = column(gdb.json("uffd map -json history_sum()"))
    told = [re.sub(r"^\$\d+ = ", "", s["print history_sum()"]).strip() for s in ledger_trip.said]
    assert sums == told
    assert re.search(r"^  now +1 → 2$", gdb.run("uffd changes r1 r2"), re.M)

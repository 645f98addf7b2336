"""The other commands, help, completion, settings, and the line after a plain `print f()`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from harness import ROOT, gdbs, survivors

pytestmark = [pytest.mark.every_gdb, pytest.mark.shared_gdb]

COMMANDS = ["spawn", "call", "dirty", "diff", "reset", "kill", "info", "doctor", "mappings"]
COMMANDS += ["heap"]


def test_help_of_each_command(gdb):
    for name in COMMANDS:
        text = gdb.run(f"help uffd {name}")
        assert "uffd " + name in text and "xample" in text, text


def test_bare_uffd_lists_the_commands(gdb):
    text = gdb.run("uffd")
    for name in COMMANDS:
        assert name in text


def test_apropos_finds_us(gdb):
    assert "uffd call" in gdb.run("apropos uffd")


def test_no_builtin_is_redefined(gdb):
    for name in ("print", "call", "kill", "info", "step"):
        assert "uffd" not in gdb.run(f"help {name}").lower().split("usage")[0]


@pytest.mark.parametrize("name", ["call half(1)", "dirty", "diff", "reset", "kill"])
def test_without_a_session_one_line_says_so(gdb, name):
    text = gdb.run(f"uffd {name}").strip()
    assert text and "\n" not in text and "uffd spawn" in text, text


def test_completion(zoo):
    assert "uffd call triangle" in zoo.run("complete uffd call tria")
    names = zoo.run("complete uffd ")
    for name in COMMANDS:
        assert f"uffd {name}" in names
    assert "uffd call -json" in zoo.run("complete uffd call -js")


def test_completion_of_files(gdb, all_cores):
    core = all_cores.sample()
    text = gdb.run(f"complete uffd spawn {str(core)[:-2]}")
    assert str(core) in text, text


def test_dirty_after_a_kept_call(sample):
    sample.run("print push(7)")
    text = sample.run("uffd dirty")
    assert "counter 1041 → 1042" in text and "tls_hits 1007 → 1008" in text, text
    data = sample.json("uffd dirty -json")
    assert any(c["name"] == "counter" for p in data["dirty"] for c in p["changes"])


def test_dirty_after_a_discarded_call_shows_that_call(sample):
    sample.run("uffd call push(7)")
    assert "counter 1041 → 1042" in sample.run("uffd dirty")


def test_dirty_all(sample):
    sample.run("print push(7)")
    sample.run("print push(8)")
    assert "counter 1042 → 1043" in sample.run("uffd dirty")
    assert "counter 1041 → 1043" in sample.run("uffd dirty -all")


def test_dirty_after_stepping(zoo):
    zoo.run("break set_grid")
    zoo.run("print set_grid(1, 1, 5)")
    zoo.run("next")
    zoo.run("next")
    assert re.search(r"grid", zoo.run("uffd dirty -all"))


@pytest.mark.own_gdb
def test_dirty_before_anything(sample):
    text = sample.run("uffd dirty").strip()
    assert text and "\n" not in text


def test_diff_shows_only_what_differs(sample):
    sample.run("uffd call push(7)")
    address = int(re.search(r"0x[0-9a-f]+", sample.value("&counter"))[0], 16)
    text = sample.run("uffd diff counter")
    assert "11 04" in text and "12 04" in text, text  # 1041 and 1042, little-endian
    assert f"{address & ~15:x}" in text
    lines = [line for line in text.splitlines() if re.match(r"\s*[-+]", line)]
    assert len(lines) == 2, text
    assert "\x1b[" not in text
    assert len(sample.run("uffd diff").splitlines()) > 4
    page = sample.run(f"uffd diff {address:#x}")
    assert "12 04" in page


def test_diff_in_colour(start_gdb, all_cores):
    gdb = start_gdb(env={"TERM": "xterm"})
    gdb.run("set style enabled on")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.run("uffd call push(7)")
    assert "\x1b[" in gdb.run("uffd diff counter")
    gdb.run("set style enabled off")
    assert "\x1b[3" not in gdb.run("uffd diff counter")


def test_diff_of_what_was_not_written(sample):
    sample.run("uffd call push(7)")
    text = sample.run("uffd diff lookup").strip()
    assert "\n" not in text and text


def test_info(sample, all_cores):
    text = sample.run("uffd info")
    assert str(all_cores.sample()) in text
    data = sample.json("uffd info -json")
    assert data["alive"] is False
    sample.run("print push(7)")
    data = sample.json("uffd info -json")
    assert data["alive"] is True
    assert data["vessel_pid"] in survivors.vessels()
    assert data["fed_pages"] > 0


def test_info_without_a_session(gdb):
    assert gdb.run("uffd info").strip()
    assert "Traceback" not in gdb.run("uffd info -json")


def test_doctor(gdb):
    text = gdb.run("uffd doctor")
    assert re.search(r"^\w+ +userfaultfd: ", text, re.M), text
    assert re.search(r"^gdb [\d.]+ with Python 3\.\d+\.\d+; the server runs on /", text, re.M), text
    checks = json.loads(gdb.run("uffd doctor -json").strip())
    assert checks


def test_reset_ends_the_vessel(sample):
    sample.run("print push(7)")
    (vessel,) = survivors.vessels()
    sample.run("uffd reset")
    assert survivors.wait_gone(vessel, 10)
    assert sample.json("uffd info -json")["alive"] is False


def test_reset_returns_to_the_recorded_stop(zoo):
    where = zoo.run("frame")
    zoo.run("break half")
    zoo.run("print half(1.0)")
    zoo.run("uffd reset")
    assert zoo.run("frame") == where


def test_reset_restores_the_signal_that_gdb_would_deliver(zoo):
    """The signal of a call that failed is not what the recorded thread gets when it goes on."""
    zoo.run("print crash_after_dirt()")  # SIGSEGV; the core was made by SIGABRT
    zoo.run("uffd reset")
    text = zoo.run("continue")
    assert "SIGABRT" in text and "SIGSEGV" not in text, text


@pytest.mark.own_gdb
def test_kill(sample):
    sample.run("print push(7)")
    pids = survivors.ours()
    assert len(pids) == 3
    sample.run("uffd kill")
    for pid in pids:
        assert survivors.wait_gone(pid, 10)
    assert "uffd spawn" in sample.run("uffd call push(1)")


@pytest.mark.own_gdb
def test_settings_are_given_back(gdb, all_cores):
    before = [gdb.run(f"show {s}") for s in ("sysroot", "scheduler-locking", "confirm", "width")]
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.run("uffd call push(7)")
    gdb.run("uffd kill")
    after = [gdb.run(f"show {s}") for s in ("sysroot", "scheduler-locking", "confirm", "width")]
    assert after == before


def test_plain_print_adds_one_line(sample):
    text = sample.run("print push(7)").strip()
    assert re.search(r"^\$\d+ = 1042\n.*\b[1-9]\d* pages? dirtied.*uffd dirty", text), text
    assert len(text.split("\n")) == 2
    assert "uffd" not in sample.run("print counter")
    text = sample.run("call push(8)")
    assert "pages dirtied" in text


def test_report_off_silences_it(sample):
    sample.run("set uffd report off")
    assert re.fullmatch(r"\$\d+ = 1042", sample.run("print push(7)").strip())
    assert sample.run("show uffd report").strip().endswith(" is off.")
    sample.run("set uffd report on")
    assert "dirtied" in sample.run("print push(7)")


@pytest.mark.own_gdb
def test_no_line_for_another_inferior(gdb, live_zoo, built, gdb_path):
    gdb.run(f"file {built / 'zoo'}")
    gdb.run("break checkpoint if depth_left == 0")
    gdb.run(f"run {built / 'plugin.so'} pause")
    assert "uffd" not in gdb.run("print hidden")
    gdb.run("kill")


def test_batch_mode(gdb_path, tmp_path, all_cores):
    import subprocess

    from harness import ROOT, gdbs

    done = subprocess.run(
        [gdb_path, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
        + ["-x", str(ROOT / "gdbinit.example"), "-ex", f"uffd spawn {all_cores.sample()}"]
        + ["-ex", "print push(7)", "-ex", "uffd call push(8)"],
        capture_output=True,
        text=True,
        env=gdbs.environment(tmp_path / "home"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "$1 = 1042" in done.stdout and "$2 = 1043" in done.stdout
    assert re.search(r"\$1 = 1042\n.*pages? dirtied", done.stdout), done.stdout


def test_machine_interface(gdb_path, all_cores, tmp_path):
    """An IDE's gdb: names and changes as on the console (gdb 18 captures MI records)."""
    commands = [
        f'-interpreter-exec console "uffd spawn {all_cores.sample()}"',
        '-interpreter-exec console "uffd call push(7)"',
        "-gdb-exit",
    ]
    done = subprocess.run(
        [gdb_path, "-nx", "-q", "-i=mi", "-iex", "set debuginfod enabled off", "-x",
         str(ROOT / "gdbinit.example")],
        input="\n".join(commands) + "\n", env=gdbs.environment(tmp_path), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "counter 1041 " in done.stdout and '~\\"' not in done.stdout, done.stdout


def test_names_that_the_locale_lacks(gdb_path, all_cores, built, tmp_path):
    """LC_ALL=C and an executable whose path is not ASCII."""
    folder = tmp_path / "plüg"
    folder.mkdir()
    shutil.copy(built / "sample", folder / "sample")
    done = subprocess.run(
        [gdb_path, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-x",
         str(ROOT / "gdbinit.example"), "-ex", f"uffd spawn {all_cores.sample()} sample",
         "-ex", "uffd call push(7)", "-ex", "uffd dirty"],
        env={**gdbs.environment(tmp_path), "LC_ALL": "C"}, cwd=folder, capture_output=True,
        check=False,
    )  # fmt: skip
    assert b"pages dirtied" in done.stdout, done.stderr
    assert b"internal error" not in done.stderr and b"Traceback" not in done.stderr


def test_an_undone_call_takes_its_signal_handler_along(zoo):
    """What a call left in the kernel is undone too: `signal` tells the handler before."""
    before = zoo.value("(long)signal(10, 1)")
    zoo.run("uffd reset")
    zoo.run("uffd call (long)signal(10, 1)")
    assert zoo.value("(long)signal(10, 1)") == before

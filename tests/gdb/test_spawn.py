"""`uffd spawn` and looking around: what stock gdb shows of a core, with no process made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from harness import gdbs, survivors

pytestmark = pytest.mark.shared_gdb

LOOKS = [
    "triangle",
    "grid",
    "hidden",
    "favourite",
    "greeting",
    "&triangle.corner[1]",
    "tls_here",
    "lib_tls",
    "depth_left",
    "local",
    "plugin_bump",
    "$pc",
    "$sp",
    *gdbs.REGISTERS,
    "big_bss[5]",
    "held.__data.__lock",
]


def test_spawn_says_where_the_program_stopped(sample):
    assert "SIGSEGV" in sample.spawned
    assert re.search(r"#0 .*lookup \(value=99\) at .*sample\.c:\d+", sample.spawned)


def test_executable_and_libraries_are_found_from_the_core(sample, built):
    assert str(built / "sample") in sample.run("info files")
    libraries = sample.run("info sharedlibrary")
    assert "libc.so.6" in libraries and "ld-linux" in libraries


def test_threads(sample):
    listing = sample.run("info threads")
    assert len(re.findall(r"^[* ] +\d+ +Thread", listing, re.M)) == 3, listing
    assert "lookup (value=99)" in listing
    assert "worker (" in sample.run("thread apply 2 bt")
    assert "worker" in sample.run("thread apply 3 bt")


def test_threads_keep_their_registers_and_thread_locals(zoo):
    seen = {}
    for number in (1, 2, 3):
        zoo.run(f"thread {number}")
        seen[number] = (zoo.value("tls_here"), zoo.value("lib_tls"), zoo.value(gdbs.THREAD_POINTER))
    assert sorted(v[0] for v in seen.values()) == ["11", "22", "33"]
    assert sorted(v[1] for v in seen.values()) == ["500", "500", "600"]
    assert len({v[2] for v in seen.values()}) == 3


def test_backtrace_and_frames(zoo):
    trace = zoo.run("bt")
    assert "abort" in trace and "main (argc=3" in trace
    zoo.run("frame function main")
    assert zoo.value("argc") == "3"
    assert "plugin.so" in zoo.value("argv[1]")
    assert "plugin = 0x" in zoo.run("info locals")


def test_examine(zoo):
    assert "hello, core" in zoo.run("x/s greeting")
    assert "77" in zoo.run("x/dw &hidden")
    assert "<checkpoint" in zoo.run("x/3i checkpoint")


@pytest.mark.own_gdb
def test_values_are_those_of_the_live_process(live_zoo, gdb):
    gdb.run(f"uffd spawn {live_zoo.core}")
    wanted = live_zoo.values(LOOKS)
    assert [gdb.value(e) for e in LOOKS] == wanted


@pytest.mark.own_gdb
@pytest.mark.every_gdb
def test_gcore_core_of_each_gdb(gdb, gdb_path, all_cores):
    gdb.run(f"uffd spawn {all_cores.gcore(gdb_path)}")
    assert re.search(r"checkpoint \(depth_left=0\)", gdb.run("bt"))
    assert gdb.value("grid[2][3]") == "11"
    assert gdb.value("tls_here") == "11"
    assert gdb.value("set_grid(1, 1, 5)") == "5"
    assert gdb.value("grid[1][1]") == "5"


def test_thread_local_of_a_library_opened_at_run_time(zoo):
    for number in (1, 2, 3):
        zoo.run(f"thread {number}")
        if zoo.value("tls_here") == "22":
            assert zoo.value("plugin_tls[0]") == "8"
        elif zoo.value("tls_here") == "33":  # this thread never touched it
            text = zoo.run("print plugin_tls[0]")
            assert "Cannot find thread-local storage" in text or "not yet allocated" in text, text


def test_auxv_and_mappings(zoo, built):
    assert "AT_SYSINFO_EHDR" in zoo.run("info auxv")
    mappings = zoo.run("info proc mappings")
    assert "libtlslib.so" in mappings and "[stack]" in mappings, mappings
    own = zoo.run("uffd mappings")
    assert str(built / "plugin.so") in own and "[heap]" in own and "[stack]" in own, own


@pytest.mark.own_gdb
@pytest.mark.parametrize("kind", ["avx", "avx512"])
def test_vector_registers(gdb, all_cores, kind):
    gdb.run(f"uffd spawn {all_cores.vector(kind)}")
    last = 4 if kind == "avx" else 8

    def quads(register: str, first: int = 0) -> None:
        name = ("ymm" if kind == "avx" else "zmm") + register
        field = "v4_int64" if kind == "avx" else "v8_int64"
        got = gdb.value(f"/x ${name}.{field}")
        number = int(register)
        want = [hex(0x1111111111111111 * (q + 1) + number) for q in range(last)]
        assert re.findall(r"0x[0-9a-f]+", got) == want, register

    for register in ("0", "1", "15") + (("16", "31") if kind == "avx512" else ()):
        quads(register)
    if kind == "avx512":
        assert gdb.value("/x $k1") == "0x5a5a"
    else:
        assert gdb.value("$st0").startswith("3.14159265358979")
    assert "=> " in gdb.run("x/i $pc") and "ud2" in gdb.run("x/i $pc")


@pytest.mark.own_gdb
def test_looking_makes_no_process(zoo):
    for command in ("bt full", "info threads", "info registers", "x/64xb $sp", "print triangle"):
        zoo.run(command)
    assert survivors.vessels() == []
    assert zoo.json("uffd info -json")["alive"] is False


@pytest.mark.own_gdb
def test_executable_may_be_named(gdb, all_cores, built, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copy(built / "sample", copy)
    assert "lookup (value=99)" in gdb.run(f"uffd spawn {all_cores.sample()} {copy}")
    assert str(copy) in gdb.run("info files")
    assert gdb.value("push(7)") == "1042"


@pytest.mark.own_gdb
def test_paths_with_spaces(gdb, all_cores, built, tmp_path):
    core, program = tmp_path / "a core", tmp_path / "a program"
    shutil.copy(all_cores.sample(), core)
    shutil.copy(built / "sample", program)
    assert "lookup (value=99)" in gdb.run(f"uffd spawn '{core}' '{program}'")
    assert gdb.value("counter") == "1041"


@pytest.mark.own_gdb
def test_static_executable(gdb, all_cores):
    assert "lookup (value=99)" in gdb.run(f"uffd spawn {all_cores.sample_static()}")
    assert gdb.value("counter") == "1041"
    assert gdb.value("tls_hits") == "1007"
    assert gdb.value("push(7)") == "1042"


@pytest.mark.own_gdb
def test_spawn_again_takes_the_place_of_the_first(sample, all_cores):
    assert "abort" in sample.run(f"uffd spawn {all_cores.zoo()}") + sample.run("bt")
    assert sample.value("hidden") == "77"
    assert len(survivors.ours()) == 2


@pytest.mark.own_gdb
@pytest.mark.every_gdb
def test_two_inferiors_two_cores(sample, all_cores):
    if gdbs.version(sample.path) < (13, 0):
        pytest.skip("gdb 12 waits for the wrong one of two remote targets")
    sample.run("add-inferior")
    sample.run("inferior 2")
    sample.run(f"uffd spawn {all_cores.zoo()}")
    assert sample.value("hidden") == "77"
    assert sample.value("set_grid(0, 0, 9)") == "0"
    sample.run("inferior 1")
    assert sample.value("push(7)") == "1042"
    sample.run("inferior 2")
    assert sample.value("grid[0][0]") == "9"


def test_the_core_is_never_changed(sample, all_cores):
    before = Path(all_cores.sample()).read_bytes()
    sample.value("push(7)")
    sample.run("set var counter = 5")
    sample.run("uffd call -keep push(8)")
    assert Path(all_cores.sample()).read_bytes() == before


@pytest.mark.own_gdb
def test_kill_in_one_inferior_leaves_the_other(sample, all_cores):
    sample.run("add-inferior -no-connection")
    sample.run("inferior 2")
    sample.run(f"uffd spawn {all_cores.zoo()}")
    sample.run("uffd kill")
    sample.run("inferior 1")
    assert "lookup" in sample.run("bt")
    assert sample.value("push(7)") == "1042"

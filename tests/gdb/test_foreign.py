"""Cores made with other builds of the libraries: what is there works, what is not is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import cores, foreign

from gdb_uffd.native import lib

pytestmark = pytest.mark.shared_gdb

TUNABLES = "glibc.malloc.check=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def core(folder) -> Path:
    try:
        return foreign.core(foreign.program(folder / "built"), folder / "run")
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


@pytest.fixture(scope="module")
def others(core, folder) -> Path:
    """The core, of another libc and another ld.so than those that are here."""
    found = foreign.mapped(core)
    return foreign.of_other_builds(core, folder / "others", [found["libc"], found["ld-linux"]])


def test_calls_go_as_far_as_the_pages_are_there(gdb, others):
    text = gdb.run(f"uffd spawn {others}")
    assert "libc.so.6: has build-id" in text and "ld-linux" in text, text
    assert gdb.value("sum()") == "55"
    assert gdb.call("sum()")["verdict"]["pure"]
    # gdb takes no names from the other builds.
    assert "No symbol" in gdb.run("info address __libc_start_main")
    assert "ld-linux" not in gdb.run("info symbol $pc")
    said = " ".join(gdb.run("uffd call say(1)").split())
    assert "has build-id" in said and "`set sysroot`" in said, said
    data = gdb.call("say(1)")
    assert data["value"] is None and "has build-id" in data["unavailable"]
    assert gdb.value("sum()") == "55"


def test_breakpoints_where_there_are_no_bytes(opened, others):
    gdb = opened(others)
    libc = next(
        line.split()[0]
        for line in gdb.run("info proc mappings").splitlines()
        if "libc.so.6" in line and "r-x" in line
    )
    gdb.run(f"break *{libc}")
    assert gdb.value("sum()") == "55"
    gdb.run("delete")
    gdb.run("break *0x10000")
    text = gdb.run("print sum()")
    assert "Cannot insert breakpoint" in text and "0x10000" in text, text
    gdb.run("delete")
    assert gdb.value("sum()") == "55"


def test_a_search_path_brings_no_other_build_back(gdb, others, core):
    gdb.run(f"set solib-search-path {foreign.mapped(core)['libc'].parent}")
    gdb.run(f"uffd spawn {others}")
    assert "No symbol" in gdb.run("info address __libc_start_main")
    assert gdb.value("sum()") == "55"
    gdb.run("uffd kill")
    assert "linux-gnu" in gdb.run("show solib-search-path")


def test_a_library_with_a_relative_name(gdb, tmp_path, start_gdb):
    """`LD_LIBRARY_PATH=.` has the linker note "./libx.so": the file that was mapped is meant, and
    no other one of that name, wherever gdb runs."""
    place, there = tmp_path / "relative", tmp_path / "elsewhere"
    for where, extra in ((place, ""), (there, "int before(void) { return 0; }")):
        where.mkdir()
        (where / "x.c").write_text(extra + "int grow(int n) { return n + 1; }")
        build = ["cc", "-g", "-shared", "-fPIC", "-o", "libx.so", "x.c"]
        subprocess.run(build, cwd=where, check=True)
    (place / "p.c").write_text(
        "#include <stdlib.h>\nint grow(int); int main(void) { return grow(1) ? abort(), 0 : 1; }"
    )
    build = ["cc", "-g", "-o", "p", "p.c", "-L.", "-lx"]
    subprocess.run(build, cwd=place, check=True)
    run = place / "run"
    run.mkdir()
    (run / "libx.so").hardlink_to(place / "libx.so")
    try:
        core = cores.kernel_core([str(place / "p")], run, {"LD_LIBRARY_PATH": "."})
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    for home in (run, there):
        gdb.run(f"cd {home}")
        gdb.run(f"uffd spawn {core}")
        assert gdb.value("grow(41)") == "42"
        assert f"{run}/libx.so" in gdb.run("info sharedlibrary")
    # Another build in its place gives no names.
    (run / "libx.so").unlink()
    shutil.copy(there / "libx.so", run / "libx.so")
    for home in (run, there):
        fresh = start_gdb(cwd=home)
        assert "has build-id" in fresh.run(f"uffd spawn {core}")
        assert 'No symbol "before"' in fresh.run("print before")
        assert "no debug info" in fresh.run("print grow")


def test_memory_that_the_core_does_not_hold(opened, core):
    """Every call that takes it for something says so, also the second one."""
    gdb = opened(core)
    taken = "read 1 page that this core does not hold, taken as zeros"
    for _ in range(2):
        data = gdb.call("hidden_sum()")
        assert data["value"] == "0" and not data["verdict"]["pure"], data
        assert data["verdict"]["unknown"] == {"zeros": 1, "file": 0}
        assert taken in data["verdict"]["text"]
    assert gdb.call("sum()")["verdict"]["pure"]
    for _ in range(2):
        assert taken in gdb.run("print hidden_sum()")
    assert "does not hold" not in gdb.run("print sum()")
    assert gdb.call("fresh_sum()")["verdict"]["unknown"]["zeros"] == 2
    gdb.run("uffd reset")
    # Of one array the first page was dumped and the second was not: that one was kept out.
    assert gdb.value("half[0]").startswith("3 ")
    assert "Cannot access memory" in gdb.run("print half[4096]")
    data = gdb.call("half_sum()")
    assert data["value"] is None and "kept out when the core was" in data["unavailable"], data


def test_past_the_end_of_a_file(opened, core):
    """SIGBUS, as in the live program (mmap(2))."""
    gdb = opened(core)
    assert gdb.call("cut_at(0)")["value"] == str(ord("c"))
    assert "Cannot access memory" in gdb.run("print cut[4096]")
    data = gdb.call("cut_at(1)")
    assert data["stopped"]["reason"] == "SIGBUS" and not data["unavailable"], data
    assert "SIGBUS" in gdb.run("print cut_at(1)")
    assert gdb.value("$_siginfo.si_code") == "2"
    where = int(gdb.value("(long)$_siginfo._sifields._sigfault.si_addr"))
    assert where == int(gdb.value("(long)cut")) + 4096
    gdb.run("uffd reset")


@pytest.fixture(scope="module")
def no_linker(core, folder) -> Path:
    """The core, of another ld.so than the one that is here; all libraries are."""
    return foreign.of_other_builds(core, folder / "no-linker", [foreign.mapped(core)["ld-linux"]])


def test_calls_are_bound_without_the_linker(gdb, no_linker):
    """By the tables of the libraries: versions, functions that are chosen, malloc's first call."""
    text = gdb.run(f"uffd spawn {no_linker}")
    assert "ld-linux" in text and "libc.so.6" not in text, text
    data = gdb.call("length()")
    assert data["value"] == "9" and [w["what"] for w in data["verdict"]["wrote"]] == ["linker"]
    assert "strlen" in " ".join(c["name"] for p in data["dirty"] for c in p["changes"])
    assert gdb.call("both()")["value"] == "10"
    gdb.run("set var words[0] = 0")
    assert gdb.call("both()")["value"] == "10"
    data = gdb.json("uffd why -json words")  # on the page of the slots
    assert data["total"] >= 1 and data["writes"][0]["by"] == "program", data
    assert "strcpy" in data["writes"][0]["backtrace"][0]["function"]
    gdb.run("uffd reset")
    assert gdb.call("chosen()")["value"] == "42"  # asks a function that has not run yet
    assert gdb.call("versions()")["value"] == "12"
    data = gdb.call("say(4)")
    assert data["value"] == "5" and data["output"] == "x is 4\n", data
    assert "x is 5" in gdb.run("print say(5)") and "x is 6" in gdb.run("print say(6)")
    gdb.run("uffd reset")
    gdb.run("break printf")
    assert "Breakpoint" in gdb.run("print say(7)")
    assert "in say (x=7)" in gdb.run("backtrace")
    gdb.run("delete")
    gdb.run("uffd reset")
    gdb.run("break say")
    gdb.run("print say(8)")
    assert "fflush" in gdb.run("next") and "x is 8" in gdb.run("next")


@pytest.fixture(scope="module")
def no_library(core, folder) -> Path:
    """The core, of another libchoice.so than the one that is here, which comes before libc."""
    return foreign.of_other_builds(core, folder / "no-library", [foreign.mapped(core)["libchoice"]])


def test_the_linker_does_not_read_what_is_missing(gdb, no_library):
    """It is here; to look strlen up it would go through libchoice.so's tables."""
    text = gdb.run(f"uffd spawn {no_library}")
    assert "libchoice.so" in text and "ld-linux" not in text, text
    data = gdb.call("length()")
    assert data["value"] == "9" and [w["what"] for w in data["verdict"]["wrote"]] == ["linker"]
    assert gdb.call("both()")["value"] == "10"
    data = gdb.call("say(4)")
    assert data["value"] == "5" and data["output"] == "x is 4\n", data
    data = gdb.call("chosen()")
    assert data["value"] is None and "libchoice.so: has build-id" in data["unavailable"], data
    gdb.run("set var words[0] = 0")
    assert gdb.value("both()") == "10"
    data = gdb.json("uffd why -json words")
    assert "strcpy" in data["writes"][0]["backtrace"][0]["function"], data
    gdb.run("uffd reset")
    gdb.run("break length")
    gdb.run("print length()")
    gdb.run("delete")
    places = [gdb.run("stepi") for _ in range(16)]  # by the stub and the linker's entry
    assert "strlen" in places[-1], places
    gdb.run("finish")
    assert "= 9" in gdb.run("finish")


def test_a_library_that_a_call_loads(gdb, tmp_path):
    """It has its name, and gdb its symbols, also while gdb looks for libraries in links of ours."""
    made = foreign.program(tmp_path / "built")
    core = foreign.core(made, tmp_path / "run")
    opened, away = made.parent / "libopened.so", made.parent / "away"
    away.mkdir()
    (made.parent / "libchoice.so").rename(away / "libchoice.so")
    gdb.run(f"set uffd files-from {away}")
    gdb.run(f"uffd spawn {core}")
    assert "gdb-uffd-root" in gdb.run("show sysroot")
    for _ in range(2):
        data = gdb.call(f'load("{opened}")')
        assert data["value"] == "7", data
        owned = {page["mapping"] for page in data["dirty"]}
        changes = {c["name"] for page in data["dirty"] for c in page["changes"]}
        assert "libopened.so" in str(owned) and "opened_count" in changes, (owned, changes)
        assert "anon" not in str(data["verdict"]["wrote"]), data["verdict"]
    assert gdb.value(f'load("{opened}")') == "7"
    assert str(opened) in gdb.run("info proc mappings")
    assert gdb.value("opened_count") == "7" and gdb.value("opened_room[12287]").startswith("3 ")
    assert "opened_step" in gdb.run("info symbol opened_step")
    gdb.run("uffd reset")
    assert "libopened" not in gdb.run("info sharedlibrary")
    assert "No symbol" in gdb.run("print opened_count")


@pytest.fixture(scope="module")
def tuned(core, folder) -> Path:
    """The same of a process whose malloc was tuned when it was started."""
    made = foreign.core(folder / "built" / "foreign", folder / "tuned", GLIBC_TUNABLES=TUNABLES)
    return foreign.of_other_builds(made, folder / "other", [foreign.mapped(made)["ld-linux"]])


def test_what_only_the_linker_knows_ends_a_call(opened, tuned):
    """It is named."""
    gdb = opened(tuned)
    assert gdb.call("length()")["value"] == "9"
    data = gdb.call("say(4)")
    assert data["value"] is None and "__tunable_get_val is called: " in data["unavailable"], data
    assert "ld-linux" in data["unavailable"] and "has build-id" in data["unavailable"]


NT_AUXV, NT_FILE, NT_X86_XSTATE = 6, 0x46494C45, 0x202


@pytest.mark.skipif(lib.arch_xcr0() & 0xE4 == 0, reason="this CPU has no AVX")
def test_the_linker_has_no_room_for_this_cpu(gdb, core, folder):
    """Recorded on a CPU with fewer registers than this one, all of which XSAVE would put on the
    stack: the calls are bound in the linker's place."""
    narrow = foreign.without_notes(core, folder / "narrow", (NT_X86_XSTATE,))
    gdb.run(f"uffd spawn {narrow}")
    data = gdb.call("length()")
    slots = [page for page in data["dirty"] if page["kind"] != "stack"]
    assert data["value"] == "9" and len(slots) == 1, data
    assert slots[0]["first_write"]["function"].startswith("_dl_runtime_resolve"), slots
    assert gdb.call("say(4)")["output"] == "x is 4\n"


def test_a_core_that_does_not_tell_of_files(gdb, core, folder):
    """Neither NT_FILE nor NT_AUXV, as valgrind writes it: the objects are found in memory.  Nor
    segment registers: a call has those that a process must have."""
    bare = foreign.without_notes(core, folder / "bare", (NT_AUXV, NT_FILE))
    if os.uname().machine == "x86_64":
        bare = foreign.without_segments(bare, folder / "barer")
    program = folder / "built" / "foreign"
    assert "name the executable: uffd spawn" in " ".join(gdb.run(f"uffd spawn {bare}").split())
    text = gdb.run(f"uffd spawn {bare} {program}")
    assert "crash (where=0x0)" in text, text
    assert "in main (" in gdb.run("backtrace")
    assert gdb.value("numbers[9]") == "10" and gdb.value("sum()") == "55"
    libraries = gdb.run("info sharedlibrary")
    assert "libchoice.so" in libraries and "libc.so.6" in libraries
    assert gdb.call("sum()")["verdict"]["pure"] and "wrote register" not in gdb.run("uffd dirty")
    data = gdb.call("say(4)")
    assert data["value"] == "5" and data["output"] == "x is 4\n", data
    assert gdb.call("versions()")["value"] == "12"

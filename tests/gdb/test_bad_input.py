"""Bad input: one clear line, gdb stays usable, nothing left behind."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import struct
import subprocess

import pytest
from harness import ROOT, cores, gdbs, survivors

pytestmark = pytest.mark.shared_gdb


def refused(gdb, command: str, *words: str) -> str:
    """The one line of `command`, which must have `words` in it; gdb must go on."""
    text = gdb.run(command).strip()
    assert text and "\n" not in text, text
    assert "Traceback" not in text and "Python Exception" not in text
    for word in words:
        assert word in text, (word, text)
    assert gdb.value("6 * 7") == "42"
    assert survivors.ours() == []
    return text


def test_no_such_file(gdb, tmp_path):
    refused(gdb, f"uffd spawn {tmp_path}/none", f"{tmp_path}/none", "o such file")


def test_no_file_named(gdb):
    refused(gdb, "uffd spawn", "FILE")


def test_too_many_files(gdb):
    refused(gdb, "uffd spawn a b c")


def test_not_an_elf(gdb, tmp_path):
    path = tmp_path / "text"
    path.write_text("hello " * 1000)
    refused(gdb, f"uffd spawn {path}", str(path), "ELF")


def test_empty_file(gdb, tmp_path):
    path = tmp_path / "empty"
    path.touch()
    refused(gdb, f"uffd spawn {path}", str(path))


def test_directory(gdb, tmp_path):
    refused(gdb, f"uffd spawn {tmp_path}", str(tmp_path), "directory")


def test_pipe_does_not_hang(gdb, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    refused(gdb, f"uffd spawn {path}", str(path))


def test_not_a_core(gdb, built):
    refused(gdb, f"uffd spawn {built / 'sample'}", str(built / "sample"), "core")


@pytest.mark.parametrize("machine", [3, 21, 243])  # EM_386, EM_PPC64, EM_RISCV
def test_core_of_another_architecture(gdb, all_cores, tmp_path, machine):
    path = tmp_path / "foreign"
    data = bytearray(all_cores.sample().read_bytes())
    data[18:20] = struct.pack("<H", machine)
    path.write_bytes(data)
    refused(gdb, f"uffd spawn {path}", str(path), "x86-64")


def test_core_cut_inside_its_headers(gdb, all_cores, tmp_path):
    path = cores.truncated(all_cores.sample(), 700, tmp_path / "cut")
    refused(gdb, f"uffd spawn {path}", str(path))


def segment_with(core, address: int) -> tuple[int, int, int]:
    """(number, file offset, start) of the PT_LOAD that holds `address` (elf(5))."""
    data = core.read_bytes()
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for i in range(phnum):
        kind, _, offset, start, _, size = struct.unpack_from("<IIQQQQ", data, phoff + 56 * i)
        if kind == 1 and start <= address < start + size:
            return i, offset, start
    raise AssertionError(hex(address))


def address_of_bss(gdb, core) -> int:
    gdb.run(f"uffd spawn {core}")
    address = int(gdb.value("/x (long)&big_bss[0]"), 16)
    gdb.run("uffd kill")
    return address


def test_truncated_core(gdb, all_cores, tmp_path):
    """What a full disk leaves: the end of the file, stack and libraries, is not there."""
    whole = all_cores.zoo()
    bss = address_of_bss(gdb, whole)
    _, offset, start = segment_with(whole, bss)
    path = cores.truncated(whole, offset + (bss - start & ~4095) + 16 * 4096, tmp_path / "cut")
    text = gdb.run(f"uffd spawn {path}")
    assert "truncated" in text, text
    assert gdb.value("hidden") == "77"
    assert gdb.value("big_bss[5]") == "0 '\\000'"
    text = gdb.run("print big_bss[100 * 4096]")
    assert "Cannot access memory" in text, text
    assert "Traceback" not in gdb.run("bt")
    text = gdb.run("uffd call dirty_bss(100)")  # no stack to call it on
    assert "truncated" in text and "Traceback" not in text, text
    page = int(gdb.value("(long) $sp"), 0) & -4096
    for low in range(0, 256, 32):  # what gdb writes may begin in the page before
        gdb.run("uffd reset")
        gdb.run(f"print $sp = {page + low}")
        text = gdb.run("uffd call dirty_bss(100)")
        assert "truncated" in text, (low, text)
    assert gdb.value("hidden") == "77"


def test_page_missing_from_a_truncated_core(gdb, all_cores, tmp_path):
    """A page that is not there gives the thread a fault and the user its reason, never zeros."""
    whole = all_cores.zoo()
    bss = address_of_bss(gdb, whole)
    number, offset, _ = segment_with(whole, bss + 8192)  # past the page that .data shares
    data = bytearray(whole.read_bytes())
    data += bytes(-len(data) % 4096)
    # The segment moves to the end of the file, which is cut after 16 pages of big_bss.
    kept = 16 * 4096
    phoff = struct.unpack_from("<Q", data, 32)[0]
    struct.pack_into("<Q", data, phoff + 56 * number + 8, len(data))
    path = tmp_path / "cut"
    path.write_bytes(data + data[offset : offset + kept])
    assert "truncated" in gdb.run(f"uffd spawn {path}")
    assert gdb.call("dirty_bss(10)")["value"] == "10"
    text = gdb.run("uffd call dirty_bss(100)")
    assert "did not return" in text and "truncated" in text and "discarded" in text, text
    data = gdb.call("dirty_bss(100)")
    assert data["value"] is None and "truncated" in str(data), data
    assert gdb.call("dirty_bss(10)")["value"] == "10"
    text = gdb.run("print dirty_bss(100)")
    assert "SIGBUS" in text or "SIGSEGV" in text, text
    gdb.run("uffd reset")
    assert gdb.value("half(3.0)") == "1.5"


def private_zoo(built, tmp_path):
    """The zoo's core, made in a folder whose libraries may then be tampered with."""
    folder = tmp_path / "private"
    folder.mkdir()
    for name in ("zoo", "libtlslib.so", "plugin.so"):
        shutil.copy(built / name, folder / name)
    try:
        core = cores.kernel_core(
            [str(folder / "zoo"), str(folder / "plugin.so"), "abort"], tmp_path / "c"
        )
    except cores.NoKernelCore as why:
        pytest.skip(str(why))
    return folder, core


def test_missing_library(gdb, built, tmp_path):
    folder, core = private_zoo(built, tmp_path)
    (folder / "plugin.so").unlink()
    text = gdb.run(f"uffd spawn {core}")
    assert str(folder / "plugin.so") in text, text
    assert gdb.value("hidden") == "77"
    assert gdb.value("half(3.0)") == "1.5"
    text = gdb.run("uffd call plugin_bump()")
    assert str(folder / "plugin.so") in text and "did not return" in text, text
    assert gdb.value("half(3.0)") == "1.5"


def test_library_of_another_build(gdb, built, tmp_path):
    folder, core = private_zoo(built, tmp_path)
    source = tmp_path / "other.c"
    source.write_text("long plugin_bump(void) { return -1; }\nchar pad[100000] = {1};\n")
    target = str(folder / "plugin.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, str(source)], check=True)
    text = gdb.run(f"uffd spawn {core}")
    assert str(folder / "plugin.so") in text and "build" in text, text
    assert gdb.value("half(3.0)") == "1.5"
    text = gdb.run("uffd call plugin_bump()")
    assert "plugin.so" in text and "did not return" in text and "= -1" not in text, text


def test_missing_executable(gdb, built, tmp_path):
    folder, core = private_zoo(built, tmp_path)
    (folder / "zoo").unlink()
    text = gdb.run(f"uffd spawn {core}")
    assert str(folder / "zoo") in text, text
    bytes_at_sp = gdb.run("x/8xb $sp")
    assert re.fullmatch(r"0x[0-9a-f]+.*:(\s+0x[0-9a-f]{2}){8}\s*", bytes_at_sp), bytes_at_sp
    shown = gdb.run(f"uffd spawn {core} {built / 'zoo'}")
    assert gdb.value("half(3.0)") == "1.5", shown


def test_executable_that_does_not_match(gdb, all_cores, built):
    refused(gdb, f"uffd spawn {all_cores.sample()} {built / 'zoo'}", str(built / "zoo"))


def test_executable_that_is_none(gdb, all_cores, tmp_path):
    path = tmp_path / "text"
    path.write_text("hello")
    refused(gdb, f"uffd spawn {all_cores.sample()} {path}", str(path))
    refused(gdb, f"uffd spawn {all_cores.sample()} {tmp_path}/none", f"{tmp_path}/none")


def test_unreadable_file(gdb_path, tmp_path, all_cores):
    path = tmp_path / "secret"
    shutil.copy(all_cores.sample(), path)
    path.chmod(0)
    wrapper = gdb_path
    if os.getuid() == 0:
        # Root reads everything by two capabilities (capabilities(7)).  Without them, and as its
        # owner, the checkout can be read wherever it lies, also where nobody else may enter.
        owner, limits = ROOT.stat(), "-dac_override,-dac_read_search"
        less = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
        less += ["--bounding-set", limits, "--inh-caps", limits]
        if subprocess.run(
            [*less, gdb_path, "--version"], capture_output=True, check=False
        ).returncode:
            pytest.skip("the checkout's owner may not run this gdb here")
        wrapper = str(tmp_path / "gdb-as-owner")
        with open(wrapper, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nexec {shlex.join([*less, gdb_path])} "$@"\n')
        os.chmod(wrapper, 0o755)
    gdb = gdbs.Gdb(wrapper, tmp_path / "home", cwd=None if os.getuid() else "/")
    try:
        refused(gdb, f"uffd spawn {path}", str(path), "ermission")
    finally:
        gdb.quit()


def did_not_return(gdb, expression: str, *words: str) -> None:
    """`uffd call` and its -json both say why, and the session lives on, unchanged."""
    text = gdb.run(f"uffd call {expression}")
    assert "did not return" in text and "discarded" in text and "Traceback" not in text, text
    for word in words:
        assert word in text, (word, text)
    data = gdb.call(expression)
    assert data.get("value") is None
    for word in words:
        assert word in str(data), (word, data)
    assert gdb.value("hidden") == "77"
    assert gdb.value("half(3.0)") == "1.5"
    assert "main" in gdb.run("bt")
    gdb.run("uffd reset")


def test_function_that_crashes(zoo):
    did_not_return(zoo, "crash_after_dirt()", "SIGSEGV", "crash")


def test_function_that_aborts(zoo):
    did_not_return(zoo, "give_up()", "SIGABRT")


@pytest.mark.parametrize("name", ["leave", "leave_at_once"])
def test_function_that_exits(zoo, name):
    did_not_return(zoo, f"{name}(3)", "exit", "3")


def test_function_that_forks(zoo):
    before = set(survivors.ours())
    text = zoo.run("uffd call split()")
    assert "  refused: fork() → EAGAIN" in text, text
    assert zoo.call("split()")["value"].startswith("-")
    zoo.run("uffd reset")
    assert set(survivors.ours()) <= before | set(survivors.servers())


def test_function_that_kills(zoo):
    text = zoo.run("uffd call kill_parent()")
    assert re.search(r"^  refused: kill\(\d+, SIGTERM\) → EPERM$", text, re.M), text
    assert zoo.call("kill_parent()")["value"].startswith("-")
    assert zoo.value("half(3.0)") == "1.5"


def test_function_that_never_returns(zoo):
    zoo.send("uffd call forever()")
    survivors.wait_computing()
    text = zoo.interrupt()
    assert "did not return" in text and "discarded" in text, text
    assert zoo.value("spins") == "0"
    assert zoo.call("half(3.0)")["value"] == "1.5"


def test_function_that_waits_for_a_recorded_lock(zoo):
    text = zoo.run("uffd call take_held_lock()", timeout=30)
    end = "did not return: would block: pthread_mutex_lock(&held), held by thread"
    assert end in text, text
    assert zoo.value("half(3.0)") == "1.5"


def test_stack_without_end(zoo):
    text = zoo.run("uffd call depth(100000000)", timeout=60)
    assert "did not return: the stack is used up" in text and "endless recursion" in text, text
    assert zoo.value("half(3.0)") == "1.5"


def test_plain_print_of_a_crashing_function(zoo):
    assert "SIGSEGV" in zoo.run("print crash_after_dirt()")
    assert re.match(r"#0 .* in crash \(where=0x8\) at ", zoo.run("bt"))
    zoo.run("uffd reset")
    assert zoo.value("grid[2][3]") == "11"
    assert "abort" in zoo.run("bt")


def test_plain_print_of_a_function_that_exits(zoo):
    text = zoo.run("print leave(3)")
    assert "uffd: the program would exit with code 3 here; `uffd call` shows where" in text, text
    zoo.run("uffd reset")
    assert zoo.value("half(3.0)") == "1.5"


def test_userfaultfd_forbidden(gdb_path, tmp_path, all_cores, built):
    wrapper = tmp_path / "gdb-without-userfaultfd"
    wrapper.write_text(f'#!/bin/sh\nexec {built / "forbid"} {gdb_path} "$@"\n')
    wrapper.chmod(0o755)
    gdb = gdbs.Gdb(str(wrapper), tmp_path / "home")
    try:
        gdb.run(f"uffd spawn {all_cores.sample()}")
        assert gdb.value("counter") == "1041"  # looking needs none
        text = gdb.run("uffd call push(7)").strip()
        assert "\n" not in text and "userfaultfd" in text, text
        text = gdb.run("print push(7)")
        assert "Traceback" not in text
        assert gdb.value("counter") == "1041"
        assert "userfaultfd" in gdb.run("uffd doctor")
    finally:
        gdb.quit()


def test_no_server_environment(start_gdb, all_cores, tmp_path):
    gdb = start_gdb(env={"GDB_UFFD_PYTHON": "/nowhere/python"})
    refused(gdb, f"uffd spawn {all_cores.sample()}", "/nowhere/python", "GDB_UFFD_PYTHON")


def test_server_environment_without_the_package(start_gdb, all_cores, tmp_path):
    venv = tmp_path / "bare"
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(venv)], check=True)
    gdb = start_gdb(env={"GDB_UFFD_PYTHON": str(venv / "bin" / "python")})
    refused(gdb, f"uffd spawn {all_cores.sample()}", str(venv))


def test_server_that_is_no_python(start_gdb, all_cores):
    gdb = start_gdb(env={"GDB_UFFD_PYTHON": "/bin/true"})
    refused(gdb, f"uffd spawn {all_cores.sample()}", "/bin/true")


def test_unknown_options(zoo):
    text = zoo.run("uffd call -frobnicate").strip()
    assert "\n" not in text and text.startswith("no option -frobnicate; usage: uffd call"), text
    text = zoo.run("uffd dirty -frobnicate").strip()
    assert "\n" not in text and "-frobnicate" in text


def test_a_live_process_is_not_overrun(gdb, built, all_cores):
    gdb.run(f"file {built / 'sample'}")
    gdb.run("break main")
    gdb.run("run")
    text = gdb.run(f"uffd spawn {all_cores.sample()}").strip()
    assert "\n" not in text and text
    assert "main" in gdb.run("bt")
    gdb.run("kill")


def test_a_compressed_core_may_be_too_much(gdb, all_cores, tmp_path):
    core = all_cores.sample()
    path = tmp_path / "core.gz"
    path.write_bytes(gzip.compress(core.read_bytes(), 1))
    gdb.run("set uffd unpack-limit 1")
    assert "may unpack to (0: what is plausible): 1" in gdb.run("show uffd unpack-limit")
    said = gdb.run(f"uffd spawn {path}")
    assert "unpacks to more than 1 MiB" in said and "set uffd unpack-limit" in said, said
    for chosen in ("unlimited", "4000", "0"):
        gdb.run(f"set uffd unpack-limit {chosen}")
        assert "lookup (value=99)" in gdb.run(f"uffd spawn {path}")


def test_a_bomb_is_seen_by_its_first_block(gdb, tmp_path):
    path = tmp_path / "core.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    said = gdb.run(f"uffd spawn {path}")
    assert "not an ELF file" in said, said


ASKED = ["call", "trace", "diff", "heap", "why", "map", "when"]


@pytest.mark.parametrize("command", ASKED)
def test_an_unknown_option_is_told_as_one(gdb, sample, command):
    """Not as a symbol that there is not; a name of the program's with a minus is an expression."""
    told = f"no option -bogus; usage: uffd {command} ["
    assert told in gdb.run(f"uffd {command} -bogus")  # no program yet
    sample.run("uffd call push(7)")
    for text in ("-bogus", "-bogus 1", "-bogus + 1"):
        assert told in sample.run(f"uffd {command} {text}"), text
    for text in ("-counter", "-1", "-counter + 1", "- bogus"):
        assert "no option" not in sample.run(f"uffd {command} {text}"), text
    assert sample.run("uffd call -counter").splitlines()[0].endswith(" = -1041")


@pytest.mark.parametrize(
    "command",
    [
        *("spawn", "connect", "dirty", "reset", "kill", "info", "mappings", "doctor", "report"),
        *("snapshots", "export", "record start", "record every", "record stop"),
    ],
)
def test_where_no_expression_stands_every_dash_is_an_option(sample, command):
    text = sample.run(f"uffd {command} -bogus")
    assert f"no option -bogus; usage: uffd {command}" in text, text

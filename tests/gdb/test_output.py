"""What a called function prints, on a terminal, in a file and to a program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import ROOT, SLOWNESS, cores, gdbs
from harness.machine import Machine

pytestmark = pytest.mark.shared_gdb

STEERS = re.compile(r"\x1b(?!\[[0-9;:]*m|\[\?2004)|[\x07\x08\x7f-\x9f\u202a-\u202e]")
"""Bracketed paste (2004) is readline's own."""

TITLE = "^[]0;OWNED^G^[]52;c;aGk=^G"
RAW = b"\x1b]0;OWNED\x07\x1b]52;c;aGk=\x07"


@pytest.fixture
def prints(opened: Callable[..., gdbs.Gdb], all_cores: Any) -> gdbs.Gdb:
    return opened(all_cores.prints())


def clean(text: str) -> str:
    assert not STEERS.search(text), repr(text)
    return text


@pytest.mark.parametrize("how", ["print", "uffd call", "uffd call -keep", "uffd trace", "output"])
def test_a_terminal_is_not_steered(prints, how):
    for fd in (1, 2):
        assert TITLE in clean(prints.run(f"{how} at_once({fd})"))
        text = clean(prints.run(f"{how} in_pieces({fd})"))
        assert "^[]0;OWNED^G \x1b[1;31mred\x1b[m \\302\\233m € \\342\\200\\256 end\n" in text, text
    assert "\\2332J a^Hb c^Md \\377\n" in clean(prints.run(f"{how} eight_bit()"))
    clean(prints.run(f"{how} dialog()"))


def test_the_prompt_keeps_its_colour(prints):
    for how in ("print", "uffd call", "uffd call -keep"):
        text = clean(prints.run(f"{how} coloured()"))
        assert "\x1b[32mgreen\x1b[m" in text, repr(text)
        assert "half ^[[3" in clean(prints.run(f"{how} half()"))
    prints.run("break half")
    assert "\x1b[32mgreen\x1b[m" in clean(prints.run("print coloured() + half()"))
    assert "half ^[[3" in clean(prints.run("finish"))


@pytest.mark.every_gdb
def test_the_end_is_still_in_a_buffer(prints):
    """A character and a sequence, begun by write(2) and ended by printf."""
    text = clean(prints.run("uffd call buffered()"))
    # gdb 18 takes the colours out of what Python writes where TERM is "dumb".
    assert re.match(r"euro € (\x1b\[31m)?red\^\[]0;OWNED\^G(\x1b\[m)?\n", text), repr(text)
    assert prints.call("buffered()")["output"] == "euro € \x1b[31mred\x1b]0;OWNED\x07"
    assert prints.call("eight_bit()")["output"] == "\ufffd2J a\bb c\rd \ufffd\n"


def test_names_from_the_core(prints):
    clean(prints.spawned)
    for command in ("info threads", "info uffd", "uffd info", "uffd call -json at_once(1)"):
        clean(prints.run(command))
    assert "a^[]0;NAME^G" in prints.run("info threads")


@pytest.mark.own_gdb
@pytest.mark.every_gdb
def test_the_setting(prints, tmp_path):
    assert "OWNED" in clean(prints.run("print at_once(1)"))
    assert '"auto"' in prints.run("show uffd control-sequences")
    assert "what becomes of" in prints.run("help set uffd control-sequences")
    prints.run("set uffd control-sequences raw")
    for how in ("print", "uffd call"):
        assert RAW.decode() in prints.run(f"{how} at_once(1)")
        assert "\x1b[32mgreen" in prints.run(f"{how} coloured()")
    assert "red\x1b]0;OWNED\x07" in prints.run("uffd call buffered()")
    prints.run("set uffd control-sequences shown")
    assert TITLE in clean(prints.run("print at_once(1)"))
    prints.run("set uffd control-sequences auto")
    log = tmp_path / "log"
    for command in (f"file {log}", "redirect on", "enabled on"):
        prints.run(f"set logging {command}")
    prints.run("uffd call at_once(1)")
    prints.run("print buffered()")
    prints.run("set logging enabled off")
    if gdbs.version(prints.path) < (18, 0):  # which logs nothing more once a function was called
        assert RAW in log.read_bytes()
    assert TITLE in clean(prints.run("print at_once(1)"))
    prints.run("set logging redirect off")
    prints.run("set logging enabled on")
    assert TITLE in clean(prints.run("print at_once(1)"))


def batch(gdb: str, core: Path, home: Path, out: Any, *commands: str) -> None:
    words = [gdb, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    words += ["-x", str(ROOT / "gdbinit.example"), "-ex", f"uffd spawn {core}"]
    for command in commands:
        words += ["-ex", command]
    subprocess.run(
        words, stdout=out, stderr=subprocess.STDOUT, env=gdbs.environment(home), check=False,
        timeout=60 * SLOWNESS, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_file_is_read_on_a_terminal_and_a_pipe_by_a_program(gdb_path, all_cores, tmp_path):
    core, path = all_cores.prints(), tmp_path / "out"
    calls = ("print at_once(1)", "uffd call at_once(2)", "uffd call buffered()")
    with open(path, "wb") as file:
        batch(gdb_path, core, tmp_path / "home", file, *calls)
    text = clean(path.read_text())
    assert text.count(TITLE) == 2 and "red^[]0;" in text
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        batch(gdb_path, core, tmp_path / "home", reader.stdin, *calls)
        read = reader.communicate()[0]
    assert read.count(RAW) == 2 and b"red\x1b]0;" in read


def test_the_machine_interface_quotes(gdb_path, all_cores, tmp_path):
    home = tmp_path / "home"
    gdbs.environment(home)
    machine = Machine(gdb_path, home)
    machine.answer(f'-interpreter-exec console "uffd spawn {all_cores.prints()}"')
    assert machine.answer('-uffd-call "at_once(1)"').results["output"] == RAW.decode()
    machine.close()


@pytest.fixture
def evil(built: Path, tmp_path: Path) -> Path:
    """The core of a program whose folder, function, variable, thread and arguments have escapes."""
    folder = tmp_path / "dir\x1b]0;DIR\x07"
    folder.mkdir()
    program = folder / "evil"
    renames = [f"--redefine-sym={name}={name}\x1b]0;SYM\x07" for name in ("touch", "touched")]
    subprocess.run(["objcopy", *renames, str(built / "prints"), str(program)], check=True)
    subprocess.run(["objcopy", "--strip-debug", str(program)], check=True)
    return cores.kernel_core([str(program), "\x1b]0;ARG\x07"], tmp_path / "work")


def test_everything_is_named_by_escapes(start_gdb, evil):
    gdb = start_gdb()
    assert "ARG^G" in clean(gdb.run(f"uffd spawn {evil}"))
    touch = gdb.run("info functions touch").split()
    address = next(word for word in touch if word.startswith("0x"))
    for how in ("uffd call", "uffd trace", "uffd call -keep"):
        assert "= 7" in clean(gdb.run(f"{how} ((int (*)(void)) {address})()"))
    assert "= 14" in clean(gdb.run(f"print ((int (*)(void)) {address})()"))
    names = clean(gdb.run("uffd dirty"))
    assert "touch^[]0;SYM^G" in names, names
    for command in ("uffd dirty -all", "uffd mappings", "uffd info", "uffd map $pc", "uffd diff"):
        clean(gdb.run(command))
    for command in ("uffd why $sp", "uffd doctor", f"uffd doctor {evil}", "uffd reset"):
        clean(gdb.run(command))
    clean(gdb.run("uffd spawn /no/\x16\x1b]0;FILE\x16\x07"))
    assert "DIR^G" in gdb.transcript


@pytest.mark.parametrize("command", ["doctor", "info", "pack", "export", "import"])
def test_shell_commands(evil, tmp_path, command):
    words = [str(Path(sys.executable).with_name("gdb-uffd")), command, str(evil)]
    if command in ("export", "import"):
        words += ["-o", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout + done.stderr
    clean(done.stdout + done.stderr)

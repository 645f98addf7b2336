"""How recordings end, and what is left when somebody dies: a trace with every snapshot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Callable, List

import pytest
from harness import gdbs, survivors
from harness.gdbs import Gdb

from gdb_uffd import trace
from gdb_uffd.protocol.model import PAGE_SIZE


@pytest.fixture
def turns(start_gdb, built, tmp_path) -> Callable[..., Gdb]:
    """A gdb on tests/programs/turns.c, recorded to tmp_path/t.uffd at each call of `reached`."""

    def begin(arguments: str, path: Path = tmp_path / "t", before: str = "") -> Gdb:
        session = start_gdb(arguments=[str(built / "turns")])
        if before:
            session.run(before)
        session.run("break reached if number == 1")
        assert "Breakpoint 1" in session.run(f"run {arguments}"), session.transcript
        session.run("delete 1")
        said = session.run(f"uffd record start {path}")
        assert said.startswith("recording to"), said
        session.run("uffd record snapshot first")
        session.run("uffd record at reached")
        return session

    return begin


def stages(path: Path) -> List[int]:
    """`stage` of each snapshot; the trace must be finished and whole."""
    assert not list(path.glob("*-wal")), "the trace was not finished"
    opened = trace.open(str(path))
    found = []
    for info in opened.snapshots:
        snapshot = opened.snapshot(info.number)
        address = snapshot.symbol("stage")
        assert address is not None
        found.append(int.from_bytes(snapshot.read(address, 8), "little"))
        memory = int.from_bytes(snapshot.read(snapshot.symbol("memory") or 0, 8), "little")
        assert snapshot.read(memory, 2 * PAGE_SIZE)
    return found


def test_exit(turns, tmp_path):
    text = turns("exit 3").run("continue")
    assert "recording ended: the program exited with code 3; 4 snapshots in" in text
    assert stages(tmp_path / "t.uffd") == [0, 1, 2, 3]


def test_killed_by_a_signal(turns, tmp_path):
    session = turns("abort")
    assert "SIGABRT" in session.run("continue")
    session.run("uffd record snapshot crash")
    text = session.run("continue")
    assert "recording ended: the program was killed by SIGABRT; 3 snapshots" in text
    assert stages(tmp_path / "t.uffd") == [0, 1, 2]
    assert trace.open(str(tmp_path / "t.uffd")).snapshots[-1].signal == signal.SIGABRT


def test_kill_and_detach(turns, tmp_path):
    session = turns("exit")
    assert "recording ended" in session.run("kill")
    assert stages(tmp_path / "t.uffd") == [0]
    session = turns("wait", tmp_path / "u")
    session.send("continue")
    survivors.until(lambda: session.child.isalive() and _sleeps(session))
    session.interrupt()
    pid = session.value("$_inferior_thread_count") and _pid(session)
    text = session.run("detach")
    assert "recording ended" in text and "2 snapshots" in text
    assert stages(tmp_path / "u.uffd") == [0, 1]
    os.kill(pid, signal.SIGKILL)


def _pid(session: Gdb) -> int:
    found = re.search(r"process (\d+)", session.run("info inferiors"))
    assert found
    return int(found[1])


def _sleeps(session: Gdb) -> bool:
    """Whether a grandchild of this test sleeps in pause()."""
    for pid in survivors._descendants(session.child.pid):
        try:
            if "pause" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii"):
                return True
        except OSError:
            continue
    return False


def test_exec(turns, tmp_path):
    text = turns("exec").run("continue")
    assert "another program" in text
    ended = re.findall(r"recording ended: (.*); (\d) snapshots", text)
    assert len(ended) == 1 and "exec" in ended[0][0] and ended[0][1] == "2", text
    assert stages(tmp_path / "t.uffd") == [0, 1]


def test_fork_goes_on_with_the_parent(turns, tmp_path):
    text = turns("fork").run("continue")
    assert "exited with code 0; 4 snapshots" in text
    assert stages(tmp_path / "t.uffd") == [0, 1, 2, 3]
    last = trace.open(str(tmp_path / "t.uffd")).snapshot(3)
    memory = int.from_bytes(last.read(last.symbol("memory") or 0, 8), "little")
    assert last.read(memory + PAGE_SIZE, 4) == b"\1" * 4, "what the child wrote"


def test_fork_followed_into_the_child(turns, tmp_path):
    text = turns("fork", before="set follow-fork-mode child").run("continue")
    assert len(re.findall("recording ended", text)) == 1 and "2 snapshots" in text, text
    assert stages(tmp_path / "t.uffd") == [0, 1]


def test_seccomp_is_not_provoked(start_gdb, built, tmp_path):
    session = start_gdb(arguments=[str(built / "turns")])
    session.run("break reached")
    session.run("run seccomp 4")
    said = session.run(f"uffd record start {tmp_path / 't'}")
    assert "reads all memory" in said and "seccomp" in said
    for _ in range(3):
        assert "pages changed" in session.run("uffd record snapshot")
        session.run("continue")
    assert "all memory is read" in session.run("uffd info")
    text = session.run("continue")
    assert "exited with code 4" in text or "exited with code 04" in text
    assert stages(tmp_path / "t.uffd") == [0, 1, 2]


def test_quit(turns, tmp_path):
    session = turns("exit")
    pids = survivors.ours()
    session.quit()
    assert pids and all(survivors.wait_gone(pid, 10) for pid in pids)
    assert stages(tmp_path / "t.uffd") == [0]


def test_gdb_killed(turns, tmp_path):
    session = turns("exit")
    pids = survivors.ours()
    session.kill()
    assert pids and all(survivors.wait_gone(pid, 10) for pid in pids)
    assert stages(tmp_path / "t.uffd") == [0]


def test_recorder_killed(turns, tmp_path):
    session = turns("exit")
    os.kill(session.json("uffd info -json")["recording"]["recorder_pid"], signal.SIGKILL)
    text = session.run("continue")
    assert len(re.findall("recording ended: the recorder has died", text)) == 1, text
    assert "exited normally" in text
    assert len(trace.open(str(tmp_path / "t.uffd")).snapshots) == 1
    assert "record" not in session.run("info breakpoints")


@pytest.mark.parametrize(
    ("error", "command"),
    [
        ("OSError(5, 'Input/output error')", "uffd record snapshot"),
        ("gdb.error('Input/output error')", "uffd record snapshot"),
        ("UffdError('Input/output error')", "uffd record snapshot"),
        ("OSError(5, 'Input/output error')", "continue"),
    ],
)
def test_a_capture_that_fails_half_way_ends_it(turns, tmp_path, error, command):
    """What was written since the snapshot before is not known any more: a further one would lack
    it.  The program runs on."""
    session = turns("exit")
    session.run(
        "python\n"
        "from gdb_uffd.client.recording import ptrace\n"
        "from gdb_uffd.protocol.model import UffdError\n"
        "def get_xsave(tid):\n"
        f"    raise {error}\n"
        "ptrace.get_xsave = get_xsave\n"
        "end"
    )
    said = session.run(command)
    (why,) = re.findall(r"recording ended: (.*); 1 snapshot in", said)
    assert why.endswith("Input/output error") and "Traceback" not in said, said
    assert "nothing is recorded" in session.run("uffd record snapshot")
    assert "exited normally" in (said if command == "continue" else session.run("continue"))
    assert stages(tmp_path / "t.uffd") == [0]


def test_trace_removed(turns, tmp_path):
    session = turns("exit")
    shutil.rmtree(tmp_path / "t.uffd")
    said = session.run("uffd record snapshot")
    assert "the trace was removed" in said
    assert "exited normally" in session.run("continue")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_full_disk(turns, small_disk):
    session = turns("exit", small_disk / "t")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 3 * PAGE_SIZE))
    text = "".join(session.run("uffd record snapshot") for _ in range(2))
    assert "No space left on device" in text or "disk is full" in text, text
    assert "Traceback" not in text
    assert "exited normally" in session.run("continue")
    opened = trace.open(str(small_disk / "t.uffd"))
    assert [i.label for i in opened.snapshots][:1] == ["first"]
    for info in opened.snapshots:
        opened.snapshot(info.number).close()


def test_existing_file(turns, tmp_path):
    (tmp_path / "t.uffd").mkdir()
    with pytest.raises(AssertionError, match="exists already"):
        turns("exit")


def test_misuse(start_gdb, built, tmp_path):
    session = start_gdb(arguments=[str(built / "turns")])
    path = tmp_path / "t"
    assert "is not being run" in session.run(f"uffd record start {path}")
    assert "nothing is recorded" in session.run("uffd record at reached")
    session.run("break reached")
    session.run("run exit")
    assert "usage" in session.run("uffd record start")
    assert "No such file" in session.run("uffd record start /nowhere/at/all")
    session.run(f"uffd record start {path}")
    assert "is being recorded" in session.run(f"uffd record start {path}2")
    for words, wanted in (
        ("at", "usage"),
        ("at reached every x", "takes a number"),
        ("at reached max 0", "takes a number"),
        ("at reached if", "usage"),
        ("at reached if nonsense > 1", "nonsense"),
        ("every", "usage"),
        ("every 10", "interval"),
        ("every 1us", "interval"),
        ("nonsense", "Undefined uffd record command"),
    ):
        said = session.run(f"uffd record {words}")
        assert wanted in said and "Traceback" not in said, (words, said)
    assert len(re.findall("breakpoint", session.run("info breakpoints"))) == 2  # and its hits
    assert "0 snapshots" in session.run("uffd record stop")


def test_killed_before_it_begins(start_gdb, built, tmp_path):
    """gdb does not know of it yet; it was told that gdb does not trace that process."""
    gdb = start_gdb(arguments=[str(built / "turns")])
    gdb.run("break reached")
    gdb.run("run exit 3")
    pid = int(gdb.run("python print(gdb.selected_inferior().pid)"))
    os.kill(pid, signal.SIGKILL)
    survivors.until(lambda: "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
    text = gdb.run(f"uffd record start {tmp_path / 't'}").strip()
    assert text == "the program was killed: `kill` lets gdb know of it, `run` starts it again", text
    gdb.run("kill")
    assert "Breakpoint 1" in gdb.run("run exit 3")
    assert gdb.run(f"uffd record start {tmp_path / 't'}").startswith("recording to")


@pytest.fixture
def gdbserver(gdb_path) -> str:
    beside = Path(gdb_path).with_name("gdbserver")
    found = str(beside) if beside.exists() else shutil.which("gdbserver")
    if found is None and gdbs.PYPI_GDB.with_name("gdbserver").exists():
        found = str(gdbs.PYPI_GDB.with_name("gdbserver"))
    if found is None:
        pytest.skip("no gdbserver: apt install gdbserver")
    return found


def test_through_gdbserver(start_gdb, gdbserver, built, tmp_path):
    program = built / "turns"
    session = start_gdb(arguments=[str(program)])
    session.run("set sysroot /")
    session.run(f"target remote | {gdbserver} --once - {program} exit 0", 60)
    session.run("break reached if number == 1")
    assert "Breakpoint 1" in session.run("continue")
    session.run("delete 1")
    assert "writes a core" in session.run(f"uffd record start {tmp_path / 't'}")
    assert "snapshot 0" in session.run("uffd record snapshot by hand")
    assert "through another one" in session.run("uffd record every 10ms")
    session.run("uffd record at reached if number != 2")
    text = session.run("continue", 60)
    assert "recording ended" in text and "3 snapshots" in text, text
    assert stages(tmp_path / "t.uffd") == [0, 2, 3]
    infos = trace.open(str(tmp_path / "t.uffd")).snapshots
    assert [i.label for i in infos] == ["by hand", "", ""]
    assert all(i.function == "reached" for i in infos)


@pytest.mark.parametrize("program", ["turns wait", "target 1000000"])
def test_killed_while_a_snapshot_holds_it(start_gdb, built, tmp_path, program):
    """The end of a thread was taken in place of the stop that was to be taken back: gdb waited for
    it for ever, when it was the only one."""
    name, argument = program.split()
    session = start_gdb(arguments=[str(built / name)])
    session.run(f"break {'reached' if name == 'turns' else 'work'}")
    session.run(f"run {argument} < /dev/null")
    session.run("delete")
    session.run(f"uffd record start {tmp_path / 't'}")
    session.run(
        "python\n"
        "import os, signal\n"
        "from gdb_uffd.client.recording import recordings, ptrace\n"
        "freezer = recordings.active().local.freezer\n"
        "thaw, pid = freezer.thaw, freezer.pid\n"
        "def killed():\n"
        "    freezer.user_thread = 0  # no command steps it\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "    while any(ptrace.state(pid, tid) not in 'ZX' for tid in ptrace.threads(pid)):\n"
        "        os.sched_yield()\n"
        "    thaw()\n"
        "freezer.thaw = killed\n"
        "end"
    )
    session.run("uffd record every 1ms")
    said = session.run("continue")
    assert "Program terminated with signal SIGKILL" in said, said
    assert "recording ended: the program was killed by SIGKILL; 1 snapshot in" in said, said

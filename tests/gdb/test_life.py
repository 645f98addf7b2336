"""Life and death: whoever dies, nothing is left running and nothing hangs."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from harness import gdbs, survivors


def all_gone(pids) -> None:
    assert pids
    for pid in pids:
        assert survivors.wait_gone(pid, 10), survivors.describe(pid)


def test_quit_while_looking(sample):
    pids = survivors.ours()
    sample.quit()
    all_gone(pids)


def test_quit_during_a_diversion(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    assert len(pids) == 2
    sample.quit()
    all_gone(pids)


def test_quit_asks_nothing_when_confirm_is_on(zoo):
    zoo.run("set confirm on")
    zoo.value("half(1.0)")
    pids = survivors.ours()
    zoo.quit()
    all_gone(pids)


def test_end_of_input(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    sample.child.sendeof()
    all_gone(pids)


def test_gdb_killed_while_looking(sample):
    pids = survivors.ours()
    sample.kill()
    all_gone(pids)


def test_gdb_killed_during_a_diversion(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    sample.kill()
    all_gone(pids)


def test_gdb_killed_during_a_call(zoo):
    zoo.send("print forever()")
    survivors.wait_computing()
    pids = survivors.ours()
    zoo.kill()
    all_gone(pids)


def test_terminal_closed(zoo):
    zoo.value("half(1.0)")
    pids = survivors.ours()
    zoo.child.kill(signal.SIGHUP)
    all_gone(pids)


def test_gdb_terminated(zoo):
    zoo.value("half(1.0)")
    pids = survivors.ours()
    zoo.child.kill(signal.SIGTERM)
    all_gone(pids)


def test_server_killed_while_looking(sample, all_cores):
    (server,) = survivors.servers()
    os.kill(server, signal.SIGKILL)
    assert survivors.wait_gone(server, 10)
    text = sample.run("print push(7)") + sample.run("uffd call push(7)")
    assert "Traceback" not in text
    assert sample.value("6 * 7") == "42"
    sample.run(f"uffd spawn {all_cores.sample()}")
    assert sample.value("push(7)") == "1042"


def test_server_killed_during_a_diversion(sample, all_cores):
    sample.value("push(7)")
    (server,) = survivors.servers()
    (vessel,) = survivors.vessels()
    os.kill(server, signal.SIGKILL)
    all_gone([server, vessel])
    assert "Traceback" not in sample.run("bt")
    sample.run(f"uffd spawn {all_cores.sample()}")
    assert sample.value("counter") == "1041"


def test_server_killed_during_a_call(zoo, all_cores):
    zoo.send("print forever()")
    survivors.wait_computing()
    pids = survivors.ours()
    os.kill(survivors.servers()[0], signal.SIGKILL)
    zoo.wait()
    all_gone(pids)
    if gdbs.version(zoo.path)[0] == 16:  # with its plain `target remote`, too
        zoo.kill()
        pytest.skip("gdb 16 reads no more input after a connection that closes during a call")
    zoo.run(f"uffd spawn {all_cores.zoo()}")
    assert zoo.value("half(4.0)") == "2"


def test_server_terminated(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    os.kill(survivors.servers()[0], signal.SIGTERM)
    all_gone(pids)
    sample.run("bt")
    assert sample.value("6 * 7") == "42"


def test_vessel_killed_from_outside(sample):
    sample.value("push(7)")
    os.kill(survivors.vessels()[0], signal.SIGKILL)
    text = sample.run("print push(8)")
    assert "Traceback" not in text
    sample.run("uffd reset")
    assert sample.value("push(9)") == "1042"


def test_vessel_killed_during_a_call(zoo):
    zoo.send("uffd call forever()")
    survivors.wait_computing()
    os.kill(survivors.vessels()[0], signal.SIGKILL)
    text = zoo.wait()
    assert "did not return" in text, text
    assert zoo.value("half(4.0)") == "2"


def test_detach(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    sample.run("detach")
    all_gone(pids)
    assert sample.value("6 * 7") == "42"


def test_disconnect(sample):
    sample.value("push(7)")
    pids = survivors.ours()
    sample.run("disconnect")
    all_gone(pids)


def test_plain_kill(sample, all_cores):
    sample.value("push(7)")
    pids = survivors.ours()
    sample.run("kill")
    all_gone(pids)
    sample.run(f"uffd spawn {all_cores.sample()}")
    assert sample.value("push(7)") == "1042"


def test_uffd_kill_reads_no_library_again(sample):
    """`set sysroot` with a process there would: some 100 ms for each session that ends."""
    sample.run("python seen = []; gdb.events.new_objfile.connect(seen.append)")
    sample.run("uffd kill")
    assert sample.run("python print(len(seen))").strip() == "0"
    assert "target:" in sample.run("show sysroot")


@pytest.fixture
def scratch():
    """A temporary folder with a name that is short enough for a socket in it (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        yield Path(name)


def test_nothing_of_ours_is_left_in_the_temporary_folder(start_gdb, all_cores, scratch):
    gdb = start_gdb(env={"TMPDIR": str(scratch)})
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.value("push(7)")
    gdb.run("uffd kill")
    assert list(scratch.iterdir()) == []
    gdb.run(f"uffd spawn {all_cores.sample()}")
    gdb.quit()
    survivors.until(lambda: list(scratch.iterdir()) == [])


def test_socket_is_private(start_gdb, all_cores, scratch, tmp_path):
    """Made in a folder with mode 0700, which goes as soon as gdb is connected."""
    seen = tmp_path / "seen"
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\nstat -c %a:%n "$(dirname "$5")" >"{seen}"\nexec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    gdb = start_gdb(env={"TMPDIR": str(scratch), "GDB_UFFD_PYTHON": str(wrapper)})
    gdb.run(f"uffd spawn {all_cores.sample()}")
    assert seen.read_text().startswith(f"700:{scratch}/")
    assert list(scratch.iterdir()) == []
    assert gdb.value("push(7)") == "1042"


def test_many_sessions_one_after_the_other(gdb, all_cores):
    for _ in range(5):
        gdb.run(f"uffd spawn {all_cores.sample()}")
        assert gdb.value("push(7)") == "1042"
    assert len(survivors.ours()) == 2
    descriptors = len(os.listdir(f"/proc/{gdb.child.pid}/fd"))
    for _ in range(5):
        gdb.run(f"uffd spawn {all_cores.sample()}")
    assert len(os.listdir(f"/proc/{gdb.child.pid}/fd")) <= descriptors

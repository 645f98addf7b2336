"""Life and death: whoever dies, nothing is left running and nothing hangs."""

from __future__ import annotations

import os
import re
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
    assert len(pids) == 3  # the server, what holds its connection, the vessel
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


@pytest.mark.every_gdb
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
    (server,) = survivors.servers()
    os.kill(server, signal.SIGTERM)
    assert survivors.wait_gone(server, 10)
    sample.run("bt")  # until then its connection is held
    all_gone(pids)
    assert sample.value("6 * 7") == "42"


def test_vessel_killed_from_outside(sample):
    sample.value("push(7)")
    os.kill(survivors.vessels()[0], signal.SIGKILL)
    text = sample.run("print push(8)")
    assert "Traceback" not in text
    sample.run("uffd reset")
    assert sample.value("push(9)") == "1042"


def test_no_export_of_what_was_lost(sample, tmp_path):
    """It wrote the recorded state, as if it were the one after the call."""
    assert "= 1042" in sample.run("print push(7)")
    os.kill(survivors.vessels()[0], signal.SIGKILL)
    survivors.until(lambda: not survivors.vessels())
    assert "killed from outside" in sample.run(f"uffd export {tmp_path / 'core'}")
    assert not (tmp_path / "core").exists()
    assert "MiB" in sample.run(f"uffd export {tmp_path / 'core'}")  # it was told


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


def test_gdb_killed_while_it_opens_a_core(start_gdb, all_cores, scratch):
    """Before it is connected, and has removed the folder of the socket itself."""
    gdb = start_gdb(env={"TMPDIR": str(scratch)})
    gdb.send(f"uffd spawn {all_cores.sample()}")
    survivors.until(lambda: survivors.servers() != [])
    pids = survivors.ours()
    gdb.kill()
    all_gone(pids)
    assert list(scratch.iterdir()) == []


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
    assert len(survivors.ours()) == 3
    descriptors = len(os.listdir(f"/proc/{gdb.child.pid}/fd"))
    for _ in range(5):
        gdb.run(f"uffd spawn {all_cores.sample()}")
    assert len(os.listdir(f"/proc/{gdb.child.pid}/fd")) <= descriptors


DYING = """\
import os, signal, sys
from gdb_uffd.server.listen import connection
from gdb_uffd.server import __main__
def receive(self, old=connection.Connection.receive, left=[None]):
    packet = old(self)
    if left[0] is None and packet.startswith(b"quffd.begin"):
        left[0] = int(open(sys.argv[-1]).read())
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] = None if left[0] is None else left[0] - 1
    return packet
connection.Connection.receive = receive
sys.exit(__main__.main(sys.argv[1:-1]))
"""
"""A server that is killed so many packets after the beginning of the first `uffd call`."""


def run_server(folder: Path, text: str, *arguments: str) -> dict[str, str]:
    """The environment in which gdb starts its server by that script."""
    wrapper = folder / "python"
    (folder / "server.py").write_text(text)
    said = " ".join(arguments)
    wrapper.write_text(
        f'#!/bin/sh\nshift 3\nexec {sys.executable} -I {folder}/server.py "$@" {said}\n'
    )
    wrapper.chmod(0o755)
    return {"GDB_UFFD_PYTHON": str(wrapper)}


def test_server_killed_at_any_packet_of_a_call(start_gdb, all_cores, tmp_path):
    """gdb lives, says so in a line, and can open the core again.  With a connection that closes
    then, every gdb stops at an assertion ("current_thread_ != nullptr")."""
    left = tmp_path / "left"
    gdb = start_gdb(env=run_server(tmp_path, DYING, str(left)))
    for count in (0, 1, 10, 18, 22, 26, 30):
        left.write_text(str(count))
        gdb.run(f"uffd spawn {all_cores.sample()}")
        text = gdb.run("uffd call sum()")
        assert "the server ended by signal 9" in text and "Traceback" not in text, (count, text)
        assert "no core is spawned" in gdb.run("uffd dirty"), count
    left.write_text("9999")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    assert gdb.call("push(7)")["value"] == "1042"


ONCE = """\
import os, signal, sys
from gdb_uffd.server.listen import connection
from gdb_uffd.server import __main__
def receive(self, old=connection.Connection.receive):
    packet = old(self)
    if packet.startswith(b"quffd.hello") and not os.path.exists(sys.argv[-1]):
        open(sys.argv[-1], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return packet
connection.Connection.receive = receive
sys.exit(__main__.main(sys.argv[1:-1]))
"""
"""A server that is killed as gdb has just connected, the first time."""


def test_server_killed_as_gdb_has_connected(start_gdb, all_cores, tmp_path):
    """The inferior stayed in use: neither `uffd kill` nor `uffd spawn` helped."""
    gdb = start_gdb(env=run_server(tmp_path, ONCE, str(tmp_path / "once")))
    assert "the server ended by signal 9" in gdb.run(f"uffd spawn {all_cores.sample()}")
    text = gdb.run(f"uffd spawn {all_cores.sample()}")
    assert "opened in" in text, text
    assert gdb.call("push(7)")["value"] == "1042"


LATE = """\
import sys
from gdb_uffd.server.listen import connection
from gdb_uffd.server import __main__
connection.Connection._given_up = lambda self: False
sys.exit(__main__.main())
"""
"""A server that answers also what gdb waits for no longer, as any other would."""

STALL = """\
python
import os, signal
from gdb_uffd.client.session import sessions
pid = sessions.selected().server.pid
sessions.selected().heard += 99
os.kill(pid, signal.SIGSTOP)
gdb.execute("set remotetimeout 0")
try:
    gdb.execute("output counter", to_string=True)
except gdb.error:
    pass
gdb.execute("set remotetimeout 1")
os.kill(pid, signal.SIGCONT)
sessions.selected().heard -= 200
end
"""


@pytest.mark.parametrize("late", [False, True])
def test_a_late_answer_is_never_the_next_value(start_gdb, all_cores, tmp_path, late):
    """After a silence that gdb did not sit out; by default it waits for hours."""
    script = tmp_path / "stall.gdb"
    script.write_text(STALL)
    gdb = start_gdb(env=run_server(tmp_path, LATE) if late else {})
    gdb.run("set code-cache off")
    gdb.run("set remotetimeout 7")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    assert "3600" in gdb.run("show remotetimeout")
    said = gdb.run(f"source {script}")
    text = gdb.run("print counter + 1") + gdb.run("print push(7)")
    if late:
        assert "the session is closed" in said and "1042" not in text, (said, text)
        survivors.until(lambda: survivors.ours() == [])
    else:
        assert "$1 = 1042" in text and "$2 = 1042" in text, text
    assert "respond is 1" in gdb.run("show remotetimeout")  # the user's, since
    gdb.run("set remotetimeout 7")
    gdb.run(f"uffd spawn {all_cores.sample()}")
    assert gdb.value("push(7)") == "1042"
    gdb.run("uffd kill")
    assert "respond is 7" in gdb.run("show remotetimeout")


DIES = """
import os, runpy, signal, sys
from gdb_uffd.server.listen.connection import Connection
receive = Connection.receive
def dies(connection):
    packet = receive(connection)
    if packet.startswith({at!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return packet
if "gdb_uffd.server" in sys.argv:
    Connection.receive = dies
module = sys.argv.index("-m") + 1
sys.argv[:] = sys.argv[module:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=False)
"""


@pytest.mark.every_gdb
@pytest.mark.shared_gdb
@pytest.mark.parametrize(
    "at",
    [b"qSupported", b"vMustReplyEmpty", b"QStartNoAckMode", b"qXfer:features", b"qXfer:auxv", b"?",
     b"qXfer:threads", b"quffd.hello"],
)  # fmt: skip
def test_a_server_that_dies_while_gdb_connects(gdb, all_cores, tmp_path, at):
    """gdb waited for ever: for the acknowledgement of its first packets; gdb 18 because an error to
    its first question, `?`, is none to it."""
    (tmp_path / "dies.py").write_text(DIES.format(at=at))
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -I {tmp_path / "dies.py"} "$@"\n')
    wrapper.chmod(0o755)
    gdb.run(f"set uffd python {wrapper}")
    text = gdb.run(f"uffd spawn {all_cores.sample()}")
    assert "Traceback" not in text and "internal-error" not in text, text
    ended = "the server ended by signal 9; `uffd spawn` starts anew"
    last = text.splitlines()[-1]
    assert last == ended or re.fullmatch(rf"gdb could not connect \(.+\)(: {ended})", last), text
    assert gdb.value("6 * 7") == "42"

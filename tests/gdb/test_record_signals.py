"""Signals to gdb while it takes snapshots by itself: nothing of them is left over, nobody is left
standing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from harness import survivors


@pytest.fixture
def attached(start_gdb, built, tmp_path):
    """gdb on a running tests/programs/target.c that it did not start, recorded at each call."""
    program = subprocess.Popen([str(built / "target"), "1000000"])
    session = start_gdb()
    session.run(f"attach {program.pid}")
    assert f"process {program.pid}" in session.run("info inferiors")
    assert "recording to" in session.run(f"uffd record start {tmp_path / 't'}")
    session.run("uffd record at work")
    yield session, program
    if session.child.isalive():
        session.kill()  # first: whoever traces the program reaps it
    program.kill()
    program.wait()


def snapshots(tmp_path: Path) -> int:
    """Roughly how many there are, by the page file's size."""
    return (tmp_path / "t.uffd" / "pages").stat().st_size


def let_run(session, tmp_path: Path) -> None:
    """Until another snapshot is written."""
    before = snapshots(tmp_path)
    session.send("continue")
    survivors.until(lambda: snapshots(tmp_path) > before)


def test_ctrl_c_comes_once(attached, tmp_path):
    """It came again, as "Quit" in the middle of the next command."""
    session, _ = attached
    for _ in range(8):
        let_run(session, tmp_path)
        session.interrupt()
        assert "Quit" not in session.run("info line work") + session.run("print 6 * 7")


def states(pid: int) -> "list[str]":
    """The tracer and the state of each thread (proc_pid_status(5))."""
    found = []
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(
            line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line
        )
        found.append(f"{lines['State'][0]} {lines['TracerPid']}")
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_gdb_that_is_ended_lets_the_program_run(attached, tmp_path, how):
    """A SIGSTOP by which a thread was frozen was delivered when gdb had gone."""
    session, program = attached
    let_run(session, tmp_path)
    pids = survivors.ours()
    session.child.kill(how)
    for pid in [session.child.pid, *pids]:
        assert survivors.wait_gone(pid, 40), survivors.describe(pid)
    survivors.until(lambda: not any(s[0] in "tT" for s in states(program.pid)))
    if program.poll() != -signal.SIGTRAP:  # a breakpoint that was hit as gdb let go: gdb's own
        assert {s.split()[1] for s in states(program.pid)} == {"0"}
        assert program.poll() is None


def test_a_gdb_that_is_killed_at_its_prompt(attached):
    """What the program stood by was delivered: the SIGTRAP of a step of ours ended it."""
    session, program = attached
    pids = survivors.ours()
    session.kill()
    for pid in pids:
        assert survivors.wait_gone(pid, 40), survivors.describe(pid)
    assert program.poll() is None
    survivors.until(lambda: not any(s[0] in "tT" for s in states(program.pid)))


def test_detached_after_recording(attached, tmp_path):
    """As above, by hand."""
    session, program = attached
    for _ in range(3):
        let_run(session, tmp_path)
        session.interrupt()
    session.run("uffd record stop")
    session.run("detach")
    survivors.until(lambda: not any(s[0] in "tT" for s in states(program.pid)))
    assert {s.split()[1] for s in states(program.pid)} == {"0"}
    assert "Yes\tYes\tYes" in session.run("info signals SIGSTOP")


def pending(pid: int) -> "list[int]":
    """Of each thread the signals that wait for it (SigPnd in proc_pid_status(5))."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return [int(text.split("SigPnd:\t")[1].split()[0], 16) for text in texts]


def test_no_stop_waits_for_a_program_at_a_prompt(attached):
    """A SIGSTOP by which a thread was frozen waited in the kernel; gdb was killed, and it came."""
    session, program = attached
    session.run("delete")
    session.run("python from gdb_uffd.client.recording import recordings, ptrace")
    session.run("python freezer = recordings.active().local.freezer")
    for tid in sorted(int(path.name) for path in Path(f"/proc/{program.pid}/task").iterdir()):
        session.run(f"python ptrace.tgkill({program.pid}, {tid}, 19); freezer._strays.add({tid})")
    survivors.until(lambda: not any(pending(program.pid)))
    session.kill()
    survivors.until(lambda: {s.split()[1] for s in states(program.pid)} == {"0"})
    survivors.until(lambda: not any(s[0] in "tT" for s in states(program.pid)))


def test_no_stop_waits_when_the_recorder_has_closed(attached):
    """As above, in a script: no prompt comes before `uffd record stop`, and gdb is killed in it."""
    session, program = attached
    session.run("delete")
    recorders = survivors.ours()
    session.send(
        "python\n"
        "import os\n"
        "from gdb_uffd.client.recording import recordings, ptrace\n"
        "recording = recordings.active()\n"
        "freezer, close = recording.local.freezer, recording.recorder.close\n"
        "for tid in ptrace.threads(freezer.pid):\n"
        "    ptrace.tgkill(freezer.pid, tid, 19); freezer._strays.add(tid)\n"
        "recording.recorder.close = lambda **how: (close(**how), os.kill(os.getpid(), 9))\n"
        "recordings.stop()\n"
        "end"
    )
    for pid in [session.child.pid, *recorders]:
        assert survivors.wait_gone(pid, 40), survivors.describe(pid)
    survivors.until(lambda: {s.split()[1] for s in states(program.pid)} == {"0"})
    survivors.until(lambda: not any(s[0] in "tT" for s in states(program.pid)))


RAISES = """\
python
import signal
from gdb_uffd.client.session import interrupts
from gdb_uffd.client.recording import recordings
real = signal.pthread_sigmask
def interrupted(how, numbers):
    old = real(how, numbers)
    if numbers:
        signal.pthread_sigmask = real
        raise KeyboardInterrupt
    return old
for way in (recordings.uninterrupted().__enter__, lambda: interrupts.start(None)):
    signal.pthread_sigmask = interrupted
    try:
        way()
    except KeyboardInterrupt:
        print("raised", sorted(real(signal.SIG_BLOCK, ())))
end
"""


def test_ctrl_c_while_signals_are_being_blocked(gdb, tmp_path):
    """Python runs its handlers when it has changed the mask (signal.pthread_sigmask): gdb took no
    Ctrl-C any more from then on."""
    (tmp_path / "script").write_text(RAISES)
    assert gdb.run(f"source {tmp_path / 'script'}").splitlines() == ["raised []"] * 2


@pytest.mark.every_gdb
def test_ctrl_c_once_more_comes_to_gdbs_own_thread(gdb):
    """The thread that sends it took it itself where gdb's had it blocked: gdb 18 asserts that its
    handler runs in its own."""
    gdb.run("python import signal, threading; from gdb_uffd.client.recording import recordings")
    gdb.run("python Timer = threading.Timer")
    gdb.run("python threading.Timer = lambda _, *rest: Timer(2.0, *rest)")
    lines = (
        "recordings.interrupt_later()",
        "old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})",
        "[t.join() for t in threading.enumerate() if isinstance(t, Timer)]",
        "print('pending', signal.SIGINT in signal.sigpending())",
        "signal.sigtimedwait({signal.SIGINT}, 0)",
        "signal.pthread_sigmask(signal.SIG_SETMASK, old)",
    )
    assert "pending True" in gdb.run("python " + "; ".join(lines))
    assert gdb.value("6 * 7") == "42"

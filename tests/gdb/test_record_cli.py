"""`gdb-uffd record`: the program runs as from the shell, and a trace comes of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import pexpect
import pytest
from harness import ROOT, survivors

from gdb_uffd import trace
from gdb_uffd.protocol.model import UffdError

CLI = [sys.executable, "-I", "-c", "import sys; from gdb_uffd.cli import main; sys.exit(main())"]


@pytest.fixture
def run(gdb_path, tmp_path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `gdb-uffd record -o tmp_path/t OPTIONS -- COMMAND`."""

    def begin(options: List[str], command: List[str], **keywords: object):
        options = options or ["--on-signal", "SIGSEGV"]
        env = {**os.environ, "GDB_UFFD_GDB": gdb_path, "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [*CLI, "record", "-o", str(tmp_path / "t"), *options, "--", *command],
            capture_output=True,
            text=True,
            env={**env, **keywords.pop("env", {})},  # type: ignore[dict-item]
            check=False,
            cwd=tmp_path,
            **keywords,  # type: ignore[call-overload]
        )

    return begin


def count(done: "subprocess.CompletedProcess[str]") -> int:
    """What the last line on standard error says."""
    found = re.search(r"^gdb-uffd: .*?(\d+) snapshots? in .*t\.uffd$", done.stderr, re.M)
    assert found, done.stderr
    return int(found[1])


def snapshots(tmp_path: Path):
    return trace.open(str(tmp_path / "t.uffd")).snapshots


def _has_a_snapshot(tmp_path: Path) -> bool:
    try:
        return bool(snapshots(tmp_path))
    except UffdError:
        return False


def test_at_a_location(run, built, tmp_path):
    done = run(["--at", "beat every 4"], [str(built / "pulse"), "20", "2"])
    assert done.returncode == 0 and done.stdout == "20 beats\n"
    assert count(done) == 5 == len(snapshots(tmp_path))
    assert all(i.function == "beat" and i.threads == 3 for i in snapshots(tmp_path))


def test_the_end_of_a_program_with_threads(run, built, tmp_path):
    """gdb may give up on it half-way: a thread goes while it is looked at."""
    for _ in range(4):
        done = run([], [str(built / "sample")])
        assert done.returncode == 128 + signal.SIGSEGV, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("gdb-uffd: recording ended: the program was killed by SIGSEGV; 1 ")
        shutil.rmtree(tmp_path / "t.uffd")


LOSES_THE_END = """
import os, sys
sys.path.insert(0, {root!r})
from gdb_uffd.client.recording.freeze import Freezer
thaw = Freezer.thaw
def lost(self):
    os.kill(self.pid, 9)
    os.waitid(os.P_PID, self.pid, os.WEXITED | 0x40000000)  # __WALL
    thaw(self)
Freezer.thaw = lost
"""


def test_an_end_that_gdb_loses(run, built, gdb_path, tmp_path):
    """It waited for ever."""
    (tmp_path / "loses.py").write_text(LOSES_THE_END.format(root=str(ROOT)))
    wrapper = tmp_path / "gdb"
    wrapper.write_text(f'#!/bin/sh\nexec {gdb_path} -iex "source {tmp_path}/loses.py" "$@"\n')
    wrapper.chmod(0o755)
    command = [str(built / "turns"), "wait"]
    done = run(["--every", "1ms"], command, env={"GDB_UFFD_GDB": str(wrapper)}, timeout=60)
    assert "recording ended" in done.stderr and count(done) == 1, done.stderr


def test_locations_that_took_no_snapshot_are_told(run, built, tmp_path):
    options = [f"--at={words}" for words in ("linger", "beat if number > 900", "beat every 99")]
    done = run([*options, "--at", "nosuch"], [str(built / "pulse"), "5"])
    assert count(done) == 0
    notes = [line for line in done.stderr.splitlines() if "--at" in line]
    assert re.fullmatch(
        r"gdb-uffd: --at linger: never reached; gdb put it in linger at pulse\.c:\d+ only", notes[0]
    ), notes
    assert notes[1].endswith("--at beat: reached 5 times, but never with number > 900")
    assert notes[2].endswith("--at beat: hit 5 times, of 99 a snapshot")
    assert notes[3].endswith("--at nosuch: no such location was found in the program")


def test_several_locations_and_a_limit(run, built, tmp_path):
    options = ["--at", "beat if number > 3", "--at", "linger", "--max", "7"]
    done = run(options, [str(built / "pulse"), "20", "0", "1"])
    assert done.stdout == "20 beats\n" and count(done) == 7
    assert {i.function for i in snapshots(tmp_path)} == {"beat", "linger"}


def test_every_so_often(run, built, tmp_path):
    done = run(["--every", "5ms"], [str(built / "pulse"), "30", "3", "10"])
    assert done.returncode == 0 and done.stdout == "30 beats\n", "sleeps were interrupted"
    assert count(done) > 5


def test_exit_status_output_and_arguments_pass_through(run, tmp_path):
    script = 'read line; echo "in: $line"; printf "[%s]" "$@"; echo err >&2; echo $LEFT; exit 42'
    done = run(
        [], ["/bin/sh", "-c", script, "sh", "two  words", "a'b\"c$d", ""],
        input="from stdin\n", env={"LEFT": "as it was"},
    )  # fmt: skip
    assert done.stdout == "in: from stdin\n[two  words][a'b\"c$d][]as it was\n"
    assert done.returncode == 42
    assert done.stderr.splitlines()[0] == "err" and count(done) == 0


def test_the_environment_is_the_callers(run):
    env = {"TERM": "vt100", "COLUMNS": "13", "SHELL": "/bin/false"}
    done = run([], ["/usr/bin/env"], env=env)
    seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert {k: seen.get(k) for k in env} == env
    assert not {"LINES", "GDB_UFFD_PROGRAM", "PYTHONHOME", "PYTHONPATH"} & set(seen)


@pytest.mark.parametrize("what, number", [("abort", signal.SIGABRT)])
def test_a_fatal_signal_is_recorded(run, built, tmp_path, what, number):
    done = run(["--at", "reached max 1"], [str(built / "turns"), what])
    assert done.returncode == 128 + number and count(done) == 2
    last = snapshots(tmp_path)[-1]
    assert last.signal == number and last.label == number.name
    assert "was killed by SIGABRT" in done.stderr


def test_threads_are_recorded_as_they_stood(run, built, tmp_path):
    """Which one came to the place, and which signal it had: none that is the debugger's doing."""
    done = run(["--at", "worker"], [str(built / "sample")])
    assert count(done) == 3, done.stderr
    opened = trace.open(str(tmp_path / "t.uffd"))
    *hits, last = opened.snapshots
    assert len({last.pid, *(info.tid for info in hits)}) == 3 and last.tid == last.pid
    for info in hits:
        snapshot = opened.snapshot(info.number)
        assert info.function == "worker" and info.thread_name == "sample"
        assert snapshot.threads[0].tid == info.tid
        assert 0 <= snapshot.threads[0].registers.pc - snapshot.symbol("worker") < 64
        assert [(t.signal, t.siginfo.strip(b"\0")) for t in snapshot.threads] == (
            [(0, b"")] * len(snapshot.threads)
        )
    first, *others = opened.snapshot(last.number).threads
    assert first.signal == signal.SIGSEGV == int.from_bytes(first.siginfo[:4], "little")
    assert len(others) == 2 and not any(t.signal for t in others)


def test_a_fatal_signal_is_recorded_beyond_the_limit(run, built, tmp_path):
    done = run(["--at", "reached", "--max", "1"], [str(built / "turns"), "abort"])
    assert count(done) == 2 and snapshots(tmp_path)[-1].signal == signal.SIGABRT


def test_on_a_signal(run, tmp_path):
    script = "trap 'echo got it' USR1; kill -USR1 $$; kill -USR1 $$; kill -TERM $$"
    done = run(["--on-signal", "USR1,SIGUSR2"], ["/bin/sh", "-c", script])
    assert done.stdout == "got it\ngot it\n"
    assert done.returncode == 128 + signal.SIGTERM and count(done) == 3
    assert [i.label for i in snapshots(tmp_path)] == ["SIGUSR1", "SIGUSR1", "SIGTERM"]


def test_a_handled_signal_is_not_fatal(run, tmp_path):
    done = run([], ["/bin/sh", "-c", "trap 'echo handled' TERM; kill -TERM $$; exit 3"])
    assert done.stdout == "handled\n" and done.returncode == 3 and count(done) == 0


def test_ignored_signals_stay_ignored(run, tmp_path):
    code = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    done = run(
        [], [sys.executable, "-c", code],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
    shutil.rmtree(tmp_path / "t.uffd")
    done = run([], [sys.executable, "-c", code.replace("SIGHUP", "SIGINT").replace("==", "!=")])
    assert done.stdout == "True\n", done.stderr


def test_the_program_gets_no_signal_at_gdbs_end(run):
    """Only what becomes it does (PR_GET_PDEATHSIG, prctl(2))."""
    code = "import ctypes; n = ctypes.c_int(-1); f = ctypes.CDLL(None).prctl"
    done = run([], [sys.executable, "-c", f"{code}; f(2, ctypes.byref(n)); print(n.value)"])
    assert done.stdout == "0\n", done.stderr


def test_nothing_of_ours_is_open_in_the_program(run):
    done = run([], ["/bin/ls", "/proc/self/fd"])
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3: ls reads the directory


def test_what_the_program_leaves_behind_is_not_waited_for(run):
    script = "sleep 50 >/dev/null 2>&1 </dev/null & echo $!"
    done = run([], ["/bin/sh", "-c", script])
    os.kill(int(done.stdout), signal.SIGKILL)  # still there
    assert count(done) == 0


def test_self_contained(run, built, tmp_path):
    done = run(["--self-contained", "--at", "beat max 1"], [str(built / "pulse"), "3", "0"])
    assert count(done) == 1
    assert (tmp_path / "t.uffd" / "pages").stat().st_size > (built / "pulse").stat().st_size


def test_errors_are_one_line(run, built, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for options, command, wanted in (
        (["--at", "beat every x"], [str(built / "pulse")], "takes a number"),
        (["--every", "soon"], [str(built / "pulse")], "interval"),
        (["--on-signal", "NONE"], [str(built / "pulse")], "no signal"),
        (["--at", "beat if nonsense"], [str(built / "pulse")], "nonsense"),
        ([], ["/nonexistent"], "no such program"),
        ([], [str(script)], "interpreter"),
    ):
        done = run(options, command)
        usage = wanted in ("takes a number", "interval", "no signal")
        assert done.returncode == (2 if usage else 1) and done.stdout == "", (options, done)
        assert len(done.stderr.splitlines()) == 1 and wanted in done.stderr, done.stderr
        assert not (tmp_path / "t.uffd").exists()
    for name in ("", ".", "/"):
        done = run(["-o", name], [str(built / "pulse")])
        assert done.returncode == 2 and "no name of a file" in done.stderr, done.stderr
    (tmp_path / "t.uffd").mkdir()
    done = run([], [str(built / "pulse")])
    assert "exists already" in done.stderr and done.returncode == 1


def test_a_location_that_never_was(run, built, tmp_path):
    done = run(["--at", "no_such_function"], [str(built / "pulse"), "3", "0"])
    assert done.stdout == "3 beats\n" and count(done) == 0
    assert "no_such_function" in done.stderr


def test_without_anything_that_takes_a_snapshot(tmp_path):
    command = [*CLI, "record", "-o", str(tmp_path / "t"), "--", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for option in ("--at", "--every", "--on-signal"):
        assert option in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_gdb(built, tmp_path):
    done = subprocess.run(
        [*CLI, "record", "-o", str(tmp_path / "t"), "--every", "9ms", "--", str(built / "pulse")],
        env={**os.environ, "GDB_UFFD_GDB": "/nowhere/gdb"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "GDB_UFFD_GDB" in done.stderr


def in_terminal(gdb_path, tmp_path, command: List[str], options: List[str]) -> pexpect.spawn:
    words = ["record", "-o", str(tmp_path / "t"), *options, "--", *command]
    env = {**os.environ, "GDB_UFFD_GDB": gdb_path, "LC_ALL": "C.UTF-8"}
    return pexpect.spawn(CLI[0], [*CLI[1:], *words], env=env, encoding="utf-8", timeout=30)


def test_terminal_and_ctrl_c_are_the_programs(gdb_path, tmp_path):
    code = (
        "import sys, time\n"
        "print('tty', sys.stdin.isatty(), sys.stdout.isatty(), flush=True)\n"
        "try:\n"
        "    print('said', input(), flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "    sys.exit(9)\n"
    )
    child = in_terminal(gdb_path, tmp_path, [sys.executable, "-c", code], ["--every", "20ms"])
    child.expect_exact("tty True True")
    child.sendline("hello")
    child.expect_exact("said hello")
    child.sendintr()
    child.expect_exact("interrupted")
    child.expect(r"(\d+) snapshots? in")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9


def test_ctrl_c_kills_what_does_not_handle_it(gdb_path, built, tmp_path):
    command = [str(built / "pulse"), "100000", "0", "10"]
    child = in_terminal(gdb_path, tmp_path, command, ["--on-signal", "SIGSEGV"])
    survivors.until(lambda: (tmp_path / "t.uffd").exists())
    survivors.until(lambda: any(_runs(p, "pulse") for p in survivors._descendants(child.pid)))
    child.sendintr()
    child.expect("was killed by SIGINT; 1 snapshot")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 128 + signal.SIGINT


def _runs(pid: int, name: str) -> bool:
    try:
        comm = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        return comm == name and survivors.cpu_ticks(pid) >= 0 and _sleeps(pid)
    except OSError:
        return False


def _sleeps(pid: int) -> bool:
    return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def test_a_termination_is_passed_on(gdb_path, built, tmp_path):
    command = [
        *CLI,
        "record",
        "-o",
        str(tmp_path / "t"),
        "--on-signal",
        "SIGSEGV",
        "--",
        str(built / "pulse"),
        "99999",
        "0",
        "9",
    ]
    env = {**os.environ, "GDB_UFFD_GDB": gdb_path}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        survivors.until(lambda: any(_runs(p, "pulse") for p in survivors._descendants(process.pid)))
        process.terminate()
        assert "killed by SIGTERM" in process.communicate()[1]
        assert process.returncode == 128 + signal.SIGTERM


def test_the_shell_command_killed(gdb_path, built, tmp_path):
    """Nothing of ours is left, and the trace opens."""
    command = [*CLI, "record", "-o", str(tmp_path / "t"), "--every", "5ms", "--"]
    command += [str(built / "pulse"), "99999", "0", "9"]
    env = {**os.environ, "GDB_UFFD_GDB": gdb_path}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        survivors.until(lambda: _has_a_snapshot(tmp_path), 60)
        everybody = survivors._descendants(process.pid)
        process.kill()
    for pid in everybody:
        assert survivors.wait_gone(pid, 20), survivors.describe(pid)
    snapshots(tmp_path)

"""Finding an interpreter, starting a server, and what happens when it does not start."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gdb_uffd import outputs
from gdb_uffd.client.session import launch
from gdb_uffd.protocol.messages import Progress
from gdb_uffd.protocol.model import UffdError

READY = (
    '{"ready": true, "protocol": 2, "server": "0.1", "pid": 1, "socket": "s", "core": "c",'
    ' "executable": "", "warnings": ["w"], "threads": 3, "total_pages": 9, "inferior_pid": 5,'
    ' "signal": 11, "open_ms": 1.5}'
)


def program(path: Path, body: str) -> str:
    """An executable script that stands in for the server's Python."""
    code = path.with_name(f"{path.name}.py")
    code.write_text(f"import os, sys\n{body}\n", encoding="utf-8")
    # By a shell, since the path of an interpreter may not have spaces (execve(2)).
    command = shlex.join([sys.executable, str(code)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories of ours go where the test can see them."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return place


def test_a_server_that_starts(tmp_path, private):
    body = f"print('''{READY}''', flush=True)\nsys.stdin.read()\nprint('bye', file=sys.stderr)"
    server = launch.start(program(tmp_path / "python", body), "core")
    assert server.ready.threads == 3 and server.ready.warnings == ["w"]
    assert stat.S_IMODE(os.stat(server.directory).st_mode) == 0o700
    assert server.ended() is None
    server.connected()
    assert list(private.iterdir()) == []
    assert server.stop() == 0
    assert server.ended() == 0


def test_arguments_and_environment(tmp_path, private, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("GDB_UFFD_PYTHON", "x")
    out = tmp_path / "seen"
    body = (
        f"open({str(out)!r}, 'w').write(repr((sys.argv[1:], sorted(os.environ), os.getsid(0) =="
        f" os.getpid())))\nprint('''{READY}''', flush=True)\nsys.stdin.read()"
    )
    interpreter = program(tmp_path / "python", body)
    monkeypatch.delenv("PYTHONHOME")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    server = launch.start(interpreter, "/c", "/e")
    server.stop()
    argv, environment, own_session = eval(out.read_text())
    assert argv[:3] == ["-I", "-m", "gdb_uffd.server"]
    assert argv[3::2] == ["--socket", "--core", "--executable"]
    assert argv[-3:] == ["/c", "--executable", "/e"]
    assert own_session
    assert not [name for name in environment if "PYTHON" in name]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('print(\'{"ready": false, "error": "c: not a core"}\')', "^c: not a core$"),
        ("sys.exit('No module named gdb_uffd')", "cannot run the server .*(make|pip install)"),
        ("sys.exit('first\\nlast words\\n\\n')", "status 1: last words"),
        ("sys.exit(3)", "status 3: no message"),
        ("print('hello')", "first line"),
        ("os.kill(os.getpid(), 9)", "status -9"),
    ],
)
def test_a_server_that_does_not_start(tmp_path, private, body, message):
    with pytest.raises(UffdError, match=message) as caught:
        launch.start(program(tmp_path / "python", body), "core")
    assert "\n" not in str(caught.value)
    assert list(private.iterdir()) == []


def test_no_such_interpreter(private):
    with pytest.raises(UffdError, match="cannot run /nowhere/python"):
        launch.start("/nowhere/python", "core")
    assert list(private.iterdir()) == []


def test_downloads_are_shown_and_ctrl_c_ends_them(tmp_path, private, monkeypatch):
    """The first one is passed on; the server goes on without, and starts."""
    body = (
        "import signal\n"
        'print(\'{"progress": {"doing": "downloading", "what": "x"}}\', flush=True)\n'
        "signal.sigwait([signal.SIGINT])\n"
        f"print('''{READY}''', flush=True)\nsys.stdin.read()"
    )
    body = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n" + body
    told = []

    def tell(line):
        told.append(line)
        if line:
            real = launch._read_line

            def interrupted(*arguments):
                monkeypatch.setattr(launch, "_read_line", real)
                raise KeyboardInterrupt

            monkeypatch.setattr(launch, "_read_line", interrupted)

    server = launch.start(program(tmp_path / "python", body), "core", tell=tell)
    assert server.ready.threads == 3 and told == [Progress("downloading", "x"), None]
    assert server.stop() == 0


def test_interrupted_while_starting(tmp_path, private, monkeypatch):
    def interrupted(process, timeout_s, data):
        raise KeyboardInterrupt

    pids = []
    popen = launch.subprocess.Popen

    def spy(*args, **kwargs):
        process = popen(*args, **kwargs)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(launch, "_read_line", interrupted)
    monkeypatch.setattr(launch.subprocess, "Popen", spy)
    with pytest.raises(KeyboardInterrupt):
        launch.start(program(tmp_path / "python", "sys.stdin.read()"), "core")
    assert list(private.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_server_that_will_not_end_is_made_to(tmp_path, private):
    body = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"print('''{READY}''', flush=True)\nwhile True: signal.pause()"
    )
    server = launch.start(program(tmp_path / "python", body), "core")
    assert server.stop(0.0) == -9


def test_order_of_interpreters(tmp_path, monkeypatch):
    package = tmp_path / "gdb_uffd"
    package.mkdir()
    with pytest.raises(UffdError, match="no Python for the server"):
        launch.find_interpreter("", {}, str(package))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    checkout = program(tmp_path / ".venv/bin/python", "")
    assert launch.find_interpreter("", {}, str(package)) == checkout
    other = program(tmp_path / "other", "")
    assert launch.find_interpreter("", {"GDB_UFFD_PYTHON": other}, str(package)) == other
    third = program(tmp_path / "third", "")
    assert launch.find_interpreter(third, {"GDB_UFFD_PYTHON": other}, str(package)) == third
    with pytest.raises(UffdError, match="GDB_UFFD_PYTHON names /nowhere"):
        launch.find_interpreter("", {"GDB_UFFD_PYTHON": "/nowhere"}, str(package))
    with pytest.raises(UffdError, match="set uffd python names"):
        launch.find_interpreter(str(tmp_path), {}, str(package))


def test_interpreter_of_an_installation(tmp_path):
    package = tmp_path / "lib/python3.11/site-packages/gdb_uffd"
    package.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    exact = program(tmp_path / "bin/python3.11", "")
    assert launch.find_interpreter("", {}, str(package)) == exact


def test_remedy_names_the_checkout(tmp_path):
    assert "pip install" in launch.remedy(str(tmp_path / "gdb_uffd"))
    (tmp_path / "Makefile").touch()
    assert launch.remedy(str(tmp_path / "gdb_uffd")).startswith(f"run `make` in {tmp_path}")


def test_a_directory_of_a_gdb_that_was_killed_goes_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless something is in it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    unused, used = Path(launch.private_directory()), Path(launch.private_directory())
    (used / "rsp").touch()
    outputs.remove_directories(str(tmp_path))
    assert unused.exists()  # it may be about to be used
    monkeypatch.setattr(outputs, "_FRESH_S", -1)
    outputs.remove_directories(str(tmp_path))
    assert list(tmp_path.glob("gdb-uffd-*")) == [used]


def test_a_server_that_says_nothing_or_no_end_of_it(monkeypatch):
    monkeypatch.setattr(launch, "MAX_LINE_BYTES", 1000)
    for said, seconds in ((b"", 0.0), (bytes(1001), 600.0)):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stdout, os.fdopen(write, "wb", buffering=0) as server:
            server.write(said)
            process = SimpleNamespace(stdout=stdout)
            with pytest.raises(UffdError, match=f"did not answer within {seconds:.0f} s"):
                launch._read_line(process, seconds, bytearray())

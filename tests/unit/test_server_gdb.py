"""A real gdb against the stub: it takes the description, the registers, the threads, the stops."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path
from typing import List, Tuple

import pytest
from harness import gdbs
from server_fakes import DATA, PID, TIDS, FakeDiversion, make_registers, serve_on

from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import GPR
from gdb_uffd.replay.interface import Resume, Stop, StubClient

pytestmark = pytest.mark.every_gdb


def session(
    gdb: str, folder: Path, commands: List[str], diversion: FakeDiversion
) -> Tuple[List[str], str]:
    """Run `commands` in a headless gdb connected to a stub; the output lines, each command's
    marked by an `echo`, and what it said on stderr."""
    path = str(folder / "rsp")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    listener.settimeout(30)

    def serve() -> None:
        client, _ = listener.accept()
        client.settimeout(None)
        serve_on(client, diversion)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    arguments = [gdb, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off"]
    for command in ["set sysroot /", "set width 0", f"target remote {path}", *commands]:
        arguments += ["-ex", command]
    done = subprocess.run(
        arguments,
        env=gdbs.environment(folder / "home"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    thread.join(30)
    listener.close()
    assert not thread.is_alive()
    assert diversion.closed
    return done.stdout.splitlines(), done.stderr


def number(name: str, seed: int = 0) -> int:
    return make_registers(seed).gpr[GPR[name]]


def test_registers_of_every_kind(gdb_path: str, tmp_path: Path) -> None:
    xs = make_registers(0).xstate
    lane = int.from_bytes(xs[1680:1684], "little")  # zmm16, bytes 16-19: in ymm16h
    names = ("$rax", "$cs", "$orig_rax", "$fs_base", "$k3", "$pkru")
    commands = [f'printf "{n[1:]}=%lx\\n", (unsigned long) {n}' for n in names]
    commands += [
        "printf \"zmm=%x\\n\", $zmm16.v16_int32[4]",
        "printf \"ymm=%x\\n\", $ymm2.v8_int32[5]",
        "printf \"xmm=%x\\n\", $xmm9.v4_int32[1]",
        "printf \"fctrl=%x ftag=%x fop=%x\\n\", $fctrl, $ftag, $fop",
        "info registers eflags",
        "maint print xml-tdesc",
    ]  # fmt: skip
    lines, _ = session(gdb_path, tmp_path, commands, FakeDiversion())
    assert f"rax={number('rax'):x}" in lines
    assert any(text.split()[:2] == ["eflags", "0x246"] for text in lines)
    assert f"cs={number('cs'):x}" in lines
    assert f"orig_rax={number('orig_rax'):x}" in lines
    assert f"fs_base={number('fs_base'):x}" in lines
    assert f"k3={int.from_bytes(xs[1112:1120], 'little'):x}" in lines
    assert f"pkru={int.from_bytes(xs[2688:2692], 'little'):x}" in lines
    assert f"zmm={lane:x}" in lines
    assert f"ymm={int.from_bytes(xs[576 + 36 : 576 + 40], 'little'):x}" in lines
    assert f"xmm={int.from_bytes(xs[160 + 148 : 160 + 152], 'little'):x}" in lines
    fop = int.from_bytes(xs[6:8], "little") & 0x7FF
    assert any(text.startswith("fctrl=700 ") and text.endswith(f"fop={fop:x}") for text in lines)
    for feature in ("core", "sse", "linux", "segments", "avx", "avx512", "pkeys"):
        assert any(f"org.gnu.gdb.i386.{feature}" in text for text in lines), feature


def test_writes_reach_the_diversion(gdb_path: str, tmp_path: Path) -> None:
    diversion = FakeDiversion()
    commands = [
        "set var $rbx = 0x1122334455667788",
        "set var $xmm20.uint128 = 5",
        "set var $zmm3.v8_int64[7] = 77",
        "set var $k2 = 9",
        "set var $st0 = 1.0",
        f"set var *(int *) {DATA:#x} = 0x01020304",
        "printf \"read=%ld %d\\n\", (long) $zmm3.v8_int64[7], *(int *) 0x600000",
    ]  # fmt: skip
    lines, _ = session(gdb_path, tmp_path, commands, diversion)
    assert f"read=77 {0x01020304}" in lines
    registers = diversion.current[TIDS[0]]
    assert registers.gpr[GPR["rbx"]] == 0x1122334455667788
    assert registers.xstate[1664 + 4 * 64 : 1664 + 4 * 64 + 16] == (5).to_bytes(16, "little")
    assert registers.xstate[1152 + 3 * 32 + 24 : 1152 + 4 * 32] == (77).to_bytes(8, "little")
    assert registers.xstate[1088 + 16 : 1088 + 24] == (9).to_bytes(8, "little")
    assert registers.xstate[32:42] == (1 << 63).to_bytes(8, "little") + b"\xff\x3f"
    assert bytes(diversion.snapshot.memory[DATA][:4]) == b"\4\3\2\1"


def test_threads_and_the_recorded_process(gdb_path: str, tmp_path: Path) -> None:
    commands = [
        "info threads",
        "thread 3",
        "printf \"rax=%lx\\n\", (unsigned long) $rax",
        "info proc mappings",
        "info auxv",
        "x/2xb 0x600ffe",
        "x/2xb 0x601000",
    ]  # fmt: skip
    diversion = FakeDiversion()
    diversion.snapshot.auxv = bytes(16)
    lines, errors = session(gdb_path, tmp_path, commands, diversion)
    text = "\n".join(lines)
    for n, tid in enumerate(TIDS):
        assert f'Thread {PID}.{tid} "t{n}"' in text
    assert f"rax={number('rax', 2):x}" in lines
    assert "/usr/bin/fake" in text and "[stack]" in text
    assert "AT_NULL" in text
    assert "0x600ffe:\t0xfe\t0xff" in lines
    assert "Cannot access memory at address 0x601000" in errors
    assert not diversion.alive


def test_running(gdb_path: str, tmp_path: Path) -> None:
    diversion = FakeDiversion()
    commands = [
        "break *0x400020", "continue", "printf \"pc=%lx\\n\", (long) $pc",
        "delete", "thread 2", "stepi", "printf \"pc=%lx\\n\", (long) $pc",
    ]  # fmt: skip
    lines, _ = session(gdb_path, tmp_path, commands, diversion)
    assert lines.count("pc=400020") == 1 and lines.count("pc=400011") == 1
    actions = [a for name, a in diversion.asked if name == "resume"]
    assert [(a.tid, a.kind) for a in actions if isinstance(a, Resume)] == [
        (TIDS[0], "c"),
        (TIDS[1], "s"),
    ]


def test_what_the_program_and_the_server_say(gdb_path: str, tmp_path: Path) -> None:
    def run(action: Resume, client: StubClient) -> Stop:
        client.output(b"hello from the program\n")
        return Stop(action.tid, 6, end=End("exit", code=3))

    lines, errors = session(gdb_path, tmp_path, ["continue"], FakeDiversion(on_resume=run))
    # gdb shows what its target says on its own stderr (gdb_stdtarg).
    assert (
        "hello from the program\nuffd: the program would exit with code 3 here; `bt` shows where, "
        in errors
    )
    assert any("received signal SIGABRT" in line for line in lines)


def test_without_avx(gdb_path: str, tmp_path: Path) -> None:
    diversion = FakeDiversion()
    for n, thread in enumerate(diversion.snapshot.threads):
        thread.registers = make_registers(n, 3)
    commands = ['printf "xmm=%x\\n", $xmm9.v4_int32[1]', "print $ymm0", "info registers rip"]
    lines, _ = session(gdb_path, tmp_path, commands, diversion)
    assert any(line.startswith("xmm=") for line in lines)
    assert "$1 = void" in lines or "$1 = <error" in "\n".join(lines)
    assert any(line.startswith("rip ") for line in lines)

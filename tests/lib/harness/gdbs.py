"""Drives gdb as a user does: one process a test, prompts awaited, nothing slept for."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pexpect

from harness import ROOT, SLOWNESS

PROMPT = "(gdb) "
REGISTERS = {
    "x86_64": "$rbx $eflags $mxcsr $fs_base $xmm0 $xmm1 $ymm0 $ymm7 $st0",
    "aarch64": "$x19 $x29 $x30 $cpsr $fpsr $fpcr $tpidr $v0 $v7 $v31",
}[os.uname().machine].split()
"""Some of each kind, but the program counter and the stack pointer."""
THREAD_POINTER = {"x86_64": "$fs_base", "aarch64": "$tpidr"}[os.uname().machine]
OLDEST = (12, 0)
"""The first gdb that can load us (gdb NEWS, version 12: send_packet)."""
PYPI_GDB = ROOT / ".venv-gdb" / "bin" / "gdb"
"""The real gdb 18.1 that PyPI's gdb-for-pwndbg wraps (`make gdb`)."""


def environment(home: Path) -> Dict[str, str]:
    """A user's environment with an empty home: nothing of this machine's settings gets in."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "TMPDIR", "GDB_UFFD_PYTHON")}
    return {**kept, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


@functools.cache
def version(gdb: str) -> Tuple[int, int]:
    """(major, minor) of the gdb at that path."""
    done = subprocess.run([gdb, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.(\d+)", done.stdout.splitlines()[0])
    assert found, done.stdout
    return int(found[1]), int(found[2])


@functools.cache
def present() -> List[str]:
    """Every gdb to test with; GDB_UFFD_TEST_GDBS (paths joined by ":") overrides."""
    chosen = os.environ.get("GDB_UFFD_TEST_GDBS")
    if chosen:
        return chosen.split(":")
    found = [g for g in (shutil.which("gdb"),) if g and version(g) >= OLDEST]
    if PYPI_GDB.exists():
        found.append(str(PYPI_GDB))
    return found


def label(gdb: str) -> str:
    """The name of a gdb in test ids: "gdb13.1"."""
    return "gdb{}.{}".format(*version(gdb))


class Gdb:
    """A running gdb at its prompt."""

    def __init__(
        self,
        gdb: str,
        home: Path,
        arguments: Sequence[str] = (),
        init: Optional[str] = "gdbinit.example",
        env: Optional[Dict[str, str]] = None,
        cwd: Optional[Path] = None,
    ) -> None:
        command = ["-nx", "-q", "-iex", "set confirm off", "-iex", "set debuginfod enabled off"]
        command += ["-iex", "set pagination off", "-iex", "set width 0"]
        if init:
            command += ["-x", str(ROOT / init)]
        self.child = pexpect.spawn(
            gdb,
            [*command, *arguments],
            env={**environment(home), **(env or {})},
            cwd=str(cwd or home),
            dimensions=(24, 80),
            encoding="utf-8",
            codec_errors="replace",
            timeout=30 * SLOWNESS,
        )
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = 0  # type: ignore[attr-defined]  # it is waited for
        assert self.child.pid is not None
        self.path, self.pid = gdb, self.child.pid
        self.transcript = ""
        self.spawned = ""
        self.banner = self.wait()

    def wait(self, timeout: float = 15) -> str:
        """What comes until the next prompt."""
        try:
            self.child.expect_exact(PROMPT, timeout=timeout * SLOWNESS)
        except (pexpect.EOF, pexpect.TIMEOUT) as gone:
            raise AssertionError(
                f"no prompt from {self.path} ({type(gone).__name__}); so far:\n"
                f"{self.transcript}\n--- then ---\n{self.child.before}"
            ) from None
        text = str(self.child.before).replace("\r\n", "\n").replace("\r", "")
        self.transcript += PROMPT + text
        return text

    def send(self, command: str) -> None:
        """Type a command; its echo is taken off what follows."""
        self.child.sendline(command)
        self.child.expect_exact("\n", timeout=30 * SLOWNESS)

    def run(self, command: str, timeout: float = 15) -> str:
        """A command's whole output."""
        self.send(command)
        return self.wait(timeout)

    def value(self, expression: str) -> str:
        """What `print` shows after "$N = ", all lines; AssertionError when it failed."""
        text = self.run(f"print {expression}")
        found = re.search(r"^\$\d+ = (.*?)\s*(?:\n\[uffd: .*)?\Z", text, re.S | re.M)
        assert found, text
        return found[1].strip()

    def json(self, command: str) -> Dict[str, Any]:
        """The object of a command with -json; it must be the only line of output."""
        text = self.run(command).strip()
        assert text.startswith("{") and "\n" not in text, text
        data = json.loads(text)
        assert isinstance(data, dict)
        return data

    def call(self, expression: str, *options: str) -> Dict[str, Any]:
        """The report of `uffd call -json`."""
        return self.json(" ".join(["uffd call -json", *options, expression]))

    def interrupt(self, timeout: float = 15) -> str:
        """Ctrl-C, and what gdb says until its prompt."""
        self.child.sendintr()
        return self.wait(timeout)

    def expect(self, text: str, timeout: float = 15) -> str:
        """Wait for `text`; what came before it."""
        self.child.expect_exact(text, timeout=timeout * SLOWNESS)
        return str(self.child.before)

    def quit(self) -> None:
        """Leave as a user does."""
        if self.child.isalive():
            self.child.sendline("quit")
            try:
                self.child.expect(pexpect.EOF, timeout=30 * SLOWNESS)
            except pexpect.TIMEOUT:
                raise AssertionError(f"gdb did not quit: {self.child.before!r}") from None
            self.child.wait()
        self.child.close(force=True)

    def kill(self) -> None:
        """End the gdb process by SIGKILL: no exit handler runs."""
        self.child.kill(9)
        self.child.expect(pexpect.EOF, timeout=30 * SLOWNESS)
        self.child.wait()
        self.child.close(force=True)

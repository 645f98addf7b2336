"""Drives lldb in a terminal against `gdb-uffd serve`."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import List, Sequence

import pexpect

from harness import CACHE, ROOT, SLOWNESS
from harness.gdbs import environment

PROMPT = "(lldb) "
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@functools.cache
def present() -> List[str]:
    """Every lldb to test with; GDB_UFFD_TEST_LLDBS (paths joined by ":") overrides."""
    chosen = os.environ.get("GDB_UFFD_TEST_LLDBS")
    if chosen is not None:
        return [path for path in chosen.split(":") if path]
    found = [path for path in (shutil.which("lldb"),) if path]
    return found + [str(path) for path in sorted((CACHE / "matrix" / "lldbs").glob("lldb-*"))]


@functools.cache
def label(lldb: str) -> str:
    """The name of an lldb in test ids: "lldb14.0.6"."""
    done = subprocess.run([lldb, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"lldb version ([\d.]+)", done.stdout)
    assert found, done.stdout
    return f"lldb{found[1]}"


class Server:
    """`gdb-uffd serve` of a trace; `where` is what a client connects to.  `before`: words that run
    the command that follows them, in another namespace say."""

    def __init__(self, arguments: List[str], before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, str(ROOT / ".venv" / "bin" / "gdb-uffd"), "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.told: List[str] = []  # what a client is to set before
        while line.startswith("set "):
            self.told.append(line.strip())
            line = self.process.stdout.readline()
        assert line.startswith("target remote "), (line, self.stop())
        self.where = line.split(maxsplit=2)[2].strip()

    def stop(self) -> str:
        """End it; what it said on stderr."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=20 * SLOWNESS)
        return said


class Lldb:
    """A running lldb at its prompt, connected."""

    def __init__(self, lldb: str, home: Path, executable: str, where: str) -> None:
        env = environment(home)
        self.transcript = ""
        self.child = pexpect.spawn(
            lldb,
            ["-x", "--no-use-colors"],
            env=env,
            cwd=str(home),
            dimensions=(100, 200),
            encoding="utf-8",
            codec_errors="replace",
            timeout=30 * SLOWNESS,
        )
        self.child.delaybeforesend = None
        self._prompt()
        self.run("settings set auto-confirm true")
        self.run(f"target create {executable}")
        self.run(f"process connect --plugin gdb-remote {where}", until="stop reason")

    def _prompt(self) -> str:
        self.child.expect_exact(PROMPT)
        text = _COLOURS.sub("", str(self.child.before)).replace("\r", "")
        self.transcript += PROMPT + text
        return text

    def run(self, command: str, until: str = "") -> str:
        """A command's output.  `until`: what lldb says of the stop, before or after its prompt."""
        self.child.sendline(command)
        if not until:
            return self._prompt()
        self.child.expect_exact(until)
        return str(self.child.before) + until + self._prompt()

    def value(self, expression: str) -> str:
        """What `expression` shows after "$N = "."""
        text = self.run(f"expression -- {expression}")
        found = re.search(r"\(.*\) (?:\$\d+ = )?(.*)", text.partition("\n")[2])
        assert found, text
        return found[1].strip()

    def quit(self) -> None:
        """Leave, which detaches."""
        self.child.sendline("quit")
        self.child.expect(pexpect.EOF)
        self.child.close(force=True)

"""A gdb in a terminal whose screen is kept by pyte: what a user of `tui enable` sees."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, List, cast

import pexpect
import pyte

from harness import ROOT, gdbs

ROWS, COLUMNS = 32, 110


class Screen:
    """gdb with our init file on a terminal of ROWS by COLUMNS."""

    def __init__(self, gdb: str, home: Path) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        arguments = ["-nx", "-q", "-iex", "set confirm off", "-iex", "set pagination off"]
        arguments += ["-iex", "set debuginfod enabled off", "-iex", "set tui border-kind ascii"]
        self.child = pexpect.spawn(
            gdb,
            [*arguments, "-x", str(ROOT / "gdbinit.example")],
            env={**gdbs.environment(home), "TERM": "linux", "LINES": "", "COLUMNS": ""},
            dimensions=(ROWS, COLUMNS),
            timeout=30,
        )
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = 0  # type: ignore[attr-defined]  # it is waited for
        self.until(lambda lines: any("(gdb)" in line for line in lines))

    def lines(self) -> List[str]:
        """The screen as it is."""
        return [line.rstrip() for line in self._screen.display]

    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines())

    def colour(self, words: str) -> str:
        """The colour in which `words` begin, where they are first on the screen."""
        row = next(n for n, line in enumerate(self.lines()) if words in line)
        column = self._screen.display[row].index(words)
        return str(self._screen.buffer[row][column].fg)

    def until(self, holds: Callable[[List[str]], bool], seconds: float = 30) -> List[str]:
        """Read until the screen is as it should be."""
        deadline = time.monotonic() + seconds
        while not holds(self.lines()):
            assert time.monotonic() < deadline, "the screen stays so:\n" + self.text()
            try:
                self._stream.feed(cast(bytes, self.child.read_nonblocking(1 << 16, timeout=1)))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError("gdb has gone:\n" + self.text()) from None
        return self.lines()

    def type(self, keys: str) -> None:
        """Press keys; a command is typed at the prompt, as what comes before may be lost."""
        if keys.endswith("\n"):
            self.until(lambda lines: lines[self._screen.cursor.y] == "(gdb)")
        self.child.send(keys)

    def resize(self, rows: int, columns: int) -> None:
        """The terminal gets another size, and gdb a SIGWINCH."""
        self._screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def shows(self, *words: str) -> List[str]:
        """Wait until all of `words` are on the screen."""
        return self.until(lambda lines: all(word in "\n".join(lines) for word in words))

    def lacks(self, word: str) -> List[str]:
        """Wait until `word` is not on the screen."""
        return self.until(lambda lines: word not in "\n".join(lines))

    def close(self) -> None:
        """End gdb."""
        self.child.sendline("tui disable")
        self.child.sendline("quit")
        try:
            self.child.expect(pexpect.EOF, timeout=30)
            self.child.wait()
        finally:
            self.child.close(force=True)

"""gdb's machine interface from the front end's side: commands, and records as Python values.

gdb manual, "GDB/MI Output Syntax".
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Tuple

from harness import ROOT, gdbs

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "e": "\x1b", "r": "\r"}
_ESCAPES.update(a="\a", b="\b")


def parse(text: str) -> Tuple[str, Dict[str, Any]]:
    """A result or async record without its sign: its class, and its results."""
    name, comma, rest = text.partition(",")
    results: Dict[str, Any] = {}
    while comma:
        key, _, rest = rest.partition("=")
        value, rest = _value(rest)
        assert key not in results, f"{key} twice in {text[:200]}"
        results[key] = value
        comma, rest = rest[:1], rest[1:]
        assert comma in ("", ","), rest
    return name, results


def _value(text: str) -> Tuple[Any, str]:
    if text[0] == '"':
        return _string(text)
    closing = {"{": "}", "[": "]"}[text[0]]
    rest = text[1:]
    found: List[Tuple[str, Any]] = []
    while rest[0] != closing:
        key = ""
        if rest[0] not in '"{[':
            key, _, rest = rest.partition("=")
        value, rest = _value(rest)
        found.append((key, value))
        if rest[0] == ",":
            rest = rest[1:]
    if closing == "}":
        assert len({key for key, _ in found}) == len(found)
        return dict(found), rest[1:]
    return [value for _, value in found], rest[1:]


def _string(text: str) -> Tuple[str, str]:
    out = bytearray()
    at = 1
    while text[at] != '"':
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
        elif text[at + 1].isdigit():
            out.append(int(text[at + 1 : at + 4], 8))
            at += 4
        else:
            out += _ESCAPES[text[at + 1]].encode()
            at += 2
    return out.decode("utf-8", "replace"), text[at + 1 :]


@dataclass
class Answer:
    """What came in answer to one command."""

    kind: str = ""  # "done", "error", ...
    results: Dict[str, Any] = field(default_factory=dict)
    notices: List[Tuple[str, Dict[str, Any]]] = field(default_factory=list)  # "=" and "*" records
    console: str = ""  # "~" and "&" streams
    target: str = ""  # "@" stream


class Machine:
    """`gdb -i=mi3` with our init file."""

    def __init__(self, gdb: str, home: Path) -> None:
        self._process = subprocess.Popen(
            [gdb, "-i=mi3", "-nx", "-q", "-iex", "set confirm off", "-iex", "set pagination off"]
            + ["-iex", "set debuginfod enabled off", "-x", str(ROOT / "gdbinit.example")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=gdbs.environment(home),
            cwd=home,
        )
        self.pid = self._process.pid
        self._token = 0
        self.answer("-gdb-version")

    def answer(self, command: str) -> Answer:
        """Send a command; everything until its result and the prompt after it."""
        assert self._process.stdin is not None
        self._token += 1
        self._process.stdin.write(f"{self._token}{command}\n".encode())
        self._process.stdin.flush()
        answer = Answer()
        while True:
            line = self._line()
            if line.startswith(f"{self._token}^"):
                answer.kind, answer.results = parse(line[len(str(self._token)) + 1 :])
            elif line == "(gdb)" and answer.kind:
                return answer
            else:
                self._note(answer, line)

    def notice(self, name: str) -> Dict[str, Any]:
        """Wait for an async record of that class, which no command has to ask for."""
        while True:
            line = self._line()
            if line[:1] in "=*" and parse(line[1:])[0] == name:
                return parse(line[1:])[1]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "gdb has gone"
        return line.decode("utf-8", "replace").strip()

    @staticmethod
    def _note(answer: Answer, line: str) -> None:
        if line[:1] in ("=", "*"):
            answer.notices.append(parse(line[1:]))
        elif line[:1] in ("~", "&") and line[1:2] == '"':
            answer.console += _string(line[1:])[0]
        elif line[:1] == "@" and line[1:2] == '"':
            answer.target += _string(line[1:])[0]

    def close(self) -> None:
        """End gdb."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._process.poll() is None:
            self._process.stdin.write(b"-gdb-exit\n")
            self._process.stdin.flush()
        self._process.stdout.read()
        self._process.wait(30)
        self._process.stdin.close()
        self._process.stdout.close()

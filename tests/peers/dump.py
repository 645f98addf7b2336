"""Run inside gdb with a core open: write what it shows as JSON to PEER_OUT (see compare.py)."""

import json
import os
import re

import gdb

DEEPEST = 64


def said(command: str) -> str:
    try:
        return str(gdb.execute(command, to_string=True))
    except gdb.error as error:
        return f"error: {error}"


def registers(frame: "gdb.Frame") -> "dict[str, str]":
    found = {}
    for register in frame.architecture().registers():
        try:
            found[register.name] = frame.read_register(register).format_string(format="x")
        except gdb.error as error:
            found[register.name] = f"error: {error}"
    return found


def backtrace() -> "list[str]":
    """Where each frame is, and in what; without gdb's words for the files' places."""
    lines = said(f"backtrace {DEEPEST}").split("\n")
    return [re.sub(r"^#(\d+) +", r"#\1 ", line) for line in lines if line.startswith("#")]


def memory(ranges: "list[list[int]]") -> "dict[str, str]":
    inferior = gdb.selected_inferior()
    found = {}
    for start, length in ranges:
        try:
            found[hex(start)] = bytes(inferior.read_memory(start, length)).hex()
        except gdb.error:
            found[hex(start)] = "unavailable"
    return found


def threads() -> "list[dict[str, object]]":
    found = []
    for thread in sorted(gdb.selected_inferior().threads(), key=lambda one: one.ptid[1]):
        thread.switch()
        try:
            frame = gdb.newest_frame()
            found.append(
                {"lwp": thread.ptid[1], "registers": registers(frame), "backtrace": backtrace()}
            )
        except gdb.error as error:
            found.append({"lwp": thread.ptid[1], "error": str(error)})
    return found


def mappings() -> "dict[str, list[str]]":
    """End, offset and file of each mapping that has a file, by its start; no protections."""
    found = {}
    for line in said("info proc mappings").split("\n"):
        match = re.match(
            r"\s*(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+(?:[rwxps-]+\s+)?(/.*?)\s*$",
            line,
        )
        if match:
            start, end, offset, path = match.groups()
            found[hex(int(start, 16))] = [hex(int(end, 16)), offset, path]
    return found


first = gdb.selected_thread()
facts = {
    "thread": first.ptid[1] if first else None,
    "architecture": gdb.selected_inferior().architecture().name(),
    "siginfo": said("print $_siginfo.si_signo"),
    "threads": threads(),
    "memory": memory(json.loads(os.environ["PEER_RANGES"])),
    "auxv": said("info auxv").strip().split("\n"),
    "mappings": mappings(),
}
with open(os.environ["PEER_OUT"], "w") as out:
    json.dump(facts, out)

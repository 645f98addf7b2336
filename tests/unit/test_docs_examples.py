"""The programs in the documents run and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import List

from harness import ROOT
from trace_cores import kernel_told
from trace_stores import BASE, PAGE, record

import gdb_uffd.trace
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.importing import import_cores


def programs(document: str) -> List[str]:
    """The python blocks of a document."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)


def run(program: str, folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    path = folder / "example.py"
    path.write_text(program, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(path), *map(str, arguments)],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


def test_the_reading_program(tmp_path: Path) -> None:
    told = kernel_told(tmp_path)
    trace = import_cores([str(told.core), str(told.core)], str(tmp_path / "t")).path
    reading, _ = programs("api.md")
    for path in (trace, told.core):
        done = run(reading, tmp_path, path)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert f"0 {told.core.name if path == trace else ''} 3 threads" in done.stdout
        assert done.stdout.count("its stack pointer is in: stack [stack]") == 3
        assert "telltale" in done.stdout
    missing = run(reading, tmp_path, tmp_path / "absent")
    assert missing.returncode == 1 and "no such file" in missing.stderr


def test_the_writing_program(tmp_path: Path) -> None:
    _, writing = programs("api.md")
    done = run(writing, tmp_path, "made")
    assert done.stdout.count("is in the trace, whatever happens now") == 3, done.stderr
    trace = gdb_uffd.trace.open(str(tmp_path / "made.uffd"))
    last = trace.snapshot(trace.find("step 2"))
    assert last.read(0x10000000, 3 * PAGE)[::PAGE] == b"\1\2\3"
    assert trace.changed_pages(1, 2) == [0x10002000]


def test_the_reader_of_the_format(tmp_path: Path) -> None:
    """Written from the document alone, it finds what the real one finds."""
    (reader,) = programs("trace-format.md")
    made = record(tmp_path, snapshots=45, pages=20)
    trace = gdb_uffd.trace.open(made.path)
    for number, page in ((0, 0), (7, 3), (31, 19), (32, 4), (44, 5), (44, 11)):
        address = BASE + page * PAGE + 77
        done = run(reader, tmp_path, made.path, number, hex(address))
        assert done.returncode == 0, done.stderr
        mapping, content = done.stdout.splitlines()
        assert mapping == f"{BASE:#x}-{BASE + 20 * PAGE:#x} 3 "
        assert bytes.fromhex(content) == trace.snapshot(number).read(address, 16)


def test_the_schema_in_the_document_is_the_schema() -> None:
    text = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.S)
    assert " ".join(block.split()) == " ".join(form.SCHEMA.values())
    assert f"This is **{form.MAJOR}.{form.MINOR}**" in text


def test_the_commands_in_the_document_are_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from gdb_uffd.cli import main; main(['--help'])"],
        capture_output=True, text=True,
    )  # fmt: skip
    listed = set(re.findall(r"^    ([a-z]+) ", done.stdout, re.M))
    text = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^## gdb-uffd ([a-z]+)", text, re.M))
    assert listed - told == {"gdbinit", "serve", "connect"}

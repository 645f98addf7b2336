"""Traces as files, in gdb: compressed, packed and sent elsewhere, damaged, exported."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from harness import cores, gdbs, survivors

import gdb_uffd.trace
from gdb_uffd.trace.store.importing import import_cores
from gdb_uffd.trace.store.pack import pack

PAGE = 4096


@pytest.fixture
def moved(built, tmp_path):
    """A program of its own place and a core of it; the program can be taken away."""
    program = tmp_path / "here" / "sample"
    program.parent.mkdir()
    shutil.copy(built / "sample", program)
    try:
        core = cores.kernel_core([str(program)], tmp_path / "cores")
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")
    return program, core


@pytest.fixture
def trace(all_cores, tmp_path) -> Path:
    """The sample's core, imported twice."""
    core = str(all_cores.sample())
    return Path(import_cores([core, core], str(tmp_path / "t")).path)


def test_a_compressed_core(gdb, all_cores, tmp_path):
    path = tmp_path / "core.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(all_cores.sample().read_bytes()))
    gdb.run(f"uffd spawn {path}")
    assert gdb.call("push(7)")["value"] == "1042"
    assert str(path) in gdb.run("uffd info")


def test_a_truncated_compressed_core(gdb, all_cores, tmp_path):
    raw = zstandard.ZstdCompressor().compress(all_cores.sample().read_bytes())
    path = tmp_path / "core.zst"
    path.write_bytes(raw[: len(raw) // 2])
    text = gdb.run(f"uffd spawn {path}").strip()
    assert "\n" not in text and "truncated: its zstd data ends early" in text
    assert survivors.ours() == []


def test_a_packed_trace_elsewhere(gdb, moved, tmp_path):
    """Without the program: its symbols, lines and code all come out of the one file."""
    program, core = moved
    done = import_cores([str(core)], str(tmp_path / "t"))
    packed = tmp_path / "sent.uffd.zst"
    opened = gdb_uffd.trace.open(done.path)
    pack(opened, str(packed))
    opened.close()
    shutil.rmtree(done.path)
    program.rename(tmp_path / "gone")
    core.unlink()
    before = gdb.run("show sysroot")
    told = gdb.run(f"uffd spawn {packed}")
    assert "lookup (value=99)" in told and "warning" not in told
    assert gdb.value("head->value") == gdb.value("sum() - sum() + head->value")
    gdb.run("uffd reset")
    report = gdb.call("push(7)")
    assert report["value"] == "1042"
    assert any(c["name"] == "counter" for d in report["dirty"] for c in d["changes"])
    libraries = gdb.run("info sharedlibrary")
    assert libraries.count("Yes") >= 2 and "(*)" not in libraries.split("libc.so.6")[0][-40:]
    assert gdb.value("tls_hits") == "1007"
    gdb.run("uffd kill")
    assert gdb.run("show sysroot") == before


def slot_of(path: Path, address: int) -> int:
    """Which page of the page file has the byte at `address` of snapshot 0."""
    opened = gdb_uffd.trace.open(str(path))
    slot = opened.table(0).slot(address & -PAGE)
    opened.close()
    return slot


def damage(path: Path, slot: int) -> None:
    with open(path / "pages", "r+b") as file:
        file.seek(slot * PAGE + 100)
        byte = file.read(1)[0]
        file.seek(slot * PAGE + 100)
        file.write(bytes([byte ^ 0x10]))


def shell(gdb_path, *arguments):
    """`gdb-uffd ARGUMENTS`."""
    code = "import sys; from gdb_uffd.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "GDB_UFFD_GDB": gdb_path},
        capture_output=True, text=True,
    )  # fmt: skip


def test_a_corrupt_page_is_never_fed(gdb, trace):
    """It is unavailable, by name; everything else works on."""
    gdb.run(f"uffd spawn {trace}")
    head = int(gdb.value("/x (long)head"), 16)
    gdb.run("uffd kill")
    slot = slot_of(trace, head)
    damage(trace, slot)
    gdb.run(f"uffd spawn {trace}")
    assert "Cannot access memory" in gdb.run("print *head")
    named = f"checksum mismatch in {trace}/pages at slot {slot}"
    text = gdb.run("uffd call sum()")
    assert named in text and "gdb-uffd verify" in text
    assert gdb.value("counter") == "1041" and gdb.value("head") != "0x0"
    assert "lookup (value=99)" in gdb.run("bt")
    done = shell(gdb.path, "verify", trace)
    assert done.returncode == 1
    assert f"{head & -PAGE:#x} in snapshots 0-1" in done.stdout


def test_a_damaged_first_snapshot(gdb, trace):
    """Others can be shown."""
    import sqlite3

    with sqlite3.connect(trace / "index.sqlite") as db:
        db.execute("UPDATE snapshots SET pid = 5 WHERE number = 0")
    text = gdb.run(f"uffd spawn {trace}")
    assert "snapshot 0: its row does not match its checksum" in text
    assert "snapshot 1 of 0-1" in text and "Traceback" not in text
    assert gdb.call("push(7)")["value"] == "1042"
    refused = gdb.run("uffd goto 0").strip()
    assert "\n" not in refused and "snapshot 0 cannot be shown" in refused
    assert gdb.value("counter") == "1041"


@pytest.mark.parametrize("seed", range(6))
def test_random_damage(gdb, trace, seed):
    """Spawn, look, call, move: an answer or one clear line, and gdb goes on."""
    random_ = random.Random(seed)
    for name in random_.choice([["pages"], ["index.sqlite"], ["sums"], ["pages", "index.sqlite"]]):
        raw = bytearray((trace / name).read_bytes())
        for _ in range(random_.randint(1, 30)):
            raw[random_.randrange(len(raw))] ^= random_.randrange(1, 256)
        if random_.random() < 0.3:
            del raw[random_.randrange(len(raw)) :]
        (trace / name).write_bytes(raw)
    gdb.run(f"uffd spawn {trace}")
    for command in ("bt", "print counter", "uffd call push(7)", "uffd goto 1", "uffd call sum()"):
        text = gdb.run(command, timeout=30)
        assert "Traceback" not in text and "Python Exception" not in text, text
    value = gdb.run("print counter")
    if value.startswith("$"):
        assert value.split(" = ")[1].strip() == "1041"
    assert gdb.value("6 * 7") == "42"


def test_export_after_a_call(gdb_path, gdb, trace, built, tmp_path):
    path = tmp_path / "after core"
    done = shell(gdb_path, "export", trace, "-n", 1, "-o", path, "--after", "push(7)")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[0] == "$1 = 1042"
    out = subprocess.run(
        [gdb_path, "-nx", "-batch", "-ex", "print counter", "-ex", "print head->value",
         "-ex", "print tls_hits", "-ex", "bt", str(built / "sample"), str(path)],
        capture_output=True, text=True, env=gdbs.environment(tmp_path / "h"),
    ).stdout  # fmt: skip
    assert "$1 = 1042" in out and "$2 = 7" in out and "$3 = 1008" in out
    assert "lookup (value=99)" in out
    gdb.run(f"uffd spawn '{path}'")
    assert gdb.call("push(8)")["value"] == "1043"
    assert survivors.ours() != []
    gdb.run("uffd kill")


def test_export_after_what_cannot_be(gdb_path, trace, tmp_path):
    path = tmp_path / "x"
    for expression, words in (
        ("nothing(7)", 'No symbol "nothing"'),
        ("*(int *)0", "Cannot access memory at address 0x0"),
        ("1\nshell true", "an expression of one line"),
    ):
        done = shell(gdb_path, "export", trace, "-o", path, "--after", expression)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and words in done.stderr
        assert not path.exists()
    assert survivors.ours() == []

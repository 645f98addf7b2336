"""Cores of other distributions (`make foreign`), opened here: what their processes said when they
lived.  Without GDB_UFFD_FOREIGN=all, a few of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterable, List

import pytest
from harness import CACHE, gdbs

from gdb_uffd import cli

FOLDER = CACHE / "foreign"
NAMES = ["debian-11", "debian-12", "debian-13", "debian-testing", "fedora-like", "alpine-like"]
NAMES += ["ubuntu", "fedora"]
WAYS = ["sysroot", "files-from", "packed", "image", "heap"]
EVERY = os.environ.get("GDB_UFFD_FOREIGN") == "all"
WITHOUT = 6
"""Expressions that need no library (tools/foreign/asked.py)."""


def chosen(*few: str) -> List[str]:
    """All of them, or `few` where not everything is asked for."""
    return NAMES if EVERY or not few else list(few)


FEW = [("debian-11", "packed"), ("debian-testing", "image"), ("alpine-like", "files-from")]


def ways() -> List[Any]:
    """Each root with each way, or a few."""
    pairs = [(name, way) for name in NAMES for way in WAYS] if EVERY else FEW
    return [pytest.param(*pair, id="-".join(pair)) for pair in pairs]


def folder(name: str) -> Path:
    """Skips, with the reason, where it could not be made."""
    if not (FOLDER / name / "whole").exists():
        why = FOLDER / f"{name}.skipped"
        pytest.skip(why.read_text().strip() if why.exists() else "run `make foreign`")
    return FOLDER / name


def told(name: str, program: str) -> Dict[str, Any]:
    path = folder(name) / f"{program}.json"
    if not path.exists():
        pytest.skip(f"no {program} in {name}")
    data: Dict[str, Any] = json.loads(path.read_text())
    return data


def core_of(name: str, program: str, way: str, gdb: gdbs.Gdb, tmp: Path) -> Path:
    """The core, and gdb told where its files are."""
    core, root = folder(name) / f"{program}.core", folder(name) / "root"
    gdb.run(f"set debug-file-directory {tmp}/nosuch")
    if way == "sysroot":
        gdb.run(f"set sysroot {root}")
        gdb.run(f"set debug-file-directory {root}/usr/lib/debug")
    elif way == "files-from":
        gdb.run(f"set uffd files-from {root}")
    elif way == "packed":
        packed = tmp / "packed.uffd.zst"
        words = ["pack", "--debug", core, "-o", packed, "--files-from", root]
        assert cli.main([str(word) for word in words]) == 0
        return packed
    elif way == "image":
        gdb.run(f"set uffd files-from {image(root, tmp)}")
    else:
        gdb.run(f"set uffd files-from {heap(core, root, tmp)}")
    return core


def image(root: Path, tmp: Path) -> Path:
    """As `docker save` has it: /usr/lib/debug a layer of its own."""
    manifest = tmp / "manifest.json"
    manifest.write_text(json.dumps([{"Layers": ["one.tar", "two.tar"]}]))

    def taken(debug: bool) -> Any:
        def keep(info: tarfile.TarInfo) -> Any:
            inside = info.name.startswith("usr/lib/debug")
            useful = info.name.split("/")[0] in ("lib", "lib64", "usr", "app", "bin")
            heavy = any(p in info.name for p in ("/include", "/share", "/gconv", "/core"))
            return info if inside == debug and useful and not heavy else None

        return keep

    for layer, debug in (("one.tar", False), ("two.tar", True)):
        with tarfile.open(tmp / layer, "w") as archive:
            for name in sorted(p.name for p in root.iterdir()):
                if not debug:
                    archive.add(root / name, name, filter=taken(False))
            if debug and (root / "usr/lib/debug").is_dir():
                archive.add(root / "usr/lib/debug", "usr/lib/debug", filter=taken(True))
    with tarfile.open(tmp / "saved.tar", "w") as archive:
        for path in (manifest, tmp / "one.tar", tmp / "two.tar"):
            archive.add(path, path.name)
    return tmp / "saved.tar"


def heap(core: Path, root: Path, tmp: Path) -> Path:
    """All files that it maps and their debug files in one folder, under names that say nothing."""
    words = ["doctor", "--json", str(core), "--files-from", str(root)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.main(words)
    place = tmp / "heap"
    place.mkdir()
    for number, file in enumerate(json.loads(out.getvalue())["files"]):
        if file["state"] == "found":
            shutil.copy2(file["there"], place / f"{number}")
        if file["debug"].startswith("/"):
            shutil.copy2(file["debug"], place / f"{number}.debug")
    return place


def plain(text: str) -> str:
    """Without what names no difference: blanks, the history's number."""
    return " ".join(text.split())


def frames(lines: Iterable[str]) -> List[str]:
    """A backtrace without the place at which gdb found a library that has no lines."""
    return [re.sub(r" from \S+$", "", line) for line in lines if line.startswith("#")]


def shown(gdb: gdbs.Gdb, command: str) -> List[str]:
    return frames(gdb.run(command).splitlines())


@pytest.mark.parametrize(("name", "way"), ways())
def test_with_its_files(gdb, name, way, tmp_path):
    """Values, backtraces with lines, threads."""
    said = told(name, "abroad")
    core = core_of(name, "abroad", way, gdb, tmp_path)
    gdb.run("set width 0")
    gdb.run("set print frame-arguments scalars")
    spawned = gdb.run(f"uffd spawn '{core}'", timeout=60)
    assert "unavailable" not in spawned and "has build-id" not in spawned, spawned
    assert shown(gdb, "backtrace") == frames(said["backtrace"])
    threads = shown(gdb, "thread apply all -q backtrace 3")
    assert sorted(threads) == sorted(line for each in said["threads"] for line in frames(each))
    values = [gdb.value(expression) for expression in said["asked"]]
    assert values == said["values"]
    gdb.run("uffd reset")
    data = gdb.call("push(9)")
    changed = {c["name"] for page in data["dirty"] for c in page["changes"]}
    assert "head" in changed, changed


@pytest.mark.parametrize("name", chosen("debian-11"))
def test_without_its_libraries(gdb, name, tmp_path):
    """The program alone: what needs nothing else says what it said alive; what does names it."""
    said = told(name, "abroad")
    core, root = folder(name) / "abroad.core", folder(name) / "root"
    gdb.run("set width 0")
    spawned = gdb.run(f"uffd spawn {core} {root}{said['executable']}", timeout=60)
    lacks = re.findall(r"/(?:libc[-.]|ld-)[^:\n]*: .* pages are unavailable", spawned)
    if not lacks:
        pytest.skip(f"the libc of {name} is this machine's own")
    for expression, value in list(zip(said["asked"], said["values"]))[:WITHOUT]:
        assert gdb.value(expression) == value, expression
    gdb.run("uffd reset")
    text = plain(gdb.run("uffd call say(3)"))
    assert re.search(r"(libc|ld-)[-.0-9a-z_]*so", text) and "files-from" in text, text
    assert gdb.value("sum()") == "55"
    text = gdb.run(f"uffd doctor {core}")
    failed = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert any(re.search(r"/(ld-|libc\.so: )", line) for line in failed), text
    assert any("/libabroad.so: missing; needed: build-id" in line for line in failed), text


@pytest.mark.parametrize("name", chosen("debian-13"))
def test_its_python(gdb, name, tmp_path):
    """A program that has no symbols but those that it exports."""
    said = told(name, "python")
    core = core_of(name, "python", "files-from", gdb, tmp_path)
    gdb.run("set width 0")
    spawned = gdb.run(f"uffd spawn {core}", timeout=60)
    assert "unavailable" not in spawned, spawned
    functions = [re.sub(r"^#\d+ +(0x\w+ in )?", "", line) for line in shown(gdb, "backtrace")]
    alive = [re.sub(r"^#\d+ +(0x\w+ in )?", "", line) for line in said["backtrace"]]
    assert functions[1:] == alive[1:]
    assert [gdb.value(expression) for expression in said["asked"]] == said["values"]


@pytest.mark.parametrize("name", chosen("debian-11", "debian-testing", "alpine-like"))
def test_its_heap(gdb, name, tmp_path):
    """Layouts of other releases of glibc; musl's is not read."""
    program = "abroad" if name == "alpine-like" else "python"
    told(name, program)
    gdb.run(f"uffd spawn {core_of(name, program, 'files-from', gdb, tmp_path)}", timeout=60)
    data = gdb.json("uffd heap -json")
    if name == "alpine-like":
        assert data["allocator"]["name"] == "musl" and data["arenas"] == []
        return
    assert data["allocator"]["name"] == "glibc" and data["allocator"]["version"]
    assert data["damage_count"] == 0 and data["caches_missing"] == []
    assert data["mapped"] == data["mapped_said"]
    (arena,) = data["arenas"]
    told_bytes = arena["used_bytes"] + arena["free_bytes"] + arena["top_bytes"]
    assert told_bytes == arena["system_bytes"] and arena["used"] > 100
    verdict = gdb.call("((void *(*)(long)) PyMem_RawMalloc)(1000)")["verdict"]
    assert verdict["heap_trouble"] is None and verdict["allocated"]["blocks"] == 1, verdict

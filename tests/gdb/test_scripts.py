"""Scripts that came with a trace are not run, whatever gdb's safe path says; others as ever."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import List

import pytest
from harness import cores, gdbs
from harness.lldbs import Server

from gdb_uffd import cli
from gdb_uffd.trace.core.elf import ElfImage

PROGRAM = r"""
#include <stdlib.h>
int answer(void) { return 42; }
int main(void) { abort(); }
__asm__(".pushsection \".debug_gdb_scripts\", \"MS\",@progbits,1\n"
	".byte 4\n" /* SECTION_SCRIPT_ID_PYTHON_TEXT (gdb manual, "dotdebug_gdb_scripts section") */
	".ascii \"inlined\\n\"\n"
	".ascii \"open('SAID', 'a').write('section ')\\n\"\n"
	".byte 0\n"
	".popsection\n");
"""


class Sent:
    """A program that crashed, whose files then came with its core: `root` has them."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        source = folder / "app.c"
        source.write_text(PROGRAM.replace("SAID", str(self.said)))
        self.home = folder / "home"
        self.home.mkdir()
        self.app = self.home / "app"
        subprocess.run(["cc", "-g", "-o", str(self.app), str(source)], check=True)
        self.put(self.app)
        try:
            self.core = cores.kernel_core([str(self.app)], folder / "core")
        except cores.NoKernelCore as why:
            pytest.skip(f"no kernel core: {why}")
        self.root = folder / "root"

    def put(self, file: Path) -> None:
        """Scripts beside `file`."""
        for end, text in ((".py", "open('{}', 'a').write('python ')"),
                          (".gdb", "python open('{}', 'a').write('gdb ')")):  # fmt: skip
            file.with_name(f"{file.name}-gdb{end}").write_text(text.format(self.said) + "\n")

    def away(self) -> Path:
        """Only below `root` from now on; the program there."""
        place = self.root / str(self.home).lstrip("/")
        if not place.exists():
            place.parent.mkdir(parents=True)
            self.home.rename(place)
        return place / "app"

    def ran(self) -> List[str]:
        """Which scripts, since it was asked last."""
        words = self.said.read_text().split() if self.said.exists() else []
        self.said.unlink(missing_ok=True)
        return sorted(set(words))


@pytest.fixture
def sent(tmp_path) -> Sent:
    return Sent(tmp_path)


def _packed(sent: Sent, folder: Path) -> Path:
    """A packed core with scripts among its files."""
    import zstandard

    made = folder / "made.zst"
    assert cli.main(["pack", str(sent.core), "-o", str(made)]) == 0
    data = zstandard.ZstdDecompressor().decompressobj().decompress(made.read_bytes())
    out = io.BytesIO()
    old = tarfile.open(fileobj=io.BytesIO(data))  # noqa: SIM115
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        for script in sent.home.glob("app-gdb.*"):
            info = tarfile.TarInfo("root" + str(script))
            info.size = script.stat().st_size
            new.addfile(info, io.BytesIO(script.read_bytes()))
    made.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()))
    return made


def _settings(gdb: gdbs.Gdb) -> str:
    return gdb.run("show auto-load python-scripts") + gdb.run("show auto-load gdb-scripts")


@pytest.mark.parametrize("way", ["packed", "files-from", "heap", "sysroot", "cache", "trace"])
def test_what_came_with_a_core_runs_no_script(sent, start_gdb, tmp_path, way):
    trust = ["-iex", "set auto-load safe-path /"]
    cache = tmp_path / "cache"
    gdb = start_gdb(arguments=trust, env={"XDG_CACHE_HOME": str(cache)})
    before = _settings(gdb)
    assert before.count(" on.") == 2
    core, setting = sent.core, ""
    if way == "packed":
        core = _packed(sent, tmp_path)
    elif way == "trace":
        core = tmp_path / "t.uffd"
        command = ["import", "--self-contained", str(sent.core), "-o", str(core)]
        assert cli.main(command) == 0
    app = sent.away()
    if way == "files-from":
        setting = f"set uffd files-from {sent.root}"
    elif way == "heap":
        setting = f"set uffd files-from {app.parent}"
    elif way == "sysroot":
        setting = f"set sysroot {sent.root}"
    elif way == "cache":
        place = cache / "debuginfod_client" / ElfImage.from_file(app.read_bytes()).build_id().hex()
        place.mkdir(parents=True)
        shutil.copy(app, place / "executable")
        sent.put(place / "executable")
    if setting:
        gdb.run(setting)
    said = gdb.run(f"uffd spawn {core}")
    assert "app.c" in gdb.run("info line answer"), said
    assert "= 42" in gdb.run("print answer()")
    assert sent.ran() == []
    gdb.run("kill")
    assert _settings(gdb) == before
    assert sent.ran() == []


def test_the_machines_own_files_are_as_ever(sent, start_gdb):
    gdb = start_gdb(arguments=["-iex", "set auto-load safe-path /"])
    gdb.run(f"uffd spawn {sent.core}")
    assert sent.ran() == ["gdb", "python", "section"]


def test_connect_reads_no_script_before_it_knows(sent, start_gdb, tmp_path):
    sent.away()
    address = f"unix:{tmp_path}/s"
    server = Server([str(sent.core), "--files-from", str(sent.root), "--listen", address])
    gdb = start_gdb(arguments=["-iex", "set auto-load safe-path /", "-iex", "set sysroot"])
    gdb.run(f"uffd connect {address}")
    assert "= 42" in gdb.run("print answer()")
    assert sent.ran() == []
    gdb.run("uffd kill")
    server.process.wait(20)
    assert "set auto-load off" in server.told

"""The whole cores, traces and packed files that are mutated: made once for each build of the
programs, below .cache/torture."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List

import lz4.frame
import zstandard
from harness import CACHE, cores, gdbs, programs, traces

from gdb_uffd import cli
from gdb_uffd.protocol.model import PAGE_SIZE

SNAPSHOTS = 5


@dataclass
class Inputs:
    """Paths of whole ones."""

    built: Path
    cores: List[Path] = field(default_factory=list)
    traces: List[Path] = field(default_factory=list)
    packed: List[Path] = field(default_factory=list)


def make() -> Inputs:
    """Those of the cache, made where they are not there yet."""
    built = programs.build()
    place = CACHE / "torture" / f"inputs-{built.name}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            _make(built, fresh)
            os.rename(fresh, place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    found = {kind: sorted((place / kind).iterdir()) for kind in ("cores", "traces", "packed")}
    return Inputs(built, **found)


def _make(built: Path, place: Path) -> None:
    for kind in ("cores", "traces", "packed", "work"):
        (place / kind).mkdir()
    sample, zoo = place / "cores" / "sample", place / "cores" / "zoo"
    work = place / "work"
    cores.kernel_core([str(built / "sample")], work / "s").rename(sample)
    zoo_command = [str(built / "zoo"), str(built / "plugin.so"), "abort"]
    cores.kernel_core(zoo_command, work / "z").rename(zoo)
    _shell("export", str(sample), "-o", str(place / "cores" / "exported"))
    if gdbs.PYPI_GDB.exists():
        env = gdbs.environment(work / "home")
        target = place / "cores" / "gcore"
        cores.gcore(str(gdbs.PYPI_GDB), built / "sample", [], "lookup", target, env)
    trace = place / "traces" / "sample.uffd"
    traces.recorded(sample, trace, SNAPSHOTS, edits, label=lambda number: f"l{number}")
    _shell("import", str(zoo), "-o", str(place / "traces" / "zoo"), "--self-contained")
    packed = place / "packed"
    _shell("pack", str(trace), "-o", str(packed / "trace.zst"))
    _shell("pack", str(sample), "-o", str(packed / "core.uffd.zst"))
    compress(sample.read_bytes(), packed / "core.zst")
    compress(sample.read_bytes(), packed / "core.gz")
    compress(sample.read_bytes(), packed / "core.lz4")
    shutil.rmtree(work)


def edits(snapshot: object) -> traces.Edit:
    """Some bytes of the program's data are others at each snapshot."""
    at = snapshot.symbol("counter")  # type: ignore[attr-defined]
    chance = random.Random(1)

    def edit(number: int) -> Dict[int, bytes]:
        pages = {at: (1000 + number).to_bytes(4, "little")}
        for mapping in snapshot.mappings:  # type: ignore[attr-defined]
            if mapping.prot & 2 and chance.random() < 0.5:
                last = min(mapping.end, mapping.start + 8 * PAGE_SIZE)
                pages[chance.randrange(mapping.start, last, PAGE_SIZE) + 2048] = b"x" * 8
        pages.pop(0, None)
        return pages

    return edit


def compress(data: bytes, path: Path) -> None:
    """As systemd-coredump and others do it, by the path's ending."""
    how = {
        ".zst": lambda: zstandard.ZstdCompressor(level=1).compress(data),
        ".gz": lambda: gzip.compress(data, 1),
        ".xz": lambda: lzma.compress(data, preset=0),
        ".lz4": lambda: lz4.frame.compress(data),
    }
    path.write_bytes(how[path.suffix]())


def _shell(*arguments: str) -> None:
    if cli.main(arguments):
        raise AssertionError(f"gdb-uffd {' '.join(arguments)} failed")


if __name__ == "__main__":
    make()

"""The gdbs and lldbs to test with: the machine's own, PyPI's in environments of their own, and
those that the user names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from packages import Apt, Lacking

PYPI_GDBS = ("16.3", "17.2", "18.1")
NAMED = "GDB_UFFD_MATRIX_GDBS"
"""Environment: further gdbs, paths joined by ":"."""


@dataclass(frozen=True)
class Debugger:
    """One row: `path` None when it cannot be had, and `lacking` says why."""

    label: str
    origin: str
    path: Optional[Path] = None
    python: str = ""
    lacking: str = ""


def _environment_with(cache: Path, package: str, version: str, program: str) -> Path:
    """`program` of the PyPI package, in a virtual environment of its own."""
    target = cache / f"{package}-{version}"
    path = target / "bin" / program
    if not path.exists():
        make = Path(__file__).resolve().parents[1] / "make-venv"
        pip = [str(target / "bin" / "python"), "-m", "pip", "--quiet"]
        pip += ["--disable-pip-version-check", "install", f"{package}=={version}.*"]
        for command in ([str(make), sys.executable, str(target)], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines() or [""]
                raise Lacking(f"{package} {version} from PyPI: {said[-1]}")
    return path


def _ask(gdb: Path) -> Tuple[str, str]:
    """(version of gdb, of its Python); Lacking when it cannot run, or has no Python."""
    script = "import sys; print('PYTHON', sys.version.split()[0])"
    done = subprocess.run(
        [str(gdb), "-nx", "-batch", "-ex", "show version", "-ex", f"python {script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    version = re.search(r"GNU gdb .*?(\d+\.\d+)", done.stdout)
    python = re.search(r"PYTHON (\S+)", done.stdout)
    if version is None:
        raise Lacking(f"{gdb} does not run: {done.stderr.strip()[:100]}")
    if python is None:
        raise Lacking(f"gdb {version[1]} at {gdb} has no Python")
    return version[1], python[1]


def _gdb(path: Path, origin: str) -> Debugger:
    try:
        version, python = _ask(path)
    except Lacking as why:
        return Debugger(path.name, origin, lacking=str(why))
    return Debugger(f"gdb {version}", origin, path, python)


def gdbs(cache: Path, root: Path) -> List[Debugger]:
    """Every gdb, by version."""
    found: List[Debugger] = []
    for name in filter(None, os.environ.get(NAMED, "").split(":")):
        found.append(_gdb(Path(name), "built from source"))
    system = shutil.which("gdb")
    if system:
        found.append(_gdb(Path(system), "the distribution's"))
    for version in PYPI_GDBS:
        ours = root / ".venv-gdb" / "bin" / "gdb"
        try:
            path = ours if version == PYPI_GDBS[-1] and ours.exists() else None
            path = path or _environment_with(cache, "gdb-for-pwndbg", version, "gdb")
            found.append(_gdb(path, "PyPI, gdb-for-pwndbg"))
        except Lacking as why:
            found.append(Debugger(f"gdb {version}", "PyPI", lacking=str(why)))
    if not any(d.label.startswith("gdb 12") for d in found):
        none = f"no distribution or index within reach has it: build it and name it in {NAMED}"
        found.append(Debugger("gdb 12", "", lacking=none))
    return sorted(found, key=lambda d: [int(n) for n in re.findall(r"\d+", d.label)])


def _debian_lldb(apt: Apt, cache: Path) -> Path:
    """lldb-14 unpacked, behind a script that finds its libraries."""
    target = cache / "lldb-14"
    if not target.is_dir():
        apt.unpack(apt.missing(["lldb-14"]) or ["lldb-14"], target)
    libraries = [*target.glob("usr/lib/*-linux-gnu"), *target.glob("usr/lib/llvm-*/lib")]
    programs = sorted(target.glob("usr/lib/llvm-*/bin/lldb"))
    if not programs:
        raise Lacking("the package lldb-14 holds no lldb")
    modules = sorted(target.glob("usr/lib/llvm-*/lib/python3*/dist-packages"))
    script = cache / "lldbs" / "lldb-14"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH={':'.join(map(str, libraries))}\n"
        f"export PYTHONPATH={':'.join(map(str, modules))}\n"
        f'exec {programs[0]} "$@"\n'
    )
    script.chmod(0o755)
    return script


def lldbs(apt: Apt, cache: Path) -> List[Debugger]:
    """Debian's lldb 14 and PyPI's newest."""
    found: List[Debugger] = []
    for name, origin in (("lldb-14", "the distribution's"), ("lldb", "PyPI, lldb-for-pwndbg")):
        try:
            if name == "lldb-14":
                path = _debian_lldb(apt, cache)
            else:
                real = _environment_with(cache, "lldb-for-pwndbg", "23", "lldb")
                path = cache / "lldbs" / "lldb-pypi"
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(real)
            done = subprocess.run(
                [str(path), "--version"], capture_output=True, text=True, check=False
            )
            version = re.search(r"lldb version ([\d.]+)", done.stdout)
            if version is None:
                raise Lacking(f"{path} does not run: {done.stderr.strip()[:100]}")
            found.append(Debugger(f"lldb {version[1]}", origin, path))
        except Lacking as why:
            found.append(Debugger(name, origin, lacking=str(why)))
    return found

"""Makes cores: the kernel's, by letting a program crash, and gcore's, from a running one."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Optional, Sequence

from harness import ROOT, SLOWNESS

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


class NoKernelCore(Exception):
    """This machine's kernel hands cores to somebody else; the text says where to."""


def _raise_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def kernel_core(command: Sequence[str], folder: Path, env: Optional[dict[str, str]] = None) -> Path:
    """Run `command`, which must crash, in the empty `folder`; the core that the kernel wrote.
    Without `env` it has ours, and the folder as $PWD, as a shell that had gone there.

    NoKernelCore when core_pattern pipes cores away or names another folder (core(5)).
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    done = subprocess.run(
        list(command),
        cwd=folder,
        preexec_fn=_raise_limit,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=env or {**os.environ, "PWD": str(folder)},
        timeout=60 * SLOWNESS,
    )
    if done.returncode >= 0:
        raise AssertionError(f"{command[0]} did not crash: {done.returncode} {done.stderr!r}")
    fresh = sorted(p for p in set(folder.iterdir()) - before if "core" in p.name)
    if not fresh:
        pattern = CORE_PATTERN.read_text().strip()
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        raise NoKernelCore(f"core_pattern is {pattern!r}, the hard RLIMIT_CORE {hard}")
    return fresh[0]


def core_of(name: str, folder: Path, *flags: str) -> Path:
    """The kernel's core of tests/programs/NAME.c, built into `folder` with `flags`."""
    program = folder / name
    source = ROOT / "tests" / "programs" / f"{name}.c"
    subprocess.run(["cc", "-g", "-O1", "-pthread", "-o", program, source, *flags], check=True)
    return kernel_core([str(program)], folder)


def gcore(
    gdb: str, program: Path, arguments: Sequence[str], where: str, core: Path, env: dict[str, str]
) -> Path:
    """The core that `gdb` writes of `program` stopped at the breakpoint `where`."""
    quoted = " ".join(f"'{a}'" for a in arguments)
    done = subprocess.run(
        [gdb, "-nx", "-q", "-batch"]
        + ["-iex", "set debuginfod enabled off", "-iex", "set confirm off"]
        + ["-ex", f"break {where}", "-ex", f"run {quoted}", "-ex", f"gcore {core}", "-ex", "kill"]
        + [str(program)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120 * SLOWNESS,
    )
    if not core.exists():
        raise AssertionError(f"{gdb} wrote no core: {done.stdout}\n{done.stderr}")
    return core


def truncated(core: Path, length: int, target: Path) -> Path:
    """A copy of `core` of which only the first `length` bytes are left."""
    shutil.copyfile(core, target)
    with target.open("r+b") as f:
        f.truncate(length)
    return target

"""Machines with another processor: what QEMU's system emulation, packages of that
architecture, and a cross compiler make of this one.

Nothing is installed: the emulator, the compiler and the root file system are unpacked in the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

import packages
from packages import Lacking

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Machine:
    """One that QEMU emulates."""

    name: str
    """As `uname -m` has it."""
    debian: str
    emulator: Tuple[str, str]
    """QEMU's program and its package."""
    arguments: Tuple[str, ...]
    console: str
    """The kernel's console, and the port on which a command's output comes."""
    port: str
    compiler: Tuple[str, ...] = ()
    """Packages of a cross compiler for it; none: this machine's own is one."""
    triplet: str = ""
    cpu: str = "max"


X86_64 = Machine(
    name="x86_64",
    debian="amd64",
    emulator=("qemu-system-x86_64", "qemu-system-x86"),
    arguments=("-serial", "file:{console}", "-serial", "stdio"),
    console="ttyS0",
    port="ttyS1",
)
AARCH64 = Machine(
    name="aarch64",
    debian="arm64",
    emulator=("qemu-system-aarch64", "qemu-system-arm"),
    # One serial port is the machine's own; the other one hangs on PCI.
    arguments=(
        *("-M", "virt,gic-version=3", "-serial", "file:{console}"),
        *("-chardev", "stdio,id=out,signal=off", "-device", "pci-serial,chardev=out"),
    ),
    console="ttyAMA0",
    port="ttyS0",
    compiler=("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
    triplet="aarch64-linux-gnu",
    cpu="max,pauth-impdef=on",  # the architected algorithm takes most of an emulator's time
)

KERNELS = ("6.1", "newest")
"""Without and with write-protection by userfaultfd, which AArch64 has since Linux 6.10."""

PROGRAMS = (
    *("bash", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "procps", "util-linux"),
    *("busybox-static", "hostname", "libc-bin", "gcc", "g++", "libc6-dev", "libc6-dbg", "gdb"),
    *("python3", "python3-cffi", "python3-lz4", "python3-zstandard", "python3-pytest"),
    *("python3-pytest-timeout", "python3-pexpect", "python3-hypothesis", "python3-dev"),
    *("python3-pyelftools",),
)
"""What the tests need, their root file system's whole contents."""

LINKS = {"cc": "gcc", "c++": "g++", "awk": "mawk"}  # made by scripts that do not run here
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}


def root(cache: Path, machine: Machine) -> Path:
    """The folder with that machine's root file system; Lacking."""
    target = cache / f"root-{machine.debian}"
    if target.is_dir():
        return target
    apt = packages.foreign(cache, machine.debian)
    fresh = cache / f"root-{machine.debian}.new"
    apt.unpack(apt.missing(list(PROGRAMS)), fresh)
    for name, to in LINKS.items():
        if not (fresh / "usr/bin" / name).is_symlink():
            (fresh / "usr/bin" / name).symlink_to(to)
    for name, text in ACCOUNTS.items():
        (fresh / "etc" / name).write_text(text)
    fresh.rename(target)
    return target


def busybox(folder: Path) -> Path:
    """A root's static busybox."""
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (folder / place).exists():
            return folder / place
    raise Lacking(f"{folder} has no busybox")


class Compiler:
    """A cross compiler with its C library, unpacked."""

    def __init__(self, cache: Path, machine: Machine) -> None:
        self.machine = machine
        self.folder = cache / f"cross-{machine.debian}"
        if not self.folder.is_dir():
            apt = packages.own(cache)
            apt.unpack(apt.missing(list(machine.compiler)), self.folder)

    def run(self, arguments: List[str]) -> None:
        """Lacking with the compiler's words."""
        usr = self.folder / "usr"
        own = usr / self.machine.triplet
        libraries = [str(p) for p in usr.glob("lib/*-linux-gnu")]
        command = [
            *(str(usr / "bin" / f"{self.machine.triplet}-gcc"), f"--sysroot={self.folder}"),
            *("-isystem", str(own / "include"), f"-B{own / 'lib'}", f"-L{own / 'lib'}", *arguments),
        ]
        env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "error" in line] or ["nothing"]
            raise Lacking(f"{self.machine.triplet}-gcc: {said[0]}")


FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-pthread")


def native_module(cache: Path, machine: Machine) -> Path:
    """The checkout's native module for that machine, cross compiled; Lacking when it cannot be."""
    build = cache / f"native-{machine.debian}"
    build.mkdir(exist_ok=True)
    source, target = build / "_native.c", build / "_native.abi3.so"
    made = (
        "from gdb_uffd.native.build import ffibuilder as b; import sys; b.emit_c_code(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", made, str(source)], cwd=ROOT, check=True)
    sources = [source, *sorted((ROOT / "gdb_uffd/native").glob("*/*.c"))]
    headers = root(cache, machine) / "usr/include"
    python = sorted(headers.glob("python3.*"))
    if not python:
        raise Lacking(f"{headers} has no Python headers")
    compiler = Compiler(cache, machine)
    places = (ROOT / "gdb_uffd/native", python[-1], headers / machine.triplet, headers)
    compiler.run(
        [
            *FLAGS,
            "-Wno-unused-parameter",  # cffi's own
            "-DPy_LIMITED_API=0x03020000",  # as setuptools builds it (cffi's recompiler.py)
            *(f"-I{place}" for place in places),
            "-shared",
            *("-o", str(target)),
            *map(str, sources),
        ]
    )
    return target


def prepare(module: str, tree: str) -> str:
    """Commands that make the checkout usable in a guest: `module`, a python that finds it, no
    cache of programs that this machine has built."""
    made = "/tmp/venv/bin"
    return "\n".join(
        (
            f"cp {module} gdb_uffd/native/",
            f"mkdir -p /root {made} /tmp/cache .venv .cache",
            f"ln -s /usr/bin/python3 {made}/python",
            f"echo {tree} >/usr/lib/python3/dist-packages/gdb_uffd.pth",
            f"printf '#!/usr/bin/python3\\nimport sys\\nfrom gdb_uffd.cli import main\\n"
            f"sys.exit(main())\\n' >{made}/gdb-uffd",
            f"chmod +x {made}/gdb-uffd",
            "busybox mount --bind /tmp/venv .venv",
            "busybox mount --bind /tmp/cache .cache",
            "export GDB_UFFD_PYTHON=/usr/bin/python3 PYTHONDONTWRITEBYTECODE=1",
            "",
        )
    )


def environment(folder: Path) -> Dict[str, str]:
    """What an unpacked QEMU needs to find its libraries and modules."""
    folders = [*folder.glob("usr/lib/*-linux-gnu"), *folder.glob("lib/*-linux-gnu")]
    # Some libraries lie deeper (pulseaudio/), found by a run path of their own when installed.
    folders += sorted({p.parent for f in folders for p in f.glob("*/lib*.so*")})
    modules = [str(p) for p in (folder / "usr/lib").glob("*-linux-gnu/qemu")]
    found = {"LD_LIBRARY_PATH": ":".join(map(str, folders))}
    return {**found, "QEMU_MODULE_DIR": modules[0]} if modules else found

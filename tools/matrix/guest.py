"""A command under another kernel: QEMU without KVM, this machine's files under an overlay.

The guest sees the machine's root (one with another processor: a root of its own, and the checkout)
read-only through 9p (QEMU's virtfs) with a tmpfs over it, so what it writes is gone with it, except
in the folder of `out`, which is the host's.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Dict, List, Optional, Tuple

import foreign
import kernels
from foreign import X86_64, Machine
from kernels import Kernel
from packages import Apt, Lacking

INIT = Path(__file__).with_name("guest-init.sh")


@dataclass(frozen=True)
class Emulator:
    """QEMU for a machine, and a busybox of that machine's, the system's or unpacked."""

    qemu: Path
    busybox: Path
    root: Optional[Path] = None
    """Where it was unpacked; None: installed."""
    machine: Machine = X86_64

    def environment(self) -> Dict[str, str]:
        """What the unpacked one needs to find its libraries and modules."""
        return {} if self.root is None else foreign.environment(self.root)

    def firmware(self) -> List[str]:
        """-L options for the unpacked firmware."""
        if self.root is None:
            return []
        share = self.root / "usr/share"
        return [w for n in ("qemu", "seabios", "ipxe/qemu") for w in ("-L", str(share / n))]


def emulator(apt: Apt, cache: Path, machine: Machine = X86_64) -> Emulator:
    """The machine's own QEMU, or the package unpacked in the cache; Lacking if neither can be."""
    program, package = machine.emulator
    if machine is not X86_64:
        folder = cache / f"qemu-{machine.debian}"
        own = shutil.which(program)
        if not own and not folder.is_dir():
            apt.unpack(apt.missing([package]), folder)
        found_busybox = foreign.busybox(foreign.root(cache, machine))
        if own:
            return Emulator(Path(own), found_busybox, machine=machine)
        return _tried(Emulator(folder / "usr/bin" / program, found_busybox, folder, machine))
    qemu, busybox = shutil.which(program), shutil.which("busybox")
    if qemu and busybox and _is_static(Path(busybox)):
        return Emulator(Path(qemu), Path(busybox))
    root = cache / "qemu"
    if not root.is_dir():
        apt.unpack(apt.missing([package, "busybox-static"]), root)
    found = [root / "usr/bin" / program, root / "bin/busybox"]
    if not found[1].exists():
        found[1] = root / "usr/bin/busybox"
    chosen = [p if p.exists() else Path(s or p) for p, s in zip(found, (qemu, busybox))]
    return _tried(Emulator(chosen[0], chosen[1], root))


def _tried(made: Emulator) -> Emulator:
    """Lacking when it does not start."""
    done = subprocess.run(
        [str(made.qemu), "--version"],
        env={**os.environ, **made.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Lacking(f"the unpacked {made.qemu.name} does not run: {done.stderr.strip()}")
    return made


def _is_static(program: Path) -> bool:
    return b"/ld-linux" not in program.read_bytes()[:4096]


def _cpio(entries: Dict[str, Tuple[int, bytes]]) -> bytes:
    """A cpio archive of the "newc" kind (kernel's Documentation/driver-api/early-userspace)."""
    out = bytearray()
    entries = {**entries, "TRAILER!!!": (0, b"")}
    for inode, (name, (mode, data)) in enumerate(entries.items(), 1):
        path = name.encode() + b"\0"
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + path
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(kernel: Kernel, busybox: Path, cache: Path) -> Path:
    """The first file system: busybox, the modules, and guest-init.sh; kept in the cache."""
    script = INIT.read_bytes()
    digest = hashlib.sha256(script + busybox.read_bytes()).hexdigest()[:12]
    target = cache / f"initramfs-{kernel.version}-{digest}.gz"
    if target.exists():
        return target
    folder, file = 0o040755, 0o100755
    names = ("bin", "proc", "sys", "dev", "mods", "lower", "rw", "new", "tree")
    entries: Dict[str, Tuple[int, bytes]] = dict.fromkeys(names, (folder, b""))
    entries["bin/busybox"] = (file, busybox.read_bytes())
    entries["init"] = (file, script)
    for number, (name, image) in enumerate(kernels.module_images(kernel).items()):
        entries[f"mods/{number:02}-{name}.ko"] = (file, image)
    part = target.with_suffix(".part")
    part.write_bytes(gzip.compress(_cpio(entries), 1))
    part.rename(target)
    return target


@dataclass(frozen=True)
class Settings:
    """What a guest has."""

    memory_mib: int = 3072
    cpus: int = 2
    seconds: int = 1800
    """After this it is ended."""
    out: Optional[Path] = None
    """A folder of the host that is /out in the guest, written through."""
    cpu: str = ""
    """QEMU's -cpu; "" is everything that TCG has (no AVX-512, no AMX)."""
    root: Path = Path("/")
    """The guest's root file system, read-only."""
    tree: Optional[Path] = None
    """A folder that is in the guest where it is here, when the root is another machine's."""


def run(
    emulator: Emulator,
    kernel: Kernel,
    command: str,
    cache: Path,
    settings: Settings,
    output: IO[str],
) -> int:
    """Boot, run `command` with bash in the current folder, power off; its output goes to `output`.

    Its exit status; 124 when it was ended after its time, 125, with the console's last lines,
    when the guest gave none.
    """
    archive = initramfs(kernel, emulator.busybox, cache)
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        console, initrd = Path(name) / "console", Path(name) / "initrd"
        # The kernel unpacks archives one after the other; an uncompressed one may come first.
        text = f"cd {shlex.quote(os.getcwd())} && {command}\n".encode()
        initrd.write_bytes(_cpio({"command": (0o100644, text)}) + archive.read_bytes())
        arguments = _arguments(emulator, kernel, settings)
        arguments += ["-initrd", str(initrd)]
        arguments += [a.format(console=console) for a in emulator.machine.arguments]
        output.flush()
        try:
            done = subprocess.run(
                arguments,
                env={**os.environ, **emulator.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=settings.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"\nguest: ended after {settings.seconds} s", file=output, flush=True)
            return 124
        said = console.read_text(errors="replace") if console.exists() else ""
    status = re.findall(r"GUEST-STATUS=(\d+)", said)
    if status:
        return int(status[-1])
    tail = "\n".join(said.splitlines()[-20:])
    print(f"\nguest: no exit status, QEMU's was {done.returncode}\n{tail}", file=output, flush=True)
    return 125


def _arguments(emulator: Emulator, kernel: Kernel, settings: Settings) -> List[str]:
    machine = emulator.machine
    line = f"console={machine.console} panic=-1 quiet loglevel=3 guest.port={machine.port}"
    line += f" guest.out={int(settings.out is not None)}"
    shares = ["-virtfs", _share(str(settings.root), "root") + ",readonly=on,multidevs=remap"]
    if settings.tree is not None:
        line += f" guest.tree={settings.tree}"
        shares += ["-virtfs", _share(str(settings.tree), "tree") + ",readonly=on,multidevs=remap"]
    if settings.out is not None:
        shares += ["-virtfs", _share(str(settings.out.resolve()), "out")]
    return [
        *(str(emulator.qemu), *emulator.firmware(), "-accel", "tcg,thread=multi"),
        *(
            "-cpu",
            settings.cpu or machine.cpu,
            "-smp",
            str(settings.cpus),
            "-m",
            str(settings.memory_mib),
        ),
        *("-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none", *shares),
        *("-kernel", str(kernel.image), "-append", line),
    ]


def _share(path: str, tag: str) -> str:
    return f"local,path={path},mount_tag={tag},security_model=none"

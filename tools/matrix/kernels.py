"""Kernels to boot: which are wanted, and where their unpacked packages lie."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from packages import Apt, Lacking

SERIES = ("5.10", "6.1", "6.12")
NEWEST = "newest"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What a guest needs until the machine's root file system is there."""


@dataclass(frozen=True)
class Kernel:
    """One kernel, unpacked."""

    version: str
    """As `uname -r` will say."""
    image: Path
    modules: Path
    """The folder lib/modules/VERSION."""

    @property
    def label(self) -> str:
        """The version that a table shows: "5.10.262"; Debian's releases may stay at "5.10.0".

        The boot protocol keeps a text with both (kernel's Documentation/arch/x86/boot.rst,
        kernel_version: at 0x20e, relative to 0x200).
        """
        if self.is_arm:  # not compressed: its banner is in there
            banner = re.search(rb"SMP Debian (\d+\.\d+\.\d+)", self.image.read_bytes())
            return banner[1].decode("ascii") if banner else version_of(self.version)
        image = self.image.read_bytes()[:0x10000]
        start = int.from_bytes(image[0x20E:0x210], "little") + 0x200
        text = image[start : start + 200].partition(b"\0")[0].decode("ascii", "replace")
        found = re.search(r"Debian (\d+\.\d+\.\d+)", text)
        return found[1] if found else version_of(self.version)

    @property
    def is_arm(self) -> bool:
        """Whether the image is one for AArch64 (Documentation/arch/arm64/booting.rst)."""
        with open(self.image, "rb") as file:
            return file.read(0x3C)[0x38:] == b"ARM\x64"


def version_of(release: str) -> str:
    """The numbers of a release: "6.12.117+deb13-amd64" → "6.12.117"."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found[0] if found else release


def _choose(apt: Apt, wanted: str, flavour: str = "amd64") -> Tuple[str, str]:
    """(image package, its version) of a series ("6.1") or of NEWEST."""
    for version, fields in apt.versions(f"linux-image-{flavour}"):
        if wanted != NEWEST and not version.startswith(wanted + "."):
            continue
        exact = rf"(linux-image-\d\S*-{flavour}) \(= (\S+)\)"
        found = re.search(exact, fields.get("Depends", ""))
        if found:
            return found[1], found[2]
    raise Lacking(f"no suite of the mirror holds a kernel {wanted}")


def _parts(apt: Apt, package: str) -> List[str]:
    """The image and, where Debian split it (since 7.3), its base, binary and modules packages."""
    for _, fields in apt.versions(package):
        tail = package[len("linux-image-") :]
        split = re.findall(
            rf"(linux-(?:base|binary|modules)-{re.escape(tail)}) ", fields.get("Depends", "")
        )
        return [*split] or [package]
    raise Lacking(f"apt does not know {package}")


def unpacked(folder: Path) -> Kernel:
    """The kernel in an unpacked package; Lacking when there is none."""
    images = sorted(p for p in folder.rglob("vmlinuz*") if p.is_file())
    trees = [p for top in ("lib/modules", "usr/lib/modules") for p in (folder / top).glob("*")]
    if not images or not trees:
        raise Lacking(f"{folder} holds no kernel with its modules")
    return Kernel(trees[0].name, images[0], trees[0])


def _numbers(version: str) -> List[int]:
    return [int(n) for n in version_of(version).split(".")]


def cached(cache: Path, wanted: str, flavour: str = "amd64") -> Kernel:
    """The newest of a series (or of all) that is unpacked already; Lacking when none is."""
    every = sorted((cache / "kernels").glob(f"[0-9]*-{flavour}"), key=lambda p: _numbers(p.name))
    fit = [p for p in every if wanted == NEWEST or p.name.startswith(wanted + ".")]
    if not fit:
        raise Lacking(f"no kernel {wanted} in {cache}/kernels")
    return unpacked(fit[-1])


def get(apt: Apt, cache: Path, wanted: str, flavour: str = "amd64") -> Kernel:
    """The newest kernel of a series that the mirror holds; without a mirror, the cache's."""
    try:
        package, _ = _choose(apt, wanted, flavour)
    except Lacking:
        try:
            return cached(cache, wanted, flavour)
        except Lacking:
            pass
        raise
    target = cache / "kernels" / package[len("linux-image-") :]
    if not target.is_dir():
        apt.unpack(_parts(apt, package), target)
    return unpacked(target)


def _read_module(path: Path) -> bytes:
    """A module's ELF image, decompressed."""
    raw = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(raw)
    if path.suffix == ".zst":
        if not shutil.which("zstd"):
            raise Lacking(f"{path.name} is compressed with zstd: install zstd")
        return subprocess.run(["zstd", "-dcq"], input=raw, capture_output=True, check=True).stdout
    return raw


def _depends(image: bytes) -> List[str]:
    """The modules that one names in its .modinfo section ("depends=a,b", NUL-terminated)."""
    found = re.search(rb"\0depends=([^\0]*)\0", image)
    return [n for n in (found[1].decode().split(",") if found else []) if n]


def module_images(kernel: Kernel) -> Dict[str, bytes]:
    """MODULES and what they need, in loading order; those built into the kernel are left out."""
    found: Dict[str, Path] = {}
    for path in kernel.modules.rglob("*.ko*"):
        found[path.name.split(".ko")[0].replace("-", "_")] = path
    images: Dict[str, bytes] = {}

    def add(name: str) -> None:
        path = found.get(name.replace("-", "_"))
        if path is None or name in images:
            return
        image = _read_module(path)
        for needed in _depends(image):
            add(needed)
        images[name] = image

    for name in MODULES:
        add(name)
    return images

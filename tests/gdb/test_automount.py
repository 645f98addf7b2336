"""A core whose files lay where an automounter had mounted something: gdb asks for none of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from harness import ROOT, cores, gdbs
from harness.automount import automounted, in_own_namespace

ASKED = (
    "bt",
    "info sharedlibrary",
    "info proc mappings",
    "info files",
    "print zoo_call(1)",
    "kill",
)


def test_gdb_is_led_to_no_automounter(built, tmp_path, gdb_path):
    def run() -> None:
        with automounted(tmp_path / "net") as mount:
            place = mount.folder / "host/export"
            mount.mount(place, "x")
            for name in ("zoo", "libtlslib.so", "plugin.so"):
                shutil.copy2(built / name, place / name)
            command = [str(place / "zoo"), str(place / "plugin.so"), "abort"]
            try:
                core = cores.kernel_core(command, tmp_path / "core")
            except cores.NoKernelCore as why:
                pytest.skip(f"no kernel core: {why}")
            mount.unmount(place)
            said = subprocess.run(
                [str(gdb_path), "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off",
                 "-x", str(ROOT / "gdbinit.example"), "-ex", f"uffd spawn {core}",
                 *(word for each in ASKED for word in ("-ex", each))],
                capture_output=True, text=True, stdin=subprocess.DEVNULL,
                env=gdbs.environment(tmp_path),
            )  # fmt: skip
            assert mount.asked == []
            assert "behind an automounter" in said.stdout + said.stderr
            assert "libtlslib.so" in said.stdout

    in_own_namespace(run)

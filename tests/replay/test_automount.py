"""What an automounter would have to mount first is not asked for, whatever way leads there."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest
from harness.asking import Asker, policy_core
from harness.automount import automounted, in_own_namespace

AT_FDCWD, O_PATH, AT_EACCESS = -100, 0o10000000, 0x200
WAYS = """net/NAME net/NAME/more/of/it link folder/NAME folder/NAME/x net/../net/./NAME up net/
          net/NAME/..""".split()
RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 4, 8, 16


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("automount"))


def _calls(asker: Asker, path: str) -> list:
    """What the program sees of each system call that takes a path."""
    how = struct.pack("<QQQ", O_PATH, 0, 0)
    return [
        asker.ask("stat", path, asker.room),
        asker.ask("lstat", path, asker.room),
        asker.ask("newfstatat", AT_FDCWD, path, asker.room, 0),
        asker.ask("statx", AT_FDCWD, path, 0, 0x7FF, asker.room),
        asker.ask("access", path, os.R_OK),
        asker.ask("faccessat2", AT_FDCWD, path, os.R_OK, AT_EACCESS),
        asker.ask("open", path, os.O_RDONLY, 0),
        asker.ask("openat", AT_FDCWD, path, os.O_DIRECTORY, 0),
        asker.ask("openat", AT_FDCWD, path, O_PATH | os.O_NOFOLLOW, 0),
        asker.ask("openat2", AT_FDCWD, path, how, 24),
        asker.ask("readlink", path, asker.room, 4096),
        asker.ask("statfs", path, asker.room),
        asker.ask("chdir", path),
        asker.ask("execve", path, 0, 0),
    ]


@pytest.mark.parametrize("kind", ["indirect", "direct"])
def test_no_system_call_asks_the_automounter(core, tmp_path, kind):
    def run() -> None:
        net = tmp_path / "net"
        with automounted(net, kind) as mount:
            (tmp_path / "link").symlink_to(net / "NAME")
            (tmp_path / "folder").symlink_to(net)
            (tmp_path / "up").symlink_to("link/../link")
            asker = Asker(core)
            try:
                for way in WAYS:
                    said = _calls(asker, f"{tmp_path}/{way}")
                    if (
                        "NAME" in way or way == "up"
                    ):  # the folder, and links to it, may be looked at
                        lstat = said[1], said[8], said[9], said[10]
                        assert set(said) - set(lstat) <= {-errno.EACCES, -errno.EPERM}, way
                    assert mount.asked == [], way
                assert asker.ask("stat", f"{net}/NAME", asker.room) == -errno.EACCES
                assert any("stat(" in line for line in asker.refused), asker.refused
                # Relative to a descriptor, and to the working directory.
                assert asker.ask("openat", AT_FDCWD, str(tmp_path), O_PATH, 0, keep=True) == 3
                assert asker.ask("openat", 3, "net/NAME", os.O_RDONLY, 0) == -errno.EACCES
                assert asker.ask("chdir", str(tmp_path), keep=True) == 0
                assert asker.ask("open", "net/NAME", os.O_RDONLY, 0) == -errno.EACCES
                for own in ("/proc/self/cwd", "/proc/self/root" + str(tmp_path), "/proc/self/fd/3"):
                    assert asker.ask("stat", f"{own}/net/NAME", asker.room) == -errno.EACCES
                assert mount.asked == []
            finally:
                asker.close()

    in_own_namespace(run)


@pytest.mark.parametrize("kind", ["indirect", "direct"])
def test_what_is_mounted_there_is_read_as_ever(core, tmp_path, kind):
    def run() -> None:
        net = tmp_path / "net of it"
        with automounted(net, kind) as mount:
            place = net / "host/export" if kind == "indirect" else net
            mount.mount(place, "content")
            asker = Asker(core)
            try:
                assert asker.ask("open", f"{place}/it", os.O_RDONLY, 0, keep=True) == 3
                assert asker.ask("read", 3, asker.room, 100, keep=True) == len("content\n")
                assert asker.memory(7) == b"content"
                assert asker.ask("stat", f"{net}/ho", asker.room) < 0
                assert mount.asked == []
            finally:
                asker.close()

    in_own_namespace(run)


def test_other_file_systems_are_walked_through(core, tmp_path):
    """A container's root is an overlay, mostly; its links lead as in any."""

    def run() -> None:
        for name in ("lower/d", "upper", "work", "root"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "lower/d/file").write_text("lower")
        (tmp_path / "lower/link").symlink_to("d/../d/file")
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount = ["mount", "-t", "overlay", "none", "-o", options, str(tmp_path / "root")]
        made = subprocess.run(mount, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"no overlay can be mounted here: {made.stderr.strip()}")
        asker = Asker(core)
        try:
            assert asker.ask("chdir", str(tmp_path / "root"), keep=True) == 0
            for path in ("d/file", "link", "../root/link", f"{tmp_path}/root/./d/../link"):
                assert asker.ask("open", path, os.O_RDONLY, 0, keep=True) == 3
                assert asker.ask("read", 3, asker.room, 100, keep=True) == len("lower")
                assert asker.ask("close", 3, keep=True) == 0
        finally:
            asker.close()

    in_own_namespace(run)


def _openat2(directory: int, path: str, how: bytes) -> object:
    """What the kernel says: (st_dev, st_ino), or a negative errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(437, directory, os.fsencode(path), how, len(how))  # __NR_openat2, everywhere
    if fd < 0:
        return -ctypes.get_errno()
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status.st_dev, status.st_ino


def test_a_path_leads_where_the_kernel_would_go(core, tmp_path):
    """Whatever it looks like, links and all: as openat2(2) says without us."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").write_text("x")
    links = """abs rel a/b up a/b/.. slash a/ file a/file none a/none loop loop
               deep rel/../b/c root / empty .""".split()
    links[1:1] = [str(tmp_path / "a")]
    for name, target in zip(links[::2], links[1::2]):
        (tmp_path / name).symlink_to(target)
    for n in range(41):
        (tmp_path / f"chain{n}").symlink_to(f"chain{n + 1}" if n < 40 else "a")
    paths = """a a/ a/b/c/../../file abs/file abs/b/ rel rel/c rel/ up/file slash slash/b file file/
               file/x none none/x loop deep deep/.. root root/usr empty/a .. ../.. . / // a//b/./c
               a/file/.. chain0 chain1 chain1/b abs/../abs""".split()
    paths += ["", "x" * 255, "x" * 256, "a/" + "y" * 300 + "/b", str(tmp_path / "abs/b")]
    asker = Asker(core)
    try:
        assert asker.ask("openat", AT_FDCWD, str(tmp_path), O_PATH, 0, keep=True) == 3
        here = os.open(tmp_path, os.O_PATH)
        for flags in (O_PATH, O_PATH | os.O_NOFOLLOW, O_PATH | os.O_DIRECTORY):
            for resolve in (
                0,
                RESOLVE_NO_SYMLINKS,
                RESOLVE_BENEATH,
                RESOLVE_IN_ROOT,
                RESOLVE_NO_XDEV,
            ):
                how = struct.pack("<QQQ", flags, 0, resolve)
                for path in paths:
                    if path.startswith(str(tmp_path)) and resolve == RESOLVE_NO_XDEV:
                        continue  # an absolute link: the kernel goes where it is the same mount
                    wanted = _openat2(here, path, how)
                    got = asker.ask("openat2", 3, path, how, 24, keep=True)
                    if got >= 0:
                        assert asker.ask("fstat", got, asker.room, keep=True) == 0
                        device, inode = struct.unpack("<QQ", asker.memory(16))
                        asker.ask("close", got, keep=True)
                        assert (device, inode) == wanted, (path, flags, resolve)
                    else:
                        assert got == wanted, (path, flags, resolve)
        os.close(here)
    finally:
        asker.close()

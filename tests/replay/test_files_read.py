"""The report names the files whose contents came into the program's memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Iterator, List

import pytest
from harness.asking import Asker, policy_core

AT_FDCWD, PROT_READ, MAP_PRIVATE = -100, 1, 2


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    return policy_core(tmp_path_factory.mktemp("read"))


@pytest.fixture
def asker(core) -> Iterator[Asker]:
    made = Asker(core)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path) -> Path:
    made = tmp_path / "a file"
    made.write_text("content")
    return made


def read(asker: Asker) -> List[str]:
    return asker.reports[-1].files_read


WAYS = ("read", "pread64", "readv", "preadv", "preadv2", "mmap")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_read_is_named(asker, file, way):
    assert asker.ask("open", str(file), os.O_RDONLY, 0, keep=True) == 3
    assert read(asker) == []  # nothing of it yet
    iovec = struct.pack("<QQ", asker.room, 100)
    arguments = {
        "read": (3, asker.room, 100), "pread64": (3, asker.room, 100, 0), "readv": (3, iovec, 1),
        "preadv": (3, iovec, 1, 0), "preadv2": (3, iovec, 1, 0, 0, 0),
        "mmap": (0, 4096, PROT_READ, MAP_PRIVATE, 3, 0),
    }  # fmt: skip
    for keep in (False, True):
        assert asker.ask(way, *arguments[way], keep=keep) > 0
        assert read(asker) == [str(file)]
    assert asker.ask("close", 3) == 0 and read(asker) == []  # of that call alone
    assert asker.diversion.report_all().files_read == [str(file)]
    asker.diversion.reset()
    asker.ask("getpid", keep=True)
    assert asker.diversion.report_all().files_read == []


def test_names_of_a_folder_and_a_link_are_contents(asker, tmp_path, file):
    link = tmp_path / "link"
    link.symlink_to(file)
    assert asker.ask("readlink", str(link), asker.room, 100) > 0
    assert read(asker) == [str(link)]
    assert asker.ask("open", str(tmp_path), os.O_DIRECTORY, 0, keep=True) == 3
    assert asker.ask("getdents64", 3, asker.room, 1000) > 0
    assert read(asker) == [str(tmp_path)]


def test_what_is_only_asked_about_is_not(asker, file):
    for call in ("stat", "access", "open"):
        assert asker.ask(call, str(file), asker.room if call == "stat" else 0, 0) >= 0
        assert read(asker) == []
    assert asker.ask("readlink", str(file), asker.room, 100) < 0 and read(asker) == []


def test_what_stands_for_the_process_or_was_mapped_is_not(asker, core):
    for path in (
        "/proc/self/maps",
        str(core.parent / "policy"),
        os.path.realpath("/proc/self/exe"),
    ):
        asker.diversion.reset()
        if asker.ask("open", path, os.O_RDONLY, 0, keep=True) == 3:
            assert asker.ask("read", 3, asker.room, 100) > 0
        assert read(asker) == ([path] if "python" in path else [])
    assert asker.ask("readlink", "/proc/self/exe", asker.room, 100) > 0 and read(asker) == []


def test_another_file_in_the_place_of_a_mapped_one_is_named(asker, core, tmp_path):
    """Its bytes are not those that the core has."""
    program = core.parent / "policy"
    old = program.rename(tmp_path / "old")
    try:
        program.write_text("another")
        assert asker.ask("open", str(program), os.O_RDONLY, 0, keep=True) == 3
        assert asker.ask("read", 3, asker.room, 100) == len("another")
        assert read(asker) == [str(program)]
    finally:
        old.rename(program)


def test_many_are_counted(asker, tmp_path):
    assert asker.ask("open", str(tmp_path), os.O_DIRECTORY, 0, keep=True) == 3
    names = [f"f{n}" for n in range(20)]
    for name in names:
        (tmp_path / name).write_text("x")
        assert asker.ask("openat", 3, name, os.O_RDONLY, 0, keep=True) == 4
        assert asker.ask("read", 4, asker.room, 9, keep=True) == 1
        assert asker.ask("close", 4, keep=True) == 0
    kept = asker.diversion.report_all().files_read
    assert kept == [str(tmp_path / name) for name in names]

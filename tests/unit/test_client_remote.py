"""Where a server is that was started elsewhere."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from gdb_uffd.client.session import remote
from gdb_uffd.protocol.model import UffdError

OWN = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("unix:/run/x y", "/run/x y"),
        ("unix:here", os.path.abspath("here")),
        ("127.0.0.1:4711", "127.0.0.1:4711"),
        ("host.example:1", "host.example:1"),
        ("[::1]:4711", "[::1]:4711"),
    ],
)
def test_addresses(address: str, target: str) -> None:
    assert remote.target(address) == target


@pytest.mark.parametrize(
    "address",
    ["", "unix:", "host", ":1", "host:", "host:123456", "| true:1", "a;b:1", "a b:1", "-x"],
)
def test_what_is_none(address: str) -> None:
    with pytest.raises(UffdError, match="not an address"):
        remote.target(address)


def test_the_pipe_is_one_command_of_a_shell() -> None:
    made = remote.through_pipe("/opt/my python", "host:1", "/a b/to'ken")
    words = shlex.split(made[2:])
    assert made[:2] == "| " and words[0] == "/opt/my python"
    assert words[-4:] == ["connect", "host:1", "--token-file", "/a b/to'ken"]
    assert "--token-file" not in remote.through_pipe("python", "host:1", "")
    with pytest.raises(UffdError):
        remote.through_pipe("python", "$(reboot):1x", "")


def test_near_is_the_same_machine_with_the_program_there(tmp_path: Path) -> None:
    program = tmp_path / "program"
    here = replace(remote.UNKNOWN, executable=str(program))
    assert not remote.is_near(OWN, here)
    program.touch()
    assert remote.is_near(OWN, here) and remote.is_near(OWN, remote.UNKNOWN)
    assert not remote.is_near("01234567-89ab-cdef-0123-456789abcdef", here)
    assert not remote.is_near("", here)

"""Who answers each system call: the names in syscalls.tbl, the functions in native/syscalls/."""

from __future__ import annotations

import errno
import re

import pytest
from harness import ROOT

from gdb_uffd.arch import ALL
from gdb_uffd.native import check, lib
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.policy.policy import _arguments

SOURCES = ROOT / "gdb_uffd" / "native" / "syscalls"


def test_whoever_is_needed_is_named_and_nobody_else() -> None:
    for call in syscalls.table().values():
        needed = bool({"answer", "trace"} & {call.safe, call.all})
        assert (call.handler != "-") == needed, call
        assert lib.policy_handler(call.handler.encode()) >= 0, call
    assert lib.policy_handler(b"-") == 0 and lib.policy_handler(b"x") == -errno.ENOENT
    with pytest.raises(UffdError, match="system calls: nobody: No such file"):
        _arguments((), "nobody")
    assert check(len(_arguments(("fd",), "path"))) == 20


def test_each_answers_what_it_is_named_for() -> None:
    answered = [call for call in syscalls.table().values() if "answer" in (call.safe, call.all)]
    assert len(answered) > 100
    for call in answered:
        text = (SOURCES / f"answer_{call.handler}.c").read_text()
        assert re.search(rf"\bSYS_{call.name}\b", text), call


def test_the_names_of_calls_are_there_on_every_machine() -> None:
    """Debian 11's C library has those of Linux 5.4, the others are compat.h's; those that a
    processor never had are its header's."""
    native = SOURCES.parent
    sources = [path for path in native.glob("*/*.c") if not path.stem.startswith("arch_")]
    used = {name for path in sources for name in re.findall(r"\bSYS_(\w+)", path.read_text())}
    given = re.findall(r"#define SYS_(\w+) (\d+)", (native / "kernel" / "compat.h").read_text())
    for arch in ALL:
        numbers = {call.name: call.number for call in syscalls.table(arch).values()}
        own = (native / "kernel" / f"arch_{arch.name}.h").read_text()
        assert used - numbers.keys() <= set(re.findall(r"#define SYS_(\w+) NEVER", own)), arch
        newer = {name: number for name, number in numbers.items() if name in used and number > 435}
        assert newer.items() <= {name: int(number) for name, number in given}.items()

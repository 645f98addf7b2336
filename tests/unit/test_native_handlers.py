"""Who answers each system call: the names in syscalls.tbl, the functions in native/syscalls/."""

from __future__ import annotations

import errno
import re

import pytest
from harness import ROOT

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

"""An address space that is nearly full (sanitizers) has room for what sets the process up."""

from __future__ import annotations

import subprocess

import pytest
from harness import ROOT
from harness.calls import Caller
from harness.cores import kernel_core

from gdb_uffd.protocol.model import UffdError


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = tmp_path_factory.mktemp("full") / "full"
    source = ROOT / "tests" / "programs" / "full.c"
    subprocess.run(["cc", "-g", "-O1", "-o", made, source], check=True)
    return made


def test_one_hole_is_enough(program, tmp_path):
    caller = Caller(kernel_core([str(program), "256"], tmp_path))
    try:
        assert caller.call("bump", 3) == 44
        assert caller.call("bump", 3) == 44
    finally:
        caller.close()


def test_none_is_told(program, tmp_path):
    caller = Caller(kernel_core([str(program)], tmp_path))
    try:
        with pytest.raises(UffdError, match="address space is full"):
            caller.call("bump", 3)
    finally:
        caller.close()

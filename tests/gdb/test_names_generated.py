"""Generated structures, arrays, unions, bit fields: what is told is what was written."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from harness import gdbs
from harness.cores import NoKernelCore, kernel_core
from harness.generated import Program, programs
from harness.noted import changes
from hypothesis import HealthCheck, Phase, given, settings

EXAMPLES = int(os.environ.get("GDB_UFFD_EXAMPLES", "4"))
"""Programs that are made and called; each takes some seconds."""


def plain(text):
    """A value as it stands in a structure: `print` puts the type before a pointer."""
    return re.sub(r"^\((?:[^()]|\([^()]*\))*\) (?=0x)", "", text)


def check(gdb, program: Program) -> None:
    for number, (written, union) in enumerate(program.writes):
        path = written
        if "signed char" in gdb.run(f"whatis {written}"):
            path = re.sub(r"\[\d+\]$", "", written)  # an array of characters is told as one text
        before = plain(gdb.value(path))
        data = gdb.call(f"w{number}()")
        gdb.call(f"w{number}()", "-keep")
        after = plain(gdb.value(path))
        gdb.run("uffd reset")
        every = [c for page in data["dirty"] for c in page["changes"] if not c["role"]]
        own = [c for c in every if c["name"] == path]
        assert len(own) == 1, (path, every)
        assert (own[0]["before"], own[0]["after"]) == (before, after), path
        if not union:
            assert [c["name"] for c in every] == [path] and not own[0]["union"]
        else:
            assert len(changes(data)) >= 1


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs())
def test_one_write_is_told_as_it_was_made(gdb_path, tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("generated")
    source = folder / "generated.c"
    source.write_text(program.source)
    subprocess.run(["cc", "-g", "-O0", "-o", folder / "generated", source], check=True)
    try:
        core = kernel_core([str(folder / "generated")], folder / "core")
    except NoKernelCore as why:
        pytest.skip(str(why))
    session = gdbs.Gdb(gdb_path, folder / "home")
    try:
        session.run(f"uffd spawn {core}")
        check(session, program)
    finally:
        session.quit()

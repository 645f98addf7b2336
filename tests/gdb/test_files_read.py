"""What a call read is named where it may have gone: the result, exports, packs, reports."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from harness import ROOT, cores

pytestmark = pytest.mark.shared_gdb

PROGRAM = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
char buffer[100];
long slurp(const char *path)
{
	int fd = open(path, O_RDONLY);
	long n = read(fd, buffer, sizeof(buffer));
	close(fd);
	return n;
}
int main(void) { abort(); }
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slurp")
    (folder / "slurp.c").write_text(PROGRAM)
    subprocess.run(["cc", "-g", "-o", str(folder / "slurp"), str(folder / "slurp.c")], check=True)
    try:
        return cores.kernel_core([str(folder / "slurp")], folder)
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


@pytest.fixture
def slurp(opened, core):
    return opened(core)


@pytest.fixture
def private(tmp_path) -> Path:
    made = tmp_path / "private"
    made.write_text("VERY-PRIVATE")
    return made


def _shell(*arguments: object) -> str:
    command = [str(ROOT / ".venv/bin/gdb-uffd"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_kept_call_is_told_everywhere(slurp, private, tmp_path):
    said = slurp.run(f'uffd call -keep slurp("{private}")')
    assert f"read the file {private}" in said.replace("\n", "").replace("  ", " ")
    data = json.loads(slurp.run(f'uffd call -json -keep slurp("{private}")'))
    assert data["files_read"] == data["verdict"]["files_read"] == [str(private)]
    assert not data["verdict"]["pure"]
    held = f"; may hold bytes of what calls read: {private}"
    exported = tmp_path / "x.core"
    assert slurp.run(f"uffd export {exported}").rstrip().endswith(held)
    assert b"VERY-PRIVATE" in exported.read_bytes()
    assert held[2:] in slurp.run(f"generate-core-file {tmp_path}/gcore").replace("\n", "")
    assert slurp.run(f"uffd report {tmp_path}/r.html").rstrip().endswith(held)
    assert str(private) in (tmp_path / "r.html").read_text()
    # The core is sent on: packed, and exported once more.
    assert held in _shell("pack", exported, "-o", tmp_path / "x.zst")
    assert held in _shell("export", exported, "-o", tmp_path / "y.core")
    assert held in _shell("export", tmp_path / "x.zst", "-o", tmp_path / "z.core")
    assert held in _shell("import", exported, "-o", tmp_path / "i.uffd")
    slurp.run("uffd reset")
    assert "may hold" not in slurp.run(f"uffd export {tmp_path}/after.core")


def test_an_undone_call_is_told_by_its_report_alone(slurp, private, tmp_path):
    said = slurp.run(f'uffd call slurp("{private}")')
    assert f"read the file {private}" in said.replace("\n", "").replace("  ", " ")
    assert str(private) in slurp.run(f"uffd report {tmp_path}/r.html").splitlines()[-1]
    assert "may hold" not in slurp.run(f"uffd export {tmp_path}/x.core")
    assert b"VERY-PRIVATE" not in (tmp_path / "x.core").read_bytes()


def test_a_plain_print_tells_it(slurp, private):
    said = slurp.run(f'print slurp("{private}")')
    assert f"read the file {private}" in said.replace("\n", "")


def test_names_fold_and_stay_on_their_line(slurp, tmp_path):
    for n in range(16):
        (tmp_path / f"f{n}").write_text("x")
        slurp.run(f'print slurp("{tmp_path}/f{n}")')
    (tmp_path / "a\x1b[31m\nb").write_text("x")
    slurp.run(f'print slurp("{tmp_path}/a\\033[31m\\nb")')
    line = slurp.run(f"uffd export {tmp_path}/x.core").rstrip()
    assert "f3 and 13 more" in line
    whole = json.loads(slurp.run("uffd dirty -all -json"))["files_read"]
    assert len(whole) == 17 and whole[-1].endswith("a\x1b[31m\nb")
    shown = slurp.run(f'uffd call slurp("{tmp_path}/a\\033[31m\\nb")')
    assert "\x1b[31m" not in shown


def test_a_report_names_what_kept_calls_read_before(slurp, private, tmp_path):
    slurp.run(f'print slurp("{private}")')
    slurp.run('uffd call slurp("/etc/hostname")')
    said = slurp.run(f"uffd report {tmp_path}/r.html")
    assert "VERY-PRIVATE" in (tmp_path / "r.html").read_text()
    assert str(private) in said and "/etc/hostname" in said
    assert str(private) in (tmp_path / "r.html").read_text()


def test_a_name_with_a_line_end_is_no_other_name(slurp, tmp_path):
    (tmp_path / "a\nb").write_text("x")
    said = slurp.run(f'uffd call slurp("{tmp_path}/a\\nb")')
    assert f"{tmp_path}/a^Jb" in said

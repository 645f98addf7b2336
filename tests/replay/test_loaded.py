"""What a call loads: its pages belong to the file, however many there are."""

from __future__ import annotations

import subprocess

import pytest
from harness.calls import Caller
from harness.cores import NoKernelCore, kernel_core

from gdb_uffd.replay import layout

LIBRARY = """
static char big[1 << 20];
int touch(void) { for (unsigned long i = 0; i < sizeof big; i += 512) big[i] = 1; return 3; }
"""
PROGRAM = """
#include <dlfcn.h>
#include <stdlib.h>
int load(int unused) {
    int (*touch)(void) = dlsym(dlopen(PATH, RTLD_NOW), "touch");
    return touch() + 0 * unused;
}
int main(void) { abort(); }
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "x.c").write_text(LIBRARY)
    (folder / "p.c").write_text(PROGRAM)
    library = folder / "x.so"
    for line in (["-shared", "-fPIC", "x.c", "-o", "x.so"], [f'-DPATH="{library}"', "p.c"]):
        subprocess.run(["cc", "-g", *line], cwd=folder, check=True)
    try:
        return kernel_core([str(folder / "a.out")], folder / "run"), str(library)
    except NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


def test_a_loaded_file_is_opened_once_for_a_report(core, monkeypatch):
    opened = []
    real = layout.map_file
    monkeypatch.setattr(layout, "map_file", lambda path: opened.append(path) or real(path))
    caller = Caller(core[0])
    try:
        for _ in range(2):
            opened.clear()
            assert caller.call("load") == 3
            pages = [page for page in caller.reports[-1].pages if page.mapping == core[1]]
            assert len(pages) > 200 and {page.kind for page in pages} == {"data"}
            assert opened == [core[1]]
    finally:
        caller.close()

"""Libraries that a call loads or unloads, and that are as before once it is undone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import cores

PROGRAM = """
#include <dlfcn.h>
#include <stdlib.h>
static void *held, *more;
static int (*function)(int);
static const char *other;
int through(int x) { return function(x); }
int close_it(void) { return dlclose(held); }
int open_other(void) { return (more = dlopen(other, RTLD_NOW)) != NULL; }
int change(int x) { close_it(); open_other(); return x; }
int rest(int x) { return x; }
int main(int argc, char **argv)
{
	held = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	other = argv[2];
	function = held ? (int (*)(int))dlsym(held, "plug_in") : NULL;
	return rest(function ? function(argc) : 1) ? abort(), 0 : 1;
}
"""
PLUGIN = "static int %s = 2;\nint %s(int x)\n{\n\treturn x + %s;\n}\n"


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    plugins = []
    for function, variable in (("plug_in", "plugged"), ("plug_more", "more_plugged")):
        source, plugin = folder / f"{function}.c", folder / f"lib{function}.so"
        source.write_text(PLUGIN % (variable, function, variable))
        subprocess.run(["cc", "-g", "-shared", "-fPIC", "-o", plugin, source], check=True)
        plugins.append(str(plugin))
    (folder / "unloads.c").write_text(PROGRAM)
    program = folder / "unloads"
    subprocess.run(["cc", "-g", "-o", program, folder / "unloads.c", "-ldl"], check=True)
    try:
        return cores.kernel_core([str(program), *plugins], folder / "run")
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


@pytest.mark.parametrize("kind", [0, 1])
def test_a_breakpoint_that_gdb_does_not_know(gdb, core, kind):
    """gdb takes its hit for one that is late, and goes on there."""
    gdb.run(f"uffd spawn {core}")
    where = int(gdb.value("(long)&rest"), 0)
    assert "OK" in gdb.run(f"maintenance packet Z{kind},{where:x},1")
    assert gdb.value("rest(4)") == "4"
    assert gdb.call("rest(5)")["value"] == "5"
    gdb.run("break rest")
    assert "rest (x=6)" in gdb.run("print rest(6)")
    assert "= 6" in gdb.run("finish")

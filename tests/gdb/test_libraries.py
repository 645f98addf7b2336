"""Libraries that a call loads or unloads, and that are as before once it is undone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from harness import cores

pytestmark = pytest.mark.shared_gdb

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


def as_recorded(gdb) -> None:
    """Names and breakpoints of the library are there, and those of the other one are not."""
    assert gdb.value("plugged") == "2"
    libraries = gdb.run("info sharedlibrary")
    assert re.search(r"Yes .*libplug_in\.so", libraries) and "plug_more" not in libraries, libraries
    gdb.run("print through(3)")
    assert "plug_in (x=3)" in gdb.run("backtrace 1")
    assert "= 5" in gdb.run("finish")


@pytest.mark.parametrize("undone", ["call", "json", "reset"])
@pytest.mark.parametrize("point", ["break", "hbreak"])
def test_a_library_that_a_call_unloaded(opened, core, point, undone):
    gdb = opened(core)
    gdb.run(f"{point} plug_in")
    if undone == "reset":
        assert "= 0" in gdb.run("print close_it()")
        assert "No symbol" in gdb.run("print plugged")
        gdb.run("uffd reset")
    elif undone == "json":
        assert gdb.call("close_it()")["value"] == "0"
    else:
        assert "= 0" in gdb.run("uffd call close_it()")
    as_recorded(gdb)
    gdb.run("uffd reset")
    gdb.run("delete")
    assert gdb.value("through(3)") == "5"


def test_one_for_another(opened, core):
    """What the call loaded is gone, with breakpoints there; what it unloaded is back."""
    gdb = opened(core)
    gdb.run("break plug_in")
    gdb.run("uffd call change(1)")
    as_recorded(gdb)
    gdb.run("uffd reset")
    assert "= 1" in gdb.run("print change(1)")
    assert gdb.value("more_plugged") == "2"
    gdb.run("break plug_more")
    gdb.run("uffd reset")
    assert "No symbol" in gdb.run("print more_plugged")
    assert gdb.value("rest(4)") == "4"  # the breakpoint there is in nobody's way
    as_recorded(gdb)
    # Each time anew, also where nothing was kept between.
    for _ in range(2):
        gdb.run("uffd reset")
        gdb.run("uffd call open_other()")
        as_recorded(gdb)


def test_a_library_that_stays_unloaded(opened, core):
    """... takes its breakpoints along; deleted meanwhile they do not come back with it."""
    gdb = opened(core)
    gdb.run("break plug_in")
    assert "= 0" in gdb.run("print close_it()")
    gdb.run("delete")
    gdb.run("uffd reset")
    assert gdb.value("through(3)") == "5"


def test_symbols_are_not_read_where_the_user_reads_them_alone(gdb, core):
    gdb.run("set auto-solib-add off")
    gdb.run(f"uffd spawn {core}")
    gdb.run("sharedlibrary libplug_in")
    gdb.run("break plug_in")
    gdb.run("uffd call close_it()")
    assert re.search(r"No .*libplug_in\.so", gdb.run("info sharedlibrary"))
    assert gdb.value("through(3)") == "5"  # as gdb has it: it does not know the place any more


@pytest.mark.own_gdb
@pytest.mark.parametrize("kind", [0, 1])
def test_a_breakpoint_that_gdb_does_not_know(opened, core, kind):
    """gdb takes its hit for one that is late, and goes on there."""
    gdb = opened(core)
    where = int(gdb.value("(long)&rest"), 0)
    assert "OK" in gdb.run(f"maintenance packet Z{kind},{where:x},1")
    assert gdb.value("rest(4)") == "4"
    assert gdb.call("rest(5)")["value"] == "5"
    gdb.run("break rest")
    assert "rest (x=6)" in gdb.run("print rest(6)")
    assert "= 6" in gdb.run("finish")

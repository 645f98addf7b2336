"""Programs that nobody here wrote: Debian's debug build of Python, and lua5.4 built with -g."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness import cores
from harness.extras import extra

pytestmark = pytest.mark.shared_gdb


@pytest.fixture(scope="session")
def python_core(tmp_path_factory):
    """python3.X-dbg that aborted inside os.abort(): its thread holds the GIL."""
    home = extra("python-dbg") / "usr"
    (program,) = (home / "bin").glob("python3.*-dbg")
    folder = tmp_path_factory.mktemp("python")
    script = "import os, gc\nanswer = [1, 2, 3]\nos.abort()\n"
    env = {"PYTHONHOME": str(home), "PATH": os.environ["PATH"]}
    try:
        return cores.kernel_core([str(program), "-S", "-c", script], folder / "run", env)
    except cores.NoKernelCore as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def lua_core(tmp_path_factory):
    """lua5.4 that was killed while it waited for a child: its state is whole."""
    home = extra("lua")
    folder = tmp_path_factory.mktemp("lua")
    script = "answer = {20, 22}; name = 'lua'; os.execute('kill -SEGV $PPID; sleep 5')"
    try:
        return cores.kernel_core([str(home / "lua"), "-e", script], folder / "run")
    except cores.NoKernelCore as why:
        pytest.skip(str(why))


def test_python_runs_python_code(opened, python_core):
    gdb = opened(python_core)
    assert "SIGABRT" in gdb.spawned
    assert '"3.' in gdb.call("Py_GetVersion()")["value"]
    data = gdb.call('PyRun_SimpleString("print(sum(answer), gc.isenabled(), flush=True)")')
    assert data["value"] == "0" and data["output"] == "6 True\n", data["output"]
    assert len(data["dirty"]) > 3
    text = gdb.run('uffd call PyRun_SimpleString("answer.append(4); print(answer, flush=True)")')
    assert "[1, 2, 3, 4]" in text
    text = gdb.run('uffd call PyRun_SimpleString("print(answer, flush=True)")')
    assert "[1, 2, 3]" in text


def test_python_keeps_what_plain_calls_do(opened, python_core):
    gdb = opened(python_core)
    gdb.run('print PyRun_SimpleString("answer.append(4)")')
    assert "10\n" in gdb.run('print PyRun_SimpleString("print(sum(answer), flush=True)")')
    gdb.run("uffd reset")
    assert "6\n" in gdb.run('print PyRun_SimpleString("print(sum(answer), flush=True)")')


def test_python_collects_garbage(opened, python_core):
    gdb = opened(python_core)
    data = gdb.call("PyGC_Collect()")
    assert int(data["value"]) >= 0
    assert len(data["dirty"]) > 50
    assert gdb.call("PyGC_Collect()")["value"] == data["value"]


def test_python_exception_and_import(opened, python_core):
    gdb = opened(python_core)
    data = gdb.call('PyRun_SimpleString("1/0")')
    assert data["value"] == "-1" and "ZeroDivisionError" in data["output"]
    code = "import json; print(json.dumps(answer), flush=True)"
    # It dirties a thousand pages, all named: some megabytes of text on a busy machine.
    data = json.loads(gdb.run(f'uffd call -json PyRun_SimpleString("{code}")', timeout=90))
    assert data["output"] == "[1, 2, 3]\n"


def test_lua_runs_lua_code(opened, lua_core):
    gdb = opened(lua_core)
    assert "SIGSEGV" in gdb.spawned
    steps = [
        'luaL_loadstring(globalL, "answer[3] = 1; return answer[1] + answer[2] + #answer")',
        "lua_pcallk(globalL, 0, 1, 0, 0, 0)",
        "lua_tointegerx(globalL, -1, 0)",
    ]
    data = gdb.call("(" + ", ".join(steps) + ")")
    assert data["value"] == "45"
    assert any(p["kind"] == "heap" for p in data["dirty"])
    assert gdb.call("(" + ", ".join(steps) + ")")["value"] == "45"


def test_lua_prints(opened, lua_core):
    gdb = opened(lua_core)
    code = "print(name, string.rep('x', 3), #answer)"
    data = gdb.call(f'(luaL_loadstring(globalL, "{code}"), lua_pcallk(globalL, 0, 0, 0, 0, 0))')
    assert data["value"] == "0" and data["output"] == "lua\txxx\t2\n"


def test_lua_collects_garbage(opened, lua_core):
    gdb = opened(lua_core)
    data = gdb.call("lua_gc(globalL, 2)")
    assert data["value"] == "0" and data["dirty"]


@pytest.fixture(scope="session", params=["dynamic", "static"])
def musl_core(request, tmp_path_factory):
    """A program of Debian's musl, which keeps its library as /usr/lib/ARCH-linux-musl/libc.so."""
    home = extra("musl")
    (library,) = home.glob("lib/*-linux-musl")
    (made,) = home.glob("usr/lib/*-linux-musl")
    folder = tmp_path_factory.mktemp("musl")
    kind = ["-static"]
    if request.param == "dynamic":
        where = library / "libc.so"
        kind = [f"-Wl,-dynamic-linker,{where}", f"-L{library}", f"-Wl,-rpath,{library}"]
    begin = "crt1.o" if request.param == "static" else "Scrt1.o"
    own = subprocess.run(["gcc", "-print-file-name=include"], capture_output=True, text=True)
    headers = ["-nostdinc", "-isystem", str(*home.glob("usr/include/*-linux-musl"))]
    headers += ["-isystem", own.stdout.strip()]
    source = Path(__file__).resolve().parent.parent / "programs" / "musl.c"
    command = ["gcc", "-g", "-O0", *headers, "-nostdlib", str(made / begin), str(made / "crti.o")]
    command += [str(source), *kind, f"-L{made}", "-lc", "-lgcc", str(made / "crtn.o")]
    subprocess.run([*command, "-o", str(folder / "program")], check=True)
    try:
        return cores.kernel_core([str(folder / "program")], folder / "run")
    except cores.NoKernelCore as why:
        pytest.skip(str(why))


@pytest.mark.every_gdb
def test_musl(opened, musl_core):
    """raise() has no frame information: the backtrace ends in a frame at 0, where names are
    looked for, too.  gdb 18 has its own way to thread-locals, which knows glibc's alone."""
    gdb = opened(musl_core)
    assert "SIGABRT" in gdb.spawned
    text = gdb.run("uffd heap")
    known = "malloc is musl's, in" in text
    assert known or "main arena is not found" in text, text  # a static one does not say who it is
    data = gdb.call("push(7)")
    assert data["value"] == "6"
    changes = {c["name"]: (c["before"], c["after"]) for p in data["dirty"] for c in p["changes"]}
    assert changes["counter"] == ("5", "6") and "head" in changes
    if "not yet allocated" not in gdb.run("print own"):
        assert "= 11\n" in gdb.run("print own") and '"tee"' in gdb.run("print word")
        gdb.run("thread 2")
        assert "= 77\n" in gdb.run("print own")
    gdb.run("thread 2")
    assert gdb.call("push(8)")["value"] == "6"
    told = gdb.run("uffd call push(8)")
    assert "own 77 → 78" in told, told

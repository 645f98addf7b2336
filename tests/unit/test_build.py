"""What a machine needs to build: old headers, paths with spaces, one line where something lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

NATIVE = ROOT / "gdb_uffd" / "native"

NEWEST_OF_GLIBC_2_31 = 435
"""clone3: the last system call that Debian 11's <sys/syscall.h> names (glibc 2.31, NEWS)."""


def test_headers_of_debian_11(tmp_path: Path) -> None:
    """Every use of a younger name compiles without it."""
    asked = ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    numbers = {name: int(n) for name, n in re.findall(r"define __NR_(\w+) (\d+)$", said, re.M)}
    young = [name for name, number in numbers.items() if number > NEWEST_OF_GLIBC_2_31]
    assert "openat2" in young
    hide = tmp_path / "hide.h"
    hide.write_text(
        "#define _GNU_SOURCE\n#include <sys/syscall.h>\n#include <linux/close_range.h>\n"
        "#undef CLOSE_RANGE_CLOEXEC\n" + "".join(f"#undef SYS_{name}\n" for name in young)
    )
    uses = re.compile(rf"\bSYS_({'|'.join(young)})\b|\bCLOSE_RANGE_CLOEXEC\b")
    sources = [path for path in NATIVE.glob("*/*.c") if uses.search(path.read_text())]
    assert len(sources) > 3
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{NATIVE}"]
    command = ["cc", *options, "-include", str(hide), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


HEADERLESS = """import sysconfig
paths = sysconfig.get_paths
sysconfig.get_paths = lambda *a, **k: {**paths(*a, **k), "include": "/nowhere"}
"""
"""As sitecustomize.py: a Python without headers."""


def tools_in(folder: Path, *names: str) -> Path:
    """A checkout there with some tools, and what they call."""
    for name in (*names, "private-apt"):
        (folder / "tools").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tools" / name, folder / "tools" / name)
    (folder / "gdb_uffd" / "native").mkdir(parents=True)
    shutil.copy(NATIVE / "toolchain.py", folder / "gdb_uffd" / "native")
    return folder


def fake(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["a b", "it's $HOME"])
def test_unpacked_headers_below_any_path(tmp_path: Path, name: str) -> None:
    """setuptools takes CPPFLAGS apart as a shell does (distutils.util.split_quoted)."""
    checkout = tools_in(tmp_path / name, "with-python-headers")
    version = "{}.{}".format(*sys.version_info)
    include = checkout / f".cache/python-headers-{version}/usr/include/python{version}"
    include.mkdir(parents=True)
    (include / "Python.h").write_text("#define FINE 1\n")
    (checkout / "x.c").write_text("#include <Python.h>\nint x = FINE;\n")
    (tmp_path / "sitecustomize.py").write_text(HEADERLESS)
    build = (
        "import os, shlex, subprocess, sys; from setuptools._distutils.util import split_quoted;"
    )
    build += "words = [f(os.environ['CPPFLAGS']) for f in (shlex.split, split_quoted)];"
    build += "assert words[0] == words[1], words;"
    build += "sys.exit(subprocess.call(['cc', *words[0], '-fsyntax-only', sys.argv[1]]))"
    done = subprocess.run(
        [checkout / "tools/with-python-headers", sys.executable]
        + [sys.executable, "-c", build, str(checkout / "x.c")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_whatever_make_builds_has_the_headers() -> None:
    """Each command of the Makefile that compiles the package, `make test`'s too."""
    rules = (ROOT / "Makefile").read_text().splitlines()
    building = [rule for rule in rules if re.search(r"install .*-e |build_ext", rule)]
    assert len(building) == 3
    for rule in building:
        assert "tools/with-python-headers $(PY) " in rule, rule


def lacking(tmp_path: Path, **environ: str) -> str:
    """The line that toolchain.py says, which must end with status 1."""
    command = [sys.executable, str(NATIVE / "toolchain.py")]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), **environ}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout, done
    return done.stderr


def test_what_a_machine_lacks_is_one_line(tmp_path: Path) -> None:
    said = lacking(tmp_path, CC="/no/where/cc -pipe")
    assert "no C compiler (/no/where/cc)" in said and "apt-get install gcc libc6-dev" in said
    said = lacking(tmp_path, CC="cc -nostdinc")
    assert "stdio.h" in said and "apt-get install libc6-dev" in said
    (tmp_path / "sitecustomize.py").write_text(HEADERLESS)
    version = "{}.{}".format(*sys.version_info)
    said = lacking(tmp_path, CC="cc")
    assert "/nowhere/Python.h" in said and f"apt-get install python{version}-dev" in said


def test_a_build_that_cannot_be_says_nothing_else(tmp_path: Path) -> None:
    """Before what setuptools tells of 300 files that it copies."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "_native.c")
    shutil.copytree(ROOT / "gdb_uffd", tmp_path / "gdb_uffd", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "setup.py", "bdist_wheel"],
        cwd=tmp_path, env={**os.environ, "CC": "/no/where/cc"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 1 and said[-1].startswith("gdb_uffd: no C compiler (/no/where/cc)")
    assert len(said) < 10, said


def test_no_gdb_for_an_old_python_is_told(tmp_path: Path) -> None:
    checkout = tools_in(tmp_path / "a b", "make-gdb")
    old = fake(tmp_path / "python3.9", '[ "$1" = -V ] && echo Python 3.9.2; [ "$1" = -V ]')
    command = [checkout / "tools/make-gdb", old, ".venv-gdb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reason = (checkout / ".cache/gdb.skipped").read_text()
    assert (
        done.stdout == reason == "PyPI has no gdb 18.1 for Python 3.9.2, only for 3.10 and later\n"
    )
    assert not (checkout / ".venv-gdb").exists()


def test_the_browser_that_is_installed_is_taken(tmp_path: Path) -> None:
    """And one that goes again, or does not run, is not."""
    cache, programs = tmp_path / "a cache", tmp_path / "bin"
    for name in ("python-dbg", "lua", "musl"):
        (cache / name).mkdir(parents=True)
    for name in ("bash", "dirname", "mkdir", "rm", "ln", "env"):
        (programs / name).parent.mkdir(exist_ok=True)
        (programs / name).symlink_to(shutil.which(name) or "/nowhere")
    browser = fake(programs / "chromium", "exit 0")
    fake(programs / "chromium-headless-shell", "exit 1")  # as Ubuntu's without a snap

    def found() -> str:
        command = [str(programs / "bash"), str(ROOT / "tools" / "test-extras"), str(cache)]
        subprocess.run(command, env={"PATH": str(programs)}, check=True)
        run = cache / "chromium" / "run"
        return os.readlink(run) if run.is_symlink() else ""

    assert found() == str(browser)
    assert found() == str(browser)
    browser.unlink()
    assert found() == ""
    assert "no apt" in (cache / "chromium.skipped").read_text()

"""What building the native module needs of a machine: a compiler, and headers.

Run by its path (it needs nothing of this package), it ends with status 1 and one line where
something lacks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig


def _compiled(command: list[str], *headers: str) -> str:
    """ "" when a file that includes them compiles, else the compiler's first error."""
    done = subprocess.run(
        [*command, "-fsyntax-only", "-x", "c", "-"],
        input="".join(f"#include <{header}>\n" for header in headers),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.split("\n")
    return said[0].strip()


def lacking() -> str:
    """What to install before the native module can be built, in one line; "" when nothing lacks.

    The compiler and its options are those that setuptools takes: CC, or Python's own, and CPPFLAGS.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, *shlex.split(os.environ.get("CPPFLAGS", ""))]
    try:
        said = _compiled(command, "stdio.h", "linux/userfaultfd.h")
    except OSError:
        return (
            f"no C compiler ({compiler[0]}): install one "
            "(Debian, Ubuntu: apt-get install gcc libc6-dev), or set CC"
        )
    if said:
        return (
            f"{compiler[0]} compiles nothing here ({said}): install the C library's headers "
            "(Debian, Ubuntu: apt-get install libc6-dev)"
        )
    include = sysconfig.get_paths()["include"]
    if _compiled([*command, f"-I{include}"], "Python.h"):
        package = "python{}.{}-dev".format(*sys.version_info)
        return (
            f"no {include}/Python.h: install Python's headers "
            f"(Debian, Ubuntu: apt-get install {package}), or take another Python"
        )
    return ""


if __name__ == "__main__":
    what = lacking()
    if what:
        sys.exit(f"gdb_uffd: {what}")

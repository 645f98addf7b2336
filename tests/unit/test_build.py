"""What a machine needs to build: old headers, paths with spaces, one line where something lacks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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
    ours = [path for path in NATIVE.glob("*.c") if path.name != "_native.c"]
    sources = [path for path in ours if uses.search(path.read_text())]
    assert len(sources) > 3
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{NATIVE}"]
    command = ["cc", *options, "-include", str(hide), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Builds gdb_uffd.native._native: cffi in API mode, the cdef in api.h, all the */*.c here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = sorted(str(path.relative_to(HERE)) for path in HERE.glob("*/*.c"))
"""Those of other architectures come out empty."""


def cdef_text() -> str:
    """api.h without its comments: cffi's parser knows no C comments before a directive."""
    text = re.sub(r"/\*.*?\*/", "", (HERE / "api.h").read_text(), flags=re.S)
    return text


ffibuilder = FFI()
ffibuilder.cdef(cdef_text())
ffibuilder.set_source(
    "gdb_uffd.native._native",
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include "effects/changes.h"
    #include "effects/gdb.h"
    #include "effects/heap.h"
    #include "effects/heap_refs.h"
    #include "effects/heap_walk.h"
    #include "effects/heap_list.h"
    #include "effects/transaction.h"
    #include "effects/trial.h"
    #include "effects/undo.h"
    #include "effects/view.h"
    #include "kernel/cpu.h"
    #include "kernel/pagemap_quirks.h"
    #include "pager/breakpoints.h"
    #include "pager/feed.h"
    #include "pager/memory.h"
    #include "process/account.h"
    #include "process/notify.h"
    #include "process/run.h"
    #include "process/task.h"
    #include "process/timers.h"
    #include "process/user.h"
    #include "process/vessel.h"
    #include "process/wait.h"
    #include "recording/record.h"
    #include "syscalls/policy.h"
    """,
    # Relative to setup.py's directory, as setuptools wants them.
    sources=[os.path.join("gdb_uffd", "native", name) for name in SOURCES],
    include_dirs=[os.path.join("gdb_uffd", "native")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread"],
    # glibc before 2.34 has timer_create(2) in a library of its own; in others that is empty.
    extra_link_args=["-pthread", "-lrt"],
)

if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    ffibuilder.compile(verbose=True)

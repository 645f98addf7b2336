"""What differs from processor to processor, as data: registers, conventions, instructions.

The Python side asks here, the C side in native/kernel/arch.h; nothing else names a register or a
number of a system call.  A processor is one file (or folder), which gives an Architecture:
interface.py says what that is and has what register packets share, description.py what target
descriptions do.  Imports nothing of the rest of the program: gdb's side, the server and the
recorder share it.
"""

from __future__ import annotations

import os
from typing import Optional

from gdb_uffd.arch.aarch64 import AARCH64
from gdb_uffd.arch.i386 import I386, X32
from gdb_uffd.arch.interface import Architecture, Registers
from gdb_uffd.arch.x86_64 import X86_64

ALL = (X86_64, AARCH64)
LOOKED_AT = (I386, X32)
"""Of 32-bit programs: of their cores all is shown, and nothing runs."""
RECORDED = next(arch for arch in ALL if arch.records)
"""What traces are of."""
GPR = RECORDED.gpr
"""Name -> index of its general registers."""
KNOWN = " or ".join(arch.spoken for arch in ALL)

__all__ = [
    "AARCH64", "ALL", "GPR", "I386", "KNOWN", "LOOKED_AT", "RECORDED", "X32", "X86_64",
    "Architecture", "Registers", "host", "of_gdb", "of_machine",
]  # fmt: skip


def of_machine(machine: int, word: int = 8) -> Optional[Architecture]:
    """The one that an ELF header's e_machine and class (4: ELFCLASS32) mean; None when it is not
    among them."""
    known = (*ALL, *LOOKED_AT)
    return next((a for a in known if (a.machine, a.word) == (machine, word)), None)


def of_gdb(name: str) -> Optional[Architecture]:
    """The one that gdb's Architecture.name() means; None when it is not among them."""
    return next((a for a in (*ALL, *LOOKED_AT) if a.gdb == name), None)


def host() -> Optional[Architecture]:
    """This machine's own, by uname(2)."""
    machine = os.uname().machine
    return next((a for a in ALL if a.name == machine), None)

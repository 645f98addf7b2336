"""Make a recorded vdso usable where its vvar pages are not.

The vdso's clock functions read pages ([vvar]) that no core holds.  Rewritten
into plain system calls they need nothing, and whoever answers system calls answers them.
"""

from __future__ import annotations

from typing import Dict

from gdb_uffd.model import UffdError
from gdb_uffd.trace.elf import ElfError, Image

SYSCALLS: Dict[str, int] = {
    "clock_gettime": 228,
    "gettimeofday": 96,
    "time": 201,
    "getcpu": 309,
    "clock_getres": 229,
    "getrandom": 318,
}
"""vdso function -> x86-64 system call with the same leading arguments and result (vdso(7),
arch/x86/entry/syscalls/syscall_64.tbl).  Others (sgx_enter_enclave) are left alone."""

MAX_VDSO = 1 << 20  # bytes; the kernel's has two to four pages


def _stub(number: int) -> bytes:
    """mov eax, number; syscall; ret.  Clobbers rcx and r11, which a C call may."""
    return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05\xc3"


def patch_vdso(image: bytes) -> bytes:
    """`image` (the whole [vdso] mapping) with its clock functions made system calls.

    Same length as `image`.  UffdError when it is not the ELF object a vdso is.
    """
    if len(image) > MAX_VDSO:
        raise UffdError(f"[vdso]: {len(image)} bytes, more than any kernel's; left unpatched")

    def read(address: int, length: int) -> bytes:
        if address < 0 or length < 0 or address + length > len(image):
            raise ElfError(f"{address:#x} lies outside the vdso")
        return image[address : address + length]

    out = bytearray(image)
    try:
        elf = Image.from_memory(0, read)
        for name, number in SYSCALLS.items():
            for exported in (name, "__vdso_" + name):
                symbol = elf.dynamic_symbol(exported.encode())
                if symbol is None:
                    continue
                at = symbol[0] + elf.bias
                code = _stub(number)
                if at >= 0 and at + len(code) <= len(out):
                    out[at : at + len(code)] = code
    except ElfError as error:
        raise UffdError(f"[vdso]: {error}; its clock functions are left as recorded") from error
    return bytes(out)

"""Make a recorded vdso usable where its vvar pages are not.

The vdso's clock functions read pages ([vvar]) that no core holds.  Rewritten
into plain system calls they need nothing, and whoever answers system calls answers them.
"""

from __future__ import annotations

from gdb_uffd.arch import RECORDED, Architecture
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.trace.core.elf import ElfError, ElfImage

MAX_VDSO = 1 << 20  # bytes; the kernel's has two to four pages


def patch_vdso(image: bytes, arch: Architecture = RECORDED) -> bytes:
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
        elf = ElfImage.from_memory(0, read)
        for name, number in arch.vdso.items():
            for exported in (prefix + name for prefix in arch.vdso_prefixes):
                symbol = elf.dynamic_symbol(exported.encode())
                if symbol is None:
                    continue
                at = symbol[0] + elf.bias
                code = arch.vdso_stub(number)
                if at >= 0 and at + len(code) <= len(out):
                    out[at : at + len(code)] = code
    except ElfError as error:
        raise UffdError(f"[vdso]: {error}; its clock functions are left as recorded") from error
    return bytes(out)

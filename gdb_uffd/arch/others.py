"""The names of processors that are refused, for the line that refuses them."""

from __future__ import annotations

_I386, _X86_64 = 3, 62

# e_machine → name (System V ABI, gABI "ELF Header", e_machine).
_NAMES = {
    2: "SPARC",
    _I386: "i386",
    4: "m68k",
    8: "MIPS",
    15: "PA-RISC",
    18: "SPARC",
    20: "PowerPC",
    21: "PowerPC 64",
    22: "S/390",
    40: "ARM",
    42: "SuperH",
    43: "SPARC V9",
    50: "Itanium",
    _X86_64: "x86-64",
    94: "Xtensa",
    183: "AArch64",
    243: "RISC-V",
    247: "BPF",
    252: "C-SKY",
    258: "LoongArch",
    0x9026: "Alpha",
}


def spoken(machine: int, wide: bool, little: bool) -> str:
    """A processor as a sentence names it: `i386`, `x32`, `MIPS (32-bit, big-endian)`."""
    if not wide and little and machine in (_I386, _X86_64):
        return "i386" if machine == _I386 else "x32 (x86-64 with 32-bit pointers)"
    name = _NAMES.get(machine, f"an unknown processor, e_machine {machine}")
    return f"{name} ({64 if wide else 32}-bit, {'little' if little else 'big'}-endian)"

"""Extended registers of AArch64: notes to and from the one form in `Registers.xstate`.

SIZE bytes: struct user_fpsimd_state (v0-v31, fpsr, fpcr, 8 reserved), then pointer
authentication's masks (struct user_pac_mask) and keys (user_pac_address_keys and
user_pac_generic_keys), all as <asm/ptrace.h> has them.  `xfeatures` tells which of them were
recorded.  The scalable vectors (SVE, SME) are left out: their low 128 bits are v0-v31, which a core
has beside them.
"""

from __future__ import annotations

from typing import Dict, Mapping, Tuple

NT_PRFPREG = 2
NT_ARM_TLS, NT_ARM_SVE, NT_ARM_PAC_MASK = 0x401, 0x405, 0x406
NT_ARM_PACA_KEYS, NT_ARM_PACG_KEYS = 0x407, 0x408
NT_ARM_SSVE, NT_ARM_ZA, NT_ARM_ZT = 0x40B, 0x40C, 0x40D
"""<linux/elf.h>"""

FPSIMD, PAC, ADDRESS_KEYS, GENERIC_KEY, SVE, SME = (1 << n for n in range(6))
"""Bits of `xfeatures`.  SVE and SME: the process may have used them; nothing of them is kept."""

PARTS: Dict[int, Tuple[int, int, int]] = {
    FPSIMD: (NT_PRFPREG, 0, 528),
    PAC: (NT_ARM_PAC_MASK, 528, 16),
    ADDRESS_KEYS: (NT_ARM_PACA_KEYS, 544, 64),
    GENERIC_KEY: (NT_ARM_PACG_KEYS, 608, 16),
}
"""Bit -> (note, offset, bytes)."""

SIZE = 624
NOTES = frozenset(
    (NT_ARM_TLS, NT_ARM_SVE, NT_ARM_SSVE, NT_ARM_ZA, *(note for note, _, _ in PARTS.values()))
)
LOADED = (FPSIMD, ADDRESS_KEYS, GENERIC_KEY)
"""What a thread that runs needs; the masks are the machine's own."""

_SVE_ACTIVE = 1  # flags & SVE_PT_REGS_SVE (<asm/ptrace.h>)
_HEADER = 16  # struct user_sve_header: size, max_size (u32), vl, max_vl, flags (u16)


def from_notes(notes: Mapping[int, bytes]) -> Tuple[bytes, int]:
    """(xstate, xfeatures) of a thread's notes by type; those of another size are left out."""
    image, features = bytearray(SIZE), 0
    for bit, (note, offset, size) in PARTS.items():
        found = notes.get(note, b"")
        if len(found) >= size:
            image[offset : offset + size] = found[:size]
            features |= bit
    if _is_active(notes.get(NT_ARM_SVE, b"")):
        features |= SVE
    if _is_active(notes.get(NT_ARM_SSVE, b"")) or len(notes.get(NT_ARM_ZA, b"")) > _HEADER:
        features |= SME
    return bytes(image), features


def _is_active(note: bytes) -> bool:
    """Whether a vector note holds registers, not only the header."""
    return len(note) > _HEADER and bool(int.from_bytes(note[12:14], "little") & _SVE_ACTIVE)


def part(xstate: bytes, bit: int) -> bytes:
    """The piece of `xstate` that belongs to `bit`, as its note has it."""
    _, offset, size = PARTS[bit]
    return xstate[offset : offset + size]

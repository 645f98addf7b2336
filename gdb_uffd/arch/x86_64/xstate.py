"""Extended registers: any CPU's XSAVE image to and from the canonical one of `Registers.xstate`.

The XSAVE standard format puts each component at an offset that the CPU reports (CPUID leaf
0DH); Intel's and AMD's differ.  Sources: Intel SDM vol. 1 chapter 13; Linux
Documentation/arch/x86/xstate.rst and arch/x86/kernel/fpu/regset.c; gdb's i387-tdep.c.
"""

from __future__ import annotations

import struct
from typing import Dict, Optional, Tuple

from gdb_uffd.arch.interface import Cpu, Registers

XsaveFormat = Dict[int, Tuple[int, int]]
"""XCR0 bit -> (offset, size in bytes) in a machine's XSAVE image."""

X87, SSE, AVX, OPMASK, ZMM_HI256, HI16_ZMM, PKRU = (1 << n for n in (0, 1, 2, 5, 6, 7, 9))
"""XCR0 bits (Intel SDM vol. 1, 13.1)."""

AVX512 = OPMASK | ZMM_HI256 | HI16_ZMM

XSTATE_COMPONENTS: Dict[int, Tuple[int, int]] = {
    2: (576, 256),  # AVX: YMM_Hi128
    5: (1088, 64),  # AVX-512: opmask k0-k7
    6: (1152, 512),  # AVX-512: ZMM_Hi256 of zmm0-15
    7: (1664, 1024),  # AVX-512: Hi16_ZMM, zmm16-31
    9: (2688, 8),  # PKRU
}
"""XCR0 bit -> (offset, size) in `Registers.xstate`; the offsets that Intel's CPUs report
in CPUID leaf 0DH (Intel SDM vol. 1, 13.5.6).  Components 0 (x87) and 1 (SSE) are the
512-byte FXSAVE image at offset 0; the XSAVE header follows at 512."""

XSTATE_SIZE = 2696

FXSAVE_SIZE = 512
HEADER = 512  # offset of XSTATE_BV
EXTENDED = 576  # offset of the first component beyond SSE
SW_XCR0 = 464  # sw_reserved: the kernel and gdb leave XCR0 there (<asm/user.h>, user_xsave_hdr)
MXCSR, MXCSR_MASK = 24, 28  # offsets in the FXSAVE image
FCW_INIT, MXCSR_INIT = 0x37F, 0x1F80  # after FNINIT; Intel SDM vol. 1, 8.1.5 and 10.2.3
MXCSR_DEFAULT_MASK = 0xFFBF  # when the image has 0 there; Intel SDM vol. 1, 11.6.6
CANONICAL = X87 | SSE | sum(1 << bit for bit in XSTATE_COMPONENTS)

_SIZES = {bit: size for bit, (_, size) in XSTATE_COMPONENTS.items()}
_AMD: XsaveFormat = {2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8)}
_AMD_SIZES = (2432, 2440)  # without and with PKRU; Zen 3 has PKRU there without AVX-512

_COMPONENT = struct.Struct("<IIII")  # struct x86_xfeat_component (<asm/elf.h>, note 0x205)


def machine_format(cpu: Cpu) -> XsaveFormat:
    """Of this CPU's images: those components that a snapshot can hold."""
    enabled, form = cpu.xcr0(), {}
    for bit in XSTATE_COMPONENTS:
        found = cpu.xsave_component(bit) if enabled >> bit & 1 else None
        if found is not None:
            form[bit] = found
    return form


def parse_format(description: bytes) -> XsaveFormat:
    """NT_X86_XSAVE_LAYOUT (0x205): an array of struct x86_xfeat_component {type, size,
    offset, flags} of 32-bit fields (Linux, arch/x86/include/uapi/asm/elf.h).

    Components that the canonical form does not hold, or of another size, are left out.
    """
    form: XsaveFormat = {}
    whole = len(description) // _COMPONENT.size * _COMPONENT.size
    for bit, size, offset, _flags in _COMPONENT.iter_unpack(description[:whole]):
        if _SIZES.get(bit) == size and offset >= EXTENDED:
            form[bit] = (offset, size)
    return form


def guess_format(xcr0: int, length: int) -> XsaveFormat:
    """The format of an XSAVE image of `length` bytes that came without note 0x205.

    The size tells Intel's from AMD's, as in gdb's i387_guess_xsave_layout.  Components that
    `xcr0` lacks or that do not fit are left out.

    gdb before 14 knows Intel's offsets only: its gcore on an AMD CPU reads AVX-512 and PKRU from
    the wrong places and writes what looks like Intel's.  That cannot be told from the note.
    """
    amd = length in _AMD_SIZES or (xcr0 & AVX512 != 0 and length < XSTATE_COMPONENTS[9][0])
    form = _AMD if amd else XSTATE_COMPONENTS
    return {b: (o, s) for b, (o, s) in form.items() if xcr0 >> b & 1 and o + s <= length}


def _empty_fxsave() -> bytearray:
    image = bytearray(XSTATE_SIZE)
    struct.pack_into("<H", image, 0, FCW_INIT)
    struct.pack_into("<I", image, MXCSR, MXCSR_INIT)
    return image


INITIAL = bytes(_empty_fxsave())
"""Of a thread of which nothing was recorded."""


def from_machine(buf: bytes, form: XsaveFormat, xfeatures: int) -> bytes:
    """The canonical image (XSTATE_SIZE bytes) of a machine's XSAVE image `buf`.

    `xfeatures` are the XCR0 bits that `buf` holds.  A component whose XSTATE_BV bit is clear
    is in its initial state whatever its bytes are (Intel SDM vol. 1, 13.8): it comes out
    as such.  ValueError when `buf` has no XSAVE header.
    """
    if len(buf) < EXTENDED:
        raise ValueError(f"an XSAVE image of {len(buf)} bytes, fewer than {EXTENDED}")
    present = int.from_bytes(buf[HEADER : HEADER + 8], "little") & xfeatures & CANONICAL
    out = _empty_fxsave()
    out[MXCSR_MASK : MXCSR_MASK + 4] = buf[MXCSR_MASK : MXCSR_MASK + 4]
    if present & X87:
        out[0:24] = buf[0:24]
        out[32:160] = buf[32:160]
    if present & SSE:
        out[160:416] = buf[160:416]
    if present & (SSE | AVX):  # MXCSR goes with either (Intel SDM vol. 1, 13.7 on XRSTOR)
        out[MXCSR : MXCSR + 4] = buf[MXCSR : MXCSR + 4]
    for bit, (offset, size) in XSTATE_COMPONENTS.items():
        if not present >> bit & 1:
            continue
        at, length = form.get(bit, (0, 0))
        if length != size or at < EXTENDED or at + size > len(buf):
            present &= ~(1 << bit)
            continue
        out[offset : offset + size] = buf[at : at + size]
    out[HEADER : HEADER + 8] = present.to_bytes(8, "little")
    return bytes(out)


def with_components(image: bytes, other: bytes, xfeatures: int) -> bytes:
    """The canonical `image` with the components that `xfeatures` names from the canonical `other`.

    Only those beyond SSE; a component that is initial in `other` is so in the result.
    """
    taken = xfeatures & CANONICAL & ~(X87 | SSE)
    if not taken:
        return image
    out = bytearray(image)
    for bit, (offset, size) in XSTATE_COMPONENTS.items():
        if taken >> bit & 1:
            out[offset : offset + size] = other[offset : offset + size]
    ours = int.from_bytes(image[HEADER : HEADER + 8], "little")
    theirs = int.from_bytes(other[HEADER : HEADER + 8], "little")
    out[HEADER : HEADER + 8] = (ours & ~taken | theirs & taken).to_bytes(8, "little")
    return bytes(out)


def from_note(note: bytes, form: Optional[XsaveFormat]) -> Tuple[bytes, int]:
    """(canonical image, xfeatures) of an NT_X86_XSTATE description.

    `form` is that of note 0x205 when the core has it, else the size decides.
    ValueError when the note is too short to be an XSAVE image.
    """
    if len(note) < EXTENDED:
        raise ValueError(f"NT_X86_XSTATE of {len(note)} bytes, fewer than {EXTENDED}")
    xcr0 = int.from_bytes(note[SW_XCR0 : SW_XCR0 + 8], "little") | X87 | SSE
    known = form if form is not None else guess_format(xcr0, len(note))
    usable = X87 | SSE
    for bit, (offset, size) in known.items():
        if xcr0 >> bit & 1 and _SIZES.get(bit) == size and offset + size <= len(note):
            usable |= 1 << bit
    return from_machine(note, known, usable), usable


def from_fpregs(fxsave: bytes) -> Tuple[bytes, int]:
    """(canonical image, xfeatures) of an NT_FPREGSET description: x87 and SSE only.

    ValueError unless it is a 512-byte FXSAVE image (struct user_fpregs_struct).
    """
    if len(fxsave) != FXSAVE_SIZE:
        raise ValueError(f"NT_FPREGSET of {len(fxsave)} bytes, not {FXSAVE_SIZE}")
    header = (X87 | SSE).to_bytes(8, "little") + bytes(56)
    return from_machine(fxsave + header, {}, X87 | SSE), X87 | SSE


def to_machine(canonical: Registers, form: XsaveFormat, machine_xsave: bytes) -> bytes:
    """`machine_xsave` (this machine's own PTRACE_GETREGSET buffer) with the recorded
    components laid over it, of the same length, fit for PTRACE_SETREGSET.

    Recorded components that `form` lacks are dropped; those the recording lacks keep what
    the machine had.  MXCSR is cut to the machine's MXCSR_MASK, since the kernel
    refuses reserved bits with EINVAL.  ValueError when a buffer has no XSAVE header.
    """
    if len(machine_xsave) < EXTENDED or len(canonical.xstate) != XSTATE_SIZE:
        raise ValueError("not XSAVE images")
    out = bytearray(machine_xsave)
    recorded = canonical.xstate
    present = int.from_bytes(recorded[HEADER : HEADER + 8], "little")
    state = int.from_bytes(out[HEADER : HEADER + 8], "little")
    taken = canonical.xfeatures & (X87 | SSE)
    if taken & X87:
        out[0:24] = recorded[0:24]
        out[32:160] = recorded[32:160]
    if taken & SSE:
        out[160:416] = recorded[160:416]
        mask = int.from_bytes(out[MXCSR_MASK : MXCSR_MASK + 4], "little") or MXCSR_DEFAULT_MASK
        mxcsr = int.from_bytes(recorded[MXCSR : MXCSR + 4], "little") & mask
        out[MXCSR : MXCSR + 4] = mxcsr.to_bytes(4, "little")
        # MXCSR differing from its initial value takes the SSE bit, or the kernel resets it.
        if mxcsr != MXCSR_INIT:
            present |= SSE
    for bit, (offset, size) in XSTATE_COMPONENTS.items():
        at, length = form.get(bit, (0, 0))
        if not canonical.xfeatures >> bit & 1 or length != size or at < EXTENDED:
            continue
        if at + size > len(out):
            continue
        out[at : at + size] = recorded[offset : offset + size]
        taken |= 1 << bit
    state = state & ~taken | present & taken
    out[HEADER : HEADER + 8] = state.to_bytes(8, "little")
    return bytes(out)

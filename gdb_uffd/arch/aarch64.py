"""AArch64 under Linux.  Sources: AAPCS64; Arm ARM (DDI 0487); Linux arch/arm64; glibc
sysdeps/aarch64; gdb manual, appendix "Target Descriptions" ("AArch64 Features"), and
gdb/features/aarch64-*.xml.

`Registers.xstate` has SIZE bytes: struct user_fpsimd_state (v0-v31, fpsr, fpcr, 8 reserved), then
pointer authentication's masks (struct user_pac_mask) and keys (user_pac_address_keys and
user_pac_generic_keys), all as <asm/ptrace.h> has them.  `xfeatures` tells which of them were
recorded.  The scalable vectors (SVE, SME) are left out: their low 128 bits are v0-v31, which a core
has beside them."""

from __future__ import annotations

import binascii
import functools
import struct
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple

from gdb_uffd.arch.description import Feature, Register, document, flags
from gdb_uffd.arch.interface import (
    Architecture,
    Cpu,
    JumpBuffer,
    Need,
    RegisterFormat,
    Registers,
    Regsets,
    VariantI,
)

NAMES = (*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr", "tpidr")
"""struct user_pt_regs (<asm/ptrace.h>), its `pstate` under gdb's name; then TPIDR_EL0, which a core
has in a note of its own (NT_ARM_TLS)."""

_AT = {name: index for index, name in enumerate(NAMES)}
SVC = 0xD4000001  # svc #0
RET = 0xD65F03C0


def _vdso_stub(number: int) -> bytes:
    """movz x8, #number; svc #0; ret.  The kernel keeps every register but x0."""
    code = (0xD2800008 | number << 5, SVC, RET)
    return b"".join(word.to_bytes(4, "little") for word in code)


# -- extended registers: notes and register sets ----------------------------------------------

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


def _is_active(note: bytes) -> bool:
    """Whether a vector note holds registers, not only the header."""
    return len(note) > _HEADER and bool(int.from_bytes(note[12:14], "little") & _SVE_ACTIVE)


def part(xstate: bytes, bit: int) -> bytes:
    """The piece of `xstate` that belongs to `bit`, as its note has it."""
    _, offset, size = PARTS[bit]
    return xstate[offset : offset + size]


class FpsimdVectors:
    """See interface.Vectors."""

    size = SIZE
    note = NT_PRFPREG
    thread_notes = NOTES
    shared_notes: FrozenSet[int] = frozenset()

    def read(self, notes: Mapping[int, bytes], _shared: Mapping[int, bytes]) -> Tuple[bytes, int]:
        """Notes of another size are left out."""
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

    def write(self, registers: Registers) -> List[Tuple[int, bytes]]:
        """What was recorded, as it was."""
        parts = PARTS.items()
        return [(k, part(registers.xstate, b)) for b, (k, _, _) in parts if registers.xfeatures & b]

    def shared(self, _xfeatures: int) -> List[Tuple[int, bytes]]:
        """Nothing."""
        return []

    def lost(self, xfeatures: int) -> str:
        """Scalable vectors cannot be loaded into another processor's, which has others."""
        names = [n for bit, n in ((SVE, "SVE"), (SME, "SME")) if xfeatures & bit]
        if not names:
            return ""
        return (
            f"threads had {' and '.join(names)} registers in use; of these only v0-v31, their low "
            "128 bits, are shown and loaded"
        )

    def offered(self, _cpu: Cpu) -> Tuple[bool, str]:
        """Always the same."""
        return True, "v0-v31 (SVE and SME are not kept)"

    def loader(self, _cpu: Cpu) -> "_Loader":
        """Of v0-v31, and the keys of pointer authentication where the kernel hands them out."""
        return _Loader()


class _Loader:
    """See interface.Loader."""

    def __init__(self) -> None:
        self._loaded: Optional[bytes] = None

    def start(self, vessel: Regsets) -> None:
        """See interface.Loader."""
        self._loaded = None

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """A key that this machine does not have cannot be set, nor can it matter: its
        instructions do nothing then."""
        if registers.xstate == self._loaded:
            return
        for bit in LOADED:
            if not registers.xfeatures & bit:
                continue
            vessel.set_regset(PARTS[bit][0], part(registers.xstate, bit), bit == FPSIMD)
        self._loaded = registers.xstate

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """See interface.Loader."""
        note, offset, length = PARTS[FPSIMD]
        now = vessel.regset(note)[:length]
        found = bytearray(fallback.ljust(SIZE, b"\0"))
        found[offset : offset + len(now)] = now
        self._loaded = bytes(found)
        return self._loaded

    def ran(self) -> None:
        """See interface.Loader."""
        self._loaded = None


# -- the target description -------------------------------------------------------------------

_CPSR_FLAGS = flags(
    "cpsr_flags",
    [
        ("SP", 0), ("nRW", 4), ("F", 6), ("I", 7), ("A", 8), ("D", 9), ("SSBS", 12),
        ("IL", 20), ("SS", 21), ("PAN", 22), ("UAO", 23), ("DIT", 24), ("TCO", 25), ("V", 28),
        ("C", 29), ("Z", 30), ("N", 31),
    ],
)  # fmt: skip


def _vector_types() -> str:
    """The unions that aarch64-fpu.xml makes of one 128-bit register."""
    elements = (
        ("vnd", 64, ("ieee_double", "uint64", "int64")),
        ("vns", 32, ("ieee_single", "uint32", "int32")),
        ("vnh", 16, ("bfloat16", "ieee_half", "uint16", "int16")),
        ("vnb", 8, ("uint8", "int8")),
        ("vnq", 128, ("uint128", "int128")),
    )
    fields = {"ieee": "f", "bflo": "bf", "uint": "u", "int": "s"}
    vectors = unions = ""
    for union, bits, kinds in elements:
        count = 128 // bits
        unions += f'<union id="{union}">'
        for kind in kinds:
            field = fields[kind[:4].rstrip("0123456789")]
            name = f"v{count}{field}{bits}"
            vectors += f'<vector id="{name}" type="{kind}" count="{count}"/>'
            unions += f'<field name="{field}" type="{name}"/>'
        unions += "</union>"
    whole = "".join(f'<field name="{union[-1]}" type="{union}"/>' for union, _, _ in elements)
    return f'{vectors}{unions}<union id="aarch64v">{whole}</union>'


def _core() -> Iterator[Register]:
    for n in range(31):
        yield Register(f"x{n}", 64, "int")
    yield Register("sp", 64, "data_ptr")
    yield Register("pc", 64, "code_ptr")
    yield Register("cpsr", 32, "cpsr_flags")


def _vectors() -> Iterator[Register]:
    for n in range(32):
        yield Register(f"v{n}", 128, "aarch64v")
    yield Register("fpsr", 32, "int", "float")
    yield Register("fpcr", 32, "int", "float")


def described(xfeatures: int) -> int:
    """The bits of `xfeatures` on which the description depends."""
    return xfeatures & PAC


@functools.lru_cache(maxsize=4)
def features(xfeatures: int) -> Tuple[Feature, ...]:
    """In the order of register numbers; with the masks of pointer authentication, gdb strips
    signatures off return addresses."""
    out: List[Feature] = [
        Feature("org.gnu.gdb.aarch64.core", _CPSR_FLAGS, tuple(_core())),
        Feature("org.gnu.gdb.aarch64.fpu", _vector_types(), tuple(_vectors())),
        Feature("org.gnu.gdb.aarch64.tls", "", (Register("tpidr", 64, "data_ptr", "system"),)),
    ]
    if xfeatures & PAC:
        masks = (Register("pauth_dmask", 64, "int"), Register("pauth_cmask", 64, "int"))
        out.append(Feature("org.gnu.gdb.aarch64.pauth", "", masks))
    return tuple(out)


# -- the register packet ----------------------------------------------------------------------

_WIDE = struct.Struct("<33Q")  # x0-x30, sp, pc
_CPSR = struct.Struct("<I")
_TPIDR = struct.Struct("<Q")
_CPSR_AT, _TPIDR_AT = _AT["cpsr"], _AT["tpidr"]

_G_CPSR = _WIDE.size
_G_VECTORS = _G_CPSR + _CPSR.size
_VECTORS = 512 + 4 + 4  # v0-v31, fpsr, fpcr: as struct user_fpsimd_state has them
_G_TPIDR = _G_VECTORS + _VECTORS
_G_MASKS = _G_TPIDR + _TPIDR.size
_MASKS = slice(PARTS[PAC][1], PARTS[PAC][1] + PARTS[PAC][2])


class Aarch64RegisterFormat(RegisterFormat):
    """The register packet for the components in `xfeatures`."""

    def __init__(self, xfeatures: int) -> None:
        self.described = described(xfeatures)
        shown = features(self.described)
        super().__init__(r.bits for feature in shown for r in feature.registers)

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        gpr, xs = registers.gpr, registers.xstate.ljust(SIZE, b"\0")
        out = _WIDE.pack(*gpr[:33]) + _CPSR.pack(gpr[_CPSR_AT] & 0xFFFFFFFF)
        out += xs[:_VECTORS] + _TPIDR.pack(gpr[_TPIDR_AT])
        return out + xs[_MASKS] if self.described & PAC else out

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for what was not recorded."""
        text = bytearray(binascii.hexlify(self.encode(registers)))
        if not registers.xfeatures & FPSIMD:
            text[2 * _G_VECTORS : 2 * _G_TPIDR] = b"x" * (2 * _VECTORS)
        if self.described & PAC and not registers.xfeatures & PAC:
            text[2 * _G_MASKS :] = b"x" * (len(text) - 2 * _G_MASKS)
        return bytes(text)

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data` (the first `len(data)` bytes of a packet).  The masks
        are the processor's and stay.  ValueError when `data` is longer than the packet."""
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes of registers, there are {self.size}")
        before = self.encode(old)
        data += before[len(data) :]
        gpr = [*_WIDE.unpack_from(data), *_CPSR.unpack_from(data, _G_CPSR)]
        gpr += _TPIDR.unpack_from(data, _G_TPIDR)
        vectors = data[_G_VECTORS:_G_TPIDR]
        if vectors == before[_G_VECTORS:_G_TPIDR]:
            return Registers(gpr, old.xstate, old.xfeatures, old.arch)
        xstate = vectors + old.xstate.ljust(SIZE, b"\0")[_VECTORS:]
        return Registers(gpr, xstate, old.xfeatures | FPSIMD, old.arch)


# -- instructions -----------------------------------------------------------------------------

_SVE_NEED: Need = "SVE", ("sve",)
_ATOMICS: Need = "LSE atomics", ("atomics",)


def needed(code: bytes) -> Optional[Need]:
    """What the instruction that begins `code` needs of a CPU (Arm ARM C4.1), of what the C library
    chooses by the CPU; None where that is nothing special, or is not known."""
    word = int.from_bytes(code[:4], "little")
    if word >> 25 & 0xF == 2:
        return _SVE_NEED
    atomic = word & 0x3B200C00 == 0x38200000  # LDADD, SWP, ...
    compare_and_swap = word & 0x3FA07C00 == 0x08A07C00  # CAS
    return _ATOMICS if len(code) >= 4 and (atomic or compare_and_swap) else None


AARCH64 = Architecture(
    name="aarch64",
    spoken="AArch64",
    machine=183,  # EM_AARCH64
    gdb="aarch64",
    triple="aarch64-unknown-linux-gnu",
    names=NAMES,
    numbered=NAMES[:-1],
    dumped=34,
    pc=_AT["pc"],
    sp=_AT["sp"],
    frame=_AT["x29"],
    thread_pointer=_AT["tpidr"],
    number=_AT["x8"],
    result=_AT["x0"],
    arguments=tuple(range(6)),
    pending={},  # the kernel goes back to the instruction before a debugger looks (do_signal)
    user_end=1 << 48,  # 48-bit virtual addresses (Documentation/arch/arm64/memory.rst)
    breakpoint=0xD4200000.to_bytes(4, "little"),  # brk #0
    breakpoint_skips=0,
    breakpoint_code=1,  # TRAP_BRKPT (arch/arm64/kernel/debug-monitors.c, send_user_sigtrap)
    syscall=SVC.to_bytes(4, "little"),
    code_alignment=4,
    vdso_prefixes=("__kernel_",),
    # include/uapi/asm-generic/unistd.h; rt_sigreturn is plain code and left alone.
    vdso={"clock_gettime": 113, "gettimeofday": 169, "clock_getres": 114, "getrandom": 278},
    vdso_stub=_vdso_stub,
    pthread_bytes=1776,
    # sysdeps/aarch64/jmpbuf-offsets.h (x19 first); PTR_MANGLE of sysdeps/unix/sysv/linux/aarch64.
    jump=JumpBuffer(words=22, sp=13, pc=11, rotate=0, guard_symbol="__pointer_chk_guard"),
    red_zone=0,  # AAPCS64 6.4.5
    expedited=((29, _AT["x29"]), (31, _AT["sp"]), (32, _AT["pc"])),
    tls=VariantI(tcb=16),
    link=_AT["x30"],
    traps_after_writes=False,
    vectors=FpsimdVectors(),
    thread_pointer_note=NT_ARM_TLS,
    packet=Aarch64RegisterFormat,
    description=lambda xfeatures: document("aarch64", features(described(xfeatures))),
    relocations=(1026, 1025, 1032),  # ELF for the Arm 64-bit Architecture, "Dynamic relocations"
    plt_pushes_slot=True,
    dtv_offset=0,
    needed=needed,
)

"""x86-64 under Linux.  Sources: psABI x86-64; Intel SDM; <sys/user.h>."""

from __future__ import annotations

from typing import List

from gdb_uffd.arch.description import document
from gdb_uffd.arch.interface import Architecture, JumpBuffer
from gdb_uffd.arch.x86_64.description import features
from gdb_uffd.arch.x86_64.general import GPR, NAMES
from gdb_uffd.arch.x86_64.instructions import needed
from gdb_uffd.arch.x86_64.packet import X86RegisterFormat
from gdb_uffd.arch.x86_64.vectors import XsaveVectors

NUMBERED = (
    *"rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split(),
    *"eflags cs ss ds es fs gs".split(),
    *[""] * 33,  # x87 and SSE
    *"orig_rax fs_base gs_base".split(),
)

NO_CALL = (1 << 64) - 1


def _vdso_stub(number: int) -> bytes:
    """mov eax, number; syscall; ret.  Clobbers rcx and r11, which a C call may."""
    return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05\xc3"


_USER_END = (1 << 47) - 4096  # 4-level page tables (Documentation/arch/x86/x86_64/mm.rst)
_SELECTORS = {"cs": 0x33, "ss": 0x2B, "ds": 0, "es": 0, "fs": 0, "gs": 0}
"""Of a 64-bit program (arch/x86/include/asm/segment.h)."""


def _loadable(gpr: List[int]) -> List[int]:
    """A selector must be of user level, a base an address of the program
    (arch/x86/kernel/ptrace.c, set_segment_reg, putreg): valgrind's cores have no segments at all.
    """
    made = list(gpr)
    for name, usual in _SELECTORS.items():
        value = made[GPR[name]]
        if (value & 3 != 3 and (value or usual)) or value > 0xFFFF:
            made[GPR[name]] = usual
    for name in ("fs_base", "gs_base"):
        if made[GPR[name]] >= _USER_END:
            made[GPR[name]] = 0
    return made


X86_64 = Architecture(
    name="x86_64",
    spoken="x86-64",
    machine=62,  # EM_X86_64
    gdb="i386:x86-64",
    triple="x86_64-pc-linux-gnu",
    names=tuple(NAMES),
    dumped=27,
    pc=GPR["rip"],
    sp=GPR["rsp"],
    frame=GPR["rbp"],
    thread_pointer=GPR["fs_base"],
    number=GPR["rax"],
    result=GPR["rax"],
    arguments=tuple(GPR[n] for n in ("rdi", "rsi", "rdx", "r10", "r8", "r9")),  # psABI, A.2.1
    pending={GPR["orig_rax"]: NO_CALL},
    user_end=_USER_END,
    breakpoint=b"\xcc",
    breakpoint_skips=1,
    breakpoint_code=0x80,  # SI_KERNEL (arch/x86/kernel/traps.c, do_int3_user)
    syscall=b"\x0f\x05",
    code_alignment=1,
    vdso_prefixes=("", "__vdso_"),
    # arch/x86/entry/syscalls/syscall_64.tbl; others (sgx_enter_enclave) are left alone.
    vdso={
        "clock_gettime": 228,
        "gettimeofday": 96,
        "time": 201,
        "getcpu": 309,
        "clock_getres": 229,
        "getrandom": 318,
    },
    vdso_stub=_vdso_stub,
    pthread_bytes=2304,
    # sysdeps/x86_64/jmpbuf-offsets.h, nptl/tcb-offsets.sym; musl's buffer has the same order.
    jump=JumpBuffer(words=8, sp=6, pc=7, rotate=17, guard_offset=0x30),
    vectors=XsaveVectors(),
    packet=X86RegisterFormat,
    description=lambda xfeatures: document("i386:x86-64", features(xfeatures)),
    relocations=(7, 6, 37),  # psABI, "Relocation Types"
    dtv_offset=8,
    needed=needed,
    linker_saves=0xE6,  # SSE, AVX and AVX-512 (dl-trampoline.h, STATE_SAVE_MASK)
    tid_offsets=(720,),  # glibc 2.4 to 2.41 (nptl/descr.h)
    pthread_at_pointer=True,
    red_zone=128,  # psABI 3.2.2
    numbered=NUMBERED,
    expedited=((6, GPR["rbp"]), (7, GPR["rsp"]), (16, GPR["rip"])),
    records=True,
    loadable=_loadable,
)

"""AArch64 under Linux.  Sources: AAPCS64; Arm ARM (DDI 0487); Linux arch/arm64; glibc
sysdeps/aarch64."""

from __future__ import annotations

from gdb_uffd.arch.interface import Architecture, JumpBuffer, VariantI

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
)

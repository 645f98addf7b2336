"""x86-64's general registers."""

from __future__ import annotations

NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax "
    "rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
"""Order of struct user_regs_struct (<sys/user.h>)."""

GPR = {name: index for index, name in enumerate(NAMES)}
"""Name -> index."""

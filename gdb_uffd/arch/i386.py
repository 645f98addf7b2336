"""Programs of 32-bit pointers on x86-64's processors, i386's and x32's: looked at, and not run.
Sources: psABI i386; psABI x86-64 (chapter 10, "ILP32"); <sys/user.h>."""

from __future__ import annotations

import dataclasses

from gdb_uffd.arch.x86_64 import X86_64

NAMES = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss".split()
"""Order of struct user_regs_struct (<sys/user.h>)."""

_AT = {name: index for index, name in enumerate(NAMES)}

I386 = dataclasses.replace(
    X86_64,
    name="i386",
    spoken="i386",
    machine=3,  # EM_386
    gdb="i386",
    triple="i386-pc-linux-gnu",
    names=tuple(NAMES),
    dumped=17,
    pc=_AT["eip"],
    sp=_AT["esp"],
    frame=_AT["ebp"],
    thread_pointer=_AT["gs"],  # a selector: the base that it stands for is not recorded
    number=_AT["eax"],
    result=_AT["eax"],
    arguments=tuple(_AT[n] for n in ("ebx", "ecx", "edx", "esi", "edi", "ebp")),
    pending={},
    user_end=1 << 32,
    vdso={},
    expedited=((5, _AT["ebp"]), (4, _AT["esp"]), (8, _AT["eip"])),
    records=False,
    loadable=list,
    word=4,
    register_bytes=4,
)

X32 = dataclasses.replace(
    X86_64,
    name="x32",
    spoken="x32",
    gdb="i386:x64-32",
    triple="x86_64-pc-linux-gnux32",
    user_end=1 << 32,
    vdso={},
    records=False,
    word=4,
)

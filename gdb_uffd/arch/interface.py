"""What the rest of the program may ask of an architecture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Tuple


@dataclass(frozen=True)
class VariantI:
    """Thread-local storage above the thread pointer ("ELF Handling For Thread-Local Storage",
    3.1): the TCB of `tcb` bytes is at the pointer, struct pthread right below it."""

    tcb: int


@dataclass(frozen=True)
class JumpBuffer:
    """glibc's jmp_buf: words of the stack pointer and of the return address, and how
    setjmp(3) hides them (PTR_MANGLE)."""

    words: int
    sp: int
    pc: int
    rotate: int
    """Bits that a mangled word is rotated left by."""
    guard_symbol: str = ""
    """The variable that both are XORed with; "": a word of the TCB, at `guard_offset`."""
    guard_offset: int = 0


@dataclass(frozen=True, repr=False)
class Architecture:
    """One processor under Linux, little-endian.

    `names`: the general registers in the order of `Registers.gpr`.  What is an index (`pc`, `sp`,
    ...) is one into it.
    """

    name: str
    """As `uname -m` has it."""
    spoken: str
    """As users know it: "x86-64"."""
    machine: int
    """e_machine of its ELF files."""
    gdb: str
    """<architecture> of a target description (bfd's arch name)."""
    triple: str
    """For lldb."""
    names: Tuple[str, ...]
    dumped: int
    """How many of `names` an NT_PRSTATUS note holds, its pr_reg; the rest has notes of its own."""
    pc: int
    sp: int
    frame: int
    thread_pointer: int
    """What thread-locals are addressed by."""
    number: int
    """The register of a system call's number as a caller sets it."""
    result: int
    arguments: Tuple[int, ...]
    """Registers of a system call's six arguments; a C function's first is `arguments[0]`, too."""
    pending: Dict[int, int]
    """Registers to set so that the kernel restarts no interrupted system call."""
    user_end: int
    """No recorded address lies at or above it."""
    breakpoint: bytes
    breakpoint_skips: int
    """How far the program counter is behind a breakpoint's address when it has been hit."""
    breakpoint_code: int
    """si_code of its SIGTRAP."""
    syscall: bytes
    """The instruction."""
    code_alignment: int
    vdso_prefixes: Tuple[str, ...]
    """What vdso functions' names begin with (vdso(7))."""
    vdso: Mapping[str, int]
    """vdso function -> system call with the same leading arguments and result."""
    vdso_stub: Callable[[int], bytes]
    """A function that makes that system call and returns; it may change what a call may."""
    pthread_bytes: int
    """sizeof(struct pthread) of glibc 2.36, for a program that does not tell."""
    jump: JumpBuffer
    red_zone: int
    """Bytes below the stack pointer that a leaf function may use."""
    expedited: Tuple[Tuple[int, int], ...]
    """(register number of the target description, index) of what gdb looks at after every stop."""
    link: "int | None" = None
    """The register of the return address at a function's entry; None: it is on the stack."""
    numbered: Tuple[str, ...] = ()
    """Names of the general registers by their number in the target description; "" for others."""
    tls: "VariantI | None" = None
    """None: variant II, thread-local storage ends at the thread pointer."""
    traps_after_writes: bool = True
    """Whether a watchpoint's stop comes behind the write, not before it."""
    records: bool = False
    """Whether live processes can be recorded."""
    word: int = 8
    """Bytes of a pointer, and so of a word in the notes of its cores."""
    register_bytes: int = 8
    """Of a general register in them."""
    loadable: Callable[[List[int]], List[int]] = list
    """General registers as the kernel takes them for a process: not every dumper records all."""
    gpr: Dict[str, int] = field(init=False, compare=False, repr=False)
    """Name -> index."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpr", {name: i for i, name in enumerate(self.names)})

    def __repr__(self) -> str:
        return f"<{self.spoken}>"

    def __hash__(self) -> int:
        return self.machine

    @property
    def prstatus_bytes(self) -> int:
        """sizeof(struct elf_prstatus), which ends with pr_reg and pr_fpvalid (<sys/procfs.h>)."""
        size = self.prstatus_registers + self.register_bytes * self.dumped + 4
        return -(-size // self.register_bytes) * self.register_bytes

    @property
    def prstatus_registers(self) -> int:
        """Offset of its pr_reg."""
        return 112 if self.word == 8 else 72

"""What the rest of the program may ask of an architecture, and what it is told of by it."""

from __future__ import annotations

from dataclasses import field
from typing import (
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Protocol,
    Tuple,
)

from gdb_uffd.dataclass import dataclass

Need = Tuple[str, Tuple[str, ...]]
"""What an instruction belongs to, as the user knows it, and the flags of /proc/cpuinfo of which a
CPU that has it shows all."""


class Cpu(Protocol):
    """The one that we run on, as far as it tells by itself."""

    def xcr0(self) -> int:
        """x86-64's XCR0; 0 without XSAVE."""

    def xsave_component(self, number: int) -> Optional[Tuple[int, int]]:
        """(offset, size) of an XSAVE component in its images (CPUID leaf 0DH); None for none."""


class Regsets(Protocol):
    """A process whose register sets can be read and set (ptrace(2), PTRACE_GETREGSET)."""

    def regset(self, note: int, needed: bool = True) -> bytes:
        """By the type of its note.  Where there is none: an exception if it is `needed`, or b""."""

    def set_regset(self, note: int, data: bytes, needed: bool = True) -> None:
        """An exception where it is not taken and is `needed`."""


class Loader(Protocol):
    """The extended registers of one process, into it and out of it; the pieces that this CPU lacks
    stay as recorded."""

    def start(self, vessel: Regsets) -> None:
        """The process is new."""

    def load(self, vessel: Regsets, registers: Registers) -> None:
        """The thread's registers into it."""

    def store(self, vessel: Regsets, xfeatures: int, fallback: bytes) -> bytes:
        """Its own, as `Registers.xstate`; what it cannot have changed is `fallback`'s."""

    def ran(self) -> None:
        """It is about to run: it will have others."""


class Vectors(Protocol):
    """What `Registers.xstate` and `xfeatures` are, in cores and in a process."""

    size: int
    """Bytes of `Registers.xstate`."""
    note: int
    """Type of the note, and of the register set, that most of them are in."""
    thread_notes: FrozenSet[int]
    """Types of notes that each thread may have of them."""
    shared_notes: FrozenSet[int]
    """... and a core once for all."""

    def read(self, notes: Mapping[int, bytes], shared: Mapping[int, bytes]) -> Tuple[bytes, int]:
        """(xstate, xfeatures) of a thread's notes by type; damaged ones are left out."""

    def write(self, registers: Registers) -> List[Tuple[int, bytes]]:
        """A thread's notes, by type."""

    def shared(self, xfeatures: int) -> List[Tuple[int, bytes]]:
        """Those of a core once for all."""

    def lost(self, xfeatures: int) -> str:
        """What of the recorded ones is not kept, as a line for the user; "" for nothing."""

    def offered(self, cpu: Cpu) -> Tuple[bool, str]:
        """Whether recorded ones can be loaded here, and which, for `uffd doctor`."""

    def loader(self, cpu: Cpu) -> Loader:
        """For a new vessel."""


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


@dataclass(frozen=True)
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
    vectors: Vectors
    packet: Callable[[int], RegisterFormat]
    """The register packet of threads whose components `xfeatures` tells."""
    description: Callable[[int], bytes]
    """Their target description, `target.xml`."""
    relocations: Tuple[int, int, int]
    """Types of JUMP_SLOT, GLOB_DAT and IRELATIVE."""
    dtv_offset: int
    """Where, from the thread pointer, the address of the vector of thread-local blocks is
    (tcbhead_t in glibc's sysdeps/*/nptl/tls.h)."""
    needed: Callable[[bytes], Optional[Need]]
    """What the instruction that begins a piece of code needs of a CPU; None: nothing special."""
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
    thread_pointer_note: int = 0
    """The note that has the thread pointer; 0: it is among the general registers."""
    linker_saves: int = 0
    """Bits of `xfeatures` of which the dynamic linker's entry saves all that the CPU has."""
    plt_pushes_slot: bool = False
    """Whether an unbound call gives the dynamic linker the slot, on the stack, and not the object
    and the call's number; functions that choose one are told of the processor then."""
    tid_offsets: Tuple[int, ...] = ()
    """Where `tid` may be in struct pthread of glibc, which begins at the thread pointer."""
    pthread_at_pointer: bool = False
    """Whether pthread_t is the thread pointer."""
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


@dataclass
class Registers:
    """A thread's registers.

    `gpr`: unsigned 64-bit values in the order of `arch.names`.
    `xstate`: extended registers, as `arch.vectors` has them.  x86-64: XSTATE_SIZE bytes, the XSAVE
    standard format with the components at the offsets of Intel's CPUs (XSTATE_COMPONENTS), whatever
    machine recorded them; the header's XSTATE_BV (bytes 512-519) tells which components are not in
    their initial state.  AArch64: see arch/aarch64.py.  `xfeatures`: which components the recording
    has at all (x86-64: XCR0 bits).
    """

    gpr: List[int]
    xstate: bytes
    xfeatures: int
    arch: Architecture

    def copy(self) -> Registers:
        """An independent copy."""
        return Registers(list(self.gpr), self.xstate, self.xfeatures, self.arch)

    @property
    def pc(self) -> int:
        """The program counter."""
        return self.gpr[self.arch.pc]

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self.gpr[self.arch.sp]

    @property
    def thread_pointer(self) -> int:
        """What thread-locals are addressed by; 0 when it was not recorded."""
        return self.gpr[self.arch.thread_pointer]


class RegisterFormat:
    """A register packet (`g`), with registers of `bits` each, by register number.  `slots`:
    (offset, size) in bytes; `size`: of the packet.  `described`: what of the recorded components
    the target description depends on."""

    described: int

    def __init__(self, bits: Iterable[int]) -> None:
        self.slots: List[Tuple[int, int]] = []
        self.size = 0
        for width in bits:
            self.slots.append((self.size, width // 8))
            self.size += width // 8

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        raise NotImplementedError

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for what was not recorded."""
        raise NotImplementedError

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data`.  ValueError when `data` is longer than the packet."""
        raise NotImplementedError

    def slot(self, number: int, value: bytes) -> Tuple[int, int]:
        """Where register `number` lies; ValueError where there is none of `value`'s size."""
        if not 0 <= number < len(self.slots):
            raise ValueError(f"no register {number}")
        offset, size = self.slots[number]
        if len(value) != size:
            raise ValueError(f"register {number} has {size} bytes, not {len(value)}")
        return offset, size

    def write(self, number: int, value: bytes, old: Registers) -> Registers:
        """`old` with register `number` set; ValueError for no such register or size."""
        offset, size = self.slot(number, value)
        data = bytearray(self.encode(old))
        data[offset : offset + size] = value
        return self.decode(bytes(data), old)

"""Programs of 32-bit pointers on x86-64's processors, i386's and x32's: looked at, and not run.
Sources: psABI i386; psABI x86-64 (chapter 10, "ILP32"); <sys/user.h>.  Target descriptions: names,
types and groups of gdb/features/i386/32bit-*.xml and x32-core.xml."""

from __future__ import annotations

import binascii
import dataclasses
import functools
from typing import Dict, Iterator, Tuple

from gdb_uffd.arch.description import Feature, Register, document
from gdb_uffd.arch.interface import RegisterFormat, Registers
from gdb_uffd.arch.x86_64 import X86_64
from gdb_uffd.arch.x86_64 import description as wide
from gdb_uffd.arch.x86_64.packet import x87_control
from gdb_uffd.arch.x86_64.xstate import AVX, MXCSR, SSE, X87, XSTATE_COMPONENTS

NAMES = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss".split()
"""Order of struct user_regs_struct (<sys/user.h>)."""

_AT = {name: index for index, name in enumerate(NAMES)}


def described(xfeatures: int) -> int:
    """The XCR0 bits that an i386's description for `xfeatures` has registers of."""
    return X87 | SSE | (xfeatures & AVX)


def _core() -> Iterator[Register]:
    for name in ("eax", "ecx", "edx", "ebx"):
        yield Register(name, 32, "int32")
    for name in ("esp", "ebp"):
        yield Register(name, 32, "data_ptr")
    for name in ("esi", "edi"):
        yield Register(name, 32, "int32")
    yield Register("eip", 32, "code_ptr")
    yield from wide.both_sizes()


@functools.lru_cache(maxsize=4)
def features(xfeatures: int) -> Tuple[Feature, ...]:
    """In the order of register numbers."""
    core, sse = wide.features(0)[:2]
    narrow = tuple(r for r in sse.registers if r.name == "mxcsr" or int(r.name[3:]) < 8)
    out = [
        Feature(core.name, core.types, tuple(_core())),
        Feature(sse.name, sse.types, narrow),
        Feature("org.gnu.gdb.i386.linux", "", (Register("orig_eax", 32, "int", "system"),)),
    ]
    if xfeatures & AVX:
        ymm = tuple(Register(f"ymm{n}h", 128, "uint128") for n in range(8))
        out.append(Feature("org.gnu.gdb.i386.avx", "", ymm))
    return tuple(out)


_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_BITS = {"st": X87, "xm": SSE, "mx": SSE, "ym": AVX, **{name[:2]: X87 for name in _CONTROL}}


def _place(name: str) -> int:
    """Offset of a vector register in the XSAVE image."""
    if name == "mxcsr":
        return MXCSR
    number = int(name.rstrip("h").lstrip("stxmy"))
    return {"s": 32, "x": 160, "y": XSTATE_COMPONENTS[2][0]}[name[0]] + 16 * number


class _I386RegisterFormat(RegisterFormat):
    """The register packet for the components in `xfeatures` (XCR0 bits)."""

    def __init__(self, xfeatures: int) -> None:
        self.described = described(xfeatures)
        shown = features(self.described)
        registers = [r for feature in shown for r in feature.registers]
        super().__init__(r.bits for r in registers)
        self._names = [r.name for r in registers]

    def encode(self, registers: Registers) -> bytes:
        """All registers as the bytes of a `g` reply; `size` of them."""
        control = dict(zip(_CONTROL, x87_control(registers.xstate)))
        parts = []
        for name, (_, size) in zip(self._names, self.slots):
            value = self._number(name, registers, control)
            if value is None:
                at = _place(name)
                parts.append(registers.xstate[at : at + size].ljust(size, b"\0"))
            else:
                parts.append((value & 0xFFFFFFFF).to_bytes(size, "little"))
        return b"".join(parts)

    @staticmethod
    def _number(name: str, registers: Registers, control: Dict[str, int]) -> "int | None":
        index = _AT.get(name)
        return registers.gpr[index] if index is not None else control.get(name)

    def encode_hex(self, registers: Registers) -> bytes:
        """`encode` in hex digits, with `x` for what was not recorded."""
        text = bytearray(binascii.hexlify(self.encode(registers)))
        for name, (offset, size) in zip(self._names, self.slots):
            bit = 0 if name in _AT else _BITS[name[:2]]
            if bit & ~registers.xfeatures:
                text[2 * offset : 2 * (offset + size)] = b"x" * (2 * size)
        return bytes(text)

    def decode(self, data: bytes, old: Registers) -> Registers:
        """`old` with the registers in `data`, as many as it has; nothing will run with them, so the
        x87 control words stay.  ValueError when `data` is longer than the packet."""
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes of registers, there are {self.size}")
        made = old.copy()
        xstate = bytearray(made.xstate)
        for name, (offset, size) in zip(self._names, self.slots):
            value = data[offset : offset + size]
            if len(value) < size:
                break
            index = _AT.get(name)
            if index is not None:
                made.gpr[index] = int.from_bytes(value, "little")
            elif name not in _CONTROL:
                at = _place(name)
                xstate[at : at + size] = value
        return Registers(made.gpr, bytes(xstate), old.xfeatures, old.arch)


def _x32_description(xfeatures: int) -> bytes:
    """x86-64's registers, none of which is a pointer."""
    core, *others = wide.features(xfeatures)
    plain = tuple(
        dataclasses.replace(r, type="int64") if r.type in ("data_ptr", "code_ptr") else r
        for r in core.registers
    )
    return document("i386:x64-32", (Feature(core.name, core.types, plain), *others))


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
    packet=_I386RegisterFormat,
    description=lambda xfeatures: document("i386", features(described(xfeatures))),
    pthread_at_pointer=False,
    tid_offsets=(),
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
    description=_x32_description,
    pthread_at_pointer=False,
    tid_offsets=(),
    word=4,
)

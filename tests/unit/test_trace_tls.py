"""Where a thread-local lies, by what each C library notes of a thread's blocks."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, Dict, Optional, Tuple

import pytest

from gdb_uffd.arch import AARCH64, X86_64, Architecture
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.trace.core.elf import PT_DYNAMIC
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.tls import RecordedThreadLocals

BASE, DTV, MAP, DESCRIPTORS, BLOCK = 0x10000, 0x20000, 0x30000, 0x40000, 0x50000
UNALLOCATED = (1 << 64) - 1  # TLS_DTV_UNALLOCATED (glibc, elf/dl-tls.h)
MODID, OFFSET = 0x3A0, 0x398  # where they stand in a link_map
SLOT = 16
GLIBC: Dict[str, Tuple[int, int]] = {  # bits, offset
    "pthread_dtvp": (64, 8), "dtv_dtv": (8 * SLOT, 64), "dtv_t_pointer_val": (64, 8),
    "link_map_l_tls_modid": (128, MODID), "link_map_l_tls_offset": (128, OFFSET),
}  # fmt: skip
"""glibc's dtv begins at 0 and its fields have 64 bits; a library may say otherwise."""


class Process:
    """One thread at BASE, the link_map of one module at MAP."""

    def __init__(self, arch: Architecture, descriptors: Dict[str, Tuple[int, int]]) -> None:
        self.arch, self.memory = arch, {}
        self.order: list[Module] = []
        self.image: Any = None
        self.names = {f"_thread_db_{n}": DESCRIPTORS + 16 * i for i, n in enumerate(descriptors)}
        for at, (bits, offset) in zip(self.names.values(), descriptors.values()):
            self.put(at, struct.pack("<III", bits, 1, offset))
        self.words(BASE if arch.tls else BASE + 8, DTV)

    def put(self, at: int, data: bytes) -> None:
        self.memory.update(enumerate(data, at))

    def words(self, at: int, *words: int) -> None:
        self.put(at, struct.pack(f"<{len(words)}Q", *words))

    def read(self, at: int, length: int) -> bytes:
        if not all(each in self.memory for each in range(at, at + length)):
            raise MemoryUnavailable(at, "not there")
        return bytes(self.memory[each] for each in range(at, at + length))

    def module(self, number: int, slots: int, block: int = BLOCK, static: int = 0) -> None:
        """Its number, how many blocks the thread has, this module's; where it is static."""
        self.words(MAP + OFFSET, static, number)
        self.words(DTV - SLOT, slots)
        self.words(DTV + 64 + number * SLOT + 8, block)

    def address(self, offset: int = 0x18, link_map: int = MAP, base: int = BASE) -> int:
        executable = Module("/bin/x", image=self.image)
        tls = RecordedThreadLocals(self.names.get, self.read, self.order, executable, self.arch)
        return tls.address(7, offset, link_map, base, self.read)


@pytest.fixture(params=[X86_64, AARCH64], ids=["x86-64", "AArch64"])
def process(request) -> Process:
    return Process(request.param, GLIBC)


@pytest.mark.parametrize("number", [1, 3, 1 << 16])
def test_the_thread_s_block_of_the_module(process, number):
    process.module(number, slots=number)
    assert process.address() == BLOCK + 0x18
    assert process.address(offset=(1 << 64) - 8) == BLOCK - 8


@pytest.mark.parametrize("number", [0, (1 << 16) + 1])
def test_a_module_without_thread_locals(process, number):
    process.module(number, slots=1 << 20)
    with pytest.raises(UffdError, match="0x30000 has no thread-local storage"):
        process.address()


@pytest.mark.parametrize(("slots", "block"), [(2, BLOCK), (3, 0), (3, UNALLOCATED)])
def test_a_block_that_the_thread_has_not_noted_is_where_all_have_theirs(process, slots, block):
    process.module(3, slots, block, static=0x140)
    there = BASE + 0x140 if process.arch is AARCH64 else BASE - 0x140
    assert process.address() == there + 0x18


@pytest.mark.parametrize("static", [0, UNALLOCATED])
def test_a_block_that_is_made_when_it_is_used(process, static):
    process.module(3, 2, static=static)
    with pytest.raises(UffdError, match="thread 7 has not allocated this module's"):
        process.address()


def image(size: int, align: int, dynamic: Optional[int] = None) -> Any:
    segment = SimpleNamespace(vaddr=dynamic) if dynamic is not None else None
    return SimpleNamespace(
        tls_size=lambda: (size, align), segment=lambda kind: segment if kind == PT_DYNAMIC else None
    )


@pytest.mark.parametrize(
    ("size", "align", "below", "above"),
    [(1, 1, 1, 16), (24, 8, 24, 16), (25, 8, 32, 16), (100, 64, 128, 64), (64, 64, 64, 64)],
)
def test_the_program_s_own_lies_beside_the_thread_s_block(process, size, align, below, above):
    process.words(DTV - SLOT, 0)
    process.image = image(size, align)
    block = BASE + above if process.arch is AARCH64 else BASE - below
    assert process.address(link_map=0) == block + 0x18
    process.words(DTV - SLOT, 1)
    process.words(DTV + 64 + SLOT + 8, BLOCK)
    assert process.address(link_map=0) == BLOCK + 0x18


def test_a_program_without_thread_locals(process):
    process.words(DTV - SLOT, 0)
    for process.image in (None, image(0, 1)):
        with pytest.raises(UffdError, match="the executable has no thread-local storage"):
            process.address(link_map=0)


def test_what_cannot_be_read_or_has_none_is_told(process):
    with pytest.raises(UffdError, match="thread 7 has no thread-local storage"):
        process.address(base=0)
    with pytest.raises(UffdError, match=r"of thread 7 cannot be read: .*complete core is needed"):
        process.address()


@pytest.mark.parametrize(
    ("bits", "offset", "good"),
    [(8, 8, True), (1024, 8, True), (1032, 8, False), (0, 8, False), (60, 8, False),
     (64, 1 << 20, True), (64, (1 << 20) + 1, False)],
)  # fmt: skip
def test_descriptors_that_lie_are_none(bits, offset, good):
    process = Process(X86_64, {**GLIBC, "pthread_dtvp": (bits, offset)})
    process.words(BASE + offset, DTV)
    process.module(3, 3)
    if good:
        assert process.address() == BLOCK + 0x18
    else:
        with pytest.raises(UffdError, match="has no _thread_db_ symbols"):
            process.address()


# -- musl -------------------------------------------------------------------------------------


@pytest.fixture
def musl() -> Process:
    """Three objects, of which the second has no thread-locals; MAP is the third's."""
    process = Process(X86_64, {})
    process.image = image(8, 8, 0x100)
    sizes = {"/bin/x": 8, "/lib/plain.so": 0, "/lib/ld-musl-x86_64.so.1": 16}
    for index, (path, size) in enumerate(sizes.items()):
        bias, at = 0x700000 + index * 0x10000, MAP - 0x100 * (2 - index)
        process.order.append(Module(path, image=image(size, 8, 0x100), bias=bias))
        previous = at - 0x100 if index else 0
        process.words(at, bias, 0, bias + 0x100, 0, previous)
    process.words(DTV, 2, BLOCK - 0x1000, BLOCK)
    return process


def test_musl_s_modules_are_those_with_thread_locals_in_order(musl):
    assert musl.address() == BLOCK + 0x18
    assert musl.address(link_map=MAP - 0x200) == BLOCK - 0x1000 + 0x18
    assert musl.address(link_map=0) == BASE - 8 + 0x18


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_block_that_musl_has_not_made(musl, blocks):
    musl.words(DTV, blocks)
    with pytest.raises(UffdError, match="thread 7 has not allocated this module's"):
        musl.address()


def test_another_library_without_descriptors_is_not_guessed(musl):
    musl.order[2].path = "/lib/libc.so.6"
    with pytest.raises(UffdError, match="has no _thread_db_ symbols"):
        musl.address()

"""What an address belongs to, at the edges of everything that it may belong to."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Tuple

import pytest

from gdb_uffd.arch import X86_64
from gdb_uffd.protocol.model import GPR, Mapping, MemoryUnavailable, Registers, ThreadState
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.places import Places

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
PROGRAM, HEAP, BLOCKS, ARENA = 0x400000, 0x600000, 0x7F0000000000, 0x7F1000000000
SHARED, STACK = 0x7F2000000000, 0x7FFF00000000
BASE = BLOCKS + 0x3000
"""The thread pointer of the first thread, its blocks below and its struct pthread above."""
MAPPINGS = [
    Mapping(PROGRAM, PROGRAM + 2 * PAGE, 3, "/bin/x"),
    Mapping(HEAP, HEAP + 16 * PAGE, 3, "[heap]"),
    Mapping(BLOCKS, BLOCKS + 8 * PAGE, 3),
    Mapping(ARENA, ARENA + 33 * PAGE, 3),
    Mapping(SHARED, SHARED + 4 * MIB, 3),
    Mapping(STACK, STACK + 32 * PAGE, 3, "[stack]"),
]


def thread(tid: int, sp: int, base: int) -> ThreadState:
    gpr = [0] * 27
    gpr[GPR["rsp"]], gpr[GPR["fs_base"]] = sp, base
    return ThreadState(tid, Registers(gpr, b"", 0, X86_64))


MAIN = thread(10, STACK + 30 * PAGE, BASE)


class Made:
    """The places of a process with what its memory has to tell."""

    def __init__(self, *others: ThreadState, symbols: Optional[Dict[str, int]] = None) -> None:
        self.memory: Dict[int, int] = {}
        self.threads, self.symbols = [MAIN, *others], symbols or {}
        self.modules: List[Module] = []

    def words(self, at: int, *words: int) -> None:
        self.memory.update(enumerate(struct.pack(f"<{len(words)}Q", *words), at))

    def read(self, at: int, length: int) -> bytes:
        if at not in self.memory:
            raise MemoryUnavailable(at, "not there")
        return bytes(self.memory.get(each, 0) for each in range(at, at + length))

    def library(self, path: str, size: int, align: int) -> None:
        image: Any = SimpleNamespace(tls_size=lambda: (size, align), loads=[])
        self.modules.append(Module(path, image=image))

    def places(self) -> Places:
        return Places(
            MAPPINGS, self.modules, self.threads, 10, (HEAP, HEAP + 16 * PAGE),
            (STACK, STACK + 32 * PAGE), self.read, self.symbols.get,
        )  # fmt: skip

    def of(self, address: int) -> Tuple[str, Optional[int]]:
        found = self.places().classify(address)
        return found.kind, found.thread

    def block(self) -> Tuple[int, int]:
        """How far the first thread's own memory reaches below and above its thread pointer."""
        places = self.places()
        own = [at for at in range(BASE - 0x1000, BASE + 0x2000) if places.classify(at).thread == 10]
        assert own == list(range(own[0], own[-1] + 1))
        return BASE - own[0], own[-1] + 1 - BASE


@pytest.mark.parametrize(
    ("address", "kind", "tid"),
    [
        (PROGRAM, "data", None), (PROGRAM + 2 * PAGE - 1, "data", None),
        (PROGRAM + 2 * PAGE, "anonymous", None), (PROGRAM - 1, "anonymous", None),
        (HEAP, "heap", None), (HEAP + 16 * PAGE, "heap", None), (HEAP - 1, "anonymous", None),
        (HEAP + 16 * PAGE + 16 * GIB - 1, "heap", None),
        (HEAP + 16 * PAGE + 16 * GIB, "anonymous", None),
        (STACK, "stack", 10), (STACK - 1, "stack", 10), (STACK - GIB, "stack", 10),
        (STACK - GIB - 1, "anonymous", None), (STACK + 32 * PAGE, "anonymous", None),
        (SHARED + 5, "anonymous", None),
    ],
)  # fmt: skip
def test_mappings_and_what_grows_beside_them(address, kind, tid):
    assert Made().of(address) == (kind, tid)


@pytest.mark.parametrize(
    ("at", "tid"),
    [(0, 12), (MIB - 1, 12), (MIB + 0x1000, 11), (2 * MIB - 1, 11), (2 * MIB + 0x1000, 11)],
)
def test_stacks_of_one_mapping(at, tid):
    """Each reaches up to its thread's block."""
    others = [thread(13 - n, SHARED + n * MIB - 0x800, SHARED + n * MIB) for n in (1, 2)]
    assert Made(*others).of(SHARED + at) == ("stack", tid)


@pytest.mark.parametrize(("at", "tid"), [(0, 12), (MIB - 1, 12), (MIB, 12), (2 * MIB, 11)])
def test_stacks_of_one_mapping_whose_blocks_are_not_known(at, tid):
    """Each reaches down to its stack pointer, the lowest to the end."""
    others = [thread(13 - n, SHARED + n * MIB, 0) for n in (1, 2)]
    assert Made(*others).of(SHARED + at) == ("stack", tid)


def test_a_stack_that_ran_over_its_end():
    sp = SHARED - MIB
    assert Made(thread(11, sp, 0)).of(SHARED + 5) == ("stack", 11)
    assert Made(thread(11, sp - 1, 0)).of(SHARED + 5) == ("anonymous", None)


# -- a thread's own memory --------------------------------------------------------------------

DTV = BLOCKS + 0x6000
ABOVE = 2304  # sizeof(struct pthread), where nothing tells


@pytest.fixture
def made():
    """Two objects: 24 bytes, then 100 aligned to 64: 128 in all."""
    process = Made()
    process.library("/bin/x", 24, 8)
    process.library("/lib/libc.so.6", 100, 64)
    process.words(BASE + 8, DTV)
    return process


def test_all_objects_blocks_where_no_dtv_is_read(made):
    assert made.block() == (128, ABOVE)


@pytest.mark.parametrize(
    ("count", "blocks", "below"),
    [
        (2, [64, 96], 96),
        (2, [96, 128], 128),
        (2, [96, 129], 96),  # of dlopen's
        (2, [96, -1], 96),  # not allocated
        (2, [0, -64], 128),
        (1, [64, 96], 64),
        (4096, [64, 96], 96),
        (4097, [64, 96], 128),
        (0, [64, 96], 128),
    ],
)
def test_the_lowest_block_that_glibc_s_dtv_names(made, count, blocks, below):
    made.words(DTV - 16, count)
    for index, far in enumerate(blocks):
        made.words(DTV + 16 * (index + 1), (BASE - far) % (1 << 64), 0)
    assert made.block() == (below, ABOVE)


def test_musl_s_dtv():
    process = Made()
    process.library("/bin/x", 24, 8)
    process.library("/lib/ld-musl-x86_64.so.1", 100, 64)
    process.words(BASE + 8, DTV)
    process.words(DTV, 2, BASE - 32, BASE - 120)
    assert process.block() == (120, 200)


@pytest.mark.parametrize(
    ("told", "above"), [(63, ABOVE), (64, 64), (0x900, 0x900), (1 << 12, 1 << 12), (0, ABOVE)]
)
def test_the_size_that_glibc_tells_of_its_struct(made, told, above):
    made.symbols = {"_thread_db_sizeof_pthread": PROGRAM + 0x100}
    made.words(PROGRAM + 0x100, told)
    assert made.block() == (128, above)


# -- malloc's other heaps ---------------------------------------------------------------------


def test_a_heap_of_its_own_for_a_thread():
    process = Made()
    process.words(ARENA, ARENA + 32, 0, 0x2000, 32 * PAGE)
    assert process.of(ARENA) == process.of(ARENA + 32 * PAGE - 1) == ("heap", None)
    assert process.of(ARENA + 32 * PAGE) == ("anonymous", None)


@pytest.mark.parametrize(
    ("arena", "size", "usable", "is_heap"),
    [
        (32, 16, PAGE, True), (256, PAGE, PAGE, True), (32, 64 * MIB, 64 * MIB, True),
        (31, 16, PAGE, False), (257, 16, PAGE, False), (32, 0, PAGE, False),
        (32, 8, PAGE, False), (32, PAGE + 16, PAGE, False), (32, 16, PAGE + 16, False),
        (32, 16, 64 * MIB + PAGE, False),
    ],
)  # fmt: skip
def test_what_a_heap_says_of_itself_must_hold(arena, size, usable, is_heap):
    process = Made()
    process.words(ARENA, ARENA + arena, 0, size, usable)
    assert process.of(ARENA + 100) == ("heap" if is_heap else "anonymous", None)

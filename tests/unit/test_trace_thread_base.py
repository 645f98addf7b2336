"""Threads whose FS base the kernel did not write into the core."""

from __future__ import annotations

import struct
from typing import Dict, List

import pytest

from gdb_uffd.arch import X86_64
from gdb_uffd.protocol.model import GPR, Mapping, MemoryUnavailable, Registers, ThreadState
from gdb_uffd.trace.core import thread_base

STACK, OTHER, LINKER = 0x7F0000000000, 0x7F0000800000, 0x7F1000000000
MAPPINGS = [
    Mapping(0x400000, 0x500000, 3, "/usr/bin/x"),
    Mapping(STACK, STACK + 0x800000, 3),
    Mapping(OTHER, OTHER + 0x4000, 3),
    Mapping(LINKER, LINKER + 0x3000, 3),
]


def thread(tid: int, sp: int, base: int = 0) -> ThreadState:
    gpr = [0] * 27
    gpr[GPR["rsp"]], gpr[GPR["fs_base"]] = sp, base
    return ThreadState(tid, Registers(gpr, b"", 0, X86_64))


class Memory:
    """Zeros but for what was put; `holes` cannot be read."""

    def __init__(self, holes: List[range] | None = None) -> None:
        self.bytes: Dict[int, bytes] = {}
        self.holes = holes or []

    def block(self, at: int, tid: int = 0) -> None:
        self.bytes[at] = struct.pack("<QQQ", at, 0x1234, at)
        self.bytes[at + 720] = struct.pack("<I", tid)

    def read(self, address: int, length: int) -> bytes:
        for hole in self.holes:
            if address < hole.stop and hole.start < address + length:
                raise MemoryUnavailable(max(address, hole.start), "a hole")
        out = bytearray(length)
        for at, data in self.bytes.items():
            if at < address + length and address < at + len(data):
                for n, byte in enumerate(data):
                    if 0 <= at + n - address < length:
                        out[at + n - address] = byte
        return bytes(out)


def base(memory: Memory, who: ThreadState) -> int:
    thread_base.restore([thread(1, 0, 99), who], MAPPINGS, memory.read)
    return who.registers.gpr[GPR["fs_base"]]


def test_above_the_frames_of_the_own_stack() -> None:
    memory, block = Memory(), STACK + 0x7FF6C0
    memory.block(block, 12)
    memory.block(STACK + 0x1000, 12)  # below the stack pointer: an old one
    assert base(memory, thread(12, STACK + 0x7F0000)) == block


def test_the_first_thread_s_by_its_tid() -> None:
    memory = Memory()
    memory.block(OTHER + 0x1000, 13)
    memory.block(LINKER + 0x740, 11)
    assert base(memory, thread(11, 0x7FFF00000000)) == LINKER + 0x740


def test_what_is_there_stays() -> None:
    memory = Memory()
    memory.block(STACK + 0x7FF6C0, 12)
    assert base(memory, thread(12, STACK + 0x7F0000, 77)) == 77


def test_nothing_is_guessed() -> None:
    memory = Memory()
    memory.bytes[STACK + 0x7FF008] = struct.pack("<QQQ", STACK + 0x7FF008, 1, STACK + 0x7FF008)
    memory.bytes[STACK + 0x7FF100] = struct.pack("<QQQ", STACK + 0x7FF100, 1, STACK + 0x7FF140)
    memory.block(LINKER + 0x740, 99)
    assert base(memory, thread(12, STACK + 0x7F0000)) == 0


def test_memory_that_cannot_be_read() -> None:
    memory = Memory([range(STACK, STACK + 0x800000)])
    memory.block(LINKER + 0x740, 12)
    assert base(memory, thread(12, STACK + 0x7F0000)) == LINKER + 0x740
    assert base(Memory([range(1 << 64)]), thread(12, STACK + 0x7F0000)) == 0


@pytest.mark.parametrize(("room", "is_found"), [(23, False), (24, True), (25, True)])
def test_a_block_at_the_end_of_memory(room: int, is_found: bool) -> None:
    """What is left of it may be less than what tells a block."""
    memory, block = Memory(), STACK + 0x7FF6C0
    memory.block(block, 12)
    who = thread(12, STACK + 0x7F0000)
    mappings = [Mapping(STACK, block + room, 3)]
    thread_base.restore([thread(1, 0, 99), who], mappings, memory.read)
    assert who.registers.gpr[GPR["fs_base"]] == (block if is_found else 0)


def test_a_program_without_any_is_not_searched() -> None:
    memory, block = Memory(), STACK + 0x7FF6C0
    memory.block(block, 12)
    threads = [thread(11, STACK), thread(12, STACK + 0x7F0000)]
    thread_base.restore(threads, MAPPINGS, memory.read)
    assert [t.registers.gpr[GPR["fs_base"]] for t in threads] == [0, 0]


def test_a_thousand_threads_do_not_read_a_thousand_times_as_much() -> None:
    length = 0

    def read(address: int, wanted: int) -> bytes:
        nonlocal length
        length += wanted
        return bytes(wanted)

    threads = [thread(1, 0, 99), *(thread(tid, STACK) for tid in range(2, 1002))]
    thread_base.restore(threads, [Mapping(STACK, STACK + (1 << 25), 3)], read)
    assert 0 < length <= 1 << 26

"""Program headers that only damage makes are not told: a debugger would make room for them."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.server.stub.auxv import AT_IGNORE, AT_PHDR, AT_PHENT, AT_PHNUM, harmless

AT, OTHER = 0x400040, (9, 0x401000)


def vector(size: int = 56, count: int = 3, at: int = AT) -> bytes:
    pairs = [(AT_PHDR, at), (AT_PHENT, size), (AT_PHNUM, count), OTHER, (0, 0)]
    return b"".join(struct.pack("<QQ", *pair) for pair in pairs)


def told(auxv: bytes) -> List[Tuple[int, ...]]:
    return list(struct.iter_unpack("<QQ", auxv))


def headers(interp: int, dynamic: int = 0x1F0) -> bytes:
    rows = ((6, 168), (3, interp), (2, dynamic))
    return b"".join(struct.pack("<II6Q", kind, 4, 0, 0, 0, n, n, 8) for kind, n in rows)


def served(memory: bytes, auxv: bytes) -> bytes:
    return harmless(auxv, 8, lambda at, length: memory[at - AT : at - AT + length])


def test_headers_as_they_are() -> None:
    for memory in (headers(28), headers(4096, 1 << 20)):
        assert served(memory, vector()) == vector()
    assert harmless(vector(at=0), 8, lambda at, length: b"") == vector(at=0)


@pytest.mark.parametrize(
    "memory, auxv",
    [
        (headers(4097), vector()),
        (headers(1 << 63), vector()),
        (headers(28, (1 << 20) + 1), vector()),
        (headers(28), vector(size=57)),
        (headers(28), vector(size=1 << 63)),
        (headers(28), vector(count=0x10000)),
        (headers(28), vector(count=1 << 62)),
    ],
)
def test_damaged_ones(memory: bytes, auxv: bytes) -> None:
    found = told(served(memory, auxv))
    assert [kind for kind, _ in found[:3]] == [AT_IGNORE] * 3
    assert found[3:] == [OTHER, (0, 0)]


def test_those_of_32_bits() -> None:
    def memory(size: int) -> bytes:
        return struct.pack("<8I", 3, 0x134, 0, 0, 19, size, 4, 1)

    auxv = vector(32, 1)
    assert harmless(auxv, 4, lambda at, length: memory(19)) == auxv
    assert told(harmless(auxv, 4, lambda at, length: memory(1 << 31)))[0] == (AT_IGNORE, AT)


def test_headers_that_cannot_be_read() -> None:
    def read(at: int, length: int) -> bytes:
        raise MemoryUnavailable(at, "not recorded")

    assert harmless(vector(), 8, read) == vector()

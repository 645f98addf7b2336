"""argv from the top of a stack: as the kernel lays it out, and what is no such stack."""

from __future__ import annotations

import struct
from typing import Callable, List

import pytest

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.argv import arguments

TOP = 0x7FFF00004000


def stack(argv: List[bytes], environment: List[bytes], argc: int) -> "tuple[bytes, bytes]":
    """(auxv, the bytes below TOP): strings, AT_RANDOM's bytes, tables."""
    strings = b"".join(s + b"\0" for s in [*argv, *environment]) + bytes(8)
    base = TOP - len(strings)
    at, places = base, []
    for s in [*argv, *environment]:
        places.append(at)
        at += len(s) + 1
    random = base - 16
    auxv = struct.pack("<8Q", 6, 4096, 25, random, 23, 0, 0, 0)
    words = [argc, *places[: len(argv)], 0, *places[len(argv) :], 0]
    tables = struct.pack(f"<{len(words)}Q", *words) + auxv
    return auxv, tables + bytes(32) + b"R" * 16 + strings


def reader(data: bytes) -> Callable[[int, int], bytes]:
    start = TOP - len(data)

    def read(address: int, length: int) -> bytes:
        if address < start & ~0xFFF or address + length > TOP:
            raise MemoryUnavailable(address, "not there")
        return data.rjust(len(data) + (start & 0xFFF), b"\0")[address - (start & ~0xFFF) :][:length]

    return read


@pytest.mark.parametrize(
    "argv", [[b"./s", b"one", b"", b"two words"], [b"x" * 9000], [b"\xff\xfe"], []]
)
def test_arguments(argv: List[bytes]) -> None:
    for environment in ([], [b"A=1", b"B=" + b"y" * 5000]):
        auxv, data = stack(argv, environment, len(argv))
        assert arguments(auxv, reader(data)) == argv


def test_what_is_no_such_stack() -> None:
    auxv, data = stack([b"./s"], [], 5)  # argc does not fit
    assert arguments(auxv, reader(data)) == []
    assert arguments(b"", reader(data)) == []
    assert arguments(struct.pack("<4Q", 25, 7, 0, 0), reader(data)) == []
    assert arguments(struct.pack("<4Q", 25, 2**64 - 1, 0, 0), reader(data)) == []
    assert arguments(struct.pack("<4Q", 25, TOP - 16, 0, 0), reader(data)) == []
    auxv, data = stack([b"./s"], [], 1)
    assert arguments(auxv, reader(data[:-20] + b"z" * 20)) == []  # a string without an end

"""gdb's agent expressions: each operation, and bytecode that means harm."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay.agent import AgentError, Orders, evaluate, holds

END = b"\x27"
MEMORY = bytes(range(1, 0x71)) + b"a name\0" + b"\xff" * 9


@dataclass
class Program:
    """Registers 0 to 3, and memory at 0x1000."""

    registers: Dict[int, int] = field(default_factory=lambda: {0: 7, 1: 2**64 - 1, 2: 0x1000})

    def register(self, number: int) -> int:
        if number not in self.registers:
            raise AgentError(f"no register {number}")
        return self.registers[number]

    def read(self, address: int, length: int) -> bytes:
        at = address - 0x1000
        if at < 0 or at + length > len(MEMORY):
            raise MemoryUnavailable(address, "not there")
        return MEMORY[at : at + length]


def const(value: int) -> bytes:
    return b"\x25" + (value % 2**64).to_bytes(8, "big")


def value(*code: bytes) -> int:
    return evaluate(b"".join(code) + END, Program())


@pytest.mark.parametrize(
    ("op", "a", "b", "wanted"),
    [
        (0x02, 2**64 - 1, 3, 2), (0x03, 2, 3, 2**64 - 1), (0x04, 2**63, 2, 0),
        (0x05, -7, 2, 2**64 - 3), (0x06, 7, 2, 3), (0x06, -1, 2, 2**63 - 1),
        (0x07, -7, 2, 2**64 - 1), (0x07, 7, -2, 1), (0x08, 7, 2, 1),
        (0x09, 1, 63, 2**63), (0x09, 1, 64, 0), (0x09, 1, -1, 0),
        (0x0A, -8, 1, 2**64 - 4), (0x0A, -8, 99, 2**64 - 1), (0x0B, -8, 1, 2**63 - 4),
        (0x0B, -8, 2**40, 0), (0x0F, 12, 10, 8), (0x10, 12, 10, 14), (0x11, 12, 10, 6),
        (0x13, 4, 4, 1), (0x14, -1, 0, 1), (0x15, -1, 0, 0), (0x05, -(2**63), -1, 2**63),
    ],
)  # fmt: skip
def test_arithmetic_is_of_64_bits(op: int, a: int, b: int, wanted: int) -> None:
    assert value(const(a), const(b), bytes((op,))) == wanted


def test_the_other_operations() -> None:
    assert value(b"\x22\x05", b"\x0e") == 0 and value(b"\x22\x00", b"\x0e") == 1
    assert value(b"\x23\x01\x02") == 0x102 and value(b"\x24\x01\x02\x03\x04") == 0x1020304
    assert value(b"\x22\x00", b"\x12") == 2**64 - 1
    assert value(b"\x22\xff", b"\x16\x08") == 2**64 - 1  # ext
    assert value(b"\x26\x00\x01", b"\x2a\x10") == 0xFFFF  # zero_ext
    assert value(b"\x26\x00\x00") == 7
    memory = b"\x26\x00\x02"
    assert value(memory, b"\x17") == 1 and value(memory, b"\x18") == 0x201
    assert value(memory, b"\x19") == 0x4030201 and value(memory, b"\x1a") == 0x807060504030201
    one_two_three = b"\x22\x01\x22\x02\x22\x03"
    assert value(one_two_three, b"\x29") == 2 and value(one_two_three, b"\x2b") == 2
    assert value(one_two_three, b"\x33") == 2  # rot: a b c => c a b
    assert value(one_two_three, b"\x33\x29\x29") == 3
    assert value(one_two_three, b"\x32\x02") == 1 and value(one_two_three, b"\x28\x02") == 6
    # goto, and both ways of if_goto
    assert value(b"\x21\x00\x05\x22\x01", b"\x22\x02") == 2
    assert value(b"\x22\x01\x20\x00\x08\x22\x01\x27", b"\x22\x02") == 2
    assert value(b"\x22\x00\x20\x00\x08\x22\x01\x27", b"\x22\x02") == 1
    assert value(b"") == 0


@pytest.mark.parametrize(
    "code",
    [
        b"", b"\x21\x00\x00", b"\x22\x01\x20\x00\x00\x22\x01", b"\x21\xff\xff", b"\x23\x01",
        b"\x02", b"\x28", b"\x32\x05", b"\x33", b"\x2b", b"\x29", b"\x26\x00\x09", b"\x26\xff\xff",
        b"\x22\x01\x21\x00\x00", b"\x22\x05\x17\x27", const(2**64 - 1) + b"\x1a\x27",
        b"\x22\x01\x22\x00\x05\x27", b"\x22\x01\x22\x00\x08\x27", b"\x22\x01\x16\x00\x27",
        b"\x01\x27", b"\x0c\x27", b"\x2d\x00\x01\x27", b"\x1b\x27", b"\xff\x27",
        b"\x34\x00\x00\x00",
        b"\x22\x00\x22\x00\x34\x00\xff\xff", b"\x22\x00\x22\x00\x34\x01\x00\x03%d\0\x27",
        b"\x22\x00\x22\x00\x22\x00\x34\x01\x00\x03%n\0\x27",
        b"\x22\x00\x22\x00\x22\x00\x34\x01\x00\x03%f\0\x27",
        b"\x22\x00\x22\x00\x22\x00\x34\x01\x00\x0c%999999999d\0\x27",
        b"\x22\x05\x22\x00\x22\x00\x34\x01\x00\x03%s\0\x27",
    ],
)  # fmt: skip
def test_what_means_harm_is_an_error(code: bytes) -> None:
    with pytest.raises(AgentError):
        evaluate(code, Program())
    assert holds(Orders((code,)), Program())  # gdb looks itself


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_soon(code: bytes) -> None:
    shown: List[bytes] = []
    began = time.process_time()
    try:
        assert 0 <= evaluate(code, Program(), shown.append) < 2**64
    except AgentError:
        pass
    assert time.process_time() - began < 2


def test_a_grown_number_is_bounded() -> None:
    square = b"\x28\x04"  # dup mul, a thousand times
    assert value(b"\x22\x03", square * 1000) == pow(3, 2**1000, 2**64)


def printed(text: bytes, *values: int) -> bytes:
    shown: List[bytes] = []
    code = b"".join(const(v) for v in reversed(values)) + b"\x22\x00\x22\x00"
    code += b"\x34" + bytes((len(values),)) + (len(text) + 1).to_bytes(2, "big") + text + b"\0"
    evaluate(code + END, Program(), shown.append)
    return b"".join(shown)


def test_printf() -> None:
    assert printed(rb"at %d: %s\n", 5, 0x1000 + 0x70) == b"at 5: a name\n"
    assert printed(b"%5d|%-5d|%05d|%+d", 1, 2, 3, 4) == b"    1|2    |00003|+4"
    assert printed(b"%d %u %ld %hhd", -1, -1, -1, 0x1FF) == b"-1 4294967295 -1 -1"
    assert (
        printed(b"%x %#x %X %o %#lx", 255, 255, 255, 8, -1) == b"ff 0xff FF 10 0xffffffffffffffff"
    )
    assert printed(b"%c%% %p %p", 65, 0x10, 0) == b"A% 0x10 (nil)"
    assert printed(b"%.3s|%7s", 0x1070, 0x1070) == b"a n| a name"
    assert printed(rb"\t\101\\\"\q") == b'\tA\\"q'
    assert printed(b"%s", 0x1000 + 0x77) == b"\xff" * 9  # up to where memory ends


def test_conditions() -> None:
    no, yes = b"\x22\x00" + END, b"\x22\x01" + END
    assert holds(Orders(), Program())
    assert not holds(Orders((no, no)), Program()) and holds(Orders((no, yes)), Program())

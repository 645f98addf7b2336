"""What an uncaught exception's object tells, in memory laid out as each C++ library does."""

from __future__ import annotations

import struct
from typing import Dict, Optional

import pytest

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay import uncaught

GLOBALS, HEADER, OBJECT, TEXT = 0x1000, 0x2000, 0x4000, 0x6000
KIND, NAME = 0x8000, 0x9000
SI, VMI, GET, WHAT, MESSAGE = 0xA000, 0xB000, 0xC000, 0xD000, 0xE000
SYMBOLS = {
    "__cxa_get_globals": GET,
    "_ZTVN10__cxxabiv120__si_class_type_infoE": SI,
    "_ZTVN10__cxxabiv121__vmi_class_type_infoE": VMI,
    "_ZNKSt13runtime_error4whatEv": MESSAGE,
}


class Clone:
    """A process of which only memory is looked at; `__cxa_get_globals` alone can be called."""

    def __init__(self) -> None:
        self.memory: Dict[int, int] = {}
        self.snapshot = self
        self.put(0, bytes(1 << 16))
        self.words(GLOBALS, HEADER)

    def symbol(self, name: str) -> Optional[int]:
        return SYMBOLS.get(name)

    def put(self, at: int, data: bytes) -> None:
        self.memory.update(enumerate(data, at))

    def words(self, at: int, *words: int) -> None:
        self.put(at, struct.pack(f"<{len(words)}Q", *(word & (1 << 64) - 1 for word in words)))

    def read_memory(self, at: int, length: int) -> bytes:
        try:
            return bytes(self.memory[each] for each in range(at, at + length))
        except KeyError:
            raise MemoryUnavailable(at, "not there") from None

    def kind(self, name: bytes, at: int = KIND, table: int = 0, *bases: int) -> None:
        """A type_info: its vtable, its name, what its class says of bases."""
        self.words(at, table + 16, NAME + at - KIND, *bases)
        self.put(NAME + at - KIND, name + b"\0")


class Looker(uncaught._Looker):
    def _call(self, function: int, argument: int) -> int:
        return {GET: GLOBALS, WHAT: TEXT}[function]


@pytest.fixture
def clone():
    made = Clone()
    made.kind(b"i")
    return made


LIBRARIES = {b"GNUCC++": (80, 0), b"CLNGC++": (96, 8)}
"""From where an exception begins to its unwindHeader, of 32 bytes, behind which the object lies,
and to a dependent one's primaryException.  libstdc++ (unwind-cxx.h), libc++abi
(cxa_exception.h)."""


def thrown(clone: Clone, library: bytes = b"GNUCC++", dependent: bool = False) -> int:
    """An exception of that library: where its object lies."""
    unwind, primary = LIBRARIES[library]
    clone.put(HEADER + unwind, bytes([dependent]) + library[::-1])
    if dependent:
        clone.words(HEADER + primary, OBJECT)
    at = OBJECT if dependent else HEADER + unwind + 32
    clone.words(at - 112, KIND)  # exceptionType
    return at


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("library", LIBRARIES)
def test_where_each_library_has_its_object(clone, library, dependent):
    at = thrown(clone, library, dependent)
    clone.words(at, 42)
    told = Looker(clone, 1).exception()
    assert (told.type, told.address, told.what, told.foreign) == ("i", at, None, "")
    assert told.object[:8] == (42).to_bytes(8, "little") and len(told.object) == 256


def test_of_another_language_its_class_is_told(clone):
    clone.put(HEADER + 80, b"MOZ\0RUST"[::-1])
    assert Looker(clone, 1).exception().foreign == "MOZ\0RUST"


def test_terminate_without_an_exception(clone):
    clone.words(GLOBALS, 0)
    told = Looker(clone, 1).exception()
    assert (told.type, told.what, told.foreign) == ("", None, "")


LLVM = b"NSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEEE"
STRINGS = {
    "pointer": (b"PKc", [TEXT]),
    "string": (b"NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", [TEXT, 4]),
    "before C++11": (b"Ss", [TEXT]),
    "libc++'s": (LLVM, [4097, 4, TEXT]),
    "libc++'s, inside of it": (LLVM, [4 << 1 | int.from_bytes(b"text", "little") << 8]),
}


@pytest.mark.parametrize("how", STRINGS)
def test_texts_that_are_thrown_themselves(clone, how):
    name, words = STRINGS[how]
    clone.kind(name)
    clone.words(TEXT - 24, 4)
    clone.put(TEXT, b"text\0 and more")
    clone.words(thrown(clone), *words)
    assert Looker(clone, 1).exception().what == "text"


@pytest.mark.parametrize("length", [4095, 4096, 4097, 4098])
def test_a_long_text_is_cut(clone, length):
    clone.kind(STRINGS["string"][0])
    clone.put(1 << 16, b"x" * 5000)
    clone.words(thrown(clone), 1 << 16, length)
    told = Looker(clone, 1).exception()
    assert (len(told.what), told.cut) == (min(length, 4096), length > 4096)


def what_of(clone: Clone, at: int, offset: int, function: int = WHAT) -> None:
    """The std::exception in the object at `at`: its vtable, of which the third is what()."""
    clone.words(at + offset, 0x3000, TEXT)
    clone.words(0x3000, 0, 0, function)
    clone.put(TEXT, b"said\0")


@pytest.mark.parametrize("function", [WHAT, MESSAGE])
def test_a_base_class_that_is_the_only_one(clone, function):
    at = thrown(clone)
    clone.kind(b"7Derived", KIND, SI, KIND + 64)
    clone.kind(b"St9exception", KIND + 64)
    what_of(clone, at, 0, function)
    assert Looker(clone, 1).exception().what == "said"


@pytest.mark.parametrize(("offset", "is_virtual"), [(0, 0), (24, 0), (24, 1)])
def test_one_of_several_base_classes(clone, offset, is_virtual):
    """A virtual one's offset stands in the vtable, before the address point (as a rule)."""
    at = thrown(clone)
    flags = -32 << 8 | 1 if is_virtual else offset << 8
    clone.kind(b"5Other", KIND + 64)
    clone.kind(b"St9exception", KIND + 128)
    clone.kind(b"4Both", KIND, VMI, 2 << 32, KIND + 64, 0, KIND + 128, flags)
    clone.words(at, 0x3800)
    clone.words(0x3800 - 32, offset)
    what_of(clone, at, offset)
    assert Looker(clone, 1).exception().what == "said"


def test_a_class_that_is_its_own_base_ends(clone):
    thrown(clone)
    clone.kind(b"4Loop", KIND, SI, KIND)
    told = Looker(clone, 1).exception()
    assert (told.type, told.what) == ("4Loop", None)

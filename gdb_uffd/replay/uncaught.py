"""Which C++ exception a call ended with, uncaught: its type, and what it says.

By the structures of the Itanium C++ ABI ("Exception Handling", 2.2.1 C++ Exception Objects; "C++
ABI", 2.9.5 RTTI Layout), as libstdc++ (unwind-cxx.h) and libc++abi (cxa_exception.h) lay them out
where a pointer has 64 bits.  What has to run for it runs in a process beside the one that stands:
nothing of it is in a report, or stays.
"""

from __future__ import annotations

import re
import signal
import struct
from dataclasses import replace
from mmap import PROT_EXEC
from typing import Any, Iterator, Optional, Sequence

from gdb_uffd.protocol.ends import Uncaught
from gdb_uffd.protocol.model import Mapping, MemoryUnavailable, UffdError
from gdb_uffd.replay.interface import SOFTWARE, Resume, Stop
from gdb_uffd.replay.rerun.clone import Unseen, make_clone

WHAT_SECONDS = 2
"""How long what() may run, where `set uffd call-timeout` does not say less."""

TEXT_MAX = 4096
"""Bytes of a type's name, and of what it says."""

OBJECT_MAX = 256
"""Bytes of what was thrown."""

DEPTH_MAX = 64
"""Classes between a class and a base of it, and base classes of one."""

_TERMINATE = "_ZSt9terminatev"
_HANDLER = "_ZN9__gnu_cxx27__verbose_terminate_handlerEv"
_HANDLER_BYTES = 1024
_STACK_BYTES = 4096
"""libstdc++'s own handler ends by abort(): of a noexcept function it is called without
std::terminate.  How much of it, and of the stack, is looked through."""

_UNWIND = 80  # from where exceptionType stands to unwindHeader
_OBJECT = 112  # ... and to the object that was thrown
_GNU, _CLANG = b"GNUCC++", b"CLNGC++"  # exception_class without its last byte
_SHIFT = {_GNU: 0, _CLANG: 16}  # libc++abi has two words before exceptionType
_NAME = 8  # type_info: vtable, name; classes then have their bases
_BASES = 16
_EXCEPTION = b"St9exception"
_STRINGS = (b"PKc", b"Pc")
_STD_STRING = b"NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
_OLD_STRING = b"Ss"
_LLVM_STRING = re.compile(rb"NSt3__[0-9]+12basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEEE")
"""std::string of libstdc++ (pointer, length), of libstdc++ before C++11 (a pointer, the length 24
bytes before what it points to), of libc++ (bit 0 of the first byte: capacity, length, pointer
follow as words; else that byte is twice the length, and the text behind it)."""
_MESSAGES = ("_ZNKSt13runtime_error4whatEv", "_ZNKSt11logic_error4whatEv")
"""Whose what() gives the pointer behind the vtable's, in both libraries."""


def describe(real: Any, stop: Stop, sp: int) -> Optional[Uncaught]:
    """What `real` (a Diversion), which came to `stop`, ended with; None where that is no uncaught
    exception, or where it cannot be told."""
    try:
        if not _has_terminated(real, stop, sp):
            return None
        clone = make_clone(real, real.threads.save(), real.vessel.save_brk(), None)
        try:
            seconds = real.policy.call_timeout or WHAT_SECONDS
            clone.policy = replace(clone.policy, call_timeout=min(seconds, WHAT_SECONDS))
            clone.begin()
            return _Looker(clone, stop.tid).exception()
        finally:
            clone.close()
    except (UffdError, MemoryUnavailable, struct.error):
        return None


class Thrown:
    """What the last stop of `real` was about."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.last: Optional[Uncaught] = None

    def look(self, stop: Stop, sp: int) -> Optional[Uncaught]:
        """As `describe`, and `last` from now on."""
        self.last = describe(self._real, stop, sp)
        return self.last


def _has_terminated(real: Any, stop: Stop, sp: int) -> bool:
    if stop.breakpoint == "swbreak":
        pc = real.registers(stop.tid).pc
        if sp <= pc < sp + _STACK_BYTES:
            return False  # gdb's dummy frame: it returned
        return bool(pc == real.snapshot.symbol(_TERMINATE))
    return stop.signal == signal.SIGABRT and _was_aborted_by_handler(real, sp)


def _was_aborted_by_handler(real: Any, sp: int) -> bool:
    """Whether what called abort() is the library of std::terminate: on the stack that is the first
    address of code that is none of the C library's."""
    symbol = real.snapshot.symbol
    terminate, abort = symbol(_TERMINATE), symbol("abort")
    if not terminate or not abort:
        return False
    code = [m for m in real.mappings() if m.prot & PROT_EXEC]
    module, libc = _holder(code, terminate), _holder(code, abort)
    if module == libc:  # linked statically
        starts = [start for start in map(symbol, (_HANDLER, _HANDLER + ".cold")) if start]
        near = [range(start, start + _HANDLER_BYTES) for start in starts]
        return any(word in each for word in _stack(real, sp) for each in near)
    for word in _stack(real, sp):
        where = _holder(code, word)
        if where is not None and where != libc:
            return where == module
    return False


def _holder(mappings: Sequence[Mapping], address: int) -> Optional[Mapping]:
    return next((m for m in mappings if m.start <= address < m.end), None)


def _stack(real: Any, sp: int) -> Iterator[int]:
    for depth in range(0, _STACK_BYTES, 512):
        yield from struct.unpack("<64Q", real.read_memory(sp + depth, 512))


class _Looker:
    """Reads and calls in a process of its own."""

    def __init__(self, clone: Any, tid: int) -> None:
        self._clone, self._tid = clone, tid

    def _word(self, address: int) -> int:
        return int.from_bytes(self._clone.read_memory(address, 8), "little")

    def _text(self, address: int) -> bytes:
        """Up to its NUL, at most TEXT_MAX + 1 bytes."""
        out = b""
        while b"\0" not in out and len(out) <= TEXT_MAX:
            at = address + len(out)
            out += self._clone.read_memory(at, min(256, 4096 - at % 4096))
        return out.split(b"\0")[0][: TEXT_MAX + 1]

    def _bounded(self, address: int, length: int) -> bytes:
        """A text of that length, of which one byte more than TEXT_MAX tells that there is more."""
        return bytes(self._clone.read_memory(address, min(length, TEXT_MAX + 1)))

    def _string(self, name: bytes, thrown: int) -> Optional[bytes]:
        """The text of a thrown `char const *` or std::string; None for another type."""
        if name in _STRINGS:
            return self._text(self._word(thrown))
        if name == _STD_STRING:
            return self._bounded(self._word(thrown), self._word(thrown + 8))
        if name == _OLD_STRING:
            at = self._word(thrown)
            return self._bounded(at, self._word(at - 24))
        if _LLVM_STRING.fullmatch(name):
            first = self._clone.read_memory(thrown, 1)[0]
            if first & 1:
                return self._bounded(self._word(thrown + 16), self._word(thrown + 8))
            return self._bounded(thrown + 1, min(first >> 1, 22))
        return None

    def _symbol(self, name: str) -> int:
        return int(self._clone.snapshot.symbol(name) or 0)

    def exception(self) -> Optional[Uncaught]:
        get = self._symbol("__cxa_get_globals")
        if not get:
            return None
        header = self._word(self._call(get, 0))  # caughtExceptions
        if not header:
            return _told()
        for kind, shift in _SHIFT.items():
            found = self._clone.read_memory(header + shift + _UNWIND, 8)[::-1]
            if found[:7] == kind:
                return self._described(header, shift, found[7] == 1)
        found = self._clone.read_memory(header + _UNWIND, 8)[::-1]
        text = found.rstrip(b"\0").decode("ascii", "replace")
        return _told(foreign=text or "unknown")

    def _described(self, header: int, shift: int, dependent: bool) -> Uncaught:
        """`dependent`: made by std::rethrow_exception, its object is another's."""
        thrown = header + shift + _OBJECT
        if dependent:
            thrown = self._word(header + shift // 2)  # primaryException
        kind = self._word(thrown - _OBJECT)
        base = self._base(kind, thrown, 0)
        name, what = self._name(kind), None
        try:
            what = self._what(base) if base else self._string(name, thrown)
        except (UffdError, MemoryUnavailable):
            pass  # it does not return, or gives no text: the type is known
        return _told(name.decode("utf-8", "replace"), what, self._bytes(thrown), thrown)

    def _bytes(self, address: int) -> bytes:
        """As far as they are there, at most OBJECT_MAX of them."""
        for length in (OBJECT_MAX, OBJECT_MAX // 8, 8):
            try:
                return bytes(self._clone.read_memory(address, length))
            except MemoryUnavailable:
                continue
        return b""

    def _name(self, kind: int) -> bytes:
        # A name with "*" is compared by its address (libstdc++, typeinfo).
        return self._text(self._word(kind + _NAME))[:TEXT_MAX].lstrip(b"*")

    def _base(self, kind: int, thrown: int, depth: int) -> int:
        """Where in an object of that class its std::exception lies; 0 for none."""
        if self._name(kind) == _EXCEPTION:
            return thrown
        if depth >= DEPTH_MAX:
            return 0
        table = self._word(kind) - 16  # the vtable's address point is behind two words
        if table == self._symbol("_ZTVN10__cxxabiv120__si_class_type_infoE"):
            return self._base(self._word(kind + _BASES), thrown, depth + 1)
        if table != self._symbol("_ZTVN10__cxxabiv121__vmi_class_type_infoE"):
            return 0
        count = self._word(kind + _BASES) >> 32  # flags, base_count: 32 bits each
        for index in range(min(count, DEPTH_MAX)):
            one = kind + _BASES + 8 + 16 * index
            flags = self._word(one + 8)  # offset_flags: bit 0 virtual, the offset from bit 8 on
            offset = _signed(flags) >> 8
            if flags & 1:
                offset = _signed(self._word(self._word(thrown) + offset))
            found = self._base(self._word(one), thrown + offset, depth + 1 + DEPTH_MAX // 8)
            if found:
                return found
        return 0

    def _what(self, base: int) -> bytes:
        what = self._word(self._word(base) + 16)  # behind two destructors
        if what in [self._symbol(name) for name in _MESSAGES]:
            return self._text(self._word(base + 8))
        return self._text(self._call(what, base))

    def _call(self, function: int, argument: int) -> int:
        """What it returns, its effects there.  UffdError when it does not."""
        clone, tid = self._clone, self._tid
        registers = clone.registers(tid).copy()
        arch, stack = registers.arch, registers.sp - 1024 & ~15
        values = {**arch.pending, arch.arguments[0]: argument, arch.pc: function}
        clone.call_begin(function, False)
        landing = stack + 64
        if arch.link is not None:
            values[arch.link] = landing
        else:
            stack -= 8
            clone.write_memory(stack, landing.to_bytes(8, "little"))
        values[arch.sp] = stack
        clone.insert_breakpoint(SOFTWARE, landing, 1)
        for register, value in values.items():
            registers.gpr[register] = value
        clone.set_registers(tid, registers)
        action = Resume(tid, "c")
        clone.prepare(action)
        stop = clone.runner.resume(action, Unseen())  # what it throws is not described in its turn
        after = clone.registers(tid)
        clone.remove_breakpoint(SOFTWARE, landing, 1)
        clone.call_end()
        if stop.breakpoint != "swbreak" or after.pc != landing:
            raise UffdError("it did not return")
        return int(after.gpr[arch.result])


def _told(
    name: str = "",
    what: Optional[bytes] = None,
    thrown: bytes = b"",
    address: int = 0,
    foreign: str = "",
) -> Uncaught:
    text = None if what is None else what[:TEXT_MAX].decode("utf-8", "surrogateescape")
    return Uncaught(name, text, what is not None and len(what) > TEXT_MAX, thrown, address, foreign)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word

"""What lldb asks beyond gdb's packets (LLDB's docs/resources/lldbgdbremote, "LLDB GDB Remote
Protocol Extensions").  Everything else it takes from the packets that gdb uses too.

lldb knows libraries and threads from memory and registers, as on a live process; the packets here
tell it what machine and process this is, what is mapped, how each thread stands, and give its
expressions memory of their own.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from gdb_uffd.client.show.ends import end_text
from gdb_uffd.protocol.model import (
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    Mapping,
    MemoryUnavailable,
    UffdError,
    page_ceil,
)
from gdb_uffd.replay.interface import Resume
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.server.session import PacketError, StubSession, parse_hex
from gdb_uffd.server.stub import signals, threads
from gdb_uffd.server.stub.execution import stop_of, stop_reply
from gdb_uffd.server.stub.framing import escape

_WATCHPOINTS = 4  # debug registers (Intel SDM vol. 3, 18.2)
_SAVED_MAX = 64
_ALLOCATION_MAX = 1 << 30

_MAP_PRIVATE_ANONYMOUS = 0x22  # <asm-generic/mman-common.h>
_NO_DESCRIPTOR = (1 << 64) - 1
_SEARCH_CHUNK, _SEARCH_MAX = 1 << 16, 1 << 26
_SIGTRAP = 5


def host_info(session: StubSession, _arguments: bytes) -> bytes:
    """`qHostInfo`, which lldb alone asks: it selects each thread to read where it stands, before it
    resumes all of them, so what it selected last is not what the user means to run."""
    session.lldb = True
    return b"triple:%s;ptrsize:8;endian:little;ostype:linux;vm-page-size:%d;" % (
        session.diversion.snapshot.arch.triple.encode().hex().encode(),
        PAGE_SIZE,
    )


def process_info(session: StubSession, _arguments: bytes) -> bytes:
    """`qProcessInfo`: numbers in hexadecimal."""
    return b"pid:%x;triple:%s;ostype:linux;endian:little;ptrsize:8;" % (
        session.pid,
        session.diversion.snapshot.arch.triple.encode().hex().encode(),
    )


def error_strings(session: StubSession, _arguments: bytes) -> bytes:
    """`QEnableErrorStrings`: from now on an error is `Exx;` and its text in hex."""
    session.error_strings = True
    return b"OK"


def memory_region(session: StubSession, arguments: bytes) -> bytes:
    """`qMemoryRegionInfo:addr`: the mapping or the gap there; without an address, whether known."""
    if not arguments:
        return b"OK"
    address, low = parse_hex(arguments), 0
    for mapping in sorted(session.diversion.mappings(), key=lambda m: m.start):
        if address < mapping.start:
            return b"start:%x;size:%x;" % (low, mapping.start - low)
        if address < mapping.end:
            return _region(mapping)
        low = mapping.end
    return b"start:%x;size:%x;" % (low, (1 << 64) - low)


def _region(mapping: Mapping) -> bytes:
    allowed = mapping.prot_text().replace("-", "").encode()
    text = b"start:%x;size:%x;permissions:%s;" % (
        mapping.start,
        mapping.end - mapping.start,
        allowed,
    )
    name = os.fsencode(mapping.name).hex().encode()
    return text + (b"name:%s;" % name if name else b"")


def load_address(session: StubSession, arguments: bytes) -> bytes:
    """`qFileLoadAddress:path`: where the file's first mapping begins."""
    try:
        path = os.fsdecode(bytes.fromhex(arguments.decode("ascii")))
    except ValueError:
        raise PacketError(errno.EINVAL) from None
    starts = [m.start for m in session.diversion.mappings() if path and m.name == path]
    if not starts:
        raise PacketError(errno.ENOENT)
    return b"%x" % min(starts)


def watchpoints(_session: StubSession, _arguments: bytes) -> bytes:
    """`qWatchpointSupportInfo:`."""
    return b"num:%d;" % _WATCHPOINTS


def thread_stop(session: StubSession, arguments: bytes) -> bytes:
    """`qThreadStopInfo` and the thread's id: its stop reply, with its name."""
    tid = threads.parse_thread_id(session, arguments)
    if tid in (threads.ANY, threads.ALL):
        raise PacketError(errno.EINVAL)
    name = session.diversion.snapshot.thread(tid).name.encode("utf-8", "replace")
    named = b"hexname:%s;" % name.hex().encode() if name else b""
    return stop_reply(session, stop_of(session, tid), named)


def threads_info(session: StubSession) -> bytes:
    """`jThreadsInfo`: how every thread stands, a JSON list."""
    entries = []
    for thread in session.diversion.snapshot.threads:
        entry: Dict[str, Any] = {"tid": thread.tid}
        number = signals.to_gdb(stop_of(session, thread.tid).signal)
        if number:
            entry["signal"] = number
        if thread.name:
            entry["name"] = thread.name
        entries.append(entry)
    return escape(json.dumps(entries, separators=(",", ":")).encode("ascii"))


def json_packet(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """The packets that begin with `j`."""
    return threads_info(session) if arguments == b"ThreadsInfo" else None


def save_registers(session: StubSession, _arguments: bytes) -> bytes:
    """`QSaveRegisterState`: a number to restore them by."""
    if len(session.saved_registers) >= _SAVED_MAX:
        del session.saved_registers[min(session.saved_registers)]
    number = max(session.saved_registers, default=0) + 1
    tid = session.general
    session.saved_registers[number] = tid, session.diversion.registers(tid).copy()
    return b"%d" % number


def restore_registers(session: StubSession, arguments: bytes) -> bytes:
    """`QRestoreRegisterState:number`: gone once restored."""
    text = arguments.partition(b";")[0]
    saved = session.saved_registers.pop(int(text), None) if text.isdigit() else None
    if saved is None:
        raise PacketError(errno.EINVAL)
    session.general, registers = saved
    session.set_registers(registers)
    return b"OK"


# -- memory for expressions -------------------------------------------------------------------


def memory(session: StubSession, arguments: bytes) -> Optional[bytes]:
    """`_Msize,permissions`: memory of the program's, by its own mmap(2); `_maddr` gives it back."""
    kind, rest = arguments[:1], arguments[1:]
    if kind == b"M":
        size, separator, letters = rest.partition(b",")
        length = page_ceil(parse_hex(size))
        if not separator or not 0 < length <= _ALLOCATION_MAX:
            raise PacketError(errno.EINVAL)
        bits = {b"r": PROT_READ, b"w": PROT_WRITE, b"x": PROT_EXEC}
        prot = sum(bit for letter, bit in bits.items() if letter in letters)
        address = _system_call(
            session, "mmap", 0, length, prot, _MAP_PRIVATE_ANONYMOUS, _NO_DESCRIPTOR, 0
        )
        session.allocated[address] = length
        return b"%x" % address
    if kind == b"m":
        address = parse_hex(rest)
        allocated = session.allocated.pop(address, None)
        if allocated is None:
            raise PacketError(errno.EINVAL)
        _system_call(session, "munmap", address, allocated)
        return b"OK"
    return None


def _system_call(session: StubSession, name: str, *arguments: int) -> int:
    """The program makes one system call, by a step over an instruction of its own that is one.

    So the policy and the undo see it as any other call of the program.  UffdError when it failed.
    """
    diversion, tid = session.diversion, session.general
    before, siginfo = diversion.registers(tid), diversion.siginfo(tid)
    registers, where, arch = before.copy(), _instruction(session), before.arch
    values = {arch.pc: where, arch.number: syscalls.by_name()[name].number, **arch.pending}
    for index, value in {**values, **dict(zip(arch.arguments, arguments))}.items():
        registers.gpr[index] = value
    session.forget_registers()
    diversion.set_registers(tid, registers)
    try:
        stop = diversion.resume(Resume(tid, "s"), session.connection)
        after = diversion.registers(tid)
        result, at = after.gpr[arch.result], after.pc
    finally:
        diversion.set_registers(tid, before)
        diversion.set_siginfo(tid, siginfo)
    if stop.signal != _SIGTRAP or at != where + len(arch.syscall):
        raise UffdError(end_text(stop.end) or f"{name}() did not return")
    if result > (1 << 64) - 4096:  # -errno
        raise UffdError(f"{name}(): {os.strerror((1 << 64) - result)}")
    return result


def _instruction(session: StubSession) -> int:
    """The address of an instruction that makes a system call."""
    arch = session.diversion.snapshot.arch
    for start, length in _code(session):
        try:
            code = session.diversion.read_memory(start, length)
        except MemoryUnavailable:
            continue
        at = code.find(arch.syscall)
        while at % arch.code_alignment:  # -1 is odd, and found nothing
            if at < 0:
                break
            at = code.find(arch.syscall, at + 1)
        if at >= 0:
            return start + at
    raise UffdError("the program has no `syscall` instruction to allocate memory with")


def _code(session: StubSession) -> Iterator[Tuple[int, int]]:
    """(address, length) of the pieces of what is executable, up to a limit."""
    left = _SEARCH_MAX
    for mapping in session.diversion.mappings():
        # The vdso that runs is not quite the one that is shown.
        if not mapping.prot & PROT_EXEC or mapping.name.startswith("[v"):
            continue
        for start in range(mapping.start, mapping.end, _SEARCH_CHUNK):
            if left <= 0:
                return
            left -= _SEARCH_CHUNK
            yield start, min(_SEARCH_CHUNK, mapping.end - start)


NAMED: Dict[bytes, Callable[[StubSession, bytes], Optional[bytes]]] = {
    b"QEnableErrorStrings": error_strings,
    b"QRestoreRegisterState": restore_registers,
    b"QSaveRegisterState": save_registers,
    b"qFileLoadAddress": load_address,
    b"qHostInfo": host_info,
    b"qMemoryRegionInfo": memory_region,
    b"qProcessInfo": process_info,
    b"qWatchpointSupportInfo": watchpoints,
}

THREAD_STOP = b"qThreadStopInfo"
"""The one packet whose argument follows its name with nothing between."""

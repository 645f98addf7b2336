"""What a recording tells of the process as the kernel saw it: who, when, on what machine."""

from __future__ import annotations

import json
import struct
from dataclasses import field
from typing import Any, Callable, Dict, Mapping, Optional

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.trace.core.elf import PT_NOTE, ElfError, ElfImage, iter_notes
from gdb_uffd.trace.source import ReadMemory

AT_UID, AT_EUID, AT_GID, AT_EGID, AT_SYSINFO_EHDR = 11, 12, 13, 14, 33  # <elf.h>, getauxval(3)

MAX_VARIABLES = 4096
MAX_NOTE = 4096
MAX_DESCRIPTORS = 4096  # that are told of
MAX_TEXT = 4096
MAX_VARIABLE = 8192  # bytes of one environment variable that are looked at


@dataclass(frozen=True)
class ProcessFacts:
    """What is not known is 0, "" or None.

    `uid` ... `egid`: -1 when not known.  `name`: the kernel's name of the process (comm).
    `realtime_ns`, `monotonic_ns`: the clocks at the snapshot.  `cpu_ns`: user and system time that
    the process had spent.  `release`: the kernel's, "6.18.44".  `descriptors`: what the open
    descriptors were ("tcp 127.0.0.1:5432", a path, ...), None when that is not recorded.
    """

    ppid: int = 0
    pgrp: int = 0
    sid: int = 0
    uid: int = -1
    euid: int = -1
    gid: int = -1
    egid: int = -1
    name: str = ""
    realtime_ns: int = 0
    monotonic_ns: int = 0
    cpu_ns: int = 0
    cwd: str = ""
    release: str = ""
    descriptors: Optional[Mapping[int, str]] = field(default=None)


_NUMBERS = ("ppid", "pgrp", "sid", "uid", "euid", "gid", "egid")
_TEXTS = ("name", "cwd", "release")


def encode_facts(told: ProcessFacts) -> bytes:
    """JSON with the fields of ProcessFacts but for the times, for a trace."""
    out: Dict[str, Any] = {name: getattr(told, name) for name in _NUMBERS}
    for name in _TEXTS:
        out[name] = _text(getattr(told, name))
    if told.descriptors is not None:
        kept = sorted(told.descriptors.items())[:MAX_DESCRIPTORS]
        out["descriptors"] = {str(number): _text(what) for number, what in kept}
    return json.dumps(out, separators=(",", ":")).encode()


def decode_facts(raw: bytes) -> ProcessFacts:
    """What `encode_facts` wrote; ValueError."""
    try:
        data = json.loads(raw)
        out: Dict[str, Any] = {}
        for name in _NUMBERS:
            out[name] = data[name]
            if type(out[name]) is not int or not -1 <= out[name] < 1 << 32:
                raise ValueError(f"{name} is no number")
        for name in _TEXTS:
            out[name] = _checked(name, data[name])
        listed = data.get("descriptors")
        if listed is not None:
            if len(listed) > MAX_DESCRIPTORS:
                raise ValueError(f"{len(listed)} descriptors")
            out["descriptors"] = {
                int(number): _checked("a descriptor", what) for number, what in listed.items()
            }
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return ProcessFacts(**out)


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def _checked(name: str, value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT or "\0" in value:
        raise ValueError(f"{name} is no text")
    return value


def auxv_values(auxv: bytes) -> Dict[int, int]:
    """The auxiliary vector as a dictionary; the first entry of a type counts."""
    values: Dict[int, int] = {}
    for key, value in struct.iter_unpack("<QQ", auxv[: len(auxv) & ~15]):
        if key == 0:
            break
        values.setdefault(key, value)
    return values


def working_directory(read: ReadMemory, symbol: Callable[[str], Optional[int]]) -> str:
    """$PWD in the program's environment, where a shell had put it: the working directory it was
    started in; "" when there is none.  A core does not hold the directory itself."""
    address = symbol("__environ")
    if address is None:
        return ""
    try:
        (at,) = struct.unpack("<Q", read(address, 8))
        for index in range(MAX_VARIABLES):
            (variable,) = struct.unpack("<Q", read(at + 8 * index, 8))
            if not variable:
                return ""
            if read(variable, 4) == b"PWD=":
                return _directory(read, variable + 4)
    except MemoryUnavailable:
        pass
    return ""


def _directory(read: ReadMemory, address: int) -> str:
    text = b""
    while b"\0" not in text and len(text) < MAX_VARIABLE:
        step = 256 - (address + len(text)) % 256  # never across a page that is not there
        text += read(address + len(text), step)
    path = text.split(b"\0")[0]
    return path.decode("utf-8", "surrogateescape") if path.startswith(b"/") else ""


def kernel_release(vdso: int, read: ReadMemory) -> str:
    """The kernel's version by the note in its vdso ("Linux", type 0: LINUX_VERSION_CODE,
    arch/x86/entry/vdso/vdso-note.S); "" when it cannot be read."""
    if not vdso:
        return ""
    try:
        image = ElfImage.from_memory(vdso, read)
        for segment in image.segments:
            if segment.type != PT_NOTE or segment.memsz > MAX_NOTE:
                continue
            data = read(segment.vaddr + image.bias, segment.memsz)
            for owner, kind, at, length in iter_notes(data, 0, len(data)):
                if owner == b"Linux" and kind == 0 and length == 4:
                    code = int.from_bytes(data[at : at + 4], "little")
                    return f"{code >> 16}.{code >> 8 & 255}.{code & 255}"
    except (ElfError, MemoryUnavailable):
        pass
    return ""

"""What stands in for the files of /proc/self: they tell of the recorded process, not of ours."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict

from gdb_uffd.native import ffi, lib
from gdb_uffd.replay.layout import current_mappings
from gdb_uffd.replay.vessel import Vessel

SIZE_MAX = 16 << 20  # bytes of one such file


def offer(vessel: Vessel) -> None:
    """Has the vessel's system calls find them."""
    vessel.answer_own_files(lib.own_file)


@ffi.def_extern(error=-1)  # type: ignore[untyped-decorator,unused-ignore]
def own_file(context: Any, name: Any) -> int:
    """A descriptor of the file's contents, or -1; called while the vessel waits in open(2)."""
    vessel = ffi.from_handle(context)
    make = _FILES.get(ffi.string(name))
    if make is None:
        return -1
    contents = make(vessel)[:SIZE_MAX]
    descriptor = os.memfd_create("own", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(contents)
    return descriptor


def _maps(vessel: Vessel) -> bytes:
    """proc_pid_maps(5); device and inode are not recorded."""
    lines = []
    for m in current_mappings(vessel):
        name = m.name.encode("utf-8", "surrogateescape").replace(b"\n", b"\\012")
        head = f"{m.start:08x}-{m.end:08x} {m.prot_text()}p {m.offset:08x} 00:00 0 "
        lines.append(head.encode().ljust(73 if name else 0) + name)
    return b"\n".join(lines) + b"\n"


def _comm(vessel: Vessel) -> bytes:
    return bytes(ffi.string(vessel.identity.name)) + b"\n"


def _cmdline(vessel: Vessel) -> bytes:
    return vessel.snapshot.executable.encode("utf-8", "surrogateescape") + b"\0"


def _status(vessel: Vessel) -> bytes:
    """The lines of proc_pid_status(5) that are known."""
    identity = vessel.identity
    lines = [
        b"Name:\t" + bytes(ffi.string(identity.name)),
        b"State:\tR (running)",
        b"Tgid:\t%d" % identity.pid,
        b"Pid:\t%d" % identity.tid,
        b"PPid:\t%d" % identity.ppid,
        b"TracerPid:\t0",
        b"Uid:\t%d\t%d\t%d\t%d" % (identity.uid, identity.euid, identity.euid, identity.euid),
        b"Gid:\t%d\t%d\t%d\t%d" % (identity.gid, identity.egid, identity.egid, identity.egid),
        b"Threads:\t%d" % len(vessel.snapshot.threads),
    ]
    return b"\n".join(lines) + b"\n"


_FILES: Dict[bytes, Callable[[Vessel], bytes]] = {
    b"maps": _maps,
    b"auxv": lambda vessel: vessel.snapshot.auxv,
    b"comm": _comm,
    b"cmdline": _cmdline,
    b"status": _status,
}

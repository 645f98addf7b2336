"""Threads from ptrace's bytes to what a trace holds."""

from __future__ import annotations

from functools import cache
from typing import Dict, List, Optional

from gdb_uffd.arch import RECORDED, Registers
from gdb_uffd.arch.x86_64 import xstate
from gdb_uffd.native.cpu import HostCpu
from gdb_uffd.protocol.model import ThreadState
from gdb_uffd.recorder.wire import RawThread, unpack_gprs, unpack_threads


@cache
def _format() -> xstate.XsaveFormat:
    return xstate.machine_format(HostCpu())


def states(data: bytes) -> List[ThreadState]:
    """The threads of a `threads` message.  WireError, ValueError when it is broken."""
    images: Dict[bytes, bytes] = {}
    return [_state(raw, images) for raw in unpack_threads(data)]


def _state(raw: RawThread, images: Dict[bytes, bytes]) -> ThreadState:
    form: Optional[xstate.XsaveFormat] = _format()
    if len(raw.xsave) > xstate.FXSAVE_SIZE:
        image, features = xstate.from_note(raw.xsave, form)
    elif raw.xsave:
        image, features = xstate.from_fpregs(raw.xsave)
    else:
        image, features = xstate.INITIAL, 0
    image = images.setdefault(image, image)  # of many threads that wait most are equal
    registers = Registers(list(unpack_gprs(raw.gprs)), image, features, RECORDED)
    name = raw.name.decode("utf-8", "backslashreplace")
    return ThreadState(raw.tid, registers, raw.signal, raw.siginfo, raw.sigmask, name)

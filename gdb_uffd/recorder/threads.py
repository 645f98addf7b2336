"""Threads from ptrace's bytes to what a trace holds."""

from __future__ import annotations

from functools import cache
from typing import Dict, List, Optional

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import XSTATE_COMPONENTS, Registers, ThreadState
from gdb_uffd.recorder.wire import RawThread, unpack_gprs, unpack_threads
from gdb_uffd.trace.core import xstate


@cache
def machine_layout() -> xstate.Layout:
    """Where this machine's XSAVE image has its components (CPUID leaf 0DH)."""
    layout: xstate.Layout = {}
    offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    for bit in XSTATE_COMPONENTS:
        if lib.cpu_xsave_component(bit, offset, size) == 0:
            layout[bit] = (offset[0], size[0])
    return layout


def states(data: bytes) -> List[ThreadState]:
    """The threads of a `threads` message.  WireError, ValueError when it is broken."""
    images: Dict[bytes, bytes] = {}
    return [_state(raw, images) for raw in unpack_threads(data)]


def _state(raw: RawThread, images: Dict[bytes, bytes]) -> ThreadState:
    layout: Optional[xstate.Layout] = machine_layout()
    if len(raw.xsave) > xstate.FXSAVE_SIZE:
        image, features = xstate.from_note(raw.xsave, layout)
    elif raw.xsave:
        image, features = xstate.from_fpregs(raw.xsave)
    else:
        image, features = xstate.initial().xstate, 0
    image = images.setdefault(image, image)  # of many threads that wait most are equal
    registers = Registers(list(unpack_gprs(raw.gprs)), image, features)
    name = raw.name.decode("utf-8", "backslashreplace")
    return ThreadState(raw.tid, registers, raw.signal, raw.siginfo, raw.sigmask, name)

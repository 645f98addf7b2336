"""Memory as it was before and after the last report, whatever has become of it since."""

from __future__ import annotations

from typing import Any, Dict, Optional

from gdb_uffd.native import check, ffi, lib
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay.vessel import Vessel

NOW, BEFORE, AFTER, RECORDED = lib.VIEW_NOW, lib.VIEW_BEFORE, lib.VIEW_AFTER, lib.VIEW_RECORDED


class View:
    """One state of memory; `native` is for C.  Good until the vessel runs or a report is made."""

    def __init__(self) -> None:
        self.native = ffi.new("struct view *")
        check(lib.view_init(self.native), doing="view")
        self._done = ffi.new("size_t *")
        self._buffer = ffi.new("uint8_t[]", 4096)
        self._closed = False

    def set(self, vessel: Vessel, changes: Any, kind: int) -> None:
        """Read that state from now on."""
        lib.view_set(self.native, vessel.pager, changes, kind)

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes; MemoryUnavailable unless all are there."""
        buffer = self._buffer if length <= 4096 else ffi.new("uint8_t[]", length)
        if not 0 <= address < 1 << 64:
            raise MemoryUnavailable(address, "not mapped")
        if self._closed:
            raise MemoryUnavailable(address, "what was looked at is not there any more")
        if lib.view_read(self.native, address, buffer, length, self._done) < 0:
            raise MemoryUnavailable(address + self._done[0], "not there in this state")
        return bytes(ffi.buffer(buffer, length))

    def word(self, address: int) -> Optional[int]:
        """A 64-bit word; None where it cannot be had."""
        try:
            return int.from_bytes(self.read(address, 8), "little")
        except MemoryUnavailable:
            return None

    def close(self) -> None:
        """Free the native part; nothing can be read then.  Idempotent."""
        self._closed = True
        lib.view_deinit(self.native)


class Views:
    """The views of one diversion: before and after the last report, or everything since the
    snapshot (`which_all`)."""

    def __init__(self, vessel: Vessel, changes: Any) -> None:
        self._vessel = vessel
        self._changes = changes
        self._views: Dict[int, View] = {}

    def get(self, after: bool, which_all: bool) -> View:
        """That view, with nothing remembered from earlier."""
        if which_all:
            kind = NOW if after else RECORDED
        else:
            kind = AFTER if after else BEFORE
        view = self._views.get(kind)
        if view is None:
            view = self._views[kind] = View()
        view.set(self._vessel, self._changes, kind)
        return view

    def close(self) -> None:
        """Free them all.  Idempotent."""
        for view in self._views.values():
            view.close()
        self._views.clear()

"""native/pager/watch.h: the object whose writes are told one by one, in the vessel of a rerun."""

from __future__ import annotations

from typing import Any, Tuple

from gdb_uffd.native import check, ffi, lib


class Watch:
    """Of one vessel.  [start, end) are byte addresses."""

    def __init__(self, pager: Any, native: Any) -> None:
        self._pager, self._native = pager, native

    def start(self, start: int, end: int, pages: bool) -> None:
        """The bytes are remembered; `pages`: their pages are write-protected to see each write.
        UffdError."""
        check(lib.watch_start(self._pager, start, end, pages), doing="watching")

    def stop(self) -> None:
        """Idempotent."""
        lib.watch_deinit(self._native)

    @property
    def pages(self) -> bool:
        """Whether it is on, by page protection."""
        return bool(self._native.pages)

    @property
    def all(self) -> bool:
        """Whether protected pages may have changed too: mapped anew, or written by us."""
        return bool(self._native.all)

    @property
    def call(self) -> int:
        """Number of the system call under way, or that was made last."""
        return int(self._native.call)

    def compare(self, everything: bool) -> Tuple[int, int]:
        """The half-open range in which the object has changed; (0, 0) where it has not.
        UffdError."""
        low, high = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        check(lib.watch_compare(self._pager, everything, low, high), doing="comparing")
        return low[0], high[0]

    def accept(self, low: int, high: int) -> None:
        """What changed in [low, high) has been told of."""
        lib.watch_accept(self._native, low, high)

    def remembered(self, start: int, end: int) -> bytes:
        """The bytes of [start, end) as they were told last."""
        at = self._native.old + (start - self._native.start)
        return bytes(ffi.buffer(at, end - start))

"""The bytes of a report's pages before and after, from the report itself or page by page."""

from __future__ import annotations

from typing import Dict, Iterable, Optional

import gdb

from gdb_uffd.client.session.asking import FAILURES
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.protocol.messages_calls import Image, PageImage
from gdb_uffd.protocol.model import PAGE_SIZE, DirtyPage, page_floor


class Images:
    """Reads objects as they were before and after; `which_all` as in quffd.image."""

    def __init__(self, session: Session, pages: Iterable[DirtyPage], which_all: bool) -> None:
        self._session = session
        self._all = which_all
        self._pages = {page.start: page for page in pages if page.bytes_changed}
        self._images: Dict[int, Optional[PageImage]] = {}

    def read(self, address: int, size: int, after: bool) -> Optional[bytes]:
        """`size` bytes at `address` in that state; None where some cannot be had.

        The report holds what lies around a change; larger objects come page by page.
        """
        page = self._pages.get(page_floor(address))
        for run in page.around if page is not None else ():
            if run.address <= address and address + size <= run.address + len(run.before):
                content = run.after if after else run.before
                return content[address - run.address : address - run.address + size]
        out = b""
        while len(out) < size:
            at = address + len(out)
            part = self._part(at, min(size - len(out), PAGE_SIZE - at % PAGE_SIZE), after)
            if part is None:
                return None
            out += part
        return out

    def page(self, start: int) -> Optional[PageImage]:
        """The page at `start` before and after; None when it was not written."""
        return self._session.request(Image(start, self._all))

    def _part(self, address: int, size: int, after: bool) -> Optional[bytes]:
        """The same inside one page."""
        start = page_floor(address)
        if start in self._pages:
            if start not in self._images:
                self._images[start] = self.page(start)
            image = self._images[start]
            if image is not None:
                content = image.after if after else image.before
                return content[address - start : address - start + size]
        try:  # not written: as it is now
            return bytes(gdb.selected_inferior().read_memory(address, size))
        except FAILURES:
            return None

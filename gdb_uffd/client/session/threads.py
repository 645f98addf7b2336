"""Selecting another thread for a moment."""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional

import gdb

from gdb_uffd.client.session.asking import Selection


@contextlib.contextmanager
def in_thread(tid: Optional[int]) -> Iterator[None]:
    """With the thread of that TID selected; thread and frame are as they were afterwards."""
    before = gdb.selected_thread()
    if tid is None or before is None or tid in before.ptid[1:]:
        selection = Selection()
        try:
            yield
        finally:
            selection.restore()
        return
    selection = Selection()
    for thread in gdb.selected_inferior().threads():
        if tid in thread.ptid[1:]:
            thread.switch()
    try:
        yield
    finally:
        selection.restore()

"""The last call once more, on the server's side; gdb looks on between two packets."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Iterator, Optional

import gdb

from gdb_uffd.client.session.asking import Selection, flush_caches, one_cpu
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.protocol.messages_rerun import (
    RerunEnd,
    RerunStart,
    SeenWrite,
    Why,
    WhyEnd,
    WhyNext,
)
from gdb_uffd.protocol.model import UffdError


class RerunUnderWay:
    """A run of the last call that is under way; a context manager, which ends it."""

    def __init__(self, session: Session, asked: Why) -> None:
        self._session = session
        self._asked = asked
        self._selection = Selection()
        self._stack = contextlib.ExitStack()
        self.ended: Optional[RerunEnd] = None
        self.start: RerunStart

    def __enter__(self) -> "RerunUnderWay":
        cpu = self._stack.enter_context(one_cpu())
        try:
            self.start = self._session.request(replace(self._asked, cpu=cpu))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_why: object) -> None:
        try:
            # Ctrl-C here would leave gdb looking at the other process: once more, then.
            with contextlib.suppress(KeyboardInterrupt):
                self._close()
                return
            self._close()
        finally:
            self._stack.close()

    def _close(self) -> None:
        with contextlib.suppress(UffdError):
            self._session.request(WhyEnd())
        flush_caches()
        self._selection.restore()

    def writes(self) -> Iterator[SeenWrite]:
        """The writes in their order; gdb sees the process as it was at the one just given."""
        while True:
            told = self._session.request(WhyNext())
            if isinstance(told, RerunEnd):
                self.ended = told
                return
            if isinstance(told, SeenWrite):
                self.show()
                yield told

    def show(self) -> None:
        """Let gdb see the process where it stands."""
        flush_caches()
        number = self._session.position.thread_numbers.get(self.start.tid)
        thread = gdb.selected_thread()
        if thread is None or thread.num != number:
            for each in gdb.selected_inferior().threads():
                if each.num == number:
                    each.switch()

"""The last call once more, on the server's side; gdb looks on between two packets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional

import gdb

from gdb_uffd.client.session.asking import Selection, flush_caches, one_cpu
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.protocol.model import UffdError


@dataclass(frozen=True)
class RerunStart:
    """What runs again: the thread, its stack pointer before, the functions gdb called; `by`: how
    the object is watched."""

    tid: int
    sp: int
    kind: str
    kept: bool
    functions: List[int]
    by: str
    notes: List[str]


@dataclass(frozen=True)
class SeenWrite:
    """One write; see docs/protocol.md, quffd.why-next."""

    by: str
    low: int
    high: int
    window: int
    before: bytes
    after: bytes
    pc: int
    exact: bool
    sp: int
    system_call: str


@dataclass(frozen=True)
class RerunEnd:
    """How it ended."""

    writes: int
    more: bool  # than were counted
    seconds: float
    differs: str
    compared: bool
    why: str
    cut: bool


class Again:
    """A run of the last call that is under way; a context manager, which ends it."""

    def __init__(self, session: Session, arguments: Dict[str, Any]) -> None:
        self._session = session
        self._arguments = arguments
        self._selection = Selection()
        self._stack = contextlib.ExitStack()
        self.ended: Optional[RerunEnd] = None
        self.start: RerunStart

    def __enter__(self) -> "Again":
        cpu = self._stack.enter_context(one_cpu())
        arguments = self._arguments if cpu is None else {**self._arguments, "cpu": cpu}
        try:
            self.start = _start(self._session.request("why", arguments))
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
            self._session.request("why-end")
        flush_caches()
        self._selection.restore()

    def writes(self) -> Iterator[SeenWrite]:
        """The writes in their order; gdb sees the process as it was at the one just given."""
        while True:
            data = self._session.request("why-next")
            if data.get("event") == "end":
                self.ended = _ended(data)
                return
            if data.get("event") == "write":
                told = _told(data)
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


def _start(data: Any) -> RerunStart:
    try:
        return RerunStart(
            tid=int(data["tid"]),
            sp=int(data["sp"], 16),
            kind=str(data["kind"]),
            kept=bool(data["kept"]),
            functions=[int(a, 16) for a in data["functions"]],
            by=str(data["by"]),
            notes=[str(note) for note in data["notes"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UffdError(f"the server's answer to quffd.why is incomplete ({error!r})") from None


def _told(data: Any) -> SeenWrite:
    try:
        told = SeenWrite(
            by=str(data["by"]),
            low=int(data["low"], 16),
            high=int(data["high"], 16),
            window=int(data["window"], 16),
            before=bytes.fromhex(data["before"]),
            after=bytes.fromhex(data["after"]),
            pc=int(data["pc"], 16),
            exact=bool(data["exact"]),
            sp=int(data["sp"], 16),
            system_call=str(data["system_call"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UffdError(f"the server told of a write incompletely ({error!r})") from None
    if len(told.before) != len(told.after):
        raise UffdError("the server told of a write whose before and after differ in length")
    return told


def _ended(data: Any) -> RerunEnd:
    try:
        return RerunEnd(
            writes=int(data["writes"]),
            more=bool(data["more"]),
            seconds=float(data["seconds"]),
            differs=str(data["differs"]),
            compared=bool(data["compared"]),
            why=str(data["why"]),
            cut=bool(data["cut"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UffdError(f"the server's account of the run is incomplete ({error!r})") from None

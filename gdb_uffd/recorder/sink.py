"""The thread that writes snapshots into the trace, while the process runs on."""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import field
from typing import Callable, Dict, List, Optional, Sequence, Set, Union

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import PAGE_SIZE, Mapping, SnapshotInfo, ThreadState, UffdError
from gdb_uffd.recorder.capture import Chunk, Pool
from gdb_uffd.recorder.ranges import Range
from gdb_uffd.trace.core.facts import ProcessFacts
from gdb_uffd.trace.files.files import FileRef
from gdb_uffd.trace.store.pending import PendingSnapshot
from gdb_uffd.trace.store.write import TraceWriter

ZEROS = memoryview(bytes(1 << 20))


@dataclass
class Begin:
    """A snapshot begins: everything but its pages' bytes."""

    info: SnapshotInfo
    threads: Sequence[ThreadState]
    auxv: bytes
    mappings: Sequence[Mapping]
    files: Dict[str, FileRef]
    forget: List[Range] = field(default_factory=list)
    areas: List[Range] = field(default_factory=list)
    zeros: List[Range] = field(default_factory=list)


@dataclass
class Pages:
    """Pages of it; those in `held` come later, in Commit."""

    chunk: Chunk
    held: Set[int]


@dataclass
class Commit:
    """The snapshot is whole.  `code`: address of a page -> its bytes; `process`: what it was."""

    info: SnapshotInfo
    code: Dict[int, bytes]
    process: Optional[ProcessFacts] = None


@dataclass
class Whole:
    """A snapshot that somebody else puts together."""

    write: Callable[[TraceWriter], SnapshotInfo]


Item = Union[Begin, Pages, Commit, Whole, None]


class RecordSink:
    """Takes items in order.  `committed` and `failed` are called on its thread."""

    def __init__(
        self,
        writer: TraceWriter,
        pool: Pool,
        committed: Callable[[SnapshotInfo], None],
        failed: Callable[[str], None],
    ) -> None:
        self.writer = writer
        self.failure = ""
        self._pool = pool
        self._committed, self._failed = committed, failed
        self._pending: Optional[PendingSnapshot] = None
        self._items: "queue.SimpleQueue[Item]" = queue.SimpleQueue()
        self._directory = os.stat(writer.path)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Something to write; never waits."""
        self._items.put(item)

    def close(self) -> None:
        """Write what is there, drop a snapshot that is not whole, and finish the trace."""
        self._items.put(None)
        self._thread.join()
        self.writer.close()

    def _run(self) -> None:
        while True:
            item = self._items.get()
            if item is None:
                return
            try:
                if not self.failure:
                    self._write(item)
            except UffdError as error:
                self._fail(str(error))
            except Exception as error:
                self._fail(f"recording stops: {type(error).__name__}: {error}")
            finally:
                if isinstance(item, Pages):
                    self._pool.give_back(item.chunk)

    def _fail(self, text: str) -> None:
        self.failure = text
        if self._pending is not None:
            self._pending.abandon()
            self._pending = None
        self._failed(text)

    def _write(self, item: Union[Begin, Pages, Commit, Whole]) -> None:
        if isinstance(item, Begin):
            self._pending = self._begin(item)
        elif isinstance(item, Whole):
            self._told(item.write(self.writer))
        elif self._pending is None:
            raise UffdError("pages without a snapshot")
        elif isinstance(item, Pages):
            self._pages(self._pending, item)
        else:
            for page, data in item.code.items():
                self._pending.put(page, data)
            self._pending.process = item.process
            self._pending.commit(item.info)
            info, self._pending = self._pending.info, None
            self._told(info)

    def _told(self, info: SnapshotInfo) -> None:
        try:
            there = os.stat(self.writer.path)
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, self._directory):
            raise UffdError(
                f"{self.writer.path}: the trace was removed; recording stops; "
                "record anew into another directory"
            )
        self._committed(info)

    def _begin(self, item: Begin) -> PendingSnapshot:
        pending = self.writer.begin(item.info, item.threads, item.auxv, item.mappings, item.files)
        for start, end in item.forget:
            pending.forget(start, end)
        for start, end in item.areas:
            pending.area(start, (end - start) // PAGE_SIZE)
        for start, end in item.zeros:
            if end - start > 16 * len(ZEROS):
                pending.area(start, (end - start) // PAGE_SIZE)
                continue
            for at in range(start, end, len(ZEROS)):
                pending.put(at, ZEROS[: end - at])
        return pending

    @staticmethod
    def _pages(pending: PendingSnapshot, item: Pages) -> None:
        offset = 0
        with memoryview(item.chunk.memory) as view:
            for start, end, has_bytes in item.chunk.pieces():
                if not has_bytes:
                    pending.unavailable(start, (end - start) // PAGE_SIZE)
                    continue
                held = sorted(p for p in item.held if start <= p < end) if item.held else []
                for low, high in zip([start, *(p + PAGE_SIZE for p in held)], [*held, end]):
                    if low < high:
                        with view[offset + low - start : offset + high - start] as data:
                            pending.put(low, data)
                offset += end - start

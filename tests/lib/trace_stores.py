"""Traces for the tests of the store: written by the Writer, next to what they must hold."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from gdb_uffd.arch import X86_64
from gdb_uffd.arch.x86_64.xstate import XSTATE_SIZE
from gdb_uffd.protocol.model import Mapping, Registers, SnapshotInfo, ThreadState
from gdb_uffd.trace.core.facts import ProcessFacts
from gdb_uffd.trace.source import Snapshot
from gdb_uffd.trace.store.write import TraceWriter

PAGE = 4096
BASE = 0x7F0000000000


def thread(tid: int = 77, seed: int = 0, name: str = "main") -> ThreadState:
    """A thread whose registers tell its seed."""
    image = bytearray(XSTATE_SIZE)
    image[512] = 7
    image[160:168] = seed.to_bytes(8, "little")
    return ThreadState(
        tid, Registers([seed + i for i in range(27)], bytes(image), 7, X86_64), name=name
    )


@dataclass
class Memory:
    """What a process holds: page number (from BASE) -> bytes; None: cannot be read.  A page of
    `mapped` that is not in `pages` was never touched."""

    mapped: int = 64
    pages: Dict[int, Optional[bytes]] = field(default_factory=dict)

    def at(self, page: int) -> Optional[bytes]:
        """The bytes of a mapped page."""
        return self.pages.get(page, bytes(PAGE))

    def mappings(self) -> List[Mapping]:
        """One anonymous mapping."""
        return [Mapping(BASE, BASE + self.mapped * PAGE, 3)]


def read_page(snapshot: Snapshot, page: int) -> bytes:
    """Page number `page` of a snapshot."""
    return snapshot.read(BASE + page * PAGE, PAGE)


@dataclass
class Recorded:
    """A trace and the memory of each of its snapshots."""

    path: str
    memories: List[Memory] = field(default_factory=list, repr=False)


def info(label: str = "", **more: object) -> SnapshotInfo:
    """A snapshot's facts."""
    return SnapshotInfo(0, pid=77, tid=77, label=label, **more)  # type: ignore[arg-type]


def facts(number: int) -> ProcessFacts:
    """What a process was: some of it differs between snapshots."""
    return ProcessFacts(
        ppid=70, pgrp=77, sid=70, uid=1000, euid=0, gid=100, egid=100, name="prog",
        cwd="/somewhere", cpu_ns=10_000_000 * number, release="6.1.2",
        descriptors={3: "/a", 4: f"pipe:[{number // 2}]"},
    )  # fmt: skip


def record(
    folder: Path, snapshots: int = 5, pages: int = 64, dirty: int = 4, seed: int = 1,
    threads: Sequence[ThreadState] = (), name: str = "t",
) -> Recorded:  # fmt: skip
    """A trace of random pages, some of which change between snapshots."""
    random_ = random.Random(seed)
    memory = Memory(pages)
    with TraceWriter.create(str(folder / name)) as writer:
        out = Recorded(writer.path)
        for number in range(snapshots):
            pending = writer.begin(
                info(f"l{number}", time_ns=1000 + number),
                threads or [thread(seed=number)],
                b"",
                memory.mappings(),
            )
            pending.process = facts(number)
            if number == 0:
                pending.area(BASE, pages)
            chosen = range(pages) if number == 0 else random_.sample(range(pages), dirty)
            for page in sorted(chosen):
                memory.pages[page] = data = random_.randbytes(PAGE)
                pending.put(BASE + page * PAGE, data)
            assert pending.commit() == number
            out.memories.append(copy.deepcopy(memory))
    return out

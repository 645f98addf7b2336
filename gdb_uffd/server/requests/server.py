"""The requests about the server itself and what it goes by: its greeting, settings, facts."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any, Sequence

from gdb_uffd import __version__
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.messages import (
    AskInfo,
    ChosenEngine,
    Done,
    Greeting,
    Hello,
    Info,
    PolicyNow,
    Served,
    SetEngine,
    SetOutput,
    SetPolicy,
    Summary,
)
from gdb_uffd.protocol.model import PAGE_SIZE, PROTOCOL_VERSION
from gdb_uffd.replay.policy.policy import Policy  # needs the native module
from gdb_uffd.server.requests.registry import request
from gdb_uffd.server.session import StubSession
from gdb_uffd.terminal import Output
from gdb_uffd.trace.source import UNAVAILABLE, Segment


@request(Hello, looking=True, rerun=True)
def hello(_session: StubSession, asked: Hello) -> Greeting:
    """Who answers."""
    return Greeting(PROTOCOL_VERSION, __version__, os.getpid(), asked.echo)


def total_pages(segments: Sequence[Segment]) -> int:
    """Pages that can be had, zeros included."""
    return sum(s.end - s.start for s in segments if s.kind != UNAVAILABLE) // PAGE_SIZE


def served_now(session: StubSession) -> Served:
    """What the ready line told, for the snapshot that is shown now."""
    snapshot = session.diversion.snapshot
    return replace(
        session.served,
        executable=snapshot.executable,
        threads=len(snapshot.threads),
        total_pages=total_pages(snapshot.segments),
        inferior_pid=snapshot.pid,
        signal=snapshot.threads[0].signal,
        snapshot=session.navigator.position.number,
        brought=session.navigator.brought,
    )


def _host() -> str:
    """What tells this machine from others, until it is started anew (proc_sys_kernel(5))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


@request(AskInfo)
def info(session: StubSession, asked: AskInfo) -> Info:
    """What is served, and what of it runs."""
    last = session.diversion.last_report
    session.probed = asked.probe
    facts: Any = {**vars(served_now(session)), **session.diversion.info()}
    return Info(
        host=_host(),
        protocol=PROTOCOL_VERSION,
        server=__version__,
        pid=os.getpid(),
        alive=session.diversion.alive,
        last_report=None if last is None else Summary.of(last),
        last_unavailable=session.last_unavailable,
        thread=session.general,
        **facts,
    )


@request(SetOutput, rerun=True)
def output(session: StubSession, asked: SetOutput) -> Done:
    """How what the program prints is to be sent."""
    terminal = None if asked.charset is None else Output(asked.charset)
    session.connection.columns, session.connection.terminal = asked.columns, terminal
    return Done()


@request(SetEngine)
def engine(session: StubSession, asked: SetEngine) -> ChosenEngine:
    """The engine from now on."""
    session.forget_registers()
    chosen = session.navigator.set_engine(asked.name)
    used = session.diversion.info()
    lives = used.get("vessel_pid") is not None and used.get("engine") != chosen.name
    now = str(used.get("engine")) if lives else chosen.name
    return ChosenEngine(chosen.name, chosen.why, now)


@request(SetPolicy)
def policy(session: StubSession, asked: SetPolicy) -> PolicyNow:
    """What the program may do from now on."""
    diversion, wanted = session.diversion, to_json(asked)
    if wanted:
        diversion.policy = Policy.parse({**asdict(diversion.policy), **wanted})
        session.forget_registers()
    return PolicyNow(**asdict(diversion.policy))

"""Where a called function stops instead of returning."""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional

import gdb

from gdb_uffd.client.names import blocked
from gdb_uffd.client.session import frames, interrupts
from gdb_uffd.client.session.asking import FAILURES, version
from gdb_uffd.client.session.outcome import CallStop, Outcome

_FIRST_WITHOUT_EVENT = 14
"""gdb's version from which `unwind-on-signal` leaves no stop event (gdb 18.1 has none)."""


@contextlib.contextmanager
def watch_stops(outcome: Outcome) -> Iterator[None]:
    """Note where a called function stops, before gdb unwinds.

    gdb 13 has an event for such a stop; gdb 18 has none for one that it unwinds itself, so
    the end of the inferior call is looked at too: there a function that returned stands at
    gdb's dummy frame.
    """

    def on_stop(event: gdb.StopEvent) -> None:
        interrupts.finish(lambda: note(event))

    def note(event: gdb.StopEvent) -> None:
        outcome.stop = _describe(event)

    def on_call_end(event: object) -> None:
        interrupts.finish(lambda: look_back(event))

    def look_back(event: object) -> None:
        if outcome.stop is None and isinstance(event, gdb.InferiorCallPostEvent):
            with contextlib.suppress(*FAILURES):
                if gdb.newest_frame().type() != gdb.DUMMY_FRAME:
                    outcome.stop = _describe(None)
                    blocked.note_selected()

    gdb.events.stop.connect(on_stop)
    # Asking for the frame costs a tenth of a millisecond, so only where it is needed.
    needed = version() >= _FIRST_WITHOUT_EVENT
    if needed:
        gdb.events.inferior_call.connect(on_call_end)
    try:
        yield
    finally:
        gdb.events.stop.disconnect(on_stop)
        if needed:
            gdb.events.inferior_call.disconnect(on_call_end)


def _describe(event: Optional[gdb.StopEvent]) -> CallStop:
    reason, at_breakpoint = "", False
    if isinstance(event, gdb.SignalEvent):
        reason = str(event.stop_signal)
    elif isinstance(event, gdb.BreakpointEvent):
        reason, at_breakpoint = f"breakpoint {event.breakpoints[0].number}", True
    where, backtrace = "", []
    with contextlib.suppress(*FAILURES):
        where = frames.frame_text(gdb.newest_frame())
        backtrace = frames.short_backtrace()
    return CallStop(reason, where, backtrace, at_breakpoint)

"""Ctrl-C while one of our event handlers runs: gdb prints what a handler raises, and goes on.
And threads of ours in gdb, whose signals are for its own thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Callable, Iterable, Iterator, List

_kept: List[bool] = []
"""Not empty: Ctrl-C came, and nothing has been ended by it yet."""


def finish(work: Callable[[], None]) -> None:
    """Do `work`, once more from its beginning where Ctrl-C came, which is kept for `act`."""
    while True:
        try:
            work()
            return
        except KeyboardInterrupt:
            _kept[:] = [True]


def kept() -> bool:
    """Whether one came that has ended nothing yet."""
    return bool(_kept)


def take() -> bool:
    """Whether there was one; it is dealt with now."""
    found = bool(_kept)
    _kept.clear()
    return found


def act() -> None:
    """Raise it, if there was one."""
    if take():
        raise KeyboardInterrupt


@contextlib.contextmanager
def blocked(numbers: Iterable[int]) -> Iterator[None]:
    """Without these signals.  Python runs its handlers when it has changed the mask
    (signal.pthread_sigmask), so what they raise must find the way back."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def start(thread: threading.Thread) -> None:
    """Start a thread that takes no signal: gdb 18 ends by an assertion where its handler runs in
    another thread than its own (gdb manual, "Threading in GDB")."""
    with blocked(signal.valid_signals()):
        thread.start()

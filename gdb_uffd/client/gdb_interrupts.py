"""Ctrl-C while one of our event handlers runs: gdb prints what a handler raises, and goes on."""

from __future__ import annotations

from typing import Callable, List

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

"""How long the search for names may take."""

from __future__ import annotations

import time

SECONDS = 2.0
"""Of gdb's own processor time, for one report: a large program's symbols take gdb milliseconds
each, the first time."""


class Budget:
    """The time of one report, from now on."""

    def __init__(self) -> None:
        self._end = time.thread_time() + SECONDS
        self.overdrawn = False

    def spent(self) -> bool:
        """Whether it is used up; what is asked for then is not looked for."""
        self.overdrawn = self.overdrawn or time.thread_time() >= self._end
        return self.overdrawn

"""What the tests share: programs to debug, their cores, gdb processes, and who outlived them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""

CACHE = (ROOT / ".cache").resolve()
"""What takes long to make and is kept between runs; `make clean` removes it."""

_STARTS = 10
_USUAL = 0.2
"""Seconds that 10 starts of Python take on an idle machine of some 3 GHz."""


def _measured() -> float:
    """How many times longer they take here and now, where others may be at work too; 1 at least."""
    began = time.perf_counter()
    for _ in range(_STARTS):
        subprocess.run([sys.executable, "-S", "-c", "import json, re"], check=True)
    return max(1.0, (time.perf_counter() - began) / _USUAL)


EMULATED = float(os.environ.get("GDB_UFFD_TEST_SLOWNESS", "1"))
"""Set where all would take too long (`make matrix`): so many times fewer examples are tried."""

SLOWNESS = max(EMULATED, _measured())
"""How many times slower than usual this machine is: every wait is so many times longer."""

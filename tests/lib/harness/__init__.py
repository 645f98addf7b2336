"""What the tests share: programs to debug, their cores, gdb processes, and who outlived them."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""

CACHE = (ROOT / ".cache").resolve()
"""What takes long to make and is kept between runs; `make clean` removes it."""

SLOWNESS = float(os.environ.get("GDB_UFFD_TEST_SLOWNESS", "1"))
"""How many times slower than usual this machine is; an emulated one sets it, for longer waits."""

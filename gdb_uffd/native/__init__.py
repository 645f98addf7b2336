"""The native part: userfaultfd, pager thread, vessel; C through cffi in API mode.

What runs a snapshot imports it, `replay` and `server`, and `recorder`; gdb's side never does.  It
may import `protocol` and what needs nothing itself.
"""

from __future__ import annotations

import os
from typing import Any

from gdb_uffd.protocol.model import UffdError

try:
    from gdb_uffd.native._native import ffi, lib
except ImportError as error:
    raise ImportError(
        f"the native module cannot be loaded ({error}); run make in the checkout, or install "
        "gdb-uffd again"
    ) from error

__all__ = ["check", "ffi", "lib"]


def check(rc: int, error: Any = None, doing: str = "") -> int:
    """`rc` if it is not negative; else UffdError with the native text, or errno's."""
    if rc >= 0:
        return rc
    text = ""
    if error is not None:
        text = ffi.string(error.text).decode("utf-8", "replace")
        error.text[0] = b"\0"  # told once; a later failure has its own words or errno's
    if not text:
        text = f"{doing}: {os.strerror(-rc)}" if doing else os.strerror(-rc)
    raise UffdError(text)

"""The terminal as gdb is set for it: who reads what is printed, and gdb's styles."""

from __future__ import annotations

import sys
from typing import Any, Dict

import gdb

_STYLES = ("address", "filename", "function", "variable")
"""Of gdb's (gdb manual, "Output Styling")."""

_COLOURS = "black red green yellow blue magenta cyan white".split()
_INTENSITIES = {"bold": "1", "dim": "2"}


def is_typed() -> bool:
    """Whether gdb itself carries out the command, and not the Python of another program: that may
    read what it says (gdb.execute, to_string), and gdb takes only its own styles out then."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).startswith("gdb_uffd.")


def gdb_styles() -> Dict[str, str]:
    """gdb's styles as they are set now, each with its parameters of SGR."""
    return {name: _sgr(name) for name in _STYLES}


def _sgr(name: str) -> str:
    codes = [_INTENSITIES.get(str(gdb.parameter(f"style {name} intensity")), "")]
    for ground, base in (("foreground", 30), ("background", 40)):
        colour: Any = gdb.parameter(f"style {name} {ground}")
        if str(colour) in _COLOURS:
            codes.append(str(base + _COLOURS.index(str(colour))))
        elif hasattr(colour, "escape_sequence") and not colour.is_none:
            # gdb 17: a gdb.Color, of any colour space.
            codes.append(str(colour.escape_sequence(ground == "foreground"))[2:-1])
    return ";".join(filter(None, codes))

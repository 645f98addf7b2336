"""How `gdb-uffd` prints: nothing that steers a terminal; on one, lines broken between words."""

from __future__ import annotations

import os
import sys
from typing import Optional, TextIO

from gdb_uffd.client.show.text import Look
from gdb_uffd.terminal import printable_lines


def show(*lines: str, indent: int = -1, file: Optional[TextIO] = None) -> None:
    """Print lines to `file` (standard output); `indent` as in Look.wrapped."""
    stream = file if file is not None else sys.stdout
    look = Look(width=_width(stream))
    for line in [part for text in lines for part in printable_lines(text).split("\n")]:
        for part in look.wrapped(line, indent):
            print(part, file=stream)


def _width(stream: TextIO) -> int:
    """Columns of the terminal; 0 where it is none, or does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0

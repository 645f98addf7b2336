"""Numbers as a line of blocks.  No gdb here."""

from __future__ import annotations

import math
from typing import List, Optional, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.,:-=+#"
"""The same number of levels where the host's charset lacks the blocks."""


def sparkline(values: Sequence[Optional[float]], width: int, unicode: bool) -> str:
    """One character a value, or a share of the values where they are more than `width` (0: no
    limit): the lowest block for the least, the highest for the greatest.

    None (no value) and what is not finite is a blank.  "" when there is no number at all.
    """
    points = _narrowed(values, width)
    finite = [p for p in points if p is not None]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    levels = _BLOCKS if unicode else _ASCII
    # Halved first: the difference of two finite numbers may not be one.
    span = high / 2 - low / 2
    line = ""
    for point in points:
        if point is None:
            line += " "
        else:
            share = (point / 2 - low / 2) / span if span > 0 else 0.0
            line += levels[min(len(levels) - 1, int(share * len(levels)))]
    return line


def _narrowed(values: Sequence[Optional[float]], width: int) -> List[Optional[float]]:
    """At most `width` points, each the mean of its share of the values."""
    known = [_finite(v) for v in values]
    if not width or len(known) <= width:
        return known
    points: List[Optional[float]] = []
    for n in range(width):
        share = [
            v
            for v in known[n * len(known) // width : (n + 1) * len(known) // width]
            if v is not None
        ]
        points.append(sum(v / len(share) for v in share) if share else None)
    return points


def _finite(value: Optional[float]) -> Optional[float]:
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:  # a Python integer beyond the range of a double
        return None
    return number if math.isfinite(number) else None

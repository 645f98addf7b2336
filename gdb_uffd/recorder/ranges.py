"""Sets of addresses as sorted lists of disjoint half-open ranges."""

from __future__ import annotations

from typing import Iterable, List, Sequence, Tuple

Range = Tuple[int, int]


def normal(ranges: Iterable[Range]) -> List[Range]:
    """Sorted, disjoint, neighbours joined."""
    out: List[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def subtract(a: Sequence[Range], b: Sequence[Range]) -> List[Range]:
    """What of `a` is not in `b`."""
    out: List[Range] = []
    j = 0
    for start, end in a:
        while j < len(b) and b[j][1] <= start:
            j += 1
        k = j
        while start < end:
            if k == len(b) or b[k][0] >= end:
                out.append((start, end))
                break
            if b[k][0] > start:
                out.append((start, b[k][0]))
            start = b[k][1]
            k += 1
    return out


def intersect(a: Sequence[Range], b: Sequence[Range]) -> List[Range]:
    """What is in both."""
    out: List[Range] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            out.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return out

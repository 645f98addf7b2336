"""Bytes before and after, as a hex dump of the lines that differ.  No gdb here."""

from __future__ import annotations

from typing import Iterator, List, Optional, Tuple

from gdb_uffd.client.show.text import Look
from gdb_uffd.protocol.messages_calls import PageImage

LINE_BYTES = 16
"""Bytes of a line; half of them where that is too wide for the terminal."""

# A 64-bit address below 2**47 has 12 digits (x86-64 user space, psABI 3.3.1).
_ADDRESS_DIGITS = 12


def diff_lines(
    image: PageImage, look: Look, limits: Optional[Tuple[int, int]] = None, context: int = 0
) -> Iterator[str]:
    """Lines of a dump of `image`: "-" before, "+" after, only lines that differ.

    `limits`: only bytes in the half-open range `[start, end)` count.  `context`: equal lines
    shown around a different one.
    """
    widest = _line(image.start, bytes(LINE_BYTES), bytes(LINE_BYTES), look, "")
    size = LINE_BYTES if look.fits("- " + widest) else LINE_BYTES // 2
    starts = range(0, len(image.before), size)
    different = [index for index, at in enumerate(starts) if _differs(image, at, size, limits)]
    wanted = sorted(
        {
            near
            for index in different
            for near in range(max(0, index - context), min(len(starts), index + context + 1))
        }
    )
    changed = set(different)
    previous = None
    for index in wanted:
        if context and previous is not None and index != previous + 1:
            yield "  --"
        previous = index
        at = index * size
        address = image.start + at
        before = image.before[at : at + size]
        after = image.after[at : at + size]
        if index not in changed:
            yield f"  {_line(address, before, before, look, '')}"
            continue
        yield f"- {_line(address, before, after, look, 'removed')}"
        yield f"+ {_line(address, after, before, look, 'added')}"


def _differs(image: PageImage, at: int, size: int, limits: Optional[Tuple[int, int]]) -> bool:
    lo, hi = at, min(at + size, len(image.before))
    if limits is not None:
        lo = max(lo, limits[0] - image.start)
        hi = min(hi, limits[1] - image.start)
    return lo < hi and image.before[lo:hi] != image.after[lo:hi]


def _line(address: int, data: bytes, other: bytes, look: Look, style: str) -> str:
    digits: List[str] = []
    chars: List[str] = []
    for index, (byte, old) in enumerate(zip(data, other)):
        text, char = f"{byte:02x}", chr(byte) if 0x20 <= byte < 0x7F else "."
        if byte != old:
            text, char = look.paint(style, text), look.paint(style, char)
        digits.append((" " if index == LINE_BYTES // 2 else "") + text)
        chars.append(char)
    shown = look.paint("address", f"{address:#0{_ADDRESS_DIGITS + 2}x}")
    return f"{shown}  {' '.join(digits)}  |{''.join(chars)}|"

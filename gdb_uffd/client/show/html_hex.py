"""A page's bytes before and after, as a table of the HTML report.  No gdb here."""

from __future__ import annotations

import html
from typing import List, Tuple

from gdb_uffd.client.show.html_parts import folded, tag
from gdb_uffd.protocol.messages_calls import PageImage

LINE_BYTES = 16

EQUAL_LINES_SHOWN = 2
"""Equal lines that stay in sight; longer stretches fold."""


def hex_table(image: PageImage, everything: bool) -> str:
    """Lines of 16 bytes, what differs marked; equal stretches folded, or left out."""
    out: List[str] = []
    starts = range(0, len(image.before), LINE_BYTES)
    equal: List[int] = []
    for at in starts:
        if image.before[at : at + LINE_BYTES] == image.after[at : at + LINE_BYTES]:
            equal.append(at)
            continue
        out += _equal(image, equal, everything)
        equal = []
        out.append(_row(image, at))
    out += _equal(image, equal, everything)
    return "".join(out)


def changed_lines(image: PageImage) -> int:
    """How many lines of `hex_table` are not equal."""
    return sum(
        image.before[at : at + LINE_BYTES] != image.after[at : at + LINE_BYTES]
        for at in range(0, len(image.before), LINE_BYTES)
    )


def _equal(image: PageImage, lines: List[int], everything: bool) -> List[str]:
    if not lines:
        return []
    if everything and len(lines) <= EQUAL_LINES_SHOWN:
        return [_row(image, at) for at in lines]
    count = f"{len(lines)} equal line{'' if len(lines) == 1 else 's'}"
    if not everything:
        return [tag("p", f"… {count}", "equal")]
    return [folded(count, "".join(_row(image, at) for at in lines))]


def _row(image: PageImage, at: int) -> str:
    before = image.before[at : at + LINE_BYTES]
    after = image.after[at : at + LINE_BYTES]
    address = f"{image.start + at:#014x}"
    if before == after:
        digits, chars = _marked(before, after)
        return tag("pre", f"{address}  {digits}  {chars}", "same")
    old, old_chars = _marked(before, after)
    new, new_chars = _marked(after, before)
    return tag(
        "pre",
        f"{tag('span', f'{address}  {old}  {old_chars}', 'before')}\n"
        f"{tag('span', f'{address}  {new}  {new_chars}', 'after')}",
        "differs",
    )


def _marked(data: bytes, other: bytes) -> Tuple[str, str]:
    """Digits and characters; stretches that differ from `other` are marked."""
    digits: List[str] = []
    chars: List[str] = []
    for index, byte in enumerate(data):
        differs = byte != other[index]
        first = differs and (not index or data[index - 1] == other[index - 1])
        last = differs and (index == len(data) - 1 or data[index + 1] == other[index + 1])
        begin, end = "<b>" if first else "", "</b>" if last else ""
        gap = " " if index else ""
        gap += " " if index == LINE_BYTES // 2 else ""
        char = html.escape(chr(byte)) if 0x20 <= byte < 0x7F else "."
        digits.append(f"{gap}{begin}{byte:02x}{end}")
        chars.append(f"{begin}{char}{end}")
    return "".join(digits), "|" + "".join(chars) + "|"

"""How text may look: colour, the characters the host can show, numbers, widths.  No gdb here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List

_ANSI = {
    # SGR codes (ECMA-48 8.3.117) as gdb's own defaults have them: `show style function` ...
    "function": "33",
    "filename": "32",
    "address": "34",
    "removed": "31",
    "added": "32",
    "title": "1",
}

_PLAIN = str.maketrans({"→": "->", "·": ".", "…": "..."})


@dataclass(frozen=True)
class Look:
    """What the terminal allows.  `width` is in columns, 0 for no limit."""

    colour: bool = False
    unicode: bool = True
    width: int = 0

    def paint(self, style: str, text: str) -> str:
        """`text` in the colour of `style`, when colours are on."""
        return f"\x1b[{_ANSI[style]}m{text}\x1b[m" if self.colour and text else text

    def plain(self, text: str) -> str:
        """`text` with our signs (→ · …) replaced where the host's charset lacks them."""
        if self.unicode:
            return text
        return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")

    def columns(self, text: str) -> int:
        """Columns that gdb counts for `text`: it counts bytes, not characters."""
        return len(self.plain(text).encode("utf-8", "replace"))

    def fits(self, text: str) -> bool:
        """Whether `text` stays on one line; gdb breaks a line that fills the width."""
        return not self.width or self.columns(text) < self.width


def can_show(charset: str) -> bool:
    """Whether a host charset (an iconv name) can show our signs."""
    return charset.upper().replace("-", "").replace("_", "") in ("UTF8", "UTF16", "UTF32")


def number(value: int) -> str:
    """1234567 as "1,234,567"."""
    return f"{value:,}"


def plural(count: int, noun: str) -> str:
    """(1, "page") is "1 page", (1200, "page") is "1,200 pages"."""
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")


def size(value: int) -> str:
    """A count of bytes in the unit that reads best: "96 B", "9.7 MiB"."""
    if value < 1024:
        return f"{value} B"
    amount, units = value / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}"


def without_parameters(name: str) -> str:
    """A C++ function's name without its parameter list: "ns::f(int) const" is "ns::f".

    "operator()(int)" is "operator()", "(anonymous namespace)::f(int)" keeps its beginning.
    """
    end = name.rfind(")")
    depth = 0
    for index in range(end, -1, -1):
        depth += (name[index] == ")") - (name[index] == "(")
        if depth == 0:
            cut = name[:index].rstrip()
            return name if not cut or cut.endswith("operator") or "::" in name[end:] else cut
    return name


def shortened(name: str, most: int = 60) -> str:
    """A C++ name that is too long to read, without what stands in its brackets:
    "std::vector<…>::push_back"."""
    if len(name) <= most:
        return name
    out: List[str] = []
    depth = 0
    for char in name:
        if char in "<(" and not "".join(out[-8:]).endswith("operator"):
            depth += 1
            if depth == 1:
                out.append(char + "…")
        elif char in ">)" and depth:
            depth -= 1
            if depth == 0:
                out.append(char)
        elif not depth:
            out.append(char)
    text = "".join(out)
    return text if len(text) <= 2 * most else text[: 2 * most - 1] + "…"


def milliseconds(value: float) -> str:
    """A duration: "0.9 ms", "12 ms", "3.4 s"."""
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def wrap_items(look: Look, head: str, items: Iterable[str], tail: str) -> List[str]:
    """`head`, then the items joined by "; ", then `tail`: one line, or several that fit.

    Later lines begin under the items.  Painted text must come in afterwards: widths count here.
    """
    joined = "; ".join(items)
    line = f"{head}{joined}{'   ' if joined and tail else ''}{tail}".rstrip()
    if look.fits(line):
        return [line]
    indent = " " * (len(head) if look.width >= 2 * len(head) else 6)
    lines, current = [], head
    for item in [*items, *([tail] if tail else [])]:
        if current.strip() and current not in (head, indent):
            candidate = f"{current}; {item}"
            if item is not tail and look.fits(candidate):
                current = candidate
                continue
            lines.append(current.rstrip())
            current = indent + item
        elif not look.fits(current + item) and current == head and len(indent) < len(head):
            lines.append(current.rstrip())
            current = indent + item
        else:
            current += item
    lines.append(current.rstrip())
    return lines

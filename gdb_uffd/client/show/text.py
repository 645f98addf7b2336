"""How text may look: colour, the characters the host can show, numbers, widths.  No gdb here."""

from __future__ import annotations

import re
import signal
import unicodedata
from dataclasses import field
from typing import Dict, List, Sequence

from gdb_uffd.dataclass import dataclass
from gdb_uffd.terminal import printable

STYLES = {
    # Parameters of SGR (ECMA-48 8.3.117) as gdb's own defaults have them: `show style function`.
    "function": "33",
    "filename": "32",
    "variable": "36",
    "address": "34",
    # Not gdb's: as diff(1) has them.
    "removed": "31",
    "added": "32",
}

_PLAIN = str.maketrans({"→": "->", "·": ".", "…": "..."})

_SGR = re.compile("\x1b\\[([0-9;]*)m")
_WORD = re.compile(r"[ \t]*[^ \t]+")
_ENDS_NO_LINE = ("→", "->", "at")
_BEGINS_NO_LINE = ("·", ".", "()")
_NUMBER = re.compile(r"[(]?\d[\d.,]*(?<!,)$")
"""Nor does a number end a line: its unit or its noun follows."""
_JOINTS = re.compile(r"(?:::|[/,;>)=])(?![:>),;=])")
"""Behind these a word breaks that is wider than its column, a C++ name between its parts."""

_WEAK_JOINTS = re.compile(r"[<({\[_.](?![:>),;=\]])")
"""The same where it has none of those."""

_ANY_JOINTS = (_JOINTS, _WEAK_JOINTS)

_CLOSES = re.compile(r">(?![=\w])")
"""What begins so closes a template's arguments: "> >::total"."""

MIN_COLUMN = 32
"""Columns that a text is broken into; where fewer are left it begins at FAR_LEFT."""

FAR_LEFT = 6


@dataclass(frozen=True)
class Look:
    """What the terminal allows.  `width` is in columns, 0 for no limit.  `styles`: the parameters
    of SGR that a style's text is shown with."""

    colour: bool = False
    unicode: bool = True
    width: int = 0
    styles: Dict[str, str] = field(default_factory=lambda: STYLES)

    def paint(self, style: str, text: str) -> str:
        """`text`, made printable, in the colour of `style` when colours are on."""
        text, code = printable(text), self.styles.get(style, "")
        return f"\x1b[{code}m{text}\x1b[m" if self.colour and text and code else text

    def plain(self, text: str) -> str:
        """`text` with our signs (→ · …) replaced where the host's charset lacks them."""
        if self.unicode:
            return text
        return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")

    def tidy(self, text: str) -> str:
        """`text` as `plain` has it, with nothing that steers the terminal but our colours."""
        text = self.plain(text)
        if text.isprintable():
            return text
        out, at = "", 0
        for match in _SGR.finditer(text):
            ours = self.colour and (not match[1] or match[1] in self.styles.values())
            out += _shown(text[at : match.start()]) + (match[0] if ours else _shown(match[0]))
            at = match.end()
        return out + _shown(text[at:])

    def columns(self, text: str) -> int:
        """Columns of the terminal that `text` takes; colours take none."""
        text = _SGR.sub("", self.plain(text))
        return len(text) if text.isascii() and "\t" not in text else sum(map(_wide, text))

    def fits(self, text: str) -> bool:
        """Whether `text` stays on one line; gdb counts a line that fills the width as two."""
        return not self.width or self.columns(text) < self.width

    def pad(self, text: str, columns: int) -> str:
        """`text` with blanks behind it, as wide as `columns`."""
        return text + " " * max(0, columns - self.columns(text))

    def cropped(self, text: str, columns: int) -> str:
        """At most so many columns of `text`; of one that is cut, "…" tells so, and its colour ends.
        A C++ name loses what stands in its brackets first."""
        if self.columns(text) <= columns:
            return text
        if "\x1b" not in text:
            text = shortened(text, columns)
            if self.columns(text) <= columns:
                return text
        part = self._cut(text, columns - self.columns("…"), (_JOINTS,)).rstrip()
        return _closed(part.rstrip("…") + "…", _style_after("", part))

    def wrapped(self, text: str, indent: int = -1) -> List[str]:
        """`text` as lines that fit, broken between words; those after the first are indented by so
        many columns (-1: by two more than the first).  A word that is wider than a line is broken
        too: behind a slash or the like where it has one.  A line rather ends behind a "·"."""
        text = self.tidy(text)
        if self.fits(text):
            return [text]
        if indent < 0:
            indent = len(text) - len(text.lstrip(" ")) + 2
        if self.width - indent < MIN_COLUMN:
            indent = min(indent, FAR_LEFT, self.width // 2)
        lines, line, style, phrase = [], "", "", 0
        for word in self._words(text):
            if line.strip() and not self.fits(line + word):
                end = len(line)
                if phrase > self.width // 2:
                    end, style = phrase, ""  # it has no colours
                rest = line[end:] + word
                lines.append(_closed(line[:end].rstrip(), style))
                line, word, phrase = " " * indent + style, rest.lstrip(" "), 0
            while not self.fits(line + word):
                room = max(1, self.width - 1 - self.columns(line))
                part = self._cut(word, room)
                lines.append(_closed(line + part, _style_after(style, part)))
                style = _style_after(style, part)
                line, word = " " * indent + style, word[len(part) :]
            line += word
            style = _style_after(style, word)
            if word.endswith(" ·") and "\x1b" not in line:
                phrase = len(line)
        return [*lines, line.rstrip()]

    def _words(self, text: str) -> List[str]:
        """Each with the blanks before it; what must not be torn apart is one."""
        words: List[str] = []
        last = ""
        for word in _WORD.findall(text):
            bare = _SGR.sub("", word).strip()
            goes_on = bare in _BEGINS_NO_LINE or _CLOSES.match(bare)
            if words and (goes_on or last in _ENDS_NO_LINE or _NUMBER.match(last)):
                words[-1] += word
            else:
                words.append(word)
            last = bare
        return [w for word in words for w in self._narrow(word)]

    def _narrow(self, word: str) -> Sequence[str]:
        """What is kept together, or its words where even a line of their own is too short."""
        half = self.width - FAR_LEFT
        return [word] if self.columns(word) < half else _WORD.findall(word)

    def _cut(self, word: str, room: int, kinds: Sequence["re.Pattern[str]"] = _ANY_JOINTS) -> str:
        """The first part of `word` that takes at most `room` columns; a colour is not cut.  It ends
        behind a joint of the first of `kinds` that it has, else anywhere."""
        end, used, ends = 0, 0, {0: 0}
        while end < len(word):
            colour = _SGR.match(word, end)
            step = 0 if colour else self.columns(word[end])
            if used + step > room:
                break
            used += step
            end = colour.end() if colour else end + 1
            ends[end] = used
        for joints in kinds:
            fit = [at for at in map(_end, joints.finditer(word, 0, end + 1)) if at <= end]
            if fit and ends.get(fit[-1], 0) > room // 3:
                return word[: fit[-1]]
        return word[: max(1, end)]


def clipped(text: str, left: int, width: int) -> str:
    """`width` columns of `text` from column `left` on, in the colours that they have there."""
    out, at, end = "", 0, 0
    for match in [*_SGR.finditer(text), None]:
        start = match.start() if match is not None else len(text)
        for char in text[end:start]:
            step = _wide(char)
            if left <= at and at + step <= left + width:
                out += char
            at += step
        if match is not None:
            out, end = out + match[0], match.end()
    return out


def _end(match: "re.Match[str]") -> int:
    return match.end()


def _closed(line: str, style: str) -> str:
    """A colour does not reach the next line's indentation."""
    return line + "\x1b[m" if style else line


def _style_after(style: str, text: str) -> str:
    found = _SGR.findall(text)
    if not found:
        return style
    return f"\x1b[{found[-1]}m" if found[-1] else ""


def _shown(text: str) -> str:
    return printable(text, "\t")


def _wide(char: str) -> int:
    """Columns of a character: Unicode's East Asian Width (UAX #11); marks take none."""
    if char == "\t":
        return 8  # at most
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


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


def whole_size(length: int) -> str:
    """Bytes in the largest unit that they fill: "8 MiB", "1.5 GiB", "96 bytes"."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if length >= 1 << shift:
            return f"{length / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{length} bytes"


def signal_name(number: int) -> str:
    """9 as "SIGKILL"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
            no_list = "::" in name[end:] or ">" in name[end:]  # of an enclosing name
            return name if not cut or cut.endswith("operator") or no_list else cut
    return name


def shortened(name: str, most: int = 60) -> str:
    """A C++ name that is too long to read, without what stands in its brackets:
    "std::vector<…>::push_back"."""
    if len(name) <= most:
        return name
    out: List[str] = []
    depth = begun = 0
    for at, char in enumerate(name):
        if char in "<(" and not "".join(out[-8:]).endswith("operator"):
            depth += 1
            if depth == 1:
                begun = at + 1
                out.append(char)
        elif char in ">)" and depth:
            depth -= 1
            if depth == 0:
                out.append("…" + char if at > begun else char)
        elif not depth:
            out.append(char)
    text = "".join(out)
    return text if len(text) <= 2 * most else text[: 2 * most - 1] + "…"


def milliseconds(value: float) -> str:
    """A duration: "0.9 ms", "12 ms", "3.4 s"."""
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
